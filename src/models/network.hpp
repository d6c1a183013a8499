/// Networks that map an image and a noise level to an image, by name.
///
/// A new model is one header and one source here, with a line such as
///   const NetworkRegistration registration("my-network", [](const Config& config) { return ...; });
/// in the source; its name is then a value of `network.kind` in a configuration.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/nn/tape.hpp"

namespace umbriel {

class Network {
 public:
  virtual ~Network() = default;

  /// Allocated by the constructor of the model; values by nn::initialise or nn::load_weights.
  const nn::ParameterSet& parameters() const { return parameters_; }
  nn::ParameterSet& parameters() { return parameters_; }

  /// Channels of the input: 1 or 2.
  virtual int input_channels() const = 0;
  /// Sides of the map must be multiples of this.
  virtual int side_multiple() const = 0;
  /// Numbers that describe the noise level of a sample.
  virtual int noise_features() const = 0;

  /// Records the network.
  /// @param x      [N, H, W, input_channels]
  /// @param noise  noise_features handles
  /// @return       [N, H, W, 1]
  virtual nn::Value build(nn::Tape& tape, nn::Value x, const std::vector<nn::Scalars>& noise) const = 0;

  /// Sets the numbers of n samples from their noise levels.
  /// @param sigma     [>= n], > 0
  /// @param features  noise_features arrays [>= n], overwritten
  virtual void set_noise(const Space& space, int n, const View1<float>& sigma,
                         const std::vector<View1<float>>& features) const = 0;

 protected:
  nn::ParameterSet parameters_;
};

/// Makes the network that `network.kind` names, of the settings in `network`.
/// @param input_channels  what the parametrisation of the score feeds it
/// @throws Error(usage) for an unknown kind or settings that do not fit
std::unique_ptr<Network> make_network(const Config& config, int input_channels);

/// Throws Error(usage) unless the sides of maps are multiples of `multiple`, as `what` wants them.
void require_sides(int multiple, Grid grid, const std::string& what);

using NetworkMaker = std::function<std::unique_ptr<Network>(const Config&, int input_channels)>;
struct NetworkRegistration {
  NetworkRegistration(const std::string& kind, NetworkMaker maker);
};

}  // namespace umbriel
