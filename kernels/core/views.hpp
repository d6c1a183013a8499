/// Array aliases. Maps are float32 and row-major; a batch of maps is [map, y, x].
///
/// Half spectra are the output of a real 2-D transform, [map, ky, kx] with kx = 0 ... width/2 (FFTW's layout): the
/// other half follows from F(-k) = conj F(k). A component of a spin-2 field is a map of its own.
#pragma once

#include <complex>
#include <string>

#include "umbriel/core/check.hpp"
#include "umbriel/core/kokkos.hpp"

namespace umbriel {

using Complex = Kokkos::complex<float>;

template <class T>
using View1 = Kokkos::View<T*, Kokkos::LayoutRight, Memory>;
template <class T>
using View2 = Kokkos::View<T**, Kokkos::LayoutRight, Memory>;
template <class T>
using View3 = Kokkos::View<T***, Kokkos::LayoutRight, Memory>;
template <class T>
using View4 = Kokkos::View<T****, Kokkos::LayoutRight, Memory>;

template <class T>
using HostView1 = Kokkos::View<T*, Kokkos::LayoutRight, HostMemory>;
template <class T>
using HostView2 = Kokkos::View<T**, Kokkos::LayoutRight, HostMemory>;
template <class T>
using HostView3 = Kokkos::View<T***, Kokkos::LayoutRight, HostMemory>;

using MapBatch = View3<float>;         ///< [map, y, x]
using SpectrumBatch = View3<Complex>;  ///< [map, ky, kx], kx <= width/2
using HostMaps = HostView3<float>;     ///< [map, y, x] on the host
/// Activations of a network: [sample, y, x, channel].
using Tensor = View4<float>;

/// Size of a map in pixels and of its half spectrum in modes.
struct Grid {
  int height = 0;
  int width = 0;

  KOKKOS_INLINE_FUNCTION int half_width() const { return width / 2 + 1; }
  KOKKOS_INLINE_FUNCTION long pixels() const { return static_cast<long>(height) * width; }
  KOKKOS_INLINE_FUNCTION long modes() const { return static_cast<long>(height) * half_width(); }
  bool operator==(const Grid&) const = default;
};

/// Modes of the full plane that mode kx of the half spectrum stands for: 1 on the self-conjugate columns, else 2.
KOKKOS_INLINE_FUNCTION float mode_weight(const Grid& grid, int kx) {
  return kx == 0 || 2 * kx == grid.width ? 1.0f : 2.0f;
}

/// A View whose elements are not set: for buffers that the next kernel fills.
template <class ViewType, class... Extents>
ViewType uninitialised(const std::string& label, Extents... extents) {
  return ViewType(Kokkos::view_alloc(label, Kokkos::WithoutInitializing), extents...);
}

/// Copy on the host of a View of any space; shares memory with it where the host can reach it.
template <class ViewType>
auto on_host(const ViewType& view) {
  return Kokkos::create_mirror_view_and_copy(HostMemory{}, view);
}

/// Copy in the kernels' memory of a host View; shares memory where that is the same.
template <class ViewType>
auto on_device(const ViewType& view) {
  return Kokkos::create_mirror_view_and_copy(Memory{}, view);
}

/// Throws Error(input) unless `view` is [maps, height, width]; `name` is the user's word for it.
template <class ViewType>
void require_shape(const ViewType& view, std::size_t maps, Grid grid, const std::string& name) {
  const auto extent = [&](int i) { return view.extent(i); };
  require(extent(0) == maps && extent(1) == static_cast<std::size_t>(grid.height) &&
              extent(2) == static_cast<std::size_t>(grid.width),
          ExitCode::input,
          name + " has shape [" + std::to_string(extent(0)) + ", " + std::to_string(extent(1)) + ", " +
              std::to_string(extent(2)) + "], not [" + std::to_string(maps) + ", " + std::to_string(grid.height) +
              ", " + std::to_string(grid.width) + "]",
          name, "give maps of one shape");
}

}  // namespace umbriel
