#include "umbriel/models/principal_components.hpp"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <numbers>
#include <string>
#include <vector>

#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

/// Smooth in x more than in y, so that powers differ.
HostMaps random_maps(std::size_t n, std::size_t height, std::size_t width) {
  const HostMaps maps("maps", n, height, width);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t y = 0; y < height; ++y) {
      float carried = 0;
      for (std::size_t x = 0; x < width; ++x) {
        const DrawKey key{1, Purpose::test, static_cast<std::uint32_t>(i), 0};
        carried = 0.7f * carried + normal(key, y * width + x);
        maps(i, y, x) = carried + 0.3f;
      }
    }
  }
  return maps;
}

/// Pair by pair: the mean product at each distance, over the maps less their means and, if square, transposed; then as
/// the header has it.
Eigen::MatrixXd moment(const HostMaps& maps) {
  const std::size_t height = maps.extent(1), width = maps.extent(2);
  const auto pixels = static_cast<Eigen::Index>(height * width);
  const auto h = static_cast<Eigen::Index>(height), w = static_cast<Eigen::Index>(width);
  Eigen::MatrixXd sums = Eigen::MatrixXd::Zero(h, w), counts = sums;
  double means = 0;
  for (std::size_t i = 0; i < maps.extent(0); ++i) {
    Eigen::VectorXd m(pixels);
    for (Eigen::Index p = 0; p < pixels; ++p)
      m(p) = static_cast<double>(maps.data()[i * height * width + static_cast<std::size_t>(p)]);
    means += m.mean() * m.mean() / static_cast<double>(maps.extent(0));
    m.array() -= m.mean();
    for (Eigen::Index p = 0; p < pixels; ++p) {
      for (Eigen::Index q = 0; q < pixels; ++q) {
        const Eigen::Index dy = std::abs(p / w - q / w), dx = std::abs(p % w - q % w);
        sums(dy, dx) += m(p) * m(q);
        counts(dy, dx) += 1;
        if (height != width) continue;
        sums(dx, dy) += m(p) * m(q);
        counts(dx, dy) += 1;
      }
    }
  }
  Eigen::MatrixXd t(pixels, pixels);
  for (Eigen::Index p = 0; p < pixels; ++p)
    for (Eigen::Index q = 0; q < pixels; ++q) {
      const Eigen::Index dy = std::abs(p / w - q / w), dx = std::abs(p % w - q % w);
      t(p, q) = sums(dy, dx) / counts(dy, dx);
    }
  const Eigen::VectorXd e = Eigen::VectorXd::Ones(pixels) / std::sqrt(static_cast<double>(pixels));
  const Eigen::MatrixXd rest = Eigen::MatrixXd::Identity(pixels, pixels) - e * e.transpose();
  return rest * t * rest + means * static_cast<double>(pixels) * (e * e.transpose());
}

/// [pixel, component] what the quarters stand for.
Eigen::MatrixXd whole(const PrincipalComponents& found, Eigen::Index height, Eigen::Index width) {
  const auto n = static_cast<Eigen::Index>(found.power.size());
  Eigen::MatrixXd v(height * width, n);
  for (Eigen::Index k = 0; k < n; ++k) {
    const int parity = found.parity[static_cast<std::size_t>(k)];
    for (Eigen::Index y = 0; y < height / 2; ++y) {
      for (Eigen::Index x = 0; x < width / 2; ++x) {
        const double half =
            0.5 * static_cast<double>(found.vectors[static_cast<std::size_t>((y * (width / 2) + x) * n + k)]);
        const Eigen::Index across = width - 1 - x, below = height - 1 - y;
        v(y * width + x, k) = half;
        v(y * width + across, k) = sign_in_x(parity) * half;
        v(below * width + x, k) = sign_in_y(parity) * half;
        v(below * width + across, k) = sign_in_x(parity) * sign_in_y(parity) * half;
      }
    }
  }
  return v;
}

void expect_components(const HostMaps& maps, const std::vector<int>& numbers) {
  const auto height = static_cast<Eigen::Index>(maps.extent(1)), width = static_cast<Eigen::Index>(maps.extent(2));
  const Eigen::Index pixels = height * width;
  const Eigen::MatrixXd matrix = moment(maps);
  const Eigen::VectorXd powers = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(matrix).eigenvalues().reverse();
  for (const int n : numbers) {
    const PrincipalComponents found = principal_components(maps, n);
    ASSERT_EQ(found.power.size(), static_cast<std::size_t>(n));
    ASSERT_EQ(found.parity.size(), static_cast<std::size_t>(n));
    const Eigen::MatrixXd v = whole(found, height, width);
    EXPECT_LT((v.transpose() * v - Eigen::MatrixXd::Identity(n, n)).cwiseAbs().maxCoeff(), 1e-6);
    for (Eigen::Index k = 0; k < n; ++k) {
      EXPECT_NEAR(found.power[static_cast<std::size_t>(k)], std::max(0.0, powers(k)), 1e-9 * powers(0)) << k;
      EXPECT_LT((matrix * v.col(k) - powers(k) * v.col(k)).norm(), 2e-6 * powers(0)) << k;
    }
    EXPECT_NEAR(found.rest, std::max(0.0, powers.tail(pixels - n).mean()), 1e-9 * powers(0));
  }
}

// Spaces that are complete.
TEST(PrincipalComponents, AreThoseOfTheWholeMatrix) {
  for (const auto& [height, width] : {std::pair<std::size_t, std::size_t>{6, 6}, {4, 8}, {8, 2}}) {
    const HostMaps maps = random_maps(5, height, width);
    expect_components(maps, {7, static_cast<int>(height * width) - 1});
    const PrincipalComponents found = principal_components(maps, 8);
    EXPECT_GT(found.power[0], 1.5 * found.power[7]);
  }
}

// Spaces of fewer than their 100 vectors, that stop when components have settled.
TEST(PrincipalComponents, SettleBeforeTheirSpaceIsComplete) {
  const HostMaps maps = random_maps(10, 20, 20);
  expect_components(maps, {3, 12});
}

// Rows and columns alike and independent: M (x, y) = M (y, x), two and more components of each power.
TEST(PrincipalComponents, OfEqualPowerAreAllFound) {
  constexpr std::size_t side = 16;
  const HostMaps maps("maps", 2 * side, side, side);
  for (std::size_t i = 0; i < 2 * side; ++i)  // two waves across, and the same down: each of a power of its own
    for (std::size_t y = 0; y < side; ++y)
      for (std::size_t x = 0; x < side; ++x) {
        const double k = 1 + static_cast<double>(i / 4), phase = i % 2 == 0 ? 0 : 0.5 * std::numbers::pi;
        const auto along = static_cast<double>(i % 4 < 2 ? x : y);
        maps(i, y, x) = static_cast<float>(std::sin(2 * std::numbers::pi * k * along / side + phase) / k);
      }
  expect_components(maps, {12});
}

TEST(PrincipalComponents, OfWhiteMapsAndOfNothing) {
  const HostMaps white("white", 10, 12, 12), nothing("nothing", 3, 24, 24);
  for (std::size_t i = 0; i < white.size(); ++i) white.data()[i] = normal({2, Purpose::test, 0, 0}, i);
  expect_components(white, {20});
  const PrincipalComponents found = principal_components(nothing, 5);
  EXPECT_EQ(found.power, std::vector<double>(5, 0.0));
  EXPECT_EQ(found.rest, 0);
  const Eigen::MatrixXd v = whole(found, 24, 24);
  EXPECT_LT((v.transpose() * v - Eigen::MatrixXd::Identity(5, 5)).cwiseAbs().maxCoeff(), 1e-6);
}

/// Bytes of a line of /proc/self/status; 0 where there is none.
double memory(const std::string& line) {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;) {
    double kilobytes = 0;
    if (word == line && file >> kilobytes) return 1024 * kilobytes;
  }
  return 0;
}

TEST(PrincipalComponents, TakeTheMemoryThatTheySay) {
  const HostMaps maps = random_maps(20, 128, 128);
  for (int times = 0; times < 2; ++times)  // smooth, as maps with few components are
    for (std::size_t i = 0; i < 20; ++i)
      for (std::size_t y = 1; y < 128; ++y)
        for (std::size_t x = 1; x < 128; ++x) maps(i, y, x) += 0.49f * (maps(i, y - 1, x) + maps(i, y, x - 1));
  std::ofstream("/proc/self/clear_refs") << 5 << std::flush;  // the largest so far is what it is now
  const double before = memory("VmRSS:");
  if (before == 0 || memory("VmHWM:") > 1.05 * before) GTEST_SKIP() << "the system does not say how much memory we had";
  principal_components(maps, 600);
  EXPECT_NEAR((memory("VmHWM:") - before) / principal_components_bytes({128, 128}, 600), 1, 0.25);
}

TEST(PrincipalComponents, RefuseWhatDoesNotFit) {
  EXPECT_THROW(principal_components(random_maps(3, 5, 6), 2), Error);
  EXPECT_THROW(principal_components(random_maps(3, 4, 4), 16), Error);
  EXPECT_THROW(principal_components(random_maps(3, 4, 4), 0), Error);
  EXPECT_THROW(principal_components(HostMaps("none", 0, 4, 4), 2), Error);
}

}  // namespace
}  // namespace umbriel
