// The Gaussian process against its dense formula, scikit-learn and finite differences; searches that must find minima.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "umbriel/core/check.hpp"
#include "umbriel/inference/bayesian_optimisation.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

using Rows = std::vector<std::vector<double>>;

/// Twelve points in the unit square and a smooth function of them with some roughness.
Rows some_inputs() {
  Rows x;
  for (int i = 0; i < 12; ++i) x.push_back({std::fmod(i * 0.618033988749895, 1), std::fmod(i * 0.754877666246693, 1)});
  return x;
}
std::vector<double> some_values() {
  std::vector<double> y;
  int i = 0;
  for (const auto& x : some_inputs()) y.push_back(std::sin(5 * x[0]) + std::cos(4 * x[1]) + 0.1 * std::cos(17.0 * i++));
  return y;
}
const GaussianProcess::Parameters some_parameters = {std::log(0.4), std::log(0.9), std::log(1.3), std::log(0.1)};

/// A^-1 by elimination with pivots.
Rows inverse(Rows a) {
  const std::size_t n = a.size();
  Rows b(n, std::vector<double>(n, 0));
  for (std::size_t i = 0; i < n; ++i) b[i][i] = 1;
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    for (std::size_t r = c; r < n; ++r) pivot = std::fabs(a[r][c]) > std::fabs(a[pivot][c]) ? r : pivot;
    std::swap(a[c], a[pivot]);
    std::swap(b[c], b[pivot]);
    const double diagonal = a[c][c];
    for (std::size_t j = 0; j < n; ++j) {
      a[c][j] /= diagonal;
      b[c][j] /= diagonal;
    }
    for (std::size_t r = 0; r < n; ++r) {
      if (r == c) continue;
      const double factor = a[r][c];
      for (std::size_t j = 0; j < n; ++j) {
        a[r][j] -= factor * a[c][j];
        b[r][j] -= factor * b[c][j];
      }
    }
  }
  return b;
}

TEST(GaussianProcess, AgreesWithItsDenseFormula) {
  const Rows x = some_inputs();
  const std::vector<double> y = some_values();
  const std::size_t n = x.size();
  double mean = 0, variance = 0;
  for (const double value : y) mean += value / static_cast<double>(n);
  for (const double value : y) variance += (value - mean) * (value - mean) / static_cast<double>(n);
  const auto k = [&](const std::vector<double>& a, const std::vector<double>& b) {
    const double r = std::hypot((a[0] - b[0]) / 0.4, (a[1] - b[1]) / 0.9), q = std::sqrt(5.0) * r;
    return variance * 1.3 * 1.3 * (1 + q + q * q / 3) * std::exp(-q);
  };
  Rows matrix(n, std::vector<double>(n));
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) matrix[i][j] = k(x[i], x[j]) + (i == j ? 0.01 * variance : 0);
  }
  const Rows inverted = inverse(matrix);
  GaussianProcess process(x, y);
  process.log_marginal_likelihood(some_parameters);
  for (const std::vector<double>& at : Rows{{0.25, 0.5}, {0.9, 0.1}, {1.4, 0.3}, x[3]}) {
    double expected = mean, spread = k(at, at);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        expected += k(at, x[i]) * inverted[i][j] * (y[j] - mean);
        spread -= k(at, x[i]) * inverted[i][j] * k(at, x[j]);
      }
    }
    const auto f = process.predict(at);
    EXPECT_NEAR(f.mean, expected, 1e-10);
    EXPECT_NEAR(f.deviation, std::sqrt(spread), 1e-9);
  }
}

// scikit-learn 1.9: GaussianProcessRegressor(ConstantKernel(1.3**2) * Matern([0.4, 0.9], nu=2.5) + WhiteKernel(0.1**2),
// optimizer=None, normalize_y=True), which adds 1e-10 to the diagonal; its deviations less the white noise. Its
// gradient is by the logarithms of variances, half of ours. The fit: bounds as here, n_restarts_optimizer=20.
TEST(GaussianProcess, AgreesWithScikitLearn) {
  GaussianProcess process(some_inputs(), some_values());
  double gradient[4];
  EXPECT_NEAR(process.log_marginal_likelihood(some_parameters, gradient), -8.74866241864952, 1e-8);
  const double slopes[] = {2.01941152424, -2.460828902396, 2 * 0.669102050248, 2 * -0.210531724991};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(gradient[i], slopes[i], 1e-7) << i;
  const Rows at = {{0.25, 0.5}, {0.9, 0.1}, {1.4, 0.3}};
  const double means[] = {0.536987441366575, -0.0951752947408747, -0.128753583461228};
  const double deviations[] = {0.0771293304970595, 0.0930420759147944, 1.03460315189755};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(process.predict(at[i]).mean, means[i], 1e-9);
    EXPECT_NEAR(process.predict(at[i]).deviation, deviations[i], 1e-9);
  }
  const GaussianProcess::Parameters best = process.fit();
  EXPECT_NEAR(process.log_marginal_likelihood(best), -8.0862225719, 1e-5);
  EXPECT_NEAR(std::exp(best[0]), 0.468405825367, 2e-3);
  EXPECT_NEAR(std::exp(best[1]), 0.604552671577, 2e-3);
  EXPECT_NEAR(std::exp(best[2]), std::sqrt(1.476038828821), 5e-3);
  EXPECT_NEAR(std::exp(best[3]), std::sqrt(0.005441011769), 2e-3);
  EXPECT_NEAR(process.predict(at[0]).mean, 0.4815562189, 1e-3);
  EXPECT_NEAR(process.predict(at[2]).mean, -0.2929887306, 2e-3);
}

TEST(GaussianProcess, GradientIsThatOfTheLikelihood) {
  // Two inputs that share a length, as those of a choice do.
  Rows x = some_inputs();
  for (std::size_t i = 0; i < x.size(); ++i) x[i].push_back(i % 3 == 0 ? 0.7 : 0);
  GaussianProcess process(x, some_values(), {0, 1, 1});
  ASSERT_EQ(process.parameters(), 4U);
  for (const auto& parameters : Rows{some_parameters, {-1.5, 0.3, 0.2, -4}, {1, -2, -1, -0.5}}) {
    double gradient[4];
    process.log_marginal_likelihood(parameters, gradient);
    for (std::size_t i = 0; i < 4; ++i) {
      constexpr double h = 1e-5;
      auto up = parameters, down = parameters;
      up[i] += h;
      down[i] -= h;
      const double slope = (process.log_marginal_likelihood(up) - process.log_marginal_likelihood(down)) / (2 * h);
      EXPECT_NEAR(gradient[i], slope, 1e-6 * (1 + std::fabs(slope))) << i;
    }
  }
}

TEST(ExpectedImprovement, IsTheIntegral) {
  const auto numeric = [](double mean, double deviation, double best) {
    // Simpson's rule over the half line below best, in units of the deviation.
    const double low = -40, high = std::min((best - mean) / deviation, 40.0);
    constexpr int n = 200000;
    double sum = 0;
    for (int i = 0; i <= n; ++i) {
      const double z = low + (high - low) * i / n, weight = i == 0 || i == n ? 1 : i % 2 == 1 ? 4 : 2;
      sum += weight * (best - mean - deviation * z) * std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi);
    }
    return sum * (high - low) / n / 3;
  };
  for (const double mean : {-1.0, 0.3, 2.0, 6.0}) {
    for (const double deviation : {0.2, 1.0, 3.0}) {
      const double expected = numeric(mean, deviation, 0.5);
      EXPECT_NEAR(expected_improvement({mean, deviation}, 0.5), expected, 1e-9 * (1 + expected)) << mean << deviation;
      if (expected > 1e-12) {
        EXPECT_NEAR(expected_improvement({mean, deviation}, 0.5) / expected, 1, 1e-6) << mean << deviation;
      }
    }
  }
  EXPECT_EQ(expected_improvement({0.2, 0}, 0.5), 0.3);
  EXPECT_EQ(expected_improvement({0.7, 0}, 0.5), 0);
}

TEST(SearchSpace, SpreadsValuesAsTheRangesSay) {
  const SearchSpace space({{1e-5, 1e-1, true}, {1, 4, false, true}, {8, 64, true, true}, {.choices = 3}});
  EXPECT_EQ(space.at({0, 0, 0, 0}), (SearchPoint{1e-5, 1, 8, 0}));
  EXPECT_EQ(space.at({0.5, 0.5, 0.999999, 0.999999}), (SearchPoint{1e-3, 3, 64, 2}));
  EXPECT_EQ(space.at({1, 1, 1, 1}), (SearchPoint{1e-1, 4, 64, 2}));
  std::vector<int> counts(5), choices(3);
  constexpr int n = 12000;
  for (int i = 0; i < n; ++i) {
    const double u = (i + 0.5) / n;
    const SearchPoint point = space.at({u, u, u, u});
    ++counts[static_cast<std::size_t>(point[1])];
    ++choices[static_cast<std::size_t>(point[3])];
  }
  for (std::size_t whole = 1; whole <= 4; ++whole) EXPECT_EQ(counts[whole], n / 4);
  for (const int count : choices) EXPECT_EQ(count, n / 3);

  const std::vector<double> features = space.features({1e-3, 1, 8, 1});
  ASSERT_EQ(features.size(), 6U);
  EXPECT_EQ(space.feature_groups(), (std::vector<std::size_t>{0, 1, 2, 3, 3, 3}));
  EXPECT_NEAR(features[0], 0.5, 1e-12);
  EXPECT_NEAR(features[1], 0.125, 1e-12);
  EXPECT_EQ(features[3], 0);
  EXPECT_NEAR(features[4], std::sqrt(0.5), 1e-12);
  // A trial from outside: a value that has no logarithm, none of the choices.
  EXPECT_EQ(space.features({0, 1, 8, -1})[0], -0.5);
  EXPECT_EQ(space.features({0, 1, 8, -1})[4], 0);

  EXPECT_TRUE(space.all(100000).empty());
  const SearchSpace small({{1, 3, false, true}, {.choices = 2}});
  EXPECT_EQ(small.all(6).size(), 6U);
  EXPECT_TRUE(small.all(5).empty());
  for (const SearchRange& bad : {SearchRange{1, 1}, SearchRange{2, 1}, SearchRange{0, 1, true},
                                 SearchRange{0, std::numeric_limits<double>::infinity()}})
    EXPECT_THROW(SearchSpace({bad}), Error);
  EXPECT_THROW(SearchSpace({}), Error);
}

/// Dixon & Szego 1978: three minima of 0.397887 on [-5, 10] x [0, 15], 300 at a corner.
double branin(const SearchPoint& p) {
  const double pi = std::numbers::pi, a = p[1] - 5.1 / (4 * pi * pi) * p[0] * p[0] + 5 / pi * p[0] - 6;
  return a * a + 10 * (1 - 1 / (8 * pi)) * std::cos(p[0]) + 10;
}
const SearchSpace branin_space({{-5, 10}, {0, 15}});

using Loss = std::function<double(const SearchPoint&)>;

/// A search in batches of `groups`, each proposed from the trials before it.
std::vector<SearchTrial> search(const SearchSpace& space, const Loss& loss, std::uint64_t seed, std::size_t trials,
                                std::size_t initial = 8, std::size_t groups = 1) {
  std::vector<SearchTrial> done;
  while (done.size() < trials) {
    std::vector<SearchPoint> batch;
    while (batch.size() < groups && done.size() + batch.size() < trials) {
      const auto point = propose(space, seed, initial, done, batch);
      if (!point) break;
      batch.push_back(*point);
    }
    for (const SearchPoint& point : batch) done.push_back({point, loss(point)});
    if (batch.size() < groups) break;
  }
  return done;
}

double least(const std::vector<SearchTrial>& trials) {
  double best = std::numeric_limits<double>::infinity();
  for (const SearchTrial& trial : trials) {
    if (trial.loss < best) best = trial.loss;
  }
  return best;
}

TEST(Search, FindsTheMinimumOfBraninFarBetterThanChance) {
  double random_sum = 0, search_sum = 0;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const double found = least(search(branin_space, branin, seed, 30));
    EXPECT_LT(found, 0.397887 + 0.1) << seed;
    EXPECT_GE(found, 0.397886);
    // All thirty from the sequence that its first eight come from.
    const double even = least(search(branin_space, branin, seed, 30, 30));
    random_sum += even - 0.397887;
    search_sum += found - 0.397887;
    const double batches = least(search(branin_space, branin, seed, 32, 8, 4));
    EXPECT_LT(batches, 0.397887 + 0.3) << seed;
  }
  EXPECT_LT(search_sum, 0.1 * random_sum);
}

TEST(Search, IsAFunctionOfSeedAndTrials) {
  const auto first = search(branin_space, branin, 7, 14, 4, 3), again = search(branin_space, branin, 7, 14, 4, 3),
             other = search(branin_space, branin, 8, 14, 4, 3), longer = search(branin_space, branin, 7, 18, 4, 3);
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].point, again[i].point) << i;
    EXPECT_EQ(first[i].point, longer[i].point) << "the number of trials has no part in it";
    EXPECT_NE(first[i].point, other[i].point) << i;
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(first[i].point, first[j].point) << "no point twice";
  }
  // What is pending counts, and keeps points apart.
  const auto next = propose(branin_space, 7, 4, first, {});
  const auto beside = propose(branin_space, 7, 4, first, {*next});
  ASSERT_TRUE(next && beside);
  EXPECT_GT(std::hypot((*next)[0] - (*beside)[0], (*next)[1] - (*beside)[1]), 0.1);
}

TEST(Search, ProposesWhereTheImprovementIsLargest) {
  const auto trials = search(branin_space, branin, 2, 14);
  Rows inputs;
  std::vector<double> losses;
  for (const SearchTrial& trial : trials) {
    inputs.push_back(branin_space.features(trial.point));
    losses.push_back(trial.loss);
  }
  std::vector<double> sorted = losses;
  std::sort(sorted.begin(), sorted.end());
  for (double& loss : losses) loss = std::min(loss, sorted[0] + 5 * (sorted[7] - sorted[0]));
  GaussianProcess process(inputs, losses);
  process.fit();
  double level = std::numeric_limits<double>::infinity(), largest = 0;
  for (const auto& input : inputs) level = std::min(level, process.predict(input).mean);
  for (int i = 0; i < 200; ++i) {
    for (int j = 0; j < 200; ++j)
      largest = std::max(largest, expected_improvement(process.predict({(i + 0.5) / 200, (j + 0.5) / 200}), level));
  }
  const auto point = propose(branin_space, 2, 8, trials, {});
  ASSERT_TRUE(point);
  EXPECT_GE(expected_improvement(process.predict(branin_space.features(*point)), level), 0.9999 * largest);
}

TEST(Search, LivesWithFailuresAndWildLosses) {
  // A third of the range fails, and losses beyond it explode.
  const SearchSpace space({{1e-5, 1, true}, {.choices = 2}});
  const Loss loss = [](const SearchPoint& p) {
    const double x = std::log10(p[0]);
    if (x > -1.5) return x > -0.7 ? std::numeric_limits<double>::quiet_NaN() : 1e12;
    return (x + 2.5) * (x + 2.5) + 0.3 * p[1];
  };
  for (const std::uint64_t seed : {1U, 3U}) {
    const auto trials = search(space, loss, seed, 25);
    EXPECT_LT(least(trials), 5e-4) << seed;
    int wild = 0;
    for (std::size_t i = 8; i < trials.size(); ++i) wild += trials[i].loss < 1e3 ? 0 : 1;
    EXPECT_LE(wild, 6) << "most of what is proposed keeps away from there";
  }
  // All failed so far: nothing to fit, but the space is filled on.
  std::vector<SearchTrial> failed;
  for (int i = 0; i < 12; ++i) {
    const auto point = propose(space, 3, 8, failed, {});
    ASSERT_TRUE(point);
    failed.push_back({*point, std::numeric_limits<double>::quiet_NaN()});
  }
  // Equal losses leave nothing to scale by.
  const auto flat = search(
      space, [](const SearchPoint&) { return 2.0; }, 3, 14);
  EXPECT_EQ(flat.size(), 14U);
}

TEST(Search, EndsWhereASmallSpaceEnds) {
  const SearchSpace space({{1, 3, false, true}, {.choices = 2}});
  for (const std::size_t groups : {1U, 4U}) {
    const auto trials = search(
        space, [](const SearchPoint& p) { return p[0] + p[1]; }, 1, 20, 3, groups);
    ASSERT_EQ(trials.size(), 6U);
    for (std::size_t i = 0; i < 6; ++i) {
      for (std::size_t j = 0; j < i; ++j) EXPECT_NE(trials[i].point, trials[j].point);
    }
  }
  EXPECT_THROW(propose(SearchSpace(std::vector<SearchRange>(21)), 1, 8, {}, {}), Error);
}

TEST(Search, FillsTheSpaceEvenlyAtFirst) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const auto trials = search(branin_space, branin, seed, 64, 64);
    int cells[4][4] = {};
    for (const SearchTrial& trial : trials)
      ++cells[static_cast<int>((trial.point[0] + 5) / 15 * 4)][static_cast<int>(trial.point[1] / 15 * 4)];
    for (const auto& row : cells) {
      for (const int count : row) {
        EXPECT_GE(count, 2);
        EXPECT_LE(count, 7);
      }
    }
  }
}

}  // namespace
}  // namespace umbriel
