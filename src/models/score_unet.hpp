/// A small residual U-Net for scores, of configurable size.
///
///   head     3 x 3 convolution to the first width
///   down     at each scale residual blocks; then an average pool by 2 and a 1 x 1 convolution to the next width
///   up       a 1 x 1 convolution, nearest-neighbour upsampling, plus what was there on the way down; blocks again
///   tail     3 x 3 convolution to one channel, without a nonlinearity before it: one that saturates early in training
///            would end it
///
/// A block is x + conv(f(m(norm(conv(f(x)))))), with m a scale and a shift of each channel that depend on the noise level
/// (Perez et al. 2018, arXiv 1709.07871): a network of two dense layers reads four functions of t = ln(sigma / 0.03),
/// and a dense layer of each block makes scale and shift of that. The tail, the last convolution of each block and that
/// dense layer start at zero.
///
/// Keys, with their defaults:
///   network.widths = [16, 32, 64, 64]    channels at each scale
///   network.blocks = [1, 1, 1, 2]        blocks at each scale, on either way
///   network.embedding = 32               width of the noise level's network
///   network.activation = "silu"          or "relu", "elu", "softplus", "tanh"
///   network.norm = "none"                or "group", with network.groups = 8 groups of channels
///   network.padding = "periodic"         or "zeros"
#pragma once

#include "umbriel/models/network.hpp"
#include "umbriel/nn/layers.hpp"

namespace umbriel {

class ScoreUNet final : public Network {
 public:
  /// @param conditions  numbers a sample, beside the noise level, that the embedding reads
  ScoreUNet(const Config& config, int input_channels, int conditions = 0);

  int input_channels() const override { return input_channels_; }
  int side_multiple() const override { return 1 << (widths_.size() - 1); }
  int noise_features() const override { return 4; }
  nn::Value build(nn::Tape& tape, nn::Value x, const std::vector<nn::Scalars>& noise) const override;
  void set_noise(const Space& space, int n, const View1<float>& sigma,
                 const std::vector<View1<float>>& features) const override;

 private:
  struct Block {
    nn::Convolution first, second;
    nn::GroupNorm norm;
    nn::Dense modulation;
  };
  nn::Value build_block(nn::Tape& tape, const Block& block, nn::Value x, nn::Value embedding) const;

  int input_channels_;
  std::vector<int> widths_, blocks_;
  Activation activation_;
  bool group_norm_;
  nn::Convolution head_, tail_;
  nn::Dense embed_first_, embed_second_;
  std::vector<std::vector<Block>> down_, up_;  // [scale]
  std::vector<nn::Convolution> narrow_, widen_;  // between scale i and i + 1
};

}  // namespace umbriel
