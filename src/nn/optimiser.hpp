/// Optimisers on a network's flat arrays.
///
/// g is the gradient after clipping, t = 1, 2, ... the step, r the learning rate:
///   adam       m += (1 - b1)(g - m), v += (1 - b2)(g^2 - v),
///              p -= r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon): Kingma & Ba 2015, arXiv 1412.6980
///   adabelief  the same with v += (1 - b2)((g - m)^2 - v) + epsilon: Zhuang et al. 2020, arXiv 2010.07468
///   adafactor  second moments of a matrix kept as those of its rows and of its columns, no first moment, updates
///              scaled to a root mean square of at most `update_clip`: Shazeer & Stern 2018, arXiv 1804.04235
/// Decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), for every parameter: p -= r weight_decay p.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "umbriel/core/loops.hpp"
#include "umbriel/mpi/gradient_reducer.hpp"
#include "umbriel/nn/parameters.hpp"

namespace umbriel::nn {

struct OptimiserOptions {
  std::string name = "adam";  ///< "adam", "adabelief", "adafactor"
  double clip_norm = 0;       ///< the gradient of all parameters together is scaled to at most this norm; 0: never
  double weight_decay = 0;
  /// @{ adam, adabelief
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  /// @}
  /// @{ adafactor: second moments forget as 1 - t^-decay_exponent
  double decay_exponent = 0.8;
  double update_clip = 1.0;
  bool scale_by_parameter = true;  ///< the rate is times max(1e-3, root mean square of the parameter's values)
  /// @}
};

class Optimiser {
 public:
  /// Keeps the parameter set's arrays.
  Optimiser(const ParameterSet& parameters, const OptimiserOptions& options);
  virtual ~Optimiser() = default;
  Optimiser(const Optimiser&) = delete;
  Optimiser& operator=(const Optimiser&) = delete;

  /// Moves the values by the gradients. If the gradient's norm is not finite, values and state stay as they are: ask
  /// `gradient_norm`.
  /// @param reducer  of the gradients, between the ranks that take the step together: values and state of its own
  ///                 elements are moved on each rank, and the others' are left for GradientReducer::gather
  void step(const Space& space, double learning_rate, GradientReducer* reducer = nullptr);

  /// What GradientReducer needs to share the step between ranks; 0: it cannot be shared.
  virtual std::int64_t row() const = 0;

  /// Norm of the last step's gradient before clipping, summed in float64 in an order of its own. Waits for the step.
  double gradient_norm() const;

  /// @{ All that a checkpoint needs beside the options: restore by copying into the arrays.
  virtual std::vector<std::pair<std::string, View1<float>>> state() const = 0;
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  /// @}

 protected:
  virtual void update(const Space& space, double learning_rate, const std::vector<Elements>& elements) = 0;

  const OptimiserOptions options_;
  const View1<float> values_, gradients_;
  const View1<float> factor_;  ///< [1] what gradients are multiplied by; NaN: leave everything as it is
  std::int64_t steps_ = 0;

 private:
  SumWorkspace workspace_;
  View1<double> squares_;  // of rows, then of each element after the last one
  View1<double> square_;   // [1]
};

/// @throws Error(usage) for an unknown name or settings out of range
std::unique_ptr<Optimiser> make_optimiser(const ParameterSet& parameters, const OptimiserOptions& options);

}  // namespace umbriel::nn
