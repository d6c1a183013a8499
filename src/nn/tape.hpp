/// A network written down once as a list of operations, and run any number of times: forward, and backward by reverse
/// accumulation (Griewank & Walther 2008).
///
/// A model records its operations on a tape for one shape of batch; no memory is taken and nothing is computed then, so
/// that the same record also answers how much memory and how many FLOPs a step takes, and is what FrozenNetwork
/// (frozen.hpp) optimises for inference. `plan` makes the buffers; every later step runs without allocation.
///
/// Values are activations [N, H, W, C]. Scalars are one number a sample (a noise level) that the caller sets. The loss
/// is the caller's: after `forward` it writes the gradient of the loss into `gradient(output)`, then calls `backward`.
///
/// A new kind of layer is a class derived from Operation (operations.hpp has those that exist).
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "umbriel/mpi/communicator.hpp"
#include "umbriel/nn/buffer_plan.hpp"
#include "umbriel/nn/parameters.hpp"
#include "umbriel/ops/conv2d.hpp"

namespace umbriel::nn {

class Tape;

/// Handle of activations on a tape.
struct Value {
  int index = -1;
  explicit operator bool() const { return index >= 0; }
  bool operator==(const Value&) const = default;
};

/// Handle of one number a sample.
struct Scalars {
  int index = -1;
};

/// How a tape runs; the same for all its operations.
struct Options {
  Backend backend = Backend::automatic;
  Precision precision = Precision::float32;
  Communicator comm;  ///< the ranks that share a training batch: batch norm's moments are theirs together
  /// A training tape finds gradients of inputs alone, through the network as it is used: batch norms take running
  /// moments, parameters are loaded once by the caller, and their gradients mean nothing.
  bool inputs_only = false;
};

class Operation {
 public:
  virtual ~Operation() = default;
  virtual std::string_view name() const = 0;
  /// Makes what the operation needs beside its values. Called by Tape::plan.
  virtual void plan(const Tape&) {}
  /// Takes note that parameters have changed.
  virtual void load_parameters(const Space&, const Tape&) {}
  virtual void forward(const Space& space, const Tape& tape) = 0;
  /// Adds to, or sets (Tape::accumulates), the gradients of inputs that want one, and of its parameters.
  virtual void backward(const Space& space, const Tape& tape) = 0;
  /// Multiplications and additions of a forward pass.
  virtual double flops(const Tape&) const { return 0; }
  /// Of memory beside values, as for parameters in another layout; without what is small.
  virtual double bytes(const Tape&) const { return 0; }

  std::vector<Value> inputs;
  Value output;
  std::vector<ParameterId> parameters;
  int position = -1;  ///< on the tape
};

class Tape {
 public:
  /// Keeps a reference. @param training  moments of the batch, and gradients; else the running moments, forward only
  Tape(const ParameterSet& parameters, bool training, Options options = {});
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // --- recording ---
  /// @param wants_gradient  its gradient is found as well
  Value input(Extents extents, bool wants_gradient = false);
  Scalars scalars(int n);
  /// Appends an operation whose result has these extents.
  Value record(std::unique_ptr<Operation> operation, Extents output);
  /// Channels of all values side by side. Costs no copy where a value has no reader recorded after this.
  Value concatenate(const std::vector<Value>& values);

  // --- what was recorded ---
  const ParameterSet& parameters() const { return parameters_; }
  bool training() const { return training_; }
  const Options& options() const { return options_; }
  Extents extents(Value value) const { return nodes_[static_cast<std::size_t>(value.index)].extents; }
  const std::vector<std::unique_ptr<Operation>>& operations() const { return operations_; }
  const std::vector<Value>& inputs() const { return inputs_; }
  int scalar_count() const { return static_cast<int>(scalars_.size()); }
  double flops() const;
  /// Bytes that `plan(output)` takes for values, gradients and operations.
  double bytes(Value output) const;

  // --- running ---
  /// Makes the buffers. @param output  the value that the caller reads, and whose gradient it sets when training
  void plan(Value output);
  /// @{ Of a value that is left out: the coarse map's.
  Activations value(Value value) const;
  Activations gradient(Value value) const;
  /// @}
  const View1<float>& scalars(Scalars scalars) const { return scalars_[static_cast<std::size_t>(scalars.index)]; }
  /// Call it after parameters were set, before forward passes; while training each forward pass begins with it.
  void load_parameters(const Space& space);
  /// From now on forward passes compute, and `value` gives, only the first n samples of what was planned. Not in
  /// training.
  void use_samples(int n);
  void forward(const Space& space);
  /// Gradients of all parameters, given that of the output.
  /// @param ready  called with falling element numbers of the flat gradient array: all from there on is final
  void backward(const Space& space, const std::function<void(std::int64_t)>& ready = {});

  // --- for operations ---
  /// True if a value is a map upsampled by two that is never made, for while training all its readers are convolutions
  /// that run on the coarse map instead.
  bool left_out(Value value) const { return nodes_[static_cast<std::size_t>(value.index)].upsampled_from >= 0; }
  bool wants_gradient(Value value) const { return nodes_[static_cast<std::size_t>(value.index)].wants_gradient; }
  /// True if this operation's gradient of inputs[input] adds to what later operations have written.
  bool accumulates(const Operation& operation, int input) const;
  /// The same for its parameters[parameter].
  bool accumulates_parameter(const Operation& operation, int parameter) const;

 private:
  struct Node {
    Extents extents;
    int producer = -1;  ///< operation, or -1 for an input
    bool wants_gradient = false;
    std::vector<int> consumers;
    int part_of = -1, first_channel = 0;  ///< the concatenation in whose memory this value lies
    std::int64_t offset = 0, gradient_offset = 0;
    int upsampled_from = -1;  ///< left out: the coarse value
  };
  struct Place {
    int root;
    int first_channel;
  };
  Place place_of(Value value) const;
  Activations slice(Value value, const View1<float>& memory, bool gradient) const;
  std::vector<Lifetime> lifetimes(Value output, bool gradients, std::vector<int>& roots) const;
  void leave_out_upsamplings();
  void find_accumulation();

  const ParameterSet& parameters_;
  bool training_;
  Options options_;
  std::vector<Node> nodes_;
  std::vector<Value> inputs_;
  std::vector<View1<float>> scalars_;
  std::vector<std::unique_ptr<Operation>> operations_;
  Value output_;
  int samples_ = 0;                                          // see use_samples; 0: all
  std::vector<bool> runs_backward_;                          // operation: its output has a gradient
  std::vector<std::vector<bool>> adds_, adds_to_parameter_;  // operation, input: not the first to write
  std::vector<std::int64_t> final_from_;                     // operation: see backward's `ready`
  View1<float> memory_, gradient_memory_;
};

}  // namespace umbriel::nn
