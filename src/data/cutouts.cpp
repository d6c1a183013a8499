#include "umbriel/data/cutouts.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "umbriel/core/check.hpp"
#include "umbriel/data/tangent_plane.hpp"

namespace umbriel {

namespace {

constexpr double degree = std::numbers::pi / 180;

/// Rows begin, begin + step, ... below `end`.
std::vector<double> steps(double begin, double end, double step) {
  std::vector<double> all;
  const auto n = static_cast<std::int64_t>(std::ceil((end - begin) / step));
  for (std::int64_t i = 0; i < n; ++i) all.push_back(begin + static_cast<double>(i) * step);
  return all;
}

/// Bands of longitude on one side of the equator: first validation, from 0 up to `validation` degrees, then test.
struct Bands {
  double start = 0, validation = 0, test = 0;

  SkyPart at(double longitude_deg, double latitude_deg) const {
    double turn = std::fmod(longitude_deg - start + (latitude_deg < 0 ? 180 : 0), 360.0);
    if (turn < 0) turn += 360;
    if (turn < validation) return sky_validation;
    return turn < validation + test ? sky_test : sky_training;
  }
};

/// Points on the edge of a patch, and beyond it by what interpolation reaches. Parts are bounded by great circles,
/// straight lines on the plane: what of another part reaches into the patch reaches a corner or takes a good piece of
/// an edge.
std::vector<std::array<double, 2>> outline(const HealpixPixels& pixels, const PatchCentre& centre,
                                           const PatchGrid& grid) {
  const double half = 0.5 * grid.size_deg + 3 * pixels.pixel_deg() / std::pow(std::cos(grid.radius_deg() * degree), 2);
  const int n = 16;
  std::vector<std::array<double, 2>> points;
  for (int i = 0; i < n; ++i) {
    const double along = -half + 2 * half * i / n;
    for (const auto& [x, y] :
         {std::array{along, -half}, std::array{half, along}, std::array{-along, half}, std::array{-half, -along}})
      points.push_back(unproject_tangent(x, y, centre.longitude_deg, centre.latitude_deg));
  }
  // A patch over a pole has every longitude in it.
  if (std::fabs(centre.latitude_deg) + std::atan(half * std::numbers::sqrt2 * degree) / degree > 90) {
    for (int longitude = 0; longitude < 360; ++longitude)
      points.push_back({static_cast<double>(longitude), std::copysign(90.0, centre.latitude_deg)});
  }
  return points;
}

}  // namespace

double PatchGrid::radius_deg() const { return std::atan(size_deg * degree * std::numbers::sqrt2 / 2) / degree; }

std::vector<PatchCentre> patch_centres(double latitude_min_deg, double step_deg) {
  std::vector<double> rows = steps(-90, -latitude_min_deg - step_deg, step_deg);
  const std::vector<double> north = steps(latitude_min_deg + step_deg, 90, step_deg);
  rows.insert(rows.end(), north.begin(), north.end());
  std::vector<PatchCentre> centres;
  for (const double latitude : rows) {
    const double step = step_deg / std::cos(latitude * degree);
    for (const double longitude : steps(0, 360, step)) centres.push_back({longitude, latitude});
  }
  return centres;
}

std::vector<PixelRange> pixels_of_patch(const HealpixPixels& pixels, const PatchCentre& centre, const PatchGrid& grid) {
  const double radius = grid.radius_deg() + 3 * pixels.pixel_deg();
  return pixels.disc(centre.longitude_deg, centre.latitude_deg, std::min(radius, 180.0));
}

std::int64_t cut_patch(const HealpixMap& map, const PatchCentre& centre, const PatchGrid& grid, Interpolation how,
                       float* out) {
  const int n = grid.pixels;
  const double step = grid.pixel_deg(), middle = 0.5 * (n - 1);
  const int k =
      how == Interpolation::area ? std::max(4, static_cast<int>(std::ceil(2 * step / map.pixels().pixel_deg()))) : 1;
  std::int64_t missing = 0;
  for (int y = 0; y < n; ++y) {
    for (int x = 0; x < n; ++x) {
      const double east = (middle - x) * step, north = (y - middle) * step;
      float& value = out[static_cast<std::ptrdiff_t>(y) * n + x];
      if (how == Interpolation::bilinear) {
        const auto sky = unproject_tangent(east, north, centre.longitude_deg, centre.latitude_deg);
        value = map.interpolate(sky[0], sky[1]);
      } else {
        double sum = 0;
        for (int i = 0; i < k * k; ++i) {
          const double dx = ((i % k + 0.5) / k - 0.5) * step, dy = ((i / k + 0.5) / k - 0.5) * step;
          const auto sky = unproject_tangent(east + dx, north + dy, centre.longitude_deg, centre.latitude_deg);
          sum += static_cast<double>(map[map.pixels().at(sky[0], sky[1])]);
        }
        value = static_cast<float>(sum / (k * k));
      }
      if (std::isnan(value)) ++missing;
    }
  }
  return missing;
}

std::vector<std::int32_t> split_by_sky(const HealpixPixels& pixels, const std::vector<PatchCentre>& centres,
                                       const PatchGrid& grid, const std::array<double, 3>& fractions,
                                       double start_deg) {
  std::vector<std::vector<std::array<double, 2>>> outlines;
  for (const PatchCentre& centre : centres) outlines.push_back(outline(pixels, centre, grid));
  std::vector<std::int32_t> parts(centres.size());
  std::array<std::int64_t, 3> count{};
  const auto divide = [&](const Bands& bands) {
    count = {};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const SkyPart part = bands.at(centres[i].longitude_deg, centres[i].latitude_deg);
      const bool whole = std::all_of(outlines[i].begin(), outlines[i].end(),
                                     [&](const auto& point) { return bands.at(point[0], point[1]) == part; });
      parts[i] = whole ? part : sky_border;
      if (whole) ++count[static_cast<std::size_t>(part)];
    }
    return static_cast<double>(count[0] + count[1] + count[2]);
  };
  // The borders take their share, so bands are wider than their fraction of the circle. Each grows until it holds its
  // fraction; where one is done while the other is not, they go on together.
  Bands bands{start_deg, 0, 0};
  for (double all = divide(bands);; all = divide(bands)) {
    const bool few_validate = static_cast<double>(count[1]) < fractions[1] * all,
               few_test = static_cast<double>(count[2]) < fractions[2] * all;
    if (!few_validate && !few_test) break;
    bands.validation += few_validate ? 0.5 : 0;
    bands.test += few_test ? 0.5 : 0;
    require(bands.validation + bands.test < 360, ExitCode::usage,
            "the patches cannot be divided by sky region into the fractions asked for", "",
            "ask for fewer to validate and to test, or cut smaller patches");
  }
  require(fractions[0] == 0 || count[0] > 0, ExitCode::usage,
          "no patch is left to train on: all reach into the regions for validation or test, or are in them", "",
          "ask for fewer to validate and to test, or cut smaller patches");
  return parts;
}

PatchAssembler::PatchAssembler(const HealpixPixels& pixels, const PatchGrid& grid, PixelRange share)
    : pixels_(pixels),
      grid_(grid),
      share_(share),
      sum_(static_cast<std::size_t>(share.end - share.first), 0),
      weight_(sum_.size(), 0) {}

bool PatchAssembler::reaches(const PatchCentre& centre) const {
  const auto ranges = pixels_of_patch(pixels_, centre, grid_);
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const PixelRange& r) { return r.first < share_.end && r.end > share_.first; });
}

void PatchAssembler::add(const PatchCentre& centre, const float* patch) {
  const int n = grid_.pixels;
  const double step = grid_.pixel_deg(), middle = 0.5 * (n - 1);
  for (const PixelRange& range : pixels_of_patch(pixels_, centre, grid_)) {
    for (std::int64_t pixel = std::max(range.first, share_.first); pixel < std::min(range.end, share_.end); ++pixel) {
      const auto sky = pixels_.centre(pixel);
      const auto plane = project_tangent(sky[0], sky[1], centre.longitude_deg, centre.latitude_deg);
      const double x = middle - plane[0] / step, y = plane[1] / step + middle;
      // Half a pixel at the edge has no neighbour to interpolate with, and next to no weight.
      if (!(x >= 0 && x <= n - 1 && y >= 0 && y <= n - 1)) continue;
      const int x0 = std::min(static_cast<int>(x), n - 2), y0 = std::min(static_cast<int>(y), n - 2);
      const double fx = x - x0, fy = y - y0;
      const float* at = patch + static_cast<std::ptrdiff_t>(y0) * n + x0;
      const double value = (1 - fy) * ((1 - fx) * static_cast<double>(at[0]) + fx * static_cast<double>(at[1])) +
                           fy * ((1 - fx) * static_cast<double>(at[n]) + fx * static_cast<double>(at[n + 1]));
      const double weight = std::pow(std::sin(std::numbers::pi * (x + 0.5) / n), 2) *
                            std::pow(std::sin(std::numbers::pi * (y + 0.5) / n), 2);
      const auto i = static_cast<std::size_t>(pixel - share_.first);
      sum_[i] += weight * value;
      weight_[i] += weight;
    }
  }
}

std::vector<float> PatchAssembler::values() const {
  std::vector<float> out(sum_.size());
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = weight_[i] > 0 ? static_cast<float>(sum_[i] / weight_[i]) : std::numeric_limits<float>::quiet_NaN();
  return out;
}

}  // namespace umbriel
