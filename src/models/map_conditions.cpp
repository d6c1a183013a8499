#include "umbriel/models/map_conditions.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <sstream>

#include "umbriel/data/parameter_table.hpp"
#include "umbriel/mpi/sha256.hpp"

namespace umbriel {

std::string MapConditions::text() const {
  std::string text;
  char line[160];
  for (const Parameter& p : parameters) {
    std::snprintf(line, sizeof line, " %.17g %.17g %.17g %.17g\n", p.mean, p.deviation, p.low, p.high);
    text += p.name + line;
  }
  return text;
}

MapConditions MapConditions::parse(const std::string& text, const std::string& path) {
  MapConditions conditions;
  std::istringstream lines(text);
  Parameter p;
  while (lines >> p.name) {
    require(lines >> p.mean >> p.deviation >> p.low >> p.high && std::isfinite(p.mean) && p.deviation > 0 &&
                std::isfinite(p.deviation) && p.low <= p.high && conditions.parameters.size() < 256,
            ExitCode::input, "umbriel.parameters in the metadata are no parameters", path,
            "give a file that `umbriel train flow` or `train diffusion` wrote");
    conditions.parameters.push_back(p);
  }
  return conditions;
}

ParametersOfMaps::ParametersOfMaps(const Config& config, const MapFolder* maps)
    : where_(config.where("data.parameters")) {
  if (!config.has("data.parameters")) return;
  require(maps != nullptr, ExitCode::usage, "maps that are simulated on the fly have no table of parameters", where_,
          "let `umbriel simulate kappa` write maps with simulate.parameters, and name them in data.maps");
  std::vector<std::string> paths;
  if (config.is_array("data.parameters")) {
    for (const std::string& path : config.texts("data.parameters")) paths.push_back(config.resolve_path(path));
  } else {
    paths.push_back(config.path("data.parameters"));
  }
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    const ParameterTable table = read_parameter_table(path);
    if (inputs_.empty()) names_ = table.names;
    require(table.names == names_ && (inputs_.empty() || table.files.empty() == files.empty()), ExitCode::input,
            "the tables of parameters have different columns", path, "give the same in each");
    values_.insert(values_.end(), table.values.begin(), table.values.end());
    files.insert(files.end(), table.files.begin(), table.files.end());
    inputs_.push_back({path, sha256_of_file(path)});
  }
  const std::size_t count = names_.size(), rows = values_.size() / count;
  if (files.empty()) {
    require(static_cast<std::int64_t>(rows) == maps->size(), ExitCode::input,
            "the table has " + std::to_string(rows) + " rows, and there are " + std::to_string(maps->size()) + " maps",
            paths[0], "give one row a map, in the order of the maps; or a column \"file\" with the name of each");
    return;
  }
  std::map<std::string, std::size_t> row_of;
  for (std::size_t row = 0; row < rows; ++row) {
    require(row_of.emplace(files[row], row).second, ExitCode::input, "two rows are for the file " + files[row],
            paths[0], "leave one out");
  }
  std::vector<double> sorted;
  for (std::int64_t map = 0; map < maps->size(); ++map) {
    const std::string name =
        std::filesystem::path(maps->inputs()[static_cast<std::size_t>(maps->file_of(map))].path).filename().string();
    require(map == 0 || maps->file_of(map) != maps->file_of(map - 1), ExitCode::input,
            "a file holds several maps, and the table of parameters goes by files", maps->name(map),
            "leave the column \"file\" out, and give rows in the order of the maps");
    const auto found = row_of.find(name);
    require(found != row_of.end(), ExitCode::input, "the table of parameters has no row for the file " + name, paths[0],
            "add one");
    for (std::size_t i = 0; i < count; ++i) sorted.push_back(values_[found->second * count + i]);
  }
  values_ = std::move(sorted);
}

MapConditions ParametersOfMaps::conditions(const std::vector<std::int64_t>& maps) const {
  MapConditions conditions;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    MapConditions::Parameter p;
    p.name = names_[i];
    p.low = p.high = value(maps.front(), i);
    double sum = 0, squares = 0;
    for (const std::int64_t map : maps) sum += value(map, i);
    p.mean = sum / static_cast<double>(maps.size());
    for (const std::int64_t map : maps) {
      const double v = value(map, i);
      squares += (v - p.mean) * (v - p.mean);
      p.low = std::min(p.low, v);
      p.high = std::max(p.high, v);
    }
    p.deviation = std::sqrt(squares / static_cast<double>(maps.size()));
    require(p.high > p.low && p.deviation > 0, ExitCode::input,
            "the parameter " + p.name + " is the same for all training maps", where_,
            "leave its column out: nothing can be learned from it");
    conditions.parameters.push_back(p);
  }
  return conditions;
}

}  // namespace umbriel
