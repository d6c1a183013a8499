#include "umbriel/data/sky_tiles.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/core/check.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

constexpr double degree = std::numbers::pi / 180;

/// Lowest latitude in radians of a patch at latitude b >= 0 that reaches `half` from its centre in the plane: that of
/// its lower corners, or between them where it crosses the equator.
double lowest(double b, double half) {
  const double corner = std::asin((std::sin(b) - half * std::cos(b)) / std::sqrt(1 + 2 * half * half));
  return std::min(corner, b - std::atan(half));
}

/// Adds a row of patches whose centres are at latitude b, as many as there is room for: a patch is widest, in
/// longitude, at its corners nearest to the pole.
void add_row(double b, double half, std::vector<PatchCentre>& centres) {
  const double reach = std::atan2(half, std::cos(b) - half * std::sin(std::fabs(b)));
  const auto n = static_cast<int>(std::floor(std::numbers::pi / reach + 1e-9));
  for (int i = 0; i < n; ++i) centres.push_back({360.0 * i / n, b / degree});
}

}  // namespace

std::vector<PatchCentre> tile_centres(const PatchGrid& grid) {
  require(grid.pixels > 0 && grid.size_deg > 0 && grid.size_deg <= 60, ExitCode::usage,
          "flat patches of the sky cannot be " + std::to_string(grid.size_deg) + " degrees wide", "",
          "give up to 60 degrees: fewer or smaller pixels");
  const double half = 0.5 * grid.size_deg * degree, pole = std::numbers::pi / 2;
  std::vector<double> rows;
  for (double top = std::atan(half);;) {
    double low = top, high = pole;  // of the next row's centre: its lowest point is to be at `top`
    for (int i = 0; i < 60; ++i) {
      const double b = 0.5 * (low + high);
      (lowest(b, half) < top ? low : high) = b;
    }
    top = high + std::atan(half);
    if (top > pole) break;
    rows.push_back(high);
  }
  std::vector<PatchCentre> centres;
  add_row(0, half, centres);
  for (const double b : rows) add_row(b, half, centres);
  for (const double b : rows) add_row(-b, half, centres);
  return centres;
}

std::vector<float> cut_tiles(const HealpixMap& map, const PatchGrid& grid) {
  const std::vector<PatchCentre> centres = tile_centres(grid);
  const std::size_t pixels = static_cast<std::size_t>(grid.pixels) * static_cast<std::size_t>(grid.pixels);
  std::vector<float> tiles(centres.size() * pixels);
  for (std::size_t i = 0; i < centres.size(); ++i)
    cut_patch(map, centres[i], grid, Interpolation::bilinear, tiles.data() + i * pixels);
  return tiles;
}

HealpixMap read_hdf5_sky(const std::string& path, const std::string& dataset) {
  const Hdf5Reader reader(path);
  require(reader.has(dataset), ExitCode::input, "the file has no dataset " + dataset, path, "name one of its datasets");
  const std::vector<std::uint64_t> shape = reader.shape(dataset);
  const std::uint64_t pixels = shape.size() == 1 ? shape[0] : 0;
  const auto nside = static_cast<std::uint64_t>(std::lround(std::sqrt(static_cast<double>(pixels) / 12)));
  require(nside >= 1 && nside <= HealpixPixels::max_nside && 12 * nside * nside == pixels, ExitCode::input,
          "dataset " + dataset + " is no HEALPix map of the full sky, 12 nside^2 values in one row", path,
          "for flat maps, leave the side of patches out");
  return {HealpixPixels(static_cast<int>(nside), false), reader.read<float>(dataset)};
}

}  // namespace umbriel
