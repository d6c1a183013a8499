// umbriel cutouts: square patches of a HEALPix map, sharded over ranks. umbriel assemble: patches put back on the sky.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/data/cutouts.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/mpi/watchdog.hpp"

namespace umbriel {
namespace {

/// What the file says of each patch.
struct Patches {
  std::vector<float> values;  // [patch, y, x]
  std::vector<double> longitude, latitude, missing, mean, deviation;
  std::vector<std::int32_t> part;
};

/// SHA-256 of an input that the first rank reads for all. Collective.
InputRecord record_of(const Communicator& comm, const std::string& path) {
  std::string sum;
  comm.together([&] {
    if (comm.is_root()) sum = sha256_of_file(path);
  });
  return {path, comm.broadcast(sum)};
}

/// Mean and deviation of the pixels that are not missing, which fill the ones that are.
void add_statistics(float* patch, std::size_t n, Patches& to) {
  double sum = 0, squares = 0;
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (std::isnan(patch[i])) continue;
    sum += static_cast<double>(patch[i]);
    ++count;
  }
  const double mean = sum / static_cast<double>(count);
  for (std::size_t i = 0; i < n; ++i) {
    if (!std::isnan(patch[i])) squares += std::pow(static_cast<double>(patch[i]) - mean, 2);
  }
  to.mean.push_back(mean);
  to.deviation.push_back(std::sqrt(squares / static_cast<double>(count)));
  for (std::size_t i = 0; i < n; ++i)
    if (std::isnan(patch[i])) patch[i] = static_cast<float>(mean);
}

/// CTYPE of FITS for the map's coordinates.
std::array<std::string, 2> axis_types(const std::string& coordinates) {
  if (coordinates == "C") return {"RA---TAN", "DEC--TAN"};
  if (coordinates == "E") return {"ELON-TAN", "ELAT-TAN"};
  return {"GLON-TAN", "GLAT-TAN"};
}

void write_patches(ResultFile& result, const Communicator& comm, const PatchGrid& grid, const HealpixFile& map,
                   const std::string& interpolation, const Patches& patches) {
  const Rows rows(comm, patches.mean.size());
  const auto n = static_cast<std::uint64_t>(grid.pixels);
  Hdf5Writer& hdf5 = result.hdf5();
  result.write_map_axes({grid.pixels, grid.pixels}, 60 * grid.pixel_deg());
  result.write_index_axis("patch", rows.total, "index of the patch");
  const std::string unit = map.unit().empty() ? "1" : map.unit();
  hdf5.write_sharded<float>({"/patches/map", {"patch", "y", "x"}, unit, "patch of the sky"}, {rows.total, n, n},
                            rows.first, rows.count, patches.values.data());
  // Each rank's numbers of a patch, together on the first rank.
  const auto column = [&](const std::string& name, const std::string& units, const std::string& words,
                          const auto& values) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    const std::vector<T> all = comm.gather(values);
    hdf5.write<T>({"/patches/" + name, {"patch"}, units, words}, {rows.total}, all.data());
  };
  column("longitude", "deg", "longitude of the centre", patches.longitude);
  column("latitude", "deg", "latitude of the centre", patches.latitude);
  column("missing", "1", "fraction of pixels that the map has no value for, and that hold the mean", patches.missing);
  column("mean", unit, "mean of the patch", patches.mean);
  column("deviation", unit, "standard deviation of the patch", patches.deviation);
  column("split", "1", "0 training, 1 validation, 2 test, -1 on a border between their regions", patches.part);
  const auto types = axis_types(map.coordinates());
  hdf5.attribute("/patches", "ctype1", types[0]);
  hdf5.attribute("/patches", "ctype2", types[1]);
  hdf5.attribute("/patches", "cdelt1", -grid.pixel_deg());
  hdf5.attribute("/patches", "cdelt2", grid.pixel_deg());
  hdf5.attribute("/patches", "crpix1", 0.5 * (grid.pixels + 1));
  hdf5.attribute("/patches", "crpix2", 0.5 * (grid.pixels + 1));
  hdf5.attribute("/patches", "size_degrees", grid.size_deg);
  hdf5.attribute("/patches", "nside", static_cast<std::int64_t>(map.pixels().nside()));
  hdf5.attribute("/patches", "coordinates", map.coordinates());
  hdf5.attribute("/patches", "interpolation", interpolation);
}

/// Name of a column, or its number from 0.
std::string read_field(const Config& config) {
  if (config.has("cutouts.field") && config.is_text("cutouts.field")) return config.text("cutouts.field");
  return std::to_string(config.integer("cutouts.field", 0, 0, 998));
}

/// An attribute of /patches as a number. @throws Error(input)
double number_of(const Hdf5Reader& file, const std::string& name) {
  require(file.has("/patches") && file.has_attribute("/patches", name), ExitCode::input,
          "the file does not say the " + name + " of its patches", file.path(),
          "give a file of `umbriel cutouts`, and patches made from it as assemble.patches");
  return std::stod(file.attribute("/patches", name));
}

}  // namespace

ExitCode run_cutouts(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  std::string output, path, interpolation;
  RunLimits limits;
  PatchGrid grid;
  std::vector<PatchCentre> centres;
  std::vector<std::int32_t> parts;
  std::optional<HealpixFile> map;
  double most_missing = 0, memory = 0;
  comm.together([&] {
    output = read_output(config);
    limits = read_run_limits(config);
    path = config.path("cutouts.map");
    const std::string field = read_field(config);
    const double latitude_min = config.number("cutouts.latitude_min", 15, 0, 85);
    const double step = config.number("cutouts.step_degrees", 4, 0.05, 45);
    grid.size_deg = config.number("cutouts.size_degrees", grid.size_deg, 0.01, 120);
    grid.pixels = static_cast<int>(config.integer("cutouts.pixels", grid.pixels, 2, 16384));
    interpolation = config.choice("cutouts.interpolation", "bilinear", {"bilinear", "area"});
    const std::vector<double> split = config.numbers("cutouts.split", std::vector<double>{0.7, 0.15, 0.15});
    require(split.size() == 3 && std::all_of(split.begin(), split.end(), [](double f) { return f >= 0; }) &&
                std::abs(split[0] + split[1] + split[2] - 1) < 1e-6,
            ExitCode::usage, "the split is not three fractions that sum to 1", config.where("cutouts.split"),
            "give [training, validation, test], such as [0.7, 0.15, 0.15]");
    const double start = config.number("cutouts.split_longitude", 0, -360, 360);
    most_missing = config.number("cutouts.maximum_missing", 0, 0, 0.9);
    memory = config.number("cutouts.memory_gib", 1, 0.001, 1e6) * 0x1p30;
    read_seed(config);
    config.reject_unknown_keys();
    map.emplace(path, field);
    centres = patch_centres(latitude_min, step);
    require(!centres.empty(), ExitCode::usage, "there is no centre of a patch beyond latitude_min + step_degrees",
            config.where("cutouts.latitude_min"), "lower one of them");
    parts = split_by_sky(map->pixels(), centres, grid, {split[0], split[1], split[2]}, start);
  });
  const auto patch_size = static_cast<std::size_t>(grid.pixels) * static_cast<std::size_t>(grid.pixels);
  const double patch_bytes = static_cast<double>(patch_size) * sizeof(float);
  const double bytes = patch_bytes * static_cast<double>(centres.size());
  const double sky_bytes = static_cast<double>(map->pixels().count()) * sizeof(float);
  if (line.dry_run) {
    print_dry_run(line, {"patches: " + std::to_string(centres.size()),
                         "memory a rank: " + human_bytes(bytes / comm.size() + std::min(memory, sky_bytes)),
                         "disk: " + human_bytes(bytes)});
    return ExitCode::done;
  }
  const Job job(comm, output, limits, bytes, false);
  comm.together([&] { log::start(comm.rank(), output + ".log.jsonl"); });
  const InputRecord input = record_of(comm, path);

  const ShardRange shard = shard_range(static_cast<std::int64_t>(centres.size()), comm.rank(), comm.size());
  const Interpolation how = interpolation == "area" ? Interpolation::area : Interpolation::bilinear;
  Patches patches;
  std::int64_t left_out = 0;
  {
    Progress progress(comm, "cutting", static_cast<std::int64_t>(centres.size()), "patches");
    comm.together([&] {
      patches.values.reserve(static_cast<std::size_t>(shard.count) * patch_size);
      for (std::int64_t next = shard.first, end = next + shard.count; next < end;) {
        // As many patches as have room for their part of the sky, whether or not they overlap.
        std::vector<PixelRange> ranges;
        const std::int64_t first = next;
        for (double taken = 0; next < end; ++next) {
          const auto more = pixels_of_patch(map->pixels(), centres[static_cast<std::size_t>(next)], grid);
          taken += static_cast<double>(HealpixFile::bytes_of(more));
          if (next > first && taken > memory) break;
          ranges.insert(ranges.end(), more.begin(), more.end());
        }
        const HealpixMap sky = map->read(ranges);
        for (std::int64_t i = first; i < next; ++i) {
          const PatchCentre& centre = centres[static_cast<std::size_t>(i)];
          const std::size_t at = patches.values.size();
          patches.values.resize(at + patch_size);
          const auto missing = static_cast<double>(cut_patch(sky, centre, grid, how, patches.values.data() + at)) /
                               static_cast<double>(patch_size);
          report_alive();
          progress.add(1);
          if (missing > most_missing) {
            patches.values.resize(at);
            ++left_out;
            continue;
          }
          patches.longitude.push_back(centre.longitude_deg);
          patches.latitude.push_back(centre.latitude_deg);
          patches.missing.push_back(missing);
          patches.part.push_back(parts[static_cast<std::size_t>(i)]);
          add_statistics(patches.values.data() + at, patch_size, patches);
        }
      }
    });
  }
  left_out = comm.sum(left_out);
  require(left_out < static_cast<std::int64_t>(centres.size()), ExitCode::input,
          "every patch has more missing pixels than cutouts.maximum_missing", path,
          "raise it, or give a map of more of the sky");

  ResultFile result(output, comm, "cutouts");
  write_patches(result, comm, grid, *map, interpolation, patches);
  result.write_provenance(config, static_cast<std::int64_t>(read_seed(config)), {input}, watch.seconds());
  result.commit();
  std::array<std::int64_t, 4> count{};
  for (const std::int32_t part : patches.part) ++count[static_cast<std::size_t>(part + 1)];
  comm.sum(count.data(), count.size());
  char text[200];
  std::snprintf(text, sizeof text,
                "%lld patches: %lld to train, %lld to validate, %lld to test, %lld on borders between them; %lld left "
                "out for missing pixels",
                static_cast<long long>(count[0] + count[1] + count[2] + count[3]), static_cast<long long>(count[1]),
                static_cast<long long>(count[2]), static_cast<long long>(count[3]), static_cast<long long>(count[0]),
                static_cast<long long>(left_out));
  log::info(text);
  log::info("wrote " + output);
  return ExitCode::done;
}

ExitCode run_assemble(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  std::string output, path, centres_path, dataset, unit, coordinates;
  RunLimits limits;
  PatchGrid grid;
  std::vector<PatchCentre> centres;
  int nside = 0;
  comm.together([&] {
    output = read_output(config);
    limits = read_run_limits(config);
    path = config.path("assemble.patches");
    dataset = config.text("assemble.dataset", "/patches/map");
    centres_path = config.path("assemble.centres", path);
    const Hdf5Reader file(path), origin(centres_path);
    nside = static_cast<int>(config.integer("assemble.nside", static_cast<std::int64_t>(number_of(origin, "nside")), 1,
                                            HealpixPixels::max_nside));
    read_seed(config);
    config.reject_unknown_keys();
    require(output.ends_with(".fits"), ExitCode::usage, "a HEALPix map is a FITS file, and the output is not named so",
            config.where("run.output"), "name it sky.fits, for instance");
    grid.size_deg = number_of(origin, "size_degrees");
    const std::vector<std::uint64_t> shape = file.shape(dataset);
    const std::vector<double> longitude = origin.read<double>("/patches/longitude"),
                              latitude = origin.read<double>("/patches/latitude");
    require(shape.size() == 3 && shape[1] == shape[2] && shape[1] >= 2 && shape[1] <= 16384, ExitCode::input,
            "the file does not hold square patches", path + ", " + dataset, "give an array [patch, y, x]");
    require(shape[0] == longitude.size() && shape[0] == latitude.size(), ExitCode::input,
            "there are " + std::to_string(shape[0]) + " patches and " + std::to_string(longitude.size()) + " centres",
            path + ", " + dataset, "name the file of the patches' own centres as assemble.centres");
    grid.pixels = static_cast<int>(shape[1]);
    for (std::size_t i = 0; i < longitude.size(); ++i) {
      require(std::isfinite(longitude[i]) && std::fabs(latitude[i]) <= 90, ExitCode::input,
              "patch " + std::to_string(i) + " has no centre on the sky", centres_path, "write the file again");
      centres.push_back({longitude[i], latitude[i]});
    }
    require(grid.size_deg > 0 && grid.size_deg <= 120, ExitCode::input,
            "the patches are " + std::to_string(grid.size_deg) + " degrees wide", centres_path, "write the file again");
    unit = file.has_attribute(dataset, "units") ? file.attribute(dataset, "units") : "";
    if (origin.has_attribute("/patches", "coordinates")) coordinates = origin.attribute("/patches", "coordinates");
  });
  const HealpixPixels pixels(nside, false);
  const double bytes = static_cast<double>(pixels.count()) * sizeof(float);
  if (line.dry_run) {
    print_dry_run(line, {"memory a rank: " + human_bytes(5 * bytes / comm.size()) + ", and of the first " +
                             human_bytes(3 * bytes) + " more",
                         "disk: " + human_bytes(bytes)});
    return ExitCode::done;
  }
  const Job job(comm, output, limits, bytes, false);
  comm.together([&] { log::start(comm.rank(), output + ".log.jsonl"); });

  // Each rank makes its own pixels from all patches over them, in their order: so the sums are the same everywhere.
  std::vector<float> values;
  comm.together([&] {
    const ShardRange share = shard_range(pixels.count(), comm.rank(), comm.size());
    PatchAssembler assembler(pixels, grid, {share.first, share.first + share.count});
    const Hdf5Reader file(path);
    for (std::size_t i = 0; i < centres.size(); ++i) {
      report_alive();
      if (!assembler.reaches(centres[i])) continue;
      assembler.add(centres[i], file.read<float>(dataset, i, 1).data());
    }
    values = assembler.values();
  });
  const std::vector<float> sky = comm.gather(values);
  comm.together([&] {
    if (!comm.is_root()) return;
    write_healpix_map(output, pixels, sky, "I_STOKES", unit, coordinates,
                      {{"CREATOR", "umbriel " + version() + " " + git_revision(), "assemble"}});
  });
  log::info("wrote " + output);
  return ExitCode::done;
}

}  // namespace umbriel
