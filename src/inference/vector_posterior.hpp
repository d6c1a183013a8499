/// Posteriors of a few hundred numbers, such as the latent variables of a generative model: their maximum by L-BFGS,
/// and draws by Hamiltonian Monte Carlo with unit mass, for densities whose prior is the standard normal.
///
/// Each chain fits its step by dual averaging (Hoffman & Gelman 2014, J. Mach. Learn. Res. 15, 1593, section 3.2) while
/// it warms up; a trajectory has a number of leapfrogs that is drawn, the same for all chains. A chain is a pure
/// function of (seed, index): it does not depend on those it shares a batch with.
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

struct VectorHmcOptions {
  std::uint64_t seed = 1;
  int warm_up = 200;             ///< trajectories before the first draw
  int draws = 10;                ///< a chain
  int trajectories_a_draw = 10;  ///< between draws
  int leapfrogs = 10;            ///< a trajectory's mean number; drawn evenly from 1 to twice as many less one
  double target = 0.8;           ///< mean acceptance probability that steps are fitted to
  int chains_a_superchain = 4;   ///< that start from one point
};

struct VectorChain {
  std::int64_t chain = 0;
  bool diverged = false;  ///< met a value that is not finite; its draws are where it was before
  double accept_rate = 0, step = 0;
  std::vector<float> draws;         ///< [draws, size]
  std::vector<double> log_density;  ///< [draws]
};

/// Chains `first` ... `first + n` - 1 together, n <= density.batch(). They start from draws of the standard normal.
/// @param stop  asked before each trajectory; what is returned after a stop is empty
std::vector<VectorChain> run_vector_chains(const Space& space, VectorDensity& density, const VectorHmcOptions& options,
                                           std::int64_t first, int n, const std::function<bool()>& stop = {});

/// The maximum that L-BFGS (liblbfgs) reaches from a point. @return [size]
/// @param value  log-density there
std::vector<float> maximum_of(const Space& space, VectorDensity& density, const std::vector<float>& start,
                              int max_iterations, double& value);

}  // namespace umbriel
