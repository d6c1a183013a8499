#include "umbriel/simulation/mock_survey.hpp"

#include <algorithm>
#include <cmath>

#include "umbriel/core/loops.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/rng/normal.hpp"
#include "umbriel/simulation/shear.hpp"

namespace umbriel {
namespace {

// Streams of one seed: `step` of the key. Steps 0 and 1 of survey_noise are the two components of the noise.
constexpr std::uint32_t counts_step = 2;
constexpr std::uint32_t edge_step = 0, holes_step = 1;  // of survey_mask

/// Number of galaxies from one uniform in (0, 1), by inversion. Above a mean of 200, where exp(-mean) runs out of
/// digits for the far tail and sigma_e / sqrt(n) varies little, the normal limit takes over.
int poisson(double mean, const DrawKey& key, std::uint64_t element) {
  if (mean > 200) {
    return std::max(0, static_cast<int>(std::lround(mean + std::sqrt(mean) * normal(key, element))));
  }
  const double u = uniform(key, element);
  double probability = std::exp(-mean), cumulative = probability;
  int count = 0;
  while (u > cumulative && probability > 0) {
    ++count;
    probability *= mean / count;
    cumulative += probability;
  }
  return count;
}

std::string pixel(int y, int x) { return "pixel y = " + std::to_string(y) + ", x = " + std::to_string(x); }

/// Removes round holes that cover about 5 % of the map; brighter, larger stars are rarer.
void punch_holes(const HostMaps& mask, Grid grid, std::uint64_t seed) {
  const DrawKey key{seed, Purpose::survey_mask, 0, holes_step};
  constexpr int holes = 60;
  const double side = std::min(grid.height, grid.width);
  for (int hole = 0; hole < holes; ++hole) {
    const auto draw = [&](int i) { return uniform(key, static_cast<std::uint64_t>(4 * hole + i)); };
    const double centre_x = draw(0) * grid.width, centre_y = draw(1) * grid.height;
    const double u = draw(2);
    const double radius = side * (0.008 + 0.022 * u * u);
    const int reach = static_cast<int>(radius) + 1;
    for (int y = static_cast<int>(centre_y) - reach; y <= static_cast<int>(centre_y) + reach; ++y) {
      for (int x = static_cast<int>(centre_x) - reach; x <= static_cast<int>(centre_x) + reach; ++x) {
        const bool inside = y >= 0 && y < grid.height && x >= 0 && x < grid.width;
        if (inside && std::hypot(x + 0.5 - centre_x, y + 0.5 - centre_y) < radius) mask(0, y, x) = 0;
      }
    }
  }
}

/// Keeps the square pointings of a 24 x 24 mosaic whose centre is inside a square of 74.5 % of the map's side; each
/// draws its own limit, so that the edge is ragged.
void cut_field(const HostMaps& mask, Grid grid, std::uint64_t seed) {
  const DrawKey key{seed, Purpose::survey_mask, 0, edge_step};
  constexpr int pointings = 24;
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      const int row = y * pointings / grid.height, column = x * pointings / grid.width;
      const double from_centre = std::max(std::abs(2 * row + 1 - pointings), std::abs(2 * column + 1 - pointings)) /
                                 static_cast<double>(pointings);
      const double limit = 0.745 + 0.16 * (uniform(key, static_cast<std::uint64_t>(row * pointings + column)) - 0.5);
      if (from_centre > limit) mask(0, y, x) = 0;
    }
  }
}

}  // namespace

HostMaps survey_mask(Grid grid, const std::string& kind, std::uint64_t seed) {
  require(grid.height >= 8 && grid.width >= 8, ExitCode::usage, "a mock mask needs at least 8 x 8 pixels",
          std::to_string(grid.height) + " x " + std::to_string(grid.width));
  require(kind == "full" || kind == "holes" || kind == "cosmos-like", ExitCode::usage, "unknown mask '" + kind + "'",
          "simulation", "choose full, holes or cosmos-like");
  HostMaps mask("umbriel::mask", 1, grid.height, grid.width);
  Kokkos::deep_copy(mask, 1.0f);
  if (kind == "cosmos-like") cut_field(mask, grid, seed);
  if (kind != "full") punch_holes(mask, grid, seed);
  return mask;
}

HostMaps shape_noise(Grid grid, const HostMaps& mask, double pixel_arcmin, double galaxies_per_arcmin2, double sigma_e,
                     std::uint64_t seed) {
  require_shape(mask, 1, grid, "mask");
  const auto positive = [](double value, const char* name) {
    require(std::isfinite(value) && value > 0, ExitCode::usage, std::string(name) + " is not positive", "shape noise");
  };
  positive(pixel_arcmin, "the pixel size");
  positive(galaxies_per_arcmin2, "the number of galaxies per square arcminute");
  positive(sigma_e, "the standard deviation of ellipticities");

  const DrawKey key{seed, Purpose::survey_noise, 0, counts_step};
  const double mean = galaxies_per_arcmin2 * pixel_arcmin * pixel_arcmin;
  HostMaps noise("umbriel::noise", 2, grid.height, grid.width);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      if (mask(0, y, x) == 0) continue;
      const int galaxies = poisson(mean, key, static_cast<std::uint64_t>(y) * grid.width + x);
      if (galaxies == 0) continue;
      noise(0, y, x) = noise(1, y, x) = static_cast<float>(sigma_e / std::sqrt(galaxies));
    }
  }
  return noise;
}

Survey mock_survey(const HostMaps& convergence, const HostMaps& mask, const HostMaps& noise, double pixel_arcmin,
                   std::uint64_t seed, std::uint32_t sample, bool reduced_shear) {
  const Grid grid{static_cast<int>(convergence.extent(1)), static_cast<int>(convergence.extent(2))};
  require_shape(convergence, 1, grid, "convergence");
  require_shape(mask, 1, grid, "mask");
  require_shape(noise, 2, grid, "noise");
  require(std::isfinite(pixel_arcmin) && pixel_arcmin > 0, ExitCode::input, "the pixel size is not positive",
          "mock survey");

  HostMaps observed("umbriel::mask", 1, grid.height, grid.width);
  long count = 0;
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      require(std::isfinite(convergence(0, y, x)), ExitCode::input, "the convergence is not finite", pixel(y, x));
      require(mask(0, y, x) == 0 || mask(0, y, x) == 1, ExitCode::input, "the mask is neither 0 nor 1", pixel(y, x));
      for (int c = 0; c < 2; ++c) {
        require(mask(0, y, x) == 0 || (std::isfinite(noise(c, y, x)) && noise(c, y, x) >= 0), ExitCode::input,
                "the noise is negative or not finite", pixel(y, x));
      }
      observed(0, y, x) = mask(0, y, x) == 1 && noise(0, y, x) > 0 && noise(1, y, x) > 0 ? 1.0f : 0.0f;
      count += observed(0, y, x) == 1;
    }
  }
  require(count > 0, ExitCode::input, "no pixel is observed", "mock survey", "give a mask and noise that leave some");

  const Space space;
  const RealFft fft(grid);
  MapBatch shear("umbriel::mock_shear", 2, grid.height, grid.width);
  MapBatch draws = uninitialised<MapBatch>("umbriel::mock_noise", 2, grid.height, grid.width);
  shear_from_convergence(space, fft, on_device(convergence), shear);
  HostView1<DrawKey> keys("umbriel::mock_keys", 2);
  for (std::uint32_t c = 0; c < 2; ++c) keys(c) = DrawKey{seed, Purpose::survey_noise, sample, c};
  fill_normals(space, draws, on_device(keys), 2);
  space.fence();
  const auto shear_host = on_host(shear);
  const auto draws_host = on_host(draws);

  HostMaps data("umbriel::shear", 2, grid.height, grid.width);
  HostMaps sigma("umbriel::noise", 2, grid.height, grid.width);
  HostMaps truth("umbriel::truth", 1, grid.height, grid.width);
  Kokkos::deep_copy(truth, convergence);
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      if (observed(0, y, x) == 0) continue;
      const float kappa = convergence(0, y, x);
      require(!reduced_shear || kappa < 1, ExitCode::input, "reduced shear diverges where the convergence reaches 1",
              pixel(y, x), "use the shear, or a smoother map");
      for (int c = 0; c < 2; ++c) {
        sigma(c, y, x) = noise(c, y, x);
        const float signal = reduced_shear ? shear_host(c, y, x) / (1 - kappa) : shear_host(c, y, x);
        data(c, y, x) = signal + noise(c, y, x) * draws_host(c, y, x);
      }
    }
  }

  Survey survey;
  survey.grid = grid;
  survey.pixel_arcmin = pixel_arcmin;
  survey.shear = data;
  survey.noise = sigma;
  survey.mask = observed;
  survey.truth = truth;
  return survey;
}

}  // namespace umbriel
