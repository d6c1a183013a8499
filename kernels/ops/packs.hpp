/// Elements on a device, one or four channels a thread: four neighbouring floats are one load of 16 bytes, and indices
/// are found with 32-bit divisions where they fit, which are several times faster than those of 64 bits. Without both,
/// pointwise kernels reach a third of the memory's bandwidth.
#pragma once

#include <cstdint>

#include "umbriel/ops/activations.hpp"

namespace umbriel::detail {

/// `width` neighbouring channels of a pixel.
template <int width>
struct alignas(width * sizeof(float)) Pack {
  float value[width];

  KOKKOS_INLINE_FUNCTION static Pack load(const float* from) { return *reinterpret_cast<const Pack*>(from); }
  KOKKOS_INLINE_FUNCTION void store(float* to) const { *reinterpret_cast<Pack*>(to) = *this; }
};

inline constexpr int widest_pack = 4;

/// True if all channels of an array can be taken in packs of four; an absent array can.
inline bool suits_packs(ConstActivations a) {
  return !a || (a.extents.c % widest_pack == 0 && a.pitch % widest_pack == 0 &&
                reinterpret_cast<std::uintptr_t>(a.data) % sizeof(Pack<widest_pack>) == 0);
}

/// i = whole * divisor + rest
struct Split {
  std::int64_t whole;
  int rest;

  KOKKOS_INLINE_FUNCTION Split(std::int64_t i, int divisor) {
    if (i < (std::int64_t{1} << 32)) {
      const auto small = static_cast<std::uint32_t>(i), by = static_cast<std::uint32_t>(divisor);
      whole = small / by;
      rest = static_cast<int>(small % by);
    } else {
      whole = i / divisor;
      rest = static_cast<int>(i % divisor);
    }
  }
};

/// Which pack of which pixel element `i` of an array in packs is.
template <int width>
struct PackIndex {
  std::int64_t pixel;
  int channel;  ///< the first of the pack

  KOKKOS_INLINE_FUNCTION PackIndex(std::int64_t i, int channels) {
    const Split split(i, channels / width);
    pixel = split.whole;
    channel = split.rest * width;
  }
};

}  // namespace umbriel::detail
