#include "umbriel/data/parameter_table.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "umbriel/base/files.hpp"
#include "umbriel/core/check.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

/// A name as it can stand in a configuration: letters, digits, '_' and '-', and no number.
bool is_name(const std::string& word) {
  const auto ordinary = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; };
  return !word.empty() && word.size() <= 64 && std::isalpha(static_cast<unsigned char>(word[0])) != 0 &&
         std::all_of(word.begin(), word.end(), ordinary);
}

std::vector<std::string> words_of(std::string line) {
  std::replace(line.begin(), line.end(), ',', ' ');
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

ParameterTable read_text(const std::string& path) {
  ParameterTable table;
  std::vector<std::string> columns;
  std::ptrdiff_t file_column = -1;
  std::istringstream file(read_bytes(path));
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (columns.empty() && line.find_first_not_of(" \t") != std::string::npos) {
      const std::size_t first = line.find_first_not_of(" \t");
      if (line[first] == '#') line[first] = ' ';
    }
    line.resize(std::min(line.size(), line.find('#')));
    const std::vector<std::string> words = words_of(line);
    if (words.empty()) continue;
    const std::string where = path + ", line " + std::to_string(number);
    if (columns.empty()) {
      for (const std::string& word : words) {
        require(is_name(word), ExitCode::input, "the first line does not name the columns: \"" + word + "\" is no name",
                where, "begin the table with a line such as: sigma_8 omega_m");
        require(std::count(words.begin(), words.end(), word) == 1, ExitCode::input, "two columns are called " + word,
                where, "give each a name of its own");
      }
      columns = words;
      const auto at = std::find(columns.begin(), columns.end(), "file");
      if (at != columns.end()) file_column = at - columns.begin();
      for (const std::string& column : columns) {
        if (column != "file") table.names.push_back(column);
      }
      require(!table.names.empty(), ExitCode::input, "the table has no parameters", where, "add a column");
      continue;
    }
    require(words.size() == columns.size(), ExitCode::input,
            "the row has " + std::to_string(words.size()) + " entries, and there are " +
                std::to_string(columns.size()) + " columns",
            where, "give one number for each column");
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (static_cast<std::ptrdiff_t>(i) == file_column) {
        table.files.push_back(words[i]);
        continue;
      }
      char* end = nullptr;
      const double value = std::strtod(words[i].c_str(), &end);
      require(*end == 0 && std::isfinite(value), ExitCode::input,
              columns[i] + " is \"" + words[i] + "\", not a finite number", where, "correct it, or leave the map out");
      table.values.push_back(value);
    }
  }
  require(!table.values.empty(), ExitCode::input, "the table has no rows", path, "give a row for each map");
  return table;
}

ParameterTable read_result(const std::string& path) {
  const Hdf5Reader file(path);
  ParameterTable table;
  std::vector<std::vector<double>> columns;
  for (const std::string& group : {std::string("/simulation/parameters/"), std::string("/generated/parameters/")}) {
    for (const std::string& dataset : file.datasets()) {
      if (dataset.rfind(group, 0) != 0) continue;
      table.names.push_back(dataset.substr(group.size()));
      columns.push_back(file.read<double>(dataset));
      require(is_name(table.names.back()) && columns.back().size() == columns.front().size(), ExitCode::input,
              "the parameters are not columns of one length", path + ", " + dataset,
              "give a file that `umbriel simulate kappa` wrote, or a table");
    }
    if (!columns.empty()) break;
  }
  require(!columns.empty() && !columns.front().empty(), ExitCode::input, "the file holds no parameters of its maps",
          path, "simulate with simulate.parameters, or give a table with a row a map");
  for (std::size_t row = 0; row < columns.front().size(); ++row) {
    for (std::size_t i = 0; i < columns.size(); ++i) {
      require(std::isfinite(columns[i][row]), ExitCode::input, table.names[i] + " is not a finite number",
              path + ", map " + std::to_string(row), "leave the map out");
      table.values.push_back(columns[i][row]);
    }
  }
  return table;
}

}  // namespace

ParameterTable read_parameter_table(const std::string& path) {
  readable_size(path);
  return path.ends_with(".h5") || path.ends_with(".hdf5") ? read_result(path) : read_text(path);
}

}  // namespace umbriel
