/// A trained score model as the residual that samplers see.
#pragma once

#include <memory>
#include <string>

#include "umbriel/data/power_spectrum.hpp"
#include "umbriel/inference/score_residual.hpp"
#include "umbriel/models/score_model.hpp"

namespace umbriel {

class LearnedPrior final : public ScoreResidual {
 public:
  /// Reads the model. @throws Error(input), Error(file_system) as ScoreModel::load
  explicit LearnedPrior(const std::string& path);

  /// Power spectrum that the model was trained with.
  PowerSpectrum spectrum() const;
  /// kappa0 of the lognormal simulations that it was trained on, times the stretch; 0 if it was trained on others.
  double kappa0() const;

  /// Plans the network for maps of one grid; before the first `evaluate`. Fields of another variance than those it was
  /// trained on are taken for those stretched: a lognormal field of sources at another distance is so, nearly (its
  /// kappa0 and its standard deviation fall together).
  /// @param power  [H, W/2+1] prior power a mode
  /// @throws Error(usage) if the network cannot take such maps or never saw such pixels, Error(input) if power is zero
  void plan(Grid grid, double pixel_arcmin, const HostView2<float>& power, nn::Options options);

  void evaluate(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                const SpectrumBatch& residual) const override {
    evaluator_->residual(space, n, state, sigma, residual);
  }
  /// Of memory, once planned.
  double bytes() const { return evaluator_->bytes(); }
  float sigma_min() const override { return static_cast<float>(stretch_ * model_.settings().sigma_min); }
  /// Standard deviation of the fields over that of those it was trained on, once planned.
  double stretch() const { return stretch_; }

 private:
  std::string path_;
  ScoreModel model_;
  double stretch_ = 1;
  std::unique_ptr<ScoreEvaluator> evaluator_;
};

/// compute.backend and compute.precision.
nn::Options read_compute(const Config& config);

}  // namespace umbriel
