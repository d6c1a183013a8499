#include "umbriel/nn/layers.hpp"

#include "umbriel/nn/operations.hpp"

namespace umbriel::nn {

std::string join_names(const std::string& scope, const std::string& name) {
  return scope.empty() ? name : scope + "." + name;
}

Convolution::Convolution(ParameterSet& set, const std::string& name, int c_in, int c_out, const Settings& s)
    : transposed_(s.transposed) {
  const int pad = s.pad >= 0 ? s.pad : (s.kernel - 1) / 2;
  // A transposed layer is described by the convolution that it transposes.
  geometry_ = {s.transposed ? c_out : c_in, s.transposed ? c_in : c_out, s.kernel, s.kernel, s.stride, pad, pad,
               s.padding,                   s.groups};
  weight_ = set.add(join_names(name, "weight"), s.transposed ? Role::transposed_convolution : Role::convolution,
                    {s.kernel, s.kernel, geometry_.c_in / s.groups, geometry_.c_out}, s.spectral);
  if (s.starts_at_zero) set.start_at_zero(weight_);
  if (s.bias) bias_ = set.add(join_names(name, "bias"), Role::bias, {c_out});
  if (s.bias && s.starts_at_zero) set.start_at_zero(bias_);
}

Value Convolution::operator()(Tape& tape, Value x, Activation f) const {
  const Extents in = tape.extents(x);
  const Conv2dGeometry& g = geometry_;
  Extents out = in;
  if (transposed_) {
    out.h = (in.h - 1) * g.stride - 2 * g.pad_y + g.kernel_y;
    out.w = (in.w - 1) * g.stride - 2 * g.pad_x + g.kernel_x;
    out.c = g.c_in;
  } else {
    out.h = g.output_height(in.h);
    out.w = g.output_width(in.w);
    out.c = g.c_out;
  }
  return tape.record(std::make_unique<ConvolutionOperation>(x, Value{}, g, weight_, bias_, f, transposed_), out);
}

Dense::Dense(ParameterSet& set, const std::string& name, int c_in, int c_out, bool starts_at_zero)
    : geometry_{c_in, c_out, 1, 1, 1, 0, 0, Padding::zeros, 1} {
  weight_ = set.add(join_names(name, "weight"), Role::dense, {c_in, c_out});
  bias_ = set.add(join_names(name, "bias"), Role::bias, {c_out});
  if (starts_at_zero) {
    set.start_at_zero(weight_);
    set.start_at_zero(bias_);
  }
}

Value Dense::operator()(Tape& tape, Value x, Activation f) const {
  return tape.record(std::make_unique<ConvolutionOperation>(x, Value{}, geometry_, weight_, bias_, f, false),
                     {tape.extents(x).n, 1, 1, geometry_.c_out});
}

BatchNorm::BatchNorm(ParameterSet& set, const std::string& name, int channels, float decay, float epsilon)
    : decay_(decay), epsilon_(epsilon) {
  gamma_ = set.add(join_names(name, "weight"), Role::scale, {channels});
  beta_ = set.add(join_names(name, "bias"), Role::shift, {channels});
  mean_ = set.add_buffer(join_names(name, "running_mean"), {channels}, 0.0f);
  variance_ = set.add_buffer(join_names(name, "running_var"), {channels}, 1.0f);
}

Value BatchNorm::operator()(Tape& tape, Value x, Activation f, Value residual) const {
  return tape.record(
      std::make_unique<BatchNormOperation>(x, residual, gamma_, beta_, mean_, variance_, decay_, epsilon_, f),
      tape.extents(x));
}

GroupNorm::GroupNorm(ParameterSet& set, const std::string& name, int channels, int groups, float epsilon)
    : groups_(groups), epsilon_(epsilon) {
  gamma_ = set.add(join_names(name, "weight"), Role::scale, {channels});
  beta_ = set.add(join_names(name, "bias"), Role::shift, {channels});
}

Value GroupNorm::operator()(Tape& tape, Value x, Activation f) const {
  return tape.record(std::make_unique<GroupNormOperation>(x, groups_, gamma_, beta_, epsilon_, f), tape.extents(x));
}

ChannelNorm::ChannelNorm(ParameterSet& set, const std::string& name, int channels, float epsilon) : epsilon_(epsilon) {
  gamma_ = set.add(join_names(name, "weight"), Role::scale, {channels});
  beta_ = set.add(join_names(name, "bias"), Role::shift, {channels});
}

Value ChannelNorm::operator()(Tape& tape, Value x) const {
  return tape.record(std::make_unique<ChannelNormOperation>(x, gamma_, beta_, epsilon_), tape.extents(x));
}

Value activation(Tape& tape, Value x, Activation f) {
  return tape.record(std::make_unique<ActivationOperation>(x, f), tape.extents(x));
}

Value sum(Tape& tape, Value a, Value b, float alpha, float beta) {
  return tape.record(std::make_unique<SumOperation>(alpha, a, beta, b), tape.extents(a));
}

Value product(Tape& tape, Value a, Value b) {
  return tape.record(std::make_unique<ProductOperation>(a, b), tape.extents(a));
}

Value modulate(Tape& tape, Value x, Value modulation) {
  return tape.record(std::make_unique<ModulateOperation>(x, modulation), tape.extents(x));
}

Value average_pool(Tape& tape, Value x, int factor) {
  Extents e = tape.extents(x);
  e.h /= factor;
  e.w /= factor;
  return tape.record(std::make_unique<PoolOperation>(x, factor), e);
}

Value upsample(Tape& tape, Value x, int factor) {
  Extents e = tape.extents(x);
  e.h *= factor;
  e.w *= factor;
  return tape.record(std::make_unique<UpsampleOperation>(x, factor), e);
}

Value reshape(Tape& tape, Value x, Extents extents) {
  extents.n = tape.extents(x).n;
  require(extents.elements() == tape.extents(x).elements(), ExitCode::usage,
          "a map cannot be reshaped to another number of elements", "reshape");
  return tape.record(std::make_unique<ReshapeOperation>(x), extents);
}

Value scale_samples(Tape& tape, Value x, Scalars factor) {
  return tape.record(std::make_unique<ScaleSamplesOperation>(x, factor), tape.extents(x));
}

Value plane(Tape& tape, Extents extents, Scalars value) {
  extents.c = 1;
  return tape.record(std::make_unique<PlaneOperation>(value), extents);
}

}  // namespace umbriel::nn
