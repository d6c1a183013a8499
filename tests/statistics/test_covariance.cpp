#include "umbriel/statistics/covariance.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <string>

#include "umbriel/core/check.hpp"
#include "umbriel/mpi/communicator.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

const Communicator& world() {
  static const Communicator comm = Communicator::world();
  return comm;
}

/// n vectors of p correlated numbers, x_i = z_i + z_(i-1) / 2 + i, of which this rank has its shard.
std::vector<double> correlated(std::int64_t n, std::size_t p, const Communicator& comm = world()) {
  const ShardRange shard = shard_range(n, comm.rank(), comm.size());
  std::vector<double> out;
  for (std::int64_t k = shard.first; k < shard.first + shard.count; ++k) {
    double before = 0;
    for (std::size_t i = 0; i < p; ++i) {
      const double z = normal({5, Purpose::test, static_cast<std::uint32_t>(k), 0}, static_cast<std::uint32_t>(i));
      out.push_back(z + before / 2 + static_cast<double>(i));
      before = z;
    }
  }
  return out;
}

TEST(Covariance, OfAHandfulOfVectorsIsWhatItIsByHand) {
  // Of (1, 2), (3, 0), (5, 7): means 3 and 3, deviations (-2, -1), (0, -3), (2, 4).
  const std::vector<double> all = {1, 2, 3, 0, 5, 7};
  const Covariance c = covariance_of(Communicator(), all, 2);
  EXPECT_EQ(c.n, 3);
  EXPECT_EQ(c.mean, (std::vector<double>{3, 3}));
  EXPECT_EQ(c.covariance, (std::vector<double>{4, 5, 5, 13}));
  const auto r = correlation_of(c.covariance);
  EXPECT_EQ(r[0], 1);
  EXPECT_NEAR(r[1], 5 / std::sqrt(52.0), 1e-15);
  // Leaving one out by hand.
  const double without[3] = {7.0, 10.0, -2.0};  // covariance of the two numbers
  const double mean = (without[0] + without[1] + without[2]) / 3;
  double square = 0;
  for (const double value : without) square += (value - mean) * (value - mean);
  EXPECT_NEAR(jackknife_errors(Communicator(), all, c)[1], std::sqrt(2.0 / 3 * square), 1e-13);
}

TEST(Covariance, DoesNotDependOnTheNumberOfRanks) {
  const std::size_t p = 7;
  const auto local = correlated(501, p), all = correlated(501, p, Communicator());
  const Covariance c = covariance_of(world(), local, p), alone = covariance_of(Communicator(), all, p);
  EXPECT_EQ(c.n, 501);
  EXPECT_EQ(c.mean, alone.mean);
  EXPECT_EQ(c.covariance, alone.covariance);
  EXPECT_EQ(ledoit_wolf(world(), local, c).covariance, ledoit_wolf(Communicator(), all, alone).covariance);
  EXPECT_EQ(jackknife_errors(world(), local, c), jackknife_errors(Communicator(), all, alone));
  EXPECT_EQ(bootstrap_errors(world(), local, c, 5, 1), bootstrap_errors(Communicator(), all, alone, 5, 1));
}

TEST(Covariance, OfCorrelatedNormalsIsTheirs) {
  const std::size_t p = 4;
  const std::int64_t n = 20000;
  const auto local = correlated(n, p);
  const Covariance c = covariance_of(world(), local, p);
  const auto gaussian = gaussian_errors(c), jackknife = jackknife_errors(world(), local, c),
             bootstrap = bootstrap_errors(world(), local, c, 100, 3);
  for (std::size_t i = 0; i < p; ++i) {
    EXPECT_NEAR(c.mean[i], static_cast<double>(i), 5 * std::sqrt(1.25 / static_cast<double>(n)));
    for (std::size_t j = 0; j < p; ++j) {
      const double truth = i == j ? (i == 0 ? 1 : 1.25) : (i + 1 == j || j + 1 == i) ? 0.5 : 0;
      const std::size_t e = i * p + j;
      EXPECT_NEAR(c.covariance[e], truth, 5 * gaussian[e]);
      EXPECT_NEAR(jackknife[e], gaussian[e], 0.05 * gaussian[e]);
      EXPECT_NEAR(bootstrap[e], gaussian[e], 0.35 * gaussian[e]);  // five times 1 / sqrt(2 * 100)
    }
  }
}

TEST(Covariance, ShrinksTowardsTheUnitMatrixAsMuchAsNeeded) {
  // Against the definition, by brute force: Ledoit & Wolf, lemmata 3.2 to 3.4, the covariance with 1 / n.
  const std::size_t p = 6;
  const std::int64_t n = 9;
  const auto all = correlated(n, p, Communicator());
  const Covariance sample = covariance_of(Communicator(), all, p);
  std::vector<double> s(p * p);
  double mu = 0, delta = 0, beta = 0;
  for (std::size_t e = 0; e < p * p; ++e)
    s[e] = sample.covariance[e] * static_cast<double>(n - 1) / static_cast<double>(n);
  for (std::size_t i = 0; i < p; ++i) mu += s[i * p + i] / p;
  for (std::size_t e = 0; e < p * p; ++e) delta += std::pow(s[e] - (e % (p + 1) == 0 ? mu : 0), 2);
  for (std::size_t k = 0; k < static_cast<std::size_t>(n); ++k) {
    for (std::size_t i = 0; i < p; ++i) {
      for (std::size_t j = 0; j < p; ++j) {
        const double product = (all[k * p + i] - sample.mean[i]) * (all[k * p + j] - sample.mean[j]);
        beta += std::pow(product - s[i * p + j], 2) / static_cast<double>(n * n);
      }
    }
  }
  const Shrunk shrunk = ledoit_wolf(Communicator(), all, sample);
  EXPECT_NEAR(shrunk.amount, std::min(1.0, beta / delta), 1e-12);
  EXPECT_GT(shrunk.amount, 0.05);
  const auto many = correlated(20000, p, Communicator());
  EXPECT_LT(ledoit_wolf(Communicator(), many, covariance_of(Communicator(), many, p)).amount, 0.01);
}

TEST(Covariance, FactorsOfTheInverse) {
  EXPECT_NEAR(hartlap_factor(10000, 30), 0.99690, 5e-6);
  EXPECT_NEAR(hartlap_factor(1000, 15), 0.9840, 5e-5);
  EXPECT_THROW(hartlap_factor(32, 30), Error);
  // One number: Student's t with n - 1 degrees of freedom, as wide as the estimated variance times n / (n - 1)... the
  // density of Sellentin & Heavens integrates to one, whatever its width.
  double integral = 0;
  for (double x = -400; x <= 400; x += 0.01)
    integral += 0.01 * std::exp(sellentin_heavens(x * x / 2.5, std::log(2.5), 6, 1));
  EXPECT_NEAR(integral, 1, 1e-6);
  // Of many simulations it is the Gaussian one.
  const double gaussian = -0.5 * (3.0 + 1.2 + 4 * std::log(2 * std::numbers::pi));
  EXPECT_NEAR(sellentin_heavens(3.0, 1.2, 10000000, 4), gaussian, 1e-5);
}

TEST(Covariance, ComparesTwoEnsembles) {
  // Diagonal covariances, so that everything is known in closed form.
  const Covariance a{101, {1, 3}, {4, 0, 0, 9}}, b{401, {2, 3}, {2, 0, 0, 18}};
  const std::vector<double> a_errors = {0.4, 1, 1, 0.9}, b_errors = {0.1, 1, 1, 0};
  const EnsembleComparison c = compare(a, a_errors, b, b_errors);
  EXPECT_DOUBLE_EQ(c.mean_ratio[0], 0.5);
  EXPECT_NEAR(c.mean_ratio_error[0], 0.5 * std::hypot(std::sqrt(4 / 101.0), std::sqrt(2 / 401.0) / 2), 1e-12);
  EXPECT_DOUBLE_EQ(c.covariance_ratio[0], 2);
  EXPECT_NEAR(c.covariance_ratio_error[0], 2 * std::hypot(0.1, 0.05), 1e-12);
  EXPECT_DOUBLE_EQ(c.correlation_difference[1], 0);
  EXPECT_NEAR(c.correlation_difference_error[1], std::sqrt(1 / 101.0 + 1 / 401.0), 1e-12);
  ASSERT_EQ(c.eigenvalue_ratios.size(), 2U);
  EXPECT_NEAR(c.eigenvalue_ratios[0], 0.5, 1e-12);
  EXPECT_NEAR(c.eigenvalue_ratios[1], 2, 1e-12);
  // 1/2 (tr - p + (difference of means)^2 / variance - ln det), the logarithms of 2 and 1/2 cancelling.
  EXPECT_NEAR(c.divergence, 0.5 * (2.5 - 2 + 1.0 / 2), 1e-12);

  // Two samples of one distribution differ as much as is expected.
  const std::size_t p = 4;
  const auto many = correlated(4000, p, Communicator());
  const std::vector<double> first(many.begin(), many.begin() + 2000 * p), second(many.begin() + 2000 * p, many.end());
  const Covariance x = covariance_of(Communicator(), first, p), y = covariance_of(Communicator(), second, p);
  const EnsembleComparison same =
      compare(x, jackknife_errors(Communicator(), first, x), y, jackknife_errors(Communicator(), second, y));
  EXPECT_LT(same.divergence, 3 * same.divergence_expected);
  EXPECT_GT(same.divergence, 0.2 * same.divergence_expected);
  for (std::size_t i = 0; i < p * p; ++i)
    EXPECT_LT(std::fabs(same.covariance_ratio[i] - 1), 4 * same.covariance_ratio_error[i]);

  EXPECT_TRUE(compare({3, {1, 3}, {4, 0, 0, 9}}, a_errors, b, b_errors).eigenvalue_ratios.empty());
  EXPECT_THROW(compare(a, a_errors, {9, {1}, {1}}, {1}), Error);
}

TEST(Covariance, RefusesWhatIsNoNumber) {
  auto local = correlated(12, 3);
  const ShardRange shard = shard_range(12, world().rank(), world().size());
  if (shard.first <= 7 && 7 < shard.first + shard.count)
    local[static_cast<std::size_t>(7 - shard.first) * 3 + 2] = std::nan("");
  try {
    covariance_of(world(), local, 3);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(std::string(error.what()).find("vector 7, number 2"), std::string::npos) << error.what();
  }
  EXPECT_THROW(covariance_of(Communicator(), {1, 2, 3}, 3), Error);
}

}  // namespace
}  // namespace umbriel
