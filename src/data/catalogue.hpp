/// From a catalogue of galaxy shapes to shear maps: weighted means of the ellipticity on a grid of the sky.
///
/// The recipe is that of the HST/ACS COSMOS maps of Remy et al. 2022 (A&A 672, A51; arXiv 2201.05561), which it
/// reproduces from the published catalogue:
///   1. the map's centre is the median position, unless one is given;
///   2. a galaxy's pixel is (floor(60 x / pixel + W/2), floor(60 y / pixel + H/2)), x to the east and y to the north;
///   3. shear = sum(w e) / sum(w) over the galaxies in the pixel;
///   4. noise = s / sqrt(n) with n the number of galaxies in the pixel and s the standard deviation of that component
///      over the whole catalogue, unweighted (for COSMOS 0.3052 and 0.3056).
///
/// The maps' x grows with right ascension: north is up and east is right, a mirror image of the sky. Catalogues state
/// ellipticities for north up and east left; a mirror turns the sign of e2, and so does `flip_e2`, which is on by
/// default.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "umbriel/core/views.hpp"
#include "umbriel/data/tangent_plane.hpp"

namespace umbriel {

/// One entry a galaxy; all vectors have the same length.
struct ShapeCatalogue {
  std::vector<double> ra, dec;         ///< degrees
  std::vector<double> e1, e2;          ///< ellipticity components, estimates of the shear
  std::vector<double> weight;          ///< >= 0; a galaxy of weight 0 is left out
  std::array<std::string, 5> files{};  ///< that the columns were read from, for messages
};

/// How (ra, dec) becomes (x, y) in degrees from the centre.
enum class Projection {
  /// Tangent for every centre but those where `plate_carree` is as good: see `choose_projection`.
  automatic,
  /// Gnomonic: right anywhere on the sky.
  tangent,
  /// x = ra - ra0, y = dec - dec0, without cos(dec): what the COSMOS maps use. Stretches x by 1 / cos(dec0).
  plate_carree
};

struct BinningOptions {
  std::optional<std::array<double, 2>> centre;  ///< (ra, dec) in degrees; default: the median position
  Projection projection = Projection::automatic;
  bool flip_e1 = false;
  bool flip_e2 = true;
  bool insist_on_degrees = false;  ///< skip the check that the positions look like radians
};

/// Maps [y, x], row-major, in float64.
struct BinnedShear {
  Grid grid;
  std::vector<double> shear1, shear2;           ///< 0 in pixels without galaxies
  std::vector<double> noise1, noise2;           ///< standard deviation; 0 in pixels without galaxies, and
                                                ///< everywhere if the ellipticities do not scatter
  std::vector<std::uint8_t> mask;               ///< 1 where galaxies are
  std::int64_t galaxies = 0;                    ///< inside the grid, of weight > 0
  Projection projection = Projection::tangent;  ///< the one used
  TangentPlane plane;  ///< the grid on the sky; for plate_carree, its tangent plane at the centre
};

/// The projection that `automatic` stands for: `plate_carree` where it stretches x by less than 0.1 % (centres within
/// 2.56 degrees of the equator, COSMOS among them), else `tangent`.
Projection choose_projection(double centre_dec_deg);

/// Refuses a catalogue that cannot be binned; `where` names it in messages.
/// @throws Error(input): no galaxies, unequal lengths, NaN or infinity, |dec| > 90, |e| > 5, negative weights, all
///         weights 0
void check_catalogue(const ShapeCatalogue& catalogue, const std::string& where);

/// Bins a catalogue. Sums run in float64 in catalogue order.
/// @param pixel_arcmin  side of the square pixels
/// @throws Error(input) as check_catalogue; for positions that look like radians (all |ra| <= 2 pi and |dec| <= pi/2,
///         and a field that is less than a tenth of the grid or has over 1000 galaxies a square arcminute); if no
///         galaxy falls on the grid
BinnedShear bin_catalogue(const ShapeCatalogue& catalogue, Grid grid, double pixel_arcmin,
                          const BinningOptions& options = {}, const std::string& where = "");

}  // namespace umbriel
