// Diagnostics on chains whose properties are known.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "umbriel/inference/diagnostics.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

/// AR(1) chains with the given correlation, of unit variance; super-chain s is moved by shift * s.
ChainDraws autoregressive(int chains, int length, double correlation, double shift = 0, int members = 4) {
  ChainDraws draws(static_cast<std::size_t>(chains));
  for (int c = 0; c < chains; ++c) {
    double x = 0;
    for (int t = 0; t < length; ++t) {
      const double z = normal({3, Purpose::test, static_cast<std::uint32_t>(c), 0}, static_cast<std::uint64_t>(t));
      x = t == 0 ? z : correlation * x + std::sqrt(1 - correlation * correlation) * z;
      draws[static_cast<std::size_t>(c)].push_back(x + shift * (c / members));
    }
  }
  return draws;
}

TEST(EffectiveSampleSize, OfAnAutoregressionIsKnown) {
  for (const double correlation : {-0.4, 0.0, 0.5, 0.8}) {
    const double expected = 64.0 * 400 * (1 - correlation) / (1 + correlation);
    // Cutting the sum at the first small pair counts alternating chains a little too high.
    const double tolerance = correlation < 0 ? 0.2 : 0.12;
    EXPECT_NEAR(effective_sample_size(autoregressive(64, 400, correlation)), expected, tolerance * expected)
        << correlation;
  }
}

TEST(LagOneCorrelation, OfAnAutoregressionIsItsCoefficient) {
  for (const double correlation : {-0.4, 0.0, 0.7})
    EXPECT_NEAR(lag_one_correlation(autoregressive(64, 200, correlation)), correlation, 0.03);
}

TEST(NestedRHat, IsOneWhenConvergedAndNotWhenStartsAreRemembered) {
  EXPECT_NEAR(nested_r_hat(autoregressive(256, 8, 0.2), 4), 1.0, 0.2);
  // Super-chain means 0 ... 63, each far from the next: between-variance 64 * 65 / 12, within-variance about 1.
  EXPECT_NEAR(nested_r_hat(autoregressive(256, 50, 0.0, 1.0), 4), std::sqrt(1 + 64 * 65 / 12.0), 1.0);
}

TEST(NestedRHat, LimitHoldsForIndependentChainsAndNotForTheirStarts) {
  int above = 0;
  for (std::uint32_t trial = 0; trial < 400; ++trial) {
    ChainDraws draws(24, std::vector<double>(3));
    for (std::uint32_t c = 0; c < 24; ++c) {
      for (std::uint32_t t = 0; t < 3; ++t) draws[c][t] = normal({5, Purpose::test, c, trial}, t);
    }
    above += nested_r_hat(draws, 4) > nested_r_hat_limit(6, 4, 3) ? 1 : 0;
  }
  EXPECT_LE(above, 8);
  EXPECT_GT(nested_r_hat(autoregressive(24, 3, 0.0, 1.0), 4), nested_r_hat_limit(6, 4, 3));
  EXPECT_EQ(nested_r_hat_limit(1000, 100, 1000), 1.05);
}

TEST(Diagnostics, LeaveOutChainsThatAreNotFinite) {
  ChainDraws draws = autoregressive(64, 50, 0.3);
  const double clean = effective_sample_size(draws);
  draws.push_back(std::vector<double>(50, std::numeric_limits<double>::quiet_NaN()));
  EXPECT_EQ(effective_sample_size(draws), clean);
  EXPECT_TRUE(std::isfinite(nested_r_hat(draws, 4)));
  EXPECT_TRUE(std::isnan(nested_r_hat({{1, 2}}, 4)));
  EXPECT_TRUE(std::isnan(effective_sample_size({})));
}

}  // namespace
}  // namespace umbriel
