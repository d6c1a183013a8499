/// Networks with random weights, ready to be timed: frozen, and in training. A configuration names the network, as in
/// training (network.kind and what belongs to it). The input of a score network has two channels, the map and its
/// Gaussian score; that of a diffusion model has one.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "umbriel/models/network.hpp"
#include "umbriel/mpi/gradient_reducer.hpp"
#include "umbriel/nn/frozen.hpp"
#include "umbriel/nn/initialise.hpp"
#include "umbriel/nn/optimiser.hpp"
#include "umbriel/ops/elementwise.hpp"

namespace umbriel::bench {

inline std::unique_ptr<Network> make_random_network(const Config& config, int channels = 2) {
  std::unique_ptr<Network> network = make_network(config, channels);
  nn::initialise(network->parameters(), 1, nn::Initialisation::he_normal);
  return network;
}

/// [batch, side, side, channels], neither constant nor zero.
inline Tensor make_maps(int batch, int side, int channels = 2) {
  const Tensor maps("umbriel::bench::maps", batch, side, side, channels);
  const View1<float> flat(maps.data(), maps.size());
  const auto host = on_host(flat);
  for (std::size_t i = 0; i < host.size(); ++i) host(i) = static_cast<float>(i * 7919 % 1009) / 504.0f - 1.0f;
  Kokkos::deep_copy(flat, host);
  return maps;
}

inline View1<float> make_sigma(int batch) {
  const View1<float> sigma("umbriel::bench::sigma", static_cast<std::size_t>(batch));
  Kokkos::deep_copy(sigma, 0.1f);
  return sigma;
}

/// Evaluates the frozen network on a batch.
class FrozenRun {
 public:
  FrozenRun(const Config& config, int side, int batch, nn::Options options = {}, int channels = 2)
      : network_(make_random_network(config, channels)),
        maps_(make_maps(batch, side, channels)),
        scores_("scores", batch, side, side, 1) {
    nn::Tape record(network_->parameters(), false);
    tile_ = std::min(batch, nn::samples_of_a_tile(static_cast<std::int64_t>(side) * side));
    const nn::Value x = record.input({tile_, side, side, channels});
    std::vector<nn::Scalars> noise;
    for (int i = 0; i < network_->noise_features(); ++i) {
      noise.push_back(record.scalars(tile_));
      noise_.emplace_back("noise", static_cast<std::size_t>(batch));
    }
    const nn::Value y = network_->build(record, x, noise);
    published_flops_ = record.flops();
    frozen_ = std::make_unique<nn::FrozenNetwork>(record, y, network_->parameters().values(), std::move(options));
    network_->set_noise(Space(), batch, make_sigma(batch), noise_);
  }

  void operator()(const Space& space) const {
    frozen_->run(space, maps_, noise_, scores_);
    space.fence();
  }

  /// Of the batch: as computed, and before convolutions moved to coarser maps.
  double flops() const { return frozen_->flops() * tiles(); }
  double published_flops() const { return published_flops_ * tiles(); }
  const nn::Tape& tape() const { return frozen_->tape(); }

 private:
  double tiles() const { return static_cast<double>(maps_.extent(0)) / tile_; }

  std::unique_ptr<Network> network_;
  int tile_ = 1;
  Tensor maps_, scores_;
  std::vector<View1<float>> noise_;
  std::unique_ptr<nn::FrozenNetwork> frozen_;
  double published_flops_ = 0;
};

/// A training step: forward, the gradient of mean(y^2), backward with the sum over ranks, Adam.
class TrainingRun {
 public:
  /// @param batch  on this rank
  TrainingRun(const Config& config, int side, int batch, nn::Options options = {}, int channels = 2)
      : network_(make_random_network(config, channels)),
        comm_(options.comm),
        tape_(network_->parameters(), true, std::move(options)),
        optimiser_(nn::make_optimiser(network_->parameters(), {})),
        reducer_(comm_, network_->parameters().gradients(), optimiser_->row()) {
    const nn::Value x = tape_.input({batch, side, side, channels});
    std::vector<nn::Scalars> noise;
    for (int i = 0; i < network_->noise_features(); ++i) noise.push_back(tape_.scalars(batch));
    output_ = network_->build(tape_, x, noise);
    tape_.plan(output_);
    scale_ = 2.0f / static_cast<float>(tape_.extents(output_).elements() * comm_.size());
    const Space space;
    copy_channels(space, make_maps(batch, side, channels), tape_.value(x));
    std::vector<View1<float>> features;
    for (const nn::Scalars handle : noise) features.push_back(tape_.scalars(handle));
    network_->set_noise(space, batch, make_sigma(batch), features);
  }

  void operator()(const Space& space) {
    tape_.forward(space);
    set_output_gradient(space);
    tape_.backward(space, [&](std::int64_t first) { reducer_.ready(space, first); });
    reducer_.finish(space);
    optimiser_->step(space, 1e-4, &reducer_);
    reducer_.gather(space, network_->parameters().values());
    space.fence();
  }

  void set_output_gradient(const Space& space) const {
    const Activations y = tape_.value(output_);
    linear_combination(space, scale_, y, 0.0f, y, tape_.gradient(output_));
  }

  /// Of a step on this rank; a backward pass takes twice the products of a forward one.
  double flops() const { return 3 * tape_.flops(); }
  const nn::Tape& tape() const { return tape_; }
  nn::Optimiser& optimiser() { return *optimiser_; }

 private:
  std::unique_ptr<Network> network_;
  Communicator comm_;
  nn::Tape tape_;
  nn::Value output_;
  float scale_ = 1;
  std::unique_ptr<nn::Optimiser> optimiser_;
  GradientReducer reducer_;
};

}  // namespace umbriel::bench
