/// Affine couplings of normalizing flows (Dinh et al. 2017, arXiv 1605.08803, eq. 7 and 8), and the rearrangements of
/// pixels that go with them. With s = limit tanh(raw / limit), |s| <= limit:
///
///   y = x e^s + t,   log |dy/dx| = sum of s,   x = (y - t) e^-s
///
/// A state goes through a coupling in place; the way back needs the result alone.
#pragma once

#include "umbriel/ops/activations.hpp"

namespace umbriel {

/// y = x e^s + t in place.
/// @param raw, shift       extents of x
/// @param log_determinant  [>= N] float64: the sum of s over each sample is added
void couple(const Space& space, float limit, ConstActivations raw, ConstActivations shift, Activations x,
            const View1<double>& log_determinant);
/// The inverse, in place.
void uncouple(const Space& space, float limit, ConstActivations raw, ConstActivations shift, Activations y);
/// Gradients of a loss, given that of y and, the same for all samples, of the log-determinant. y is set back to x, and
/// its gradient to that of x.
/// @param draw, dshift  overwritten
void couple_backward(const Space& space, float limit, ConstActivations raw, ConstActivations shift,
                     float dlog_determinant, Activations y, Activations dy, Activations draw, Activations dshift);
/// Gradients of a loss of x = uncouple(y), given that of x, which is set to that of y.
/// @param draw, dshift  overwritten
void uncouple_backward(const Space& space, float limit, ConstActivations raw, ConstActivations x, Activations dx,
                       Activations draw, Activations dshift);

/// y = x where (row + column) % 2 == parity, else 0; y may be x.
void keep_checkerboard(const Space& space, int parity, ConstActivations x, Activations y);

/// @{ Space to depth: fine [N, 2 H, 2 W, C] and coarse [N, H, W, 4 C], channel (2 dy + dx) C + c of a coarse pixel
/// being channel c of the fine one at (2 y + dy, 2 x + dx).
void squeeze(const Space& space, ConstActivations fine, Activations coarse);
void unsqueeze(const Space& space, ConstActivations coarse, Activations fine);
/// @}

}  // namespace umbriel
