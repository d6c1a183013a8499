/// Brings maps to where generative models learn: near to white noise of unit variance, by a map of their own that is
/// invertible and of known Jacobian.
///
///   u = ln(kappa + kappa0) - mean   "lognormal"; or u = kappa - mean, "linear"; or "standardised": each map less its
///                                   own mean, over its own standard deviation; or "standardised-lognormal", the
///                                   logarithm of such a map, shifted
///   x = F^-1[F[u] / sqrt(P)]        P(l) the power of u, both fitted to the training maps
///   ln |dx / dkappa| = - sum over pixels of ln(kappa + kappa0) - 1/2 sum over modes of ln P
///
/// A lognormal field whose maps are periodic is white noise then, exactly; what a model has to learn is how the field
/// differs from one. Not "whitened", P is one number, the variance of u.
///
/// A standardised map has lost its mean and deviation: the way back ends at the standardised map, and the Jacobian is
/// that from there on.
#pragma once

#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/core/loops.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/nn/safetensors.hpp"

namespace umbriel {

struct FieldTransformSettings {
  bool lognormal = true;
  bool standardised = false;
  double kappa0 = 0, mean = 0;
  double highest = 0;  ///< pixel of the maps that it was fitted to, standardised where maps are; 0: not known
  std::vector<double> multipole, power;  ///< power a mode of the orthonormal transform; between, linear in logarithms

  /// "lognormal", "linear", "standardised" or "standardised-lognormal"
  std::string name() const;

  /// @{ Of one pixel, where the transform is not whitened: x of a map, standardised where maps are; the map's value at
  /// x; and d map / d x there.
  double field_of(double map) const;
  double map_of(double field) const;
  double slope_at(double field) const;
  /// @}
};

/// Fits to maps.
///   field.transform = "lognormal"  or "linear", "standardised", "standardised-lognormal"
///   field.kappa0                   default: that of the largest likelihood of a lognormal field
///   field.whiten = true
/// @param maps      [n, H, W] on the host
/// @param defaults  of the two flags, where the model is another
/// @throws Error(usage); Error(input) for maps without variance, or below -kappa0
struct FieldTransformDefaults {
  const char* transform = "lognormal";
  bool whiten = true;
};
FieldTransformSettings fit_field_transform(const Config& config, const HostMaps& maps, double pixel_arcmin,
                                           FieldTransformDefaults defaults = {});

/// fields[i] <- (maps[i] - its mean) / its standard deviation, i < n; 0 for a constant map.
/// @param mean, deviation  [>= n] float64, overwritten
void standardise(const Space& space, const MapBatch& maps, int n, const MapBatch& fields, const View1<double>& mean,
                 const View1<double>& deviation, SumWorkspace& workspace);

class FieldTransform {
 public:
  FieldTransform(const FieldTransformSettings& settings, Grid grid, double pixel_arcmin);

  /// fields[i] <- transform of maps[i], i < n. Where a map reaches below -kappa0, as none of the training maps does, it
  /// is taken to be a thousandth of kappa0 above.
  /// @param log_jacobian  [>= n] float64, ln |dx / dkappa|
  void forward(const Space& space, const MapBatch& maps, int n, const MapBatch& fields,
               const View1<double>& log_jacobian);
  void inverse(const Space& space, const MapBatch& fields, int n, const MapBatch& maps);
  /// The gradient of a loss with respect to maps, given that of their fields and, the same for all, of log_jacobian. Not
  /// of standardised maps. @param dmaps  [>= n, H, W], overwritten
  void backward(const Space& space, const MapBatch& maps, int n, const MapBatch& dfields, float dlog_jacobian,
                const MapBatch& dmaps);
  /// fields[i] <- u in units of its standard deviation, i < n: the transform without whitening.
  void logarithm(const Space& space, const MapBatch& maps, int n, const MapBatch& fields) const;

 private:
  void filter(const Space& space, const MapBatch& from, int n, const View2<float>& factors, const MapBatch& to);

  FieldTransformSettings settings_;
  RealFft fft_;
  View2<float> whiten_, colour_;  ///< [ky, kx]
  double log_jacobian_ = 0;       ///< of the whitening
  double deviation_ = 0;          ///< of u
  SpectrumBatch spectra_;
  SumWorkspace sums_;
  View1<double> means_, deviations_;
};

}  // namespace umbriel
