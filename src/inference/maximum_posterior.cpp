#include "umbriel/inference/maximum_posterior.hpp"

#include <lbfgs.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <vector>

#include "umbriel/inference/spectra.hpp"

namespace umbriel {
namespace {

/// Minus the log-density as a function of y: real and imaginary parts of the half spectra, each times sqrt(w M), where
/// w is how often the mode stands in the full plane. So Euclidean inner products of y are those of the full plane.
class Objective {
 public:
  Objective(const Space& space, const LogDensity& density, const ScoreResidual* residual, double sigma)
      : space_(space),
        density_(density),
        residual_(residual),
        state_(spectra("umbriel::map_state", density.fields())),
        score_(spectra("umbriel::map_score", density.fields())),
        learned_(spectra("umbriel::map_residual", residual != nullptr ? 1 : 0)),
        host_state_(Kokkos::create_mirror_view(state_)),
        sigma_("umbriel::map_sigma", 1),
        log_density_("umbriel::map_log_density", 1) {
    upload(std::vector<float>{static_cast<float>(sigma)}, sigma_);
    const Grid grid = density.grid();
    const auto power = on_host(density.prior_power());
    const double precision = static_cast<double>(density.precision(static_cast<float>(sigma)));
    for (int field = 0; field < density.fields(); ++field) {
      for (int ky = 0; ky < grid.height; ++ky) {
        for (int kx = 0; kx < grid.half_width(); ++kx) {
          const double p = static_cast<double>(power(ky, kx)), weight = static_cast<double>(mode_weight(grid, kx));
          scale_.push_back(p > 0 ? std::sqrt(weight * (1 / (p + sigma * sigma) + precision)) : 0);
          inverse_.push_back(p > 0 ? 1 / scale_.back() : 0);
          weight_.push_back(weight);
        }
      }
    }
    base_.resize(size());
    last_.resize(size());
    base_pull_.resize(size());
    last_pull_.resize(size());
  }

  std::size_t size() const { return 2 * scale_.size(); }

  void from_state(const SpectrumBatch& state, double* y) const {
    const auto host = on_host(state);
    const Complex* a = host.data();
    for (std::size_t i = 0; i < scale_.size(); ++i) {
      y[2 * i] = scale_[i] * static_cast<double>(a[i].real());
      y[2 * i + 1] = scale_[i] * static_cast<double>(a[i].imag());
    }
  }

  SpectrumBatch to_state(const double* y) {
    set_state(y);
    return state_;
  }

  /// @param gradient  overwritten
  double evaluate(const double* y, double* gradient) {
    set_state(y);
    density_.evaluate(space_, 1, state_, sigma_, score_, log_density_);
    to_gradient(score_, scale_.size(), gradient);
    double value = -download(log_density_, 1)[0];
    if (residual_ != nullptr) {
      residual_->evaluate(space_, 1, state_, sigma_, learned_);
      to_gradient(learned_, learned_.size(), last_pull_.data());
      last_work_ = base_work_;
      for (std::size_t i = 0; i < size(); ++i) {
        if (started_) last_work_ += 0.5 * (base_pull_[i] + last_pull_[i]) * (y[i] - base_[i]);
        gradient[i] += last_pull_[i];
        last_[i] = y[i];
      }
      value += last_work_;
      if (!started_) accept();
    }
    if (std::isfinite(value)) return value;
    // Beyond a pole of the reduced shear, say: a wall, from which the line search turns back.
    std::fill(gradient, gradient + size(), 0.0);
    return 1e300;
  }

  /// The point evaluated last is an iterate: the next straight line begins there.
  void accept() {
    std::swap(base_, last_);
    std::swap(base_pull_, last_pull_);
    base_work_ = last_work_;
    started_ = true;
  }

  std::exception_ptr error;

 private:
  SpectrumBatch spectra(const std::string& label, int n) const {
    return SpectrumBatch(label, n, density_.grid().height, density_.grid().half_width());
  }

  void set_state(const double* y) {
    Complex* a = host_state_.data();
    for (std::size_t i = 0; i < scale_.size(); ++i)
      a[i] = Complex(static_cast<float>(inverse_[i] * y[2 * i]), static_cast<float>(inverse_[i] * y[2 * i + 1]));
    Kokkos::deep_copy(state_, host_state_);
  }

  /// gradient <- minus the derivative by y whose counterpart by a is `score`, for the first n modes.
  void to_gradient(const SpectrumBatch& score, std::size_t n, double* gradient) const {
    const auto host = on_host(score);
    const Complex* s = host.data();
    for (std::size_t i = 0; i < n; ++i) {
      gradient[2 * i] = -weight_[i] * inverse_[i] * static_cast<double>(s[i].real());
      gradient[2 * i + 1] = -weight_[i] * inverse_[i] * static_cast<double>(s[i].imag());
    }
  }

  const Space& space_;
  const LogDensity& density_;
  const ScoreResidual* residual_;
  SpectrumBatch state_, score_, learned_;
  decltype(Kokkos::create_mirror_view(SpectrumBatch())) host_state_;
  View1<float> sigma_;
  View1<double> log_density_;
  std::vector<double> scale_, inverse_, weight_;  // a mode
  // The line of the residual's work: an iterate, the point evaluated last, and minus the residual there.
  std::vector<double> base_, last_, base_pull_, last_pull_;
  double base_work_ = 0, last_work_ = 0;
  bool started_ = false;
};

double evaluate(void* objective, const double* y, double* gradient, int, double) {
  auto* function = static_cast<Objective*>(objective);
  try {
    return function->evaluate(y, gradient);
  } catch (...) {  // must not pass through C
    function->error = std::current_exception();
    std::fill(gradient, gradient + function->size(), 0.0);
    return 1e300;
  }
}

int accept(void* objective, const double*, const double*, double, double, double, double, int, int, int) {
  auto* function = static_cast<Objective*>(objective);
  function->accept();
  return function->error != nullptr ? 1 : 0;
}

}  // namespace

SpectrumBatch maximum_posterior(const Space& space, const LogDensity& density, const SpectrumBatch& start,
                                MaximumOptions options, const ScoreResidual* residual) {
  require(residual == nullptr || options.sigma >= 0.9999 * static_cast<double>(residual->sigma_min()), ExitCode::usage,
          "the learned prior does not know the temperature at which the maximum is asked for", "",
          "choose one above its least");
  Objective objective(space, density, residual, options.sigma);
  const auto size = static_cast<int>(objective.size());
  const std::unique_ptr<double, void (*)(double*)> y(lbfgs_malloc(size), lbfgs_free);  // aligned, padded with zeros
  objective.from_state(start, y.get());
  lbfgs_parameter_t parameters;
  lbfgs_parameter_init(&parameters);
  parameters.m = 8;
  parameters.epsilon = options.tolerance;
  parameters.max_iterations = options.max_iterations;
  parameters.linesearch = LBFGS_LINESEARCH_BACKTRACKING_STRONG_WOLFE;
  const int outcome = lbfgs(size, y.get(), nullptr, evaluate, accept, &objective, &parameters);
  if (objective.error != nullptr) std::rethrow_exception(objective.error);
  // Close to the maximum, log-densities differ by less than their rounding and the line search gives up: whether the
  // score has gone decides.
  std::vector<double> gradient(objective.size());
  objective.evaluate(y.get(), gradient.data());
  double score = 0, length = 0;
  for (int i = 0; i < size; ++i) {
    score += gradient[static_cast<std::size_t>(i)] * gradient[static_cast<std::size_t>(i)];
    length += y.get()[i] * y.get()[i];
  }
  require(score <= 1e4 * options.tolerance * options.tolerance * std::max(1.0, length), ExitCode::numerical,
          std::string("the posterior maximum was not found (L-BFGS ended with code ")
              .append(std::to_string(outcome))
              .append(")"),
          "", "look for extreme noise or shear values");
  return objective.to_state(y.get());
}

}  // namespace umbriel
