/// The principal components of maps that were cut anywhere out of a field: no place in a map, no mirror image, and of
/// square maps no axis, is special.
///
/// So the second moment of two pixels of a map, its mean taken off, is a function of their distance in x and y, which is
/// averaged over all pairs of pixels as far apart, in all maps: a thousand maps of thousands of pixels do not settle
/// their covariance otherwise. Then what the mean took along is projected out, and the power of the means is put back:
///
///   M = (1 - e e^T) T (1 - e e^T) + <(e^T m)^2> e e^T,   e = (1, 1, ...) / sqrt(pixels)
///
/// Each component is even or odd in x and in y, so that four matrices of a quarter of the pixels are decomposed in place
/// of one.
#pragma once

#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel {

struct PrincipalComponents {
  std::vector<float> vectors;  ///< [pixel, component], columns orthonormal
  std::vector<double> power;   ///< [component] mean square of its coefficient, falling
  double rest = 0;             ///< mean power of the directions left out
};

/// The first n components. Takes memory for, and time by the cube of, a matrix of a quarter of the pixels.
/// @param maps  [map, H, W] with even sides
/// @throws Error(usage) for sides that do not fit, or n that is not below the number of pixels
PrincipalComponents principal_components(const HostMaps& maps, int n);

}  // namespace umbriel
