/// What a learned prior adds to the Gaussian prior: the residual of its score, never how it is computed.
///
/// Hybrid score of Remy et al. 2022 (arXiv 2201.05561, section 3.3): grad log p_sigma(kappa) = Gaussian score + r. As
/// for log_density.hpp a state is an orthonormal half spectrum, and so is the residual.
#pragma once

#include "umbriel/core/views.hpp"

namespace umbriel {

class ScoreResidual {
 public:
  virtual ~ScoreResidual() = default;

  /// Residual scores of n fields, each at its own temperature. A field's result does not depend on the batch.
  /// @param state     [>= n, H, W/2+1], kept
  /// @param sigma     [>= n] standard deviation of the white noise in the smoothed prior, > 0
  /// @param residual  [>= n, H, W/2+1], overwritten; 0 at k = 0
  virtual void evaluate(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                        const SpectrumBatch& residual) const = 0;

  /// Least sigma that the residual was learned for. (Above the largest one the prior is Gaussian: it is zero there.)
  virtual float sigma_min() const = 0;
};

}  // namespace umbriel
