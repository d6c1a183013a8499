// Power in multipole bands: counts of modes, single modes, white noise, cross-power, choice of bands.
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include "umbriel/fft/real_fft.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

constexpr double pixel_arcmin = 1.5;
constexpr double pixel = pixel_arcmin / 60 * std::numbers::pi / 180;

const std::vector<Grid> grids = {{16, 16}, {15, 15}, {12, 20}, {21, 10}, {9, 32}, {33, 7}};

/// |l| of mode (ky, kx), kx = 0 ... width - 1, straight from the definition on the whole plane.
double multipole_of(Grid grid, int ky, int kx) {
  const double y = ky > grid.height / 2 ? ky - grid.height : ky, x = kx > grid.width / 2 ? kx - grid.width : kx;
  return 2 * std::numbers::pi * std::hypot(y / (grid.height * pixel), x / (grid.width * pixel));
}

SpectrumBatch spectra_of(const RealFft& fft, const MapBatch& maps, int n) {
  const Grid grid = fft.grid();
  const SpectrumBatch spectra("spectra", n, grid.height, grid.half_width());
  fft.forward(Space(), maps, spectra, n);
  return spectra;
}

MapBatch normal_maps(int n, Grid grid, std::uint64_t seed) {
  const MapBatch maps("maps", n, grid.height, grid.width);
  HostView1<DrawKey> keys("keys", n);
  for (int i = 0; i < n; ++i) keys(i) = {seed, Purpose::test, static_cast<std::uint32_t>(i), 0};
  fill_normals(Space(), maps, on_device(keys), n);
  return maps;
}

TEST(Multipole, IsTwoPiOverTheWavelength) {
  const Grid grid{12, 20};
  EXPECT_EQ(multipole(grid, pixel_arcmin, 0, 0), 0);
  EXPECT_NEAR(multipole(grid, pixel_arcmin, 0, 1), 2 * std::numbers::pi / (20 * pixel), 1e-9);
  EXPECT_NEAR(multipole(grid, pixel_arcmin, 1, 0), 2 * std::numbers::pi / (12 * pixel), 1e-9);
  EXPECT_NEAR(multipole(grid, pixel_arcmin, 6, 0), std::numbers::pi / pixel, 1e-9);  // Nyquist
  EXPECT_NEAR(multipole(grid, pixel_arcmin, 0, 10), std::numbers::pi / pixel, 1e-9);
  for (const Grid& g : grids) {
    for (int ky = 0; ky < g.height; ++ky) {
      for (int kx = 0; kx < g.half_width(); ++kx)
        EXPECT_NEAR(multipole(g, pixel_arcmin, ky, kx), multipole_of(g, ky, kx), 1e-8);
    }
  }
  // One degree is l = 360.
  EXPECT_NEAR(multipole(Grid{60, 60}, 1.0, 1, 0), 360, 1e-9);
}

TEST(RadialBins, CountEveryModeOfTheWholePlaneButTheMean) {
  for (const Grid& grid : grids) {
    const RadialBins bins = radial_bins(grid, pixel_arcmin, {0, 3001, 6007, 1e9});
    std::vector<double> modes(3), centres(3);
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.width; ++kx) {
        if (ky == 0 && kx == 0) continue;
        const double l = multipole_of(grid, ky, kx);
        const std::size_t band = l < 3001 ? 0 : l < 6007 ? 1 : 2;
        ++modes[band];
        centres[band] += l;
      }
    }
    ASSERT_EQ(bins.bands(), 3);
    EXPECT_EQ(bins.modes[0] + bins.modes[1] + bins.modes[2], static_cast<double>(grid.pixels() - 1));
    for (std::size_t b = 0; b < 3; ++b) {
      EXPECT_EQ(bins.modes[b], modes[b]);
      EXPECT_NEAR(bins.centres[b], centres[b] / modes[b], 1e-8);
    }
  }
}

TEST(RadialBins, AreHalfOpen) {
  const Grid grid{16, 16};
  const double first = multipole(grid, pixel_arcmin, 0, 1), second = multipole(grid, pixel_arcmin, 0, 2);
  const auto band = on_host(radial_bins(grid, pixel_arcmin, {first, second}).band);
  EXPECT_EQ(band(0, 0), -1);
  EXPECT_EQ(band(0, 1), 0);   // l = the lower edge
  EXPECT_EQ(band(1, 1), 0);   // sqrt(2) times that
  EXPECT_EQ(band(0, 2), -1);  // l = the upper edge
  EXPECT_EQ(band(15, 0), 0);  // ky = -1
}

TEST(RadialBins, RefuseEdgesThatMakeNoBands) {
  const Grid grid{16, 16};
  EXPECT_THROW(radial_bins(grid, pixel_arcmin, {}), Error);
  EXPECT_THROW(radial_bins(grid, pixel_arcmin, {100}), Error);
  EXPECT_THROW(radial_bins(grid, pixel_arcmin, {5000, 3000}), Error);
  EXPECT_THROW(radial_bins(grid, pixel_arcmin, {1e8, 2e8}), Error);  // no mode there
  EXPECT_THROW(radial_bins(grid, pixel_arcmin, {3000, 3000}), Error);
}

// A cos(2 pi (ky y / H + kx x / W)) has |F| = A H W / 2 in two modes of the plane (A H W in one that is its own
// conjugate).
TEST(BandPower, FindsASingleModeInItsBandAlone) {
  for (const Grid& grid : grids) {
    const RealFft fft(grid);
    const std::vector<double> edges = logarithmic_edges(grid, pixel_arcmin, 4, 6);
    const RadialBins bins = radial_bins(grid, pixel_arcmin, edges);
    const auto band = on_host(bins.band);
    for (const auto& [ky, kx] : {std::pair{1, 0}, {0, 1}, {2, 3}, {grid.height - 1, 2}, {1, grid.width / 2}}) {
      const HostMaps host("maps", 1, grid.height, grid.width);
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) {
          const double turns = static_cast<double>(ky) * y / grid.height + static_cast<double>(kx) * x / grid.width;
          host(0, y, x) = static_cast<float>(3 * std::cos(2 * std::numbers::pi * turns));
        }
      }
      if (band(ky, kx) < 0) continue;
      const MapBatch maps("maps", 1, grid.height, grid.width);
      Kokkos::deep_copy(maps, host);
      const View2<double> out("out", 1, static_cast<std::size_t>(bins.bands()));
      band_power(Space(), bins, spectra_of(fft, maps, 1), 1, out);
      const auto power = on_host(out);
      const double mode = std::pow(3.0 * static_cast<double>(grid.pixels()) / 2, 2);
      for (int b = 0; b < bins.bands(); ++b) {
        const double expected = b == band(ky, kx) ? 2 * mode / bins.modes[static_cast<std::size_t>(b)] : 0;
        EXPECT_NEAR(power(0, b), expected, 1e-5 * mode)
            << grid.height << " x " << grid.width << ", mode " << ky << " " << kx;
      }
    }
  }
}

// <|F|^2> = H W sigma^2; a band of m modes holds m / 2 independent ones, each exponentially distributed.
TEST(BandPower, OfWhiteNoiseIsItsVarianceTimesThePixels) {
  for (const Grid& grid : {Grid{64, 64}, {63, 50}, {48, 75}}) {
    constexpr int n = 20;
    const RealFft fft(grid);
    const RadialBins bins = radial_bins(grid, pixel_arcmin, logarithmic_edges(grid, pixel_arcmin, 5));
    const View2<double> out("out", n, static_cast<std::size_t>(bins.bands()));
    band_power(Space(), bins, spectra_of(fft, normal_maps(n, grid, 4), n), n, out);
    const auto power = on_host(out);
    for (int b = 0; b < bins.bands(); ++b) {
      double mean = 0;
      for (int map = 0; map < n; ++map) mean += power(map, b) / n;
      const double expected = static_cast<double>(grid.pixels());
      const double sigma = expected * std::sqrt(2 / (bins.modes[static_cast<std::size_t>(b)] * n));
      EXPECT_NEAR(mean, expected, 4 * sigma) << "band " << b;
    }
  }
}

TEST(BandPower, IsTheMeanOverTheWholePlane) {
  for (const Grid& grid : grids) {
    const RealFft fft(grid);
    const RadialBins bins = radial_bins(grid, pixel_arcmin, logarithmic_edges(grid, pixel_arcmin, 3, 8));
    const SpectrumBatch f = spectra_of(fft, normal_maps(2, grid, 1), 2);
    const SpectrumBatch g = spectra_of(fft, normal_maps(2, grid, 2), 2);
    const View2<double> out("out", 2, static_cast<std::size_t>(bins.bands()));
    band_cross_power(Space(), bins, f, g, 2, out);
    const auto cross = on_host(out);
    const auto fs = on_host(f), gs = on_host(g);
    for (int map = 0; map < 2; ++map) {
      std::vector<std::complex<double>> sums(static_cast<std::size_t>(bins.bands()));
      const auto at = [&](const auto& spectra, int ky, int kx) {
        const bool conjugate = kx >= grid.half_width();
        const Complex value =
            conjugate ? spectra(map, (grid.height - ky) % grid.height, grid.width - kx) : spectra(map, ky, kx);
        const float imaginary = conjugate ? -value.imag() : value.imag();
        return std::complex<double>(static_cast<double>(value.real()), static_cast<double>(imaginary));
      };
      for (int ky = 0; ky < grid.height; ++ky) {
        for (int kx = 0; kx < grid.width; ++kx) {
          const bool mirrored = kx >= grid.half_width();
          const double l = mirrored ? multipole(grid, pixel_arcmin, (grid.height - ky) % grid.height, grid.width - kx)
                                    : multipole(grid, pixel_arcmin, ky, kx);
          for (std::size_t b = 0; b < sums.size(); ++b) {
            if (l >= bins.edges[b] && l < bins.edges[b + 1] && (ky != 0 || kx != 0))
              sums[b] += at(fs, ky, kx) * std::conj(at(gs, ky, kx));
          }
        }
      }
      for (std::size_t b = 0; b < sums.size(); ++b) {
        EXPECT_NEAR(sums[b].imag() / bins.modes[b], 0, 1e-3);
        EXPECT_NEAR(cross(map, b), sums[b].real() / bins.modes[b], 1e-9 * static_cast<double>(grid.pixels()));
      }
    }
  }
}

TEST(BandPower, RefusesArraysOfTheWrongShape) {
  const Grid grid{16, 16};
  const RadialBins bins = radial_bins(grid, pixel_arcmin, {0, 1e9});
  const SpectrumBatch spectra("spectra", 2, 16, 9), narrow("narrow", 2, 16, 8);
  EXPECT_THROW(band_power(Space(), bins, spectra, 3, View2<double>("out", 3, 1)), Error);
  EXPECT_THROW(band_power(Space(), bins, spectra, 2, View2<double>("out", 1, 1)), Error);
  EXPECT_THROW(band_power(Space(), bins, spectra, 2, View2<double>("out", 2, 2)), Error);
  EXPECT_THROW(band_cross_power(Space(), bins, spectra, narrow, 2, View2<double>("out", 2, 1)), Error);
}

TEST(LogarithmicEdges, RunFromTheLowestMultipoleToNyquistWithEnoughModesInEach) {
  for (const Grid& grid : {Grid{360, 360}, {64, 64}, {63, 63}, {40, 100}, {101, 31}, {16, 16}, {4, 4}, {5, 4}}) {
    for (const int min_modes : {1, 8, 64, 1000}) {
      for (const int bands : {1, 2, 5, 12, 40}) {
        const std::vector<double> edges = logarithmic_edges(grid, pixel_arcmin, bands, min_modes);
        ASSERT_GE(edges.size(), 2U);
        ASSERT_LE(edges.size(), static_cast<std::size_t>(bands) + 1);
        const double lowest = std::min(multipole(grid, pixel_arcmin, 1, 0), multipole(grid, pixel_arcmin, 0, 1));
        EXPECT_LT(edges.front(), lowest);
        EXPECT_GT(edges.front(), 0.9 * lowest);
        EXPECT_EQ(edges.back(), multipole(grid, pixel_arcmin, grid.height / 2, 0));
        for (std::size_t b = 0; b + 1 < edges.size(); ++b) ASSERT_LT(edges[b], edges[b + 1]);
        const RadialBins bins = radial_bins(grid, pixel_arcmin, edges);
        if (bins.bands() == 1) continue;  // too few modes in all
        for (const double modes : bins.modes) EXPECT_GE(modes, min_modes) << grid.height << " x " << grid.width;
      }
    }
  }
}

TEST(LogarithmicEdges, AreLogarithmicWhereModesAbound) {
  const std::vector<double> edges = logarithmic_edges(Grid{360, 360}, 0.29, 4, 1);
  ASSERT_EQ(edges.size(), 5U);
  for (std::size_t b = 1; b + 1 < edges.size(); ++b) EXPECT_NEAR(edges[b + 1] / edges[b], std::pow(180.0, 0.25), 1e-9);
}

TEST(LogarithmicEdges, RefuseGridsWithoutBands) {
  EXPECT_THROW(logarithmic_edges(Grid{1, 64}, pixel_arcmin, 4), Error);
  EXPECT_THROW(logarithmic_edges(Grid{64, 3}, pixel_arcmin, 4), Error);
  EXPECT_THROW(logarithmic_edges(Grid{64, 64}, pixel_arcmin, 0), Error);
}

}  // namespace
}  // namespace umbriel
