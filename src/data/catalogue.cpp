#include "umbriel/data/catalogue.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/core/check.hpp"
#include "umbriel/mpi/exact_sum.hpp"

namespace umbriel {

namespace {

/// Right ascensions moved by whole turns to within half a turn of the first, so that a field across 0 is in one piece.
std::vector<double> unwrapped(const std::vector<double>& ra) {
  std::vector<double> out(ra.size());
  for (std::size_t i = 0; i < ra.size(); ++i) out[i] = ra[i] - 360.0 * std::round((ra[i] - ra[0]) / 360.0);
  return out;
}

/// The middle value, or the mean of the two in the middle.
double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return 0.5 * (*std::max_element(values.begin(), middle) + *middle);
}

/// Standard deviation (divided by n) of the values whose weight is positive, from correctly rounded sums.
double standard_deviation(const std::vector<double>& values, const std::vector<double>& weight) {
  ExactSum sum, squares;
  double n = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (weight[i] == 0) continue;
    sum.add(values[i]);
    n += 1;
  }
  const double mean = sum.value() / n;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (weight[i] == 0) continue;
    const double difference = values[i] - mean;
    squares.add(difference * difference);
  }
  return std::sqrt(squares.value() / n);
}

/// Degrees and radians cannot be told apart by range alone: a mock field about (0, 0) has small degrees. In radians a
/// field looks 57 times smaller and 3283 times denser than it is, and the grid knows how large it should be.
bool looks_like_radians(const ShapeCatalogue& catalogue, Grid grid, double pixel_arcmin) {
  const auto within = [](const std::vector<double>& values, double bound) {
    return std::all_of(values.begin(), values.end(), [&](double v) { return std::abs(v) <= bound; });
  };
  if (!within(catalogue.ra, 2 * std::numbers::pi) || !within(catalogue.dec, std::numbers::pi / 2)) return false;
  const auto extent_arcmin = [](const std::vector<double>& degrees) {
    const auto [low, high] = std::minmax_element(degrees.begin(), degrees.end());
    return 60 * (*high - *low);
  };
  const double width = extent_arcmin(catalogue.ra);
  const double height = extent_arcmin(catalogue.dec);
  const double grid_arcmin = std::max(grid.width, grid.height) * pixel_arcmin;
  const bool tiny = std::max(width, height) < 0.1 * grid_arcmin;
  const bool dense = static_cast<double>(catalogue.ra.size()) > 1000 * width * height;
  return tiny || dense;
}

}  // namespace

Projection choose_projection(double centre_dec_deg) {
  const double stretch = 1 / std::cos(centre_dec_deg * std::numbers::pi / 180) - 1;
  return stretch < 1e-3 ? Projection::plate_carree : Projection::tangent;
}

void check_catalogue(const ShapeCatalogue& catalogue, const std::string& where) {
  const std::size_t n = catalogue.ra.size();
  require(n > 0, ExitCode::input, "the catalogue holds no galaxies", where, "give a catalogue with galaxies");

  struct Column {
    const char* name;
    const std::vector<double>& values;
    double low, high;
    const char* meaning;
    const std::string& file;
  };
  // Single shape estimates scatter past 1; past 5 they are not ellipticities.
  const Column columns[] = {
      {"ra", catalogue.ra, -360, 360, "give right ascensions in degrees, -360 to 360", catalogue.files[0]},
      {"dec", catalogue.dec, -90, 90, "give declinations in degrees, -90 to 90", catalogue.files[1]},
      {"e1", catalogue.e1, -5, 5, "give ellipticity components, and leave out galaxies without a shape",
       catalogue.files[2]},
      {"e2", catalogue.e2, -5, 5, "give ellipticity components, and leave out galaxies without a shape",
       catalogue.files[3]},
      {"weight", catalogue.weight, 0, 1e300, "give weights >= 0, 0 for a galaxy to leave out", catalogue.files[4]},
  };
  for (const Column& column : columns) {
    const std::string place = column.file.empty() ? where : where + ", " + column.file;
    require(column.values.size() == n, ExitCode::input,
            "column " + std::string(column.name) + " has " + std::to_string(column.values.size()) +
                " galaxies and column ra has " + std::to_string(n),
            place, "give columns of one catalogue");
    for (std::size_t i = 0; i < n; ++i) {
      if (column.values[i] >= column.low && column.values[i] <= column.high) continue;  // false for NaN
      throw Error(ExitCode::input,
                  "column " + std::string(column.name) + " holds " + std::to_string(column.values[i]) + " (galaxy " +
                      std::to_string(i) + ", counted from 0)",
                  place, column.meaning);
    }
  }
  require(std::any_of(catalogue.weight.begin(), catalogue.weight.end(), [](double w) { return w > 0; }),
          ExitCode::input, "every weight of the catalogue is zero", where, "give weights, or leave them out");
}

BinnedShear bin_catalogue(const ShapeCatalogue& catalogue, Grid grid, double pixel_arcmin,
                          const BinningOptions& options, const std::string& where) {
  check_catalogue(catalogue, where);
  require(std::isfinite(pixel_arcmin) && pixel_arcmin > 0, ExitCode::input, "the pixel size is not positive", where,
          "give survey.pixel_arcmin, the side of a pixel in arcminutes");
  require(options.insist_on_degrees || !looks_like_radians(catalogue, grid, pixel_arcmin), ExitCode::input,
          "the catalogue's positions look like radians (first galaxy at " + std::to_string(catalogue.ra[0]) + ", " +
              std::to_string(catalogue.dec[0]) + ")",
          where, "give degrees, or set survey.catalogue.unit = \"deg\" to insist");

  const std::vector<double> ra = unwrapped(catalogue.ra);
  const std::array<double, 2> centre =
      options.centre ? *options.centre : std::array<double, 2>{median(ra), median(catalogue.dec)};
  BinnedShear out;
  out.grid = grid;
  out.projection = options.projection == Projection::automatic ? choose_projection(centre[1]) : options.projection;

  const auto project = [&](std::size_t i) -> std::array<double, 2> {
    if (out.projection == Projection::tangent) return project_tangent(ra[i], catalogue.dec[i], centre[0], centre[1]);
    const double x = ra[i] - centre[0];
    return {x - 360.0 * std::round(x / 360.0), catalogue.dec[i] - centre[1]};
  };

  const auto pixels = static_cast<std::size_t>(grid.pixels());
  std::vector<double> count(pixels), weight(pixels);
  out.shear1.resize(pixels);
  out.shear2.resize(pixels);
  const double sign1 = options.flip_e1 ? -1 : 1;
  const double sign2 = options.flip_e2 ? -1 : 1;
  for (std::size_t i = 0; i < ra.size(); ++i) {
    const double w = catalogue.weight[i];
    if (w == 0) continue;
    const auto [x, y] = project(i);
    const double column = std::floor(60 * x / pixel_arcmin + 0.5 * grid.width);
    const double row = std::floor(60 * y / pixel_arcmin + 0.5 * grid.height);
    if (!(column >= 0 && column < grid.width && row >= 0 && row < grid.height)) continue;  // also a NaN: far side
    const auto pixel =
        static_cast<std::size_t>(row) * static_cast<std::size_t>(grid.width) + static_cast<std::size_t>(column);
    count[pixel] += 1;
    weight[pixel] += w;
    out.shear1[pixel] += w * (sign1 * catalogue.e1[i]);
    out.shear2[pixel] += w * (sign2 * catalogue.e2[i]);
    ++out.galaxies;
  }
  require(out.galaxies > 0, ExitCode::input,
          "no galaxy of the catalogue falls on the grid about (" + std::to_string(centre[0]) + ", " +
              std::to_string(centre[1]) + ") degrees",
          where, "check survey.centre, survey.size and survey.pixel_arcmin");

  const double scatter1 = standard_deviation(catalogue.e1, catalogue.weight);
  const double scatter2 = standard_deviation(catalogue.e2, catalogue.weight);
  out.noise1.resize(pixels);
  out.noise2.resize(pixels);
  out.mask.resize(pixels);
  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    if (count[pixel] == 0) continue;
    out.mask[pixel] = 1;
    out.shear1[pixel] /= weight[pixel];
    out.shear2[pixel] /= weight[pixel];
    const double shrink = 1 / std::sqrt(count[pixel]);
    out.noise1[pixel] = scatter1 * shrink;
    out.noise2[pixel] = scatter2 * shrink;
  }

  const double ra0 = std::fmod(std::fmod(centre[0], 360.0) + 360.0, 360.0);
  const double step = pixel_arcmin / 60;
  const double step_x =
      out.projection == Projection::tangent ? step : step * std::cos(centre[1] * std::numbers::pi / 180);
  out.plane = {ra0, centre[1], 0.5 * (grid.width + 1), 0.5 * (grid.height + 1), step_x, step, 0};
  return out;
}

}  // namespace umbriel
