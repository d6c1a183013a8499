/// Exponential moving average of a network's weights: what is used once training is done.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "umbriel/mpi/gradient_reducer.hpp"
#include "umbriel/nn/parameters.hpp"

namespace umbriel::nn {

class WeightAverage {
 public:
  /// @param decay  of a step, once warm: the average reaches back about 1 / (1 - decay) steps
  WeightAverage(const ParameterSet& parameters, double decay);

  /// average += (1 - d) (values - average) with d = min(decay, (1 + t) / (10 + t)) after t updates, so that the random
  /// start is soon forgotten; the first update copies the values.
  /// @param elements  which of them; all in the end, on the ranks together (GradientReducer::mine)
  void update(const Space& space, const std::vector<Elements>& elements);

  /// Flat array like ParameterSet::values.
  const View1<float>& values() const { return average_; }

  /// @{ All that a checkpoint needs beside the settings.
  std::vector<std::pair<std::string, View1<float>>> state() const { return {{"average", average_}}; }
  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }
  /// @}

 private:
  View1<float> values_, average_;
  double decay_;
  std::int64_t updates_ = 0;
};

}  // namespace umbriel::nn
