/// Two-dimensional Fourier transforms of single real maps in float64, on the host whatever the device: for statistics
/// that are held against other programs' to more digits than float32 has. Maps on the device go through RealFft.
#pragma once

#include <complex>
#include <memory>
#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel {

class RealFft64 {
 public:
  /// Chosen without timing, so the bits are those of every other run. Not safe to use from two threads at a time.
  /// @throws Error(numerical) if no transform of that size can be planned
  explicit RealFft64(Grid grid);
  ~RealFft64();

  /// [H, W], to be filled in before `forward`, which keeps it.
  double* map();
  /// F(ky, kx) = sum f(y, x) exp(-2 pi i (ky y / H + kx x / W)), [H, W/2+1], kx = 0 ... W/2, until the next call.
  const std::vector<std::complex<double>>& forward();

  /// What `forward` found, to be changed or filled in before `inverse`, which uses it up.
  std::vector<std::complex<double>>& modes();
  /// map() <- the same sum with +i over all modes: H W f after `forward`.
  void inverse();

 private:
  struct Plan;
  std::unique_ptr<Plan> plan_;
};

}  // namespace umbriel
