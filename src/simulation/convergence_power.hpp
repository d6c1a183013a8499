/// Angular power spectrum of the convergence from theory, for sources at one redshift or with a distribution.
///
/// Limber's approximation on a flat universe and sky (Kilbinger 2015, arXiv 1411.0115, eqs. 20 and 23):
///   C_l = (9/4) omega_m^2 (H0/c)^4 int dchi (g(chi)/a)^2 P(k, z(chi)),   g(chi) = int_chi dchi' n(chi') (1 - chi/chi')
/// with k = (l + 1/2)/chi, the choice whose error is of second order in 1/l (LoVerde & Afshordi 2008, arXiv 0809.5112).
/// The factor l^2 (l+1)^2 / (l+1/2)^4 that the exact lensing potential brings is left out: 0.5 % at l = 10, 0.02 % at
/// l = 50, and a flat map has no use for it.
#pragma once

#include <string>
#include <vector>

#include "umbriel/data/power_spectrum.hpp"
#include "umbriel/simulation/cosmology.hpp"

namespace umbriel {

/// Redshift distribution of the lensed galaxies: linear between the points of a table, zero outside; or one plane.
struct SourceDistribution {
  std::vector<double> redshift;  ///< rising, >= 0; a single one is a plane
  std::vector<double> density;   ///< galaxies per unit redshift, in any unit; of a plane: one positive number

  /// All sources at redshift z_s > 0.
  static SourceDistribution plane(double z_s);
  /// Text file of two columns, redshift and density; '#' opens a comment.
  /// @throws Error(file_system) if it cannot be read, Error(input) with the line that is no pair of numbers
  static SourceDistribution read(const std::string& path);

  /// @throws Error(input) for lengths that differ, redshifts that do not rise, negative or vanishing density
  void check(const std::string& name) const;
};

/// C_l at each of `multipoles` (positive, rising): a few hundredths of a second.
/// @throws Error(usage) for a bad cosmology or multipole, Error(input) for a bad distribution
PowerSpectrum convergence_power(const Cosmology& cosmology, const SourceDistribution& sources,
                                const std::vector<double>& multipoles);

}  // namespace umbriel
