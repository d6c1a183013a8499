// Whole runs: the same data for any number of ranks and batch, through a stop and a resume; every command's products.
#include <cmath>

#include <gtest/gtest.h>

#include "program.hpp"
#include "umbriel/data/npy.hpp"
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
  for (const std::string& name : folder.files()) EXPECT_EQ(name.find(".partial"), std::string::npos) << name;
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
  const Outcome stopped =
      folder.disturbed(Folder::program(settings, 2), "out.h5", "out.h5.lock", 0.4, "pkill -USR1 -P $pid");
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

void write_validation(const Folder& folder, const std::string& keys) {
  folder.write("cl.txt", "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
  folder.write(
      "validate.toml",
      "[run]\noutput = \"v.h5\"\n[survey]\nsize = [16, 16]\npixel_arcmin = 0.5\nsimulate = {mask = \"holes\"}\n"
      "[prior]\npower_spectrum = \"cl.txt\"\n[sampler]\nchains = 8\n[validate]\n" +
          keys);
}

TEST(Validate, RanksMocksTheSameForAnyRanks) {
  const Folder folder;
  write_validation(folder, "exact_draws = 8\nmocks = 5\ndraws = 7\nrank_bins = 4\nmocks_kind = \"lognormal\"\n");
  ASSERT_EQ(folder.umbriel("validate validate.toml").code, 0);
  const std::string one = digest(folder / "v.h5");
  for (const int ranks : {2, 3, 7}) {  // mocks left over; more ranks than mocks
    const Outcome outcome = folder.umbriel("validate validate.toml", ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("5 mocks of lognormal fields, 7 draws each\n"), std::string::npos) << outcome.output;
    EXPECT_EQ(digest(folder / "v.h5"), one) << ranks;
  }
  const Hdf5Reader file(folder / "v.h5");
  EXPECT_EQ(file.shape("/validate/sbc_ranks"), (std::vector<std::uint64_t>{8, 5}));
  EXPECT_EQ(file.shape("/validate/tarp_coverage"), (std::vector<std::uint64_t>{2, 101}));
  for (const std::string& name : file.datasets()) {
    EXPECT_TRUE(file.has_attribute(name, "units")) << name;
    EXPECT_TRUE(file.has_attribute(name, "long_name")) << name;
  }
  EXPECT_EQ(folder.umbriel("report v.h5").code, 0);
}

TEST(Validate, FindsNoGainUnderTheGaussianPriorItself) {
  const Folder folder;
  write_validation(folder, "exact = false\nmocks = 24\ndraws = 15\nrank_bins = 4\n");
  const Outcome outcome = folder.umbriel("validate validate.toml", 2);
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  const Hdf5Reader file(folder / "v.h5");
  const auto mean = [&](const char* name) {
    double sum = 0;
    const auto values = file.read<double>(name);
    for (const double value : values) sum += value / static_cast<double>(values.size());
    return sum;
  };
  // The mean of n draws errs sqrt(1 + 1/n) = 1.033 times as much as the exact mean, which it is corrected to.
  EXPECT_NEAR(mean("/validate/rmse_ratio"), std::sqrt(1 + 1.0 / 15), 0.012);
  EXPECT_NEAR(mean("/validate/rmse_ratio_limit"), 1, 0.012);
  EXPECT_NEAR(mean("/validate/coverage_inside") / mean("/validate/coverage_nominal"), 1, 0.06);
  for (const double p : file.read<double>("/validate/tarp_p_value")) EXPECT_GT(p, 1e-3);
  for (const double p : file.read<double>("/validate/p_value")) EXPECT_GT(p, 1e-4);
}

TEST(Validate, ObservesMapsOfFiles) {
  const Folder folder;
  write_validation(folder, "exact = false\nmocks = 3\ndraws = 7\nrank_bins = 4\ntruths = [\"truth.npy\"]\n");
  const auto run = [&](const std::vector<std::uint64_t>& shape, double offset) {
    std::vector<double> maps(shape[0] * 256);
    for (std::size_t i = 0; i < maps.size(); ++i) maps[i] = 0.03 * std::sin(0.1 * static_cast<double>(i)) + offset;
    write_npy(folder / "truth.npy", shape, maps.data());
    return folder.umbriel("validate validate.toml");
  };
  ASSERT_EQ(run({2, 16, 16}, 0).code, 0);
  const auto rmse = [&] { return Hdf5Reader(folder / "v.h5").read<double>("/validate/rmse_wiener_mean"); };
  const auto coverage = [&] { return Hdf5Reader(folder / "v.h5").read<double>("/validate/coverage_inside"); };
  const auto expected = rmse(), expected_coverage = coverage();
  EXPECT_EQ(Hdf5Reader(folder / "v.h5").attribute("/validate", "mocks_kind"), "files");
  EXPECT_NE(expected[0], expected[2]) << "the first map again, under other noise";
  EXPECT_NE(Hdf5Reader(folder / "v.h5").attribute("/", "inputs").find("truth.npy"), std::string::npos);
  ASSERT_EQ(run({2, 16, 16}, 0.25).code, 0);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(rmse()[i], expected[i], 1e-7) << "shear is blind to the mean";
  for (std::size_t l = 0; l < 4; ++l) EXPECT_NEAR(coverage()[l], expected_coverage[l], 1e-3) << "and so are ranks";

  const Outcome outcome = run({2, 8, 32}, 0);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.output.find("truth.npy"), std::string::npos) << outcome.output;

  ASSERT_EQ(folder
                .umbriel("simulate kappa --set run.output=maps.h5 --set simulate.size=[16,16] --set "
                         "simulate.samples=2 --set simulate.pixel_arcmin=0.5")
                .code,
            0);
  const Outcome hdf5 = folder.umbriel("validate validate.toml --set validate.truths=maps.h5");
  EXPECT_EQ(hdf5.code, 0) << hdf5.output;
  EXPECT_NE(rmse()[0], expected[0]);
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
