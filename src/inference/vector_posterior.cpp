#include "umbriel/inference/vector_posterior.hpp"

#include <lbfgs.h>

#include <cmath>
#include <exception>
#include <memory>

#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

/// Dual averaging of ln(step), as in the paper's algorithm 5.
struct StepFit {
  double step = 0.1, log_mean = 0, error = 0, centre = std::log(10 * 0.1);
  int count = 0;

  void update(double acceptance, double target) {
    ++count;
    const double m = count;
    error += (target - acceptance - error) / (m + 10);
    const double log_step = centre - std::sqrt(m) / 0.05 * error;
    const double weight = std::pow(m, -0.75);
    log_mean += weight * (log_step - log_mean);
    step = std::exp(log_step);
  }
  void settle() { step = std::exp(log_mean); }
};

double square(const std::vector<float>& values, std::size_t first, std::size_t n) {
  double sum = 0;
  for (std::size_t i = first; i < first + n; ++i)
    sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return sum;
}

struct Objective {
  const Space& space;
  VectorDensity& density;
  std::vector<float> point, gradient;
  std::exception_ptr error;
};

double evaluate(void* instance, const double* x, double* g, int n, double) {
  auto* objective = static_cast<Objective*>(instance);
  try {
    objective->point.assign(x, x + n);
    const double value = objective->density.evaluate(objective->space, objective->point, objective->gradient)[0];
    for (int i = 0; i < n; ++i) g[i] = -static_cast<double>(objective->gradient[static_cast<std::size_t>(i)]);
    return std::isfinite(value) ? -value : 1e300;
  } catch (...) {  // must not pass through C
    objective->error = std::current_exception();
    std::fill(g, g + n, 0.0);
    return 1e300;
  }
}

int progress(void* instance, const double*, const double*, double, double, double, double, int, int, int) {
  return static_cast<Objective*>(instance)->error != nullptr ? 1 : 0;
}

}  // namespace

std::vector<float> maximum_of(const Space& space, VectorDensity& density, const std::vector<float>& start,
                              int max_iterations, double& value) {
  Objective objective{space, density, {}, {}, nullptr};
  const int n = density.size();
  const std::unique_ptr<double, void (*)(double*)> x(lbfgs_malloc(n), lbfgs_free);
  std::copy(start.begin(), start.end(), x.get());
  lbfgs_parameter_t parameters;
  lbfgs_parameter_init(&parameters);
  parameters.m = 8;
  parameters.epsilon = 1e-4;
  parameters.max_iterations = max_iterations;
  parameters.linesearch = LBFGS_LINESEARCH_BACKTRACKING_STRONG_WOLFE;
  // How it ends is no matter: near a maximum, float32 densities differ by less than their rounding.
  lbfgs(n, x.get(), nullptr, evaluate, progress, &objective, &parameters);
  if (objective.error != nullptr) std::rethrow_exception(objective.error);
  std::vector<float> point(x.get(), x.get() + n), gradient;
  value = density.evaluate(space, point, gradient)[0];
  require(std::isfinite(value), ExitCode::numerical, "the log-density is not finite where it is largest", "",
          "check the data for extreme values");
  return point;
}

std::vector<VectorChain> run_vector_chains(const Space& space, VectorDensity& density, const VectorHmcOptions& options,
                                           std::int64_t first, int n, const std::function<bool()>& stop) {
  const auto size = static_cast<std::size_t>(density.size());
  const auto chains = static_cast<std::size_t>(n);
  std::vector<VectorChain> results(chains);
  std::vector<StepFit> steps(chains);
  std::vector<float> state(chains * size), gradient, momentum(chains * size);
  for (std::size_t c = 0; c < chains; ++c) {
    results[c].chain = first + static_cast<std::int64_t>(c);
    const auto superchain = static_cast<std::uint32_t>(results[c].chain / options.chains_a_superchain);
    for (std::size_t i = 0; i < size; ++i)
      state[c * size + i] = normal({options.seed, Purpose::chain_start, superchain, 0}, i);
  }
  std::vector<double> log_density = density.evaluate(space, state, gradient);
  const int trajectories = options.warm_up + options.draws * options.trajectories_a_draw;
  for (int t = 0; t < trajectories; ++t) {
    if (stop && stop()) return {};
    const auto step_of = static_cast<std::uint32_t>(t);
    const double drawn = uniform({options.seed, Purpose::trajectory, 0, step_of}, 0);
    const int leapfrogs = 1 + static_cast<int>(drawn * (2 * options.leapfrogs - 1));
    std::vector<float> point = state, pull = gradient;
    std::vector<double> before(chains), now = log_density;
    for (std::size_t c = 0; c < chains; ++c) {
      const DrawKey key{options.seed, Purpose::momentum, static_cast<std::uint32_t>(results[c].chain), step_of};
      for (std::size_t i = 0; i < size; ++i) momentum[c * size + i] = normal(key, i);
      before[c] = log_density[c] - 0.5 * square(momentum, c * size, size);
    }
    const auto kick = [&](double share) {
      for (std::size_t i = 0; i < momentum.size(); ++i)
        momentum[i] += static_cast<float>(share * steps[i / size].step) * pull[i];
    };
    kick(0.5);
    for (int leap = 0; leap < leapfrogs; ++leap) {
      for (std::size_t i = 0; i < point.size(); ++i) point[i] += static_cast<float>(steps[i / size].step) * momentum[i];
      now = density.evaluate(space, point, pull);
      kick(leap + 1 < leapfrogs ? 1 : 0.5);
    }
    for (std::size_t c = 0; c < chains; ++c) {
      VectorChain& chain = results[c];
      const double change = now[c] - 0.5 * square(momentum, c * size, size) - before[c];
      const double acceptance = std::isfinite(change) ? std::min(1.0, std::exp(change)) : 0;
      const DrawKey key{options.seed, Purpose::acceptance, static_cast<std::uint32_t>(chain.chain), step_of};
      if (uniform(key, 0) < acceptance) {
        std::copy_n(point.begin() + static_cast<long>(c * size), size, state.begin() + static_cast<long>(c * size));
        std::copy_n(pull.begin() + static_cast<long>(c * size), size, gradient.begin() + static_cast<long>(c * size));
        log_density[c] = now[c];
      }
      if (t < options.warm_up) {
        steps[c].update(acceptance, options.target);
        if (t + 1 == options.warm_up) steps[c].settle();
        continue;
      }
      chain.accept_rate += acceptance / (trajectories - options.warm_up);
      if ((t + 1 - options.warm_up) % options.trajectories_a_draw != 0) continue;
      chain.draws.insert(chain.draws.end(), state.begin() + static_cast<long>(c * size),
                         state.begin() + static_cast<long>((c + 1) * size));
      chain.log_density.push_back(log_density[c]);
    }
  }
  for (std::size_t c = 0; c < chains; ++c) {
    results[c].step = steps[c].step;
    results[c].diverged = !std::isfinite(log_density[c]) || results[c].accept_rate < 0.01;
  }
  return results;
}

}  // namespace umbriel
