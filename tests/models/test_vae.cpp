#include "umbriel/models/vae.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <Eigen/Dense>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "folder.hpp"
#include "umbriel/nn/initialise.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

std::vector<float> read(const View1<float>& view) {
  const auto host = on_host(view);
  return {host.data(), host.data() + host.size()};
}
std::vector<float> read(const Activations& a, std::int64_t count = 0) {
  std::vector<float> out(static_cast<std::size_t>(count > 0 ? count : a.extents.elements()));
  Kokkos::deep_copy(Kokkos::View<float*, HostMemory, Kokkos::MemoryUnmanaged>(out.data(), out.size()),
                    Kokkos::View<const float*, Memory, Kokkos::MemoryUnmanaged>(a.data, out.size()));
  return out;
}
void set(const Activations& a, const std::vector<float>& values) {
  Kokkos::deep_copy(Kokkos::View<float*, Memory, Kokkos::MemoryUnmanaged>(a.data, values.size()),
                    Kokkos::View<const float*, HostMemory, Kokkos::MemoryUnmanaged>(values.data(), values.size()));
}
void set(const View1<float>& view, const std::vector<float>& values) {
  set(Activations(view.data(), {1, 1, 1, static_cast<int>(values.size())}), values);
}
std::vector<float> random(std::size_t n, std::uint32_t stream, double size = 1) {
  std::vector<float> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<float>(size) * normal({3, Purpose::test, stream, 0}, i);
  return out;
}
double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(static_cast<double>(a[i] - b[i])));
  return largest;
}

/// Moves every parameter and moment from where it starts, so that none is zero.
void move_parameters(const nn::ParameterSet& set_, double by) {
  nn::initialise(set_, 5, nn::Initialisation::he_normal);
  std::vector<float> values = read(set_.values());
  for (const nn::Parameter& p : set_.parameters()) {
    for (std::int64_t i = p.offset; i < p.offset + p.size; ++i)
      values[static_cast<std::size_t>(i)] +=
          static_cast<float>(by) * normal({9, Purpose::test, 0, 0}, static_cast<std::uint64_t>(i));
  }
  set(set_.values(), values);
  std::vector<float> moments = read(set_.buffer_values());
  for (std::size_t i = 0; i < moments.size(); ++i) moments[i] += 0.3f * static_cast<float>(i % 5) * (moments[i] + 0.1f);
  set(set_.buffer_values(), moments);
}

const char* const small_network =
    "latent = 6\nencoder = [8, 4]\ndecoder = [16, 4]\nbase = 8\ndense = 12\n[latent]\nlayers = 3\nwidth = 8\n";

Config network_config(const std::string& network) { return Config::parse("[network]\n" + network, "test"); }

TEST(Vae, HasTheNumbersOfThePublishedDecoder) {
  const Vae vae(network_config(""), {256, 256});
  std::vector<std::pair<std::string, std::int64_t>> layers;
  std::int64_t trained = 0, moments = 0;
  for (const nn::Parameter& p : vae.parameters().parameters()) {
    if (!p.name.starts_with("decoder.")) continue;
    trained += p.size;
    if (p.name.ends_with("weight") && p.role != nn::Role::scale) layers.emplace_back(p.name, p.size);
  }
  for (const nn::Parameter& b : vae.parameters().buffers())
    if (b.name.starts_with("decoder.")) moments += b.size;
  EXPECT_EQ(trained, 2343713);
  EXPECT_EQ(moments, 544);
  EXPECT_EQ(trained + moments, 2344257);
  const std::vector<std::pair<std::string, std::int64_t>> expected = {{"decoder.dense.weight", 256 * 8192},
                                                                      {"decoder.0.convolution.weight", 16 * 32 * 128},
                                                                      {"decoder.1.convolution.weight", 16 * 128 * 64},
                                                                      {"decoder.2.convolution.weight", 16 * 64 * 32},
                                                                      {"decoder.3.convolution.weight", 16 * 32 * 16},
                                                                      {"decoder.last.weight", 16}};
  EXPECT_EQ(layers, expected);
  std::int64_t encoder = 0;
  for (const nn::Parameter& p : vae.parameters().parameters())
    if (p.name == "encoder.dense.weight") encoder = p.size;
  EXPECT_EQ(encoder, 32 * 32 * 64 * 1024);
}

TEST(Vae, RefusesWhatDoesNotFit) {
  EXPECT_THROW(Vae(network_config(small_network), {18, 16}), Error);
  EXPECT_THROW(Vae(network_config("encoder = []\n"), {64, 64}), Error);
  EXPECT_THROW(Vae(network_config("decoder = [1.5]\n"), {64, 64}), Error);
  EXPECT_THROW(Vae(network_config("latent = 1\n"), {64, 64}), Error);
}

TEST(Vae, AMapGivesTheSameBitsInAnyBatch) {
  const Vae vae(network_config(small_network), {16, 16});
  move_parameters(vae.parameters(), 0.1);
  const Space space{};
  const std::vector<float> maps = random(4 * 256, 1), latent = random(4 * 6, 2), base = random(4 * 6, 3);
  std::vector<std::vector<float>> statistics, decoded, drawn;
  for (const int batch : {1, 4}) {
    VaeRunner runner(vae, batch);
    runner.load(space);
    statistics.emplace_back();
    decoded.emplace_back();
    drawn.emplace_back();
    for (int first = 0; first < 4; first += batch) {
      const MapBatch fields("fields", batch, 16, 16), u("u", batch, 1, 6);
      const auto piece = [&](const std::vector<float>& all, int size) {
        return std::vector<float>(all.begin() + first * size, all.begin() + (first + batch) * size);
      };
      const auto append = [](std::vector<float>& to, const std::vector<float>& from) {
        to.insert(to.end(), from.begin(), from.end());
      };
      set(Activations(fields.data(), {batch, 16, 16, 1}), piece(maps, 256));
      append(statistics.back(), read(runner.encode(space, fields, batch)));
      set(runner.latent(), piece(latent, 6));
      const MapBatch map = runner.decode(space);
      append(decoded.back(), read(Activations(map.data(), {batch, 16, 16, 1})));
      set(Activations(u.data(), {batch, 1, 1, 6}), piece(base, 6));
      runner.from_base(space, u, batch);
      append(drawn.back(), read(runner.latent()));
    }
  }
  EXPECT_EQ(statistics[0], statistics[1]);
  EXPECT_EQ(decoded[0], decoded[1]);
  EXPECT_EQ(drawn[0], drawn[1]);
  EXPECT_GT(largest_difference(drawn[0], base), 0.1);
}

TEST(Vae, AgreesWithPyTorch) {
  const char* python = std::getenv("UMBRIEL_TORCH_PYTHON");
  if (python == nullptr || *python == 0) GTEST_SKIP() << "no PyTorch: set UMBRIEL_TORCH_PYTHON";
  const auto folder = std::filesystem::temp_directory_path() / ("umbriel-vae-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  for (const std::string norm : {"batch", "group"}) {
    const Vae vae(network_config("norm = '" + norm + "'\n" + small_network), {32, 32});
    const nn::ParameterSet& parameters = vae.parameters();
    move_parameters(parameters, 0.1);
    nn::save_weights((folder / "weights.safetensors").string(), parameters, parameters.values(), {});
    const std::vector<float> x = random(3 * 1024, 1), z = random(3 * 6, 2);
    nn::write_safetensors((folder / "input.safetensors").string(), {{"x", {3, 32, 32}, x}, {"z", {3, 6}, z}}, {});
    const std::string command =
        std::string(python) + " " + UMBRIEL_SOURCE_DIR + "/tests/models/torch_vae.py " + folder.string();
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    const nn::SafetensorsFile file((folder / "output.safetensors").string());

    const Space space;
    VaeRunner runner(vae, 3);
    runner.load(space);
    const MapBatch fields("fields", 3, 32, 32);
    set(Activations(fields.data(), {3, 32, 32, 1}), x);
    const std::vector<float> statistics = read(runner.encode(space, fields, 3));
    set(runner.latent(), z);
    const MapBatch maps = runner.decode(space);
    const std::vector<float> decoded = read(Activations(maps.data(), {3, 32, 32, 1}));
    for (const auto& entry : file.entries()) {
      const std::vector<float> theirs = file.read(entry);
      double size = 0;
      for (const float value : theirs) size = std::max(size, std::fabs(static_cast<double>(value)));
      EXPECT_GT(size, 0.1);
      EXPECT_LT(largest_difference(entry.name == "maps" ? decoded : statistics, theirs), 1e-5 * size)
          << norm << " " << entry.name;
    }
  }
  std::filesystem::remove_all(folder);
}

// --- the flow --------------------------------------------------------------------------------------------------------

class LatentFlowTest : public ::testing::Test {
 protected:
  static constexpr int size = 11, n = 3;  // octaves of four, four and three
  const Config config = Config::parse("[latent]\nlayers = 4\nwidth = 8\n", "test");
  nn::ParameterSet parameters;
  const LatentFlow flow{parameters, "flow", size, config};
  const Space space{};

  void SetUp() override {
    parameters.allocate();
    move_parameters(parameters, 0.3);
  }
};

TEST_F(LatentFlowTest, IsInvertedAndItsDeterminantIsThatOfTheJacobian) {
  const auto determinant = std::make_shared<LatentFlow::LogDeterminant>();
  nn::Options inputs_only;
  inputs_only.inputs_only = true;
  nn::Tape tape(parameters, true, inputs_only), back(parameters, true, inputs_only);
  const nn::Value z = tape.input({n, 1, 1, size}, true), u = back.input({n, 1, 1, size}, true);
  const nn::Value base = flow.to_base(tape, z, determinant), again = flow.from_base(back, u);
  tape.plan(base);
  back.plan(again);
  tape.load_parameters(space);
  back.load_parameters(space);
  const std::vector<float> start = random(n * size, 1);
  set(tape.value(z), start);
  Eigen::MatrixXd jacobian(size, size), inverse(size, size);
  std::vector<float> moved;
  for (int i = 0; i < size; ++i) {
    std::vector<float> unit(n * size, 0);
    unit[static_cast<std::size_t>(i)] = 1;
    Kokkos::deep_copy(determinant->sum, 0.0);
    tape.forward(space);
    moved = read(tape.value(base));
    set(tape.gradient(base), unit);
    tape.backward(space);
    const std::vector<float> row = read(tape.gradient(z));
    set(back.value(u), moved);
    back.forward(space);
    const std::vector<float> returned = read(back.value(again));
    EXPECT_LT(largest_difference(returned, start), 1e-5);
    set(back.gradient(again), unit);
    back.backward(space);
    const std::vector<float> inverse_row = read(back.gradient(u));
    for (int j = 0; j < size; ++j) {
      jacobian(i, j) = static_cast<double>(row[static_cast<std::size_t>(j)]);
      inverse(i, j) = static_cast<double>(inverse_row[static_cast<std::size_t>(j)]);
    }
  }
  EXPECT_GT(largest_difference(moved, start), 0.1);
  // Against finite differences, of the first sample: determinant and inverse alone do not see a gradient's wrong sign.
  for (int j = 0; j < size; ++j) {
    std::vector<float> ends[2];
    for (const int side : {0, 1}) {
      std::vector<float> shifted = start;
      shifted[static_cast<std::size_t>(j)] += side == 0 ? 2e-3f : -2e-3f;
      set(tape.value(z), shifted);
      tape.forward(space);
      ends[side] = read(tape.value(base));
    }
    for (std::size_t i = 0; i < size; ++i) {
      const double slope = static_cast<double>(ends[0][i] - ends[1][i]) / 4e-3;
      EXPECT_NEAR(jacobian(static_cast<Eigen::Index>(i), j), slope, 0.01 * (1 + std::fabs(slope))) << i << " " << j;
    }
  }
  Kokkos::deep_copy(determinant->sum, 0.0);
  set(tape.value(z), start);
  tape.forward(space);
  const double expected = jacobian.partialPivLu().matrixLU().diagonal().array().abs().log().sum();
  EXPECT_GT(std::fabs(expected), 0.1);
  EXPECT_NEAR(on_host(determinant->sum)(0), expected, 1e-4);
  EXPECT_LT((jacobian * inverse - Eigen::MatrixXd::Identity(size, size)).cwiseAbs().maxCoeff(), 1e-4);
}

TEST_F(LatentFlowTest, GradientsOfItsLikelihoodAreFiniteDifferences) {
  const auto determinant = std::make_shared<LatentFlow::LogDeterminant>();
  nn::Tape tape(parameters, true);
  const nn::Value z = tape.input({n, 1, 1, size});
  const nn::Value base = flow.to_base(tape, z, determinant);
  tape.plan(base);
  set(tape.value(z), random(n * size, 1));
  const auto loss = [&] {
    Kokkos::deep_copy(determinant->sum, 0.0);
    tape.forward(space);
    space.fence();
    double sum = 0;
    for (const float value : read(tape.value(base)))
      sum += 0.5 * static_cast<double>(value) * static_cast<double>(value);
    const auto host = on_host(determinant->sum);
    for (std::size_t i = 0; i < host.size(); ++i) sum -= host(i);
    return sum;
  };
  loss();
  set(tape.gradient(base), read(tape.value(base)));
  determinant->gradient = -1;
  tape.backward(space);
  space.fence();
  const std::vector<float> gradients = read(parameters.gradients()), start = read(parameters.values());
  for (const nn::Parameter& p : parameters.parameters()) {
    const std::vector<float> along = random(static_cast<std::size_t>(p.size), 8);
    double expected = 0, norm = 0;
    const double step = 5e-3 / std::sqrt(static_cast<double>(p.size));
    double losses[2];
    for (const int side : {0, 1}) {
      std::vector<float> values = start;
      for (std::size_t i = 0; i < along.size(); ++i)
        values[static_cast<std::size_t>(p.offset) + i] += static_cast<float>(side == 0 ? step : -step) * along[i];
      set(parameters.values(), values);
      losses[side] = loss();
    }
    for (std::size_t i = 0; i < along.size(); ++i) {
      const auto g = static_cast<double>(gradients[static_cast<std::size_t>(p.offset) + i]);
      expected += static_cast<double>(along[i]) * g;
      norm += g * g;
    }
    EXPECT_NEAR((losses[0] - losses[1]) / (2 * step), expected, 0.01 * std::sqrt(norm) + 0.01) << p.name;
  }
  set(parameters.values(), start);
}

// --- training --------------------------------------------------------------------------------------------------------

class VaeTaskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(folder_ + "/cl.txt")
        << "1 1e-6\n500 1e-6\n1000 6e-8\n2000 4e-9\n4000 2e-10\n10000 1e-11\n";  // smooth fields
  }

  Config config(const std::string& more) const {
    return Config::parse("[data]\nsimulate = {kind = 'gaussian', power_spectrum = '" + folder_ +
                             "/cl.txt'}\nsize = [16, 16]\npixel_arcmin = 2\nvalidation_maps = 3\n[field]\nfit_maps = "
                             "16\n[train]\nbatch = 4\n" +
                             more,
                         "test");
  }

  const testing::Folder made_;
  const std::string folder_ = made_.path();
};

/// The loss as losses say it, and the gradients of its mean.
double loss_of(VaeTask& task) {
  const std::vector<double> losses = task.gradients(Space(), 0, [](std::int64_t) {});
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum / static_cast<double>(losses.size());
}

TEST_F(VaeTaskTest, GradientsAreFiniteDifferencesOfTheLoss) {
  for (const std::string norm : {"norm = 'batch'\n", "norm = 'group'\n", "norm = 'group'\ncomponents = true\n"}) {
    VaeTask task(Communicator(), config("[vae]\nbeta = 0.7\nfree_nats = 0.05\n[network]\n" + norm + small_network), 5,
                 {});
    const nn::ParameterSet& parameters = task.parameters();
    move_parameters(parameters, 0.05);
    if (task.vae().has_components())
      task.vae().begin_at(
          {random(64 * 6, 6, 0.12), {0, 1, 2, 3, 0, 2}, {40, 30, 20, 10, 5, 2}, 0.2});  // they need not be orthonormal
    loss_of(task);
    const std::vector<float> gradients = read(parameters.gradients()), start = read(parameters.values());
    for (const nn::Parameter& p : parameters.parameters()) {
      if (p.name.starts_with("flow.")) continue;  // of another loss
      const std::vector<float> along = random(static_cast<std::size_t>(p.size), 8);
      const double step = 1e-3 / std::sqrt(static_cast<double>(p.size));  // few ReLUs turn on the way
      double losses[2], expected = 0, size = 0;
      for (const int side : {0, 1}) {
        std::vector<float> values = start;
        for (std::size_t i = 0; i < along.size(); ++i)
          values[static_cast<std::size_t>(p.offset) + i] += static_cast<float>(side == 0 ? step : -step) * along[i];
        set(parameters.values(), values);
        losses[side] = loss_of(task);
      }
      for (std::size_t i = 0; i < along.size(); ++i) {
        const auto g = static_cast<double>(gradients[static_cast<std::size_t>(p.offset) + i]);
        expected += static_cast<double>(along[i]) * g;
        size += g * g;
      }
      EXPECT_NEAR((losses[0] - losses[1]) / (2 * step), expected, 0.06 * std::sqrt(size) + 2e-4)
          << norm << " " << p.name;
    }
    set(parameters.values(), start);
  }
}

/// The flow learns without a change to anything else: gradients of all else are those without it.
TEST_F(VaeTaskTest, TheFlowTeachesTheAutoencoderNothing) {
  std::vector<std::vector<float>> gradients;
  for (const bool flow : {true, false}) {
    VaeTask task(Communicator(),
                 config("[network]\nlatent = 6\nencoder = [8]\ndecoder = [8]\nbase = 8\ndense = 12\n[latent]\n" +
                        std::string(flow ? "layers = 2\nwidth = 8\n" : "flow = false\n")),
                 5, {});
    const nn::ParameterSet& parameters = task.parameters();
    move_parameters(parameters, 0.05);
    loss_of(task);
    const nn::Parameter& last = parameters[task.vae().log_deviation()];
    const std::vector<float> all = read(parameters.gradients());
    gradients.emplace_back(all.begin(), all.begin() + last.offset + 1);
    if (!flow) continue;
    double size = 0;
    for (std::size_t i = gradients.back().size(); i < all.size(); ++i)
      size = std::max(size, std::fabs(static_cast<double>(all[i])));
    EXPECT_GT(size, 1e-4);
  }
  EXPECT_EQ(gradients[0], gradients[1]);
}

TEST_F(VaeTaskTest, ValidationBoundsTheEvidence) {
  // With one latent variable that says nothing, the bound is the likelihood of the map under the decoder alone.
  VaeTask task(Communicator(), config("[network]\ndeviation = 1\n" + std::string(small_network)), 5, {});
  const nn::ParameterSet& parameters = task.parameters();
  nn::initialise(parameters, 5, nn::Initialisation::he_normal);
  std::vector<float> values = read(parameters.values());
  for (const nn::Parameter& p : parameters.parameters()) {
    if (!p.name.starts_with("decoder.last")) continue;
    std::fill_n(values.begin() + p.offset, p.size, 0.0f);  // every decoded map is zero
  }
  set(parameters.values(), values);
  const auto measured = task.validate(Space(), parameters.values());
  ASSERT_EQ(measured.size(), 5U);
  EXPECT_EQ(measured[0].first, "nats");
  EXPECT_NEAR(measured[0].second, 0.5 * std::log(2 * M_PI) + 0.5, 1e-5) << "standardised maps have unit variance";
  EXPECT_NEAR(measured[1].second, 1, 1e-5);
  EXPECT_NEAR(measured[2].second, 0, 1e-6) << "encoder statistics start at zero";
  EXPECT_NEAR(measured[3].second, 1, 1e-6);
  EXPECT_NEAR(measured[4].second, 0, 1e-6) << "an untrained flow changes nothing";
}

TEST_F(VaeTaskTest, BeginsAtProbabilisticPca) {
  const int latent = 20;
  VaeTask task(
      Communicator(),
      config("[network]\ncomponents = true\nlatent = 20\nencoder = [8]\ndecoder = [8]\nbase = 8\ndense = 12\n"), 5, {});
  task.initialise(5, nn::Initialisation::he_normal);
  const Vae& vae = task.vae();
  const Space space{};
  VaeRunner runner(vae, 1);
  runner.load(space);
  // The decoder's matrix, column by column, and the encoder's.
  Eigen::MatrixXd w(256, latent), e(latent, 256);
  Eigen::VectorXd log_deviation(latent);
  const auto encode = [&](const std::vector<float>& map) {
    const MapBatch fields("fields", 1, 16, 16);
    set(Activations(fields.data(), {1, 16, 16, 1}), map);
    return read(runner.encode(space, fields, 1));
  };
  for (int k = 0; k < latent; ++k) {
    std::vector<float> z(latent, 0);
    z[static_cast<std::size_t>(k)] = 1;
    set(runner.latent(), z);
    const std::vector<float> map = read(Activations(runner.decode(space).data(), {1, 16, 16, 1}));
    for (int i = 0; i < 256; ++i) w(i, k) = static_cast<double>(map[static_cast<std::size_t>(i)]);
  }
  for (int i = 0; i < 256; ++i) {
    std::vector<float> unit(256, 0);
    unit[static_cast<std::size_t>(i)] = 1;
    const std::vector<float> statistics = encode(unit);
    for (int k = 0; k < latent; ++k) {
      e(k, i) = static_cast<double>(statistics[static_cast<std::size_t>(k)]);
      log_deviation(k) = static_cast<double>(statistics[static_cast<std::size_t>(latent + k)]);
    }
  }
  // q(z|x) is the posterior of x = W z + sigma * noise, so that the ELBO is the likelihood of N(0, W W^T + sigma^2).
  const double sigma = task.validate(space, task.parameters().values())[3].second;
  const Eigen::MatrixXd m = w.transpose() * w + sigma * sigma * Eigen::MatrixXd::Identity(latent, latent);
  EXPECT_LT((e - m.inverse() * w.transpose()).cwiseAbs().maxCoeff(), 1e-5);
  EXPECT_LT((log_deviation.array() - (sigma * m.inverse().diagonal().cwiseSqrt()).array().log()).abs().maxCoeff(),
            1e-4);
  EXPECT_GT(sigma, 0.01);
  const double nats = task.validate(space, task.parameters().values())[0].second;
  EXPECT_LT(nats, 0.5 * std::log(2 * M_PI) + 0.5 - 0.2) << "better than white noise, by so many nats a pixel";
  // Training does not lose it.
  nn::TrainerOptions options;
  options.steps = 20;
  options.schedule.rate = 1e-3;
  options.average_decay = 0;
  options.validate_every = 0;
  options.stem = folder_ + "/pca";
  nn::Trainer trainer(Communicator(), task, options);
  ASSERT_TRUE(trainer.run(space));
  EXPECT_LT(task.validate(space, trainer.averaged())[0].second, nats + 0.02);
  // The file has the components.
  const std::string path = folder_ + "/pca.safetensors";
  task.record().save(path, task.parameters(), trainer.averaged(), {});
  const TrainedVae model = TrainedVae::load(path);
  EXPECT_EQ(read(model.vae->parameters().buffer_values()), read(task.parameters().buffer_values()));
}

TEST_F(VaeTaskTest, LearnsAndGeneratesFromItsFile) {
  VaeTask task(Communicator(),
               config("[network]\nlatent = 16\nencoder = [16, 16]\ndecoder = [16, 8]\nbase = 8\ndense = 64\n"), 5, {});
  nn::initialise(task.parameters(), 5, nn::Initialisation::he_normal);
  nn::TrainerOptions options;
  options.steps = 300;
  options.schedule.rate = 2e-3;
  options.average_decay = 0;
  options.validate_every = 0;
  options.stem = folder_ + "/vae";
  const auto before = task.validate(Space(), task.parameters().values());
  nn::Trainer trainer(Communicator(), task, options);
  ASSERT_TRUE(trainer.run(Space()));
  const auto after = task.validate(Space(), trainer.averaged());
  EXPECT_LT(after[0].second, before[0].second - 0.02);
  EXPECT_LT(after[1].second, 0.85) << "root mean square error, of maps of deviation 1";
  EXPECT_GT(after[4].second, 0.05) << "the flow knows how z is spread";
  EXPECT_GT(after[2].second, 0.5) << "maps say something about z";

  const std::string path = folder_ + "/vae.safetensors";
  task.record().save(path, task.parameters(), trainer.averaged(), {});
  const TrainedVae model = TrainedVae::load(path);
  EXPECT_EQ(model.vae->latent(), 16);
  EXPECT_TRUE(model.record.field.standardised);
  EXPECT_NEAR(model.deviation, after[3].second, 1e-6);
  const Space space{};
  std::vector<std::vector<float>> maps;
  for (const char* prior : {"flow", "normal"}) {
    const auto generator =
        make_vae_generator(path, Config::parse(std::string("[generate]\nprior = '") + prior + "'\n", "test"), {});
    const MapBatch out("out", 4, 16, 16), one("one", 1, 16, 16);
    generator->draw(space, 1, 0, 4, out);
    generator->draw(space, 1, 2, 1, one);
    space.fence();
    maps.push_back(read(Activations(out.data(), {4, 16, 16, 1})));
    const std::vector<float> alone = read(Activations(one.data(), {1, 16, 16, 1}));
    EXPECT_EQ(alone, std::vector<float>(maps.back().begin() + 512, maps.back().begin() + 768));
  }
  EXPECT_GT(largest_difference(maps[0], maps[1]), 1e-3);

  nn::Metadata metadata = nn::SafetensorsFile(path).metadata();
  metadata["umbriel.field"] = "squared-lognormal";
  nn::save_weights(path, task.parameters(), trainer.averaged(), metadata);
  EXPECT_THROW(TrainedVae::load(path), Error) << "a transform that there is not";
}

}  // namespace
}  // namespace umbriel
