/// Maps of a result on their common grid, and figures of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/report/svg.hpp"

namespace umbriel::report {

using Map = std::vector<float>;  ///< [rows, columns]; empty: not in the file

/// Smaller holes of the mask, in pixels, are not outlined: they would hide the map under lines.
constexpr std::size_t smallest_outlined = 12;

/// The grid all maps share.
struct Field {
  std::size_t rows = 0, columns = 0;
  Axis x, y;                           ///< edges of the field
  double pixel_arcmin = 0;             ///< 0: not known
  std::vector<std::uint8_t> observed;  ///< [rows, columns]; empty: all
  std::string edge;                    ///< SVG that draws the edge of the observed region

  bool is_observed(std::size_t i) const { return observed.empty() || observed[i] != 0; }
};

/// Colours of a map and the range they stand for.
struct Look {
  const Colormap* colours;
  double low, high;
  std::string label;
};

/// Shape of the maps in the file; nothing if it holds neither a posterior nor a summary.
std::optional<std::vector<std::uint64_t>> map_shape(const Hdf5Reader& file);

/// The grid of a file for which `map_shape` is something. @throws Error(input) if it has no pixels
Field read_field(const Hdf5Reader& file);

/// The grid of maps of a file that has them elsewhere: all pixels observed.
Field field_of(const Hdf5Reader& file, std::size_t rows, std::size_t columns);

/// Edge between observed and unobserved pixels, as an SVG path in pixels of the picture (last row of the map on top).
/// Regions smaller than `smallest_outlined` are not outlined.
std::string edge_path(const std::vector<std::uint8_t>& observed, std::size_t rows, std::size_t columns);

/// A map of the file; `item` picks one along the first axis of a three-dimensional dataset.
/// @throws Error(input) if it does not lie on the field's grid
Map read_map(const Hdf5Reader& file, const Field& field, const std::string& name, std::int64_t item = -1);

/// Values of a map, only observed pixels if asked, finite ones only.
std::vector<float> finite_values(const Field& field, const Map& map, bool observed_only);

/// The value below which a share `q` of `values` lies; NaN for no values.
double quantile(std::vector<float> values, double q);

/// A round number just above `value`: 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6 or 8 times a power of ten.
double round_up(double value);

/// Half-width of a colour range about zero that holds all but the most extreme 0.4 % of each map's observed pixels.
double symmetric_range(const Field& field, const std::vector<const Map*>& maps);

/// How many map pixels across make one pixel of the picture.
std::size_t shrink_factor(const Field& field);

/// The map as a figure with axes and colour bar; the last row of the map is at the top.
std::string map_figure(const Field& field, const Map& map, const Look& look, const std::string& title,
                       const std::string& caption);

/// One of many small pictures.
struct Panel {
  Map map;
  Look look;
  std::string title;   ///< plain text above it
  std::string edge{};  ///< SVG over it, in pixels of the map; the last row of the map on top
};

/// Pictures in rows without axes, `per_row` of them, with a colour bar for each look they have.
/// @param width  of the figure, in units of which text is 12 high: about the pixels it has on the page
std::string panels_figure(const Field& field, const std::vector<Panel>& panels, std::size_t per_row, double width,
                          const std::string& title, const std::string& caption);

/// Unobserved pixels blanked.
Map only_observed(const Field& field, Map map);

/// Gaussian smoothing, `sigma` in pixels, weights renormalised at the borders of the field.
Map smoothed(const Field& field, const Map& map, double sigma);

/// a / b; NaN where b is not positive.
Map ratio(const Map& a, const Map& b);

/// The map less its average over the whole field.
Map minus_mean(Map map);

}  // namespace umbriel::report
