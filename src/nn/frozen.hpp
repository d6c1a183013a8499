/// A trained network in the form that is fastest to evaluate.
///
/// The record of a network (tape.hpp) is rewritten, once:
///   - batch norm with its running moments is folded into the convolution before it;
///   - additions and nonlinearities after a convolution become its epilogue;
///   - convolutions after an upsampling by two run on the coarse map: a 1 x 1 one as it is, a 3 x 3 one as four of
///     2 x 2, since each fine pixel sees only 2 x 2 coarse ones (9 products a fine pixel become 4);
///   - buffers that never live together share memory.
/// A run allocates nothing. Maps are run through in tiles of as many samples as were recorded, and a last one of what
/// remains; a sample's result has the same bits whatever the batch.
#pragma once

#include <memory>
#include <vector>

#include "umbriel/nn/tape.hpp"

namespace umbriel::nn {

/// Samples to record for a FrozenNetwork of such maps: one keeps a host's caches warm, a device wants more work a
/// launch.
int samples_of_a_tile(std::int64_t pixels);

class FrozenNetwork {
 public:
  /// @param record  of one tile: one input, not planned; not needed any more afterwards
  /// @param values  parameters to use, flat as record.parameters().values(): those, or an average of them
  FrozenNetwork(const Tape& record, Value output, const View1<float>& values, Options options = {});
  ~FrozenNetwork();

  /// @param input    [n, H, W, C], any n
  /// @param scalars  as recorded, [>= n] each
  /// @param output   [n, ...], overwritten
  void run(const Space& space, ConstActivations input, const std::vector<View1<float>>& scalars,
           Activations output) const;

  /// Of one tile.
  double flops() const;
  double bytes() const;
  int tile() const;
  /// The rewritten record, to look at.
  const Tape& tape() const { return *tape_; }

 private:
  ParameterSet parameters_;
  std::unique_ptr<Tape> tape_;
  Value input_, output_;
  std::vector<Scalars> scalars_;
};

}  // namespace umbriel::nn
