/// Mock weak-lensing surveys: the shear of a convergence map, a mask, and shape noise.
#pragma once

#include <cstdint>
#include <string>

#include "umbriel/core/views.hpp"
#include "umbriel/data/survey.hpp"

namespace umbriel {

/// Mask [1, y, x] with 1 where observed, 0 elsewhere. A pure function of its arguments.
/// @param kind  "full": all observed
///              "holes": all but round star holes (about 5 %)
///              "cosmos-like": a field in the middle with a ragged edge of square pointings and star holes; about half
///              of the map, as the 53 % of the HST COSMOS field in its map
/// @throws Error(usage) for another kind or a grid smaller than 8 x 8
HostMaps survey_mask(Grid grid, const std::string& kind, std::uint64_t seed);

/// Standard deviation of the shear noise [2, y, x] for a Poisson number of galaxies in each pixel: sigma_e / sqrt(n),
/// equal in both components; 0 outside the mask and in pixels without a galaxy.
///
/// The defaults are those of the COSMOS bright catalogue.
/// @param mask                   [1, y, x]
/// @param galaxies_per_arcmin2   mean surface density
/// @param sigma_e                standard deviation of one ellipticity component
/// @throws Error(usage) for numbers that are not positive, Error(input) for a mask of another shape
HostMaps shape_noise(Grid grid, const HostMaps& mask, double pixel_arcmin, double galaxies_per_arcmin2 = 64.2,
                     double sigma_e = 0.305, std::uint64_t seed = 1);

/// A survey of `convergence`: its shear (periodic, see shear.hpp) plus normal noise, zero outside the mask. Pixels of
/// the mask with noise 0 count as not observed. The truth is set.
///
/// Component c takes the draws DrawKey{seed, survey_noise, sample, c}.
/// @param convergence    [1, y, x]
/// @param mask           [1, y, x], 0 or 1
/// @param noise          [2, y, x] standard deviation, finite and >= 0
/// @param reduced_shear  observe g = gamma / (1 - kappa) instead of gamma
/// @throws Error(input) for wrong shapes or values, for nothing observed, and for reduced shear where kappa >= 1
Survey mock_survey(const HostMaps& convergence, const HostMaps& mask, const HostMaps& noise, double pixel_arcmin,
                   std::uint64_t seed, std::uint32_t sample = 0, bool reduced_shear = false);

}  // namespace umbriel
