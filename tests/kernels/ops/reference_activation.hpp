// Activations in float64 by the standard library: the reference of every test that meets one.
#pragma once

#include <cmath>

#include "umbriel/ops/activation.hpp"

namespace umbriel::testing {

inline double reference_activation(Activation f, double x) {
  switch (f) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::elu:
      return x > 0 ? x : std::expm1(x);
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::softplus:
      return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
    case Activation::tanh:
      return std::tanh(x);
  }
  return x;
}

}  // namespace umbriel::testing
