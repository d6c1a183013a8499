// umbriel covariance as a user runs it.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "program.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using namespace testing;

/// Means, then covariances [p, p] with 1 / (n - 1), in extended precision.
std::vector<long double> by_definition(const NpyArray& vectors) {
  const std::size_t n = vectors.shape[0], p = vectors.shape[1];
  std::vector<long double> out(p + p * p, 0);
  for (std::size_t at = 0; at < n * p; ++at) out[at % p] += vectors.values[at] / static_cast<long double>(n);
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < p; ++i) {
      for (std::size_t j = 0; j < p; ++j)
        out[p + i * p + j] += (vectors.values[k * p + i] - out[i]) * (vectors.values[k * p + j] - out[j]) /
                              static_cast<long double>(n - 1);
    }
  }
  return out;
}

TEST(CovarianceProgram, GivesNumpysNumbersAndTheSameBitsOnAnyNumberOfRanks) {
  const char* reference = std::getenv("UMBRIEL_REFERENCE_DATA");
  const std::string path =
      std::string(reference != nullptr ? reference : "") + "/covariance/massivenus_peak_counts_z065.npy";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const Folder folder;
  std::string first;
  for (const int ranks : {1, 2, 4}) {
    const Outcome outcome = folder.umbriel("covariance --set covariance.bootstrap=3 --set covariance.vectors=\"\\\"" +
                                               path + "\\\"\" --set run.output=c.h5",
                                           ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("10000 vectors of 30 numbers; Hartlap factor of the inverse 0.99690"),
              std::string::npos)
        << outcome.output;
    const std::string digest = Hdf5Reader(folder / "c.h5").data_digest();
    if (first.empty()) first = digest;
    EXPECT_EQ(digest, first) << ranks;
  }
  const Hdf5Reader file(folder / "c.h5");
  const std::size_t p = 30;
  const std::vector<double> mean = file.read<double>("/covariance/mean"),
                            covariance = file.read<double>("/covariance/covariance");
  const std::vector<long double> truth = by_definition(read_npy(path));
  for (std::size_t i = 0; i < p; ++i) {
    EXPECT_NEAR(mean[i], static_cast<double>(truth[i]), 1e-12 * std::abs(mean[i]));
    for (std::size_t j = 0; j < p; ++j) {
      const double scale = std::sqrt(covariance[i * p + i] * covariance[j * p + j]);
      EXPECT_NEAR(covariance[i * p + j], static_cast<double>(truth[p + i * p + j]), 1e-12 * scale);
    }
  }
}

TEST(CovarianceProgram, ReadsSeveralFilesAndRefusesBadOnes) {
  const Folder folder;
  const double numbers[] = {1, 2, 3, 0, 5, 7};
  write_npy(folder / "a.npy", {2, 2}, numbers);
  write_npy(folder / "b.npy", {1, 2}, numbers + 4);
  write_npy(folder / "wide.npy", {2, 3}, numbers);
  write_npy(folder / "flat.npy", {6}, numbers);
  const double holes[] = {1, 2, NAN, 4};
  write_npy(folder / "nan.npy", {2, 2}, holes);
  const auto run = [&](const std::string& files, int ranks) {
    folder.write("c.toml", "[run]\noutput = \"c.h5\"\n[covariance]\nvectors = [" + files + "]\n");
    return folder.umbriel("covariance c.toml", ranks);
  };
  const Outcome good = run("\"a.npy\", \"b.npy\"", 2);
  ASSERT_EQ(good.code, 0) << good.output;
  EXPECT_EQ(Hdf5Reader(folder / "c.h5").read<double>("/covariance/covariance"), (std::vector<double>{4, 5, 5, 13}));
  EXPECT_NE(good.output.find("too few to invert"), std::string::npos) << good.output;
  for (const auto& [files, words] : {std::pair{"\"a.npy\", \"wide.npy\"", "wide.npy"},
                                     {"\"flat.npy\"", "flat.npy"},
                                     {"\"nan.npy\"", "vector 1, number 0"}}) {
    for (const int ranks : {1, 2}) {
      const Outcome bad = run(files, ranks);
      EXPECT_EQ(bad.code, 3) << bad.output;
      EXPECT_NE(bad.output.find(words), std::string::npos) << bad.output;
    }
  }
}

TEST(CovarianceProgram, ComparesWithAnotherEnsemble) {
  const Folder folder;
  std::vector<double> one, other;
  for (int i = 0; i < 40; ++i) {
    const double x = i % 7 - 3, y = i % 5 - 2;
    one.insert(one.end(), {10 + x, 5 + y});
    other.insert(other.end(), {20 + 2 * x, 5 + y});
  }
  write_npy(folder / "one.npy", {40, 2}, one.data());
  write_npy(folder / "other.npy", {40, 2}, other.data());
  write_npy(folder / "wide.npy", {2, 3}, one.data());
  folder.write("c.toml", "[run]\noutput = \"c.h5\"\n[covariance]\nvectors = \"one.npy\"\nagainst = \"other.npy\"\n");
  std::string first;
  for (const int ranks : {1, 2}) {
    const Outcome outcome = folder.umbriel("covariance c.toml", ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("means within 50.00 %, variances within 75.0 %, correlations within 0.000"),
              std::string::npos)
        << outcome.output;
    const Hdf5Reader file(folder / "c.h5");
    EXPECT_NEAR(file.read<double>("/comparison/mean_ratio")[0], 0.5, 0.01);
    EXPECT_NEAR(file.read<double>("/comparison/covariance_ratio")[0], 0.25, 1e-12);
    if (first.empty()) first = file.data_digest();
    EXPECT_EQ(file.data_digest(), first);
  }
  const Outcome bad = folder.umbriel("covariance c.toml --set covariance.against=wide.npy", 2);
  EXPECT_EQ(bad.code, 3) << bad.output;
  EXPECT_NE(bad.output.find("wide.npy"), std::string::npos) << bad.output;
}

}  // namespace
}  // namespace umbriel
