// Chains of learned priors against priors whose residual score and posterior are known in closed form.
#include <gtest/gtest.h>

#include <limits>

#include "analytic_residuals.hpp"
#include "chains.hpp"

namespace umbriel {
namespace {

using namespace testing;

double mean_of(const std::vector<ChainResult>& chains, double (*value)(const ChainResult&)) {
  double sum = 0;
  for (const ChainResult& chain : chains) sum += value(chain);
  return sum / static_cast<double>(chains.size());
}

double evaluations(const ChainResult& chain) { return static_cast<double>(chain.score_evaluations); }

// Both numbers are chi^2 over their degrees of freedom for exact independent draws.
TEST(LearnedSampler, EndsInTheExactPosteriorOfAnotherPower) {
  const Grid grid{32, 32};
  const HostView2<float> from = red_power(grid, 0.03), to = red_power(grid);
  const OtherPower residual(from, to);
  for (const bool b_modes : {false, true}) {
    const ConvergencePosterior posterior(small_survey(grid), from, {false, b_modes}, 8);
    HmcOptions options = HmcOptions().for_residual(1e-3, 0.05);
    options.batch = 8;
    const auto chains = run(posterior, posterior.fft(), options, first_chains(64), 0, &residual);
    const double evaluated = mean_of(chains, evaluations);
    EXPECT_LE(evaluated, 500);
    EXPECT_GE(evaluated, 0.9 * options.expected_evaluations(static_cast<double>(grid.pixels())));
    for (const ChainResult& chain : chains)
      EXPECT_EQ(chain.density_evaluations, 2 * options.inner_steps * chain.score_evaluations);
    if (b_modes) continue;  // the residual is of the E mode alone, for which against_exact knows no answer
    const ConvergencePosterior wanted(small_survey(grid), to, {}, 1);
    const Agreement agreement = against_exact(wanted, chains);
    const double degrees = static_cast<double>(grid.pixels() - 1);
    EXPECT_NEAR(agreement.quadratic, 1, 5 * std::sqrt(2 / degrees / 64));
    EXPECT_NEAR(agreement.mean_error, 1, 5 * std::sqrt(2 / degrees));
  }
}

// With the trajectories that are enough for 64 x 64 pixels it would be 1.06 of the variance.
TEST(LearnedSampler, SettlesOnLargeMapsToo) {
  const Grid grid{256, 256};
  const HostView2<float> from = red_power(grid, 0.003), to = red_power(grid, 0.01);
  const OtherPower residual(from, to);
  const ConvergencePosterior posterior(small_survey(grid), from, {}, 4), wanted(small_survey(grid), to, {}, 1);
  HmcOptions options = HmcOptions().for_residual(1e-3, posterior.sharpest(), static_cast<double>(grid.pixels()));
  options.batch = 4;
  const auto chains = run(posterior, posterior.fft(), options, first_chains(8), 0, &residual);
  for (const ChainResult& chain : chains) EXPECT_GT(chain.accept_rate, 0) << "a chain that never moved in its tail";
  const double degrees = static_cast<double>(grid.pixels() - 1);
  EXPECT_NEAR(against_exact(wanted, chains).quadratic, 1, 5 * std::sqrt(2 / degrees / 8));
}

/// Ratios to what they should be: chi^2 of the chains' mean, variance and third central moment of all pixels together.
struct SkewedAgreement {
  double mean_error, variance, third;
};

SkewedAgreement against_mixture(const Survey& survey, const RealFft& fft, const std::vector<ChainResult>& chains) {
  const auto kaiser = on_host(kaiser_squires(Space(), survey, fft, 0));
  const auto pixels = static_cast<std::size_t>(survey.grid.pixels());
  const std::vector<double> data(kaiser.data(), kaiser.data() + pixels);
  const std::vector<Mixture::Moments> exact = mixture_posterior(data, 0.04);
  const auto n = static_cast<double>(chains.size());
  double mean_error = 0, variance = 0, third = 0, wanted_variance = 0, wanted_third = 0;
  for (std::size_t i = 0; i < pixels; ++i) {
    double mean = 0;
    for (const ChainResult& chain : chains) {
      const double d = static_cast<double>(chain.sample[i]) - exact[i].mean;
      mean += d / n;
      variance += d * d / n;
      third += d * d * d / n;
    }
    mean_error += n * mean * mean / exact[i].variance / static_cast<double>(pixels);
    wanted_variance += exact[i].variance;
    wanted_third += exact[i].third;
  }
  return {mean_error, variance / wanted_variance, third / wanted_third};
}

struct SkewedProblem {
  Grid grid{33, 33};  // odd: no Nyquist modes, so that the shear operator is unitary
  Survey survey = small_survey(grid, true);
  ConvergencePosterior posterior{scaled(survey, 0.7f), white_power(grid, Mixture::variance), {}, 16};
  MixturePixels residual{posterior.fft(), 16};

  static const Survey& scaled(Survey& survey, float factor) {
    for (std::size_t i = 0; i < survey.shear.size(); ++i) survey.shear.data()[i] *= factor;
    return survey;
  }
};

void expect_skewed_posterior(const SkewedProblem& problem, const std::vector<ChainResult>& chains, double tolerance) {
  const SkewedAgreement agreement = against_mixture(problem.survey, problem.posterior.fft(), chains);
  // Spread of the ratios for independent exact draws of 33^2 pixels: 0.6 % and 2 % with 64 chains.
  const double scale = std::sqrt(64.0 / static_cast<double>(chains.size()));
  EXPECT_NEAR(agreement.mean_error, 1, 5 * std::sqrt(2.0 / 1089));
  EXPECT_NEAR(agreement.variance, 1, tolerance + 4 * 0.006 * scale);
  EXPECT_NEAR(agreement.third, 1, tolerance + 4 * 0.02 * scale);
}

TEST(LearnedSampler, EndsInASkewedPosterior) {
  const SkewedProblem problem;
  HmcOptions options = HmcOptions().for_residual(1e-3, 0.05);
  options.batch = 16;
  const auto chains = run(problem.posterior, problem.posterior.fft(), options, first_chains(64), 0, &problem.residual);
  expect_skewed_posterior(problem, chains, 0);
  EXPECT_GT(mean_of(chains, [](const ChainResult& chain) { return chain.accept_rate; }), 0.6);
}

/// How means of chains lie about the posterior mean, first field.
struct MeanAgreement {
  double error;    // squared distance of their average, over that of the average of independent draws with such scatter
  double scatter;  // of one of them, summed over pixels
};

MeanAgreement means_against(const std::vector<double>& exact, const std::vector<ChainResult>& chains,
                            std::vector<float> ChainResult::*maps) {
  const auto n = static_cast<double>(chains.size());
  double distance = 0, scatter = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    double mean = 0, squares = 0;
    for (const ChainResult& chain : chains) {
      const double d = static_cast<double>((chain.*maps)[i]) - exact[i];
      mean += d / n;
      squares += d * d / n;
    }
    distance += mean * mean;
    scatter += (squares - mean * mean) * n / (n - 1);
  }
  return {distance / (scatter / n), scatter};
}

std::vector<double> exact_mean(const ConvergencePosterior& posterior) {
  const Grid grid = posterior.grid();
  const SpectrumBatch mean = GaussianPosterior(posterior, 1).mean(Space());
  const SpectrumBatch scratch("scratch", 1, grid.height, grid.half_width());
  const MapBatch maps("maps", 1, grid.height, grid.width);
  to_maps(Space(), posterior.fft(), 1, mean, scratch, maps);
  Space().fence();
  const auto host = on_host(maps);
  return {host.data(), host.data() + grid.pixels()};
}

// A mode of power P under noise of variance n: the state has (P + t)(n - t) / (P + n), its mean field P / (P + t) of
// it.
TEST(LearnedSampler, MeansOfChainsLieAboutThePosteriorMeanAndScatterLess) {
  const Grid grid{33, 33};  // odd: no Nyquist modes, so that the shear operator is unitary
  const HostView2<float> from = red_power(grid, 0.03), to = red_power(grid);
  const OtherPower residual(from, to);
  const double n = 0.04;
  for (const bool full : {true, false}) {
    const ConvergencePosterior posterior(small_survey(grid, full), from, {}, 8);
    const ConvergencePosterior wanted(small_survey(grid, full), to, {}, 1);
    HmcOptions options = HmcOptions().for_residual(1e-3, posterior.sharpest());
    options.batch = 8;
    options.tail = 1;
    const auto chains = run(posterior, posterior.fft(), options, first_chains(64), 0, &residual);
    const MeanAgreement means = means_against(exact_mean(wanted), chains, &ChainResult::mean);
    const MeanAgreement samples = means_against(exact_mean(wanted), chains, &ChainResult::sample);
    if (!full) {  // uneven noise: both are approximations, see annealed_hmc.hpp
      EXPECT_LT(means.error * means.scatter, samples.error * samples.scatter);
      continue;
    }
    EXPECT_NEAR(means.error, 1, 0.5);
    const double t = options.sigma_final * options.sigma_final;
    double expected = 0, of_samples = 0;
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx) {
        const double p = to(ky, kx), weight = mode_weight(grid, kx);
        expected += weight * p * p / (p + t) * (n - t) / (p + n);
        of_samples += weight * p * n / (p + n);
      }
    }
    EXPECT_NEAR(means.scatter / expected, 1, 0.02);
    EXPECT_NEAR(samples.scatter / of_samples, 1, 0.02);
    options.tail = 3;
    const auto longer = run(posterior, posterior.fft(), options, first_chains(64), 0, &residual);
    const MeanAgreement three = means_against(exact_mean(wanted), longer, &ChainResult::mean);
    EXPECT_LT(three.scatter, 0.6 * expected);
  }
}

TEST(LearnedSampler, MeansOfChainsLieAboutTheMeanOfASkewedPosterior) {
  const SkewedProblem problem;
  const RealFft& fft = problem.posterior.fft();
  HmcOptions options = HmcOptions().for_residual(1e-3, 0.1);
  options.batch = 16;
  const auto chains = run(problem.posterior, fft, options, first_chains(64), 0, &problem.residual);
  const auto kaiser = on_host(kaiser_squires(Space(), problem.survey, fft, 0));
  const std::vector<double> data(kaiser.data(), kaiser.data() + problem.grid.pixels());
  std::vector<double> exact;
  for (const Mixture::Moments& moments : mixture_posterior(data, 0.04)) exact.push_back(moments.mean);
  const MeanAgreement means = means_against(exact, chains, &ChainResult::mean);
  const MeanAgreement samples = means_against(exact, chains, &ChainResult::sample);
  EXPECT_NEAR(means.error, 1, 5 * std::sqrt(2.0 / 1089));
  EXPECT_LT(means.scatter, 0.3 * samples.scatter);
}

TEST(LearnedSampler, AChainGoesOnElsewhereWithTheSameBits) {
  const Grid grid{16, 16};
  const HostView2<float> from = red_power(grid, 0.03), to = red_power(grid);
  const OtherPower residual(from, to);
  const ConvergencePosterior posterior(small_survey(grid), from, {}, 4);
  for (const auto mode : {HmcOptions::Mode::preconditioned, HmcOptions::Mode::langevin, HmcOptions::Mode::paper}) {
    HmcOptions options = HmcOptions().for_residual(1e-3, 0.05);
    if (mode == HmcOptions::Mode::langevin) options = options.for_langevin();
    options.mode = mode;
    options.paper_steps = 430;
    options.paper_min_steps = 2;
    options.batch = 3;
    const auto whole = run(posterior, posterior.fft(), options, first_chains(5), 0, &residual);
    const auto moved = run_from_hand_to_hand(posterior, posterior.fft(), options, first_chains(5), 7, &residual);
    ASSERT_EQ(moved.size(), 5U);
    for (std::size_t i = 0; i < 5; ++i) {
      EXPECT_TRUE(whole[i].sample == moved[i].sample) << i;
      EXPECT_TRUE(whole[i].mean == moved[i].mean) << i;
      EXPECT_EQ(whole[i].mean.empty(), mode == HmcOptions::Mode::paper);
      EXPECT_TRUE(whole[i].tail == moved[i].tail) << i;
      EXPECT_EQ(whole[i].score_evaluations, moved[i].score_evaluations);
    }
  }
}

// Steps so long that a good part of the moves fails: without the right test the spread would be wrong.
TEST(LearnedSampler, IsExactForAnyStep) {
  const Grid grid{24, 24};
  const HostView2<float> from = red_power(grid, 0.06), to = red_power(grid);
  const OtherPower residual(from, to);
  const ConvergencePosterior posterior(small_survey(grid), from, {}, 8), wanted(small_survey(grid), to, {}, 1);
  HmcOptions options = HmcOptions().for_residual(1e-3, 0.02);
  options.batch = 8;
  options.step = 1.5;
  options.least_step = 1;
  options.tail = 40;
  const auto chains = run(posterior, posterior.fft(), options, first_chains(64), 0, &residual);
  const double accepted = mean_of(chains, [](const ChainResult& chain) { return chain.accept_rate; });
  EXPECT_LT(accepted, 0.9);
  EXPECT_GT(accepted, 0.3);
  const double degrees = static_cast<double>(grid.pixels() - 1);
  EXPECT_NEAR(against_exact(wanted, chains).quadratic, 1, 0.01 + 4 * std::sqrt(2 / degrees / 64));
}

// At a final temperature of 0.1, a quarter of the noise variance and as wide as the prior's narrower part, the flow has
// to do much of the work; following the flow of the whole score instead leaves 0.79 of the variance.
TEST(LearnedSampler, FollowsTheExactFlowFromAHotEnd) {
  const SkewedProblem problem;
  HmcOptions options;
  options.sigma_start = 0.1;
  options = options.for_probability_flow();
  options.batch = 16;
  const auto chains = run(problem.posterior, problem.posterior.fft(), options, first_chains(64), 0, &problem.residual);
  expect_skewed_posterior(problem, chains, 0.01);
}

// Of the likelihood alone, and of a residual that makes most of the error.
TEST(LearnedSampler, FollowsTheFlowInSecondOrder) {
  const Grid grid{24, 24};
  const HostView2<float> from = red_power(grid, 0.03);
  const OtherPower other(from, red_power(grid));
  const Listener nothing(from);
  const ConvergencePosterior posterior(small_survey(grid), from, {}, 4);
  const std::vector<const ScoreResidual*> residuals = {&nothing, &other};
  for (const ScoreResidual* residual : residuals) {
    const auto samples = [&](int steps) {
      HmcOptions options = HmcOptions().for_residual(1e-3, posterior.sharpest());
      options.ode_steps = steps;
      return run(posterior, posterior.fft(), options, first_chains(4), 0, residual);
    };
    const auto fine = samples(384);
    const auto error = [&](const std::vector<ChainResult>& chains) {
      double sum = 0;
      for (std::size_t c = 0; c < chains.size(); ++c) {
        for (std::size_t i = 0; i < chains[c].sample.size(); ++i) {
          const double d = static_cast<double>(chains[c].sample[i]) - static_cast<double>(fine[c].sample[i]);
          sum += d * d;
        }
      }
      return std::sqrt(sum);
    };
    EXPECT_GT(error(samples(12)) / error(samples(24)), 3) << "first order: 2, second: 4";
  }
}

// Under noise so large that the posterior is the prior, a chain that starts as a draw of it stays one: whenever the
// network is asked, the field has the noise of its temperature. Without the flow, cooling leaves it up to twice as
// much.
TEST(LearnedSampler, AsksTheNetworkAboutFieldsWithTheNoiseOfTheirTemperature) {
  const Grid grid{32, 32};
  const HostView2<float> power = red_power(grid, 0.01);
  Survey survey = small_survey(grid, true);
  std::fill(survey.noise.data(), survey.noise.data() + survey.noise.size(), 100.0f);
  const ConvergencePosterior posterior(survey, power, {}, 2);
  const Listener listener(power);
  HmcOptions options = HmcOptions().for_residual(1e-3, posterior.sharpest());
  options.temperatures = 6;
  options.sigma_end = options.sigma_final = 0.03;
  run(posterior, posterior.fft(), options, first_chains(4), 0, &listener);
  EXPECT_GT(listener.questions.size(), 100U);
  for (const Listener::Question& question : listener.questions)
    EXPECT_NEAR(question.spread, 1, 5 * std::sqrt(2.0 / 1023)) << "at sigma = " << question.sigma;
}

// A test of energy alone takes every move that seems to gain some.
TEST(LearnedSampler, RejectsMovesThatSeemToGainMuchEnergy) {
  const Grid grid{24, 24};
  const HostView2<float> power = red_power(grid);
  const ConvergencePosterior posterior(small_survey(grid), power, {}, 1);
  HmcOptions options = HmcOptions().for_residual(1e-3, 0.05);
  options.temperatures = 1;
  options.sigma_start = options.sigma_end = options.sigma_final = 1e-3;
  options.sharpen = false;
  options.finish = HmcOptions::Finish::none;
  options.settling = 24;
  options.tail = 24;
  std::vector<ChainResult> chains;
  for (std::uint32_t chain = 0; chain < 32; ++chain) {
    const Liar liar(chain, 1e6f);
    chains.push_back(run(posterior, posterior.fft(), options, {chain}, 0, &liar)[0]);
  }
  EXPECT_NEAR(against_exact(posterior, chains).quadratic, 1, 0.05);
}

// With B modes the shear operator is unitary whatever the mask, and the flow exact.
TEST(LearnedSampler, FollowsTheExactFlowUnderAMask) {
  const Grid grid{25, 27};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {false, true}, 8);
  HmcOptions options;
  options.sigma_start = 0.07;
  options = options.for_probability_flow();
  options.settling = 12;
  options.batch = 8;
  const Agreement agreement = against_exact(posterior, run(posterior, posterior.fft(), options, first_chains(64)));
  const double degrees = 2 * static_cast<double>(grid.pixels() - 1);
  EXPECT_NEAR(agreement.quadratic, 1, 0.01 + 5 * std::sqrt(2 / degrees / 64));
  EXPECT_NEAR(agreement.mean_error, 1, 5 * std::sqrt(2 / degrees));
}

// Unadjusted: what Langevin dynamics of this step settle in is itself known for one Gaussian mode. With curvature L,
// mass M and d = 1 - L/M, a step of length h maps x to (cos h + h/2 sin h d) x + sin h noise / sqrt(M).
TEST(LearnedSampler, LangevinSettlesWhereItsStepSays) {
  const Grid grid{33, 33};
  const double power = 0.02, noise = 0.04;
  const ConvergencePosterior posterior(small_survey(grid, true), white_power(grid, power), {}, 8);
  HmcOptions options = HmcOptions().for_langevin();
  options.batch = 8;
  options.step = 0.5;
  const auto chains = run(posterior, posterior.fft(), options, first_chains(48));
  const double curvature = 1 / power + 1 / noise, mass = 1 / power + options.mass_precision / noise;
  double gain = 0, keep = 0;
  for (int i = 0; i < 100; ++i) {
    const double h = 0.5 * (0.8 + 0.4 * (i + 0.5) / 100);
    const double c = std::cos(h) + 0.5 * h * std::sin(h) * (1 - curvature / mass);
    gain += std::sin(h) * std::sin(h) / mass / 100;
    keep += c * c / 100;
  }
  const double settled = gain / (1 - keep) * curvature;  // in units of the exact variance
  EXPECT_GT(settled, 1.01);
  const Agreement agreement = against_exact(posterior, chains);
  EXPECT_NEAR(agreement.quadratic, settled, 5 * std::sqrt(2.0 / 1088 / 48));
  EXPECT_NEAR(agreement.mean_error, settled, 5 * std::sqrt(2.0 / 1088));
}

TEST(LearnedSampler, LangevinReachesASkewedPosterior) {
  const SkewedProblem problem;
  HmcOptions options = HmcOptions().for_residual(1e-3, 0.05).for_langevin();
  options.batch = 16;
  const auto chains = run(problem.posterior, problem.posterior.fft(), options, first_chains(64), 0, &problem.residual);
  expect_skewed_posterior(problem, chains, 0.06);
}

// Mass and start know nothing of the prior, and Simpson's rule is exact for a score linear in the state: a chain with a
// residual makes the moves and the decisions of one whose density has the other power, but for rounding.
TEST(LearnedSampler, PaperChainsDecideAsWithTheExactDensity) {
  const Grid grid{16, 16};
  const HostView2<float> from = red_power(grid, 0.3), to = red_power(grid, 0.03);
  const OtherPower residual(from, to);
  const ConvergencePosterior posterior(small_survey(grid), from, {}, 4), other(small_survey(grid), to, {}, 4);
  HmcOptions options = HmcOptions().for_residual(1e-3, 0.05);
  options.mode = HmcOptions::Mode::paper;
  options.paper_step = 0.1;  // some moves fail, and some coolings
  options.paper_start = 0.3;
  options.paper_steps = 400;
  options.paper_min_steps = 1;
  const auto chains = run(posterior, posterior.fft(), options, first_chains(4), 0, &residual);
  const auto exact = run(other, other.fft(), options, first_chains(4));
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(chains[i].accept_rate, exact[i].accept_rate);
    EXPECT_LT(chains[i].accept_rate, 1);
    EXPECT_EQ(chains[i].trace_sigma, exact[i].trace_sigma);
    double difference = 0, norm = 0;
    for (std::size_t j = 0; j < chains[i].sample.size(); ++j) {
      const double a = chains[i].sample[j], b = exact[i].sample[j];
      difference += (a - b) * (a - b);
      norm += b * b;
    }
    EXPECT_LT(std::sqrt(difference / norm), 1e-2);
    // Three leapfrogs and three inner points a step; one evaluation a leapfrog and two a test of cooling without.
    EXPECT_GE(chains[i].score_evaluations, 6 * options.paper_steps);
    EXPECT_LT(chains[i].score_evaluations, 2.6 * static_cast<double>(exact[i].score_evaluations));
  }
}

/// No residual; for the first states of chosen chains, one that is not finite.
class Nothing final : public ScoreResidual {
 public:
  explicit Nothing(float poisoned_sigma = -1) : poisoned_sigma_(poisoned_sigma) {}
  float sigma_min() const override { return 1e-3f; }
  void evaluate(const Space&, int n, const SpectrumBatch& state, const View1<float>& sigma,
                const SpectrumBatch& residual) const override {
    Kokkos::deep_copy(residual, Complex(0, 0));
    const auto x = on_host(state), r = on_host(residual);
    const std::vector<float> temperature = download(sigma, static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i) {
      if (temperature[static_cast<std::size_t>(i)] == poisoned_sigma_ && x(i, 1, 1).real() > 0)
        r(i, 2, 1) = Complex(std::numeric_limits<float>::quiet_NaN(), 0);
    }
    Kokkos::deep_copy(residual, r);
  }

 private:
  float poisoned_sigma_;
};

TEST(LearnedSampler, WithoutAResidualChainsKeepTheirBits) {
  const Grid grid{15, 16};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 4);
  for (const auto mode : {HmcOptions::Mode::paper, HmcOptions::Mode::langevin}) {
    HmcOptions options = HmcOptions().for_residual(1e-3, 0.05).for_langevin();
    options.mode = mode;
    options.paper_steps = 420;
    options.paper_min_steps = 2;
    const Nothing nothing;
    const auto without = run(posterior, posterior.fft(), options, first_chains(4));
    const auto with = run(posterior, posterior.fft(), options, first_chains(4), 0, &nothing);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(without[i].sample, with[i].sample);
      EXPECT_EQ(without[i].tail, with[i].tail);
      EXPECT_EQ(without[i].trace_sigma, with[i].trace_sigma);
    }
  }
}

TEST(LearnedSampler, AChainDoesNotDependOnItsBatchOrOnPauses) {
  const Grid grid{15, 16};
  const HostView2<float> power = red_power(grid);
  const ConvergencePosterior posterior(small_survey(grid), power, {false, true}, 5);
  const OtherPower residual(power, red_power(grid, 0.04));
  for (const auto mode : {HmcOptions::Mode::preconditioned, HmcOptions::Mode::paper, HmcOptions::Mode::langevin}) {
    HmcOptions options = HmcOptions().for_residual(1e-3, 0.05);
    options.mode = mode;
    options.inner_steps = 2;
    options.ode_steps = 3;
    options.ode_end = 2e-3;
    options.paper_steps = 420;
    options.paper_min_steps = 2;
    options.batch = 1;
    const auto alone = run(posterior, posterior.fft(), options, first_chains(7), 0, &residual);
    options.batch = 3;
    const auto three = run(posterior, posterior.fft(), options, {5, 1, 0, 6, 4, 2, 3}, 0, &residual);
    options.batch = 5;
    const auto paused = run(posterior, posterior.fft(), options, first_chains(7), 11, &residual);
    for (std::size_t i = 0; i < 7; ++i) {
      EXPECT_TRUE(same(alone[i], three[i])) << i;
      EXPECT_TRUE(same(alone[i], paused[i])) << i;
    }
    EXPECT_FALSE(alone[0].sample == alone[1].sample);
  }
}

TEST(LearnedSampler, LostChainsAreSetAsideAndTheOthersKeepTheirBits) {
  const Grid grid{10, 12};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 3);
  HmcOptions options = HmcOptions().for_residual(1e-3, 0.05);
  options.batch = 3;
  options.chains_a_superchain = 1;
  const Nothing poison(static_cast<float>(options.sigma_start));
  const auto chains = run(posterior, posterior.fft(), options, first_chains(16), 0, &poison);
  int lost = 0;
  for (const ChainResult& chain : chains) {
    const bool finite = std::all_of(chain.sample.begin(), chain.sample.end(), [](float v) { return std::isfinite(v); });
    EXPECT_NE(chain.diverged, finite);
    lost += chain.diverged ? 1 : 0;
    if (chain.diverged) continue;
    EXPECT_TRUE(same(chain, run(posterior, posterior.fft(), options, {chain.chain}, 0, &poison)[0]));
  }
  EXPECT_GT(lost, 0);
  EXPECT_LT(lost, 16);
}

TEST(LearnedSampler, RefusesTemperaturesThatThePriorOrTheNoiseDoesNotAllow) {
  const Grid grid{8, 8};
  const ConvergencePosterior posterior(small_survey(grid), red_power(grid), {}, 4);
  const Nothing nothing;
  EXPECT_THROW(run(posterior, posterior.fft(), {}, {0}, 0, &nothing), Error) << "a tail at zero";
  HmcOptions options = HmcOptions().for_residual(1e-3, 0.05);
  options.sigma_end = options.sigma_final = 0.2;
  EXPECT_THROW(run(posterior, posterior.fft(), options, {0}, 0, &nothing), Error);
}

}  // namespace
}  // namespace umbriel
