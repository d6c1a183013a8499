// umbriel stats: statistics of maps, map by map, in one result file.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/app/chains.hpp"
#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/data/map_folder.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/statistics/masked_spectrum.hpp"

namespace umbriel {
namespace {

struct Settings {
  std::string output;
  RunLimits limits;
  std::vector<std::string> maps;
  MapFolder::Options folder;
  double pixel_arcmin = 0;
  std::string mask;  // path; empty: none
  double apodisation_arcmin = 0;
  Apodisation apodisation = Apodisation::c2;
  std::vector<double> edges;  // empty: logarithmic bands
  int bands = 0;
};

Settings read_settings(const Config& config) {
  Settings s;
  s.output = read_output(config);
  s.limits = read_run_limits(config);
  s.maps =
      config.is_text("stats.maps") ? std::vector<std::string>{config.text("stats.maps")} : config.texts("stats.maps");
  for (std::string& path : s.maps) path = config.resolve_path(path);
  s.folder.dataset = config.text("stats.dataset", s.folder.dataset);
  s.pixel_arcmin = config.number("stats.pixel_arcmin", std::nullopt, 1e-4, 1e4);
  if (config.has("stats.mask")) s.mask = config.path("stats.mask");
  s.apodisation_arcmin = config.number("stats.apodisation_arcmin", 0, 0, 1e4);
  s.apodisation = config.choice("stats.apodisation", "c2", {"c1", "c2"}) == "c1" ? Apodisation::c1 : Apodisation::c2;
  require(s.apodisation_arcmin == 0 || !s.mask.empty(), ExitCode::usage, "there is no mask to apodise",
          config.where("stats.apodisation_arcmin"), "give stats.mask");
  s.edges = config.numbers("stats.edges", std::vector<double>{});
  s.bands = static_cast<int>(config.integer("stats.bands", 15, 1, 10000));
  config.reject_unknown_keys();
  return s;
}

/// Weights [y, x] of a mask file. @throws Error(input) for one of another size
std::vector<double> read_mask(const std::string& path, Grid grid) {
  std::vector<double> values;
  Grid found;
  if (path.ends_with(".npy")) {
    NpyArray array = read_npy(path);
    if (array.shape.size() == 2) found = {static_cast<int>(array.shape[0]), static_cast<int>(array.shape[1])};
    values = std::move(array.values);
  } else {
    FitsImage image = read_fits_image(path);
    if (image.planes == 1) found = {image.height, image.width};
    values = std::move(image.values);
  }
  require(found == grid, ExitCode::input, "the mask is no map of the maps' size", path,
          "give one of " + std::to_string(grid.width) + " x " + std::to_string(grid.height) + " pixels");
  return values;
}

}  // namespace

ExitCode run_stats(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  Settings s;
  comm.together([&] { s = read_settings(line.config); });
  MapFolder maps(comm, s.maps, s.folder);
  const Grid grid = maps.grid(0);
  std::unique_ptr<MaskedSpectrum> spectrum;
  std::vector<InputRecord> inputs;
  comm.together([&] {
    for (std::int64_t i = 0; i < maps.size(); ++i) {
      require(maps.grid(i) == grid, ExitCode::input, "the maps differ in size", maps.name(i),
              "give maps of " + std::to_string(grid.width) + " x " + std::to_string(grid.height) + " pixels");
    }
    for (const InputFile& input : maps.inputs()) inputs.push_back({input.path, input.sha256});
    const double pixel = s.pixel_arcmin / 60 * std::numbers::pi / 180;
    const FlatSky sky{grid, pixel, pixel};
    std::vector<double> mask(static_cast<std::size_t>(grid.pixels()), 1.0);
    if (!s.mask.empty()) {
      mask = read_mask(s.mask, grid);
      inputs.push_back({s.mask, sha256_of_file(s.mask)});
    }
    if (s.apodisation_arcmin > 0)
      mask = apodise(sky, mask, s.apodisation_arcmin / 60 * std::numbers::pi / 180, s.apodisation);
    if (s.edges.empty()) s.edges = logarithmic_edges(grid, s.pixel_arcmin, s.bands);
    spectrum = std::make_unique<MaskedSpectrum>(sky, mask, s.edges);
  });
  const auto bands = static_cast<std::uint64_t>(spectrum->bands()), n = static_cast<std::uint64_t>(maps.size());
  const double bytes = static_cast<double>(n * bands * sizeof(double));
  if (line.dry_run) {
    print_dry_run(line,
                  {std::to_string(n) + " maps, " + std::to_string(bands) + " bands", "disk: " + human_bytes(bytes)});
    return ExitCode::done;
  }
  const Job job(comm, s.output, s.limits, bytes, false);
  comm.together([&] { log::start(comm.rank(), s.output + ".log.jsonl"); });

  const ShardRange shard = shard_range(maps.size(), comm.rank(), comm.size());
  std::vector<double> power, map(static_cast<std::size_t>(grid.pixels()));
  {
    Progress progress(comm, "measuring", maps.size(), "maps");
    comm.together([&] {
      for (const std::int64_t i : indices_of(shard)) {
        const std::shared_ptr<const float> values = maps.read(i);
        std::copy_n(values.get(), map.size(), map.begin());
        const std::vector<double> one = (*spectrum)(map.data());
        power.insert(power.end(), one.begin(), one.end());
        progress.add(1);
        report_alive();
      }
    });
  }
  ResultFile result(s.output, comm, "stats");
  Hdf5Writer& hdf5 = result.hdf5();
  result.write_index_axis("map", n, "index of the map");
  hdf5.write_axis("band", spectrum->centres(), "1", "mean multipole of the band");
  hdf5.write<double>({"/statistics/band_low", {"band"}, "1", "lowest multipole of the band"}, {bands}, s.edges.data());
  hdf5.write<double>({"/statistics/band_high", {"band"}, "1", "multipole above the band"}, {bands}, s.edges.data() + 1);
  hdf5.write<double>({"/statistics/band_modes", {"band"}, "1", "modes of the full plane in the band"}, {bands},
                     spectrum->modes().data());
  hdf5.write_sharded<double>(
      {"/statistics/power_spectrum", {"map", "band"}, "sr", "C_l, the mask's coupling taken out"}, {n, bands},
      static_cast<std::uint64_t>(shard.first), static_cast<std::uint64_t>(shard.count), power.data());
  result.write_provenance(line.config, 0, inputs, watch.seconds());
  result.commit();
  log::info("wrote " + s.output);
  return ExitCode::done;
}

}  // namespace umbriel
