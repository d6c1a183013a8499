/// Gaussian and lognormal convergence maps on a periodic grid.
///
/// A lognormal field kappa = kappa0 (exp(g - var(g)/2) - 1) (Coles & Jones 1991, MNRAS 248, 1; for convergence,
/// Hilbert, Hartlap & Schneider 2011, arXiv 1105.3980) has mean zero, minimum -kappa0 and the correlation function
/// xi = kappa0^2 (exp(xi_g) - 1). So that maps have the spectrum asked for, the Gaussian field gets the spectrum of
/// xi_g = ln(1 + xi / kappa0^2), evaluated on the map's own grid. Modes where that spectrum is negative are set to
/// zero; `power` then says what spectrum the maps do have.
#pragma once

#include <cstdint>
#include <string>

#include "umbriel/core/views.hpp"
#include "umbriel/data/power_spectrum.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {

enum class FieldKind { gaussian, lognormal };

/// @throws Error(usage) unless `name` is "gaussian" or "lognormal"
FieldKind field_kind(const std::string& name);

class ConvergenceSimulator {
 public:
  /// @param spectrum      C_l of the convergence; its mode k = 0 is taken as zero
  /// @param pixel_arcmin  side of the square pixels
  /// @param kappa0        minus the smallest convergence of a lognormal map, > 0; unused for a Gaussian one
  /// @throws Error(usage) for kappa0 or a pixel that is not positive, or if kappa0 is too small for the spectrum
  ConvergenceSimulator(const PowerSpectrum& spectrum, Grid grid, double pixel_arcmin, FieldKind kind,
                       double kappa0 = 0.05);

  const Grid& grid() const { return grid_; }

  /// Fills out[i], i < n, with sample first_sample + i of `seed`. A sample is a pure function of seed and index.
  /// @param out  [>= n, y, x] convergence, overwritten
  void draw(std::uint64_t seed, std::uint32_t first_sample, int n, const MapBatch& out, const Space& space = Space());

  /// Expected power of each mode of a map, <|F|^2>/pixels, as pixel_power gives it: [ky, kx]. Equal to the input's but
  /// for clipped modes.
  const HostView2<float>& power() const { return power_; }
  /// Variance of a pixel: the sum of `power` over all modes, divided by the pixels.
  double variance() const { return variance_; }
  /// Power of the Gaussian field that was negative and set to zero, as a fraction of the power kept.
  double clipped_fraction() const { return clipped_fraction_; }

 private:
  Grid grid_;
  FieldKind kind_;
  float kappa0_;
  double half_gaussian_variance_ = 0;
  double variance_ = 0;
  double clipped_fraction_ = 0;
  HostView2<float> power_;
  View2<float> amplitude_;  ///< [ky, kx], what multiplies the transform of white noise: sqrt(P) / pixels
  RealFft fft_;
  View1<DrawKey> keys_;  ///< buffers of draw: one address a map
  SpectrumBatch spectra_;
};

}  // namespace umbriel
