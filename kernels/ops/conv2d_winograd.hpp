/// Small convolutions of stride 1 by Winograd's algorithm (Lavin & Gray 2016, arXiv:1509.09308), on processors. Only
/// the conv2d_*.cpp files include this.
#pragma once

#include <algorithm>
#include <cstdint>

#include "umbriel/core/views.hpp"
#include "umbriel/ops/activation.hpp"
#include "umbriel/ops/conv2d_host.hpp"

namespace umbriel::host {

/// A correlation with 3 x 3 or 2 x 2 taps, for inference. Its rounding is five times that of the sum term by term; in
/// training Adam makes steps of whatever is left of gradients that are next to nothing, so that losses on different
/// numbers of ranks, which batch norm rounds differently, would part ways sooner.
class Winograd {
 public:
  /// True where it can be used and halves the products: tiles of small maps are mostly padding.
  static bool suits(const Correlation& s) {
    if (s.groups != 1 || s.step != 1 || s.taps_y != s.taps_x || (s.taps_x != 3 && s.taps_x != 2)) return false;
    const int outputs = 7 - s.taps_x;
    const std::int64_t tiles = static_cast<std::int64_t>(blocks_of(s.count_y, outputs)) * blocks_of(s.count_x, outputs);
    const std::int64_t terms = static_cast<std::int64_t>(s.count_y) * s.count_x * s.taps_y * s.taps_x;
    return s.in >= lanes && s.out >= lanes && 2 * 36 * tiles <= terms;
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

}  // namespace umbriel::host
