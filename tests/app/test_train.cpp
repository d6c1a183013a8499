// umbriel train score as a user runs it, and sampling under what it learned.
#include <gtest/gtest.h>

#include <cmath>

#include "program.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/nn/safetensors.hpp"

namespace umbriel {
namespace {

using namespace testing;

void write_training(const Folder& folder, const std::string& train = "steps = 6\n") {
  folder.write("cl.txt", "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
  folder.write("train.toml",
               "[run]\noutput = \"prior.safetensors\"\nseed = 3\n[data]\nsimulate = {kind = \"lognormal\"}\n"
               "size = [16, 16]\npixel_arcmin = 0.5\nvalidation_maps = 2\n[prior]\npower_spectrum = \"cl.txt\"\n"
               "[score]\nsigma_min = 0.01\nsigma_max = 0.3\n[network]\nwidths = [4, 4]\nblocks = [1, 1]\n"
               "embedding = 4\n[train]\nbatch = 4\nwarm_up = 2\n" +
                   train);
}

/// Names and values of all tensors.
std::vector<std::pair<std::string, std::vector<float>>> tensors(const std::string& path) {
  const nn::SafetensorsFile file(path);
  std::vector<std::pair<std::string, std::vector<float>>> all;
  for (const auto& entry : file.entries()) all.emplace_back(entry.name, file.read(entry));
  return all;
}

/// Column 1 of a metrics file; column 0 must count the steps.
std::vector<double> losses(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, "step,loss,learning_rate,gradient_norm,seconds");
  std::vector<double> values;
  while (std::getline(file, line)) {
    EXPECT_EQ(line.substr(0, line.find(',')), std::to_string(values.size()));
    values.push_back(std::stod(line.substr(line.find(',') + 1)));
  }
  return values;
}

TEST(Train, WritesWeightsAndMetricsWithEqualLossesOnAnyRanks) {
  const Folder folder;
  write_training(folder);
  const auto before = folder.files();
  const Outcome dry = folder.umbriel("train score train.toml --dry-run", 2);
  EXPECT_EQ(dry.code, 0) << dry.output;
  for (const char* word : {"train.steps = 6", "parameters", "disk"})
    EXPECT_NE(dry.output.find(word), std::string::npos) << word << " in " << dry.output;
  EXPECT_EQ(folder.files(), before);

  std::vector<std::vector<double>> series;
  for (const int ranks : {1, 2}) {
    const Outcome outcome = folder.umbriel("train score train.toml", ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    for (const char* name : {"prior.safetensors", "prior.metrics.csv", "prior.metrics.jsonl", "prior.validation.csv",
                             "prior.safetensors.log.jsonl"})
      EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;
    EXPECT_FALSE(std::filesystem::exists(folder / "prior.checkpoint.h5")) << "the weights are safe";
    series.push_back(losses(folder / "prior.metrics.csv"));
    ASSERT_EQ(series.back().size(), 6U);
    const nn::Metadata metadata = nn::SafetensorsFile(folder / "prior.safetensors").metadata();
    for (const char* key : {"umbriel.format", "umbriel.config", "umbriel.version", "umbriel.training", "umbriel.inputs",
                            "umbriel.power_spectrum", "umbriel.pixel_arcmin", "umbriel.validation.relative_error"})
      EXPECT_TRUE(metadata.count(key)) << key;
    EXPECT_EQ(metadata.at("umbriel.ranks"), std::to_string(ranks));
    EXPECT_NE(metadata.at("umbriel.inputs").find("cl.txt"), std::string::npos);
  }
  EXPECT_EQ(series[1], series[0]);
}

TEST(Train, StoppedBySignalGoesOnToTheSameWeights) {
  const Folder folder;
  write_training(folder, "steps = 600\nvalidate_every = 500\n");
  const std::string command = "train score train.toml ";
  ASSERT_EQ(folder.umbriel(command + "--set run.output=whole.safetensors", 2).code, 0);
  const Outcome stopped =
      folder.disturbed(Folder::program(command, 2), "prior.safetensors", "prior.metrics.csv", 0, "pkill -USR1 -P $pid");
  ASSERT_EQ(stopped.code, 75) << stopped.output;
  EXPECT_NE(stopped.output.find("umbriel train score train.toml"), std::string::npos) << stopped.output;
  EXPECT_TRUE(std::filesystem::exists(folder / "prior.checkpoint.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder / "prior.safetensors"));
  const std::vector<double> part = losses(folder / "prior.metrics.csv"), whole = losses(folder / "whole.metrics.csv");
  ASSERT_LT(part.size(), 600U);
  ASSERT_GT(part.size(), 0U);
  EXPECT_EQ(part, std::vector<double>(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(part.size())));

  // Another configuration, or another number of ranks, would not give the same series.
  for (const Outcome& other :
       {folder.umbriel(command + "--set train.learning_rate=1e-4", 2), folder.umbriel(command, 1)}) {
    EXPECT_EQ(other.code, 2) << other.output;
    EXPECT_NE(other.output.find("prior.checkpoint.h5"), std::string::npos) << other.output;
  }
  const Outcome resumed = folder.umbriel(command + "--set run.checkpoint_minutes=7", 2);
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("going on after step"), std::string::npos) << resumed.output;
  EXPECT_EQ(losses(folder / "prior.metrics.csv"), whole);
  EXPECT_EQ(tensors(folder / "prior.safetensors"), tensors(folder / "whole.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(folder / "prior.checkpoint.h5"));
}

TEST(Train, RefusesBadInput) {
  struct Bad {
    const char* arguments;
    int code, ranks;
    const char* word;
  };
  const Bad cases[] = {
      {"train score train.toml --set train.step=3", 2, 2, "did you mean train.steps"},
      {"train score train.toml --set network.width=[4]", 2, 1, "did you mean network.widths"},
      {"train score train.toml --set train.batch=3", 2, 2, "train.batch"},
      {"train score train.toml --set train.micro_batch=3", 2, 2, "train.micro_batch"},
      {"train score train.toml --set train.learning_rate=-1", 2, 1, "train.learning_rate"},
      {"train score train.toml --set train.initialisation=zeros", 2, 1, "train.initialisation"},
      {"train score train.toml --set data.size=[15,16]", 2, 1, "multiples of 2"},
      {"train trees train.toml", 2, 2, "score"},
      {"train score nowhere.toml", 5, 1, "nowhere.toml"},
      {"train score train.toml --set run.output=nowhere/x.safetensors", 5, 1, "nowhere"},
      {"train score train.toml --set prior.power_spectrum=empty.txt", 3, 2, "empty.txt"},
  };
  for (const Bad& bad : cases) {
    SCOPED_TRACE(bad.arguments);
    const Folder folder;
    write_training(folder);
    folder.write("empty.txt", "");
    const auto before = folder.files();
    const Outcome outcome = folder.umbriel(bad.arguments, bad.ranks);
    EXPECT_EQ(outcome.code, bad.code) << outcome.output;
    EXPECT_NE(outcome.output.find(bad.word), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("\u2014"), std::string::npos) << "a remedy in " << outcome.output;
    EXPECT_EQ(folder.files(), before) << "nothing is left behind";
  }
}

/// Bytes of "memory a rank: 1.5 MiB" in what a dry run prints; 0 where there is no such line.
double memory_of(const std::string& output) {
  const std::string before = "memory a rank: ";
  const std::size_t at = output.find(before);
  if (at == std::string::npos) return 0;
  std::istringstream line(output.substr(at + before.size()));
  double number = 0;
  std::string unit;
  line >> number >> unit;
  return number * (unit == "GiB" ? 0x1p30 : unit == "MiB" ? 0x1p20 : unit == "KiB" ? 0x1p10 : 1);
}

TEST(Train, MakesAPriorToSampleUnder) {
  const Folder folder;
  write_training(folder);
  ASSERT_EQ(folder.umbriel("train score train.toml").code, 0);
  folder.write("sample.toml",
               "[run]\noutput = \"out.h5\"\nseed = 2\n[survey]\nsize = [32, 32]\npixel_arcmin = 0.5\n"
               "simulate = {mask = \"holes\"}\n[prior]\nkind = \"score\"\nmodel = \"prior.safetensors\"\n"
               "[sampler]\nchains = 4\n[reference]\ndraws = 4\n");
  for (const std::string command : {"sample sample.toml",
                                    "validate sample.toml --set validate.exact=false --set validate.mocks=2 "
                                    "--set validate.draws=3 --set validate.rank_bins=4"}) {
    const double learned = memory_of(folder.umbriel(command + " --dry-run").output);
    const double gaussian = memory_of(
        folder.umbriel(command + " --dry-run --set prior.kind=gaussian --set prior.source_redshift=1").output);
    EXPECT_GT(gaussian, 0) << command;
    EXPECT_GT(learned, 1.5 * gaussian) << "a network takes memory: " << command;
  }
  folder.write("quarter.txt", "10 2.5e-9\n1000 2.5e-10\n10000 5e-12\n100000 2.5e-14\n");
  for (const char* command : {"sample", "validate", "map"}) {
    const std::string dry = std::string(command) + " sample.toml --dry-run --set validate.exact=false" +
                            " --set validate.mocks=2 --set validate.draws=3 --set validate.rank_bins=4";
    const std::string same = folder.umbriel(dry).output,
                      less = folder.umbriel(dry + " --set prior.power_spectrum=quarter.txt").output;
    EXPECT_EQ(same.find("standard deviation"), std::string::npos) << same;
    EXPECT_NE(less.find("0.500 of the standard deviation"), std::string::npos) << less;
  }
  std::string expected;
  for (const auto& [ranks, batch] : {std::pair{1, 1}, {1, 3}, {2, 1}, {2, 3}}) {
    const Outcome outcome = folder.umbriel("sample sample.toml --set sampler.batch=" + std::to_string(batch), ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const std::string digest = Hdf5Reader(folder / "out.h5").data_digest();
    if (expected.empty()) expected = digest;
    EXPECT_EQ(digest, expected) << ranks << " ranks, batch " << batch;
  }
  {  // The posterior mean is that of what tails expect: not that of the samples, but about as near as those scatter.
    const Hdf5Reader result(folder / "out.h5");
    const auto mean = result.read<float>("/summary/mean"), spread = result.read<float>("/summary/std"),
               samples = result.read<float>("/posterior/kappa");
    double apart = 0, scatter = 0;
    for (std::size_t i = 0; i < mean.size(); ++i) {
      double of_samples = 0;
      for (std::size_t chain = 0; chain < 4; ++chain)
        of_samples += 0.25 * static_cast<double>(samples[chain * mean.size() + i]);
      apart += std::pow(static_cast<double>(mean[i]) - of_samples, 2);
      scatter += 0.25 * std::pow(static_cast<double>(spread[i]), 2);
    }
    EXPECT_GT(apart, 0.1 * scatter);
    EXPECT_LT(apart, 2 * scatter);
  }
  {  // So three draws already are near infinitely many: 0.02, where means of samples had 0.16.
    const Outcome outcome = folder.umbriel(
        "validate sample.toml --set run.output=judged.h5 --set validate.exact=false --set validate.mocks=4 "
        "--set validate.draws=3 --set validate.rank_bins=4");
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const Hdf5Reader judged(folder / "judged.h5");
    EXPECT_LT(std::stod(judged.attribute("/validate", "rmse_ratio_mean")) -
                  std::stod(judged.attribute("/validate", "rmse_ratio_limit_mean")),
              0.06);
  }
  const Outcome inspected = folder.umbriel("inspect out.h5");
  EXPECT_EQ(inspected.code, 0);
  EXPECT_NE(inspected.output.find("data digest: " + expected), std::string::npos) << inspected.output;
  EXPECT_NE(Hdf5Reader(folder / "out.h5").attribute("/", "inputs").find("prior.safetensors"), std::string::npos);
  ASSERT_EQ(folder.umbriel("train score train.toml --set run.seed=4").code, 0);
  ASSERT_EQ(folder.umbriel("sample sample.toml").code, 0);
  EXPECT_NE(Hdf5Reader(folder / "out.h5").data_digest(), expected) << "the weights decide";

  std::filesystem::remove(folder / "out.h5");
  folder.write("dark.txt", "10 0\n100000 0\n");
  std::filesystem::copy_file(folder / "prior.safetensors", folder / "short.safetensors");
  std::filesystem::resize_file(folder / "short.safetensors",
                               std::filesystem::file_size(folder / "short.safetensors") - 4);
  struct Bad {
    const char* arguments;
    int code;
    const char* word;
  };
  for (const Bad& bad :
       {Bad{"--set prior.model=cl.txt", 3, "cl.txt"}, Bad{"--set prior.power_spectrum=dark.txt", 3, "no power"},
        Bad{"--set prior.model=short.safetensors", 3, "short.safetensors"},
        Bad{"--set prior.model=nowhere.safetensors", 5, "nowhere.safetensors"},
        Bad{"--set survey.pixel_arcmin=1.0", 2, "arcmin"}, Bad{"--set survey.size=[31,32]", 2, "multiples of 2"}}) {
    SCOPED_TRACE(bad.arguments);
    const auto before = folder.files();
    const Outcome outcome = folder.umbriel(std::string("sample sample.toml ") + bad.arguments);
    EXPECT_EQ(outcome.code, bad.code) << outcome.output;
    EXPECT_NE(outcome.output.find(bad.word), std::string::npos) << outcome.output;
    EXPECT_EQ(folder.files(), before);
  }
}

}  // namespace
}  // namespace umbriel
