/// Single maps filtered in Fourier space, in float64 on the host: smoothing, and the rings of a bispectrum.
#pragma once

#include <complex>
#include <memory>
#include <vector>

#include "umbriel/fft/real_fft64.hpp"

namespace umbriel {

/// A real array over the modes k of the full plane, [ky, kx] of `grid`, from its values on the half plane: element
/// (y, x) is here(index of k) where kx <= W/2, else mirrored(index of -k).
template <class Here, class Mirrored>
void unfold(const Grid& grid, const Here& here, const Mirrored& mirrored, double* out) {
  const std::size_t width = static_cast<std::size_t>(grid.width), half = static_cast<std::size_t>(grid.half_width());
  const std::size_t height = static_cast<std::size_t>(grid.height);
  for (std::size_t ky = 0; ky < height; ++ky) {
    double* row = out + ky * width;
    for (std::size_t kx = 0; kx < half; ++kx) row[kx] = here(ky * half + kx);
    const std::size_t mirror = (height - ky) % height * half;
    for (std::size_t kx = half; kx < width; ++kx) row[kx] = mirrored(mirror + width - kx);
  }
}

/// Not safe to use from two threads at a time.
class FourierFilter {
 public:
  explicit FourierFilter(Grid grid) : grid_(grid), fft_(std::make_unique<RealFft64>(grid)) {}

  Grid grid() const { return grid_; }
  /// [y, x], to be filled in before `transform`; `filter` overwrites it.
  double* map() { return fft_->map(); }
  /// Keeps the transform of the map for `filter`.
  void transform() { modes_ = fft_->forward(); }
  /// The transform kept, [ky, kx] of the half plane; may be changed.
  std::vector<std::complex<double>>& modes() { return modes_; }

  /// out [y, x] = that map with each mode times gain(index in the half plane), which must be real and even in k.
  ///
  /// A forward transform does it: with F = A + iB, A even and B odd in k, the map is (1 / N) sum (A cos kx - B sin kx),
  /// which is real part plus imaginary part of the forward transform of A + B (Bracewell 1986, The Hartley Transform).
  template <class Gain>
  void filter(const Gain& gain, double* out) {
    unfold(
        grid_, [&](std::size_t at) { return gain(at) * (modes_[at].real() + modes_[at].imag()); },
        [&](std::size_t at) { return gain(at) * (modes_[at].real() - modes_[at].imag()); }, fft_->map());
    const std::vector<std::complex<double>>& g = fft_->forward();
    const double scale = 1 / static_cast<double>(grid_.pixels());
    unfold(
        grid_, [&](std::size_t at) { return scale * (g[at].real() + g[at].imag()); },
        [&](std::size_t at) { return scale * (g[at].real() - g[at].imag()); }, out);
  }

 private:
  Grid grid_;
  std::unique_ptr<RealFft64> fft_;
  std::vector<std::complex<double>> modes_;
};

}  // namespace umbriel
