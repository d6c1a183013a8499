/// Algebra on batches of half spectra: the vectors of solvers and samplers.
///
/// Inner products run over the full plane (mode_weight), in float64, with the same bits for any batch and backend.
#pragma once

#include <vector>

#include "umbriel/core/loops.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {

/// @{ Real and imaginary parts of one row of a spectrum, element kx at 2 kx and 2 kx + 1: loops along rows
/// (for_each_row) work on these plain pointers, so that they fill vector registers.
KOKKOS_INLINE_FUNCTION const float* row_of(const SpectrumBatch& spectra, int map, int ky) {
  return reinterpret_cast<const float*>(&spectra(map, ky, 0));
}
KOKKOS_INLINE_FUNCTION float* row_to(const SpectrumBatch& spectra, int map, int ky) {
  return reinterpret_cast<float*>(&spectra(map, ky, 0));
}
/// @}

/// out(map) = <a, b>, maps [first, first + n).
void inner_product(const Space& space, Grid grid, int n, const SpectrumBatch& a, const SpectrumBatch& b,
                   const SumWorkspace& sums, const View1<double>& out);

/// White noise of unit variance a mode, the spectrum of standard normals of the stream keys[i]: map i of `out`.
/// @param scratch  [>= keys.size(), y, x]
void white_noise(const Space& space, const RealFft& fft, const std::vector<DrawKey>& keys, const MapBatch& scratch,
                 const SpectrumBatch& out);

/// Real maps of a state: F^-1, orthonormal. `state` is kept, `scratch` holds n spectra.
void to_maps(const Space& space, const RealFft& fft, int n, const SpectrumBatch& state, const SpectrumBatch& scratch,
             const MapBatch& maps);

/// Orthonormal half spectrum of real maps.
void to_spectra(const Space& space, const RealFft& fft, int n, const MapBatch& maps, const SpectrumBatch& out);

/// Copies a host vector of small control values to the kernels' memory.
template <class T>
void upload(const std::vector<T>& values, const View1<T>& view) {
  if (values.empty()) return;
  const Kokkos::View<const T*, HostMemory, Kokkos::MemoryUnmanaged> host(values.data(), values.size());
  Kokkos::deep_copy(Kokkos::subview(view, std::make_pair(std::size_t{0}, values.size())), host);
}

/// The first n elements of a View, on the host.
template <class T>
std::vector<T> download(const View1<T>& view, std::size_t n) {
  std::vector<T> values(n);
  const Kokkos::View<T*, HostMemory, Kokkos::MemoryUnmanaged> host(values.data(), n);
  Kokkos::deep_copy(host, Kokkos::subview(view, std::make_pair(std::size_t{0}, n)));
  return values;
}

}  // namespace umbriel
