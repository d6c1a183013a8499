// umbriel map: point reconstructions of a survey, as FITS and in one result file.
#include <cmath>

#include "umbriel/app/reference.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/inference/maximum_posterior.hpp"
#include "umbriel/statistics/calibration.hpp"

namespace umbriel {

ExitCode run_map(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  std::unique_ptr<Problem> problem;
  std::string output;
  comm.together([&] {
    output = read_output(line.config);
    problem = std::make_unique<Problem>(read_problem(line.config));
    if (problem->learned != nullptr) line.config.number("map.sigma", 0.02, problem->learned->sigma_min(), 10);
    know_all_keys(line.config);
    line.config.reject_unknown_keys();
  });
  const Survey& survey = problem->survey;
  const Grid grid = survey.grid;
  if (line.dry_run) {
    print_dry_run(line, {"memory: " + human_bytes(30.0 * grid.pixels() * sizeof(float)),
                         "disk: " + human_bytes(20.0 * grid.pixels() * sizeof(float))});
    return ExitCode::done;
  }

  // One map is little work: every rank computes it, rank 0 writes.
  const Space space;
  const ConvergencePosterior linear = linear_posterior(*problem, 1);
  GaussianPosterior exact(linear, 1);
  const std::vector<HostMap> kaiser = kaiser_squires_maps(space, *problem, linear.fft());
  const HostMap kaiser_smooth =
      smoothed(space, linear.fft(), kaiser[0].data(), problem->smoothing_arcmin, survey.pixel_arcmin);
  SpectrumBatch wiener_state = exact.mean(space);
  log::info("Wiener mean: " + std::to_string(exact.iterations()) + " iterations");
  const std::vector<HostMap> wiener = maps_of(space, linear.fft(), wiener_state, linear.fields());
  std::vector<HostMap> best = wiener;  // the maximum of a Gaussian posterior is its mean
  if (problem->model.reduced_shear || problem->learned != nullptr) {
    const ConvergencePosterior posterior(survey, problem->power, problem->model, 1);
    MaximumOptions options;
    if (problem->learned != nullptr) {
      // The maximum of a posterior smoothed by little noise: at less the network knows nothing, and a skewed prior's
      // own maximum is far from its mass.
      options.sigma = line.config.number("map.sigma", 0.02, problem->learned->sigma_min(), 10);
      options.tolerance = 1e-3;  // what float32 networks can resolve
    }
    const SpectrumBatch maximum = maximum_posterior(space, posterior, wiener_state, options, problem->learned.get());
    best = maps_of(space, posterior.fft(), maximum, posterior.fields());
  }

  struct Product {
    const char* name;
    const char* words;
    const HostMap* map;
  };
  const std::vector<Product> products = {
      {"kaiser_squires", "Kaiser-Squires convergence", &kaiser[0]},
      {"kaiser_squires_smoothed", "smoothed Kaiser-Squires convergence", &kaiser_smooth},
      {"kaiser_squires_b", "Kaiser-Squires B mode", &kaiser[1]},
      {"wiener_mean", "Wiener mean of the convergence", &wiener[0]},
      {"map", "maximum-posterior convergence", &best[0]}};
  ResultFile result(output, comm, "map");
  result.write_map_axes(grid, survey.pixel_arcmin);
  for (const Product& product : products)
    result.write_map(std::string("/reference/").append(product.name), grid, product.map->data(), "1", product.words);
  write_survey(result, survey);
  result.write_provenance(line.config, static_cast<std::int64_t>(read_seed(line.config)), input_records(survey),
                          watch.seconds());
  result.commit();

  const std::string stem = stem_of(output);
  comm.together([&] {
    if (!comm.is_root()) return;
    const auto write = [&](const std::string& name, const float* map, const std::string& words) {
      write_fits_map(stem + "_" + name + ".fits", map, grid, "", words, survey.wcs);
    };
    for (const Product& product : products) write(product.name, product.map->data(), product.words);
    write("shear1", survey.shear.data(), "observed shear, first component");
    write("shear2", survey.shear.data() + grid.pixels(), "observed shear, second component");
    write("noise1", survey.noise.data(), "standard deviation of the first shear component");
    write("noise2", survey.noise.data() + grid.pixels(), "standard deviation of the second shear component");
    write("mask", survey.mask.data(), "1 observed, 0 not");
  });
  if (survey.truth) {
    for (const Product& product : products) {
      const MapMetrics metrics =
          map_metrics(product.map->data(), survey.truth->data(), survey.mask.data(), grid.pixels());
      char text[128];
      std::snprintf(text, sizeof text, "%-24s rmse %.4f  Pearson %.3f", product.name, metrics.rmse, metrics.pearson);
      log::info(text);
    }
  }
  log::info("wrote " + output + " and " + stem + "_*.fits");
  return ExitCode::done;
}

}  // namespace umbriel
