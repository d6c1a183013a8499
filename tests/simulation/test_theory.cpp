// Background, matter power and convergence power against closed forms and against independent codes.
//
// Numbers of CAMB 2.0.5 (Lewis, Challinor & Lasenby 2000; massless neutrinos, halofit_version "takahashi", amplitude
// set for sigma_8) and jax_cosmo (Campagne et al. 2023; T_cmb = 2.726 K, float64) were computed for the default
// cosmology.
#include <gtest/gtest.h>

#include <unistd.h>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "umbriel/core/check.hpp"
#include "umbriel/simulation/convergence_power.hpp"
#include "umbriel/simulation/matter_power.hpp"
#include "umbriel/simulation/quadrature.hpp"

namespace umbriel {
namespace {

Cosmology einstein_de_sitter() {
  Cosmology cosmology;
  cosmology.omega_m = 1;
  return cosmology;
}

TEST(Quadrature, IsExactForPolynomialsOfDegreeFifteen) {
  EXPECT_NEAR(integrate([](double x) { return 16 * std::pow(x, 15); }, 0, 2, 1) / 65536, 1, 1e-13);
  EXPECT_NEAR(integrate([](double x) { return std::exp(x); }, -1, 3, 4), std::exp(3) - std::exp(-1), 1e-12);
}

TEST(Cosmology, EinsteinDeSitterHasItsClosedForms) {
  const Cosmology eds = einstein_de_sitter();
  for (const double z : {0.0, 0.1, 1.0, 5.0, 1000.0}) {
    EXPECT_NEAR(eds.growth(z) * (1 + z), 1, 1e-10) << z;
    EXPECT_NEAR(eds.comoving_distance(z), 2 * hubble_length * (1 - 1 / std::sqrt(1 + z)), 1e-6) << z;
    EXPECT_NEAR(eds.matter_fraction(z), 1, 1e-12) << z;
  }
}

TEST(Cosmology, DistanceIsTheIntegralOfTheExpansion) {
  const Cosmology cosmology;
  EXPECT_EQ(cosmology.comoving_distance(0), 0);
  // Simpson's rule on 20,000 intervals.
  for (const double z : {0.5, 1.0, 3.0}) {
    const int n = 20000;
    double sum = 0;
    for (int i = 0; i <= n; ++i) {
      const double weight = i == 0 || i == n ? 1 : i % 2 == 1 ? 4 : 2;
      sum += weight / cosmology.expansion(z * i / n);
    }
    EXPECT_NEAR(cosmology.comoving_distance(z) / (hubble_length * sum * z / n / 3), 1, 1e-10) << z;
  }
  // CAMB, with radiation: 1317.92 and 2300.37 Mpc/h.
  EXPECT_NEAR(cosmology.comoving_distance(0.5) / 1317.92, 1, 1e-3);
  EXPECT_NEAR(cosmology.comoving_distance(1.0) / 2300.37, 1, 1e-3);
}

TEST(Cosmology, GrowthSolvesItsEquation) {
  // Carroll, Press & Turner 1992, eq. 29: a fit good to 1 %; and CAMB's ratio of sigma_8 at z = 0.5, 1, 2 to today's.
  const Cosmology cosmology;
  const auto carroll = [&](double z) {
    const double m = cosmology.matter_fraction(z), l = 1 - m;
    return 2.5 * m / (std::pow(m, 4.0 / 7) - l + (1 + m / 2) * (1 + l / 70)) / (1 + z);
  };
  for (const double z : {0.2, 0.5, 1.0, 4.0}) EXPECT_NEAR(cosmology.growth(z) / (carroll(z) / carroll(0)), 1, 0.01);
  EXPECT_NEAR(cosmology.growth(0.5), 0.62877635 / 0.8159, 1e-3);
  EXPECT_NEAR(cosmology.growth(1.0), 0.49674234 / 0.8159, 1e-3);
  EXPECT_NEAR(cosmology.growth(2.0), 0.34183198 / 0.8159, 1e-3);
}

TEST(Cosmology, BadValuesAreRefused) {
  const auto refused = [](double Cosmology::*member, double value) {
    Cosmology cosmology;
    cosmology.*member = value;
    EXPECT_THROW(cosmology.check(), Error) << value;
  };
  refused(&Cosmology::omega_m, 1.5);
  refused(&Cosmology::omega_m, 0.02);
  refused(&Cosmology::omega_b, 0.4);  // more than all matter
  refused(&Cosmology::h, 67);
  refused(&Cosmology::n_s, -1);
  refused(&Cosmology::sigma_8, 0);
  refused(&Cosmology::sigma_8, std::numeric_limits<double>::quiet_NaN());
  EXPECT_NO_THROW(Cosmology{}.check());
  EXPECT_THROW(Cosmology{}.comoving_distance(-0.1), Error);
  EXPECT_THROW(Cosmology{}.growth(std::numeric_limits<double>::infinity()), Error);
}

TEST(MatterPower, HasTheVarianceAskedFor) {
  Cosmology cosmology;
  cosmology.sigma_8 = 0.75;
  const MatterPower matter(cosmology);
  // The integral anew, in k rather than ln k, with the window's closed form.
  const double radius = 8;
  const double variance = integrate(
      [&](double root) {
        const double k = root * root, x = k * radius;
        const double window = x < 0.01 ? 1 - x * x / 10 : 3 * (std::sin(x) - x * std::cos(x)) / (x * x * x);
        return 2 * root * k * k * matter.linear(k, 0) * window * window / (2 * std::numbers::pi * std::numbers::pi);
      },
      1e-4, std::sqrt(50.0), 2000);
  EXPECT_NEAR(std::sqrt(variance), 0.75, 1e-5);
  EXPECT_NEAR(matter.sigma(8), 0.75, 1e-12);
}

TEST(MatterPower, TransferAgreesWithAnotherImplementation) {
  const MatterPower matter{Cosmology{}};
  const std::array<double, 8> k = {1e-3, 1e-2, 0.1, 0.3, 1, 3, 10, 30};
  const std::array<double, 8> jax_cosmo = {0.992203,   0.779486,    0.130843,   0.0303263,
                                           0.00467677, 0.000741406, 8.9592e-05, 1.23024e-05};
  // The temperatures differ by 0.02 %, which moves q by 0.04 % and T at large k by 0.07 %.
  for (std::size_t i = 0; i < k.size(); ++i) EXPECT_NEAR(matter.transfer(k[i]) / jax_cosmo[i], 1, 8e-4) << k[i];
  EXPECT_NEAR(matter.transfer(1e-6), 1, 1e-4);
}

TEST(MatterPower, AgreesWithABoltzmannCode) {
  const MatterPower matter{Cosmology{}};
  const std::array<double, 8> k = {1e-3, 1e-2, 0.1, 0.3, 1, 3, 10, 30};
  struct Row {
    double z;
    std::array<double, 8> linear, nonlinear;
  };
  const std::array<Row, 3> camb = {{{0,
                                     {3838.6, 22171, 5501.9, 887.27, 68.16, 4.8766, 0.22502, 0.01218},
                                     {3838.6, 22024, 5569.9, 1363.4, 406.18, 98.388, 9.6431, 0.87952}},
                                    {0.5,
                                     {2279.5, 13168, 3267.6, 526.96, 40.481, 2.8963, 0.13364, 0.007234},
                                     {2279.5, 13113, 3296.2, 711.17, 174.37, 43.554, 4.4611, 0.38219}},
                                    {2,
                                     {673.29, 3891.7, 965.75, 155.74, 11.964, 0.85599, 0.039499, 0.0021381},
                                     {673.29, 3887.4, 975.22, 175.91, 25.401, 6.0106, 0.91694, 0.090856}}}};
  double worst_linear = 0, worst_nonlinear = 0;
  for (const Row& row : camb) {
    for (std::size_t i = 0; i < k.size(); ++i) {
      worst_linear = std::max(worst_linear, std::abs(matter.linear(k[i], row.z) / row.linear[i] - 1));
      worst_nonlinear = std::max(worst_nonlinear, std::abs(matter.nonlinear(k[i], row.z) / row.nonlinear[i] - 1));
    }
  }
  std::printf("largest deviation from CAMB: linear %.4f, nonlinear %.4f\n", worst_linear, worst_nonlinear);
  EXPECT_LT(worst_linear, 0.04);  // the fit's own accuracy
  EXPECT_LT(worst_nonlinear, 0.04);
}

TEST(MatterPower, HalofitAgreesWithAnotherImplementation) {
  const MatterPower matter{Cosmology{}};
  const std::array<double, 5> k = {0.3, 1, 3, 10, 30};
  // jax_cosmo's ratio of nonlinear to linear power at z = 0 and 2; its amplitude is 0.4 % high, which matters little.
  const std::array<double, 5> today = {1371.69 / 884.324, 407.951 / 67.3493, 98.083 / 4.89537, 9.59334 / 0.228917,
                                       0.872358 / 0.0124841};
  const std::array<double, 5> early = {173.336 / 155.136, 24.6348 / 11.815, 5.87195 / 0.858793, 0.916229 / 0.0401589,
                                       0.0918738 / 0.00219007};
  for (std::size_t i = 0; i < k.size(); ++i) {
    EXPECT_NEAR(matter.nonlinear(k[i], 0) / matter.linear(k[i], 0) / today[i], 1, 0.01) << k[i];
    EXPECT_NEAR(matter.nonlinear(k[i], 2) / matter.linear(k[i], 2) / early[i], 1, 0.01) << k[i];
  }
}

TEST(MatterPower, HalofitParametersAreThoseOfTheFilteredSpectrum) {
  const MatterPower matter{Cosmology{}};
  // ln variance under exp(-(kR)^2), by another quadrature; k_sigma, n_eff and C by finite differences.
  const auto log_variance = [&](double log_radius) {
    return std::log(integrate(
        [&](double log_k) {
          const double k = std::exp(log_k), x = k * std::exp(log_radius);
          return k * k * k * matter.linear(k, 0.5) / (2 * std::numbers::pi * std::numbers::pi) * std::exp(-x * x);
        },
        -12, 8, 400));
  };
  const HalofitParameters halofit = matter.halofit(0.5);
  const double centre = -std::log(halofit.k_sigma), h = 1e-3;
  const double low = log_variance(centre - h), middle = log_variance(centre), high = log_variance(centre + h);
  EXPECT_NEAR(middle, 0, 1e-6);
  EXPECT_NEAR(halofit.n_eff, -3 - (high - low) / (2 * h), 1e-5);
  EXPECT_NEAR(halofit.curvature, -(high - 2 * middle + low) / (h * h), 1e-4);
}

TEST(MatterPower, IsLinearOnLargeScalesAndEarly) {
  const MatterPower matter{Cosmology{}};
  for (const double z : {0.0, 1.0, 3.0}) {
    EXPECT_NEAR(matter.nonlinear(1e-4, z) / matter.linear(1e-4, z), 1, 1e-3);
    EXPECT_NEAR(matter.nonlinear(1e-3, z) / matter.linear(1e-3, z), 1, 2e-3);
    EXPECT_GT(matter.nonlinear(2, z), 1.5 * matter.linear(2, z));
  }
  EXPECT_TRUE(matter.halofit(100).linear);
  EXPECT_EQ(matter.nonlinear(1, 100), matter.linear(1, 100));
  EXPECT_THROW(matter.linear(0, 0), Error);
  EXPECT_THROW(matter.nonlinear(-1, 0), Error);
}

TEST(ConvergencePower, OfAPlaneAgreesWithABoltzmannCode) {
  // CAMB's nonlinear P(k, z) through Limber's integral with 200 Gauss nodes in z, sources at z = 1.
  const std::vector<double> l = {95.4095476, 294.705170, 910.298178, 8685.11374};
  const std::vector<double> camb = {8.4330e-9, 1.90507e-9, 4.88610e-10, 1.41295e-11};
  const PowerSpectrum power = convergence_power(Cosmology{}, SourceDistribution::plane(1), l);
  for (std::size_t i = 0; i < l.size(); ++i) EXPECT_NEAR(power.value[i] / camb[i], 1, 0.02) << l[i];
}

TEST(ConvergencePower, OfATableApproachesAPlaneAndAddsUp) {
  const Cosmology cosmology;
  const std::vector<double> l = {100, 1000, 10000};
  const PowerSpectrum plane = convergence_power(cosmology, SourceDistribution::plane(1), l);
  const SourceDistribution narrow{{0.995, 1.0, 1.005}, {0, 7, 0}};
  const PowerSpectrum table = convergence_power(cosmology, narrow, l);
  for (std::size_t i = 0; i < l.size(); ++i) EXPECT_NEAR(table.value[i] / plane.value[i], 1, 1e-3);
  // Two planes: the power is less than the mean of the powers by a quarter of that of the difference field, and it is
  // more than the lower one.
  const SourceDistribution two{{0.499, 0.5, 0.501, 1.499, 1.5, 1.501}, {0, 1, 0, 0, 1, 0}};
  const PowerSpectrum near = convergence_power(cosmology, SourceDistribution::plane(0.5), l);
  const PowerSpectrum far = convergence_power(cosmology, SourceDistribution::plane(1.5), l);
  const PowerSpectrum both = convergence_power(cosmology, two, l);
  for (std::size_t i = 0; i < l.size(); ++i) {
    const double cross = (4 * both.value[i] - near.value[i] - far.value[i]) / 2;
    EXPECT_GT(cross, 0.3 * std::sqrt(near.value[i] * far.value[i])) << l[i];
    EXPECT_LT(cross, std::sqrt(near.value[i] * far.value[i])) << l[i];
  }
  // Amplitude: linear modes scale with sigma_8 squared.
  Cosmology lower = cosmology;
  lower.sigma_8 *= 0.9;
  const PowerSpectrum faint = convergence_power(lower, SourceDistribution::plane(1), {5.0});
  const PowerSpectrum bright = convergence_power(cosmology, SourceDistribution::plane(1), {5.0});
  EXPECT_NEAR(faint.value[0] / bright.value[0], 0.81, 0.01);
}

// The spectrum of Remy et al. 2022 for the COSMOS field. Its sources are not a plane: they have the redshift
// distribution below, made for the kappaTNG simulations and published with the spectrum's notebook in
// CosmoStat/Tutorials (branch power-spectrum): galaxies at 64 redshifts 0.095, 0.18, ... 5.45, here per 100,000
// and linear in between. The notebook's cosmology has omega_c = 0.2589, so that omega_m = 0.3075.
SourceDistribution cosmos_sources() {
  const std::array<int, 64> count = {708,  1338, 1762, 2273, 3133, 2851, 3233, 4529, 6111, 5235, 5498, 4810, 4293,
                                     6210, 4593, 2937, 3585, 3314, 2828, 2545, 2019, 1735, 1804, 2305, 1817, 1279,
                                     1430, 1228, 1168, 1253, 1131, 871,  1098, 844,  846,  683,  759,  586,  610,
                                     531,  527,  386,  376,  321,  344,  292,  259,  219,  236,  178,  180,  150,
                                     150,  125,  126,  99,   102,  82,   58,   2,    2,    1,    0,    1};
  SourceDistribution sources;
  for (std::size_t i = 0; i < count.size(); ++i) {
    sources.redshift.push_back(0.095 + 0.085 * static_cast<double>(i));
    sources.density.push_back(count[i]);
  }
  return sources;
}

TEST(ConvergencePower, AgreesWithThePublishedSpectrumOfCosmos) {
  const char* folder = std::getenv("UMBRIEL_REFERENCE_DATA");
  const std::string path = std::string(folder == nullptr ? "" : folder) + "/kappa/power_spectrum_theory_z1.npy";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no reference data: set UMBRIEL_REFERENCE_DATA";
  const PowerSpectrum published = read_power_spectrum(path);
  Cosmology notebook;
  notebook.omega_m = 0.3075;
  const PowerSpectrum same = convergence_power(notebook, cosmos_sources(), published.multipole);
  const PowerSpectrum usual = convergence_power(Cosmology{}, cosmos_sources(), published.multipole);
  double worst_same = 0, worst_usual = 0;
  for (std::size_t i = 0; i < published.multipole.size(); ++i) {
    if (published.multipole[i] < 50) continue;  // the file has the spin-2 factor that we leave out
    worst_same = std::max(worst_same, std::abs(same.value[i] / published.value[i] - 1));
    worst_usual = std::max(worst_usual, std::abs(usual.value[i] / published.value[i] - 1));
  }
  std::printf("largest deviation, l >= 50: %.4f for omega_m = 0.3075, %.4f for 0.3089\n", worst_same, worst_usual);
  EXPECT_LT(worst_same, 0.005);
  EXPECT_LT(worst_usual, 0.01);
}

TEST(ConvergencePower, BadArgumentsAreRefused) {
  const SourceDistribution plane = SourceDistribution::plane(1);
  EXPECT_THROW(SourceDistribution::plane(0), Error);
  EXPECT_THROW(convergence_power(Cosmology{}, plane, {-1}), Error);
  EXPECT_THROW(convergence_power(Cosmology{}, plane, {10, 10}), Error);
  EXPECT_THROW(convergence_power(Cosmology{}, {{0.5, 0.4}, {1, 1}}, {10}), Error);
  EXPECT_THROW(convergence_power(Cosmology{}, {{0.5, 0.6}, {1}}, {10}), Error);
  EXPECT_THROW(convergence_power(Cosmology{}, {{0.5, 0.6}, {1, -1}}, {10}), Error);
  EXPECT_THROW(convergence_power(Cosmology{}, {{0.5, 0.6}, {0, 0}}, {10}), Error);
  EXPECT_THROW(convergence_power(Cosmology{}, {{}, {}}, {10}), Error);
  Cosmology cosmology;
  cosmology.h = 70;
  EXPECT_THROW(convergence_power(cosmology, plane, {10}), Error);
}

TEST(SourceDistribution, IsReadFromText) {
  const auto path = std::filesystem::temp_directory_path() / ("umbriel_nz_" + std::to_string(::getpid()) + ".txt");
  const auto write = [&](const char* text) { std::ofstream(path) << text; };
  write("# z n\n0.1 1\n\n0.5, 2.5 # peak\n1.5\t0\n");
  const SourceDistribution sources = SourceDistribution::read(path.string());
  EXPECT_EQ(sources.redshift, (std::vector<double>{0.1, 0.5, 1.5}));
  EXPECT_EQ(sources.density, (std::vector<double>{1, 2.5, 0}));
  for (const char* text : {"0.1 1\n0.2\n", "0.1 x\n", "", "0.2 1\n0.1 1\n", "0.1 nan\n0.2 1\n"}) {
    write(text);
    EXPECT_THROW(SourceDistribution::read(path.string()), Error) << text;
  }
  std::filesystem::remove(path);
  EXPECT_THROW(SourceDistribution::read(path.string()), Error);
}

}  // namespace
}  // namespace umbriel
