/// A made-up sky of Galactic dust, to try things out with: filaments, a bright plane, and the spectrum of the real one.
/// It is no model of the interstellar medium.
///
///   I(l, b) = I_pole / sin|b| * exp(s g - s^2 / 2) * (1 + a sum_k exp(-d_k^2 / 2 w_k^2)) / (its mean)
///
/// g is a Gaussian field of unit variance whose spectrum is a power law. Filaments are the lines where Gaussian fields
/// h_k of narrow bands, about l_k = 16, 48, 144, ..., are zero: d_k = |h_k| / |grad h_k| is the distance to them, and
/// w_k = 0.15 / l_k their width. sin|b| goes over into a plane 3 degrees thick.
#pragma once

#include <cstdint>
#include <vector>

namespace umbriel {

struct DustOptions {
  int nside = 512;
  double slope = -2.7;     ///< of the spectrum of g: C_l ~ l^slope
  double contrast = 0.9;   ///< s: standard deviation of ln I from g
  double filaments = 1.5;  ///< a: strength of the filaments; 0: none
  double pole = 1;         ///< mean intensity at the Galactic poles, MJy/sr
};

/// Intensity in MJy/sr of a sky in RING order, [12 nside^2]; a function of the seed alone.
/// @throws Error(input) for an nside that HEALPix does not have
std::vector<float> simulate_dust(const DustOptions& options, std::uint64_t seed);

}  // namespace umbriel
