// The prior in jobs/priors does what its training record says: on held-out lognormal maps its denoiser beats the Wiener
// filter, nowhere is it worse, and on an N-body map that no training saw neither (that map is read from the reference
// data where they are).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "umbriel/data/fits.hpp"
#include "umbriel/models/score_model.hpp"
#include "umbriel/rng/normal.hpp"
#include "umbriel/simulation/convergence_map.hpp"

namespace umbriel {
namespace {

const std::string prior_path = std::string(UMBRIEL_SOURCE_DIR) + "/jobs/priors/cosmos.safetensors";

PowerSpectrum spectrum_of(const ScoreModel& model) {
  std::istringstream text(model.metadata().at("umbriel.power_spectrum"));
  std::vector<double> multipoles, values;
  for (double l, c; text >> l >> c;) {
    multipoles.push_back(l);
    values.push_back(c);
  }
  return PowerSpectrum(multipoles, values);
}

/// Share by which the hybrid denoiser's squared error is below the Gaussian one's, summed over the maps.
double gain(const ScoreModel& model, const MapBatch& maps, float sigma, const HostView2<float>& power,
            double stretch = 1) {
  const Grid grid{static_cast<int>(maps.extent(1)), static_cast<int>(maps.extent(2))};
  const int n = static_cast<int>(maps.extent(0));
  const ScoreEvaluator evaluator(model, model.network().parameters().values(), grid, on_device(power), {}, stretch);
  const MapBatch noise("noise", n, grid.height, grid.width);
  const View1<DrawKey> keys("keys", n);
  const HostView1<DrawKey> host_keys("keys", n);
  for (int i = 0; i < n; ++i) host_keys(i) = {11, Purpose::test, static_cast<std::uint32_t>(i), 0};
  Kokkos::deep_copy(keys, host_keys);
  const Space space;
  fill_normals(space, noise, keys, n);
  const auto errors = denoising_errors(space, evaluator, grid, on_device(power), n, maps, noise, sigma);
  double gaussian = 0, hybrid = 0;
  for (const auto& error : errors) {
    gaussian += error[0];
    hybrid += error[1];
  }
  std::printf("sigma %-6g gain %.4f\n", static_cast<double>(sigma), 1 - hybrid / gaussian);
  return 1 - hybrid / gaussian;
}

double gain(const ScoreModel& model, const MapBatch& maps, float sigma) {
  const Grid grid{static_cast<int>(maps.extent(1)), static_cast<int>(maps.extent(2))};
  return gain(model, maps, sigma, pixel_power(spectrum_of(model), grid, 0.29));
}

TEST(ShippedPrior, BeatsTheWienerFilterOnHeldOutMaps) {
  const ScoreModel model = ScoreModel::load(prior_path);
  const Grid grid{128, 128};
  const double kappa0 = std::atof(model.metadata().at("umbriel.kappa0").c_str());
  ConvergenceSimulator simulator(spectrum_of(model), grid, 0.29, FieldKind::lognormal, kappa0);
  const MapBatch maps("maps", 12, grid.height, grid.width);
  simulator.draw(987654321, 0, 12, maps);
  EXPECT_GT(gain(model, maps, 0.02f), 0.20);
  EXPECT_GT(gain(model, maps, 0.05f), 0.14);
  EXPECT_GT(gain(model, maps, 0.1f), 0.07);
  for (const float sigma : {0.003f, 0.005f, 0.01f, 0.2f, 0.3f, 0.5f}) EXPECT_GE(gain(model, maps, sigma), 0.0) << sigma;
}

TEST(ShippedPrior, IsNoWorseOnAnNBodyMap) {
  const char* data = std::getenv("UMBRIEL_REFERENCE_DATA");
  const std::string path = std::string(data != nullptr ? data : "") + "/kappa/ramses_kappa_350.fits";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no reference data: " << path;
  const ScoreModel model = ScoreModel::load(prior_path);
  const FitsImage image = read_fits_image(path);
  const int side = 344;  // a multiple of 8
  const HostMaps host("map", 1, side, side);
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) host(0, y, x) = static_cast<float>(image.values[static_cast<std::size_t>(y) * image.width + x]);
  }
  for (const float sigma : {0.003f, 0.01f, 0.02f, 0.05f, 0.1f, 0.2f, 0.3f, 0.5f})
    EXPECT_GE(gain(model, on_device(host), sigma), 0.0) << sigma;
}

}  // namespace
}  // namespace umbriel
