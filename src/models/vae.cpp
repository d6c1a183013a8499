#include "umbriel/models/vae.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "umbriel/models/network.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/mpi/watchdog.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

constexpr double log_two_pi = 1.8378770664093454836;

/// Streams of normals under Purpose::training_noise: for the encoder, and three for draws of the prior;
/// residual_model.cpp has 2. Of generated maps those three are under Purpose::latent, from 0 on.
enum DrawStream : std::uint32_t { draw_of_example = 0, draw_of_validation = 1, draw_of_prior = 3 };

/// Maps that the filter of generated ones is fitted to.
constexpr std::int64_t filter_maps = 512;

std::vector<int> channels_from(const Config& config, const std::string& key, const std::vector<double>& fallback) {
  const std::vector<double> values = config.numbers(key, fallback);
  std::vector<int> channels;
  for (const double value : values) {
    require(value >= 1 && value <= 65536 && value == std::floor(value), ExitCode::usage,
            "channels are not whole numbers from 1 to 65536", config.where(key), "give one number a convolution");
    channels.push_back(static_cast<int>(value));
  }
  require(!channels.empty() && channels.size() <= 12, ExitCode::usage, "there are no convolutions, or more than 12",
          config.where(key), "give one number a convolution");
  return channels;
}

Extents as_maps_extents(const MapBatch& maps, int n) {
  return {n, static_cast<int>(maps.extent(1)), static_cast<int>(maps.extent(2)), 1};
}

KOKKOS_INLINE_FUNCTION float limited(float log_deviation) {
  constexpr float low = least_log_deviation, high = most_log_deviation;
  return log_deviation < low ? low : log_deviation > high ? high : log_deviation;
}

/// z = m + s * normal
struct DrawLatent {
  ConstActivations statistics;
  MapBatch normals;
  Activations z;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int, int c) const {
    const float* const s = statistics.pixel(n);
    z.pixel(n)[c] = math::fma(math::exp(limited(s[z.extents.c + c])), normals(n, 0, c), s[c]);
  }
};

/// KL of each sample, of which a latent variable counts at least `free`.
struct Divergence {
  ConstActivations statistics;
  int latent;
  double free;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int, int c) const {
    const auto m = static_cast<double>(statistics.pixel(n)[c]);
    const auto l = static_cast<double>(limited(statistics.pixel(n)[latent + c]));
    const double kl = 0.5 * (m * m + math::exp(2 * l) - 1) - l;
    return kl > free ? kl : free;
  }
};

/// Gradients of means and log-deviations, given that of z and the weight of KL in the loss.
struct DrawBackward {
  ConstActivations statistics, dz;
  MapBatch normals;
  Activations dstatistics;
  float weight, free;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int, int c) const {
    const int latent = dz.extents.c;
    const float m = statistics.pixel(n)[c], raw = statistics.pixel(n)[latent + c], l = limited(raw);
    const float s = math::exp(l), g = dz.pixel(n)[c];
    const float kl = 0.5f * (m * m + s * s - 1.0f) - l;
    const float w = kl > free ? weight : 0.0f;
    dstatistics.pixel(n)[c] = math::fma(w, m, g);
    const float dl = g * s * normals(n, 0, c) + w * (s * s - 1.0f);
    dstatistics.pixel(n)[latent + c] = l == raw ? dl : 0.0f;
  }
};

/// z of a map's statistics; the way back adds the gradient of KL.
class DrawOperation final : public nn::Operation {
 public:
  DrawOperation(nn::Value statistics, const MapBatch& normals, float free_nats) : normals_(normals), free_(free_nats) {
    inputs = {statistics};
  }
  std::string_view name() const override { return "latent draw"; }
  void forward(const Space& space, const nn::Tape& tape) override {
    draw_latent(space, tape.value(inputs[0]), normals_, tape.value(output));
  }
  void backward(const Space& space, const nn::Tape& tape) override {
    const Activations dz = tape.gradient(output);
    for_each_element("umbriel::latent_draw_backward", space, dz.extents.n, 1, dz.extents.c,
                     DrawBackward{tape.value(inputs[0]), dz, normals_, tape.gradient(inputs[0]), weight, free_});
  }

  float weight = 0;  ///< of KL in the loss

 private:
  MapBatch normals_;
  float free_;
};

/// -ELBO a pixel, given sums of squared errors and KL.
struct Loss {
  View1<double> squares, divergences, losses;
  const float* log_deviation;
  double first_deviation, pixels, beta;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    const double p = static_cast<double>(*log_deviation);
    const double sigma = first_deviation * math::exp(p);
    losses(n) =
        0.5 * log_two_pi + math::log(sigma) + (0.5 * squares(n) / (sigma * sigma) + beta * divergences(n)) / pixels;
  }
};

/// The gradient of an error, and of ln sigma by the first element's thread.
struct ErrorGradient {
  Activations error;
  View1<double> squares;
  const float* log_deviation;
  float* dlog_deviation;
  double first_deviation, pixels, share;
  bool learns;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t pixel) const {
    const double sigma = first_deviation * math::exp(static_cast<double>(*log_deviation));
    const double factor = share / (sigma * sigma * pixels);
    *error.pixel(pixel) *= static_cast<float>(factor);
    if (pixel > 0) return;
    double sum = 0;
    for (int n = 0; n < error.extents.n; ++n) sum += share - factor * squares(n);
    *dlog_deviation = learns ? static_cast<float>(sum) : 0.0f;
  }
};

/// The parts of maps that are even or odd in y and in x, in the first quarters that stand for them.
struct FoldIntoQuarters {
  ConstActivations maps;  // [N, H, W, 1]
  Activations quarters;   // [4 N, 1, 1, H/2 * W/2], sample 4 n + parity
  KOKKOS_INLINE_FUNCTION void operator()(int n, int, int c) const {
    const int h = maps.extents.h, w = maps.extents.w, y = c / (w / 2), x = c % (w / 2);
    const float* const map = maps.pixel(static_cast<std::int64_t>(n) * h * w);
    const float a = map[y * w + x], b = map[y * w + w - 1 - x];
    const float d = map[(h - 1 - y) * w + x], e = map[(h - 1 - y) * w + w - 1 - x];
    for (int parity = 0; parity < 4; ++parity) {
      const auto in_y = static_cast<float>(sign_in_y(parity)), in_x = static_cast<float>(sign_in_x(parity));
      quarters.pixel(4 * n + parity)[c] = 0.5f * (a + in_x * b + in_y * (d + in_x * e));
    }
  }
};

/// maps += what the quarters stand for.
struct AddQuarters {
  ConstActivations quarters;
  Activations maps;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int, int c) const {
    const int h = maps.extents.h, w = maps.extents.w, y = c / (w / 2), x = c % (w / 2);
    float* const map = maps.pixel(static_cast<std::int64_t>(n) * h * w);
    float a = 0, b = 0, d = 0, e = 0;
    for (int parity = 0; parity < 4; ++parity) {
      const auto in_y = static_cast<float>(sign_in_y(parity)), in_x = static_cast<float>(sign_in_x(parity));
      const float half = 0.5f * quarters.pixel(4 * n + parity)[c];
      a += half;
      b += in_x * half;
      d += in_y * half;
      e += in_y * in_x * half;
    }
    map[y * w + x] += a;
    map[y * w + w - 1 - x] += b;
    map[(h - 1 - y) * w + x] += d;
    map[(h - 1 - y) * w + w - 1 - x] += e;
  }
};

/// Coefficients [4 N, 1, 1, latent] of components in maps of each parity: of a component that its map has not, 0.
struct ScaleToParities {
  ConstActivations latent;  // [N, 1, 1, latent]
  const float *factor, *parity;
  Activations coefficients;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int, int c) const {
    const int own = static_cast<int>(parity[c]);
    for (int p = 0; p < 4; ++p) coefficients.pixel(4 * n + p)[c] = p == own ? factor[c] * latent.pixel(n)[c] : 0.0f;
  }
};

/// latent += coefficients * factor, by the channels of coefficients, which are the first ones of `latent`.
struct AddOfParity {
  ConstActivations coefficients;
  const float *factor, *parity;
  Activations latent;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int, int c) const {
    const float found = coefficients.pixel(4 * n + static_cast<int>(parity[c]))[c];
    latent.pixel(n)[c] = math::fma(factor[c], found, latent.pixel(n)[c]);
  }
};

/// The linear part of encoder or decoder: y = what the network found, with the coefficients of the map's components, or
/// the components of z, added to it. Its weights are buffers. Components are even or odd in y and in x: maps are folded
/// into quarters, one for each parity, and weights are those of a quarter.
class ComponentsOperation final : public nn::Operation {
 public:
  /// @param from     maps to encode, or z to decode
  /// @param network  statistics, or maps
  ComponentsOperation(nn::Value from, nn::Value network, bool encodes, int latent, nn::ParameterId vectors,
                      nn::ParameterId parities, nn::ParameterId factors)
      : encodes_(encodes), latent_(latent), vectors_(vectors), parities_(parities), factors_(factors) {
    inputs = {from, network};
  }
  std::string_view name() const override { return "principal components"; }
  void plan(const nn::Tape& tape) override {
    const Extents e = tape.extents(encodes_ ? inputs[0] : output);
    const int quarter = e.h * e.w / 4;
    dense_ = std::make_unique<Conv2d>(Conv2dGeometry{quarter, latent_, 1, 1, 1, 0, 0, Padding::zeros, 1},
                                      Extents{4 * e.n, 1, 1, quarter}, true, tape.options().backend,
                                      tape.options().precision);
    quarters_ = Tensor("umbriel::component_quarters", 4 * e.n, 1, 1, quarter);
    coefficients_ = Tensor("umbriel::component_coefficients", 4 * e.n, 1, 1, latent_);
  }
  void load_parameters(const Space& space, const nn::Tape& tape) override {
    dense_->set_weights(space, tape.parameters().buffer(vectors_));
  }
  double flops(const nn::Tape& tape) const override {
    return 2.0 * static_cast<double>(tape.extents(encodes_ ? inputs[0] : output).pixels()) * latent_;
  }

  double bytes(const nn::Tape& tape) const override {
    // The vectors in the layouts of products with them, and with their transpose.
    return 2 * sizeof(float) * static_cast<double>(tape.extents(encodes_ ? inputs[0] : output).pixels()) /
           (4 * tape.extents(output).n) * latent_;
  }

  void forward(const Space& space, const nn::Tape& tape) override {
    const Activations y = tape.value(output);
    copy_channels(space, tape.value(inputs[1]), y);
    if (encodes_) {
      to_coefficients(space, tape, tape.value(inputs[0]), y);
    } else {
      to_maps(space, tape, tape.value(inputs[0]), y);
    }
  }
  void backward(const Space& space, const nn::Tape& tape) override {
    const Activations dy = tape.gradient(output);
    if (tape.wants_gradient(inputs[0])) {
      const Activations dx = tape.gradient(inputs[0]);
      if (!tape.accumulates(*this, 0)) fill(space, 0, dx);
      if (encodes_) {
        to_maps(space, tape, dy, dx);
      } else {
        to_coefficients(space, tape, dy, dx);
      }
    }
    if (tape.wants_gradient(inputs[1]))
      copy_channels(space, dy, tape.gradient(inputs[1]), tape.accumulates(*this, 1));
  }

 private:
  /// latent += factors * (maps . vectors)
  void to_coefficients(const Space& space, const nn::Tape& tape, Activations maps, Activations latent) const {
    const int n = maps.extents.n;
    const Activations quarters = Activations(quarters_).samples(0, 4 * n);
    const Activations coefficients = Activations(coefficients_).samples(0, 4 * n);
    for_each_element("umbriel::fold_into_quarters", space, n, 1, quarters.extents.c, FoldIntoQuarters{maps, quarters});
    dense_->forward(space, quarters, nullptr, {}, Activation::none, coefficients);
    for_each_element("umbriel::add_coefficients", space, n, 1, latent_,
                     AddOfParity{coefficients, buffer(tape, factors_), buffer(tape, parities_), latent});
  }
  /// maps += (factors * latent) . vectors
  void to_maps(const Space& space, const nn::Tape& tape, Activations latent, Activations maps) const {
    const int n = maps.extents.n;
    const Activations quarters = Activations(quarters_).samples(0, 4 * n);
    const Activations coefficients = Activations(coefficients_).samples(0, 4 * n);
    for_each_element("umbriel::scale_coefficients", space, n, 1, latent_,
                     ScaleToParities{latent, buffer(tape, factors_), buffer(tape, parities_), coefficients});
    dense_->backward_data(space, coefficients, quarters, false);
    for_each_element("umbriel::add_quarters", space, n, 1, quarters.extents.c, AddQuarters{quarters, maps});
  }
  static const float* buffer(const nn::Tape& tape, nn::ParameterId id) { return tape.parameters().buffer(id); }

  bool encodes_;
  int latent_;
  nn::ParameterId vectors_, parities_, factors_;
  std::unique_ptr<Conv2d> dense_;
  Tensor quarters_, coefficients_;
};

void fill_keys(const View1<DrawKey>& keys, std::uint64_t seed, Purpose purpose, std::int64_t first,
               std::uint32_t step) {
  const auto host = Kokkos::create_mirror_view(HostMemory{}, keys);
  for (std::size_t i = 0; i < host.size(); ++i)
    host(i) = {seed, purpose, static_cast<std::uint32_t>(first + static_cast<std::int64_t>(i)), step};
  Kokkos::deep_copy(keys, host);
}

/// Fields that the prior draws.
class PriorDraws {
 public:
  /// Keeps the runner, which is loaded.
  /// @param residual  what the decoder leaves out, to be added; null: not
  PriorDraws(const Vae& vae, VaeRunner& runner, double pixel_arcmin, bool through_flow, const ResidualModel* residual)
      : runner_(runner),
        through_flow_(through_flow),
        normals_("umbriel::latent_normals", runner.batch(), 1, vae.latent()),
        latent_("umbriel::latent_variables", runner.batch(), 1, vae.latent()),
        keys_("umbriel::latent_keys", static_cast<std::size_t>(runner.batch())) {
    if (residual != nullptr) residual_.emplace(*residual, vae.grid(), pixel_arcmin, runner.batch());
  }

  /// Fields number first + i, i < n, of three streams from `stream` on. @return [batch, H, W], valid until the next
  /// call
  MapBatch operator()(const Space& space, std::uint64_t seed, Purpose purpose, std::uint32_t stream, std::int64_t first,
                      int n) {
    fill_keys(keys_, seed, purpose, first, stream);
    fill_normals(space, normals_, keys_, runner_.batch());
    if (through_flow_) {
      runner_.from_base(space, normals_, runner_.batch());
    } else {
      const Activations z = runner_.latent();
      copy_channels(space, ConstActivations(normals_.data(), z.extents), z);
    }
    const Activations z = runner_.latent();
    copy_channels(space, z, Activations(latent_.data(), z.extents));  // decoding uses it up
    const MapBatch fields = runner_.decode(space);
    if (residual_) {
      fill_keys(keys_, seed, purpose, first, stream + 1);
      residual_->add(space, keys_, n, latent_, fields);
    }
    return fields;
  }

 private:
  VaeRunner& runner_;
  bool through_flow_;
  MapBatch normals_, latent_;
  View1<DrawKey> keys_;
  std::optional<ResidualDraws> residual_;
};

class VaeGenerator final : public MapGenerator {
 public:
  VaeGenerator(const std::string& path, const Config& config, const nn::Options& options)
      : model_(TrainedVae::load(path)),
        transform_(model_.record.field, model_.record.grid, model_.record.pixel_arcmin),
        runner_(*model_.vae, maps_at_once(model_.record.grid, vae_host_pixels), options) {
    const double pixel_arcmin = model_.record.pixel_arcmin;
    const bool has_flow = model_.vae->flow() != nullptr;
    const bool through_flow =
        config.choice("generate.prior", has_flow ? "flow" : "normal", {"flow", "normal"}) == "flow";
    require(has_flow || !through_flow, ExitCode::usage, "the model was trained without a flow",
            config.where("generate.prior"), "set it to \"normal\"");
    const bool residual = config.flag("generate.residual", model_.residual.has_value());
    require(!residual || model_.residual.has_value(), ExitCode::usage,
            "the model does not say what its decoder leaves out", config.where("generate.residual"),
            "set it to false, or train the model again");
    const bool as_fitted = residual && through_flow == has_flow;
    if (config.flag("generate.filter", as_fitted && model_.filter.has_value())) {
      require(as_fitted && model_.filter.has_value(), ExitCode::usage,
              "the model has no filter for such maps: it is one of maps with their residual, drawn through the flow "
              "where there is one",
              config.where("generate.filter"), "set it to false, or train the model again");
      filter_.emplace(*model_.filter, model_.record.grid, pixel_arcmin, runner_.batch());
    }
    runner_.load(Space());
    draws_.emplace(*model_.vae, runner_, pixel_arcmin, through_flow, residual ? &*model_.residual : nullptr);
  }

  int batch() const override { return runner_.batch(); }

  void draw(const Space& space, std::uint64_t seed, std::int64_t first, int n, const MapBatch& out) override {
    const MapBatch fields = (*draws_)(space, seed, Purpose::latent, 0, first, n);
    if (filter_) filter_->apply(space, n, fields, fields);
    transform_.inverse(space, fields, n, out);
  }

 private:
  TrainedVae model_;
  FieldTransform transform_;
  VaeRunner runner_;
  std::optional<MirroredFilter> filter_;
  std::optional<PriorDraws> draws_;
};

}  // namespace

void draw_latent(const Space& space, ConstActivations statistics, const MapBatch& normals, Activations latent) {
  for_each_element("umbriel::draw_latent", space, latent.extents.n, 1, latent.extents.c,
                   DrawLatent{statistics, normals, latent});
}

// --- the network -----------------------------------------------------------------------------------------------------

Vae::Norm Vae::norm(const std::string& name, int channels) {
  Norm norm;
  if (batch_norm_) {
    norm.batch = std::make_unique<nn::BatchNorm>(parameters_, name, channels);
  } else {
    norm.group = std::make_unique<nn::GroupNorm>(parameters_, name, channels, channels % 8 == 0 ? channels / 8 : 1);
  }
  return norm;
}

Vae::Vae(const Config& config, Grid grid) : grid_(grid) {
  latent_ = static_cast<int>(config.integer("network.latent", 256, 1, 65536));
  const std::vector<int> encoder = channels_from(config, "network.encoder", {256, 128, 64});
  const std::vector<int> decoder = channels_from(config, "network.decoder", {128, 64, 32, 16});
  base_ = static_cast<int>(config.integer("network.base", 32, 1, 65536));
  const int dense = static_cast<int>(config.integer("network.dense", 1024, 1, 1 << 20));
  batch_norm_ = config.choice("network.norm", "batch", {"batch", "group"}) == "batch";
  first_deviation_ = config.number("network.deviation", 0.5, 1e-6, 1e6);
  learns_deviation_ = config.flag("network.learn_deviation", true);
  const bool components = config.flag("network.components", false);
  const bool flow = config.flag("latent.flow", true);
  require_sides(1 << std::max(encoder.size(), decoder.size()), grid, "autoencoder");

  nn::Convolution::Settings half, twice, point;
  half.kernel = twice.kernel = 4;
  half.stride = twice.stride = 2;
  half.pad = twice.pad = 1;
  twice.transposed = true;
  point.kernel = 1;
  const auto numbered = [](const char* part, std::size_t i) { return std::string(part) + "." + std::to_string(i); };
  int c = 1;
  for (std::size_t i = 0; i < encoder.size(); ++i) {
    const std::string name = numbered("encoder", i);
    nn::Convolution convolution(parameters_, name + ".convolution", c, encoder[i], half);
    encoder_.push_back({convolution, norm(name + ".norm", encoder[i])});
    c = encoder[i];
  }
  const Grid small{grid.height >> encoder.size(), grid.width >> encoder.size()};
  dense_ = nn::Dense(parameters_, "encoder.dense", static_cast<int>(small.pixels()) * c, dense);
  statistics_ = nn::Dense(parameters_, "encoder.statistics", dense, 2 * latent_, true);

  const Grid coarse{grid.height >> decoder.size(), grid.width >> decoder.size()};
  first_ = nn::Dense(parameters_, "decoder.dense", latent_, static_cast<int>(coarse.pixels()) * base_);
  first_norm_ = norm("decoder.norm", base_);
  c = base_;
  for (std::size_t i = 0; i < decoder.size(); ++i) {
    const std::string name = numbered("decoder", i);
    nn::Convolution convolution(parameters_, name + ".convolution", c, decoder[i], twice);
    decoder_.push_back({convolution, norm(name + ".norm", decoder[i])});
    c = decoder[i];
  }
  point.starts_at_zero = components;
  last_ = nn::Convolution(parameters_, "decoder.last", c, 1, point);
  if (components) {
    const int pixels = static_cast<int>(grid.pixels());
    require(latent_ < pixels, ExitCode::usage, "there are as many latent variables as pixels",
            config.where("network.latent"), "lower it");
    vectors_ = parameters_.add_buffer("components.vectors", {pixels / 4, latent_}, 0);
    parities_ = parameters_.add_buffer("components.parities", {latent_}, 0);
    to_latent_ = parameters_.add_buffer("components.to_latent", {latent_}, 0);
    to_maps_ = parameters_.add_buffer("components.to_maps", {latent_}, 0);
  }
  log_deviation_ = parameters_.add("log_deviation", nn::Role::other, {1});
  if (flow) flow_ = std::make_unique<LatentFlow>(parameters_, "flow", latent_, config);
  parameters_.allocate();
}

nn::Value Vae::encode(nn::Tape& tape, nn::Value maps) const {
  nn::Value x = maps;
  for (const Stage& stage : encoder_) x = stage.norm(tape, stage.convolution(tape, x, Activation::relu));
  const Extents e = tape.extents(x);
  const nn::Value statistics =
      statistics_(tape, dense_(tape, nn::reshape(tape, x, {e.n, 1, 1, e.h * e.w * e.c}), Activation::relu));
  if (!has_components()) return statistics;
  return tape.record(
      std::make_unique<ComponentsOperation>(maps, statistics, true, latent_, vectors_, parities_, to_latent_),
      tape.extents(statistics));
}

nn::Value Vae::decode(nn::Tape& tape, nn::Value z) const {
  const int halvings = static_cast<int>(decoder_.size());
  nn::Value x = first_(tape, z, Activation::relu);
  x = nn::reshape(tape, x, {tape.extents(z).n, grid_.height >> halvings, grid_.width >> halvings, base_});
  x = first_norm_(tape, x);
  for (const Stage& stage : decoder_) x = stage.norm(tape, stage.convolution(tape, x, Activation::relu));
  x = last_(tape, x);
  if (!has_components()) return x;
  return tape.record(std::make_unique<ComponentsOperation>(z, x, false, latent_, vectors_, parities_, to_maps_),
                     tape.extents(x));
}

void Vae::begin_at(const PrincipalComponents& found) const {
  // Tipping & Bishop's equations 6 to 8 and 11: x = W z + sigma * noise with W = V (power - sigma^2)^1/2, so that
  // E[z|x] = (W^T W + sigma^2)^-1 W^T x, whose matrix is diagonal, and z|x varies by sigma^2 / power.
  const auto latent = static_cast<std::size_t>(latent_);
  require(found.power.size() == latent, ExitCode::usage, "as many components as latent variables are wanted",
          "Vae::begin_at");
  const auto buffers = on_host(parameters_.buffer_values()), values = on_host(parameters_.values());
  const auto place = [](const nn::Parameter& p) { return static_cast<std::size_t>(p.offset); };
  const auto buffer = [&](nn::ParameterId id) {
    return buffers.data() + place(parameters_.buffers()[static_cast<std::size_t>(id.index)]);
  };
  const auto parameter = [&](const std::string& name) {
    const auto& all = parameters_.parameters();
    return values.data() + place(*std::find_if(all.begin(), all.end(), [&](const auto& p) { return p.name == name; }));
  };
  std::copy(found.vectors.begin(), found.vectors.end(), buffer(vectors_));
  std::copy(found.parity.begin(), found.parity.end(), buffer(parities_));
  const double variance = std::max(found.rest, 1e-12);
  float* const log_deviations = parameter("encoder.statistics.bias") + latent;
  for (std::size_t k = 0; k < latent; ++k) {
    const double factor = std::sqrt(std::max(0.0, found.power[k] - variance));
    buffer(to_maps_)[k] = static_cast<float>(factor);
    buffer(to_latent_)[k] = static_cast<float>(factor / std::max(found.power[k], variance));
    log_deviations[k] = static_cast<float>(0.5 * std::log(variance / std::max(found.power[k], variance)));
  }
  if (learns_deviation_)
    *parameter("log_deviation") = static_cast<float>(std::log(std::sqrt(variance) / first_deviation_));
  Kokkos::deep_copy(parameters_.buffer_values(), buffers);
  Kokkos::deep_copy(parameters_.values(), values);
}

// --- at work ---------------------------------------------------------------------------------------------------------

VaeRunner::VaeRunner(const Vae& vae, int batch, const nn::Options& options) : vae_(vae), batch_(batch) {
  const Grid grid = vae.grid();
  const auto tape = [&] { return std::make_unique<nn::Tape>(vae.parameters(), false, options); };
  encoder_ = tape();
  x_ = encoder_->input({batch, grid.height, grid.width, 1});
  statistics_ = vae.encode(*encoder_, x_);
  encoder_->plan(statistics_);
  decoder_ = tape();
  z_ = decoder_->input({batch, 1, 1, vae.latent()});
  map_ = vae.decode(*decoder_, z_);
  decoder_->plan(map_);
  if (vae.flow() == nullptr) return;
  flow_ = tape();
  u_ = flow_->input({batch, 1, 1, vae.latent()});
  flowed_ = vae.flow()->from_base(*flow_, u_);
  flow_->plan(flowed_);
}

void VaeRunner::load(const Space& space) {
  encoder_->load_parameters(space);
  decoder_->load_parameters(space);
  if (flow_) flow_->load_parameters(space);
}

Activations VaeRunner::encode(const Space& space, const MapBatch& fields, int n) {
  copy_channels(space, ConstActivations(fields.data(), as_maps_extents(fields, n)), encoder_->value(x_).samples(0, n));
  encoder_->forward(space);
  return encoder_->value(statistics_);
}

void VaeRunner::from_base(const Space& space, const MapBatch& u, int n) {
  require(flow_ != nullptr, ExitCode::usage, "this autoencoder has no flow", "VaeRunner::from_base");
  const Extents e{n, 1, 1, vae_.latent()};
  copy_channels(space, ConstActivations(u.data(), e), flow_->value(u_).samples(0, n));
  flow_->forward(space);
  copy_channels(space, flow_->value(flowed_).samples(0, n), latent().samples(0, n));
}

MapBatch VaeRunner::decode(const Space& space) {
  decoder_->forward(space);
  const Activations map = decoder_->value(map_);
  return MapBatch(map.data, static_cast<std::size_t>(map.extents.n), static_cast<std::size_t>(map.extents.h),
                  static_cast<std::size_t>(map.extents.w));
}

TrainedVae TrainedVae::load(const std::string& path) {
  TrainedVae model{GenerativeModelRecord::load(path), nullptr, 0, {}, {}};
  require(model.record.kind == "vae", ExitCode::input, "the file holds a " + model.record.kind + " model", path,
          "give a file that `umbriel train vae` wrote");
  model.vae = std::make_unique<Vae>(Config::parse(model.record.config, path), model.record.grid);
  const nn::ParameterSet& set = model.vae->parameters();
  const nn::Metadata metadata = nn::load_weights(path, set, set.values());
  const auto host = on_host(set.values());
  const auto log_deviation =
      static_cast<double>(host(static_cast<std::size_t>(set[model.vae->log_deviation()].offset)));
  model.deviation = model.vae->first_deviation() * std::exp(log_deviation);
  model.residual = ResidualModel::from(metadata, path);
  model.filter = SpectrumFilter::from(metadata, path);
  return model;
}

std::unique_ptr<MapGenerator> make_vae_generator(const std::string& path, const Config& config,
                                                 const nn::Options& options) {
  return std::make_unique<VaeGenerator>(path, config, options);
}

// --- training --------------------------------------------------------------------------------------------------------

/// A training step's tapes and arrays.
struct VaeTask::Step {
  MapBatch normals;
  View1<DrawKey> keys;
  View1<double> squares, divergences;
  SumWorkspace sums;
  nn::Tape tape;  // x -> statistics -> z -> map
  nn::Value x, statistics, z, map;
  DrawOperation* draw = nullptr;  // on the tape
  bool planned = false;
  nn::Tape flow_tape;  // z -> u
  nn::Value flow_z, flow_u;
  std::shared_ptr<LatentFlow::LogDeterminant> log_determinant = std::make_shared<LatentFlow::LogDeterminant>();

  Step(const Vae& vae, int n, float free_nats, const nn::Options& options)
      : normals("umbriel::vae_normals", n, 1, vae.latent()),
        keys("umbriel::vae_keys", static_cast<std::size_t>(n)),
        squares("umbriel::vae_squares", static_cast<std::size_t>(n)),
        divergences("umbriel::vae_divergences", static_cast<std::size_t>(n)),
        sums(n, 1),
        tape(vae.parameters(), true, options),
        flow_tape(vae.parameters(), true, options) {
    x = tape.input({n, vae.grid().height, vae.grid().width, 1});
    statistics = vae.encode(tape, x);
    auto operation = std::make_unique<DrawOperation>(statistics, normals, free_nats);
    draw = operation.get();
    z = tape.record(std::move(operation), {n, 1, 1, vae.latent()});
    map = vae.decode(tape, z);
    if (vae.flow() == nullptr) return;
    flow_z = flow_tape.input({n, 1, 1, vae.latent()});
    flow_u = vae.flow()->to_base(flow_tape, flow_z, log_determinant);
  }
};

VaeTask::VaeTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options)
    : MapTask(comm, config, seed,
              {{"standardised", false}, 8, config.text("network.norm", std::string("batch")) != "group"}),
      options_(std::move(options)) {
  options_.comm = comm;  // whose moments batch norms take
  comm.together([&] {
    beta_ = config.number("vae.beta", 1, 0, 1e6);
    free_nats_ = config.number("vae.free_nats", 0, 0, 1e6);
    vae_ = std::make_unique<Vae>(config, grid());
    step_ = std::make_shared<Step>(*vae_, part(), static_cast<float>(free_nats_), options_);
    config_ = config.resolved();
  });
}

void VaeTask::initialise(std::uint64_t seed, nn::Initialisation scheme) {
  nn::initialise(parameters(), seed, scheme);
  if (vae_->has_components()) vae_->begin_at(principal_components(on_host(fields_to_fit(Space())), vae_->latent()));
}

double VaeTask::flops() const { return 3 * parts() * (step_->tape.flops() + step_->flow_tape.flops()); }

double VaeTask::bytes() const {
  double bytes =
      (validation_size() > 0 ? 2 : 1) * parameters().bytes() + bytes_of_sums() + step_->tape.bytes(step_->map);
  if (vae_->flow() != nullptr) bytes += step_->flow_tape.bytes(step_->flow_u);
  // At the end come maps to measure, and those to compare them with.
  const double drawn = 4.0 * filter_maps / comm().size() * static_cast<double>(grid().pixels());
  return bytes + (validation_size() > 0 ? bytes_of_fitted() + drawn : 0);
}

double VaeTask::bytes_to_begin() const {
  const double components = vae_->has_components() ? principal_components_bytes(grid(), vae_->latent()) : 0;
  return std::max(MapTask::bytes_to_begin(), bytes_of_fitted() + components);
}

GenerativeModelRecord VaeTask::record() const { return {"vae", config_, grid(), pixel_arcmin(), field()}; }

void VaeTask::make_step() {
  if (step_->planned) return;
  step_->planned = true;
  step_->tape.plan(step_->map);
  if (vae_->flow() != nullptr) step_->flow_tape.plan(step_->flow_u);
}

void VaeTask::step_of_part(const Space& space, const MapBatch& fields, const View1<double>&, std::int64_t first,
                           int total, const View1<double>& losses, const std::function<void(std::int64_t)>& ready) {
  make_step();
  Step& s = *step_;
  const int n = part();
  const auto pixels = static_cast<double>(grid().pixels());
  const double share = 1.0 / total;
  fill_keys(s.keys, seed(), Purpose::training_noise, first, draw_of_example);
  fill_normals(space, s.normals, s.keys, n);
  const Activations x = s.tape.value(s.x);
  copy_channels(space, ConstActivations(fields.data(), x.extents), x);
  s.tape.forward(space);

  // The loss, and its gradient where the tape begins to go back.
  const Activations error = s.tape.gradient(s.map);
  linear_combination(space, 1, s.tape.value(s.map), -1, x, error);
  square_samples(space, error, s.squares);
  sum_each_map("umbriel::latent_divergence", space, n, 1, vae_->latent(), s.sums, s.divergences,
               Divergence{s.tape.value(s.statistics), vae_->latent(), free_nats_});
  const float* const log_deviation = parameters().value(vae_->log_deviation());
  Kokkos::parallel_for("umbriel::vae_loss", Range(space, 0, n),
                       Loss{s.squares, s.divergences, losses, log_deviation, vae_->first_deviation(), pixels, beta_});
  Kokkos::parallel_for("umbriel::vae_error_gradient", Range(space, 0, error.extents.pixels()),
                       ErrorGradient{error, s.squares, log_deviation, parameters().gradient(vae_->log_deviation()),
                                     vae_->first_deviation(), pixels, share, vae_->learns_deviation()});

  // The flow learns from z as it is; its parameters are the last ones.
  if (vae_->flow() != nullptr) {
    copy_channels(space, s.tape.value(s.z), s.flow_tape.value(s.flow_z));
    Kokkos::deep_copy(space, s.log_determinant->sum, 0.0);
    s.flow_tape.forward(space);
    const auto weight = static_cast<float>(share / vae_->latent());
    const Activations u = s.flow_tape.value(s.flow_u);
    linear_combination(space, weight, u, 0, u, s.flow_tape.gradient(s.flow_u));
    s.log_determinant->gradient = -weight;
    s.flow_tape.backward(space);
  }
  s.draw->weight = static_cast<float>(beta_ * share / pixels);
  s.tape.backward(space, ready);
}

const Vae& VaeTask::with(const View1<float>& values) {
  if (!validated_) validated_ = std::make_unique<Vae>(Config::parse(config_, "training"), grid());
  Kokkos::deep_copy(validated_->parameters().values(), values);
  Kokkos::deep_copy(validated_->parameters().buffer_values(), parameters().buffer_values());
  return *validated_;
}

std::optional<ResidualModel> VaeTask::residual(const Space& space, const View1<float>& values) {
  if (validation_size() == 0) return {};
  const Vae& vae = with(values);
  VaeRunner runner(vae, 1, {options_.backend, options_.precision, {}});
  runner.load(space);
  return measure_residual(comm(), space, vae, runner, pixel_arcmin(), seed(), [&](const auto& f) {
    for_each_validation_map(space, [&](const MapBatch& map, const View1<double>&, std::int64_t i) { f(map, i); });
  });
}

SpectrumFilter VaeTask::filter(const Space& space, const View1<float>& values, const ResidualModel& residual) {
  const Vae& vae = with(values);
  VaeRunner runner(vae, maps_at_once(grid(), vae_host_pixels), {options_.backend, options_.precision, {}});
  runner.load(space);
  PriorDraws draws(vae, runner, pixel_arcmin(), vae.flow() != nullptr, &residual);
  const ShardRange mine = shard_range(filter_maps, comm().rank(), comm().size());
  const MapBatch drawn("umbriel::drawn_fields", mine.count, grid().height, grid().width);
  for (std::int64_t done = 0; done < mine.count; done += runner.batch()) {
    report_alive();
    const std::int64_t end = std::min<std::int64_t>(mine.count, done + runner.batch());
    const int n = static_cast<int>(end - done);
    const MapBatch fields = draws(space, seed(), Purpose::training_noise, draw_of_prior, mine.first + done, n);
    Kokkos::deep_copy(space, Kokkos::subview(drawn, std::make_pair(done, end), Kokkos::ALL, Kokkos::ALL),
                      Kokkos::subview(fields, std::make_pair(0, n), Kokkos::ALL, Kokkos::ALL));
  }
  return fit_spectrum_filter(comm(), space, transform(), grid(), pixel_arcmin(), drawn, fields_to_fit(space));
}

std::vector<std::pair<std::string, double>> VaeTask::validate(const Space& space, const View1<float>& values) {
  const nn::ParameterSet& set = with(values).parameters();
  const int latent = validated_->latent();
  VaeRunner runner(*validated_, 1, {options_.backend, options_.precision, {}});
  runner.load(space);
  nn::Tape flow_tape(set, false, {options_.backend, options_.precision, {}});
  const auto log_determinant = std::make_shared<LatentFlow::LogDeterminant>();
  nn::Value flow_z, flow_u;
  if (validated_->flow() != nullptr) {
    flow_z = flow_tape.input({1, 1, 1, latent});
    flow_u = validated_->flow()->to_base(flow_tape, flow_z, log_determinant);
    flow_tape.plan(flow_u);
    flow_tape.load_parameters(space);
  }
  const MapBatch normals("umbriel::validation_normals", 1, 1, latent);
  const View1<DrawKey> keys("umbriel::validation_keys", 1);
  const View1<double> square("umbriel::square", 1), divergence("umbriel::divergence", 1), loss("umbriel::loss", 1);
  const SumWorkspace workspace(1, 1);
  const auto pixels = static_cast<double>(grid().pixels());
  const Tensor error("umbriel::validation_error", 1, grid().height, grid().width, 1);
  const float* const log_deviation = set.value(validated_->log_deviation());
  const auto number = [&](const View1<double>& view) {
    space.fence();
    return on_host(view)(0);
  };
  std::vector<ExactSum> sums(4);
  for_each_validation_map(space, [&](const MapBatch& field, const View1<double>&, std::int64_t index) {
    const Activations statistics = runner.encode(space, field, 1);
    fill_keys(keys, seed(), Purpose::training_noise, index, draw_of_validation);
    fill_normals(space, normals, keys, 1);
    draw_latent(space, statistics, normals, runner.latent());
    sum_each_map("umbriel::latent_divergence", space, 1, 1, latent, workspace, divergence,
                 Divergence{statistics, latent, 0});
    // The tapes keep no input: the flow first.
    if (validated_->flow() != nullptr) {
      square_samples(space, runner.latent(), square);
      double gain = 0.5 * number(square);
      copy_channels(space, runner.latent(), flow_tape.value(flow_z));
      Kokkos::deep_copy(space, log_determinant->sum, 0.0);
      flow_tape.forward(space);
      square_samples(space, flow_tape.value(flow_u), square);
      gain += number(log_determinant->sum) - 0.5 * number(square);
      sums[3].add(gain / latent);
    }
    const MapBatch map = runner.decode(space);
    const Extents e = as_maps_extents(map, 1);
    linear_combination(space, 1, ConstActivations(map.data(), e), -1, ConstActivations(field.data(), e), error);
    square_samples(space, error, square);
    Kokkos::parallel_for("umbriel::vae_loss", Range(space, 0, 1),
                         Loss{square, divergence, loss, log_deviation, validated_->first_deviation(), pixels, 1});
    sums[0].add(number(loss));
    sums[1].add(number(square) / pixels);
    sums[2].add(number(divergence));
  });
  const std::vector<double> totals = exact_sum_over_ranks(comm(), sums);
  if (validation_size() == 0) return {};
  const auto count = static_cast<double>(validation_size());
  const auto host = on_host(set.values());
  const auto p = static_cast<double>(host(static_cast<std::size_t>(set[validated_->log_deviation()].offset)));
  std::vector<std::pair<std::string, double>> measured = {{"nats", totals[0] / count},
                                                          {"rmse", std::sqrt(totals[1] / count)},
                                                          {"kl", totals[2] / count},
                                                          {"sigma", validated_->first_deviation() * std::exp(p)}};
  if (validated_->flow() != nullptr) measured.emplace_back("latent", totals[3] / count);
  return measured;
}

}  // namespace umbriel
