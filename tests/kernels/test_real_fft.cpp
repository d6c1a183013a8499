// Fourier transforms against the sum that defines them, in float64.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <complex>
#include <cstdint>
#include <memory>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "umbriel/fft/real_fft.hpp"

namespace umbriel {
namespace {

using Complex64 = std::complex<double>;

// Odd, even, prime, one pixel wide, and sizes whose maps and spectra do not keep 16 or 64 bytes of alignment.
const std::vector<Grid> grids = {{1, 1},  {1, 2},  {2, 1},  {2, 2},   {3, 3},   {1, 9},   {9, 1},  {4, 6},  {5, 8},
                                 {8, 5},  {7, 9},  {6, 7},  {12, 10}, {16, 16}, {6, 15},  {9, 14}, {13, 2}, {2, 13},
                                 {17, 6}, {15, 4}, {3, 64}, {64, 3},  {11, 22}, {20, 36}, {32, 48}};

std::string name_of(const Grid& grid) { return std::to_string(grid.height) + " x " + std::to_string(grid.width); }

double wave(int i) { return std::sin(12.9898 * i + 0.3) * 2.5 + std::cos(0.013 * i * i); }

MapBatch some_maps(int n, Grid grid, int first = 0) {
  HostMaps maps("maps", n, grid.height, grid.width);
  for (std::size_t i = 0; i < maps.size(); ++i) maps.data()[i] = static_cast<float>(wave(first + static_cast<int>(i)));
  const MapBatch device("maps", n, grid.height, grid.width);
  Kokkos::deep_copy(device, maps);
  return device;
}

SpectrumBatch spectra_for(int n, Grid grid) { return SpectrumBatch("spectra", n, grid.height, grid.half_width()); }

template <class ViewType>
std::vector<std::uint32_t> bits_of(const ViewType& view, int item) {
  const auto host = on_host(view);
  const std::size_t words = host.size() / host.extent(0) * sizeof(typename ViewType::value_type) / sizeof(float);
  const auto* first = reinterpret_cast<const float*>(host.data()) + static_cast<std::size_t>(item) * words;
  std::vector<std::uint32_t> bits(words);
  for (std::size_t i = 0; i < words; ++i) bits[i] = std::bit_cast<std::uint32_t>(first[i]);
  return bits;
}

/// exp(2 pi i k j / n)
Complex64 root(int k, int j, int n) {
  const double angle = 2 * std::numbers::pi * (k * j % n) / n;
  return {std::cos(angle), std::sin(angle)};
}

/// Rounding errors of a transform of n pixels grow like log2(n) and are spread evenly over the modes.
double tolerance(Grid grid, double root_mean_square) {
  const auto n = static_cast<double>(grid.pixels());
  return 1.2e-7 * (2 + std::log2(n)) * root_mean_square * std::sqrt(n) * 3;
}

TEST(RealFft, ForwardIsTheDefiningSum) {
  for (const Grid& grid : grids) {
    const RealFft fft(grid);
    EXPECT_TRUE(fft.grid() == grid);
    const MapBatch maps = some_maps(2, grid);
    const SpectrumBatch spectra = spectra_for(2, grid);
    fft.forward(Space(), maps, spectra, 2);
    const auto f = on_host(maps);
    const auto result = on_host(spectra);
    for (int map = 0; map < 2; ++map) {
      double square = 0;
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) square += std::pow(static_cast<double>(f(map, y, x)), 2);
      }
      const double bound = tolerance(grid, std::sqrt(square / static_cast<double>(grid.pixels())));
      for (int kx = 0; kx < grid.half_width(); ++kx) {
        std::vector<Complex64> rows(static_cast<std::size_t>(grid.height));
        for (int y = 0; y < grid.height; ++y) {
          for (int x = 0; x < grid.width; ++x)
            rows[static_cast<std::size_t>(y)] += static_cast<double>(f(map, y, x)) * std::conj(root(kx, x, grid.width));
        }
        for (int ky = 0; ky < grid.height; ++ky) {
          Complex64 sum = 0;
          for (int y = 0; y < grid.height; ++y)
            sum += rows[static_cast<std::size_t>(y)] * std::conj(root(ky, y, grid.height));
          const Complex mode = result(map, ky, kx);
          ASSERT_NEAR(static_cast<double>(mode.real()), sum.real(), bound) << name_of(grid) << " " << ky << " " << kx;
          ASSERT_NEAR(static_cast<double>(mode.imag()), sum.imag(), bound) << name_of(grid) << " " << ky << " " << kx;
        }
      }
    }
  }
}

// Any numbers in the spectrum, not only those of a real map: the other half is the conjugate by definition, and what
// breaks that on the self-conjugate columns is ignored.
TEST(RealFft, InverseIsTheDefiningSumOverBothHalves) {
  for (const Grid& grid : grids) {
    const RealFft fft(grid);
    const SpectrumBatch spectra = spectra_for(2, grid);
    const HostView3<Complex> host("spectra", 2, grid.height, grid.half_width());
    double square = 0;
    for (std::size_t i = 0; i < host.size(); ++i) {
      const int n = static_cast<int>(i);
      host.data()[i] = Complex(static_cast<float>(wave(n)), static_cast<float>(wave(n + 5000)));
      square += std::pow(wave(n), 2) + std::pow(wave(n + 5000), 2);
    }
    Kokkos::deep_copy(spectra, host);
    const MapBatch maps("maps", 2, grid.height, grid.width);
    fft.inverse(Space(), spectra, maps, 2);
    const auto result = on_host(maps);
    const double bound = tolerance(grid, std::sqrt(square / static_cast<double>(host.size())));
    for (int map = 0; map < 2; ++map) {
      for (int y = 0; y < grid.height; ++y) {
        std::vector<Complex64> columns(static_cast<std::size_t>(grid.half_width()));
        for (int kx = 0; kx < grid.half_width(); ++kx) {
          for (int ky = 0; ky < grid.height; ++ky) {
            const Complex value = host(map, ky, kx);
            const Complex64 mode(static_cast<double>(value.real()), static_cast<double>(value.imag()));
            columns[static_cast<std::size_t>(kx)] += mode * root(ky, y, grid.height);
          }
        }
        for (int x = 0; x < grid.width; ++x) {
          double sum = 0;
          for (int kx = 0; kx < grid.half_width(); ++kx) {
            const double weight = kx == 0 || 2 * kx == grid.width ? 1 : 2;
            sum += weight * (columns[static_cast<std::size_t>(kx)] * root(kx, x, grid.width)).real();
          }
          ASSERT_NEAR(static_cast<double>(result(map, y, x)), sum, bound) << name_of(grid) << " " << y << " " << x;
        }
      }
    }
  }
}

TEST(RealFft, InverseOfForwardIsTheMapTimesItsPixels) {
  for (const Grid& grid : {Grid{360, 360}, {101, 97}, {128, 90}, {45, 256}, {1, 1}, {7, 9}}) {
    const RealFft fft(grid);
    const MapBatch maps = some_maps(3, grid);
    const SpectrumBatch spectra = spectra_for(3, grid);
    const MapBatch back("back", 3, grid.height, grid.width);
    fft.forward(Space(), maps, spectra, 3);
    fft.inverse(Space(), spectra, back, 3);
    const auto before = on_host(maps);
    const auto after = on_host(back);
    double worst = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      worst = std::fmax(worst, std::fabs(static_cast<double>(after.data()[i]) / static_cast<double>(grid.pixels()) -
                                         static_cast<double>(before.data()[i])));
    }
    EXPECT_LT(worst, 6e-6) << name_of(grid);
  }
}

TEST(RealFft, KeepsPower) {  // Parseval: sum |F|^2 over the whole plane = H W sum f^2
  for (const Grid& grid : {Grid{360, 360}, {101, 97}, {128, 90}, {45, 256}, {6, 7}}) {
    const RealFft fft(grid);
    const MapBatch maps = some_maps(1, grid);
    const SpectrumBatch spectra = spectra_for(1, grid);
    fft.forward(Space(), maps, spectra, 1);
    const auto f = on_host(maps);
    const auto modes = on_host(spectra);
    double pixels = 0, power = 0;
    for (std::size_t i = 0; i < f.size(); ++i) pixels += std::pow(static_cast<double>(f.data()[i]), 2);
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx) {
        const double weight = kx == 0 || 2 * kx == grid.width ? 1 : 2;
        power += weight * (std::pow(static_cast<double>(modes(0, ky, kx).real()), 2) +
                           std::pow(static_cast<double>(modes(0, ky, kx).imag()), 2));
      }
    }
    EXPECT_NEAR(power / (static_cast<double>(grid.pixels()) * pixels), 1, 1e-6) << name_of(grid);
  }
}

TEST(RealFft, ForwardKeepsItsMaps) {
  for (const Grid& grid : grids) {
    const MapBatch maps = some_maps(3, grid);
    const MapBatch copy = some_maps(3, grid);
    RealFft(grid).forward(Space(), maps, spectra_for(3, grid), 3);
    for (int map = 0; map < 3; ++map) ASSERT_EQ(bits_of(maps, map), bits_of(copy, map)) << name_of(grid);
  }
}

TEST(RealFft, WritesOnlyTheMapsItWasAskedFor) {
  const Grid grid{6, 10};
  const RealFft fft(grid);
  const SpectrumBatch spectra = spectra_for(4, grid);
  Kokkos::deep_copy(spectra, Complex(7, 8));
  const MapBatch maps = some_maps(4, grid);
  const MapBatch before = some_maps(4, grid);
  fft.forward(Space(), maps, spectra, 3);
  const auto host = on_host(spectra);
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) EXPECT_EQ(host(3, ky, kx).real(), 7);
  }
  fft.inverse(Space(), spectra, maps, 2);
  EXPECT_EQ(bits_of(maps, 3), bits_of(before, 3));
  EXPECT_EQ(bits_of(maps, 2), bits_of(before, 2));
  EXPECT_NE(bits_of(maps, 1), bits_of(before, 1));
}

// The same map at every place of a batch, by one object and by another, alone and in company: the same bits.
TEST(RealFft, GivesTheSameBitsAtEveryPlaceOfABatch) {
  for (const Grid& grid : grids) {
    constexpr int n = 5;
    const MapBatch one = some_maps(1, grid);
    const MapBatch same("same", n, grid.height, grid.width), back("back", n, grid.height, grid.width);
    for (int i = 0; i < n; ++i) {
      Kokkos::deep_copy(Kokkos::subview(same, i, Kokkos::ALL, Kokkos::ALL),
                        Kokkos::subview(one, 0, Kokkos::ALL, Kokkos::ALL));
    }
    const SpectrumBatch alone = spectra_for(1, grid), batch = spectra_for(n, grid);
    RealFft(grid).forward(Space(), one, alone, 1);
    const RealFft fft(grid);
    fft.forward(Space(), same, batch, n);
    const auto forward_bits = bits_of(alone, 0);
    for (int i = 0; i < n; ++i) ASSERT_EQ(bits_of(batch, i), forward_bits) << name_of(grid) << ", place " << i;
    const MapBatch single("single", 1, grid.height, grid.width);
    RealFft(grid).inverse(Space(), alone, single, 1);
    fft.inverse(Space(), batch, back, n);
    const auto inverse_bits = bits_of(single, 0);
    for (int i = 0; i < n; ++i) ASSERT_EQ(bits_of(back, i), inverse_bits) << name_of(grid) << ", place " << i;
  }
}

// Callers hand over the tail of a batch, whose maps begin wherever the grid puts them.
TEST(RealFft, TakesThePartOfABatchThatBeginsAnywhere) {
  for (const Grid& grid : grids) {
    constexpr int n = 6;
    const MapBatch all = some_maps(n, grid);
    const SpectrumBatch whole = spectra_for(n, grid), parts = spectra_for(n, grid);
    const RealFft fft(grid);
    fft.forward(Space(), all, whole, n);
    for (int first = 0; first < n; ++first) {
      const auto range = std::make_pair(first, n);
      const MapBatch maps = Kokkos::subview(all, range, Kokkos::ALL, Kokkos::ALL);
      const SpectrumBatch spectra = Kokkos::subview(parts, range, Kokkos::ALL, Kokkos::ALL);
      fft.forward(Space(), maps, spectra, 1);
      ASSERT_EQ(bits_of(parts, first), bits_of(whole, first)) << name_of(grid) << ", from map " << first;
    }
  }
}

TEST(RealFft, CopiesShareThePlan) {
  const Grid grid{8, 12};
  const MapBatch maps = some_maps(1, grid);
  const SpectrumBatch first = spectra_for(1, grid), second = spectra_for(1, grid);
  auto fft = std::make_unique<RealFft>(grid);
  const RealFft copy = *fft;
  fft->forward(Space(), maps, first, 1);
  fft.reset();
  copy.forward(Space(), maps, second, 1);
  EXPECT_EQ(bits_of(first, 0), bits_of(second, 0));
}

TEST(RealFft, RefusesAGridWithoutPixels) {
  EXPECT_THROW(RealFft(Grid{0, 4}), Error);
  EXPECT_THROW(RealFft(Grid{4, -1}), Error);
}

TEST(RealFft, RefusesArraysOfTheWrongShape) {
  const Grid grid{6, 10};
  const RealFft fft(grid);
  const MapBatch maps("maps", 2, 6, 10);
  const SpectrumBatch spectra = spectra_for(2, grid);
  EXPECT_THROW(fft.forward(Space(), maps, spectra, 3), Error);
  EXPECT_THROW(fft.forward(Space(), MapBatch("small", 2, 6, 8), spectra, 2), Error);
  EXPECT_THROW(fft.forward(Space(), maps, SpectrumBatch("small", 2, 6, 5), 2), Error);
  EXPECT_THROW(fft.inverse(Space(), spectra, MapBatch("few", 1, 6, 10), 2), Error);
  EXPECT_THROW(fft.inverse(Space(), SpectrumBatch("low", 2, 5, 6), maps, 2), Error);
}

}  // namespace
}  // namespace umbriel
