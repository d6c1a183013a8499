/// Convolutions of a map that was upsampled by two, on the coarse map: each fine pixel sees only 2 x 2 coarse ones, so
/// that 9 products a fine pixel become 4.
///
/// A 3 x 3 convolution becomes one of 2 x 2 pixels with padding 1 and four times the channels, the phases: fine pixel
/// (2 i + p, 2 j + q) sees coarse rows i + p - 1 and i + p, columns j + q - 1 and j + q, which is the window
/// (i + p, j + q) of the padded coarse map. Phase 2 p + q holds channels (2 p + q) C ... of [n, h + 1, w + 1, 4 C].
#pragma once

#include "umbriel/ops/activation.hpp"
#include "umbriel/ops/conv2d.hpp"

namespace umbriel::nn {

/// True for 3 x 3 and 1 x 1 convolutions that keep the size of the map.
bool suits_coarse_map(const Conv2dGeometry& fine);

/// Of the 2 x 2 convolution that a 3 x 3 one becomes.
Conv2dGeometry phase_geometry(const Conv2dGeometry& fine);

/// Row (or column) of the 2 x 2 kernel of phase p that tap k of the 3 x 3 one falls on: fine row 2 i + p + k - 1 is
/// coarse row i + floor((p + k - 1) / 2).
KOKKOS_INLINE_FUNCTION int phase_tap(int p, int k) { return (p + k + 1) / 2 - p; }

/// Kernel [2, 2, c_in, 4 c_out] of kernel [3, 3, c_in, c_out]; both where the kernels run.
void phase_weights(const Space& space, const Conv2dGeometry& fine, const float* weights, float* phases);
/// The transpose of phase_weights: gradient of the 3 x 3 kernel (+= with `accumulate`) from that of the 2 x 2 one.
void fine_weights_gradient(const Space& space, const Conv2dGeometry& fine, const float* phases, float* gradient,
                           bool accumulate);

/// y = f(fine map + bias + residual).
/// @param phases    [n, h + 1, w + 1, 4 C]
/// @param bias      [C], or null
/// @param residual  [n, 2 h, 2 w, C] or [n, h, w, C], or empty
/// @param y         [n, 2 h, 2 w, C]
void interleave(const Space& space, ConstActivations phases, const float* bias, ConstActivations residual,
                Activation activation, Activations y);
/// The transpose of interleave: every phase's pixels from dy, and zeros where there are none.
void separate(const Space& space, ConstActivations dy, Activations phases);

}  // namespace umbriel::nn
