#include "umbriel/data/tangent_plane.hpp"

#include <cmath>
#include <limits>
#include <numbers>

namespace umbriel {

namespace {
constexpr double degree = std::numbers::pi / 180;
}

std::array<double, 2> project_tangent(double ra_deg, double dec_deg, double ra0_deg, double dec0_deg) {
  const double ra = (ra_deg - ra0_deg) * degree;
  const double dec = dec_deg * degree;
  const double dec0 = dec0_deg * degree;
  const double depth = std::sin(dec0) * std::sin(dec) + std::cos(dec0) * std::cos(dec) * std::cos(ra);
  if (!(depth > 0)) return {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  return {std::cos(dec) * std::sin(ra) / depth / degree,
          (std::cos(dec0) * std::sin(dec) - std::sin(dec0) * std::cos(dec) * std::cos(ra)) / depth / degree};
}

std::array<double, 2> unproject_tangent(double x_deg, double y_deg, double ra0_deg, double dec0_deg) {
  const double x = x_deg * degree;
  const double y = y_deg * degree;
  const double dec0 = dec0_deg * degree;
  // The point (x, y, 1) in the frame of the tangent point, turned by dec0 to the equatorial frame.
  const double equatorial = std::cos(dec0) - y * std::sin(dec0);
  const double polar = std::sin(dec0) + y * std::cos(dec0);
  double ra = std::fmod(ra0_deg + std::atan2(x, equatorial) / degree, 360.0);
  if (ra < 0) ra += 360.0;
  return {ra, std::atan2(polar, std::hypot(x, equatorial)) / degree};
}

std::array<double, 2> sky_position(const TangentPlane& plane, double pixel_x, double pixel_y) {
  const double x = (pixel_x - plane.crpix_x) * plane.cdelt_x_deg;
  const double y = (pixel_y - plane.crpix_y) * plane.cdelt_y_deg;
  const double cosine = std::cos(plane.rotation_deg * degree);
  const double sine = std::sin(plane.rotation_deg * degree);
  return unproject_tangent(x * cosine - y * sine, x * sine + y * cosine, plane.ra_deg, plane.dec_deg);
}

}  // namespace umbriel
