/// Maps of the kappaTNG simulations in their binary format (Osato, Liu & Haiman 2021).
///
/// As the authors' `load_map.c` reads them (https://github.com/0satoken/kappaTNG, folder `binary`), a file is,
/// little-endian,
///   int32    ng
///   float64  kappa[ng][ng]
///   int32    ng
/// with ng = 1024 on 5 degrees a side. The newer release of the same maps is HDF5.
#pragma once

#include <string>
#include <vector>

namespace umbriel {

struct KappaTngMap {
  int side = 0;                ///< pixels
  std::vector<double> values;  ///< [y, x] convergence, in the file's order
};

/// @throws Error(file_system) for a missing or unreadable file; Error(input) for one whose length and counts do not
///         agree
KappaTngMap read_kappatng(const std::string& path);

}  // namespace umbriel
