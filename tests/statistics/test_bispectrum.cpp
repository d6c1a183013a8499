#include "umbriel/statistics/bispectrum.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>

#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

constexpr double pi = std::numbers::pi;

struct Mode {
  int y, x, ring;
  std::complex<double> value;
};

/// The modes of the full plane in rings, by the transform written out.
std::vector<Mode> modes_in_rings(const FlatSky& sky, const std::vector<double>& map, const std::vector<double>& edges) {
  const int h = sky.grid.height, w = sky.grid.width;
  std::vector<Mode> out;
  for (int ky = -(h - 1) / 2; ky <= h / 2; ++ky) {
    for (int kx = -(w - 1) / 2; kx <= w / 2; ++kx) {
      const double l = 2 * pi * std::hypot(ky / (h * sky.pixel_y), kx / (w * sky.pixel_x));
      if (l < edges.front() || l >= edges.back()) continue;
      int ring = 0;
      while (l >= edges[static_cast<std::size_t>(ring) + 1]) ++ring;
      std::complex<double> sum = 0;
      for (int y = 0; y < h; ++y) {
        for (int x = 0; x < w; ++x)
          sum += map[static_cast<std::size_t>(y * w + x)] *
                 std::polar(1.0, -2 * pi * (static_cast<double>(ky * y) / h + static_cast<double>(kx * x) / w));
      }
      out.push_back({ky, kx, ring, sum * sky.pixel_y * sky.pixel_x});
    }
  }
  return out;
}

// The definition: a sum over all pairs of modes, the third from their sum.
TEST(Bispectrum, IsTheMeanOverAllTriangles) {
  for (const Grid grid : {Grid{12, 15}, Grid{13, 14}}) {
    const FlatSky sky{grid, 0.012, 0.010};
    const std::vector<double> edges = {30, 70, 120, 170};
    std::vector<double> map, mask, product;
    double cube = 0;
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        map.push_back((37 * y + 91 * x + 13 * x * y) % 101 / 101.0 - 0.4);
        mask.push_back(y == 3 && x == 5 ? 0 : 1 - 0.02 * x);
        product.push_back(map.back() * mask.back());
        cube += std::pow(mask.back(), 3) / static_cast<double>(grid.pixels());
      }
    }
    map[3 * static_cast<std::size_t>(grid.width) + 5] = std::nan("");
    Bispectrum bispectrum(sky, mask, edges);
    ASSERT_EQ(bispectrum.rings(), 3);
    double sums[2][3] = {}, counts[2][3] = {};
    const std::vector<Mode> modes = modes_in_rings(sky, product, edges);
    for (const Mode& a : modes) {
      for (const Mode& b : modes) {
        if (a.ring != b.ring) continue;
        for (const Mode& c : modes) {
          if (a.y + b.y + c.y != 0 || a.x + b.x + c.x != 0) continue;
          const double value = (a.value * b.value * c.value).real();
          if (c.ring == a.ring) sums[0][a.ring] += value, counts[0][a.ring] += 1;
          if (c.ring == 0) sums[1][a.ring] += value, counts[1][a.ring] += 1;
        }
      }
    }
    const Bispectrum::Triangles found = bispectrum(map.data());
    for (std::size_t r = 0; r < 3; ++r) {
      EXPECT_EQ(bispectrum.counts().equilateral[r], counts[0][r]);
      EXPECT_EQ(bispectrum.counts().squeezed[r], counts[1][r]);
      const double scale = sky.area() * cube;
      EXPECT_NEAR(found.equilateral[r], sums[0][r] / counts[0][r] / scale, 1e-12 * std::abs(found.equilateral[r]));
      EXPECT_NEAR(found.squeezed[r], sums[1][r] / counts[1][r] / scale, 1e-12 * std::abs(found.squeezed[r]));
    }
  }
}

// Three cosines that close a triangle: of amplitude a each they have the six orders of k + k' + k'' = 0 and of its
// mirror, and (a A / 2)^3 cos(sum of their phases) each.
TEST(Bispectrum, OfOneTriangleIsItsPhases) {
  const Grid grid{30, 30};
  const FlatSky sky{grid, 0.01, 0.01};
  const double step = 2 * pi / 0.3;
  Bispectrum bispectrum(sky, std::vector<double>(900, 1.0), {0.5 * step, 2.5 * step, 4.5 * step, 7.5 * step});
  const auto wave = [](int ky, int kx, double phase) {
    std::vector<double> out;
    for (int i = 0; i < 900; ++i) out.push_back(2 * std::cos(2 * pi * (ky * (i / 30) + kx * (i % 30)) / 30.0 + phase));
    return out;
  };
  const auto sum = [](std::vector<double> a, const std::vector<double>& b, const std::vector<double>& c) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i] + c[i];
    return a;
  };
  const double area = sky.area();
  for (const double phase : {0.0, 0.7}) {
    const double one = 12 * area * area * std::cos(0.3 + phase);
    // All three in the last ring.
    const std::vector<double> wide = sum(wave(3, 4, 0.1), wave(2, -6, 0.2), wave(-5, 2, phase));
    const Bispectrum::Triangles equilateral = bispectrum(wide.data());
    EXPECT_NEAR(equilateral.equilateral[2], one / bispectrum.counts().equilateral[2], 1e-15);
    EXPECT_NEAR(equilateral.squeezed[2], 0, 1e-16);
    EXPECT_NEAR(equilateral.equilateral[1], 0, 1e-16);
    // One in the first ring, which stands at a fixed place: two orders and their mirrors.
    const std::vector<double> soft = sum(wave(1, 0, 0.1), wave(3, 4, 0.2), wave(-4, -4, phase));
    const Bispectrum::Triangles squeezed = bispectrum(soft.data());
    EXPECT_NEAR(squeezed.squeezed[2], one / 3 / bispectrum.counts().squeezed[2], 1e-15);
    EXPECT_NEAR(squeezed.equilateral[2], 0, 1e-16);
  }
}

TEST(Bispectrum, RefusesRingsWithoutTriangles) {
  const FlatSky sky{{30, 30}, 0.01, 0.01};
  const std::vector<double> ones(900, 1.0);
  const double step = 2 * pi / 0.3;
  EXPECT_NO_THROW(Bispectrum(sky, ones, {step, highest_bispectrum_multipole(sky)}));
  EXPECT_THROW(Bispectrum(sky, ones, {step, 1.1 * highest_bispectrum_multipole(sky)}), Error);
  EXPECT_THROW(Bispectrum(sky, ones, {0, 100}), Error);
  EXPECT_THROW(Bispectrum(sky, ones, {100, 50}), Error);
  EXPECT_THROW(Bispectrum(sky, ones, {0.2 * step, 0.3 * step}), Error) << "no modes";
  EXPECT_THROW(Bispectrum(sky, ones, {0.9 * step, 1.1 * step}), Error) << "four modes, no triangle";
  EXPECT_THROW(Bispectrum(sky, std::vector<double>(900, 0.0), {step, 5 * step}), Error);
  EXPECT_THROW(Bispectrum(sky, std::vector<double>(90, 1.0), {step, 5 * step}), Error);
}

}  // namespace
}  // namespace umbriel
