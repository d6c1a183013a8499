// Jobs that meet what jobs meet: killed ranks and launchers, signals, time limits, stopped processes, full and failing
// disks, damaged checkpoints. Whatever happens, the run that goes on ends with the bits of one that nothing happened
// to, nothing hangs and nothing is left running.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <semaphore.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <thread>

#include "../app/program.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/nn/safetensors.hpp"

namespace umbriel {
namespace {

using namespace testing;

std::string digest_of(const std::string& path) { return Hdf5Reader(path).data_digest(); }

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes_to(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

/// Seconds that a command takes on two ranks when nothing happens to it.
double seconds_undisturbed(const Folder& folder, const std::string& command) {
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = folder.umbriel(command, 2);
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Numbers that look random and are the same in every run of the test.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ULL + 1) {}
  /// In [0, n).
  int below(int n) { return static_cast<int>(next() % static_cast<std::uint64_t>(n)); }
  double between(double low, double high) { return low + (high - low) * static_cast<double>(next() % 10000) / 1e4; }

 private:
  std::uint64_t next() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return state_ >> 11;
  }
  std::uint64_t state_;
};

/// The run that all others are compared with: nothing happens to it. Once for all tests.
struct UndisturbedRun {
  Folder folder;
  double seconds = 0;  ///< that it takes on two ranks
  std::string digest;

  explicit UndisturbedRun(const std::string& command) {
    write_survey_files(folder, 48, 48);
    seconds = seconds_undisturbed(folder, command);
    digest = digest_of(folder / "out.h5");
  }
};

/// What the shell replaces by the process of a rank of the mpirun $pid.
std::string process_of_rank(int rank) { return "$(pgrep -P $pid | sed -n " + std::to_string(rank + 1) + "p)"; }

/// A run of some seconds that writes a checkpoint every few evaluations, so that a good part of all moments is one of
/// writing.
struct InterruptedRun {
  Folder folder;
  std::string command = "sample survey.toml --set sampler.chains=300 --set run.checkpoint_minutes=0.002 ";
  const UndisturbedRun& undisturbed;
  const std::string& whole;

  InterruptedRun() : undisturbed(undisturbed_run(command)), whole(undisturbed.digest) {
    write_survey_files(folder, 48, 48);
  }

  static const UndisturbedRun& undisturbed_run(const std::string& command) {
    static const UndisturbedRun run(command);
    return run;
  }

  /// Starts it on some ranks, and after a share of the time that it takes runs `act`, a shell command in which $pid is
  /// mpirun and $victim the process of rank `rank`. @return how it ended
  Outcome disturbed(int ranks, double share, int rank, const std::string& act, const std::string& more = "") const {
    const std::string launcher = std::string(UMBRIEL_MPIEXEC) + " -n " + std::to_string(ranks) + " ";
    return folder.disturbed(launcher + UMBRIEL_PROGRAM + " " + command + more, "out.h5", "out.h5.lock",
                            share * undisturbed.seconds, "victim=" + process_of_rank(rank) + "; " + act);
  }

  /// Starts it on two ranks and stops it in order once it has made the file `begun`. @return how it ended
  Outcome stopped(const std::string& begun) const {
    return folder.disturbed(Folder::program(command, 2), "out.h5", begun, 0, "kill -USR1 " + process_of_rank(0));
  }

  /// Processes of this run; those that are ending get some seconds for it.
  std::string left_running() const {
    for (int turn = 0; turn < 100; ++turn) {
      const std::string left = folder.shell("pgrep -f [u]mbriel.*" + std::string("survey.toml") + " || true").output;
      std::string here;
      std::istringstream pids(left);
      for (std::string pid; pids >> pid;) {
        std::error_code error;
        const auto folder_of = std::filesystem::read_symlink("/proc/" + pid + "/cwd", error);
        if (!error && folder_of == std::filesystem::canonical(folder.path())) here += pid + " ";
      }
      if (here.empty()) return here;
      if (turn == 99) return here;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return "";
  }

  void expect_the_same_in_the_end(int ranks) const {
    EXPECT_EQ(left_running(), "");
    const Outcome outcome = folder.umbriel(command, ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    EXPECT_EQ(digest_of(folder / "out.h5"), whole);
    for (const char* name : {"out.h5.checkpoint", "out.h5.checkpoint.previous", "out.h5.lock"})
      EXPECT_FALSE(std::filesystem::exists(folder / name)) << name;
    for (const std::string& name : folder.files()) EXPECT_EQ(name.find(".partial"), std::string::npos) << name;
    std::filesystem::remove(folder / "out.h5");
  }
};

void kill_ranks(int times) {
  const InterruptedRun run;
  Dice dice(1);
  for (int i = 0; i < times; ++i) {
    const int ranks = 1 + dice.below(3);
    const Outcome outcome = run.disturbed(ranks, dice.between(0.1, 0.8), dice.below(ranks), "kill -9 $victim");
    for (const int code : {0, 2, 3}) EXPECT_NE(outcome.code, code) << outcome.output;
    if (i % 3 == 2) run.expect_the_same_in_the_end(1 + dice.below(4));
  }
  run.expect_the_same_in_the_end(2);
}

TEST(Faults, KilledRank) { kill_ranks(4); }
TEST(FaultsSlow, KilledRank) { kill_ranks(20); }

/// A job that was killed has left a checkpoint, new or one generation old: it was not at its very end.
bool saved(const Folder& folder, const std::string& checkpoint) {
  return std::filesystem::exists(folder / checkpoint) || std::filesystem::exists(folder / (checkpoint + ".previous"));
}

/// Losses without the times, and the bytes of the weights behind the training record.
std::string training_outcome(const Folder& folder) {
  std::ifstream csv(folder / "prior.metrics.csv");
  std::string text;
  for (std::string line; std::getline(csv, line);) text += line.substr(0, line.rfind(',')) + "\n";
  const nn::SafetensorsFile file(folder / "prior.safetensors");
  for (const auto& entry : file.entries()) {
    const std::vector<float> values = file.read(entry);
    text.append(entry.name).append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
  return text;
}

void kill_training(int times) {
  const Folder folder;
  folder.write("cl.txt", "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
  folder.write("train.toml",
               "[run]\noutput = \"prior.safetensors\"\nseed = 3\n[data]\nsimulate = {kind = \"lognormal\"}\n"
               "size = [16, 16]\npixel_arcmin = 0.5\nvalidation_maps = 2\n[prior]\npower_spectrum = \"cl.txt\"\n"
               "[score]\nsigma_min = 0.01\nsigma_max = 0.3\n[network]\nwidths = [8, 8]\nblocks = [1, 1]\n"
               "embedding = 4\n[train]\nbatch = 8\nwarm_up = 2\nsteps = 600\ncheckpoint_steps = 20\n");
  const double seconds = seconds_undisturbed(folder, "train score train.toml");
  const std::string whole = training_outcome(folder);
  std::filesystem::remove(folder / "prior.safetensors");
  Dice dice(2);
  int resumed = 0;
  for (int i = 0; i < times; ++i) {
    const Outcome outcome =
        folder.disturbed(Folder::program("train score train.toml", 2), "prior.safetensors", "prior.checkpoint.h5",
                         seconds * dice.between(0, 0.6), "kill -9 " + process_of_rank(dice.below(2)));
    EXPECT_NE(outcome.code, 0) << outcome.output;
    const bool goes_on = saved(folder, "prior.checkpoint.h5");
    const Outcome again = folder.umbriel("train score train.toml", 2);
    ASSERT_EQ(again.code, 0) << again.output;
    EXPECT_EQ(again.output.find("going on after step") != std::string::npos, goes_on) << again.output;
    resumed += goes_on ? 1 : 0;
    EXPECT_EQ(training_outcome(folder), whole);
    std::filesystem::remove(folder / "prior.safetensors");
  }
  EXPECT_GT(resumed, 0);
}

TEST(Faults, KilledTraining) { kill_training(2); }
TEST(FaultsSlow, KilledTraining) { kill_training(10); }

/// A run on two ranks that is killed or stopped once it has saved its work goes on, on any number of ranks, to the same
/// data. @param words  of the log when it goes on
void kill_or_stop(const Folder& folder, const std::string& arguments, const std::string& output,
                  const std::string& words) {
  ASSERT_EQ(folder.umbriel(arguments, 2).code, 0);
  const std::string whole = digest_of(folder / output), checkpoint = output + ".checkpoint";
  int resumed = 0;
  for (const auto& [signal, ranks] : {std::pair{"KILL", 3}, {"KILL", 1}, {"USR1", 2}}) {
    SCOPED_TRACE(std::string(signal) + ", then " + std::to_string(ranks) + " ranks");
    std::filesystem::remove(folder / output);
    const Outcome outcome = folder.disturbed(Folder::program(arguments, 2), output, checkpoint, 0,
                                             std::string("kill -") + signal + " " + process_of_rank(1));
    EXPECT_NE(outcome.code, 0) << outcome.output;
    EXPECT_EQ(outcome.code == 75, std::string(signal) != "KILL") << outcome.code << outcome.output;
    const bool goes_on = saved(folder, checkpoint);
    const Outcome again = folder.umbriel(arguments, ranks);
    ASSERT_EQ(again.code, 0) << again.output;
    EXPECT_EQ(again.output.find(words) != std::string::npos, goes_on) << again.output;
    resumed += goes_on ? 1 : 0;
    EXPECT_EQ(digest_of(folder / output), whole);
    EXPECT_FALSE(std::filesystem::exists(folder / checkpoint));
  }
  EXPECT_GT(resumed, 0);
}

TEST(Faults, KilledOrStoppedValidation) {
  const Folder folder;
  folder.write("cl.txt", "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
  folder.write("validate.toml",
               "[run]\noutput = \"v.h5\"\ncheckpoint_minutes = 0.005\n[survey]\nsize = [32, 32]\npixel_arcmin = 0.5\n"
               "simulate = {mask = \"holes\"}\n[prior]\npower_spectrum = \"cl.txt\"\n[validate]\nexact = false\n"
               "mocks = 61\ndraws = 15\n");
  kill_or_stop(folder, "validate validate.toml", "v.h5", "mocks are done already");
}

TEST(Faults, KilledOrStoppedSimulation) {
  const Folder folder;
  folder.write("cl.txt", "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
  folder.write("simulate.toml",
               "[run]\noutput = \"s.h5\"\ncheckpoint_minutes = 0.0005\n[simulate]\nsamples = 4000\nsize = [64, 64]\n"
               "power_spectrum = \"cl.txt\"\n");
  kill_or_stop(folder, "simulate kappa simulate.toml", "s.h5", "maps are drawn already");
}

TEST(Faults, WalltimeEndsInOrderAndTheSameCommandGoesOn) {
  const InterruptedRun run;
  // Half a minute is kept for the end, but a second at least is worked: chains enough for several.
  const std::string longer = run.command + "--set sampler.chains=1000 --set run.checkpoint_minutes=0 ";
  ASSERT_EQ(run.folder.umbriel(longer + "--set run.output=whole.h5", 2).code, 0);
  const std::string limited = longer + "--set run.max_walltime_minutes=0.001 ";
  int parts = 1;
  Outcome outcome = run.folder.umbriel(limited, 2);
  for (; outcome.code == 75 && parts < 60; ++parts) {
    EXPECT_NE(outcome.output.find("run the same command again"), std::string::npos) << outcome.output;
    outcome = run.folder.umbriel(limited, 1 + parts % 3);
  }
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_GT(parts, 1);
  EXPECT_EQ(digest_of(run.folder / "out.h5"), digest_of(run.folder / "whole.h5"));
}

/// A copy of an HDF5 file in which the values of one row of a dataset are not numbers.
void spoil_row(const std::string& path, const std::string& spoiled, std::size_t row) {
  const Hdf5Reader from(path);
  Hdf5Writer to(path, Communicator());
  for (const std::string& name : from.datasets()) {
    const auto copy = [&]<class T>(T) {
      const std::vector<std::uint64_t> shape = from.shape(name);
      std::vector<T> values = from.read<T>(name);
      if (name == spoiled) {
        const std::size_t width = values.size() / shape[0];
        std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(row * width), width, static_cast<T>(NAN));
      }
      to.write<T>({name, {}, "1", name}, shape, values.data());
    };
    const std::string type = from.type(name);
    if (type == "float32") copy(0.0f);
    if (type == "float64") copy(0.0);
    if (type == "int64") copy(std::int64_t{0});
  }
  to.attribute("/", "schema_version", std::int64_t{1});
  to.attribute("/", "command", from.attribute("/", "command"));
  to.attribute("/", "identity", from.attribute("/", "identity"));
  to.commit();
}

// Memory that lost its bits, say: the state of a chain on its way is no number any more.
TEST(Faults, ChainThatIsNotFiniteIsSetAside) {
  const InterruptedRun run;
  ASSERT_EQ(run.stopped("out.h5.checkpoint").code, 75);
  const std::string checkpoint = run.folder / "out.h5.checkpoint";
  const auto numbers = Hdf5Reader(checkpoint).read<double>("/under_way/numbers", 1, 1);
  const auto lost = static_cast<std::size_t>(numbers[0]);  // a state begins with the chain's index
  spoil_row(checkpoint, "/under_way/arrays", 1);
  const Outcome outcome = run.folder.umbriel(run.command, 2);
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("set aside, a value was not finite: chain " + std::to_string(lost) + "; seed 1"),
            std::string::npos)
      << outcome.output;
  const Hdf5Reader whole(run.undisturbed.folder / "out.h5"), out(run.folder / "out.h5");
  const auto expected = whole.read<float>("/posterior/kappa"), found = out.read<float>("/posterior/kappa");
  const std::size_t pixels = expected.size() / 300;
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t chain = 0; chain < 300; ++chain) {
    const float* map = found.data() + chain * pixels;
    if (chain == lost) {
      EXPECT_TRUE(std::all_of(map, map + pixels, [](float value) { return std::isnan(value); }));
    } else {
      EXPECT_EQ(std::memcmp(map, expected.data() + chain * pixels, pixels * sizeof(float)), 0) << chain;
    }
  }
  const auto diverged = out.read<std::uint8_t>("/sample_stats/diverged");
  EXPECT_EQ(std::accumulate(diverged.begin(), diverged.end(), 0), 1);
  EXPECT_EQ(diverged[lost], 1);
  for (const float value : out.read<float>("/summary/mean")) ASSERT_TRUE(std::isfinite(value));
}

TEST(Faults, KilledLauncher) {
  const InterruptedRun run;
  for (const double share : {0.35, 0.6}) {
    run.disturbed(2, share, 0, "kill -9 $pid");
    run.expect_the_same_in_the_end(2);
  }
}

TEST(Faults, SignalToOneRankStopsAllInOrder) {
  const InterruptedRun run;
  for (const char* signal : {"USR1", "TERM", "INT"}) {
    for (const int rank : {0, 1}) {
      SCOPED_TRACE(std::string(signal) + " to rank " + std::to_string(rank));
      const double share = rank == 0 ? 0.4 : 0;  // amid the work, and as soon as the lock file is there
      const Outcome outcome =
          run.disturbed(2, share, rank, std::string("kill -") + signal + " $victim", "--set run.checkpoint_minutes=10");
      EXPECT_EQ(outcome.code, 75) << outcome.output;
      EXPECT_NE(outcome.output.find("mpirun -n 2 umbriel sample survey.toml --set"), std::string::npos)
          << outcome.output;
      EXPECT_TRUE(std::filesystem::exists(run.folder / "out.h5.checkpoint"));
      run.expect_the_same_in_the_end(rank + 1);
    }
  }
}

TEST(Faults, StoppedRankEndsTheJobWithinTheDeadline) {
  const InterruptedRun run;
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome =
      run.disturbed(2, 0.5, 1, "kill -STOP $victim",
                    "--set run.deadline_minutes=0.05 --set sampler.chains=100000 --set run.checkpoint_minutes=10");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(25));
  EXPECT_EQ(outcome.code, 6) << outcome.output;
  EXPECT_NE(outcome.output.find("nothing has been heard of rank 1"), std::string::npos) << outcome.output;
  EXPECT_EQ(run.left_running(), "");
}

TEST(Faults, SecondJobOnAnOutputIsRefused) {
  const InterruptedRun run;
  const Outcome second = run.folder.disturbed(
      Folder::program(run.command + "--set sampler.chains=100000", 2) + " >first.log", "out.h5", "out.h5.lock", 0,
      Folder::program(run.command) + "; code=$?; kill -9 $pid; wait $pid; exit $code");
  EXPECT_EQ(second.code, 2) << second.output;
  EXPECT_NE(second.output.find("another job is at work on this output: process"), std::string::npos) << second.output;
  EXPECT_EQ(run.left_running(), "");
}

/// The n-th write to the result or its checkpoint fails on one rank, and all later ones.
void fail_writes(const std::vector<int>& numbers) {
  const InterruptedRun run;
  int failed = 0;
  for (const int n : numbers) {
    for (const int reason : {EIO, ENOSPC}) {
      for (const int rank : {0, 1}) {
        SCOPED_TRACE("write " + std::to_string(n) + ", errno " + std::to_string(reason) + ", rank " +
                     std::to_string(rank));
        const auto begin = std::chrono::steady_clock::now();
        const Outcome outcome = run.folder.shell(
            "FAIL_PATH=.partial FAIL_AT=" + std::to_string(n) + " FAIL_ERRNO=" + std::to_string(reason) +
            " FAIL_RANK=" + std::to_string(rank) + " timeout -s KILL 60 " + UMBRIEL_MPIEXEC +
            " -n 2 -x FAIL_PATH -x FAIL_AT -x FAIL_ERRNO -x FAIL_RANK -x LD_PRELOAD=" + UMBRIEL_FAILING_WRITES + " " +
            UMBRIEL_PROGRAM + " " + run.command);
        EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
        if (outcome.code == 0) {  // so many writes there were not
          std::filesystem::remove(run.folder / "out.h5");
          continue;
        }
        ++failed;
        EXPECT_EQ(outcome.code, 5) << outcome.output;
        EXPECT_FALSE(std::filesystem::exists(run.folder / "out.h5"));
      }
    }
    run.expect_the_same_in_the_end(2);
  }
  EXPECT_GT(failed, 0);
}

// The 23rd is one that HDF5 makes while it flushes, inside which the ranks lose each other.
TEST(Faults, FailingWrites) { fail_writes({3, 23}); }
TEST(FaultsSlow, FailingWrites) {
  std::vector<int> numbers;
  for (int n = 1; n <= 30; ++n) numbers.push_back(n);
  fail_writes(numbers);
}

// What a process leaves behind that is killed while Open MPI opens a file.
TEST(Faults, SemaphoreOfAKilledProcessIsNoObstacle) {
  const char* name = "/OMPIO_out.h5.checkpoint.partial";
  sem_t* taken = ::sem_open(name, O_CREAT, 0666, 0);
  ASSERT_NE(taken, SEM_FAILED);
  {
    const InterruptedRun run;
    const Outcome outcome = run.folder.shell("timeout -s KILL 60 " + Folder::program(run.command, 2));
    EXPECT_EQ(outcome.code, 0) << outcome.output;
  }
  ::sem_close(taken);
  ::sem_unlink(name);
}

/// A file system of its own, for as long as it lives.
class SmallDisk {
 public:
  SmallDisk(const Folder& folder, const std::string& size) : folder_(folder) {
    outcome_ = folder.shell("mkdir small && mount -t tmpfs -o size=" + size + " tmpfs small");
  }
  ~SmallDisk() {
    if (mounted()) folder_.shell("umount small");
  }
  bool mounted() const { return outcome_.code == 0; }
  const std::string& reason() const { return outcome_.output; }

 private:
  const Folder& folder_;
  Outcome outcome_;
};

TEST(Faults, TooSmallADiskIsRefusedAtOnce) {
  const InterruptedRun run;
  const SmallDisk disk(run.folder, "4m");
  if (!disk.mounted()) GTEST_SKIP() << "no small file system can be mounted here: " << disk.reason();
  const Outcome outcome = run.folder.umbriel(run.command + "--set run.output=small/out.h5", 2);
  EXPECT_EQ(outcome.code, 5) << outcome.output;
  EXPECT_NE(outcome.output.find("MiB are needed, 4 MiB are free (small/out.h5)"), std::string::npos) << outcome.output;
  EXPECT_EQ(run.folder.shell("ls small").output, "");
}

// There was room when the run began; then somebody else took it.
TEST(Faults, FullDisk) {
  const InterruptedRun run;
  const SmallDisk disk(run.folder, "64m");
  if (!disk.mounted()) GTEST_SKIP() << "no small file system can be mounted here: " << disk.reason();
  const std::string small = "--set run.output=small/out.h5";
  const Outcome outcome = run.folder.disturbed(Folder::program(run.command + small, 2), "small/*",
                                               "small/out.h5.checkpoint", 0, "dd if=/dev/zero of=small/others bs=64k");
  EXPECT_EQ(outcome.code, 5) << outcome.output;
  EXPECT_NE(outcome.output.find("No space left"), std::string::npos) << outcome.output;
  EXPECT_EQ(run.left_running(), "");
  // More room, the same command: it goes on.
  EXPECT_EQ(run.folder.shell("rm small/others").code, 0);
  const Outcome resumed = run.folder.umbriel(run.command + small, 2);
  EXPECT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_EQ(digest_of(run.folder / "small/out.h5"), run.whole);
}

TEST(Faults, AnotherConfigurationIsRefusedUnlessOverridden) {
  const InterruptedRun run;
  ASSERT_EQ(run.stopped("out.h5.checkpoint").code, 75);
  for (const char* change : {"sampler.step=0.6", "run.seed=9", "prior.power_spectrum=other.txt"}) {
    run.folder.write("other.txt", "10 2e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
    const std::string changed = run.command + " --set " + change;
    const Outcome refused = run.folder.umbriel(changed, 2);
    EXPECT_EQ(refused.code, 2) << refused.output;
    EXPECT_NE(refused.output.find("the checkpoint has \""), std::string::npos) << refused.output;
    EXPECT_NE(refused.output.find("--override"), std::string::npos) << refused.output;
  }
  const Outcome overridden = run.folder.umbriel(run.command + " --set sampler.step=0.6 --override", 2);
  EXPECT_EQ(overridden.code, 0) << overridden.output;
  EXPECT_NE(overridden.output.find("going on all the same"), std::string::npos) << overridden.output;
}

/// Cuts the newest checkpoint at `cuts` places, and flips a bit at `flips` others, each time of the same two
/// generations.
void damage_checkpoints(int cuts, int flips) {
  const InterruptedRun run;
  const std::string newest = run.folder / "out.h5.checkpoint", older = run.folder / "out.h5.checkpoint.previous";
  ASSERT_EQ(run.stopped("out.h5.checkpoint.previous").code, 75);
  const std::string good = bytes_of(newest), before = bytes_of(older);
  Dice dice(3);
  for (int i = 0; i < cuts + flips; ++i) {
    std::string bytes = good;
    const auto place = static_cast<std::size_t>(dice.between(0, static_cast<double>(good.size())));
    if (i < cuts) {
      bytes.resize(i == 0 ? 0 : place);
    } else {
      bytes[place] = static_cast<char>(bytes[place] ^ (1 << dice.below(8)));
    }
    SCOPED_TRACE((i < cuts ? "cut to " : "flipped at ") + std::to_string(place));
    write_bytes_to(newest, bytes);
    write_bytes_to(older, before);
    const Outcome outcome = run.folder.umbriel(run.command, 1 + i % 2);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("is not good and is passed over"), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("out.h5.checkpoint.previous"), std::string::npos) << outcome.output;
    EXPECT_EQ(digest_of(run.folder / "out.h5"), run.whole);
    std::filesystem::remove(run.folder / "out.h5");
  }
}

TEST(Faults, DamagedCheckpointGivesWayToTheOneBefore) { damage_checkpoints(1, 1); }
TEST(FaultsSlow, DamagedCheckpointGivesWayToTheOneBefore) { damage_checkpoints(64, 200); }

}  // namespace
}  // namespace umbriel
