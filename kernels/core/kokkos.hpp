/// The only place that includes Kokkos: one spelling for versions 3.4 to 5.
#pragma once

#include <Kokkos_Core.hpp>

#include <cmath>
#include <cstdint>
#include <type_traits>

namespace umbriel {

/// Where kernels run: the default execution space of the Kokkos that was found (Serial, OpenMP, CUDA, HIP).
using Space = Kokkos::DefaultExecutionSpace;
using Memory = Space::memory_space;
using HostMemory = Kokkos::HostSpace;
/// One-dimensional ranges count in 64 bits: a CUDA space's own index has 32, less than a full batch on one device.
using Range = Kokkos::RangePolicy<Space, Kokkos::IndexType<std::int64_t>>;

/// True where the host can touch the kernels' memory, so that loops may be written for vector registers.
inline constexpr bool runs_on_host =
    Kokkos::SpaceAccessibility<Kokkos::DefaultHostExecutionSpace, Memory>::accessible &&
    std::is_same_v<Memory, HostMemory>;

/// Math that exists on host and device; its namespace moved between Kokkos 3.4 and 3.7.
namespace math {
#if KOKKOS_VERSION >= 30700
using Kokkos::cos;
using Kokkos::exp;
using Kokkos::fma;
using Kokkos::hypot;
using Kokkos::isfinite;
using Kokkos::log;
using Kokkos::sin;
using Kokkos::sqrt;
#else
using std::cos;
using std::exp;
using std::fma;
using std::hypot;
using std::isfinite;
using std::log;
using std::sin;
using std::sqrt;
#endif
}  // namespace math

}  // namespace umbriel
