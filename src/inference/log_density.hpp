/// What a sampler may know of a posterior: its log-density and score at a temperature, never how they are computed.
///
/// A state is the orthonormal half spectrum of one or more fields, a = FFT(kappa) / sqrt(H W): C maps a chain
/// [C, H, W/2+1] (C = 1: convergence; C = 2: E and B modes). Inner products run over the full plane, where a mode of
/// the half spectrum counts mode_weight times; a score is the gradient in that inner product.
#pragma once

#include "umbriel/core/views.hpp"

namespace umbriel {

class LogDensity {
 public:
  virtual ~LogDensity() = default;

  virtual Grid grid() const = 0;
  /// Fields a chain, C.
  virtual int fields() const = 0;

  /// Log-density (up to a constant of sigma) and score of n chains, each at its own temperature.
  /// @param state        [>= n C, H, W/2+1]
  /// @param sigma        [>= n] temperature: standard deviation of the white noise that smooths the density; 0: none.
  ///   A negative one, -s, smooths the prior by s^2 and takes s^2 off the likelihood's noise variance: the density
  ///   whose probability flow ends exactly in the posterior (see annealed_hmc.hpp). s is at most `sharpest()`
  /// @param score        [>= n C, H, W/2+1], overwritten
  /// @param log_density  [>= n] float64, overwritten
  virtual void evaluate(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                        const SpectrumBatch& score, const View1<double>& log_density) const = 0;

  /// The largest s for which the temperature may be -s.
  virtual float sharpest() const { return 0; }

  /// Prior power a mode and white-noise precision at temperature sigma: the ingredients of a Fourier mass matrix
  /// 1/(P + sigma^2) + precision(sigma), the curvature of the log-density as if the survey had no mask.
  virtual View2<float> prior_power() const = 0;
  virtual float precision(float sigma) const = 0;
};

}  // namespace umbriel
