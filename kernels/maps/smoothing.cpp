#include "umbriel/maps/smoothing.hpp"

#include <numbers>

#include "umbriel/core/loops.hpp"

namespace umbriel {

void smooth_spectra(const Space& space, Grid grid, const SpectrumBatch& spectra, int n, double sigma_pixels) {
  const float fy = static_cast<float>(2 * std::numbers::pi * sigma_pixels / grid.height);
  const float fx = static_cast<float>(2 * std::numbers::pi * sigma_pixels / grid.width);
  const int height = grid.height;
  for_each_element(
      "umbriel::smooth_spectra", space, n, height, grid.half_width(), KOKKOS_LAMBDA(int map, int ky, int kx) {
        const float y = fy * static_cast<float>(ky <= height / 2 ? ky : ky - height);
        const float x = fx * static_cast<float>(kx);
        const float factor = math::exp(-0.5f * (x * x + y * y));
        spectra(map, ky, kx) = Complex(spectra(map, ky, kx).real() * factor, spectra(map, ky, kx).imag() * factor);
      });
}

void smooth_maps(const Space& space, const RealFft& fft, const MapBatch& maps, const SpectrumBatch& scratch, int n,
                 double sigma_pixels) {
  const Grid grid = fft.grid();
  fft.forward(space, maps, scratch, n);
  smooth_spectra(space, grid, scratch, n, sigma_pixels);
  fft.inverse(space, scratch, maps, n);
  const float scale = 1.0f / static_cast<float>(grid.pixels());
  for_each_element(
      "umbriel::scale_maps", space, n, grid.height, grid.width,
      KOKKOS_LAMBDA(int map, int y, int x) { maps(map, y, x) *= scale; });
}

}  // namespace umbriel
