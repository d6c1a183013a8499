#include "umbriel/ops/resample.hpp"

#include <algorithm>
#include <type_traits>

#include "umbriel/ops/pixel_loops.hpp"

namespace umbriel {
namespace {

using detail::require_extents;

/// One channel a pixel as a constant, so that the compiler makes one loop of pixels and channels.
using OneChannel = std::integral_constant<int, 1>;

/// @{ f(c) for every channel
template <class F>
void for_channels(OneChannel, const F& f) {
  f(0);
}
template <class F>
void for_channels(int channels, const F& f) {
  UMBRIEL_INDEPENDENT_ITERATIONS
  for (int c = 0; c < channels; ++c) f(c);
}
/// @}

/// y = scale * sum of x over a block of factor x factor pixels, in float64. @tparam width  channels of a device's
/// thread
template <bool accumulate, int width>
struct Gather {
  ConstActivations x;
  Activations y;
  int factor;
  float scale;

  KOKKOS_INLINE_FUNCTION void store(double sum, float& out) const {
    const float value = scale * static_cast<float>(sum);
    out = accumulate ? out + value : value;
  }

  /// Block that starts at `in`; channels [0, count), count <= tile.
  template <int tile>
  KOKKOS_INLINE_FUNCTION void block(const float* in, float* out, int count) const {
    double sums[tile];
    for (int c = 0; c < count; ++c) sums[c] = 0;
    for (int j = 0; j < factor; ++j) {
      for (int i = 0; i < factor; ++i) {
        const float* pixel = in + (static_cast<std::int64_t>(j) * x.extents.w + i) * x.pitch;
        for (int c = 0; c < count; ++c) sums[c] += static_cast<double>(pixel[c]);
      }
    }
    for (int c = 0; c < count; ++c) store(sums[c], out[c]);
  }

  /// A row of blocks of 2 x 2, the usual ones: sums stay in registers, added in the order of `block`.
  template <class Channels>
  void row_of_pairs(const float* in, float* out, Channels channels) const {
    const std::int64_t right = x.pitch, down = x.pitch * x.extents.w;
    const Gather self = *this;
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int ox = 0; ox < self.y.extents.w; ++ox) {
      const float* a = in + 2 * ox * right;
      float* o = out + ox * self.y.pitch;
      const auto channel = [&](int c) {
        self.store(static_cast<double>(a[c]) + static_cast<double>(a[right + c]) + static_cast<double>(a[down + c]) +
                       static_cast<double>(a[down + right + c]),
                   o[c]);
      };
      for_channels(channels, channel);
    }
  }

  /// A row of y on a host, a pack on a device.
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const int channels = y.extents.c;
    if constexpr (runs_on_host) {
      const float* in = x.pixel((i / y.extents.h * x.extents.h + i % y.extents.h * factor) * x.extents.w);
      float* out = y.pixel(i * y.extents.w);
      if (factor == 2) {
        if (channels == 1) {
          row_of_pairs(in, out, OneChannel());
        } else {
          row_of_pairs(in, out, channels);
        }
        return;
      }
      constexpr int tile = 64;
      for (int ox = 0; ox < y.extents.w; ++ox) {
        for (int c = 0; c < channels; c += tile)
          block<tile>(in + ox * factor * x.pitch + c, out + ox * y.pitch + c, std::min(tile, channels - c));
      }
    } else {
      const detail::PackIndex<width> at(i, channels);
      const detail::Split column(at.pixel, y.extents.w), row(column.whole, y.extents.h);
      const std::int64_t first = (row.whole * x.extents.h + row.rest * factor) * x.extents.w + column.rest * factor;
      double sums[width] = {};
      for (int j = 0; j < factor; ++j) {
        for (int k = 0; k < factor; ++k) {
          const float* from = x.pixel(first + static_cast<std::int64_t>(j) * x.extents.w + k) + at.channel;
          const auto values = detail::Pack<width>::load(from);
          for (int c = 0; c < width; ++c) sums[c] += static_cast<double>(values.value[c]);
        }
      }
      float* const to = y.pixel(at.pixel) + at.channel;
      auto out = detail::Pack<width>::load(to);
      for (int c = 0; c < width; ++c) store(sums[c], out.value[c]);
      out.store(to);
    }
  }
};

/// y = scale * x in each pixel of a block, 0 where there is no block. @tparam width  channels of a device's thread
template <bool accumulate, int width>
struct Spread {
  ConstActivations x;
  Activations y;
  int factor;
  float scale;

  KOKKOS_INLINE_FUNCTION void store(float in, float& out) const {
    out = accumulate ? math::fma(scale, in, out) : scale * in;
  }

  template <class Channels>
  void row(const float* in, float* out, Channels channels) const {
    const Spread self = *this;
    for (int ix = 0; ix < self.x.extents.w; ++ix) {
      const float* a = in + ix * self.x.pitch;
      for (int k = 0; k < self.factor; ++k) {
        float* o = out + (ix * self.factor + k) * self.y.pitch;
        for_channels(channels, [&](int c) { self.store(a[c], o[c]); });
      }
    }
  }

  /// Pixels [first, last) of a row that are in no block.
  void leave_out(float* out, int first, int last) const {
    if constexpr (!accumulate) {
      for (int ox = first; ox < last; ++ox) std::fill_n(out + ox * y.pitch, y.extents.c, 0.0f);
    }
  }

  /// A row of y on a host, a pack on a device.
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const int channels = y.extents.c;
    if constexpr (runs_on_host) {
      const std::int64_t iy = i % y.extents.h / factor;
      float* out = y.pixel(i * y.extents.w);
      if (iy >= x.extents.h) return leave_out(out, 0, y.extents.w);
      const float* in = x.pixel((i / y.extents.h * x.extents.h + iy) * x.extents.w);
      if (channels == 1) {
        row(in, out, OneChannel());
      } else {
        row(in, out, channels);
      }
      leave_out(out, x.extents.w * factor, y.extents.w);
    } else {
      const detail::PackIndex<width> at(i, channels);
      const detail::Split column(at.pixel, y.extents.w), row(column.whole, y.extents.h);
      const int ix = column.rest / factor, iy = row.rest / factor;
      float* const to = y.pixel(at.pixel) + at.channel;
      detail::Pack<width> out{};
      if constexpr (accumulate) out = detail::Pack<width>::load(to);
      if (ix < x.extents.w && iy < x.extents.h) {
        const auto in =
            detail::Pack<width>::load(x.pixel((row.whole * x.extents.h + iy) * x.extents.w + ix) + at.channel);
        for (int c = 0; c < width; ++c) store(in.value[c], out.value[c]);
      }
      out.store(to);
    }
  }
};

template <template <bool, int> class Op>
void run(const char* label, const Space& space, ConstActivations x, Activations y, int factor, float scale,
         bool accumulate) {
  const auto loop = [&](std::int64_t count, const auto& op) {
    Kokkos::parallel_for(label, Range(space, 0, count), op);
  };
  constexpr int wide = runs_on_host ? 1 : detail::widest_pack;
  const std::int64_t elements = y.extents.elements();
  if (runs_on_host || (detail::suits_packs(x) && detail::suits_packs(y))) {
    const std::int64_t count = runs_on_host ? static_cast<std::int64_t>(y.extents.n) * y.extents.h : elements / wide;
    accumulate ? loop(count, Op<true, wide>{x, y, factor, scale}) : loop(count, Op<false, wide>{x, y, factor, scale});
  } else {
    accumulate ? loop(elements, Op<true, 1>{x, y, factor, scale}) : loop(elements, Op<false, 1>{x, y, factor, scale});
  }
}

/// True if `coarse` has the blocks of `fine`.
bool blocks_of(const Extents& fine, const Extents& coarse, int factor) {
  return factor > 0 && coarse == Extents{fine.n, fine.h / factor, fine.w / factor, fine.c};
}

bool multiples_of(const Extents& fine, const Extents& coarse, int factor) {
  return fine == Extents{coarse.n, coarse.h * factor, coarse.w * factor, coarse.c} && factor > 0;
}

}  // namespace

void average_pool(const Space& space, ConstActivations x, int factor, Activations y, bool accumulate) {
  require_extents(blocks_of(x.extents, y.extents, factor), "umbriel::average_pool");
  run<Gather>("umbriel::average_pool", space, x, y, factor, 1.0f / static_cast<float>(factor * factor), accumulate);
}

void average_pool_backward(const Space& space, ConstActivations dy, int factor, Activations dx, bool accumulate) {
  require_extents(blocks_of(dx.extents, dy.extents, factor), "umbriel::average_pool_backward");
  run<Spread>("umbriel::average_pool_backward", space, dy, dx, factor, 1.0f / static_cast<float>(factor * factor),
              accumulate);
}

void upsample_nearest(const Space& space, ConstActivations x, int factor, Activations y) {
  require_extents(multiples_of(y.extents, x.extents, factor), "umbriel::upsample_nearest");
  run<Spread>("umbriel::upsample_nearest", space, x, y, factor, 1.0f, false);
}

void upsample_nearest_backward(const Space& space, ConstActivations dy, int factor, Activations dx, bool accumulate) {
  require_extents(multiples_of(dy.extents, dx.extents, factor), "umbriel::upsample_nearest_backward");
  run<Gather>("umbriel::upsample_nearest_backward", space, dy, dx, factor, 1.0f, accumulate);
}

}  // namespace umbriel
