/// Models that make new maps: what `train flow` and `train diffusion` write and `generate` reads, by name.
///
/// Their files are safetensors with the network's settings, those of the transform, and the size of maps as metadata.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "umbriel/base/config.hpp"
#include "umbriel/models/field_transform.hpp"
#include "umbriel/models/map_conditions.hpp"
#include "umbriel/nn/tape.hpp"
#include "umbriel/nn/weights.hpp"

namespace umbriel {

/// What a model was trained on.
struct GenerativeModelRecord {
  std::string kind;    ///< "flow" or "diffusion"
  std::string config;  ///< TOML: what the network is made from
  Grid grid;
  double pixel_arcmin = 0;
  FieldTransformSettings field;
  MapConditions conditions{};
  double quantisation_step = 0;  ///< maps are multiples of it; 0: any numbers

  /// Writes weights `values` with all this and `more` as metadata. For one rank.
  void save(const std::string& path, const nn::ParameterSet& parameters, const View1<float>& values,
            nn::Metadata more) const;
  /// @throws Error(input) for a file that is not one, Error(file_system)
  static GenerativeModelRecord load(const std::string& path);
};

class MapGenerator {
 public:
  virtual ~MapGenerator() = default;
  /// Maps that it makes at once, at most.
  virtual int batch() const = 0;
  /// Has `draw` ask for the parameters of each map: write(map, out) sets out[0 ... conditions), standardised. For a
  /// conditional model, before it draws.
  void set_conditions(std::function<void(std::int64_t map, float* out)> write) { conditions_of_ = std::move(write); }
  /// out[i] <- map first + i, i < n <= batch(): a function of the seed and that number alone.
  /// @param out  [>= n, H, W]
  virtual void draw(const Space& space, std::uint64_t seed, std::int64_t first, int n, const MapBatch& out) = 0;

 protected:
  std::function<void(std::int64_t map, float* out)> conditions_of_;
};

/// Maps that a model takes at once: a power of two up to 16, as many as fit in `host_pixels` on a processor, or in
/// 4096 x 4096 on a device; at least one.
int maps_at_once(Grid grid, std::int64_t host_pixels);

/// @param config  keys of how it draws, where a kind has any
/// @throws as GenerativeModelRecord::load, and as nn::load_weights
std::unique_ptr<MapGenerator> make_generator(const std::string& path, const GenerativeModelRecord& record,
                                             const Config& config, const nn::Options& options);

}  // namespace umbriel
