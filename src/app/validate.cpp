// umbriel validate: is the sampler right?
//
// exact: the posterior of a survey by chains against the exact Gaussian posterior (Wiener mean, constrained
//   realisations): error of the mean in units of the spread, ratio of standard deviations, ratio of variances a
//   multipole band. For the linear model under the Gaussian prior.
// calibration: mocks drawn from the prior, each sampled by chains; ranks of the truth among the draws must be uniform
//   (Talts et al. 2018, arXiv 1804.06788), and central intervals must cover what they claim.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "umbriel/app/chains.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/inference/spectra.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/simulation/convergence_map.hpp"
#include "umbriel/simulation/mock_survey.hpp"
#include "umbriel/statistics/calibration.hpp"
#include "umbriel/statistics/ensemble.hpp"

namespace umbriel {
namespace {

struct Settings {
  std::unique_ptr<Problem> problem;
  HmcOptions sampler;
  std::string output;
  std::int64_t chains = 0, exact_draws = 0;  // "exact"; 0 chains: not asked for
  std::int64_t mocks = 0;                    // "calibration"; 0: not asked for
  int draws = 0, rank_bins = 0;
};

Settings read_settings(const Config& config) {
  Settings s;
  s.output = read_output(config);
  s.sampler = read_sampler(config, read_seed(config));
  s.chains = config.flag("validate.exact", true) ? config.integer("sampler.chains", 256, 2, 1 << 24) : 0;
  s.exact_draws = config.integer("validate.exact_draws", 512, 2, 1 << 24);
  s.mocks = config.integer("validate.mocks", 0, 0, 1 << 24);
  s.draws = static_cast<int>(config.integer("validate.draws", 63, 1, 65535));
  s.rank_bins = static_cast<int>(config.integer("validate.rank_bins", 16, 2, 65536));
  s.problem = std::make_unique<Problem>(read_problem(config));
  know_all_keys(config);
  config.reject_unknown_keys();
  require((s.draws + 1) % s.rank_bins == 0, ExitCode::usage, "validate.rank_bins must divide validate.draws + 1",
          config.where("validate.rank_bins"), "for instance 63 draws and 16 bins");
  require(s.chains > 0 || s.mocks > 0, ExitCode::usage, "there is nothing to validate", config.where("validate"),
          "set validate.exact = true, or validate.mocks");
  require(s.chains == 0 || !s.problem->model.reduced_shear, ExitCode::usage,
          "reduced shear has no exact posterior to compare with", config.where("model.reduced_shear"),
          "set validate.exact = false, and validate.mocks");
  return s;
}

/// Square sums of (map - centre) inside and outside the mask and in multipole bands, over the maps of all ranks.
struct Spread {
  double inside = 0, outside = 0;  // mean square a pixel
  std::vector<double> bands;       // mean square a mode
};

Spread measure_spread(const Communicator& comm, const Space& space, const RealFft& fft, const RadialBins& bins,
                      const std::vector<float>& maps, const HostMap& centre, const Survey& survey) {
  const Grid grid = fft.grid();
  const auto pixels = static_cast<std::size_t>(grid.pixels());
  const auto bands = static_cast<std::size_t>(bins.bands());
  const HostMaps host("umbriel::difference", 1, grid.height, grid.width);
  const SpectrumBatch spectrum("umbriel::difference_spectrum", 1, grid.height, grid.half_width());
  const View2<double> power("umbriel::difference_power", 1, bins.bands());
  std::vector<ExactSum> sums(3 + bands);  // inside, outside, maps, bands
  for (std::size_t first = 0; first < maps.size(); first += pixels) {
    double inside = 0, outside = 0;
    for (std::size_t i = 0; i < pixels; ++i) {
      const float difference = maps[first + i] - centre[i];
      host.data()[i] = difference;
      (survey.mask.data()[i] > 0 ? inside : outside) +=
          static_cast<double>(difference) * static_cast<double>(difference);
    }
    if (!std::isfinite(inside + outside)) continue;
    to_spectra(space, fft, 1, on_device(host), spectrum);
    band_power(space, bins, spectrum, 1, power);
    space.fence();
    const auto values = on_host(power);
    sums[0].add(inside);
    sums[1].add(outside);
    sums[2].add(1);
    for (std::size_t b = 0; b < bands; ++b) sums[3 + b].add(values(0, static_cast<int>(b)));
  }
  const std::vector<double> total = exact_sum_over_ranks(comm, sums);
  const auto observed = static_cast<double>(
      std::count_if(survey.mask.data(), survey.mask.data() + pixels, [](float m) { return m > 0; }));
  Spread spread;
  spread.inside = total[0] / total[2] / observed;
  spread.outside = total[1] / total[2] / (static_cast<double>(pixels) - observed);
  for (std::size_t b = 0; b < bands; ++b) spread.bands.push_back(total[3 + b] / total[2]);
  return spread;
}

void validate_exact(const CommandLine& line, const Settings& s, ResultFile& result) {
  const Communicator& comm = line.comm;
  const Space space;
  const Survey& survey = s.problem->survey;
  const Grid grid = survey.grid;
  const auto pixels = static_cast<std::size_t>(grid.pixels());
  const ConvergencePosterior posterior(survey, s.problem->power, s.problem->model, std::max(s.sampler.batch, 8));
  const auto fields = static_cast<std::size_t>(posterior.fields());
  const HostMap wiener =
      maps_of(space, posterior.fft(), GaussianPosterior(posterior, 1).mean(space), posterior.fields())[0];
  const auto first_fields = [&](const std::vector<float>& all) {
    std::vector<float> maps;
    for (std::size_t at = 0; at < all.size(); at += fields * pixels)
      maps.insert(maps.end(), all.begin() + static_cast<long>(at), all.begin() + static_cast<long>(at + pixels));
    return maps;
  };
  std::vector<float> samples;
  std::int64_t evaluations = 0;
  {
    Progress progress(comm, "sampling", s.chains, "chains");
    const auto chains = run_chains(space, posterior, chain_start(space, *s.problem, posterior, s.sampler), s.sampler,
                                   indices_of(shard_range(s.chains, comm.rank(), comm.size())),
                                   [&](double fraction) { progress.add(fraction); });
    for (const ChainResult& chain : chains) {
      samples.insert(samples.end(), chain.sample.begin(), chain.sample.begin() + static_cast<long>(pixels));
      evaluations += chain.score_evaluations;
    }
  }
  evaluations = comm.sum(evaluations);
  const std::vector<float> exact =
      first_fields(exact_draws(comm, space, posterior, s.sampler.seed, s.exact_draws, runs_on_host ? 1 : 8));

  // Bands of at least 256 modes, so that the variance of each is known to a percent or two.
  const RadialBins bins = radial_bins(grid, survey.pixel_arcmin, logarithmic_edges(grid, survey.pixel_arcmin, 32, 256));
  const Spread sampled = measure_spread(comm, space, posterior.fft(), bins, samples, wiener, survey);
  const Spread truth = measure_spread(comm, space, posterior.fft(), bins, exact, wiener, survey);
  const EnsembleSummary summary = summarise(comm, samples, static_cast<std::int64_t>(pixels), {});
  const EnsembleSummary exact_summary = summarise(comm, exact, static_cast<std::int64_t>(pixels), {});

  double error = 0;
  std::vector<double> ratios(static_cast<std::size_t>(bins.bands()));
  if (comm.is_root()) {
    double n = 0;
    for (std::size_t i = 0; i < pixels; ++i) {
      if (survey.mask.data()[i] == 0) continue;
      const double difference = static_cast<double>(summary.mean[i]) - static_cast<double>(wiener[i]);
      error += difference * difference;
      n += 1;
    }
    error = std::sqrt(error / n / sampled.inside);
  }
  for (std::size_t b = 0; b < ratios.size(); ++b) ratios[b] = sampled.bands[b] / truth.bands[b];
  const double inside = std::sqrt(sampled.inside / truth.inside), outside = std::sqrt(sampled.outside / truth.outside);

  Hdf5Writer& hdf5 = result.hdf5();
  result.write_map_axes(grid, survey.pixel_arcmin);
  hdf5.write_axis("band", bins.centres, "1", "mean multipole of the band");
  result.write_map("/summary/mean", grid, summary.mean.data(), "1", "posterior mean of the convergence");
  result.write_map("/summary/std", grid, summary.standard_deviation.data(), "1", "posterior standard deviation");
  result.write_map("/reference/wiener_mean", grid, wiener.data(), "1", "exact Wiener mean");
  result.write_map("/reference/wiener_std", grid, exact_summary.standard_deviation.data(), "1",
                   "standard deviation of exact posterior draws");
  write_survey(result, survey);
  hdf5.write<double>(
      {"/validate/band_variance_ratio", {"band"}, "1", "variance of the samples over that of exact draws"},
      {ratios.size()}, ratios.data());
  hdf5.attribute("/validate", "mean_error_ratio", error);
  hdf5.attribute("/validate", "std_ratio_inside", inside);
  hdf5.attribute("/validate", "std_ratio_outside", outside);
  hdf5.attribute("/validate", "chains", s.chains);
  if (comm.is_root()) {
    const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
    char text[256];
    std::snprintf(text, sizeof text,
                  "error of the mean: %.4f of the posterior standard deviation; 1/sqrt(chains) = %.4f", error,
                  1 / std::sqrt(static_cast<double>(s.chains)));
    log::info(text);
    std::snprintf(
        text, sizeof text,
        "standard deviation inside the mask %.5f (exact %.5f, ratio %.4f), outside %.5f (exact %.5f, ratio %.4f)",
        std::sqrt(sampled.inside), std::sqrt(truth.inside), inside, std::sqrt(sampled.outside),
        std::sqrt(truth.outside), outside);
    log::info(text);
    std::snprintf(text, sizeof text,
                  "variance in %d multipole bands: %.4f to %.4f of the exact; %.1f score evaluations a chain",
                  bins.bands(), *low, *high, static_cast<double>(evaluations) / static_cast<double>(s.chains));
    log::info(text);
  }
}

/// Scalars whose truth is ranked among the draws.
struct Quantities {
  static constexpr int count = 5;
  static constexpr const char* names = "pixel_observed,pixel_unobserved,block_mean,power,maximum";

  explicit Quantities(const Survey& survey) : grid(survey.grid) {
    const long centre = static_cast<long>(grid.height / 2) * grid.width + grid.width / 2;
    const auto nearest = [&](bool wanted) {
      long best = -1;
      double best_distance = 1e300;
      for (long i = 0; i < grid.pixels(); ++i) {
        if ((survey.mask.data()[i] > 0) != wanted) continue;
        const double distance = std::hypot(i / grid.width - centre / grid.width, i % grid.width - centre % grid.width);
        if (distance < best_distance) {
          best = i;
          best_distance = distance;
        }
      }
      return best >= 0 ? best : centre;
    };
    observed = nearest(true);
    unobserved = nearest(false);
  }

  /// @param map  [y, x]
  std::vector<double> operator()(const float* map) const {
    double block = 0, power = 0, maximum = -1e300;
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        const auto value = static_cast<double>(map[static_cast<long>(y) * grid.width + x]);
        if (y < grid.height / 4 && x < grid.width / 4) block += value;
        power += value * value;
        maximum = std::max(maximum, value);
      }
    }
    return {static_cast<double>(map[observed]), static_cast<double>(map[unobserved]), block, power, maximum};
  }

  Grid grid;
  long observed, unobserved;
};

void validate_calibration(const CommandLine& line, const Settings& s, ResultFile& result) {
  const Communicator& comm = line.comm;
  const Space space;
  const Survey& survey = s.problem->survey;
  const Grid grid = survey.grid;
  const long pixels = grid.pixels();
  const Quantities quantities(survey);
  const ShardRange shard = shard_range(s.mocks, comm.rank(), comm.size());
  ConvergenceSimulator simulator(s.problem->spectrum, grid, survey.pixel_arcmin, FieldKind::gaussian);
  const MapBatch truth("umbriel::mock_truth", 1, grid.height, grid.width);

  // Histograms of the truth's rank among the draws, pixel by pixel: inside the mask, then outside.
  const auto bins = static_cast<std::size_t>(s.draws) + 1;
  std::vector<std::int64_t> pixel_ranks(2 * bins, 0);
  std::vector<std::int64_t> ranks;  // [mock][quantity] of this rank's mocks
  {
    Progress progress(comm, "calibrating", s.mocks, "mocks");
    for (std::int64_t mock = shard.first; mock < shard.first + shard.count; ++mock) {
      const auto sample = static_cast<std::uint32_t>(mock);
      simulator.draw(s.sampler.seed, sample, 1, truth);
      space.fence();
      const auto true_map = on_host(truth);
      Problem mock_problem = *s.problem;
      mock_problem.survey = mock_survey(true_map, survey.mask, survey.noise, survey.pixel_arcmin, s.sampler.seed,
                                        sample, s.problem->model.reduced_shear);
      const ConvergencePosterior posterior(mock_problem.survey, mock_problem.power, mock_problem.model,
                                           s.sampler.batch);
      const auto chains =
          run_chains(space, posterior, chain_start(space, mock_problem, posterior, s.sampler), s.sampler,
                     indices_of({mock * s.draws, s.draws}), [&](double fraction) { progress.add(fraction / s.draws); });
      std::vector<std::vector<double>> values;
      for (const ChainResult& chain : chains) values.push_back(quantities(chain.sample.data()));
      const std::vector<double> true_values = quantities(true_map.data());
      for (std::size_t q = 0; q < Quantities::count; ++q) {
        std::vector<double> draws;
        for (const auto& value : values) draws.push_back(value[q]);
        ranks.push_back(rank_among(true_values[q], draws));
      }
      for (long i = 0; i < pixels; ++i) {
        const float value = true_map.data()[i];
        const auto below =
            static_cast<std::size_t>(std::count_if(chains.begin(), chains.end(), [&](const ChainResult& chain) {
              return chain.sample[static_cast<std::size_t>(i)] < value;
            }));
        ++pixel_ranks[(survey.mask.data()[i] > 0 ? 0 : bins) + below];
      }
    }
  }
  comm.sum(pixel_ranks.data(), pixel_ranks.size());
  const std::vector<std::int64_t> all_ranks = comm.gather(ranks);

  const std::vector<double> levels = {0.5, 0.68, 0.9, 0.95};
  const std::vector<std::int64_t> counts_in(pixel_ranks.begin(), pixel_ranks.begin() + static_cast<long>(bins));
  const std::vector<std::int64_t> counts_out(pixel_ranks.begin() + static_cast<long>(bins), pixel_ranks.end());
  std::vector<double> inside, outside, p_values(Quantities::count);
  for (const double level : levels) {
    inside.push_back(central_coverage(counts_in, level));
    outside.push_back(central_coverage(counts_out, level));
  }
  const auto n_mocks = static_cast<std::uint64_t>(s.mocks);
  std::vector<std::int64_t> by_quantity(Quantities::count * n_mocks);
  if (comm.is_root()) {
    for (std::size_t q = 0; q < Quantities::count; ++q) {
      std::vector<std::int64_t> column;
      for (std::size_t mock = 0; mock < n_mocks; ++mock) column.push_back(all_ranks[mock * Quantities::count + q]);
      std::copy(column.begin(), column.end(), by_quantity.begin() + static_cast<long>(q * n_mocks));
      p_values[q] = rank_uniformity(column, s.draws, s.rank_bins);
    }
  }
  Hdf5Writer& hdf5 = result.hdf5();
  result.write_index_axis("quantity", Quantities::count, "ranked scalar");
  result.write_index_axis("mock", n_mocks, "index of the mock");
  hdf5.write_axis("level", levels, "1", "nominal probability of the central interval");
  hdf5.write<std::int64_t>({"/validate/sbc_ranks", {"quantity", "mock"}, "1", "rank of the truth among the draws"},
                           {Quantities::count, n_mocks}, by_quantity.data());
  hdf5.write<double>({"/validate/p_value", {"quantity"}, "1", "chi^2 test of uniform ranks"}, {Quantities::count},
                     p_values.data());
  hdf5.write<double>({"/validate/coverage_nominal", {"level"}, "1", "nominal coverage"}, {levels.size()},
                     levels.data());
  hdf5.write<double>({"/validate/coverage_inside", {"level"}, "1", "coverage of observed pixels"}, {levels.size()},
                     inside.data());
  hdf5.write<double>({"/validate/coverage_outside", {"level"}, "1", "coverage of unobserved pixels"}, {levels.size()},
                     outside.data());
  hdf5.attribute("/validate", "names", std::string(Quantities::names));
  hdf5.attribute("/validate", "draws", static_cast<std::int64_t>(s.draws));
  if (comm.is_root()) {
    char text[256];
    for (std::size_t l = 0; l < levels.size(); ++l) {
      std::snprintf(text, sizeof text,
                    "central %.0f %% intervals cover %.2f %% of observed and %.2f %% of unobserved pixels",
                    100 * levels[l], 100 * inside[l], 100 * outside[l]);
      log::info(text);
    }
    std::snprintf(text, sizeof text, "uniform ranks, p-values (%s): %.3f %.3f %.3f %.3f %.3f", Quantities::names,
                  p_values[0], p_values[1], p_values[2], p_values[3], p_values[4]);
    log::info(text);
  }
}

}  // namespace

ExitCode run_validate(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  Settings s;
  comm.together([&] { s = read_settings(line.config); });
  if (line.dry_run) {
    const double chains = static_cast<double>(s.chains) + static_cast<double>(s.mocks) * s.draws;
    char text[96];
    std::snprintf(text, sizeof text, "score evaluations: about %.3g", chains * s.sampler.expected_evaluations());
    print_dry_run(
        line, {text, "memory a rank: " + human_bytes(3.0 * static_cast<double>(s.chains + s.exact_draws) *
                                                     s.problem->survey.grid.pixels() * sizeof(float) / comm.size())});
    return ExitCode::done;
  }
  comm.together([&] { log::start(comm.rank(), s.output + ".log.jsonl"); });
  ResultFile result(s.output, comm, "validate");
  if (s.chains > 0) validate_exact(line, s, result);
  if (s.mocks > 0) validate_calibration(line, s, result);
  result.write_provenance(line.config, static_cast<std::int64_t>(s.sampler.seed), input_records(s.problem->survey),
                          watch.seconds());
  result.commit();
  log::info("wrote " + s.output);
  return ExitCode::done;
}

}  // namespace umbriel
