#include "umbriel/models/metadata_table.hpp"

#include <cmath>
#include <cstdio>
#include <sstream>

#include "umbriel/core/check.hpp"

namespace umbriel {

std::string table_text(const std::vector<double>& at, const std::vector<double>& values) {
  std::string text;
  char line[64];
  for (std::size_t i = 0; i < at.size(); ++i) {
    std::snprintf(line, sizeof line, "%.9g %.9g\n", at[i], values[i]);
    text += line;
  }
  return text;
}

void read_table(const nn::Metadata& metadata, const std::string& key, const std::string& path,
                const std::string& remedy, std::vector<double>& at, std::vector<double>& values) {
  const auto require_table = [&](bool sound) {
    require(sound, ExitCode::input, key + " in the metadata is not a table of positive numbers", path, remedy);
  };
  const auto found = metadata.find(key);
  require_table(found != metadata.end());
  std::istringstream lines(found->second);
  double x = 0, y = 0;
  while (lines >> x) {
    require_table(!(lines >> y).fail());
    require_table(std::isfinite(x) && (at.empty() || x > at.back()) && y > 0 && std::isfinite(y));
    at.push_back(x);
    values.push_back(y);
  }
  require_table(lines.eof() && !at.empty());
}

}  // namespace umbriel
