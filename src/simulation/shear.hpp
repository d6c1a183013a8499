/// Shear of a convergence map on a periodic flat sky (Kaiser & Squires 1993, ApJ 404, 441).
///
///   gamma1 + i gamma2 = F^-1 D F kappa,   D = D1 + i D2 = (k1^2 - k2^2 + 2 i k1 k2) / k^2,   D(0) = 0
///
/// with k1 along x (the fast axis) and k2 along y: kernels/maps/spin2.hpp.
#pragma once

#include "umbriel/core/views.hpp"
#include "umbriel/fft/real_fft.hpp"

namespace umbriel {

/// spectra [2n, ky, kx] of gamma1, gamma2 of map 0, then of map 1, ... from those of the convergence [n, ky, kx], times
/// `scale`: give 1/pixels to have maps after an inverse transform.
void shear_spectra(const Space& space, Grid grid, const SpectrumBatch& convergence, const SpectrumBatch& shear, int n,
                   float scale);

/// @param convergence  [n, y, x], kept
/// @param shear        [2n, y, x], overwritten: gamma1, gamma2 of map 0, then of map 1, ...
/// @throws Error(input) for shapes that do not match the transform
void shear_from_convergence(const Space& space, const RealFft& fft, const MapBatch& convergence, const MapBatch& shear);

}  // namespace umbriel
