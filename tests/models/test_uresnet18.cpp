// The published network against PyTorch, with the weights exchanged through safetensors. Needs a Python with PyTorch
// and safetensors (UMBRIEL_TORCH_PYTHON) and the network in PyTorch (UMBRIEL_TORCH_NETWORK); skips where they are not.
#include <gtest/gtest.h>

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "umbriel/models/uresnet18.hpp"
#include "umbriel/nn/frozen.hpp"
#include "umbriel/nn/weights.hpp"

namespace umbriel {
namespace {

View1<float> to_view(const std::vector<float>& values) {
  View1<float> view("values", values.size());
  Kokkos::deep_copy(view,
                    Kokkos::View<const float*, HostMemory, Kokkos::MemoryUnmanaged>(values.data(), values.size()));
  return view;
}

std::vector<float> to_vector(const float* data, std::size_t n) {
  std::vector<float> values(n);
  Kokkos::deep_copy(Kokkos::View<float*, HostMemory, Kokkos::MemoryUnmanaged>(values.data(), n),
                    Kokkos::View<const float*, Memory, Kokkos::MemoryUnmanaged>(data, n));
  return values;
}

/// Largest difference over the largest value.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::fabs(static_cast<double>(b[i])));
  }
  return worst / largest;
}

TEST(UResNet18, HasTheParametersOfThePaper) {
  UResNet18 network(2, true);
  EXPECT_NEAR(static_cast<double>(network.parameters().count()), 2.98e6, 0.005e6);
  network.parameters().allocate();
  nn::Tape tape(network.parameters(), false);
  const nn::Value x = tape.input({1, 360, 360, 2});
  std::vector<nn::Scalars> noise = {tape.scalars(1), tape.scalars(1)};
  network.build(tape, x, noise);
  EXPECT_NEAR(tape.flops(), 56e9, 1e9);
}

TEST(UResNet18, AgreesWithPyTorch) {
  const char* python = std::getenv("UMBRIEL_TORCH_PYTHON");
  const char* peer = std::getenv("UMBRIEL_TORCH_NETWORK");
  if (python == nullptr || peer == nullptr || *python == 0 || !std::filesystem::exists(peer))
    GTEST_SKIP() << "no PyTorch: set UMBRIEL_TORCH_PYTHON and UMBRIEL_TORCH_NETWORK";
  const auto folder = std::filesystem::temp_directory_path() / ("umbriel-torch-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::string command = std::string(python) + " " + UMBRIEL_SOURCE_DIR + "/tests/models/torch_reference.py " +
                              peer + " " + folder.string();
  ASSERT_EQ(std::system(command.c_str()), 0) << command;

  UResNet18 network(2, true);
  nn::ParameterSet& set = network.parameters();
  set.allocate();
  nn::load_weights((folder / "weights.safetensors").string(), set, set.values());
  const nn::SafetensorsFile file((folder / "tensors.safetensors").string());
  const auto read = [&](const std::string& name) {
    for (const auto& entry : file.entries()) {
      if (entry.name == name) return file.read(entry);
    }
    ADD_FAILURE() << name;
    return std::vector<float>();
  };
  const Extents extents{3, 40, 24, 2};
  const View1<float> x = to_view(read("x")), sigma = to_view(read("sigma"));
  const std::vector<float> frozen_output = read("frozen"), output = read("trained");
  const auto pixels = static_cast<std::size_t>(extents.pixels());
  const Space space;

  {  // frozen, one sample at a time
    nn::Tape record(set, false);
    const nn::Value in = record.input({1, extents.h, extents.w, 2});
    const nn::Value out = network.build(record, in, {record.scalars(1), record.scalars(1)});
    const nn::FrozenNetwork frozen(record, out, set.values());
    EXPECT_LT(frozen.flops(), 0.85 * record.flops());
    const std::vector<View1<float>> noise = {View1<float>("a", 3), View1<float>("b", 3)};
    network.set_noise(space, 3, sigma, noise);
    View1<float> y("y", pixels);
    frozen.run(space, ConstActivations(x.data(), extents), noise, Activations(y.data(), {3, extents.h, extents.w, 1}));
    EXPECT_LT(distance(to_vector(y.data(), pixels), frozen_output), 1e-4);
  }
  {  // training, with the gradients of mean(output^2)
    nn::Tape tape(set, true);
    const nn::Value in = tape.input(extents);
    const std::vector<nn::Scalars> noise = {tape.scalars(3), tape.scalars(3)};
    const nn::Value out = network.build(tape, in, noise);
    tape.plan(out);
    Kokkos::deep_copy(View1<float>(tape.value(in).data, x.size()), x);
    network.set_noise(space, 3, sigma, {tape.scalars(noise[0]), tape.scalars(noise[1])});
    tape.forward(space);
    EXPECT_LT(distance(to_vector(tape.value(out).data, pixels), output), 1e-4);
    std::vector<float> seed = to_vector(tape.value(out).data, pixels);
    for (float& value : seed) value *= 2.0f / static_cast<float>(pixels);
    Kokkos::deep_copy(View1<float>(tape.gradient(out).data, pixels), to_view(seed));
    tape.backward(space);

    UResNet18 peer_network(2, true);
    peer_network.parameters().allocate();
    const nn::ParameterSet& peer_set = peer_network.parameters();
    nn::load_weights((folder / "gradients.safetensors").string(), peer_set, peer_set.values());
    // cuDNN sums gradients of weights in another order; some are small differences of large sums.
    constexpr double gradient_tolerance = runs_on_host ? 1e-4 : 3e-4;
    for (const nn::Parameter& p : set.parameters()) {
      const auto size = static_cast<std::size_t>(p.size);
      EXPECT_LT(distance(to_vector(set.gradients().data() + p.offset, size),
                         to_vector(peer_set.values().data() + p.offset, size)),
                gradient_tolerance)
          << p.name;
    }
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace umbriel
