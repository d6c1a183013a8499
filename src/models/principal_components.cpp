#include "umbriel/models/principal_components.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>

namespace umbriel {
namespace {

constexpr int most_pixels = 128 * 128;

/// Even or odd: m(y, W - 1 - x) = x m(y, x), m(H - 1 - y, x) = y m(y, x).
struct Parity {
  int y, x;
};
constexpr std::array<Parity, 4> parities = {{{1, 1}, {1, -1}, {-1, 1}, {-1, -1}}};

/// A quarter of the part of map i that has this parity, in an orthonormal basis of such maps.
Eigen::VectorXd quarter(const HostMaps& maps, std::size_t i, Parity parity) {
  const auto height = static_cast<Eigen::Index>(maps.extent(1)), width = static_cast<Eigen::Index>(maps.extent(2));
  Eigen::VectorXd out(height / 2 * (width / 2));
  for (Eigen::Index y = 0; y < height / 2; ++y) {
    for (Eigen::Index x = 0; x < width / 2; ++x) {
      const auto m = [&](Eigen::Index at_y, Eigen::Index at_x) { return static_cast<double>(maps(i, at_y, at_x)); };
      out(y * (width / 2) + x) =
          0.5 * (m(y, x) + parity.x * m(y, width - 1 - x) +
                 parity.y * (m(height - 1 - y, x) + parity.x * m(height - 1 - y, width - 1 - x)));
    }
  }
  return out;
}

}  // namespace

PrincipalComponents principal_components(const HostMaps& maps, int n) {
  const auto count = static_cast<Eigen::Index>(maps.extent(0)), height = static_cast<Eigen::Index>(maps.extent(1)),
             width = static_cast<Eigen::Index>(maps.extent(2));
  const Eigen::Index pixels = height * width, block = pixels / 4;
  const std::string size = std::to_string(width) + " x " + std::to_string(height);
  require(height % 2 == 0 && width % 2 == 0 && pixels <= most_pixels, ExitCode::usage,
          "principal components of maps of " + size + " pixels", "principal_components",
          "take maps of even sides and no more than 128 x 128 pixels");
  require(n >= 1 && n < pixels, ExitCode::usage, std::to_string(n) + " components of maps of " + size + " pixels",
          "principal_components", "ask for fewer than there are pixels");
  require(count > 0, ExitCode::usage, "principal components of no map", "principal_components");

  struct Component {
    double power;
    std::size_t block;
    Eigen::Index column;
  };
  std::vector<Component> found;
  std::array<Eigen::MatrixXd, 4> vectors;
  const bool square = height == width;
  for (std::size_t b = 0; b < 4; ++b) {
    Eigen::MatrixXd quarters(block, count);
    for (Eigen::Index i = 0; i < count; ++i) quarters.col(i) = quarter(maps, static_cast<std::size_t>(i), parities[b]);
    Eigen::MatrixXd moment = quarters * quarters.transpose() / static_cast<double>(count);
    if (square) {
      // The transposed map of the other parity, in y and x, has this one.
      const Parity other{parities[b].x, parities[b].y};
      for (Eigen::Index i = 0; i < count; ++i) {
        const Eigen::VectorXd q = quarter(maps, static_cast<std::size_t>(i), other);
        quarters.col(i) = q.reshaped(width / 2, height / 2).transpose().reshaped();
      }
      moment = 0.5 * (moment + quarters * quarters.transpose() / static_cast<double>(count));
    }
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(moment);
    vectors[b] = solver.eigenvectors();
    for (Eigen::Index c = 0; c < block; ++c) found.push_back({std::max(0.0, solver.eigenvalues()(c)), b, c});
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& p, const auto& q) { return p.power > q.power; });

  PrincipalComponents result;
  result.vectors.resize(static_cast<std::size_t>(pixels) * static_cast<std::size_t>(n));
  for (std::size_t k = 0; k < static_cast<std::size_t>(n); ++k) {
    result.power.push_back(found[k].power);
    const Parity parity = parities[found[k].block];
    const auto v = vectors[found[k].block].col(found[k].column);
    for (Eigen::Index y = 0; y < height; ++y) {
      for (Eigen::Index x = 0; x < width; ++x) {
        const bool below = y >= height / 2, right = x >= width / 2;
        const Eigen::Index at = (below ? height - 1 - y : y) * (width / 2) + (right ? width - 1 - x : x);
        const double sign = (below ? parity.y : 1) * (right ? parity.x : 1);
        result.vectors[static_cast<std::size_t>(y * width + x) * static_cast<std::size_t>(n) + k] =
            static_cast<float>(0.5 * sign * v(at));
      }
    }
  }
  for (std::size_t k = static_cast<std::size_t>(n); k < found.size(); ++k) result.rest += found[k].power;
  result.rest /= static_cast<double>(pixels - n);
  return result;
}

}  // namespace umbriel
