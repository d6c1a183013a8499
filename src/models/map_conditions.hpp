/// Parameters of maps, such as sigma_8, that a model of maps is told of: it learns p(map | parameters).
///
/// A network sees (p - mean) / deviation, moments over the training maps, which go into the model's file with the
/// names and the range of each.
#pragma once

#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/data/map_folder.hpp"

namespace umbriel {

struct MapConditions {
  struct Parameter {
    std::string name;
    double mean = 0, deviation = 1;
    double low = 0, high = 0;  ///< among the training maps
    float standardised(double value) const { return static_cast<float>((value - mean) / deviation); }
  };
  std::vector<Parameter> parameters;

  int size() const { return static_cast<int>(parameters.size()); }
  /// Lines "name mean deviation low high".
  std::string text() const;
  /// @throws Error(input)
  static MapConditions parse(const std::string& text, const std::string& path);
};

/// Values of parameters for each map of some files.
class ParametersOfMaps {
 public:
  ParametersOfMaps() = default;
  /// Reads `data.parameters`, a table or a list of them (see parameter_table.hpp), if there is one: rows in the order
  /// of the maps, or, with a column "file", one for each file, of one map each.
  /// @throws Error(usage), Error(input), Error(file_system)
  ParametersOfMaps(const Config& config, const MapFolder* maps);

  const std::vector<std::string>& names() const { return names_; }
  double value(std::int64_t map, std::size_t name) const {
    return values_[static_cast<std::size_t>(map) * names_.size() + name];
  }
  const std::vector<InputFile>& inputs() const { return inputs_; }

  /// Of these maps. @throws Error(input) for a parameter that is the same for all
  MapConditions conditions(const std::vector<std::int64_t>& maps) const;

 private:
  std::string where_;
  std::vector<std::string> names_;
  std::vector<double> values_;  // [map, name]
  std::vector<InputFile> inputs_;
};

}  // namespace umbriel
