// umbriel inpaint: what a patch is like where it was not observed, given an autoencoder of such patches.
//
// The data are d = A x + noise, with a Gaussian beam and a mask as A (linear_operator.hpp), and x = g(z) a decoded map.
// As in Thorne, Knox & Prabhu 2021 (arXiv 2101.11181), but for z = flow(u) with u standard normal a priori:
//
//   -2 ln p(u | d) = u^T u + |A g(z(u)) - d|^2 / sigma^2
//
// Its maximum is found by L-BFGS from several starts, and draws of it by Hamiltonian Monte Carlo in u; chains are
// sharded over ranks. Beside them stands the fill that knows nothing of dust: Laplace's equation inside the mask.
#include <algorithm>
#include <cmath>

#include "umbriel/app/autoencoder.hpp"
#include "umbriel/app/checkpoint.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/inference/diagnostics.hpp"
#include "umbriel/inference/linear_operator.hpp"
#include "umbriel/inference/vector_posterior.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/mpi/watchdog.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/statistics/ensemble.hpp"

namespace umbriel {
namespace {

using HostFloats = Kokkos::View<float*, HostMemory, Kokkos::MemoryUnmanaged>;
using Floats = Kokkos::View<float*, Memory, Kokkos::MemoryUnmanaged>;

void upload(const std::vector<float>& from, float* to) {
  Kokkos::deep_copy(Floats(to, from.size()), HostFloats(const_cast<float*>(from.data()), from.size()));
}

std::vector<float> download(const float* from, std::size_t n) {
  std::vector<float> values(n);
  Kokkos::deep_copy(HostFloats(values.data(), n), Floats(const_cast<float*>(from), n));
  return values;
}

/// The posterior of the latent variables' base.
class DecoderPosterior final : public VectorDensity {
 public:
  /// @param data   [H, W] standardised; 0 where not observed
  /// @param noise  its standard deviation, in the same units
  DecoderPosterior(const Vae& vae, const LinearOperator& instrument, const std::vector<float>& data, double noise,
                   int batch, nn::Options options)
      : vae_(vae),
        instrument_(instrument),
        weight_(1 / (noise * noise)),
        batch_(batch),
        tape_(vae.parameters(), true, inputs_only(std::move(options))),
        seen_("umbriel::seen_maps", batch, vae.grid().height, vae.grid().width),
        pulled_("umbriel::pulled_maps", batch, vae.grid().height, vae.grid().width),
        data_("umbriel::inpainting_data", batch, vae.grid().height, vae.grid().width, 1),
        squares_("umbriel::residual_squares", static_cast<std::size_t>(batch)) {
    u_ = tape_.input({batch, 1, 1, vae.latent()}, true);
    map_ = vae.decode(tape_, vae.flow() != nullptr ? vae.flow()->from_base(tape_, u_) : u_);
    tape_.plan(map_);
    tape_.load_parameters(Space());
    std::vector<float> all;
    for (int n = 0; n < batch; ++n) all.insert(all.end(), data.begin(), data.end());
    upload(all, data_.data());
  }

  int size() const override { return vae_.latent(); }
  int batch() const override { return batch_; }

  std::vector<double> evaluate(const Space& space, const std::vector<float>& points,
                               std::vector<float>& gradient) override {
    decode_all(space, points);
    const Activations map = tape_.value(map_);
    instrument_.apply(space, as_maps(map), batch_, seen_);
    const Activations seen(seen_.data(), map.extents);
    linear_combination(space, 1, seen, -1, data_, seen);
    square_samples(space, seen, squares_);
    instrument_.transpose(space, seen_, batch_, pulled_);
    const Activations pulled(pulled_.data(), map.extents);
    linear_combination(space, static_cast<float>(-weight_), pulled, 0, pulled, tape_.gradient(map_));
    tape_.backward(space);
    space.fence();
    gradient = download(tape_.gradient(u_).data, points.size());
    const auto squares = on_host(squares_);
    const auto latent = static_cast<std::size_t>(vae_.latent());
    std::vector<double> log_density(points.size() / latent);
    for (std::size_t n = 0; n < log_density.size(); ++n) log_density[n] = -0.5 * weight_ * squares(n);
    for (std::size_t i = 0; i < points.size(); ++i) {
      log_density[i / latent] -= 0.5 * static_cast<double>(points[i]) * static_cast<double>(points[i]);
      gradient[i] -= points[i];
    }
    return log_density;
  }

  /// Decoded maps [n, H, W] of points [n, size], n <= batch().
  std::vector<float> maps(const Space& space, const std::vector<float>& points) {
    decode_all(space, points);
    space.fence();
    return download(tape_.value(map_).data, points.size() / static_cast<std::size_t>(vae_.latent()) *
                                                static_cast<std::size_t>(vae_.grid().pixels()));
  }

 private:
  static nn::Options inputs_only(nn::Options options) {
    options.inputs_only = true;
    return options;
  }
  static MapBatch as_maps(const Activations& a) {
    return MapBatch(a.data, static_cast<std::size_t>(a.extents.n), static_cast<std::size_t>(a.extents.h),
                    static_cast<std::size_t>(a.extents.w));
  }
  void decode_all(const Space& space, const std::vector<float>& points) {
    upload(points, tape_.value(u_).data);
    tape_.forward(space);
  }

  const Vae& vae_;
  const LinearOperator& instrument_;
  double weight_;
  int batch_;
  nn::Tape tape_;
  nn::Value u_, map_;
  MapBatch seen_, pulled_;
  Tensor data_;
  View1<double> squares_;
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
  MapSeries common;  // grid, inputs, limits, seed
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

}  // namespace

ExitCode run_inpaint(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  const AutoencoderMaps maps(comm, config, "inpaint");
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
    s.sampler.leapfrogs = static_cast<int>(config.integer("inpaint.leapfrogs", 10, 1, 10000));
    s.starts = static_cast<int>(config.integer("inpaint.starts", 4, 1, 10000));
    s.iterations = static_cast<int>(config.integer("inpaint.iterations", 500, 1, 1 << 20));
    s.compute = read_compute(config);
    config.reject_unknown_keys();
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
  });
  const Grid grid = maps.grid();
  const auto pixels = static_cast<std::size_t>(grid.pixels());
  const auto draws = static_cast<std::size_t>(s.sampler.draws);
  const ShardRange shard = shard_range(s.chains, comm.rank(), comm.size());
  const double bytes = static_cast<double>(s.chains) * static_cast<double>(draws * pixels) * sizeof(float);
  if (line.dry_run) {
    const double trajectories = s.sampler.warm_up + s.sampler.draws * s.sampler.trajectories_a_draw;
    char text[96];
    std::snprintf(text, sizeof text, "gradients: about %.3g a chain, %.3g in all", trajectories * s.sampler.leapfrogs,
                  trajectories * s.sampler.leapfrogs * static_cast<double>(s.chains));
    print_dry_run(line, {text, "disk: " + human_bytes(bytes)});
    return ExitCode::done;
  }
  const Job job(comm, s.common.output, s.common.limits, bytes, false);
  comm.together([&] { log::start(comm.rank(), s.common.output + ".log.jsonl"); });
  log::info("umbriel inpaint: " + std::to_string(s.chains) + " chains in " + std::to_string(maps.vae().latent()) +
            " latent variables on " + std::to_string(comm.size()) + " rank(s), " + device_name());

  const Space space;
  const int batch = static_cast<int>(std::clamp<std::int64_t>(shard.count, 1, s.common.batch));
  const MaskedBeam instrument(grid, s.mask, s.beam_arcmin / maps.model().record.pixel_arcmin, batch);
  DecoderPosterior posterior(maps.vae(), instrument, s.data, s.noise, batch, s.compute);

  // The maximum: the best of several starts, of which the first is the prior's; on every rank the same.
  std::vector<float> best;
  double best_value = 0;
  for (int start = 0; start < s.starts; ++start) {
    report_alive();
    std::vector<float> from(static_cast<std::size_t>(posterior.size()), 0);
    const DrawKey key{s.common.seed, Purpose::latent, static_cast<std::uint32_t>(start), 0};
    for (std::size_t i = 0; start > 0 && i < from.size(); ++i) from[i] = normal(key, i);
    double value = 0;
    const std::vector<float> found = maximum_of(space, posterior, from, s.iterations, value);
    if (start > 0 && value <= best_value) continue;
    best = found;
    best_value = value;
  }
  const std::vector<float> maximum = posterior.maps(space, best);

  Progress progress(comm, "sampling", s.chains, "chains");
  std::vector<float> samples, latent;
  std::vector<double> log_density, accept_rate, step;
  std::vector<std::uint8_t> diverged;
  for (std::int64_t first = shard.first; first < shard.first + shard.count; first += batch) {
    const int n = static_cast<int>(std::min<std::int64_t>(batch, shard.first + shard.count - first));
    const auto pause = [] {
      report_alive();
      return false;
    };
    for (const VectorChain& chain : run_vector_chains(space, posterior, s.sampler, first, n, pause)) {
      const auto size = static_cast<long>(posterior.size());
      for (long draw = 0; draw < static_cast<long>(draws); ++draw) {
        const std::vector<float> map =
            posterior.maps(space, {chain.draws.begin() + draw * size, chain.draws.begin() + (draw + 1) * size});
        samples.insert(samples.end(), map.begin(), map.end());
      }
      latent.insert(latent.end(), chain.draws.begin(), chain.draws.end());
      log_density.insert(log_density.end(), chain.log_density.begin(), chain.log_density.end());
      accept_rate.push_back(chain.accept_rate);
      step.push_back(chain.step);
      diverged.push_back(chain.diverged ? 1 : 0);
    }
    progress.add(n);
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
  result.write_map("/reference/maximum", grid, maximum.data(), "1", "most probable map");
  result.write_map("/reference/diffusive", grid, filled.data(), "1", "Laplace's equation solved where not observed");
  result.write_map("/data/map", grid, s.truth.data(), "1",
                   "given map, less the mean of its observed pixels, over their deviation");
  result.write_map("/data/mask", grid, s.mask.data(), "1", "1 observed, 0 not");
  hdf5.attribute("/data", "mean", s.mean);
  hdf5.attribute("/data", "deviation", s.deviation);
  hdf5.attribute("/sample_stats", "nested_r_hat", r_hat);
  hdf5.attribute("/sample_stats", "maximum_log_density", best_value);
  result.write_provenance(config, static_cast<std::int64_t>(s.common.seed), s.common.inputs, watch.seconds());
  result.commit();
  char text[96];
  std::snprintf(text, sizeof text, "nested R-hat of the log-density: %.3f", r_hat);
  log::info(text);
  log::info("wrote " + s.common.output);
  return ExitCode::done;
}

}  // namespace umbriel
