// The small U-Net, and the published one on small maps, against the float64 reference: forward, gradients, frozen.
#include "umbriel/models/score_unet.hpp"

#include "../nn/double_interpreter.hpp"
#include "umbriel/models/uresnet18.hpp"
#include "umbriel/nn/frozen.hpp"

namespace umbriel {
namespace {

using namespace nn::testing;

std::unique_ptr<Network> network_of(const std::string& text, int channels = 2) {
  return make_network(Config::parse(text), channels);
}

nn::Value record(const Network& network, nn::Tape& tape, Extents e) {
  const nn::Value x = tape.input(e);
  std::vector<nn::Scalars> noise;
  for (int i = 0; i < network.noise_features(); ++i) noise.push_back(tape.scalars(e.n));
  return network.build(tape, x, noise);
}

/// The network's numbers for these noise levels, as float32 holds them.
std::vector<Doubles> features_of(const Network& network, const Doubles& sigma) {
  const View1<float> view("sigma", sigma.size());
  set_floats(view.data(), sigma);
  std::vector<View1<float>> features;
  for (int i = 0; i < network.noise_features(); ++i) features.emplace_back("feature", sigma.size());
  network.set_noise(Space(), static_cast<int>(sigma.size()), view, features);
  Space().fence();
  std::vector<Doubles> values;
  for (const auto& feature : features) values.push_back(to_doubles(feature));
  return values;
}

/// Frozen for one sample at a time, against the reference. @return the share of the work that is left
double expect_frozen(const Network& network, Extents e, const Doubles& sigma) {
  nn::Tape plain(network.parameters(), false), one(network.parameters(), false);
  const nn::Value output = record(network, plain, e);
  DoubleInterpreter reference(plain);
  reference.inputs[0] = draw_normals(70, e.elements());
  reference.scalars = features_of(network, sigma);
  const nn::FrozenNetwork frozen(one, record(network, one, {1, e.h, e.w, e.c}), network.parameters().values());
  std::vector<View1<float>> scalars;
  for (const Doubles& values : reference.scalars) {
    scalars.emplace_back("scalars", values.size());
    set_floats(scalars.back().data(), values);
  }
  const Tensor x("x", e.n, e.h, e.w, e.c), y("y", e.n, e.h, e.w, 1);
  set_floats(x.data(), reference.inputs[0]);
  frozen.run(Space(), Activations(x), scalars, Activations(y));
  Space().fence();
  EXPECT_LT(distance(to_doubles(Activations(y)), reference.evaluate(output)), 1e-5);
  return frozen.flops() / one.flops();
}

TEST(ScoreUNet, AgreesWithFloat64) {
  const char* small = "widths = [4, 6, 8]\nblocks = [1, 1, 2]\nembedding = 5\n";
  for (const char* more : {"", "norm = \"group\"\ngroups = 2\n", "activation = \"relu\"\npadding = \"zeros\"\n",
                           "activation = \"softplus\"\nnorm = \"group\"\ngroups = 1\npadding = \"zeros\"\n"}) {
    SCOPED_TRACE(more);
    const auto network = network_of(std::string("[network]\n") + small + more);
    set_parameters(network->parameters());
    const Doubles sigma = {0.01, 0.3, 0.05};
    const Extents e{3, 8, 12, 2};
    nn::Tape tape(network->parameters(), true);
    const nn::Value y = record(*network, tape, e);
    expect_forward_and_gradients(tape, y, {1e-5, 1e-4, 1}, features_of(*network, sigma));
    EXPECT_LE(expect_frozen(*network, e, sigma), 1);
  }
}

TEST(ScoreUNet, KnowsTheNoiseLevel) {
  const auto network = network_of("[network]\nwidths = [4]\nblocks = [1]\n", 1);
  EXPECT_EQ(network->input_channels(), 1);
  EXPECT_EQ(network->side_multiple(), 1);
  const auto features = features_of(*network, {0.03, 0.3});
  const double t = std::log(10.0);
  const double expected[4][2] = {{0, 0.4 * t}, {0, std::sin(t)}, {1, std::cos(t)}, {-0.5, 0.16 * t * t - 0.5}};
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t n = 0; n < 2; ++n) EXPECT_NEAR(features[i][n], expected[i][n], 1e-6) << i;
  }
}

TEST(ScoreUNet, RefusesSettingsThatDoNotFit) {
  for (const char* bad : {"widths = []\nblocks = []", "widths = [4, 8]\nblocks = [1]", "widths = [4.5]\nblocks = [1]",
                          "widths = [4]\nblocks = [0]", "widths = [6]\nblocks = [1]\nnorm = \"group\"\ngroups = 4",
                          "kind = \"unit\"", "activation = \"gelu\""}) {
    try {
      network_of(std::string("[network]\n") + bad);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage) << bad;
    }
  }
}

TEST(UResNet18, AgreesWithFloat64) {
  UResNet18 network(2, true);
  network.parameters().allocate();
  set_parameters(network.parameters());
  const Doubles sigma = {0.02, 0.2};
  const Extents e{2, 32, 24, 2};
  EXPECT_LT(expect_frozen(network, e, sigma), 0.9);

  // One direction through all parameters: the network is large.
  const auto features = features_of(network, sigma);
  nn::Tape tape(network.parameters(), true);
  const nn::Value output = record(network, tape, e);
  DoubleInterpreter reference(tape);
  tape.plan(output);
  reference.inputs[0] = draw_normals(71, e.elements());
  reference.scalars = features;
  set_floats(tape.value(tape.inputs()[0]).data, reference.inputs[0]);
  for (std::size_t i = 0; i < features.size(); ++i)
    set_floats(tape.scalars(nn::Scalars{static_cast<int>(i)}).data(), features[i]);
  tape.forward(Space());
  Space().fence();
  EXPECT_LT(distance(to_doubles(tape.value(output)), reference.evaluate(output)), 1e-5);
  const Doubles seed = draw_normals(72, e.pixels());
  set_floats(tape.gradient(output).data, seed);
  tape.backward(Space());
  Space().fence();
  const Doubles gradient = to_doubles(network.parameters().gradients()), kept = reference.parameters;
  // Up the gradient of each parameter with unit length: all layers count, and nothing cancels.
  Doubles direction(kept.size(), 0.0);
  for (const nn::Parameter& p : network.parameters().parameters()) {
    double square = 0;
    for (std::int64_t i = p.offset; i < p.offset + p.size; ++i)
      square += std::pow(gradient[static_cast<std::size_t>(i)], 2);
    ASSERT_GT(square, 0) << p.name;
    for (std::int64_t i = p.offset; i < p.offset + p.size; ++i)
      direction[static_cast<std::size_t>(i)] = gradient[static_cast<std::size_t>(i)] / std::sqrt(square);
  }
  double along = 0, ends[2];
  for (std::size_t i = 0; i < direction.size(); ++i) along += direction[i] * gradient[i];
  constexpr double h = 1e-8;
  for (const int side : {0, 1}) {
    for (std::size_t i = 0; i < kept.size(); ++i)
      reference.parameters[i] = kept[i] + (side == 0 ? -h : h) * direction[i];
    const Doubles y = reference.evaluate(output);
    ends[side] = 0;
    for (std::size_t i = 0; i < y.size(); ++i) ends[side] += seed[i] * y[i];
  }
  EXPECT_NEAR(along, (ends[1] - ends[0]) / (2 * h), 1e-4 * along);
}

}  // namespace
}  // namespace umbriel
