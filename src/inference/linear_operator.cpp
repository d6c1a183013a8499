#include "umbriel/inference/linear_operator.hpp"

#include <algorithm>
#include <cmath>

#include "umbriel/core/loops.hpp"
#include "umbriel/maps/smoothing.hpp"

namespace umbriel {
namespace {

struct Mask {
  MapBatch from, to;
  View2<float> mask;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { to(n, y, x) = mask(y, x) * from(n, y, x); }
};

struct Copy {
  MapBatch from, to;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { to(n, y, x) = from(n, y, x); }
};

}  // namespace

MaskedBeam::MaskedBeam(Grid grid, const std::vector<float>& mask, double fwhm_pixels, int batch)
    : fft_(grid),
      sigma_pixels_(fwhm_pixels / std::sqrt(8 * std::log(2.0))),
      mask_("umbriel::beam_mask", grid.height, grid.width),
      scratch_("umbriel::beam_spectra", fwhm_pixels > 0 ? batch : 0, grid.height, grid.half_width()) {
  const auto host = Kokkos::create_mirror_view(HostMemory{}, mask_);
  std::copy(mask.begin(), mask.end(), host.data());
  Kokkos::deep_copy(mask_, host);
}

void MaskedBeam::smooth(const Space& space, int n, const MapBatch& maps) const {
  if (sigma_pixels_ > 0) smooth_maps(space, fft_, maps, scratch_, n, sigma_pixels_);
}

void MaskedBeam::apply(const Space& space, const MapBatch& from, int n, const MapBatch& to) const {
  const Grid grid = fft_.grid();
  for_each_element("umbriel::copy_maps", space, n, grid.height, grid.width, Copy{from, to});
  smooth(space, n, to);
  for_each_element("umbriel::mask_maps", space, n, grid.height, grid.width, Mask{to, to, mask_});
}

void MaskedBeam::transpose(const Space& space, const MapBatch& from, int n, const MapBatch& to) const {
  const Grid grid = fft_.grid();
  for_each_element("umbriel::mask_maps", space, n, grid.height, grid.width, Mask{from, to, mask_});
  smooth(space, n, to);
}

void MaskedBeam::keep_observed(const Space& space, const MapBatch& maps, int n) const {
  const Grid grid = fft_.grid();
  for_each_element("umbriel::mask_maps", space, n, grid.height, grid.width, Mask{maps, maps, mask_});
}

double MaskedBeam::response(double wave_number) const {
  return std::exp(-0.5 * sigma_pixels_ * sigma_pixels_ * wave_number * wave_number);
}

}  // namespace umbriel
