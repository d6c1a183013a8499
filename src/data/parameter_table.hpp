/// Numbers that belong to maps, such as the sigma_8 that each was simulated with: a table with a row a map.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace umbriel {

struct ParameterTable {
  std::vector<std::string> names;  ///< of the parameters
  std::vector<std::string> files;  ///< [row] names of files, where the table has a column "file"; else empty
  std::vector<double> values;      ///< [row, name]

  std::int64_t rows() const {
    return static_cast<std::int64_t>(names.empty() ? files.size() : values.size() / names.size());
  }
};

/// Reads a text file: the first line names the columns ("# " before them is passed over), each other line is a row;
/// columns are separated by blanks or commas, and '#' begins a comment. Or a result of umbriel (.h5): the datasets of
/// /simulation/parameters or /generated/parameters.
/// @throws Error(file_system); Error(input) for a header that does not name columns, the same name twice, rows of
///         another length, and what is not a finite number, with line and column
ParameterTable read_parameter_table(const std::string& path);

}  // namespace umbriel
