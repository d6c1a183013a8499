// Pixel statistics of sharded maps: right, and the same bits for any number of ranks.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "umbriel/rng/philox.hpp"
#include "umbriel/statistics/ensemble.hpp"

namespace umbriel {
namespace {

std::vector<float> maps_of_shard(const ShardRange& shard, std::int64_t pixels) {
  std::vector<float> maps;
  for (std::int64_t map = shard.first; map < shard.first + shard.count; ++map) {
    for (std::int64_t i = 0; i < pixels; ++i)
      maps.push_back(normal({1, Purpose::test, static_cast<std::uint32_t>(map), 0}, static_cast<std::uint64_t>(i)));
  }
  return maps;
}

TEST(Summarise, IsTheSameForAnyNumberOfRanks) {
  const Communicator world = Communicator::world();
  constexpr std::int64_t maps = 7, pixels = 11;
  const std::vector<double> levels = {0.0, 0.25, 0.5, 1.0};
  const auto split =
      summarise(world, maps_of_shard(shard_range(maps, world.rank(), world.size()), pixels), pixels, levels);
  const auto whole = summarise(Communicator(), maps_of_shard({0, maps}, pixels), pixels, levels);
  EXPECT_EQ(split.maps, maps);
  if (!world.is_root()) {
    EXPECT_TRUE(split.mean.empty());
    return;
  }
  EXPECT_EQ(split.mean, whole.mean);
  EXPECT_EQ(split.standard_deviation, whole.standard_deviation);
  EXPECT_EQ(split.quantiles, whole.quantiles);
}

TEST(Summarise, KnowsMeanDeviationAndQuantiles) {
  const auto summary = summarise(Communicator(), {1, 10, 4, 20, 2, 30, 3, 60}, 2, {0.5, 0.25, 1.0});
  EXPECT_EQ(summary.mean, (std::vector<float>{2.5f, 30.0f}));
  EXPECT_FLOAT_EQ(summary.standard_deviation[0], std::sqrt(5.0f / 3));
  EXPECT_EQ(summary.quantiles[0], (std::vector<float>{2.5f, 25.0f}));
  EXPECT_EQ(summary.quantiles[1], (std::vector<float>{1.75f, 17.5f}));
  EXPECT_EQ(summary.quantiles[2], (std::vector<float>{4.0f, 60.0f}));
}

TEST(Summarise, LeavesOutMapsThatAreNotFinite) {
  const float lost = std::numeric_limits<float>::quiet_NaN();
  const auto summary = summarise(Communicator(), {1, 1, lost, lost, 3, 5}, 2, {0.5});
  EXPECT_EQ(summary.maps, 2);
  EXPECT_EQ(summary.mean, (std::vector<float>{2, 3}));
}

TEST(Summarise, WorksWithFewerMapsThanRanks) {
  const Communicator world = Communicator::world();
  const auto summary = summarise(world, maps_of_shard(shard_range(1, world.rank(), world.size()), 5), 5, {0.5});
  EXPECT_EQ(summary.maps, 1);
  if (world.is_root()) {
    EXPECT_EQ(summary.mean, summary.quantiles[0]);
  }
}

}  // namespace
}  // namespace umbriel
