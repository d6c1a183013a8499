/// Where the pixels of a map lie on the sky: the gnomonic (tangent-plane, "TAN") projection.
///
/// Calabretta & Greisen 2002 (A&A 395, 1077), section 5.1.3. The plane's x points to growing right ascension (east) and
/// its y to growing declination (north).
#pragma once

#include <array>

namespace umbriel {

/// TAN coordinates of a map, in FITS terms; array element [y, x] is FITS pixel (x + 1, y + 1).
struct TangentPlane {
  double ra_deg = 0, dec_deg = 0;           ///< CRVAL: the tangent point, degrees
  double crpix_x = 0, crpix_y = 0;          ///< its FITS pixel, 1-based: the first pixel's centre is 1
  double cdelt_x_deg = 0, cdelt_y_deg = 0;  ///< degrees a pixel; cdelt_x < 0: right ascension grows to the left
  double rotation_deg = 0;                  ///< CROTA2: angle from north to the map's y axis, of the plane's axes
};

/// Position (x, y) in degrees on the plane that touches the sphere at (ra0, dec0); all angles in degrees.
/// Points 90 degrees or more from the tangent point have no image: {NaN, NaN}.
std::array<double, 2> project_tangent(double ra_deg, double dec_deg, double ra0_deg, double dec0_deg);

/// Sky position (right ascension in [0, 360), declination) in degrees of a point (x, y) of the plane in degrees.
std::array<double, 2> unproject_tangent(double x_deg, double y_deg, double ra0_deg, double dec0_deg);

/// Sky position (right ascension, declination) in degrees of a FITS pixel (1-based, fractions allowed).
std::array<double, 2> sky_position(const TangentPlane& plane, double pixel_x, double pixel_y);

}  // namespace umbriel
