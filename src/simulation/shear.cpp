#include "umbriel/simulation/shear.hpp"

#include "umbriel/core/loops.hpp"
#include "umbriel/maps/spin2.hpp"

namespace umbriel {

void shear_spectra(const Space& space, Grid grid, const SpectrumBatch& convergence, const SpectrumBatch& shear, int n,
                   float scale) {
  for_each_element(
      "umbriel::shear_spectra", space, n, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(const int map, const int ky, const int kx) {
        const Spin2 d = spin2(grid, ky, kx);
        const Complex f = convergence(map, ky, kx);
        const float a1 = scale * d.d1, a2 = scale * d.d2;
        shear(2 * map, ky, kx) = Complex(a1 * f.real(), a1 * f.imag());
        shear(2 * map + 1, ky, kx) = Complex(a2 * f.real(), a2 * f.imag());
      });
}

void shear_from_convergence(const Space& space, const RealFft& fft, const MapBatch& convergence,
                            const MapBatch& shear) {
  const Grid grid = fft.grid();
  const std::size_t n = convergence.extent(0);
  require_shape(convergence, n, grid, "convergence");
  require_shape(shear, 2 * n, grid, "shear");
  const auto maps = static_cast<int>(n);
  SpectrumBatch of_convergence =
      uninitialised<SpectrumBatch>("umbriel::convergence_spectra", maps, grid.height, grid.half_width());
  SpectrumBatch of_shear =
      uninitialised<SpectrumBatch>("umbriel::shear_spectra", 2 * maps, grid.height, grid.half_width());
  fft.forward(space, convergence, of_convergence, maps);
  shear_spectra(space, grid, of_convergence, of_shear, maps, 1.0f / static_cast<float>(grid.pixels()));
  fft.inverse(space, of_shear, shear, 2 * maps);
  space.fence();  // the buffers end here
}

}  // namespace umbriel
