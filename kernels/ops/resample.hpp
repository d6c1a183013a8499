/// Average pooling and nearest-neighbour upsampling by a whole factor, and their gradients, which are each other's
/// transposes. Extents of the finer array need not be multiples of the factor for pooling: the rest is dropped.
#pragma once

#include "umbriel/ops/activations.hpp"

namespace umbriel {

/// y[n, y, x, c] = mean of the factor x factor block of x; += with `accumulate`.
void average_pool(const Space& space, ConstActivations x, int factor, Activations y, bool accumulate = false);
/// dx = dy / factor^2 in each pixel of a block (0 in dropped pixels).
void average_pool_backward(const Space& space, ConstActivations dy, int factor, Activations dx, bool accumulate);

/// y[n, y, x, c] = x[n, y / factor, x / factor, c]
void upsample_nearest(const Space& space, ConstActivations x, int factor, Activations y);
/// dx = sum of dy over each block.
void upsample_nearest_backward(const Space& space, ConstActivations dy, int factor, Activations dx, bool accumulate);

}  // namespace umbriel
