#include "umbriel/models/flow.hpp"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <string>

#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

using Memory = FlowRunner::Memory;

/// With every parameter moved from where it starts, so that nothing is zero.
std::unique_ptr<Flow> made(const std::string& settings, double moved = 0.03, int conditions = 0) {
  auto flow = std::make_unique<Flow>(Config::parse("[network]\nwidth = 8\n" + settings, "test"), conditions);
  flow->initialise(5, nn::Initialisation::he_normal);
  const View1<float>& values = flow->parameters().values();
  const auto host = on_host(values);
  for (const nn::Parameter& p : flow->parameters().parameters()) {
    for (std::int64_t i = p.offset; i < p.offset + p.size; ++i)
      host(static_cast<std::size_t>(i)) +=
          static_cast<float>(moved) * normal({9, Purpose::test, 0, 0}, static_cast<std::uint64_t>(i));
  }
  Kokkos::deep_copy(values, host);
  return flow;
}

void fill_maps(const Tensor& maps, std::uint32_t stream) {
  const auto host = Kokkos::create_mirror_view(HostMemory{}, maps);
  const std::size_t pixels = maps.size() / maps.extent(0);
  for (std::size_t i = 0; i < maps.size(); ++i)
    host.data()[i] = normal({3, Purpose::test, stream + static_cast<std::uint32_t>(i / pixels), 0}, i % pixels);
  Kokkos::deep_copy(maps, host);
}

std::vector<float> read(const Tensor& maps) {
  const auto host = on_host(maps);
  return {host.data(), host.data() + host.size()};
}
std::vector<float> read(const View1<float>& view) {
  const auto host = on_host(view);
  return {host.data(), host.data() + host.size()};
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(static_cast<double>(a[i] - b[i])));
  return largest;
}

struct Kind {
  const char* settings;
  int conditions = 0;
};

std::unique_ptr<Flow> made(const Kind& kind, double moved = 0.03) {
  return made(kind.settings, moved, kind.conditions);
}

/// Other conditions for each map.
void tell(const FlowRunner& runner) {
  const Tensor& conditions = runner.conditions();
  const auto host = Kokkos::create_mirror_view(HostMemory{}, conditions);
  for (std::size_t i = 0; i < conditions.size(); ++i) host.data()[i] = normal({4, Purpose::test, 0, 0}, i);
  Kokkos::deep_copy(conditions, host);
}

// Finite differences want functions without kinks.
const Kind kinds[] = {
    {"kind = 'glow'\nlevels = 2\nsteps = 3\nactivation = 'elu'\n"},
    {"kind = 'realnvp'\nlevels = 2\nsteps = 2\ncheckerboard = 3\nactivation = 'elu'\n"},
    {"kind = 'glow'\nlevels = 1\nsteps = 2\nconditioner = 'gated'\nlayers = 2\npadding = 'zeros'\n"},
    {"kind = 'glow'\nlevels = 3\nsteps = 2\ncheckerboard = 2\nactivation = 'silu'\n"},
    {"kind = 'glow'\nlevels = 2\nsteps = 2\nactivation = 'elu'\n", 3},
    {"kind = 'glow'\nlevels = 1\nsteps = 2\ncheckerboard = 2\nconditioner = 'gated'\nlayers = 2\n", 1}};

TEST(Flow, IsInverted) {
  const Space space;
  for (const Kind& kind : kinds) {
    const auto flow = made(kind);
    FlowRunner runner(*flow, {16, 24}, 3, Memory::inference);
    tell(runner);
    runner.use(space, flow->parameters().values());
    const View1<double> log_determinant("log_determinant", 3);
    fill_maps(runner.maps(), 0);
    const std::vector<float> before = read(runner.maps());
    runner.forward(space, log_determinant);
    space.fence();
    const std::vector<float> latent = read(runner.maps());
    EXPECT_GT(largest_difference(before, latent), 0.1) << kind.settings;
    runner.inverse(space);
    space.fence();
    EXPECT_LT(largest_difference(before, read(runner.maps())), 1e-4) << kind.settings;
  }
}

TEST(Flow, StartsAsARotationOfPixels) {
  const auto flow = made(kinds[0], 0);
  const Space space;
  FlowRunner runner(*flow, {8, 8}, 1, Memory::inference);
  runner.use(space, flow->parameters().values());
  const View1<double> log_determinant("log_determinant", 1);
  fill_maps(runner.maps(), 0);
  const auto norm = [&] {
    double sum = 0;
    for (const float v : read(runner.maps())) sum += static_cast<double>(v) * static_cast<double>(v);
    return sum;
  };
  const double before = norm();
  runner.forward(space, log_determinant);
  space.fence();
  EXPECT_NEAR(norm(), before, 1e-4 * before);
  EXPECT_NEAR(on_host(log_determinant)(0), 0, 1e-4);
}

/// Rows of the Jacobian are gradients of single latent pixels; its determinant is found in float64.
TEST(Flow, LogDeterminantIsThatOfTheDenseJacobian) {
  const Space space;
  for (const Kind& kind : kinds) {
    const auto flow = made(kind);
    FlowRunner runner(*flow, {8, 8}, 1, Memory::stored);
    tell(runner);
    runner.use(space, flow->parameters().values());
    const View1<double> log_determinant("log_determinant", 1);
    Eigen::MatrixXd jacobian(64, 64);
    for (int i = 0; i < 64; ++i) {
      fill_maps(runner.maps(), 0);
      runner.forward(space, log_determinant);
      Kokkos::deep_copy(runner.gradients(), 0.0F);
      const auto unit = on_host(runner.gradients());
      unit.data()[i] = 1;
      Kokkos::deep_copy(runner.gradients(), unit);
      runner.backward(space, 0);
      space.fence();
      const std::vector<float> row = read(runner.gradients());
      for (int j = 0; j < 64; ++j) jacobian(i, j) = static_cast<double>(row[static_cast<std::size_t>(j)]);
    }
    const double expected = jacobian.partialPivLu().matrixLU().diagonal().array().abs().log().sum();
    EXPECT_GT(std::fabs(expected), 0.5) << kind.settings;
    EXPECT_NEAR(on_host(log_determinant)(0), expected, 1e-4 * (1 + std::fabs(expected))) << kind.settings;

    // The gradients themselves, along a direction, against the difference of two latent maps.
    fill_maps(runner.maps(), 0);
    const std::vector<float> at = read(runner.maps());
    fill_maps(runner.maps(), 100);
    const std::vector<float> along = read(runner.maps());
    std::vector<std::vector<float>> moved;
    constexpr float step = 2e-3F;
    for (const float sign : {1.0F, -1.0F}) {
      const auto host = on_host(runner.maps());
      for (std::size_t i = 0; i < 64; ++i) host.data()[i] = at[i] + sign * step * along[i];
      Kokkos::deep_copy(runner.maps(), host);
      runner.forward(space, log_determinant);
      space.fence();
      moved.push_back(read(runner.maps()));
    }
    double error = 0, size = 0;
    for (int i = 0; i < 64; ++i) {
      double product = 0;
      for (int j = 0; j < 64; ++j) product += jacobian(i, j) * static_cast<double>(along[static_cast<std::size_t>(j)]);
      const double difference =
          static_cast<double>(moved[0][static_cast<std::size_t>(i)] - moved[1][static_cast<std::size_t>(i)]) /
          (2 * static_cast<double>(step));
      error += (product - difference) * (product - difference);
      size += product * product;
    }
    EXPECT_LT(std::sqrt(error / size), 2e-3) << kind.settings;
  }
}

/// Loss of the tests: half the square of the latent map less the log-determinant.
double loss_of(const Space& space, FlowRunner& runner, const Flow& flow) {
  runner.use(space, flow.parameters().values());
  const View1<double> log_determinant("log_determinant", static_cast<std::size_t>(runner.batch()));
  fill_maps(runner.maps(), 0);
  runner.forward(space, log_determinant);
  space.fence();
  double loss = 0;
  for (const float z : read(runner.maps())) loss += 0.5 * static_cast<double>(z) * static_cast<double>(z);
  const auto host = on_host(log_determinant);
  for (std::size_t n = 0; n < host.size(); ++n) loss -= host(n);
  return loss;
}

void backward(const Space& space, FlowRunner& runner, const Flow& flow) {
  loss_of(space, runner, flow);
  Kokkos::deep_copy(runner.gradients(), runner.maps());
  runner.backward(space, -1);
  space.fence();
}

TEST(Flow, GradientsOfParametersAreFiniteDifferences) {
  const Space space;
  for (const Kind& kind : kinds) {
    const auto flow = made(kind);
    FlowRunner runner(*flow, {8, 8}, 2, Memory::stored);
    tell(runner);
    backward(space, runner, *flow);
    const std::vector<float> gradients = read(flow->parameters().gradients());
    const View1<float>& values = flow->parameters().values();
    const std::vector<float> start = read(values);
    // One random direction in each parameter: the loss moves by its product with the gradient.
    for (const nn::Parameter& p : flow->parameters().parameters()) {
      const bool lower = p.name.ends_with(".lower"), upper = p.name.ends_with(".upper");
      double expected = 0, size = 0;
      std::vector<float> along(start.size(), 0);
      for (std::int64_t i = 0; i < p.size; ++i) {
        const auto at = static_cast<std::size_t>(p.offset + i);
        along[at] = normal({2, Purpose::test, 7, 0}, at);
        if (lower || upper) {  // of which one triangle is used
          const std::int64_t row = i / p.shape[1], column = i % p.shape[1];
          if (lower ? row <= column : row >= column) {
            EXPECT_EQ(gradients[at], 0) << p.name;
            along[at] = 0;
          }
        }
        expected += static_cast<double>(along[at]) * static_cast<double>(gradients[at]);
        size += static_cast<double>(gradients[at]) * static_cast<double>(gradients[at]);
      }
      const double step = 2e-3 / std::sqrt(static_cast<double>(p.size));
      double losses[2];
      for (const int side : {0, 1}) {
        const auto host = on_host(values);
        for (std::size_t i = 0; i < start.size(); ++i)
          host(i) = start[i] + static_cast<float>((side == 0 ? step : -step) * static_cast<double>(along[i]));
        Kokkos::deep_copy(values, host);
        losses[side] = loss_of(space, runner, *flow);
      }
      const auto host = on_host(values);
      for (std::size_t i = 0; i < start.size(); ++i) host(i) = start[i];
      Kokkos::deep_copy(values, host);
      EXPECT_NEAR((losses[0] - losses[1]) / (2 * step), expected, 0.02 * std::sqrt(size) + 0.05)
          << kind.settings << p.name;
    }
  }
}

TEST(Flow, ConstantMemoryGivesTheSameGradients) {
  const Space space;
  for (const Kind& kind : kinds) {
    const auto flow = made(kind);
    std::vector<std::vector<float>> gradients, of_maps;
    for (const Memory memory : {Memory::stored, Memory::constant}) {
      FlowRunner runner(*flow, {16, 16}, 2, memory);
      tell(runner);
      backward(space, runner, *flow);
      gradients.push_back(read(flow->parameters().gradients()));
      of_maps.push_back(read(runner.gradients()));
    }
    double largest = 0;
    for (const float g : gradients[0]) largest = std::max(largest, std::fabs(static_cast<double>(g)));
    EXPECT_LT(largest_difference(gradients[0], gradients[1]), 1e-4 * largest) << kind.settings;
    EXPECT_LT(largest_difference(of_maps[0], of_maps[1]), 1e-4) << kind.settings;
  }
}

TEST(Flow, ConstantMemoryDoesNotGrowWithDepth) {
  std::vector<double> constant, stored;
  for (const int depth : {8, 16, 32}) {
    const auto flow = made("levels = 2\nsteps = " + std::to_string(depth) + "\n");
    constant.push_back(FlowRunner(*flow, {16, 16}, 2, Memory::constant).bytes());
    stored.push_back(FlowRunner(*flow, {16, 16}, 2, Memory::stored).bytes());
  }
  EXPECT_EQ(constant[0], constant[1]);
  EXPECT_EQ(constant[0], constant[2]);
  EXPECT_GT(stored[2], 3 * stored[0]);
}

TEST(Flow, AMapGivesTheSameBitsInAnyBatch) {
  const Space space;
  const auto flow = made(kinds[0]);
  std::vector<std::vector<float>> latent;
  for (const int batch : {1, 4}) {
    FlowRunner runner(*flow, {16, 16}, batch, Memory::inference);
    tell(runner);
    runner.use(space, flow->parameters().values());
    const View1<double> log_determinant("log_determinant", static_cast<std::size_t>(batch));
    fill_maps(runner.maps(), 0);
    runner.forward(space, log_determinant);
    space.fence();
    latent.push_back(read(runner.maps()));
  }
  for (std::size_t i = 0; i < latent[0].size(); ++i) ASSERT_EQ(latent[0][i], latent[1][i]);
}

TEST(Flow, IsWhatItsConditionsMakeIt) {
  const Space space;
  const auto flow = made(kinds[4]);
  FlowRunner runner(*flow, {16, 16}, 2, Memory::inference);
  runner.use(space, flow->parameters().values());
  const View1<double> log_determinant("log_determinant", 2);
  std::vector<std::vector<float>> latent;
  for (const float condition : {0.0F, 0.0F, 1.0F}) {
    Kokkos::deep_copy(runner.conditions(), 0.0F);
    const auto host = on_host(runner.conditions());
    host(1, 0, 0, 2) = condition;  // of the second map
    Kokkos::deep_copy(runner.conditions(), host);
    fill_maps(runner.maps(), 0);
    runner.forward(space, log_determinant);
    space.fence();
    latent.push_back(read(runner.maps()));
  }
  EXPECT_EQ(latent[0], latent[1]);
  EXPECT_EQ(std::vector<float>(latent[0].begin(), latent[0].begin() + 256),
            std::vector<float>(latent[2].begin(), latent[2].begin() + 256));
  EXPECT_GT(largest_difference(latent[0], latent[2]), 1e-3);
}

TEST(Flow, RefusesWhatDoesNotFit) {
  const auto flow = made(kinds[3]);
  EXPECT_THROW(FlowRunner(*flow, {12, 16}, 1, Memory::inference), Error);
  EXPECT_THROW(made("kind = 'other'\n"), Error);
}

}  // namespace
}  // namespace umbriel
