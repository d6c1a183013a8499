/// Posteriors of a few hundred numbers, such as the latent variables of a generative model: their maximum by L-BFGS,
/// and draws by Hamiltonian Monte Carlo, for densities whose prior is the standard normal.
///
/// A chain starts from a draw of the standard normal. In the first half of its warm-up the likelihood's share of the
/// log-density grows from a thousandth to 1, and the mass with it, so that chains find their way into maxima that are
/// far apart. Each chain fits its step by dual averaging (Hoffman & Gelman 2014, J. Mach. Learn. Res. 15, 1593,
/// section 3.2) while it warms up; a trajectory has a number of leapfrogs that is drawn, the same for all chains. A
/// chain is a pure function of (seed, index): it does not depend on those it shares a batch with.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel {

class VectorDensity {
 public:
  virtual ~VectorDensity() = default;
  virtual int size() const = 0;   ///< numbers of a point
  virtual int batch() const = 0;  ///< points at once, at most

  /// Log-density up to a constant, and its gradient. @param points  [n, size], n <= batch()
  /// @param gradient  [n, size], overwritten. @return [n]
  virtual std::vector<double> evaluate(const Space& space, const std::vector<float>& points,
                                       std::vector<float>& gradient) = 0;
};

/// A mass matrix M by its eigenvectors and eigenvalues.
struct VectorMetric {
  std::vector<double> vectors;      ///< [size, size] one in a row
  std::vector<double> eigenvalues;  ///< [size] >= 1, those of a standard normal alone

  /// Each of the vectors [n, size] times M^-1/2; of 1 + share (M - 1) where the likelihood has only a share. As they
  /// are without a metric.
  std::vector<float> scaled(const std::vector<float>& given, double share) const;
};

struct VectorHmcOptions {
  std::uint64_t seed = 1;
  int warm_up = 200;  ///< trajectories before the first draw; in their first half the likelihood's share grows
  int draws = 10;     ///< a chain
  int trajectories_a_draw = 10;  ///< between draws
  int leapfrogs = 10;            ///< a trajectory's mean number; drawn evenly from 1 to twice as many less one
  double target = 0.8;           ///< mean acceptance probability that steps are fitted to
  int chains_a_superchain = 4;   ///< that start from one point
  VectorMetric metric;           ///< of the mass matrix; without one: unit mass

  int trajectories() const { return warm_up + draws * trajectories_a_draw; }  ///< of a chain
};

/// Dual averaging of ln(step), as in the paper's algorithm 5.
struct StepFit {
  double step = 0.1, log_mean = 0, error = 0;
  int count = 0;

  /// @param acceptance  of the last trajectory
  void update(double acceptance, double target);
  void settle();
};

/// A chain on its way, or at its end: all that is needed to go on.
struct VectorChain {
  std::int64_t chain = 0;
  int trajectories = 0;             ///< that it has made
  std::vector<float> point;         ///< [size] where it is
  StepFit fit;                      ///< its step
  double accept_rate = 0;           ///< mean acceptance probability after warm-up, once it has ended
  std::vector<float> draws;         ///< [draws so far, size]
  std::vector<double> log_density;  ///< [draws so far]

  /// Met a value that is not finite, or hardly moved.
  bool diverged() const;
};

/// A chain at its start, a draw of the standard normal.
VectorChain begin_vector_chain(const VectorHmcOptions& options, int size, std::int64_t chain);

/// Moves chains on to their ends, as many together as the density takes of those that have come equally far.
/// @param stop  asked before each trajectory
/// @return false if it was true before the end
bool run_vector_chains(const Space& space, VectorDensity& density, const VectorHmcOptions& options,
                       std::vector<VectorChain>& chains, const std::function<bool()>& stop = {});

/// The mass matrix that suits a density best near a point: its curvature -d^2 ln p / du^2 there, by central differences
/// of the gradient; but at least the prior's, 1, in every direction.
VectorMetric metric_at(const Space& space, VectorDensity& density, const std::vector<float>& point);

/// The maximum that L-BFGS (liblbfgs) reaches from a point. @return [size]
/// @param value  log-density there
std::vector<float> maximum_of(const Space& space, VectorDensity& density, const std::vector<float>& start,
                              int max_iterations, double& value);

}  // namespace umbriel
