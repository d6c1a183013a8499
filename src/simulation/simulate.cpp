#include "umbriel/simulation/simulate.hpp"

#include <cmath>
#include <utility>

#include "umbriel/data/fits.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/simulation/convergence_map.hpp"
#include "umbriel/simulation/convergence_power.hpp"
#include "umbriel/simulation/mock_survey.hpp"

namespace umbriel {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// A map [1, y, x] from FITS or .npy, recorded in `inputs`.
HostMaps read_map(const std::string& path, std::vector<InputFile>& inputs) {
  FitsImage image;
  if (ends_with(path, ".npy")) {
    NpyArray array = read_npy(path);
    require(array.shape.size() == 2, ExitCode::input, "the array has not two axes", path, "give a map [y, x]");
    image.height = static_cast<int>(array.shape[0]);
    image.width = static_cast<int>(array.shape[1]);
    image.values = std::move(array.values);
  } else {
    image = read_fits_image(path);
  }
  require(image.planes == 1, ExitCode::input, "the image has " + std::to_string(image.planes) + " planes", path,
          "give a map [y, x]");
  HostMaps map("umbriel::map", 1, image.height, image.width);
  for (std::size_t i = 0; i < image.values.size(); ++i) map.data()[i] = static_cast<float>(image.values[i]);
  inputs.push_back({path, sha256_of_file(path)});
  return map;
}

Grid grid_of(const HostMaps& maps) { return {static_cast<int>(maps.extent(1)), static_cast<int>(maps.extent(2))}; }

Grid size_from(const Config& config) {
  const std::vector<double> size = config.numbers("survey.size");
  require(size.size() == 2 && size[0] >= 8 && size[1] >= 8 && size[0] == std::floor(size[0]) &&
              size[1] == std::floor(size[1]) && size[0] <= 65536 && size[1] <= 65536,
          ExitCode::usage, "the size is not [width, height] in whole pixels from 8 to 65536",
          config.where("survey.size"));
  return {static_cast<int>(size[1]), static_cast<int>(size[0])};
}

HostMaps simulate_convergence(const Config& config, const PowerSpectrum& spectrum, Grid grid, double pixel_arcmin,
                              std::uint64_t seed, std::uint32_t sample) {
  const FieldKind kind = field_kind(config.choice("survey.simulate.kind", "lognormal", {"lognormal", "gaussian"}));
  const double kappa0 = config.number("survey.simulate.kappa0", 0.05, 1e-6, 1e3);
  ConvergenceSimulator simulator(spectrum, grid, pixel_arcmin, kind, kappa0);
  const MapBatch drawn("umbriel::convergence", 1, grid.height, grid.width);
  simulator.draw(seed, sample, 1, drawn);
  return on_host(drawn);
}

}  // namespace

Cosmology cosmology_from(const Config& config, const std::string& table) {
  Cosmology cosmology;
  const auto read = [&](const char* name, double& value) { value = config.number(table + "." + name, value); };
  read("omega_m", cosmology.omega_m);
  read("omega_b", cosmology.omega_b);
  read("h", cosmology.h);
  read("n_s", cosmology.n_s);
  read("sigma_8", cosmology.sigma_8);
  cosmology.check();
  return cosmology;
}

PowerSpectrum power_spectrum_from(const Config& config, const std::string& table) {
  if (config.has(table + ".power_spectrum")) {
    for (const char* other : {".cosmology", ".source_redshift", ".source_distribution"}) {
      require(!config.has(table + other), ExitCode::usage, "a spectrum is given both as a file and as theory",
              config.where(table + other), "remove one of them");
    }
    return read_power_spectrum(config.path(table + ".power_spectrum"));
  }
  const Cosmology cosmology = cosmology_from(config, table + ".cosmology");
  return theory_spectrum(cosmology, sources_from(config, table));
}

SourceDistribution sources_from(const Config& config, const std::string& table) {
  if (!config.has(table + ".source_distribution"))
    return SourceDistribution::plane(config.number(table + ".source_redshift", 1.0, 0.01, 1100));
  require(!config.has(table + ".source_redshift"), ExitCode::usage, "sources are given twice",
          config.where(table + ".source_redshift"), "give source_redshift or source_distribution");
  return SourceDistribution::read(config.path(table + ".source_distribution"));
}

PowerSpectrum theory_spectrum(const Cosmology& cosmology, const SourceDistribution& sources) {
  constexpr int points = 240;
  std::vector<double> multipoles(points);
  for (int i = 0; i < points; ++i) multipoles[i] = 2 * std::pow(5e5, static_cast<double>(i) / (points - 1));
  return convergence_power(cosmology, sources, multipoles);
}

Survey simulate_survey(const Config& config, const PowerSpectrum& spectrum) {
  const std::string table = "survey.simulate.";
  const double pixel_arcmin = config.number("survey.pixel_arcmin", std::nullopt, 1e-4, 1e4);
  const auto seed = static_cast<std::uint64_t>(config.integer(table + "seed", 1, 0));
  const auto sample = static_cast<std::uint32_t>(config.integer(table + "sample", 0, 0, UINT32_MAX));
  std::vector<InputFile> inputs;

  // 1. The convergence.
  HostMaps convergence;
  if (config.has(table + "convergence")) {
    convergence = read_map(config.path(table + "convergence"), inputs);
    require(!config.has("survey.size") || size_from(config) == grid_of(convergence), ExitCode::usage,
            "the size differs from that of the convergence map", config.where("survey.size"), "remove the key");
  } else {
    convergence = simulate_convergence(config, spectrum, size_from(config), pixel_arcmin, seed, sample);
  }
  const Grid grid = grid_of(convergence);

  // 2. The mask: a kind or a file.
  const std::string kind = config.text(table + "mask", "cosmos-like");
  const bool is_file = ends_with(kind, ".npy") || kind.find(".fit") != std::string::npos;
  const HostMaps mask = is_file ? read_map(config.resolve_path(kind), inputs) : survey_mask(grid, kind, seed);
  require_shape(mask, 1, grid, config.where(table + "mask"));

  // 3. The noise: two files or a number of galaxies.
  HostMaps noise;
  if (config.has(table + "noise")) {
    const std::vector<std::string> paths = config.texts(table + "noise");
    require(paths.size() == 2, ExitCode::usage, "the noise is not two maps", config.where(table + "noise"),
            "give one file for each component");
    noise = HostMaps("umbriel::noise", 2, grid.height, grid.width);
    for (int c = 0; c < 2; ++c) {
      const HostMaps component = read_map(config.resolve_path(paths[c]), inputs);
      require_shape(component, 1, grid, paths[c]);
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) noise(c, y, x) = component(0, y, x);
      }
    }
  } else {
    noise = shape_noise(grid, mask, pixel_arcmin, config.number(table + "galaxies_per_arcmin2", 64.2, 1e-3, 1e6),
                        config.number(table + "sigma_e", 0.305, 1e-6, 10), seed);
  }

  // 4. The observation.
  Survey survey =
      mock_survey(convergence, mask, noise, pixel_arcmin, seed, sample, config.flag(table + "reduced_shear", false));
  survey.inputs = std::move(inputs);
  return survey;
}

}  // namespace umbriel
