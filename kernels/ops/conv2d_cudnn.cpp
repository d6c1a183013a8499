// Convolutions by cuDNN on NVIDIA devices, NHWC.
//
// cuDNN may choose its kernels by the number of samples, so that a sample's bits could depend on the batch. So each
// layer runs tiles of a number of samples that depends on the size of its maps alone: one for large maps, up to eight
// of small ones. An incomplete last tile, a channel slice and a periodic map are copied into a dense array first.
// Algorithms are fixed, deterministic ones. Bias, residual and activation are one pass of our own after the
// convolution.
#include <cudnn.h>

#include <algorithm>
#include <memory>

#include "umbriel/core/views.hpp"
#include "umbriel/ops/activation_math.hpp"
#include "umbriel/ops/conv2d_implementation.hpp"
#include "umbriel/ops/dnn_handle.hpp"

namespace umbriel {
namespace {

constexpr auto forward_algorithm = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
constexpr auto data_algorithm = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
constexpr auto weights_algorithm = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;

/// One handle serves every layer, and lives as long as any.
std::shared_ptr<const DnnHandle> shared_handle() {
  static std::weak_ptr<const DnnHandle> last;
  std::shared_ptr<const DnnHandle> handle = last.lock();
  if (!handle) last = handle = std::make_shared<const DnnHandle>();
  return handle;
}

/// @{ cuDNN's descriptors, which their destructor frees.
struct TensorDescriptor {
  cudnnTensorDescriptor_t descriptor = nullptr;
  explicit TensorDescriptor(Extents e) {
    UMBRIEL_CHECK_CUDNN(cudnnCreateTensorDescriptor(&descriptor));
    UMBRIEL_CHECK_CUDNN(
        cudnnSetTensor4dDescriptor(descriptor, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, e.n, e.c, e.h, e.w));
  }
  ~TensorDescriptor() { cudnnDestroyTensorDescriptor(descriptor); }
  TensorDescriptor(const TensorDescriptor&) = delete;
  TensorDescriptor& operator=(const TensorDescriptor&) = delete;
};
struct FilterDescriptor {
  cudnnFilterDescriptor_t descriptor = nullptr;
  explicit FilterDescriptor(const Conv2dGeometry& g) {
    UMBRIEL_CHECK_CUDNN(cudnnCreateFilterDescriptor(&descriptor));
    UMBRIEL_CHECK_CUDNN(cudnnSetFilter4dDescriptor(descriptor, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NHWC, g.c_out,
                                                   g.c_in / g.groups, g.kernel_y, g.kernel_x));
  }
  ~FilterDescriptor() { cudnnDestroyFilterDescriptor(descriptor); }
  FilterDescriptor(const FilterDescriptor&) = delete;
  FilterDescriptor& operator=(const FilterDescriptor&) = delete;
};
struct ConvolutionDescriptor {
  cudnnConvolutionDescriptor_t descriptor = nullptr;
  ConvolutionDescriptor(const Conv2dGeometry& g, int pad_y, int pad_x, Precision precision) {
    UMBRIEL_CHECK_CUDNN(cudnnCreateConvolutionDescriptor(&descriptor));
    UMBRIEL_CHECK_CUDNN(cudnnSetConvolution2dDescriptor(descriptor, pad_y, pad_x, g.stride, g.stride, 1, 1,
                                                        CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    UMBRIEL_CHECK_CUDNN(cudnnSetConvolutionGroupCount(descriptor, g.groups));
    // Without FMA_MATH cuDNN rounds float32 to TF32 on its own. For bfloat16, float32 arrays are rounded to TF32 too,
    // which is more accurate.
    UMBRIEL_CHECK_CUDNN(cudnnSetConvolutionMathType(
        descriptor, precision == Precision::float32 ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH));
  }
  ~ConvolutionDescriptor() { cudnnDestroyConvolutionDescriptor(descriptor); }
  ConvolutionDescriptor(const ConvolutionDescriptor&) = delete;
  ConvolutionDescriptor& operator=(const ConvolutionDescriptor&) = delete;
};
/// @}

/// Samples into a dense tile with periodic padding; zeros where the tile has more samples.
struct Stage {
  ConstActivations from;
  float* to;  ///< [tile, h + 2 pad_y, w + 2 pad_x, c]
  Extents staged;
  int pad_y, pad_x;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const int c = static_cast<int>(i % staged.c);
    const std::int64_t pixel = i / staged.c;
    const int px = static_cast<int>(pixel % staged.w), py = static_cast<int>(pixel / staged.w % staged.h);
    const int n = static_cast<int>(pixel / staged.w / staged.h);
    const int h = from.extents.h, w = from.extents.w;
    to[i] = n < from.extents.n ? from(n, (py - pad_y + h) % h, (px - pad_x + w) % w, c) : 0.0f;
  }
};

/// The transpose of Stage: every pixel collects its copies, in the order of the padded map.
struct Fold {
  const float* from;  ///< [tile, h + 2 pad_y, w + 2 pad_x, c]
  Activations to;
  int pad_y, pad_x;
  bool accumulate;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const int h = to.extents.h, w = to.extents.w, channels = to.extents.c;
    const int c = static_cast<int>(i % channels);
    const std::int64_t pixel = i / channels;
    const int x = static_cast<int>(pixel % w), y = static_cast<int>(pixel / w % h);
    const int n = static_cast<int>(pixel / w / h);
    const int padded_h = h + 2 * pad_y, padded_w = w + 2 * pad_x;
    float sum = 0;
    for (int py = (y + pad_y) % h; py < padded_h; py += h) {
      for (int px = (x + pad_x) % w; px < padded_w; px += w) {
        sum += from[((static_cast<std::int64_t>(n) * padded_h + py) * padded_w + px) * channels + c];
      }
    }
    float& target = to(n, y, x, c);
    target = accumulate ? target + sum : sum;
  }
};

/// y = f(convolved + bias + residual); convolved may be y.
struct Finish {
  const float* convolved;  ///< dense
  const float* bias;
  ConstActivations residual;
  Activation activation;
  Activations y;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const int c = static_cast<int>(i % y.extents.c);
    const std::int64_t pixel = i / y.extents.c;
    float value = convolved[i];
    if (bias) value += bias[c];
    if (residual.data) value += residual.pixel(pixel)[c];
    y.pixel(pixel)[c] = activation_value(activation, value);
  }
};

/// Our weights [ky, kx, ci, co] to cuDNN's [co, ky, kx, ci].
struct ToFilter {
  const float* weights;
  float* filter;
  std::int64_t fan_in, c_out;  ///< fan_in = ky kx ci

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const { filter[i % c_out * fan_in + i / c_out] = weights[i]; }
};

/// Adds a tile's gradient, in cuDNN's layout, to float64 sums in ours.
struct AddFilter {
  const float* filter;
  double* sums;
  std::int64_t fan_in, c_out;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    sums[i] += static_cast<double>(filter[i % c_out * fan_in + i / c_out]);
  }
};

struct RoundSums {
  const double* sums;
  float* out;
  bool accumulate;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const auto sum = static_cast<float>(sums[i]);
    out[i] = accumulate ? out[i] + sum : sum;
  }
};

/// partial(s, c) = sum of channel c over rows s, s + stretches, ... of the batch, in float64.
struct SumBiasRows {
  ConstActivations dy;
  View2<double> partial;
  int stretches;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const int c = static_cast<int>(i % dy.extents.c), stretch = static_cast<int>(i / dy.extents.c);
    double sum = 0;
    for (std::int64_t row = stretch; row < static_cast<std::int64_t>(dy.extents.n) * dy.extents.h; row += stretches) {
      float row_sum = 0;
      for (int x = 0; x < dy.extents.w; ++x) row_sum += dy.pixel(row * dy.extents.w + x)[c];
      sum += static_cast<double>(row_sum);
    }
    partial(stretch, c) = sum;
  }
};
struct SumBias {
  View2<double> partial;
  float* dbias;
  int stretches;
  bool accumulate;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t c) const {
    double sum = 0;
    for (int s = 0; s < stretches; ++s) sum += partial(s, c);
    dbias[c] = accumulate ? dbias[c] + static_cast<float>(sum) : static_cast<float>(sum);
  }
};

/// Samples of a tile: enough pixels for a device, by the size of the map alone.
int samples_of_a_tile(std::int64_t pixels) {
  int samples = 1;
  while (samples < 8 && samples * pixels < (1 << 14)) samples *= 2;
  return samples;
}

class CudnnConv2d final : public Conv2d::Implementation {
 public:
  CudnnConv2d(const Conv2dGeometry& geometry, Extents input, const Passes& passes, Precision precision)
      : g_(geometry),
        pad_y_(geometry.padding == Padding::periodic ? geometry.pad_y : 0),
        pad_x_(geometry.padding == Padding::periodic ? geometry.pad_x : 0),
        tile_(samples_of_a_tile(static_cast<std::int64_t>(input.h) * input.w)),
        padded_{tile_, input.h + 2 * pad_y_, input.w + 2 * pad_x_, input.c},
        output_{tile_, geometry.output_height(input.h), geometry.output_width(input.w), geometry.c_out},
        fan_in_(geometry.weights() / geometry.c_out),
        handle_(shared_handle()),
        x_(padded_),
        y_(output_),
        filter_(geometry),
        convolution_(geometry, geometry.pad_y - pad_y_, geometry.pad_x - pad_x_, precision),
        weights_(uninitialised<View1<float>>("umbriel::conv2d_filter", geometry.weights())),
        staged_x_(uninitialised<View1<float>>("umbriel::conv2d_staged_x", padded_.elements())),
        staged_y_(uninitialised<View1<float>>("umbriel::conv2d_staged_y", output_.elements())) {
    const cudnnHandle_t handle = handle_->on(Space());
    std::size_t largest = 0;
    const auto count = [&](std::size_t bytes) { largest = std::max(largest, bytes); };
    std::size_t bytes = 0;
    if (passes.forward) {
      UMBRIEL_CHECK_CUDNN(cudnnGetConvolutionForwardWorkspaceSize(handle, x_.descriptor, filter_.descriptor,
                                                                  convolution_.descriptor, y_.descriptor,
                                                                  forward_algorithm, &bytes));
      count(bytes);
    }
    if (passes.data) {
      UMBRIEL_CHECK_CUDNN(cudnnGetConvolutionBackwardDataWorkspaceSize(
          handle, filter_.descriptor, y_.descriptor, convolution_.descriptor, x_.descriptor, data_algorithm, &bytes));
      count(bytes);
    }
    if (passes.weights) {
      UMBRIEL_CHECK_CUDNN(cudnnGetConvolutionBackwardFilterWorkspaceSize(handle, x_.descriptor, y_.descriptor,
                                                                         convolution_.descriptor, filter_.descriptor,
                                                                         weights_algorithm, &bytes));
      count(bytes);
      gradient_ = uninitialised<View1<float>>("umbriel::conv2d_filter_gradient", geometry.weights());
      sums_ = uninitialised<View1<double>>("umbriel::conv2d_weight_sums", geometry.weights());
      stretches_ = std::min(output_.h, 64);
      bias_partial_ = uninitialised<View2<double>>("umbriel::conv2d_bias_partial", stretches_, geometry.c_out);
    }
    workspace_ = uninitialised<View1<char>>("umbriel::conv2d_workspace", largest);
  }

  void set_weights(const Space& space, const float* weights) override {
    Kokkos::parallel_for("umbriel::conv2d_set_weights", Range(space, 0, g_.weights()),
                         ToFilter{weights, weights_.data(), fan_in_, g_.c_out});
  }

  void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
               Activation activation, Activations y) const override {
    const cudnnHandle_t handle = handle_->on(space);
    for (int first = 0; first < x.extents.n; first += tile_) {
      const int n = std::min(tile_, x.extents.n - first);
      const Activations target = y.samples(first, n);
      const ConstActivations skip = residual ? residual.samples(first, n) : ConstActivations();
      // The residual is read after the convolution is written.
      const bool direct = n == tile_ && target.dense() && skip.data != target.data;
      float* convolved = direct ? target.data : staged_y_.data();
      const float one = 1, zero = 0;
      UMBRIEL_CHECK_CUDNN(cudnnConvolutionForward(handle, &one, x_.descriptor, input(space, x.samples(first, n)),
                                                  filter_.descriptor, weights_.data(), convolution_.descriptor,
                                                  forward_algorithm, workspace_.data(), workspace_.size(), &zero,
                                                  y_.descriptor, convolved));
      if (direct && !bias && !skip && activation == Activation::none) continue;
      Kokkos::parallel_for("umbriel::conv2d_finish", Range(space, 0, target.extents.elements()),
                           Finish{convolved, bias, skip, activation, target});
    }
  }

  void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const override {
    const cudnnHandle_t handle = handle_->on(space);
    for (int first = 0; first < dy.extents.n; first += tile_) {
      const int n = std::min(tile_, dy.extents.n - first);
      const Activations target = dx.samples(first, n);
      const bool direct = n == tile_ && target.dense() && !accumulate && pad_y_ == 0 && pad_x_ == 0;
      float* gradient = direct ? target.data : staged_x_.data();
      const float one = 1, zero = 0;
      UMBRIEL_CHECK_CUDNN(cudnnConvolutionBackwardData(handle, &one, filter_.descriptor, weights_.data(), y_.descriptor,
                                                       output(space, dy.samples(first, n)), convolution_.descriptor,
                                                       data_algorithm, workspace_.data(), workspace_.size(), &zero,
                                                       x_.descriptor, gradient));
      if (direct) continue;
      Kokkos::parallel_for("umbriel::conv2d_fold", Range(space, 0, target.extents.elements()),
                           Fold{gradient, target, pad_y_, pad_x_, accumulate});
    }
  }

  void backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights, float* dbias,
                        bool accumulate) const override {
    const cudnnHandle_t handle = handle_->on(space);
    Kokkos::deep_copy(space, sums_, 0.0);
    for (int first = 0; first < x.extents.n; first += tile_) {
      const int n = std::min(tile_, x.extents.n - first);
      const float one = 1, zero = 0;
      UMBRIEL_CHECK_CUDNN(cudnnConvolutionBackwardFilter(
          handle, &one, x_.descriptor, input(space, x.samples(first, n)), y_.descriptor,
          output(space, dy.samples(first, n)), convolution_.descriptor, weights_algorithm, workspace_.data(),
          workspace_.size(), &zero, filter_.descriptor, gradient_.data()));
      Kokkos::parallel_for("umbriel::conv2d_add_filter", Range(space, 0, g_.weights()),
                           AddFilter{gradient_.data(), sums_.data(), fan_in_, g_.c_out});
    }
    Kokkos::parallel_for("umbriel::conv2d_round_sums", Range(space, 0, g_.weights()),
                         RoundSums{sums_.data(), dweights, accumulate});
    if (!dbias) return;
    Kokkos::parallel_for("umbriel::conv2d_sum_bias_rows",
                         Range(space, 0, static_cast<std::int64_t>(stretches_) * g_.c_out),
                         SumBiasRows{dy, bias_partial_, stretches_});
    Kokkos::parallel_for("umbriel::conv2d_sum_bias", Range(space, 0, g_.c_out),
                         SumBias{bias_partial_, dbias, stretches_, accumulate});
  }

 private:
  /// A tile's samples as cuDNN takes them: those of the caller where they fit, else a copy.
  const float* input(const Space& space, ConstActivations samples) const {
    if (samples.extents.n == tile_ && samples.dense() && pad_y_ == 0 && pad_x_ == 0) return samples.data;
    Kokkos::parallel_for("umbriel::conv2d_stage_input", Range(space, 0, padded_.elements()),
                         Stage{samples, staged_x_.data(), padded_, pad_y_, pad_x_});
    return staged_x_.data();
  }
  const float* output(const Space& space, ConstActivations samples) const {
    if (samples.extents.n == tile_ && samples.dense()) return samples.data;
    Kokkos::parallel_for("umbriel::conv2d_stage_output", Range(space, 0, output_.elements()),
                         Stage{samples, staged_y_.data(), output_, 0, 0});
    return staged_y_.data();
  }

  Conv2dGeometry g_;
  int pad_y_, pad_x_;  ///< periodic padding, which Stage makes; cuDNN pads with zeros itself
  int tile_;           ///< samples
  Extents padded_, output_;
  std::int64_t fan_in_;
  std::shared_ptr<const DnnHandle> handle_;
  TensorDescriptor x_, y_;
  FilterDescriptor filter_;
  ConvolutionDescriptor convolution_;
  View1<float> weights_, staged_x_, staged_y_, gradient_;
  View1<double> sums_;
  View2<double> bias_partial_;
  View1<char> workspace_;
  int stretches_ = 0;
};

}  // namespace

std::unique_ptr<Conv2d::Implementation> make_cudnn_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                          const Passes& passes, Precision precision) {
  return std::make_unique<CudnnConv2d>(geometry, input, passes, precision);
}

}  // namespace umbriel
