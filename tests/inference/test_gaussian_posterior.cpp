// The exact Gaussian posterior against closed forms and against itself.
#include <gtest/gtest.h>

#include "small_survey.hpp"
#include "umbriel/inference/gaussian_posterior.hpp"
#include "umbriel/maps/spin2.hpp"

namespace umbriel {
namespace {

using namespace testing;

TEST(WienerMean, IsTheFilteredKaiserSquiresMapWithoutAMask) {
  const Grid grid{16, 20};
  const Survey survey = small_survey(grid, true);
  const HostView2<float> power = red_power(grid);
  const ConvergencePosterior posterior(survey, power, {}, 1);
  GaussianPosterior exact(posterior, 1);
  const auto mean = on_host(exact.mean(Space()));
  // Closed form: P / (P + s^2) times D* gamma. Where D1 or D2 is cut at Nyquist, |D|^2 < 1.
  const SpectrumBatch shear("shear", 2, grid.height, grid.half_width());
  to_spectra(Space(), posterior.fft(), 2, on_device(survey.shear), shear);
  const auto gamma = on_host(shear);
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      const Spin2 d = spin2(grid, ky, kx);
      const double p = power(ky, kx), weight = 1 / 0.04;
      const double gain = p > 0 ? weight / (1 / p + weight * (d.d1 * d.d1 + d.d2 * d.d2)) : 0;
      const double re = gain * (d.d1 * gamma(0, ky, kx).real() + d.d2 * gamma(1, ky, kx).real());
      const double im = gain * (d.d1 * gamma(0, ky, kx).imag() + d.d2 * gamma(1, ky, kx).imag());
      EXPECT_NEAR(mean(0, ky, kx).real(), re, 2e-6);
      EXPECT_NEAR(mean(0, ky, kx).imag(), im, 2e-6);
    }
  }
}

TEST(WienerMean, HasNoScore) {
  const Grid grid{32, 24};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {false, true}, 1);
  GaussianPosterior exact(posterior, 1);
  const SpectrumBatch mean = exact.mean(Space());
  const SpectrumBatch score("score", 2, grid.height, grid.half_width()),
      start("start", 2, grid.height, grid.half_width());
  const View1<float> cold("cold", 1);
  const View1<double> value("value", 1);
  const SpectrumBatch zero("zero", 2, grid.height, grid.half_width());
  posterior.evaluate(Space(), 1, zero, cold, start, value);
  posterior.evaluate(Space(), 1, mean, cold, score, value);
  EXPECT_LT(dot(grid, 2, score, score), 1e-9 * dot(grid, 2, start, start));
}

// (x - mean)^T H (x - mean) of an exact draw has a chi^2 distribution with as many degrees of freedom as free modes:
// a wrong variance or correlation anywhere moves its mean.
TEST(ConstrainedRealisations, HaveThePosteriorsQuadraticForm) {
  for (const bool b_modes : {false, true}) {
    const Grid grid{24, 20};
    const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {false, b_modes}, 8);
    const int fields = posterior.fields();
    GaussianPosterior exact(posterior, 8);
    const SpectrumBatch mean = exact.mean(Space());
    const MapBatch maps("maps", 8 * fields, grid.height, grid.width);
    const int n = 96;
    double total = 0;
    for (int first = 0; first < n; first += 8) {
      exact.draw(Space(), 3, static_cast<std::uint32_t>(first), 8, maps);
      for (int i = 0; i < 8; ++i) {
        const SpectrumBatch draw("draw", fields, grid.height, grid.half_width()),
            product("product", fields, grid.height, grid.half_width());
        const MapBatch own("own", fields, grid.height, grid.width);
        Kokkos::deep_copy(
            own, Kokkos::subview(maps, std::make_pair(i * fields, (i + 1) * fields), Kokkos::ALL, Kokkos::ALL));
        to_spectra(Space(), posterior.fft(), fields, own, draw);
        const SpectrumBatch difference = combined(fields, grid, draw, -1.0f, mean);
        posterior.apply_curvature(Space(), 1, difference, product);
        total += dot(grid, fields, difference, product);
      }
    }
    const double degrees = fields * static_cast<double>(grid.pixels() - 1);
    EXPECT_NEAR(total / n, degrees, 4 * std::sqrt(2 * degrees / n)) << fields << " fields";
  }
}

TEST(ConstrainedRealisations, DependOnSeedAndIndexAlone) {
  const Grid grid{16, 16};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 4);
  GaussianPosterior four(posterior, 4), one(posterior, 1);
  const MapBatch batch("batch", 4, grid.height, grid.width), single("single", 1, grid.height, grid.width);
  four.draw(Space(), 9, 10, 4, batch);
  one.draw(Space(), 9, 12, 1, single);
  const auto a = on_host(batch), b = on_host(single);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) ASSERT_EQ(a(2, y, x), b(0, y, x));
  }
}

TEST(ConstrainedRealisations, SayWhenTheSolverCannotConverge) {
  const Grid grid{16, 16};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 1);
  GaussianPosterior hurried(posterior, 1, {1e-7, 2});
  try {
    hurried.mean(Space());
    FAIL() << "two iterations were enough";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerical);
  }
}

TEST(KaiserSquires, UndoesTheShearOfASingleWave) {
  const Grid grid{32, 32};
  Survey survey = small_survey(grid, true);
  HostMaps wave("wave", 1, grid.height, grid.width);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      const double phase = 2 * std::acos(-1.0) * (3.0 * x / grid.width + 2.0 * y / grid.height);
      wave(0, y, x) = static_cast<float>(std::cos(phase));
      // D = ((3^2 - 2^2) + 2 i 3 2) / 13
      survey.shear(0, y, x) = static_cast<float>(5.0 / 13 * std::cos(phase));
      survey.shear(1, y, x) = static_cast<float>(12.0 / 13 * std::cos(phase));
    }
  }
  const RealFft fft(grid);
  const auto maps = on_host(kaiser_squires(Space(), survey, fft, 0));
  const double k = 2 * std::acos(-1.0) * std::hypot(3.0 / grid.width, 2.0 / grid.height);
  const auto smooth = on_host(kaiser_squires(Space(), survey, fft, 1.5));
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      EXPECT_NEAR(maps(0, y, x), wave(0, y, x), 1e-5);
      EXPECT_NEAR(maps(1, y, x), 0, 1e-5);
      EXPECT_NEAR(smooth(0, y, x), std::exp(-0.5 * 2.25 * k * k) * static_cast<double>(wave(0, y, x)), 1e-5);
    }
  }
}

}  // namespace
}  // namespace umbriel
