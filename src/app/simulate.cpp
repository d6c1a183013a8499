// umbriel simulate kappa: convergence maps with a given power spectrum, sharded over ranks.
#include <algorithm>
#include <functional>
#include <optional>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/map_series.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/simulation/convergence_map.hpp"
#include "umbriel/simulation/simulate.hpp"

namespace umbriel {

namespace {

/// What makes the maps of a series whose parameters differ from map to map.
struct Varied {
  Cosmology cosmology;
  SourceDistribution sources;
  std::optional<PowerSpectrum> spectrum;  ///< where the parameters do not change it
  double kappa0;
  FieldKind kind;

  ConvergenceSimulator simulator(const MapSeries& series, const std::function<double(std::size_t)>& value) const {
    Cosmology c = cosmology;
    SourceDistribution from = sources;
    double lowest = kappa0;
    for (std::size_t i = 0; i < series.parameters.names().size(); ++i) {
      const std::string& name = series.parameters.names()[i];
      if (name == "omega_m") c.omega_m = value(i);
      if (name == "omega_b") c.omega_b = value(i);
      if (name == "h") c.h = value(i);
      if (name == "n_s") c.n_s = value(i);
      if (name == "sigma_8") c.sigma_8 = value(i);
      if (name == "source_redshift") from = SourceDistribution::plane(value(i));
      if (name == "kappa0") lowest = value(i);
    }
    return {spectrum ? *spectrum : theory_spectrum(c, from), series.grid, series.pixel_arcmin, kind, lowest};
  }
};

/// simulate.parameters, of a cosmology, `source_redshift` and `kappa0`.
Varied read_varied(const Config& config, MapSeries& series, FieldKind kind, double kappa0) {
  Varied varied;
  varied.kind = kind;
  varied.kappa0 = kappa0;
  const std::string key = "simulate.parameters";
  const std::vector<std::string> names = {"omega_m", "omega_b", "h", "n_s", "sigma_8", "source_redshift", "kappa0"};
  series.parameters = SeriesParameters(config, key, names, series.seed);
  require(!series.parameters.empty(), ExitCode::usage, "there are no parameters that maps can be made with",
          config.where(key), "vary some of omega_m, omega_b, h, n_s, sigma_8, source_redshift, kappa0");
  require(series.parameters.rows() < 0 || series.samples <= series.parameters.rows(), ExitCode::usage,
          "the table of parameters has " + std::to_string(series.parameters.rows()) +
              " rows, fewer than there are to be maps",
          config.where("simulate.samples"), "lower it, or add rows");
  series.inputs.insert(series.inputs.end(), series.parameters.inputs().begin(), series.parameters.inputs().end());
  const bool spectrum_given = config.has("simulate.power_spectrum");
  for (std::size_t i = 0; i < series.parameters.names().size(); ++i) {
    const std::string& name = series.parameters.names()[i];
    require(name != "source_redshift" ||
                (!config.has("simulate.source_distribution") && !config.has("simulate.source_redshift")),
            ExitCode::usage, "sources are given twice", config.where(key + ".source_redshift"),
            "remove simulate.source_redshift and source_distribution");
    require(name == "kappa0" || !spectrum_given, ExitCode::usage, "a spectrum from a file does not depend on " + name,
            config.where("simulate.power_spectrum"), "remove it, or vary kappa0 alone");
    require(name != "kappa0" || (kind == FieldKind::lognormal && !config.has("simulate.kappa0")), ExitCode::usage,
            "kappa0 is given twice, or the maps have none", config.where(key + ".kappa0"), "remove one of them");
  }
  if (spectrum_given) {
    varied.spectrum = power_spectrum_from(config, "simulate");
  } else {
    varied.cosmology = cosmology_from(config, "simulate.cosmology");
    varied.sources = sources_from(config, "simulate");
  }
  // What cannot be made is refused now, as far as the least and the largest of each parameter show it.
  const SeriesParameters& p = series.parameters;
  for (const bool high : {false, true})
    varied.simulator(series, [&](std::size_t i) { return high ? p.high(i) : p.low(i); });
  return varied;
}

}  // namespace

ExitCode run_simulate(const CommandLine& line) {
  if (line.arguments == std::vector<std::string>{"dust"}) return run_simulate_dust(line);
  const Stopwatch watch;
  const Config& config = line.config;
  MapSeries series;
  std::unique_ptr<ConvergenceSimulator> simulator;
  std::optional<Varied> varied;
  line.comm.together([&] {
    require(line.arguments == std::vector<std::string>{"kappa"}, ExitCode::usage,
            "umbriel cannot simulate " + line.arguments.front(), "umbriel simulate",
            "the targets there are: kappa, dust");
    series = read_series(config);
    series.command = "simulate kappa";
    series.doing = "simulating";
    series.dataset = "/simulation/kappa";
    series.samples = config.integer("simulate.samples", 1, 1, std::int64_t{1} << 31);
    const std::vector<double> size = config.numbers("simulate.size", std::vector<double>{360, 360});
    require(size.size() == 2 && std::all_of(size.begin(), size.end(), [](double n) { return n >= 2 && n <= 65536; }),
            ExitCode::usage, "the size is not two numbers from 2 to 65536", config.where("simulate.size"),
            "give [width, height] in pixels");
    series.grid = {static_cast<int>(size[1]), static_cast<int>(size[0])};
    series.pixel_arcmin = config.number("simulate.pixel_arcmin", 0.29, 1e-4, 1e4);
    const FieldKind kind = field_kind(config.choice("simulate.kind", "lognormal", {"lognormal", "gaussian"}));
    const double kappa0 = config.number("simulate.kappa0", 0.05, 1e-6, 100);
    std::optional<PowerSpectrum> spectrum;
    if (config.has("simulate.parameters")) {
      varied = read_varied(config, series, kind, kappa0);
    } else {
      spectrum = power_spectrum_from(config, "simulate");
    }
    if (config.has("simulate.power_spectrum")) {
      const std::string path = config.path("simulate.power_spectrum");
      series.inputs.push_back({path, sha256_of_file(path)});
    }
    config.reject_unknown_keys();
    // More samples extend a run.
    series.identity = identity_of(config, series.seed, series.inputs, {"run.", "simulate.samples "});
    if (spectrum) {
      simulator = std::make_unique<ConvergenceSimulator>(*spectrum, series.grid, series.pixel_arcmin, kind, kappa0);
    }
  });
  series.draw = [&](std::int64_t first, int n, const MapBatch& out) {
    if (simulator) {
      simulator->draw(series.seed, static_cast<std::uint32_t>(first), n, out);
      return;
    }
    for (int i = 0; i < n; ++i) {
      const std::int64_t map = first + i;
      ConvergenceSimulator one =
          varied->simulator(series, [&](std::size_t p) { return series.parameters.value(map, p); });
      one.draw(series.seed, static_cast<std::uint32_t>(map), 1,
               Kokkos::subview(out, std::make_pair(i, i + 1), Kokkos::ALL, Kokkos::ALL));
      Kokkos::fence();
    }
  };
  return draw_series(line, watch, series);
}

}  // namespace umbriel
