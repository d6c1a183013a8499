/// Angular power spectra C_l and their value on the modes of a flat map.
#pragma once

#include <string>
#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel {

/// A tabulated spectrum: C_l in steradian (for a dimensionless field), linear between multipoles and constant beyond
/// the first and the last, as numpy.interp.
struct PowerSpectrum {
  std::vector<double> multipole;  ///< strictly increasing
  std::vector<double> value;      ///< >= 0

  /// @param where  for messages: the file or key the spectrum comes from
  /// @throws Error(input) unless the lengths agree, there is a value, the multipoles increase from >= 0, and all is
  ///         finite and >= 0
  PowerSpectrum(std::vector<double> multipoles, std::vector<double> values, const std::string& where = "");

  /// C_l at multipole l.
  double operator()(double l) const;
};

/// Reads a .npy array of shape (2, n), multipoles first, or a text file with two columns (l, C_l; '#' starts a
/// comment).
/// @throws Error(file_system), Error(input) as read_npy, and as the constructor of PowerSpectrum
PowerSpectrum read_power_spectrum(const std::string& path);

/// Variance of each discrete Fourier mode of a map, in the convention <|F_k|^2> = pixels * P(k) of an unnormalised
/// transform: P = C_l / pixel^2 with the pixel in radians, at l = 2 pi hypot(ky/H, kx/W) / pixel and signed ky.
///
/// P(0, 0) = 0: shear does not see the mean of the convergence, and umbriel pins it to zero.
/// @param pixel_arcmin  side of the square pixels
/// @return              [ky, kx], grid.height x grid.half_width(), evaluated in float64
/// @throws Error(input) for a pixel size that is not positive
HostView2<float> pixel_power(const PowerSpectrum& spectrum, Grid grid, double pixel_arcmin);

/// Standard deviation of a pixel of a map whose modes have such power. @param power  [H, W/2+1] as pixel_power
double pixel_standard_deviation(const HostView2<float>& power, Grid grid);

}  // namespace umbriel
