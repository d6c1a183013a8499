/// Initial values of a network.
#pragma once

#include <cstdint>
#include <string>

#include "umbriel/nn/parameters.hpp"

namespace umbriel::nn {

/// How weights are drawn. With fan_in and fan_out the numbers of a kernel's inputs and outputs:
enum class Initialisation {
  he_normal,       ///< N(0, 2 / fan_in): He et al. 2015, arXiv 1502.01852
  he_uniform,      ///< the same variance, uniform: |w| < sqrt(6 / fan_in)
  glorot_normal,   ///< N(0, 2 / (fan_in + fan_out)): Glorot & Bengio 2010
  glorot_uniform,  ///< |w| < sqrt(6 / (fan_in + fan_out))
  pytorch          ///< what PyTorch's layers start with: weights and biases uniform, |w| < 1 / sqrt(fan_in)
};

/// "he-normal", "he-uniform", "glorot-normal", "glorot-uniform", "pytorch".
/// @throws Error(usage) for any other name
Initialisation initialisation_named(const std::string& name);

/// Sets all values: weights by `scheme`, scales to 1, everything else to 0; zero where a parameter starts at zero. With
/// `pytorch`, "x.bias" has the fan_in of "x.weight". Fans of transposed convolutions are counted on the convolution
/// that they transpose, as PyTorch and Keras count them.
///
/// Element e of parameter i is element e of the stream (seed, weights, chain i): it depends on nothing else.
void initialise(const ParameterSet& parameters, std::uint64_t seed, Initialisation scheme);

}  // namespace umbriel::nn
