#include "umbriel/app/series_parameters.hpp"

#include <algorithm>
#include <cmath>

#include "umbriel/data/parameter_table.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {

SeriesParameters::SeriesParameters(const Config& config, const std::string& key, const std::vector<std::string>& known,
                                   std::uint64_t seed)
    : seed_(seed) {
  if (!config.has(key)) return;
  if (!config.is_text(key)) {
    for (std::size_t i = 0; i < known.size(); ++i) {
      const std::string name = std::string(key).append(".").append(known[i]);
      if (!config.has(name)) continue;
      const std::vector<double> range =
          config.is_array(name) ? config.numbers(name) : std::vector<double>(2, config.number(name));
      require(range.size() == 2 && range[0] <= range[1] && std::isfinite(range[1] - range[0]), ExitCode::usage,
              "the value is neither a number nor a range", config.where(name),
              "give a number, or [lowest, highest] to draw one for each map; for a list of values a table");
      names_.push_back(known[i]);
      place_.push_back(i);
      low_.push_back(range[0]);
      high_.push_back(range[1]);
    }
    return;
  }
  const std::string path = config.path(key);
  const ParameterTable table = read_parameter_table(path);
  inputs_.push_back({path, sha256_of_file(path)});
  rows_ = table.rows();
  std::vector<std::size_t> columns;
  for (const std::string& name : known) {
    const auto found = std::find(table.names.begin(), table.names.end(), name);
    if (found == table.names.end()) continue;
    names_.push_back(name);
    columns.push_back(static_cast<std::size_t>(found - table.names.begin()));
  }
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows_); ++row) {
    for (const std::size_t column : columns) values_.push_back(table.values[row * table.names.size() + column]);
  }
  for (std::size_t i = 0; i < names_.size(); ++i) {
    low_.push_back(value(0, i));
    high_.push_back(value(0, i));
    for (std::int64_t row = 1; row < rows_; ++row) {
      low_.back() = std::min(low_.back(), value(row, i));
      high_.back() = std::max(high_.back(), value(row, i));
    }
  }
}

double SeriesParameters::value(std::int64_t map, std::size_t name) const {
  if (rows_ >= 0) return values_[static_cast<std::size_t>(map) * names_.size() + name];
  if (low_[name] == high_[name]) return low_[name];
  const double u = uniform({seed_, Purpose::map_parameters, static_cast<std::uint32_t>(map), 0}, place_[name]);
  return low_[name] + (high_[name] - low_[name]) * u;
}

}  // namespace umbriel
