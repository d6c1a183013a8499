// Convolutions by oneDNN on processors.
//
// Primitives are made for one sample and run over the batch, so that a sample's bits cannot depend on the batch. The
// fast implementations want dense arrays and zero padding: periodic maps and channel slices are copied into a dense,
// padded array of one sample first, which costs a percent or two. oneDNN chooses the layout of the weights.
#include <dnnl.hpp>

#ifdef _OPENMP
#include <omp.h>
#endif

#include <array>
#include <cstring>
#include <map>
#include <utility>

#include "umbriel/core/check.hpp"
#include "umbriel/core/loops.hpp"
#include "umbriel/ops/conv2d_implementation.hpp"

namespace umbriel {
namespace {

using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;

/// Left alone oneDNN takes an OpenMP thread a core whatever Kokkos does: two ranks on a machine, with a serial Kokkos each,
/// would then wait for each other's threads. It gets as many as the kernels have. The setting is the calling thread's
/// own, and primitives must be made and run under the same.
void use_threads_of_kernels() {
#ifdef _OPENMP
  static const int threads = static_cast<int>(Space().concurrency());
  omp_set_num_threads(threads);
#endif
}

/// Every call of oneDNN goes through here: its threads are limited, and its errors become ours.
template <class F>
auto checked(const F& f) {
  use_threads_of_kernels();
  try {
    return f();
  } catch (const dnnl::error& error) {
    throw Error(ExitCode::numerical, std::string("oneDNN failed: ").append(error.message), "convolution",
                "set DNNL_VERBOSE=1 for more, or choose the kokkos backend");
  }
}

const dnnl::engine& processor() {
  static const dnnl::engine engine = checked([] { return dnnl::engine(dnnl::engine::kind::cpu, 0); });
  return engine;
}

float* writable(const float* data) { return const_cast<float*>(data); }  // NOLINT: oneDNN has no const memory

/// Rows of one sample of x into a dense array with `pad` pixels on each side, from the other side of the map.
struct PadPeriodic {
  ConstActivations x;  ///< one sample
  float* padded;       ///< [h + 2 pad_y, w + 2 pad_x, c]
  int pad_y, pad_x;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t row) const {
    const auto [n, h, w, c] = x.extents;
    const int y = static_cast<int>((row - pad_y + h) % h);
    for (int i = 0; i < w + 2 * pad_x; ++i) {
      const float* from = &x(0, y, (i - pad_x + w) % w, 0);
      float* to = padded + (row * (w + 2 * pad_x) + i) * c;
      UMBRIEL_INDEPENDENT_ITERATIONS
      for (int channel = 0; channel < c; ++channel) to[channel] = from[channel];
    }
  }
};

/// The transpose of PadPeriodic: every pixel of dx collects its copies, in the order of the padded map.
struct FoldPeriodic {
  const float* padded;
  Activations dx;  ///< one sample
  int pad_y, pad_x;
  bool accumulate;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t row) const {
    const auto [n, h, w, c] = dx.extents;
    const int y = static_cast<int>(row);
    for (int x = 0; x < w; ++x) {
      float* to = &dx(0, y, x, 0);
      bool first = !accumulate;
      for (int py = (y + pad_y) % h; py < h + 2 * pad_y; py += h) {
        for (int px = (x + pad_x) % w; px < w + 2 * pad_x; px += w, first = false) {
          const float* from = padded + (static_cast<std::int64_t>(py) * (w + 2 * pad_x) + px) * c;
          UMBRIEL_INDEPENDENT_ITERATIONS
          for (int channel = 0; channel < c; ++channel)
            to[channel] = first ? from[channel] : to[channel] + from[channel];
        }
      }
    }
  }
};

void copy(const Space& space, ConstActivations from, Activations to) {
  for_each_row(
      "umbriel::conv2d_copy", space, from.extents.n, from.extents.h, from.extents.w,
      KOKKOS_LAMBDA(int n, int y, int begin, int end) {
        const int c = from.extents.c;
        for (int x = begin; x < end; ++x) {
          const float* source = &from(n, y, x, 0);
          float* target = &to(n, y, x, 0);
          UMBRIEL_INDEPENDENT_ITERATIONS
          for (int channel = 0; channel < c; ++channel) target[channel] = source[channel];
        }
      });
}

void add(const Space& space, std::int64_t count, const float* from, double* to) {
  Kokkos::parallel_for(
      "umbriel::conv2d_add", Range(space, 0, count),
      KOKKOS_LAMBDA(std::int64_t i) { to[i] += static_cast<double>(from[i]); });
}

void round_sums(const Space& space, std::int64_t count, const double* sums, bool accumulate, float* out) {
  Kokkos::parallel_for(
      "umbriel::conv2d_round", Range(space, 0, count), KOKKOS_LAMBDA(std::int64_t i) {
        out[i] = accumulate ? out[i] + static_cast<float>(sums[i]) : static_cast<float>(sums[i]);
      });
}

class OneDnnConv2d final : public Conv2d::Implementation {
 public:
  OneDnnConv2d(const Conv2dGeometry& geometry, Extents input, const Passes& passes, Precision precision)
      : g_(geometry), periodic_(geometry.padding == Padding::periodic), stream_(processor()) {
    const int pad_y = periodic_ ? geometry.pad_y : 0, pad_x = periodic_ ? geometry.pad_x : 0;
    padded_ = {1, input.h + 2 * pad_y, input.w + 2 * pad_x, input.c};
    output_ = {1, geometry.output_height(input.h), geometry.output_width(input.w), geometry.c_out};
    // TF32 does not exist on processors.
    if (precision == Precision::bfloat16) factors_ = dnnl::memory::data_type::bf16;
    const auto nhwc = [](Extents e) {
      return Desc({1, e.c, e.h, e.w}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::nhwc);
    };
    x_ = nhwc(padded_);
    y_ = nhwc(output_);
    const std::int64_t in = geometry.c_in / geometry.groups, out = geometry.c_out / geometry.groups;
    const std::int64_t kx_step = in * geometry.c_out, ky_step = kx_step * geometry.kernel_x;
    weights_dims_ = {out, in, geometry.kernel_y, geometry.kernel_x};
    Dims steps = {1, geometry.c_out, ky_step, kx_step};
    if (geometry.groups > 1) {
      weights_dims_.insert(weights_dims_.begin(), geometry.groups);
      steps.insert(steps.begin(), out);
    }
    plain_weights_ = Desc(weights_dims_, dnnl::memory::data_type::f32, steps);
    checked([&] {
      try {
        plan(passes);
      } catch (const dnnl::error& error) {
        if (factors_ == dnnl::memory::data_type::f32 || error.status != dnnl_unimplemented) throw;
        factors_ = dnnl::memory::data_type::f32;  // a processor without bfloat16
        plan(passes);
      }
    });
  }

  void set_weights(const Space& space, const float* weights) override {
    space.fence();
    dnnl::memory plain(plain_weights_, processor(), writable(weights));
    checked([&] {
      if (forward_weights_) dnnl::reorder(plain, forward_weights_).execute(stream_, plain, forward_weights_);
      if (data_weights_) dnnl::reorder(plain, data_weights_).execute(stream_, plain, data_weights_);
      stream_.wait();
    });
  }

  void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
               Activation activation, Activations y) const override {
    const dnnl::primitive& primitive = checked([&]() -> const dnnl::primitive& {
      return forward_primitive({bias != nullptr, static_cast<bool>(residual), activation});
    });
    for (int n = 0; n < x.extents.n; ++n) {
      const float* source = staged_input(space, x.samples(n, 1));
      const Activations target = y.dense() ? y.samples(n, 1) : Activations(staged_y_.data(), output_);
      if (residual && residual.samples(n, 1).data != target.data) copy(space, residual.samples(n, 1), target);
      space.fence();
      run(primitive, {{as_factor(DNNL_ARG_SRC, x_memory_, source),
                       {DNNL_ARG_WEIGHTS, &forward_weights_, nullptr},
                       {DNNL_ARG_BIAS, &bias_memory_, bias},
                       {DNNL_ARG_DST, &y_memory_, target.data}}});
      if (!y.dense()) copy(space, target, y.samples(n, 1));
    }
  }

  void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const override {
    const bool direct = dx.dense() && !periodic_ && !accumulate;
    for (int n = 0; n < dy.extents.n; ++n) {
      const float* source = staged_output(space, dy.samples(n, 1));
      float* target = direct ? dx.samples(n, 1).data : staged_x_.data();
      space.fence();
      run(data_, {{as_factor(DNNL_ARG_DIFF_DST, y_memory_, source),
                   {DNNL_ARG_WEIGHTS, &data_weights_, nullptr},
                   {DNNL_ARG_DIFF_SRC, &x_memory_, target},
                   {0, nullptr, nullptr}}});
      if (direct) continue;
      const int pad_y = periodic_ ? g_.pad_y : 0, pad_x = periodic_ ? g_.pad_x : 0;
      Kokkos::parallel_for("umbriel::conv2d_fold", Range(space, 0, dx.extents.h),
                           FoldPeriodic{target, dx.samples(n, 1), pad_y, pad_x, accumulate});
    }
  }

  void backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights, float* dbias,
                        bool accumulate) const override {
    Kokkos::deep_copy(space, sums_, 0.0);
    const std::int64_t weights = g_.weights();
    for (int n = 0; n < x.extents.n; ++n) {
      const float* input = staged_input(space, x.samples(n, 1));
      const float* gradient = staged_output(space, dy.samples(n, 1));
      space.fence();
      run(weights_, {{as_factor(DNNL_ARG_SRC, x_memory_, input),
                      as_factor(DNNL_ARG_DIFF_DST, y_memory_, gradient),
                      {DNNL_ARG_DIFF_WEIGHTS, &weights_gradient_, nullptr},
                      {DNNL_ARG_DIFF_BIAS, &bias_memory_, plain_.data() + weights}}});
      run(plain_gradient_reorder_, {{{DNNL_ARG_FROM, &weights_gradient_, nullptr},
                                     {DNNL_ARG_TO, &plain_gradient_, plain_.data()},
                                     {0, nullptr, nullptr},
                                     {0, nullptr, nullptr}}});
      add(space, weights + g_.c_out, plain_.data(), sums_.data());
    }
    round_sums(space, weights, sums_.data(), accumulate, dweights);
    if (dbias) round_sums(space, g_.c_out, sums_.data() + weights, accumulate, dbias);
  }

 private:
  /// What is fused with a forward convolution.
  struct Fusion {
    bool bias, residual;
    Activation activation;
    auto operator<=>(const Fusion&) const = default;
  };
  struct Argument {
    int key;
    dnnl::memory* memory;  ///< null: no argument
    const float* data;     ///< null: the memory has its own
  };

  void run(const dnnl::primitive& primitive, const std::array<Argument, 4>& arguments) const {
    std::array<dnnl_exec_arg_t, 4> given;
    int count = 0;
    for (const auto& [key, memory, data] : arguments) {
      if (!memory || !*memory) continue;
      if (data) memory->set_data_handle(writable(data));
      given[static_cast<std::size_t>(count++)] = {key, memory->get()};
    }
    checked([&] {
      dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive.get(), stream_.get(), count, given.data()),
                              "could not run a convolution");
      dnnl::error::wrap_c_api(dnnl_stream_wait(stream_.get()), "could not wait");
    });
  }

  /// An array of which products are made: rounded first where those are not float32.
  Argument as_factor(int key, dnnl::memory& memory, const float* data) const {
    if (factors_ == dnnl::memory::data_type::f32) return {key, &memory, data};
    const bool of_x = &memory == &x_memory_;
    dnnl::memory& rounded = of_x ? rounded_x_ : rounded_y_;
    run(of_x ? round_x_ : round_y_, {{{DNNL_ARG_FROM, &memory, data},
                                      {DNNL_ARG_TO, &rounded, nullptr},
                                      {0, nullptr, nullptr},
                                      {0, nullptr, nullptr}}});
    return {key, &rounded, nullptr};
  }

  /// A sample as the primitives want it: dense, and padded where the map is periodic.
  const float* staged_input(const Space& space, ConstActivations sample) const {
    if (periodic_) {
      Kokkos::parallel_for("umbriel::conv2d_pad", Range(space, 0, padded_.h),
                           PadPeriodic{sample, staged_x_.data(), g_.pad_y, g_.pad_x});
    } else if (!sample.dense()) {
      copy(space, sample, Activations(staged_x_.data(), padded_));
    } else {
      return sample.data;
    }
    return staged_x_.data();
  }
  const float* staged_output(const Space& space, ConstActivations sample) const {
    if (sample.dense()) return sample.data;
    copy(space, sample, Activations(staged_y_.data(), output_));
    return staged_y_.data();
  }

  Desc any_weights(dnnl::memory::data_type type) const {
    return Desc(weights_dims_, type, dnnl::memory::format_tag::any);
  }
  Desc factor(Extents e) const { return Desc({1, e.c, e.h, e.w}, factors_, dnnl::memory::format_tag::nhwc); }
  Desc bias_desc() const { return Desc({g_.c_out}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::x); }
  Dims strides() const { return {g_.stride, g_.stride}; }
  Dims padding() const { return periodic_ ? Dims{0, 0} : Dims{g_.pad_y, g_.pad_x}; }
  /// The far padding that leaves no remainder: what a stride does not reach is not part of the sum.
  Dims far_padding() const {
    const Dims near = padding();
    return {(output_.h - 1) * g_.stride + g_.kernel_y - padded_.h - near[0],
            (output_.w - 1) * g_.stride + g_.kernel_x - padded_.w - near[1]};
  }

  dnnl::convolution_forward::primitive_desc forward_desc(const Fusion& fusion, const Desc& weights) const {
    dnnl::post_ops fused;
    if (fusion.residual) fused.append_sum();
    switch (fusion.activation) {
      case Activation::none:
        break;
      case Activation::relu:
        fused.append_eltwise(1, dnnl::algorithm::eltwise_relu, 0, 0);
        break;
      case Activation::elu:
        fused.append_eltwise(1, dnnl::algorithm::eltwise_elu, 1, 0);
        break;
      case Activation::silu:
        fused.append_eltwise(1, dnnl::algorithm::eltwise_swish, 1, 0);
        break;
      case Activation::softplus:
        fused.append_eltwise(1, dnnl::algorithm::eltwise_soft_relu, 0, 0);
        break;
      case Activation::tanh:
        fused.append_eltwise(1, dnnl::algorithm::eltwise_tanh, 0, 0);
        break;
    }
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(fused);
    if (fusion.bias) {
      return {{dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, factor(padded_), weights,
               bias_desc(), y_, strides(), padding(), far_padding()},
              attributes,
              processor()};
    }
    return {{dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, factor(padded_), weights, y_,
             strides(), padding(), far_padding()},
            attributes,
            processor()};
  }

  void plan(const Passes& passes) {
    staged_x_ = View1<float>("umbriel::conv2d_staged_x", padded_.elements());
    staged_y_ = View1<float>("umbriel::conv2d_staged_y", output_.elements());
    x_memory_ = dnnl::memory(x_, processor(), nullptr);
    y_memory_ = dnnl::memory(y_, processor(), nullptr);
    bias_memory_ = dnnl::memory(bias_desc(), processor(), nullptr);
    if (factors_ != dnnl::memory::data_type::f32) {
      rounded_x_ = dnnl::memory(factor(padded_), processor());
      rounded_y_ = dnnl::memory(factor(output_), processor());
      round_x_ = dnnl::reorder(x_memory_, rounded_x_);
      round_y_ = dnnl::reorder(y_memory_, rounded_y_);
    }
    if (passes.forward) plan_forward();
    if (passes.data) plan_backward_data();
    if (passes.weights) plan_backward_weights();
  }

  void plan_forward() {
    const auto desc = forward_desc({false, false, Activation::none}, any_weights(factors_));
    forward_weights_ = dnnl::memory(desc.weights_desc(), processor());
  }

  /// Made at the first call that fuses so: of the dozens of combinations a layer uses one or two.
  const dnnl::primitive& forward_primitive(const Fusion& fusion) const {
    const auto found = forward_.find(fusion);
    if (found != forward_.end()) return found->second;
    return forward_.emplace(fusion, dnnl::convolution_forward(forward_desc(fusion, forward_weights_.get_desc())))
        .first->second;
  }

  void plan_backward_data() {
    const dnnl::convolution_backward_data::primitive_desc desc(
        {dnnl::algorithm::convolution_direct, x_, any_weights(factors_), factor(output_), strides(), padding(),
         far_padding()},
        processor(), forward_desc({false, false, Activation::none}, any_weights(factors_)));
    data_weights_ = dnnl::memory(desc.weights_desc(), processor());
    data_ = dnnl::convolution_backward_data(desc);
  }

  void plan_backward_weights() {
    const dnnl::convolution_backward_weights::primitive_desc desc(
        {dnnl::algorithm::convolution_direct, factor(padded_), any_weights(dnnl::memory::data_type::f32), bias_desc(),
         factor(output_), strides(), padding(), far_padding()},
        processor(), forward_desc({true, false, Activation::none}, any_weights(factors_)));
    weights_gradient_ = dnnl::memory(desc.diff_weights_desc(), processor());
    weights_ = dnnl::convolution_backward_weights(desc);
    plain_ = View1<float>("umbriel::conv2d_plain", g_.weights() + g_.c_out);
    plain_gradient_ = dnnl::memory(plain_weights_, processor(), plain_.data());
    plain_gradient_reorder_ = dnnl::reorder(weights_gradient_, plain_gradient_);
    sums_ = View1<double>("umbriel::conv2d_sums", g_.weights() + g_.c_out);
  }

  Conv2dGeometry g_;
  bool periodic_;
  dnnl::stream stream_;
  dnnl::memory::data_type factors_ = dnnl::memory::data_type::f32;  ///< of products; sums and results are float32
  Extents padded_, output_;                                         ///< of one sample
  Desc x_, y_, plain_weights_;
  Dims weights_dims_;
  // Memory objects hold the pointers of the call being made: a layer serves one call at a time.
  mutable dnnl::memory x_memory_, y_memory_, rounded_x_, rounded_y_, bias_memory_, forward_weights_, data_weights_,
      weights_gradient_, plain_gradient_;
  mutable std::map<Fusion, dnnl::primitive> forward_;
  dnnl::primitive data_, weights_, plain_gradient_reorder_, round_x_, round_y_;
  View1<float> staged_x_, staged_y_, plain_;
  View1<double> sums_;
};

}  // namespace

std::unique_ptr<Conv2d::Implementation> make_onednn_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                           const Passes& passes, Precision precision) {
  return std::make_unique<OneDnnConv2d>(geometry, input, passes, precision);
}

}  // namespace umbriel
