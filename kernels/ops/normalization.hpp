/// Batch, group and channel normalisation of activations [N, H, W, C], the first two fused with what follows them.
///
/// Batch norm (Ioffe & Szegedy 2015, arXiv 1502.03167) is split where ranks have to agree: sums over this rank's batch,
/// then (elsewhere) their sum over ranks, then the affine map. Group norm: Wu & He 2018, arXiv 1803.08494.
#pragma once

#include "umbriel/ops/activation.hpp"
#include "umbriel/ops/activations.hpp"

namespace umbriel {

/// sums[c] = sum over n, y, x of x - shift[c]; sums[C + c] = sum of (x - shift[c])^2, in float64: shifted, so that a
/// large mean costs no digits.
/// @param shift  [C], or null for 0 (the running mean serves well)
/// @param sums   [2 C] float64, overwritten
void channel_moments(const Space& space, ConstActivations x, const float* shift, const View1<double>& sums);

/// y = f(x scale[c] + shift[c] + residual): normalisation with known moments.
/// @param residual  extents of x, or empty
void scale_shift(const Space& space, ConstActivations x, const float* scale, const float* shift,
                 ConstActivations residual, Activation activation, Activations y);

/// First half of batch norm's gradient. With z = x_hat gamma + beta + residual and y = f(z), x_hat = (x - mean) rstd:
/// dz = dy f'(z), written to `dz` (which may be dy's own memory);
/// sums[c] = sum of dz; sums[C + c] = sum of dz x_hat, in float64.
/// @param y  the output of scale_shift; f must have derivative_from_output, or be silu with residual empty, when z is
///           found again from x, scale = gamma rstd and shift
void batch_norm_backward_sums(const Space& space, ConstActivations x, ConstActivations y, ConstActivations dy,
                              const float* mean, const float* rstd, const float* scale, const float* shift,
                              Activation activation, Activations dz, const View1<double>& sums);

/// Second half: dx = scale[c] (dz - sums[c] / count - x_hat sums[C + c] / count), += with `accumulate`.
/// @param count  pixels of the whole batch, on all ranks
void batch_norm_backward_data(const Space& space, ConstActivations x, ConstActivations dz, const float* mean,
                              const float* rstd, const float* scale, const View1<double>& sums, double count,
                              Activations dx, bool accumulate);

/// y = f(((x - mean) rstd gamma[c] + beta[c])), moments over y, x and the channels of a group, a sample.
/// @param moments  [N, groups, 2] mean and rstd, overwritten, for the gradient
void group_norm(const Space& space, ConstActivations x, int groups, float epsilon, const float* gamma,
                const float* beta, Activation activation, Activations y, const View3<float>& moments);

/// Gradients of group_norm; dgamma and dbeta [C] are overwritten, dx too unless `accumulate`.
/// @param scratch  [N, C, 2] float64
void group_norm_backward(const Space& space, ConstActivations x, ConstActivations dy, int groups, const float* gamma,
                         const float* beta, Activation activation, const View3<float>& moments, Activations dx,
                         bool accumulate, float* dgamma, float* dbeta, const View3<double>& scratch);

/// y = (x - mean) rstd gamma[c] + beta[c], moments over the channels of each pixel by itself (Ba, Kiros & Hinton 2016,
/// arXiv 1607.06450, at each pixel).
void channel_norm(const Space& space, ConstActivations x, float epsilon, const float* gamma, const float* beta,
                  Activations y);

/// Gradients of channel_norm; dgamma and dbeta [C] are overwritten, dx too unless `accumulate`.
/// @param dx       may be dy's own memory
/// @param scratch  extents of x, overwritten
void channel_norm_backward(const Space& space, ConstActivations x, ConstActivations dy, float epsilon,
                           const float* gamma, Activations dx, bool accumulate, float* dgamma, float* dbeta,
                           Activations scratch);

}  // namespace umbriel
