/// What a decoder leaves out of maps, as a Gaussian field: small scales above all, and more of them where a map is
/// bright.
///
///   x = g(z) + c h(g(z)) rho   rho stationary, with the power spectrum P(l), and h(g) the residual's standard
///                              deviation where the decoded map has the value g
///   ln c = a + b q(z) + s e    an amplitude of each map's own: q is ln rms of the last octave of latent variables, as
///                              maps that are rough at one scale are so at others, and e standard normal
///
/// They are measured from residuals x - g(z) of maps that were not trained on, with z drawn from q(z|x), as the ELBO
/// has it: so decoded maps of the prior and residuals vary together as maps do.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "umbriel/core/views.hpp"
#include "umbriel/mpi/communicator.hpp"
#include "umbriel/nn/safetensors.hpp"
#include "umbriel/simulation/stationary_field.hpp"

namespace umbriel {

class Vae;
class VaeRunner;

struct ResidualModel {
  std::vector<double> value, deviation;  ///< h, linear between the values, constant beyond
  std::vector<double> multipole, power;  ///< P a mode of an orthonormal transform, from multipole 0 on

  double offset = 0, slope = 0, spread = 0;  ///< a, b, s

  double deviation_at(double decoded) const;
  /// a + b q of latent variables [latent].
  double log_amplitude(const std::vector<float>& latent) const;

  /// umbriel.residual.deviation, lines "value deviation", umbriel.residual.power, lines "multipole power", and
  /// umbriel.residual.amplitude, "offset slope spread", which may be missing: c is 1 then.
  void record(nn::Metadata& metadata) const;
  /// Nothing where the metadata have no such entries. @throws Error(input) where they are no tables
  static std::optional<ResidualModel> from(const nn::Metadata& metadata, const std::string& path);
};

/// Draws of it, for maps that a decoder makes.
class ResidualDraws {
 public:
  /// @param batch  maps at once, at most
  ResidualDraws(const ResidualModel& model, Grid grid, double pixel_arcmin, int batch);

  /// maps[i] += c h(maps[i]) rho, i < n <= batch, [>= n, H, W], with the draw rho of stream keys(i), and e of that of
  /// the next step. @param latent  [>= n, 1, latent] z of the maps
  void add(const Space& space, const View1<DrawKey>& keys, int n, const MapBatch& latent, const MapBatch& maps);

 private:
  Grid grid_;
  StationaryField rho_;
  double offset_, slope_, spread_;
  View1<float> value_, deviation_, amplitude_;
  MapBatch draws_;
};

/// Calls what it is given for maps of this rank, as the autoencoder takes them, [1, H, W], each with a number of its
/// own; the same maps each time.
using EachMap = std::function<void(const std::function<void(const MapBatch& map, std::int64_t number)>&)>;

/// Measures it, the same for any number of ranks. Transforms take maps to be periodic, and they are not: residuals are
/// faded out towards the edges, by sin^2 along each side. Collective.
/// @param runner  of `vae`, one map at a time, loaded
/// @throws Error(input) if there is no map
ResidualModel measure_residual(const Communicator& comm, const Space& space, const Vae& vae, VaeRunner& runner,
                               double pixel_arcmin, std::uint64_t seed, const EachMap& each_map);

}  // namespace umbriel
