#include "umbriel/ops/coupling.hpp"

#include "umbriel/ops/activation_math.hpp"
#include "umbriel/ops/pixel_loops.hpp"

namespace umbriel {
namespace {

using detail::map_pixels;
using detail::require_extents;
using detail::sum_sample_channels;

KOKKOS_INLINE_FUNCTION float log_scale(float limit, float raw) {
  return limit * activated<Activation::tanh>(raw / limit);
}

struct Couple {
  static constexpr int inputs = 3, coefficients = 0, terms = 1;
  static constexpr bool writes = true;
  float limit;
  KOKKOS_INLINE_FUNCTION float operator()(float x, float raw, float shift, const float*, double* t) const {
    const float s = log_scale(limit, raw);
    t[0] = static_cast<double>(s);
    return math::fma(x, detail::exponential(s), shift);
  }
};

struct Uncouple {
  static constexpr int inputs = 3, coefficients = 0;
  float limit;
  KOKKOS_INLINE_FUNCTION float operator()(float y, float raw, float shift, const float*) const {
    return (y - shift) * detail::exponential(-log_scale(limit, raw));
  }
};

/// One pass over what is there for the way back; channels in a row.
struct CoupleBackward {
  float limit, dlog_determinant;
  ConstActivations raw, shift;
  Activations y, dy, draw, dshift;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t pixel) const {
    const float* const r = raw.pixel(pixel);
    const float* const t = shift.pixel(pixel);
    float* const at = y.pixel(pixel);
    float* const gradient = dy.pixel(pixel);
    float* const dr = draw.pixel(pixel);
    float* const dt = dshift.pixel(pixel);
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int c = 0; c < y.extents.c; ++c) {
      const float h = activated<Activation::tanh>(r[c] / limit);
      const float s = limit * h;
      const float scaled = at[c] - t[c];  // x e^s
      const float g = gradient[c];
      dt[c] = g;
      dr[c] = math::fma(g, scaled, dlog_determinant) * math::fma(-h, h, 1.0f);
      at[c] = scaled * detail::exponential(-s);
      gradient[c] = g * detail::exponential(s);
    }
  }
};

/// x = (y - t) e^-s, channels in a row.
struct UncoupleBackward {
  float limit;
  ConstActivations raw, x;
  Activations dx, draw, dshift;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t pixel) const {
    const float* const r = raw.pixel(pixel);
    const float* const at = x.pixel(pixel);
    float* const gradient = dx.pixel(pixel);
    float* const dr = draw.pixel(pixel);
    float* const dt = dshift.pixel(pixel);
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int c = 0; c < x.extents.c; ++c) {
      const float h = activated<Activation::tanh>(r[c] / limit);
      const float g = gradient[c];
      const float of_y = g * detail::exponential(-limit * h);
      dr[c] = -g * at[c] * math::fma(-h, h, 1.0f);
      dt[c] = -of_y;
      gradient[c] = of_y;
    }
  }
};

struct AddTotals {
  const double* totals;  // [N, C]
  View1<double> out;
  int channels;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    double total = 0;
    for (int c = 0; c < channels; ++c) total += totals[n * channels + c];
    out(n) += total;
  }
};

struct KeepCheckerboard {
  ConstActivations x;
  Activations y;
  int parity;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t pixel) const {
    const std::int64_t column = pixel % x.extents.w, row = pixel / x.extents.w % x.extents.h;
    const bool kept = (row + column) % 2 == parity;
    for (int c = 0; c < x.extents.c; ++c) y.pixel(pixel)[c] = kept ? x.pixel(pixel)[c] : 0.0f;
  }
};

/// @tparam to_coarse  else the other way
template <bool to_coarse, class Fine, class Coarse>
struct Rearrange {
  Fine fine;
  Coarse coarse;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t row) const {
    const int channels = fine.extents.c, y = static_cast<int>(row % fine.extents.h);
    const int n = static_cast<int>(row / fine.extents.h);
    for (int x = 0; x < fine.extents.w; ++x) {
      auto* const a = fine.pixel(row * fine.extents.w + x);
      auto* const b = &coarse(n, y / 2, x / 2, (2 * (y % 2) + x % 2) * channels);
      for (int c = 0; c < channels; ++c) {
        if constexpr (to_coarse) {
          b[c] = a[c];
        } else {
          a[c] = b[c];
        }
      }
    }
  }
};

bool fit(const Extents& fine, const Extents& coarse) {
  return fine.n == coarse.n && fine.h == 2 * coarse.h && fine.w == 2 * coarse.w && 4 * fine.c == coarse.c;
}

}  // namespace

void couple(const Space& space, float limit, ConstActivations raw, ConstActivations shift, Activations x,
            const View1<double>& log_determinant) {
  require_extents(static_cast<int>(log_determinant.extent(0)) >= x.extents.n, "umbriel::couple");
  const double* totals = sum_sample_channels("umbriel::couple", space, Couple{limit}, {x, raw, shift}, x);
  Kokkos::parallel_for("umbriel::add_log_determinant", Range(space, 0, x.extents.n),
                       AddTotals{totals, log_determinant, x.extents.c});
}

void uncouple(const Space& space, float limit, ConstActivations raw, ConstActivations shift, Activations y) {
  map_pixels("umbriel::uncouple", space, Uncouple{limit}, {y, raw, shift}, y);
}

void couple_backward(const Space& space, float limit, ConstActivations raw, ConstActivations shift,
                     float dlog_determinant, Activations y, Activations dy, Activations draw, Activations dshift) {
  const Extents& e = y.extents;
  require_extents(raw.extents == e && shift.extents == e && dy.extents == e && draw.extents == e && dshift.extents == e,
                  "umbriel::couple_backward");
  Kokkos::parallel_for("umbriel::couple_backward", Range(space, 0, e.pixels()),
                       CoupleBackward{limit, dlog_determinant, raw, shift, y, dy, draw, dshift});
}

void uncouple_backward(const Space& space, float limit, ConstActivations raw, ConstActivations x, Activations dx,
                       Activations draw, Activations dshift) {
  const Extents& e = x.extents;
  require_extents(raw.extents == e && dx.extents == e && draw.extents == e && dshift.extents == e,
                  "umbriel::uncouple_backward");
  Kokkos::parallel_for("umbriel::uncouple_backward", Range(space, 0, e.pixels()),
                       UncoupleBackward{limit, raw, x, dx, draw, dshift});
}

void keep_checkerboard(const Space& space, int parity, ConstActivations x, Activations y) {
  require_extents(x.extents == y.extents, "umbriel::keep_checkerboard");
  Kokkos::parallel_for("umbriel::keep_checkerboard", Range(space, 0, x.extents.pixels()),
                       KeepCheckerboard{x, y, parity});
}

void squeeze(const Space& space, ConstActivations fine, Activations coarse) {
  require_extents(fit(fine.extents, coarse.extents), "umbriel::squeeze");
  Kokkos::parallel_for("umbriel::squeeze", Range(space, 0, static_cast<std::int64_t>(fine.extents.n) * fine.extents.h),
                       Rearrange<true, ConstActivations, Activations>{fine, coarse});
}

void unsqueeze(const Space& space, ConstActivations coarse, Activations fine) {
  require_extents(fit(fine.extents, coarse.extents), "umbriel::unsqueeze");
  Kokkos::parallel_for("umbriel::unsqueeze",
                       Range(space, 0, static_cast<std::int64_t>(fine.extents.n) * fine.extents.h),
                       Rearrange<false, Activations, ConstActivations>{fine, coarse});
}

}  // namespace umbriel
