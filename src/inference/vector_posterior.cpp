#include "umbriel/inference/vector_posterior.hpp"

#include <lbfgs.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <span>

#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

double square(const std::vector<float>& values, std::size_t first, std::size_t n) {
  double sum = 0;
  for (std::size_t i = first; i < first + n; ++i)
    sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return sum;
}

/// Each of the vectors [n, size] times the metric; as they are without one.
std::vector<float> scaled(const std::vector<float>& metric, const std::vector<float>& vectors, std::size_t size) {
  if (metric.empty()) return vectors;
  std::vector<float> out(vectors.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const float *const row = metric.data() + i % size * size, *const vector = vectors.data() + i / size * size;
    double sum = 0;
    for (std::size_t j = 0; j < size; ++j) sum += static_cast<double>(row[j]) * static_cast<double>(vector[j]);
    out[i] = static_cast<float>(sum);
  }
  return out;
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

std::vector<float> metric_at(const Space& space, VectorDensity& density, const std::vector<float>& point) {
  constexpr double reach = 0.03;  // of differences: wide enough for kinks of a network to even out
  const auto size = static_cast<std::size_t>(density.size()), places = static_cast<std::size_t>(density.batch());
  const auto n = static_cast<Eigen::Index>(size);
  Eigen::MatrixXd curvature = Eigen::MatrixXd::Zero(n, n);
  for (const float sign : {-1.0f, 1.0f}) {
    for (std::size_t first = 0; first < size; first += places) {
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
  const Eigen::MatrixXd root = solved.eigenvectors() *
                               solved.eigenvalues().cwiseMax(1.0).cwiseSqrt().cwiseInverse().asDiagonal() *
                               solved.eigenvectors().transpose();
  std::vector<float> metric;
  for (Eigen::Index i = 0; i < n; ++i)
    for (Eigen::Index j = 0; j < n; ++j) metric.push_back(static_cast<float>(root(i, j)));
  return metric;
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
  std::vector<float> normals;
  for (int i = 0; i < size; ++i)
    normals.push_back(normal({options.seed, Purpose::chain_start, superchain, 0}, static_cast<std::uint64_t>(i)));
  begun.point = scaled(options.metric, normals, normals.size());
  for (std::size_t i = 0; i < normals.size(); ++i)
    begun.point[i] =
        static_cast<float>(options.spread) * begun.point[i] + (options.centre.empty() ? 0 : options.centre[i]);
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
  for (int t = chains[0].trajectories; t < trajectories; ++t) {
    if (stop && stop()) return false;
    const auto step_of = static_cast<std::uint32_t>(t);
    const double drawn = uniform({options.seed, Purpose::trajectory, 0, step_of}, 0);
    const int leapfrogs = 1 + static_cast<int>(drawn * (2 * options.leapfrogs - 1));
    std::vector<float> point = state, pull = gradient;
    std::vector<double> before(chains.size()), now = log_density;
    for (std::size_t c = 0; c < chains.size(); ++c) {
      const DrawKey key{options.seed, Purpose::momentum, static_cast<std::uint32_t>(chains[c].chain), step_of};
      for (std::size_t i = 0; i < size; ++i) momentum[c * size + i] = normal(key, i);
      before[c] = log_density[c] - 0.5 * square(momentum, c * size, size);
    }
    const auto step = [&](std::size_t i) { return static_cast<float>(chains[i / size].fit.step); };
    const auto kick = [&](float share) {
      const std::vector<float> force = scaled(options.metric, pull, size);
      for (std::size_t i = 0; i < momentum.size(); ++i) momentum[i] += share * step(i) * force[i];
    };
    kick(0.5f);
    for (int leap = 0; leap < leapfrogs; ++leap) {
      const std::vector<float> velocity = scaled(options.metric, momentum, size);
      for (std::size_t i = 0; i < point.size(); ++i) point[i] += step(i) * velocity[i];
      now = density.evaluate(space, point, pull);
      kick(leap + 1 < leapfrogs ? 1.0f : 0.5f);
    }
    for (std::size_t c = 0; c < chains.size(); ++c) {
      VectorChain& chain = chains[c];
      const double change = now[c] - 0.5 * square(momentum, c * size, size) - before[c];
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
