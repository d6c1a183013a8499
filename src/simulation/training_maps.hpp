/// The maps that networks learn from: simulated on the fly, or read from files, cropped, flipped and turned.
///
/// A training example is a pure function of seed and index. A global batch of B examples at step t has the indices
/// t B ... t B + B - 1, of which rank r makes those of shard_range(B, r, ranks): so the examples do not depend on the
/// number of ranks, and a resumed run goes on with the same series.
///
/// Simulated examples never repeat, and never are what `umbriel simulate` or a mock survey draws with the same seed.
/// Maps of files come in a new random order each epoch, and one simulation serves either training or validation.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/core/views.hpp"
#include "umbriel/data/map_folder.hpp"
#include "umbriel/simulation/convergence_map.hpp"

namespace umbriel {

/// One of the eight symmetries of the square: out(y, x) = in(y', x') with (y', x') = (y, x), or (x, y) if `transpose`;
/// then y' is counted from the other end if `flip_y`, and x' if `flip_x`.
struct SquareSymmetry {
  bool transpose = false, flip_y = false, flip_x = false;

  /// From three random bits, evenly out of those allowed: quarter turns alone make 4, flips alone 4, both all 8.
  static SquareSymmetry draw(std::uint32_t bits, bool flips, bool quarter_turns);
};

class TrainingMaps {
 public:
  /// Training indices are below this, and so are validation indices.
  static constexpr std::int64_t max_index = std::int64_t{1} << 31;

  /// Collective: every rank throws the same error. Keys:
  ///
  ///   data.size                 [width, height] of an example; with files of one size that is the default
  ///   data.pixel_arcmin
  /// simulated on the fly:
  ///   data.simulate             table; {} for the defaults
  ///   data.simulate.kind        "lognormal" (default) or "gaussian"
  ///   data.simulate.kappa0      default 0.05
  ///   data.simulate.power_spectrum, cosmology, source_redshift, source_distribution
  ///                             as power_spectrum_from reads them; without any of them, those of `prior`
  ///   data.validation_maps      default 64
  /// from files:
  ///   data.maps                 a file, a folder, or a list of them (see map_folder.hpp)
  ///   data.dataset              of HDF5 files, default /simulation/kappa, /generated/kappa, /generated/dust or
  ///                             /patches/map
  ///   data.patch                side in pixels of patches to cut from files that hold full skies
  ///   data.cache_gib            memory a rank for maps, default 1
  ///   data.subtract_mean        take from each whole map its mean, default false
  ///   data.crop                 cut an example at random from a larger map, default true
  ///   data.flips, data.quarter_turns   symmetries to apply at random, default true; turns only for square examples
  ///   data.split                what goes as a whole to training or validation: "map" (default), or "file" where a
  ///                             file holds several maps of one simulation; or "given", as /patches/split of the files
  ///                             says, the default for patches that `umbriel cutouts` wrote
  ///   data.validation_fraction  of the maps or files, default 0.1; at least one if not 0
  ///
  /// @param seed          of the examples, their order and the split
  /// @param size, pixel_arcmin  in place of the keys, for one of several grids to train on
  /// @throws Error(usage), Error(file_system), Error(input)
  TrainingMaps(const Communicator& comm, const Config& config, std::uint64_t seed, std::optional<Grid> size = {},
               std::optional<double> pixel_arcmin = {});

  const Grid& grid() const { return grid_; }
  double pixel_arcmin() const { return pixel_arcmin_; }
  /// Maps to train on, an epoch; 0: without end.
  std::int64_t training_size() const { return static_cast<std::int64_t>(training_.size()); }
  /// Maps to validate on; 0: none.
  std::int64_t validation_size() const { return validation_size_; }

  /// out[i] <- training example first + i, i < n. Ready when the call returns.
  /// @param out  [>= n, y, x]
  /// @throws Error(usage) without room, or beyond max_index; Error as MapFolder::read
  void draw(std::int64_t first, int n, const MapBatch& out, const Space& space = Space());
  /// The same for validation. Examples repeat the maps in order, from files with crops and symmetries of their own.
  void draw_validation(std::int64_t first, int n, const MapBatch& out, const Space& space = Space());

  /// The files; null with simulations.
  const MapFolder* files() const { return files_.get(); }
  /// Maps of the files, counted over all of them: those to train on, and the one behind an example.
  const std::vector<std::uint32_t>& training_maps() const { return training_; }
  std::int64_t map_of_training(std::int64_t index) { return map_of(Part::training, index); }
  std::int64_t map_of_validation(std::int64_t index) { return map_of(Part::validation, index); }

  /// Files read, for the record in the result; those of `prior` are the caller's to record.
  const std::vector<InputFile>& inputs() const { return inputs_; }
  /// One line about what there is, for logs and dry runs.
  std::string describe() const;

 private:
  enum class Part : std::uint32_t { training = 0, validation = 1 };

  void read_simulation(const Config& config, std::optional<Grid> size);
  void read_files(const Communicator& comm, const Config& config, std::optional<Grid> size);
  void split(const Config& config);
  void take_given_split(const Config& config);
  void draw(Part part, std::int64_t first, int n, const MapBatch& out, const Space& space);
  std::int64_t map_of(Part part, std::int64_t index);
  void cut(Part part, std::int64_t index, float* out);

  std::uint64_t seed_;
  Grid grid_;
  double pixel_arcmin_ = 0;
  std::int64_t validation_size_ = 0;
  std::string kind_;
  std::vector<InputFile> inputs_;

  std::unique_ptr<ConvergenceSimulator> simulator_;  ///< null with files
  std::uint64_t simulation_seed_ = 0;

  std::unique_ptr<MapFolder> files_;  ///< null with simulations
  bool crop_ = true, flips_ = true, quarter_turns_ = true;
  std::vector<std::uint32_t> training_, validation_;  ///< maps of files
  std::int64_t epoch_ = -1;
  std::vector<std::uint32_t> order_;  ///< positions in training_, of epoch_
};

/// The numbers 0 ... n - 1 in a random order that depends on the key alone (Fisher & Yates; a place's chances are even
/// to n / 2^32).
std::vector<std::uint32_t> random_order(const DrawKey& key, std::uint32_t n);

}  // namespace umbriel
