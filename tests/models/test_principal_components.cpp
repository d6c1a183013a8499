#include "umbriel/models/principal_components.hpp"

#include <gtest/gtest.h>

#include <Eigen/Dense>
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

TEST(PrincipalComponents, AreThoseOfTheWholeMatrix) {
  for (const auto& [height, width] : {std::pair<std::size_t, std::size_t>{6, 6}, {4, 8}, {8, 2}}) {
    const HostMaps maps = random_maps(5, height, width);
    const auto pixels = static_cast<Eigen::Index>(height * width);
    const Eigen::MatrixXd matrix = moment(maps);
    const Eigen::VectorXd powers = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(matrix).eigenvalues().reverse();
    constexpr int n = 7;
    const PrincipalComponents found = principal_components(maps, n);
    ASSERT_EQ(found.power.size(), std::size_t{n});
    Eigen::MatrixXd v(pixels, n);
    for (Eigen::Index i = 0; i < pixels; ++i)
      for (Eigen::Index k = 0; k < n; ++k)
        v(i, k) = static_cast<double>(found.vectors[static_cast<std::size_t>(i * n + k)]);
    EXPECT_LT((v.transpose() * v - Eigen::MatrixXd::Identity(n, n)).cwiseAbs().maxCoeff(), 1e-6);
    for (Eigen::Index k = 0; k < n; ++k) {
      EXPECT_NEAR(found.power[static_cast<std::size_t>(k)], powers(k), 1e-9 * powers(0));
      EXPECT_LT((matrix * v.col(k) - powers(k) * v.col(k)).norm(), 1e-5 * powers(0)) << k;
    }
    EXPECT_NEAR(found.rest, powers.tail(pixels - n).cwiseMax(0).mean(), 1e-9 * powers(0));
    EXPECT_GT(powers(0), 1.5 * powers(n));
  }
}

TEST(PrincipalComponents, RefuseWhatDoesNotFit) {
  EXPECT_THROW(principal_components(random_maps(3, 5, 6), 2), Error);
  EXPECT_THROW(principal_components(random_maps(3, 4, 4), 16), Error);
  EXPECT_THROW(principal_components(random_maps(3, 4, 4), 0), Error);
  EXPECT_THROW(principal_components(random_maps(1, 130, 130), 2), Error);
}

}  // namespace
}  // namespace umbriel
