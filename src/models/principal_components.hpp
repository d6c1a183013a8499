/// The principal components of maps that were cut anywhere out of a field: no place in a map, no mirror image, and of
/// square maps no axis, is special.
///
/// So the second moment of two pixels of a map, its mean taken off, is a function of their distance in x and y, which
/// is averaged over all pairs of pixels as far apart, in all maps: a thousand maps of thousands of pixels do not settle
/// their covariance otherwise. Then what the mean took along is projected out, and the power of the means is put back:
///
///   M = (1 - e e^T) T (1 - e e^T) + <(e^T m)^2> e e^T,   e = (1, 1, ...) / sqrt(pixels)
///
/// M is never written down. A product with it is two Fourier transforms of maps padded to twice their size, and its
/// components are found in the block Krylov space of such products (Golub & Underwood 1977, in Mathematical Software
/// III, 361), which is kept orthogonal and grows until they have settled. Each component is even or odd in x and in y,
/// so that there are four such spaces, each of vectors of a quarter of the pixels.
#pragma once

#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel {

/// A map's parity p, 0 to 3, is even or odd in y and in x:
///   m(H - 1 - y, x) = sign_in_y(p) m(y, x),  m(y, W - 1 - x) = sign_in_x(p) m(y, x)
/// Its first quarter q [H/2, W/2] stands for it, m = q / 2 there, so that both have the same norm.
KOKKOS_INLINE_FUNCTION int sign_in_y(int parity) { return parity < 2 ? 1 : -1; }
KOKKOS_INLINE_FUNCTION int sign_in_x(int parity) { return parity % 2 == 0 ? 1 : -1; }

struct PrincipalComponents {
  std::vector<float> vectors;  ///< [pixel of a quarter, component], of norm 1; orthogonal where parities are the same
  std::vector<int> parity;     ///< [component]
  std::vector<double> power;   ///< [component] mean square of its coefficient, falling
  double rest = 0;             ///< mean power of the directions left out: of maps all together, less that above
};

/// The first n components. The same on every rank that has the same maps.
/// @param maps  [map, H, W] with even sides
/// @throws Error(usage) for sides that do not fit, or n that is not below the number of pixels
PrincipalComponents principal_components(const HostMaps& maps, int n);
/// Of memory that it takes beside the maps.
double principal_components_bytes(Grid grid, int n);

}  // namespace umbriel
