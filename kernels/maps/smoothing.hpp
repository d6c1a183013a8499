/// Gaussian smoothing of periodic maps.
#pragma once

#include "umbriel/core/views.hpp"
#include "umbriel/fft/real_fft.hpp"

namespace umbriel {

/// Multiplies spectra [>= n, H, W/2+1] by exp(-sigma^2 k^2 / 2), k in radians a pixel: smoothing by a Gaussian of
/// standard deviation `sigma_pixels` on the periodic grid.
void smooth_spectra(const Space& space, Grid grid, const SpectrumBatch& spectra, int n, double sigma_pixels);

/// Smooths maps [>= n, y, x] in place.
/// @param scratch  spectra of the same batch, overwritten
void smooth_maps(const Space& space, const RealFft& fft, const MapBatch& maps, const SpectrumBatch& scratch, int n,
                 double sigma_pixels);

}  // namespace umbriel
