// umbriel inpaint: what a patch is like where it was not observed, given an autoencoder of such patches.
//
// The data are d = A x + noise, with a Gaussian beam and a mask as A (linear_operator.hpp), and x = g(z) + r a decoded
// map and what the decoder leaves out. As in Thorne, Knox & Prabhu 2021 (arXiv 2101.11181), but for z = flow(u) with u
// standard normal a priori, and for r, which is small scales above all: a Gaussian field with the residuals' power
// spectrum and, pixel by pixel, their deviation where a patch is as bright as here (residual_model.hpp).
//
// The maximum of p(u, r | d) is found by L-BFGS from several starts; draws of it come from Hamiltonian Monte Carlo in u
// with r integrated out, and exact draws of r given u (decoded_posterior.hpp). Chains are sharded over ranks. Beside
// them stands the fill that knows nothing of dust: Laplace's equation inside the mask.
#include <algorithm>
#include <cmath>

#include "umbriel/app/autoencoder.hpp"
#include "umbriel/app/chains.hpp"
#include "umbriel/app/checkpoint.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/inference/decoded_posterior.hpp"
#include "umbriel/inference/diagnostics.hpp"
#include "umbriel/inference/linear_operator.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/mpi/watchdog.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/statistics/ensemble.hpp"

namespace umbriel {
namespace {

/// Where the model's field v is not the map m itself, but its map m(v) is what the data are linear in: about a field v0
/// it is taken to be m(v0) + f (v - v0), with the slope f = m'(v0).
struct Expansion {
  std::vector<float> slope, constant;  ///< [H, W] f, m(v0) - f v0

  Expansion(const FieldTransformSettings& transform, const std::vector<float>& v0) {
    for (const float v : v0) {
      const auto value = static_cast<double>(v);
      slope.push_back(static_cast<float>(transform.slope_at(value)));
      constant.push_back(static_cast<float>(transform.map_of(value) - transform.slope_at(value) * value));
    }
  }
  /// The field of which a map is the expansion. @param map  value of pixel i of [H, W]
  float field_of(float map, std::size_t i) const { return (map - constant[i]) / slope[i]; }
};

/// maps <- constant + slope maps
struct Expand {
  MapBatch maps;
  View2<float> slope, constant;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    maps(n, y, x) = constant(y, x) + slope(y, x) * maps(n, y, x);
  }
};

/// The decoder, and the flow before it where there is one; then the expansion.
class VaeDecoder final : public MapDecoder {
 public:
  VaeDecoder(const Vae& vae, const Expansion& expansion, int batch, nn::Options options)
      : vae_(vae), batch_(batch), tape_(vae.parameters(), true, inputs_only(std::move(options))) {
    u_ = tape_.input({batch, 1, 1, vae.latent()}, true);
    map_ = vae.decode(tape_, vae.flow() != nullptr ? vae.flow()->from_base(tape_, u_) : u_);
    tape_.plan(map_);
    tape_.load_parameters(Space());
    for (View2<float>* const factor : {&slope_, &constant_, &zero_})
      *factor = View2<float>("umbriel::expansion", grid().height, grid().width);
    set_expansion(expansion);
  }

  void set_expansion(const Expansion& expansion) {
    const auto copy = [](const std::vector<float>& from, const View2<float>& to) {
      const auto host = Kokkos::create_mirror_view(HostMemory{}, to);
      std::copy(from.begin(), from.end(), host.data());
      Kokkos::deep_copy(to, host);
    };
    copy(expansion.slope, slope_);
    copy(expansion.constant, constant_);
  }

  int size() const override { return vae_.latent(); }
  int batch() const override { return batch_; }
  Grid grid() const override { return vae_.grid(); }

  MapBatch decode(const Space& space, const std::vector<float>& points) override {
    Kokkos::deep_copy(Floats(tape_.value(u_).data, points.size()),
                      HostFloats(const_cast<float*>(points.data()), points.size()));
    tape_.forward(space);
    const MapBatch maps = as_maps(tape_.value(map_));
    expand(space, maps, static_cast<int>(points.size()) / size(), constant_);
    return maps;
  }

  std::vector<float> pull_back(const Space& space, const MapBatch& gradient, int n) override {
    const Activations map = tape_.gradient(map_);
    copy_channels(space, ConstActivations(gradient.data(), map.extents), map);
    expand(space, as_maps(map), n, zero_);
    tape_.backward(space);
    space.fence();
    std::vector<float> values(static_cast<std::size_t>(n) * static_cast<std::size_t>(vae_.latent()));
    Kokkos::deep_copy(HostFloats(values.data(), values.size()), Floats(tape_.gradient(u_).data, values.size()));
    return values;
  }

 private:
  using HostFloats = Kokkos::View<float*, HostMemory, Kokkos::MemoryUnmanaged>;
  using Floats = Kokkos::View<float*, Memory, Kokkos::MemoryUnmanaged>;

  static nn::Options inputs_only(nn::Options options) {
    options.inputs_only = true;
    return options;
  }
  static MapBatch as_maps(const Activations& map) {
    return MapBatch(map.data, static_cast<std::size_t>(map.extents.n), static_cast<std::size_t>(map.extents.h),
                    static_cast<std::size_t>(map.extents.w));
  }
  void expand(const Space& space, const MapBatch& maps, int n, const View2<float>& constant) const {
    for_each_element("umbriel::expand_maps", space, n, grid().height, grid().width, Expand{maps, slope_, constant});
  }

  const Vae& vae_;
  int batch_;
  nn::Tape tape_;
  nn::Value u_, map_;
  View2<float> slope_, constant_, zero_;
};

/// Solves Laplace's equation where nothing is observed, with the observed pixels at its edge and no slope at the map's
/// (successive over-relaxation).
std::vector<float> diffusive_fill(Grid grid, const std::vector<float>& data, const std::vector<float>& mask) {
  std::vector<double> values(data.begin(), data.end());
  const double relaxation = 2 / (1 + std::sin(std::acos(-1.0) / std::max(grid.height, grid.width)));
  const auto at = [&](int y, int x) -> double& {
    y = std::clamp(y, 0, grid.height - 1);
    x = std::clamp(x, 0, grid.width - 1);
    return values[static_cast<std::size_t>(y) * static_cast<std::size_t>(grid.width) + static_cast<std::size_t>(x)];
  };
  for (int sweep = 0; sweep < 100000; ++sweep) {
    double largest = 0;
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        if (mask[static_cast<std::size_t>(y * grid.width + x)] != 0) continue;
        const double change =
            relaxation * (0.25 * (at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1)) - at(y, x));
        at(y, x) += change;
        largest = std::max(largest, std::fabs(change));
      }
    }
    if (largest < 1e-6) break;
  }
  return {values.begin(), values.end()};
}

struct Settings {
  MapSeries common;  // grid, inputs, limits, seed, identity
  std::int64_t map = 0, chains = 0;
  double noise = 0, beam_arcmin = 0;
  int starts = 0, iterations = 0;
  VectorHmcOptions sampler;
  std::vector<float> mask, data, truth;
  double mean = 0, deviation = 1;
  nn::Options compute;
};

/// Standardises the observed pixels by themselves. @throws Error(input)
void take_data(const AutoencoderMaps& maps, const std::string& mask_path, Settings& s) {
  std::int64_t observed = 0;
  double sum = 0, squares = 0;
  const StandardMap given = maps.read(s.map);
  const auto value = [&](std::size_t i) { return given.mean + given.deviation * static_cast<double>(given.values[i]); };
  for (std::size_t i = 0; i < s.mask.size(); ++i) {
    require(s.mask[i] == 0 || s.mask[i] == 1, ExitCode::input, "the mask is " + std::to_string(s.mask[i]), mask_path,
            "give 1 where observed and 0 elsewhere");
    if (s.mask[i] == 0) continue;
    ++observed;
    sum += value(i);
  }
  require(observed > 1, ExitCode::input, "the mask is empty: no pixel is observed", mask_path,
          "give a mask with 1 where observed");
  s.mean = sum / static_cast<double>(observed);
  for (std::size_t i = 0; i < s.mask.size(); ++i)
    squares += static_cast<double>(s.mask[i]) * std::pow(value(i) - s.mean, 2);
  s.deviation = std::sqrt(squares / static_cast<double>(observed));
  require(s.deviation > 0, ExitCode::input, "the map is constant where it is observed", mask_path,
          "give another map or mask");
  for (std::size_t i = 0; i < s.mask.size(); ++i) {
    s.truth.push_back(static_cast<float>((value(i) - s.mean) / s.deviation));
    s.data.push_back(s.mask[i] * s.truth.back());
  }
}

/// What the decoder leaves out, as the model's file has it or as it is of other maps. Collective.
ResidualModel residual_of(const Communicator& comm, const Space& space, const AutoencoderMaps& maps,
                          const AutoencoderMaps* others, const std::vector<std::int64_t>& chosen, std::uint64_t seed,
                          const nn::Options& compute) {
  if (others == nullptr) return *maps.model().residual;
  VaeRunner runner(maps.vae(), 1, compute);
  runner.load(space);
  return measure_residual(comm, space, maps.vae(), runner, maps.model().record.pixel_arcmin, seed, [&](const auto& f) {
    const ShardRange shard = shard_range(static_cast<std::int64_t>(chosen.size()), comm.rank(), comm.size());
    for (std::int64_t i = shard.first; i < shard.first + shard.count; ++i) {
      report_alive();
      f(maps.fields_of({others->read(chosen[static_cast<std::size_t>(i)])}), i);
    }
  });
}

/// z = flow(u). @return [latent]
std::vector<float> latent_of(const Space& space, VaeRunner& runner, const Vae& vae, const std::vector<float>& u) {
  if (vae.flow() == nullptr) return u;
  const HostMaps host("umbriel::latent", 1, 1, u.size());
  std::copy(u.begin(), u.end(), host.data());
  runner.from_base(space, on_device(host), 1);
  space.fence();
  std::vector<float> z(u.size());
  Kokkos::deep_copy(Kokkos::View<float*, HostMemory, Kokkos::MemoryUnmanaged>(z.data(), z.size()),
                    Kokkos::View<float*, Memory, Kokkos::MemoryUnmanaged>(runner.latent().data, z.size()));
  return z;
}

/// What the search for the most probable u found, the same on every rank.
struct MostProbable {
  std::vector<float> u;          ///< of the decoder
  double value = 0, spread = 0;  ///< log-density; by how much the worst of the starts ended below the best
  std::vector<float> map;        ///< [H, W]
  double amplitude = 1;          ///< of what the decoder leaves out
  std::vector<float> deviation;  ///< [H, W] that of the residual field in the map
  Expansion expansion;           ///< about the posterior's mean
};

/// Maps are expanded about the posterior's mean, and at first about one that fits the data. Likewise the residual's
/// deviation depends on how bright the map is, and is taken to be as for a field of zeros at first, and then as for the
/// most probable one. Its amplitude is that which makes the data likeliest, given what z lets expect.
MostProbable most_probable(const Space& space, const Settings& s, const AutoencoderMaps& maps,
                           const ResidualModel& residual) {
  constexpr int rounds = 4;
  const Grid grid = maps.grid();
  const double pixel = maps.model().record.pixel_arcmin;
  const FieldTransformSettings& transform = maps.model().record.field;
  std::vector<float> v0;
  for (const float value : diffusive_fill(grid, s.data, s.mask))
    v0.push_back(static_cast<float>(transform.field_of(static_cast<double>(value))));
  MostProbable found{{}, 0, 0, {}, 1, {}, Expansion(transform, v0)};
  const MaskedBeam instrument(grid, s.mask, s.beam_arcmin / pixel, 1);
  VaeDecoder decoder(maps.vae(), found.expansion, 1, s.compute);
  ResidualField field(instrument, grid, pixel, residual.multipole, residual.power, s.noise, 1);
  DecodedPosterior posterior(decoder, instrument, field, s.data);
  VaeRunner runner(maps.vae(), 1, s.compute);
  runner.load(space);

  /// @param decoded  [H, W] the decoder's field
  const auto set_deviation = [&](const std::vector<float>& decoded) {
    found.deviation.clear();
    for (std::size_t i = 0; i < decoded.size(); ++i)
      found.deviation.push_back(static_cast<float>(found.amplitude) * found.expansion.slope[i] *
                                static_cast<float>(residual.deviation_at(static_cast<double>(decoded[i]))));
    field.set_deviation(found.deviation);
  };
  const auto fields_of = [&](std::vector<float> expanded) {
    for (std::size_t i = 0; i < expanded.size(); ++i) expanded[i] = found.expansion.field_of(expanded[i], i);
    return expanded;
  };

  set_deviation(std::vector<float>(s.mask.size(), 0));
  const auto size = static_cast<std::size_t>(posterior.size());
  double lowest = 0;
  for (int start = 0; start < s.starts; ++start) {  // of which the first is the prior's
    report_alive();
    std::vector<float> from(size, 0);
    const DrawKey key{s.common.seed, Purpose::latent, static_cast<std::uint32_t>(start), 0};
    for (std::size_t i = 0; start > 0 && i < size; ++i) from[i] = normal(key, i);
    double reached = 0;
    const std::vector<float> end = maximum_of(space, posterior, from, s.iterations, reached);
    lowest = start == 0 ? reached : std::min(lowest, reached);
    if (start > 0 && reached <= found.value) continue;
    found.u = end;
    found.value = reached;
  }
  found.spread = found.value - lowest;
  for (int round = 0; round < rounds; ++round) {
    report_alive();
    const std::vector<float> decoded = fields_of(posterior.decoded(space, found.u));
    found.expansion = Expansion(transform, fields_of(posterior.mean(space, found.u)));
    decoder.set_expansion(found.expansion);
    found.amplitude = std::exp(residual.log_amplitude(latent_of(space, runner, maps.vae(), found.u)));
    set_deviation(decoded);
    if (residual.spread > 0) {
      found.amplitude *=
          field.fit_amplitude(space, s.common.seed, posterior.left_of_data(space, found.u), 2 * residual.spread);
      set_deviation(decoded);
    }
    found.u = maximum_of(space, posterior, found.u, s.iterations, found.value);
  }
  for (const float v : fields_of(posterior.mean(space, found.u)))
    found.map.push_back(static_cast<float>(transform.map_of(static_cast<double>(v))));
  return found;
}

// --- checkpoints -----------------------------------------------------------------------------------------------------

/// Numbers of a chain in a row: its index, trajectories, acceptance, and those of its step.
constexpr std::size_t chain_numbers = 7;

/// Saves the chains of all ranks. Collective.
void save(const Communicator& comm, const Settings& s, std::size_t size, const std::vector<VectorChain>& chains) {
  const auto draws = static_cast<std::size_t>(s.sampler.draws);
  std::vector<double> numbers, log_density;
  std::vector<float> points, of_draws;
  const auto append = [](auto& to, const auto& from, std::size_t width) {  // what is still to come is 0
    const std::size_t end = to.size() + width;
    to.insert(to.end(), from.begin(), from.end());
    to.resize(end, 0);
  };
  for (const VectorChain& c : chains) {
    append(numbers,
           std::vector<double>{static_cast<double>(c.chain), static_cast<double>(c.trajectories), c.accept_rate,
                               c.fit.step, c.fit.log_mean, c.fit.error, static_cast<double>(c.fit.count)},
           chain_numbers);
    append(points, c.point, size);
    append(of_draws, c.draws, draws * size);
    append(log_density, c.log_density, draws);
  }
  const Rows rows(comm, chains.size());
  ResultFile file(checkpoint_path(s.common.output), comm, "checkpoint of inpaint");
  Hdf5Writer& hdf5 = file.hdf5();
  const auto write = [&](const std::string& name, const std::string& words, std::size_t width, const auto& values) {
    using T = std::decay_t<decltype(values.front())>;
    hdf5.write_sharded<T>({"/" + name, {}, "1", words}, {rows.total, width}, rows.first, rows.count, values.data());
  };
  write("numbers", "chain, trajectories, accept_rate, and of the step: step, log_mean, error, count", chain_numbers,
        numbers);
  write("point", "where the chain is", size, points);
  write("draws", "draws so far", draws * size, of_draws);
  write("log_density", "of the draws so far", draws, log_density);
  hdf5.attribute("/", "schema_version", static_cast<std::int64_t>(schema_version));
  hdf5.attribute("/", "command", std::string("checkpoint of inpaint"));
  hdf5.attribute("/", "identity", s.common.identity);
  hdf5.commit(true);
}

/// Sets the chains of this rank's shard that a checkpoint holds. @throws Error(input) if it does not hold what it
/// should
void load(const std::string& good, const Settings& s, const ShardRange& shard, std::vector<VectorChain>& chains) {
  if (good.empty() || chains.empty()) return;
  const Hdf5Reader file(good);
  const std::size_t size = chains[0].point.size(), draws = static_cast<std::size_t>(s.sampler.draws);
  const auto check = [&](bool sound, const std::string& dataset) {
    require(sound, ExitCode::input, "the checkpoint does not hold what it should", good + ", " + dataset,
            "remove it to start anew");
  };
  const std::uint64_t rows = file.shape("/numbers").at(0);
  for (const auto& [dataset, width] : {std::pair<const char*, std::size_t>{"/numbers", chain_numbers},
                                       {"/point", size},
                                       {"/draws", draws * size},
                                       {"/log_density", draws}})
    check(file.shape(dataset) == std::vector<std::uint64_t>{rows, width}, dataset);
  const std::vector<double> numbers = file.read<double>("/numbers");
  for (std::uint64_t row = 0; row < rows; ++row) {
    const double* const n = numbers.data() + row * chain_numbers;
    const auto whole = [&](double value, double most) {
      check(value >= 0 && value <= most && value == std::floor(value), "/numbers");
      return static_cast<std::int64_t>(value);
    };
    const std::int64_t chain = whole(n[0], 1e9), made = whole(n[1], s.sampler.trajectories());
    if (chain < shard.first || chain >= shard.first + shard.count) continue;
    VectorChain& c = chains[static_cast<std::size_t>(chain - shard.first)];
    c.trajectories = static_cast<int>(made);
    c.accept_rate = n[2];
    c.fit = {n[3], n[4], n[5], static_cast<int>(whole(n[6], s.sampler.trajectories()))};
    c.point = file.read<float>("/point", row, 1);
    c.draws = file.read<float>("/draws", row, 1);
    c.log_density = file.read<double>("/log_density", row, 1);
    const std::int64_t drawn = std::max<std::int64_t>(0, made - s.sampler.warm_up) / s.sampler.trajectories_a_draw;
    c.draws.resize(static_cast<std::size_t>(drawn) * size);
    c.log_density.resize(static_cast<std::size_t>(drawn));
  }
}

}  // namespace

ExitCode run_inpaint(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  const AutoencoderMaps maps(comm, config, "inpaint");
  std::unique_ptr<AutoencoderMaps> others;  // to measure what the decoder leaves out
  if (config.has("inpaint.residual_maps"))
    others = std::make_unique<AutoencoderMaps>(comm, config, "inpaint", "residual_maps");
  std::vector<std::int64_t> chosen;
  Settings s;
  std::string mask_path;
  comm.together([&] {
    s.common.output = read_output(config);
    s.common.seed = read_seed(config);
    s.common.limits = read_run_limits(config);
    maps.describe(s.common);
    s.map = config.integer("inpaint.map", 0, 0, maps.size() - 1);
    mask_path = config.path("inpaint.mask");
    s.noise = config.number("inpaint.noise", 0.2, 1e-6, 1e6);
    s.beam_arcmin = config.number("inpaint.beam_arcmin", 0, 0, 1e6);
    s.chains = config.integer("inpaint.chains", 32, 1, 1 << 20);
    s.sampler.seed = s.common.seed;
    s.sampler.draws = static_cast<int>(config.integer("inpaint.draws", 10, 1, 1 << 20));
    s.sampler.warm_up = static_cast<int>(config.integer("inpaint.warm_up", 200, 1, 1 << 20));
    s.sampler.trajectories_a_draw = static_cast<int>(config.integer("inpaint.trajectories", 5, 1, 1 << 20));
    s.sampler.leapfrogs = static_cast<int>(config.integer("inpaint.leapfrogs", 5, 1, 10000));
    s.starts = static_cast<int>(config.integer("inpaint.starts", 4, 1, 10000));
    s.iterations = static_cast<int>(config.integer("inpaint.iterations", 500, 1, 1 << 20));
    s.compute = read_compute(config);
    if (others) {
      chosen =
          others->part(config.choice("inpaint.residual_part", "validation", {"all", "training", "validation", "test"}));
      for (std::size_t i = 1; i < others->inputs().size(); ++i) s.common.inputs.push_back(others->inputs()[i]);
    }
    config.reject_unknown_keys();
    require(others || maps.model().residual, ExitCode::input, "the file does not say what its decoder leaves out",
            maps.inputs()[0].path,
            "train the model again, or give inpaint.residual_maps = patches that it was not trained on");
  });
  MapFolder masks(comm, {mask_path}, {});
  comm.together([&] {
    const Grid grid = maps.grid();
    require(masks.size() == 1 && masks.grid(0) == grid, ExitCode::input, "the mask is no map of the model's size",
            mask_path, "give one of " + std::to_string(grid.width) + " x " + std::to_string(grid.height) + " pixels");
    const auto values = masks.read(0);
    s.mask.assign(values.get(), values.get() + grid.pixels());
    s.common.inputs.push_back({mask_path, masks.inputs()[0].sha256});
    take_data(maps, mask_path, s);
    s.common.identity = identity_of(config, s.common.seed, s.common.inputs, {"run.", "inpaint.chains "});
  });
  const Grid grid = maps.grid();
  const auto pixels = static_cast<std::size_t>(grid.pixels());
  const auto draws = static_cast<std::size_t>(s.sampler.draws);
  const ShardRange shard = shard_range(s.chains, comm.rank(), comm.size());
  const double bytes = static_cast<double>(s.chains) * static_cast<double>(draws * pixels) * sizeof(float);
  const double checkpoint =
      static_cast<double>(s.chains) * static_cast<double>(draws + 1) * maps.vae().latent() * sizeof(float);
  const double disk = bytes + (s.common.limits.checkpoint > 0 ? 3 * checkpoint : 0);
  if (line.dry_run) {
    const double trajectories = s.sampler.trajectories();
    char text[96];
    std::snprintf(text, sizeof text, "gradients: about %.3g a chain, %.3g in all", trajectories * s.sampler.leapfrogs,
                  trajectories * s.sampler.leapfrogs * static_cast<double>(s.chains));
    print_dry_run(line, {text, "disk: " + human_bytes(bytes) + ", with checkpoints up to " + human_bytes(disk)});
    return ExitCode::done;
  }
  const Job job(comm, s.common.output, s.common.limits, disk, true);
  comm.together([&] { log::start(comm.rank(), s.common.output + ".log.jsonl"); });
  log::info("umbriel inpaint: " + std::to_string(s.chains) + " chains in " + std::to_string(maps.vae().latent()) +
            " latent variables on " + std::to_string(comm.size()) + " rank(s), " + device_name());

  const Space space;
  const ResidualModel residual = residual_of(comm, space, maps, others.get(), chosen, s.common.seed, s.compute);
  const MostProbable best = most_probable(space, s, maps, residual);
  char text[200];
  std::snprintf(
      text, sizeof text,
      "most probable map: log-density %.1f; of %d starts the worst ended %.1f below the best; small scales are "
      "%.2f times as strong as usual",
      best.value, s.starts, best.spread, best.amplitude);
  log::info(text);

  const int batch = static_cast<int>(std::clamp<std::int64_t>(shard.count, 1, s.common.batch));
  const double pixel = maps.model().record.pixel_arcmin;
  const MaskedBeam instrument(grid, s.mask, s.beam_arcmin / pixel, batch);
  VaeDecoder decoder(maps.vae(), best.expansion, batch, s.compute);
  ResidualField field(instrument, grid, pixel, residual.multipole, residual.power, s.noise, batch);
  field.set_deviation(best.deviation);
  DecodedPosterior posterior(decoder, instrument, field, s.data);
  s.sampler.metric = metric_at(space, posterior, best.u);
  std::vector<VectorChain> list;
  for (const std::int64_t chain : indices_of(shard))
    list.push_back(begin_vector_chain(s.sampler, posterior.size(), chain));
  const auto made = [&] {
    std::int64_t trajectories = 0;
    for (const VectorChain& chain : list) trajectories += chain.trajectories;
    return trajectories;
  };
  const std::string good =
      open_checkpoint(comm, checkpoint_path(s.common.output), s.common.identity, line.override_checkpoint);
  comm.together([&] { load(good, s, shard, list); });
  std::int64_t reported = made();
  if (const std::int64_t before = comm.sum(reported); before > 0)
    log::info("resuming: " + std::to_string(before) + " trajectories are made already");
  bool done = false;
  {
    Progress progress(comm, "sampling", s.chains * s.sampler.trajectories() - comm.sum(reported), "trajectories");
    done = job.work(
        watch,
        [&](const std::function<bool()>& pause) {
          return run_vector_chains(space, posterior, s.sampler, list, [&] {
            progress.add(static_cast<double>(made() - reported));
            reported = made();
            return pause();
          });
        },
        [&] { save(comm, s, static_cast<std::size_t>(posterior.size()), list); });
    progress.add(static_cast<double>(made() - reported));
  }
  if (!done) {
    log::info("stopped before the end; to go on, run the same command again: " + command_to_resume(line, "inpaint"));
    return ExitCode::stopped;
  }

  std::vector<float> samples, latent;
  std::vector<double> log_density, accept_rate, step;
  std::vector<std::uint8_t> diverged;
  for (const VectorChain& chain : list) {
    const auto length = static_cast<long>(posterior.size());
    for (std::size_t draw = 0; draw < draws; draw += static_cast<std::size_t>(batch)) {
      report_alive();
      const std::size_t end = std::min(draws, draw + static_cast<std::size_t>(batch));
      std::vector<DrawKey> keys;
      for (std::size_t i = draw; i < end; ++i)
        keys.push_back({s.common.seed, Purpose::realisation_prior, static_cast<std::uint32_t>(chain.chain),
                        static_cast<std::uint32_t>(i)});
      const std::vector<float> drawn = posterior.draw(space,
                                                      {chain.draws.begin() + static_cast<long>(draw) * length,
                                                       chain.draws.begin() + static_cast<long>(end) * length},
                                                      keys);
      for (std::size_t i = 0; i < drawn.size(); ++i) {
        const float field_there = best.expansion.field_of(drawn[i], i % pixels);
        samples.push_back(static_cast<float>(maps.model().record.field.map_of(static_cast<double>(field_there))));
      }
    }
    latent.insert(latent.end(), chain.draws.begin(), chain.draws.end());
    log_density.insert(log_density.end(), chain.log_density.begin(), chain.log_density.end());
    accept_rate.push_back(chain.accept_rate);
    step.push_back(chain.fit.step);
    diverged.push_back(chain.diverged() ? 1 : 0);
  }

  const std::vector<std::pair<const char*, double>> levels = {
      {"05", 0.05}, {"16", 0.16}, {"50", 0.5}, {"84", 0.84}, {"95", 0.95}};
  const EnsembleSummary summary =
      summarise(comm, samples, static_cast<std::int64_t>(pixels), {0.05, 0.16, 0.5, 0.84, 0.95});
  // Nested R-hat of the log-density.
  const std::vector<double> all_densities = comm.gather(log_density);
  double r_hat = NAN;
  if (comm.is_root()) {
    ChainDraws series;
    for (std::size_t c = 0; c < static_cast<std::size_t>(s.chains); ++c)
      series.emplace_back(all_densities.begin() + static_cast<long>(c * draws),
                          all_densities.begin() + static_cast<long>((c + 1) * draws));
    r_hat = nested_r_hat(series, s.sampler.chains_a_superchain);
  }
  const std::vector<float> filled = diffusive_fill(grid, s.data, s.mask);

  ResultFile result(s.common.output, comm, "inpaint");
  Hdf5Writer& hdf5 = result.hdf5();
  const auto chains = static_cast<std::uint64_t>(s.chains), n_draws = static_cast<std::uint64_t>(draws);
  const auto size = static_cast<std::uint64_t>(posterior.size());
  const auto height = static_cast<std::uint64_t>(grid.height), width = static_cast<std::uint64_t>(grid.width);
  result.write_map_axes(grid, maps.model().record.pixel_arcmin);
  result.write_index_axis("chain", chains, "index of the chain");
  result.write_index_axis("draw", n_draws, "index of the draw in its chain");
  result.write_index_axis("latent", size, "index of the latent variable");
  const auto write = [&]<class T>(const std::string& path, const std::vector<std::string>& axes,
                                  const std::vector<std::uint64_t>& shape, const std::string& words,
                                  const std::vector<T>& values) {
    hdf5.write_sharded<T>({path, axes, "1", words}, shape, static_cast<std::uint64_t>(shard.first),
                          static_cast<std::uint64_t>(shard.count), values.data());
  };
  write("/posterior/map", {"chain", "draw", "y", "x"}, {chains, n_draws, height, width},
        "posterior draws, in units of the observed pixels' deviation", samples);
  write("/posterior/latent", {"chain", "draw", "latent"}, {chains, n_draws, size},
        "posterior draws of the flow's base variables", latent);
  write("/sample_stats/log_density", {"chain", "draw"}, {chains, n_draws}, "log-density, up to a constant",
        log_density);
  write("/sample_stats/accept_rate", {"chain"}, {chains}, "mean acceptance probability after warm-up", accept_rate);
  write("/sample_stats/step", {"chain"}, {chains}, "leapfrog step", step);
  write("/sample_stats/diverged", {"chain"}, {chains}, "1: the chain did not move", diverged);
  result.write_map("/summary/mean", grid, summary.mean.data(), "1", "posterior mean");
  result.write_map("/summary/std", grid, summary.standard_deviation.data(), "1", "posterior standard deviation");
  for (std::size_t q = 0; q < levels.size(); ++q)
    result.write_map(std::string("/summary/quantile_") + levels[q].first, grid,
                     comm.is_root() ? summary.quantiles[q].data() : nullptr, "1",
                     std::string("posterior quantile, ") + levels[q].first + " %");
  result.write_map("/reference/maximum", grid, best.map.data(), "1", "most probable map");
  result.write_map("/reference/residual_deviation", grid, best.deviation.data(), "1",
                   "deviation of what the decoder leaves out, a priori");
  result.write_map("/reference/diffusive", grid, filled.data(), "1", "Laplace's equation solved where not observed");
  result.write_map("/data/map", grid, s.truth.data(), "1",
                   "given map, less the mean of its observed pixels, over their deviation");
  result.write_map("/data/mask", grid, s.mask.data(), "1", "1 observed, 0 not");
  hdf5.attribute("/data", "mean", s.mean);
  hdf5.attribute("/data", "deviation", s.deviation);
  hdf5.attribute("/sample_stats", "nested_r_hat", r_hat);
  hdf5.attribute("/sample_stats", "maximum_log_density", best.value);
  hdf5.attribute("/sample_stats", "spread_of_starts", best.spread);
  hdf5.attribute("/sample_stats", "residual_amplitude", best.amplitude);
  result.write_provenance(config, static_cast<std::int64_t>(s.common.seed), s.common.inputs, watch.seconds());
  result.commit();
  comm.together([&] {
    if (comm.is_root()) remove_checkpoint(checkpoint_path(s.common.output));
  });
  std::snprintf(text, sizeof text, "nested R-hat of the log-density: %.3f", r_hat);
  log::info(text);
  const double limit = nested_r_hat_limit(static_cast<int>(s.chains / s.sampler.chains_a_superchain),
                                          s.sampler.chains_a_superchain, static_cast<double>(draws));
  if (comm.is_root() && r_hat > limit) {
    std::snprintf(text, sizeof text,
                  "chains differ: nested R-hat is above %.3f; give them a longer inpaint.warm_up, and if that does not "
                  "help, the posterior has several maxima",
                  limit);
    log::warn(text);
  }
  log::info("wrote " + s.common.output);
  return ExitCode::done;
}

}  // namespace umbriel
