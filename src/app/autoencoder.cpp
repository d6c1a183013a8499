#include "umbriel/app/autoencoder.hpp"

#include <algorithm>
#include <cmath>

#include "umbriel/data/cutouts.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/mpi/sha256.hpp"

namespace umbriel {
namespace {

using Host = Kokkos::View<float*, HostMemory, Kokkos::MemoryUnmanaged>;
using Device = Kokkos::View<float*, Memory, Kokkos::MemoryUnmanaged>;

std::vector<float> read_values(const Space& space, const float* from, std::size_t n) {
  space.fence();
  std::vector<float> values(n);
  Kokkos::deep_copy(Host(values.data(), n), Device(const_cast<float*>(from), n));
  return values;
}

void write_values(const std::vector<float>& from, float* to) {
  Kokkos::deep_copy(Device(to, from.size()), Host(const_cast<float*>(from.data()), from.size()));
}

}  // namespace

AutoencoderMaps::AutoencoderMaps(const Communicator& comm, const Config& config, const std::string& section,
                                 const std::string& maps) {
  std::vector<std::string> paths;
  MapFolder::Options options;
  comm.together([&] {
    const std::string path = config.path(section + ".model");
    model_ = TrainedVae::load(path);
    require(model_.record.field.standardised && model_.record.field.power.size() == 1, ExitCode::usage,
            "the model was not trained on standardised maps", path,
            "train it with field.transform = \"standardised\" or \"standardised-lognormal\", not whitened");
    inputs_.push_back({path, sha256_of_file(path)});
    const std::string key = section + "." + maps;
    if (config.is_array(key)) {
      for (const std::string& file : config.texts(key)) paths.push_back(config.resolve_path(file));
    } else {
      paths.push_back(config.path(key));
    }
    options.dataset = config.text(section + ".dataset", options.dataset);
    if (maps == "maps" && config.flag(section + ".tiles", false)) options.tile = grid();
    tiles_ = options.tile.height > 0;
  });
  files_ = std::make_unique<MapFolder>(comm, paths, options);
  comm.together([&] {
    for (const InputFile& file : files_->inputs()) inputs_.push_back({file.path, file.sha256});
    const Grid wanted = grid();
    for (std::int64_t map = 0; map < size(); ++map) {
      const Grid found = files_->grid(map);
      require(found == wanted, ExitCode::input,
              "the map has " + std::to_string(found.width) + " x " + std::to_string(found.height) +
                  " pixels, and the model is for " + std::to_string(wanted.width) + " x " +
                  std::to_string(wanted.height),
              files_->name(map), "cut maps of that size, take " + section + ".tiles = true, or train another model");
    }
  });
}

std::vector<std::int64_t> AutoencoderMaps::part(const std::string& part) const {
  std::vector<std::int64_t> chosen;
  std::int64_t map = 0;
  if (part == "all") {
    for (; map < size(); ++map) chosen.push_back(map);
    return chosen;
  }
  require(!tiles_, ExitCode::usage, "tiles belong to no part", "reconstruct.part", "take all");
  const std::int32_t wanted = part == "test" ? sky_test : part == "validation" ? sky_validation : sky_training;
  for (const InputFile& file : files_->inputs()) {
    const bool hdf5 = file.path.ends_with(".h5") || file.path.ends_with(".hdf5");
    require(hdf5 && Hdf5Reader(file.path).has("/patches/split"), ExitCode::input,
            "the file does not say which maps are for " + part + ": it has no /patches/split", file.path,
            "give patches that `umbriel cutouts` wrote, or take all");
    for (const std::int32_t found : Hdf5Reader(file.path).read<std::int32_t>("/patches/split")) {
      if (found == wanted) chosen.push_back(map);
      ++map;
    }
  }
  require(map == size(), ExitCode::input, "/patches/split is not as long as there are maps",
          files_->inputs().front().path, "take all, or patches that `umbriel cutouts` wrote");
  require(!chosen.empty(), ExitCode::input, "no map is for " + part, files_->inputs().front().path, "take all");
  return chosen;
}

StandardMap AutoencoderMaps::read(std::int64_t map) const {
  const auto values = files_->read(map);
  const auto n = static_cast<std::size_t>(grid().pixels());
  StandardMap out;
  out.values.assign(values.get(), values.get() + n);
  double sum = 0, squares = 0;
  for (const float value : out.values) sum += static_cast<double>(value);
  out.mean = sum / static_cast<double>(n);
  for (const float value : out.values) squares += std::pow(static_cast<double>(value) - out.mean, 2);
  out.deviation = std::sqrt(squares / static_cast<double>(n));
  require(out.deviation > 0, ExitCode::input, "the map is constant", files_->name(map), "leave it out");
  for (float& value : out.values) value = static_cast<float>((static_cast<double>(value) - out.mean) / out.deviation);
  return out;
}

void AutoencoderMaps::describe(MapSeries& series) const {
  series.grid = grid();
  series.pixel_arcmin = model_.record.pixel_arcmin;
  series.inputs = inputs_;
  series.batch = maps_at_once(grid(), vae_host_pixels);
}

MapBatch batch_of(const std::vector<StandardMap>& maps, Grid grid) {
  const MapBatch batch("umbriel::standard_maps", maps.size(), grid.height, grid.width);
  for (std::size_t i = 0; i < maps.size(); ++i)
    write_values(maps[i].values, batch.data() + i * static_cast<std::size_t>(grid.pixels()));
  return batch;
}

MapBatch AutoencoderMaps::fields_of(const std::vector<StandardMap>& maps) const {
  std::vector<StandardMap> fields = maps;
  for (StandardMap& field : fields)
    for (float& value : field.values)
      value = static_cast<float>(model_.record.field.field_of(static_cast<double>(value)));
  return batch_of(fields, grid());
}

std::vector<float> AutoencoderMaps::encoded(const Space& space, VaeRunner& runner, const StandardMap& map) const {
  const Activations statistics = runner.encode(space, fields_of({map}), 1);
  std::vector<float> q = read_values(space, statistics.data, static_cast<std::size_t>(statistics.extents.c));
  for (std::size_t c = q.size() / 2; c < q.size(); ++c)
    q[c] = std::exp(std::clamp(q[c], least_log_deviation, most_log_deviation));
  return q;
}

std::vector<float> AutoencoderMaps::decoded(const Space& space, VaeRunner& runner,
                                            const std::vector<float>& latent) const {
  const Activations z = runner.latent();
  write_values(latent, z.data);
  const MapBatch maps = runner.decode(space);
  const std::size_t n = latent.size() / static_cast<std::size_t>(z.extents.c);
  std::vector<float> values = read_values(space, maps.data(), n * static_cast<std::size_t>(grid().pixels()));
  for (float& value : values) value = static_cast<float>(model_.record.field.map_of(static_cast<double>(value)));
  return values;
}

}  // namespace umbriel
