/// The maps of a training set: files of maps on disk, read when they are asked for.
///
/// A file is HDF5 (.h5, .hdf5: one dataset), FITS (.fits, .fit: the first image) or .npy, and holds one map [y, x] or
/// several [n, y, x], or it is a binary map of kappaTNG (.dat); maps may differ in size. All files are read and checked
/// once before work starts, divided over the ranks; afterwards each rank reads by itself and keeps what fits its cache,
/// least recently used maps leaving first.
///
/// Or each file is a full sky, a HEALPix map in HDF5 (RING) or FITS, and its maps are flat patches (sky_tiles.hpp); or
/// its flat maps are larger than wanted, and tiles of them that lie side by side are the maps.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "umbriel/core/views.hpp"
#include "umbriel/data/cutouts.hpp"
#include "umbriel/data/survey.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class MapFolder {
 public:
  struct Options {
    /// Of HDF5 files; empty: what `umbriel simulate kappa` writes, /simulation/kappa, or `generate`, /generated/kappa
    /// or /generated/dust, or `cutouts`, /patches/map, or `reconstruct`, /reconstruction/mean.
    std::string dataset;
    bool subtract_mean = false;                          ///< take from each map its mean
    std::uint64_t cache_bytes = std::uint64_t{1} << 30;  ///< memory a rank for maps read before
    int patch_pixels = 0;     ///< side of patches to cut from full skies; 0: files hold flat maps
    double pixel_arcmin = 0;  ///< side of their pixels
    /// Size of tiles to cut from flat maps, row by row from y = 0, x = 0; what is left at the ends of rows and columns
    /// is left out. 0 x 0: maps stay whole. Files are read whole then.
    Grid tile{0, 0};
  };

  /// Collective: every rank throws the same error.
  /// @param paths  files, folders and patterns ("LP*/run*/kappa23.dat"); of a folder every file of the kinds above, by
  ///               name. Subfolders are left out
  /// @throws Error(file_system) for a file that is missing or cannot be read; Error(input) for one that is damaged or
  ///         holds no maps, a folder without maps, the same file or bytes twice, and NaN or infinity, with the pixel;
  ///         Error(usage) if a file that is read whole, all but flat maps in HDF5, is larger than the cache
  MapFolder(const Communicator& comm, const std::vector<std::string>& paths, const Options& options);

  std::int64_t size() const { return first_map_.back(); }  ///< maps in all files
  Grid grid(std::int64_t map) const;                       ///< size of a map
  /// File of a map, counted from 0 in the order of `inputs`: maps of one file follow each other.
  int file_of(std::int64_t map) const;
  /// "FILE" or "FILE, map 7", for messages.
  std::string name(std::int64_t map) const;
  /// Values of all maps in memory, float32.
  std::uint64_t bytes() const;
  const std::vector<InputFile>& inputs() const { return inputs_; }

  /// Values [y, x] of a map, which outlive their place in the cache.
  /// @throws Error as the constructor's, for a file that has changed since
  std::shared_ptr<const float> read(std::int64_t map);

 private:
  /// What all ranks know of a file.
  struct Shape {
    std::int64_t maps = 0;
    std::int32_t height = 0, width = 0;
    bool operator==(const Shape&) const = default;
  };
  /// What is read at once: a map of an HDF5 file, or all maps of another; first the file, then the first map in it.
  using Block = std::pair<int, std::int64_t>;
  struct Kept {
    std::shared_ptr<const std::vector<float>> values;
    std::list<Block>::iterator age;
  };

  Shape scan(int file) const;
  PatchGrid patches() const;
  std::vector<float> load_patches(int file, Shape& shape) const;
  std::vector<float> load_tiles(int file, Shape& shape) const;
  std::vector<float> load_flat(int file, std::int64_t first, Shape& shape) const;
  std::vector<float> load(int file, std::int64_t first, Shape& shape) const;
  void check(int file, std::int64_t first, const Shape& shape, std::vector<float>& values) const;
  bool read_whole(int file) const;

  Options options_;
  std::vector<InputFile> inputs_;
  std::vector<Shape> shapes_;
  std::vector<std::int64_t> first_map_;  ///< of each file, and the number of maps at the end
  std::map<Block, Kept> cache_;
  std::list<Block> ages_;  ///< the latest used comes first
  std::uint64_t cached_bytes_ = 0;
};

}  // namespace umbriel
