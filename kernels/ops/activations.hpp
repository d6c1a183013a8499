/// Activations of a network: float32 images [n, y, x, c], row-major, as a plain pointer with a pixel pitch, so that a
/// kernel can read or write some channels of a wider array. That is how concatenation along channels costs no copy.
///
/// A slice does not own its memory; a Tensor (core/views.hpp) or a plan of buffers does.
#pragma once

#include <cstdint>
#include <type_traits>

#include "umbriel/core/views.hpp"

namespace umbriel {

/// Extents of activations: samples, height, width, channels.
struct Extents {
  int n = 0, h = 0, w = 0, c = 0;

  KOKKOS_INLINE_FUNCTION std::int64_t pixels() const { return static_cast<std::int64_t>(n) * h * w; }
  KOKKOS_INLINE_FUNCTION std::int64_t elements() const { return pixels() * c; }
  bool operator==(const Extents&) const = default;
};

template <class T>
struct ChannelSlice {
  T* data = nullptr;
  Extents extents;
  std::int64_t pitch = 0;  ///< floats from one pixel to the next; extents.c where the array is dense

  ChannelSlice() = default;
  KOKKOS_INLINE_FUNCTION ChannelSlice(T* first, Extents size, std::int64_t pixel_pitch)
      : data(first), extents(size), pitch(pixel_pitch) {}
  ChannelSlice(T* first, Extents size) : ChannelSlice(first, size, size.c) {}
  /// All of a Tensor.
  ChannelSlice(const Tensor& tensor)  // NOLINT: a tensor is a slice of itself
      : ChannelSlice(tensor.data(), {static_cast<int>(tensor.extent(0)), static_cast<int>(tensor.extent(1)),
                                     static_cast<int>(tensor.extent(2)), static_cast<int>(tensor.extent(3))}) {}
  /// Read-only view of writable activations.
  template <class U, std::enable_if_t<std::is_same_v<T, const U> && !std::is_same_v<T, U>, int> = 0>
  KOKKOS_INLINE_FUNCTION ChannelSlice(const ChannelSlice<U>& other)  // NOLINT
      : ChannelSlice(other.data, other.extents, other.pitch) {}

  explicit operator bool() const { return data != nullptr; }
  KOKKOS_INLINE_FUNCTION bool dense() const { return pitch == extents.c; }
  /// First channel of pixel p = (n h + y) w + x.
  KOKKOS_INLINE_FUNCTION T* pixel(std::int64_t p) const { return data + p * pitch; }
  KOKKOS_INLINE_FUNCTION T& operator()(int n, int y, int x, int c) const {
    return data[((static_cast<std::int64_t>(n) * extents.h + y) * extents.w + x) * pitch + c];
  }

  ChannelSlice channels(int first, int count) const {
    return {data + first, {extents.n, extents.h, extents.w, count}, pitch};
  }
  ChannelSlice samples(int first, int count) const {
    return {data + static_cast<std::int64_t>(first) * extents.h * extents.w * pitch,
            {count, extents.h, extents.w, extents.c},
            pitch};
  }
};

using Activations = ChannelSlice<float>;
using ConstActivations = ChannelSlice<const float>;

}  // namespace umbriel
