// Chains against the exact posterior, and against themselves in other batches.
#include <gtest/gtest.h>

#include <limits>

#include "chains.hpp"

namespace umbriel {
namespace {

using namespace testing;

// Both numbers are chi^2 over their degrees of freedom for exact independent draws.
TEST(AnnealedHmc, PreconditionedChainsEndInTheExactPosterior) {
  for (const bool b_modes : {false, true}) {
    const Grid grid{32, 32};
    const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {false, b_modes}, 4);
    HmcOptions options;
    const auto chains = run(posterior, posterior.fft(), options, first_chains(64));
    const Agreement agreement = against_exact(posterior, chains);
    const double degrees = posterior.fields() * static_cast<double>(grid.pixels() - 1);
    EXPECT_NEAR(agreement.quadratic, 1, 5 * std::sqrt(2 / degrees / 64));
    EXPECT_NEAR(agreement.mean_error, 1, 5 * std::sqrt(2 / degrees));
    for (const ChainResult& chain : chains) EXPECT_LE(chain.score_evaluations, 200);
    double accepted = 0;
    for (const ChainResult& chain : chains) accepted += chain.accept_rate / 64;
    EXPECT_GT(accepted, 0.6);
  }
}

// Steps so long that a third of the moves fails: without the Metropolis test the spread would be wrong.
TEST(AnnealedHmc, IsExactForAnyStep) {
  const Grid grid{24, 24};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 4);
  HmcOptions options;
  options.step = 1.7;
  options.tail = 24;
  const auto chains = run(posterior, posterior.fft(), options, first_chains(96));
  double accepted = 0;
  for (const ChainResult& chain : chains) accepted += chain.accept_rate / 96;
  EXPECT_LT(accepted, 0.8);
  const double degrees = static_cast<double>(grid.pixels() - 1);
  EXPECT_NEAR(against_exact(posterior, chains).quadratic, 1, 4 * std::sqrt(2 / degrees / 96));
}

// The smallest powers are below the square of the floor's temperature, so that the final ODE matters.
TEST(AnnealedHmc, PaperChainsEndInTheExactPosterior) {
  const Grid grid{12, 12};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid, 0.003), {}, 4);
  HmcOptions options;
  options.mode = HmcOptions::Mode::paper;
  const auto chains = run(posterior, posterior.fft(), options, first_chains(48));
  const Agreement agreement = against_exact(posterior, chains);
  const double degrees = static_cast<double>(grid.pixels() - 1);
  EXPECT_NEAR(agreement.quadratic, 1, 5 * std::sqrt(2 / degrees / 48));
  EXPECT_NEAR(agreement.mean_error, 1, 5 * std::sqrt(2 / degrees));
  for (const ChainResult& chain : chains) {
    EXPECT_TRUE(std::is_sorted(chain.trace_sigma.rbegin(), chain.trace_sigma.rend())) << "cooling only";
    EXPECT_FLOAT_EQ(chain.trace_sigma.front(), 1.0f);
    EXPECT_LT(chain.trace_sigma.back(), 0.0083f);
    EXPECT_GE(chain.trace_sigma.back(), 0.008f);
  }
}

TEST(AnnealedHmc, AChainDoesNotDependOnItsBatchOrOnPauses) {
  const Grid grid{15, 16};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 5);
  for (const auto mode : {HmcOptions::Mode::preconditioned, HmcOptions::Mode::paper}) {
    HmcOptions options;
    options.mode = mode;
    options.paper_steps = 420;
    options.paper_min_steps = 2;
    options.batch = 1;
    const auto alone = run(posterior, posterior.fft(), options, first_chains(7));
    options.batch = 3;
    const auto three = run(posterior, posterior.fft(), options, first_chains(7));
    options.batch = 5;
    const auto paused = run(posterior, posterior.fft(), options, first_chains(7), 11);
    options.batch = 2;
    const auto last = run(posterior, posterior.fft(), options, {6});
    ASSERT_EQ(three.size(), 7U);
    ASSERT_EQ(paused.size(), 7U);
    for (std::size_t i = 0; i < 7; ++i) {
      EXPECT_TRUE(same(alone[i], three[i])) << i;
      EXPECT_TRUE(same(alone[i], paused[i])) << i;
    }
    EXPECT_TRUE(same(alone[6], last[0]));
    EXPECT_FALSE(alone[0].sample == alone[1].sample);
  }
}

TEST(AnnealedHmc, AChainGoesOnElsewhereWithTheSameBits) {
  const Grid grid{15, 16};
  for (const bool b_modes : {false, true}) {
    const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {false, b_modes}, 5);
    for (const auto mode : {HmcOptions::Mode::preconditioned, HmcOptions::Mode::paper}) {
      HmcOptions options;
      options.mode = mode;
      options.paper_steps = 420;
      options.paper_min_steps = 2;
      options.batch = 2;
      const auto whole = run(posterior, posterior.fft(), options, first_chains(7));
      const auto moved = run_from_hand_to_hand(posterior, posterior.fft(), options, first_chains(7), 13);
      ASSERT_EQ(moved.size(), 7U);
      for (std::size_t i = 0; i < 7; ++i) EXPECT_TRUE(same(whole[i], moved[i])) << i;
    }
  }
}

TEST(AnnealedHmc, RefusesAStateOfAnotherKindOfRunOrThatCannotBe) {
  const Grid grid{16, 16};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 4);
  const SpectrumBatch start("start", 1, grid.height, grid.half_width());
  AnnealedHmc sampler(posterior, posterior.fft(), start, HmcOptions());
  ChainState good;
  good.chain = 3;
  good.numbers.resize(AnnealedHmc::state_numbers());
  good.numbers[0] = 3;
  good.arrays.resize(sampler.state_floats());
  EXPECT_NO_THROW(sampler.add({good}));
  ChainState state = good;
  state.arrays.pop_back();
  EXPECT_THROW(sampler.add({state}), Error);
  state = good;
  state.numbers.pop_back();
  EXPECT_THROW(sampler.add({state}), Error);
  state = good;
  state.trace_sigma.resize(static_cast<std::size_t>(HmcOptions().trace_length()) + 1);
  EXPECT_THROW(sampler.add({state}), Error);
  // The first numbers: chain, phase, trajectory, leap, leaps, sigma.
  for (const auto& [place, value] : {std::pair{0, 4.0},
                                     {1, 7.0},
                                     {1, 0.5},
                                     {2, 1e300},
                                     {3, std::nan("")},
                                     {4, -2.0},
                                     {5, std::nan("")},
                                     {5, -0.1}}) {
    state = good;
    state.numbers[static_cast<std::size_t>(place)] = value;
    EXPECT_THROW(sampler.add({state}), Error) << place << ": " << value;
  }
}

TEST(AnnealedHmc, AnotherSeedIsAnotherSample) {
  const Grid grid{16, 16};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 4);
  HmcOptions options;
  const auto one = run(posterior, posterior.fft(), options, {0});
  options.seed = 2;
  EXPECT_FALSE(run(posterior, posterior.fft(), options, {0})[0].sample == one[0].sample);
}

/// Standard normal modes; NaN for chains whose first mode starts above zero.
class Treacherous final : public LogDensity {
 public:
  explicit Treacherous(Grid grid) : grid_(grid), power_("power", grid.height, grid.half_width()) {
    Kokkos::deep_copy(power_, 1.0f);
  }
  Grid grid() const override { return grid_; }
  int fields() const override { return 1; }
  View2<float> prior_power() const override { return power_; }
  float precision(float) const override { return 0; }
  void evaluate(const Space&, int n, const SpectrumBatch& state, const View1<float>&, const SpectrumBatch& score,
                const View1<double>& log_density) const override {
    const auto x = on_host(state), g = on_host(score);
    const auto value = on_host(log_density);
    for (int i = 0; i < n; ++i) {
      value(i) = x(i, 0, 0).real() > 0 ? std::numeric_limits<double>::quiet_NaN() : 0;
      for (int ky = 0; ky < grid_.height; ++ky) {
        for (int kx = 0; kx < grid_.half_width(); ++kx) {
          g(i, ky, kx) = ky == 0 && kx == 0 ? Complex(0, 0) : Complex(-x(i, ky, kx).real(), -x(i, ky, kx).imag());
          const double weight = kx == 0 || 2 * kx == grid_.width ? 1 : 2;
          value(i) -= ky == 0 && kx == 0 ? 0 : 0.5 * weight * Kokkos::abs(x(i, ky, kx)) * Kokkos::abs(x(i, ky, kx));
        }
      }
    }
    Kokkos::deep_copy(score, g);
    Kokkos::deep_copy(log_density, value);
  }

 private:
  Grid grid_;
  View2<float> power_;
};

TEST(AnnealedHmc, LostChainsAreSetAsideAndTheOthersGoOn) {
  const Grid grid{8, 8};
  const Treacherous density(grid);
  const RealFft fft(grid);
  HmcOptions options;
  options.batch = 3;
  const auto chains = run(density, fft, options, first_chains(24));
  ASSERT_EQ(chains.size(), 24U);
  int lost = 0;
  for (const ChainResult& chain : chains) {
    const bool finite = std::all_of(chain.sample.begin(), chain.sample.end(), [](float v) { return std::isfinite(v); });
    EXPECT_NE(chain.diverged, finite);
    lost += chain.diverged ? 1 : 0;
  }
  EXPECT_GT(lost, 0);
  EXPECT_LT(lost, 24);
}

TEST(AnnealedHmc, RefusesATailLongerThanTheRun) {
  const Grid grid{8, 8};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 4);
  HmcOptions options;
  options.mode = HmcOptions::Mode::paper;
  options.paper_steps = 100;
  EXPECT_THROW(run(posterior, posterior.fft(), options, {0}), Error);
}

}  // namespace
}  // namespace umbriel
