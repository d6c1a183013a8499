#include "umbriel/inference/vector_posterior.hpp"

#include <lbfgs.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <span>

#include "umbriel/mpi/watchdog.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

double square(const std::vector<float>& values, std::size_t first, std::size_t n) {
  double sum = 0;
  for (std::size_t i = first; i < first + n; ++i)
    sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return sum;
}

/// The likelihood's share of the log-density at trajectory t: from a thousandth to 1 in the first half of the warm-up.
double share_of_likelihood(const VectorHmcOptions& options, int t) {
  const int growing = options.warm_up / 2;
  return t >= growing ? 1 : std::pow(1e-3, 1 - static_cast<double>(t) / growing);
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

VectorMetric metric_at(const Space& space, VectorDensity& density, const std::vector<float>& point) {
  constexpr double reach = 0.03;  // of differences: wide enough for kinks of a network to even out
  const auto size = static_cast<std::size_t>(density.size()), places = static_cast<std::size_t>(density.batch());
  const auto n = static_cast<Eigen::Index>(size);
  Eigen::MatrixXd curvature = Eigen::MatrixXd::Zero(n, n);
  for (const float sign : {-1.0f, 1.0f}) {
    for (std::size_t first = 0; first < size; first += places) {
      report_alive();  // thousands of numbers take minutes
      const std::size_t end = std::min(size, first + places);
      std::vector<float> points, gradient;
      for (std::size_t i = first; i < end; ++i) {
        points.insert(points.end(), point.begin(), point.end());
        points[points.size() - size + i] += sign * static_cast<float>(reach);
      }
      density.evaluate(space, points, gradient);
      for (std::size_t k = 0; k < gradient.size(); ++k)
        curvature(static_cast<Eigen::Index>(first + k / size), static_cast<Eigen::Index>(k % size)) -=
            static_cast<double>(sign * gradient[k]) / (2 * reach);
    }
  }
  require(curvature.allFinite(), ExitCode::numerical, "the log-density's curvature is not finite", "",
          "check the data for extreme values");
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solved(0.5 * (curvature + curvature.transpose()));
  VectorMetric metric;
  for (Eigen::Index k = 0; k < n; ++k) {
    metric.eigenvalues.push_back(std::max(1.0, solved.eigenvalues()(k)));
    for (Eigen::Index i = 0; i < n; ++i) metric.vectors.push_back(solved.eigenvectors()(i, k));
  }
  return metric;
}

std::vector<float> VectorMetric::scaled(const std::vector<float>& given, double share) const {
  const std::size_t size = eigenvalues.size();
  if (size == 0) return given;
  std::vector<float> out;
  std::vector<double> sum(size);
  for (std::size_t first = 0; first < given.size(); first += size) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::size_t k = 0; k < size; ++k) {
      const double* const vector = vectors.data() + k * size;
      double along = 0;
      for (std::size_t i = 0; i < size; ++i) along += vector[i] * static_cast<double>(given[first + i]);
      along /= std::sqrt(1 + share * (eigenvalues[k] - 1));
      for (std::size_t i = 0; i < size; ++i) sum[i] += along * vector[i];
    }
    out.insert(out.end(), sum.begin(), sum.end());
  }
  return out;
}

void StepFit::update(double acceptance, double target) {
  const double centre = std::log(10 * 0.1);
  ++count;
  const double m = count;
  error += (target - acceptance - error) / (m + 10);
  const double log_step = centre - std::sqrt(m) / 0.05 * error;
  const double weight = std::pow(m, -0.75);
  log_mean += weight * (log_step - log_mean);
  step = std::exp(log_step);
}

void StepFit::settle() { step = std::exp(log_mean); }

bool VectorChain::diverged() const {
  const auto finite = [](double value) { return std::isfinite(value); };
  return accept_rate < 0.01 || !std::all_of(log_density.begin(), log_density.end(), finite);
}

VectorChain begin_vector_chain(const VectorHmcOptions& options, int size, std::int64_t chain) {
  VectorChain begun;
  begun.chain = chain;
  const auto superchain = static_cast<std::uint32_t>(chain / options.chains_a_superchain);
  for (int i = 0; i < size; ++i)
    begun.point.push_back(normal({options.seed, Purpose::chain_start, superchain, 0}, static_cast<std::uint64_t>(i)));
  return begun;
}

namespace {

/// Moves chains on that have made equally many trajectories. @return false if `stop` was true before their end
bool run_together(const Space& space, VectorDensity& density, const VectorHmcOptions& options,
                  const std::span<VectorChain>& chains, const std::function<bool()>& stop) {
  const auto size = static_cast<std::size_t>(density.size());
  std::vector<float> state, gradient, momentum(chains.size() * size);
  for (const VectorChain& chain : chains) state.insert(state.end(), chain.point.begin(), chain.point.end());
  std::vector<double> log_density = density.evaluate(space, state, gradient);
  const int trajectories = options.trajectories();
  // -1/2 u^T u + share (ln p + 1/2 u^T u)
  const auto weighed = [&](double value, double share, const std::vector<float>& at, std::size_t c) {
    return share * value - 0.5 * (1 - share) * square(at, c * size, size);
  };
  for (int t = chains[0].trajectories; t < trajectories; ++t) {
    if (stop && stop()) return false;
    const auto step_of = static_cast<std::uint32_t>(t);
    const double share = share_of_likelihood(options, t);
    const double drawn = uniform({options.seed, Purpose::trajectory, 0, step_of}, 0);
    const int leapfrogs = 1 + static_cast<int>(drawn * (2 * options.leapfrogs - 1));
    std::vector<float> point = state, pull = gradient;
    std::vector<double> before(chains.size()), now = log_density;
    for (std::size_t c = 0; c < chains.size(); ++c) {
      const DrawKey key{options.seed, Purpose::momentum, static_cast<std::uint32_t>(chains[c].chain), step_of};
      for (std::size_t i = 0; i < size; ++i) momentum[c * size + i] = normal(key, i);
      before[c] = weighed(log_density[c], share, state, c) - 0.5 * square(momentum, c * size, size);
    }
    const auto step = [&](std::size_t i) { return static_cast<float>(chains[i / size].fit.step); };
    const auto kick = [&](float part) {
      std::vector<float> force(pull.size());
      for (std::size_t i = 0; i < force.size(); ++i)
        force[i] = static_cast<float>(share) * pull[i] - static_cast<float>(1 - share) * point[i];
      force = options.metric.scaled(force, share);
      for (std::size_t i = 0; i < momentum.size(); ++i) momentum[i] += part * step(i) * force[i];
    };
    kick(0.5f);
    for (int leap = 0; leap < leapfrogs; ++leap) {
      const std::vector<float> velocity = options.metric.scaled(momentum, share);
      for (std::size_t i = 0; i < point.size(); ++i) point[i] += step(i) * velocity[i];
      now = density.evaluate(space, point, pull);
      kick(leap + 1 < leapfrogs ? 1.0f : 0.5f);
    }
    for (std::size_t c = 0; c < chains.size(); ++c) {
      VectorChain& chain = chains[c];
      const double change = weighed(now[c], share, point, c) - 0.5 * square(momentum, c * size, size) - before[c];
      const double acceptance = std::isfinite(change) ? std::min(1.0, std::exp(change)) : 0;
      const DrawKey key{options.seed, Purpose::acceptance, static_cast<std::uint32_t>(chain.chain), step_of};
      const auto begin = static_cast<long>(c * size), end = begin + static_cast<long>(size);
      if (uniform(key, 0) < acceptance) {
        std::copy(point.begin() + begin, point.begin() + end, state.begin() + begin);
        std::copy(pull.begin() + begin, pull.begin() + end, gradient.begin() + begin);
        log_density[c] = now[c];
      }
      chain.point.assign(state.begin() + begin, state.begin() + end);
      chain.trajectories = t + 1;
      if (t < options.warm_up) {
        chain.fit.update(acceptance, options.target);
        if (t + 1 == options.warm_up) chain.fit.settle();
        continue;
      }
      chain.accept_rate += acceptance / (trajectories - options.warm_up);
      if ((t + 1 - options.warm_up) % options.trajectories_a_draw != 0) continue;
      chain.draws.insert(chain.draws.end(), chain.point.begin(), chain.point.end());
      chain.log_density.push_back(log_density[c]);
    }
  }
  return true;
}

}  // namespace

bool run_vector_chains(const Space& space, VectorDensity& density, const VectorHmcOptions& options,
                       std::vector<VectorChain>& chains, const std::function<bool()>& stop) {
  for (std::size_t first = 0, n = 0; first < chains.size(); first += n) {
    n = 1;
    while (n < static_cast<std::size_t>(density.batch()) && first + n < chains.size() &&
           chains[first + n].trajectories == chains[first].trajectories)
      ++n;
    if (chains[first].trajectories == options.trajectories()) continue;
    if (!run_together(space, density, options, std::span(chains).subspan(first, n), stop)) return false;
  }
  return true;
}

}  // namespace umbriel
