/// One HTML page about one result file, for an astronomer: what the run was, maps, power spectra, chains, metrics,
/// calibration, provenance.
///
/// The page is whole in itself: pictures are inside, nothing is loaded from elsewhere, no script runs. It follows the
/// reader's light or dark theme and prints in light.
#pragma once

#include <string>

#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {

/// The page as text. Panels whose datasets are missing are left out.
/// @throws Error(input) if the file holds neither a posterior, its summary nor a validation, or if its maps disagree
///         in shape
std::string report_html(const Hdf5Reader& result);

/// Writes the page under a temporary name and renames it. @throws Error(input) as above, Error(file_system)
void write_report(const Hdf5Reader& result, const std::string& html_path);

}  // namespace umbriel
