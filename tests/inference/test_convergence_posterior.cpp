// The forward model and its adjoint, and the log-density against its own derivative.
#include <gtest/gtest.h>

#include "small_survey.hpp"

namespace umbriel {
namespace {

using namespace testing;

struct Case {
  Grid grid;
  ForwardModel model;
};

class EveryModel : public ::testing::TestWithParam<Case> {};

double log_density_at(const ConvergencePosterior& posterior, const SpectrumBatch& state, float sigma,
                      const SpectrumBatch& score) {
  const View1<float> temperature("sigma", 1);
  Kokkos::deep_copy(temperature, sigma);
  const View1<double> value("value", 1);
  posterior.evaluate(Space(), 1, state, temperature, score, value);
  return download(value, 1)[0];
}

TEST_P(EveryModel, ScoreIsTheGradientOfTheLogDensity) {
  const auto [grid, model] = GetParam();
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), model, 1);
  const int fields = posterior.fields();
  const SpectrumBatch state = random_states(posterior.fft(), fields, 0.05f, 0);
  const SpectrumBatch direction = random_states(posterior.fft(), fields, 0.05f, 1);
  const SpectrumBatch score("score", fields, grid.height, grid.half_width()),
      unused("unused", fields, grid.height, grid.half_width());
  for (const float sigma : {0.0f, 0.2f, -0.07f}) {
    log_density_at(posterior, state, sigma, score);
    const double slope = dot(grid, fields, score, direction);
    // Central differences of fourth order: the reduced shear is not quadratic.
    const float h = 0.05f;
    const auto at = [&](float step) {
      return log_density_at(posterior, combined(fields, grid, state, step, direction), sigma, unused);
    };
    const double difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * static_cast<double>(h));
    EXPECT_NEAR(difference, slope, 2e-3 * std::fabs(slope) + 2e-3) << "sigma " << sigma;
  }
}

TEST_P(EveryModel, AdjointIsTheTransposeOfForward) {
  auto [grid, model] = GetParam();
  model.reduced_shear = false;
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), model, 1);
  const int fields = posterior.fields();
  const SpectrumBatch state = random_states(posterior.fft(), fields, 1.0f, 2);
  const MapBatch shear("shear", 2, grid.height, grid.width), probe("probe", 2, grid.height, grid.width);
  posterior.forward(Space(), 1, state, shear);
  const auto host_probe = Kokkos::create_mirror_view(probe);
  const auto host_shear = on_host(shear);
  double left = 0;
  for (int c = 0; c < 2; ++c) {
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        host_probe(c, y, x) =
            normal({5, Purpose::test, 3, 0}, static_cast<std::uint64_t>((c * grid.height + y) * grid.width + x));
        left += static_cast<double>(host_shear(c, y, x)) * static_cast<double>(host_probe(c, y, x));
      }
    }
  }
  Kokkos::deep_copy(probe, host_probe);
  const SpectrumBatch back("back", fields, grid.height, grid.half_width());
  posterior.adjoint(Space(), 1, probe, back);
  EXPECT_NEAR(dot(grid, fields, state, back), left, 1e-5 * static_cast<double>(grid.pixels()));
}

TEST_P(EveryModel, ChainsOfABatchAreIndependentToTheBit) {
  const auto [grid, model] = GetParam();
  const int n = 3;
  const ConvergencePosterior together(small_survey(grid), red_power(grid), model, n);
  const int fields = together.fields();
  const SpectrumBatch states = random_states(together.fft(), n * fields, 0.05f, 3);
  const SpectrumBatch scores("scores", n * fields, grid.height, grid.half_width());
  const View1<float> sigma("sigma", n);
  upload(std::vector<float>{0.0f, 0.1f, 0.3f}, sigma);
  const View1<double> values("values", n);
  together.evaluate(Space(), n, states, sigma, scores, values);
  const auto host_scores = on_host(scores);
  for (int i = 0; i < n; ++i) {
    const ConvergencePosterior alone(small_survey(grid), red_power(grid), model, 1);
    const SpectrumBatch state("state", fields, grid.height, grid.half_width()),
        score("score", fields, grid.height, grid.half_width());
    Kokkos::deep_copy(state,
                      Kokkos::subview(states, std::make_pair(i * fields, (i + 1) * fields), Kokkos::ALL, Kokkos::ALL));
    const double value = log_density_at(alone, state, download(sigma, n)[static_cast<std::size_t>(i)], score);
    EXPECT_EQ(value, download(values, n)[static_cast<std::size_t>(i)]);
    const auto host = on_host(score);
    for (int f = 0; f < fields; ++f) {
      for (int ky = 0; ky < grid.height; ++ky) {
        for (int kx = 0; kx < grid.half_width(); ++kx) {
          ASSERT_EQ(host(f, ky, kx).real(), host_scores(i * fields + f, ky, kx).real());
          ASSERT_EQ(host(f, ky, kx).imag(), host_scores(i * fields + f, ky, kx).imag());
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EveryModel,
                         ::testing::Values(Case{{16, 16}, {false, false}}, Case{{15, 18}, {false, false}},
                                           Case{{16, 20}, {false, true}}, Case{{16, 16}, {true, false}},
                                           Case{{18, 15}, {true, true}}));

TEST(ConvergencePosterior, OfZeroIsTheDataMisfit) {
  const Grid grid{12, 14};
  const Survey survey = small_survey(grid);
  const ConvergencePosterior posterior(survey, red_power(grid), {}, 1);
  const SpectrumBatch zero("zero", 1, grid.height, grid.half_width()),
      score("score", 1, grid.height, grid.half_width());
  ASSERT_GT(posterior.sharpest(), 0.07f);
  EXPECT_LT(posterior.sharpest(), 0.072f);  // of the least noise, 0.1
  for (const float sigma : {0.0f, 0.25f, -0.07f}) {
    double chi2 = 0;
    for (int c = 0; c < 2; ++c) {
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) {
          if (survey.mask(0, y, x) == 0) continue;
          const double noise = survey.noise(c, y, x), shear = survey.shear(c, y, x);
          chi2 += shear * shear / (noise * noise + static_cast<double>(sigma) * std::fabs(sigma));
        }
      }
    }
    EXPECT_NEAR(log_density_at(posterior, zero, sigma, score), -0.5 * chi2, 1e-5 * chi2);
  }
}

TEST(ConvergencePosterior, PriorCostsTheSquareOverThePower) {
  const Grid grid{16, 16};
  Survey survey = small_survey(grid);
  Kokkos::deep_copy(survey.mask, 0.0f);  // nothing observed: the prior alone
  const HostView2<float> power = red_power(grid);
  const ConvergencePosterior posterior(survey, power, {}, 1);
  const SpectrumBatch state("state", 1, grid.height, grid.half_width()),
      score("score", 1, grid.height, grid.half_width());
  const auto host = Kokkos::create_mirror_view(state);
  host(0, 3, 5) = Complex(0.3f, -0.4f);  // stands for two modes of the plane
  Kokkos::deep_copy(state, host);
  const float sigma = 0.1f;
  EXPECT_NEAR(log_density_at(posterior, state, sigma, score), -0.25 / (power(3, 5) + 0.01), 1e-4);
}

TEST(ConvergencePosterior, UnobservedPixelsSayNothing) {
  const Grid grid{16, 16};
  Survey survey = small_survey(grid);
  const ConvergencePosterior before(survey, red_power(grid), {}, 1);
  const SpectrumBatch state = random_states(before.fft(), 1, 0.05f, 4);
  const SpectrumBatch score("score", 1, grid.height, grid.half_width());
  const double value = log_density_at(before, state, 0.0f, score);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      if (survey.mask(0, y, x) == 0) survey.shear(0, y, x) = 100;
    }
  }
  const ConvergencePosterior after(survey, red_power(grid), {}, 1);
  EXPECT_EQ(log_density_at(after, state, 0.0f, score), value);
}

TEST(ConvergencePosterior, CurvatureIsTheChangeOfTheScore) {
  const Grid grid{16, 18};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {false, true}, 1);
  const SpectrumBatch a = random_states(posterior.fft(), 2, 0.1f, 5), step = random_states(posterior.fft(), 2, 0.1f, 6);
  const auto spectra = [&] { return SpectrumBatch("spectra", 2, grid.height, grid.half_width()); };
  const SpectrumBatch s0 = spectra(), s1 = spectra(), curvature = spectra();
  log_density_at(posterior, a, 0.0f, s0);
  log_density_at(posterior, combined(2, grid, a, 1.0f, step), 0.0f, s1);
  posterior.apply_curvature(Space(), 1, step, curvature);
  const SpectrumBatch change = combined(2, grid, s1, -1.0f, s0), sum = combined(2, grid, change, 1.0f, curvature);
  EXPECT_LT(dot(grid, 2, sum, sum), 1e-9 * dot(grid, 2, curvature, curvature));
}

TEST(ConvergencePosterior, RefusesAPriorOfAnotherGrid) {
  EXPECT_THROW(ConvergencePosterior(small_survey({16, 16}), red_power({16, 18}), {}, 1), Error);
}

}  // namespace
}  // namespace umbriel
