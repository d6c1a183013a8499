#include "umbriel/ops/resample.hpp"

#include <algorithm>

#include "umbriel/ops/pixel_loops.hpp"

namespace umbriel {
namespace {

using detail::require_extents;

/// y = scale * sum of x over a block of factor x factor pixels.
template <bool accumulate>
struct Gather {
  ConstActivations x;
  Activations y;
  int factor;
  float scale;

  /// Channels [first, first + count) of one pixel of y, count <= tile.
  template <int tile>
  KOKKOS_INLINE_FUNCTION void pixel(std::int64_t p, int first, int count) const {
    const int ox = static_cast<int>(p % y.extents.w);
    const std::int64_t rest = p / y.extents.w;
    const int oy = static_cast<int>(rest % y.extents.h);
    const std::int64_t n = rest / y.extents.h;
    const std::int64_t corner = (n * x.extents.h + static_cast<std::int64_t>(oy) * factor) * x.extents.w +
                                static_cast<std::int64_t>(ox) * factor;
    double sums[tile];
    for (int c = 0; c < count; ++c) sums[c] = 0;
    for (int j = 0; j < factor; ++j) {
      for (int i = 0; i < factor; ++i) {
        const float* in = x.pixel(corner + static_cast<std::int64_t>(j) * x.extents.w + i) + first;
        for (int c = 0; c < count; ++c) sums[c] += static_cast<double>(in[c]);
      }
    }
    float* out = y.pixel(p) + first;
    for (int c = 0; c < count; ++c) {
      const float value = scale * static_cast<float>(sums[c]);
      out[c] = accumulate ? out[c] + value : value;
    }
  }

  /// A row of y on a host, an element on a device.
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const int channels = y.extents.c;
    if constexpr (runs_on_host) {
      constexpr int tile = 64;
      for (std::int64_t p = i * y.extents.w; p < (i + 1) * y.extents.w; ++p) {
        for (int c = 0; c < channels; c += tile) pixel<tile>(p, c, std::min(tile, channels - c));
      }
    } else {
      pixel<1>(i / channels, static_cast<int>(i % channels), 1);
    }
  }
};

/// y = scale * x in each pixel of a block, 0 where there is no block.
template <bool accumulate>
struct Spread {
  ConstActivations x;
  Activations y;
  int factor;
  float scale;

  KOKKOS_INLINE_FUNCTION void pixel(std::int64_t p, int first, int count) const {
    const int ix = static_cast<int>(p % y.extents.w) / factor;
    const std::int64_t rest = p / y.extents.w;
    const int iy = static_cast<int>(rest % y.extents.h) / factor;
    const std::int64_t n = rest / y.extents.h;
    float* out = y.pixel(p) + first;
    if (ix < x.extents.w && iy < x.extents.h) {
      const float* in = x.pixel((n * x.extents.h + iy) * x.extents.w + ix) + first;
      UMBRIEL_INDEPENDENT_ITERATIONS
      for (int c = 0; c < count; ++c) out[c] = accumulate ? out[c] + scale * in[c] : scale * in[c];
    } else if constexpr (!accumulate) {
      for (int c = 0; c < count; ++c) out[c] = 0;
    }
  }

  /// A row of y on a host, an element on a device.
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const int channels = y.extents.c;
    if constexpr (runs_on_host) {
      for (std::int64_t p = i * y.extents.w; p < (i + 1) * y.extents.w; ++p) pixel(p, 0, channels);
    } else {
      pixel(i / channels, static_cast<int>(i % channels), 1);
    }
  }
};

template <template <bool> class Op>
void run(const char* label, const Space& space, ConstActivations x, Activations y, int factor, float scale,
         bool accumulate) {
  const std::int64_t count = runs_on_host ? static_cast<std::int64_t>(y.extents.n) * y.extents.h : y.extents.elements();
  if (accumulate) {
    Kokkos::parallel_for(label, Range(space, 0, count), Op<true>{x, y, factor, scale});
  } else {
    Kokkos::parallel_for(label, Range(space, 0, count), Op<false>{x, y, factor, scale});
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
