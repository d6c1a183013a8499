/// Annealed Hamiltonian Monte Carlo: many chains, each cooling from a smooth density to the posterior.
///
/// Neal 2011 (HMC); Remy et al. 2022 (arXiv 2201.05561, section 4: annealing). Two modes:
///
/// preconditioned (default): the Fourier mass matrix M = 1/(P + sigma^2) + mean(1/(sigma_gamma^2 + sigma^2)) makes
/// every
///   mode oscillate with a period near 2 pi, so that a few leapfrogs of step 0.4 cross the posterior. One trajectory at
///   each of a few temperatures, then a tail at the final temperature. Trajectory length and step are drawn: a fixed
///   length near pi returns to where it began.
/// paper: unit mass, step 0.013 sqrt(sigma / T0), three leapfrogs, cooling by 0.98 when a step was accepted, more than
///   ten steps were spent and a second test passes, down to 0.008; 6,002 steps; then the probability-flow ODE
///   dx/dt = -1/2 score(x, sqrt t) from sigma^2 towards 0. The paper integrates the score along a line (Simpson) for
///   the acceptance; where a log-density is known its difference is that integral, exactly, at no further evaluation.
///
/// A chain is a pure function of (seed, chain index): step sizes, temperatures and momenta are its own, so results do
/// not depend on the batch it shares or the rank it runs on. Chains of a batch move together, one score evaluation at a
/// time; a finished chain's place goes to the next that waits.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "umbriel/core/loops.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/inference/log_density.hpp"

namespace umbriel {

struct HmcOptions {
  enum class Mode { preconditioned, paper };
  Mode mode = Mode::preconditioned;
  std::uint64_t seed = 1;
  int batch = 4;                ///< chains that move together on this rank
  int chains_a_superchain = 4;  ///< chains that start from one point (for nested R-hat)
  int tail = 8;                 ///< states recorded at the final temperature, the sample being the last

  // preconditioned
  int temperatures = 8;  ///< cooling: one trajectory each, from sigma_start to sigma_end
  int settling = 3;      ///< trajectories at the final temperature before the tail
  double sigma_start = 0.3, sigma_end = 0.01;
  double sigma_final = 0;  ///< temperature of the tail; 0 is the posterior itself
  double step = 0.7;       ///< in radians of the mass-matrix oscillation, jittered by 20 %; two evaluations
  int min_steps = 1, max_steps = 4;
  double mass_precision = 0.2;  ///< share of the mean noise precision in the mass: a light mass lets unseen modes move

  // paper
  double paper_start = 1.0;  ///< T0
  double paper_floor = 8e-3, paper_cooling = 0.98, paper_step = 0.013;
  int paper_steps = 6002, paper_leapfrogs = 3, paper_min_steps = 10;
  int paper_ode_steps = 64;
  /// sigma^2 where the final ODE ends. The paper stops at 1e-5, the least its network knew; under a Gaussian prior that
  /// would leave white noise worth 1 % of a pixel's standard deviation, so the analytic score is followed further.
  double paper_ode_end = 1e-8;

  int trajectories() const { return mode == Mode::paper ? paper_steps : temperatures + settling + tail; }
  /// Trajectories between recorded entries of the trace.
  int trace_every() const { return mode == Mode::paper ? 16 : 1; }
  int trace_length() const { return (trajectories() + trace_every() - 1) / trace_every(); }
  /// Trajectories between recorded states of the tail.
  int tail_every() const { return mode == Mode::paper ? 50 : 1; }
  /// Mean number of score evaluations a chain takes.
  double expected_evaluations() const;
};

/// Scalars followed along the tail: the log-density and the mean convergence of a 4 x 4 grid of blocks.
inline constexpr int monitored_blocks = 4;
inline constexpr int monitored_quantities = 1 + monitored_blocks * monitored_blocks;
std::vector<std::string> monitored_names();

/// What a chain leaves behind.
struct ChainResult {
  std::int64_t chain = 0;
  bool diverged = false;    ///< met a value that is not finite; its sample is NaN
  double accept_rate = 0;   ///< of the trajectories that end in a Metropolis test
  double energy_error = 0;  ///< largest |change of the Hamiltonian| along an accepted or rejected trajectory
  std::int64_t score_evaluations = 0;
  std::vector<float> sample;              ///< [C, y, x] convergence (and B mode)
  std::vector<float> trace_sigma;         ///< [trace]
  std::vector<double> trace_log_density;  ///< [trace]
  std::vector<double> tail;               ///< [tail, monitored_quantities]
};

class AnnealedHmc {
 public:
  /// Keeps references. @param start_mean  [C, H, W/2+1] orthonormal spectra about which chains start ("paper": the
  /// Kaiser-Squires map); the spread is sqrt(P + sigma_start^2) a mode, or T0 in "paper" mode
  AnnealedHmc(const LogDensity& density, const RealFft& fft, const SpectrumBatch& start_mean, HmcOptions options);
  ~AnnealedHmc();

  /// Adds chains that wait for a place.
  void add(const std::vector<std::int64_t>& chains);

  /// Moves chains until all are done, or until `stop` says so; a later call goes on where this one stopped.
  /// @param finished  called with each chain as it ends
  /// @param advanced  called with chains' progress since the last call, in units of a chain
  /// @param stop      asked before every evaluation
  /// @return true when no chain is left
  bool run(const Space& space, const std::function<void(ChainResult&&)>& finished,
           const std::function<void(double)>& advanced, const std::function<bool()>& stop);

 private:
  enum class Phase { evaluate, leap, temper_new, temper_old, ode };
  struct Slot;

  void begin_chains(const Space& space, const std::vector<int>& slots);
  void begin_trajectories(const Space& space, const std::vector<int>& slots);
  void move(const Space& space);
  void end_trajectories(const Space& space, const std::vector<int>& slots);
  void after_trajectory(Slot& slot, bool accepted);
  void record_tail(const Space& space, const std::vector<int>& slots);
  void finish_chains(const Space& space, const std::vector<int>& slots,
                     const std::function<void(ChainResult&&)>& finished);
  void set_sigma(Slot& slot, float sigma);

  const LogDensity& density_;
  const RealFft& fft_;
  SpectrumBatch start_mean_;
  HmcOptions options_;
  std::vector<Slot> slots_;
  std::deque<std::int64_t> waiting_;
  SpectrumBatch state_, momentum_, score_, saved_state_, saved_score_, scratch_;
  MapBatch maps_;
  View1<float> sigma_, precision_, kick_, turn_, drift_, pull_;
  View1<int> list_;
  View1<double> log_density_, sums_out_;
  SumWorkspace sums_;
};

}  // namespace umbriel
