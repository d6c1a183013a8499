// The made-up dust sky: what it is drawn from, its profile, its spectrum, its filaments.
#include <gtest/gtest.h>

#include <alm.h>
#include <alm_healpix_tools.h>
#include <healpix_map.h>
#include <xcomplex.h>

#include <cmath>
#include <numbers>

#include "umbriel/core/check.hpp"
#include "umbriel/data/healpix_map.hpp"
#include "umbriel/simulation/dust_map.hpp"

namespace umbriel {
namespace {

constexpr double degree = std::numbers::pi / 180;

/// Mean of `values` where |b| is between two latitudes.
double mean_between(const std::vector<float>& values, int nside, double low, double high) {
  const HealpixPixels pixels(nside, false);
  double sum = 0, n = 0;
  for (std::int64_t i = 0; i < pixels.count(); ++i) {
    const double b = std::fabs(pixels.centre(i)[1]);
    if (b < low || b > high) continue;
    sum += static_cast<double>(values[static_cast<std::size_t>(i)]);
    ++n;
  }
  return sum / n;
}

/// Slope of ln C_l over ln l between two multipoles, of the sky beyond 20 degrees behind a smooth mask.
double slope_of(const std::vector<float>& values, int nside, int low, int high) {
  const HealpixPixels pixels(nside, false);
  Healpix_Map<double> map(nside, RING, SET_NSIDE);
  for (std::int64_t i = 0; i < pixels.count(); ++i) {
    const double b = std::fabs(pixels.centre(i)[1]);
    const double x = std::min(1.0, std::max(0.0, (b - 20) / 20));
    // Without the profile, which is no part of the spectrum.
    map[static_cast<int>(i)] = static_cast<double>(values[static_cast<std::size_t>(i)]) * std::sin(b * degree) *
                               std::pow(std::sin(0.5 * std::numbers::pi * x), 2);
  }
  Alm<xcomplex<double>> alm(high, high);
  map2alm_iter(map, alm, 2);
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (int l = low; l <= high; ++l) {
    double c = std::norm(alm(l, 0));
    for (int m = 1; m <= l; ++m) c += 2 * std::norm(alm(l, m));
    const double x = std::log(l), y = std::log(c / (2 * l + 1)), w = 1.0 / l;  // evenly in ln l
    n += w;
    sx += w * x;
    sy += w * y;
    sxx += w * x * x;
    sxy += w * x * y;
  }
  return (n * sxy - sx * sy) / (n * sxx - sx * sx);
}

TEST(DustMap, IsAFunctionOfTheSeed) {
  const std::vector<float> a = simulate_dust({.nside = 32}, 7);
  EXPECT_EQ(a.size(), 12288U);
  EXPECT_EQ(a, simulate_dust({.nside = 32}, 7));
  EXPECT_NE(a, simulate_dust({.nside = 32}, 8));
  EXPECT_THROW(simulate_dust({.nside = 0}, 1), Error);
}

TEST(DustMap, HasTheSameLargeScalesOnEveryGrid) {
  const std::vector<float> coarse = simulate_dust({.nside = 64, .filaments = 0}, 3),
                           fine = simulate_dust({.nside = 128, .filaments = 0}, 3);
  const HealpixPixels small(128, false), large(8, false);
  std::vector<double> a(768), b(768);
  for (std::int64_t i = 0; i < 12 * 64 * 64; ++i) {
    const auto centre = HealpixPixels(64, false).centre(i);
    a[static_cast<std::size_t>(large.at(centre[0], centre[1]))] += std::log(coarse[static_cast<std::size_t>(i)]) / 64;
  }
  for (std::int64_t i = 0; i < small.count(); ++i) {
    const auto centre = small.centre(i);
    b[static_cast<std::size_t>(large.at(centre[0], centre[1]))] += std::log(fine[static_cast<std::size_t>(i)]) / 256;
  }
  // Means over 7 degrees differ by what the coarse grid lacks; they scatter by about 1.
  double error = 0;
  for (std::size_t i = 0; i < 768; ++i) error += std::pow(a[i] - b[i], 2) / 768;
  EXPECT_LT(std::sqrt(error), 0.1);
}

TEST(DustMap, IsBrightInThePlaneAsACosecant) {
  // Without contrast only the profile is left, and filaments of mean 1.
  const std::vector<float> profile = simulate_dust({.nside = 128, .contrast = 0, .filaments = 0, .pole = 2}, 1);
  EXPECT_NEAR(mean_between(profile, 128, 85, 90), 2, 0.02);
  EXPECT_NEAR(mean_between(profile, 128, 29.5, 30.5), 4, 0.05);
  EXPECT_NEAR(mean_between(profile, 128, 0, 0.3), 2 / std::sin(3 * degree), 0.5);
  const std::vector<float> sky = simulate_dust({.nside = 128}, 1);
  EXPECT_GT(mean_between(sky, 128, 0, 5), 5 * mean_between(sky, 128, 60, 90));
  for (const float value : sky) {
    ASSERT_TRUE(std::isfinite(value));
    ASSERT_GT(value, 0);
  }
  const std::vector<float> threads = simulate_dust({.nside = 128, .contrast = 0}, 1);
  EXPECT_NEAR(mean_between(threads, 128, 40, 90) / mean_between(profile, 128, 40, 90) * 2, 1, 0.03);
}

TEST(DustMap, HasTheSlopeOfDust) {
  const std::vector<float> sky = simulate_dust({.nside = 256}, 2);
  EXPECT_NEAR(slope_of(sky, 256, 60, 256), -2.4, 0.3);
  // The slope asked for is that of the Gaussian field, before it is raised to a power and filaments are laid over it.
  const std::vector<float> plain = simulate_dust({.nside = 128, .slope = -3, .contrast = 0.1, .filaments = 0}, 2);
  EXPECT_NEAR(slope_of(plain, 128, 40, 200), -3, 0.15);
}

TEST(DustMap, FilamentsAreThinAndBright) {
  const int nside = 128;
  const std::vector<float> with = simulate_dust({.nside = nside, .contrast = 0}, 1),
                           without = simulate_dust({.nside = nside, .contrast = 0, .filaments = 0}, 1);
  std::size_t bright = 0, dark = 0;
  double peak = 0;
  for (std::size_t i = 0; i < with.size(); ++i) {
    const double ratio = with[i] / without[i];
    peak = std::max(peak, ratio);
    bright += ratio > 1.5 ? 1 : 0;
    dark += ratio < 1 ? 1 : 0;
  }
  EXPECT_GT(peak, 1.8);
  EXPECT_LT(bright, with.size() / 4);
  EXPECT_GT(dark, with.size() / 2);
}

}  // namespace
}  // namespace umbriel
