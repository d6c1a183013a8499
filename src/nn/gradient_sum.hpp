/// Sums the gradients of the parts of a step that go through the tape one after the other.
///
/// The sum runs in pairs, ((g0 + g1) + (g2 + g3)) + ..., as sums over ranks do (rank_order_sum.hpp): where every rank
/// holds 2^n consecutive parts, the bits are those of one rank that holds them all.
#pragma once

#include <cstdint>
#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel::nn {

class GradientSum {
 public:
  /// Keeps the View.
  explicit GradientSum(const View1<float>& gradients) : gradients_(gradients) {}

  /// The gradients hold part number `part` (0, 1, ...) and others follow: keeps it, so that they may be overwritten.
  void keep(const Space& space, int part);
  /// Elements [first, end) hold the last part, number `part`: adds the others to them.
  void complete(const Space& space, int part, std::int64_t first, std::int64_t end) const;

 private:
  View1<float> gradients_;
  std::vector<View1<float>> pairs_;  // [level]: the sum of 2^level parts that waits for as many more
};

}  // namespace umbriel::nn
