// Training a score: one series of losses whatever the ranks, and through every stop; what a configuration may ask for.
#include "umbriel/models/score_task.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "../nn/double_interpreter.hpp"
#include "umbriel/nn/initialise.hpp"

namespace umbriel {
namespace {

using namespace nn::testing;

/// Each process has its own: theory takes longer to compute than these trainings.
std::string spectrum_file() {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("umbriel-score-" + std::to_string(::getpid()) + ".txt")).string();
  std::ofstream(path) << "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n";
  return path;
}

std::string configuration(const std::string& network, const std::string& data, int batch) {
  return "[data]\nsimulate = {kind = \"lognormal\"}\nvalidation_maps = 3\n" + data + "[prior]\npower_spectrum = \"" +
         spectrum_file() + "\"\n[score]\nsigma_min = 0.01\nsigma_max = 0.3\n[network]\n" + network +
         "[train]\nbatch = " + std::to_string(batch) + "\n";
}

constexpr const char* unet = "widths = [8, 8]\nblocks = [1, 1]\nembedding = 8\n";
constexpr const char* small_maps = "size = [16, 16]\npixel_arcmin = 0.5\n";

/// A training with a folder of its ranks' own.
class Training {
 public:
  Training(const Communicator& comm, const std::string& text, const std::string& folder, std::int64_t steps)
      : comm_(comm), config_(Config::parse(text)) {
    nn::Options compute;
    compute.comm = comm;
    task_ = std::make_unique<ScoreTask>(comm, config_, 5, compute);
    nn::initialise(task_->parameters(), 5, nn::initialisation_named("he-normal"));
    options_.steps = steps;
    options_.schedule.rate = 2e-3;
    options_.schedule.warm_up = 3;
    options_.optimiser.clip_norm = 0.5;
    options_.average_decay = 0.9;
    options_.validate_every = 1;
    options_.stem = folder + "/model";
  }

  nn::TrainerOptions& options() { return options_; }
  ScoreTask& task() { return *task_; }

  /// @return true when all steps are done
  bool run() {
    trainer_ = std::make_unique<nn::Trainer>(comm_, *task_, options_);
    trainer_->resume();
    return trainer_->run(Space());
  }
  const nn::TrainingHistory& history() const { return trainer_->history(); }
  Doubles averaged() const { return to_doubles(trainer_->averaged()); }
  Doubles weights() const { return to_doubles(task_->parameters().values()); }

 private:
  Communicator comm_;
  Config config_;
  std::unique_ptr<ScoreTask> task_;
  nn::TrainerOptions options_;
  std::unique_ptr<nn::Trainer> trainer_;
};

class ScoreTaskTest : public ::testing::Test {
 protected:
  /// A new folder of these ranks.
  std::string folder(const Communicator& comm) {
    std::string pattern = (std::filesystem::temp_directory_path() / "umbriel-score-XXXXXX").string();
    if (comm.is_root()) pattern = ::mkdtemp(pattern.data());
    pattern = comm.broadcast(pattern);
    if (comm.is_root()) made_.push_back(pattern);
    return pattern;
  }
  void TearDown() override {
    world.barrier();
    for (const std::string& path : made_) std::filesystem::remove_all(path);
    std::filesystem::remove(spectrum_file());
  }

  const Communicator world = Communicator::world();

 private:
  std::vector<std::string> made_;
};

TEST_F(ScoreTaskTest, HasTheSameLossesOnAnyNumberOfRanks) {
  const std::pair<const char*, std::string> cases[] = {
      {"U-Net", configuration(unet, small_maps, 8)},
      {"group norm, two sizes", configuration(std::string(unet) + "norm = \"group\"\ngroups = 2\n",
                                              "sides = [16, 8]\npixel_arcmin = [0.5, 1]\n", 4)},
      {"batch norm", configuration("kind = \"uresnet18\"\n", small_maps, 4)},
  };
  for (const auto& [name, text] : cases) {
    SCOPED_TRACE(name);
    const bool large = std::string(name) == "batch norm";
    const std::int64_t steps = large ? 3 : 12;
    Training alone(Communicator(), text, folder(Communicator()), steps), shared(world, text, folder(world), steps);
    for (Training* training : {&alone, &shared}) {
      if (large) training->options().validate_every = 0;
      ASSERT_TRUE(training->run());
    }
    ASSERT_EQ(shared.history().loss.size(), static_cast<std::size_t>(steps));
    // Shares of 2^n parts: the same bits. Batch norm's moments are sums over ranks, in another order.
    if (!large) {
      EXPECT_EQ(shared.history().loss, alone.history().loss);
      EXPECT_EQ(shared.history().gradient_norm, alone.history().gradient_norm);
      EXPECT_EQ(shared.history().values, alone.history().values);
      EXPECT_EQ(shared.averaged(), alone.averaged());
    }
    for (std::size_t i = 0; i < shared.history().loss.size(); ++i) {
      const double expected = alone.history().loss[i];
      EXPECT_NEAR(shared.history().loss[i], expected, 1e-5 * expected) << "step " << i;
      EXPECT_GT(expected, 0);
    }
    EXPECT_NEAR(shared.history().gradient_norm[0], alone.history().gradient_norm[0],
                1e-4 * alone.history().gradient_norm[0]);
    ASSERT_EQ(shared.history().names, alone.history().names);
    for (std::size_t i = 0; i < alone.history().values.size(); ++i)
      EXPECT_NEAR(shared.history().values[i], alone.history().values[i],
                  1e-4 * (1 + std::fabs(alone.history().values[i])))
          << alone.history().names[i % alone.history().names.size()];
  }
}

TEST_F(ScoreTaskTest, ResumedAtAnyStepGivesTheSameBits) {
  // Steps take four sizes of map in turn; a resumed one begins with any of them.
  const std::string text = configuration(unet, "sides = [16, 8]\npixel_arcmin = [0.5, 1]\n", 4);
  Training whole(world, text, folder(world), 6);
  ASSERT_TRUE(whole.run());
  const std::string place = folder(world);
  for (std::int64_t step = 1; step <= 6; ++step) {
    Training part(world, text, place, 6);
    part.options().max_walltime_minutes = 1e-6;  // stops in order after each step
    ASSERT_EQ(part.run(), step == 6);
    if (step < 6) continue;
    EXPECT_EQ(part.history().loss, whole.history().loss);
    EXPECT_EQ(part.history().gradient_norm, whole.history().gradient_norm);
    EXPECT_EQ(part.history().values, whole.history().values);
    EXPECT_EQ(part.weights(), whole.weights());
    EXPECT_EQ(part.averaged(), whole.averaged());
  }
}

TEST_F(ScoreTaskTest, LearnsMoreThanTheGaussianScore) {
  Training training(world, configuration(unet, small_maps, 8), folder(world), 60);
  training.options().validate_every = 60;
  training.options().schedule.rate = 5e-3;
  training.options().average_decay = 0.8;
  ASSERT_TRUE(training.run());
  ASSERT_EQ(training.history().names.size(), 6U);
  EXPECT_EQ(training.history().names[0], "relative_error");
  EXPECT_LT(training.history().values[0], 0.995) << "denoised better than by the Wiener filter";
  for (std::size_t i = 1; i < 6; ++i) EXPECT_LT(training.history().values[i], 0.9);
}

TEST_F(ScoreTaskTest, SaysWhatItTrainsOn) {
  Training training(world, configuration(unet, "sides = [16, 8]\npixel_arcmin = [0.5, 1]\n", 4), folder(world), 1);
  EXPECT_EQ(training.task().pixels_text(), "0.5 1");
  EXPECT_GT(training.task().flops(), 0);
  EXPECT_GT(training.task().bytes(), 0);
  std::istringstream lines(training.task().spectrum_text());
  int count = 0;
  for (double l, c; lines >> l >> c; ++count) EXPECT_GT(c, 0);
  EXPECT_EQ(count, 4);
  ASSERT_EQ(training.task().inputs().size(), 1U);
  EXPECT_EQ(training.task().inputs()[0].path, spectrum_file());
}

TEST_F(ScoreTaskTest, RefusesABatchThatRanksCannotShare) {
  const auto code = [&](const std::string& text) {
    try {
      Training training(world, text, "nowhere", 1);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::done;
  };
  EXPECT_EQ(code(configuration(unet, small_maps, 3 * world.size() + 1)),
            world.size() > 1 ? ExitCode::usage : ExitCode::done);
  // The batch of the larger maps is what is left of four: one.
  EXPECT_EQ(code(configuration(unet, "sides = [16, 32]\npixel_arcmin = 0.5\n", 4)),
            world.size() > 1 ? ExitCode::usage : ExitCode::done);
  EXPECT_EQ(code(configuration(unet, "sides = [16.5]\npixel_arcmin = 0.5\n", 4)), ExitCode::usage);
  EXPECT_EQ(code(configuration(unet, "sides = [16]\nsize = [16, 16]\npixel_arcmin = 0.5\n", 4)), ExitCode::usage);
  EXPECT_EQ(code(configuration(unet, "sides = []\npixel_arcmin = 0.5\n", 4)), ExitCode::usage);
  EXPECT_EQ(code(configuration(unet, "sides = [15]\npixel_arcmin = 0.5\n", 4)), ExitCode::usage) << "cannot be halved";
}

}  // namespace
}  // namespace umbriel
