/// Multi-scale normalizing flows of maps: RealNVP (Dinh et al. 2017, arXiv 1605.08803) and Glow (Kingma & Dhariwal
/// 2018, arXiv 1807.03039), of one set of parts.
///
/// A map [H, W, 1] goes through `checkerboard` couplings at full resolution, and then through `levels`: each turns
/// blocks of 2 x 2 pixels into channels, does `steps` couplings of one half of the channels by the other, and, but for
/// the last, lets half of the channels be: those are latent variables. All latent variables, back in the places of the
/// pixels that they came from, make the latent map [H, W, 1], standard normal under the model.
///
///   glow     before each coupling a Mixing of the channels
///   realnvp  no mixing: the halves take turns
///
/// Log-scales and shifts come from networks whose last layers start at zero: an untrained RealNVP is the identity, an
/// untrained Glow a rotation, and white noise has the right likelihood from the start. So flows are to be trained on
/// whitened fields (FieldTransform).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/models/mixing.hpp"
#include "umbriel/nn/initialise.hpp"
#include "umbriel/nn/layers.hpp"

namespace umbriel {

/// The network of a coupling.
struct ConditionerSettings {
  bool gated = false;
  Activation activation = Activation::relu;  ///< of convolutions
  int width = 32;
  int layers = 3;
  Padding padding = Padding::periodic;
  int conditions = 0;  ///< numbers a map that it is told of
  int context = 0;     ///< channels of an image that it is shown
};

/// From channels that stay to log-scales (raw) and shifts of the others.
///   convolutions  3 x 3, then `layers` - 2 of 1 x 1, then 3 x 3 from zero (Glow)
///   gated         3 x 3; `layers` gated residual blocks on concatenated ELUs, each with a norm over the channels of a
///                 pixel; 3 x 3 from zero (the published flow)
/// What a dense layer makes of the conditions scales and shifts each channel behind the first convolution (Perez et al.
/// 2018, arXiv 1709.07871).
class Conditioner {
 public:
  Conditioner() = default;
  Conditioner(nn::ParameterSet& set, const std::string& name, int channels_in, int channels_out,
              const ConditionerSettings& settings);
  /// @param context     [N, H, W, context], or none
  /// @param conditions  [N, 1, 1, conditions], or none
  /// @return            [N, H, W, channels_out]
  nn::Value operator()(nn::Tape& tape, nn::Value x, nn::Value context, nn::Value conditions) const;

 private:
  struct Block {
    nn::Convolution wide, value, gate;
    nn::ChannelNorm norm;
  };
  ConditionerSettings settings_;
  nn::Convolution first_, last_;
  nn::Dense modulation_;
  std::vector<nn::Convolution> middle_;
  std::vector<Block> blocks_;
};

struct FlowSettings {
  bool glow = true;
  int levels = 3, steps = 4, checkerboard = 0;
  float limit = 2;
  ConditionerSettings conditioner;  ///< a context is shown at full resolution only
};

/// Keys:
///   network.kind = "glow"      or "realnvp"
///   network.levels = 3         sides of maps must be multiples of 2^levels
///   network.steps = 4          couplings a level
///   network.checkerboard       couplings at full resolution: 0 for glow, 4 for realnvp
///   network.conditioner = "convolutions"   or "gated"
///   network.activation = "relu"            between convolutions: or "elu", "silu"
///   network.width = 32, network.layers = 3  of the networks in couplings
///   network.limit = 2          of log-scales
///   network.padding = "periodic"           or "zeros"
/// @throws Error(usage)
FlowSettings flow_settings(const Config& config);

class Flow {
 public:
  /// A coupling, with what comes before it.
  struct Step {
    int level = -1;             ///< -1: at full resolution
    int parity = -1;            ///< of the pixels that stay, on a checkerboard; -1: channels
    bool second_stays = false;  ///< of the halves of the channels
    std::unique_ptr<Mixing> mixing;
    std::int64_t first = 0;    ///< in the flat array: the step's first parameter
    std::int64_t network = 0;  ///< its network's first parameter
  };

  /// With parameters of its own. @param conditions  numbers a map that it is told of
  /// @throws Error(usage) as flow_settings
  explicit Flow(const Config& config, int conditions = 0);
  /// Declares its parameters, NAME.…, or as above where NAME is empty, in a set that outlives it and is allocated
  /// afterwards.
  Flow(const FlowSettings& settings, nn::ParameterSet& set, const std::string& name);

  const nn::ParameterSet& parameters() const { return *parameters_; }
  /// nn::initialise, and random rotations.
  void initialise(std::uint64_t seed, nn::Initialisation scheme) const;

  const FlowSettings& settings() const { return settings_; }
  int levels() const { return settings_.levels; }
  int channels(int level) const { return level == 0 ? 4 : 2 * channels(level - 1); }
  int side_multiple() const { return 1 << settings_.levels; }
  float limit() const { return settings_.limit; }
  const std::vector<Step>& steps() const { return steps_; }
  /// The network of a level's steps (-1: at full resolution), of which each step has its own parameters.
  Conditioner conditioner(nn::ParameterSet& set, const std::string& name, int level) const;

 private:
  void declare(const std::string& scope);

  FlowSettings settings_;
  std::unique_ptr<nn::ParameterSet> own_;
  nn::ParameterSet* parameters_;
  std::vector<Step> steps_;
};

/// Runs a flow on batches of one size. What a map gives does not depend on the batch. Not safe to use from two threads
/// at a time.
class FlowRunner {
 public:
  enum class Memory {
    inference,  ///< no gradients
    stored,     ///< activations of all steps are kept for the way back
    constant    ///< they are computed again on the way back, from states that are too: memory does not grow with steps
  };
  /// @throws Error(usage) if the maps do not fit
  FlowRunner(const Flow& flow, Grid grid, int batch, Memory memory, nn::Options options = {});
  ~FlowRunner();

  /// Takes parameters from here on from `values`, flat as the flow's. To be called when they have changed.
  void use(const Space& space, const View1<float>& values);

  /// A batch of maps [batch, H, W, 1], in place.
  const Tensor& maps() const { return maps_; }
  /// What each map is conditional on, to be set before any of the below: [batch, 1, 1, conditions] and
  /// [batch, H, W, context].
  const Tensor& conditions() const { return conditions_; }
  const Tensor& context() const { return context_; }
  int batch() const { return batch_; }
  /// Maps become latent maps. @param log_determinant  [>= batch] float64, overwritten: of d latent / d map
  void forward(const Space& space, const View1<double>& log_determinant);
  /// Latent maps become maps.
  void inverse(const Space& space);

  /// After `forward`: gradients of all parameters and of the maps of a loss, given those of the latent maps, in
  /// gradients(), and of each log-determinant. `maps()` are the maps again, up to rounding.
  /// @param ready  called with falling element numbers of the flat gradient array: all from there on is final
  void backward(const Space& space, float dlog_determinant, const std::function<void(std::int64_t)>& ready = {});
  const Tensor& gradients() const { return map_gradients_; }

  double flops() const;
  /// Of activations and states, on the way there and back.
  double bytes() const;

 private:
  struct Level;
  struct Network;
  Network& network(std::size_t step);
  Level* level_of(const Flow::Step& step);
  void run_network(const Space& space, const Flow::Step& step, Network& network, const Activations& state);
  void spread(const Space& space, const Tensor& from, bool gradients);
  void gather(const Space& space, const Tensor& to, bool gradients);

  const Flow& flow_;
  int batch_;
  Memory memory_;
  nn::Options options_;
  Tensor maps_, map_gradients_, conditions_, context_;
  View1<float> values_;
  std::vector<std::unique_ptr<Level>> levels_;
  std::vector<std::unique_ptr<Network>> networks_;  ///< stored: of each step; else: of each level, first level -1
  std::vector<Mixing::Maps> mixings_;               ///< of each step
};

}  // namespace umbriel
