// Training of models that make maps: one series of losses whatever the ranks and through every stop.
#include "umbriel/models/map_task.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "umbriel/data/npy.hpp"
#include "umbriel/models/diffusion.hpp"
#include "umbriel/models/flow_model.hpp"
#include "umbriel/models/vae.hpp"
#include "umbriel/nn/initialise.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

class MapTaskTest : public ::testing::Test {
 protected:
  const Communicator world = Communicator::world();

  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "umbriel-maps-XXXXXX").string();
    if (world.is_root()) pattern = ::mkdtemp(pattern.data());
    folder_ = world.broadcast(pattern);
    if (world.is_root()) {
      std::ofstream(folder_ + "/cl.txt") << "1 1e-9\n100 5e-10\n1000 1e-10\n10000 1e-11\n";
      // Maps of files, whose parameter `a` is their standard deviation.
      std::ofstream table(folder_ + "/p.csv");
      table << "a, b\n";
      std::vector<double> maps;
      for (std::uint32_t map = 0; map < 40; ++map) {
        const double a = 0.5 + 0.05 * map;
        table << a << ", " << (7 * map) % 11 << "\n";
        for (std::uint64_t i = 0; i < 256; ++i)
          maps.push_back(a * static_cast<double>(normal({3, Purpose::test, map, 0}, i)));
      }
      write_npy(folder_ + "/maps.npy", {40, 16, 16}, maps.data());
    }
    world.barrier();
  }
  void TearDown() override {
    world.barrier();
    if (world.is_root()) std::filesystem::remove_all(folder_);
  }

  std::string configuration(const std::string& more) const {
    return "[data]\nsimulate = {kind = 'lognormal', kappa0 = 0.03, power_spectrum = '" + folder_ +
           "/cl.txt'}\nsize = [16, 16]\npixel_arcmin = 2\nvalidation_maps = 5\n[field]\nfit_maps = 64\n" + more +
           "[train]\nbatch = 8\n";
  }

  /// For models of maps given their parameters.
  std::string given(const std::string& more) const {
    return "[data]\nmaps = '" + folder_ + "/maps.npy'\nparameters = '" + folder_ +
           "/p.csv'\npixel_arcmin = 2\nvalidation_fraction = 0.4\n[field]\ntransform = 'linear'\nwhiten = false\n" +
           more + "[train]\nbatch = 8\n";
  }

  struct Run {
    std::vector<double> loss, norm, values;
    std::vector<float> weights;
  };

  template <class Task>
  Run train(const Communicator& comm, const std::string& more, const std::string& name, std::int64_t steps) const {
    const Config config = Config::parse(more.rfind("[data]", 0) == 0 ? more : configuration(more), "test");
    Task task(comm, config, 5, {});
    if constexpr (std::is_same_v<Task, FlowTask>) {
      task.flow().initialise(5, nn::Initialisation::he_normal);
    } else {
      nn::initialise(task.parameters(), 5, nn::Initialisation::he_normal);
    }
    nn::TrainerOptions options;
    options.steps = steps;
    options.schedule.rate = 1e-2;
    options.schedule.warm_up = 2;
    options.average_decay = 0.9;
    options.validate_every = 3;
    options.keep_best = true;
    options.stem = folder_ + "/" + name;
    nn::Trainer trainer(comm, task, options);
    trainer.resume();
    EXPECT_TRUE(trainer.run(Space()));
    const auto weights = on_host(trainer.averaged());
    const nn::TrainingHistory& h = trainer.history();
    return {h.loss, h.gradient_norm, h.values, {weights.data(), weights.data() + weights.size()}};
  }

  template <class Task>
  void check(const std::string& more) const {
    // Shares of 2^n parts: the same bits.
    const Run alone = train<Task>(Communicator(), more, "alone" + std::to_string(world.rank()), 8);
    const Run shared = train<Task>(world, more, "shared", 8);
    EXPECT_EQ(shared.loss, alone.loss);
    EXPECT_EQ(shared.norm, alone.norm);
    EXPECT_EQ(shared.values, alone.values);
    EXPECT_EQ(shared.weights, alone.weights);
    EXPECT_GT(alone.norm[0], 0);
    for (const double loss : alone.loss) EXPECT_TRUE(std::isfinite(loss));
    // What was trained in two parts is what was trained in one.
    train<Task>(world, more, "parts", 3);
    const Run resumed = train<Task>(world, more, "parts", 8);
    EXPECT_EQ(resumed.weights, alone.weights);
  }

  std::string folder_;
};

TEST_F(MapTaskTest, FlowHasTheSameLossesOnAnyRanksAndThroughStops) {
  check<FlowTask>("[network]\nkind = 'glow'\nlevels = 2\nsteps = 2\nwidth = 8\n");
}

TEST_F(MapTaskTest, DiffusionHasTheSameLossesOnAnyRanksAndThroughStops) {
  check<DiffusionTask>("[network]\nwidths = [8, 8]\nblocks = [1, 1]\nembedding = 8\n");
}

const std::string autoencoder = "latent = 6\nencoder = [8, 4]\ndecoder = [16, 4]\nbase = 8\ndense = 12\n";

TEST_F(MapTaskTest, AutoencoderHasTheSameLossesOnAnyRanksAndThroughStops) {
  check<VaeTask>("[network]\nnorm = 'group'\n" + autoencoder);
}

TEST_F(MapTaskTest, BatchNormsOfAnAutoencoderSeeTheWholeBatchAndGoOnThroughStops) {
  const std::string network = "[network]\nnorm = 'batch'\n" + autoencoder;
  const Run alone = train<VaeTask>(Communicator(), network, "alone" + std::to_string(world.rank()), 8);
  const Run shared = train<VaeTask>(world, network, "shared", 8);
  EXPECT_NEAR(shared.loss[0], alone.loss[0], 1e-5 * alone.loss[0]);
  EXPECT_NEAR(shared.norm[0], alone.norm[0], 1e-4 * alone.norm[0]);
  train<VaeTask>(world, network, "parts", 3);
  EXPECT_EQ(train<VaeTask>(world, network, "parts", 8).weights, shared.weights);
}

TEST_F(MapTaskTest, ConditionalFlowHasTheSameLossesOnAnyRanksAndThroughStops) {
  check<FlowTask>(given("[network]\nkind = 'glow'\nlevels = 2\nsteps = 2\nwidth = 8\n"));
}

TEST_F(MapTaskTest, ConditionalDiffusionHasTheSameLossesOnAnyRanksAndThroughStops) {
  check<DiffusionTask>(given("[network]\nwidths = [8, 8]\nblocks = [1, 1]\nembedding = 8\n"));
}

TEST_F(MapTaskTest, FlowOfMapsInStepsHasTheSameLossesOnAnyRanksAndThroughStops) {
  check<FlowTask>(
      "[flow]\ndequantisation = 'uniform'\nquantisation_step = 0.01\n[network]\nlevels = 2\nsteps = 1\nwidth = 8\n");
}

TEST_F(MapTaskTest, DequantisingFlowHasTheSameLossesOnAnyRanksAndThroughStops) {
  check<FlowTask>(
      "[flow]\ndequantisation = 'variational'\nquantisation_step = 0.01\n[network]\nkind = 'realnvp'\nlevels = 2\n"
      "steps = 1\nwidth = 8\ncheckerboard = 1\n");
}

TEST_F(MapTaskTest, ConditionalFlowGivesEachMapTheDensityOfItsParameters) {
  // p(map | a) = N(0, a^2): what the flow gains over one Gaussian for all is known.
  const Config config = Config::parse(given("[network]\nkind = 'realnvp'\nlevels = 1\nsteps = 2\nwidth = 16\n"
                                            "checkerboard = 0\n"),
                                      "test");
  FlowTask task(world, config, 5, {});
  ASSERT_EQ(task.conditions().size(), 2);
  const MapConditions::Parameter& a = task.conditions().parameters[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_GE(a.low, 0.5);
  EXPECT_LE(a.high, 0.5 + 0.05 * 39 + 1e-9);
  EXPECT_NEAR(a.mean, 1.475, 0.2);
  EXPECT_NEAR(a.deviation, 0.577, 0.1);
  task.flow().initialise(5, nn::Initialisation::he_normal);
  nn::TrainerOptions options;
  options.steps = 200;
  options.schedule.rate = 1e-2;
  options.schedule.warm_up = 10;
  options.average_decay = 0.9;
  options.validate_every = 200;
  options.stem = folder_ + "/given";
  nn::Trainer trainer(world, task, options);
  ASSERT_TRUE(trainer.run(Space()));
  const std::vector<double>& values = trainer.history().values;  // nats, bits, gain
  // Of a map of deviation a: a^2 / 2 s^2 + ln s - 1/2 - ln a, where one Gaussian for all has s.
  TrainingMaps maps(world, config, 5);
  const double square = task.field().power[0];
  double expected = 0;
  for (std::int64_t i = 0; i < maps.validation_size(); ++i) {
    const double of_map = 0.5 + 0.05 * static_cast<double>(maps.map_of_validation(i));
    expected += (0.5 * (of_map * of_map / square + std::log(square) - 1) - std::log(of_map)) /
                static_cast<double>(maps.validation_size());
  }
  EXPECT_GT(expected, 0.05);
  EXPECT_GT(values.back(), 0.7 * expected);
}

TEST_F(MapTaskTest, ParametersFollowTheNamesOfFiles) {
  if (world.size() > 1) return;
  std::filesystem::create_directory(folder_ + "/many");
  for (int map = 0; map < 4; ++map) {
    std::vector<double> values(256);
    for (std::size_t i = 0; i < 256; ++i) values[i] = static_cast<double>(normal({3, Purpose::test, 50, 0}, i)) + map;
    write_npy(folder_ + "/many/m" + std::to_string(map) + ".npy", {16, 16}, values.data());
  }
  const auto parameters = [&](const std::string& table) {
    std::ofstream(folder_ + "/t.csv") << table;
    const MapFolder maps(world, {folder_ + "/many"}, {});
    return ParametersOfMaps(Config::parse("[data]\nparameters = '" + folder_ + "/t.csv'\n", "test"), &maps);
  };
  const ParametersOfMaps named = parameters("a file\n3 m3.npy\n0 m0.npy\n1 m1.npy\n9 m9.npy\n2 m2.npy\n");
  const ParametersOfMaps ordered = parameters("a\n0\n1\n2\n3\n");
  for (std::int64_t map = 0; map < 4; ++map) {
    EXPECT_EQ(named.value(map, 0), static_cast<double>(map));
    EXPECT_EQ(ordered.value(map, 0), static_cast<double>(map));
  }
  const MapConditions conditions = ordered.conditions({0, 1, 3});
  const MapConditions again = MapConditions::parse(conditions.text(), "test");
  ASSERT_EQ(again.size(), 1);
  EXPECT_EQ(again.parameters[0].name, "a");
  EXPECT_EQ(again.parameters[0].mean, conditions.parameters[0].mean);
  EXPECT_EQ(again.parameters[0].deviation, conditions.parameters[0].deviation);
  EXPECT_EQ(again.parameters[0].low, 0);
  EXPECT_EQ(again.parameters[0].high, 3);
  EXPECT_THROW(MapConditions::parse("a 0 0 0 0\n", "test"), Error);
  EXPECT_THROW(parameters("a\n0\n1\n2\n"), Error);                                      // a row is missing
  EXPECT_THROW(parameters("a file\n3 m3.npy\n0 m0.npy\n1 m1.npy\n9 m9.npy\n"), Error);  // m2 has none
  EXPECT_THROW(parameters("a file\n3 m3.npy\n0 m0.npy\n1 m1.npy\n2 m2.npy\n5 m2.npy\n"), Error);
  EXPECT_THROW(parameters("a\n1\n1\n1\n1\n").conditions({0, 1, 2, 3}), Error);  // nothing to learn from
}

TEST_F(MapTaskTest, KeepsTheUntrainedWeightsWhereTrainingMakesItWorse) {
  const Config config = Config::parse(configuration("[network]\nlevels = 2\nsteps = 2\nwidth = 8\n"), "test");
  FlowTask task(world, config, 5, {});
  task.flow().initialise(5, nn::Initialisation::he_normal);
  const auto host = on_host(task.parameters().values());
  const std::vector<float> start(host.data(), host.data() + host.size());
  nn::TrainerOptions options;
  options.steps = 4;
  options.schedule.rate = 0.3;  // far too much
  options.average_decay = 0;
  options.validate_every = 2;
  options.stem = folder_ + "/worse";
  for (const bool keep_best : {true, false}) {
    options.keep_best = keep_best;
    options.identity = keep_best ? "best" : "last";
    nn::Trainer trainer(world, task, options);
    ASSERT_TRUE(trainer.run(Space()));
    const auto kept = on_host(trainer.averaged());
    const std::vector<float> weights(kept.data(), kept.data() + kept.size());
    EXPECT_EQ(weights == start, keep_best);
    EXPECT_EQ(trainer.history().validated[trainer.kept()], keep_best ? 0 : 4);
  }
}

TEST_F(MapTaskTest, FlowLearnsWhatItsTransformDoesNotKnow) {
  // Lognormal maps as they are: all skewness is left to the flow.
  const Run run =
      train<FlowTask>(world, "transform = 'linear'\n[network]\nlevels = 2\nsteps = 3\nwidth = 16\n", "learns", 150);
  const std::size_t last = run.values.size() - 3;     // validations: nats, bits, gain
  EXPECT_LT(run.values[last], run.values[0] - 0.02);  // nats a pixel
  EXPECT_GT(run.values[last + 2], 0.02);              // gain over the transform alone
}

}  // namespace
}  // namespace umbriel
