/// Search for the least value of a function that is expensive and rough: Bayesian optimisation (Jones, Schonlau & Welch
/// 1998; Snoek, Larochelle & Adams 2012, arXiv 1206.2944).
///
/// A Gaussian process with a Matern 5/2 kernel is fitted to the values found so far, and the next point is where the
/// expected improvement over the best of them is largest. Proposals are pure functions of (seed, index, trials).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace umbriel {

/// Regression with k(a, b) = s^2 (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r), r^2 = sum_j (a_j - b_j)^2 / l_j^2, white
/// noise of standard deviation t on top, and the mean of the values as its mean. s and t are in units of the standard
/// deviation of the values.
class GaussianProcess {
 public:
  /// ln l of each group of inputs, then ln s and ln t
  using Parameters = std::vector<double>;
  struct Prediction {
    double mean = 0, deviation = 0;  ///< of the function, without the noise
  };

  /// @param inputs  [n][d], within about [0, 1]
  /// @param values  [n], finite
  /// @param groups  [d] which length goes with an input: 0, 1, ...; none: one each
  GaussianProcess(std::vector<std::vector<double>> inputs, const std::vector<double>& values,
                  std::vector<std::size_t> groups = {});

  std::size_t parameters() const { return lengths_ + 2; }

  /// Log-probability of the standardised values given `parameters`, which hold from then on; -inf where it cannot be
  /// computed.
  /// @param gradient  [parameters()], overwritten; or null
  double log_marginal_likelihood(const Parameters& parameters, double* gradient = nullptr);

  /// Takes the parameters of the largest marginal likelihood within 0.05 <= l <= 10, 0.1 <= s <= 10, 1e-4 <= t <= 1:
  /// L-BFGS from three starts.
  const Parameters& fit();

  /// Needs parameters: call fit or log_marginal_likelihood before. @param input  [d]
  Prediction predict(const std::vector<double>& input) const;

 private:
  double kernel(const std::vector<double>& a, const std::vector<double>& b) const;

  std::vector<std::vector<double>> inputs_;
  std::vector<double> values_;  // standardised
  double mean_ = 0, deviation_ = 1;
  std::vector<std::size_t> groups_;
  std::size_t lengths_ = 0;
  Parameters parameters_;
  std::vector<double> root_, weights_;  // L of K = L L^T, [n, n] by rows; K^-1 y
};

/// Mean of max(best - f, 0) for Gaussian f.
double expected_improvement(const GaussianProcess::Prediction& f, double best);

/// What one coordinate of a search may be.
struct SearchRange {
  double min = 0, max = 1;
  bool log = false;    ///< evenly spread in the logarithm; min > 0
  bool whole = false;  ///< whole numbers, both ends among them
  int choices = 0;  ///< one of so many things without an order, as a number from 0; min, max, log, whole mean nothing
};

/// A value a range. Choice -1: none of them, which only a trial given from outside can have.
using SearchPoint = std::vector<double>;

struct SearchTrial {
  SearchPoint point;
  double loss = 0;  ///< not finite: it failed
};

class SearchSpace {
 public:
  /// @throws Error(usage) for a range without an inside
  explicit SearchSpace(std::vector<SearchRange> ranges);

  const std::vector<SearchRange>& ranges() const { return ranges_; }
  /// The point at [0, 1)^d: equal steps for equal chances, with values rounded to six digits.
  SearchPoint at(const std::vector<double>& unit) const;
  /// Inputs of the Gaussian process: a coordinate in [0, 1] a range, for a choice as many as there are, of which one is
  /// not 0.
  std::vector<double> features(const SearchPoint& point) const;
  std::vector<std::size_t> feature_groups() const;
  /// All points, if they are no more than `most`; else none.
  std::vector<SearchPoint> all(std::size_t most) const;

 private:
  std::vector<SearchRange> ranges_;
};

/// Point number `index` = trials.size() + pending.size() of a search. The first `initial` are a Halton sequence with a
/// random shift, which fills the space evenly; from then on the expected improvement decides. For it
///   - a loss of more than five times the distance from the best to the median above the best counts as that, lest one
///     diverged trial hide all other differences; a failed trial counts as the worst;
///   - a pending point, whose loss is not known yet, counts as if it had brought the best so far ("constant liar",
///     Ginsbourger, Le Riche & Carraro 2010), which keeps the points of one batch apart.
/// No point comes twice, nor within half a hundredth of all ranges of another one.
/// @return nothing if there is no other point
std::optional<SearchPoint> propose(const SearchSpace& space, std::uint64_t seed, std::size_t initial,
                                   const std::vector<SearchTrial>& trials, const std::vector<SearchPoint>& pending);

}  // namespace umbriel
