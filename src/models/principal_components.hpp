/// The principal components of square or oblong maps of fields that look alike in every mirror.
///
/// Components of the second moment of the maps, <m m^T>, averaged over mirror images in both axes and, where maps are
/// square, over the transposed ones. Each component is even or odd in x and in y, so that four matrices of a quarter of
/// the pixels are decomposed in place of one.
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
