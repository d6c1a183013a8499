#include "umbriel/nn/average.hpp"

#include <algorithm>

#include "umbriel/nn/flat_loop.hpp"

namespace umbriel::nn {
namespace {

struct MoveTowards {
  float* average;
  const float* values;
  float share;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t begin, std::int64_t end) const {
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (std::int64_t i = begin; i < end; ++i) average[i] = math::fma(share, values[i] - average[i], average[i]);
  }
};

}  // namespace

WeightAverage::WeightAverage(const ParameterSet& parameters, double decay)
    : values_(parameters.values()), average_("umbriel::nn::average", parameters.values().extent(0)), decay_(decay) {
  require(decay >= 0 && decay < 1, ExitCode::usage, "the decay of averaged weights is not in [0, 1)", "",
          "give for example 0.999");
}

void WeightAverage::update(const Space& space, const std::vector<Elements>& elements) {
  const double t = static_cast<double>(updates_);
  const auto share = static_cast<float>(1 - std::min(decay_, (1 + t) / (10 + t)));
  for (const auto& [begin, end] : elements) {
    const auto range = std::make_pair(begin, end);
    if (updates_ == 0) {
      Kokkos::deep_copy(space, Kokkos::subview(average_, range), Kokkos::subview(values_, range));
    } else {
      for_each_stretch("umbriel::nn::average_weights", space, end - begin,
                       MoveTowards{average_.data() + begin, values_.data() + begin, share});
    }
  }
  ++updates_;
}

}  // namespace umbriel::nn
