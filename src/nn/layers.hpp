/// Layers: what models are made of. A layer declares its parameters once, under the names that PyTorch would give them,
/// and records its operation on as many tapes as there are batches of different shape.
#pragma once

#include <string>
#include <vector>

#include "umbriel/nn/tape.hpp"
#include "umbriel/ops/activation.hpp"

namespace umbriel::nn {

/// "a" and "b" give "a.b"; an empty scope gives "b".
std::string join_names(const std::string& scope, const std::string& name);

/// A convolution, with `weight` [kernel, kernel, c_in / groups, c_out] and perhaps `bias`.
class Convolution {
 public:
  struct Settings {
    int kernel = 3;
    int stride = 1;
    int pad = -1;  ///< -1: (kernel - 1) / 2, which keeps the size of the map
    Padding padding = Padding::zeros;
    int groups = 1;
    bool bias = true;
    bool spectral = false;    ///< keep the kernel's spectral norm at most 1
    bool transposed = false;  ///< upsamples by `stride`
    bool starts_at_zero = false;
  };
  Convolution() = default;
  Convolution(ParameterSet& set, const std::string& name, int c_in, int c_out, const Settings& settings);

  /// y = f(conv(x) + bias)
  Value operator()(Tape& tape, Value x, Activation f = Activation::none) const;

 private:
  Conv2dGeometry geometry_;
  bool transposed_ = false;
  ParameterId weight_, bias_;
};

/// y = f(x W + b) for x of extents [N, 1, 1, C].
class Dense {
 public:
  Dense() = default;
  Dense(ParameterSet& set, const std::string& name, int c_in, int c_out, bool starts_at_zero = false);
  Value operator()(Tape& tape, Value x, Activation f = Activation::none) const;

 private:
  Conv2dGeometry geometry_;
  ParameterId weight_, bias_;
};

/// Batch norm with running moments; decay and epsilon as the published score network has them.
class BatchNorm {
 public:
  BatchNorm() = default;
  BatchNorm(ParameterSet& set, const std::string& name, int channels, float decay = 0.9f, float epsilon = 1e-5f);
  /// y = f(norm(x) + residual)
  Value operator()(Tape& tape, Value x, Activation f = Activation::none, Value residual = {}) const;

 private:
  ParameterId gamma_, beta_, mean_, variance_;
  float decay_ = 0, epsilon_ = 0;
};

class GroupNorm {
 public:
  GroupNorm() = default;
  GroupNorm(ParameterSet& set, const std::string& name, int channels, int groups, float epsilon = 1e-5f);
  Value operator()(Tape& tape, Value x, Activation f = Activation::none) const;

 private:
  ParameterId gamma_, beta_;
  int groups_ = 1;
  float epsilon_ = 0;
};

/// Over the channels of each pixel.
class ChannelNorm {
 public:
  ChannelNorm() = default;
  ChannelNorm(ParameterSet& set, const std::string& name, int channels, float epsilon = 1e-5f);
  Value operator()(Tape& tape, Value x) const;

 private:
  ParameterId gamma_, beta_;
  float epsilon_ = 0;
};

/// @{ Layers without parameters.
Value activation(Tape& tape, Value x, Activation f);
Value sum(Tape& tape, Value a, Value b, float alpha = 1, float beta = 1);
Value product(Tape& tape, Value a, Value b);
/// x (1 + scale) + shift; modulation [N, 1, 1, 2 C] holds scale, then shift.
Value modulate(Tape& tape, Value x, Value modulation);
Value average_pool(Tape& tape, Value x, int factor);
Value upsample(Tape& tape, Value x, int factor);
/// The elements of each sample, in order (y, x, channel), as a map of h x w pixels with c channels; extents.n is x's.
Value reshape(Tape& tape, Value x, Extents extents);
Value scale_samples(Tape& tape, Value x, Scalars factor);
/// One channel that is constant over the map; extents.c is taken as 1.
Value plane(Tape& tape, Extents extents, Scalars value);
/// @}

}  // namespace umbriel::nn
