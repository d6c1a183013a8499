/// The spin-2 operator between convergence and shear (Kaiser & Squires 1993).
///
/// In Fourier space gamma1 + i gamma2 = D kappa with D = (k1^2 - k2^2 + 2 i k1 k2) / k^2, k1 along x (the fast axis),
/// k2 along y. |D| = 1 but for k = 0, where shear says nothing and D = 0.
#pragma once

#include "umbriel/core/kokkos.hpp"
#include "umbriel/core/views.hpp"

namespace umbriel {

/// Real and imaginary part of D.
struct Spin2 {
  float d1, d2;
};

/// D at mode (ky, kx) of the half spectrum of `grid`. On a Nyquist row or column k and -k are the same mode while D2
/// changes its sign with k: the real field that remains has D2 = 0 there, unless both components are Nyquist's.
KOKKOS_INLINE_FUNCTION Spin2 spin2(const Grid& grid, int ky, int kx) {
  const float k1 = static_cast<float>(kx) / static_cast<float>(grid.width);
  const float k2 = static_cast<float>(2 * ky <= grid.height ? ky : ky - grid.height) / static_cast<float>(grid.height);
  const float square = k1 * k1 + k2 * k2;
  const float inverse = square > 0.0f ? 1.0f / square : 0.0f;
  const bool nyquist_x = 2 * kx == grid.width;
  const bool nyquist_y = 2 * ky == grid.height;
  const float keep = nyquist_x != nyquist_y ? 0.0f : 1.0f;
  return {(k1 * k1 - k2 * k2) * inverse, 2.0f * k1 * k2 * keep * inverse};
}

}  // namespace umbriel
