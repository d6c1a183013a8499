#include "umbriel/simulation/stationary_field.hpp"

#include <cmath>

#include "umbriel/base/linear_table.hpp"
#include "umbriel/core/loops.hpp"
#include "umbriel/fft/filter.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

/// A side half as long again, and even.
int wider(int side) { return 2 * ((3 * side + 3) / 4); }

/// The corner of a wide map <- h from; zero elsewhere.
struct Widen {
  MapBatch from, to;
  View2<float> h;
  Grid grid;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    to(n, y, x) = y < grid.height && x < grid.width ? h(y, x) * from(n, y, x) : 0.0f;
  }
};

/// to <- the corner of a wide map.
struct Crop {
  MapBatch from, to;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { to(n, y, x) = from(n, y, x); }
};

/// to <- h times the corner of a wide map.
struct CropScaled {
  MapBatch from, to;
  View2<float> h;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { to(n, y, x) = h(y, x) * from(n, y, x); }
};

}  // namespace

StationaryField::StationaryField(Grid grid, double pixel_arcmin, const std::vector<double>& multipole,
                                 const std::vector<double>& power, int batch)
    : grid_(grid), multipole_(multipole), wide_({wider(grid.height), wider(grid.width)}) {
  for (const double p : power) log_power_.push_back(std::log(p));
  const Grid wide = wide_.grid();
  maps_ = MapBatch("umbriel::wide_maps", batch, wide.height, wide.width);
  spectra_ = SpectrumBatch("umbriel::wide_spectra", batch, wide.height, wide.half_width());
  const auto scale = 1 / static_cast<double>(wide.pixels());
  power_ = of_modes(wide, pixel_arcmin, [&](double l) { return power_at(l) * scale; });
  root_ = of_modes(wide, pixel_arcmin, [&](double l) { return std::sqrt(power_at(l)) * scale; });
}

double StationaryField::power_at(double multipole) const {
  return std::exp(interpolated(multipole_, log_power_, multipole));
}

void StationaryField::draw(const Space& space, const View1<DrawKey>& keys, int n, const MapBatch& maps) {
  const Grid wide = wide_.grid();
  fill_normals(space, maps_, keys, n);
  wide_.forward(space, maps_, spectra_, n);
  for_each_element("umbriel::colour_maps", space, n, wide.height, wide.half_width(), FilterSpectra{spectra_, root_});
  wide_.inverse(space, spectra_, maps_, n);
  for_each_element("umbriel::crop_maps", space, n, grid_.height, grid_.width, Crop{maps_, maps});
}

void StationaryField::covary(const Space& space, int n, const MapBatch& from, const View2<float>& h,
                             const MapBatch& to) {
  const Grid wide = wide_.grid();
  for_each_element("umbriel::widen_maps", space, n, wide.height, wide.width, Widen{from, maps_, h, grid_});
  wide_.forward(space, maps_, spectra_, n);
  for_each_element("umbriel::filter_maps", space, n, wide.height, wide.half_width(), FilterSpectra{spectra_, power_});
  wide_.inverse(space, spectra_, maps_, n);
  for_each_element("umbriel::crop_maps", space, n, grid_.height, grid_.width, CropScaled{maps_, to, h});
}

}  // namespace umbriel
