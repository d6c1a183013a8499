/// Small convolutions of stride 1 by Winograd's algorithm (Lavin & Gray 2016, arXiv:1509.09308), on processors. Only
/// the conv2d_*.cpp files include this.
#pragma once

#include <algorithm>

#include "umbriel/core/views.hpp"
#include "umbriel/ops/activation.hpp"
#include "umbriel/ops/conv2d_host.hpp"

namespace umbriel::host {

/// A correlation with 3 x 3 or 2 x 2 taps.
class Winograd {
 public:
  /// True where it can be used and is faster than the sum term by term.
  /// @param in, out  channels
  static bool suits(int taps_y, int taps_x, int step, int groups, int in, int out) {
    return groups == 1 && step == 1 && taps_y == taps_x && (taps_x == 3 || taps_x == 2) && in >= lanes && out >= lanes;
  }

  Winograd(const Correlation& shape, int threads);

  /// @param value  value(ky, kx, group, ci, co): a weight
  template <class Value>
  void pack(const Value& value) const {
    for (int co = 0; co < shape_.out; co += lanes) {
      for (int ci = 0; ci < shape_.in; ++ci) {
        Vector kernel[max_taps * max_taps] = {};
        for (int i = 0; i < shape_.taps_y * shape_.taps_x; ++i) {
          for (int lane = 0; lane < std::min(lanes, shape_.out - co); ++lane) {
            kernel[i][lane] = value(i / shape_.taps_x, i % shape_.taps_x, 0, ci, co + lane);
          }
        }
        pack_kernels(kernel, ci, co);
      }
    }
  }

  /// Thread `thread`'s share of the tiles of all samples; arguments as those of Conv2d::forward.
  void run(int thread, ConstActivations source, const float* bias, ConstActivations residual, Activation activation,
           Activations target) const;

 private:
  static constexpr int max_taps = 3;

  /// @param kernel  [ky, kx]: of a vector of outputs from co
  void pack_kernels(const Vector* kernel, int ci, int co) const;
  template <int taps>
  void run_tiles(std::int64_t begin, int count, ConstActivations source, const float* bias, ConstActivations residual,
                 Activation activation, Activations target, float* workspace) const;

  int out_blocks() const { return blocks_of(shape_.out, tile_vectors * lanes); }
  int vectors(int block) const;
  std::int64_t block_offset(int block) const;

  Correlation shape_;
  int threads_;
  int tiles_y_, tiles_x_;
  int block_tiles_;          ///< tiles that are multiplied together
  View1<float> weights_;     ///< [block of outputs, frequency, ci, output of the block]
  View2<float> workspaces_;  ///< [thread, ...]: transformed input, products, surroundings of a tile
};

/// The gradient of the weights of a correlation with 3 x 3 taps, sample by sample.
class WinogradGradient {
 public:
  /// True where it can be used and is faster: sums in float64 are 36 times in x out, and want tiles enough to pay.
  static bool suits(const Correlation& s) {
    return Winograd::suits(s.taps_y, s.taps_x, s.step, s.groups, s.in, s.out) && s.taps_x == taps &&
           s.count_y * s.count_x >= 1024 && s.in * s.out <= 160 * 160;
  }

  explicit WinogradGradient(const Correlation& shape);

  void clear(const Space& space) const;
  /// Adds a sample's part: products of a block of tiles in float32, blocks in float64, in the order of the tiles.
  void add(const Space& space, ConstActivations source, ConstActivations target_gradient) const;
  /// @param dweights  [ky, kx, ci, co]
  void finish(float* dweights, bool accumulate) const;

 private:
  static constexpr int taps = 3;

  void transform_tile(ConstActivations source, ConstActivations target_gradient, int tile, int place) const;
  void multiply(int frequency, int tiles) const;

  Correlation shape_;
  int tiles_y_, tiles_x_, block_tiles_;
  int in_pitch_, out_pitch_;  ///< channels, rounded up to vectors
  View1<float> inputs_;       ///< [group of tiles, frequency, tile of the group, in_pitch]
  View1<float> outputs_;      ///< [group of tiles, frequency, tile of the group, out_pitch]
  View2<float> patches_;      ///< [tile of a block, ...]: its surroundings
  View1<double> sums_;        ///< [frequency, ci, out_pitch]
};

}  // namespace umbriel::host
