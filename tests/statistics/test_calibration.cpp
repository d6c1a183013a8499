// Calibration statistics against tables and closed forms.
#include <gtest/gtest.h>

#include "umbriel/core/check.hpp"
#include "umbriel/rng/philox.hpp"
#include "umbriel/statistics/calibration.hpp"

namespace umbriel {
namespace {

TEST(Chi2Tail, AgreesWithTables) {
  // Abramowitz & Stegun, table 26.8.
  EXPECT_NEAR(chi2_tail(3.84146, 1), 0.05, 1e-6);
  EXPECT_NEAR(chi2_tail(24.9958, 15), 0.05, 1e-6);
  EXPECT_NEAR(chi2_tail(37.6973, 15), 0.001, 1e-7);
  EXPECT_NEAR(chi2_tail(8.54676, 15), 0.9, 1e-5);
  EXPECT_NEAR(chi2_tail(124.342, 100), 0.05, 1e-5);
  EXPECT_EQ(chi2_tail(0, 5), 1);
}

TEST(RankUniformity, TellsUniformFromOverconfident) {
  std::vector<std::int64_t> uniform_ranks, edges;
  for (int i = 0; i < 6400; ++i) {
    const double u = uniform({1, Purpose::test, 0, 0}, static_cast<std::uint64_t>(i));
    uniform_ranks.push_back(static_cast<std::int64_t>(64 * u));
    edges.push_back(u < 0.1 ? 0 : u > 0.9 ? 63 : static_cast<std::int64_t>(64 * u));
  }
  EXPECT_GT(rank_uniformity(uniform_ranks, 63, 16), 0.001);
  EXPECT_LT(rank_uniformity(edges, 63, 16), 1e-3);
  EXPECT_THROW(rank_uniformity(uniform_ranks, 63, 15), Error);
}

TEST(RankAmong, CountsTheDrawsBelow) {
  EXPECT_EQ(rank_among(0.0, {1, 2, 3}), 0);
  EXPECT_EQ(rank_among(2.5, {1, 2, 3}), 2);
  EXPECT_EQ(rank_among(9.0, {1, 2, 3}), 3);
}

TEST(CentralCoverage, IsExactForUniformRanksOfAnyNumberOfDraws) {
  for (const int draws : {3, 7, 63, 100}) {
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(draws) + 1, 5);
    for (const double level : {0.5, 0.68, 0.9, 0.95}) EXPECT_NEAR(central_coverage(counts, level), level, 1e-12);
  }
  std::vector<std::int64_t> centre(64, 0);
  centre[31] = centre[32] = 10;
  EXPECT_NEAR(central_coverage(centre, 0.5), 1, 1e-12);
}

TEST(MapMetrics, TakeOffEachFullFieldMeanAndLookInsideTheMask) {
  const std::vector<float> truth = {1, 2, 3, 6}, mask = {1, 1, 1, 0};
  std::vector<float> map = {11, 12, 13, 16};
  EXPECT_NEAR(map_metrics(map.data(), truth.data(), mask.data(), 4).rmse, 0, 1e-12);
  EXPECT_NEAR(map_metrics(map.data(), truth.data(), mask.data(), 4).pearson, 1, 1e-12);
  map = {1, 2, 3, 2};  // means 2 and 3: inside, the difference is 1 everywhere
  EXPECT_NEAR(map_metrics(map.data(), truth.data(), mask.data(), 4).rmse, 1, 1e-12);
  map = {3, 2, 1, 6};
  EXPECT_NEAR(map_metrics(map.data(), truth.data(), mask.data(), 4).pearson, -1, 1e-12);
}

}  // namespace
}  // namespace umbriel
