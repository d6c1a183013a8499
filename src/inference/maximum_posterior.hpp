/// The most probable convergence: the maximum of a posterior's log-density at one temperature.
#pragma once

#include "umbriel/inference/log_density.hpp"
#include "umbriel/inference/score_residual.hpp"

namespace umbriel {

struct MaximumOptions {
  /// Temperature. With a learned prior at least its sigma_min: the maximum is then that of the smoothed posterior.
  double sigma = 0;
  int max_iterations = 500;
  double tolerance = 1e-5;  ///< of the norm of the preconditioned score, relative to that of the preconditioned state
};

/// Maximum by L-BFGS (liblbfgs; Nocedal 1980) in the coordinates y = sqrt(M) a, in which the Fourier mass matrix
/// M = 1/(P + sigma^2) + mean(1/(sigma_gamma^2 + sigma^2)) makes the curvature near one. For a Gaussian prior and a
/// linear model it is the Wiener mean.
///
/// A learned prior gives a score but no log-density. Its part of the objective is the work of the residual along the
/// straight lines from iterate to iterate, each by the trapezoid rule; within a line search the objective is then a
/// function whose slope is the score's up to third order in the step, and the end is a zero of the score.
///
/// @param start     [C, H, W/2+1] orthonormal spectra
/// @param residual  what a learned prior adds to the score of the first field, or none
/// @return the maximum, [C, H, W/2+1]
/// @throws Error(numerical) if it is not found
SpectrumBatch maximum_posterior(const Space& space, const LogDensity& density, const SpectrumBatch& start,
                                MaximumOptions options = {}, const ScoreResidual* residual = nullptr);

}  // namespace umbriel
