#include "umbriel/ops/elementwise.hpp"

#include "umbriel/ops/pixel_loops.hpp"

namespace umbriel {
namespace {

using detail::map_pixels;
using detail::require_extents;
using detail::sum_sample_channels;

struct Fill {
  static constexpr int inputs = 0, coefficients = 0;
  float value;
  KOKKOS_INLINE_FUNCTION float operator()(float, float, float, const float*) const { return value; }
};

struct Copy {
  static constexpr int inputs = 1, coefficients = 0;
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float*) const { return x; }
};

struct LinearCombination {
  static constexpr int inputs = 2, coefficients = 0;
  float alpha, beta;
  KOKKOS_INLINE_FUNCTION float operator()(float a, float b, float, const float*) const {
    return math::fma(alpha, a, beta * b);
  }
};

struct Multiply {
  static constexpr int inputs = 2, coefficients = 0;
  KOKKOS_INLINE_FUNCTION float operator()(float a, float b, float, const float*) const { return a * b; }
};

struct Modulate {
  static constexpr int inputs = 1, coefficients = 2;
  ConstActivations scale, shift;
  KOKKOS_INLINE_FUNCTION void prepare(int n, int c, float* k) const {
    k[0] = scale.data ? 1.0f + scale.pixel(n)[c] : 1.0f;
    k[1] = shift.data ? shift.pixel(n)[c] : 0.0f;
  }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float* k) const {
    return math::fma(x, k[0], k[1]);
  }
};

struct ModulateData {
  static constexpr int inputs = 1, coefficients = 1;
  ConstActivations scale;
  KOKKOS_INLINE_FUNCTION void prepare(int n, int c, float* k) const {
    k[0] = scale.data ? 1.0f + scale.pixel(n)[c] : 1.0f;
  }
  KOKKOS_INLINE_FUNCTION float operator()(float dy, float, float, const float* k) const { return dy * k[0]; }
};

/// Sums of dy x and dy.
struct ModulateSums {
  static constexpr int inputs = 2, coefficients = 0, terms = 2;
  static constexpr bool writes = false;
  KOKKOS_INLINE_FUNCTION float operator()(float x, float dy, float, const float*, double* t) const {
    t[0] = static_cast<double>(x) * static_cast<double>(dy);
    t[1] = static_cast<double>(dy);
    return 0;
  }
};

struct KeepModulation {
  const double* totals;  // [N, 2, C]
  Activations dscale, dshift;
  int channels;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const std::int64_t n = i / channels;
    const int c = static_cast<int>(i % channels);
    if (dscale.data) dscale.pixel(n)[c] = static_cast<float>(totals[2 * n * channels + c]);
    if (dshift.data) dshift.pixel(n)[c] = static_cast<float>(totals[(2 * n + 1) * channels + c]);
  }
};

struct ScaleSamples {
  static constexpr int inputs = 1, coefficients = 1;
  View1<float> factor;
  KOKKOS_INLINE_FUNCTION void prepare(int n, int, float* k) const { k[0] = factor(n); }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float* k) const { return x * k[0]; }
};

struct FillSamples {
  static constexpr int inputs = 0, coefficients = 1;
  View1<float> value;
  KOKKOS_INLINE_FUNCTION void prepare(int n, int, float* k) const { k[0] = value(n); }
  KOKKOS_INLINE_FUNCTION float operator()(float, float, float, const float* k) const { return k[0]; }
};

struct Sum {
  static constexpr int inputs = 1, coefficients = 0, terms = 1;
  static constexpr bool writes = false;
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float*, double* t) const {
    t[0] = static_cast<double>(x);
    return 0;
  }
};

struct Square {
  static constexpr int inputs = 1, coefficients = 0, terms = 1;
  static constexpr bool writes = false;
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float*, double* t) const {
    t[0] = static_cast<double>(x) * static_cast<double>(x);
    return 0;
  }
};

struct Dot {
  static constexpr int inputs = 2, coefficients = 0, terms = 1;
  static constexpr bool writes = false;
  KOKKOS_INLINE_FUNCTION float operator()(float a, float b, float, const float*, double* t) const {
    t[0] = static_cast<double>(a) * static_cast<double>(b);
    return 0;
  }
};

/// Channels of a sample in order.
struct SumOverChannels {
  const double* totals;  // [N, C]
  View1<double> out;
  int channels;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    double total = 0;
    for (int c = 0; c < channels; ++c) total += totals[n * channels + c];
    out(n) = total;
  }
};

template <class Op>
void sum_each_sample(const char* label, const Space& space, const Op& op, ConstActivations a, ConstActivations b,
                     const View1<double>& out) {
  require_extents(static_cast<int>(out.extent(0)) >= a.extents.n, label);
  const double* totals = sum_sample_channels(label, space, op, {a, b, {}});
  Kokkos::parallel_for("umbriel::sum_over_channels", Range(space, 0, a.extents.n),
                       SumOverChannels{totals, out, a.extents.c});
}

/// out = sum of a sample's totals over samples.
struct KeepChannelSums {
  const double* totals;  // [N, C]
  float* out;
  int samples, channels;
  bool accumulate;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t c) const {
    double total = 0;
    for (int n = 0; n < samples; ++n) total += totals[static_cast<std::int64_t>(n) * channels + c];
    out[c] = accumulate ? out[c] + static_cast<float>(total) : static_cast<float>(total);
  }
};

/// True if `part` is empty or [N, 1, 1, C] for activations of extents `e`.
bool modulates(const ConstActivations& part, const Extents& e) {
  return !part || part.extents == Extents{e.n, 1, 1, e.c};
}

}  // namespace

void fill(const Space& space, float value, Activations y) { map_pixels("umbriel::fill", space, Fill{value}, {}, y); }

void copy_channels(const Space& space, ConstActivations x, Activations y, bool accumulate) {
  map_pixels("umbriel::copy_channels", space, Copy{}, {x, {}, {}}, y, accumulate);
}

void linear_combination(const Space& space, float alpha, ConstActivations a, float beta, ConstActivations b,
                        Activations y, bool accumulate) {
  map_pixels("umbriel::linear_combination", space, LinearCombination{alpha, beta}, {a, b, {}}, y, accumulate);
}

void multiply(const Space& space, ConstActivations a, ConstActivations b, Activations y, bool accumulate) {
  map_pixels("umbriel::multiply", space, Multiply{}, {a, b, {}}, y, accumulate);
}

void modulate(const Space& space, ConstActivations x, ConstActivations scale, ConstActivations shift, Activations y) {
  require_extents(modulates(scale, x.extents) && modulates(shift, x.extents), "umbriel::modulate");
  map_pixels("umbriel::modulate", space, Modulate{scale, shift}, {x, {}, {}}, y);
}

void modulate_backward(const Space& space, ConstActivations x, ConstActivations scale, ConstActivations dy,
                       Activations dx, bool accumulate, Activations dscale, Activations dshift,
                       const View3<double>& scratch) {
  const Extents e = dy.extents;
  require_extents(modulates(scale, e) && modulates(dscale, e) && modulates(dshift, e), "umbriel::modulate_backward");
  if (dscale || dshift) {
    require_extents(scratch.size() >= static_cast<std::size_t>(2 * e.n * e.c), "umbriel::modulate_backward");
    const double* totals =
        sum_sample_channels("umbriel::modulate_sums", space, ModulateSums{}, {x, dy, {}}, {}, scratch.data());
    Kokkos::parallel_for("umbriel::keep_modulation", Range(space, 0, static_cast<std::int64_t>(e.n) * e.c),
                         KeepModulation{totals, dscale, dshift, e.c});
  }
  if (dx) map_pixels("umbriel::modulate_data", space, ModulateData{scale}, {dy, {}, {}}, dx, accumulate);
}

void scale_samples(const Space& space, ConstActivations x, const View1<float>& factor, Activations y, bool accumulate) {
  require_extents(static_cast<int>(factor.extent(0)) >= y.extents.n, "umbriel::scale_samples");
  map_pixels("umbriel::scale_samples", space, ScaleSamples{factor}, {x, {}, {}}, y, accumulate);
}

void fill_samples(const Space& space, const View1<float>& value, Activations y) {
  require_extents(static_cast<int>(value.extent(0)) >= y.extents.n, "umbriel::fill_samples");
  map_pixels("umbriel::fill_samples", space, FillSamples{value}, {}, y);
}

void sum_samples(const Space& space, ConstActivations x, const View1<double>& out) {
  sum_each_sample("umbriel::sum_samples", space, Sum{}, x, {}, out);
}

void square_samples(const Space& space, ConstActivations x, const View1<double>& out) {
  sum_each_sample("umbriel::square_samples", space, Square{}, x, {}, out);
}

void dot_samples(const Space& space, ConstActivations a, ConstActivations b, const View1<double>& out) {
  sum_each_sample("umbriel::dot_samples", space, Dot{}, a, b, out);
}

void sum_pixels(const Space& space, ConstActivations x, float* out, bool accumulate) {
  const double* totals = sum_sample_channels("umbriel::sum_pixels", space, Sum{}, {x, {}, {}});
  Kokkos::parallel_for("umbriel::keep_channel_sums", Range(space, 0, x.extents.c),
                       KeepChannelSums{totals, out, x.extents.n, x.extents.c, accumulate});
}

}  // namespace umbriel
