#include "umbriel/nn/operations.hpp"

#include "umbriel/mpi/collectives.hpp"
#include "umbriel/nn/phases.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/ops/normalization.hpp"
#include "umbriel/ops/resample.hpp"

namespace umbriel::nn {

// --- convolution -----------------------------------------------------------------------------------------------------

ConvolutionOperation::ConvolutionOperation(Value x, Value residual, Conv2dGeometry geometry_, ParameterId weight_,
                                           ParameterId bias_, Activation activation_, bool transposed_)
    : geometry(geometry_), weight(weight_), bias(bias_), activation(activation_), transposed(transposed_) {
  inputs = {x};
  if (residual) inputs.push_back(residual);
  parameters = {weight};
  if (bias) parameters.push_back(bias);
}

/// A 3 x 3 convolution by phases (phases.hpp); a 1 x 1 one of the coarse map, which is then upsampled.
struct ConvolutionOperation::OnCoarseMap {
  const Conv2dGeometry fine;
  const bool by_phases;
  Conv2d conv;
  Tensor result;                   // of conv, and its gradient on the way back
  View1<float> weights, dweights;  // of the phases

  OnCoarseMap(const Conv2dGeometry& geometry, Extents coarse, const Options& options)
      : fine(geometry),
        by_phases(geometry.kernel_y == 3),
        conv(by_phases ? phase_geometry(geometry) : geometry, coarse, true, options.backend, options.precision) {
    const Extents e = conv.output();
    result = uninitialised<Tensor>("umbriel::nn::coarse_result", e.n, e.h, e.w, e.c);
    if (!by_phases) return;
    weights = View1<float>("umbriel::nn::phase_weights", static_cast<std::size_t>(conv.geometry().weights()));
    dweights = View1<float>("umbriel::nn::phase_gradients", static_cast<std::size_t>(conv.geometry().weights()));
  }

  void set_weights(const Space& space, const float* values) {
    if (by_phases) phase_weights(space, fine, values, weights.data());
    conv.set_weights(space, by_phases ? weights.data() : values);
  }

  /// y = conv(x upsampled) + bias
  void forward(const Space& space, ConstActivations x, const float* bias, Activations y) const {
    conv.forward(space, x, by_phases ? nullptr : bias, {}, Activation::none, result);
    if (by_phases) {
      interleave(space, result, bias, {}, Activation::none, y);
    } else {
      upsample_nearest(space, result, 2, y);
    }
  }

  /// @param dx  of the coarse map, or empty
  void backward(const Space& space, ConstActivations x, ConstActivations dy, float* dw, bool adds, Activations dx,
                bool accumulate) const {
    if (by_phases) {
      separate(space, dy, result);
      conv.backward_weights(space, x, result, dweights.data(), nullptr, false);
      fine_weights_gradient(space, fine, dweights.data(), dw, adds);
    } else {
      upsample_nearest_backward(space, dy, 2, result, false);
      conv.backward_weights(space, x, result, dw, nullptr, adds);
    }
    if (dx) conv.backward_data(space, result, dx, accumulate);
  }
};

ConvolutionOperation::~ConvolutionOperation() = default;

bool ConvolutionOperation::suits_coarse_map() const {
  // Periodic maps of phases have no period of their own, which would make their gradients slow.
  return !transposed && inputs.size() == 1 && nn::suits_coarse_map(geometry) &&
         (geometry.kernel_y == 1 || geometry.padding == Padding::zeros);
}

void ConvolutionOperation::plan(const Tape& tape) {
  const Extents wide = tape.extents(transposed ? output : inputs[0]);
  if (tape.left_out(inputs[0])) {
    coarse_ = std::make_unique<OnCoarseMap>(geometry, Extents{wide.n, wide.h / 2, wide.w / 2, wide.c}, tape.options());
  } else {
    conv_ = std::make_unique<Conv2d>(geometry, wide, tape.training() || transposed, tape.options().backend,
                                     tape.options().precision);
  }
  const bool keeps_input = tape.training() && !derivative_from_output(activation);
  if (keeps_input || (transposed && (bias || activation != Activation::none))) {
    const Extents e = tape.extents(output);
    before_ = uninitialised<Tensor>("umbriel::nn::before_activation", e.n, e.h, e.w, e.c);
  }
}

double ConvolutionOperation::flops(const Tape& tape) const {
  if (coarse_) return coarse_->conv.flops();
  const Extents narrow = tape.extents(transposed ? inputs[0] : output);
  return 2.0 * static_cast<double>(narrow.pixels()) * static_cast<double>(geometry.weights());
}

double ConvolutionOperation::bytes(const Tape& tape) const {
  // Weights in the backend's layout, of each pass.
  return (tape.training() ? 2 : 1) * sizeof(float) * static_cast<double>(geometry.weights());
}

namespace {

/// y = f(x + bias[c])
struct AddBias {
  ConstActivations x;
  const float* bias;
  Activations y;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t pixel) const {
    const float* from = x.pixel(pixel);
    float* to = y.pixel(pixel);
    for (int c = 0; c < x.extents.c; ++c) to[c] = from[c] + bias[c];
  }
};

}  // namespace

void ConvolutionOperation::load_parameters(const Space& space, const Tape& tape) {
  if (coarse_) return coarse_->set_weights(space, tape.parameters().value(weight));
  conv_->set_weights(space, tape.parameters().value(weight));
}

void ConvolutionOperation::forward(const Space& space, const Tape& tape) {
  const Activations x = tape.value(inputs[0]), y = tape.value(output);
  const float* b = bias ? tape.parameters().value(bias) : nullptr;
  const ConstActivations residual = inputs.size() > 1 ? ConstActivations(tape.value(inputs[1])) : ConstActivations();
  if (coarse_) {
    const Activations target = before_.data() ? Activations(before_) : y;
    coarse_->forward(space, x, b, target);
    if (activation != Activation::none) activate(space, activation, target, y);
    return;
  }
  if (!transposed && !before_.data()) {
    conv_->forward(space, x, b, residual, activation, y);
    return;
  }
  if (transposed && !before_.data()) {
    conv_->backward_data(space, x, y, false);
    return;
  }
  const Activations before = Activations(before_).samples(0, y.extents.n);
  if (!transposed) {
    conv_->forward(space, x, b, residual, Activation::none, before);
  } else {
    conv_->backward_data(space, x, before, false);
    if (b) {
      Kokkos::parallel_for("umbriel::nn::add_bias", Range(space, 0, y.extents.pixels()), AddBias{before, b, before});
    }
  }
  activate(space, activation, before, y);
}

void ConvolutionOperation::backward(const Space& space, const Tape& tape) {
  const ParameterSet& set = tape.parameters();
  const Activations dy = tape.gradient(output);
  if (activation != Activation::none) {
    const ConstActivations kept = derivative_from_output(activation) ? tape.value(output) : Activations(before_);
    activate_backward(space, activation, kept, dy, dy, false);
  }
  float* dbias = bias ? set.gradient(bias) : nullptr;
  const bool adds = tape.accumulates_parameter(*this, 0);
  if (coarse_) {
    const Activations dx = tape.wants_gradient(inputs[0]) ? tape.gradient(inputs[0]) : Activations();
    coarse_->backward(space, tape.value(inputs[0]), dy, set.gradient(weight), adds, dx, tape.accumulates(*this, 0));
    if (dbias) sum_pixels(space, dy, dbias, tape.accumulates_parameter(*this, 1));
    return;
  }
  const bool inputs_only = tape.options().inputs_only;
  if (transposed) {
    if (!inputs_only) {
      conv_->backward_weights(space, dy, tape.value(inputs[0]), set.gradient(weight), nullptr, adds);
      if (dbias) sum_pixels(space, dy, dbias, tape.accumulates_parameter(*this, 1));
    }
    if (tape.wants_gradient(inputs[0])) {
      const Activations dx = tape.gradient(inputs[0]);
      conv_->forward(space, dy, nullptr, tape.accumulates(*this, 0) ? ConstActivations(dx) : ConstActivations(),
                     Activation::none, dx);
    }
    return;
  }
  if (!inputs_only) conv_->backward_weights(space, tape.value(inputs[0]), dy, set.gradient(weight), dbias, adds);
  if (tape.wants_gradient(inputs[0]))
    conv_->backward_data(space, dy, tape.gradient(inputs[0]), tape.accumulates(*this, 0));
  // After the first input's, to which this adds where both are one value.
  if (inputs.size() > 1 && tape.wants_gradient(inputs[1]))
    copy_channels(space, dy, tape.gradient(inputs[1]), tape.accumulates(*this, 1));
}

// --- batch norm ------------------------------------------------------------------------------------------------------

BatchNormOperation::BatchNormOperation(Value x, Value residual, ParameterId gamma_, ParameterId beta_,
                                       ParameterId running_mean_, ParameterId running_variance_, float decay_,
                                       float epsilon_, Activation activation_)
    : gamma(gamma_),
      beta(beta_),
      running_mean(running_mean_),
      running_variance(running_variance_),
      decay(decay_),
      epsilon(epsilon_),
      activation(activation_) {
  inputs = {x};
  if (residual) inputs.push_back(residual);
  parameters = {gamma, beta};
}

void BatchNormOperation::plan(const Tape& tape) {
  require(
      !tape.training() || inputs.size() == 1 || derivative_from_output(activation), ExitCode::usage,
      std::string("a batch norm with a residual cannot be trained with the nonlinearity ").append(name_of(activation)),
      "batch norm", "apply the nonlinearity behind it");
  const int channels = tape.extents(output).c;
  const auto c = static_cast<std::size_t>(channels);
  sums_ = View1<double>("umbriel::nn::moment_sums", 2 * c + 1);
  mean_ = View1<float>("umbriel::nn::mean", c);
  rstd_ = View1<float>("umbriel::nn::rstd", c);
  scale_ = View1<float>("umbriel::nn::scale", c);
  shift_ = View1<float>("umbriel::nn::shift", c);
}

namespace {

/// Moments, running moments and the affine map of one channel. sums: of x - running mean, of its square, and at the
/// end the number of pixels.
struct FinishMoments {
  View1<double> sums;
  const float *gamma, *beta;
  float *running_mean, *running_variance;
  View1<float> mean, rstd, scale, shift;
  float decay, epsilon;
  int channels;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t c) const {
    const double count = sums(2 * channels);
    const double offset = sums(c) / count;
    const double square = sums(channels + c) / count - offset * offset;
    const double variance = square > 0 ? square : 0;
    const double m = static_cast<double>(running_mean[c]) + offset;
    const double r = 1.0 / math::sqrt(variance + static_cast<double>(epsilon));
    mean(c) = static_cast<float>(m);
    rstd(c) = static_cast<float>(r);
    scale(c) = static_cast<float>(gamma[c] * r);
    shift(c) = static_cast<float>(beta[c] - m * gamma[c] * r);
    const double unbiased = count > 1 ? variance * count / (count - 1) : variance;
    running_mean[c] = static_cast<float>(decay * running_mean[c] + (1.0f - decay) * m);
    running_variance[c] = static_cast<float>(decay * running_variance[c] + (1.0f - decay) * unbiased);
  }
};

struct UseRunningMoments {
  const float *gamma, *beta, *running_mean, *running_variance;
  View1<float> scale, shift;
  float epsilon;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t c) const {
    const float r = 1.0f / math::sqrt(running_variance[c] + epsilon);
    scale(c) = gamma[c] * r;
    shift(c) = beta[c] - running_mean[c] * gamma[c] * r;
  }
};

struct SetCount {
  View1<double> sums;
  std::int64_t index;
  double count;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t) const { sums(index) = count; }
};

struct KeepNormGradients {
  View1<double> sums;
  float *dgamma, *dbeta;
  int channels;
  bool add_gamma, add_beta;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t c) const {
    dbeta[c] = (add_beta ? dbeta[c] : 0.0f) + static_cast<float>(sums(c));
    dgamma[c] = (add_gamma ? dgamma[c] : 0.0f) + static_cast<float>(sums(channels + c));
  }
};

}  // namespace

void BatchNormOperation::forward(const Space& space, const Tape& tape) {
  const ParameterSet& set = tape.parameters();
  const Activations x = tape.value(inputs[0]);
  const int channels = x.extents.c;
  const Range each_channel(space, 0, channels);
  float* mean = set.buffer(running_mean);
  float* variance = set.buffer(running_variance);
  if (tape.training() && !tape.options().inputs_only) {
    const Communicator& comm = tape.options().comm;
    channel_moments(space, x, mean, sums_);
    Kokkos::parallel_for("umbriel::nn::set_count", Range(space, 0, 1),
                         SetCount{sums_, 2 * channels, static_cast<double>(x.extents.pixels())});
    if (comm.size() > 1) all_reduce_sum(comm, space, sums_);
    count_ = static_cast<double>(x.extents.pixels()) * comm.size();
    Kokkos::parallel_for("umbriel::nn::finish_moments", each_channel,
                         FinishMoments{sums_, set.value(gamma), set.value(beta), mean, variance, mean_, rstd_, scale_,
                                       shift_, decay, epsilon, channels});
  } else {
    Kokkos::parallel_for("umbriel::nn::use_running_moments", each_channel,
                         UseRunningMoments{set.value(gamma), set.value(beta), mean, variance, scale_, shift_, epsilon});
  }
  const ConstActivations residual = inputs.size() > 1 ? ConstActivations(tape.value(inputs[1])) : ConstActivations();
  scale_shift(space, x, scale_.data(), shift_.data(), residual, activation, tape.value(output));
}

void BatchNormOperation::backward(const Space& space, const Tape& tape) {
  const ParameterSet& set = tape.parameters();
  const Communicator& comm = tape.options().comm;
  const Activations x = tape.value(inputs[0]), dy = tape.gradient(output);
  const int channels = x.extents.c;
  batch_norm_backward_sums(space, x, tape.value(output), dy, mean_.data(), rstd_.data(), scale_.data(), shift_.data(),
                           activation, dy, sums_);
  if (tape.options().inputs_only) {
    Kokkos::deep_copy(space, sums_, 0.0);  // moments do not change with x
    count_ = 1;
  } else {
    Kokkos::parallel_for("umbriel::nn::keep_norm_gradients", Range(space, 0, channels),
                         KeepNormGradients{sums_, set.gradient(gamma), set.gradient(beta), channels,
                                           tape.accumulates_parameter(*this, 0), tape.accumulates_parameter(*this, 1)});
    if (comm.size() > 1) all_reduce_sum(comm, space, sums_);
  }
  if (tape.wants_gradient(inputs[0])) {
    batch_norm_backward_data(space, x, dy, mean_.data(), rstd_.data(), scale_.data(), sums_, count_,
                             tape.gradient(inputs[0]), tape.accumulates(*this, 0));
  }
  // After the first input's, to which this adds where both are one value.
  if (inputs.size() > 1 && tape.wants_gradient(inputs[1]))
    copy_channels(space, dy, tape.gradient(inputs[1]), tape.accumulates(*this, 1));
}

// --- group norm ------------------------------------------------------------------------------------------------------

GroupNormOperation::GroupNormOperation(Value x, int groups_, ParameterId gamma_, ParameterId beta_, float epsilon_,
                                       Activation activation_)
    : groups(groups_), gamma(gamma_), beta(beta_), epsilon(epsilon_), activation(activation_) {
  inputs = {x};
  parameters = {gamma, beta};
}

void GroupNormOperation::plan(const Tape& tape) {
  const Extents e = tape.extents(output);
  moments_ = View3<float>("umbriel::nn::group_moments", e.n, groups, 2);
  scratch_ = View3<double>("umbriel::nn::group_scratch", e.n, e.c, 2);
  fresh_ = View2<float>("umbriel::nn::group_gradients", 2, e.c);
}

namespace {

struct AddFresh {
  View2<float> fresh;
  float *dgamma, *dbeta;
  bool add_gamma, add_beta;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t c) const {
    dgamma[c] = (add_gamma ? dgamma[c] : 0.0f) + fresh(0, c);
    dbeta[c] = (add_beta ? dbeta[c] : 0.0f) + fresh(1, c);
  }
};

}  // namespace

void GroupNormOperation::forward(const Space& space, const Tape& tape) {
  const ParameterSet& set = tape.parameters();
  group_norm(space, tape.value(inputs[0]), groups, epsilon, set.value(gamma), set.value(beta), activation,
             tape.value(output), moments_);
}

void GroupNormOperation::backward(const Space& space, const Tape& tape) {
  const ParameterSet& set = tape.parameters();
  const Activations x = tape.value(inputs[0]), dy = tape.gradient(output);
  const bool wanted = tape.wants_gradient(inputs[0]);
  // Without a reader the gradient of x goes where dy was: nobody reads that any more.
  group_norm_backward(space, x, dy, groups, set.value(gamma), set.value(beta), activation, moments_,
                      wanted ? tape.gradient(inputs[0]) : dy, wanted && tape.accumulates(*this, 0), fresh_.data(),
                      fresh_.data() + x.extents.c, scratch_);
  Kokkos::parallel_for("umbriel::nn::add_norm_gradients", Range(space, 0, x.extents.c),
                       AddFresh{fresh_, set.gradient(gamma), set.gradient(beta), tape.accumulates_parameter(*this, 0),
                                tape.accumulates_parameter(*this, 1)});
}

// --- channel norm ----------------------------------------------------------------------------------------------------

ChannelNormOperation::ChannelNormOperation(Value x, ParameterId gamma_, ParameterId beta_, float epsilon_)
    : gamma(gamma_), beta(beta_), epsilon(epsilon_) {
  inputs = {x};
  parameters = {gamma, beta};
}

void ChannelNormOperation::plan(const Tape& tape) {
  if (!tape.training()) return;
  const Extents e = tape.extents(output);
  scratch_ = uninitialised<Tensor>("umbriel::nn::channel_norm_scratch", e.n, e.h, e.w, e.c);
  fresh_ = View2<float>("umbriel::nn::channel_norm_gradients", 2, e.c);
}

void ChannelNormOperation::forward(const Space& space, const Tape& tape) {
  const ParameterSet& set = tape.parameters();
  channel_norm(space, tape.value(inputs[0]), epsilon, set.value(gamma), set.value(beta), tape.value(output));
}

void ChannelNormOperation::backward(const Space& space, const Tape& tape) {
  const ParameterSet& set = tape.parameters();
  const Activations x = tape.value(inputs[0]), dy = tape.gradient(output);
  const bool wanted = tape.wants_gradient(inputs[0]);
  // As for group norm.
  channel_norm_backward(space, x, dy, epsilon, set.value(gamma), wanted ? tape.gradient(inputs[0]) : dy,
                        wanted && tape.accumulates(*this, 0), fresh_.data(), fresh_.data() + x.extents.c, scratch_);
  Kokkos::parallel_for("umbriel::nn::add_norm_gradients", Range(space, 0, x.extents.c),
                       AddFresh{fresh_, set.gradient(gamma), set.gradient(beta), tape.accumulates_parameter(*this, 0),
                                tape.accumulates_parameter(*this, 1)});
}

// --- the rest --------------------------------------------------------------------------------------------------------

void ActivationOperation::forward(const Space& space, const Tape& tape) {
  activate(space, activation, tape.value(inputs[0]), tape.value(output));
}

void ActivationOperation::backward(const Space& space, const Tape& tape) {
  const Activations kept = tape.value(derivative_from_output(activation) ? output : inputs[0]);
  activate_backward(space, activation, kept, tape.gradient(output), tape.gradient(inputs[0]),
                    tape.accumulates(*this, 0));
}

void SumOperation::forward(const Space& space, const Tape& tape) {
  linear_combination(space, alpha, tape.value(inputs[0]), beta, tape.value(inputs[1]), tape.value(output));
}

void SumOperation::backward(const Space& space, const Tape& tape) {
  const Activations dy = tape.gradient(output);
  for (const int i : {0, 1}) {
    if (!tape.wants_gradient(inputs[static_cast<std::size_t>(i)])) continue;
    linear_combination(space, i == 0 ? alpha : beta, dy, 0.0f, dy, tape.gradient(inputs[static_cast<std::size_t>(i)]),
                       tape.accumulates(*this, i));
  }
}

void ProductOperation::forward(const Space& space, const Tape& tape) {
  multiply(space, tape.value(inputs[0]), tape.value(inputs[1]), tape.value(output));
}

void ProductOperation::backward(const Space& space, const Tape& tape) {
  const Activations dy = tape.gradient(output);
  if (tape.wants_gradient(inputs[0]))
    multiply(space, dy, tape.value(inputs[1]), tape.gradient(inputs[0]), tape.accumulates(*this, 0));
  if (tape.wants_gradient(inputs[1]))
    multiply(space, dy, tape.value(inputs[0]), tape.gradient(inputs[1]), tape.accumulates(*this, 1));
}

void ModulateOperation::plan(const Tape& tape) {
  const Extents e = tape.extents(output);
  if (!tape.training()) return;
  scratch_ = View3<double>("umbriel::nn::modulation_scratch", e.n, e.c, 2);
  fresh_ = Tensor("umbriel::nn::modulation_gradient", e.n, 1, 1, 2 * e.c);
}

void ModulateOperation::forward(const Space& space, const Tape& tape) {
  const int c = tape.extents(output).c;
  const Activations m = tape.value(inputs[1]);
  modulate(space, tape.value(inputs[0]), m.channels(0, c), m.channels(c, c), tape.value(output));
}

void ModulateOperation::backward(const Space& space, const Tape& tape) {
  const int c = tape.extents(output).c;
  const Activations x = tape.value(inputs[0]), m = tape.value(inputs[1]);
  const Activations fresh(fresh_);
  modulate_backward(space, x, m.channels(0, c), tape.gradient(output),
                    tape.wants_gradient(inputs[0]) ? tape.gradient(inputs[0]) : Activations(),
                    tape.accumulates(*this, 0), fresh.channels(0, c), fresh.channels(c, c), scratch_);
  if (tape.wants_gradient(inputs[1])) copy_channels(space, fresh, tape.gradient(inputs[1]), tape.accumulates(*this, 1));
}

void PoolOperation::forward(const Space& space, const Tape& tape) {
  average_pool(space, tape.value(inputs[0]), factor, tape.value(output));
}

void PoolOperation::backward(const Space& space, const Tape& tape) {
  average_pool_backward(space, tape.gradient(output), factor, tape.gradient(inputs[0]), tape.accumulates(*this, 0));
}

void UpsampleOperation::forward(const Space& space, const Tape& tape) {
  upsample_nearest(space, tape.value(inputs[0]), factor, tape.value(output));
}

void UpsampleOperation::backward(const Space& space, const Tape& tape) {
  upsample_nearest_backward(space, tape.gradient(output), factor, tape.gradient(inputs[0]), tape.accumulates(*this, 0));
}

namespace {

/// The elements of `from` as a map of other extents.
Activations reshaped(const Activations& from, const Extents& extents) {
  require(from.dense(), ExitCode::usage, "a part of other activations cannot be reshaped", "reshape",
          "reshape before values are put side by side");
  return {from.data, extents};
}

}  // namespace

void ReshapeOperation::forward(const Space& space, const Tape& tape) {
  const Activations y = tape.value(output);
  copy_channels(space, reshaped(tape.value(inputs[0]), y.extents), y);
}

void ReshapeOperation::backward(const Space& space, const Tape& tape) {
  const Activations dy = tape.gradient(output);
  copy_channels(space, dy, reshaped(tape.gradient(inputs[0]), dy.extents), tape.accumulates(*this, 0));
}

void ConcatenateOperation::forward(const Space& space, const Tape& tape) {
  const Activations y = tape.value(output);
  int channel = 0;
  for (const Value input : inputs) {
    const Activations x = tape.value(input), part = y.channels(channel, x.extents.c);
    if (x.data != part.data) copy_channels(space, x, part);
    channel += x.extents.c;
  }
}

void ConcatenateOperation::backward(const Space& space, const Tape& tape) {
  const Activations dy = tape.gradient(output);
  int channel = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const int c = tape.extents(inputs[i]).c;
    if (tape.wants_gradient(inputs[i])) {
      const Activations dx = tape.gradient(inputs[i]), part = dy.channels(channel, c);
      if (dx.data != part.data) copy_channels(space, part, dx, tape.accumulates(*this, static_cast<int>(i)));
    }
    channel += c;
  }
}

void ScaleSamplesOperation::forward(const Space& space, const Tape& tape) {
  scale_samples(space, tape.value(inputs[0]), tape.scalars(factor), tape.value(output));
}

void ScaleSamplesOperation::backward(const Space& space, const Tape& tape) {
  scale_samples(space, tape.gradient(output), tape.scalars(factor), tape.gradient(inputs[0]),
                tape.accumulates(*this, 0));
}

void PlaneOperation::forward(const Space& space, const Tape& tape) {
  fill_samples(space, tape.scalars(value), tape.value(output));
}

}  // namespace umbriel::nn
