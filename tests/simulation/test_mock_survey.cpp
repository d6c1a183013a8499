// Shear of a convergence map, masks, noise and mock surveys; and the configuration that asks for them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numbers>
#include <string>

#include <unistd.h>

#include "umbriel/data/fits.hpp"
#include "umbriel/maps/spin2.hpp"
#include "umbriel/simulation/convergence_power.hpp"
#include "umbriel/simulation/mock_survey.hpp"
#include "umbriel/simulation/shear.hpp"
#include "umbriel/simulation/simulate.hpp"

namespace umbriel {
namespace {

HostMaps map_of(Grid grid, const std::function<double(int, int)>& value) {
  HostMaps map("map", 1, grid.height, grid.width);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) map(0, y, x) = static_cast<float>(value(y, x));
  }
  return map;
}

HostMaps shear_of(const HostMaps& convergence) {
  const Grid grid{static_cast<int>(convergence.extent(1)), static_cast<int>(convergence.extent(2))};
  const MapBatch shear("shear", 2 * convergence.extent(0), grid.height, grid.width);
  shear_from_convergence(Space(), RealFft(grid), on_device(convergence), shear);
  HostMaps out("shear", shear.extent(0), grid.height, grid.width);
  Kokkos::deep_copy(out, shear);
  return out;
}

float fraction(const HostMaps& mask) {
  double sum = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) sum += mask.data()[i];
  return static_cast<float>(sum / static_cast<double>(mask.size()));
}

// kappa = cos(k.x + phase) has gamma1 = cos(2 phi) kappa and gamma2 = sin(2 phi) kappa, phi the angle of k from x.
TEST(Shear, OfAPlaneWaveIsTheWaveTurnedByTwiceItsAngle) {
  for (const Grid grid : {Grid{24, 20}, Grid{15, 21}}) {
    for (const auto& [my, mx] : {std::pair{3, 2}, {-3, 2}, {0, 1}, {5, 0}, {-7, 7}, {1, -4}}) {
      const double k2 = static_cast<double>(my) / grid.height, k1 = static_cast<double>(mx) / grid.width;
      const double phi = std::atan2(k2, k1);
      const HostMaps kappa =
          map_of(grid, [&](int y, int x) { return std::cos(2 * std::numbers::pi * (k2 * y + k1 * x) + 0.3); });
      const HostMaps shear = shear_of(kappa);
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) {
          ASSERT_NEAR(shear(0, y, x), std::cos(2 * phi) * kappa(0, y, x), 2e-6) << my << " " << mx;
          ASSERT_NEAR(shear(1, y, x), std::sin(2 * phi) * kappa(0, y, x), 2e-6) << my << " " << mx;
        }
      }
    }
  }
}

TEST(Shear, OfNyquistWavesIsThatOfAHermitianSpectrum) {
  const Grid grid{12, 12};
  const auto sign = [](int i) { return i % 2 == 0 ? 1.0 : -1.0; };
  // Nyquist along one axis alone: gamma2 is zero and gamma1 has its factor, positive along x, negative along y.
  const auto wave = [](int i) { return std::cos(2 * std::numbers::pi * i / 12 + 0.4); };
  const HostMaps along_x = map_of(grid, [&](int y, int x) { return sign(x) * wave(y); });
  const HostMaps along_y = map_of(grid, [&](int y, int x) { return sign(y) * wave(x); });
  const HostMaps of_x = shear_of(along_x), of_y = shear_of(along_y);
  // Both at Nyquist: k1 = k2, so that all is gamma2.
  const HostMaps both = map_of(grid, [&](int y, int x) { return sign(x + y); });
  const HostMaps of_both = shear_of(both);
  const double d1 = (0.25 - 1.0 / 144) / (0.25 + 1.0 / 144);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      EXPECT_NEAR(of_x(0, y, x), d1 * along_x(0, y, x), 2e-6);
      EXPECT_NEAR(of_x(1, y, x), 0, 2e-6);
      EXPECT_NEAR(of_y(0, y, x), -d1 * along_y(0, y, x), 2e-6);
      EXPECT_NEAR(of_y(1, y, x), 0, 2e-6);
      EXPECT_NEAR(of_both(0, y, x), 0, 2e-6);
      EXPECT_NEAR(of_both(1, y, x), both(0, y, x), 2e-6);
    }
  }
  // The transforms hide part of a spectrum that is not Hermitian, so the factors themselves: D2(-k) = D2(k).
  for (const Grid any : {Grid{12, 12}, Grid{12, 9}, Grid{9, 12}}) {
    for (int ky = 0; ky < any.height; ++ky) {
      for (const int kx : {0, any.width / 2}) {
        if (kx != 0 && 2 * kx != any.width) continue;
        EXPECT_EQ(spin2(any, ky, kx).d2, spin2(any, (any.height - ky) % any.height, kx).d2);
      }
    }
  }
}

TEST(Shear, OfABatchIsThatOfEachMapAndBlindToTheMean) {
  const Grid grid{10, 14};
  HostMaps batch("batch", 3, grid.height, grid.width);
  for (int i = 0; i < 3; ++i) {
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        batch(i, y, x) = std::sin(static_cast<float>((i + 1) * (3 * y + 5 * x) % 17));
      }
    }
  }
  const HostMaps together = shear_of(batch);
  for (int i = 0; i < 3; ++i) {
    const HostMaps alone = shear_of(map_of(grid, [&](int y, int x) { return batch(i, y, x); }));
    const HostMaps shifted = shear_of(map_of(grid, [&](int y, int x) { return batch(i, y, x) + 1.0; }));
    for (int c = 0; c < 2; ++c) {
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) {
          ASSERT_EQ(alone(c, y, x), together(2 * i + c, y, x));
          ASSERT_NEAR(shifted(c, y, x), alone(c, y, x), 2e-6);
        }
      }
    }
  }
}

TEST(SurveyMask, HasTheFractionItSays) {
  const Grid grid{360, 360};
  EXPECT_EQ(fraction(survey_mask(grid, "full", 1)), 1);
  double holes = 0, cosmos = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const HostMaps mask = survey_mask(grid, "cosmos-like", seed);
    cosmos += fraction(mask) / 20;
    holes += fraction(survey_mask(grid, "holes", seed)) / 20;
    EXPECT_NEAR(fraction(mask), 0.53, 0.05) << seed;
    EXPECT_EQ(mask(0, 0, 0) + mask(0, 359, 359) + mask(0, 0, 180), 0);
  }
  std::printf("mask fractions: cosmos-like %.4f, holes %.4f\n", cosmos, holes);
  EXPECT_NEAR(cosmos, 0.53, 0.02);
  EXPECT_NEAR(holes, 0.95, 0.02);
  const HostMaps a = survey_mask(grid, "holes", 1), b = survey_mask(grid, "holes", 1);
  const HostMaps c = survey_mask(grid, "holes", 2);
  EXPECT_TRUE(std::equal(a.data(), a.data() + a.size(), b.data()));
  EXPECT_FALSE(std::equal(a.data(), a.data() + a.size(), c.data()));
  EXPECT_THROW(survey_mask(grid, "hole", 1), Error);
  EXPECT_THROW(survey_mask({4, 4}, "full", 1), Error);
}

TEST(ShapeNoise, CountsGalaxiesByPoisson) {
  const Grid grid{300, 300};
  const HostMaps mask = survey_mask(grid, "full", 1);
  for (const double mean : {0.7, 5.4, 350.0}) {
    const HostMaps noise = shape_noise(grid, mask, 0.5, mean / 0.25, 0.3, 9);
    double sum = 0, square = 0, empty = 0;
    const double n = static_cast<double>(grid.pixels());
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        ASSERT_EQ(noise(0, y, x), noise(1, y, x));
        const double sigma = noise(0, y, x);
        const double galaxies = sigma == 0 ? 0 : std::round(0.09 / (sigma * sigma));
        sum += galaxies / n;
        square += galaxies * galaxies / n;
        empty += (sigma == 0) / n;
      }
    }
    EXPECT_NEAR(sum / mean, 1, 5 / std::sqrt(n * mean));
    EXPECT_NEAR((square - sum * sum) / mean, 1, 5 * std::sqrt((2 + 1 / mean) / n));
    EXPECT_NEAR(empty, std::exp(-mean), 5 * std::sqrt(std::exp(-mean) / n));
  }
  EXPECT_THROW(shape_noise(grid, mask, 0, 1, 1, 1), Error);
  EXPECT_THROW(shape_noise(grid, mask, 1, -1, 1, 1), Error);
  EXPECT_THROW(shape_noise(grid, mask, 1, 1, NAN, 1), Error);
  EXPECT_THROW(shape_noise({300, 299}, mask, 1, 1, 1, 1), Error);
}

TEST(MockSurvey, IsShearPlusNoiseInsideTheMask) {
  const Grid grid{128, 96};
  const HostMaps kappa = map_of(grid, [](int y, int x) { return 0.1 * std::sin(0.3 * x) * std::cos(0.2 * y); });
  const HostMaps mask = survey_mask(grid, "holes", 4);
  HostMaps noise("noise", 2, grid.height, grid.width);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      noise(0, y, x) = 0.1f + 0.001f * static_cast<float>(x);
      noise(1, y, x) = 0.2f;
    }
  }
  noise(1, 60, 50) = 0;  // no galaxy here
  const HostMaps signal = shear_of(kappa);
  const Survey survey = mock_survey(kappa, mask, noise, 1.0, 17);
  check_survey(survey);
  ASSERT_TRUE(survey.truth.has_value());
  EXPECT_EQ(survey.grid, grid);
  EXPECT_EQ(survey.mask(0, 60, 50), 0);
  double chi2[2] = {}, cross = 0, n = 0;
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      ASSERT_EQ((*survey.truth)(0, y, x), kappa(0, y, x));
      if (survey.mask(0, y, x) == 0) {
        ASSERT_EQ(survey.shear(0, y, x), 0);
        ASSERT_EQ(survey.shear(1, y, x), 0);
        ASSERT_EQ(survey.noise(0, y, x), 0);
        continue;
      }
      n += 1;
      double u[2];
      for (int c = 0; c < 2; ++c) {
        ASSERT_EQ(survey.noise(c, y, x), noise(c, y, x));
        u[c] = (survey.shear(c, y, x) - signal(c, y, x)) / noise(c, y, x);
        chi2[c] += u[c] * u[c];
      }
      cross += u[0] * u[1];
    }
  }
  EXPECT_NEAR(n / static_cast<double>(grid.pixels()), fraction(mask), 1e-3);
  for (const double c : chi2) EXPECT_NEAR(c / n, 1, 4 * std::sqrt(2 / n));
  EXPECT_NEAR(cross / n, 0, 4 / std::sqrt(n));

  const Survey again = mock_survey(kappa, mask, noise, 1.0, 17), other = mock_survey(kappa, mask, noise, 1.0, 17, 1);
  EXPECT_TRUE(std::equal(survey.shear.data(), survey.shear.data() + survey.shear.size(), again.shear.data()));
  EXPECT_FALSE(std::equal(survey.shear.data(), survey.shear.data() + survey.shear.size(), other.shear.data()));
}

TEST(MockSurvey, ReducedShearIsDividedByOneMinusConvergence) {
  const Grid grid{32, 32};
  const HostMaps kappa = map_of(grid, [](int y, int x) { return 0.4 * std::sin(0.4 * x) * std::cos(0.2 * y); });
  const HostMaps mask = survey_mask(grid, "full", 1);
  HostMaps noise("noise", 2, grid.height, grid.width);
  Kokkos::deep_copy(noise, 1e-6f);
  const HostMaps signal = shear_of(kappa);
  const Survey survey = mock_survey(kappa, mask, noise, 1.0, 1, 0, true);
  for (int c = 0; c < 2; ++c) {
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        ASSERT_NEAR(survey.shear(c, y, x), signal(c, y, x) / (1 - kappa(0, y, x)), 2e-5);
      }
    }
  }
}

TEST(MockSurvey, BadInputIsRefused) {
  const Grid grid{16, 16};
  const HostMaps kappa = map_of(grid, [](int y, int x) { return 0.01 * (x - y); });
  const HostMaps mask = survey_mask(grid, "full", 1);
  HostMaps noise("noise", 2, 16, 16);
  Kokkos::deep_copy(noise, 0.1f);
  const HostMaps none("none", 1, 16, 16), no_noise("none", 2, 16, 16), small("small", 1, 16, 15);
  EXPECT_THROW(mock_survey(kappa, none, noise, 1, 1), Error);
  EXPECT_THROW(mock_survey(kappa, mask, no_noise, 1, 1), Error);
  EXPECT_THROW(mock_survey(kappa, small, noise, 1, 1), Error);
  EXPECT_THROW(mock_survey(kappa, mask, mask, 1, 1), Error);
  EXPECT_THROW(mock_survey(kappa, mask, noise, 0, 1), Error);
  noise(1, 3, 4) = -1;
  EXPECT_THROW(mock_survey(kappa, mask, noise, 1, 1), Error);
  noise(1, 3, 4) = 0.1f;
  mask(0, 3, 4) = 0.5f;
  EXPECT_THROW(mock_survey(kappa, mask, noise, 1, 1), Error);
  mask(0, 3, 4) = 1;
  kappa(0, 2, 2) = 1.0f;
  EXPECT_NO_THROW(mock_survey(kappa, mask, noise, 1, 1));
  EXPECT_THROW(mock_survey(kappa, mask, noise, 1, 1, 0, true), Error);
  kappa(0, 2, 2) = NAN;
  EXPECT_THROW(mock_survey(kappa, mask, noise, 1, 1), Error);
}

TEST(Simulate, BuildsASurveyFromAConfiguration) {
  const Config config = Config::parse(R"(
[survey]
size = [48, 40]
pixel_arcmin = 0.5
[survey.simulate]
seed = 3
mask = "holes"
[prior]
source_redshift = 0.8
cosmology = {omega_m = 0.3, sigma_8 = 0.8}
)");
  const PowerSpectrum spectrum = power_spectrum_from(config, "prior");
  Cosmology cosmology;
  cosmology.omega_m = 0.3;
  cosmology.sigma_8 = 0.8;
  const PowerSpectrum direct = convergence_power(cosmology, SourceDistribution::plane(0.8), {300, 3000, 30000});
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(spectrum(direct.multipole[i]) / direct.value[i], 1, 2e-3);

  const Survey survey = simulate_survey(config, spectrum);
  check_survey(survey);
  EXPECT_EQ(survey.grid, (Grid{40, 48}));
  EXPECT_TRUE(survey.truth.has_value());
  EXPECT_LT(fraction(survey.mask), 1);
  EXPECT_GT(fraction(survey.mask), 0.5);
  EXPECT_NO_THROW(config.reject_unknown_keys());
}

TEST(Simulate, ObservesAGivenMap) {
  const auto folder = std::filesystem::temp_directory_path() / ("umbriel_simulate_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const Grid grid{20, 24};
  const HostMaps kappa = map_of(grid, [](int y, int x) { return 0.02 * std::sin(x) * std::cos(0.5 * y); });
  const std::string path = (folder / "kappa.fits").string();
  write_fits_map(path, kappa.data(), grid, "", "convergence");
  {
    std::ofstream table(folder / "nz.txt");
    table << "# z n\n0.2 0\n0.8, 2\n1.5 1\n";
  }
  const std::string text =
      "survey.pixel_arcmin = 0.4\nsurvey.simulate.mask = \"full\"\n"
      "survey.simulate.convergence = \"" +
      path +
      "\"\n"
      "prior.source_distribution = \"" +
      (folder / "nz.txt").string() + "\"\n";
  const Config config = Config::parse(text);
  const PowerSpectrum spectrum = power_spectrum_from(config, "prior");
  const Survey survey = simulate_survey(config, spectrum);
  ASSERT_TRUE(survey.truth.has_value());
  EXPECT_EQ(survey.grid, grid);
  EXPECT_EQ((*survey.truth)(0, 7, 9), kappa(0, 7, 9));
  ASSERT_EQ(survey.inputs.size(), 1U);
  EXPECT_EQ(survey.inputs[0].path, path);

  EXPECT_THROW(simulate_survey(Config::parse(text + "survey.size = [20, 24]"), spectrum), Error);
  EXPECT_THROW(simulate_survey(Config::parse("survey.pixel_arcmin = 1\nsurvey.size = [20]"), spectrum), Error);
  EXPECT_THROW(simulate_survey(Config::parse("survey.pixel_arcmin = 1"), spectrum), Error);
  EXPECT_THROW(power_spectrum_from(Config::parse(text + "prior.source_redshift = 1"), "prior"), Error);
  EXPECT_THROW(power_spectrum_from(Config::parse(text + "prior.power_spectrum = \"cl.npy\""), "prior"), Error);
  EXPECT_THROW(power_spectrum_from(Config::parse("prior.cosmology.omega_m = 2"), "prior"), Error);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace umbriel
