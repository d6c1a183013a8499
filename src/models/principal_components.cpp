#include "umbriel/models/principal_components.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>

#include "umbriel/fft/real_fft64.hpp"

namespace umbriel {
namespace {

constexpr int most_pixels = 128 * 128;

/// Even or odd: m(y, W - 1 - x) = x m(y, x), m(H - 1 - y, x) = y m(y, x).
struct Parity {
  int y, x;
};
constexpr std::array<Parity, 4> parities = {{{1, 1}, {1, -1}, {-1, 1}, {-1, -1}}};

/// [|dy|, |dx|] the mean product of two pixels of a map less its mean, over all pairs as far apart in all maps.
Eigen::MatrixXd correlation(const HostMaps& maps) {
  const auto height = static_cast<Eigen::Index>(maps.extent(1)), width = static_cast<Eigen::Index>(maps.extent(2));
  // Padded with zeros to twice their size, maps do not meet themselves around the edges.
  const Grid wide{static_cast<int>(2 * height), static_cast<int>(2 * width)};
  RealFft64 fft(wide);
  std::vector<double> power(static_cast<std::size_t>(wide.height) * static_cast<std::size_t>(wide.half_width()), 0);
  for (std::size_t i = 0; i < maps.extent(0); ++i) {
    double mean = 0;
    for (Eigen::Index y = 0; y < height; ++y)
      for (Eigen::Index x = 0; x < width; ++x) mean += static_cast<double>(maps(i, y, x));
    mean /= static_cast<double>(height * width);
    std::fill_n(fft.map(), wide.pixels(), 0.0);
    for (Eigen::Index y = 0; y < height; ++y)
      for (Eigen::Index x = 0; x < width; ++x) fft.map()[y * 2 * width + x] = static_cast<double>(maps(i, y, x)) - mean;
    const auto& spectrum = fft.forward();
    for (std::size_t k = 0; k < power.size(); ++k) power[k] += std::norm(spectrum[k]);
  }
  // The way back is another transform, for the power is real and the same at k and -k.
  for (int ky = 0; ky < wide.height; ++ky) {
    for (int kx = 0; kx < wide.width; ++kx) {
      const bool half = kx < wide.half_width();
      const int row = half ? ky : (wide.height - ky) % wide.height, column = half ? kx : wide.width - kx;
      fft.map()[ky * wide.width + kx] = power[static_cast<std::size_t>(row * wide.half_width() + column)];
    }
  }
  const auto& sums = fft.forward();
  Eigen::MatrixXd table(height, width);
  for (Eigen::Index dy = 0; dy < height; ++dy) {
    for (Eigen::Index dx = 0; dx < width; ++dx) {
      const auto at = [&](Eigen::Index row) {
        return sums[static_cast<std::size_t>(row * wide.half_width() + dx)].real();
      };
      const auto pairs = static_cast<double>((height - dy) * (width - dx));
      const double sum = 0.5 * (at(dy) + at((2 * height - dy) % (2 * height)));  // up and down
      table(dy, dx) = sum / (pairs * static_cast<double>(wide.pixels()) * static_cast<double>(maps.extent(0)));
    }
  }
  if (height == width) table = (0.5 * (table + table.transpose())).eval();
  return table;
}

/// The mean square of the maps' means.
double power_of_means(const HostMaps& maps) {
  const std::size_t pixels = maps.extent(1) * maps.extent(2);
  double squares = 0;
  for (std::size_t i = 0; i < maps.extent(0); ++i) {
    double sum = 0;
    for (std::size_t p = 0; p < pixels; ++p) sum += static_cast<double>(maps.data()[i * pixels + p]);
    squares += std::pow(sum / static_cast<double>(pixels), 2);
  }
  return squares / static_cast<double>(maps.extent(0));
}

}  // namespace

PrincipalComponents principal_components(const HostMaps& maps, int n) {
  const auto height = static_cast<Eigen::Index>(maps.extent(1)), width = static_cast<Eigen::Index>(maps.extent(2));
  const Eigen::Index pixels = height * width, block = pixels / 4;
  const std::string size = std::to_string(width) + " x " + std::to_string(height);
  require(height % 2 == 0 && width % 2 == 0 && pixels <= most_pixels, ExitCode::usage,
          "principal components of maps of " + size + " pixels", "principal_components",
          "take maps of even sides and no more than 128 x 128 pixels");
  require(n >= 1 && n < pixels, ExitCode::usage, std::to_string(n) + " components of maps of " + size + " pixels",
          "principal_components", "ask for fewer than there are pixels");
  require(maps.extent(0) > 0, ExitCode::usage, "principal components of no map", "principal_components");

  struct Component {
    double power;
    std::size_t block;
    Eigen::Index column;
  };
  std::vector<Component> found;
  std::array<Eigen::MatrixXd, 4> vectors;
  const Eigen::MatrixXd table = correlation(maps);
  const auto product = [&](Eigen::Index y, Eigen::Index x, Eigen::Index v, Eigen::Index u) {
    return table(std::abs(y - v), std::abs(x - u));
  };
  Eigen::MatrixXd with_mean = Eigen::MatrixXd::Zero(height / 2, width / 2);  // of pixels, with the mean of their map
  for (Eigen::Index y = 0; y < height / 2; ++y)
    for (Eigen::Index x = 0; x < width / 2; ++x)
      for (Eigen::Index v = 0; v < height; ++v)
        for (Eigen::Index u = 0; u < width; ++u) with_mean(y, x) += product(y, x, v, u) / static_cast<double>(pixels);
  const double of_mean = with_mean.mean() + power_of_means(maps);
  for (std::size_t b = 0; b < 4; ++b) {
    // Between maps (delta_q + ... its three mirror images) / 2: four times a quarter of what one of them finds.
    const Parity parity = parities[b];
    Eigen::MatrixXd moment(block, block);
    for (Eigen::Index p = 0; p < block; ++p) {
      for (Eigen::Index q = 0; q < block; ++q) {
        const Eigen::Index y = p / (width / 2), x = p % (width / 2), v = q / (width / 2), u = q % (width / 2);
        double sum =
            product(y, x, v, u) + parity.x * product(y, x, v, width - 1 - u) +
            parity.y * (product(y, x, height - 1 - v, u) + parity.x * product(y, x, height - 1 - v, width - 1 - u));
        if (b == 0) sum += 4 * (of_mean - with_mean(y, x) - with_mean(v, u));
        moment(p, q) = sum;
      }
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
