#include "umbriel/inference/spectra.hpp"

#include <cmath>

#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

void scale_spectra(const Space& space, Grid grid, int n, const SpectrumBatch& from, float factor,
                   const SpectrumBatch& to) {
  for_each_element(
      "umbriel::scale_spectra", space, n, grid.height, grid.half_width(), KOKKOS_LAMBDA(int map, int ky, int kx) {
        const Complex a = from(map, ky, kx);
        to(map, ky, kx) = Complex(factor * a.real(), factor * a.imag());
      });
}

float orthonormal(Grid grid) { return 1.0f / std::sqrt(static_cast<float>(grid.pixels())); }

}  // namespace

void inner_product(const Space& space, Grid grid, int n, const SpectrumBatch& a, const SpectrumBatch& b,
                   const SumWorkspace& sums, const View1<double>& out) {
  sum_each_map_by_rows(
      "umbriel::inner_product", space, n, grid.height, grid.half_width(), sums, out,
      KOKKOS_LAMBDA(int map, int ky, int begin, int end, float* terms) {
        const float *u = row_of(a, map, ky), *v = row_of(b, map, ky);
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int kx = begin; kx < end; ++kx) {
          terms[kx - begin] = mode_weight(grid, kx) * (u[2 * kx] * v[2 * kx] + u[2 * kx + 1] * v[2 * kx + 1]);
        }
      });
}

void white_noise(const Space& space, const RealFft& fft, const std::vector<DrawKey>& keys, const MapBatch& scratch,
                 const SpectrumBatch& out) {
  const int n = static_cast<int>(keys.size());
  const View1<DrawKey> device_keys("umbriel::draw_keys", keys.size());
  upload(keys, device_keys);
  fill_normals(space, scratch, device_keys, n);
  to_spectra(space, fft, n, scratch, out);
}

void to_maps(const Space& space, const RealFft& fft, int n, const SpectrumBatch& state, const SpectrumBatch& scratch,
             const MapBatch& maps) {
  scale_spectra(space, fft.grid(), n, state, orthonormal(fft.grid()), scratch);
  fft.inverse(space, scratch, maps, n);
}

void to_spectra(const Space& space, const RealFft& fft, int n, const MapBatch& maps, const SpectrumBatch& out) {
  fft.forward(space, maps, out, n);
  scale_spectra(space, fft.grid(), n, out, orthonormal(fft.grid()), out);
}

}  // namespace umbriel
