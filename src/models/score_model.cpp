#include "umbriel/models/score_model.hpp"

#include <algorithm>
#include <cmath>

namespace umbriel {
namespace {

float orthonormal(Grid grid) { return 1.0f / std::sqrt(static_cast<float>(grid.pixels())); }

/// Spectra of the network's inputs, scaled for the inverse transform: those of sample n at 2 n and 2 n + 1 (at n where
/// there is one input).
struct FilterInputs {
  ScoreFilters filters;
  SpectrumBatch state, inputs;
  View1<float> sigma;
  float scale;
  int channels;

  KOKKOS_INLINE_FUNCTION void operator()(int n, int ky, int kx) const {
    const auto f = filters(ky, kx, sigma(n));
    const Complex a = state(n, ky, kx);
    const float first = scale * f.first;
    inputs(channels * n, ky, kx) = Complex(first * a.real(), first * a.imag());
    if (channels == 2) {
      const float second = scale * f.second;
      inputs(2 * n + 1, ky, kx) = Complex(second * a.real(), second * a.imag());
    }
  }
};

/// Maps of the inputs as channels of activations.
struct ToChannels {
  MapBatch maps;
  Activations activations;
  int channels;

  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    for (int c = 0; c < channels; ++c) activations(n, y, x, c) = maps(channels * n + c, y, x);
  }
};

/// r from the transform of the network's output.
struct FilterOutput {
  ScoreFilters filters;
  SpectrumBatch state, transform, residual;
  View1<float> sigma;
  float scale, sigma_max;

  KOKKOS_INLINE_FUNCTION void operator()(int n, int ky, int kx) const {
    const auto f = filters(ky, kx, sigma(n));
    const Complex t = transform(n, ky, kx), a = state(n, ky, kx);
    const bool known = sigma(n) <= sigma_max;
    const float factor = known ? scale * f.output : 0.0f, own = known && !filters.gaussian ? f.gaussian : 0.0f;
    residual(n, ky, kx) = Complex(factor * t.real() + own * a.real(), factor * t.imag() + own * a.imag());
  }
};

/// (v / sigma^2)^weight of a mode; 0 for a pinned one.
struct LossWeight {
  View2<float> power;
  double weight;
  KOKKOS_INLINE_FUNCTION double operator()(int ky, int kx, float sigma) const {
    const double p = power(ky, kx), s2 = static_cast<double>(sigma) * sigma;
    if (!(p > 0)) return 0;
    return weight == 0 ? 1.0 : math::exp(weight * math::log((p + s2) / s2));
  }
};

/// Terms of the norm G of a sample.
struct NormTerm {
  LossWeight weight;
  View1<float> sigma;
  Grid grid;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int ky, int kx) const {
    const double p = weight.power(ky, kx), s2 = static_cast<double>(sigma(n)) * sigma(n);
    return p > 0 ? mode_weight(grid, kx) * weight(ky, kx, sigma(n)) * p / (p + s2) : 0.0;
  }
};

struct SetNorm {
  View1<double> norms;
  double value;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const { norms(n) = value; }
};

/// y = x + sigma n, in spectra: orthonormal ones from transforms.
struct MakeNoisy {
  SpectrumBatch state, noise;
  View1<float> sigma;
  float scale;

  KOKKOS_INLINE_FUNCTION void operator()(int n, int ky, int kx) const {
    const Complex u(scale * noise(n, ky, kx).real(), scale * noise(n, ky, kx).imag());
    const Complex x = state(n, ky, kx);
    noise(n, ky, kx) = u;
    state(n, ky, kx) = Complex(scale * x.real() + sigma(n) * u.real(), scale * x.imag() + sigma(n) * u.imag());
  }
};

/// Terms of the loss; `transform` becomes the spectrum of the loss's gradient for the network's output, scaled for the
/// inverse transform.
struct LossTerm {
  ScoreFilters filters;
  LossWeight weight;
  SpectrumBatch state, noise, transform;
  View1<float> sigma;
  View1<double> norms;
  Grid grid;
  float scale;
  double total;

  KOKKOS_INLINE_FUNCTION double operator()(int n, int ky, int kx) const {
    const auto f = filters(ky, kx, sigma(n));
    const Complex t = transform(n, ky, kx), a = state(n, ky, kx), u = noise(n, ky, kx);
    const float out = scale * f.output, own = filters.gaussian ? f.gaussian : 0.0f, s = sigma(n);
    // A pinned mode has weight 0.
    const double w = weight(ky, kx, s) / norms(n);
    const double re = u.real() + s * (out * t.real() - own * a.real());
    const double im = u.imag() + s * (out * t.imag() - own * a.imag());
    const double back = 2 * w * s * out / total;
    transform(n, ky, kx) = Complex(static_cast<float>(back * re), static_cast<float>(back * im));
    return mode_weight(grid, kx) * w * (re * re + im * im);
  }
};

/// |x - D(y)|^2 = sigma^4 |n / sigma + score|^2 a mode.
struct ErrorTerm {
  View2<float> power;
  SpectrumBatch state, noise, residual;
  Grid grid;
  float sigma;
  bool hybrid;

  KOKKOS_INLINE_FUNCTION double operator()(int n, int ky, int kx) const {
    const float p = power(ky, kx);
    if (!(p > 0)) return 0;
    const float g = 1.0f / (p + sigma * sigma);
    const Complex a = state(n, ky, kx), u = noise(n, ky, kx), r = residual(n, ky, kx);
    const double re = u.real() + sigma * (-g * a.real() + (hybrid ? r.real() : 0.0f));
    const double im = u.imag() + sigma * (-g * a.imag() + (hybrid ? r.imag() : 0.0f));
    return mode_weight(grid, kx) * static_cast<double>(sigma) * sigma * (re * re + im * im) / grid.pixels();
  }
};

ScoreFilters filters_of(const ScoreSettings& settings, const View2<float>& power, double stretch = 1) {
  const double unit = settings.whitened ? settings.field_std * stretch : stretch;
  return {power, settings.whitened, settings.gaussian, static_cast<float>(1 / unit)};
}

/// level <- sigma / stretch.
struct ScaleLevels {
  View1<float> sigma, level;
  float inverse_stretch;
  KOKKOS_INLINE_FUNCTION void operator()(const int n) const { level(n) = sigma(n) * inverse_stretch; }
};

/// The record of one tile for inference.
struct Record {
  nn::Tape tape;
  nn::Value output;

  Record(const ScoreModel& model, Grid grid, int tile) : tape(model.network().parameters(), false) {
    const Network& network = model.network();
    require_sides(network.side_multiple(), grid, "score network");
    const nn::Value x = tape.input({tile, grid.height, grid.width, network.input_channels()});
    std::vector<nn::Scalars> noise;
    for (int i = 0; i < network.noise_features(); ++i) noise.push_back(tape.scalars(tile));
    output = network.build(tape, x, noise);
  }
};

constexpr const char* format_key = "umbriel.format";
constexpr const char* format_name = "umbriel score 1";

}  // namespace

// --- the model -------------------------------------------------------------------------------------------------------

ScoreModel::ScoreModel(const Config& config, double field_std) {
  settings_.whitened = config.choice("score.parametrisation", "whitened", {"whitened", "paper"}) == "whitened";
  settings_.gaussian = config.flag("score.gaussian", true);
  const std::string usual = settings_.whitened ? "relative" : "plain";
  settings_.relative_loss = config.choice("score.loss", usual, {"relative", "plain"}) == "relative";
  settings_.loss_weight = config.number("score.loss_weight", settings_.whitened ? 0.5 : 0.0, 0, 4);
  settings_.sigma_min = config.number("score.sigma_min", settings_.sigma_min, 1e-6, 10);
  settings_.sigma_max = config.number("score.sigma_max", settings_.sigma_max, settings_.sigma_min, 100);
  settings_.field_std = config.number("score.field_std", field_std, 1e-9, 1e9);
  network_ = make_network(config, settings_.input_channels());
  config_ = config.resolved();
}

ScoreModel ScoreModel::load(const std::string& path) {
  const nn::Metadata metadata = nn::SafetensorsFile(path).metadata();
  const auto entry = [&](const char* key) {
    const auto found = metadata.find(key);
    require(found != metadata.end(), ExitCode::input, std::string("the metadata lack ").append(key), path,
            "give a file that `umbriel train score` wrote");
    return found->second;
  };
  require(entry(format_key) == format_name, ExitCode::input, "the file holds another kind of model, or a later version",
          path, "give a file that `umbriel train score` wrote");
  const Config config = Config::parse(entry("umbriel.config"), path);
  require(config.has("score.field_std"), ExitCode::input, "umbriel.config in the metadata lacks score.field_std", path,
          "give the standard deviation of the fields it was trained on");
  ScoreModel model(config, 1.0);
  nn::load_weights(path, model.network_->parameters(), model.network_->parameters().values());
  model.metadata_ = metadata;
  return model;
}

void ScoreModel::save(const std::string& path, const View1<float>& values, nn::Metadata more) const {
  more[format_key] = format_name;
  more["umbriel.config"] = config_;
  nn::save_weights(path, network_->parameters(), values, more);
}

// --- inference -------------------------------------------------------------------------------------------------------

ScoreEvaluator::ScoreEvaluator(const ScoreModel& model, const View1<float>& values, Grid grid,
                               const View2<float>& power, nn::Options options, double stretch)
    : grid_(grid),
      fft_(grid),
      model_(model.network()),
      filters_(filters_of(model.settings(), power, stretch)),
      // Rounding must not put the last level that was trained beyond the end.
      sigma_max_(1.0001f * static_cast<float>(stretch * model.settings().sigma_max)),
      inverse_stretch_(static_cast<float>(1 / stretch)),
      network_([&] {
        const Record record(model, grid, nn::samples_of_a_tile(grid.pixels()));
        return nn::FrozenNetwork(record.tape, record.output, values, std::move(options));
      }()) {
  const int tile = network_.tile(), channels = model_.input_channels();
  spectra_ = SpectrumBatch("umbriel::score_spectra", channels * tile, grid.height, grid.half_width());
  maps_ = MapBatch("umbriel::score_maps", channels * tile, grid.height, grid.width);
  input_ = Tensor("umbriel::score_input", tile, grid.height, grid.width, channels);
  output_ = Tensor("umbriel::score_output", tile, grid.height, grid.width, 1);
  sigma_ = View1<float>("umbriel::score_sigma", tile);
  level_ = View1<float>("umbriel::score_level", tile);
  for (int i = 0; i < model_.noise_features(); ++i) features_.emplace_back("umbriel::score_features", tile);
}

double ScoreEvaluator::bytes() const {
  return network_.bytes() +
         sizeof(float) * static_cast<double>(2 * spectra_.size() + maps_.size() + input_.size() + output_.size());
}

void ScoreEvaluator::residual(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                              const SpectrumBatch& residual) const {
  const int tile = network_.tile(), channels = model_.input_channels();
  const float scale = orthonormal(grid_);
  const MapBatch output(output_.data(), tile, grid_.height, grid_.width);
  for (int first = 0; first < n; first += tile) {
    const int m = std::min(tile, n - first);
    const auto range = std::make_pair(first, first + m);
    const auto here = [&](const SpectrumBatch& batch) -> SpectrumBatch {
      return Kokkos::subview(batch, range, Kokkos::ALL, Kokkos::ALL);
    };
    const SpectrumBatch my_state = here(state), my_residual = here(residual);
    Kokkos::deep_copy(space, Kokkos::subview(sigma_, std::make_pair(0, m)), Kokkos::subview(sigma, range));
    for_each_element("umbriel::score_inputs", space, m, grid_.height, grid_.half_width(),
                     FilterInputs{filters_, my_state, spectra_, sigma_, scale, channels});
    fft_.inverse(space, spectra_, maps_, channels * m);
    for_each_element("umbriel::score_channels", space, m, grid_.height, grid_.width,
                     ToChannels{maps_, Activations(input_), channels});
    Kokkos::parallel_for("umbriel::score_levels", Kokkos::RangePolicy<Space>(space, 0, m),
                         ScaleLevels{sigma_, level_, inverse_stretch_});
    model_.set_noise(space, m, level_, features_);
    network_.run(space, Activations(input_).samples(0, m), features_, Activations(output_).samples(0, m));
    fft_.forward(space, output, spectra_, m);
    for_each_element("umbriel::score_residual", space, m, grid_.height, grid_.half_width(),
                     FilterOutput{filters_, my_state, spectra_, my_residual, sigma_, scale, sigma_max_});
  }
}

std::vector<std::array<double, 2>> denoising_errors(const Space& space, const ScoreEvaluator& evaluator, Grid grid,
                                                    const View2<float>& power, int n, const MapBatch& maps,
                                                    const MapBatch& noise, float sigma) {
  const RealFft fft(grid);
  const SpectrumBatch state("umbriel::error_state", n, grid.height, grid.half_width());
  const SpectrumBatch noises("umbriel::error_noise", n, grid.height, grid.half_width());
  const SpectrumBatch residual("umbriel::error_residual", n, grid.height, grid.half_width());
  const View1<float> sigmas("umbriel::error_sigma", n);
  const SumWorkspace sums(n, grid.height);
  const View1<double> out("umbriel::error_sums", n);
  Kokkos::deep_copy(sigmas, sigma);
  fft.forward(space, maps, state, n);
  fft.forward(space, noise, noises, n);
  for_each_element("umbriel::make_noisy", space, n, grid.height, grid.half_width(),
                   MakeNoisy{state, noises, sigmas, orthonormal(grid)});
  evaluator.residual(space, n, state, sigmas, residual);
  std::vector<std::array<double, 2>> errors(static_cast<std::size_t>(n));
  for (const bool hybrid : {false, true}) {
    sum_each_map("umbriel::denoising_error", space, n, grid.height, grid.half_width(), sums, out,
                 ErrorTerm{power, state, noises, residual, grid, sigma, hybrid});
    space.fence();
    const auto host = on_host(out);
    for (int i = 0; i < n; ++i) errors[static_cast<std::size_t>(i)][hybrid ? 1 : 0] = host(i);
  }
  return errors;
}

// --- training --------------------------------------------------------------------------------------------------------

ScoreTraining::ScoreTraining(const ScoreModel& model, Grid grid, const View2<float>& power, int batch,
                             nn::Options options)
    : model_(model),
      grid_(grid),
      batch_(batch),
      filters_(filters_of(model.settings(), power)),
      tape_(model.network().parameters(), true, std::move(options)) {
  const Network& network = model.network();
  require_sides(network.side_multiple(), grid, "score network");
  input_ = tape_.input({batch, grid.height, grid.width, network.input_channels()});
  for (int i = 0; i < network.noise_features(); ++i) scalars_.push_back(tape_.scalars(batch));
  output_ = network.build(tape_, input_, scalars_);
}

void ScoreTraining::plan() {
  if (planned_) return;
  planned_ = true;
  const int channels = model_.network().input_channels();
  tape_.plan(output_);
  fft_ = std::make_unique<RealFft>(grid_);
  state_ = SpectrumBatch("umbriel::training_state", batch_, grid_.height, grid_.half_width());
  noise_ = SpectrumBatch("umbriel::training_noise", batch_, grid_.height, grid_.half_width());
  spectra_ = SpectrumBatch("umbriel::training_spectra", channels * batch_, grid_.height, grid_.half_width());
  maps_ = MapBatch("umbriel::training_maps", channels * batch_, grid_.height, grid_.width);
  sums_ = SumWorkspace(batch_, grid_.height);
  norms_ = View1<double>("umbriel::training_norms", batch_);
}

void ScoreTraining::step(const Space& space, const MapBatch& maps, const MapBatch& noise, const View1<float>& sigma,
                         int total, const View1<double>& losses, const std::function<void(std::int64_t)>& ready) {
  plan();
  const ScoreSettings& settings = model_.settings();
  const Network& network = model_.network();
  const int channels = network.input_channels();
  const float scale = orthonormal(grid_);
  fft_->forward(space, maps, state_, batch_);
  fft_->forward(space, noise, noise_, batch_);
  for_each_element("umbriel::make_noisy", space, batch_, grid_.height, grid_.half_width(),
                   MakeNoisy{state_, noise_, sigma, scale});
  for_each_element("umbriel::score_inputs", space, batch_, grid_.height, grid_.half_width(),
                   FilterInputs{filters_, state_, spectra_, sigma, scale, channels});
  fft_->inverse(space, spectra_, maps_, channels * batch_);
  for_each_element("umbriel::score_channels", space, batch_, grid_.height, grid_.width,
                   ToChannels{maps_, tape_.value(input_), channels});
  std::vector<View1<float>> features;
  for (const nn::Scalars scalars : scalars_) features.push_back(tape_.scalars(scalars));
  network.set_noise(space, batch_, sigma, features);
  tape_.forward(space);

  const MapBatch output(tape_.value(output_).data, batch_, grid_.height, grid_.width);
  const MapBatch gradient(tape_.gradient(output_).data, batch_, grid_.height, grid_.width);
  const LossWeight weight{filters_.power, settings.loss_weight};
  if (settings.relative_loss) {
    sum_each_map("umbriel::loss_norm", space, batch_, grid_.height, grid_.half_width(), sums_, norms_,
                 NormTerm{weight, sigma, grid_});
  } else {
    Kokkos::parallel_for("umbriel::loss_norm", Range(space, 0, batch_),
                         SetNorm{norms_, static_cast<double>(grid_.pixels())});
  }
  fft_->forward(space, output, spectra_, batch_);
  sum_each_map(
      "umbriel::loss", space, batch_, grid_.height, grid_.half_width(), sums_, losses,
      LossTerm{filters_, weight, state_, noise_, spectra_, sigma, norms_, grid_, scale, static_cast<double>(total)});
  // The transform's adjoint: scale * inverse of the gradient's spectrum, whose factor `scale` is in LossTerm already.
  fft_->inverse(space, spectra_, gradient, batch_);
  tape_.backward(space, ready);
}

}  // namespace umbriel
