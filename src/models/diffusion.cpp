#include "umbriel/models/diffusion.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/models/score_unet.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

using Prediction = DiffusionSettings::Prediction;

/// Steps of the streams under Purpose::training_noise.
enum NoiseStream : std::uint32_t { noise_of_example = 0, time_of_example = 1, noise_of_validation = 2 };

/// The noise level that tells a network the angle: its scale has the middle of the way, 45 degrees, at 0.03.
float level_of(double cosine) {
  const double tangent = std::sqrt(std::max(0.0, 1 - cosine * cosine)) / std::max(cosine, 1e-9);
  return static_cast<float>(0.03 * std::clamp(tangent, 1e-3, 1e3));
}

KOKKOS_INLINE_FUNCTION float sine_of(float cosine) {
  const float square = 1.0f - cosine * cosine;
  return math::sqrt(square > 0 ? square : 0.0f);
}

struct MixNoise {
  MapBatch fields, noise, mixed;
  View1<float> cosines;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const float c = cosines(n);
    mixed(n, y, x) = math::fma(c, fields(n, y, x), sine_of(c) * noise(n, y, x));
  }
};

KOKKOS_INLINE_FUNCTION float target_of(Prediction prediction, float c, float field, float noise) {
  if (prediction == Prediction::velocity) return c * noise - sine_of(c) * field;
  return prediction == Prediction::noise ? noise : field;
}

/// Loss a pixel, and the gradient of its mean.
struct LossTerm {
  MapBatch fields, noise, output, gradient;
  View1<float> cosines;
  Prediction prediction;
  bool absolute;
  float share;  // of a pixel in the mean
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const {
    const float error = output(n, y, x) - target_of(prediction, cosines(n), fields(n, y, x), noise(n, y, x));
    if (absolute) {
      gradient(n, y, x) = error > 0 ? share : error < 0 ? -share : 0.0f;
      return static_cast<double>(error < 0 ? -error : error);
    }
    gradient(n, y, x) = 2.0f * share * error;
    return static_cast<double>(error) * static_cast<double>(error);
  }
};

struct Divide {
  View1<double> values;
  double by;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const { values(n) /= by; }
};

/// Map and noise that a prediction p implies at (c, s): x0 = map_x x + map_p p, noise = noise_x x + noise_p p.
struct Implied {
  double map_x, map_p, noise_x, noise_p;

  Implied(Prediction prediction, double c, double s) {
    if (prediction == Prediction::velocity) {
      map_x = c, map_p = -s, noise_x = s, noise_p = c;
    } else if (prediction == Prediction::noise) {
      map_x = 1 / c, map_p = -s / c, noise_x = 0, noise_p = 1;
    } else {
      map_x = 0, map_p = 1, noise_x = 1 / s, noise_p = -c / s;
    }
  }
};

/// x <- cosine x0 + sine noise + fresh_scale fresh.
struct Advance {
  MapBatch state, predicted, fresh;
  float map_x, map_p, noise_x, noise_p, cosine, sine, fresh_scale, clamp;
  float from_cosine, from_sine;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const float at = state(n, y, x), p = predicted(n, y, x);
    float map = math::fma(map_x, at, map_p * p), noise = math::fma(noise_x, at, noise_p * p);
    if (clamp > 0 && (map > clamp || map < -clamp)) {
      map = map > 0 ? clamp : -clamp;
      noise = (at - from_cosine * map) / from_sine;
    }
    const float added = fresh_scale > 0 ? fresh_scale * fresh(n, y, x) : 0.0f;
    state(n, y, x) = math::fma(cosine, map, math::fma(sine, noise, added));
  }
};

/// v from a prediction.
struct Velocity {
  MapBatch state, predicted, velocity;
  float x_factor, p_factor;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    velocity(n, y, x) = math::fma(x_factor, state(n, y, x), p_factor * predicted(n, y, x));
  }
};

/// state = from + a u + b w
struct Combine {
  MapBatch from, u, w, state;
  float a, b;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    state(n, y, x) = math::fma(a, u(n, y, x), math::fma(b, w(n, y, x), from(n, y, x)));
  }
};

MapBatch as_maps(const Activations& a) {
  return MapBatch(a.data, static_cast<std::size_t>(a.extents.n), static_cast<std::size_t>(a.extents.h),
                  static_cast<std::size_t>(a.extents.w));
}

std::unique_ptr<Network> make_unet(const Config& config, int conditions) {
  config.choice("network.kind", "unet", {"unet"});
  auto network = std::make_unique<ScoreUNet>(config, 1, conditions);
  network->parameters().allocate();
  return network;
}

/// features[i](n) <- condition i of map n, write(n, out) giving those of a map.
template <class Write>
void upload_conditions(const View1<float>* features, int conditions, int n, const Write& write) {
  if (conditions == 0) return;
  std::vector<float> row(static_cast<std::size_t>(conditions));
  std::vector<decltype(Kokkos::create_mirror_view(HostMemory{}, features[0]))> host;
  for (int i = 0; i < conditions; ++i) host.push_back(Kokkos::create_mirror_view(HostMemory{}, features[i]));
  for (int map = 0; map < n; ++map) {
    write(map, row.data());
    for (std::size_t i = 0; i < host.size(); ++i) host[i](static_cast<std::size_t>(map)) = row[i];
  }
  for (std::size_t i = 0; i < host.size(); ++i) Kokkos::deep_copy(features[i], host[i]);
}

/// The trained network on tiles of maps.
class Predictor {
 public:
  Predictor(const Network& network, int conditions, const View1<float>& values, Grid grid, const nn::Options& options)
      : model_(network), conditions_(conditions), frozen_([&] {
          nn::Tape tape(network.parameters(), false);
          const int tile = nn::samples_of_a_tile(grid.pixels());
          const nn::Value x = tape.input({tile, grid.height, grid.width, 1});
          std::vector<nn::Scalars> noise;
          for (int i = 0; i < network.noise_features() + conditions; ++i) noise.push_back(tape.scalars(tile));
          const nn::Value output = network.build(tape, x, noise);
          return nn::FrozenNetwork(tape, output, values, options);
        }()) {}

  /// Makes room for n maps, of which write(map, out) gives the conditions.
  template <class Write>
  void set_conditions(std::size_t n, const Write& write) {
    if (levels_.extent(0) < n) {
      levels_ = View1<float>("umbriel::noise_levels", n);
      features_.clear();
      for (int i = 0; i < model_.noise_features() + conditions_; ++i)
        features_.emplace_back("umbriel::noise_features", n);
    }
    upload_conditions(features_.data() + model_.noise_features(), conditions_, static_cast<int>(n), write);
  }

  /// @param cosine  of all maps
  void operator()(const Space& space, const MapBatch& state, double cosine, const MapBatch& out) {
    const auto n = state.extent(0);
    Kokkos::deep_copy(space, levels_, level_of(cosine));
    model_.set_noise(space, static_cast<int>(n), levels_, features_);
    const Extents e{static_cast<int>(n), static_cast<int>(state.extent(1)), static_cast<int>(state.extent(2)), 1};
    frozen_.run(space, ConstActivations(state.data(), e), features_, Activations(out.data(), e));
  }

 private:
  const Network& model_;
  int conditions_;
  nn::FrozenNetwork frozen_;
  View1<float> levels_;
  std::vector<View1<float>> features_;
};

class DiffusionGenerator final : public MapGenerator {
 public:
  DiffusionGenerator(const std::string& path, const GenerativeModelRecord& record, const Config& config,
                     const nn::Options& options)
      : transform_(record.field, record.grid, record.pixel_arcmin) {
    const Config trained = Config::parse(record.config, path);
    settings_ = diffusion_settings(trained);
    network_ = make_unet(trained, record.conditions.size());
    nn::load_weights(path, network_->parameters(), network_->parameters().values());
    predictor_ = std::make_unique<Predictor>(*network_, record.conditions.size(), network_->parameters().values(),
                                             record.grid, options);
    const std::string sampler = config.choice("generate.sampler", "ode", {"ode", "ddim", "ancestral"});
    heun_ = sampler == "ode";
    ancestral_ = sampler == "ancestral";
    const auto times = static_cast<std::int64_t>(settings_.cosines.size());
    const std::int64_t steps =
        config.integer("generate.steps", ancestral_ ? times : std::min<std::int64_t>(heun_ ? 25 : 50, times), 1, times);
    clamp_ = static_cast<float>(config.number("generate.clamp", 0, 0, 1e6));
    require(!heun_ || clamp_ == 0, ExitCode::usage, "the ODE has no maps to clamp", config.where("generate.clamp"),
            "leave it out, or take generate.sampler = \"ddim\"");
    for (std::int64_t i = 0; i < steps; ++i)  // evenly, from T on
      cosines_.push_back(settings_.cosines[static_cast<std::size_t>(times - 1 - i * times / steps)]);
    cosines_.push_back(1);
    batch_ = runs_on_host ? 8 : 256;
    const Grid grid = record.grid;
    const auto batch = [&](const std::string& label) { return MapBatch(label, batch_, grid.height, grid.width); };
    state_ = batch("umbriel::diffusion_state");
    predicted_ = batch("umbriel::diffusion_prediction");
    if (ancestral_) fresh_ = batch("umbriel::diffusion_noise");
    if (heun_) {
      velocity_ = batch("umbriel::diffusion_velocity");
      ahead_ = batch("umbriel::diffusion_velocity_ahead");
      trial_ = batch("umbriel::diffusion_trial");
    }
    keys_ = View1<DrawKey>("umbriel::latent_keys", static_cast<std::size_t>(batch_));
  }

  int batch() const override { return batch_; }

  void draw(const Space& space, std::uint64_t seed, std::int64_t first, int n, const MapBatch& out) override {
    draw_noise(space, seed, first, 0, state_);
    predictor_->set_conditions(static_cast<std::size_t>(batch_),
                               [&](int i, float* to) { conditions_of_(first + std::min(i, n - 1), to); });
    const Grid grid{static_cast<int>(state_.extent(1)), static_cast<int>(state_.extent(2))};
    for (std::size_t i = 0; i + 1 < cosines_.size(); ++i) {
      const double c = cosines_[i], s = std::sqrt(std::max(0.0, 1 - c * c)), next = cosines_[i + 1];
      const double next_sine = std::sqrt(std::max(0.0, 1 - next * next));
      (*predictor_)(space, state_, c, predicted_);
      if (heun_) {
        heun(space, grid, c, s, next, next_sine);
        continue;
      }
      const Implied implied(settings_.prediction, c, s);
      double added = 0;
      if (ancestral_ && next < 1) {
        added = next_sine / s * std::sqrt(std::max(0.0, 1 - c * c / (next * next)));
        draw_noise(space, seed, first, static_cast<std::uint32_t>(i + 1), fresh_);
      }
      const auto f = [](double v) { return static_cast<float>(v); };
      for_each_element(
          "umbriel::diffusion_step", space, batch_, grid.height, grid.width,
          Advance{state_, predicted_, ancestral_ ? fresh_ : state_, f(implied.map_x), f(implied.map_p),
                  f(implied.noise_x), f(implied.noise_p), f(next),
                  f(std::sqrt(std::max(0.0, next_sine * next_sine - added * added))), f(added), clamp_, f(c), f(s)});
    }
    transform_.inverse(space, state_, n, out);
  }

 private:
  void draw_noise(const Space& space, std::uint64_t seed, std::int64_t first, std::uint32_t step, const MapBatch& to) {
    const auto keys = Kokkos::create_mirror_view(HostMemory{}, keys_);
    for (int i = 0; i < batch_; ++i)
      keys(static_cast<std::size_t>(i)) = {seed, Purpose::latent, static_cast<std::uint32_t>(first + i), step};
    Kokkos::deep_copy(keys_, keys);
    fill_normals(space, to, keys_, batch_);
  }

  void to_velocity(const Space& space, Grid grid, double c, double s, const MapBatch& state, const MapBatch& velocity) {
    const Implied implied(settings_.prediction, c, s);  // v = c noise - s x0
    for_each_element("umbriel::diffusion_velocity", space, batch_, grid.height, grid.width,
                     Velocity{state, predicted_, velocity, static_cast<float>(c * implied.noise_x - s * implied.map_x),
                              static_cast<float>(c * implied.noise_p - s * implied.map_p)});
  }

  /// Of dx/dphi = v; the last step, to phi = 0 where a map's prediction says no more, is Euler's.
  void heun(const Space& space, Grid grid, double c, double s, double next, double next_sine) {
    const auto delta = static_cast<float>(std::atan2(next_sine, next) - std::atan2(s, c));
    to_velocity(space, grid, c, s, state_, velocity_);
    if (next >= 1) {
      for_each_element("umbriel::diffusion_step", space, batch_, grid.height, grid.width,
                       Combine{state_, velocity_, velocity_, state_, delta, 0});
      return;
    }
    for_each_element("umbriel::diffusion_step", space, batch_, grid.height, grid.width,
                     Combine{state_, velocity_, velocity_, trial_, delta, 0});
    (*predictor_)(space, trial_, next, predicted_);
    to_velocity(space, grid, next, next_sine, trial_, ahead_);
    for_each_element("umbriel::diffusion_step", space, batch_, grid.height, grid.width,
                     Combine{state_, velocity_, ahead_, state_, 0.5F * delta, 0.5F * delta});
  }

  DiffusionSettings settings_;
  FieldTransform transform_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Predictor> predictor_;
  bool heun_ = false, ancestral_ = false;
  float clamp_ = 0;
  int batch_ = 0;
  std::vector<double> cosines_;  // from T to 0
  MapBatch state_, predicted_, fresh_, velocity_, ahead_, trial_;
  View1<DrawKey> keys_;
};

}  // namespace

DiffusionSettings diffusion_settings(const Config& config) {
  DiffusionSettings s;
  const std::string prediction = config.choice("diffusion.prediction", "velocity", {"velocity", "noise", "map"});
  s.prediction = prediction == "velocity" ? Prediction::velocity
                 : prediction == "noise"  ? Prediction::noise
                                          : Prediction::map;
  s.absolute_loss = config.choice("diffusion.loss", "l2", {"l2", "l1"}) == "l1";
  const bool linear = config.choice("diffusion.schedule", "cosine", {"cosine", "linear"}) == "linear";
  const auto times = static_cast<int>(config.integer("diffusion.times", 300, 2, 100000));
  const bool zero = config.flag("diffusion.zero_terminal", s.prediction != Prediction::noise);
  require(!zero || s.prediction != Prediction::noise, ExitCode::usage,
          "where only noise is left, to predict it says nothing of the map", config.where("diffusion.zero_terminal"),
          "set it to false, or predict the velocity");
  const double first = linear ? config.number("diffusion.beta_first", 1e-4, 1e-9, 0.5) : 0;
  const double last = linear ? config.number("diffusion.beta_last", 0.02, first, 0.999) : 0;
  double product = 1;
  for (int t = 1; t <= times; ++t) {
    double beta = 0;
    if (linear) {
      beta = first + (last - first) * (t - 1) / (times - 1);
    } else {
      constexpr double offset = 0.008;
      const auto f = [&](double u) {
        const double root = std::cos((u + offset) / (1 + offset) * std::numbers::pi / 2);
        return root * root;
      };
      beta = std::min(0.999, 1 - f(static_cast<double>(t) / times) / f(static_cast<double>(t - 1) / times));
    }
    product *= 1 - beta;
    s.cosines.push_back(std::sqrt(product));
  }
  if (zero) {
    const double front = s.cosines.front(), back = s.cosines.back();
    for (double& c : s.cosines) c = (c - back) * front / (front - back);
  }
  return s;
}

namespace {

MapTaskDefaults conditional_task() {
  MapTaskDefaults defaults;
  defaults.conditional = true;
  return defaults;
}

}  // namespace

DiffusionTask::DiffusionTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options)
    : MapTask(comm, config, seed, conditional_task()), options_(std::move(options)) {
  comm.together([&] {
    settings_ = diffusion_settings(config);
    network_ = make_unet(config, conditions().size());
    require_sides(network_->side_multiple(), grid(), "network");
    tape_ = std::make_unique<nn::Tape>(network_->parameters(), true, options_);
    input_ = tape_->input({part(), grid().height, grid().width, 1});
    for (int i = 0; i < network_->noise_features() + conditions().size(); ++i)
      scalars_.push_back(tape_->scalars(part()));
    output_ = network_->build(*tape_, input_, scalars_);
    config_ = config.resolved();
  });
  const auto n = static_cast<std::size_t>(part());
  noise_ = MapBatch("umbriel::example_noise", n, grid().height, grid().width);
  keys_ = View1<DrawKey>("umbriel::noise_keys", n);
  cosines_ = View1<float>("umbriel::cosines", n);
  levels_ = View1<float>("umbriel::noise_levels", n);
  sums_ = SumWorkspace(part(), grid().height);
}

void DiffusionTask::draw_noise(const Space& space, std::uint32_t stream, std::int64_t first, int n) {
  const auto keys = Kokkos::create_mirror_view(HostMemory{}, keys_);
  for (int i = 0; i < n; ++i)
    keys(static_cast<std::size_t>(i)) = {seed(), Purpose::training_noise, static_cast<std::uint32_t>(first + i),
                                         stream};
  Kokkos::deep_copy(keys_, keys);
  fill_normals(space, noise_, keys_, n);
}

void DiffusionTask::step_of_part(const Space& space, const MapBatch& fields, const View1<double>&, std::int64_t first,
                                 int total, const View1<double>& losses,
                                 const std::function<void(std::int64_t)>& ready) {
  if (!planned_) {
    tape_->plan(output_);
    planned_ = true;
  }
  draw_noise(space, noise_of_example, first, part());
  const auto cosines = Kokkos::create_mirror_view(HostMemory{}, cosines_);
  const auto levels = Kokkos::create_mirror_view(HostMemory{}, levels_);
  for (int i = 0; i < part(); ++i) {
    // Times evenly over a batch.
    const double u =
        uniform({seed(), Purpose::training_noise, static_cast<std::uint32_t>(first + i), time_of_example}, 0);
    const double even = (static_cast<double>((first + i) % total) + u) / total;
    const auto times = static_cast<double>(settings_.cosines.size());
    const double c = settings_.cosines[static_cast<std::size_t>(std::min(even * times, times - 1))];
    cosines(static_cast<std::size_t>(i)) = static_cast<float>(c);
    levels(static_cast<std::size_t>(i)) = level_of(c);
  }
  Kokkos::deep_copy(cosines_, cosines);
  Kokkos::deep_copy(levels_, levels);
  const int height = grid().height, width = grid().width;
  for_each_element("umbriel::mix_noise", space, part(), height, width,
                   MixNoise{fields, noise_, as_maps(tape_->value(input_)), cosines_});
  std::vector<View1<float>> features;
  for (const nn::Scalars scalars : scalars_) features.push_back(tape_->scalars(scalars));
  network_->set_noise(space, part(), levels_, features);
  upload_conditions(features.data() + network_->noise_features(), conditions().size(), part(),
                    [&](int i, float* to) { conditions_of_training(first + i, to); });
  tape_->forward(space);
  const auto pixels = static_cast<double>(grid().pixels());
  sum_each_map("umbriel::diffusion_loss", space, part(), height, width, sums_, losses,
               LossTerm{fields, noise_, as_maps(tape_->value(output_)), as_maps(tape_->gradient(output_)), cosines_,
                        settings_.prediction, settings_.absolute_loss, static_cast<float>(1 / (pixels * total))});
  Kokkos::parallel_for("umbriel::diffusion_mean", Range(space, 0, part()), Divide{losses, pixels});
  tape_->backward(space, ready);
}

std::vector<std::pair<std::string, double>> DiffusionTask::validate(const Space& space, const View1<float>& values) {
  if (validation_size() == 0) return {};
  Predictor predictor(*network_, conditions().size(), values, grid(), options_);
  const int height = grid().height, width = grid().width;
  const MapBatch mixed("umbriel::validation_mixed", 1, height, width), out("umbriel::validation_out", 1, height, width);
  const MapBatch velocity("umbriel::validation_velocity", 1, height, width), unused("unused", 1, height, width);
  const MapBatch noise(noise_.data(), 1, noise_.extent(1), noise_.extent(2));
  const View1<float> cosine("umbriel::validation_cosine", 1);
  const View1<double> error("umbriel::validation_error", 1);
  const SumWorkspace sums(1, height);
  std::vector<ExactSum> total(1);
  constexpr int times = 8;
  for_each_validation_map(space, [&](const MapBatch& field, const View1<double>&, std::int64_t index) {
    draw_noise(space, noise_of_validation, index, 1);
    predictor.set_conditions(1, [&](int, float* to) { conditions_of_validation(index, to); });
    for (int t = 0; t < times; ++t) {
      const double c = settings_.cosines[settings_.cosines.size() * (2 * t + 1) / (2 * times)];
      const double s = std::sqrt(std::max(0.0, 1 - c * c));
      Kokkos::deep_copy(space, cosine, static_cast<float>(c));
      for_each_element("umbriel::mix_noise", space, 1, height, width, MixNoise{field, noise, mixed, cosine});
      predictor(space, mixed, c, out);
      const Implied implied(settings_.prediction, c, s);
      for_each_element("umbriel::diffusion_velocity", space, 1, height, width,
                       Velocity{mixed, out, velocity, static_cast<float>(c * implied.noise_x - s * implied.map_x),
                                static_cast<float>(c * implied.noise_p - s * implied.map_p)});
      sum_each_map("umbriel::diffusion_loss", space, 1, height, width, sums, error,
                   LossTerm{field, noise, velocity, unused, cosine, Prediction::velocity, false, 0});
      space.fence();
      total[0].add(on_host(error)(0) / static_cast<double>(grid().pixels()));
    }
  });
  const double loss = exact_sum_over_ranks(comm(), total)[0] / static_cast<double>(times * validation_size());
  return {{"loss", loss}, {"gain", 1 - loss}};
}

double DiffusionTask::bytes() const { return parameters().bytes() + bytes_of_sums() + tape_->bytes(output_); }

GenerativeModelRecord DiffusionTask::record() const {
  return {"diffusion", config_, grid(), pixel_arcmin(), field(), conditions()};
}

std::unique_ptr<MapGenerator> make_diffusion_generator(const std::string& path, const GenerativeModelRecord& record,
                                                       const Config& config, const nn::Options& options) {
  return std::make_unique<DiffusionGenerator>(path, record, config, options);
}

}  // namespace umbriel
