// Checkpoints that are sealed and sound as HDF5, and yet do not hold what a run needs.
#include "umbriel/app/checkpoint.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <map>

namespace umbriel {
namespace {

constexpr std::uint64_t sample_size = 6, state_floats = 10;

HmcOptions options() {
  HmcOptions options;
  options.tail = 2;
  options.sharpen = true;
  return options;
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() { std::filesystem::create_directories(folder_); }
  ~CheckpointTest() override { std::filesystem::remove_all(folder_); }

  /// Datasets by name: shape, and the value of all elements but those of `cells`.
  struct Table {
    std::vector<std::uint64_t> shape;
    double value = 0;
    std::map<std::size_t, double> cells;
  };

  std::map<std::string, Table> good() const {
    const auto trace = static_cast<std::uint64_t>(options().trace_length());
    const std::uint64_t tail = 2 * monitored_quantities, wide = AnnealedHmc::state_numbers();
    return {{"/sample", {{2, sample_size}, 1, {}}},
            {"/mean", {{2, sample_size}, 3, {}}},
            {"/sigma", {{2, trace}, 1, {}}},
            {"/log_density", {{2, trace}, 1, {}}},
            {"/tail", {{2, tail}, 1, {}}},
            {"/table", {{2, 6}, 0, {{6, 1}}}},
            {"/under_way/numbers", {{1, wide}, 0, {{0, 2}}}},
            {"/under_way/arrays", {{1, state_floats}, 1, {}}},
            {"/under_way/sigma", {{1, trace}, 1, {}}},
            {"/under_way/log_density", {{1, trace}, 1, {}}},
            {"/under_way/tail", {{1, tail}, 1, {}}},
            {"/under_way/lengths", {{1, 3}, 1, {}}}};
  }

  Checkpoint read(const std::map<std::string, Table>& tables) const {
    const std::string path = (folder_ / "x.checkpoint").string();
    Hdf5Writer file(path, Communicator());
    for (const auto& [name, table] : tables) {
      std::uint64_t n = 1;
      for (const std::uint64_t extent : table.shape) n *= extent;
      std::vector<double> values(n, table.value);
      for (const auto& [place, value] : table.cells) values.at(place) = value;
      file.write<double>({name, {}, "1", name}, table.shape, values.data());
    }
    file.attribute("/", "identity", std::string("same"));
    file.commit();
    const std::string good = open_checkpoint(Communicator(), path, "same", false);
    return read_checkpoint(Communicator(), good, options(), sample_size, state_floats, {0, 4});
  }

  void expect_refused(const std::string& dataset, const std::function<void(Table&)>& change) const {
    auto tables = good();
    change(tables.at(dataset));
    try {
      read(tables);
      ADD_FAILURE() << "nothing was thrown for " << dataset;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input) << error.what();
      EXPECT_NE(std::string(error.what()).find("x.checkpoint"), std::string::npos) << error.what();
    }
  }

 private:
  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("umbriel_checkpoint_" + std::to_string(::getpid()));
};

TEST_F(CheckpointTest, IsReadWhereItIsSound) {
  const Checkpoint chains = read(good());
  ASSERT_EQ(chains.finished.size(), 2U);
  EXPECT_EQ(chains.finished[1].chain, 1);
  EXPECT_EQ(chains.finished[1].mean, std::vector<float>(sample_size, 3));
  ASSERT_EQ(chains.under_way.size(), 1U);
  EXPECT_EQ(chains.under_way[0].chain, 2);
  EXPECT_EQ(chains.under_way[0].tail.size(), 1U);
}

TEST_F(CheckpointTest, OfOtherShapesIsRefused) {
  for (const auto& [name, table] : good()) {
    expect_refused(name, [](Table& t) { t.shape = {}, t.cells.clear(); });  // one number
    expect_refused(name, [](Table& t) { t.shape = {t.shape[0] * t.shape[1]}, t.cells.clear(); });
    expect_refused(name, [](Table& t) { t.shape[1] += 1; });
    if (name != "/table" && name != "/under_way/numbers") expect_refused(name, [](Table& t) { t.shape[0] += 1; });
  }
}

TEST_F(CheckpointTest, OfValuesThatMeanNothingIsRefused) {
  for (const double chain : {std::nan(""), -1.0, 0.5, 1e300, std::numeric_limits<double>::infinity()}) {
    expect_refused("/table", [&](Table& t) { t.cells[6] = chain; });
    expect_refused("/under_way/numbers", [&](Table& t) { t.cells[0] = chain; });
  }
  expect_refused("/table", [](Table& t) { t.cells[6] = 0; });              // a chain twice
  expect_refused("/under_way/numbers", [](Table& t) { t.cells[0] = 1; });  // a finished one goes on
  expect_refused("/table", [](Table& t) { t.cells[4] = std::nan(""); });
  for (const std::size_t place : {0, 1, 2}) {
    for (const double length : {-1.0, 1e9, 9e18}) {
      expect_refused("/under_way/lengths", [&](Table& t) { t.cells[place] = length; });
    }
  }
}

}  // namespace
}  // namespace umbriel
