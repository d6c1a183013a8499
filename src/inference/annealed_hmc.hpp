/// Annealed Hamiltonian Monte Carlo: many chains, each cooling from a smooth density to the posterior.
///
/// Neal 2011 (HMC); Remy et al. 2022 (arXiv 2201.05561, section 4: annealing). Modes:
///
/// preconditioned (default): with the Fourier mass matrix M = 1/(P + sigma^2) + mean(1/(sigma_gamma^2 + sigma^2)) each
///   mode oscillates with a period near 2 pi, so that a few leapfrogs of step 0.4 cross the posterior. One trajectory
///   at each of a few temperatures, then a tail at the final temperature. Trajectory length and step are drawn: a fixed
///   length near pi returns to where it began.
/// langevin: annealed Langevin dynamics (Song & Ermon 2019, arXiv 1907.05600) with the same mass: trajectories of one
///   step each, without a test, so with a bias of the order of step^2. The step turns state and momentum exactly under
///   the harmonic potential 1/2 x^T M x and kicks with the rest of the score.
/// paper: unit mass, step 0.013 sqrt(sigma / T0), three leapfrogs, cooling by 0.98 when a step was accepted, more than
///   ten steps were spent and a second test passes, down to 0.008; 6,002 steps; then the probability-flow ODE
///   dx/dt = -1/2 score(x, sqrt t) from sigma^2 towards 0. The paper integrates the score along a line (Simpson) for
///   the acceptance; where a log-density is known its difference is that integral, exactly, at no further evaluation.
///
/// A learned prior adds the residual of its score, for which no log-density is known. The tests then take the change of
/// log-density from the exact part plus the work of the residual. In "paper" mode that is Simpson's rule on five points
/// of the straight path, 3 leapfrogs + 3 inner points = 6 evaluations a step (the ends are known). In "preconditioned"
/// mode it is the trapezoid rule over the points that the trajectory visits anyway, sum 1/2 <r_i + r_i+1, a_i+1 - a_i>,
/// and the residual, costly and soft, only kicks at these points: in between, the rest of the score is integrated in
/// `inner_steps` steps (multiple time steps; Tuckerman, Berne & Martyna 1992).
///
/// A learned prior has a least temperature: the chain ends there, and `finish` takes the last noise off. Following the
/// flow of the whole score is biased, since the likelihood of a smoothed field is not L(gamma; x, sigma_gamma^2 + t),
/// t = sigma^2. `sharpen` is exact: let the prior p_t be smoothed (heat equation) and the likelihood L_t have the noise
/// sigma_gamma^2 - t (backward heat equation, the shear operator being unitary). Then
///   d(p L)/dt = 1/2 (L Laplace p - p Laplace L) = -div(p L v),  v = 1/2 (-grad log p + grad log L),
/// so the flow dx/dt = v takes draws from p_t L_t to draws from the posterior p_0 L_0, for any prior. (Where the mask
/// ends, E modes alone are not unitary and this is an approximation of order t / sigma_gamma^2.) The flow of the
/// Gaussian prior is followed exactly, the rest in multistep steps of second order. A network is worst on large scales
/// at low temperatures, where denoising has little to teach it: trajectories believe it, the flow hardly moves there.
/// So trajectories stay as hot as the noise allows (an unobserved field whose chains ended at 0.03 had 0.90 of the
/// right variance and 0.7 of the right power on its largest scales, at 0.1 it has 1.00 and 1.03 +- 0.07). The
/// probability-flow sampler takes no trajectories but a few at the hot end.
///
/// The same law of p_t L_t is that of the field with white noise of variance t, given the data: the data's noise is
/// then made of that and of what is left, sigma_gamma^2 - t. So the posterior mean of the field is the mean over chains
/// of E[field | state], which the prior alone gives (Tweedie's formula): `ChainResult::mean`.
///
/// On the way to sigma_final a learned chain follows the flow of its prior wherever the temperature falls: a network
/// knows fields with the noise of their temperature only, and a state with more may run away.
///
/// A chain is a pure function of (seed, chain index): step sizes, temperatures and momenta are its own, so results do
/// not depend on the batch it shares or the rank it runs on. Chains of a batch move together, one score evaluation at a
/// time; a finished chain's place goes to the next that waits.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "umbriel/core/loops.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/inference/log_density.hpp"
#include "umbriel/inference/score_residual.hpp"

namespace umbriel {

struct HmcOptions {
  enum class Mode { preconditioned, paper, langevin };
  /// What follows the last trajectory at sigma_final > 0 ("paper" always takes its own ODE).
  enum class Finish {
    none,     ///< the state keeps its noise of sigma_final
    denoise,  ///< x + sigma^2 score: mean of the unsmoothed field given the state, less scattered than the posterior
    ode       ///< probability flow down to 0
  };
  Mode mode = Mode::preconditioned;
  std::uint64_t seed = 1;
  int batch = 4;                ///< chains that move together on this rank
  int chains_a_superchain = 4;  ///< chains that start from one point (for nested R-hat)
  int tail = 8;                 ///< states recorded at the final temperature, the sample being the last

  // preconditioned and langevin
  int temperatures = 8;                ///< cooling from sigma_start to sigma_end
  int trajectories_a_temperature = 1;  ///< spent at each of them
  int settling = 3;                    ///< trajectories at the final temperature before the tail
  int trajectories_a_tail = 1;         ///< trajectories between recorded states of the tail
  double sigma_start = 0.3, sigma_end = 0.01;
  double sigma_final = 0;  ///< temperature of the tail; 0 is the posterior itself
  /// In radians of the mass-matrix oscillation, jittered by 20 %; two evaluations ("langevin": one).
  double step = 0.7;
  int min_steps = 1, max_steps = 4;
  double mass_precision = 0.2;  ///< share of the mean noise precision in the mass: a light mass lets unseen modes move
  bool metropolis = true;       ///< test trajectories at the final temperature; cooling only asks for stability
  /// Learned prior: steps of the exact part of the score between two evaluations of the residual, each half a `step`
  /// apart.
  int inner_steps = 1;
  /// Learned prior: while it cools and settles, each chain fits its step to this mean acceptance probability, down to
  /// `least_step` times the step it began with; as many more steps then keep the length of its trajectories. See
  /// `first_step_factor`.
  double target_acceptance = 0.8, least_step = 1.0 / 3;
  bool sharpen = false;  ///< take sigma_final^2 off the likelihood's noise, so that Finish::ode ends in the posterior
  Finish finish = Finish::none;
  int ode_steps = 1;      ///< of Finish::ode: in equal ratios of sigma^2 from sigma_final to ode_end, the last one to 0
  double ode_end = 1e-3;  ///< sigma of the last evaluation if there are several steps

  // paper
  double paper_start = 1.0;  ///< T0
  double paper_floor = 8e-3, paper_cooling = 0.98, paper_step = 0.013;
  int paper_steps = 6002, paper_leapfrogs = 3, paper_min_steps = 10;
  int paper_ode_steps = 64;
  /// sigma^2 where the final ODE ends. The paper stops at 1e-5, the least its network knew; under a Gaussian prior that
  /// would leave white noise worth 1 % of a pixel's standard deviation, so the analytic score is followed further.
  double paper_ode_end = 1e-8;

  /// Whether chains take noise off the likelihood: in "paper" mode they never do.
  bool sharpened() const { return sharpen && mode != Mode::paper; }
  int cooling() const { return temperatures * trajectories_a_temperature; }
  int trajectories() const { return mode == Mode::paper ? paper_steps : cooling() + settling + tail * tail_every(); }
  /// Trajectories between recorded entries of the trace.
  int trace_every() const { return mode == Mode::paper ? 16 : 1; }
  int trace_length() const { return (trajectories() + trace_every() - 1) / trace_every(); }
  /// Trajectories between recorded states of the tail.
  int tail_every() const { return mode == Mode::paper ? 50 : trajectories_a_tail; }
  /// Share of `step` that chains of a learned prior begin with: the energy error of N modes grows as sqrt(N) step^2, so
  /// that N^(-1/4) keeps the acceptance (Beskos et al. 2013, Bernoulli 19, 1501). @param pixels  of the map
  double first_step_factor(double pixels) const;
  /// Mean number of score evaluations a chain takes. @param learned_pixels  with a residual: pixels of the map
  double expected_evaluations(double learned_pixels = 0) const;

  /// @{ The same options with the defaults of a learned prior that knows temperatures from sigma_min, for maps of so
  /// many pixels, under a likelihood that can be sharpened that much; of Langevin dynamics; of the probability-flow
  /// sampler, which ends its chains at sigma_start.
  HmcOptions for_residual(double sigma_min, double sharpest, double pixels = 64 * 64) const;
  HmcOptions for_langevin() const;
  HmcOptions for_probability_flow() const;
  /// @}
};

/// Scalars followed along the tail: the log-density and the mean convergence of a 4 x 4 grid of blocks.
inline constexpr int monitored_blocks = 4;
inline constexpr int monitored_quantities = 1 + monitored_blocks * monitored_blocks;
std::vector<std::string> monitored_names();

/// What a chain leaves behind.
struct ChainResult {
  std::int64_t chain = 0;
  bool diverged = false;               ///< met a value that is not finite; its sample is NaN
  double accept_rate = 0;              ///< of the trajectories that end in a Metropolis test
  double energy_error = 0;             ///< largest |change of the Hamiltonian| along an accepted or rejected trajectory
  std::int64_t score_evaluations = 0;  ///< of the whole score: with a learned prior, of its residual
  std::int64_t density_evaluations = 0;   ///< of the exact log-density and its score
  std::vector<float> sample;              ///< [C, y, x] convergence (and B mode)
  /// [C, y, x] of a sharpened chain: mean over its tail of E[field | state] = state + sigma^2 grad log prior (Tweedie's
  /// formula). It has the expectation of the sample and less scatter: means over chains are made of it (Rao-Blackwell).
  std::vector<float> mean;
  std::vector<float> trace_sigma;         ///< [trace]
  std::vector<double> trace_log_density;  ///< [trace] exact part, without the learned residual
  std::vector<double> tail;               ///< [tail, monitored_quantities]

  /// What the mean over chains is to be taken of.
  const std::vector<float>& best_mean() const { return mean.empty() ? sample : mean; }
};

/// A chain on its way: all that its next step depends on, so that it goes on elsewhere with the same bits.
struct ChainState {
  std::int64_t chain = 0;
  std::vector<double> numbers;            ///< as AnnealedHmc packs them
  std::vector<float> arrays;              ///< [array, field, ky, kx, re and im]
  std::vector<float> trace_sigma;         ///< so far
  std::vector<double> trace_log_density;  ///< so far
  std::vector<double> tail;               ///< so far
};

class AnnealedHmc {
 public:
  /// Keeps references. @param start_mean  [C, H, W/2+1] orthonormal spectra about which chains start ("paper": the
  /// Kaiser-Squires map); the spread is sqrt(P + sigma_start^2) a mode, or T0 in "paper" mode
  /// @param residual  what a learned prior adds to the score of the first field (E mode); none: the exact density alone
  AnnealedHmc(const LogDensity& density, const RealFft& fft, const SpectrumBatch& start_mean, HmcOptions options,
              const ScoreResidual* residual = nullptr);
  ~AnnealedHmc();

  /// @{ Adds chains that wait for a place: such as have not begun, and such as were on their way, which go first.
  void add(const std::vector<std::int64_t>& chains);
  /// @throws Error(input) for a state of another kind of run
  void add(std::vector<ChainState> states);
  /// @}
  /// Chains that have begun and are not finished. Call it between two calls of `run`.
  std::vector<ChainState> states() const;
  /// @{ Of each state: numbers, and floats of its arrays.
  static std::size_t state_numbers();
  std::size_t state_floats() const;
  /// @}

  /// Moves chains until all are done, or until `stop` says so; a later call goes on where this one stopped.
  /// @param finished  called with each chain as it ends
  /// @param advanced  called with chains' progress since the last call, in units of a chain
  /// @param stop      asked before every evaluation
  /// @return true when no chain is left
  bool run(const Space& space, const std::function<void(ChainResult&&)>& finished,
           const std::function<void(double)>& advanced, const std::function<bool()>& stop);

 private:
  enum class Phase { evaluate, leap, path, temper_new, temper_path, temper_old, ode };
  struct Slot;

  void begin_chains(const Space& space, const std::vector<int>& slots);
  void fill_place(int slot, std::vector<int>& fresh);
  std::vector<std::pair<SpectrumBatch, int>> arrays_of_a_state() const;
  void restore(int slot, const ChainState& state);
  void begin_trajectories(const Space& space, const std::vector<int>& slots);
  void move(const Space& space, int drift);
  /// What the residual says at each slot's point: see take_answers and chord_work.
  struct Answers {
    std::vector<double> sum, chord;
  };
  Answers ask_residual(const Space& space);
  void end_trajectories(const Space& space, const std::vector<int>& slots);
  void after_trajectory(Slot& slot, bool accepted);
  void flow(const Space& space, const std::vector<int>& slots, float side, bool denoise);
  void add_to_means(const Space& space, int n);
  void record_tail(const Space& space, const std::vector<int>& slots);
  void finish_chains(const Space& space, const std::vector<int>& slots,
                     const std::function<void(ChainResult&&)>& finished);
  void set_sigma(Slot& slot, float sigma);

  const LogDensity& density_;
  const RealFft& fft_;
  const ScoreResidual* residual_;
  SpectrumBatch start_mean_;
  HmcOptions options_;
  int drifts_;  // of the integrator between two evaluations of the whole score
  std::vector<Slot> slots_;
  std::deque<std::int64_t> waiting_;
  std::deque<ChainState> resumed_;
  SpectrumBatch state_, momentum_, score_, saved_state_, saved_score_, scratch_;
  SpectrumBatch mean_;                                               // of a sharpened chain
  SpectrumBatch learned_, saved_learned_, anchor_, point_, answer_;  // with a residual: first fields alone
  MapBatch maps_;
  View1<float> sigma_, precision_, kick_, turn_, drift_, pull_;
  View1<int> list_, role_;
  View1<double> log_density_, sums_out_;
  SumWorkspace sums_;
};

}  // namespace umbriel
