/// Makes the mean power spectrum of maps that a model draws that of the maps which it was trained on.
///
/// Fields that a decoder's prior draws have the spectrum of fields. The maps that they stand for do not quite have that
/// of maps, where the transform is no line: of exponentials of Gaussian fields, small scales are too strong where maps
/// are bright. A factor t(l) takes that away,
///   u -> <u> + F^-1[t F[u - <u>]],
/// where F sees the field mirrored at its edges, so that there are no jumps, and t leaves the fields' variance as it
/// is.
#pragma once

#include <optional>
#include <vector>

#include "umbriel/models/field_transform.hpp"
#include "umbriel/mpi/communicator.hpp"
#include "umbriel/nn/safetensors.hpp"

namespace umbriel {

struct SpectrumFilter {
  std::vector<double> multipole, factor;  ///< t, linear between the multipoles, constant beyond

  /// umbriel.generate.filter, lines "multipole factor".
  void record(nn::Metadata& metadata) const;
  /// Nothing where the metadata have no such entry. @throws Error(input) where it is no table
  static std::optional<SpectrumFilter> from(const nn::Metadata& metadata, const std::string& path);
};

/// It at work.
class MirroredFilter {
 public:
  /// @param batch  fields at once, at most
  MirroredFilter(const SpectrumFilter& filter, Grid grid, double pixel_arcmin, int batch);

  /// to[i] <- filtered from[i], i < n <= batch, all [>= n, H, W]. `to` may be `from`.
  void apply(const Space& space, int n, const MapBatch& from, const MapBatch& to);

 private:
  Grid grid_;
  RealFft wide_;  ///< of twice the sides
  View2<float> factors_;
  View1<double> means_;
  MapBatch maps_;
  SpectrumBatch spectra_;
  SumWorkspace sums_;
};

/// Fits it, the same for any number of ranks: t in bands as wide as the lowest multipole, or a fifth of theirs where
/// that is more, from 1/2 to 2 before its last scaling, in a few rounds. Spectra are means over maps, each standardised,
/// and faded out towards the edges over an eighth of each side. Collective.
/// @param transform  from maps to fields
/// @param drawn      [n, H, W] this rank's share of the drawn fields; n may be 0
/// @param real       [m, H, W] fields of the training maps, the same on all ranks
SpectrumFilter fit_spectrum_filter(const Communicator& comm, const Space& space, FieldTransform& transform, Grid grid,
                                   double pixel_arcmin, const MapBatch& drawn, const MapBatch& real);

}  // namespace umbriel
