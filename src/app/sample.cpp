// umbriel sample: posterior samples of the convergence, chains sharded over ranks.
//
// The program in steps: read and check; references (Kaiser-Squires, exact Wiener posterior); chains, with checkpoints;
// summaries, in chain order whatever the number of ranks; the result file and FITS maps.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "umbriel/app/chains.hpp"
#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/job.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/inference/diagnostics.hpp"
#include "umbriel/inference/spectra.hpp"
#include "umbriel/maps/peaks.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/maps/smoothing.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/statistics/calibration.hpp"
#include "umbriel/statistics/ensemble.hpp"

namespace umbriel {
namespace {

struct Settings {
  std::unique_ptr<Problem> problem;
  HmcOptions sampler;
  std::string output;
  std::string identity;  // what decides the chains: a checkpoint must agree
  std::int64_t chains = 0;
  std::int64_t reference_draws = 0;
  RunLimits limits;
  bool keep_samples = true, export_fits = true;
  double peak_smoothing_arcmin = 0, peak_radius_arcmin = 0, peak_threshold = 0;
};

/// Beginnings of keys that do not decide what a chain is. More chains extend a run; the rest decide how it runs and
/// what is made of it.
const std::vector<std::string> not_identity = {"run.",      "summary.",       "reference.",
                                               "validate.", "sampler.batch ", "sampler.chains "};

Settings read_settings(const Config& config) {
  Settings s;
  s.output = read_output(config);
  s.limits = read_run_limits(config);
  s.export_fits = config.flag("run.export_fits", true);
  s.chains = config.integer("sampler.chains", 64, 1, std::int64_t{1} << 31);
  s.reference_draws = config.integer("reference.draws", 64, 0, 1 << 24);
  s.peak_smoothing_arcmin = config.number("summary.peak_smoothing_arcmin", 1.0, 0, 1e4);
  s.peak_radius_arcmin = config.number("summary.peak_radius_arcmin", 1.0, 0, 1e4);
  s.peak_threshold = config.number("summary.peak_threshold", 0.03, -1e3, 1e3);
  s.problem = std::make_unique<Problem>(read_problem(config));
  s.sampler = read_sampler(config, read_seed(config), *s.problem);
  const double bytes =
      static_cast<double>(s.chains) * static_cast<double>(s.problem->survey.grid.pixels()) * sizeof(float);
  s.keep_samples = config.flag("run.keep_samples", bytes <= 2.0 * (1U << 30));
  know_all_keys(config);
  config.reject_unknown_keys();
  s.identity = identity_of(config, s.sampler.seed, input_records(s.problem->survey), not_identity);
  return s;
}

double pixels_of(const Settings& s) { return static_cast<double>(s.problem->survey.grid.pixels()); }

/// Bytes of the samples of all chains.
double sample_bytes(const Settings& s) {
  return static_cast<double>(s.chains) * pixels_of(s) * sizeof(float) * (s.problem->model.b_modes ? 2 : 1);
}

/// A sample, and with a learned prior the mean of the chain's tail.
double maps_a_chain(const Settings& s) { return s.sampler.sharpened() ? 2 : 1; }

/// Bytes of disk in the end: samples, some twenty maps, and as many again as FITS.
double result_bytes(const Settings& s) {
  return (s.keep_samples ? sample_bytes(s) : 0) + (s.export_fits ? 25 : 20) * pixels_of(s) * sizeof(float);
}

/// Bytes of a checkpoint when all chains are done, or nearly so.
double checkpoint_bytes(const Settings& s) {
  const double under_way = std::min(static_cast<double>(s.chains), 2.0 * s.sampler.batch) * 12 * pixels_of(s);
  return maps_a_chain(s) * sample_bytes(s) + under_way * sizeof(float);
}

/// What a run needs while it goes on: two generations of checkpoints, and a third that is being written.
double disk_bytes(const Settings& s) {
  return result_bytes(s) + (s.limits.checkpoint > 0 ? 3 * checkpoint_bytes(s) : 0);
}

void dry_run(const CommandLine& line, const Settings& s) {
  const double memory = 2 * maps_a_chain(s) * sample_bytes(s) / line.comm.size() + chain_bytes(*s.problem, s.sampler);
  const double a_chain = evaluations_a_chain(*s.problem, s.sampler);
  char evaluations[96];
  std::snprintf(evaluations, sizeof evaluations, "score evaluations: about %.0f a chain, %.3g in all", a_chain,
                a_chain * static_cast<double>(s.chains));
  print_dry_run(line,
                {evaluations, "memory a rank: " + human_bytes(memory),
                 "disk: " + human_bytes(result_bytes(s)) + ", with checkpoints up to " + human_bytes(disk_bytes(s))});
}

/// Probability that a sample, smoothed, has a peak above the threshold within the radius of each pixel. Counts are
/// whole numbers, so their sum over ranks is exact.
std::vector<float> peak_probability(const Communicator& comm, const Space& space, const RealFft& fft,
                                    const std::vector<float>& local, const Settings& s) {
  const Grid grid = fft.grid();
  const long pixels = grid.pixels();
  const double pixel = s.problem->survey.pixel_arcmin;
  const int reach = static_cast<int>(s.peak_radius_arcmin / pixel);
  const HostMaps host("umbriel::peak_input", 1, grid.height, grid.width);
  const SpectrumBatch scratch("umbriel::peak_scratch", 1, grid.height, grid.half_width());
  const MapBatch peaks("umbriel::peaks", 1, grid.height, grid.width);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(pixels) + 1, 0);  // the last: maps counted
  std::vector<char> near(static_cast<std::size_t>(pixels));
  for (std::size_t first = 0; first < local.size(); first += static_cast<std::size_t>(pixels)) {
    if (!std::isfinite(local[first])) continue;
    std::copy_n(local.begin() + static_cast<long>(first), pixels, host.data());
    const MapBatch map = on_device(host);
    if (s.peak_smoothing_arcmin > 0) smooth_maps(space, fft, map, scratch, 1, s.peak_smoothing_arcmin / pixel);
    local_maxima(space, map, 1, static_cast<float>(s.peak_threshold), peaks);
    space.fence();
    const auto found = on_host(peaks);
    std::fill(near.begin(), near.end(), 0);
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        if (found(0, y, x) == 0) continue;
        for (int dy = -reach; dy <= reach; ++dy) {
          for (int dx = -reach; dx <= reach; ++dx) {
            const int at_y = y + dy, at_x = x + dx;
            if (at_y < 0 || at_x < 0 || at_y >= grid.height || at_x >= grid.width) continue;
            if (std::hypot(dy, dx) * pixel <= s.peak_radius_arcmin)
              near[static_cast<std::size_t>(at_y) * grid.width + at_x] = 1;
          }
        }
      }
    }
    for (std::size_t i = 0; i < near.size(); ++i) counts[i] += near[i];
    ++counts.back();
  }
  comm.sum(counts.data(), counts.size());
  std::vector<float> probability(static_cast<std::size_t>(pixels));
  for (std::size_t i = 0; i < probability.size(); ++i)
    probability[i] = static_cast<float>(static_cast<double>(counts[i]) / static_cast<double>(counts.back()));
  return probability;
}

/// C_l of each map in bands: [map][band].
std::vector<double> band_spectra(const Space& space, const RealFft& fft, const RadialBins& bins,
                                 const std::vector<float>& maps, double pixel_arcmin) {
  const Grid grid = fft.grid();
  const double pixel = pixel_arcmin / 60 * std::acos(-1.0) / 180;
  const HostMaps host("umbriel::spectrum_input", 1, grid.height, grid.width);
  const SpectrumBatch spectrum("umbriel::spectrum", 1, grid.height, grid.half_width());
  const View2<double> power("umbriel::band_power", 1, bins.bands());
  std::vector<double> out;
  for (std::size_t first = 0; first < maps.size(); first += static_cast<std::size_t>(grid.pixels())) {
    std::copy_n(maps.begin() + static_cast<long>(first), grid.pixels(), host.data());
    to_spectra(space, fft, 1, on_device(host), spectrum);
    band_power(space, bins, spectrum, 1, power);
    space.fence();
    const auto values = on_host(power);
    for (int b = 0; b < bins.bands(); ++b) out.push_back(values(0, b) * pixel * pixel);
  }
  return out;
}

/// Runs this rank's chains, with checkpoints that all ranks write together. @return false if stopped before the end
/// @param resumed  checkpoint to go on from, or empty
bool sample_chains(const Communicator& comm, const Space& space, const Settings& s, const std::string& resumed,
                   const Job& job, const ConvergencePosterior& posterior, const Stopwatch& watch,
                   std::vector<ChainResult>& results) {
  const ShardRange shard = shard_range(s.chains, comm.rank(), comm.size());
  const std::size_t sample_size = static_cast<std::size_t>(posterior.fields()) * posterior.grid().pixels();
  const std::string checkpoint = checkpoint_path(s.output);
  AnnealedHmc sampler(posterior, posterior.fft(), chain_start(space, *s.problem, posterior, s.sampler), s.sampler,
                      s.problem->learned.get());
  const std::size_t state_floats = sampler.state_floats();
  Checkpoint chains = read_checkpoint(comm, resumed, s.sampler, sample_size, state_floats, shard);
  const std::int64_t finished = comm.sum(static_cast<std::int64_t>(chains.finished.size()));
  const std::int64_t under_way = comm.sum(static_cast<std::int64_t>(chains.under_way.size()));
  if (finished + under_way > 0) {
    log::info("resuming: " + std::to_string(finished) + " chains are done already, " + std::to_string(under_way) +
              " on their way");
  }
  std::vector<bool> begun(static_cast<std::size_t>(shard.count), false);
  for (const ChainResult& chain : chains.finished) begun[static_cast<std::size_t>(chain.chain - shard.first)] = true;
  for (const ChainState& chain : chains.under_way) begun[static_cast<std::size_t>(chain.chain - shard.first)] = true;
  std::vector<std::int64_t> todo;
  for (const std::int64_t chain : indices_of(shard)) {
    if (!begun[static_cast<std::size_t>(chain - shard.first)]) todo.push_back(chain);
  }
  comm.together([&] { sampler.add(std::move(chains.under_way)); });
  sampler.add(todo);
  Progress progress(comm, "sampling", s.chains - finished, "chains");
  const bool done = job.work(
      watch,
      [&](const std::function<bool()>& pause) {
        return sampler.run(
            space, [&](ChainResult&& chain) { chains.finished.push_back(std::move(chain)); },
            [&](double fraction) { progress.add(fraction); }, pause);
      },
      [&] {
        chains.under_way = sampler.states();
        write_checkpoint(comm, checkpoint, s.identity, s.sampler, sample_size, state_floats, chains);
        chains.under_way.clear();
      });
  results = std::move(chains.finished);
  return done;
}

/// Scalars of the chains of this rank, one after the other.
template <class T, class Get>
std::vector<T> collect(const std::vector<ChainResult>& chains, const Get& get) {
  std::vector<T> values;
  for (const ChainResult& chain : chains) get(chain, values);
  return values;
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text.append(text.empty() ? "" : ",").append(word);
  return text;
}

}  // namespace

ExitCode run_sample(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  Settings s;
  comm.together([&] { s = read_settings(line.config); });
  if (line.dry_run) {
    dry_run(line, s);
    return ExitCode::done;
  }
  const Problem& problem = *s.problem;
  const Survey& survey = problem.survey;
  const Grid grid = survey.grid;
  const auto pixels = static_cast<std::size_t>(grid.pixels());
  const Job job(comm, s.output, s.limits, disk_bytes(s), true);
  comm.together([&] { log::start(comm.rank(), s.output + ".log.jsonl"); });
  log::info("umbriel sample: " + std::to_string(s.chains) + " chains of " + std::to_string(grid.width) + " x " +
            std::to_string(grid.height) + " pixels on " + std::to_string(comm.size()) + " rank(s), " + device_name());

  const std::string resumed = open_checkpoint(comm, checkpoint_path(s.output), s.identity, line.override_checkpoint);

  // References.
  const Space space;
  const ConvergencePosterior linear = linear_posterior(problem, runs_on_host ? 1 : 8);
  const int fields = linear.fields();
  const std::vector<HostMap> kaiser = kaiser_squires_maps(space, problem, linear.fft());
  const HostMap kaiser_smooth =
      smoothed(space, linear.fft(), kaiser[0].data(), problem.smoothing_arcmin, survey.pixel_arcmin);
  const std::vector<HostMap> wiener = maps_of(space, linear.fft(), GaussianPosterior(linear, 1).mean(space), fields);
  HostMap wiener_std;
  if (s.reference_draws > 1) {
    const std::vector<float> draws =
        exact_draws(comm, space, linear, s.sampler.seed, s.reference_draws, runs_on_host ? 1 : 8);
    std::vector<float> e_maps;
    for (std::size_t at = 0; at < draws.size(); at += fields * pixels)
      e_maps.insert(e_maps.end(), draws.begin() + static_cast<long>(at),
                    draws.begin() + static_cast<long>(at + pixels));
    wiener_std = summarise(comm, e_maps, static_cast<std::int64_t>(pixels), {}).standard_deviation;
  }
  const double references_took = watch.seconds();

  // Chains.
  const ConvergencePosterior posterior(survey, problem.power, problem.model, s.sampler.batch);
  std::vector<ChainResult> chains;
  const Stopwatch sampling;
  if (!sample_chains(comm, space, s, resumed, job, posterior, watch, chains)) {
    log::info("stopped before the end; to go on, run the same command again: " + command_to_resume(line, "sample"));
    return ExitCode::stopped;
  }
  const double sampling_took = sampling.seconds();
  std::sort(chains.begin(), chains.end(), [](const auto& a, const auto& b) { return a.chain < b.chain; });
  std::string aside;
  for (const ChainResult& chain : chains) {
    if (!chain.diverged) continue;
    aside.append("chain ").append(std::to_string(chain.chain)).append("; ");
  }
  const std::vector<char> aside_all = comm.gather(std::vector<char>(aside.begin(), aside.end()));
  aside = comm.broadcast(std::string(aside_all.begin(), aside_all.end()));
  if (!aside.empty()) {
    aside += "seed " + std::to_string(s.sampler.seed);
    if (comm.is_root()) log::warn("set aside, a value was not finite: " + aside);
  }
  const std::int64_t good =
      comm.sum(std::count_if(chains.begin(), chains.end(), [](const auto& c) { return !c.diverged; }));
  if (good == 0)
    throw Error(ExitCode::numerical, "every chain met a value that is not finite", aside,
                "check the survey for extreme values; a smaller sampler.step may help")
        .mark_agreed();

  // Summaries, in chain order.
  const auto field_of = [&](int field, const auto& of) {
    std::vector<float> maps;
    maps.reserve(chains.size() * pixels);
    for (const ChainResult& chain : chains) {
      const std::vector<float>& all = of(chain);
      maps.insert(maps.end(), all.begin() + static_cast<long>(field * pixels),
                  all.begin() + static_cast<long>((field + 1) * pixels));
    }
    return maps;
  };
  const auto sample_of = [](const ChainResult& c) -> const std::vector<float>& { return c.sample; };
  const auto posterior_mean = [&](int field) {
    const auto mean_of = [](const ChainResult& c) -> const std::vector<float>& { return c.best_mean(); };
    return summarise(comm, field_of(field, mean_of), static_cast<std::int64_t>(pixels), {}).mean;
  };
  const std::vector<float> samples = field_of(0, sample_of);
  const std::vector<double> levels = {0.05, 0.16, 0.5, 0.84, 0.95};
  EnsembleSummary summary = summarise(comm, samples, static_cast<std::int64_t>(pixels), levels);
  if (s.sampler.sharpened()) summary.mean = posterior_mean(0);  // else it is that of the samples
  const std::vector<float> peaks = peak_probability(comm, space, posterior.fft(), samples, s);
  const RadialBins bins = radial_bins(grid, survey.pixel_arcmin, logarithmic_edges(grid, survey.pixel_arcmin, 32, 16));
  const auto n_bands = static_cast<std::size_t>(bins.bands());
  const std::vector<double> sample_spectra =
      comm.gather(band_spectra(space, posterior.fft(), bins, samples, survey.pixel_arcmin));
  const std::vector<double> tails = comm.gather(
      collect<double>(chains, [](const ChainResult& c, auto& v) { v.insert(v.end(), c.tail.begin(), c.tail.end()); }));

  // The result file.
  const auto n_chains = static_cast<std::uint64_t>(s.chains);
  const ShardRange shard = shard_range(s.chains, comm.rank(), comm.size());
  const auto first = static_cast<std::uint64_t>(shard.first), count = static_cast<std::uint64_t>(shard.count);
  const auto height = static_cast<std::uint64_t>(grid.height), width = static_cast<std::uint64_t>(grid.width);
  const auto trace = static_cast<std::uint64_t>(s.sampler.trace_length());
  const auto tail = static_cast<std::uint64_t>(s.sampler.tail);
  ResultFile result(s.output, comm, "sample");
  Hdf5Writer& hdf5 = result.hdf5();
  result.write_map_axes(grid, survey.pixel_arcmin);
  result.write_index_axis("chain", n_chains, "index of the chain");
  result.write_index_axis("step", trace, "recorded trajectory, every " + std::to_string(s.sampler.trace_every()));
  result.write_index_axis("tail_state", tail, "state at the final temperature");
  result.write_index_axis("quantity", monitored_quantities, "monitored scalar");
  hdf5.write_axis("band", bins.centres, "1", "mean multipole of the band");
  if (s.keep_samples) {
    hdf5.write_sharded<float>({"/posterior/kappa", {"chain", "y", "x"}, "1", "posterior samples of the convergence"},
                              {n_chains, height, width}, first, count, samples.data());
    if (fields == 2)
      hdf5.write_sharded<float>({"/posterior/kappa_b", {"chain", "y", "x"}, "1", "posterior samples of the B mode"},
                                {n_chains, height, width}, first, count, field_of(1, sample_of).data());
  }
  result.write_map("/summary/mean", grid, summary.mean.data(), "1", "posterior mean of the convergence");
  result.write_map("/summary/std", grid, summary.standard_deviation.data(), "1", "posterior standard deviation");
  const char* level_names[] = {"05", "16", "50", "84", "95"};
  for (std::size_t q = 0; q < levels.size(); ++q)
    result.write_map(std::string("/summary/quantile_").append(level_names[q]), grid, summary.quantiles[q].data(), "1",
                     std::string("posterior quantile, ").append(level_names[q]).append(" %"));
  result.write_map("/summary/peak_probability", grid, peaks.data(), "1",
                   "probability of a peak of the smoothed convergence within the radius");
  if (fields == 2) {
    const EnsembleSummary b_summary = summarise(comm, field_of(1, sample_of), static_cast<std::int64_t>(pixels), {});
    result.write_map("/summary/b_mean", grid, posterior_mean(1).data(), "1", "posterior mean of the B mode");
    result.write_map("/summary/b_std", grid, b_summary.standard_deviation.data(), "1",
                     "posterior standard deviation of the B mode");
  }
  result.write_map("/reference/kaiser_squires", grid, kaiser[0].data(), "1", "Kaiser-Squires convergence, unsmoothed");
  result.write_map("/reference/wiener_mean", grid, wiener[0].data(), "1", "exact Wiener mean under the Gaussian prior");
  if (s.reference_draws > 1)
    result.write_map("/reference/wiener_std", grid, wiener_std.data(), "1",
                     "standard deviation of exact posterior draws");
  write_survey(result, survey);

  const auto per_chain = [&](const std::string& name, const std::string& words, auto get) {
    using T = std::decay_t<decltype(get(chains.front()))>;
    std::vector<T> values;
    for (const ChainResult& chain : chains) values.push_back(get(chain));
    hdf5.write_sharded<T>({"/sample_stats/" + name, {"chain"}, "1", words}, {n_chains}, first, count, values.data());
  };
  per_chain("accept_rate", "accepted share of the Metropolis tests",
            [](const ChainResult& c) { return c.accept_rate; });
  per_chain("energy_error", "largest energy error of a tested trajectory",
            [](const ChainResult& c) { return c.energy_error; });
  per_chain("score_evaluations", "evaluations of the score; with a learned prior, of its network",
            [](const ChainResult& c) { return c.score_evaluations; });
  if (problem.learned != nullptr) {
    per_chain("density_evaluations", "evaluations of the exact part of the log-density and its score",
              [](const ChainResult& c) { return c.density_evaluations; });
  }
  per_chain("diverged", "1: set aside, a value was not finite",
            [](const ChainResult& c) { return static_cast<std::uint8_t>(c.diverged ? 1 : 0); });
  hdf5.write_sharded<double>({"/sample_stats/log_density", {"chain", "step"}, "1", "log-density at the temperature"},
                             {n_chains, trace}, first, count,
                             collect<double>(chains, [](const ChainResult& c, auto& v) {
                               v.insert(v.end(), c.trace_log_density.begin(), c.trace_log_density.end());
                             }).data());
  hdf5.write_sharded<float>({"/sample_stats/sigma", {"chain", "step"}, "1", "temperature"}, {n_chains, trace}, first,
                            count, collect<float>(chains, [](const ChainResult& c, auto& v) {
                                     v.insert(v.end(), c.trace_sigma.begin(), c.trace_sigma.end());
                                   }).data());
  hdf5.write_sharded<double>(
      {"/sample_stats/tail", {"chain", "tail_state", "quantity"}, "1", "monitored scalars along the tail"},
      {n_chains, tail, monitored_quantities}, first, count, collect<double>(chains, [](const ChainResult& c, auto& v) {
                                                              v.insert(v.end(), c.tail.begin(), c.tail.end());
                                                            }).data());

  // Diagnostics and spectra, on rank 0.
  std::vector<double> r_hat(monitored_quantities), r_hat_limit(monitored_quantities), effective(monitored_quantities),
      lag_one(monitored_quantities);
  std::vector<double> low(n_bands), high(n_bands), centre(n_bands), prior(n_bands, 0);
  if (comm.is_root()) {
    for (std::size_t q = 0; q < monitored_quantities; ++q) {
      ChainDraws draws(n_chains, std::vector<double>(tail));
      for (std::size_t c = 0; c < n_chains; ++c) {
        for (std::size_t t = 0; t < tail; ++t) draws[c][t] = tails[(c * tail + t) * monitored_quantities + q];
      }
      r_hat[q] = nested_r_hat(draws, s.sampler.chains_a_superchain);
      effective[q] = effective_sample_size(draws);
      r_hat_limit[q] = nested_r_hat_limit(static_cast<int>(n_chains) / s.sampler.chains_a_superchain,
                                          s.sampler.chains_a_superchain, effective[q] / static_cast<double>(n_chains));
      lag_one[q] = lag_one_correlation(draws);
    }
    for (std::size_t b = 0; b < n_bands; ++b) {
      std::vector<float> values;
      for (std::size_t c = 0; c < n_chains; ++c) {
        const double value = sample_spectra[c * n_bands + b];
        if (std::isfinite(value)) values.push_back(static_cast<float>(value));
      }
      std::sort(values.begin(), values.end());
      low[b] = quantile_of_sorted(values, 0.05);
      high[b] = quantile_of_sorted(values, 0.95);
      for (const float v : values) centre[b] += static_cast<double>(v) / static_cast<double>(values.size());
      prior[b] = problem.spectrum(bins.centres[b]);
    }
  }
  hdf5.write<double>({"/diagnostics/nested_rhat", {"quantity"}, "1", "nested R-hat of the tail"},
                     {monitored_quantities}, r_hat.data());
  hdf5.write<double>({"/diagnostics/nested_rhat_limit", {"quantity"}, "1", "nested R-hat above which chains disagree"},
                     {monitored_quantities}, r_hat_limit.data());
  hdf5.write<double>({"/diagnostics/effective_sample_size", {"quantity"}, "1", "effective sample size of the tail"},
                     {monitored_quantities}, effective.data());
  hdf5.write<double>(
      {"/diagnostics/lag_one_correlation", {"quantity"}, "1", "correlation of successive states of the tail"},
      {monitored_quantities}, lag_one.data());
  hdf5.attribute("/diagnostics", "names", join(monitored_names()));
  const auto write_spectrum = [&](const std::string& name, const std::string& words,
                                  const std::vector<double>& values) {
    hdf5.write<double>({"/spectra/" + name, {"band"}, "sr", words}, {n_bands}, values.data());
  };
  write_spectrum("posterior_mean", "mean C_l of the posterior samples", centre);
  write_spectrum("posterior_05", "5 % quantile of the samples' C_l", low);
  write_spectrum("posterior_95", "95 % quantile of the samples' C_l", high);
  write_spectrum("wiener_mean", "C_l of the Wiener mean",
                 band_spectra(space, posterior.fft(), bins, wiener[0], survey.pixel_arcmin));
  write_spectrum("kaiser_squires", "C_l of the Kaiser-Squires map",
                 band_spectra(space, posterior.fft(), bins, kaiser[0], survey.pixel_arcmin));
  write_spectrum("prior", "C_l of the prior", prior);
  std::vector<std::pair<std::string, MapMetrics>> metrics;
  if (survey.truth) {
    const HostMap truth(survey.truth->data(), survey.truth->data() + pixels);
    write_spectrum("truth", "C_l of the true convergence",
                   band_spectra(space, posterior.fft(), bins, truth, survey.pixel_arcmin));
    if (comm.is_root()) {
      const auto add = [&](const char* name, const float* map) {
        metrics.emplace_back(name,
                             map_metrics(map, truth.data(), survey.mask.data(), static_cast<std::int64_t>(pixels)));
      };
      add("posterior_mean", summary.mean.data());
      add("wiener_mean", wiener[0].data());
      add("kaiser_squires_smoothed", kaiser_smooth.data());
      add("kaiser_squires", kaiser[0].data());
    }
    const std::uint64_t n_metrics = 4;
    std::vector<double> rmse, pearson;
    std::vector<std::string> names;
    for (const auto& [name, value] : metrics) {
      names.push_back(name);
      rmse.push_back(value.rmse);
      pearson.push_back(value.pearson);
    }
    result.write_index_axis("method", n_metrics, "reconstruction");
    hdf5.write<double>({"/metrics/rmse", {"method"}, "1", "root mean square error inside the mask"}, {n_metrics},
                       rmse.data());
    hdf5.write<double>({"/metrics/pearson", {"method"}, "1", "Pearson correlation inside the mask"}, {n_metrics},
                       pearson.data());
    hdf5.attribute("/metrics", "methods", join(names));
  }
  hdf5.attribute("/", "chains_set_aside", aside);
  result.write_provenance(line.config, static_cast<std::int64_t>(s.sampler.seed), input_records(survey),
                          watch.seconds());
  result.commit();
  comm.together([&] {
    if (comm.is_root()) remove_checkpoint(checkpoint_path(s.output));
  });

  // FITS maps beside it.
  if (s.export_fits) {
    const std::string stem = stem_of(s.output);
    comm.together([&] {
      if (!comm.is_root()) return;
      const auto write = [&](const char* name, const float* map, const char* words) {
        write_fits_map(stem + "_" + name + ".fits", map, grid, "", words, survey.wcs);
      };
      write("mean", summary.mean.data(), "posterior mean of the convergence");
      write("std", summary.standard_deviation.data(), "posterior standard deviation of the convergence");
      write("peak_probability", peaks.data(), "probability of a convergence peak");
      write("wiener_mean", wiener[0].data(), "Wiener mean of the convergence");
      write("kaiser_squires_smoothed", kaiser_smooth.data(), "smoothed Kaiser-Squires convergence");
    });
  }

  // What it came to.
  const std::int64_t evaluations = comm.sum([&] {
    std::int64_t total = 0;
    for (const ChainResult& chain : chains) total += chain.score_evaluations;
    return total;
  }());
  ExactSum accepted_here;
  for (const ChainResult& chain : chains) {
    if (!chain.diverged) accepted_here.add(chain.accept_rate);
  }
  const double accepted = exact_sum_over_ranks(comm, {accepted_here})[0];
  log::event("sampled", {{"chains", s.chains},
                         {"seconds", sampling_took},
                         {"reference_seconds", references_took},
                         {"score_evaluations", evaluations},
                         {"ranks", static_cast<std::int64_t>(comm.size())},
                         {"accept_rate", accepted / static_cast<double>(good)}});
  if (comm.is_root()) {
    char text[200];
    std::snprintf(text, sizeof text, "%.0f score evaluations a chain, %.0f %% accepted, worst nested R-hat %.3f",
                  static_cast<double>(evaluations) / static_cast<double>(s.chains),
                  100 * accepted / static_cast<double>(good), *std::max_element(r_hat.begin(), r_hat.end()));
    log::info(text);
    for (const auto& [name, value] : metrics) {
      std::snprintf(text, sizeof text, "%-24s rmse %.4f  Pearson %.3f", name.c_str(), value.rmse, value.pearson);
      log::info(text);
    }
  }
  log::info("wrote " + s.output + (s.export_fits ? " and " + stem_of(s.output) + "_*.fits" : ""));
  return ExitCode::done;
}

}  // namespace umbriel
