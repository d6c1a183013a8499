/// Two-dimensional convolution of activations [N, H, W, C], forward and all gradients, behind one object a layer.
///
///   y[n, oy, ox, co] = f( sum_{ky, kx, ci} x[n, s oy + ky - pad_y, s ox + kx - pad_x, ci] w[ky, kx, ci, co]
///                         + b[co] + r[n, oy, ox, co] )
///
/// (cross-correlation, as every deep-learning library has it). Weights are [kernel_y, kernel_x, c_in / groups, c_out],
/// row-major; outside the map x is zero, or periodic. Backends: our Kokkos kernels, oneDNN on CPUs, cuDNN on NVIDIA.
/// `automatic` takes the one that was fastest for such a shape when measured (conv2d.cpp lists the preferences and says
/// where they come from); never one that this build lacks.
///
/// A sample's output has the same bits whatever the batch it is computed in.
#pragma once

#include <memory>
#include <string>

#include "umbriel/ops/activation.hpp"
#include "umbriel/ops/activations.hpp"

namespace umbriel {

enum class Padding { zeros, periodic };
enum class Backend { automatic, kokkos, onednn, cudnn };
/// Arithmetic of the products; sums are float32. Relative error of an output against float32, of the layer's largest:
/// tf32 about 1e-3, bfloat16 about 1e-2. What a backend lacks it computes in float32; gradients of weights are never
/// less than tf32.
enum class Precision { float32, tf32, bfloat16 };

Backend backend_named(const std::string& name);
const char* name_of(Backend backend);
/// @throws Error(usage) unless `name` is float32, tf32 or bfloat16
Precision precision_named(const std::string& name);
/// True if this build can run convolutions on `backend`.
bool has_backend(Backend backend);

/// Shape of a layer, without the batch.
struct Conv2dGeometry {
  int c_in = 1, c_out = 1;
  int kernel_y = 3, kernel_x = 3;
  int stride = 1;
  int pad_y = 1, pad_x = 1;  ///< on both sides
  Padding padding = Padding::zeros;
  int groups = 1;

  /// (extent + 2 pad - kernel) / stride + 1
  int output_height(int height) const { return (height + 2 * pad_y - kernel_y) / stride + 1; }
  int output_width(int width) const { return (width + 2 * pad_x - kernel_x) / stride + 1; }
  std::int64_t weights() const { return static_cast<std::int64_t>(kernel_y) * kernel_x * (c_in / groups) * c_out; }
  bool operator==(const Conv2dGeometry&) const = default;
};

class Conv2d {
 public:
  /// Plans for inputs of `input` extents (input.c = c_in). Costs up to milliseconds; calls then allocate nothing.
  /// @param training  also plan the gradients
  /// @throws Error(usage) for a geometry that does not fit, or a backend that this build lacks
  Conv2d(const Conv2dGeometry& geometry, Extents input, bool training, Backend backend = Backend::automatic,
         Precision precision = Precision::float32);
  ~Conv2d();
  Conv2d(Conv2d&&) noexcept;
  Conv2d& operator=(Conv2d&&) noexcept;

  const Conv2dGeometry& geometry() const;
  Extents input() const;
  Extents output() const;
  /// The backends that the dispatch chose: forward, gradient of the input, gradient of the weights.
  Backend forward_backend() const;
  Backend data_backend() const;
  Backend weights_backend() const;
  /// Multiplications and additions of one forward call.
  double flops() const;

  /// Brings weights into the backend's own layout. Call it when they have changed, before forward and backward_data.
  /// @param weights  [kernel_y, kernel_x, c_in / groups, c_out]
  void set_weights(const Space& space, const float* weights);

  /// y = f(conv(x) + bias + residual).
  /// @param bias      [c_out], or null
  /// @param residual  extents of the output, or empty; may be `y` itself
  void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
               Activation activation, Activations y) const;

  /// dx = gradient of the input given that of conv(x), or dx += with `accumulate`: the transposed convolution.
  void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const;

  /// Gradient of the weights and, unless null, of the bias; `accumulate` adds to them.
  /// @param dweights  [kernel_y, kernel_x, c_in / groups, c_out]
  void backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights, float* dbias,
                        bool accumulate) const;

  /// One backend's code for one layer; conv2d_kokkos.cpp, conv2d_onednn.cpp and conv2d_cudnn.cpp implement it.
  class Implementation;

 private:
  struct Plan;
  std::unique_ptr<Plan> plan_;
};

}  // namespace umbriel
