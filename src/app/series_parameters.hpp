/// Parameters of the maps of a series, as `simulate.parameters` and `generate.parameters` give them:
///
///   KEY.NAME = 0.8           the same for all maps
///   KEY.NAME = [0.6, 1.0]    for each map drawn evenly between
///   KEY = "table.csv"        a row a map (see parameter_table.hpp)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/io/result_file.hpp"

namespace umbriel {

class SeriesParameters {
 public:
  SeriesParameters() = default;
  /// @param known  names that there are; a table may have columns of other names, which are passed over
  /// @param seed   of draws
  /// @throws Error(usage), Error(input), Error(file_system)
  SeriesParameters(const Config& config, const std::string& key, const std::vector<std::string>& known,
                   std::uint64_t seed);

  /// Those of `known` that are given, in that order.
  const std::vector<std::string>& names() const { return names_; }
  bool empty() const { return names_.empty(); }
  /// Rows of the table; -1: any number of maps has parameters.
  std::int64_t rows() const { return rows_; }
  /// Of map number `map`: a function of that number and the seed.
  double value(std::int64_t map, std::size_t name) const;
  /// The least and the largest that a parameter can be.
  double low(std::size_t name) const { return low_[name]; }
  double high(std::size_t name) const { return high_[name]; }
  const std::vector<InputRecord>& inputs() const { return inputs_; }

 private:
  std::uint64_t seed_ = 0;
  std::vector<std::string> names_;
  std::vector<std::uint64_t> place_;  ///< of each name among the known: its element in the stream
  std::vector<double> low_, high_;
  std::int64_t rows_ = -1;
  std::vector<double> values_;  ///< [row, name]
  std::vector<InputRecord> inputs_;
};

}  // namespace umbriel
