// Spectra: interpolation as numpy.interp, reading, and the modes of a map.
#include <cmath>
#include <numbers>

#include "support.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/data/power_spectrum.hpp"

namespace umbriel {
namespace {

using test::expect_error;

using PowerSpectrumTest = test::Folder;

TEST_F(PowerSpectrumTest, InterpolatesLinearlyAndClamps) {
  const PowerSpectrum spectrum({10, 20, 40}, {1, 3, 2});
  EXPECT_EQ(spectrum(0), 1);
  EXPECT_EQ(spectrum(10), 1);
  EXPECT_EQ(spectrum(15), 2);
  EXPECT_EQ(spectrum(20), 3);
  EXPECT_EQ(spectrum(25), 2.75);
  EXPECT_EQ(spectrum(40), 2);
  EXPECT_EQ(spectrum(1e6), 2);
}

TEST_F(PowerSpectrumTest, Refusals) {
  const auto refused = [](std::vector<double> l, std::vector<double> c, const std::string& part) {
    expect_error(ExitCode::input, {part, "cl.npy"}, [&] { PowerSpectrum(l, c, "cl.npy"); });
  };
  refused({}, {}, "0 multipoles");
  refused({1, 2}, {1}, "2 multipoles and 1 values");
  refused({1, 1}, {1, 1}, "entry 1");
  refused({-1, 1}, {1, 1}, "entry 0");
  refused({1, std::nan("")}, {1, 1}, "entry 1");
  refused({1, 2}, {1, -1e-9}, "negative");
  refused({1, 2}, {std::nan(""), 1}, "entry 0");
}

TEST_F(PowerSpectrumTest, ReadsNpyAndText) {
  const std::vector<double> values = {10, 20, 1e-8, 2e-8};
  write_npy(path("cl.npy"), {2, 2}, values.data());
  EXPECT_DOUBLE_EQ(read_power_spectrum(path("cl.npy"))(15), 1.5e-8);
  write_npy(path("flat.npy"), {4}, values.data());
  expect_error(ExitCode::input, {"(2, n)", "flat.npy"}, [&] { read_power_spectrum(path("flat.npy")); });

  write("cl.txt", "# l C_l\n10 1e-8\n\n20, 2e-8  # last\r\n");
  EXPECT_DOUBLE_EQ(read_power_spectrum(path("cl.txt"))(15), 1.5e-8);
  write("three.txt", "10 1 1\n");
  expect_error(ExitCode::input, {"line 1", "two numbers", "three.txt"},
               [&] { read_power_spectrum(path("three.txt")); });
  write("word.txt", "10 1\nx 2\n");
  expect_error(ExitCode::input, {"line 2"}, [&] { read_power_spectrum(path("word.txt")); });
  write("empty.txt", "# nothing\n");
  expect_error(ExitCode::input, {"0 multipoles"}, [&] { read_power_spectrum(path("empty.txt")); });
  expect_error(ExitCode::file_system, {"none.txt"}, [&] { read_power_spectrum(path("none.txt")); });
}

TEST_F(PowerSpectrumTest, ModesOfAMap) {
  const PowerSpectrum linear({0, 1e6}, {0, 1});  // C_l = l / 1e6
  const Grid grid{4, 6};
  const double pixel = 2.0 / 60 * std::numbers::pi / 180;
  const auto power = pixel_power(linear, grid, 2.0);
  ASSERT_EQ(power.extent(0), 4U);
  ASSERT_EQ(power.extent(1), 4U);
  EXPECT_EQ(power(0, 0), 0.0F);
  const auto expected = [&](double ky, double kx) {
    const double l = 2 * std::numbers::pi * std::sqrt(ky * ky / 16 + kx * kx / 36) / pixel;
    return static_cast<float>(l / 1e6 / (pixel * pixel));
  };
  EXPECT_FLOAT_EQ(power(0, 1), expected(0, 1));
  EXPECT_FLOAT_EQ(power(1, 3), expected(1, 3));
  EXPECT_FLOAT_EQ(power(2, 2), expected(2, 2));
  EXPECT_FLOAT_EQ(power(3, 2), expected(-1, 2));
  const PowerSpectrum flat({1}, {1});
  EXPECT_EQ(pixel_power(flat, grid, 2.0)(0, 0), 0.0F);
  expect_error(ExitCode::input, {"pixel size"}, [&] { pixel_power(flat, grid, 0); });
}

// Mean square of a field drawn with this spectrum: sum of C_l over the modes times the mode density.
TEST_F(PowerSpectrumTest, CosmosGridVariance) {
  UMBRIEL_NEEDS_REFERENCE_DATA(data);
  const PowerSpectrum spectrum = read_power_spectrum(data + "/kappa/power_spectrum_theory_z1.npy");
  EXPECT_EQ(spectrum.multipole.size(), 50U);
  EXPECT_EQ(spectrum(10), spectrum.value[0]);
  const auto power = pixel_power(spectrum, {360, 360}, 0.29);
  double variance = 0;
  for (std::size_t ky = 0; ky < 360; ++ky)
    for (std::size_t kx = 0; kx <= 180; ++kx)
      variance += power(ky, kx) * (kx == 0 || kx == 180 ? 1.0 : 2.0) / (360.0 * 360.0);
  EXPECT_NEAR(std::sqrt(variance), 0.029074380, 1e-9);  // from numpy.interp and numpy.fft.fftfreq
}

// White power but for the pinned mean: each of the other modes counts once, also those that a half spectrum leaves out.
TEST(PixelPower, GivesTheStandardDeviationOfAPixel) {
  for (const Grid grid : {Grid{5, 6}, Grid{6, 5}, Grid{4, 4}}) {
    const HostView2<float> power = pixel_power(PowerSpectrum({1, 1e6}, {1, 1}), grid, 1.0);
    const double modes = static_cast<double>(grid.pixels()), one = static_cast<double>(power(0, 1));
    EXPECT_NEAR(pixel_standard_deviation(power, grid), std::sqrt(one * (modes - 1) / modes), 1e-6 * std::sqrt(one));
  }
}

}  // namespace
}  // namespace umbriel
