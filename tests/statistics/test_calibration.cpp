// Calibration statistics against tables, closed forms, and toy posteriors that are right or wrong in a known way.
#include <algorithm>
#include <cmath>
#include <tuple>

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

TEST(RankDistribution, IsTheEmpiricalDistributionAtTheEdgesOfRanks) {
  const std::vector<std::int64_t> ranks = {0, 3, 3, 2, 1, 3, 0, 3};
  const std::vector<std::int64_t> counts = count_ranks(ranks, 3);
  for (int edge = 0; edge <= 4; ++edge) {
    const auto below = std::count_if(ranks.begin(), ranks.end(), [&](auto r) { return r < edge; });
    EXPECT_NEAR(rank_distribution(counts, edge / 4.0), below / 8.0, 1e-15) << edge;
  }
  EXPECT_NEAR(rank_distribution(counts, 7.0 / 8), 0.75, 1e-15) << "half of the last interval, which holds half";
  EXPECT_TRUE(std::isnan(rank_distribution({0, 0}, 0.5)));
  EXPECT_THROW(count_ranks({4}, 3), Error);
  EXPECT_THROW(count_ranks({-1}, 3), Error);
}

TEST(MeanAndError, AreTheTextbookOnes) {
  const MeanAndError value = mean_and_error({1, 2, 3, 6});
  EXPECT_NEAR(value.mean, 3, 1e-14);
  EXPECT_NEAR(value.error, std::sqrt(14.0 / 3 / 4), 1e-14);
  EXPECT_TRUE(std::isnan(mean_and_error({1}).error));
  EXPECT_TRUE(std::isnan(mean_and_error({}).mean));
}

TEST(Kolmogorov, AgreesWithTables) {
  // Exact critical values of the two-sided statistic (Miller 1956, J. Am. Stat. Assoc. 51, 111).
  EXPECT_NEAR(kolmogorov_distance(0.05, 10), 0.40925, 2e-3);
  EXPECT_NEAR(kolmogorov_distance(0.05, 20), 0.29408, 1e-3);
  EXPECT_NEAR(kolmogorov_distance(0.05, 100), 0.13403, 2e-4);
  EXPECT_NEAR(kolmogorov_distance(0.01, 100), 0.16081, 3e-4);
  EXPECT_NEAR(kolmogorov_distance(0.05, 1e8) * 1e4, 1.3581, 1e-4);  // limits: Smirnov 1948
  EXPECT_NEAR(kolmogorov_distance(0.5, 1e8) * 1e4, 0.82757, 1e-4);
  EXPECT_NEAR(kolmogorov_distance(0.9, 1e8) * 1e4, 0.57117, 1e-4);
  EXPECT_NEAR(kolmogorov_tail(kolmogorov_distance(0.3, 50), 50), 0.3, 1e-9);
  EXPECT_EQ(kolmogorov_tail(0, 50), 1);
  EXPECT_NEAR(kolmogorov_tail(1, 50), 0, 1e-12);
}

TEST(SquaredDistance, LooksInsideTheMask) {
  const std::vector<float> a = {1, 2, 3}, b = {0, 4, 100}, mask = {1, 1, 0};
  EXPECT_EQ(squared_distance(a.data(), b.data(), mask.data(), 3), 5);
}

TEST(Tarp, IsTheDistributionOfRanksWithinItsBand) {
  std::vector<double> credibility;
  for (int i = 0; i <= 8; ++i) credibility.push_back(i / 8.0);
  std::vector<std::int64_t> flat;
  for (int i = 0; i < 80; ++i) flat.push_back(i % 8);
  const Tarp right = tarp(flat, 7, credibility);
  for (int i = 0; i <= 8; ++i) EXPECT_NEAR(right.coverage[static_cast<std::size_t>(i)], i / 8.0, 1e-14);
  EXPECT_NEAR(right.largest, 0, 1e-14);
  EXPECT_EQ(right.p_value, 1);
  const Tarp wrong = tarp({0, 0, 0, 0}, 7, credibility);
  EXPECT_NEAR(wrong.largest, 7.0 / 8, 1e-14);
  EXPECT_NEAR(wrong.coverage[1], 1, 1e-14);
  EXPECT_THROW(tarp({}, 7, credibility), Error);
}

TEST(Tarp, RaisesAFalseAlarmInOneOfTwentyCasesOrFewer) {
  int alarms = 0;
  constexpr int cases = 1000, mocks = 200;
  for (std::uint32_t c = 0; c < cases; ++c) {
    std::vector<std::int64_t> ranks;
    for (std::uint64_t m = 0; m < mocks; ++m)
      ranks.push_back(static_cast<std::int64_t>(100 * uniform({2, Purpose::test, c, 0}, m)));
    const Tarp result = tarp(ranks, 99, {});
    alarms += result.largest > result.band;
    EXPECT_EQ(result.largest > result.band, result.p_value < 0.05);
  }
  EXPECT_GT(alarms, 20);
  EXPECT_LT(alarms, 70);  // 50 +- 7
}

/// TARP ranks of a toy in 12 dimensions: truth x ~ N(0, 1), data d = x + N(0, 1); the exact posterior is N(d/2, 1/2).
/// The draws have `spread` times its standard deviation and a mean off by `bias` of them.
/// @param data_reference  the point the data say, d/2, in place of a random point of the prior
std::vector<std::int64_t> toy_ranks(double spread, double bias, bool data_reference) {
  constexpr int dimensions = 12, draws = 63, mocks = 600;
  const std::vector<float> mask(dimensions, 1);
  std::vector<std::int64_t> ranks;
  for (std::uint32_t m = 0; m < mocks; ++m) {
    const auto gauss = [&](std::uint32_t what, int i) {
      return static_cast<double>(normal({3, Purpose::test, m, what}, static_cast<std::uint64_t>(i)));
    };
    std::vector<float> truth(dimensions), reference(dimensions), draw(dimensions);
    std::vector<double> mean(dimensions);
    for (int i = 0; i < dimensions; ++i) {
      const auto at = static_cast<std::size_t>(i);
      truth[at] = static_cast<float>(gauss(0, i));
      mean[at] = (static_cast<double>(truth[at]) + gauss(1, i)) / 2;
      reference[at] = static_cast<float>(data_reference ? mean[at] : gauss(2, i));
    }
    std::vector<double> distances;
    for (std::uint32_t d = 0; d < draws; ++d) {
      for (int i = 0; i < dimensions; ++i) {
        const auto at = static_cast<std::size_t>(i);
        draw[at] = static_cast<float>(mean[at] + std::sqrt(0.5) * (bias + spread * gauss(3 + d, i)));
      }
      distances.push_back(squared_distance(draw.data(), reference.data(), mask.data(), dimensions));
    }
    ranks.push_back(rank_among(squared_distance(truth.data(), reference.data(), mask.data(), dimensions), distances));
  }
  return ranks;
}

TEST(Tarp, PassesARightToyAndCatchesWrongOnes) {
  for (const bool data_reference : {false, true}) {
    const Tarp right = tarp(toy_ranks(1, 0, data_reference), 63, {});
    EXPECT_LT(right.largest, right.band) << data_reference;
    for (const auto& [spread, bias, name] :
         {std::tuple{0.75, 0.0, "over-confident"}, {1.33, 0.0, "under-confident"}, {1.0, 0.5, "biased"}}) {
      const Tarp wrong = tarp(toy_ranks(spread, bias, data_reference), 63, {});
      EXPECT_GT(wrong.largest, 1.5 * wrong.band) << name << ", " << (data_reference ? "data" : "prior");
      EXPECT_LT(wrong.p_value, 1e-4) << name;
    }
  }
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
