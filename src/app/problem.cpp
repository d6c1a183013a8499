#include "umbriel/app/problem.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "umbriel/base/log.hpp"
#include "umbriel/inference/spectra.hpp"
#include "umbriel/maps/smoothing.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/simulation/simulate.hpp"

namespace umbriel {

Problem read_problem(const Config& config) {
  std::shared_ptr<LearnedPrior> learned;
  if (config.choice("prior.kind", "gaussian", {"gaussian", "score"}) == "score")
    learned = std::make_shared<LearnedPrior>(config.path("prior.model"));
  const bool own_prior = config.has("prior.power_spectrum") || config.has("prior.cosmology") ||
                         config.has("prior.source_redshift") || config.has("prior.source_distribution");
  const PowerSpectrum spectrum =
      learned != nullptr && !own_prior ? learned->spectrum() : power_spectrum_from(config, "prior");
  ForwardModel model;
  model.reduced_shear = config.flag("model.reduced_shear", false);
  model.b_modes = config.flag("model.b_modes", false);
  const double smoothing = config.number("reference.smoothing_arcmin", 1.0, 0.0, 1e4);
  Survey survey;
  if (config.has("survey.simulate")) {
    require(!config.has("survey.shear") && !config.has("survey.catalogue"), ExitCode::usage,
            "the survey is both simulated and observed", config.where("survey"),
            "give one of survey.shear, survey.catalogue and survey.simulate");
    const bool own_spectrum = config.has("survey.simulate.power_spectrum") || config.has("survey.simulate.cosmology") ||
                              config.has("survey.simulate.source_redshift") ||
                              config.has("survey.simulate.source_distribution");
    survey = simulate_survey(config, own_spectrum ? power_spectrum_from(config, "survey.simulate") : spectrum);
  } else {
    survey = read_survey(config);
  }
  for (const char* key : {"prior.model", "prior.power_spectrum", "prior.source_distribution",
                          "survey.simulate.power_spectrum", "survey.simulate.source_distribution"}) {
    if (!config.has(key)) continue;
    const std::string path = config.path(key);
    survey.inputs.push_back({path, sha256_of_file(path)});
  }
  const HostView2<float> power = pixel_power(spectrum, survey.grid, survey.pixel_arcmin);
  const nn::Options compute = read_compute(config);
  if (learned != nullptr) {
    learned->plan(survey.grid, survey.pixel_arcmin, power, compute);
    if (std::fabs(learned->stretch() - 1) > 0.005) {
      char text[160];
      std::snprintf(text, sizeof text,
                    "the prior's fields have %.3f of the standard deviation of those that its network learned: it is "
                    "stretched by that",
                    learned->stretch());
      log::info(text);
    }
  }
  return {std::move(survey), spectrum, power, model, smoothing, std::move(learned)};
}

namespace {

/// The temperature that may be taken off the likelihood's noise: see LogDensity::sharpest.
double sharpest_of(const Survey& survey) {
  double least = 1e30;
  for (int component = 0; component < 2; ++component) {
    for (long i = 0; i < survey.grid.pixels(); ++i) {
      if (survey.mask.data()[i] <= 0) continue;
      const double noise = survey.noise.data()[component * survey.grid.pixels() + i];
      least = std::min(least, noise * noise);
    }
  }
  return std::sqrt(0.5 * least);
}

}  // namespace

HmcOptions read_sampler(const Config& config, std::uint64_t seed, const Problem& problem) {
  // A start where the convergence reaches 1 is on the far side of the reduced shear's pole, and stays there.
  const bool reduced = problem.model.reduced_shear;
  const LearnedPrior* learned = problem.learned.get();
  const double hottest = reduced ? 0.15 : 100;
  HmcOptions options;
  options.seed = seed;
  const auto whole = [&](const char* key, int fallback, int low, int high) {
    return static_cast<int>(config.integer(std::string("sampler.").append(key), fallback, low, high));
  };
  const auto number = [&](const char* key, double fallback, double low, double high) {
    return config.number(std::string("sampler.").append(key), fallback, low, high);
  };
  if (reduced) options.sigma_start = 0.1;
  if (learned != nullptr)
    options = options.for_residual(learned->sigma_min(), sharpest_of(problem.survey),
                                   static_cast<double>(problem.survey.grid.pixels()));
  const std::string method =
      config.choice("sampler.method", "annealed-hmc", {"annealed-hmc", "langevin", "probability-flow"});
  bool paper = false;
  if (method == "annealed-hmc") {
    paper = config.choice("sampler.mode", "preconditioned", {"preconditioned", "paper"}) == "paper";
    if (paper) options.mode = HmcOptions::Mode::paper;
  } else {
    if (method == "langevin") {
      options = options.for_langevin();
    } else {
      // The likelihood's noise bounds the temperature at which the exact flow can start.
      options.sigma_start = number("sigma_start", std::min(options.sigma_start, 0.95 * sharpest_of(problem.survey)),
                                   learned != nullptr ? learned->sigma_min() : 1e-6, hottest);
      options.sigma_final = 0;
      options = options.for_probability_flow();
      if (learned != nullptr) options.ode_end = std::max(learned->sigma_min() * 1.0, options.ode_end);
    }
  }
  options.batch = whole("batch", runs_on_host ? 2 : 64, 1, 65536);
  options.chains_a_superchain = whole("chains_a_superchain", options.chains_a_superchain, 1, 1 << 20);
  options.tail = whole("tail", options.tail, 1, 10000);
  // A network says nothing below the noise that it was trained with.
  const double coldest = learned != nullptr ? learned->sigma_min() : 1e-6;
  if (paper) {
    options.paper_steps = whole("steps", options.paper_steps, 1, 1 << 30);
    options.paper_leapfrogs = whole("leapfrogs", options.paper_leapfrogs, 1, 1000);
    options.paper_min_steps = whole("min_steps_a_temperature", options.paper_min_steps, 0, 1 << 20);
    options.paper_start = number("sigma_start", reduced ? 0.1 : options.paper_start, 1e-6, hottest);
    options.paper_floor = number("sigma_end", options.paper_floor, coldest, 100);
    options.paper_cooling = number("cooling", options.paper_cooling, 0.01, 0.9999);
    options.paper_step = number("step", options.paper_step, 1e-6, 10);
    options.paper_ode_end = number("ode_end", options.paper_ode_end, coldest * coldest * 0.999, 1);
  } else {
    options.temperatures = whole("temperatures", options.temperatures, 1, 100000);
    options.settling = whole("settling", options.settling, 0, 100000);
    options.sigma_start = number("sigma_start", options.sigma_start, coldest, hottest);
    options.sigma_end = number("sigma_end", options.sigma_end, coldest, 100);
    options.step = number("step", options.step, 1e-3, 3);
    options.min_steps = whole("min_steps", options.min_steps, 1, 1000);
    options.max_steps = whole("max_steps", std::max(options.max_steps, options.min_steps), options.min_steps, 1000);
    options.mass_precision = number("mass_precision", options.mass_precision, 0, 10);
    if (learned != nullptr) {
      options.sigma_final = options.sigma_end;
      options.inner_steps = whole("inner_steps", options.inner_steps, 1, 100);
      options.ode_steps = whole("ode_steps", options.ode_steps, 1, 10000);
      const std::string finish = options.finish == HmcOptions::Finish::none      ? "none"
                                 : options.finish == HmcOptions::Finish::denoise ? "denoise"
                                                                                 : "ode";
      const std::string chosen = config.choice("sampler.finish", finish, {"none", "denoise", "ode"});
      options.finish = chosen == "none"      ? HmcOptions::Finish::none
                       : chosen == "denoise" ? HmcOptions::Finish::denoise
                                             : HmcOptions::Finish::ode;
      options.ode_end = std::min(options.ode_end, options.sigma_final);
      const double sharpest = sharpest_of(problem.survey);
      require(!options.sharpen || options.sigma_final <= sharpest, ExitCode::usage,
              std::string("the noise of this survey allows at most ").append(std::to_string(sharpest)),
              config.where(config.has("sampler.sigma_end") ? "sampler.sigma_end" : "sampler.sigma_start"),
              "choose a lower temperature, or raise the noise of the deepest pixels");
    }
  }
  return options;
}

double evaluations_a_chain(const Problem& problem, const HmcOptions& sampler) {
  return sampler.expected_evaluations(problem.learned ? static_cast<double>(problem.survey.grid.pixels()) : 0);
}

double chain_bytes(const Problem& problem, const HmcOptions& sampler) {
  // Spectra and maps of a chain, six more spectra with a learned prior; those of the survey.
  const double chains = (problem.learned ? 13.0 : 7.0) * sampler.batch;
  const double maps = (chains + 12) * static_cast<double>(problem.survey.grid.pixels());
  return sizeof(float) * maps * (problem.model.b_modes ? 2 : 1) + (problem.learned ? problem.learned->bytes() : 0);
}

void know_all_keys(const Config& config) {
  for (const char* key : {"run.seed",
                          "run.checkpoint_minutes",
                          "run.max_walltime_minutes",
                          "run.deadline_minutes",
                          "run.keep_samples",
                          "run.export_fits",
                          "sampler.method",
                          "sampler.mode",
                          "sampler.chains",
                          "sampler.batch",
                          "sampler.chains_a_superchain",
                          "sampler.tail",
                          "sampler.temperatures",
                          "sampler.settling",
                          "sampler.sigma_start",
                          "sampler.sigma_end",
                          "sampler.step",
                          "sampler.min_steps",
                          "sampler.max_steps",
                          "sampler.mass_precision",
                          "sampler.steps",
                          "sampler.leapfrogs",
                          "sampler.min_steps_a_temperature",
                          "sampler.cooling",
                          "sampler.ode_end",
                          "sampler.ode_steps",
                          "sampler.inner_steps",
                          "sampler.finish",
                          "prior.model",
                          "map.sigma",
                          "compute.backend",
                          "compute.precision",
                          "reference.draws",
                          "reference.smoothing_arcmin",
                          "summary.peak_smoothing_arcmin",
                          "summary.peak_radius_arcmin",
                          "summary.peak_threshold",
                          "validate.exact",
                          "validate.exact_draws",
                          "validate.mocks",
                          "validate.draws",
                          "validate.rank_bins",
                          "validate.mocks_kind",
                          "validate.kappa0",
                          "validate.truths"})
    config.has(key);
}

std::string read_output(const Config& config) {
  // Inputs are relative to the configuration that names them; results go where the job runs.
  const std::string output = config.text("run.output");
  std::filesystem::path folder = std::filesystem::path(output).parent_path();
  if (folder.empty()) folder = ".";
  require(std::filesystem::is_directory(folder), ExitCode::file_system, "the folder of run.output does not exist",
          folder.string(), "make it, or choose another run.output");
  require(::access(folder.c_str(), W_OK) == 0, ExitCode::file_system, "the folder of run.output is not writable",
          folder.string(), "choose another run.output");
  require(!std::filesystem::is_directory(output), ExitCode::file_system, "run.output is a folder", output,
          "name a file");
  return output;
}

std::uint64_t read_seed(const Config& config) { return static_cast<std::uint64_t>(config.integer("run.seed", 1, 0)); }

std::string stem_of(const std::string& output) {
  const std::filesystem::path path(output);
  return (path.parent_path() / path.stem()).string();
}

std::vector<InputRecord> input_records(const Survey& survey) {
  std::vector<InputRecord> records;
  for (const InputFile& input : survey.inputs) records.push_back({input.path, input.sha256});
  return records;
}

void write_survey(ResultFile& result, const Survey& survey) {
  const auto height = static_cast<std::uint64_t>(survey.grid.height);
  const auto width = static_cast<std::uint64_t>(survey.grid.width);
  result.write_index_axis("component", 2, "component of a spin-2 field: gamma1, gamma2");
  result.hdf5().write<float>({"/survey/shear", {"component", "y", "x"}, "1", "observed shear, 0 where not observed"},
                             {2, height, width}, survey.shear.data());
  result.hdf5().write<float>(
      {"/survey/noise", {"component", "y", "x"}, "1", "standard deviation of the shear, 0 where not observed"},
      {2, height, width}, survey.noise.data());
  result.write_map("/survey/mask", survey.grid, survey.mask.data(), "1", "1 observed, 0 not");
  if (survey.truth) result.write_map("/survey/truth", survey.grid, survey.truth->data(), "1", "true convergence");
}

std::vector<float> smoothed(const Space& space, const RealFft& fft, const float* map, double arcmin,
                            double pixel_arcmin) {
  const Grid grid = fft.grid();
  const HostMaps host("umbriel::to_smooth", 1, grid.height, grid.width);
  std::copy(map, map + grid.pixels(), host.data());
  const MapBatch device = on_device(host);
  if (arcmin > 0) {
    const SpectrumBatch scratch("umbriel::smooth_scratch", 1, grid.height, grid.half_width());
    smooth_maps(space, fft, device, scratch, 1, arcmin / pixel_arcmin);
  }
  space.fence();
  const auto out = on_host(device);
  return {out.data(), out.data() + grid.pixels()};
}

void print_dry_run(const CommandLine& line, const std::vector<std::string>& estimate) {
  if (!line.comm.is_root()) return;
  std::printf("%s", line.config.resolved().c_str());
  for (const std::string& text : estimate) std::printf("# %s\n", text.c_str());
}

}  // namespace umbriel
