/// Azimuthal averages in Fourier space: the power spectrum of periodic maps in multipole bands.
#pragma once

#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel {

/// Multipole bands on a grid.
struct RadialBins {
  std::vector<double> edges;    ///< band b holds edges[b] <= l < edges[b + 1]
  std::vector<double> centres;  ///< mean multipole of the modes in the band
  std::vector<double> modes;    ///< modes of the full plane in the band
  View2<int> band;              ///< [ky, kx], -1 outside all bands
  View1<int> members;           ///< modes ky (W/2 + 1) + kx, those of band 0 first, each band in index order
  View1<int> first_member;      ///< [bands + 1] where each band begins in `members`
  Grid grid;

  int bands() const { return static_cast<int>(modes.size()); }
};

/// Multipole of mode (ky, kx): l = |(2 pi ky / (H pixel), 2 pi kx / (W pixel))|, pixel in radians, ky taken as signed.
double multipole(Grid grid, double pixel_arcmin, int ky, int kx);

/// Bands with the given edges (increasing, in multipoles).
RadialBins radial_bins(Grid grid, double pixel_arcmin, const std::vector<double>& edges);

/// `bands` logarithmic bands from the grid's lowest multipole to its Nyquist multipole, merged upward until each holds
/// at least `min_modes` modes; a last band with fewer joins the one below it. Needs at least 4 x 4 pixels.
std::vector<double> logarithmic_edges(Grid grid, double pixel_arcmin, int bands, int min_modes = 64);

/// out(map, band) = mean over the modes of the band of |F|^2, both halves of the plane counted.
/// @param spectra  [>= n, H, W/2+1]
/// @param out      [>= n, bands] float64
void band_power(const Space& space, const RadialBins& bins, const SpectrumBatch& spectra, int n,
                const View2<double>& out);

/// The same of the product F conj(G): the cross-power of two batches.
void band_cross_power(const Space& space, const RadialBins& bins, const SpectrumBatch& f, const SpectrumBatch& g, int n,
                      const View2<double>& out);

}  // namespace umbriel
