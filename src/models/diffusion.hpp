/// Diffusion models of maps (Ho, Jain & Abbeel 2020, arXiv 2006.11239), on transformed fields x0 of unit variance.
///
/// Noise is mixed in along an angle phi from 0 to at most 90 degrees, with alpha-bar = cos^2 phi:
///
///   x = cos(phi) x0 + sin(phi) noise          and       v = dx / dphi = cos(phi) noise - sin(phi) x0
///
/// A network learns the noise, the map x0, or the velocity v (Salimans & Ho 2022, arXiv 2202.00512). For a white
/// Gaussian field the best v is zero: on whitened fields (FieldTransform), and with a last layer that starts at zero,
/// an untrained velocity network is the exact model of a lognormal field, and its loss is 1.
#pragma once

#include <string>
#include <vector>

#include "umbriel/models/generative_model.hpp"
#include "umbriel/models/map_task.hpp"
#include "umbriel/models/network.hpp"
#include "umbriel/nn/frozen.hpp"

namespace umbriel {

struct DiffusionSettings {
  enum class Prediction { velocity, noise, map } prediction = Prediction::velocity;
  bool absolute_loss = false;   ///< |error| in place of its square
  std::vector<double> cosines;  ///< cos(phi) of times 1 ... T, falling
};

/// Keys:
///   diffusion.prediction = "velocity"   or "noise", "map"
///   diffusion.loss = "l2"               or "l1"
///   diffusion.schedule = "cosine"       (Nichol & Dhariwal 2021, arXiv 2102.09672), or "linear" in the variance added
///   diffusion.times = 300               T
///   diffusion.beta_first = 1e-4, diffusion.beta_last = 0.02   of the linear schedule
///   diffusion.zero_terminal             cosines are moved so that nothing of the map is left at T (Lin et al. 2024,
///                                       arXiv 2305.08891): as published, the linear schedule leaves cos(phi) = 0.22.
///                                       Default true; false with noise, which says nothing of the map there
/// @throws Error(usage)
DiffusionSettings diffusion_settings(const Config& config);

/// Parameters of maps, where they have any, enter the U-Net's embedding beside the noise level.
///
/// Keys beside those of MapTask and diffusion_settings: network.* as of the score U-Net. Validation gives `loss`, the
/// mean over eight times of the squared error of the velocity, whatever is predicted.
class DiffusionTask final : public MapTask {
 public:
  /// Collective. @throws Error(usage)
  DiffusionTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options);

  const nn::ParameterSet& parameters() const override { return network_->parameters(); }
  std::vector<std::pair<std::string, double>> validate(const Space& space, const View1<float>& values) override;
  double flops() const override { return 3 * parts() * tape_->flops(); }
  double bytes() const override;
  GenerativeModelRecord record() const;

 protected:
  void step_of_part(const Space& space, const MapBatch& fields, const View1<double>& log_jacobian, std::int64_t first,
                    int total, const View1<double>& losses, const std::function<void(std::int64_t)>& ready) override;

 private:
  void draw_noise(const Space& space, std::uint32_t stream, std::int64_t first, int n);

  DiffusionSettings settings_;
  std::string config_;
  nn::Options options_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<nn::Tape> tape_;
  nn::Value input_, output_;
  std::vector<nn::Scalars> scalars_;  // of the noise level, then the conditions
  bool planned_ = false;
  MapBatch noise_;
  View1<DrawKey> keys_;
  View1<float> cosines_, levels_;
  SumWorkspace sums_;
};

/// Keys:
///   generate.sampler = "ode"        the probability flow dx/dphi = v by Heun's rule, two evaluations a step: exact, for
///                                   any number of steps, where v = 0; or "ddim": steps for a constant map (Song, Meng &
///                                   Ermon 2021, arXiv 2010.02502), which lose 1 - cos(step) of the field's deviation in
///                                   each; or "ancestral": noise is added at each step
///   generate.steps                  out of T: 25 for "ode", 50 for "ddim", T for "ancestral"
///   generate.clamp = 0              x0 is kept within +- this many standard deviations at each step; 0: not. It makes
///                                   peaks lower than they are
/// @throws Error(usage), Error(input), Error(file_system)
std::unique_ptr<MapGenerator> make_diffusion_generator(const std::string& path, const GenerativeModelRecord& record,
                                                       const Config& config, const nn::Options& options);

}  // namespace umbriel
