/// Maps for a trained autoencoder: what `reconstruct`, `interpolate` and `inpaint` have in common.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "umbriel/app/map_series.hpp"
#include "umbriel/data/map_folder.hpp"
#include "umbriel/models/vae.hpp"

namespace umbriel {

/// A map less its mean, over its standard deviation.
struct StandardMap {
  std::vector<float> values;  ///< [y, x]
  double mean = 0, deviation = 1;
};

class AutoencoderMaps {
 public:
  /// Collective. Reads SECTION.model, SECTION.maps (a file, a folder or a list), SECTION.dataset and SECTION.tiles,
  /// with which tiles of the model's size are cut from larger maps.
  /// @throws Error(input) for a model of another kind or without standardised maps, or maps of another size; and as
  ///         MapFolder
  /// @param maps  in place of "maps"; those are never cut into tiles
  AutoencoderMaps(const Communicator& comm, const Config& config, const std::string& section,
                  const std::string& maps = "maps");

  const TrainedVae& model() const { return model_; }
  const Vae& vae() const { return *model_.vae; }
  Grid grid() const { return model_.record.grid; }
  /// Maps in the files.
  std::int64_t size() const { return files_->size(); }
  /// Of the files: those that /patches/split says are for `part`, "training", "validation" or "test"; or "all".
  /// @throws Error(input) if the files do not say, Error(usage) for tiles
  std::vector<std::int64_t> part(const std::string& part) const;
  /// @throws Error(input) for a constant map
  StandardMap read(std::int64_t map) const;
  /// The model, and the files of maps.
  const std::vector<InputRecord>& inputs() const { return inputs_; }

  /// Sets what all series of maps of this model share.
  void describe(MapSeries& series) const;

  /// The model's field of maps, [n, H, W], as its networks take them. @param maps  [n]
  MapBatch fields_of(const std::vector<StandardMap>& maps) const;
  /// q(z|x) of a map: latent means, then deviations.
  std::vector<float> encoded(const Space& space, VaeRunner& runner, const StandardMap& map) const;
  /// Decoded standardised maps of latent vectors, at most runner.batch() of them. @param latent  [n, latent], host
  /// @return [n, y, x]
  std::vector<float> decoded(const Space& space, VaeRunner& runner, const std::vector<float>& latent) const;

 private:
  TrainedVae model_;
  std::unique_ptr<MapFolder> files_;
  bool tiles_ = false;
  std::vector<InputRecord> inputs_;
};

/// A batch of maps for a kernel, all `maps` of them. @param maps  [n] of equal size
MapBatch batch_of(const std::vector<StandardMap>& maps, Grid grid);

}  // namespace umbriel
