#include "umbriel/simulation/stationary_field.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

constexpr Grid grid{10, 12};
constexpr Grid wide{16, 18};
constexpr double pixel_arcmin = 3;
const std::vector<double> multipoles = {0, 1500, 3600}, powers = {9, 2, 0.5};

StationaryField field(int batch) { return {grid, pixel_arcmin, multipoles, powers, batch}; }

/// The covariance of two pixels, term by term: the mean of P cos over all modes of the wide grid.
double covariance(int dy, int dx) {
  const StationaryField f = field(1);
  double sum = 0;
  for (int ky = 0; ky < wide.height; ++ky) {
    for (int kx = 0; kx < wide.width; ++kx) {
      const double l = multipole(wide, pixel_arcmin, ky, std::min(kx, wide.width - kx));
      sum += f.power_at(l) *
             std::cos(2 * std::numbers::pi *
                      (static_cast<double>(ky * dy) / wide.height + static_cast<double>(kx * dx) / wide.width));
    }
  }
  return sum / static_cast<double>(wide.pixels());
}

TEST(StationaryField, InterpolatesLogarithmsOfPower) {
  const StationaryField f = field(1);
  EXPECT_DOUBLE_EQ(f.power_at(0), 9);
  EXPECT_NEAR(f.power_at(750), std::sqrt(18.0), 1e-12);
  EXPECT_NEAR(f.power_at(3600), 0.5, 1e-12);
  EXPECT_NEAR(f.power_at(1e6), 0.5, 1e-12);
}

TEST(StationaryField, CovariesAsTheSumOverModes) {
  StationaryField f = field(2);
  const View2<float> h("h", grid.height, grid.width);
  const MapBatch from("from", 2, grid.height, grid.width), to("to", 2, grid.height, grid.width);
  const auto host_h = Kokkos::create_mirror_view(HostMemory{}, h);
  const auto host = Kokkos::create_mirror_view(HostMemory{}, from);
  for (int y = 0; y < grid.height; ++y)
    for (int x = 0; x < grid.width; ++x)
      host_h(y, x) = 1 + 0.1f * static_cast<float>(y) - 0.05f * static_cast<float>(x);
  host(0, 0, 0) = 1;
  host(1, 7, 11) = -2;
  Kokkos::deep_copy(h, host_h);
  Kokkos::deep_copy(from, host);
  f.covary(Space(), 2, from, h, to);
  const auto out = on_host(to);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      const auto at = [&](int v, int u) { return static_cast<double>(host_h(v, u)); };
      EXPECT_NEAR(out(0, y, x), at(y, x) * at(0, 0) * covariance(y, x), 1e-5);
      EXPECT_NEAR(out(1, y, x), -2 * at(y, x) * at(7, 11) * covariance(y - 7, x - 11), 1e-5);
    }
  }
}

TEST(StationaryField, DrawsHaveItsCovarianceAndNoPeriod) {
  constexpr int batch = 50, rounds = 80;
  StationaryField f = field(batch);
  const MapBatch maps("maps", batch, grid.height, grid.width);
  const View1<DrawKey> keys("keys", batch);
  const auto host_keys = Kokkos::create_mirror_view(HostMemory{}, keys);
  constexpr int lags[][2] = {{0, 0}, {0, 1}, {2, 0}, {3, 4}, {0, 11}, {9, 0}};
  double sums[std::size(lags)] = {};
  for (int round = 0; round < rounds; ++round) {
    for (std::uint32_t i = 0; i < batch; ++i)
      host_keys(i) = {5, Purpose::test, static_cast<std::uint32_t>(round * batch) + i, 0};
    Kokkos::deep_copy(keys, host_keys);
    f.draw(Space(), keys, batch, maps);
    const auto host = on_host(maps);
    for (std::size_t lag = 0; lag < std::size(lags); ++lag) {
      for (int i = 0; i < batch; ++i)
        sums[lag] += static_cast<double>(host(i, 0, 0)) * static_cast<double>(host(i, lags[lag][0], lags[lag][1]));
    }
  }
  const double variance = covariance(0, 0), error = 4 * variance * std::sqrt(2.0 / (batch * rounds));
  for (std::size_t lag = 0; lag < std::size(lags); ++lag)
    EXPECT_NEAR(sums[lag] / (batch * rounds), covariance(lags[lag][0], lags[lag][1]), error) << lag;
  // Neighbours are alike, and opposite edges are not.
  EXPECT_GT(covariance(0, 1), 3 * error);
  EXPECT_GT(covariance(0, 1) - covariance(0, 11), 2 * error);
}

}  // namespace
}  // namespace umbriel
