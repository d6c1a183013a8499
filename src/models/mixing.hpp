/// What comes before each coupling of a Glow (Kingma & Dhariwal 2018, arXiv 1807.03039, section 3): a scale and a shift
/// of each channel ("actnorm"), then an invertible matrix over channels, kept as the factors of its LU decomposition.
///
///   y = P L (U + diag(sign e^d)) diag(e^s) (x + b)      a pixel;    log |dy/dx| = sum of d + s
///
/// with P a fixed permutation, L unit lower and U strictly upper triangular. Matrices are small (4 to 64 channels) and
/// formed on the host in float64. With data that are whitened before, actnorm needs no data to start from: s = b = 0.
#pragma once

#include <string>

#include "umbriel/nn/parameters.hpp"

namespace umbriel {

class Mixing {
 public:
  /// Declares the parameters NAME.log_scale, .bias, .lower, .upper, .log_diagonal, and the buffers .permutation, .sign.
  Mixing(nn::ParameterSet& set, const std::string& name, int channels);

  /// A random rotation. @param index  of this layer among those of the flow
  void initialise(const nn::ParameterSet& set, std::uint64_t seed, std::uint32_t index) const;

  /// Weights of the 1 x 1 convolutions there and back: y = W x + offset.
  struct Maps {
    View1<float> weights, offset;                  ///< [channels in, channels out], [channels]
    View1<float> inverse_weights, inverse_offset;  ///< likewise
    double log_determinant = 0;                    ///< a pixel
  };
  /// @param values  flat array of all parameters
  Maps maps(const nn::ParameterSet& set, const View1<float>& values) const;

  /// Writes the gradients of the parameters, given those of the weights and the offset.
  /// @param dlog_determinant  gradient of the log-determinant of one pixel
  void gradients(const nn::ParameterSet& set, const View1<float>& values, const View1<float>& dweights,
                 const View1<float>& doffset, double dlog_determinant) const;

  int channels() const { return channels_; }

 private:
  struct Factors;
  Factors factors(const nn::ParameterSet& set, const View1<float>& values) const;

  int channels_;
  nn::ParameterId log_scale_, bias_, lower_, upper_, log_diagonal_, permutation_, sign_;
};

}  // namespace umbriel
