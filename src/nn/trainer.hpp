/// The training loop of every model: gradients summed over ranks, optimiser, averages, validation, checkpoints,
/// metrics.
///
/// All ranks hold the same parameters and take the same steps, of which each rank makes its share: an optimiser that
/// treats elements alike moves those that the rank has the gradients' sums of, and the ranks give each other the values
/// at once, moments and averages when somebody reads them. The ranks' shares of a step's examples make up the same
/// global batch whatever their number, so that the losses agree up to rounding, or to the bit if the task's gradients
/// do (GradientSum). A run that was stopped at any step and resumed gives the bits of one that was not.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "umbriel/mpi/communicator.hpp"
#include "umbriel/nn/average.hpp"
#include "umbriel/nn/optimiser.hpp"
#include "umbriel/nn/parameters.hpp"
#include "umbriel/nn/schedule.hpp"
#include "umbriel/nn/spectral_norm.hpp"

namespace umbriel::nn {

/// What is trained.
class TrainingTask {
 public:
  virtual ~TrainingTask() = default;
  virtual const ParameterSet& parameters() const = 0;

  /// Gradients of this rank's share of the global batch of `step`, whose sum over ranks is that of the mean loss.
  /// @param ready  for GradientReducer: called as gradients become final
  /// @return losses of this rank's examples; ranks hold consecutive parts of the batch
  virtual std::vector<double> gradients(const Space& space, std::int64_t step,
                                        const std::function<void(std::int64_t)>& ready) = 0;

  /// Names and values of what is measured on held-out examples with the weights `values`; the same on all ranks. The
  /// first is what training is to make small.
  virtual std::vector<std::pair<std::string, double>> validate(const Space& space, const View1<float>& values) = 0;
};

struct TrainerOptions {
  std::int64_t steps = 1000;
  std::uint64_t seed = 1;
  Schedule schedule;
  OptimiserOptions optimiser;
  double average_decay = 0.999;
  double spectral_limit = 1.0;
  std::int64_t validate_every = 1000;  ///< steps; the last step is always followed by a validation
  /// Keep the averaged weights of the best validation, the untrained ones' among them, not the last: for models that
  /// start from a good one, and maps that are few.
  bool keep_best = false;
  std::string identity;  ///< what a checkpoint must agree with to be resumed
  /// Called with the identity and the path of a checkpoint: throws if it is not to be resumed. None: it must be equal.
  std::function<void(const std::string& then, const std::string& path)> judge;
  std::string stem;                   ///< STEM.checkpoint.h5, STEM.metrics.csv, STEM.metrics.jsonl, STEM.validation.csv
  double checkpoint_minutes = 10;     ///< 0: only when it is stopped, and at the end
  std::int64_t checkpoint_steps = 0;  ///< also every so many steps; 0: never
  double max_walltime_minutes = 0;    ///< stop in order before it; 0: none
};

/// What was measured while training.
struct TrainingHistory {
  std::vector<double> loss, gradient_norm, seconds;  ///< [step]; seconds since the start, over all resumed parts
  std::vector<std::int64_t> validated;               ///< steps after which it was validated
  std::vector<std::string> names;                    ///< of the validation's values
  std::vector<double> values;                        ///< [validation, name]
};

class Trainer {
 public:
  /// Keeps a reference to the task. Collective.
  Trainer(const Communicator& comm, TrainingTask& task, TrainerOptions options);

  /// Goes on from the checkpoint if there is one.
  /// @throws Error(usage) for a checkpoint of another configuration, Error(input) for a damaged one
  void resume();

  /// Trains until all steps are done, or a signal or max_walltime asks to stop; then writes a checkpoint.
  /// @return true when all steps are done
  /// @throws Error(numerical) for a loss or gradient that is not finite
  bool run(const Space& space);

  /// Averaged weights: what is used afterwards.
  const View1<float>& averaged() const {
    return best_.size() > 0 && !history_.validated.empty() ? best_ : average_.values();
  }
  /// Which validation in the history is that of those weights.
  std::size_t kept() const;
  const TrainingHistory& history() const { return history_; }
  std::int64_t step() const { return step_; }
  /// Removes the checkpoint, once the weights are safe.
  void remove_checkpoint() const;

 private:
  std::vector<std::pair<std::string, View1<float>>> state() const;
  void write_checkpoint() const;
  void write_metrics(bool anew) const;
  void validate(const Space& space, const View1<float>& values);

  Communicator comm_;
  TrainingTask& task_;
  TrainerOptions options_;
  std::unique_ptr<Optimiser> optimiser_;
  SpectralNormalisation spectral_;
  WeightAverage average_;
  View1<float> best_;  // of the best validation, where those are kept
  std::int64_t step_ = 0;
  double seconds_before_ = 0;
  TrainingHistory history_;
  mutable std::size_t rows_written_ = 0, validations_written_ = 0;
};

}  // namespace umbriel::nn
