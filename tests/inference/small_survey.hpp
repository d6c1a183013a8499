// A small masked survey with uneven noise, and random states: what the tests of this folder share.
#pragma once

#include <cmath>

#include "umbriel/inference/convergence_posterior.hpp"
#include "umbriel/inference/spectra.hpp"

namespace umbriel::testing {

/// Shear of unit-scale noise, noise between 0.1 and 0.3, holes of an eighth of the pixels; `full` leaves no hole and
/// makes the noise 0.2 everywhere.
inline Survey small_survey(Grid grid, bool full = false) {
  Survey survey;
  survey.grid = grid;
  survey.pixel_arcmin = 0.5;
  survey.shear = HostMaps("shear", 2, grid.height, grid.width);
  survey.noise = HostMaps("noise", 2, grid.height, grid.width);
  survey.mask = HostMaps("mask", 1, grid.height, grid.width);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      const bool hole =
          !full && (x - grid.width / 3) * (x - grid.width / 3) + (y - grid.height / 2) * (y - grid.height / 2) <
                       grid.height * grid.width / 24;
      survey.mask(0, y, x) = hole ? 0.0f : 1.0f;
      for (int c = 0; c < 2; ++c) {
        const auto element = static_cast<std::uint64_t>((c * grid.height + y) * grid.width + x);
        survey.shear(c, y, x) = hole ? 0.0f : 0.3f * normal({7, Purpose::test, 0, 0}, element);
        const double draw = uniform({7, Purpose::test, 1, 0}, element);
        survey.noise(c, y, x) = hole ? 0.0f : full ? 0.2f : static_cast<float>(0.1 + 0.2 * draw);
      }
    }
  }
  return survey;
}

/// A red spectrum: P from `top` to a hundredth of it, pinned at k = 0.
inline HostView2<float> red_power(Grid grid, double top = 0.1) {
  HostView2<float> power("power", grid.height, grid.half_width());
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      const double fy = std::min(ky, grid.height - ky) / static_cast<double>(grid.height);
      const double fx = kx / static_cast<double>(grid.width);
      const double k = std::hypot(fx, fy);
      power(ky, kx) = ky == 0 && kx == 0 ? 0.0f : static_cast<float>(top / (1 + 200 * k * k));
    }
  }
  return power;
}

/// A flat spectrum, pinned at k = 0.
inline HostView2<float> white_power(Grid grid, double power) {
  HostView2<float> flat("power", grid.height, grid.half_width());
  Kokkos::deep_copy(flat, static_cast<float>(power));
  flat(0, 0) = 0;
  return flat;
}

/// n random states scaled by `scale`, spectra of real fields without mean.
inline SpectrumBatch random_states(const RealFft& fft, int n, float scale, std::uint32_t stream) {
  const Grid grid = fft.grid();
  SpectrumBatch states("states", n, grid.height, grid.half_width());
  const MapBatch scratch("scratch", n, grid.height, grid.width);
  std::vector<DrawKey> keys;
  for (int i = 0; i < n; ++i) keys.push_back({11, Purpose::test, static_cast<std::uint32_t>(i), stream});
  white_noise(Space(), fft, keys, scratch, states);
  const auto host = on_host(states);
  for (int i = 0; i < n; ++i) {
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx)
        host(i, ky, kx) = ky == 0 && kx == 0 ? Complex(0, 0)
                                             : Complex(scale * host(i, ky, kx).real(), scale * host(i, ky, kx).imag());
    }
  }
  Kokkos::deep_copy(states, host);
  return states;
}

/// <a, b> over all maps of two batches.
inline double dot(Grid grid, int n, const SpectrumBatch& a, const SpectrumBatch& b) {
  const View1<double> out("out", n);
  inner_product(Space(), grid, n, a, b, SumWorkspace(n, grid.height), out);
  double total = 0;
  for (const double v : download(out, static_cast<std::size_t>(n))) total += v;
  return total;
}

/// a + factor b.
inline SpectrumBatch combined(int n, Grid grid, const SpectrumBatch& a, float factor, const SpectrumBatch& b) {
  SpectrumBatch out("combined", n, grid.height, grid.half_width());
  const auto x = on_host(a), y = on_host(b);
  const auto host = Kokkos::create_mirror_view(out);
  for (int i = 0; i < n; ++i) {
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx)
        host(i, ky, kx) = Complex(x(i, ky, kx).real() + factor * y(i, ky, kx).real(),
                                  x(i, ky, kx).imag() + factor * y(i, ky, kx).imag());
    }
  }
  Kokkos::deep_copy(out, host);
  return out;
}

}  // namespace umbriel::testing
