// umbriel tune as a user runs it.
#include <gtest/gtest.h>

#include <cmath>

#include "program.hpp"
#include "umbriel/base/config.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using namespace testing;

/// A training of a second, and a search among its settings.
void write_search(const Folder& folder, const std::string& tune, const std::string& train = "steps = 8\n") {
  folder.write("cl.txt", "1 1e-9\n100 5e-10\n1000 1e-10\n10000 1e-11\n");
  folder.write(
      "simulations.toml",
      "[run]\noutput = \"maps.h5\"\n[simulate]\nsamples = 24\nsize = [16, 16]\npixel_arcmin = 2\nkappa0 = 0.03\n"
      "power_spectrum = \"cl.txt\"\n");
  ASSERT_EQ(folder.umbriel("simulate kappa simulations.toml").code, 0);
  folder.write("flow.toml",
               "[run]\noutput = \"tune.h5\"\nseed = 5\n[data]\nmaps = \"maps.h5\"\npixel_arcmin = 2\n[network]\nlevels "
               "= 2\nsteps = 1\nwidth = 4\n[train]\nbatch = 4\nwarm_up = 2\n" +
                   train + "[tune]\ntrain = \"flow\"\n" + tune);
}

const std::string ranges =
    "trials = 6\ninitial = 3\n[tune.parameters]\ntrain.learning_rate = {min = 1e-4, max = 3e-2, log = true}\n"
    "\"network.steps\" = {min = 1, max = 3, integer = true}\nnetwork.activation = {choices = [\"relu\", \"silu\"]}\n";

std::vector<double> read(const Folder& folder, const std::string& dataset) {
  return Hdf5Reader(folder / "tune.h5").read<double>(dataset);
}

/// "what": value of a line "what = value" in a record.
std::string in_record(const Folder& folder, const std::string& trial, const std::string& what) {
  std::ifstream file(folder / "tune.trials/" + trial + ".toml");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(what + " = ", 0) == 0) return line.substr(what.size() + 3);
  }
  return "";
}

TEST(Tune, SearchesAndReports) {
  const Folder folder;
  write_search(folder, ranges);
  const auto before = folder.files();
  const Outcome dry = folder.umbriel("tune flow.toml --dry-run", 2);
  EXPECT_EQ(dry.code, 0) << dry.output;
  for (const char* word : {"tune.trials = 6", "train.steps = 8", "tune.parameters.train.learning_rate.max = 0.03",
                           "6 trials, 2 at a time", "parameters", "disk"})
    EXPECT_NE(dry.output.find(word), std::string::npos) << word << " in " << dry.output;
  EXPECT_EQ(folder.files(), before);

  const Outcome outcome = folder.umbriel("tune flow.toml");
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  const std::vector<double> loss = read(folder, "/tune/loss"), points = read(folder, "/tune/parameters");
  ASSERT_EQ(loss.size(), 6U);
  ASSERT_EQ(points.size(), 18U);
  // Trial 0 is the configuration as it is, in the order of its keys.
  const Hdf5Reader result(folder / "tune.h5");
  EXPECT_EQ(result.attribute("/tune", "names"), "network.activation,network.steps,train.learning_rate");
  EXPECT_EQ(result.attribute("/tune", "scales"), "choice,linear,log");
  EXPECT_EQ(result.attribute("/tune", "measure"), "nats");
  EXPECT_EQ(std::vector<double>(points.begin(), points.begin() + 3), (std::vector<double>{0, 1, 1e-3}));
  std::vector<double> losses;
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_TRUE(std::isfinite(loss[i]));
    for (const double other : losses) EXPECT_NE(loss[i], other) << "every trial has settings of its own";
    losses.push_back(loss[i]);
    EXPECT_TRUE(points[3 * i] == 0 || points[3 * i] == 1);
    EXPECT_GE(points[3 * i + 2], 1e-4);
    EXPECT_LE(points[3 * i + 2], 3e-2);
    EXPECT_TRUE(points[3 * i + 1] == 1 || points[3 * i + 1] == 2 || points[3 * i + 1] == 3);
  }
  const auto best = static_cast<std::size_t>(std::min_element(loss.begin(), loss.end()) - loss.begin());
  EXPECT_EQ(result.attribute("/tune", "best"), std::to_string(best));

  // A trial is the training that its settings say, to the bit; trial 0 that of the configuration.
  ASSERT_EQ(folder.umbriel("train flow flow.toml --set run.output=plain.safetensors").code, 0);
  std::string command = "train flow flow.toml --set run.output=again.safetensors";
  for (std::string assignment : Config::load(folder / "tune.trials/004.toml").texts("set")) {
    assignment.erase(std::remove(assignment.begin(), assignment.end(), '"'), assignment.end());
    command += " --set " + assignment;
  }
  const Outcome again = folder.umbriel(command);
  ASSERT_EQ(again.code, 0) << command << again.output;
  const auto validated = [&](const std::string& stem) {  // the least of the column "nats"
    std::ifstream file(folder / stem + ".validation.csv");
    std::string line;
    std::getline(file, line);
    double least = INFINITY;
    while (std::getline(file, line)) least = std::min(least, std::stod(line.substr(line.find(',') + 1)));
    return least;
  };
  EXPECT_EQ(validated("plain"), loss[0]);
  EXPECT_EQ(validated("again"), loss[4]) << command;

  const Outcome inspected = folder.umbriel("inspect tune.h5");
  EXPECT_EQ(inspected.code, 0) << inspected.output;
  const Outcome report = folder.umbriel("report tune.h5 -o tune.html");
  ASSERT_EQ(report.code, 0) << report.output;
  std::ostringstream page;
  page << std::ifstream(folder / "tune.html").rdbuf();
  for (const char* word : {"network.activation", "train.learning_rate", "0, as it was", "least so far", "silu"})
    EXPECT_NE(page.str().find(word), std::string::npos) << word;
}

TEST(Tune, IsTheSameForAsManyGroups) {
  const Folder folder;
  write_search(folder, ranges);
  std::string digests[3];
  const char* const ways[] = {"--set tune.ranks_per_trial=1", "--set tune.ranks_per_trial=1",
                              "--set tune.ranks_per_trial=2"};
  std::vector<double> first[3];
  const int ranks[] = {2, 2, 4};
  for (int way = 0; way < 3; ++way) {
    std::filesystem::remove_all(folder / "tune.trials");
    const Outcome outcome = folder.umbriel(std::string("tune flow.toml ") + ways[way], ranks[way]);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    digests[way] = Hdf5Reader(folder / "tune.h5").data_digest();
    first[way] = read(folder, "/tune/loss");
  }
  EXPECT_EQ(digests[1], digests[0]);
  // Losses of a training agree to the bit on any number of ranks, and so does the search.
  EXPECT_EQ(digests[2], digests[0]);
  // More trials go on from there; another number of groups would propose others.
  const Outcome other = folder.umbriel("tune flow.toml");
  EXPECT_EQ(other.code, 2) << other.output;
  EXPECT_NE(other.output.find("groups = 2"), std::string::npos) << other.output;
  const Outcome longer = folder.umbriel("tune flow.toml --set tune.ranks_per_trial=2 --set tune.trials=8", 4);
  ASSERT_EQ(longer.code, 0) << longer.output;
  EXPECT_NE(longer.output.find("6 trials are finished already"), std::string::npos) << longer.output;
  const std::vector<double> more = read(folder, "/tune/loss");
  ASSERT_EQ(more.size(), 8U);
  EXPECT_EQ(std::vector<double>(more.begin(), more.begin() + 6), first[0]);
}

TEST(Tune, KilledAndRunAgainRepeatsNothing) {
  for (const int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    const Folder folder;
    write_search(folder, ranges, "steps = 60\ncheckpoint_steps = 10\nvalidate_every = 20\n");
    ASSERT_EQ(folder.umbriel("tune flow.toml --set run.output=whole.h5", ranks).code, 0);
    // Killed in the first, and in a later trial, once it has a checkpoint.
    const std::string run = Folder::program("tune flow.toml", ranks);
    for (const char* trial : {"000", ranks == 1 ? "003" : "002"}) {
      const std::string at = std::string("tune.trials/") + trial + ".checkpoint.h5";
      const std::string kill = ranks == 1 ? "kill -9 $pid" : "pkill -KILL -P $pid";
      const Outcome killed = folder.disturbed(run, "tune.h5 tune.trials", at, 0, kill);
      EXPECT_NE(killed.code, 0) << killed.output;
    }
    EXPECT_FALSE(std::filesystem::exists(folder / "tune.h5"));
    const std::string under_way = ranks == 1 ? "003" : "002";
    EXPECT_EQ(in_record(folder, under_way, "state"), "\"begun\"");
    const std::string done = in_record(folder, "001", "seconds");
    ASSERT_EQ(in_record(folder, "001", "state"), "\"done\"");
    const auto written = std::filesystem::last_write_time(folder / "tune.trials/001.safetensors");

    const Outcome resumed = folder.shell(run);
    ASSERT_EQ(resumed.code, 0) << resumed.output;
    EXPECT_NE(resumed.output.find("trials are finished already"), std::string::npos) << resumed.output;
    EXPECT_EQ(resumed.output.find("trial 1:"), std::string::npos) << "repeated: " << resumed.output;
    EXPECT_EQ(std::filesystem::last_write_time(folder / "tune.trials/001.safetensors"), written);
    EXPECT_EQ(in_record(folder, "001", "seconds"), done);
    std::ostringstream log;
    log << std::ifstream(folder / "tune.trials/" + under_way + ".safetensors.log.jsonl").rdbuf();
    EXPECT_NE(log.str().find("going on after step"), std::string::npos) << "from its own checkpoint: " << log.str();
    const Hdf5Reader result(folder / "tune.h5"), whole(folder / "whole.h5");
    EXPECT_EQ(result.data_digest(), whole.data_digest());
    EXPECT_EQ(result.attribute("/tune", "weights_sha256"), whole.attribute("/tune", "weights_sha256"));

    // Once more: all is done.
    const Outcome again = folder.shell(run);
    EXPECT_EQ(again.code, 0) << again.output;
    EXPECT_NE(again.output.find("6 trials are finished already"), std::string::npos) << again.output;
  }
}

TEST(Tune, StoppedBySignalGoesOn) {
  const Folder folder;
  write_search(folder, ranges, "steps = 60\ncheckpoint_steps = 10\n");
  const Outcome stopped = folder.disturbed(Folder::program("tune flow.toml", 2), "tune.h5 tune.trials",
                                           "tune.trials/002.checkpoint.h5", 0, "pkill -USR1 -P $pid");
  ASSERT_EQ(stopped.code, 75) << stopped.output;
  EXPECT_NE(stopped.output.find("umbriel tune flow.toml"), std::string::npos) << stopped.output;
  ASSERT_EQ(folder.umbriel("tune flow.toml", 2).code, 0);
  ASSERT_EQ(folder.umbriel("tune flow.toml --set run.output=whole.h5", 2).code, 0);
  EXPECT_EQ(Hdf5Reader(folder / "tune.h5").data_digest(), Hdf5Reader(folder / "whole.h5").data_digest());
}

TEST(Tune, CountsFailuresAndEndsWhereTheSpaceEnds) {
  const Folder folder;
  // A learning rate of 1e9 leaves nothing finite.
  write_search(folder,
               "trials = 20\ninitial = 2\n[tune.parameters]\ntrain.learning_rate = {choices = [1e-3, 10.0]}\n"
               "network.steps = {min = 1, max = 2, integer = true}\n",
               "steps = 8\nclip_norm = 0\noptimiser = \"adam\"\n");
  const Outcome outcome = folder.umbriel("tune flow.toml", 2);
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("no more than these 4 settings"), std::string::npos) << outcome.output;
  const std::vector<double> loss = read(folder, "/tune/loss"), failed = read(folder, "/tune/failed"),
                            points = read(folder, "/tune/parameters");
  ASSERT_EQ(loss.size(), 4U);
  int failures = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const bool hot = points[2 * i + 1] == 1;
    EXPECT_EQ(failed[i], hot ? 1 : 0);
    EXPECT_EQ(std::isfinite(loss[i]), !hot);
    failures += hot ? 1 : 0;
    for (std::size_t j = 0; j < i; ++j)
      EXPECT_TRUE(points[2 * i] != points[2 * j] || points[2 * i + 1] != points[2 * j + 1]);
  }
  EXPECT_EQ(failures, 2);
  EXPECT_NE(outcome.output.find("failed; "), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("not finite"), std::string::npos) << outcome.output;
  EXPECT_EQ(folder.umbriel("report tune.h5 -o tune.html").code, 0);

  // Where all fail there is no result.
  const Outcome hopeless = folder.umbriel(
      "tune flow.toml --set run.output=none.h5 --set train.learning_rate=9 --set train.steps=7 "
      "--set \"tune.parameters.train.learning_rate.choices=[8.0, 10.0]\"");
  EXPECT_EQ(hopeless.code, 4) << hopeless.output;
  EXPECT_NE(hopeless.output.find("every trial failed"), std::string::npos) << hopeless.output;
  EXPECT_FALSE(std::filesystem::exists(folder / "none.h5"));
}

TEST(Tune, RefusesBadInput) {
  const Refusal cases[] = {
      {"--set tune.trial=3", 2, 2, "did you mean tune.trials"},
      {"--set train.step=3", 2, 1, "did you mean train.steps"},
      {"--set tune.train=trees", 2, 1, "cannot train trees"},
      {"--set tune.trials=0", 2, 1, "tune.trials"},
      {"--set tune.ranks_per_trial=2", 2, 3, "groups of 2"},
      {"--set run.output=tune.safetensors", 2, 1, "HDF5"},
      {"--set run.output=nowhere/tune.h5", 5, 1, "nowhere"},
      {"--set tune.parameters={}", 2, 1, "nothing to search"},
      {"--set tune.parameters.train.learning_rate.min=0.03", 2, 2, "nothing between"},
      {"--set tune.parameters.train.learning_rate.min=1", 2, 1, "nothing between"},
      {"--set tune.parameters.train.learning_rate.min=0", 2, 1, "no logarithm"},
      {"--set tune.parameters.train.learning_rate.max=100", 2, 1, "train.learning_rate = 100"},
      {"--set tune.parameters.train.learning_rate.mix=1", 2, 1, "is no range"},
      {"--set tune.parameters.train.learning_rate=1", 2, 1, "is no range"},
      {"--set tune.parameters.train.warm_up.min=1", 2, 1, "tune.parameters.train.warm_up.max is missing"},
      {"--set \"tune.parameters.train.rate={min=1,max=2}\"", 2, 2, "unknown key train.rate"},
      {"--set \"tune.parameters.run.seed={min=1,max=2}\"", 2, 1, "cannot set run.seed"},
      {"--set \"tune.parameters.train.batch={min=1,max=2,integer=1}\"", 2, 1, "true or false"},
      {"--set \"tune.parameters.train.batch={min=1.5,max=2,integer=true}\"", 2, 1, "whole number"},
      {"--set \"tune.parameters.network.steps={min=1,max=2,integer=true}\"", 2, 1, "stands twice"},
      {"--set tune.parameters.network.activation.choices=[]", 2, 1, "no choice"},
      {"--set tune.parameters.network.activation.choices=relu", 2, 1, "not a list"},
      {"--set \"tune.parameters.train.batch.choices=[2,2]\"", 2, 1, "2 twice"},
      {"--set \"tune.parameters.train.batch={choices=[2,4],min=1}\"", 2, 1, "both a range and a choice"},
      {"--set \"tune.parameters.train.optimiser.choices=[adam,sgd]\"", 2, 1, "not valid TOML"},
      {"--set \"tune.parameters.network.levels.choices=[2,5]\"", 2, 2, "network.levels=5"},
      {"--set data.maps=none.h5", 5, 1, "none.h5"},
  };
  const Folder folder;
  write_search(folder, ranges);
  expect_refusals(folder, cases, "tune flow.toml ");
  // A record that was damaged is not taken for a result.
  ASSERT_EQ(folder.umbriel("tune flow.toml --set tune.trials=2").code, 0);
  folder.write("tune.trials/001.toml", "state = \"done\"\npoint = [0, 1");
  const Outcome damaged = folder.umbriel("tune flow.toml --set tune.trials=2");
  EXPECT_EQ(damaged.code, 3) << damaged.output;
  EXPECT_NE(damaged.output.find("001.toml"), std::string::npos) << damaged.output;
  const Outcome other = folder.umbriel("tune flow.toml --set train.steps=9");
  EXPECT_EQ(other.code, 2) << other.output;
  EXPECT_NE(other.output.find("train.steps = 8"), std::string::npos) << other.output;
}

}  // namespace
}  // namespace umbriel
