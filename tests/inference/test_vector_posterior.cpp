#include "umbriel/inference/vector_posterior.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "umbriel/inference/linear_operator.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

/// ln p = -1/2 sum (x_i - m_i)^2 / s_i^2.
class Gaussian final : public VectorDensity {
 public:
  std::vector<double> mean = {0.5, -1, 2}, deviation = {1, 0.3, 0.7};
  int places = 8;

  int size() const override { return 3; }
  int batch() const override { return places; }
  std::vector<double> evaluate(const Space&, const std::vector<float>& points, std::vector<float>& gradient) override {
    std::vector<double> value(points.size() / 3, 0);
    gradient.resize(points.size());
    for (std::size_t i = 0; i < points.size(); ++i) {
      const double s = deviation[i % 3], z = (static_cast<double>(points[i]) - mean[i % 3]) / s;
      value[i / 3] -= 0.5 * z * z;
      gradient[i] = static_cast<float>(-z / s);
    }
    return value;
  }
};

std::vector<VectorChain> run(Gaussian& density, const VectorHmcOptions& options, std::int64_t first, int n) {
  std::vector<VectorChain> chains;
  for (int i = 0; i < n; ++i) chains.push_back(begin_vector_chain(options, 3, first + i));
  EXPECT_TRUE(run_vector_chains(Space(), density, options, chains));
  return chains;
}

TEST(VectorPosterior, ChainsHaveTheMomentsOfTheDensity) {
  Gaussian density;
  VectorHmcOptions options;
  options.draws = 250;
  options.trajectories_a_draw = 2;
  options.leapfrogs = 6;
  double sum[3] = {}, squares[3] = {}, accepted = 0;
  const int chains = 16;
  for (int first = 0; first < chains; first += 8) {
    for (const VectorChain& chain : run(density, options, first, 8)) {
      EXPECT_FALSE(chain.diverged());
      EXPECT_EQ(chain.log_density.size(), 250U);
      accepted += chain.accept_rate / chains;
      for (std::size_t i = 0; i < chain.draws.size(); ++i) {
        const double z = (static_cast<double>(chain.draws[i]) - density.mean[i % 3]) / density.deviation[i % 3];
        sum[i % 3] += z;
        squares[i % 3] += z * z;
      }
    }
  }
  const double draws = 250.0 * chains;
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(sum[i] / draws, 0, 0.08) << i;
    EXPECT_NEAR(squares[i] / draws, 1, 0.1) << i;
  }
  EXPECT_GT(accepted, 0.6);
  EXPECT_LT(accepted, 0.97) << "steps are fitted to 0.8";
}

TEST(VectorPosterior, AChainIsTheSameInAnyBatch) {
  Gaussian density;
  VectorHmcOptions options;
  options.warm_up = 30;
  const auto together = run(density, options, 0, 6);
  for (const std::int64_t chain : {0, 3, 5}) {
    const auto alone = run(density, options, chain, 1);
    EXPECT_EQ(alone[0].draws, together[static_cast<std::size_t>(chain)].draws);
    EXPECT_EQ(alone[0].fit.step, together[static_cast<std::size_t>(chain)].fit.step);
  }
  EXPECT_NE(together[0].draws, together[1].draws);
  options.seed = 2;
  EXPECT_NE(run(density, options, 0, 1)[0].draws, together[0].draws);
}

// Stopped at any trajectory, even while others in the batch have come further, a chain goes on with the same bits.
TEST(VectorPosterior, AChainThatIsStoppedGoesOnWithTheSameBits) {
  Gaussian density;
  density.places = 4;
  VectorHmcOptions options;
  options.warm_up = 12;
  const auto whole = run(density, options, 0, 6);
  std::vector<VectorChain> chains;
  for (int chain = 0; chain < 6; ++chain) chains.push_back(begin_vector_chain(options, 3, chain));
  int runs = 0;
  for (bool done = false; !done; ++runs) {
    int asked = 0;
    done = run_vector_chains(Space(), density, options, chains, [&] { return ++asked > 17 + runs; });
    if (runs == 1) std::swap(chains[0], chains[5]);  // another order is another rank's share
  }
  EXPECT_GT(runs, 5);
  std::swap(chains[0], chains[5]);
  for (std::size_t chain = 0; chain < 6; ++chain) {
    EXPECT_EQ(chains[chain].chain, static_cast<std::int64_t>(chain));
    EXPECT_EQ(chains[chain].draws, whole[chain].draws);
    EXPECT_EQ(chains[chain].log_density, whole[chain].log_density);
    EXPECT_EQ(chains[chain].accept_rate, whole[chain].accept_rate);
  }
}

TEST(VectorPosterior, TheMaximumIsFound) {
  Gaussian density;
  double value = -1;
  const std::vector<float> found = maximum_of(Space(), density, {3, 3, 3}, 100, value);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(static_cast<double>(found[i]), density.mean[i], 1e-3);
  EXPECT_NEAR(value, 0, 1e-5);
  density.mean[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(maximum_of(Space(), density, {3, 3, 3}, 100, value), Error);
}

TEST(LinearOperator, BeamAndMaskHaveTheirTranspose) {
  const Grid grid{12, 16};
  std::vector<float> mask(192, 1);
  for (std::size_t i = 20; i < 60; ++i) mask[i] = 0;
  const auto random = [&](std::uint32_t stream) {
    const MapBatch maps("maps", 2, grid.height, grid.width);
    const auto host = Kokkos::create_mirror_view(HostMemory{}, maps);
    for (std::size_t i = 0; i < host.size(); ++i) host.data()[i] = normal({4, Purpose::test, stream, 0}, i);
    Kokkos::deep_copy(maps, host);
    return maps;
  };
  const Space space;
  for (const double fwhm : {0.0, 3.0}) {
    const MaskedBeam instrument(grid, mask, fwhm, 2);
    const MapBatch x = random(1), y = random(2), ax("ax", 2, 12, 16), ay("ay", 2, 12, 16);
    instrument.apply(space, x, 2, ax);
    instrument.transpose(space, y, 2, ay);
    space.fence();
    const auto hx = on_host(x), hy = on_host(y), hax = on_host(ax), hay = on_host(ay);
    double left = 0, right = 0, hidden = 0, change = 0;
    for (std::size_t i = 0; i < hx.size(); ++i) {
      left += static_cast<double>(hax.data()[i]) * static_cast<double>(hy.data()[i]);
      right += static_cast<double>(hx.data()[i]) * static_cast<double>(hay.data()[i]);
      if (mask[i % 192] == 0) hidden += std::fabs(static_cast<double>(hax.data()[i]));
      if (mask[i % 192] != 0) change += std::fabs(static_cast<double>(hax.data()[i] - hx.data()[i]));
    }
    EXPECT_NEAR(left, right, 1e-4 * (1 + std::fabs(left)));
    EXPECT_EQ(hidden, 0);
    if (fwhm == 0) {
      EXPECT_EQ(change, 0);
    } else {
      EXPECT_GT(change, 10);
    }
  }
  // A constant sky stays what it is under a beam.
  const MaskedBeam beam(grid, std::vector<float>(192, 1), 3, 1);
  const MapBatch flat("flat", 1, 12, 16), seen("seen", 1, 12, 16);
  Kokkos::deep_copy(flat, 2.0F);
  beam.apply(space, flat, 1, seen);
  space.fence();
  const auto host = on_host(seen);
  for (std::size_t i = 0; i < host.size(); ++i) EXPECT_NEAR(host.data()[i], 2, 1e-5);
}

}  // namespace
}  // namespace umbriel
