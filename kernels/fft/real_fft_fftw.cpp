// Real transforms through FFTW's complex ones.
//
// A row of W real pixels, read as W/2 complex numbers, needs a complex transform of half the length and one pass that
// separates the even from the odd pixels (Press et al., Numerical Recipes, "FFT of real functions"):
//   Z(k) = E(k) + i O(k),  F(k) = E(k) + w^k O(k),  F(W/2 - k) = conj(E(k) - w^k O(k)),  w = exp(-2 pi i / W).
// Maps pass through a transposed array [kx, y], so that the separation runs along contiguous y and both transforms read
// or write contiguous lines.
//
// Plans are FFTW_ESTIMATE on purpose: measured plans differ from run to run, and with them the last bits of every
// result. FFTW's own real transforms lose half their speed without measuring (its choice of real codelets and of
// in-place columns), and half again with FFTW_UNALIGNED; this arrangement reaches the speed of measured plans. On an
// AMD EPYC with AVX-512, FFTW 3.3.10, forward and inverse in milliseconds:
//                                              64      128     256     320     360     512
//   FFTW real 2-D, estimated, unaligned       0.018   0.069   0.372   0.605   0.956   1.558
//   FFTW real 2-D, estimated, aligned         0.011   0.052   0.153   0.275   0.582   0.686
//   FFTW real 2-D, measured, aligned          0.009   0.032   0.136   0.211   0.347   0.589
//   this file                                 0.005   0.020   0.092   0.189   0.368   0.509
#include <fftw3.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include "umbriel/core/loops.hpp"
#include "umbriel/fft/real_fft.hpp"

namespace umbriel {
namespace {

fftwf_complex* fftw(Complex* data) { return reinterpret_cast<fftwf_complex*>(data); }
/// Maps are read only; FFTW's interface has no const.
fftwf_complex* pairs(float* data) { return reinterpret_cast<fftwf_complex*>(data); }

/// Lines k and W/2 - k of Z [kx, y], in place, become those of F. `mirror` is the line Z(W/2 - k) comes from: W/2 - k
/// itself, but 0 for k = 0.
void separate(Complex* low, const Complex* mirror, Complex* high, int height, float cosine, float sine) {
  UMBRIEL_INDEPENDENT_ITERATIONS
  for (int y = 0; y < height; ++y) {
    const float ar = low[y].real(), ai = low[y].imag(), br = mirror[y].real(), bi = -mirror[y].imag();
    const float er = 0.5f * (ar + br), ei = 0.5f * (ai + bi);
    const float odd_r = 0.5f * (ai - bi), odd_i = 0.5f * (br - ar);
    const float tr = cosine * odd_r + sine * odd_i, ti = cosine * odd_i - sine * odd_r;
    low[y] = Complex(er + tr, ei + ti);
    high[y] = Complex(er - tr, ti - ei);
  }
}

/// The way back, twice: lines k and W/2 - k of F become 2 Z. `keep` 0 ignores imaginary parts (k = 0, whose line and
/// Nyquist's are real).
void combine(Complex* low, Complex* high, int height, float cosine, float sine, float keep) {
  UMBRIEL_INDEPENDENT_ITERATIONS
  for (int y = 0; y < height; ++y) {
    const float ar = low[y].real(), ai = keep * low[y].imag(), br = high[y].real(), bi = -keep * high[y].imag();
    const float er = ar + br, ei = ai + bi, dr = ar - br, di = ai - bi;
    const float tr = -(cosine * di + sine * dr), ti = cosine * dr - sine * di;
    low[y] = Complex(er + tr, ei + ti);
    high[y] = Complex(er - tr, ti - ei);
  }
}

}  // namespace

struct RealFft::Plans {
  Grid grid;
  bool even;     // an even width; else FFTW's real transforms
  int half;      // W / 2
  int line;      // elements between lines of the transposed array
  bool aligned;  // maps of a batch follow each other without padding: whether each is aligned is a matter of the grid
  fftwf_plan forward_rows = nullptr, forward_columns = nullptr;  // odd width: the whole transform is `_rows`
  fftwf_plan inverse_rows = nullptr, inverse_columns = nullptr;
  View2<Complex> scratch;           // [thread, (W/2 + 1) line]
  std::vector<float> cosine, sine;  // of 2 pi k / W

  explicit Plans(Grid g) : grid(g), even(g.width % 2 == 0), half(g.width / 2) {
    const std::string size = std::to_string(grid.height) + " x " + std::to_string(grid.width);
    require(grid.height > 0 && grid.width > 0, ExitCode::usage,
            "a Fourier transform needs a grid of at least one pixel", size);
    // An odd number of cache lines, so that a column of the transposed array does not fall into few sets of the cache.
    line = ((grid.height + 7) / 8 | 1) * 8;
    scratch = View2<Complex>("umbriel::fft_scratch", std::max(1, Space().concurrency()), (half + 1) * line);
    for (int k = 0; k <= half; ++k) {
      cosine.push_back(static_cast<float>(std::cos(2 * std::numbers::pi * k / grid.width)));
      sine.push_back(static_cast<float>(std::sin(2 * std::numbers::pi * k / grid.width)));
    }
    MapBatch map("plan map", 1, grid.height, grid.width);
    SpectrumBatch spectrum("plan spectrum", 1, grid.height, grid.half_width());
    aligned = grid.pixels() % 4 == 0 && grid.modes() % 2 == 0;
    const unsigned flags = aligned ? FFTW_ESTIMATE : FFTW_ESTIMATE | FFTW_UNALIGNED;
    const int height = grid.height, columns = grid.half_width();
    if (even) {
      fftwf_complex *pixels = pairs(map.data()), *modes = fftw(spectrum.data()), *lines = fftw(scratch.data());
      forward_rows = fftwf_plan_many_dft(1, &half, height, pixels, nullptr, 1, half, lines, nullptr, line, 1,
                                         FFTW_FORWARD, flags | FFTW_PRESERVE_INPUT);
      forward_columns = fftwf_plan_many_dft(1, &height, columns, lines, nullptr, 1, line, modes, nullptr, columns, 1,
                                            FFTW_FORWARD, flags);
      inverse_columns = fftwf_plan_many_dft(1, &height, columns, modes, nullptr, columns, 1, lines, nullptr, 1, line,
                                            FFTW_BACKWARD, flags);
      inverse_rows = fftwf_plan_many_dft(1, &half, height, lines, nullptr, line, 1, pixels, nullptr, 1, half,
                                         FFTW_BACKWARD, flags);
    } else {
      forward_rows =
          fftwf_plan_dft_r2c_2d(height, grid.width, map.data(), fftw(spectrum.data()), flags | FFTW_PRESERVE_INPUT);
      inverse_rows = fftwf_plan_dft_c2r_2d(height, grid.width, fftw(spectrum.data()), map.data(), flags);
    }
    require(forward_rows != nullptr && inverse_rows != nullptr && (!even || (forward_columns && inverse_columns)),
            ExitCode::numerical, "FFTW could not plan a transform", size);
  }
  ~Plans() {
    for (const fftwf_plan plan : {forward_rows, forward_columns, inverse_rows, inverse_columns}) {
      if (plan != nullptr) fftwf_destroy_plan(plan);
    }
  }
  Plans(const Plans&) = delete;
  Plans& operator=(const Plans&) = delete;

  void forward(float* map, Complex* spectrum, Complex* lines) const {
    if (!even) return fftwf_execute_dft_r2c(forward_rows, map, fftw(spectrum));
    fftwf_execute_dft(forward_rows, pairs(map), fftw(lines));
    for (int k = 0; 2 * k <= half; ++k) {
      separate(lines + k * line, lines + (half - k) % half * line, lines + (half - k) * line, grid.height, cosine[k],
               sine[k]);
    }
    fftwf_execute_dft(forward_columns, fftw(lines), fftw(spectrum));
  }

  void inverse(Complex* spectrum, float* map, Complex* lines) const {
    if (!even) return fftwf_execute_dft_c2r(inverse_rows, fftw(spectrum), map);
    fftwf_execute_dft(inverse_columns, fftw(spectrum), fftw(lines));
    for (int k = 0; 2 * k <= half; ++k) {
      combine(lines + k * line, lines + (half - k) * line, grid.height, cosine[k], sine[k], k == 0 ? 0.0f : 1.0f);
    }
    fftwf_execute_dft(inverse_rows, fftw(lines), pairs(map));
  }

  /// Calls transform(i, scratch) for n maps, shared out among threads; a map is the work of one thread.
  template <class Transform>
  void each_map(const Space& space, int n, const Transform& transform) const {
    const int threads = std::min(n, static_cast<int>(scratch.extent(0)));
    Complex* lines = scratch.data();
    const std::size_t size = scratch.extent(1);
    Kokkos::parallel_for("umbriel::fft", Kokkos::RangePolicy<Space>(space, 0, threads), [=](const int thread) {
      for (int i = thread; i < n; i += threads) transform(i, lines + thread * size);
    });
    space.fence();
  }

  /// The plans were made for addresses that are multiples of 16 bytes, as Kokkos gives them out.
  void require_aligned(const float* maps, const Complex* spectra) const {
    const auto multiple = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
    require(!aligned || (multiple(maps) && multiple(spectra)), ExitCode::usage,
            "a Fourier transform got maps that do not begin on a multiple of 16 bytes");
  }
};

RealFft::RealFft(Grid grid) : plans_(std::make_shared<Plans>(grid)) {}

const Grid& RealFft::grid() const { return plans_->grid; }

void RealFft::forward(const Space& space, const MapBatch& maps, const SpectrumBatch& spectra, int n) const {
  if (n <= 0) return;
  const Plans& plans = *plans_;
  detail::require_fft_shapes(plans.grid, maps, spectra, n);
  plans.require_aligned(maps.data(), spectra.data());
  plans.each_map(space, n, [&plans, map = maps.data(), spectrum = spectra.data()](int i, Complex* lines) {
    plans.forward(map + i * plans.grid.pixels(), spectrum + i * plans.grid.modes(), lines);
  });
}

void RealFft::inverse(const Space& space, const SpectrumBatch& spectra, const MapBatch& maps, int n) const {
  if (n <= 0) return;
  const Plans& plans = *plans_;
  detail::require_fft_shapes(plans.grid, maps, spectra, n);
  plans.require_aligned(maps.data(), spectra.data());
  plans.each_map(space, n, [&plans, map = maps.data(), spectrum = spectra.data()](int i, Complex* lines) {
    plans.inverse(spectrum + i * plans.grid.modes(), map + i * plans.grid.pixels(), lines);
  });
}

}  // namespace umbriel
