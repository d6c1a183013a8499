#include "umbriel/simulation/dust_map.hpp"

#include <alm.h>
#include <alm_healpix_tools.h>
#include <healpix_map.h>
#include <xcomplex.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "umbriel/data/healpix_map.hpp"
#include "umbriel/mpi/watchdog.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {

namespace {

using Coefficients = Alm<xcomplex<float>>;
using Map = Healpix_Map<float>;

constexpr double degree = std::numbers::pi / 180;
/// Streams of Purpose::simulation_field; flat maps have step 0.
constexpr std::uint32_t sphere = 1;

/// a_lm of a Gaussian field with a spectrum that is scaled to unit variance. @param field  each has draws of its own
Coefficients draw(int lmax, const std::function<double(int)>& spectrum, std::uint64_t seed, std::uint32_t field) {
  double variance = 0;
  for (int l = 1; l <= lmax; ++l) variance += (2 * l + 1) / (4 * std::numbers::pi) * spectrum(l);
  Coefficients alm(lmax, lmax);
  const DrawKey key{seed, Purpose::simulation_field, field, sphere};
  alm(0, 0) = 0;
  for (int l = 1; l <= lmax; ++l) {
    const double deviation = std::sqrt(spectrum(l) / variance);
    // The address of a draw does not depend on lmax, so that skies of other nside have the same large scales.
    for (int m = 0; m <= l; ++m) {
      const std::uint64_t element =
          2 * (static_cast<std::uint64_t>(l) * (static_cast<std::uint64_t>(l) + 1) / 2 + static_cast<std::uint64_t>(m));
      const double scale = m == 0 ? deviation : deviation / std::numbers::sqrt2;
      alm(l, m) = {static_cast<float>(scale * static_cast<double>(normal(key, element))),
                   m == 0 ? 0 : static_cast<float>(scale * static_cast<double>(normal(key, element + 1)))};
    }
  }
  return alm;
}

}  // namespace

std::vector<float> simulate_dust(const DustOptions& options, std::uint64_t seed) {
  const HealpixPixels pixels(options.nside, false);
  const int nside = options.nside, lmax = std::max(2, 2 * nside);
  const auto n = static_cast<std::size_t>(pixels.count());

  // 1 + the filaments of all bands.
  std::vector<float> ridges(n, 1);
  std::uint32_t field = 1;
  for (int band = 16; options.filaments > 0 && 3 * band <= nside; band *= 3, ++field) {
    const auto spectrum = [&](int l) { return std::exp(-2 * std::pow(std::log(static_cast<double>(l) / band), 2)); };
    const Coefficients alm = draw(std::min(lmax, 4 * band), spectrum, seed, field);
    report_alive();
    Map h(nside, RING, SET_NSIDE), theta(h), phi(h);
    alm2map_der1(alm, h, theta, phi);
    const double width = 0.15 / band;
    for (std::size_t i = 0; i < n; ++i) {
      const int p = static_cast<int>(i);
      const double steepness = std::hypot(static_cast<double>(theta[p]), static_cast<double>(phi[p])) + 1e-9 * band;
      const double distance = static_cast<double>(h[p]) / steepness / width;
      ridges[i] += static_cast<float>(options.filaments * std::exp(-0.5 * distance * distance));
    }
  }
  double mean = 0;
  for (const float value : ridges) mean += static_cast<double>(value) / static_cast<double>(n);

  report_alive();
  const auto power_law = [&](int l) { return std::pow(std::max(l, 4), options.slope); };
  Map g(nside, RING, SET_NSIDE);
  alm2map(draw(lmax, power_law, seed, 0), g);
  const double s = options.contrast, plane = std::sin(3 * degree);
  std::vector<float> intensity(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double sine = std::sin(pixels.centre(static_cast<std::int64_t>(i))[1] * degree);
    const double profile = options.pole * std::sqrt((1 + plane * plane) / (sine * sine + plane * plane));
    intensity[i] =
        static_cast<float>(profile * std::exp(s * static_cast<double>(g[static_cast<int>(i)]) - 0.5 * s * s) *
                           static_cast<double>(ridges[i]) / mean);
  }
  return intensity;
}

}  // namespace umbriel
