// umbriel validate: is the sampler right?
//
// exact: the posterior of a survey by chains against the exact Gaussian posterior (Wiener mean, constrained
//   realisations): error of the mean in units of the spread, ratio of standard deviations, ratio of variances a
//   multipole band. For the linear model under the Gaussian prior.
// calibration: mocks with the survey's mask and noise, each sampled by chains, under any prior. Ranks of the truth in
//   the draws must be uniform (Talts et al. 2018, arXiv 1804.06788), central intervals must cover what they claim, and
//   so must balls about reference points (TARP, Lemos et al. 2023, arXiv 2302.03026). These hold if the mocks are drawn
//   from the prior; whatever the mocks, the error of the posterior mean against that of the exact Wiener mean says what
//   the prior gains.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "umbriel/app/chains.hpp"
#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/job.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/base/signals.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/inference/spectra.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/mpi/shared_flag.hpp"
#include "umbriel/simulation/convergence_map.hpp"
#include "umbriel/simulation/mock_survey.hpp"
#include "umbriel/simulation/shear.hpp"
#include "umbriel/statistics/calibration.hpp"
#include "umbriel/statistics/ensemble.hpp"

namespace umbriel {
namespace {

/// A map of a file: plane `index` of an image, an array or a dataset.
struct TruthMap {
  std::string path, dataset;  // dataset: of an HDF5 file
  std::uint64_t index = 0;
};

struct Settings {
  std::unique_ptr<Problem> problem;
  HmcOptions sampler;
  std::string output;
  RunLimits limits;
  std::string identity;                      // what decides a mock and its chains: a checkpoint must agree
  std::int64_t chains = 0, exact_draws = 0;  // "exact"; 0 chains: not asked for
  std::int64_t mocks = 0;                    // "calibration"; 0: not asked for
  int draws = 0, rank_bins = 0;
  FieldKind mocks_kind = FieldKind::gaussian;
  double kappa0 = 0.05;
  std::vector<TruthMap> truths;  // in place of simulated ones
  std::vector<InputRecord> inputs;

  std::string kind_name() const {
    if (!truths.empty()) return "files";
    return mocks_kind == FieldKind::gaussian ? "gaussian" : "lognormal";
  }
};

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// The maps [y, x] that a file holds, alone or in a stack [sample, y, x].
/// @throws Error(input) for maps of another size, or an HDF5 file without such maps or with several stacks of them
std::vector<TruthMap> maps_in(const std::string& path, Grid grid) {
  std::vector<std::uint64_t> shape;
  std::string dataset;
  if (ends_with(path, ".h5") || ends_with(path, ".hdf5")) {
    const Hdf5Reader file(path);
    const auto is_map = [&](const std::string& name) {
      const auto s = file.shape(name);
      return (s.size() == 2 || s.size() == 3) && s[s.size() - 2] == static_cast<std::uint64_t>(grid.height) &&
             s[s.size() - 1] == static_cast<std::uint64_t>(grid.width);
    };
    for (const std::string& name : file.datasets()) {
      if (!is_map(name)) continue;
      require(dataset.empty(), ExitCode::input, "the file holds several maps: " + dataset + " and " + name, path,
              "give the result of umbriel simulate kappa, FITS or .npy");
      dataset = name;
    }
    require(!dataset.empty(), ExitCode::input,
            "the file holds no maps of " + std::to_string(grid.width) + " x " + std::to_string(grid.height) + " pixels",
            path, "give maps of the survey's size");
    shape = file.shape(dataset);
  } else if (ends_with(path, ".npy")) {
    shape = read_npy(path).shape;
  } else {
    const FitsImage image = read_fits_image(path);
    shape = {static_cast<std::uint64_t>(image.planes), static_cast<std::uint64_t>(image.height),
             static_cast<std::uint64_t>(image.width)};
  }
  if (shape.size() == 2) shape.insert(shape.begin(), 1);
  require(shape.size() == 3 && shape[1] == static_cast<std::uint64_t>(grid.height) &&
              shape[2] == static_cast<std::uint64_t>(grid.width),
          ExitCode::input, "the file holds no maps of the survey's size", path,
          "give [y, x] or [sample, y, x] of " + std::to_string(grid.width) + " x " + std::to_string(grid.height) +
              " pixels");
  std::vector<TruthMap> maps;
  for (std::uint64_t i = 0; i < shape[0]; ++i) maps.push_back({path, dataset, i});
  return maps;
}

/// The convergence of one of them: [1, y, x].
HostMaps read_truth(const TruthMap& map, Grid grid) {
  const auto pixels = static_cast<std::size_t>(grid.pixels());
  HostMaps out("umbriel::truth", 1, grid.height, grid.width);
  const auto take = [&](const auto& values, std::size_t first) {
    require(values.size() >= first + pixels, ExitCode::input, "the file has changed since the run began", map.path);
    for (std::size_t i = 0; i < pixels; ++i) out.data()[i] = static_cast<float>(values[first + i]);
  };
  if (!map.dataset.empty()) {
    const Hdf5Reader file(map.path);
    const bool stack = file.shape(map.dataset).size() == 3;
    take(stack ? file.read<float>(map.dataset, map.index, 1) : file.read<float>(map.dataset), 0);
  } else if (ends_with(map.path, ".npy")) {
    take(read_npy(map.path).values, map.index * pixels);
  } else {
    take(read_fits_image(map.path).values, map.index * pixels);
  }
  return out;
}

Settings read_settings(const Config& config) {
  Settings s;
  const bool gaussian_prior = config.text("prior.kind", "gaussian") == "gaussian";
  const bool reduced = config.flag("model.reduced_shear", false);
  s.output = read_output(config);
  s.limits = read_run_limits(config);
  s.problem = std::make_unique<Problem>(read_problem(config));
  s.sampler = read_sampler(config, read_seed(config), *s.problem);
  s.chains =
      config.flag("validate.exact", gaussian_prior && !reduced) ? config.integer("sampler.chains", 256, 2, 1 << 24) : 0;
  s.exact_draws = config.integer("validate.exact_draws", 512, 2, 1 << 24);
  s.draws = static_cast<int>(config.integer("validate.draws", 63, 1, 65535));
  s.rank_bins = static_cast<int>(config.integer("validate.rank_bins", 16, 2, 65536));
  s.mocks_kind = field_kind(
      config.choice("validate.mocks_kind", gaussian_prior ? "gaussian" : "lognormal", {"gaussian", "lognormal"}));
  // By default the mocks are what the prior was trained on.
  const double trained = s.problem->learned != nullptr ? s.problem->learned->kappa0() : 0;
  s.kappa0 = config.number("validate.kappa0", trained > 0 ? trained : 0.05, 1e-6, 1e3);
  s.inputs = input_records(s.problem->survey);
  if (config.has("validate.truths")) {
    const std::vector<std::string> paths = config.is_text("validate.truths")
                                               ? std::vector<std::string>{config.text("validate.truths")}
                                               : config.texts("validate.truths");
    for (const std::string& name : paths) {
      const std::string path = config.resolve_path(name);
      const std::vector<TruthMap> maps = maps_in(path, s.problem->survey.grid);
      s.truths.insert(s.truths.end(), maps.begin(), maps.end());
      s.inputs.push_back({path, sha256_of_file(path)});
    }
    require(!s.truths.empty(), ExitCode::usage, "there is no map", config.where("validate.truths"), "name files");
  }
  s.mocks = config.integer("validate.mocks", static_cast<std::int64_t>(s.truths.size()), 0, 1 << 24);
  know_all_keys(config);
  config.reject_unknown_keys();
  // More mocks extend a run.
  s.identity = identity_of(config, s.sampler.seed, s.inputs,
                           {"run.", "summary.", "reference.", "sampler.batch ", "sampler.chains ", "validate.mocks ",
                            "validate.exact", "validate.rank_bins "});
  require((s.draws + 1) % s.rank_bins == 0, ExitCode::usage, "validate.rank_bins must divide validate.draws + 1",
          config.where("validate.rank_bins"), "for instance 63 draws and 16 bins, or 99 draws and 20 bins");
  require(s.mocks * s.draws <= UINT32_MAX, ExitCode::usage, "there are more than 2^32 chains",
          config.where("validate.mocks"), "take fewer mocks or draws");
  require(s.chains > 0 || s.mocks > 0, ExitCode::usage, "there is nothing to validate", config.where("validate"),
          "set validate.exact = true, or validate.mocks");
  require(s.chains == 0 || gaussian_prior, ExitCode::usage,
          "only a Gaussian prior has an exact posterior to compare with", config.where("validate.exact"),
          "set validate.exact = false, and validate.mocks");
  require(s.chains == 0 || !reduced, ExitCode::usage, "reduced shear has no exact posterior to compare with",
          config.where("model.reduced_shear"), "set validate.exact = false, and validate.mocks");
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
    const auto chains = run_chains(space, *s.problem, posterior, chain_start(space, *s.problem, posterior, s.sampler),
                                   s.sampler, indices_of(shard_range(s.chains, comm.rank(), comm.size())),
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

/// The true skies of mocks: simulated, or maps of files. Nothing else of umbriel ever sees these draws: seeds of a
/// configuration are below 2^63, and those of mocks are not, so that no network was trained on them.
class Truths {
 public:
  static std::uint64_t held_out(std::uint64_t seed) { return seed | (std::uint64_t{1} << 63); }

  Truths(const Settings& s)
      : s_(s),
        grid_(s.problem->survey.grid),
        simulator_(s.problem->spectrum, grid_, s.problem->survey.pixel_arcmin, s.mocks_kind, s.kappa0),
        drawn_("umbriel::mock_truth", 1, grid_.height, grid_.width) {}

  /// Truth of a mock: [1, y, x], mean 0, for shear says nothing of the mean and the prior pins it there.
  HostMaps truth(std::int64_t mock) {
    if (s_.truths.empty()) return simulated(static_cast<std::uint32_t>(mock));
    const auto maps = static_cast<std::int64_t>(s_.truths.size());
    return without_mean(read_truth(s_.truths[static_cast<std::size_t>(mock % maps)], grid_));
  }

  /// A random point that knows nothing of the mock.
  HostMaps reference(std::int64_t mock) {
    constexpr std::uint32_t never_a_mock = std::uint32_t{1} << 31;
    return simulated(never_a_mock | static_cast<std::uint32_t>(mock));
  }

 private:
  static HostMaps without_mean(const HostMaps& map) {
    double mean = 0;
    for (std::size_t i = 0; i < map.size(); ++i) mean += static_cast<double>(map.data()[i]);
    mean /= static_cast<double>(map.size());
    HostMaps out("umbriel::truth", 1, map.extent(1), map.extent(2));
    for (std::size_t i = 0; i < map.size(); ++i)
      out.data()[i] = static_cast<float>(static_cast<double>(map.data()[i]) - mean);
    return out;
  }

  HostMaps simulated(std::uint32_t sample) {
    const Space space;
    simulator_.draw(held_out(s_.sampler.seed), sample, 1, drawn_, space);
    space.fence();
    return without_mean(on_host(drawn_));
  }

  const Settings& s_;
  Grid grid_;
  ConvergenceSimulator simulator_;
  MapBatch drawn_;
};

/// Scalars whose truth is ranked among the draws.
class Quantities {
 public:
  static constexpr std::size_t count = 8;
  static constexpr const char* names =
      "pixel_observed,pixel_unobserved,block_mean,power,skewness,minimum,maximum,misfit";

  Quantities(const Survey& survey, const RealFft& fft)
      : survey_(survey),
        fft_(fft),
        map_("umbriel::ranked_map", 1, survey.grid.height, survey.grid.width),
        shear_("umbriel::ranked_shear", 2, survey.grid.height, survey.grid.width) {
    observed_ = nearest_to_centre(true);
    unobserved_ = nearest_to_centre(false);
  }

  /// @param map  [y, x]
  std::array<double, count> operator()(const Space& space, const float* map) const {
    const Grid grid = survey_.grid;
    double block = 0, square = 0, cube = 0, minimum = 1e300, maximum = -1e300;
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        const auto value = static_cast<double>(map[static_cast<long>(y) * grid.width + x]);
        if (y < grid.height / 4 && x < grid.width / 4) block += value;
        square += value * value;
        cube += value * value * value;
        minimum = std::min(minimum, value);
        maximum = std::max(maximum, value);
      }
    }
    return {static_cast<double>(map[observed_]),
            static_cast<double>(map[unobserved_]),
            block,
            square,
            cube / std::pow(square, 1.5),
            minimum,
            maximum,
            misfit(space, map)};
  }

 private:
  long nearest_to_centre(bool observed) const {
    const Grid grid = survey_.grid;
    const long centre = static_cast<long>(grid.height / 2) * grid.width + grid.width / 2;
    long best = -1;
    double best_distance = 1e300;
    for (long i = 0; i < grid.pixels(); ++i) {
      if ((survey_.mask.data()[i] > 0) != observed) continue;
      const double distance = std::hypot(i / grid.width - centre / grid.width, i % grid.width - centre % grid.width);
      if (distance < best_distance) {
        best = i;
        best_distance = distance;
      }
    }
    return best >= 0 ? best : centre;
  }

  /// chi^2 of the map's shear against the data: the one quantity here that looks at both (Modrak et al. 2023, arXiv
  /// 2211.02383, on why one should).
  double misfit(const Space& space, const float* map) const {
    const long pixels = survey_.grid.pixels();
    HostMaps host("umbriel::ranked_host", 1, survey_.grid.height, survey_.grid.width);
    std::copy(map, map + pixels, host.data());
    Kokkos::deep_copy(map_, host);
    shear_from_convergence(space, fft_, map_, shear_);
    space.fence();
    const auto shear = on_host(shear_);
    double sum = 0;
    for (long i = 0; i < 2 * pixels; ++i) {
      if (survey_.mask.data()[i % pixels] == 0) continue;
      const double residual = (static_cast<double>(survey_.shear.data()[i]) - static_cast<double>(shear.data()[i])) /
                              static_cast<double>(survey_.noise.data()[i]);
      sum += residual * residual;
    }
    return sum;
  }

  const Survey& survey_;
  const RealFft& fft_;
  MapBatch map_, shear_;
  long observed_, unobserved_;
};

constexpr std::array<double, 4> levels = {0.5, 0.68, 0.9, 0.95};
constexpr std::size_t references = 2;  // of TARP: a random point, the Wiener mean of the data

/// What is kept of a mock.
struct MockRecord {
  std::int64_t mock = 0;
  double evaluations = 0;                               // of the score, a sample
  std::array<std::int64_t, Quantities::count> ranks{};  // of the truth among the draws
  std::array<std::int64_t, references> tarp_ranks{};
  std::array<double, levels.size()> inside{}, outside{};  // coverage of observed and unobserved pixels
  MapMetrics mean, wiener;                                // of the posterior mean and of the exact Wiener mean
  double rmse_limit = 0;                                  // of the mean of infinitely many draws

  /// Calls f with each number, in an order that checkpoints keep.
  template <class F>
  void each_number(const F& f) {
    f(mock);
    for (auto& rank : ranks) f(rank);
    for (auto& rank : tarp_ranks) f(rank);
    for (auto& share : inside) f(share);
    for (auto& share : outside) f(share);
    f(mean.rmse), f(mean.pearson), f(wiener.rmse), f(wiener.pearson), f(rmse_limit);
  }
};

/// What is known of the mocks so far: each rank holds a part, and all parts together are the whole.
struct MockResults {
  std::vector<MockRecord> records;
  std::vector<std::int64_t> evaluations, diverged;  // [mock]
  std::vector<std::int64_t> pixel_ranks;            // as judge counts them

  MockResults() = default;
  explicit MockResults(const Settings& s)
      : evaluations(static_cast<std::size_t>(s.mocks), 0),
        diverged(static_cast<std::size_t>(s.mocks), 0),
        pixel_ranks(2 * (static_cast<std::size_t>(s.draws) + 1), 0) {}

  /// The whole: counts on every rank, records on rank 0, in order. Collective.
  MockResults whole(const Communicator& comm) const {
    MockResults all = *this;
    comm.sum(all.pixel_ranks.data(), all.pixel_ranks.size());
    comm.sum(all.evaluations.data(), all.evaluations.size());
    comm.sum(all.diverged.data(), all.diverged.size());
    all.records = comm.gather(records);
    std::sort(all.records.begin(), all.records.end(), [](const auto& a, const auto& b) { return a.mock < b.mock; });
    return all;
  }
};

/// Saves what all ranks know. Collective; rank 0 writes.
void save(const Communicator& comm, const Settings& s, const MockResults& mine) {
  MockResults all = mine.whole(comm);
  comm.together([&] {
    if (!comm.is_root()) return;
    std::vector<double> table;
    for (MockRecord& record : all.records)
      record.each_number([&](auto& number) { table.push_back(static_cast<double>(number)); });
    const std::uint64_t n = all.records.size();
    ResultFile file(checkpoint_path(s.output), Communicator(), "checkpoint of validate");
    Hdf5Writer& hdf5 = file.hdf5();
    hdf5.write<double>({"/records", {}, "1", "a row a mock"}, {n, n > 0 ? table.size() / n : 0}, table.data());
    const auto counts = [&](const char* name, const std::vector<std::int64_t>& values) {
      hdf5.write<std::int64_t>({name, {}, "1", name}, {values.size()}, values.data());
    };
    counts("/evaluations", all.evaluations);
    counts("/diverged", all.diverged);
    counts("/pixel_ranks", all.pixel_ranks);
    hdf5.attribute("/", "schema_version", static_cast<std::int64_t>(schema_version));
    hdf5.attribute("/", "command", std::string("checkpoint of validate"));
    hdf5.attribute("/", "identity", s.identity);
    hdf5.commit(true);
  });
}

/// What a checkpoint holds, on rank 0, and on all ranks which mocks are done. Collective.
MockResults load(const Communicator& comm, const Settings& s, bool overridden, std::vector<char>& done) {
  MockResults results(s);
  done.assign(static_cast<std::size_t>(s.mocks), 0);
  const std::string good = open_checkpoint(comm, checkpoint_path(s.output), s.identity, overridden);
  if (good.empty()) return results;
  comm.together([&] {
    if (!comm.is_root()) return;
    const Hdf5Reader file(good);
    const auto check = [&](bool sound) {
      require(sound, ExitCode::input, "the checkpoint does not hold what it should", good, "remove it to start anew");
    };
    const auto table = file.read<double>("/records");
    std::size_t numbers = 0;
    MockRecord().each_number([&](auto&) { ++numbers; });
    check(table.size() % numbers == 0);
    for (auto number = table.begin(); number != table.end();) {
      MockRecord& record = results.records.emplace_back();
      record.each_number([&](auto& value) {
        constexpr double largest = 9007199254740992.0;  // 2^53
        if constexpr (std::is_integral_v<std::decay_t<decltype(value)>>)
          check(*number >= 0 && *number <= largest && *number == std::floor(*number));
        value = static_cast<std::decay_t<decltype(value)>>(*number++);
      });
      for (const std::int64_t rank : record.ranks) check(rank <= s.draws);
      for (const std::int64_t rank : record.tarp_ranks) check(rank <= s.draws);
    }
    // With more mocks than before, the new ones have not begun.
    const auto counts = [&](const char* name, std::vector<std::int64_t>& values) {
      const auto read = file.read<std::int64_t>(name);
      require(read.size() <= values.size(), ExitCode::usage, "the checkpoint knows more mocks than are asked for", good,
              "ask for as many, or remove it to start anew");
      std::copy(read.begin(), read.end(), values.begin());
    };
    counts("/evaluations", results.evaluations);
    counts("/diverged", results.diverged);
    counts("/pixel_ranks", results.pixel_ranks);
    for (const MockRecord& record : results.records) check(record.mock < s.mocks);
    for (std::size_t mock = 0; mock < done.size(); ++mock) done[mock] = results.evaluations[mock] > 0 ? 1 : 0;
  });
  comm.broadcast(done.data(), done.size());
  const auto n = std::count(done.begin(), done.end(), 1);
  if (comm.is_root()) log::info("resuming: " + std::to_string(n) + " mocks are done already");
  return results;
}

/// Compares the draws of a mock with its truth.
/// @param draws        [draw, sample and best mean of its chain, y, x], all finite
/// @param pixel_ranks  counts of the truth's rank among the draws, pixel by pixel, to which this mock's are added:
///                     [observed then unobserved][rank]
MockRecord judge(const Space& space, const Settings& s, Truths& truths, const Problem& mock_problem, std::int64_t mock,
                 const std::vector<float>& draws, std::vector<std::int64_t>& pixel_ranks) {
  const Survey& survey = mock_problem.survey;
  const auto pixels = static_cast<std::size_t>(survey.grid.pixels());
  const auto n = static_cast<std::size_t>(s.draws);
  const float* truth = survey.truth->data();
  const float* mask = survey.mask.data();
  MockRecord record;
  record.mock = mock;

  const ConvergencePosterior linear = linear_posterior(mock_problem, 1);
  const HostMap wiener = maps_of(space, linear.fft(), GaussianPosterior(linear, 1).mean(space), linear.fields())[0];
  const Quantities quantities(survey, linear.fft());
  const HostMaps random_point = truths.reference(mock);
  const std::array<const float*, references> points = {random_point.data(), wiener.data()};

  // Scalars and distances, draw by draw.
  const auto true_values = quantities(space, truth);
  std::array<double, references> true_distances;
  for (std::size_t r = 0; r < references; ++r)
    true_distances[r] = squared_distance(truth, points[r], mask, static_cast<std::int64_t>(pixels));
  std::vector<double> mean(pixels, 0), squares(pixels, 0);
  std::vector<std::int32_t> below(pixels, 0);
  for (std::size_t d = 0; d < n; ++d) {
    const float *draw = &draws[2 * d * pixels], *chain_mean = draw + pixels;
    const auto values = quantities(space, draw);
    for (std::size_t q = 0; q < Quantities::count; ++q) record.ranks[q] += values[q] < true_values[q];
    for (std::size_t r = 0; r < references; ++r)
      record.tarp_ranks[r] +=
          squared_distance(draw, points[r], mask, static_cast<std::int64_t>(pixels)) < true_distances[r];
    double level = 0;  // mean over the full field
    for (std::size_t i = 0; i < pixels; ++i) level += static_cast<double>(chain_mean[i]);
    level /= static_cast<double>(pixels);
    for (std::size_t i = 0; i < pixels; ++i) {
      below[i] += draw[i] < truth[i];
      const double value = static_cast<double>(chain_mean[i]) - level;
      mean[i] += value;
      squares[i] += value * value;
    }
  }

  // Coverage, pixel by pixel.
  const std::size_t ranks = n + 1;
  std::vector<std::int64_t> inside(ranks, 0), outside(ranks, 0);
  for (std::size_t i = 0; i < pixels; ++i) ++(mask[i] > 0 ? inside : outside)[static_cast<std::size_t>(below[i])];
  for (std::size_t l = 0; l < levels.size(); ++l) {
    record.inside[l] = central_coverage(inside, levels[l]);
    record.outside[l] = central_coverage(outside, levels[l]);
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    pixel_ranks[r] += inside[r];
    pixel_ranks[ranks + r] += outside[r];
  }

  // The mean of n draws errs by the mean of infinitely many, and by variance / n on top.
  HostMap posterior_mean(pixels);
  double variance = 0, observed = 0;
  for (std::size_t i = 0; i < pixels; ++i) {
    mean[i] /= static_cast<double>(n);
    posterior_mean[i] = static_cast<float>(mean[i]);
    if (mask[i] == 0) continue;
    variance += squares[i] / static_cast<double>(n) - mean[i] * mean[i];  // times n / (n - 1)
    observed += 1;
  }
  record.mean = map_metrics(posterior_mean.data(), truth, mask, static_cast<std::int64_t>(pixels));
  record.wiener = map_metrics(wiener.data(), truth, mask, static_cast<std::int64_t>(pixels));
  const double excess = n > 1 ? variance / observed / static_cast<double>(n - 1) : 0;
  record.rmse_limit = std::sqrt(std::max(0.0, record.mean.rmse * record.mean.rmse - excess));
  return record;
}

/// Samples the mocks that no checkpoint knows, and saves them from time to time. Ranks take whole mocks, and share the
/// chains of those left over. @return false if it was stopped before the end, with all but the mocks in hand saved
bool sample_mocks(const Communicator& comm, const Settings& s, bool overridden, MockResults& results) {
  const Stopwatch watch;
  const Space space;
  const Survey& survey = s.problem->survey;
  const auto pixels = static_cast<std::size_t>(survey.grid.pixels());
  Truths truths(s);
  std::vector<char> done;
  results = load(comm, s, overridden, done);
  std::vector<std::int64_t> todo;
  for (std::int64_t mock = 0; mock < s.mocks; ++mock) {
    if (done[static_cast<std::size_t>(mock)] == 0) todo.push_back(mock);
  }
  Progress progress(comm, "calibrating", static_cast<std::int64_t>(todo.size()), "mocks");
  watch_stop_signals();
  SharedFlag stop_asked(comm);
  const double end = s.limits.last_second();
  const auto stop = [&] {
    if (stop_signal_received() || watch.seconds() > end) stop_asked.raise();
    return stop_asked.raised();
  };

  const auto problem_of = [&](std::int64_t mock) {
    Problem problem = *s.problem;
    problem.survey =
        mock_survey(truths.truth(mock), survey.mask, survey.noise, survey.pixel_arcmin,
                    Truths::held_out(s.sampler.seed), static_cast<std::uint32_t>(mock), s.problem->model.reduced_shear);
    return problem;
  };
  // Draws first ... first + count - 1 of a mock, as `judge` takes them; none after a stop.
  const auto sample = [&](const Problem& problem, std::int64_t mock, std::int64_t first, std::int64_t count) {
    const ConvergencePosterior posterior(problem.survey, problem.power, problem.model, s.sampler.batch);
    const auto chains = run_chains(
        space, problem, posterior, chain_start(space, problem, posterior, s.sampler), s.sampler,
        indices_of({mock * s.draws + first, count}), [&](double share) { progress.add(share / s.draws); }, stop);
    std::vector<float> maps;
    if (static_cast<std::int64_t>(chains.size()) < count) return maps;
    maps.reserve(2 * static_cast<std::size_t>(count) * pixels);
    for (const ChainResult& chain : chains) {
      for (const auto* field : {&chain.sample, &chain.best_mean()})
        maps.insert(maps.end(), field->begin(), field->begin() + static_cast<long>(pixels));
      results.evaluations[static_cast<std::size_t>(mock)] += chain.score_evaluations;
      results.diverged[static_cast<std::size_t>(mock)] += chain.diverged;
    }
    return maps;
  };
  const auto finite = [](const std::vector<float>& maps) {
    return std::all_of(maps.begin(), maps.end(), [](float value) { return std::isfinite(value); });
  };

  const auto ranks = static_cast<std::int64_t>(comm.size()), n = static_cast<std::int64_t>(todo.size());
  const std::int64_t shared = n % ranks, turns = n / ranks;
  // Ranks meet after some turns, no oftener than a checkpoint is worth, for until the last comes the others wait.
  double saved = 0;
  std::int64_t at_once = 1;
  for (std::int64_t turn = 0; turn < turns;) {
    const double began = watch.seconds();
    const std::int64_t last = std::min(turns, turn + at_once), count = last - turn;
    for (; turn < last && !stop(); ++turn) {
      const std::int64_t mock = todo[static_cast<std::size_t>(turn * ranks + comm.rank())];
      const Problem problem = problem_of(mock);
      const std::vector<float> draws = sample(problem, mock, 0, s.draws);
      if (!draws.empty() && finite(draws))
        results.records.push_back(judge(space, s, truths, problem, mock, draws, results.pixel_ranks));
    }
    turn = last;
    const bool stopped = stop_asked.meet(stop);
    double slowest = watch.seconds() - began, clock = watch.seconds();
    comm.max(&slowest, 1);
    comm.max(&clock, 1);
    const double interval = 60 * s.limits.checkpoint;
    if (stopped || (interval > 0 && clock - saved > interval)) {
      save(comm, s, results);
      saved = clock;
    }
    if (stopped) return false;
    const double left = interval > 0 ? interval - (clock - saved) : slowest * static_cast<double>(turns);
    at_once = std::max<std::int64_t>(1, static_cast<std::int64_t>(left * static_cast<double>(count) / slowest));
  }
  if (shared > 0) {
    const auto mock_of = [&](std::int64_t owner) { return todo[static_cast<std::size_t>(turns * ranks + owner)]; };
    const ShardRange shard = shard_range(shared * s.draws, comm.rank(), comm.size());
    std::vector<std::vector<float>> send(static_cast<std::size_t>(comm.size()));
    const MockResults before = results;
    for (std::int64_t chain = shard.first; chain < shard.first + shard.count;) {
      const std::int64_t owner = chain / s.draws, first = chain % s.draws;
      const std::int64_t count = std::min(s.draws - first, shard.first + shard.count - chain);
      send[static_cast<std::size_t>(owner)] = sample(problem_of(mock_of(owner)), mock_of(owner), first, count);
      chain += count;
    }
    if (stop_asked.meet(stop)) {
      save(comm, s, before);
      return false;
    }
    std::vector<float> draws;
    for (const auto& part : comm.exchange(send)) draws.insert(draws.end(), part.begin(), part.end());
    if (!draws.empty() && finite(draws)) {
      const std::int64_t mock = mock_of(comm.rank());
      results.records.push_back(judge(space, s, truths, problem_of(mock), mock, draws, results.pixel_ranks));
    }
  }
  results = results.whole(comm);
  for (MockRecord& record : results.records) {
    const std::int64_t total = results.evaluations[static_cast<std::size_t>(record.mock)];
    record.evaluations = static_cast<double>(total) / static_cast<double>(s.draws);
  }
  return true;
}

/// @return false if it was stopped before the end
bool validate_calibration(const CommandLine& line, const Settings& s, ResultFile& result) {
  const Communicator& comm = line.comm;
  const auto bins = static_cast<std::size_t>(s.draws) + 1;
  MockResults results;
  if (!sample_mocks(comm, s, line.override_checkpoint, results)) return false;
  const std::vector<MockRecord>& records = results.records;
  const std::vector<std::int64_t>&diverged = results.diverged, &pixel_ranks = results.pixel_ranks;

  std::string aside;
  for (std::size_t mock = 0; mock < diverged.size(); ++mock) {
    if (diverged[mock] == 0) continue;
    aside += aside.empty() ? "mock " : ", ";
    aside += std::to_string(mock);
  }
  const auto n_mocks = static_cast<std::uint64_t>(std::count(diverged.begin(), diverged.end(), 0));
  if (!aside.empty() && comm.is_root()) log::warn("set aside, a chain met a value that is not finite: " + aside);
  if (n_mocks == 0)
    throw Error(ExitCode::numerical, "every mock has a chain that met a value that is not finite", aside,
                "a smaller sampler.step may help")
        .mark_agreed();

  // Statistics over mocks, on rank 0. A column holds one value a mock.
  const auto column = [&](auto get) {
    std::vector<std::decay_t<decltype(get(records.front()))>> values;
    for (const MockRecord& record : records) values.push_back(get(record));
    return values;
  };
  std::vector<double> p_values(Quantities::count), credibility;
  std::vector<std::int64_t> sbc_ranks, tarp_ranks;
  std::vector<Tarp> tarps(references);
  std::vector<double> tarp_coverage, tarp_largest, tarp_p;
  std::array<MeanAndError, levels.size()> inside, outside;
  std::vector<double> coverage_in, coverage_out;
  for (int i = 0; i <= 100; ++i) credibility.push_back(i / 100.0);
  if (comm.is_root()) {
    for (std::size_t q = 0; q < Quantities::count; ++q) {
      const auto ranks = column([&](const MockRecord& m) { return m.ranks[q]; });
      sbc_ranks.insert(sbc_ranks.end(), ranks.begin(), ranks.end());
      p_values[q] = rank_uniformity(ranks, s.draws, s.rank_bins);
    }
    for (std::size_t r = 0; r < references; ++r) {
      const auto ranks = column([&](const MockRecord& m) { return m.tarp_ranks[r]; });
      tarp_ranks.insert(tarp_ranks.end(), ranks.begin(), ranks.end());
      tarps[r] = tarp(ranks, s.draws, credibility);
      tarp_coverage.insert(tarp_coverage.end(), tarps[r].coverage.begin(), tarps[r].coverage.end());
      tarp_largest.push_back(tarps[r].largest);
      tarp_p.push_back(tarps[r].p_value);
    }
    for (std::size_t l = 0; l < levels.size(); ++l) {
      const auto values_in = column([&](const MockRecord& m) { return m.inside[l]; });
      const auto values_out = column([&](const MockRecord& m) { return m.outside[l]; });
      inside[l] = mean_and_error(values_in);
      outside[l] = mean_and_error(values_out);
      coverage_in.insert(coverage_in.end(), values_in.begin(), values_in.end());
      coverage_out.insert(coverage_out.end(), values_out.begin(), values_out.end());
    }
  }

  // The result file.
  Hdf5Writer& hdf5 = result.hdf5();
  std::vector<double> kept;
  for (std::size_t mock = 0; mock < diverged.size(); ++mock) {
    if (diverged[mock] == 0) kept.push_back(static_cast<double>(mock));
  }
  const auto n_levels = static_cast<std::uint64_t>(levels.size());
  result.write_index_axis("quantity", Quantities::count, "ranked scalar");
  hdf5.write_axis("mock", kept, "1", "index of the mock");
  result.write_index_axis("rank", bins, "rank of the truth among the draws");
  result.write_index_axis("reference_point", references, "reference point of distances");
  hdf5.write_axis("level", {levels.begin(), levels.end()}, "1", "nominal probability of the central interval");
  hdf5.write_axis("credibility", credibility, "1", "nominal probability of a ball about the reference point");
  const auto counts = [&](const char* name, const char* axis, std::uint64_t n, const char* words,
                          const std::vector<std::int64_t>& values) {
    hdf5.write<std::int64_t>({std::string("/validate/") + name, {axis, "mock"}, "1", words}, {n, n_mocks},
                             values.data());
  };
  const auto list = [&](const char* name, std::vector<std::string> axes, std::vector<std::uint64_t> shape,
                        const char* words, const std::vector<double>& values) {
    hdf5.write<double>({std::string("/validate/") + name, std::move(axes), "1", words}, shape, values.data());
  };
  const auto a_mock = [&](const char* name, const char* words, auto get) {
    list(name, {"mock"}, {n_mocks}, words, column(get));
  };
  const auto a_level = [&](const char* name, const char* words, const auto& values, double MeanAndError::*part) {
    std::vector<double> picked;
    for (const MeanAndError& value : values) picked.push_back(value.*part);
    list(name, {"level"}, {n_levels}, words, picked);
  };
  counts("sbc_ranks", "quantity", Quantities::count, "rank of the truth among the draws", sbc_ranks);
  list("p_value", {"quantity"}, {Quantities::count}, "chi^2 test of uniform ranks", p_values);
  list("coverage_nominal", {"level"}, {n_levels}, "nominal coverage", {levels.begin(), levels.end()});
  a_level("coverage_inside", "coverage of observed pixels", inside, &MeanAndError::mean);
  a_level("coverage_outside", "coverage of unobserved pixels", outside, &MeanAndError::mean);
  a_level("coverage_inside_error", "standard error over mocks of the coverage of observed pixels", inside,
          &MeanAndError::error);
  a_level("coverage_outside_error", "standard error over mocks of the coverage of unobserved pixels", outside,
          &MeanAndError::error);
  list("mock_coverage_inside", {"level", "mock"}, {n_levels, n_mocks}, "coverage of the observed pixels of a mock",
       coverage_in);
  list("mock_coverage_outside", {"level", "mock"}, {n_levels, n_mocks}, "coverage of the unobserved pixels of a mock",
       coverage_out);
  hdf5.write<std::int64_t>({"/validate/pixel_ranks_inside", {"rank"}, "1", "observed pixels whose truth has this rank"},
                           {bins}, pixel_ranks.data());
  hdf5.write<std::int64_t>(
      {"/validate/pixel_ranks_outside", {"rank"}, "1", "unobserved pixels whose truth has this rank"}, {bins},
      pixel_ranks.data() + bins);
  counts("tarp_ranks", "reference_point", references, "rank of the truth's distance to the reference among the draws'",
         tarp_ranks);
  list("tarp_coverage", {"reference_point", "credibility"}, {references, credibility.size()},
       "expected coverage of balls about the reference", tarp_coverage);
  list("tarp_largest", {"reference_point"}, {references}, "largest distance of expected coverage from credibility",
       tarp_largest);
  list("tarp_p_value", {"reference_point"}, {references}, "Kolmogorov's test of that distance", tarp_p);
  a_mock("rmse_posterior_mean", "root mean square error of the posterior mean inside the mask",
         [](const MockRecord& m) { return m.mean.rmse; });
  a_mock("rmse_posterior_mean_limit", "the same, corrected to infinitely many draws",
         [](const MockRecord& m) { return m.rmse_limit; });
  a_mock("rmse_wiener_mean", "root mean square error of the exact Wiener mean inside the mask",
         [](const MockRecord& m) { return m.wiener.rmse; });
  const auto ratio = [](const MockRecord& m) { return m.mean.rmse / m.wiener.rmse; };
  const auto limit_ratio = [](const MockRecord& m) { return m.rmse_limit / m.wiener.rmse; };
  a_mock("rmse_ratio", "rmse_posterior_mean / rmse_wiener_mean", ratio);
  a_mock("rmse_ratio_limit", "rmse_posterior_mean_limit / rmse_wiener_mean", limit_ratio);
  a_mock("pearson_posterior_mean", "Pearson correlation of the posterior mean with the truth inside the mask",
         [](const MockRecord& m) { return m.mean.pearson; });
  a_mock("pearson_wiener_mean", "Pearson correlation of the exact Wiener mean with the truth inside the mask",
         [](const MockRecord& m) { return m.wiener.pearson; });
  a_mock("score_evaluations", "evaluations of the score a sample", [](const MockRecord& m) { return m.evaluations; });
  const auto summary = [&](auto get) {
    const std::vector<double> values = column(get);
    return std::pair(mean_and_error(values), values.empty() ? 0.0 : *std::max_element(values.begin(), values.end()));
  };
  const auto [mean_ratio, worst_ratio] = summary(ratio);
  const auto [mean_limit, worst_limit] = summary(limit_ratio);
  hdf5.attribute("/validate", "names", std::string(Quantities::names));
  hdf5.attribute("/validate", "references", std::string("random_point,wiener_mean"));
  hdf5.attribute("/validate", "tarp_band", tarps[0].band);
  hdf5.attribute("/validate", "draws", static_cast<std::int64_t>(s.draws));
  hdf5.attribute("/validate", "mocks_kind", s.kind_name());
  hdf5.attribute("/validate", "mocks_set_aside", aside);
  hdf5.attribute("/validate", "rmse_ratio_mean", mean_ratio.mean);
  hdf5.attribute("/validate", "rmse_ratio_worst", worst_ratio);
  hdf5.attribute("/validate", "rmse_ratio_limit_mean", mean_limit.mean);
  hdf5.attribute("/validate", "rmse_ratio_limit_worst", worst_limit);
  if (!comm.is_root()) return true;

  // What it came to.
  char text[320];
  std::snprintf(text, sizeof text, "%d mocks of %s fields, %d draws each", static_cast<int>(n_mocks),
                s.truths.empty() ? s.kind_name().c_str() : "given", s.draws);
  log::info(text);
  for (std::size_t l = 0; l < levels.size(); ++l) {
    std::snprintf(
        text, sizeof text,
        "central %.0f %% intervals cover %.2f +- %.2f %% of observed and %.2f +- %.2f %% of unobserved pixels",
        100 * levels[l], 100 * inside[l].mean, 100 * inside[l].error, 100 * outside[l].mean, 100 * outside[l].error);
    log::info(text);
  }
  std::string p_text;
  for (const double p : p_values) {
    std::snprintf(text, sizeof text, " %.3f", p);
    p_text += text;
  }
  log::info(std::string("uniform ranks, p-values (") + Quantities::names + "):" + p_text);
  for (std::size_t r = 0; r < references; ++r) {
    std::snprintf(text, sizeof text, "TARP about %s: largest distance %.3f, %s the 95 %% band of %.3f; p = %.3f",
                  r == 0 ? "random points" : "the Wiener mean", tarps[r].largest,
                  tarps[r].largest <= tarps[r].band ? "inside" : "outside", tarps[r].band, tarps[r].p_value);
    log::info(text);
  }
  if (n_mocks <= 100) {
    log::info("mock   rmse: mean  at infinity   Wiener   ratio  at infinity   Pearson: mean  Wiener");
    for (const MockRecord& m : records) {
      std::snprintf(text, sizeof text, "%4lld      %.5f     %.5f  %.5f  %.4f       %.4f         %.4f  %.4f",
                    static_cast<long long>(m.mock), m.mean.rmse, m.rmse_limit, m.wiener.rmse, ratio(m), limit_ratio(m),
                    m.mean.pearson, m.wiener.pearson);
      log::info(text);
    }
  }
  const auto average = [&](auto get) { return mean_and_error(column(get)).mean; };
  std::snprintf(
      text, sizeof text,
      "rmse of the posterior mean over exact Wiener's: %.4f +- %.4f, worst %.4f; corrected to infinitely many "
      "draws %.4f, worst %.4f",
      mean_ratio.mean, mean_ratio.error, worst_ratio, mean_limit.mean, worst_limit);
  log::info(text);
  std::snprintf(text, sizeof text,
                "on average: rmse %.5f (Wiener %.5f), Pearson %.4f (Wiener %.4f); %.1f score evaluations a sample",
                average([](const MockRecord& m) { return m.mean.rmse; }),
                average([](const MockRecord& m) { return m.wiener.rmse; }),
                average([](const MockRecord& m) { return m.mean.pearson; }),
                average([](const MockRecord& m) { return m.wiener.pearson; }),
                average([](const MockRecord& m) { return m.evaluations; }));
  log::info(text);
  return true;
}

}  // namespace

ExitCode run_validate(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  Settings s;
  comm.together([&] { s = read_settings(line.config); });
  if (line.dry_run) {
    const double chains = static_cast<double>(s.chains) + static_cast<double>(s.mocks) * s.draws;
    const double exact_maps = s.chains > 0 ? 3.0 * static_cast<double>(s.chains + s.exact_draws) / comm.size() : 0;
    const double mock_maps = s.mocks > 0 ? 4.0 * s.draws : 0;  // samples and means, and the chains they come from
    char text[96];
    std::snprintf(text, sizeof text, "score evaluations: about %.3g",
                  chains * evaluations_a_chain(*s.problem, s.sampler));
    const double maps = std::max(exact_maps, mock_maps) * static_cast<double>(s.problem->survey.grid.pixels());
    print_dry_run(line,
                  {text, "memory a rank: " + human_bytes(sizeof(float) * maps + chain_bytes(*s.problem, s.sampler))});
    return ExitCode::done;
  }
  const Job job(comm, s.output, s.limits, 0, false);
  comm.together([&] { log::start(comm.rank(), s.output + ".log.jsonl"); });
  ResultFile result(s.output, comm, "validate");
  if (s.chains > 0) validate_exact(line, s, result);
  if (s.mocks > 0 && !validate_calibration(line, s, result)) {
    log::info("stopped before the end; to go on, run the same command again: " + command_to_resume(line, "validate"));
    return ExitCode::stopped;
  }
  result.write_provenance(line.config, static_cast<std::int64_t>(s.sampler.seed), s.inputs, watch.seconds());
  result.commit();
  comm.together([&] {
    if (comm.is_root()) remove_checkpoint(checkpoint_path(s.output));
  });
  log::info("wrote " + s.output);
  return ExitCode::done;
}

}  // namespace umbriel
