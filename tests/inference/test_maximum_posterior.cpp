// The posterior maximum against the Wiener mean, and where it has no closed form, against its own score.
#include <gtest/gtest.h>

#include "analytic_residuals.hpp"
#include "small_survey.hpp"
#include "umbriel/inference/gaussian_posterior.hpp"

namespace umbriel {
namespace {

using namespace testing;

TEST(MaximumPosterior, IsTheWienerMeanOfALinearModel) {
  const Grid grid{24, 24};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 1);
  GaussianPosterior exact(posterior, 1);
  const SpectrumBatch mean = exact.mean(Space());
  const SpectrumBatch zero("zero", 1, grid.height, grid.half_width());
  const SpectrumBatch found = maximum_posterior(Space(), posterior, zero);
  const SpectrumBatch difference = combined(1, grid, found, -1.0f, mean);
  EXPECT_LT(std::sqrt(dot(grid, 1, difference, difference) / dot(grid, 1, mean, mean)), 1e-3);
}

TEST(MaximumPosterior, HasNoScoreUnderReducedShear) {
  const Grid grid{24, 24};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {true, false}, 1);
  const SpectrumBatch zero("zero", 1, grid.height, grid.half_width());
  const SpectrumBatch score("score", 1, grid.height, grid.half_width());
  const View1<float> cold("cold", 1);
  const View1<double> value("value", 1);
  posterior.evaluate(Space(), 1, zero, cold, score, value);
  const double before = dot(grid, 1, score, score);
  posterior.evaluate(Space(), 1, maximum_posterior(Space(), posterior, zero), cold, score, value);
  EXPECT_LT(dot(grid, 1, score, score), 1e-6 * before);
}

TEST(MaximumPosterior, TakesALearnedPrior) {
  const Grid grid{24, 22};
  const HostView2<float> from = red_power(grid), to = red_power(grid, 0.03);
  const ConvergencePosterior posterior(small_survey(grid), from, {}, 1), wanted(small_survey(grid), to, {}, 1);
  GaussianPosterior exact(wanted, 1);
  const SpectrumBatch mean = exact.mean(Space());
  const SpectrumBatch zero("zero", 1, grid.height, grid.half_width());
  const OtherPower residual(from, to);
  const SpectrumBatch found = maximum_posterior(Space(), posterior, zero, {.sigma = 1e-3}, &residual);
  const SpectrumBatch difference = combined(1, grid, found, -1.0f, mean);
  EXPECT_LT(std::sqrt(dot(grid, 1, difference, difference) / dot(grid, 1, mean, mean)), 2e-3);
}

TEST(MaximumPosterior, HasNoScoreUnderASkewedPrior) {
  const Grid grid{21, 21};
  const ConvergencePosterior posterior(small_survey(grid, true), white_power(grid, Mixture::variance), {}, 1);
  const MixturePixels residual(posterior.fft(), 1);
  const auto score_at = [&](const SpectrumBatch& state) {
    SpectrumBatch score("score", 1, grid.height, grid.half_width());
    const SpectrumBatch learned("learned", 1, grid.height, grid.half_width());
    const View1<float> sigma("sigma", 1);
    const View1<double> value("value", 1);
    upload(std::vector<float>{0.05f}, sigma);
    posterior.evaluate(Space(), 1, state, sigma, score, value);
    residual.evaluate(Space(), 1, state, sigma, learned);
    score = combined(1, grid, score, 1.0f, learned);
    return dot(grid, 1, score, score);
  };
  const SpectrumBatch zero("zero", 1, grid.height, grid.half_width());
  const SpectrumBatch found = maximum_posterior(Space(), posterior, zero, {.sigma = 0.05}, &residual);
  EXPECT_LT(score_at(found), 1e-6 * score_at(zero));
  EXPECT_THROW(maximum_posterior(Space(), posterior, zero, {}, &residual), Error) << "below the least temperature";
}

}  // namespace
}  // namespace umbriel
