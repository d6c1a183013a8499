/// Sums, products, copies and reductions of activations [N, H, W, C].
///
/// Reductions add in float64 in an order that depends on the extents alone.
#pragma once

#include "umbriel/ops/activations.hpp"

namespace umbriel {

/// Every element := value.
void fill(const Space& space, float value, Activations y);
/// y = x, or y += x with `accumulate`: concatenation is a copy into y.channels(first, count).
void copy_channels(const Space& space, ConstActivations x, Activations y, bool accumulate = false);
/// y = alpha a + beta b; += with `accumulate`. y may be a or b.
void linear_combination(const Space& space, float alpha, ConstActivations a, float beta, ConstActivations b,
                        Activations y, bool accumulate = false);
/// y = a b, element by element; += with `accumulate`.
void multiply(const Space& space, ConstActivations a, ConstActivations b, Activations y, bool accumulate = false);

/// @{ Per-sample, per-channel modulation (FiLM, Perez et al. 2018, arXiv 1709.07871): y = x (1 + scale) + shift.
/// @param scale, shift  extents [N, 1, 1, C], or empty
void modulate(const Space& space, ConstActivations x, ConstActivations scale, ConstActivations shift, Activations y);
/// dx (+= with `accumulate`), dscale and dshift (overwritten), each unless empty.
/// @param scratch  [N, C, 2] float64
void modulate_backward(const Space& space, ConstActivations x, ConstActivations scale, ConstActivations dy,
                       Activations dx, bool accumulate, Activations dscale, Activations dshift,
                       const View3<double>& scratch);
/// @}

/// y[n, y, x, c] = x[n, y, x, c] factor[n]; += with `accumulate`.
/// @param factor  [>= N]
void scale_samples(const Space& space, ConstActivations x, const View1<float>& factor, Activations y,
                   bool accumulate = false);
/// y[n, y, x, c] = value[n]: a constant plane, such as the noise level.
void fill_samples(const Space& space, const View1<float>& value, Activations y);

/// @{ out[n] = sum of x over a sample; of x^2; of a b. @param out  [>= N] float64, overwritten
void sum_samples(const Space& space, ConstActivations x, const View1<double>& out);
void square_samples(const Space& space, ConstActivations x, const View1<double>& out);
void dot_samples(const Space& space, ConstActivations a, ConstActivations b, const View1<double>& out);
/// @}
/// out[c] = sum over n, y, x; += with `accumulate`. @param out  [C]
void sum_pixels(const Space& space, ConstActivations x, float* out, bool accumulate);

}  // namespace umbriel
