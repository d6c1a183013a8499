// Smoothing a delta gives a periodic Gaussian.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "umbriel/maps/smoothing.hpp"

namespace umbriel {
namespace {

MapBatch deltas(const std::vector<std::pair<int, int>>& places, Grid grid, float height = 1) {
  HostMaps host("maps", places.size(), grid.height, grid.width);
  for (std::size_t i = 0; i < places.size(); ++i) host(i, places[i].first, places[i].second) = height;
  const MapBatch maps("maps", places.size(), grid.height, grid.width);
  Kokkos::deep_copy(maps, host);
  return maps;
}

/// Sum of the Gaussians around all images of a point, times the density of pixels.
double periodic_gaussian(int distance, int n, double sigma) {
  double sum = 0;
  for (int image = -3; image <= 3; ++image) {
    const double d = distance + image * n;
    sum += std::exp(-0.5 * d * d / (sigma * sigma));
  }
  return sum / (sigma * std::sqrt(2 * std::numbers::pi));
}

TEST(SmoothMaps, TurnsADeltaIntoAPeriodicGaussian) {
  for (const Grid& grid : {Grid{48, 64}, {33, 27}, {20, 51}}) {
    const std::vector<std::pair<int, int>> places = {{0, 0}, {5, 11}, {grid.height - 1, grid.width - 2}};
    for (const double sigma : {2.0, 3.5}) {  // below 2 pixels a Gaussian has power beyond Nyquist
      const MapBatch maps = deltas(places, grid);
      const RealFft fft(grid);
      const SpectrumBatch scratch("scratch", places.size(), grid.height, grid.half_width());
      smooth_maps(Space(), fft, maps, scratch, static_cast<int>(places.size()), sigma);
      const auto smooth = on_host(maps);
      for (std::size_t i = 0; i < places.size(); ++i) {
        double sum = 0;
        for (int y = 0; y < grid.height; ++y) {
          for (int x = 0; x < grid.width; ++x) {
            const double expected = periodic_gaussian(y - places[i].first, grid.height, sigma) *
                                    periodic_gaussian(x - places[i].second, grid.width, sigma);
            ASSERT_NEAR(static_cast<double>(smooth(i, y, x)), expected, 1e-6);
            sum += static_cast<double>(smooth(i, y, x));
          }
        }
        EXPECT_NEAR(sum, 1, 1e-5);  // smoothing keeps the mean
      }
    }
  }
}

TEST(SmoothMaps, OfZeroWidthChangesNothing) {
  const Grid grid{12, 15};
  const MapBatch maps = deltas({{3, 4}}, grid, 8);
  smooth_maps(Space(), RealFft(grid), maps, SpectrumBatch("scratch", 1, 12, 8), 1, 0);
  const auto smooth = on_host(maps);
  for (int y = 0; y < 12; ++y) {
    for (int x = 0; x < 15; ++x) EXPECT_NEAR(smooth(0, y, x), y == 3 && x == 4 ? 8 : 0, 2e-6);
  }
}

TEST(SmoothMaps, LeavesMapsBehindTheBatchAlone) {
  const Grid grid{8, 8};
  const MapBatch maps = deltas({{1, 1}, {2, 2}}, grid);
  smooth_maps(Space(), RealFft(grid), maps, SpectrumBatch("scratch", 2, 8, 5), 1, 2);
  const auto smooth = on_host(maps);
  EXPECT_EQ(smooth(1, 2, 2), 1);
  EXPECT_LT(smooth(0, 1, 1), 0.1f);
}

}  // namespace
}  // namespace umbriel
