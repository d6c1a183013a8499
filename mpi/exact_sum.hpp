/// Sums of float64 values that do not depend on the order of the terms, and so not on the number of ranks.
///
/// The accumulator is one long fixed-point number that covers the whole range of float64 (Kulisch & Miranker 1986), in
/// limbs of 32 bits held in int64 so that carries can wait: adding is exact, hence associative, and ranks add limbs as
/// integers. The final rounding is the only one.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class ExactSum {
 public:
  /// Adds one term. A NaN or infinity makes the sum NaN.
  void add(double value);
  /// Adds all that `other` holds.
  void add(const ExactSum& other);
  /// The sum of all terms, correctly rounded: the double nearest to the exact sum, of two equally near the even one;
  /// infinite where the exact sum is beyond the range of float64.
  double value() const;

 private:
  friend std::vector<double> exact_sum_over_ranks(const Communicator&, std::vector<ExactSum>);
  void carry();

  // 2^-1074 ... 2^1023 and 64 bits of head room, in limbs of 32 bits.
  static constexpr int limbs = (1074 + 1024) / 32 + 3;
  std::array<std::int64_t, limbs> limb_{};
  std::int64_t pending_ = 0;     // additions since the last carry
  std::int64_t not_finite_ = 0;  // NaN or infinite terms
};

/// Sums of every rank's accumulators, element by element; the same on all ranks.
std::vector<double> exact_sum_over_ranks(const Communicator& comm, std::vector<ExactSum> sums);

}  // namespace umbriel
