#include "umbriel/statistics/masked_spectrum.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <string>

#include "umbriel/data/fits.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

constexpr double degree = std::numbers::pi / 180;

std::vector<double> noise(std::size_t n, std::uint32_t stream) {
  std::vector<double> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<double>(normal({3, Purpose::test, stream, 0}, i));
  return out;
}

std::vector<double> uniform_edges(double first, double step, int bands) {
  std::vector<double> edges;
  for (int b = 0; b <= bands; ++b) edges.push_back(first + step * b);
  return edges;
}

/// A mask with a round hole and smooth numbers elsewhere.
std::vector<double> holed(Grid grid) {
  std::vector<double> mask;
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) mask.push_back(std::hypot(y - 3, x - 4) < 2.2 ? 0.0 : 1 - 0.02 * x + 0.01 * y);
  }
  return mask;
}

// The definition: two sums over the modes of the full plane, by transforms written out.
TEST(MaskedSpectrum, CouplesBandsByTheSumOverAllPairsOfModes) {
  for (const Grid grid : {Grid{9, 12}, Grid{10, 11}}) {
    const FlatSky sky{grid, 0.5 * degree, 0.7 * degree};
    const std::vector<double> mask = holed(grid), edges = uniform_edges(0, 90, 4);
    const MaskedSpectrum spectrum(sky, mask, edges);
    const int h = grid.height, w = grid.width, n = h * w;
    std::vector<int> band(static_cast<std::size_t>(n));
    std::vector<double> power(static_cast<std::size_t>(n)), modes(4, 0), sums(16, 0);
    for (int k = 0; k < n; ++k) {
      const int ky = k / w, kx = k % w;
      const double l =
          2 * std::numbers::pi *
          std::hypot((2 * ky <= h ? ky : ky - h) / (h * sky.pixel_y), (2 * kx <= w ? kx : kx - w) / (w * sky.pixel_x));
      band[static_cast<std::size_t>(k)] = l < 360 ? static_cast<int>(l / 90) : -1;
      if (l < 360) modes[static_cast<std::size_t>(l / 90)] += 1;
      std::complex<double> sum = 0;
      for (int y = 0; y < h; ++y) {
        for (int x = 0; x < w; ++x)
          sum += mask[static_cast<std::size_t>(y * w + x)] *
                 std::polar(
                     1.0, -2 * std::numbers::pi * (static_cast<double>(ky * y) / h + static_cast<double>(kx * x) / w));
      }
      power[static_cast<std::size_t>(k)] = std::norm(sum);
    }
    for (int k = 0; k < n; ++k) {
      for (int other = 0; other < n; ++other) {
        const int a = band[static_cast<std::size_t>(k)], b = band[static_cast<std::size_t>(other)];
        if (a < 0 || b < 0) continue;
        const int dy = (k / w - other / w + h) % h, dx = (k % w - other % w + w) % w;
        sums[static_cast<std::size_t>(4 * a + b)] += power[static_cast<std::size_t>(dy * w + dx)];
      }
    }
    for (std::size_t a = 0; a < 4; ++a) {
      EXPECT_EQ(spectrum.modes()[a], modes[a]);
      for (std::size_t b = 0; b < 4; ++b) {
        const double expected = sums[4 * a + b] / modes[a] / n / n;
        EXPECT_NEAR(spectrum.coupling()[4 * a + b], expected, 1e-12 * spectrum.coupling()[5 * a]);
      }
    }
  }
}

TEST(MaskedSpectrum, WithoutAMaskIsTheMeanPowerOfTheModes) {
  const Grid grid{16, 20};
  const FlatSky sky{grid, 0.01, 0.02};
  const MaskedSpectrum spectrum(sky, std::vector<double>(320, 1.0), {1, 60, 120, 157});
  const std::vector<double> f = noise(320, 1), g = noise(320, 2);
  const std::vector<double> coupled = spectrum.coupled(f.data()), power = spectrum(f.data());
  for (std::size_t b = 0; b < 3; ++b) EXPECT_NEAR(power[b], coupled[b], 1e-12 * power[b]);
  // A cosine of amplitude 2 has all its power, 2 * 2 / 4 of the squared amplitude each, in two modes.
  std::vector<double> cosine(320);
  for (std::size_t i = 0; i < 320; ++i)
    cosine[i] = 2 * std::cos(2 * std::numbers::pi * 3 * static_cast<double>(i % 20) / 20);
  const std::vector<double> line = spectrum(cosine.data());
  EXPECT_NEAR(line[0], 2 * sky.area() / spectrum.modes()[0], 1e-12);
  EXPECT_NEAR(line[1], 0, 1e-15);
  // Crossed with itself it is itself; the cross spectrum is what the sum's spectrum has more.
  std::vector<double> sum(320);
  for (std::size_t i = 0; i < 320; ++i) sum[i] = f[i] + g[i];
  const auto both = spectrum(sum.data()), cross = spectrum(f.data(), g.data()), other = spectrum(g.data());
  for (std::size_t b = 0; b < 3; ++b) EXPECT_NEAR(both[b], power[b] + 2 * cross[b] + other[b], 1e-12 * both[b]);
}

TEST(MaskedSpectrum, IsUnbiasedBehindAMask) {
  const Grid grid{48, 48};
  const FlatSky sky{grid, 0.01, 0.01};
  std::vector<double> mask(2304, 1.0);
  for (int y = 0; y < 48; ++y) {
    for (int x = 0; x < 48; ++x)
      mask[static_cast<std::size_t>(y * 48 + x)] = x < 4 || y < 3 || std::hypot(x - 30, y - 20) < 9 ? 0 : 1;
  }
  const MaskedSpectrum spectrum(sky, apodise(sky, mask, 0.04, Apodisation::c2), {0, 60, 120, 200, 450});
  // White noise of variance 1 has C_l = the area of a pixel. Bands that leave no mode out: what is outside all leaks
  // in.
  std::vector<double> mean(4, 0);
  const int maps = 400;
  for (int i = 0; i < maps; ++i) {
    const std::vector<double> map = noise(2304, 10 + static_cast<std::uint32_t>(i)), power = spectrum(map.data());
    for (std::size_t b = 0; b < 4; ++b) mean[b] += power[b] / maps / 1e-4;
  }
  for (std::size_t b = 0; b < 4; ++b) EXPECT_NEAR(mean[b], 1, 5 * std::sqrt(4 / spectrum.modes()[b] / maps)) << b;
}

TEST(MaskedSpectrum, IsNaMasters) {
  const char* reference = std::getenv("UMBRIEL_REFERENCE_DATA");
  const std::filesystem::path folder = std::filesystem::path(reference != nullptr ? reference : "") / "flatcl";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder;
  const FitsImage mask = read_fits_image((folder / "mask_flat.fits").string()),
                  map = read_fits_image((folder / "map_flat.fits").string());
  const FlatSky sky{{mask.height, mask.width}, 0.33582633505616 * degree, 0.33572142620796 * degree};
  const MaskedSpectrum spectrum(sky, mask.values, uniform_edges(2, 20, 25));
  const std::vector<double> power = spectrum(map.values.data());
  std::ifstream table(folder / "namaster_c00.txt");
  double l = 0, expected = 0;
  for (std::size_t b = 0; b < 25; ++b) {
    ASSERT_TRUE(table >> l >> expected);
    EXPECT_NEAR(power[b], expected, 1e-10 * expected) << l;
  }
}

TEST(Apodisation, RisesWithTheDistanceToTheNearestHole) {
  const Grid grid{14, 17};
  const FlatSky sky{grid, 0.4, 0.3};
  std::vector<double> mask(238, 0.5);
  for (const int hole : {3 * 17 + 4, 3 * 17 + 5, 11 * 17 + 15, 0}) mask[static_cast<std::size_t>(hole)] = 0;
  for (const Apodisation kind : {Apodisation::c1, Apodisation::c2}) {
    const std::vector<double> out = apodise(sky, mask, 1.1, kind);
    for (int i = 0; i < 238; ++i) {
      double nearest = 1e9;
      for (int j = 0; j < 238; ++j) {
        if (mask[static_cast<std::size_t>(j)] == 0)
          nearest = std::min(nearest, std::hypot(0.4 * (i / 17 - j / 17), 0.3 * (i % 17 - j % 17)));
      }
      const double x = std::min(1.0, nearest / 1.1), pi = std::numbers::pi;
      const double rise = kind == Apodisation::c1 ? x - std::sin(2 * pi * x) / (2 * pi) : 0.5 * (1 - std::cos(pi * x));
      EXPECT_NEAR(out[static_cast<std::size_t>(i)], mask[static_cast<std::size_t>(i)] * rise, 1e-14) << i;
    }
  }
  // Without holes there is nothing to rise from.
  EXPECT_EQ(apodise(sky, std::vector<double>(238, 1.0), 1.1, Apodisation::c2), std::vector<double>(238, 1.0));
}

TEST(Apodisation, SmoothIsNumpys) {
  const FlatSky sky{{14, 17}, 0.4, 0.3};
  std::vector<double> mask(238, 0.5);
  for (const int hole : {3 * 17 + 4, 3 * 17 + 5, 11 * 17 + 15, 0}) mask[static_cast<std::size_t>(hole)] = 0;
  const std::vector<double> out = apodise(sky, mask, 0.27, Apodisation::smooth);
  const struct {
    int y, x;
    double value;
  } numpy[] = {{0, 1, 0.08163162996640694},
               {2, 4, 0.06041078135081547},
               {3, 6, 0.03591220807731933},
               {7, 8, 0.25018303989194646},
               {13, 16, 0.19622653123347178},
               {11, 13, 0.11733446199386204},
               {3, 4, 0}};
  for (const auto& [y, x, value] : numpy) EXPECT_NEAR(out[static_cast<std::size_t>(y * 17 + x)], value, 1e-14);
}

// Band powers of one mode after the other, cosine and sine: their sum has no cross term between k and -k.
TEST(MaskedSpectrum, WindowsAreWhatModesOfEachMultipoleGiveToTheBands) {
  for (const Grid grid : {Grid{9, 12}, Grid{10, 11}}) {
    const FlatSky sky{grid, 0.5 * degree, 0.7 * degree};
    const MaskedSpectrum spectrum(sky, holed(grid), uniform_edges(30, 90, 3));
    const MaskedSpectrum::Windows windows = spectrum.windows();
    const std::size_t rings = windows.multipoles.size();
    ASSERT_EQ(windows.window.size(), 3 * rings);
    EXPECT_EQ(windows.multipoles[0], 0) << "the mean";
    // A spectrum that is 1 in one band has power 1 there, and nowhere else.
    for (std::size_t b = 0; b < 3; ++b) {
      for (std::size_t c = 0; c < 3; ++c) {
        double sum = 0;
        for (std::size_t j = 0; j < rings; ++j) {
          const double l = windows.multipoles[j];
          if (l >= 30 + 90.0 * static_cast<double>(c) && l < 120 + 90.0 * static_cast<double>(c))
            sum += windows.window[b * rings + j];
        }
        EXPECT_NEAR(sum, b == c ? 1 : 0, 1e-12);
      }
    }
    // One steep spectrum, sum over modes.
    std::vector<double> expected(3, 0), found(3, 0);
    const int h = grid.height, w = grid.width;
    const auto pixels = static_cast<std::size_t>(h * w);
    for (int ky = 0; ky < h; ++ky) {
      for (int kx = 0; kx < w; ++kx) {
        const double l = sky.multipole(ky, 2 * kx <= w ? kx : w - kx);
        std::size_t ring = 0;
        while (!(windows.low[ring] <= l && l < windows.high[ring])) ++ring;
        const double power = 1 / (1 + static_cast<double>(ring));
        std::vector<double> cosine(pixels), sine(pixels);
        for (std::size_t i = 0; i < pixels; ++i) {
          const double angle = 2 * std::numbers::pi *
                               (static_cast<double>(ky) * static_cast<double>(i / static_cast<std::size_t>(w)) / h +
                                static_cast<double>(kx) * static_cast<double>(i % static_cast<std::size_t>(w)) / w);
          cosine[i] = std::cos(angle), sine[i] = std::sin(angle);
        }
        // |a|^2 of the complex mode is N^2, its C_l the area.
        const std::vector<double> one = spectrum(cosine.data()), other = spectrum(sine.data());
        for (std::size_t b = 0; b < 3; ++b) found[b] += power * (one[b] + other[b]) / sky.area();
      }
    }
    for (std::size_t b = 0; b < 3; ++b) {
      for (std::size_t j = 0; j < rings; ++j)
        expected[b] += windows.window[b * rings + j] / (1 + static_cast<double>(j));
      EXPECT_NEAR(found[b], expected[b], 1e-12) << b;
    }
  }
}

TEST(MaskedSpectrum, RefusesWhatHasNoSpectrum) {
  const FlatSky sky{{8, 8}, 0.01, 0.01};
  const std::vector<double> ones(64, 1.0);
  EXPECT_THROW(MaskedSpectrum(sky, std::vector<double>(64, 0.0), {1, 100}), Error);
  EXPECT_THROW(MaskedSpectrum(sky, std::vector<double>(60, 1.0), {1, 100}), Error);
  EXPECT_THROW(MaskedSpectrum(sky, ones, {100, 1}), Error);
  EXPECT_THROW(MaskedSpectrum(sky, ones, {1, 2, 100}), Error) << "no mode is between 1 and 2";
  std::vector<double> nan = ones;
  nan[5] = NAN;
  EXPECT_THROW(MaskedSpectrum(sky, nan, {1, 100}), Error);
  // One observed pixel says one number.
  std::vector<double> single(64, 0.0);
  single[9] = 1;
  EXPECT_THROW(MaskedSpectrum(sky, single, {70, 150, 300}), Error);
  EXPECT_THROW(apodise(sky, ones, 0, Apodisation::c1), Error);
}

}  // namespace
}  // namespace umbriel
