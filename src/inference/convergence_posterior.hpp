/// Posterior of the convergence given masked, noisy shear, under a Gaussian prior.
///
/// Remy et al. 2022 (arXiv 2201.05561), section 3. Shear gamma = F^-1 D F kappa; at temperature sigma
///   log p = - 1/2 sum |gamma_model - gamma|^2 / (sigma_gamma^2 + sigma^2)    over observed pixels and components
///           - 1/2 sum |a|^2 / (P + sigma^2)                                   over modes,  P = C_l / pixel^2.
/// At sigma = 0 this is exact; at sigma > 0 the likelihood is the paper's approximation to that of the smoothed field.
/// At a negative temperature -s its noise variance is sigma_gamma^2 - s^2, above half of sigma_gamma^2 everywhere.
///
/// Modes with P = 0 are pinned at zero: always k = 0, since shear does not see the mean convergence (mass-sheet
/// degeneracy). With reduced shear the model is g = gamma / (1 - kappa). With B modes a second field joins, of the same
/// prior: gamma1 + i gamma2 = D (E + i B).
///
/// One evaluation is two inverse and two forward transforms (three each with reduced shear) and three passes over
/// memory: multiply by D; weigh the residual and sum chi^2; apply the adjoint, add the prior and sum it.
#pragma once

#include <map>

#include "umbriel/core/loops.hpp"
#include "umbriel/data/survey.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/inference/log_density.hpp"

namespace umbriel {

/// Options of the forward model.
struct ForwardModel {
  bool reduced_shear = false;
  bool b_modes = false;
};

class ConvergencePosterior final : public LogDensity {
 public:
  /// @param power      [H, W/2+1] prior power a mode of the orthonormal transform, 0 pins a mode
  /// @param max_chains  largest n of `evaluate`
  ConvergencePosterior(const Survey& survey, const HostView2<float>& power, ForwardModel model, int max_chains);

  Grid grid() const override { return grid_; }
  int fields() const override { return model_.b_modes ? 2 : 1; }
  const RealFft& fft() const { return fft_; }
  const ForwardModel& model() const { return model_; }

  void evaluate(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                const SpectrumBatch& score, const View1<double>& log_density) const override;

  /// out = (prior precision + A^T W A) state at sigma = 0, the curvature of the (linear) posterior: minus the change of
  /// the score. Only without reduced shear.
  void apply_curvature(const Space& space, int n, const SpectrumBatch& state, const SpectrumBatch& out) const;

  /// out = A^T r for real fields r [>= 2 n, y, x] (gamma1, gamma2 of chain 0, then of chain 1, ...).
  void adjoint(const Space& space, int n, const MapBatch& shear, const SpectrumBatch& out) const;
  /// shear = A state: [>= 2 n, y, x].
  void forward(const Space& space, int n, const SpectrumBatch& state, const MapBatch& shear) const;

  View2<float> prior_power() const override { return power_; }
  float precision(float sigma) const override;
  float sharpest() const override { return sharpest_; }

  /// Observed shear [2, y, x] and noise variance [2, y, x], infinite where not observed.
  const MapBatch& data() const { return data_; }
  const MapBatch& variance() const { return variance_; }

 private:
  struct Scratch {
    SpectrumBatch spectra;  // [maps chains, H, W/2+1]
    MapBatch maps;          // [maps chains, y, x]
    SumWorkspace sums;
    View1<double> chi2, prior;
  };
  int maps_a_chain() const { return model_.reduced_shear ? 3 : 2; }

  Grid grid_;
  ForwardModel model_;
  RealFft fft_;
  float sharpest_ = 0;
  int at_once_;  // chains that pass through the scratch together: one on a host, so that it stays in cache
  View2<float> power_;
  MapBatch data_, variance_;
  Scratch scratch_;
  HostMaps host_variance_;
  mutable std::map<float, float> precision_;
};

}  // namespace umbriel
