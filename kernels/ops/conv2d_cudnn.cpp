// Convolutions by cuDNN on NVIDIA devices, NHWC.
//
// cuDNN chooses its kernels by the number of samples too, so that a sample's bits could depend on the batch. Therefore
// a layer's bits are those of a unit, a number of samples that depends on the size of the map alone: one of large maps,
// up to 256 of small ones, for a call costs 50 us whatever little it does. Larger tiles, up to the samples that were
// planned, save launches, and are used where they give the same bits: that is measured, with random arrays, when the
// layer is planned. What remains of a batch is copied into a dense array of a whole unit, as is a channel slice and a
// periodic map. Algorithms are fixed, deterministic ones.
//
// Where cuDNN can, bias, residual and ReLU are its epilogue; else they are one pass of our own after the convolution.
#include <cudnn.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "umbriel/core/views.hpp"
#include "umbriel/ops/activation_math.hpp"
#include "umbriel/ops/conv2d_implementation.hpp"
#include "umbriel/ops/dnn_handle.hpp"
#include "umbriel/ops/packs.hpp"

namespace umbriel {
namespace {

constexpr auto forward_algorithm = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
constexpr auto data_algorithm = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
constexpr auto weights_algorithm = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;

/// A number in half the memory of a float: its sign, its exponent and seven bits of its fraction.
struct Bfloat16 {
  std::uint16_t bits = 0;

  Bfloat16() = default;
  KOKKOS_INLINE_FUNCTION explicit Bfloat16(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    // To the nearest, ties to even; a NaN stays one.
    const bool nan = (word & 0x7fffffffU) > 0x7f800000U;
    bits = static_cast<std::uint16_t>(nan ? (word >> 16) | 0x40U : (word + 0x7fffU + (word >> 16 & 1U)) >> 16);
  }
  KOKKOS_INLINE_FUNCTION explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

template <class T>
constexpr cudnnDataType_t data_type = std::is_same_v<T, float> ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;

/// What all layers share, for they run one after the other: the handle, and arrays for a call's copies, as large as the
/// largest layer wants them. It lives as long as any layer.
struct Shared {
  DnnHandle handle;
  View1<char> x, y, workspace;

  static std::shared_ptr<Shared> get() {
    static std::weak_ptr<Shared> last;
    std::shared_ptr<Shared> shared = last.lock();
    if (!shared) last = shared = std::make_shared<Shared>();
    return shared;
  }
  static void reserve(View1<char>& array, std::size_t bytes) {
    if (array.size() >= bytes) return;
    array = View1<char>();  // gone before its successor comes
    array = uninitialised<View1<char>>("umbriel::conv2d_shared", bytes);
  }
};

/// @{ cuDNN's descriptors, which their destructor frees.
struct TensorDescriptor {
  cudnnTensorDescriptor_t descriptor = nullptr;
  TensorDescriptor(Extents e, cudnnDataType_t type) {
    UMBRIEL_CHECK_CUDNN(cudnnCreateTensorDescriptor(&descriptor));
    UMBRIEL_CHECK_CUDNN(cudnnSetTensor4dDescriptor(descriptor, CUDNN_TENSOR_NHWC, type, e.n, e.c, e.h, e.w));
  }
  ~TensorDescriptor() { cudnnDestroyTensorDescriptor(descriptor); }
  TensorDescriptor(const TensorDescriptor&) = delete;
  TensorDescriptor& operator=(const TensorDescriptor&) = delete;
};
struct FilterDescriptor {
  cudnnFilterDescriptor_t descriptor = nullptr;
  FilterDescriptor(const Conv2dGeometry& g, cudnnDataType_t type) {
    UMBRIEL_CHECK_CUDNN(cudnnCreateFilterDescriptor(&descriptor));
    UMBRIEL_CHECK_CUDNN(cudnnSetFilter4dDescriptor(descriptor, type, CUDNN_TENSOR_NHWC, g.c_out, g.c_in / g.groups,
                                                   g.kernel_y, g.kernel_x));
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
    // Without FMA_MATH cuDNN rounds float32 to TF32 on its own.
    UMBRIEL_CHECK_CUDNN(cudnnSetConvolutionMathType(
        descriptor, precision == Precision::float32 ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH));
  }
  ~ConvolutionDescriptor() { cudnnDestroyConvolutionDescriptor(descriptor); }
  ConvolutionDescriptor(const ConvolutionDescriptor&) = delete;
  ConvolutionDescriptor& operator=(const ConvolutionDescriptor&) = delete;
};
struct ActivationDescriptor {
  cudnnActivationDescriptor_t descriptor = nullptr;
  explicit ActivationDescriptor(Activation f) {
    UMBRIEL_CHECK_CUDNN(cudnnCreateActivationDescriptor(&descriptor));
    const auto mode = f == Activation::relu ? CUDNN_ACTIVATION_RELU : CUDNN_ACTIVATION_IDENTITY;
    UMBRIEL_CHECK_CUDNN(cudnnSetActivationDescriptor(descriptor, mode, CUDNN_PROPAGATE_NAN, 0.0));
  }
  ~ActivationDescriptor() { cudnnDestroyActivationDescriptor(descriptor); }
  ActivationDescriptor(const ActivationDescriptor&) = delete;
  ActivationDescriptor& operator=(const ActivationDescriptor&) = delete;
};
/// @}

// Kernels below take `width` channels of a pixel a thread (packs.hpp).

/// Samples into a dense tile with periodic padding; zeros where the tile has more samples.
template <class T, int width>
struct Stage {
  ConstActivations from;
  T* to;  ///< [tile, h + 2 pad_y, w + 2 pad_x, c]
  Extents staged;
  int pad_y, pad_x;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const detail::PackIndex<width> at(i, staged.c);
    const detail::Split column(at.pixel, staged.w), row(column.whole, staged.h);
    // Padding is no wider than the map.
    const int h = from.extents.h, w = from.extents.w;
    int y = row.rest - pad_y, x = column.rest - pad_x;
    y += y < 0 ? h : y >= h ? -h : 0;
    x += x < 0 ? w : x >= w ? -w : 0;
    detail::Pack<width> values{};
    if (row.whole < from.extents.n)
      values = detail::Pack<width>::load(&from(static_cast<int>(row.whole), y, x, at.channel));
    T* const out = to + i * width;
    if constexpr (std::is_same_v<T, float>) {
      values.store(out);
    } else {
      for (int c = 0; c < width; ++c) out[c] = T(values.value[c]);
    }
  }
};

/// The transpose of Stage, a channel a thread: every pixel collects its copies, in the order of the padded map.
template <class T>
struct Fold {
  const T* from;  ///< [tile, h + 2 pad_y, w + 2 pad_x, c]
  Activations to;
  int pad_y, pad_x;
  bool accumulate;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const int h = to.extents.h, w = to.extents.w, channels = to.extents.c;
    const detail::PackIndex<1> at(i, channels);
    const detail::Split column(at.pixel, w), row(column.whole, h);
    const int c = at.channel, x = column.rest, y = row.rest, n = static_cast<int>(row.whole);
    const int padded_h = h + 2 * pad_y, padded_w = w + 2 * pad_x;
    float sum = 0;
    for (int py = (y + pad_y) % h; py < padded_h; py += h) {
      for (int px = (x + pad_x) % w; px < padded_w; px += w) {
        sum +=
            static_cast<float>(from[((static_cast<std::int64_t>(n) * padded_h + py) * padded_w + px) * channels + c]);
      }
    }
    float& target = to(n, y, x, c);
    target = accumulate ? target + sum : sum;
  }
};

/// y = f(convolved + bias + residual); convolved may be y.
template <class T, int width>
struct Finish {
  const T* convolved;  ///< dense
  const float* bias;
  ConstActivations residual;
  Activation activation;
  Activations y;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const detail::PackIndex<width> at(i, y.extents.c);
    detail::Pack<width> values{}, added{};
    if constexpr (std::is_same_v<T, float>) {
      values = detail::Pack<width>::load(convolved + i * width);
    } else {
      for (int c = 0; c < width; ++c) values.value[c] = static_cast<float>(convolved[i * width + c]);
    }
    if (residual.data) added = detail::Pack<width>::load(residual.pixel(at.pixel) + at.channel);
    for (int c = 0; c < width; ++c) {
      float value = values.value[c];
      if (bias) value += bias[at.channel + c];
      if (residual.data) value += added.value[c];
      values.value[c] = activation_value(activation, value);
    }
    values.store(y.pixel(at.pixel) + at.channel);
  }
};

/// Our weights [ky, kx, ci, co] to cuDNN's [co, ky, kx, ci].
template <class T>
struct ToFilter {
  const float* weights;
  T* filter;
  std::int64_t fan_in, c_out;  ///< fan_in = ky kx ci

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    filter[i % c_out * fan_in + i / c_out] = T(weights[i]);
  }
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

/// Numbers in [-1, 1) that look random, for measuring.
template <class T>
struct Scatter {
  T* to;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    auto word = static_cast<std::uint32_t>(i) * 2654435761U;
    word = (word ^ word >> 15) * 2246822519U;
    to[i] = T(static_cast<float>(static_cast<std::int32_t>(word ^ word >> 13)) * 0x1p-31f);
  }
};

template <class T>
struct CountDifferent {
  const T *a, *b;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i, std::int64_t& different) const {
    if constexpr (std::is_same_v<T, float>) {
      different += std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]);
    } else {
      different += a[i].bits != b[i].bits;
    }
  }
};

/// Samples of the least tile: enough pixels to be worth a call, by the size of the map alone.
int samples_of_a_unit(std::int64_t pixels) {
  int samples = 1;
  while (samples < 256 && samples * pixels < (1 << 16)) samples *= 2;
  return samples;
}

/// Pixels of which the gradient of the weights is summed in float32; from tile to tile it is summed in float64.
constexpr std::int64_t most_pixels_of_a_sum = 1 << 17;

/// @tparam T  of the arrays that cuDNN reads and writes in the forward pass and for the gradient of the input
template <class T>
class CudnnConv2d final : public Conv2d::Implementation {
 public:
  CudnnConv2d(const Conv2dGeometry& geometry, Extents input, const Passes& passes, Precision precision)
      : g_(geometry),
        pad_y_(geometry.padding == Padding::periodic ? geometry.pad_y : 0),
        pad_x_(geometry.padding == Padding::periodic ? geometry.pad_x : 0),
        padded_{0, input.h + 2 * pad_y_, input.w + 2 * pad_x_, input.c},
        output_{0, geometry.output_height(input.h), geometry.output_width(input.w), geometry.c_out},
        fan_in_(geometry.weights() / geometry.c_out),
        shared_(Shared::get()),
        filter_(geometry, data_type<T>),
        convolution_(geometry, geometry.pad_y - pad_y_, geometry.pad_x - pad_x_, precision),
        weights_(uninitialised<View1<T>>("umbriel::conv2d_filter", geometry.weights())) {
    const std::int64_t pixels = static_cast<std::int64_t>(input.h) * input.w;
    const int unit = samples_of_a_unit(pixels);
    units_ = std::make_unique<Tile>(*this, unit, data_type<T>);
    reserve(*units_, sizeof(T));
    if (passes.forward) plan_forward(*units_);
    if (passes.data) plan_data(*units_);
    for (int samples = 2 * unit; samples <= input.n; samples *= 2) {
      auto tile = std::make_unique<Tile>(*this, samples, data_type<T>);
      reserve(*tile, sizeof(T));
      if (passes.forward) plan_forward(*tile);
      if (passes.data) plan_data(*tile);
      if ((!passes.forward || same_forward(*tile)) && (!passes.data || same_data(*tile)))
        tiles_.push_back(std::move(tile));
    }
    if (passes.weights) {
      int samples = 1;
      while (2 * samples <= input.n && 2 * samples * pixels <= most_pixels_of_a_sum) samples *= 2;
      summed_ = std::make_unique<Tile>(*this, samples, CUDNN_DATA_FLOAT);
      float_filter_ = std::make_unique<FilterDescriptor>(geometry, CUDNN_DATA_FLOAT);
      reserve(*summed_, sizeof(float));
      std::size_t bytes = 0;
      UMBRIEL_CHECK_CUDNN(cudnnGetConvolutionBackwardFilterWorkspaceSize(
          handle(Space()), summed_->x.descriptor, summed_->y.descriptor, convolution_.descriptor,
          float_filter_->descriptor, weights_algorithm, &bytes));
      Shared::reserve(shared_->workspace, bytes);
      gradient_ = uninitialised<View1<float>>("umbriel::conv2d_filter_gradient", geometry.weights());
      sums_ = uninitialised<View1<double>>("umbriel::conv2d_weight_sums", geometry.weights());
      stretches_ = std::min(output_.h, 64);
      bias_partial_ = uninitialised<View2<double>>("umbriel::conv2d_bias_partial", stretches_, geometry.c_out);
    }
  }

  void set_weights(const Space& space, const float* weights) override {
    Kokkos::parallel_for("umbriel::conv2d_set_weights", Range(space, 0, g_.weights()),
                         ToFilter<T>{weights, weights_.data(), fan_in_, g_.c_out});
  }

  void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
               Activation activation, Activations y) const override {
    const bool epilogue = has_epilogue_ && (activation == Activation::none || activation == Activation::relu) &&
                          (bias || residual || activation != Activation::none);
    each_tile(x.extents.n, [&](const Tile& tile, int first, int n) {
      const Activations target = y.samples(first, n);
      const ConstActivations skip = residual ? residual.samples(first, n) : ConstActivations();
      const bool whole = n == tile.samples && std::is_same_v<T, float>;
      const T* from = input(space, tile, x.samples(first, n));
      if (epilogue) {
        // cuDNN lets the residual be the array that it writes.
        T* to = whole && fits(target) ? as<T>(target.data) : staged_y<T>();
        const T* added = to;
        if (skip && whole && fits(skip)) {
          added = as<T>(skip.data);
        } else if (skip) {
          stage_output(space, tile, skip, to);
        }
        UMBRIEL_CHECK_CUDNN(convolve_and_finish(space, tile, from, bias ? bias : no_bias_.data(),
                                                skip ? added : nullptr,
                                                activation == Activation::relu ? *relu_ : *identity_, to));
        if (to != as<T>(target.data)) finish(space, to, nullptr, {}, Activation::none, target);
        return;
      }
      // The residual is read after the convolution is written.
      const bool direct = whole && fits(target) && skip.data != target.data;
      T* convolved = direct ? as<T>(target.data) : staged_y<T>();
      convolve(space, tile, from, convolved);
      if (direct && !bias && !skip && activation == Activation::none) return;
      finish(space, convolved, bias, skip, activation, target);
    });
  }

  void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const override {
    each_tile(dy.extents.n, [&](const Tile& tile, int first, int n) {
      const Activations target = dx.samples(first, n);
      const bool direct =
          std::is_same_v<T, float> && n == tile.samples && fits(target) && !accumulate && pad_y_ == 0 && pad_x_ == 0;
      T* gradient = direct ? as<T>(target.data) : staged_x<T>();
      bring_back(space, tile, output<T>(space, tile, dy.samples(first, n)), gradient);
      if (direct) return;
      Kokkos::parallel_for("umbriel::conv2d_fold", Range(space, 0, target.extents.elements()),
                           Fold<T>{gradient, target, pad_y_, pad_x_, accumulate});
    });
  }

  void backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights, float* dbias,
                        bool accumulate) const override {
    const Tile& tile = *summed_;
    Kokkos::deep_copy(space, sums_, 0.0);
    for (int first = 0; first < x.extents.n; first += tile.samples) {
      const int n = std::min(tile.samples, x.extents.n - first);
      const float one = 1, zero = 0;
      UMBRIEL_CHECK_CUDNN(cudnnConvolutionBackwardFilter(
          handle(space), &one, tile.x.descriptor, input<float>(space, tile, x.samples(first, n)), tile.y.descriptor,
          output<float>(space, tile, dy.samples(first, n)), convolution_.descriptor, weights_algorithm,
          shared_->workspace.data(), shared_->workspace.size(), &zero, float_filter_->descriptor, gradient_.data()));
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
  /// A number of samples that cuDNN takes in one call.
  struct Tile {
    int samples;
    Extents padded, output;
    TensorDescriptor x, y;
    std::size_t forward_bytes = 0, data_bytes = 0;  ///< of workspace, on which cuDNN's choice may depend

    Tile(const CudnnConv2d& layer, int n, cudnnDataType_t type)
        : samples(n),
          padded{n, layer.padded_.h, layer.padded_.w, layer.padded_.c},
          output{n, layer.output_.h, layer.output_.w, layer.output_.c},
          x(padded, type),
          y(output, type) {}
  };

  /// Calls f(tile, first, n) for all samples, in the largest tiles that fit; n < tile.samples in the last one at most.
  template <class F>
  void each_tile(int samples, const F& f) const {
    for (int first = 0; first < samples;) {
      const Tile* tile = units_.get();
      for (const auto& larger : tiles_) {
        if (larger->samples <= samples - first) tile = larger.get();
      }
      const int n = std::min(tile->samples, samples - first);
      f(*tile, first, n);
      first += n;
    }
  }

  /// True where cuDNN can have the array itself: its kernels load 16 bytes at a time.
  static bool fits(ConstActivations array) {
    return array.dense() && reinterpret_cast<std::uintptr_t>(array.data) % 16 == 0;
  }
  template <class U>
  static U* as(float* data) {
    return reinterpret_cast<U*>(data);
  }
  template <class U>
  static const U* as(const float* data) {
    return reinterpret_cast<const U*>(data);
  }
  template <class U>
  U* staged_x() const {
    return reinterpret_cast<U*>(shared_->x.data());
  }
  template <class U>
  U* staged_y() const {
    return reinterpret_cast<U*>(shared_->y.data());
  }
  cudnnHandle_t handle(const Space& space) const { return shared_->handle.on(space); }

  // --- planning --------------------------------------------------------------------------------------------------
  void reserve(const Tile& tile, std::size_t size) {
    Shared::reserve(shared_->x, static_cast<std::size_t>(tile.padded.elements()) * size);
    Shared::reserve(shared_->y, static_cast<std::size_t>(tile.output.elements()) * size);
  }

  void plan_forward(Tile& tile) {
    UMBRIEL_CHECK_CUDNN(cudnnGetConvolutionForwardWorkspaceSize(handle(Space()), tile.x.descriptor, filter_.descriptor,
                                                                convolution_.descriptor, tile.y.descriptor,
                                                                forward_algorithm, &tile.forward_bytes));
    Shared::reserve(shared_->workspace, tile.forward_bytes);
    if (&tile != units_.get()) return;
    // Not every layer can have cuDNN's epilogue; only a trial tells.
    no_bias_ = View1<float>("umbriel::conv2d_no_bias", g_.c_out);
    bias_descriptor_ = std::make_unique<TensorDescriptor>(Extents{1, 1, 1, g_.c_out}, CUDNN_DATA_FLOAT);
    relu_ = std::make_unique<ActivationDescriptor>(Activation::relu);
    identity_ = std::make_unique<ActivationDescriptor>(Activation::none);
    has_epilogue_ = std::is_same_v<T, float>;
    for (const auto* f : {relu_.get(), identity_.get()}) {
      for (const T* residual : {static_cast<const T*>(nullptr), static_cast<const T*>(staged_y<T>())}) {
        has_epilogue_ = has_epilogue_ && convolve_and_finish(Space(), tile, staged_x<T>(), no_bias_.data(), residual,
                                                             *f, staged_y<T>()) == CUDNN_STATUS_SUCCESS;
      }
    }
    Space().fence();
  }

  void plan_data(Tile& tile) {
    UMBRIEL_CHECK_CUDNN(cudnnGetConvolutionBackwardDataWorkspaceSize(
        handle(Space()), filter_.descriptor, tile.y.descriptor, convolution_.descriptor, tile.x.descriptor,
        data_algorithm, &tile.data_bytes));
    Shared::reserve(shared_->workspace, tile.data_bytes);
  }

  /// True if `run(tile, from, to)` writes the same bits for random arrays in this tile as in units.
  template <class Run>
  bool same_bits(const Tile& tile, std::int64_t in, std::int64_t out, const Run& run) const {
    const Space space;
    const auto from = uninitialised<View1<T>>("umbriel::conv2d_trial", in);
    const auto once = uninitialised<View1<T>>("umbriel::conv2d_trial", out);
    const auto parts = uninitialised<View1<T>>("umbriel::conv2d_trial", out);
    Kokkos::parallel_for("umbriel::conv2d_trial", Range(space, 0, in), Scatter<T>{from.data()});
    Kokkos::parallel_for("umbriel::conv2d_trial", Range(space, 0, g_.weights()), Scatter<T>{weights_.data()});
    run(tile, from.data(), once.data());
    const int units = tile.samples / units_->samples;
    for (int i = 0; i < units; ++i) run(*units_, from.data() + in / units * i, parts.data() + out / units * i);
    std::int64_t different = 0;
    Kokkos::parallel_reduce("umbriel::conv2d_trial", Range(space, 0, out), CountDifferent<T>{once.data(), parts.data()},
                            different);
    return different == 0;
  }
  bool same_forward(const Tile& tile) const {
    const std::int64_t in = tile.padded.elements(), out = tile.output.elements();
    const Space space;
    return same_bits(tile, in, out, [&](const Tile& t, const T* x, T* y) { convolve(space, t, x, y); }) &&
           (!has_epilogue_ || same_bits(tile, in, out, [&](const Tile& t, const T* x, T* y) {
             UMBRIEL_CHECK_CUDNN(convolve_and_finish(space, t, x, no_bias_.data(), nullptr, *relu_, y));
           }));
  }
  bool same_data(const Tile& tile) const {
    const Space space;
    return same_bits(tile, tile.output.elements(), tile.padded.elements(),
                     [&](const Tile& t, const T* dy, T* dx) { bring_back(space, t, dy, dx); });
  }

  // --- calls of cuDNN, on dense arrays of a whole tile -----------------------------------------------------------
  void convolve(const Space& space, const Tile& tile, const T* x, T* y) const {
    const float one = 1, zero = 0;
    UMBRIEL_CHECK_CUDNN(cudnnConvolutionForward(
        handle(space), &one, tile.x.descriptor, x, filter_.descriptor, weights_.data(), convolution_.descriptor,
        forward_algorithm, shared_->workspace.data(), tile.forward_bytes, &zero, tile.y.descriptor, y));
  }
  /// @param residual  may be y, or null
  cudnnStatus_t convolve_and_finish(const Space& space, const Tile& tile, const T* x, const float* bias,
                                    const T* residual, const ActivationDescriptor& f, T* y) const {
    const float one = 1, share = residual ? 1.0f : 0.0f;
    return cudnnConvolutionBiasActivationForward(
        handle(space), &one, tile.x.descriptor, x, filter_.descriptor, weights_.data(), convolution_.descriptor,
        forward_algorithm, shared_->workspace.data(), tile.forward_bytes, &share, tile.y.descriptor,
        residual ? residual : y, bias_descriptor_->descriptor, bias, f.descriptor, tile.y.descriptor, y);
  }
  void bring_back(const Space& space, const Tile& tile, const T* dy, T* dx) const {
    const float one = 1, zero = 0;
    UMBRIEL_CHECK_CUDNN(cudnnConvolutionBackwardData(
        handle(space), &one, filter_.descriptor, weights_.data(), tile.y.descriptor, dy, convolution_.descriptor,
        data_algorithm, shared_->workspace.data(), tile.data_bytes, &zero, tile.x.descriptor, dx));
  }

  void finish(const Space& space, const T* convolved, const float* bias, ConstActivations residual,
              Activation activation, Activations target) const {
    // Dense arrays of cuDNN's are aligned.
    if (detail::suits_packs(residual) && detail::suits_packs(target)) {
      constexpr int width = detail::widest_pack;
      Kokkos::parallel_for("umbriel::conv2d_finish", Range(space, 0, target.extents.elements() / width),
                           Finish<T, width>{convolved, bias, residual, activation, target});
    } else {
      Kokkos::parallel_for("umbriel::conv2d_finish", Range(space, 0, target.extents.elements()),
                           Finish<T, 1>{convolved, bias, residual, activation, target});
    }
  }

  /// @{ A tile's samples as cuDNN takes them: those of the caller where they fit, else a copy.
  template <class U = T>
  const U* input(const Space& space, const Tile& tile, ConstActivations samples) const {
    if (std::is_same_v<U, float> && samples.extents.n == tile.samples && fits(samples) && pad_y_ == 0 && pad_x_ == 0)
      return as<U>(samples.data);
    stage(space, samples, staged_x<U>(), tile.padded, pad_y_, pad_x_);
    return staged_x<U>();
  }
  template <class U>
  const U* output(const Space& space, const Tile& tile, ConstActivations samples) const {
    if (std::is_same_v<U, float> && samples.extents.n == tile.samples && fits(samples)) return as<U>(samples.data);
    stage_output(space, tile, samples, staged_y<U>());
    return staged_y<U>();
  }
  template <class U>
  void stage_output(const Space& space, const Tile& tile, ConstActivations samples, U* to) const {
    stage(space, samples, to, tile.output, 0, 0);
  }
  template <class U>
  static void stage(const Space& space, ConstActivations samples, U* to, Extents staged, int pad_y, int pad_x) {
    if (detail::suits_packs(samples)) {
      constexpr int width = detail::widest_pack;
      Kokkos::parallel_for("umbriel::conv2d_stage", Range(space, 0, staged.elements() / width),
                           Stage<U, width>{samples, to, staged, pad_y, pad_x});
    } else {
      Kokkos::parallel_for("umbriel::conv2d_stage", Range(space, 0, staged.elements()),
                           Stage<U, 1>{samples, to, staged, pad_y, pad_x});
    }
  }
  /// @}

  Conv2dGeometry g_;
  int pad_y_, pad_x_;        ///< periodic padding, which Stage makes; cuDNN pads with zeros itself
  Extents padded_, output_;  ///< of no sample
  std::int64_t fan_in_;
  std::shared_ptr<Shared> shared_;
  FilterDescriptor filter_;
  ConvolutionDescriptor convolution_;
  View1<T> weights_;  ///< [co, ky, kx, ci]
  std::unique_ptr<Tile> units_;
  std::vector<std::unique_ptr<Tile>> tiles_;  ///< with the bits of units, rising
  bool has_epilogue_ = false;
  View1<float> no_bias_;
  std::unique_ptr<TensorDescriptor> bias_descriptor_;
  std::unique_ptr<ActivationDescriptor> relu_, identity_;
  // Gradient of the weights.
  std::unique_ptr<Tile> summed_;
  std::unique_ptr<FilterDescriptor> float_filter_;
  View1<float> gradient_;
  View1<double> sums_;
  View2<double> bias_partial_;
  int stretches_ = 0;
};

}  // namespace

std::unique_ptr<Conv2d::Implementation> make_cudnn_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                          const Passes& passes, Precision precision) {
  if (precision == Precision::bfloat16)
    return std::make_unique<CudnnConv2d<Bfloat16>>(geometry, input, passes, precision);
  return std::make_unique<CudnnConv2d<float>>(geometry, input, passes, precision);
}

}  // namespace umbriel
