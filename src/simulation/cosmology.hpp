/// Flat Lambda-CDM background: expansion, distance, growth. Lengths in comoving Mpc/h.
///
/// Radiation and neutrino masses are left out of the expansion: at z < 5 they change distances by less than 0.1 %.
#pragma once

namespace umbriel {

/// Hubble length c / H0 in Mpc/h.
inline constexpr double hubble_length = 2997.92458;

/// The defaults are Planck 2015 (arXiv 1502.01589, table 4, last column).
struct Cosmology {
  double omega_m = 0.3089;  ///< all matter today, in units of the critical density
  double omega_b = 0.0486;  ///< baryons today
  double h = 0.6774;        ///< H0 / (100 km/s/Mpc)
  double n_s = 0.9667;      ///< slope of the primordial spectrum
  double sigma_8 = 0.8159;  ///< standard deviation of the linear density in spheres of 8 Mpc/h today

  /// @throws Error(usage) for a parameter that is not finite or outside the range the fits were made for
  void check() const;

  /// H(z) / H0.
  double expansion(double z) const;
  /// Omega_m at redshift z.
  double matter_fraction(double z) const;
  /// Comoving distance to redshift z >= 0 [Mpc/h], to 1e-10.
  double comoving_distance(double z) const;
  /// Linear growth factor D(z) with D(0) = 1: exact for matter and a cosmological constant (Heath 1977, MNRAS 179,
  /// 351).
  double growth(double z) const;
};

}  // namespace umbriel
