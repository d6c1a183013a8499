#include "umbriel/simulation/training_maps.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <utility>

#include "umbriel/data/cutouts.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/simulation/simulate.hpp"

namespace umbriel {
namespace {

/// Steps of the streams under Purpose::training_order, apart from one another.
enum OrderStep : std::uint32_t { order_of_epoch = 0, order_of_split = 1, seed_of_simulations = 2 };

Grid size_from(const Config& config) {
  const std::vector<double> size = config.numbers("data.size");
  require(
      size.size() == 2 &&
          std::all_of(size.begin(), size.end(), [](double n) { return n >= 8 && n <= 65536 && n == std::floor(n); }),
      ExitCode::usage, "the size is not [width, height] in whole pixels from 8 to 65536", config.where("data.size"));
  return {static_cast<int>(size[1]), static_cast<int>(size[0])};
}

constexpr const char* split_dataset = "/patches/split";

/// True if all files say themselves which maps are for training.
bool are_divided(const MapFolder& files) {
  const std::vector<InputFile>& inputs = files.inputs();
  return std::all_of(inputs.begin(), inputs.end(), [](const InputFile& file) {
    const bool hdf5 = file.path.ends_with(".h5") || file.path.ends_with(".hdf5");
    return hdf5 && Hdf5Reader(file.path).has(split_dataset);
  });
}

std::string text(Grid grid) { return std::to_string(grid.width) + " x " + std::to_string(grid.height); }

/// A number below n from 32 random bits.
std::uint32_t below(std::uint32_t n, std::uint32_t bits) {
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(bits) * n) >> 32);
}

}  // namespace

std::vector<std::uint32_t> random_order(const DrawKey& key, std::uint32_t n) {
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0U);
  for (std::uint32_t i = n; i > 1; --i) {
    const std::uint32_t bits = random_words(key, (n - i) / 4)[(n - i) % 4];
    std::swap(order[i - 1], order[below(i, bits)]);
  }
  return order;
}

SquareSymmetry SquareSymmetry::draw(std::uint32_t bits, bool flips, bool quarter_turns) {
  SquareSymmetry s;
  s.transpose = quarter_turns && (bits & 1) != 0;
  s.flip_y = (flips || quarter_turns) && (bits & 2) != 0;
  // A turn is an even number of reflections, the transposition among them.
  if (flips) {
    s.flip_x = (bits & 4) != 0;
  } else if (quarter_turns) {
    s.flip_x = s.transpose != s.flip_y;
  }
  return s;
}

TrainingMaps::TrainingMaps(const Communicator& comm, const Config& config, std::uint64_t seed,
                           std::optional<Grid> size, std::optional<double> pixel_arcmin)
    : seed_(seed) {
  comm.together([&] {
    pixel_arcmin_ = pixel_arcmin ? *pixel_arcmin : config.number("data.pixel_arcmin", std::nullopt, 1e-4, 1e4);
    require(config.has("data.maps") != config.has("data.simulate"), ExitCode::usage,
            "the training maps are neither or both simulated and from files", config.where("data"),
            "give one of data.simulate and data.maps");
    if (config.has("data.simulate")) read_simulation(config, size);
  });
  if (simulator_ == nullptr) read_files(comm, config, size);
}

void TrainingMaps::read_simulation(const Config& config, std::optional<Grid> size) {
  for (const char* key : {"dataset", "patch", "cache_gib", "subtract_mean", "crop", "flips", "quarter_turns", "split",
                          "validation_fraction"}) {
    const std::string name = std::string("data.").append(key);
    require(!config.has(name), ExitCode::usage, "the key is for maps from files, and these are simulated",
            config.where(name), "remove it");
  }
  grid_ = size ? *size : size_from(config);
  kind_ = config.choice("data.simulate.kind", "lognormal", {"lognormal", "gaussian"});
  const double kappa0 = config.number("data.simulate.kappa0", 0.05, 1e-6, 1e3);
  validation_size_ = config.integer("data.validation_maps", 64, 0, max_index);
  bool own_spectrum = false;
  for (const char* key : {"power_spectrum", "cosmology", "source_redshift", "source_distribution"}) {
    if (config.has(std::string("data.simulate.").append(key))) own_spectrum = true;
  }
  const PowerSpectrum spectrum = power_spectrum_from(config, own_spectrum ? "data.simulate" : "prior");
  for (const char* key : {"data.simulate.power_spectrum", "data.simulate.source_distribution"}) {
    if (!config.has(key)) continue;
    const std::string path = config.path(key);
    inputs_.push_back({path, sha256_of_file(path)});
  }
  simulator_ = std::make_unique<ConvergenceSimulator>(spectrum, grid_, pixel_arcmin_, field_kind(kind_), kappa0);
  const auto words = random_words({seed_, Purpose::training_order, 0, seed_of_simulations}, 0);
  simulation_seed_ = (static_cast<std::uint64_t>(words[1]) << 32) | words[0];
}

void TrainingMaps::read_files(const Communicator& comm, const Config& config, std::optional<Grid> size) {
  std::vector<std::string> paths;
  MapFolder::Options options;
  comm.together([&] {
    require(!config.has("data.validation_maps"), ExitCode::usage,
            "the key is for simulated maps, and these are from files", config.where("data.validation_maps"),
            "give data.validation_fraction");
    if (config.is_array("data.maps")) {
      for (const std::string& path : config.texts("data.maps")) paths.push_back(config.resolve_path(path));
    } else {
      paths.push_back(config.path("data.maps"));
    }
    options.dataset = config.text("data.dataset", options.dataset);
    options.patch_pixels = static_cast<int>(config.integer("data.patch", 0, 0, 65536));
    options.pixel_arcmin = pixel_arcmin_;
    options.subtract_mean = config.flag("data.subtract_mean", false);
    options.cache_bytes = static_cast<std::uint64_t>(config.number("data.cache_gib", 1, 0, 1e6) * 0x1p30);
  });
  files_ = std::make_unique<MapFolder>(comm, paths, options);
  inputs_ = files_->inputs();
  comm.together([&] {
    crop_ = config.flag("data.crop", true);
    flips_ = config.flag("data.flips", true);
    quarter_turns_ = config.flag("data.quarter_turns", true);
    grid_ = size ? *size : config.has("data.size") ? size_from(config) : files_->grid(0);
    for (std::int64_t map = 0; map < files_->size(); ++map) {
      const Grid grid = files_->grid(map);
      require(size || config.has("data.size") || grid == grid_, ExitCode::usage,
              "the maps differ in size, " + text(grid_) + " and " + text(grid) + " pixels", files_->name(map),
              "give data.size, the size to cut");
      require(grid.height >= grid_.height && grid.width >= grid_.width, ExitCode::input,
              "the map has " + text(grid) + " pixels, fewer than data.size = " + text(grid_), files_->name(map),
              "leave it out, or lower data.size");
      require(crop_ || grid == grid_, ExitCode::input,
              "the map has " + text(grid) + " pixels, not data.size = " + text(grid_), files_->name(map),
              "set data.crop = true to cut it");
    }
    require(!quarter_turns_ || grid_.height == grid_.width, ExitCode::usage,
            "examples of " + text(grid_) + " pixels cannot be turned by a quarter", config.where("data.quarter_turns"),
            "set data.quarter_turns = false, or cut squares");
    split(config);
  });
}

/// As `umbriel cutouts` has divided its patches.
void TrainingMaps::take_given_split(const Config& config) {
  require(!config.has("data.validation_fraction"), ExitCode::usage,
          "the files say which maps are for validation, not a fraction", config.where("data.validation_fraction"),
          "remove it, or set data.split = \"map\"");
  std::uint32_t map = 0;
  for (const InputFile& file : files_->inputs()) {
    const Hdf5Reader reader(file.path);
    require(reader.has(split_dataset), ExitCode::input,
            std::string("the file does not say which maps are for validation: it has no ").append(split_dataset),
            file.path, "give patches that `umbriel cutouts` wrote, or another data.split");
    for (const std::int32_t part : reader.read<std::int32_t>(split_dataset)) {
      if (part == sky_training) training_.push_back(map);
      if (part == sky_validation) validation_.push_back(map);
      ++map;
    }
  }
  require(map == files_->size(), ExitCode::input, "the files' division is not that of their maps",
          files_->inputs().front().path, "give patches that `umbriel cutouts` wrote, or another data.split");
  require(!training_.empty(), ExitCode::input, "no map is for training", files_->inputs().front().path,
          "cut more patches, or divide them in another way");
  validation_size_ = static_cast<std::int64_t>(validation_.size());
}

/// Divides the maps of the files between training and validation.
void TrainingMaps::split(const Config& config) {
  const bool patches = !config.has("data.dataset") || config.text("data.dataset") == "/patches/map";
  const bool divided = patches && are_divided(*files_);
  const std::string by = config.choice("data.split", divided ? "given" : "map", {"map", "file", "given"});
  if (by == "given") return take_given_split(config);
  const bool by_file = by == "file";
  const double fraction = config.number("data.validation_fraction", 0.1, 0, 0.9);
  const auto units = static_cast<std::uint32_t>(by_file ? files_->inputs().size() : files_->size());
  const auto nearest = static_cast<std::uint32_t>(std::lround(fraction * units));
  const std::uint32_t held_back = fraction > 0 ? std::max(1U, nearest) : 0;
  require(held_back < units, ExitCode::usage, "no map is left to train on: all are for validation",
          config.where("data.validation_fraction"), "give more maps, or set it to 0");
  std::vector<bool> validates(units, false);
  const std::vector<std::uint32_t> order = random_order({seed_, Purpose::training_order, 0, order_of_split}, units);
  for (std::uint32_t i = 0; i < held_back; ++i) validates[order[i]] = true;
  for (std::int64_t map = 0; map < files_->size(); ++map) {
    const auto unit = static_cast<std::size_t>(by_file ? files_->file_of(map) : map);
    (validates[unit] ? validation_ : training_).push_back(static_cast<std::uint32_t>(map));
  }
  validation_size_ = static_cast<std::int64_t>(validation_.size());
}

void TrainingMaps::draw(std::int64_t first, int n, const MapBatch& out, const Space& space) {
  draw(Part::training, first, n, out, space);
}

void TrainingMaps::draw_validation(std::int64_t first, int n, const MapBatch& out, const Space& space) {
  require(validation_size_ > 0, ExitCode::usage, "there are no validation maps", "TrainingMaps::draw_validation");
  draw(Part::validation, first, n, out, space);
}

void TrainingMaps::draw(Part part, std::int64_t first, int n, const MapBatch& out, const Space& space) {
  require(n >= 0 && n <= static_cast<int>(out.extent(0)) && static_cast<int>(out.extent(1)) == grid_.height &&
              static_cast<int>(out.extent(2)) == grid_.width,
          ExitCode::usage, "there is no room for the maps", "TrainingMaps::draw");
  require(first >= 0 && first <= max_index - n, ExitCode::usage, "there is no such example", std::to_string(first),
          "examples end at 2^31");
  if (n == 0) return;
  if (simulator_ != nullptr) {
    // Validation has the upper half of the simulator's indices.
    if (part == Part::training) {
      simulator_->draw(simulation_seed_, static_cast<std::uint32_t>(first), n, out, space);
      return;
    }
    for (int done = 0; done < n;) {
      const std::int64_t index = (first + done) % validation_size_;
      const int now = static_cast<int>(std::min<std::int64_t>(n - done, validation_size_ - index));
      const auto maps = Kokkos::subview(out, std::make_pair(done, done + now), Kokkos::ALL, Kokkos::ALL);
      simulator_->draw(simulation_seed_, static_cast<std::uint32_t>(max_index + index), now, maps, space);
      done += now;
    }
    return;
  }
  const MapBatch maps = Kokkos::subview(out, std::make_pair(0, n), Kokkos::ALL, Kokkos::ALL);
  const auto host = Kokkos::create_mirror_view(HostMemory{}, maps);
  space.fence();  // what reads `out` may still be running
  for (int i = 0; i < n; ++i) cut(part, first + i, host.data() + i * grid_.pixels());
  Kokkos::deep_copy(space, maps, host);
  space.fence();
}

/// Map of the files behind an example.
std::int64_t TrainingMaps::map_of(Part part, std::int64_t index) {
  if (part == Part::validation) return validation_[static_cast<std::size_t>(index % validation_size_)];
  const std::int64_t epoch = index / training_size();
  if (epoch != epoch_) {
    order_ = random_order({seed_, Purpose::training_order, static_cast<std::uint32_t>(epoch), order_of_epoch},
                          static_cast<std::uint32_t>(training_.size()));
    epoch_ = epoch;
  }
  return training_[order_[static_cast<std::size_t>(index % training_size())]];
}

/// out [y, x] <- an example: crop and symmetry.
void TrainingMaps::cut(Part part, std::int64_t index, float* out) {
  const std::int64_t map = map_of(part, index);
  const Grid from = files_->grid(map);
  const std::shared_ptr<const float> values = files_->read(map);
  const auto words = random_words(
      {seed_, Purpose::augmentation, static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(part)}, 0);
  const int height = grid_.height, width = grid_.width;
  const auto y0 = static_cast<std::ptrdiff_t>(below(static_cast<std::uint32_t>(from.height - height + 1), words[0]));
  const auto x0 = static_cast<std::ptrdiff_t>(below(static_cast<std::uint32_t>(from.width - width + 1), words[1]));
  const SquareSymmetry s = SquareSymmetry::draw(words[2] >> 29, flips_, quarter_turns_);
  // A step along x or y of the example is a step along x or y of the map, forwards or back.
  std::ptrdiff_t along_y = s.flip_y ? -from.width : from.width;
  std::ptrdiff_t along_x = s.flip_x ? -1 : 1;
  const float* corner =
      values.get() + (y0 + (s.flip_y ? height - 1 : 0)) * from.width + x0 + (s.flip_x ? width - 1 : 0);
  if (s.transpose) std::swap(along_y, along_x);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) out[static_cast<std::ptrdiff_t>(y) * width + x] = corner[y * along_y + x * along_x];
  }
}

std::string TrainingMaps::describe() const {
  if (simulator_ != nullptr) {
    return kind_ + " maps of " + text(grid_) + " pixels simulated on the fly, " + std::to_string(validation_size_) +
           " of them for validation";
  }
  char gib[32];
  std::snprintf(gib, sizeof gib, "%.3g GiB", static_cast<double>(files_->bytes()) * 0x1p-30);
  std::string line =
      "maps: " + std::to_string(files_->size()) + " (" + gib + "), files: " + std::to_string(files_->inputs().size()) +
      ", to train: " + std::to_string(training_.size()) + ", to validate: " + std::to_string(validation_.size()) +
      "; examples of " + text(grid_) + " pixels";
  if (flips_) line += ", flipped";
  if (quarter_turns_) line += ", turned";
  return line;
}

}  // namespace umbriel
