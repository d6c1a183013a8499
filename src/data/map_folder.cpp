#include "umbriel/data/map_folder.hpp"

#include <glob.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "umbriel/base/files.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/data/kappatng.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/data/sky_tiles.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/mpi/sha256.hpp"

namespace umbriel {
namespace {

namespace fs = std::filesystem;

enum class Kind { none, hdf5, fits, npy, kappatng };

constexpr const char* kinds = ".h5, .hdf5, .fits, .fit, .npy or, of kappaTNG, .dat";

Kind kind_of(const std::string& path) {
  std::string end = fs::path(path).extension().string();
  std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return std::tolower(c); });
  if (end == ".h5" || end == ".hdf5") return Kind::hdf5;
  if (end == ".fits" || end == ".fit") return Kind::fits;
  if (end == ".dat") return Kind::kappatng;
  return end == ".npy" ? Kind::npy : Kind::none;
}

/// What a pattern of the shell stands for, in alphabetical order; the path itself if it is none, or is there.
std::vector<std::string> expanded(const std::string& path) {
  std::error_code error;
  if (path.find_first_of("*?[") == std::string::npos || fs::exists(path, error)) return {path};
  glob_t found{};
  const int failure = ::glob(path.c_str(), GLOB_ERR, nullptr, &found);
  std::vector<std::string> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  require(failure == 0 && !paths.empty(), ExitCode::file_system, "no file fits the pattern, or a folder cannot be read",
          path, "check the path and its permissions");
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// All files of maps in files, folders and patterns, those of a folder in alphabetical order.
std::vector<std::string> files_in(const std::vector<std::string>& names) {
  std::vector<std::string> paths, files;
  for (const std::string& name : names) {
    for (const std::string& path : expanded(name)) paths.push_back(path);
  }
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      readable_size(path);
      require(kind_of(path) != Kind::none, ExitCode::input, "the name does not tell what kind of file this is", path,
              std::string("give ").append(kinds));
      files.push_back(path);
      continue;
    }
    std::vector<std::string> found;
    for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
      const std::string name = entry->path().string();
      if (kind_of(name) != Kind::none && !entry->is_directory(error)) found.push_back(name);
    }
    require(!error, ExitCode::file_system, std::string("the folder cannot be read: ").append(error.message()), path,
            "check the path and its permissions");
    require(!found.empty(), ExitCode::input, "the folder holds no maps", path,
            std::string("give one with ").append(kinds));
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  require(!files.empty(), ExitCode::input, "there are no files of maps", "", "name files or folders");
  std::set<std::string> seen;
  for (const std::string& file : files) {
    std::error_code error;
    const std::string same = fs::canonical(file, error).string();
    require(!error, ExitCode::file_system, std::string("cannot read the file: ").append(error.message()), file,
            "check the path and its permissions");
    require(seen.insert(same).second, ExitCode::input, "the file is named twice", file, "name it once");
  }
  return files;
}

/// The same list on every rank, from rank 0: a folder may fill up while others look into it.
std::vector<std::string> agreed_files(const Communicator& comm, const std::vector<std::string>& paths) {
  std::string text;
  comm.together([&] {
    if (!comm.is_root()) return;
    for (const std::string& file : files_in(paths)) text.append(file).push_back('\0');
  });
  text = comm.broadcast(text);
  std::vector<std::string> files;
  for (std::size_t at = 0; at < text.size(); at += files.back().size() + 1) files.emplace_back(text.data() + at);
  return files;
}

}  // namespace

bool MapFolder::read_whole(int file) const {
  return options_.patch_pixels > 0 || options_.tile.height > 0 || kind_of(inputs_[file].path) != Kind::hdf5;
}

PatchGrid MapFolder::patches() const {
  return {options_.patch_pixels, options_.patch_pixels * options_.pixel_arcmin / 60};
}

/// All patches of the full sky that a file holds.
std::vector<float> MapFolder::load_patches(int file, Shape& shape) const {
  const std::string& path = inputs_[file].path;
  const Kind kind = kind_of(path);
  require(kind == Kind::hdf5 || kind == Kind::fits, ExitCode::input, "files of this kind hold no map of the full sky",
          path, "leave the side of patches out, or give HEALPix maps as HDF5 or FITS");
  require(kind == Kind::fits || !options_.dataset.empty(), ExitCode::usage,
          "it is not said which dataset of the file is the map", path, "name the dataset, such as kg/stage3_lensing1");
  const HealpixMap sky = kind == Kind::hdf5 ? read_hdf5_sky(path, options_.dataset) : HealpixFile(path, "0").read();
  std::vector<float> values = cut_tiles(sky, patches());
  const int n = options_.patch_pixels;
  shape = {static_cast<std::int64_t>(values.size()) / n / n, n, n};
  return values;
}

/// All tiles of the flat maps of a file, those of one map after those of the one before.
std::vector<float> MapFolder::load_tiles(int file, Shape& shape) const {
  const Grid tile = options_.tile;
  std::vector<float> out;
  Shape whole;
  for (std::int64_t first = 0; first == 0 || first < whole.maps; ++first) {
    const std::vector<float> values = load_flat(file, first, whole);
    require(whole.height >= tile.height && whole.width >= tile.width, ExitCode::input,
            "the map has " + std::to_string(whole.width) + " x " + std::to_string(whole.height) +
                " pixels, and a tile would have " + std::to_string(tile.width) + " x " + std::to_string(tile.height),
            inputs_[file].path, "give larger maps");
    const auto width = static_cast<std::size_t>(whole.width);
    const std::size_t pixels = width * static_cast<std::size_t>(whole.height);
    for (std::size_t map = 0; map < values.size(); map += pixels) {
      for (int y = 0; y + tile.height <= whole.height; y += tile.height) {
        for (int x = 0; x + tile.width <= whole.width; x += tile.width) {
          for (int row = y; row < y + tile.height; ++row) {
            const auto begin =
                values.begin() +
                static_cast<std::ptrdiff_t>(map + static_cast<std::size_t>(row) * width + static_cast<std::size_t>(x));
            out.insert(out.end(), begin, begin + tile.width);
          }
        }
      }
    }
    if (values.size() > pixels) break;  // all maps of the file at once
  }
  shape = {static_cast<std::int64_t>(out.size()) / tile.pixels(), tile.height, tile.width};
  return out;
}

/// Values of the block that begins at map `first` of a file, unchecked. Sets the shape of the whole file.
std::vector<float> MapFolder::load(int file, std::int64_t first, Shape& shape) const {
  if (options_.patch_pixels > 0) return load_patches(file, shape);
  return options_.tile.height > 0 ? load_tiles(file, shape) : load_flat(file, first, shape);
}

/// The same of flat maps: one map of an HDF5 file, all maps of another.
std::vector<float> MapFolder::load_flat(int file, std::int64_t first, Shape& shape) const {
  const std::string& path = inputs_[file].path;
  std::vector<std::uint64_t> extents;
  std::vector<float> values;
  std::vector<double> wide;
  switch (kind_of(path)) {
    case Kind::hdf5: {
      const Hdf5Reader reader(path);
      std::string dataset = options_.dataset;
      if (dataset.empty()) {
        dataset = "/simulation/kappa";
        for (const char* name : {"/patches/map", "/generated/dust", "/generated/kappa", "/reconstruction/mean"})
          if (reader.has(name)) dataset = name;
      }
      if (!reader.has(dataset)) {
        std::string known;
        for (const std::string& name : reader.datasets()) known.append(known.empty() ? "it has " : ", ").append(name);
        throw Error(ExitCode::input, "the file has no dataset " + dataset, path, known.empty() ? "it has none" : known);
      }
      extents = reader.shape(dataset);
      if (extents.size() == 2) {
        values = reader.read<float>(dataset);
      } else if (extents.size() == 3 && extents[0] > 0) {
        values = reader.read<float>(dataset, static_cast<std::uint64_t>(first), 1);
      } else if (extents.size() == 1) {
        throw Error(ExitCode::input, "dataset " + dataset + " is one row of values", path,
                    "if it is a HEALPix map of the full sky, give the side of patches to cut from it (patch)");
      }
      break;
    }
    case Kind::fits: {
      FitsImage image = read_fits_image(path);
      extents = {static_cast<std::uint64_t>(image.planes), static_cast<std::uint64_t>(image.height),
                 static_cast<std::uint64_t>(image.width)};
      wide = std::move(image.values);
      break;
    }
    case Kind::kappatng: {
      KappaTngMap map = read_kappatng(path);
      extents = {static_cast<std::uint64_t>(map.side), static_cast<std::uint64_t>(map.side)};
      wide = std::move(map.values);
      break;
    }
    default: {
      NpyArray array = read_npy(path);
      extents = array.shape;
      wide = std::move(array.values);
    }
  }
  if (extents.size() == 2) extents.insert(extents.begin(), 1);
  require(extents.size() == 3 && extents[0] > 0 && extents[0] <= UINT32_MAX && extents[1] > 0 && extents[1] <= 65536 &&
              extents[2] > 0 && extents[2] <= 65536,
          ExitCode::input, "the file holds no maps [y, x] or [n, y, x] of 1 to 65536 pixels a side", path,
          "give maps as rows of pixels");
  shape = {static_cast<std::int64_t>(extents[0]), static_cast<std::int32_t>(extents[1]),
           static_cast<std::int32_t>(extents[2])};
  if (!wide.empty()) {
    values.resize(wide.size());
    std::transform(wide.begin(), wide.end(), values.begin(), [](double value) { return static_cast<float>(value); });
  }
  return values;
}

/// Refuses values that are not finite, and subtracts each map's mean where that is asked for.
void MapFolder::check(int file, std::int64_t first, const Shape& shape, std::vector<float>& values) const {
  const std::size_t pixels = static_cast<std::size_t>(shape.height) * static_cast<std::size_t>(shape.width);
  for (std::size_t begin = 0; begin < values.size(); begin += pixels) {
    double sum = 0;
    for (std::size_t i = begin; i < begin + pixels; ++i) sum += static_cast<double>(values[i]);
    if (!std::isfinite(sum)) {
      for (std::size_t i = 0; i < pixels; ++i) {
        if (std::isfinite(values[begin + i])) continue;
        const auto width = static_cast<std::size_t>(shape.width);
        const std::string map = std::to_string(first + static_cast<std::int64_t>(begin / pixels));
        throw Error(ExitCode::input, "a map holds " + std::to_string(values[begin + i]),
                    inputs_[file].path + (shape.maps == 1 ? "" : ", map " + map) +
                        ", pixel y = " + std::to_string(i / width) + ", x = " + std::to_string(i % width),
                    "training maps must be finite float32 numbers everywhere: leave the file out or fill it");
      }
    }
    if (!options_.subtract_mean) continue;
    const double mean = sum / static_cast<double>(pixels);
    for (std::size_t i = begin; i < begin + pixels; ++i) {
      values[i] = static_cast<float>(static_cast<double>(values[i]) - mean);
    }
  }
}

/// Reads and checks all of a file.
MapFolder::Shape MapFolder::scan(int file) const {
  Shape shape;
  std::vector<float> values = load(file, 0, shape);
  check(file, 0, shape, values);
  if (read_whole(file)) {
    require(values.size() * sizeof(float) <= options_.cache_bytes, ExitCode::usage,
            "the file does not fit the cache of maps, and one of its kind is read whole", inputs_[file].path,
            "raise data.cache_gib, or give its maps as HDF5 or in files of their own");
    return shape;
  }
  for (std::int64_t map = 1; map < shape.maps; ++map) {
    values = load(file, map, shape);
    check(file, map, shape, values);
  }
  return shape;
}

MapFolder::MapFolder(const Communicator& comm, const std::vector<std::string>& paths, const Options& options)
    : options_(options) {
  comm.together([&] {
    if (options_.patch_pixels > 0) tile_centres(patches());
  });
  for (const std::string& path : agreed_files(comm, paths)) inputs_.push_back({path, ""});
  const auto files = static_cast<std::int64_t>(inputs_.size());

  // Every rank reads its share of the files; then all know all.
  struct Found {
    Shape shape;
    std::array<char, 64> sha256;
  };
  std::vector<Found> found;
  const ShardRange mine = shard_range(files, comm.rank(), comm.size());
  comm.together([&] {
    for (std::int64_t i = mine.first; i < mine.first + mine.count; ++i) {
      Found one{scan(static_cast<int>(i)), {}};
      const std::string digest = sha256_of_file(inputs_[static_cast<std::size_t>(i)].path);
      std::memcpy(one.sha256.data(), digest.data(), std::min(digest.size(), one.sha256.size()));
      found.push_back(one);
    }
  });
  found = comm.gather(found);
  found.resize(inputs_.size());
  comm.broadcast(found.data(), found.size() * sizeof(Found));

  std::map<std::string, std::string> path_of;
  first_map_.push_back(0);
  for (std::size_t i = 0; i < found.size(); ++i) {
    shapes_.push_back(found[i].shape);
    inputs_[i].sha256.assign(found[i].sha256.data(), found[i].sha256.size());
    first_map_.push_back(first_map_.back() + found[i].shape.maps);
    // Copies of one simulation could end up both among the training and the validation maps.
    const auto [same, is_new] = path_of.emplace(inputs_[i].sha256, inputs_[i].path);
    if (!is_new) {
      throw Error(ExitCode::input, "two files hold the same bytes", inputs_[i].path + " and " + same->second,
                  "leave one out")
          .mark_agreed();
    }
  }
}

int MapFolder::file_of(std::int64_t map) const {
  require(map >= 0 && map < size(), ExitCode::usage, "there is no such map", std::to_string(map));
  return static_cast<int>(std::upper_bound(first_map_.begin(), first_map_.end(), map) - first_map_.begin()) - 1;
}

Grid MapFolder::grid(std::int64_t map) const {
  const Shape& shape = shapes_[static_cast<std::size_t>(file_of(map))];
  return {shape.height, shape.width};
}

std::string MapFolder::name(std::int64_t map) const {
  const auto file = static_cast<std::size_t>(file_of(map));
  if (shapes_[file].maps == 1) return inputs_[file].path;
  return inputs_[file].path + ", map " + std::to_string(map - first_map_[file]);
}

std::uint64_t MapFolder::bytes() const {
  std::uint64_t bytes = 0;
  for (const Shape& shape : shapes_) {
    bytes += static_cast<std::uint64_t>(shape.maps) * static_cast<std::uint64_t>(shape.height) *
             static_cast<std::uint64_t>(shape.width) * sizeof(float);
  }
  return bytes;
}

std::shared_ptr<const float> MapFolder::read(std::int64_t map) {
  const int file = file_of(map);
  const Shape& shape = shapes_[static_cast<std::size_t>(file)];
  const std::int64_t in_file = map - first_map_[static_cast<std::size_t>(file)];
  const Block block{file, read_whole(file) ? 0 : in_file};
  auto found = cache_.find(block);
  if (found == cache_.end()) {
    Shape now;
    auto values = std::make_shared<std::vector<float>>(load(file, block.second, now));
    require(now == shape, ExitCode::input, "the file has changed while it was in use",
            inputs_[static_cast<std::size_t>(file)].path, "leave files of maps alone until training ends");
    check(file, block.second, shape, *values);
    cached_bytes_ += values->size() * sizeof(float);
    while (cached_bytes_ > options_.cache_bytes && !ages_.empty()) {
      const auto oldest = cache_.find(ages_.back());
      cached_bytes_ -= oldest->second.values->size() * sizeof(float);
      cache_.erase(oldest);
      ages_.pop_back();
    }
    ages_.push_front(block);
    found = cache_.emplace(block, Kept{std::move(values), ages_.begin()}).first;
  } else {
    ages_.splice(ages_.begin(), ages_, found->second.age);
  }
  const std::size_t pixels = static_cast<std::size_t>(shape.height) * static_cast<std::size_t>(shape.width);
  const auto& values = found->second.values;
  return {values, values->data() + static_cast<std::size_t>(in_file - block.second) * pixels};
}

}  // namespace umbriel
