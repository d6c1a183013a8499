/// A variational autoencoder of maps (Kingma & Welling 2014, arXiv 1312.6114), as Thorne, Knox & Prabhu 2021 (arXiv
/// 2101.11181) use one for patches of Galactic dust: few latent variables z, an encoder that says how they are spread
/// given a map, q(z|x) = N(m(x), s(x)^2), and a decoder to the mean map given them, p(x|z) = N(g(z), sigma^2).
///
///   encoder  4 x 4 convolutions of stride 2, each with ReLU and norm; a dense layer with ReLU; a dense layer to the
///            means m and log-deviations ln s
///   decoder  a dense layer with ReLU to a small map, norm; 4 x 4 transposed convolutions of stride 2, each with ReLU
///            and norm; 1 x 1 to one channel
///
/// As published for 256 x 256 pixels, with 256 latent variables and batch norms, the decoder has 2,344,257 numbers, of
/// which 2,343,713 are trained and 544 are running moments.
///
/// What is made large is the evidence's lower bound,
///   ELBO = E_q[ln p(x|z)] - KL(q(z|x) | N(0, 1)),
/// and, apart from it, the likelihood of z under a flow (latent_flow.hpp) that nothing else learns from: draws of the
/// prior go through it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "umbriel/models/generative_model.hpp"
#include "umbriel/models/latent_flow.hpp"
#include "umbriel/models/map_task.hpp"
#include "umbriel/models/principal_components.hpp"
#include "umbriel/models/residual_model.hpp"
#include "umbriel/models/spectrum_filter.hpp"
#include "umbriel/nn/initialise.hpp"

namespace umbriel {

/// Log-deviations of q beyond these are taken to be these.
inline constexpr float least_log_deviation = -8.0f, most_log_deviation = 4.0f;

class Vae {
 public:
  /// Keys:
  ///   network.latent = 256            latent variables
  ///   network.encoder = [256, 128, 64]         channels of its convolutions
  ///   network.decoder = [128, 64, 32, 16]      channels of its transposed convolutions
  ///   network.base = 32               channels of the small map
  ///   network.dense = 1024            width of the encoder's dense layer
  ///   network.norm = "batch"          or "group": a map's own moments, over groups of 8 channels or all
  ///   network.deviation = 0.5         sigma, in the units of the transformed map, to begin with
  ///   network.learn_deviation = true  else it stays there
  ///   network.components = false      the networks only add to a linear encoder and decoder that stay as `begin_at`
  ///                                   set them; last layers start at zero
  ///   latent.flow = true              and keys of LatentFlow
  /// @throws Error(usage) for settings or sides of the map that do not fit
  Vae(const Config& config, Grid grid);

  const nn::ParameterSet& parameters() const { return parameters_; }
  Grid grid() const { return grid_; }
  int latent() const { return latent_; }
  bool batch_norm() const { return batch_norm_; }
  bool learns_deviation() const { return learns_deviation_; }
  /// sigma / exp of the parameter below.
  double first_deviation() const { return first_deviation_; }
  nn::ParameterId log_deviation() const { return log_deviation_; }
  bool has_components() const { return static_cast<bool>(vectors_); }
  /// Sets linear encoder and decoder, and the deviations of z and of pixels, to those of probabilistic PCA (Tipping &
  /// Bishop 1999, JRSS B 61, 611), where the ELBO of linear networks is largest. The rest is to be initialised before.
  /// @param found  `latent()` components of transformed maps
  void begin_at(const PrincipalComponents& found) const;
  /// Null without one.
  const LatentFlow* flow() const { return flow_.get(); }

  /// [N, H, W, 1] -> [N, 1, 1, 2 latent]: means, then log-deviations.
  nn::Value encode(nn::Tape& tape, nn::Value x) const;
  /// [N, 1, 1, latent] -> [N, H, W, 1]
  nn::Value decode(nn::Tape& tape, nn::Value z) const;

 private:
  struct Norm {
    std::unique_ptr<nn::BatchNorm> batch;
    std::unique_ptr<nn::GroupNorm> group;
    nn::Value operator()(nn::Tape& tape, nn::Value x) const { return batch ? (*batch)(tape, x) : (*group)(tape, x); }
  };
  struct Stage {
    nn::Convolution convolution;
    Norm norm;
  };
  Norm norm(const std::string& name, int channels);

  Grid grid_;
  int latent_ = 0, base_ = 0;
  bool batch_norm_ = true, learns_deviation_ = true;
  double first_deviation_ = 1;
  nn::ParameterSet parameters_;
  std::vector<Stage> encoder_, decoder_;
  nn::Dense dense_, statistics_, first_;
  Norm first_norm_;
  nn::Convolution last_;
  nn::ParameterId log_deviation_;
  nn::ParameterId vectors_;  ///< buffer [pixel of a quarter, latent]
  nn::ParameterId parities_, to_latent_, to_maps_;  ///< buffers [latent]
  std::unique_ptr<LatentFlow> flow_;
};

/// A VAE at work, on batches of at most `batch` maps. What a map gives does not depend on the batch.
class VaeRunner {
 public:
  VaeRunner(const Vae& vae, int batch, const nn::Options& options = {});

  int batch() const { return batch_; }
  Grid grid() const { return vae_.grid(); }
  /// Takes the VAE's parameters as they are now.
  void load(const Space& space);

  /// Statistics of n maps, valid until the next call: [batch, 1, 1, 2 latent], of which the first n count.
  /// @param fields  [>= n, H, W] transformed
  Activations encode(const Space& space, const MapBatch& fields, int n);
  /// [batch, 1, 1, latent]: to be written before each `decode`, which uses it up.
  Activations latent() const { return decoder_->value(z_); }
  /// latent() <- draws of the prior, given standard normal ones.
  /// @param u  [>= n, 1, latent]
  void from_base(const Space& space, const MapBatch& u, int n);
  /// Maps [batch, H, W] of latent(), valid until the next call.
  MapBatch decode(const Space& space);
  double flops_of_decoding() const { return decoder_->flops(); }

 private:
  const Vae& vae_;
  int batch_;
  std::unique_ptr<nn::Tape> encoder_, decoder_, flow_;
  nn::Value x_, statistics_, z_, map_, u_, flowed_;
};

/// Pixels of a batch that a processor makes at once: more would leave its cache.
inline constexpr std::int64_t vae_host_pixels = 256 * 256;

/// A trained VAE from its file.
struct TrainedVae {
  GenerativeModelRecord record;
  std::unique_ptr<Vae> vae;
  double deviation = 0;  ///< sigma
  std::optional<ResidualModel> residual;  ///< what the decoder leaves out, where the file says so
  std::optional<SpectrumFilter> filter;   ///< of generated fields, where it does

  /// @throws Error(input) for a file that is not one, Error(file_system)
  static TrainedVae load(const std::string& path);
};

/// latent[n] <- mean + deviation * normal for sample n of `statistics`. @param normals  [>= N, 1, latent]
void draw_latent(const Space& space, ConstActivations statistics, const MapBatch& normals, Activations latent);

/// Keys beside those of MapTask and Vae:
///   vae.beta = 1        factor of KL
///   vae.free_nats = 0   a latent variable's KL below this is not made smaller (Kingma et al. 2016, arXiv 1606.04934)
/// The default of field.transform is "standardised", not whitened; of train.batch 8.
///
/// The loss, and `nats` of the validation, is -ELBO / pixels of the transformed map, in nats a pixel, with beta = 1 and
/// all KL; beside it `rmse` of decoded maps, `kl` a map in nats, `sigma`, and with a flow `latent`, by how many nats a
/// latent variable the flow finds encoded maps likelier than the standard normal does.
class VaeTask final : public MapTask {
 public:
  /// Collective. @throws Error(usage)
  VaeTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options);

  const Vae& vae() const { return *vae_; }
  const nn::ParameterSet& parameters() const override { return vae_->parameters(); }
  /// Sets parameters to where training begins, components to those of the training maps.
  void initialise(std::uint64_t seed, nn::Initialisation scheme);
  std::vector<std::pair<std::string, double>> validate(const Space& space, const View1<float>& values) override;
  double flops() const override;
  double bytes() const override;
  double bytes_to_begin() const override;
  GenerativeModelRecord record() const;
  /// What the decoder with weights `values` leaves out of the validation maps; nothing without such maps.
  /// Collective.
  std::optional<ResidualModel> residual(const Space& space, const View1<float>& values);
  /// The filter that gives draws of the prior, with their residuals, the spectrum of the training maps. Collective.
  SpectrumFilter filter(const Space& space, const View1<float>& values, const ResidualModel& residual);

 protected:
  void step_of_part(const Space& space, const MapBatch& fields, const View1<double>& log_jacobian, std::int64_t first,
                    int total, const View1<double>& losses, const std::function<void(std::int64_t)>& ready) override;

 private:
  struct Step;
  void make_step();
  /// The VAE with other weights than those in training.
  const Vae& with(const View1<float>& values);

  std::string config_;
  nn::Options options_;
  double beta_, free_nats_;
  std::unique_ptr<Vae> vae_, validated_;  ///< the second holds other weights while it is validated
  std::shared_ptr<Step> step_;
};

/// Draws maps: decoded ones, with a draw of what the decoder leaves out. Keys:
///   generate.prior = "flow"    z from the flow, or "normal", as the VAE was trained; the default where it has no flow
///   generate.residual = true   false: decoded maps alone, means given z; the default where the file has no residual
///   generate.filter = true     false: with the spectrum that they have; the default where the file has no filter, and
///                              of maps that are not what it was fitted to: without residuals, or past the flow
/// @throws Error(usage) for "flow", residuals or a filter that the file does not have; as TrainedVae::load
std::unique_ptr<MapGenerator> make_vae_generator(const std::string& path, const Config& config,
                                                 const nn::Options& options);

}  // namespace umbriel
