/// Shear of a convergence map on a periodic flat sky (Kaiser & Squires 1993, ApJ 404, 441).
///
///   gamma1 + i gamma2 = F^-1 D F kappa,   D = D1 + i D2 = (k1^2 - k2^2 + 2 i k1 k2) / k^2,   D(0) = 0
///
/// with k1 along x (the fast axis) and k2 along y. A discrete map cannot tell the sign of a Nyquist wavenumber, so D2,
/// odd in each, is zero where one of them is Nyquist; where both are, it is even again and 2 k1 k2 / k^2 stands.
#pragma once

#include "umbriel/core/views.hpp"
#include "umbriel/fft/real_fft.hpp"

namespace umbriel {

/// D1 and D2 of a mode.
struct SpinTwoFactors {
  float d1 = 0, d2 = 0;
};

/// D at element [ky, kx] of a half spectrum, kx <= width/2. Pixels are square.
KOKKOS_INLINE_FUNCTION SpinTwoFactors spin_two_factors(Grid grid, int ky, int kx) {
  if (kx == 0 && ky == 0) return {};
  const bool x_nyquist = 2 * kx == grid.width, y_nyquist = 2 * ky == grid.height;
  const int signed_ky = 2 * ky <= grid.height ? ky : ky - grid.height;
  const double k1 = static_cast<double>(kx) / grid.width;
  const double k2 = static_cast<double>(signed_ky) / grid.height;
  const double k_squared = k1 * k1 + k2 * k2;
  const double d1 = (k1 * k1 - k2 * k2) / k_squared;
  const double d2 = x_nyquist != y_nyquist ? 0.0 : 2 * k1 * k2 / k_squared;
  return {static_cast<float>(d1), static_cast<float>(d2)};
}

/// spectra [2n, ky, kx] of gamma1, gamma2 of map 0, then of map 1, ... from those of the convergence [n, ky, kx], times
/// `scale`: give 1/pixels to have maps after an inverse transform.
void shear_spectra(const Space& space, Grid grid, const SpectrumBatch& convergence, const SpectrumBatch& shear, int n,
                   float scale);

/// @param convergence  [n, y, x], kept
/// @param shear        [2n, y, x], overwritten: gamma1, gamma2 of map 0, then of map 1, ...
/// @throws Error(input) for shapes that do not match the transform
void shear_from_convergence(const Space& space, const RealFft& fft, const MapBatch& convergence, const MapBatch& shear);

}  // namespace umbriel
