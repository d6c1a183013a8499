/// A normalizing flow of latent vectors: RealNVP (Dinh et al. 2017, arXiv 1605.08803) with dense networks.
///
/// The vectors that an encoder finds are not spread like the standard normal that it was trained towards; draws of that
/// normal then decode to maps unlike any. The flow learns how they are spread: z = flow(u) for standard normal u.
///
/// Where maps are rough at one scale they are at others, and that a dense network has too few maps to learn from. So
/// the last thing that happens to z has hardly any parameters: latent variables, those of most power first, stand in
/// octaves, and the spread of each octave follows from that of those before it,
///   z_k = e^(-s_k) z'_k,  s_k = 8 (b_k + sum over j < k of w_kj ln rms z_j),
/// with b and w from zero (8: so that they get there in a few hundred of an optimiser's steps).
///
/// Each of `layers` steps takes the elements of z in an order of its own, drawn once and for all, and moves one half by
/// log-scales and shifts that a dense network finds from the other. Last layers start at zero: an untrained flow only
/// changes the order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/nn/layers.hpp"

namespace umbriel {

/// Where octaves of so many latent variables begin, 0, 4, 8, 16, ..., and where the last one ends.
std::vector<int> latent_octaves(int size);

class LatentFlow {
 public:
  /// What the operations of `to_base` on one tape have in common.
  struct LogDeterminant {
    View1<double> sum;   ///< [N] of du / dz; to be set to zero before a forward pass
    float gradient = 0;  ///< of the loss, by each sample's; set before a backward pass
  };

  /// Keys:
  ///   latent.layers = 8     steps; 0: octaves alone
  ///   latent.width = 256    of the two hidden layers of their networks
  ///   latent.limit = 2      of a step's log-scales
  /// @param size  elements of a vector, at least 2
  /// @throws Error(usage)
  LatentFlow(nn::ParameterSet& set, const std::string& name, int size, const Config& config);

  /// Records z -> u. @param z  [N, 1, 1, size]
  nn::Value to_base(nn::Tape& tape, nn::Value z, const std::shared_ptr<LogDeterminant>& log_determinant) const;
  /// Records u -> z.
  nn::Value from_base(nn::Tape& tape, nn::Value u) const;

 private:
  struct Step {
    std::vector<int> order;  ///< elements of z: first those that stay
    nn::Dense first, second, last;
  };
  nn::Value network(nn::Tape& tape, const Step& step, nn::Value stays) const;

  /// The octaves before number k, that one, and those after it: places of z.
  struct Split {
    std::vector<int> before, here, after;
  };
  Split split(std::size_t k) const;
  /// Records (raw s, t) of octave k's coupling, given those before it.
  nn::Value spread(nn::Tape& tape, nn::Value before, std::size_t k) const;

  int size_ = 0, stays_ = 0;
  float limit_ = 2;
  std::vector<Step> steps_;
  std::vector<int> octaves_;
  std::vector<nn::Dense> spreads_;  ///< of octave k > 0 in place k - 1
};

}  // namespace umbriel
