/// One HTML page about one result file, for an astronomer: what the run was, maps, power spectra, chains, metrics,
/// calibration, provenance. Or about several files of `umbriel stats`, to compare ensembles of maps.
///
/// The page is whole in itself: pictures are inside, nothing is loaded from elsewhere, no script runs. It follows the
/// reader's light or dark theme and prints in light.
#pragma once

#include <string>
#include <vector>

#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {

/// The page as text. Panels whose datasets are missing are left out.
/// @param results  one file, or several that hold statistics
/// @throws Error(input) if a file holds nothing to show, or if its maps disagree in shape; if several files do not all
///         hold statistics, of the same bins
std::string report_html(const std::vector<const Hdf5Reader*>& results);
std::string report_html(const Hdf5Reader& result);

/// Writes the page under a temporary name and renames it. @throws Error(input) as above, Error(file_system)
void write_report(const std::vector<const Hdf5Reader*>& results, const std::string& html_path);
void write_report(const Hdf5Reader& result, const std::string& html_path);

}  // namespace umbriel
