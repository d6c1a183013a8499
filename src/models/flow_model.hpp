/// A normalizing flow as a model of maps: training by maximum likelihood, and drawing.
///
/// loss = -ln p(x) / pixels for the transformed field x, in nats a pixel: 0.5 ln(2 pi e) = 1.419 for a field that its
/// transform has made white noise already. Reported for the maps themselves are `nats` = -ln p(kappa) / pixels with the
/// Jacobian of the transform (continuous data, no dequantisation), `bits` a pixel, and `gain`, by how many nats a pixel
/// this is below what the transform alone gives, with the latent map as white noise.
#pragma once

#include "umbriel/models/flow.hpp"
#include "umbriel/models/generative_model.hpp"
#include "umbriel/models/map_task.hpp"

namespace umbriel {

/// Keys beside those of MapTask and Flow:
///   train.constant_memory = false   compute activations again on the way back: memory does not grow with steps
class FlowTask final : public MapTask {
 public:
  /// Collective. @throws Error(usage)
  FlowTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options);

  const Flow& flow() const { return *flow_; }
  const nn::ParameterSet& parameters() const override { return flow_->parameters(); }
  std::vector<std::pair<std::string, double>> validate(const Space& space, const View1<float>& values) override;
  double flops() const override { return parts() * runner_->flops(); }
  double bytes() const override;
  GenerativeModelRecord record() const;

 protected:
  void step_of_part(const Space& space, const MapBatch& fields, const View1<double>& log_jacobian, std::int64_t first,
                    int total, const View1<double>& losses, const std::function<void(std::int64_t)>& ready) override;

 private:
  std::string config_;
  nn::Options options_;
  std::unique_ptr<Flow> flow_;
  std::unique_ptr<FlowRunner> runner_;
  View1<double> squares_, log_determinants_;
};

std::unique_ptr<MapGenerator> make_flow_generator(const std::string& path, const GenerativeModelRecord& record,
                                                  const nn::Options& options);

}  // namespace umbriel
