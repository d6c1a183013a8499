/// The score network of Remy et al. 2022 (arXiv 2201.05561), as published: a residual U-Net of 2.98 million parameters.
///
///   first    7 x 7 convolution to 32 channels, no bias
///   down     4 groups of 2 residual blocks with 32, 64, 128, 128 channels; an average pool by 2 before the first three
///   middle   the noise level as one more channel
///   up       the groups in reverse, nearest-neighbour upsampling before the last three; after each, the map that
///            entered the matching group on the way down is put beside the result
///   last     5 x 5 convolution with bias to one channel, divided by |sigma| + 0.001
///
/// A block: 3 x 3 convolution, batch norm, ReLU, 3 x 3 convolution, batch norm, plus its input (in the first block of a
/// group through a 1 x 1 convolution and batch norm), ReLU. Zero padding. The input is the map, with sigma^2 times the
/// Gaussian score where the score is a hybrid, and the noise level as a constant channel. Every kernel's spectral norm
/// is kept at most 1 while training (network.spectral_norm, default true). 56 GFLOP for 360 x 360 pixels.
#pragma once

#include "umbriel/models/network.hpp"
#include "umbriel/nn/layers.hpp"

namespace umbriel {

class UResNet18 final : public Network {
 public:
  UResNet18(int input_channels, bool spectral_norm);

  int input_channels() const override { return input_channels_; }
  int side_multiple() const override { return 8; }
  int noise_features() const override { return 2; }  // sigma, 1 / (|sigma| + 0.001)
  nn::Value build(nn::Tape& tape, nn::Value x, const std::vector<nn::Scalars>& noise) const override;
  void set_noise(const Space& space, int n, const View1<float>& sigma,
                 const std::vector<View1<float>>& features) const override;

 private:
  struct Block {
    bool project;
    nn::Convolution shortcut, first, second;
    nn::BatchNorm shortcut_norm, first_norm, second_norm;
  };
  Block declare_block(const std::string& name, int c_in, int c_out, bool project, bool spectral_norm);
  static nn::Value build_block(nn::Tape& tape, const Block& block, nn::Value x);

  int input_channels_;
  nn::Convolution first_, last_;
  std::vector<std::vector<Block>> down_, up_;
};

}  // namespace umbriel
