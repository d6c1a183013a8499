/// Gaussian fields with a power spectrum, on a part of the plane.
///
/// They live on a periodic grid half as wide again as their maps, which are a corner of it: opposite edges of a map
/// know nothing of each other.
#pragma once

#include <vector>

#include "umbriel/fft/real_fft.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {

/// [ky, kx] f(multipole) on a grid.
template <class F>
View2<float> of_modes(Grid grid, double pixel_arcmin, const F& f) {
  const View2<float> out("umbriel::factors_of_modes", grid.height, grid.half_width());
  const auto host = Kokkos::create_mirror_view(HostMemory{}, out);
  for (int ky = 0; ky < grid.height; ++ky)
    for (int kx = 0; kx < grid.half_width(); ++kx)
      host(ky, kx) = static_cast<float>(f(multipole(grid, pixel_arcmin, ky, kx)));
  Kokkos::deep_copy(out, host);
  return out;
}

/// Powers and maps are in whatever unit the caller's are.
class StationaryField {
 public:
  /// @param grid              of the maps
  /// @param multipole, power  P a mode of an orthonormal transform, ln P linear in l, constant beyond; increasing l
  /// @param batch             maps at once, at most
  StationaryField(Grid grid, double pixel_arcmin, const std::vector<double>& multipole,
                  const std::vector<double>& power, int batch);

  double power_at(double multipole) const;
  /// maps[i] <- a draw, of stream keys(i), i < n <= batch. @param maps  [>= n, H, W]
  void draw(const Space& space, const View1<DrawKey>& keys, int n, const MapBatch& maps);
  /// to[i] <- h C h from[i], i < n <= batch, all [>= n, H, W], with C the covariance of the field. `to` may be `from`.
  /// @param h  [H, W]
  void covary(const Space& space, int n, const MapBatch& from, const View2<float>& h, const MapBatch& to);

 private:
  Grid grid_;
  std::vector<double> multipole_, log_power_;
  RealFft wide_;
  View2<float> power_, root_;  ///< over the pixels: transforms are not scaled
  MapBatch maps_;
  SpectrumBatch spectra_;
};

}  // namespace umbriel
