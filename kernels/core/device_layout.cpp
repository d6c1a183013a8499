#include "umbriel/core/device_layout.hpp"

#include <array>
#include <cstdint>
#include <string>

#include "umbriel/core/views.hpp"

namespace umbriel {
namespace {

/// Arrays as kernels hold them, something behind them.
template <class ViewType>
struct Holder {
  ViewType view;
  std::uint32_t behind;
};

constexpr int kinds = 8;

KOKKOS_INLINE_FUNCTION void sizes_here(std::uint64_t* sizes) {
  sizes[0] = sizeof(Holder<View1<float>>);
  sizes[1] = sizeof(Holder<View2<float>>);
  sizes[2] = sizeof(Holder<View3<float>>);
  sizes[3] = sizeof(Holder<View4<float>>);
  sizes[4] = sizeof(Holder<View1<double>>);
  sizes[5] = sizeof(Holder<View1<int>>);
  sizes[6] = sizeof(Holder<SpectrumBatch>);
  sizes[7] = sizeof(View2<double>) + sizeof(View3<double>);
}

/// Takes a plain pointer alone, whose place both compilers agree on.
struct SizesThere {
  std::uint64_t* sizes;
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t) const { sizes_here(sizes); }
};

}  // namespace

void require_device_layout() {
  if constexpr (runs_on_host) return;
  std::array<std::uint64_t, kinds> here{}, there{};
  sizes_here(here.data());
  auto* sizes = static_cast<std::uint64_t*>(Kokkos::kokkos_malloc<Memory>("umbriel::layout", sizeof there));
  const Space space;
  Kokkos::parallel_for("umbriel::layout", Range(space, 0, 1), SizesThere{sizes});
  space.fence();
  Kokkos::deep_copy(Kokkos::View<std::uint64_t*, HostMemory, Kokkos::MemoryUnmanaged>(there.data(), kinds),
                    Kokkos::View<std::uint64_t*, Memory, Kokkos::MemoryUnmanaged>(sizes, kinds));
  Kokkos::kokkos_free<Memory>(sizes);
  for (int i = 0; i < kinds; ++i) {
    require(here[i] == there[i], ExitCode::usage,
            "the compilers of device and host lay out Kokkos' arrays differently: " + std::to_string(there[i]) +
                " bytes there, " + std::to_string(here[i]) + " here",
            "array " + std::to_string(i),
            "build Kokkos with -DKokkos_ENABLE_IMPL_VIEW_LEGACY=ON, or take another version");
  }
}

}  // namespace umbriel
