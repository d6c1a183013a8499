#include "umbriel/inference/bayesian_optimisation.hpp"

#include <lbfgs.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numbers>
#include <utility>

#include "umbriel/core/check.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

Eigen::Index index(std::size_t i) { return static_cast<Eigen::Index>(i); }

/// r for lengths exp(parameters[group]).
double distance(const std::vector<double>& a, const std::vector<double>& b, const std::vector<std::size_t>& groups,
                const GaussianProcess::Parameters& parameters) {
  double square = 0;
  for (std::size_t j = 0; j < a.size(); ++j) {
    const double scaled = (a[j] - b[j]) * std::exp(-parameters[groups[j]]);
    square += scaled * scaled;
  }
  return std::sqrt(square);
}

const double root_five = std::sqrt(5.0);

/// The kernel without s^2.
double matern(double r) { return (1 + root_five * r + 5 * r * r / 3) * std::exp(-root_five * r); }

// [low, high] of ln l, ln s, ln t in `fit`.
const double length_range[] = {std::log(0.05), std::log(10)};
const double signal_range[] = {std::log(0.1), std::log(10)};
const double noise_range[] = {std::log(1e-4), 0};

/// Minus the marginal likelihood as a function of any real numbers, which a logistic curve brings within the ranges.
struct Objective {
  GaussianProcess& process;
  std::size_t lengths;
  std::vector<double> at, slope;

  const double* range(std::size_t i) const {
    return i < lengths ? length_range : i == lengths ? signal_range : noise_range;
  }
  double inside(std::size_t i, double t) {
    const double share = 1 / (1 + std::exp(-t)), width = range(i)[1] - range(i)[0];
    slope[i] = width * share * (1 - share);
    return range(i)[0] + width * share;
  }
  double outside(std::size_t i, double parameter) const {
    const double share = (parameter - range(i)[0]) / (range(i)[1] - range(i)[0]);
    return std::log(share / (1 - share));
  }
};

double evaluate(void* instance, const double* t, double* gradient, int, double) {
  auto& objective = *static_cast<Objective*>(instance);
  const std::size_t n = objective.process.parameters();
  for (std::size_t i = 0; i < n; ++i) objective.at[i] = objective.inside(i, t[i]);
  const double value = objective.process.log_marginal_likelihood(objective.at, gradient);
  for (std::size_t i = 0; i < n; ++i) gradient[i] = std::isfinite(value) ? -gradient[i] * objective.slope[i] : 0;
  return std::isfinite(value) ? -value : 1e300;
}

}  // namespace

GaussianProcess::GaussianProcess(std::vector<std::vector<double>> inputs, const std::vector<double>& values,
                                 std::vector<std::size_t> groups)
    : inputs_(std::move(inputs)), values_(values), groups_(std::move(groups)) {
  require(!inputs_.empty() && inputs_.size() == values_.size(), ExitCode::usage,
          "a Gaussian process needs a value for each of its inputs", "", "give as many of one as of the other");
  for (std::size_t j = groups_.size(); j < inputs_[0].size(); ++j) groups_.push_back(j);
  for (const std::size_t group : groups_) lengths_ = std::max(lengths_, group + 1);
  const auto n = static_cast<double>(values_.size());
  for (const double value : values_) mean_ += value / n;
  double variance = 0;
  for (const double value : values_) variance += (value - mean_) * (value - mean_) / n;
  if (variance > 0) deviation_ = std::sqrt(variance);
  for (double& value : values_) value = (value - mean_) / deviation_;
}

double GaussianProcess::kernel(const std::vector<double>& a, const std::vector<double>& b) const {
  return std::exp(2 * parameters_[lengths_]) * matern(distance(a, b, groups_, parameters_));
}

double GaussianProcess::log_marginal_likelihood(const Parameters& parameters, double* gradient) {
  parameters_ = parameters;
  const std::size_t n = inputs_.size();
  const double signal = std::exp(2 * parameters_[lengths_]), noise = std::exp(2 * parameters_[lengths_ + 1]);
  Matrix k(index(n), index(n));
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j)
      k(index(i), index(j)) = k(index(j), index(i)) = kernel(inputs_[i], inputs_[j]) + (i == j ? noise : 0);
  }
  const Eigen::LLT<Matrix> root(k);
  if (gradient != nullptr) std::fill_n(gradient, this->parameters(), 0.0);
  if (root.info() != Eigen::Success) return -std::numeric_limits<double>::infinity();
  const Matrix lower = root.matrixL();
  const Vector y = Eigen::Map<const Vector>(values_.data(), index(n));
  const Vector weights = root.solve(y);
  root_.assign(lower.data(), lower.data() + lower.size());
  weights_.assign(weights.data(), weights.data() + weights.size());
  const double value = -0.5 * y.dot(weights) - lower.diagonal().array().log().sum() -
                       0.5 * static_cast<double>(n) * std::log(2 * std::numbers::pi);
  if (gradient == nullptr) return value;
  // d ln p / d theta = tr((w w^T - K^-1) dK / d theta) / 2 (Rasmussen & Williams 2006, eq. 5.9)
  const Matrix inner = weights * weights.transpose() - root.solve(Matrix::Identity(index(n), index(n)));
  for (std::size_t i = 0; i < n; ++i) {
    gradient[lengths_ + 1] += inner(index(i), index(i)) * noise;
    for (std::size_t j = 0; j < n; ++j) {
      const double r = distance(inputs_[i], inputs_[j], groups_, parameters_), half = 0.5 * inner(index(i), index(j));
      gradient[lengths_] += half * 2 * signal * matern(r);
      // dk / dr = -5/3 s^2 r (1 + sqrt(5) r) exp(-sqrt(5) r), and dr / d ln l_g is minus the group's share of r^2 over
      // r
      const double pull = half * signal * (5.0 / 3) * (1 + root_five * r) * std::exp(-root_five * r);
      for (std::size_t d = 0; d < groups_.size(); ++d) {
        const double scaled = (inputs_[i][d] - inputs_[j][d]) * std::exp(-parameters_[groups_[d]]);
        gradient[groups_[d]] += pull * scaled * scaled;
      }
    }
  }
  return value;
}

const GaussianProcess::Parameters& GaussianProcess::fit() {
  const std::size_t n = parameters();
  Objective objective{*this, lengths_, std::vector<double>(n), std::vector<double>(n)};
  const std::unique_ptr<double, void (*)(double*)> t(lbfgs_malloc(static_cast<int>(n)), lbfgs_free);
  Parameters best;
  double highest = -std::numeric_limits<double>::infinity();
  const double starts[][2] = {{0.3, 0.01}, {1, 0.1}, {3, 0.5}};  // l and t
  for (const auto& start : starts) {
    for (std::size_t i = 0; i < n; ++i)
      t.get()[i] = objective.outside(i, i < lengths_ ? std::log(start[0]) : i == lengths_ ? 0 : std::log(start[1]));
    lbfgs_parameter_t options;
    lbfgs_parameter_init(&options);
    options.epsilon = 1e-6;
    options.max_iterations = 100;
    options.linesearch = LBFGS_LINESEARCH_BACKTRACKING_STRONG_WOLFE;
    // However it ends, the point it reached is as good a proposal as any.
    lbfgs(static_cast<int>(n), t.get(), nullptr, evaluate, nullptr, &objective, &options);
    Parameters reached(n);
    for (std::size_t i = 0; i < n; ++i) reached[i] = objective.inside(i, t.get()[i]);
    const double value = log_marginal_likelihood(reached);
    if (value > highest) {
      highest = value;
      best = reached;
    }
  }
  require(!best.empty(), ExitCode::numerical, "no Gaussian process could be fitted", "",
          "look for extreme values among those it is to go through");
  log_marginal_likelihood(best);
  return parameters_;
}

GaussianProcess::Prediction GaussianProcess::predict(const std::vector<double>& input) const {
  const std::size_t n = inputs_.size();
  require(weights_.size() == n, ExitCode::usage, "the Gaussian process has no parameters yet", "", "fit it first");
  Vector k(index(n));
  for (std::size_t i = 0; i < n; ++i) k(index(i)) = kernel(inputs_[i], input);
  const Eigen::Map<const Matrix> lower(root_.data(), index(n), index(n));
  const double mean = k.dot(Eigen::Map<const Vector>(weights_.data(), index(n)));
  const Vector white = lower.triangularView<Eigen::Lower>().solve(k);
  const double variance = std::exp(2 * parameters_[lengths_]) - white.squaredNorm();
  return {mean_ + deviation_ * mean, deviation_ * std::sqrt(std::max(variance, 0.0))};
}

double expected_improvement(const GaussianProcess::Prediction& f, double best) {
  const double gain = best - f.mean;
  if (!(f.deviation > 0)) return std::max(gain, 0.0);
  const double z = gain / f.deviation;
  const double density = std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi);
  return std::max(0.0, gain * 0.5 * std::erfc(-z / std::numbers::sqrt2) + f.deviation * density);
}

SearchSpace::SearchSpace(std::vector<SearchRange> ranges) : ranges_(std::move(ranges)) {
  require(!ranges_.empty(), ExitCode::usage, "there is nothing to search", "", "give a range at least");
  for (const SearchRange& range : ranges_) {
    if (range.choices > 0) continue;
    require(range.min < range.max && std::isfinite(range.max - range.min) && (!range.log || range.min > 0),
            ExitCode::usage, "a range has no inside", "", "give min < max, and min > 0 where it is logarithmic");
  }
}

namespace {

/// Ends of a range of numbers on the scale on which it is evenly spread; whole numbers are the middles of cells.
std::pair<double, double> scale_of(const SearchRange& range) {
  const double margin = range.whole ? 0.5 : 0;
  const double low = range.min - margin, high = range.max + margin;
  return range.log ? std::pair(std::log(low), std::log(high)) : std::pair(low, high);
}

/// A value from outside, which a trial may have that was not proposed, is held near the range.
double to_unit(const SearchRange& range, double value) {
  const auto [low, high] = scale_of(range);
  const double place = !range.log ? value : value > 0 ? std::log(value) : -std::numeric_limits<double>::infinity();
  return std::clamp((place - low) / (high - low), -0.5, 1.5);
}

double from_unit(const SearchRange& range, double unit) {
  if (range.choices > 0) return std::min(std::floor(unit * range.choices), range.choices - 1.0);
  const auto [low, high] = scale_of(range);
  const double place = low + unit * (high - low);
  double value = range.log ? std::exp(place) : place;
  if (range.whole) {
    value = std::round(value);
  } else {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value);
    value = std::strtod(text, nullptr);
  }
  return std::clamp(value, range.min, range.max);
}

}  // namespace

SearchPoint SearchSpace::at(const std::vector<double>& unit) const {
  SearchPoint point;
  for (std::size_t i = 0; i < ranges_.size(); ++i) point.push_back(from_unit(ranges_[i], unit[i]));
  return point;
}

std::vector<double> SearchSpace::features(const SearchPoint& point) const {
  std::vector<double> out;
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    if (ranges_[i].choices == 0) out.push_back(to_unit(ranges_[i], point[i]));
    // Two different choices are at distance 1.
    for (int choice = 0; choice < ranges_[i].choices; ++choice)
      out.push_back(point[i] == choice ? std::numbers::sqrt2 / 2 : 0);
  }
  return out;
}

std::vector<std::size_t> SearchSpace::feature_groups() const {
  std::vector<std::size_t> groups;
  for (std::size_t i = 0; i < ranges_.size(); ++i)
    groups.insert(groups.end(), static_cast<std::size_t>(std::max(1, ranges_[i].choices)), i);
  return groups;
}

std::vector<SearchPoint> SearchSpace::all(std::size_t most) const {
  std::vector<SearchPoint> points = {{}};
  for (const SearchRange& range : ranges_) {
    if (range.choices == 0 && !range.whole) return {};
    const double first = range.choices > 0 ? 0 : range.min, last = range.choices > 0 ? range.choices - 1 : range.max;
    if ((last - first + 1) * static_cast<double>(points.size()) > static_cast<double>(most)) return {};
    std::vector<SearchPoint> longer;
    for (const SearchPoint& point : points) {
      for (double value = first; value <= last; ++value) {
        longer.push_back(point);
        longer.back().push_back(value);
      }
    }
    points = std::move(longer);
  }
  return points;
}

namespace {

constexpr int primes[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71};

/// The digits of n in base `base`, turned about the point.
double radical_inverse(std::size_t n, int base) {
  const auto b = static_cast<std::size_t>(base);
  double value = 0, digit = 1.0 / base;
  for (; n > 0; n /= b, digit /= base) value += digit * static_cast<double>(n % b);
  return value;
}

/// A series of uniform draws for one purpose.
class Draws {
 public:
  Draws(std::uint64_t seed, std::size_t index, std::uint32_t step)
      : key_{seed, Purpose::tuning, static_cast<std::uint32_t>(index), step} {}
  double uniform() { return umbriel::uniform(key_, element_++); }
  double normal() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  DrawKey key_;
  std::uint64_t element_ = 0;
};

/// A new point of the Halton sequence: as many as were proposed are passed over, and those that were tried.
template <class Taken>
std::optional<SearchPoint> even_point(const SearchSpace& space, std::uint64_t seed, std::size_t index,
                                      const Taken& taken) {
  constexpr std::size_t most = 10000;  // beyond it all points of a small space were met
  Draws draws(seed, 0, 0);
  std::vector<double> shift;
  for (std::size_t d = 0; d < space.ranges().size(); ++d) shift.push_back(draws.uniform());
  for (std::size_t n = index; n < index + most; ++n) {
    std::vector<double> unit;
    for (std::size_t d = 0; d < shift.size(); ++d) {
      const double moved = radical_inverse(n, primes[d]) + shift[d];
      unit.push_back(moved - std::floor(moved));
    }
    SearchPoint point = space.at(unit);
    if (!taken(point)) return point;
  }
  return std::nullopt;
}

/// Losses as the Gaussian process is to see them; empty if no trial brought one.
std::vector<double> tamed_losses(const std::vector<SearchTrial>& trials, std::size_t pending) {
  std::vector<double> sorted;
  for (const SearchTrial& trial : trials) {
    if (std::isfinite(trial.loss)) sorted.push_back(trial.loss);
  }
  if (sorted.empty()) return {};
  std::sort(sorted.begin(), sorted.end());
  const double best = sorted.front(), median = sorted[sorted.size() / 2];
  const double highest = median > best ? std::min(sorted.back(), best + 5 * (median - best)) : sorted.back();
  std::vector<double> losses;
  for (const SearchTrial& trial : trials)
    losses.push_back(std::isfinite(trial.loss) ? std::min(trial.loss, highest) : highest);
  losses.insert(losses.end(), pending, best);
  return losses;
}

}  // namespace

std::optional<SearchPoint> propose(const SearchSpace& space, std::uint64_t seed, std::size_t initial,
                                   const std::vector<SearchTrial>& trials, const std::vector<SearchPoint>& pending) {
  require(space.ranges().size() <= std::size(primes), ExitCode::usage, "the search has too many parameters", "",
          "search at most 20 at once");
  std::vector<SearchPoint> tried = pending;
  for (const SearchTrial& trial : trials) tried.push_back(trial.point);
  const auto taken = [&](const SearchPoint& point) {
    return std::find(tried.begin(), tried.end(), point) != tried.end();
  };
  const std::size_t number = tried.size();
  const std::vector<double> losses = tamed_losses(trials, pending.size());
  if (number < initial || losses.empty()) return even_point(space, seed, number, taken);

  std::vector<std::vector<double>> inputs;
  for (const SearchTrial& trial : trials) inputs.push_back(space.features(trial.point));
  for (const SearchPoint& point : pending) inputs.push_back(space.features(point));
  GaussianProcess process(inputs, losses, space.feature_groups());
  process.fit();
  // A step so small teaches nothing: it would be spent on the loss's noise.
  const auto beside = [&](const std::vector<double>& input) {
    constexpr double least = 0.005;
    return std::any_of(inputs.begin(), inputs.end(), [&](const std::vector<double>& other) {
      return std::equal(input.begin(), input.end(), other.begin(),
                        [](double a, double b) { return std::fabs(a - b) < least; });
    });
  };
  // With noise the best loss may owe its place to luck: the least mean at a trial is the level to beat.
  double best = std::numeric_limits<double>::infinity();
  for (const auto& input : inputs) best = std::min(best, process.predict(input).mean);

  // Where improvement has become too small for a number, the least unlikely one counts.
  struct Candidate {
    double improvement, score;
    std::vector<double> unit;
    SearchPoint point;
    bool operator>(const Candidate& o) const {
      return improvement != o.improvement ? improvement > o.improvement : score > o.score;
    }
  };
  std::vector<Candidate> front;  // the best so far, in order
  constexpr std::size_t kept = 5;
  const auto consider = [&](std::vector<double> unit, SearchPoint point) {
    for (const Candidate& other : front) {
      if (other.point == point) return;
    }
    const std::vector<double> input = space.features(point);
    if (beside(input)) return;
    const GaussianProcess::Prediction f = process.predict(input);
    Candidate candidate{expected_improvement(f, best), (best - f.mean) / std::max(f.deviation, 1e-300), std::move(unit),
                        std::move(point)};
    const auto place = std::find_if(front.begin(), front.end(), [&](const Candidate& c) { return candidate > c; });
    front.insert(place, std::move(candidate));
    if (front.size() > kept) front.pop_back();
  };
  if (const std::vector<SearchPoint> all = space.all(4096); !all.empty()) {
    for (const SearchPoint& point : all) consider({}, point);
  } else {
    constexpr int everywhere = 2000, nearby = 60, rounds = 10;
    const std::size_t d = space.ranges().size();
    Draws wide(seed, number, 1);
    for (int i = 0; i < everywhere; ++i) {
      std::vector<double> unit(d);
      for (double& u : unit) u = wide.uniform();
      SearchPoint point = space.at(unit);
      consider(std::move(unit), std::move(point));
    }
    double reach = 0.2;
    for (std::uint32_t round = 0; round < rounds; ++round, reach *= 0.5) {
      Draws close(seed, number, 2 + round);
      const std::vector<Candidate> starts = front;
      for (const Candidate& start : starts) {
        for (int i = 0; i < nearby; ++i) {
          std::vector<double> unit = start.unit;
          for (double& u : unit) u = std::clamp(u + reach * close.normal(), 0.0, 1.0);
          SearchPoint point = space.at(unit);
          consider(std::move(unit), std::move(point));
        }
      }
    }
  }
  if (front.empty()) return even_point(space, seed, number, taken);
  return front.front().point;
}

}  // namespace umbriel
