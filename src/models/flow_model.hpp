/// A normalizing flow as a model of maps: training by maximum likelihood, and drawing.
///
/// loss = -ln p(x) / pixels for the transformed field x, in nats a pixel: 0.5 ln(2 pi e) = 1.419 for a field that its
/// transform has made white noise already. Reported for the maps themselves are `nats` = -ln p(kappa) / pixels with the
/// Jacobian of the transform, `bits` a pixel, and `gain`, by how many nats a pixel this is below what the transform
/// alone gives, with the latent map as white noise.
///
/// With dequantisation (dequantiser.hpp) maps are multiples of a step, and loss, nats and bits are upper bounds of
/// -ln P(map) / pixels.
#pragma once

#include "umbriel/models/dequantiser.hpp"
#include "umbriel/models/flow.hpp"
#include "umbriel/models/generative_model.hpp"
#include "umbriel/models/map_task.hpp"

namespace umbriel {

/// A flow with what dequantises the maps that it learns from, in one set of parameters.
struct FlowNetworks {
  /// @param conditions  parameters of maps
  /// @throws Error(usage)
  FlowNetworks(const Config& config, int conditions);
  FlowNetworks(const FlowNetworks&) = delete;
  FlowNetworks& operator=(const FlowNetworks&) = delete;

  DequantisationSettings dequantisation;
  nn::ParameterSet parameters;
  std::unique_ptr<Flow> couplings_in_cells;  ///< null but for variational dequantisation
  std::unique_ptr<Flow> flow;
};

/// Keys beside those of MapTask, Flow and dequantisation_settings:
///   train.constant_memory = false   compute activations again on the way back: memory does not grow with steps
class FlowTask final : public MapTask {
 public:
  /// Collective. @throws Error(usage)
  FlowTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options);

  const Flow& flow() const { return *networks_->flow; }
  const nn::ParameterSet& parameters() const override { return networks_->parameters; }
  std::vector<std::pair<std::string, double>> validate(const Space& space, const View1<float>& values) override;
  double flops() const override;
  double bytes() const override;
  GenerativeModelRecord record() const;

 protected:
  void step_of_part(const Space& space, const MapBatch& fields, const View1<double>& log_jacobian, std::int64_t first,
                    int total, const View1<double>& losses, const std::function<void(std::int64_t)>& ready) override;
  bool takes_fields() const override { return networks_->dequantisation.step == 0; }

 private:
  void set_noise_keys(std::uint32_t stream, std::int64_t first, int n);

  std::string config_;
  nn::Options options_;
  std::unique_ptr<FlowNetworks> networks_;
  std::unique_ptr<FlowRunner> runner_;
  std::unique_ptr<Dequantiser> dequantiser_;  ///< null for continuous maps
  View1<double> squares_, log_determinants_, jacobians_, log_densities_;
  MapBatch in_cells_, fields_;
  View1<DrawKey> keys_;
};

std::unique_ptr<MapGenerator> make_flow_generator(const std::string& path, const GenerativeModelRecord& record,
                                                  const nn::Options& options);

}  // namespace umbriel
