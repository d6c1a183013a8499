/// The parts a report is made of; used by report.cpp alone.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel::report {

/// A section of the page and the large numbers it adds to the head of the page.
struct Part {
  struct Section {
    std::string anchor, title, html;
  };
  struct KeyFigure {
    std::string value, meaning;
    bool warn = false;
  };
  std::string title, lead;  ///< HTML of the page's title and first paragraph
  std::vector<KeyFigure> key_figures;
  std::vector<Section> sections;
  std::string definitions;  ///< SVG shapes used by several figures
};

bool has_samples(const Hdf5Reader& file);
Part sample_part(const Hdf5Reader& file);

bool has_validation(const Hdf5Reader& file);
Part validate_part(const Hdf5Reader& file);

bool has_covariance(const Hdf5Reader& file);
Part covariance_part(const Hdf5Reader& file);

bool has_search(const Hdf5Reader& file);
Part search_part(const Hdf5Reader& file);

bool has_reconstructions(const Hdf5Reader& file);
Part reconstruction_part(const Hdf5Reader& file);

bool has_interpolation(const Hdf5Reader& file);
Part interpolation_part(const Hdf5Reader& file);

bool has_new_patches(const Hdf5Reader& file);
Part new_patches_part(const Hdf5Reader& file);

bool has_inpainting(const Hdf5Reader& file);
Part inpainting_part(const Hdf5Reader& file);

bool has_statistics(const Hdf5Reader& file);
/// Of one file, or of several to compare with the first.
/// @throws Error(input) for bins that differ, or nothing in common; Error(usage) for more files than there are colours
Part statistics_part(const std::vector<const Hdf5Reader*>& files);

Part::Section provenance_section(const Hdf5Reader& file);

/// Fills `section.html` with what tells whether the chains agree; false if the file says nothing about its chains.
bool chains_section(const Hdf5Reader& file, Part::Section& section);
/// Nested R-hats above these are marked: what the file says for its number of draws, else 1.05.
std::vector<double> rhat_limits(const Hdf5Reader& file, std::size_t quantities);

std::string style_sheet();

/// @{ Small pieces shared by the parts. `title` is plain text and is escaped; `caption` is HTML.
std::string figure(const std::string& svg, const std::string& title, const std::string& caption);
/// Figures side by side, `columns` of them where the page is wide enough.
std::string figures(const std::vector<std::string>& all, int columns);
/// Attribute as text, or `fallback` if the object or the attribute is missing.
std::string attribute_or(const Hdf5Reader& file, const std::string& object, const std::string& name,
                         const std::string& fallback = "");
/// Attribute as a number; NaN if missing or not a number.
double attribute_number(const Hdf5Reader& file, const std::string& object, const std::string& name);
/// All values of a dataset, empty if it is missing.
std::vector<double> values_or_none(const Hdf5Reader& file, const std::string& dataset);
/// @{ Of the finite values; NaN if there are none.
double mean_of(const std::vector<double>& values);
double extreme_of(const std::vector<double>& values, bool largest);
/// @}
/// `names` padded with "quantity 3" and so on to length n.
std::vector<std::string> names_for(const Hdf5Reader& file, const std::string& object, const std::string& attribute,
                                   std::size_t n);
/// @}

}  // namespace umbriel::report
