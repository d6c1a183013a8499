/// The operations that a tape can hold. Models use the layers of layers.hpp, which record these.
#pragma once

#include "umbriel/nn/tape.hpp"
#include "umbriel/ops/activation.hpp"

namespace umbriel::nn {

/// y = f(conv(x) + bias + residual); or with the transposed convolution, which takes no residual. While training, where
/// x is a map upsampled by two, it may run on the coarse map (Tape::left_out).
class ConvolutionOperation final : public Operation {
 public:
  ConvolutionOperation(Value x, Value residual, Conv2dGeometry geometry, ParameterId weight, ParameterId bias,
                       Activation activation, bool transposed);
  ~ConvolutionOperation() override;
  /// True if it gives the same result from the coarse map where x is one upsampled by two.
  bool suits_coarse_map() const;
  std::string_view name() const override { return transposed ? "transposed convolution" : "convolution"; }
  void plan(const Tape& tape) override;
  void load_parameters(const Space& space, const Tape& tape) override;
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
  double flops(const Tape& tape) const override;
  double bytes(const Tape& tape) const override;

  const Conv2dGeometry geometry;  ///< of the convolution, whose input is this operation's output where transposed
  const ParameterId weight, bias;
  const Activation activation;
  const bool transposed;

 private:
  struct OnCoarseMap;
  std::unique_ptr<Conv2d> conv_;
  std::unique_ptr<OnCoarseMap> coarse_;  // in place of conv_
  Tensor before_;                        // what f is taken of, kept where the derivative of f needs it
};

/// y = f(batch_norm(x) + residual): moments of the batch on all ranks when training, running moments otherwise.
class BatchNormOperation final : public Operation {
 public:
  BatchNormOperation(Value x, Value residual, ParameterId gamma, ParameterId beta, ParameterId running_mean,
                     ParameterId running_variance, float decay, float epsilon, Activation activation);
  std::string_view name() const override { return "batch norm"; }
  void plan(const Tape& tape) override;
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;

  const ParameterId gamma, beta, running_mean, running_variance;  ///< the running moments are buffers
  const float decay, epsilon;
  const Activation activation;

 private:
  double count_ = 0;
  View1<double> sums_;
  View1<float> mean_, rstd_, scale_, shift_;
};

/// y = f(group_norm(x))
class GroupNormOperation final : public Operation {
 public:
  GroupNormOperation(Value x, int groups, ParameterId gamma, ParameterId beta, float epsilon, Activation activation);
  std::string_view name() const override { return "group norm"; }
  void plan(const Tape& tape) override;
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;

  const int groups;
  const ParameterId gamma, beta;
  const float epsilon;
  const Activation activation;

 private:
  View3<float> moments_;
  View3<double> scratch_;
  View2<float> fresh_;  // gradients of gamma and beta of this call
};

/// y = channel_norm(x)
class ChannelNormOperation final : public Operation {
 public:
  ChannelNormOperation(Value x, ParameterId gamma, ParameterId beta, float epsilon);
  std::string_view name() const override { return "channel norm"; }
  void plan(const Tape& tape) override;
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;

  const ParameterId gamma, beta;
  const float epsilon;

 private:
  Tensor scratch_;
  View2<float> fresh_;  // gradients of gamma and beta of this call
};

/// y = f(x)
class ActivationOperation final : public Operation {
 public:
  ActivationOperation(Value x, Activation f) : activation(f) { inputs = {x}; }
  std::string_view name() const override { return "activation"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
  const Activation activation;
};

/// y = alpha a + beta b
class SumOperation final : public Operation {
 public:
  SumOperation(float alpha_, Value a, float beta_, Value b) : alpha(alpha_), beta(beta_) { inputs = {a, b}; }
  std::string_view name() const override { return "sum"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
  const float alpha, beta;
};

/// y = a b, element by element
class ProductOperation final : public Operation {
 public:
  ProductOperation(Value a, Value b) { inputs = {a, b}; }
  std::string_view name() const override { return "product"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
};

/// y = x (1 + m[0 ... C)) + m[C ... 2 C) with modulation m of extents [N, 1, 1, 2 C].
class ModulateOperation final : public Operation {
 public:
  ModulateOperation(Value x, Value modulation) { inputs = {x, modulation}; }
  std::string_view name() const override { return "modulation"; }
  void plan(const Tape& tape) override;
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;

 private:
  View3<double> scratch_;
  Tensor fresh_;  // this call's gradient of the modulation, where it has to be added
};

/// Average pool by a whole factor.
class PoolOperation final : public Operation {
 public:
  PoolOperation(Value x, int factor_) : factor(factor_) { inputs = {x}; }
  std::string_view name() const override { return "average pool"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
  const int factor;
};

/// Nearest-neighbour upsampling by a whole factor.
class UpsampleOperation final : public Operation {
 public:
  UpsampleOperation(Value x, int factor_) : factor(factor_) { inputs = {x}; }
  std::string_view name() const override { return "upsampling"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
  const int factor;
};

/// The same elements in the same order, as a map of another size: between convolutions and dense layers.
class ReshapeOperation final : public Operation {
 public:
  explicit ReshapeOperation(Value x) { inputs = {x}; }
  std::string_view name() const override { return "reshaping"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
};

/// Channels side by side; nothing to do for inputs that lie in the output's memory.
class ConcatenateOperation final : public Operation {
 public:
  std::string_view name() const override { return "concatenation"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
};

/// y[n, ...] = x[n, ...] factor[n]
class ScaleSamplesOperation final : public Operation {
 public:
  ScaleSamplesOperation(Value x, Scalars factor_) : factor(factor_) { inputs = {x}; }
  std::string_view name() const override { return "scaling of samples"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space& space, const Tape& tape) override;
  const Scalars factor;
};

/// y[n, ...] = value[n]
class PlaneOperation final : public Operation {
 public:
  explicit PlaneOperation(Scalars value_) : value(value_) {}
  std::string_view name() const override { return "constant plane"; }
  void forward(const Space& space, const Tape& tape) override;
  void backward(const Space&, const Tape&) override {}
  const Scalars value;
};

}  // namespace umbriel::nn
