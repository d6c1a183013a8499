#include "umbriel/maps/radial_bins.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/core/loops.hpp"

namespace umbriel {
namespace {

struct BandPower {
  SpectrumBatch f, g;
  View1<int> members, first_member;
  View2<double> out;
  View1<double> modes;
  Grid grid;
  int bands;

  // One thread sums one band of one map in index order: the same bits everywhere.
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const int map = static_cast<int>(i / bands), b = static_cast<int>(i % bands);
    double sum = 0;
    for (int m = first_member(b); m < first_member(b + 1); ++m) {
      const int ky = members(m) / grid.half_width(), kx = members(m) % grid.half_width();
      const Complex u = f(map, ky, kx), v = g(map, ky, kx);
      const double product = static_cast<double>(u.real()) * v.real() + static_cast<double>(u.imag()) * v.imag();
      sum += static_cast<double>(mode_weight(grid, kx)) * product;
    }
    out(map, b) = sum / modes(b);
  }
};

}  // namespace

double multipole(Grid grid, double pixel_arcmin, int ky, int kx) {
  const double pixel = pixel_arcmin / 60 * std::numbers::pi / 180;
  const double fy = static_cast<double>(ky <= grid.height / 2 ? ky : ky - grid.height) / grid.height;
  const double fx = static_cast<double>(kx) / grid.width;
  return 2 * std::numbers::pi * std::hypot(fx, fy) / pixel;
}

RadialBins radial_bins(Grid grid, double pixel_arcmin, const std::vector<double>& edges) {
  require(edges.size() >= 2 && std::is_sorted(edges.begin(), edges.end()), ExitCode::usage,
          "band edges must be at least two increasing multipoles");
  RadialBins bins;
  bins.grid = grid;
  bins.edges = edges;
  bins.centres.assign(edges.size() - 1, 0);
  bins.modes.assign(edges.size() - 1, 0);
  Kokkos::View<int**, Kokkos::LayoutRight, HostMemory> band("band", grid.height, grid.half_width());
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      const double l = multipole(grid, pixel_arcmin, ky, kx);
      const auto above = std::upper_bound(edges.begin(), edges.end(), l);
      const bool inside = above != edges.begin() && above != edges.end() && (ky != 0 || kx != 0);
      const int b = inside ? static_cast<int>(above - edges.begin()) - 1 : -1;
      band(ky, kx) = b;
      if (b < 0) continue;
      bins.modes[b] += mode_weight(grid, kx);
      bins.centres[b] += mode_weight(grid, kx) * l;
    }
  }
  for (int b = 0; b < bins.bands(); ++b) {
    require(bins.modes[b] > 0, ExitCode::usage, "a multipole band holds no mode of the grid",
            "band " + std::to_string(edges[b]) + " ... " + std::to_string(edges[b + 1]), "choose wider bands");
    bins.centres[b] /= bins.modes[b];
  }
  bins.band = on_device(band);
  std::vector<std::vector<int>> members(bins.modes.size());
  for (int mode = 0; mode < static_cast<int>(grid.modes()); ++mode) {
    if (band.data()[mode] >= 0) members[band.data()[mode]].push_back(mode);
  }
  HostView1<int> first_member("first_member", bins.modes.size() + 1), all("members", grid.modes());
  int next = 0;
  for (int b = 0; b < bins.bands(); ++b) {
    std::copy(members[b].begin(), members[b].end(), all.data() + next);
    next += static_cast<int>(members[b].size());
    first_member(b + 1) = next;
  }
  bins.members = on_device(all);
  bins.first_member = on_device(first_member);
  return bins;
}

std::vector<double> logarithmic_edges(Grid grid, double pixel_arcmin, int bands, int min_modes) {
  require(grid.height >= 4 && grid.width >= 4 && bands >= 1, ExitCode::usage,
          "multipole bands need a grid of at least 4 x 4 pixels and at least one band",
          std::to_string(grid.height) + " x " + std::to_string(grid.width));
  const double lowest = std::min(multipole(grid, pixel_arcmin, 1, 0), multipole(grid, pixel_arcmin, 0, 1));
  const double highest = multipole(grid, pixel_arcmin, grid.height / 2, 0);
  std::vector<double> edges = {0.99 * lowest};
  for (int b = 1; b <= bands; ++b) {
    const double edge = b == bands ? highest : lowest * std::pow(highest / lowest, static_cast<double>(b) / bands);
    double modes = 0;
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx) {
        const double l = multipole(grid, pixel_arcmin, ky, kx);
        if (l >= edges.back() && l < edge) modes += mode_weight(grid, kx);
      }
    }
    if (modes >= min_modes) edges.push_back(edge);
  }
  if (edges.size() == 1) edges.push_back(highest);
  edges.back() = highest;
  return edges;
}

void band_cross_power(const Space& space, const RadialBins& bins, const SpectrumBatch& f, const SpectrumBatch& g, int n,
                      const View2<double>& out) {
  const auto fits = [&](const SpectrumBatch& spectra) {
    return n <= static_cast<int>(spectra.extent(0)) && bins.grid.height == static_cast<int>(spectra.extent(1)) &&
           bins.grid.half_width() == static_cast<int>(spectra.extent(2));
  };
  require(fits(f) && fits(g) && n <= static_cast<int>(out.extent(0)) && bins.bands() == static_cast<int>(out.extent(1)),
          ExitCode::usage, "spectra or output do not have the shape of the bands", "band_cross_power");
  HostView1<double> modes("modes", bins.modes.size());
  std::copy(bins.modes.begin(), bins.modes.end(), modes.data());
  Kokkos::parallel_for(
      "umbriel::band_power", Range(space, 0, static_cast<std::int64_t>(n) * bins.bands()),
      BandPower{f, g, bins.members, bins.first_member, out, on_device(modes), bins.grid, bins.bands()});
}

void band_power(const Space& space, const RadialBins& bins, const SpectrumBatch& spectra, int n,
                const View2<double>& out) {
  band_cross_power(space, bins, spectra, spectra, n, out);
}

}  // namespace umbriel
