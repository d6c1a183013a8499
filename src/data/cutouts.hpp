/// Square patches of the sky, cut from a HEALPix map, and put back.
///
/// A patch is n x n pixels of the plane that touches the sphere at its centre (gnomonic projection): x to falling
/// longitude and y to growing latitude, so that it looks as the sky does. Pixel (y, x), counted from 0, is centred on
/// ((n - 1) / 2 - x, y - (n - 1) / 2) size / n. In FITS terms: TAN, CRPIX = (n + 1) / 2, CDELT = (-size / n, size / n).
///
/// Centres and size of patches: Thorne, Knox & Prabhu 2021 (MNRAS 504, 2603). There the outermost pixels have their
/// centres on the edge; size 8 * 256 / 255 gives that grid.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "umbriel/data/healpix_map.hpp"

namespace umbriel {

struct PatchCentre {
  double longitude_deg = 0, latitude_deg = 0;
};

/// What all patches of a set have in common.
struct PatchGrid {
  int pixels = 256;     ///< n, along a side
  double size_deg = 8;  ///< of a side, on the plane

  double pixel_deg() const { return size_deg / pixels; }
  /// Angle from the centre to the corners, degrees.
  double radius_deg() const;
};

/// Rows of centres `step` apart in latitude, from -90 up to -latitude_min - step and from latitude_min + step up to 90
/// degrees, ends left out but for the south pole; along a row they are step / cos(latitude) apart, from longitude 0.
/// With a step of 4 degrees that makes 1775 centres for a latitude_min of 15 degrees, 2261 for 5.
std::vector<PatchCentre> patch_centres(double latitude_min_deg, double step_deg);

/// How a patch pixel gets its value.
enum class Interpolation {
  bilinear,  ///< at its centre, between four pixels of the map
  area,      ///< the mean of the map over its area, from k x k points, two or more a pixel of the map, at least 4 x 4
};

/// Pixels of the map that a patch may touch.
std::vector<PixelRange> pixels_of_patch(const HealpixPixels& pixels, const PatchCentre& centre, const PatchGrid& grid);

/// Cuts a patch.
/// @param map  has at least pixels_of_patch
/// @param out  [y, x] in the map's unit; NaN where a pixel of the map that counts is missing
/// @return how many are missing
std::int64_t cut_patch(const HealpixMap& map, const PatchCentre& centre, const PatchGrid& grid, Interpolation how,
                       float* out);

/// Division of the sky into parts that share no pixel of the map: bands of longitude, one for validation and one for
/// the test on each side of the equator, opposite to each other, and all the rest for training.
enum SkyPart : std::int32_t { sky_border = -1, sky_training = 0, sky_validation = 1, sky_test = 2 };

/// Part of each patch. A patch that reaches into two parts is a border, in none of them. The bands of validation and
/// test are as narrow as they may be to hold their fractions of all patches that have a part.
/// @param pixels     of the map: a patch reaches to the pixels that it is interpolated from
/// @param fractions  {training, validation, test}, which sum to 1
/// @param start_deg  where the bands begin in the north
/// @throws Error(usage) if there is no such division
std::vector<std::int32_t> split_by_sky(const HealpixPixels& pixels, const std::vector<PatchCentre>& centres,
                                       const PatchGrid& grid, const std::array<double, 3>& fractions, double start_deg);

/// Puts patches back on the sky: a pixel becomes the mean of all patches over it, each interpolated at the pixel's
/// centre and weighted by sin^2 (pi x / size) sin^2 (pi y / size), which falls to 0 at its edges. Patches must come in
/// one order, whoever adds them, for sums are in float64 and rounded.
class PatchAssembler {
 public:
  /// @param share  the pixels of the sky that this process makes
  PatchAssembler(const HealpixPixels& pixels, const PatchGrid& grid, PixelRange share);

  /// True if a patch has pixels in the share.
  bool reaches(const PatchCentre& centre) const;
  /// @param patch  [y, x]
  void add(const PatchCentre& centre, const float* patch);
  /// [share] values; NaN where there is no patch.
  std::vector<float> values() const;

 private:
  HealpixPixels pixels_;
  PatchGrid grid_;
  PixelRange share_;
  std::vector<double> sum_, weight_;  // [share]
};

}  // namespace umbriel
