#include "umbriel/fft/real_fft64.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>

namespace umbriel {
namespace {

// The definition, on even and odd sides.
TEST(RealFft64, IsTheSumOverAllPixels) {
  for (const Grid grid : {Grid{6, 8}, Grid{5, 7}, Grid{1, 4}, Grid{3, 1}}) {
    RealFft64 fft(grid);
    std::vector<double> map;
    for (long i = 0; i < grid.pixels(); ++i) map.push_back(std::sin(1.7 * static_cast<double>(i * i)) + 0.1);
    std::copy(map.begin(), map.end(), fft.map());
    const auto& modes = fft.forward();
    ASSERT_EQ(modes.size(), static_cast<std::size_t>(grid.modes()));
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx) {
        std::complex<double> sum = 0;
        for (int y = 0; y < grid.height; ++y) {
          for (int x = 0; x < grid.width; ++x) {
            const double turns = static_cast<double>(ky * y) / grid.height + static_cast<double>(kx * x) / grid.width;
            sum += map[static_cast<std::size_t>(y * grid.width + x)] * std::polar(1.0, -2 * std::numbers::pi * turns);
          }
        }
        EXPECT_NEAR(std::abs(modes[static_cast<std::size_t>(ky * grid.half_width() + kx)] - sum), 0, 1e-13);
      }
    }
    EXPECT_TRUE(std::equal(map.begin(), map.end(), fft.map())) << "the map is kept";
    for (auto& mode : fft.modes()) mode *= 0.5;
    std::fill_n(fft.map(), map.size(), 7.0);
    fft.inverse();
    for (std::size_t i = 0; i < map.size(); ++i)
      EXPECT_NEAR(fft.map()[i], 0.5 * static_cast<double>(grid.pixels()) * map[i], 1e-11) << "and comes back";
  }
  EXPECT_THROW(RealFft64(Grid{0, 4}), Error);
}

}  // namespace
}  // namespace umbriel
