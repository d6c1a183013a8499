// The operator between convergence and shear.
#include <gtest/gtest.h>

#include <cmath>

#include "umbriel/maps/spin2.hpp"

namespace umbriel {
namespace {

const Grid grids[] = {{8, 8}, {9, 9}, {8, 12}, {12, 8}, {7, 10}, {10, 7}, {1, 6}, {6, 1}, {64, 48}};

bool on_nyquist_line(const Grid& grid, int ky, int kx) { return 2 * ky == grid.height || 2 * kx == grid.width; }

// k1 along x, k2 along y, both in radians a pixel: modes of a map that is not square have different k at equal index.
TEST(Spin2, IsTheDirectionOfTheModeTurnedTwice) {
  for (const Grid& grid : grids) {
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx) {
        if ((ky == 0 && kx == 0) || on_nyquist_line(grid, ky, kx)) continue;
        const double k1 = static_cast<double>(kx) / grid.width;
        const double k2 = static_cast<double>(ky > grid.height / 2 ? ky - grid.height : ky) / grid.height;
        const double angle = std::atan2(k2, k1);
        const Spin2 d = spin2(grid, ky, kx);
        EXPECT_NEAR(static_cast<double>(d.d1), std::cos(2 * angle), 3e-7);
        EXPECT_NEAR(static_cast<double>(d.d2), std::sin(2 * angle), 3e-7);
        EXPECT_NEAR(std::hypot(static_cast<double>(d.d1), d.d2), 1, 3e-7);
      }
    }
  }
}

TEST(Spin2, SaysNothingOfTheMean) {
  for (const Grid& grid : grids) {
    EXPECT_EQ(spin2(grid, 0, 0).d1, 0);
    EXPECT_EQ(spin2(grid, 0, 0).d2, 0);
  }
}

// Both components of shear are real fields: D(-k) = D(k) for each, on columns that hold both k and -k.
TEST(Spin2, IsSymmetricOnTheSelfConjugateColumns) {
  for (const Grid& grid : grids) {
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      if (kx != 0 && 2 * kx != grid.width) continue;
      for (int ky = 0; ky < grid.height; ++ky) {
        const Spin2 d = spin2(grid, ky, kx), mirror = spin2(grid, (grid.height - ky) % grid.height, kx);
        EXPECT_EQ(d.d1, mirror.d1) << grid.height << " x " << grid.width << ": " << ky << " " << kx;
        EXPECT_EQ(d.d2, mirror.d2) << grid.height << " x " << grid.width << ": " << ky << " " << kx;
      }
    }
  }
}

// Row ky = H/2 is -H/2 as well: D2 has both signs there, and the real field that remains has none.
TEST(Spin2, HasNoSecondComponentOnNyquistLines) {
  for (const Grid& grid : grids) {
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx) {
        const bool nyquist_y = 2 * ky == grid.height, nyquist_x = 2 * kx == grid.width;
        const Spin2 d = spin2(grid, ky, kx);
        if (nyquist_x != nyquist_y) {
          EXPECT_EQ(d.d2, 0);
          const double k1 = static_cast<double>(kx) / grid.width;
          const double k2 = static_cast<double>(2 * ky <= grid.height ? ky : ky - grid.height) / grid.height;
          EXPECT_NEAR(static_cast<double>(d.d1), (k1 * k1 - k2 * k2) / (k1 * k1 + k2 * k2), 3e-7);
        }
        if (nyquist_x && nyquist_y) {  // k and -k are the same mode there: D2 = 1 for square pixels
          EXPECT_NEAR(d.d1, 0, 1e-7);
          EXPECT_NEAR(d.d2, 1, 1e-7);
        }
      }
    }
  }
}

TEST(ModeWeight, CountsTheWholePlane) {
  for (const Grid& grid : grids) {
    double modes = 0;
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx) modes += static_cast<double>(mode_weight(grid, kx));
    }
    EXPECT_EQ(modes, static_cast<double>(grid.pixels()));
  }
}

}  // namespace
}  // namespace umbriel
