/// What a backend of Conv2d implements. Only the conv2d_*.cpp files and their tests include this.
#pragma once

#include <memory>

#include "umbriel/ops/conv2d.hpp"

namespace umbriel {

/// One backend's code for one layer. Shapes have been checked; calls have the meaning that Conv2d states, for any
/// number of samples.
class Conv2d::Implementation {
 public:
  virtual ~Implementation() = default;
  virtual void set_weights(const Space& space, const float* weights) = 0;
  virtual void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
                       Activation activation, Activations y) const = 0;
  virtual void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const = 0;
  virtual void backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights,
                                float* dbias, bool accumulate) const = 0;
};

/// Which calls an implementation must be ready for.
struct Passes {
  bool forward = false, data = false, weights = false;
  bool any() const { return forward || data || weights; }
};

/// @{ One factory a backend.
/// One thread for a few outputs: any geometry, any device.
std::unique_ptr<Conv2d::Implementation> make_portable_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                             const Passes& passes);
/// Register-blocked, for processors; needs runs_on_host.
std::unique_ptr<Conv2d::Implementation> make_host_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                         const Passes& passes);
/// True where our kernels for processors run by Winograd's algorithm, in inference.
bool suits_winograd(const Conv2dGeometry& geometry, Extents output);
std::unique_ptr<Conv2d::Implementation> make_onednn_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                           const Passes& passes, Precision precision);
std::unique_ptr<Conv2d::Implementation> make_cudnn_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                          const Passes& passes, Precision precision);
/// @}

}  // namespace umbriel
