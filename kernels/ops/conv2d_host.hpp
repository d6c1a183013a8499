/// What convolutions on processors share: the registers of the machine, and the sum that all of them compute. Only the
/// conv2d_*.cpp files include this.
#pragma once

#include <cstring>

#include "umbriel/ops/activations.hpp"

namespace umbriel::host {

// Accumulators, a row of weights and a broadcast value fill the register file.
#if defined(__AVX512F__)
inline constexpr int lanes = 16, tile_pixels = 12;
#elif defined(__AVX__)
inline constexpr int lanes = 8, tile_pixels = 6;
#elif defined(__aarch64__)
inline constexpr int lanes = 4, tile_pixels = 12;
#else
inline constexpr int lanes = 4, tile_pixels = 6;
#endif
inline constexpr int tile_vectors = 2;

using Vector = float __attribute__((vector_size(4 * lanes)));

constexpr int blocks_of(int count, int size) { return (count + size - 1) / size; }
constexpr int rounded_up(int count, int size) { return blocks_of(count, size) * size; }

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof(v)); }
/// The first `count` lanes, and zeros.
inline Vector load_first(const float* from, int count) {
  Vector v = {};
  if (count >= lanes) return load(from);
  for (int i = 0; i < count; ++i) v[i] = from[i];
  return v;
}
inline void store_first(float* to, Vector v, int count) {
  if (count >= lanes) return store(to, v);
  for (int i = 0; i < count; ++i) to[i] = v[i];
}

/// Map coordinate of padded coordinate i, or -1 for a zero.
inline int inside(int i, int extent, bool periodic) {
  if (i >= 0 && i < extent) return i;
  if (!periodic) return -1;
  const int r = i % extent;
  return r < 0 ? r + extent : r;
}

/// A convolution of stride `step` from a source map to every `place`-th pixel of a target map:
///   target[first_y + place j, first_x + place i] = f(sum of source[step j + origin_y + ky, step i + origin_x + kx] w)
struct Correlation {
  int groups, in, out;  ///< channels of a group
  int source_h, source_w;
  bool periodic;
  int taps_y, taps_x, step, origin_y, origin_x;
  int count_y, count_x;  ///< outputs
  int first_y, first_x, place;
};

}  // namespace umbriel::host
