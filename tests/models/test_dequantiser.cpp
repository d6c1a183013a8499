// Dequantisation: densities and gradients, and the bound against probabilities that are known.
#include "umbriel/models/dequantiser.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "folder.hpp"
#include "umbriel/models/flow_model.hpp"
#include "umbriel/nn/trainer.hpp"

namespace umbriel {
namespace {

/// Maps in steps, with a transform, keys and the couplings of variational dequantisation.
struct Trial {
  static constexpr double step = 0.01;
  Grid grid;
  int n;
  nn::ParameterSet set;
  std::unique_ptr<Flow> flow;
  FieldTransform transform;
  MapBatch maps, out;
  View1<DrawKey> keys;
  View1<double> log_density;

  static FieldTransformSettings settings() {
    FieldTransformSettings s;
    s.kappa0 = 0.2;
    s.mean = -1.6;
    s.multipole = {1};
    s.power = {0.02};
    return s;
  }

  /// @param moved  of all parameters from where they start
  Trial(Grid size, int count, double moved)
      : grid(size),
        n(count),
        transform(settings(), size, 2),
        maps("maps", count, size.height, size.width),
        out("out", count, size.height, size.width),
        keys("keys", static_cast<std::size_t>(count)),
        log_density("log_density", static_cast<std::size_t>(count)) {
    flow = std::make_unique<Flow>(dequantising_flow(Padding::periodic), set, "d");
    set.allocate();
    nn::initialise(set, 5, nn::Initialisation::he_normal);
    const auto values = on_host(set.values());
    for (const nn::Parameter& p : set.parameters()) {
      for (std::int64_t i = p.offset; i < p.offset + p.size; ++i)
        values(static_cast<std::size_t>(i)) +=
            static_cast<float>(moved) * normal({9, Purpose::test, 0, 0}, static_cast<std::uint64_t>(i));
    }
    Kokkos::deep_copy(set.values(), values);
    const auto host = Kokkos::create_mirror_view(HostMemory{}, maps);
    for (std::size_t i = 0; i < host.size(); ++i)
      host.data()[i] = 0.02F * normal({3, Purpose::test, 0, 0}, i % static_cast<std::size_t>(grid.pixels()));
    Kokkos::deep_copy(maps, host);
    round_to_step(Space(), n, step, maps);
    const auto each = Kokkos::create_mirror_view(HostMemory{}, keys);
    for (int i = 0; i < n; ++i)
      each(static_cast<std::size_t>(i)) = {7, Purpose::test, static_cast<std::uint32_t>(i), 0};
    Kokkos::deep_copy(keys, each);
  }

  Dequantiser dequantiser(FlowRunner::Memory memory, bool variational = true) {
    Dequantiser made(step, variational ? flow.get() : nullptr, transform, grid, n, memory, {});
    made.use(Space(), set.values());
    return made;
  }
};

TEST(Dequantiser, RoundsToTheNearestStep) {
  const MapBatch maps("maps", 1, 1, 6);
  const auto host = on_host(maps);
  const float values[] = {0.0F, 0.0149F, 0.0151F, -0.0149F, -0.0151F, 1.2F};
  const float expected[] = {0.0F, 0.01F, 0.02F, -0.01F, -0.02F, 1.2F};
  for (int i = 0; i < 6; ++i) host(0, 0, i) = values[i];
  Kokkos::deep_copy(maps, host);
  round_to_step(Space(), 1, 0.01, maps);
  Kokkos::fence();
  for (int i = 0; i < 6; ++i) EXPECT_FLOAT_EQ(on_host(maps)(0, 0, i), expected[i]);
}

TEST(Dequantiser, StaysInTheCellAndIsUniformUntrained) {
  const Space space;
  for (const double moved : {0.0, 0.1}) {
    Trial s({8, 8}, 64, moved);
    const MapBatch uniform("uniform", 64, 8, 8);
    Dequantiser dequantiser = s.dequantiser(FlowRunner::Memory::inference);
    dequantiser.forward(space, s.maps, s.keys, s.out, s.log_density);
    dequantiser.uniform(space, s.maps, s.keys, uniform);
    space.fence();
    const auto out = on_host(s.out), plain = on_host(uniform), maps = on_host(s.maps);
    double largest = 0, sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      EXPECT_LE(std::fabs(static_cast<double>(out.data()[i] - maps.data()[i])), 0.5 * Trial::step * 1.0001);
      largest = std::max(largest, std::fabs(static_cast<double>(out.data()[i] - plain.data()[i])));
      sum += static_cast<double>(plain.data()[i] - maps.data()[i]);
    }
    EXPECT_NEAR(sum / static_cast<double>(out.size()), 0, 0.02 * Trial::step);
    const double constant = 64 * std::log(Trial::step);
    if (moved == 0) {
      EXPECT_LT(largest, 1e-7);
      for (int i = 0; i < 64; ++i) EXPECT_NEAR(on_host(s.log_density)(static_cast<std::size_t>(i)), constant, 1e-3);
    } else {
      EXPECT_GT(largest, 1e-3 * Trial::step);
    }
  }
}

/// The mean of 1 / q over draws from q is the volume of the cell, whatever q.
TEST(Dequantiser, KnowsItsDensity) {
  const Space space;
  Trial s({2, 2}, 16384, 0.05);
  Dequantiser dequantiser = s.dequantiser(FlowRunner::Memory::inference);
  dequantiser.forward(space, s.maps, s.keys, s.out, s.log_density);
  space.fence();
  double mean = 0, squares = 0;
  for (std::size_t i = 0; i < 16384; ++i) {
    const double inverse = std::exp(on_host(s.log_density)(i) - 4 * std::log(Trial::step));
    mean += inverse / 16384;
    squares += inverse * inverse / 16384;
  }
  const double error = std::sqrt((squares - mean * mean) / 16384);
  EXPECT_GT(error, 1e-3) << "q is not uniform";
  EXPECT_LT(error, 0.05);
  EXPECT_NEAR(mean, 1, 4 * error);
}

TEST(Dequantiser, GradientsAreFiniteDifferences) {
  const Space space;
  for (const auto memory : {FlowRunner::Memory::stored, FlowRunner::Memory::constant}) {
    Trial s({8, 8}, 2, 0.05);
    Dequantiser dequantiser = s.dequantiser(memory);
    const MapBatch upper("upper", 2, 8, 8);
    const auto up = on_host(upper);
    for (std::size_t i = 0; i < up.size(); ++i) up.data()[i] = 100 * normal({4, Purpose::test, 0, 0}, i);
    Kokkos::deep_copy(upper, up);
    const std::vector<float> weights(up.data(), up.data() + up.size());
    const auto loss = [&] {
      dequantiser.use(space, s.set.values());
      dequantiser.forward(space, s.maps, s.keys, s.out, s.log_density);
      space.fence();
      const auto out = on_host(s.out), maps = on_host(s.maps);
      double sum = -0.6 * (on_host(s.log_density)(0) + on_host(s.log_density)(1));
      for (std::size_t i = 0; i < out.size(); ++i)
        sum += static_cast<double>(weights[i]) * static_cast<double>(out.data()[i] - maps.data()[i]);
      return sum;
    };
    loss();
    dequantiser.backward(space, upper, -0.6F, {});
    space.fence();
    const auto gradient = on_host(s.set.gradients()), values = on_host(s.set.values());
    const std::vector<float> g(gradient.data(), gradient.data() + gradient.size());
    const std::vector<float> start(values.data(), values.data() + values.size());
    std::vector<float> along(start.size(), 0);
    double expected = 0, size = 0;
    for (const nn::Parameter& p : s.set.parameters()) {
      for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        along[at] = normal({2, Purpose::test, 7, 0}, at);
        expected += static_cast<double>(along[at]) * static_cast<double>(g[at]);
        size += static_cast<double>(g[at]) * static_cast<double>(g[at]);
      }
    }
    double moved[2];
    constexpr double step = 2e-4;
    for (const int side : {0, 1}) {
      for (std::size_t i = 0; i < start.size(); ++i)
        values(i) = start[i] + static_cast<float>((side == 0 ? step : -step) * static_cast<double>(along[i]));
      Kokkos::deep_copy(s.set.values(), values);
      moved[side] = loss();
    }
    EXPECT_GT(size, 1e-2);
    EXPECT_NEAR((moved[0] - moved[1]) / (2 * step), expected, 0.02 * std::sqrt(size));
  }
}

// --- the bound -------------------------------------------------------------------------------------------------------

/// White Gaussian maps of unit variance, rounded to steps of two standard deviations: a pixel's probabilities are
/// differences of error functions.
class QuantisedGaussian : public ::testing::Test {
 protected:
  static constexpr double step = 2;
  static constexpr std::uint64_t seed = 5;

  void SetUp() override {
    // C_l = (a pixel's side)^2
    const double side = 2.0 / 60 / 180 * 3.14159265358979;
    std::ofstream(folder_ + "/cl.txt") << "1 " << side * side << "\n1000000 " << side * side << "\n";
  }

  Config config(const std::string& dequantisation, const std::string& transform = "linear") const {
    return Config::parse("[data]\nsimulate = {kind = 'gaussian', power_spectrum = '" + folder_ +
                             "/cl.txt'}\nsize = [16, 16]\npixel_arcmin = 2\nvalidation_maps = 64\n[field]\n"
                             "transform = '" +
                             transform + "'\nwhiten = false\nfit_maps = 256\n[flow]\ndequantisation = '" +
                             dequantisation +
                             "'\nquantisation_step = 2\n[network]\nkind = 'realnvp'\nlevels = 1\nsteps = 1\n"
                             "checkerboard = 0\nwidth = 4\n[train]\nbatch = 8\n",
                         "test");
  }

  /// Mean over the validation maps' pixels of f(value).
  template <class F>
  double mean_over_maps(const F& f) const {
    TrainingMaps maps(Communicator(), config("uniform"), seed);
    const MapBatch drawn("drawn", 64, 16, 16);
    maps.draw_validation(0, 64, drawn);
    round_to_step(Space(), 64, step, drawn);
    Kokkos::fence();
    const auto host = on_host(drawn);
    double sum = 0;
    for (std::size_t i = 0; i < host.size(); ++i) sum += f(static_cast<double>(host.data()[i]));
    return sum / static_cast<double>(host.size());
  }

  static double validate(FlowTask& task, const View1<float>& values) {
    return task.validate(Space(), values)[0].second;
  }

  const testing::Folder made_;
  const std::string folder_ = made_.path();
};

double cumulative(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

TEST_F(QuantisedGaussian, BoundOfTheUntrainedFlowIsTheAnalyticOne) {
  std::map<std::string, double> nats;
  FieldTransformSettings field;
  for (const std::string kind : {"uniform", "variational"}) {
    FlowTask task(Communicator(), config(kind), seed, {});
    task.flow().initialise(seed, nn::Initialisation::he_normal);
    nats[kind] = validate(task, task.parameters().values());
    EXPECT_NEAR(task.validate(Space(), task.parameters().values())[2].second, 0, 1e-5) << "gain";
    field = task.field();
  }
  // Untrained, the flow's density is N(mean, variance) a pixel, and noise is uniform in the cell.
  const double mean = field.mean, variance = field.power[0];
  const double bound = mean_over_maps([&](double value) {
    return 0.5 * std::log(2 * 3.14159265358979 * variance) - std::log(step) +
           ((value - mean) * (value - mean) + step * step / 12) / (2 * variance);
  });
  EXPECT_NEAR(nats["uniform"], bound, 0.015);  // 16384 draws of noise
  EXPECT_NEAR(nats["variational"], nats["uniform"], 1e-5);
  const double exact = mean_over_maps([&](double value) {
    const double deviation = std::sqrt(variance);
    return -std::log(cumulative((value + 0.5 * step - mean) / deviation) -
                     cumulative((value - 0.5 * step - mean) / deviation));
  });
  EXPECT_GT(bound, exact + 0.02);
  EXPECT_GT(nats["variational"], exact);
}

TEST_F(QuantisedGaussian, GradientOfTheBoundIsItsFiniteDifference) {
  const Space space;
  for (const char* transform : {"linear", "lognormal"}) {
    FlowTask task(Communicator(), config("variational", transform), seed, {});
    task.flow().initialise(seed, nn::Initialisation::he_normal);
    const auto values = on_host(task.parameters().values());
    for (const nn::Parameter& p : task.parameters().parameters()) {
      for (std::int64_t i = p.offset; i < p.offset + p.size; ++i)
        values(static_cast<std::size_t>(i)) += 0.03F * normal({9, Purpose::test, 0, 0}, static_cast<std::uint64_t>(i));
    }
    Kokkos::deep_copy(task.parameters().values(), values);
    const auto mean_loss = [&] {
      double sum = 0;
      for (const double loss : task.gradients(space, 0, [](std::int64_t) {})) sum += loss / 8;
      return sum;
    };
    mean_loss();
    const auto gradient = on_host(task.parameters().gradients());
    const std::vector<float> g(gradient.data(), gradient.data() + gradient.size());
    const std::vector<float> start(values.data(), values.data() + values.size());
    for (const bool of_noise : {true, false}) {  // the couplings of the noise, and the flow's
      std::vector<float> along(start.size(), 0);
      double expected = 0, size = 0;
      for (const nn::Parameter& p : task.parameters().parameters()) {
        if ((p.name.rfind("dequantisation.", 0) == 0) != of_noise) continue;
        for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
          const auto at = static_cast<std::size_t>(i);
          along[at] = normal({2, Purpose::test, 7, 0}, at);
          expected += static_cast<double>(along[at]) * static_cast<double>(g[at]);
          size += static_cast<double>(g[at]) * static_cast<double>(g[at]);
        }
      }
      double moved[2];
      constexpr double by = 3e-4;
      for (const int side : {0, 1}) {
        for (std::size_t i = 0; i < start.size(); ++i)
          values(i) = start[i] + static_cast<float>((side == 0 ? by : -by) * static_cast<double>(along[i]));
        Kokkos::deep_copy(task.parameters().values(), values);
        moved[side] = mean_loss();
      }
      EXPECT_GT(size, 1e-6);
      EXPECT_NEAR((moved[0] - moved[1]) / (2 * by), expected, 0.02 * std::sqrt(size)) << transform << of_noise;
    }
  }
}

TEST_F(QuantisedGaussian, TrainedTheBoundNearsTheTruthFromAbove) {
  const double truth = mean_over_maps(
      [&](double value) { return -std::log(cumulative(value + 0.5 * step) - cumulative(value - 0.5 * step)); });
  std::map<std::string, double> nats;
  for (const std::string kind : {"uniform", "variational"}) {
    FlowTask task(Communicator(), config(kind), seed, {});
    task.flow().initialise(seed, nn::Initialisation::he_normal);
    nn::TrainerOptions options;
    options.steps = 120;
    options.schedule.rate = 1e-2;
    options.schedule.warm_up = 20;
    options.average_decay = 0.9;
    options.validate_every = 0;
    options.checkpoint_minutes = 0;
    options.stem = folder_ + "/" + kind;
    nn::Trainer trainer(Communicator(), task, options);
    ASSERT_TRUE(trainer.run(Space()));
    nats[kind] = validate(task, trainer.averaged());
    std::printf("%s: %.4f nats a pixel, truth %.4f\n", kind.c_str(), nats[kind], truth);
  }
  // Maps have no mean, which a pixel by itself does not know: a hundredth of a nat.
  EXPECT_GT(nats["variational"], truth - 0.01);
  EXPECT_LT(nats["variational"], nats["uniform"] - 0.3 * (nats["uniform"] - truth));
}

}  // namespace
}  // namespace umbriel
