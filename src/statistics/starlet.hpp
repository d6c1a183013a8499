/// Starlet transform: isotropic undecimated wavelets of the B3 spline (Starck, Fadili & Murtagh 2007, IEEE Trans. Image
/// Process. 16, 297), and the statistics of its scales by Ajani et al. (2021, A&A 645, L11): peaks, and the l1-norm.
#pragma once

#include <vector>

#include "umbriel/statistics/map_statistics.hpp"

namespace umbriel {

/// Not safe to use from two threads at a time.
class Starlet {
 public:
  /// @param scales  wavelet scales j = 1 ... scales, of 2^j pixels each
  /// @throws Error(usage) for fewer than one, or a largest scale beyond the shorter side of the map
  Starlet(const Footprint& footprint, int scales);

  /// Wavelet scales and what is left, the map smoothed.
  int planes() const { return scales_ + 1; }
  /// w_j = c_(j-1) - c_j, c_0 the map, c_j = c_(j-1) smoothed along both axes by (1, 4, 6, 4, 1) / 16 at steps of
  /// 2^(j-1) pixels; the last plane is c_scales. The planes' sum is the map. An open border reflects: beyond the first
  /// pixel comes the second. Unobserved pixels are taken as 0.
  /// @param map  [y, x]
  /// @returns [plane, y, x], until the next call
  const std::vector<double>& transform(const double* map);

 private:
  void smooth(const double* from, int step, double* to);

  Footprint footprint_;
  int scales_;
  std::vector<double> planes_, along_x_;
};

/// Standard deviation in each plane, away from borders, of white noise of variance 1 that was smoothed by a Gaussian.
/// @param smoothing  its standard deviation in pixels, 0: none
std::vector<double> starlet_noise(int scales, double smoothing);

/// Sum of |value / unit| over the observed pixels in each bin of value / unit, [bin] (Ajani et al. 2021, eq. 5).
std::vector<double> l1_norm(const Footprint& footprint, const double* plane, const Bins& bins, double unit);

}  // namespace umbriel
