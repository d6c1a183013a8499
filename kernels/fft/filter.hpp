/// Filters of maps in Fourier space.
#pragma once

#include "umbriel/core/views.hpp"

namespace umbriel {

/// spectra[n, ky, kx] *= factors[ky, kx], as a kernel of for_each_element; both over the half plane of RealFft.
struct FilterSpectra {
  SpectrumBatch spectra;
  View2<float> factors;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int ky, int kx) const {
    const Complex a = spectra(n, ky, kx);
    spectra(n, ky, kx) = Complex(factors(ky, kx) * a.real(), factors(ky, kx) * a.imag());
  }
};

}  // namespace umbriel
