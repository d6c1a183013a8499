#include "umbriel/simulation/convergence_map.hpp"

#include <algorithm>
#include <cmath>

#include "umbriel/core/loops.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

/// Maps transformed together; bounds the buffers and does not change a result.
constexpr int maps_at_a_time = 16;

void set_keys(const Space& space, const View1<DrawKey>& keys, std::uint64_t seed, std::uint32_t first_sample, int n) {
  Kokkos::parallel_for(
      "umbriel::simulation_keys", Kokkos::RangePolicy<Space>(space, 0, n), KOKKOS_LAMBDA(const int i) {
        keys(i) = DrawKey{seed, Purpose::simulation_field, first_sample + static_cast<std::uint32_t>(i), 0};
      });
}

/// spectra [n, ky, kx] times amplitude [ky, kx].
void colour(const Space& space, const SpectrumBatch& spectra, const View2<float>& amplitude, Grid grid, int n) {
  for_each_element(
      "umbriel::colour_noise", space, n, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(const int map, const int ky, const int kx) {
        const Complex f = spectra(map, ky, kx);
        const float a = amplitude(ky, kx);
        spectra(map, ky, kx) = Complex(a * f.real(), a * f.imag());
      });
}

/// maps [n, y, x] = kappa0 (exp(maps - half_variance) - 1).
void exponentiate(const Space& space, const MapBatch& maps, Grid grid, float kappa0, float half_variance, int n) {
  for_each_element(
      "umbriel::lognormal", space, n, grid.height, grid.width, KOKKOS_LAMBDA(const int map, const int y, const int x) {
        maps(map, y, x) = kappa0 * (math::exp(maps(map, y, x) - half_variance) - 1.0f);
      });
}

/// Sum over all modes, of which a half spectrum holds the pairs k, -k once.
template <class F>
double sum_over_modes(Grid grid, const F& value) {
  double sum = 0;
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) sum += mode_weight(grid, kx) * static_cast<double>(value(ky, kx));
  }
  return sum;
}

/// Transforms between a real even spectrum and its correlation function. Single precision is enough: its error is
/// 1e-7 of the root mean square of the modes, and the modes of a convergence spectrum span four decades.
class Correlation {
 public:
  Correlation(Grid grid, const RealFft& fft)
      : grid_(grid),
        fft_(fft),
        maps_("umbriel::correlation", 1, grid.height, grid.width),
        spectra_("umbriel::correlation_spectrum", 1, grid.height, grid.half_width()) {}

  /// xi [y, x] = 1/pixels sum P exp(ikx).
  HostMaps of_power(const HostView2<float>& power) {
    auto host = Kokkos::create_mirror_view(spectra_);
    for (int ky = 0; ky < grid_.height; ++ky) {
      for (int kx = 0; kx < grid_.half_width(); ++kx) host(0, ky, kx) = Complex(power(ky, kx), 0.0f);
    }
    Kokkos::deep_copy(spectra_, host);
    const Space space;
    fft_.inverse(space, spectra_, maps_, 1);
    space.fence();
    HostMaps xi("umbriel::xi", 1, grid_.height, grid_.width);
    Kokkos::deep_copy(xi, maps_);
    for (int y = 0; y < grid_.height; ++y) {
      for (int x = 0; x < grid_.width; ++x) xi(0, y, x) /= static_cast<float>(grid_.pixels());
    }
    return xi;
  }

  /// P [ky, kx] = sum xi exp(-ikx): real, for xi is even.
  HostView2<float> power_of(const HostMaps& xi) {
    Kokkos::deep_copy(maps_, xi);
    const Space space;
    fft_.forward(space, maps_, spectra_, 1);
    space.fence();
    const auto host = on_host(spectra_);
    HostView2<float> power("umbriel::power", grid_.height, grid_.half_width());
    for (int ky = 0; ky < grid_.height; ++ky) {
      for (int kx = 0; kx < grid_.half_width(); ++kx) power(ky, kx) = host(0, ky, kx).real();
    }
    return power;
  }

 private:
  Grid grid_;
  const RealFft& fft_;
  MapBatch maps_;
  SpectrumBatch spectra_;
};

}  // namespace

FieldKind field_kind(const std::string& name) {
  if (name == "gaussian") return FieldKind::gaussian;
  require(name == "lognormal", ExitCode::usage, "unknown kind of field '" + name + "'", "simulation",
          "choose gaussian or lognormal");
  return FieldKind::lognormal;
}

ConvergenceSimulator::ConvergenceSimulator(const PowerSpectrum& spectrum, Grid grid, double pixel_arcmin,
                                           FieldKind kind, double kappa0)
    : grid_(grid), kind_(kind), kappa0_(static_cast<float>(kappa0)), fft_(grid) {
  require(std::isfinite(pixel_arcmin) && pixel_arcmin > 0, ExitCode::usage, "the pixel size is not positive",
          "simulation", "give it in arcminutes");
  require(kind == FieldKind::gaussian || (std::isfinite(kappa0) && kappa0 > 0), ExitCode::usage,
          "kappa0 = " + std::to_string(kappa0) + " is not positive", "simulation",
          "give minus the smallest convergence of a map, such as 0.05");
  power_ = pixel_power(spectrum, grid, pixel_arcmin);

  HostView2<float> gaussian_power = power_;
  if (kind == FieldKind::lognormal) {
    Correlation correlation(grid, fft_);
    const double kappa0_squared = kappa0 * kappa0;
    HostMaps xi = correlation.of_power(power_);
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        const double ratio = xi(0, y, x) / kappa0_squared;
        require(ratio > -1, ExitCode::usage,
                "no lognormal field has this spectrum: the correlation falls below -kappa0^2",
                "kappa0 = " + std::to_string(kappa0), "raise kappa0");
        xi(0, y, x) = static_cast<float>(std::log1p(ratio));
      }
    }
    gaussian_power = correlation.power_of(xi);
    double clipped = 0;
    const double kept = sum_over_modes(grid, [&](int ky, int kx) { return std::max(gaussian_power(ky, kx), 0.0f); });
    clipped = sum_over_modes(grid, [&](int ky, int kx) { return std::max(-gaussian_power(ky, kx), 0.0f); });
    clipped_fraction_ = clipped / kept;
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx) gaussian_power(ky, kx) = std::max(gaussian_power(ky, kx), 0.0f);
    }
    half_gaussian_variance_ = 0.5 * kept / static_cast<double>(grid.pixels());

    // What the maps have after clipping: the same steps backwards.
    xi = correlation.of_power(gaussian_power);
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        xi(0, y, x) = static_cast<float>(kappa0_squared * std::expm1(static_cast<double>(xi(0, y, x))));
      }
    }
    power_ = correlation.power_of(xi);
  }
  variance_ = sum_over_modes(grid, [&](int ky, int kx) { return power_(ky, kx); }) / static_cast<double>(grid.pixels());

  HostView2<float> amplitude("umbriel::simulation_amplitude", grid.height, grid.half_width());
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      const double p = gaussian_power(ky, kx);
      amplitude(ky, kx) = static_cast<float>(std::sqrt(p) / static_cast<double>(grid.pixels()));
    }
  }
  amplitude_ = on_device(amplitude);
  keys_ = View1<DrawKey>("umbriel::simulation_keys", maps_at_a_time);
  spectra_ = SpectrumBatch("umbriel::simulation_spectra", maps_at_a_time, grid.height, grid.half_width());
}

void ConvergenceSimulator::draw(std::uint64_t seed, std::uint32_t first_sample, int n, const MapBatch& out,
                                const Space& space) {
  require(n >= 0 && n <= static_cast<int>(out.extent(0)) && static_cast<int>(out.extent(1)) == grid_.height &&
              static_cast<int>(out.extent(2)) == grid_.width,
          ExitCode::usage, "there is no room for the maps", "ConvergenceSimulator::draw");
  for (int done = 0; done < n; done += maps_at_a_time) {
    const int now = std::min(maps_at_a_time, n - done);
    const MapBatch maps = Kokkos::subview(out, std::make_pair(done, done + now), Kokkos::ALL, Kokkos::ALL);
    set_keys(space, keys_, seed, first_sample + static_cast<std::uint32_t>(done), now);
    fill_normals(space, maps, keys_, now);
    fft_.forward(space, maps, spectra_, now);
    colour(space, spectra_, amplitude_, grid_, now);
    fft_.inverse(space, spectra_, maps, now);
    if (kind_ == FieldKind::lognormal) {
      exponentiate(space, maps, grid_, kappa0_, static_cast<float>(half_gaussian_variance_), now);
    }
  }
  space.fence();
}

}  // namespace umbriel
