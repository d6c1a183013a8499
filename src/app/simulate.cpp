// umbriel simulate kappa: convergence maps with a given power spectrum, sharded over ranks.
#include <algorithm>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/map_series.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/simulation/convergence_map.hpp"
#include "umbriel/simulation/simulate.hpp"

namespace umbriel {

ExitCode run_simulate(const CommandLine& line) {
  if (line.arguments == std::vector<std::string>{"dust"}) return run_simulate_dust(line);
  const Stopwatch watch;
  const Config& config = line.config;
  MapSeries series;
  std::unique_ptr<ConvergenceSimulator> simulator;
  line.comm.together([&] {
    require(line.arguments == std::vector<std::string>{"kappa"}, ExitCode::usage,
            "umbriel cannot simulate " + line.arguments.front(), "umbriel simulate",
            "the targets there are: kappa, dust");
    series.command = "simulate kappa";
    series.doing = "simulating";
    series.dataset = "/simulation/kappa";
    series.output = read_output(config);
    series.seed = read_seed(config);
    series.samples = config.integer("simulate.samples", 1, 1, std::int64_t{1} << 31);
    const std::vector<double> size = config.numbers("simulate.size", std::vector<double>{360, 360});
    require(size.size() == 2 && std::all_of(size.begin(), size.end(), [](double n) { return n >= 2 && n <= 65536; }),
            ExitCode::usage, "the size is not two numbers from 2 to 65536", config.where("simulate.size"),
            "give [width, height] in pixels");
    series.grid = {static_cast<int>(size[1]), static_cast<int>(size[0])};
    series.pixel_arcmin = config.number("simulate.pixel_arcmin", 0.29, 1e-4, 1e4);
    const FieldKind kind = field_kind(config.choice("simulate.kind", "lognormal", {"lognormal", "gaussian"}));
    const double kappa0 = config.number("simulate.kappa0", 0.05, 1e-6, 100);
    const PowerSpectrum spectrum = power_spectrum_from(config, "simulate");
    if (config.has("simulate.power_spectrum")) {
      const std::string path = config.path("simulate.power_spectrum");
      series.inputs.push_back({path, sha256_of_file(path)});
    }
    series.limits = read_run_limits(config);
    config.reject_unknown_keys();
    // More samples extend a run.
    series.identity = identity_of(config, series.seed, series.inputs, {"run.", "simulate.samples "});
    simulator = std::make_unique<ConvergenceSimulator>(spectrum, series.grid, series.pixel_arcmin, kind, kappa0);
  });
  series.draw = [&](std::int64_t first, int n, const MapBatch& out) {
    simulator->draw(series.seed, static_cast<std::uint32_t>(first), n, out);
  };
  return draw_series(line, watch, series);
}

}  // namespace umbriel
