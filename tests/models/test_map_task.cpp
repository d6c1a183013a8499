// Training of models that make maps: one series of losses whatever the ranks and through every stop.
#include "umbriel/models/map_task.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "umbriel/models/diffusion.hpp"
#include "umbriel/models/flow_model.hpp"
#include "umbriel/nn/initialise.hpp"

namespace umbriel {
namespace {

class MapTaskTest : public ::testing::Test {
 protected:
  const Communicator world = Communicator::world();

  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "umbriel-maps-XXXXXX").string();
    if (world.is_root()) pattern = ::mkdtemp(pattern.data());
    folder_ = world.broadcast(pattern);
    if (world.is_root()) std::ofstream(folder_ + "/cl.txt") << "1 1e-9\n100 5e-10\n1000 1e-10\n10000 1e-11\n";
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

  struct Run {
    std::vector<double> loss, norm, values;
    std::vector<float> weights;
  };

  template <class Task>
  Run train(const Communicator& comm, const std::string& more, const std::string& name, std::int64_t steps) const {
    const Config config = Config::parse(configuration(more), "test");
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
