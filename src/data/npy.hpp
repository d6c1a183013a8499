/// NumPy's .npy files: one array of numbers (format versions 1 to 3).
///
/// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace umbriel {

struct NpyArray {
  std::vector<std::uint64_t> shape;
  std::vector<double> values;  ///< row-major (C order) whatever the file's order
};

/// Reads little-endian float32, float64, int32, int64 or bool. Pickled objects are never read, and no more memory is
/// taken than the file's size justifies.
/// @throws Error(file_system) for a missing or unreadable file; Error(input) for one that is damaged, truncated, or of
///         another type
NpyArray read_npy(const std::string& path);

/// Writes float64, row-major, format version 1 (see write_bytes).
/// @throws Error(file_system) if the file cannot be written
void write_npy(const std::string& path, const std::vector<std::uint64_t>& shape, const double* values);

}  // namespace umbriel
