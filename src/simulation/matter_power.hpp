/// Power spectrum of matter: linear and nonlinear. Wavenumbers in h/Mpc, power in (Mpc/h)^3.
///
/// Transfer function: the full fit, with acoustic oscillations, of Eisenstein & Hu 1998 (ApJ 496, 605), good to a few
/// per cent. Nonlinear: halofit as revised by Takahashi et al. 2012 (ApJ 761, 152, appendix), fitted to 5 % up to
/// k = 10 h/Mpc for z <= 3; the equation of state is w = -1 and neutrinos are massless.
#pragma once

#include <vector>

#include "umbriel/simulation/cosmology.hpp"

namespace umbriel {

/// What halofit needs to know of one redshift.
struct HalofitParameters {
  double growth_squared = 1;  ///< P_linear(k, z) / P_linear(k, 0)
  bool linear = false;        ///< nothing collapses yet (the nonlinear scale is below 1e-5 Mpc/h): P is the linear one
  double k_sigma = 0;         ///< [h/Mpc] where the variance of the Gaussian-filtered field is one; eq. A4
  double n_eff = 0, curvature = 0;  ///< slope and curvature of the spectrum there; eqs. A4, A5
  double a = 0, b = 0, c = 0, gamma = 0, alpha = 0, beta = 0, nu = 0;  ///< eqs. A6 to A13; mu = 0
  double f1 = 1, f2 = 1, f3 = 1;                                       ///< powers of Omega_m(z); eq. A14
};

class MatterPower {
 public:
  /// Precomputes normalisation and linear spectrum: a millisecond. @throws Error(usage) from Cosmology::check
  explicit MatterPower(const Cosmology& cosmology);

  const Cosmology& cosmology() const { return cosmology_; }

  /// Transfer function of Eisenstein & Hu 1998, eqs. 2 to 24; 1 at k -> 0. @param k  [h/Mpc], > 0
  double transfer(double k) const;
  /// Linear power [(Mpc/h)^3] at k [h/Mpc] and redshift z.
  double linear(double k, double z) const;
  /// Nonlinear power [(Mpc/h)^3]; for many k at one redshift take halofit(z) once and the overload below.
  double nonlinear(double k, double z) const { return nonlinear(k, halofit(z)); }
  double nonlinear(double k, const HalofitParameters& at) const;

  /// Halofit's parameters at redshift z.
  HalofitParameters halofit(double z) const;

  /// Standard deviation today of the linear density in spheres of `radius` [Mpc/h].
  double sigma(double radius) const;

 private:
  double linear_today(double k) const;

  /// Variance of the linear field today under exp(-(kR)^2/2) and its first two derivatives in ln R.
  struct FilteredVariance {
    double value, first, second;
  };
  FilteredVariance filtered_variance(double radius) const;

  Cosmology cosmology_;
  // Eisenstein & Hu's constants, with their names; wavenumbers in 1/Mpc.
  double k_equality_, sound_horizon_, k_silk_, alpha_c_, beta_c_, alpha_b_, beta_b_, beta_node_;
  double amplitude_ = 1;
  // k and the dimensionless linear power k^3 P / (2 pi^2) today on a grid of equal steps in ln k.
  std::vector<double> k_, power_;
};

}  // namespace umbriel
