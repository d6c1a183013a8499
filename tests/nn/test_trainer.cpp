// The training loop on a small regression: the same losses for any number of ranks, the same bits through any stop, and
// what it refuses.
#include "umbriel/nn/trainer.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "double_interpreter.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/nn/gradient_sum.hpp"
#include "umbriel/nn/layers.hpp"

namespace umbriel::nn {
namespace {

using namespace testing;

/// A folder of the ranks of `comm`, that lives as long as the test.
class Folder {
 public:
  explicit Folder(const Communicator& comm) : comm_(comm) {
    std::string pattern = (std::filesystem::temp_directory_path() / "umbriel-trainer-XXXXXX").string();
    if (comm.is_root()) pattern = ::mkdtemp(pattern.data());
    path_ = comm.broadcast(pattern);
  }
  ~Folder() {
    comm_.barrier();
    if (comm_.is_root()) std::filesystem::remove_all(path_);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  Communicator comm_;
  std::string path_;
};

/// Learns y(x) = a smooth function of 2-channel maps, with batch norm and a spectral weight. Example i of step s is a
/// function of (s, i) alone.
class Regression final : public TrainingTask {
 public:
  static constexpr int batch = 8, side = 6;

  explicit Regression(const Communicator& comm, std::uint32_t start = 1) : comm_(comm) {
    Convolution::Settings spectral;
    spectral.spectral = true;
    spectral.bias = false;  // the norm would take it away: its gradient would be rounding alone
    first_ = Convolution(set_, "first", 2, 6, spectral);
    norm_ = BatchNorm(set_, "norm", 6);
    last_ = Convolution(set_, "last", 6, 1, Convolution::Settings{});
    set_.allocate();
    set_parameters(set_, 100 * start);
    Options options;
    options.comm = comm;
    mine_ = batch / comm.size();
    tape_ = std::make_unique<Tape>(set_, true, options);
    x_ = tape_->input({mine_, side, side, 2});
    y_ = last_(*tape_, norm_(*tape_, first_(*tape_, x_), Activation::elu));
    tape_->plan(y_);
  }

  const ParameterSet& parameters() const override { return set_; }

  std::vector<double> gradients(const Space& space, std::int64_t step,
                                const std::function<void(std::int64_t)>& ready) override {
    require(step != fails_at, ExitCode::communication, "this rank was killed", "test");
    const std::size_t pixels = side * side;
    Doubles x, target;
    for (int i = 0; i < mine_; ++i) {
      const auto stream = static_cast<std::uint32_t>(10000 + step * batch + comm_.rank() * mine_ + i);
      const Doubles map = draw_normals(stream, 2 * pixels);
      x.insert(x.end(), map.begin(), map.end());
      for (std::size_t p = 0; p < pixels; ++p) target.push_back(std::tanh(map[2 * p]) + 0.5 * map[2 * p + 1]);
    }
    set_floats(tape_->value(x_).data, x);
    tape_->forward(space);
    space.fence();
    Doubles y = to_doubles(tape_->value(y_));
    std::vector<double> losses(static_cast<std::size_t>(mine_), 0.0);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double error = y[i] - target[i];
      losses[i / pixels] += error * error / pixels;
      y[i] = 2 * error / (static_cast<double>(pixels) * batch);
    }
    set_floats(tape_->gradient(y_).data, y);
    tape_->backward(space, ready);
    return losses;
  }

  std::vector<std::pair<std::string, double>> validate(const Space& space, const View1<float>& values) override {
    space.fence();
    double sum = 0, square = 0;
    for (const double v : to_doubles(values)) {
      sum += v;
      square += v * v;
    }
    return {{"sum", sum}, {"square", square}};
  }

  std::int64_t fails_at = -1;

 private:
  Communicator comm_;
  ParameterSet set_;
  Convolution first_, last_;
  BatchNorm norm_;
  std::unique_ptr<Tape> tape_;
  Value x_, y_;
  int mine_ = 0;
};

/// Several rows of parameters and some over, which are pulled to where the parts of a step want them, each part to
/// another place. A part's gradient has the same bits on whatever rank it is.
class Pull final : public TrainingTask {
 public:
  static constexpr int parts = 4, wide = 5000;

  explicit Pull(const Communicator& comm, float start = 0.5F) : comm_(comm) {
    set_.add("pulled", Role::other, {wide});
    set_.add("more", Role::other, {77});
    set_.allocate();
    Kokkos::deep_copy(set_.values(), start);
    sum_ = std::make_unique<GradientSum>(set_.gradients());
  }

  const ParameterSet& parameters() const override { return set_; }

  std::vector<double> gradients(const Space& space, std::int64_t step,
                                const std::function<void(std::int64_t)>& ready) override {
    require(step != fails_at, ExitCode::communication, "this rank was killed", "test");
    const auto n = static_cast<std::size_t>(set_.extent());
    const ShardRange mine = shard_range(parts, comm_.rank(), comm_.size());
    std::vector<double> losses;
    for (int part = 0; part < mine.count; ++part) {
      const Doubles values = to_doubles(set_.values()),
                    wanted = draw_normals(static_cast<std::uint32_t>(parts * step + mine.first + part), n);
      Doubles gradient(n);
      losses.push_back(0);
      for (std::size_t i = 0; i < n; ++i) {
        gradient[i] = (values[i] - wanted[i]) / parts;
        losses.back() += gradient[i] * gradient[i];
      }
      set_floats(set_.gradients().data(), gradient);
      if (part + 1 < mine.count) sum_->keep(space, part);
    }
    for (auto end = static_cast<std::int64_t>(n); end > 0; end = std::max<std::int64_t>(0, end - 999)) {
      const std::int64_t first = std::max<std::int64_t>(0, end - 999);
      sum_->complete(space, static_cast<int>(mine.count) - 1, first, end);
      ready(first);
    }
    return losses;
  }

  std::vector<std::pair<std::string, double>> validate(const Space& space, const View1<float>& values) override {
    space.fence();
    double square = 0;
    for (const double v : to_doubles(values)) square += v * v;
    return {{"square", square}};
  }

  std::int64_t fails_at = -1;

 private:
  Communicator comm_;
  ParameterSet set_;
  std::unique_ptr<GradientSum> sum_;
};

TrainerOptions options_in(const Folder& folder, const std::string& optimiser = "adam") {
  TrainerOptions o;
  o.steps = 7;
  o.schedule = Schedule{Schedule::Kind::cosine, 0.03, 2, {}, 7, 0.001};
  o.optimiser.name = optimiser;
  o.optimiser.clip_norm = 0.5;
  o.average_decay = 0.8;
  o.validate_every = 3;
  o.identity = "this one";
  o.stem = folder / "model";
  return o;
}

/// All that a run leaves behind, as bits.
struct Result {
  TrainingHistory history;
  Doubles weights, buffers, averaged;
};
Result result_of(const Trainer& trainer, const TrainingTask& task) {
  return {trainer.history(), to_doubles(task.parameters().values()), to_doubles(task.parameters().buffer_values()),
          to_doubles(trainer.averaged())};
}
void expect_equal(const Result& a, const Result& b) {
  EXPECT_EQ(a.history.loss, b.history.loss);
  EXPECT_EQ(a.history.gradient_norm, b.history.gradient_norm);
  EXPECT_EQ(a.history.validated, b.history.validated);
  EXPECT_EQ(a.history.names, b.history.names);
  EXPECT_EQ(a.history.values, b.history.values);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.buffers, b.buffers);
  EXPECT_EQ(a.averaged, b.averaged);
}

Result train_whole(const Communicator& comm, const std::string& optimiser = "adam", std::int64_t steps = 7) {
  const Folder folder(comm);
  Regression task(comm);
  TrainerOptions options = options_in(folder, optimiser);
  options.steps = steps;
  Trainer trainer(comm, task, options);
  trainer.resume();  // there is nothing
  EXPECT_TRUE(trainer.run(Space()));
  return result_of(trainer, task);
}

/// Every array of a checkpoint.
std::vector<std::vector<float>> state_in(const std::string& path) {
  const Hdf5Reader file(path);
  std::vector<std::vector<float>> arrays;
  for (const char* name : {"weights", "first_moments", "second_moments", "average"})
    arrays.push_back(file.read<float>(std::string("/state/") + name));
  return arrays;
}

std::vector<std::vector<std::string>> csv(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(file, line);) {
    rows.emplace_back();
    std::istringstream cells(line);
    for (std::string cell; std::getline(cells, cell, ',');) rows.back().push_back(cell);
  }
  return rows;
}

/// The files hold each step and each validation once, with the numbers of the history of rank 0.
void expect_metrics(const Communicator& comm, const std::string& stem, const TrainingHistory& history) {
  if (!comm.is_root()) return;
  const auto rows = csv(stem + ".metrics.csv");
  ASSERT_EQ(rows.size(), history.loss.size() + 1);
  EXPECT_EQ(rows[0], (std::vector<std::string>{"step", "loss", "learning_rate", "gradient_norm", "seconds"}));
  for (std::size_t i = 0; i < history.loss.size(); ++i) {
    ASSERT_EQ(rows[i + 1].size(), 5U);
    EXPECT_EQ(rows[i + 1][0], std::to_string(i));
    EXPECT_EQ(std::stod(rows[i + 1][1]), history.loss[i]);
    EXPECT_EQ(std::stod(rows[i + 1][3]), history.gradient_norm[i]);
    EXPECT_EQ(std::stod(rows[i + 1][4]), history.seconds[i]);
    if (i > 0) {
      EXPECT_GT(history.seconds[i], history.seconds[i - 1]);
    }
  }
  const auto validations = csv(stem + ".validation.csv");
  ASSERT_EQ(validations.size(), history.validated.empty() ? 0 : history.validated.size() + 1);
  if (!validations.empty()) {
    EXPECT_EQ(validations[0], (std::vector<std::string>{"step", "sum", "square"}));
  }
  for (std::size_t i = 0; i < history.validated.size(); ++i) {
    EXPECT_EQ(validations[i + 1][0], std::to_string(history.validated[i]));
    EXPECT_EQ(std::stod(validations[i + 1][2]), history.values[2 * i + 1]);
  }
  std::ifstream lines(stem + ".metrics.jsonl");
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_EQ(line.front(), '{');
    EXPECT_EQ(line.back(), '}');
  }
  EXPECT_EQ(count, history.loss.size() + history.validated.size());
}

TEST(Trainer, TakesTheSameStepsOnAnyNumberOfRanks) {
  for (const char* optimiser : {"adam", "adabelief", "adafactor"}) {
    SCOPED_TRACE(optimiser);
    const Result alone = train_whole(Communicator(), optimiser, 30),
                 shared = train_whole(Communicator::world(), optimiser, 30);
    ASSERT_EQ(shared.history.loss.size(), 30U);
    for (std::size_t i = 0; i < 30; ++i)
      EXPECT_NEAR(shared.history.loss[i], alone.history.loss[i], 1e-5 * alone.history.loss[i]) << "step " << i;
    EXPECT_LT(distance(shared.buffers, alone.buffers), 1e-4);
    EXPECT_LT(alone.history.loss.back(), 0.7 * alone.history.loss.front()) << "it learns";
  }
}

TEST(Trainer, SharesTheStepsWithTheBitsOfOneRank) {
  const Communicator world = Communicator::world(), self;
  for (const char* optimiser : {"adam", "adabelief"}) {
    SCOPED_TRACE(optimiser);
    const Folder folder(self);
    const TrainerOptions options = options_in(folder, optimiser);
    Pull task(self);
    Trainer trainer(self, task, options);
    EXPECT_TRUE(trainer.run(Space()));
    const Result alone = result_of(trainer, task);
    const auto state = state_in(options.stem + ".checkpoint.h5");

    const Folder common(world);
    TrainerOptions shared = options_in(common, optimiser);
    {
      Pull task(world);
      Trainer trainer(world, task, shared);
      EXPECT_TRUE(trainer.run(Space()));
      expect_equal(result_of(trainer, task), alone);
      EXPECT_EQ(state_in(shared.stem + ".checkpoint.h5"), state);
      trainer.remove_checkpoint();
    }

    // Killed on all ranks: each goes on alone, and all go on.
    shared.checkpoint_steps = 2;
    {
      Pull task(world);
      task.fails_at = 5;
      Trainer trainer(world, task, shared);
      EXPECT_THROW(trainer.run(Space()), Error);
    }
    world.barrier();
    std::filesystem::copy_file(shared.stem + ".checkpoint.h5", options.stem + ".checkpoint.h5",
                               std::filesystem::copy_options::overwrite_existing);
    {
      Pull task(self, 1);
      Trainer trainer(self, task, options);
      trainer.resume();
      EXPECT_EQ(trainer.step(), 4);
      EXPECT_TRUE(trainer.run(Space()));
      expect_equal(result_of(trainer, task), alone);
    }
    {
      Pull task(world, 1);
      Trainer trainer(world, task, shared);
      trainer.resume();
      EXPECT_TRUE(trainer.run(Space()));
      expect_equal(result_of(trainer, task), alone);
      EXPECT_EQ(state_in(shared.stem + ".checkpoint.h5"), state);
    }
  }
}

TEST(Trainer, IsAllRanksAtTheSameWeights) {
  const Communicator world = Communicator::world();
  const Result mine = train_whole(world);
  Doubles root = mine.weights;
  world.broadcast(root.data(), root.size() * sizeof(double));
  EXPECT_EQ(mine.weights, root);
}

TEST(Trainer, KilledAfterAnyStepGivesTheSameBits) {
  const Communicator world = Communicator::world();
  for (const auto& [optimiser, every] : {std::pair{"adam", 1}, {"adabelief", 3}, {"adafactor", 3}}) {
    const Result whole = train_whole(world, optimiser);
    EXPECT_EQ(whole.history.validated, (std::vector<std::int64_t>{3, 6, 7}));
    for (const std::int64_t killed :
         every == 1 ? std::vector<std::int64_t>{1, 2, 3, 4, 5, 6} : std::vector<std::int64_t>{5}) {
      SCOPED_TRACE(std::string(optimiser) + " killed at " + std::to_string(killed));
      const Folder folder(world);
      TrainerOptions options = options_in(folder, optimiser);
      options.checkpoint_steps = every;
      {
        Regression task(world);
        task.fails_at = killed;
        Trainer trainer(world, task, options);
        EXPECT_THROW(trainer.run(Space()), Error);
      }
      Regression task(world, 2);  // other initial weights, which the checkpoint replaces
      Trainer trainer(world, task, options);
      trainer.resume();
      EXPECT_EQ(trainer.step(), killed / every * every);
      EXPECT_TRUE(trainer.run(Space()));
      expect_equal(result_of(trainer, task), whole);
      expect_metrics(world, options.stem, trainer.history());
    }
  }
}

TEST(Trainer, StoppedInOrderAfterEveryStepGivesTheSameBits) {
  const Communicator world = Communicator::world();
  const Result whole = train_whole(world);
  const Folder folder(world);
  TrainerOptions options = options_in(folder);
  options.max_walltime_minutes = 1e-6;
  for (std::int64_t step = 1; step <= 7; ++step) {
    Regression task(world, step == 1 ? 1 : 3);
    Trainer trainer(world, task, options);
    trainer.resume();
    EXPECT_EQ(trainer.step(), step - 1);
    EXPECT_EQ(trainer.run(Space()), step == 7);
    EXPECT_EQ(trainer.step(), step);
    expect_metrics(world, options.stem, trainer.history());
    if (step == 7) expect_equal(result_of(trainer, task), whole);
  }
  // Once more finds nothing to do.
  Regression task(world, 4);
  Trainer trainer(world, task, options);
  trainer.resume();
  EXPECT_TRUE(trainer.run(Space()));
  expect_equal(result_of(trainer, task), whole);
  expect_metrics(world, options.stem, trainer.history());
  trainer.remove_checkpoint();
  world.barrier();
  EXPECT_FALSE(std::filesystem::exists(options.stem + ".checkpoint.h5"));
}

ExitCode code_of(const std::function<void()>& action, const std::string& word) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    return error.code();
  }
  return ExitCode::done;
}

TEST(Trainer, RefusesACheckpointThatIsNotItsOwnOrIsDamaged) {
  const Communicator world = Communicator::world();
  const Folder folder(world);
  TrainerOptions options = options_in(folder);
  Doubles weights;
  {
    Regression task(world);
    Trainer trainer(world, task, options);
    EXPECT_TRUE(trainer.run(Space()));
    weights = to_doubles(task.parameters().values());
  }
  const std::string path = options.stem + ".checkpoint.h5", kept = folder / "kept";
  if (world.is_root()) std::filesystem::copy_file(path, kept);
  world.barrier();
  const auto resume = [&](const TrainerOptions& o) {
    Regression task(world);
    Trainer(world, task, o).resume();
  };
  resume(options);
  TrainerOptions other = options;
  other.identity = "another one";
  EXPECT_EQ(code_of([&] { resume(other); }, "another configuration"), ExitCode::usage);

  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(kept));
  const auto spoil = [&](const std::function<void()>& how) {
    world.barrier();
    if (world.is_root()) {
      std::filesystem::copy_file(kept, path, std::filesystem::copy_options::overwrite_existing);
      how();
    }
    world.barrier();
    EXPECT_EQ(code_of([&] { resume(options); }, ".checkpoint.h5"), ExitCode::input);
  };
  spoil([&] { std::filesystem::resize_file(path, static_cast<std::uintmax_t>(size / 2)); });
  spoil([&] { std::filesystem::resize_file(path, 0); });
  spoil([&] { std::ofstream(path) << "no HDF5"; });
  // One wrong bit among the weights.
  std::string bytes;
  {
    std::ifstream file(kept, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  const std::vector<float> floats(weights.begin(), weights.end());
  const std::size_t place = bytes.find(std::string(reinterpret_cast<const char*>(floats.data()), 64));
  ASSERT_NE(place, std::string::npos);
  spoil([&] {
    bytes[place + 9] = static_cast<char>(bytes[place + 9] ^ 4);
    std::ofstream(path, std::ios::binary) << bytes;
  });
}

TEST(Trainer, EndsWhenTheLossIsNotFiniteAndKeepsTheLastCheckpoint) {
  const Communicator world = Communicator::world();
  const Folder folder(world);
  TrainerOptions options = options_in(folder);
  options.checkpoint_steps = 1;
  options.schedule = Schedule{Schedule::Kind::steps, 0.01, 0, {{3, 1e32}}, 0, 0};
  options.spectral_limit = 1e38;
  Regression task(world);
  Trainer trainer(world, task, options);
  EXPECT_EQ(code_of([&] { trainer.run(Space()); }, "not finite"), ExitCode::numerical);
  EXPECT_EQ(trainer.step(), 4) << "the step that was too long is found out by the next";
  for (const double loss : trainer.history().loss) EXPECT_TRUE(std::isfinite(loss));
  world.barrier();
  EXPECT_TRUE(std::filesystem::exists(options.stem + ".checkpoint.h5"));
  expect_metrics(world, options.stem, trainer.history());
}

TEST(Trainer, SaysWhereMetricsCannotBeWritten) {
  const Communicator world = Communicator::world();
  const Folder folder(world);
  TrainerOptions options = options_in(folder);
  options.stem = folder / "nowhere/model";
  Regression task(world);
  Trainer trainer(world, task, options);
  EXPECT_EQ(code_of([&] { trainer.run(Space()); }, "nowhere"), ExitCode::file_system);
}

}  // namespace
}  // namespace umbriel::nn
