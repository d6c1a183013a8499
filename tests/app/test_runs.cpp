// Whole runs: the same data for any number of ranks and batch, through a stop and a resume; every command's products.
#include <gtest/gtest.h>

#include "program.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using namespace testing;

std::string digest(const std::string& path) { return Hdf5Reader(path).data_digest(); }

TEST(Sample, GivesTheSameDataForAnyRanksAndBatch) {
  const Folder folder;
  write_survey_files(folder);
  std::string expected;
  for (const auto& [ranks, batch] : {std::pair{1, 2}, {2, 2}, {3, 1}, {4, 3}}) {
    const Outcome outcome =
        folder.umbriel("sample survey.toml --set run.seed=4 --set sampler.batch=" + std::to_string(batch), ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    if (expected.empty()) expected = digest(folder / "out.h5");
    EXPECT_EQ(digest(folder / "out.h5"), expected) << ranks << " ranks, batch " << batch;
  }
  ASSERT_EQ(folder.umbriel("sample survey.toml --set run.seed=5").code, 0);
  EXPECT_NE(digest(folder / "out.h5"), expected) << "the seed decides";
}

TEST(Sample, WritesWhatTheSchemaPromises) {
  const Folder folder;
  write_survey_files(folder);
  ASSERT_EQ(folder.umbriel("sample survey.toml --set model.b_modes=true", 2).code, 0);
  const Hdf5Reader file(folder / "out.h5");
  for (const char* name : {"/posterior/kappa",
                           "/posterior/kappa_b",
                           "/summary/mean",
                           "/summary/std",
                           "/summary/quantile_05",
                           "/summary/quantile_16",
                           "/summary/quantile_50",
                           "/summary/quantile_84",
                           "/summary/quantile_95",
                           "/summary/peak_probability",
                           "/reference/kaiser_squires",
                           "/reference/wiener_mean",
                           "/reference/wiener_std",
                           "/sample_stats/accept_rate",
                           "/sample_stats/log_density",
                           "/sample_stats/sigma",
                           "/sample_stats/score_evaluations",
                           "/sample_stats/diverged",
                           "/survey/shear",
                           "/survey/noise",
                           "/survey/mask"}) {
    ASSERT_TRUE(file.has(name)) << name;
    EXPECT_TRUE(file.has_attribute(name, "units")) << name;
    EXPECT_TRUE(file.has_attribute(name, "long_name")) << name;
  }
  EXPECT_EQ(file.shape("/posterior/kappa"), (std::vector<std::uint64_t>{6, 24, 32}));
  for (const char* name :
       {"schema_version", "config", "git_revision", "libraries", "ranks", "devices", "seed", "inputs", "wall_seconds"})
    EXPECT_TRUE(file.has_attribute("/", name)) << name;
  // The mean is that of the samples.
  const auto samples = file.read<float>("/posterior/kappa");
  const auto mean = file.read<float>("/summary/mean");
  double sum = 0;
  for (int chain = 0; chain < 6; ++chain)
    sum += static_cast<double>(samples[static_cast<std::size_t>(chain) * 24 * 32 + 100]);
  EXPECT_NEAR(mean[100], sum / 6, 1e-6);
  for (const char* name : {"out_mean.fits", "out_std.fits", "out_wiener_mean.fits", "out_kaiser_squires_smoothed.fits",
                           "out_peak_probability.fits"})
    EXPECT_EQ(read_fits_image(folder / name).width, 32) << name;
  EXPECT_TRUE(std::filesystem::exists(folder / "out.h5.log.jsonl"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.h5.partial"));
  const Outcome inspected = folder.umbriel("inspect out.h5");
  EXPECT_EQ(inspected.code, 0);
  EXPECT_NE(inspected.output.find("data digest: " + file.data_digest()), std::string::npos);
  EXPECT_EQ(folder.umbriel("report out.h5 -o page.html").code, 0);
  EXPECT_GT(std::filesystem::file_size(folder / "page.html"), 10000U);
}

TEST(Sample, StoppedBySignalResumesToTheSameData) {
  const Folder folder;
  write_survey_files(folder, 48, 48);
  const std::string settings = "sample survey.toml --set sampler.chains=300 --set sampler.batch=2 ";
  ASSERT_EQ(folder.umbriel(settings + "--set run.output=whole.h5", 2).code, 0);
  // Stop once some chains are done, on two ranks; go on with three.
  const Outcome stopped = folder.shell(Folder::program(settings, 2) +
                                       " & pid=$!; while ! test -e out.h5.log.jsonl; do sleep 0.01; done; sleep 0.4; "
                                       "pkill -USR1 -P $pid; wait $pid; exit $?");
  if (stopped.code == 0) GTEST_SKIP() << "the run ended before the signal came";
  ASSERT_EQ(stopped.code, 75) << stopped.output;
  ASSERT_TRUE(std::filesystem::exists(folder / "out.h5.checkpoint"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.h5"));
  EXPECT_NE(stopped.output.find("umbriel sample survey.toml"), std::string::npos) << stopped.output;
  // Another configuration is refused, with the difference.
  const Outcome other = folder.umbriel(settings + "--set sampler.step=0.5");
  EXPECT_EQ(other.code, 2);
  EXPECT_NE(other.output.find("sampler.step"), std::string::npos) << other.output;
  const Outcome resumed = folder.umbriel(settings, 3);
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("resuming"), std::string::npos) << resumed.output;
  EXPECT_EQ(digest(folder / "out.h5"), digest(folder / "whole.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.h5.checkpoint"));
}

TEST(Simulate, GivesTheSameMapsForAnyRanks) {
  const Folder folder;
  folder.write("cl.txt", "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
  folder.write("maps.toml",
               "[run]\noutput = \"maps.h5\"\n[simulate]\nsamples = 5\nsize = [32, 24]\npower_spectrum = \"cl.txt\"\n");
  ASSERT_EQ(folder.umbriel("simulate kappa maps.toml").code, 0);
  const std::string one = digest(folder / "maps.h5");
  ASSERT_EQ(folder.umbriel("simulate kappa maps.toml", 3).code, 0);
  EXPECT_EQ(digest(folder / "maps.h5"), one);
  EXPECT_EQ(folder.umbriel("simulate galaxies maps.toml").code, 2);
}

TEST(Map, WritesEveryReconstructionAndTheBinnedSurvey) {
  const Folder folder;
  write_survey_files(folder);
  const Outcome outcome = folder.umbriel("map survey.toml --set run.output=map.h5 --set model.reduced_shear=true", 2);
  ASSERT_EQ(outcome.code, 0) << outcome.output;  // keys of `sample` are known here too
  EXPECT_EQ(folder.umbriel("map survey.toml --set sampler.chain=3").code, 2);
  for (const char* name : {"kaiser_squires", "kaiser_squires_smoothed", "kaiser_squires_b", "wiener_mean", "map",
                           "shear1", "shear2", "noise1", "noise2", "mask"})
    EXPECT_EQ(read_fits_image(folder / ("map_" + std::string(name) + ".fits")).height, 24) << name;
  const FitsImage before = read_fits_image(folder / "e1.fits"), after = read_fits_image(folder / "map_shear1.fits");
  EXPECT_EQ(before.values, after.values);
}

TEST(Validate, RanksMocksTheSameForAnyRanks) {
  const Folder folder;
  folder.write("cl.txt", "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
  folder.write(
      "validate.toml",
      "[run]\noutput = \"v.h5\"\n[survey]\nsize = [16, 16]\npixel_arcmin = 0.5\nsimulate = {mask = \"holes\"}\n"
      "[prior]\npower_spectrum = \"cl.txt\"\n[sampler]\nchains = 8\n"
      "[validate]\nexact_draws = 8\nmocks = 5\ndraws = 7\nrank_bins = 4\n");
  ASSERT_EQ(folder.umbriel("validate validate.toml").code, 0);
  const std::string one = digest(folder / "v.h5");
  const Outcome outcome = folder.umbriel("validate validate.toml", 3);
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_EQ(digest(folder / "v.h5"), one);
  EXPECT_EQ(folder.umbriel("report v.h5").code, 0);
}

TEST(DryRun, PrintsTheConfigurationAndTouchesNothing) {
  const Folder folder;
  write_survey_files(folder);
  const auto before = folder.files();
  const Outcome outcome = folder.umbriel("sample survey.toml --dry-run", 2);
  EXPECT_EQ(outcome.code, 0);
  for (const char* word : {"sampler.chains = 6", "memory", "disk", "score evaluations"})
    EXPECT_NE(outcome.output.find(word), std::string::npos) << word;
  EXPECT_EQ(folder.files(), before);
}

TEST(Help, IsThereForEveryCommand) {
  const Folder folder;
  for (const char* command : {"", "simulate", "map", "sample", "validate", "inspect", "report"}) {
    const Outcome outcome = folder.umbriel(std::string(command) + " --help");
    EXPECT_EQ(outcome.code, 0) << command;
    EXPECT_NE(outcome.output.find("Exit codes"), std::string::npos) << command;
  }
}

}  // namespace
}  // namespace umbriel
