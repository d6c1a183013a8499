/// Batched 2-D Fourier transforms of real maps, by FFTW on hosts and cuFFT on NVIDIA devices.
///
/// forward:  F(ky, kx) = sum f(y, x) exp(-2 pi i (ky y / H + kx x / W)), kx = 0 ... W/2
/// inverse:  the same sum with +i over all modes; inverse(forward(f)) = H W f. Neither is scaled: callers fold
/// 1/sqrt(H W) into the kernel beside the transform.
///
/// Every map of a batch is transformed by the same plan, chosen without timing, so the bits do not depend on the batch,
/// the run or the rank.
#pragma once

#include <memory>

#include "umbriel/core/views.hpp"

namespace umbriel {

class RealFft {
 public:
  /// Plans for one grid; costs milliseconds. Copies share the plan. Not safe to use from two threads at a time.
  explicit RealFft(Grid grid);

  const Grid& grid() const;

  /// @param maps     [>= n, H, W], kept
  /// @param spectra  [>= n, H, W/2+1], overwritten
  void forward(const Space& space, const MapBatch& maps, const SpectrumBatch& spectra, int n) const;

  /// @param spectra  [>= n, H, W/2+1], destroyed; imaginary parts of self-conjugate modes are ignored
  /// @param maps     [>= n, H, W], overwritten
  void inverse(const Space& space, const SpectrumBatch& spectra, const MapBatch& maps, int n) const;

 private:
  struct Plans;
  std::shared_ptr<Plans> plans_;
};

namespace detail {

/// Backends write through pointers: arrays of another shape must not get that far.
inline void require_fft_shapes(Grid grid, const MapBatch& maps, const SpectrumBatch& spectra, int n) {
  const auto fits = [&](const auto& view, int width) {
    return n <= static_cast<int>(view.extent(0)) && grid.height == static_cast<int>(view.extent(1)) &&
           width == static_cast<int>(view.extent(2));
  };
  require(fits(maps, grid.width) && fits(spectra, grid.half_width()), ExitCode::usage,
          "maps or spectra do not have the shape of the Fourier transform");
}

}  // namespace detail

}  // namespace umbriel
