/// The exact Gaussian posterior of the convergence, without sampling: Wiener mean and independent draws.
///
/// (P^-1 + A^T W A) a = A^T W d by conjugate gradients, preconditioned by its diagonal in Fourier space as if the noise
/// were uniform, 1/(1/P + mean W). Draws are constrained realisations (Hoffman & Ribak 1991): with s ~ prior and
/// n ~ noise, s + Wiener(d - A s - n) is an exact draw from the posterior.
#pragma once

#include "umbriel/inference/convergence_posterior.hpp"
#include "umbriel/inference/maximum_posterior.hpp"

namespace umbriel {

struct SolverOptions {
  double tolerance = 1e-6;  ///< of the preconditioned residual norm, relative to the right-hand side
  int max_iterations = 300;
};

class GaussianPosterior {
 public:
  /// Keeps a reference to `posterior`, whose model must be linear. @param batch  maps solved for together
  GaussianPosterior(const ConvergencePosterior& posterior, int batch, SolverOptions options = {});

  /// Wiener mean, the mean and the maximum of the posterior. @return orthonormal spectra [C, H, W/2+1]
  SpectrumBatch mean(const Space& space);

  /// n draws with sample indices first ... first + n - 1, n <= batch: fields [n C, y, x]. A draw depends on seed and
  /// index alone.
  void draw(const Space& space, std::uint64_t seed, std::uint32_t first, int n, const MapBatch& maps);

  /// Iterations of the last solve.
  int iterations() const { return iterations_; }

 private:
  /// x <- curvature^-1 b for n systems; b is overwritten with the residual. @throws Error(numerical)
  void solve(const Space& space, int n, const SpectrumBatch& b, const SpectrumBatch& x);

  const ConvergencePosterior& posterior_;
  int batch_;
  SolverOptions options_;
  int iterations_ = 0;
  SpectrumBatch residual_, direction_, product_, solution_, prior_part_;
  MapBatch shear_, noise_;
  SumWorkspace sums_;
};

/// Kaiser-Squires: D* applied to the observed shear, zero where not observed.
/// @param smoothing_pixels  standard deviation of a Gaussian, 0: none
/// @return convergence maps [2, y, x]: E and B mode
MapBatch kaiser_squires(const Space& space, const Survey& survey, const RealFft& fft, double smoothing_pixels);

}  // namespace umbriel
