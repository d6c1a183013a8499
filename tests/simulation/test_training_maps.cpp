// Training maps: an example depends on its index alone; crops, symmetries, order and split of maps from files.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "umbriel/data/npy.hpp"
#include "umbriel/simulation/training_maps.hpp"

namespace umbriel {
namespace {

/// Sets of maps whose pixels say where they come from: value = 4096 * map + 64 * y + x, exact in float32.
class TrainingMapsTest : public ::testing::Test {
 protected:
  TrainingMapsTest() {
    std::string name = (std::filesystem::temp_directory_path() / "umbriel-maps-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    folder_ = root_ + "/maps";
    std::filesystem::create_directory(folder_);
  }
  ~TrainingMapsTest() override { std::filesystem::remove_all(root_); }

  /// A file of `maps` maps, numbered on from those written before.
  void write(const std::string& name, int maps, Grid grid) {
    std::vector<double> values;
    for (int map = 0; map < maps; ++map, ++written_) {
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) values.push_back(4096.0 * written_ + 64 * y + x);
      }
    }
    write_npy(folder_ + "/" + name,
              {static_cast<std::uint64_t>(maps), static_cast<std::uint64_t>(grid.height),
               static_cast<std::uint64_t>(grid.width)},
              values.data());
  }

  TrainingMaps from_files(const std::string& keys = "", std::uint64_t seed = 7) {
    return {Communicator(), Config::parse("data.pixel_arcmin = 1\ndata.maps = '" + folder_ + "'\n" + keys), seed};
  }

  /// Simulated with the spectrum `prior` has: C_l = 1e-9 / (1 + l / 1000)^2.
  TrainingMaps simulated(const std::string& keys = "data.simulate = {}", std::uint64_t seed = 7) {
    const std::string all =
        "data.pixel_arcmin = 1\ndata.size = [20, 24]\nprior.power_spectrum = '" + spectrum(1000) + "'\n" + keys;
    return {Communicator(), Config::parse(all), seed};
  }

  /// File of the spectrum above with another scale.
  std::string spectrum(double scale) const {
    std::vector<double> values;
    for (int i = 1; i <= 300; ++i) values.push_back(50.0 * i);
    for (int i = 1; i <= 300; ++i) values.push_back(1e-9 / std::pow(1 + 50 * i / scale, 2));
    const std::string path = root_ + "/spectrum" + std::to_string(scale) + ".npy";
    write_npy(path, {2, 300}, values.data());
    return path;
  }

  std::string root_, folder_;
  int written_ = 0;
};

std::vector<float> examples(TrainingMaps& maps, std::int64_t first, int n, bool validation = false) {
  const Grid grid = maps.grid();
  const MapBatch out("out", n, grid.height, grid.width);
  if (validation) {
    maps.draw_validation(first, n, out);
  } else {
    maps.draw(first, n, out);
  }
  const auto host = on_host(out);
  return {host.data(), host.data() + host.size()};
}

/// Where an example of the numbered maps comes from.
struct Origin {
  int map = 0, y0 = 0, x0 = 0, symmetry = 0;
};

/// Finds map, corner and symmetry of an example from two of its pixels, and checks all others against them.
Origin origin(const float* example, Grid grid) {
  const auto at = [&](int y, int x) { return static_cast<int>(example[y * grid.width + x]); };
  const int right = at(0, 1) - at(0, 0), down = at(1, 0) - at(0, 0);
  Origin from;
  const bool transpose = std::abs(right) == 64;
  const bool flip_y = (transpose ? right : down) < 0, flip_x = (transpose ? down : right) < 0;
  from.symmetry = (transpose ? 4 : 0) + (flip_y ? 2 : 0) + (flip_x ? 1 : 0);
  from.map = at(0, 0) / 4096;
  int y_low = 1 << 20, x_low = 1 << 20;
  for (int i = 0; i < grid.pixels(); ++i) {
    y_low = std::min(y_low, static_cast<int>(example[i]) % 4096 / 64);
    x_low = std::min(x_low, static_cast<int>(example[i]) % 64);
  }
  from.y0 = y_low;
  from.x0 = x_low;
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) {
      int sy = transpose ? x : y, sx = transpose ? y : x;
      if (flip_y) sy = grid.height - 1 - sy;
      if (flip_x) sx = grid.width - 1 - sx;
      EXPECT_EQ(at(y, x), 4096 * from.map + 64 * (y_low + sy) + x_low + sx) << "pixel " << y << ", " << x;
    }
  }
  return from;
}

std::vector<Origin> origins(TrainingMaps& maps, std::int64_t first, int n, bool validation = false) {
  const std::vector<float> all = examples(maps, first, n, validation);
  std::vector<Origin> out;
  for (int i = 0; i < n; ++i) out.push_back(origin(all.data() + i * maps.grid().pixels(), maps.grid()));
  return out;
}

/// Draws [first, first + n) in shares of other ranks and in another order, from sets of their own.
void expect_function_of_index(const std::function<TrainingMaps()>& make, bool validation) {
  TrainingMaps whole = make();
  const std::int64_t first = 5;
  const int n = 43;  // more than an epoch of the files, and more than the simulator transforms at a time
  const std::vector<float> all = examples(whole, first, n, validation);
  const std::int64_t pixels = whole.grid().pixels();
  for (const int ranks : {2, 3, 43}) {
    TrainingMaps other = make();
    for (int rank = ranks - 1; rank >= 0; --rank) {
      const ShardRange share = shard_range(n, rank, ranks);
      const std::vector<float> part = examples(other, first + share.first, static_cast<int>(share.count), validation);
      for (std::int64_t i = 0; i < share.count * pixels; ++i) {
        ASSERT_EQ(part[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(share.first * pixels + i)])
            << "pixel " << i << " of rank " << rank << " of " << ranks;
      }
    }
  }
}

TEST_F(TrainingMapsTest, AnExampleDependsOnItsIndexAlone) {
  write("a.npy", 9, {20, 17});
  write("b.npy", 8, {13, 30});
  for (const bool validation : {false, true}) {
    expect_function_of_index([&] { return from_files("data.size = [12, 12]"); }, validation);
    expect_function_of_index([&] { return simulated("data.simulate = {}\ndata.validation_maps = 9"); }, validation);
  }
}

TEST_F(TrainingMapsTest, AnotherSeedMakesOtherExamples) {
  write("a.npy", 9, {20, 17});
  TrainingMaps a = from_files("data.size = [12, 12]", 1), b = from_files("data.size = [12, 12]", 2);
  EXPECT_NE(examples(a, 0, 8), examples(b, 0, 8));
  TrainingMaps c = simulated("data.simulate = {}", 1), d = simulated("data.simulate = {}", 2);
  EXPECT_NE(examples(c, 0, 2), examples(d, 0, 2));
}

TEST_F(TrainingMapsTest, CropsFillTheMapsEvenly) {
  write("a.npy", 2, {14, 12});
  TrainingMaps maps = from_files("data.size = [9, 11]\ndata.quarter_turns = false\ndata.validation_fraction = 0");
  EXPECT_EQ(maps.grid(), (Grid{11, 9}));
  std::map<std::pair<int, int>, int> corners;
  const int n = 3200;
  for (const Origin& from : origins(maps, 0, n)) ++corners[{from.y0, from.x0}];
  ASSERT_EQ(corners.size(), 16U);  // 4 x 4 corners, each 200 times: standard deviation 14
  for (const auto& [corner, count] : corners) {
    EXPECT_LE(corner.first, 3);
    EXPECT_LE(corner.second, 3);
    EXPECT_NEAR(count, 200, 70);
  }
}

TEST_F(TrainingMapsTest, EachSymmetryAllowedOccursAsOften) {
  write("a.npy", 3, {10, 10});
  const int n = 1600;
  // Symmetries as 4 transpose + 2 flip_y + flip_x: an even number of bits is a turn.
  const std::vector<std::pair<std::string, std::set<int>>> cases = {
      {"", {0, 1, 2, 3, 4, 5, 6, 7}},
      {"data.quarter_turns = false", {0, 1, 2, 3}},
      {"data.flips = false", {0, 3, 5, 6}},
      {"data.flips = false\ndata.quarter_turns = false", {0}}};
  for (const auto& [keys, allowed] : cases) {
    TrainingMaps maps = from_files(keys);
    std::map<int, int> counts;
    for (const Origin& from : origins(maps, 0, n)) ++counts[from.symmetry];
    ASSERT_EQ(counts.size(), allowed.size()) << keys;
    const double expected = static_cast<double>(n) / static_cast<double>(allowed.size());
    for (const auto& [symmetry, count] : counts) {
      EXPECT_TRUE(allowed.contains(symmetry)) << keys << ": " << symmetry;
      EXPECT_NEAR(count, expected, 70) << keys << ": " << symmetry;  // standard deviation at most 20
    }
  }
}

TEST_F(TrainingMapsTest, AnEpochVisitsEachMapOnce) {
  write("a.npy", 13, {8, 8});
  write("b.npy", 7, {8, 8});
  TrainingMaps maps = from_files();
  ASSERT_EQ(maps.training_size(), 18);
  ASSERT_EQ(maps.validation_size(), 2);
  std::vector<std::vector<int>> epochs;
  for (int epoch = 0; epoch < 4; ++epoch) {
    std::vector<int> order;
    for (const Origin& from : origins(maps, 18 * epoch, 18)) order.push_back(from.map);
    EXPECT_EQ(std::set<int>(order.begin(), order.end()).size(), 18U) << "epoch " << epoch;
    for (const auto& other : epochs) EXPECT_NE(order, other);
    epochs.push_back(order);
  }
}

TEST_F(TrainingMapsTest, NoMapServesTrainingAndValidation) {
  write("a.npy", 13, {8, 8});
  write("b.npy", 7, {8, 8});
  std::set<std::set<int>> splits;
  for (const std::uint64_t seed : {1, 2, 3}) {
    TrainingMaps maps = from_files("data.validation_fraction = 0.3", seed);
    ASSERT_EQ(maps.validation_size(), 6);
    std::set<int> all, validation;
    for (const Origin& from : origins(maps, 0, 14)) all.insert(from.map);
    for (const Origin& from : origins(maps, 0, 12, true)) validation.insert(from.map);
    EXPECT_EQ(validation.size(), 6U);
    splits.insert(validation);
    all.merge(validation);
    EXPECT_EQ(all.size(), 20U);
  }
  EXPECT_EQ(splits.size(), 3U);
}

TEST_F(TrainingMapsTest, FilesOfOneSimulationStayTogether) {
  for (int file = 0; file < 5; ++file) write(std::string(1, static_cast<char>('a' + file)) + ".npy", 4, {8, 8});
  TrainingMaps maps = from_files("data.split = 'file'\ndata.validation_fraction = 0.4");
  ASSERT_EQ(maps.training_size(), 12);
  ASSERT_EQ(maps.validation_size(), 8);
  std::set<int> training, validation;
  for (const Origin& from : origins(maps, 0, 12)) training.insert(from.map / 4);
  for (const Origin& from : origins(maps, 0, 8, true)) validation.insert(from.map / 4);
  EXPECT_EQ(training.size(), 3U);
  EXPECT_EQ(validation.size(), 2U);
  training.merge(validation);
  EXPECT_EQ(training.size(), 5U);
}

TEST_F(TrainingMapsTest, ValidationRepeatsItsMapsWithOtherCrops) {
  write("a.npy", 10, {30, 30});
  TrainingMaps maps = from_files("data.size = [8, 8]\ndata.validation_fraction = 0.2");
  const std::vector<Origin> all = origins(maps, 0, 20, true);
  std::set<std::array<int, 3>> different;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(all[i].map, all[i % 2].map);
    different.insert({all[i].y0, all[i].x0, all[i].symmetry});
  }
  EXPECT_GT(different.size(), 15U);
}

// The maps and mock surveys simulated with the same seed must not be among those that a network has learnt.
TEST_F(TrainingMapsTest, SimulatedExamplesAreDrawnForTrainingAlone) {
  const std::string gaussian = "data.simulate.kind = 'gaussian'\ndata.validation_maps = 3\n";
  TrainingMaps maps = simulated(gaussian);
  EXPECT_EQ(maps.training_size(), 0);
  EXPECT_EQ(maps.validation_size(), 3);
  const std::vector<float> training = examples(maps, 0, 12), validation = examples(maps, 0, 7, true);
  const auto pixels = static_cast<std::size_t>(maps.grid().pixels());
  std::set<float> firsts;
  for (std::size_t i = 0; i < 12; ++i) firsts.insert(training[i * pixels]);
  for (std::size_t i = 0; i < 7; ++i) {
    firsts.insert(validation[i * pixels]);
    EXPECT_EQ(validation[i * pixels], validation[i % 3 * pixels]);
  }
  EXPECT_EQ(firsts.size(), 15U);
  ConvergenceSimulator simulator(read_power_spectrum(spectrum(1000)), maps.grid(), 1, FieldKind::gaussian);
  const MapBatch others("others", 12, maps.grid().height, maps.grid().width);
  simulator.draw(7, 0, 12, others);
  const auto host = on_host(others);
  for (std::size_t i = 0; i < 12; ++i) EXPECT_TRUE(firsts.insert(host(i, 0, 0)).second);
  // A spectrum of its own that is the prior's makes the same maps; another one does not.
  TrainingMaps own = simulated(gaussian + "data.simulate.power_spectrum = '" + spectrum(1000) + "'");
  EXPECT_EQ(examples(own, 0, 12), training);
  ASSERT_EQ(own.inputs().size(), 1U);
  EXPECT_EQ(own.inputs()[0].path, spectrum(1000));
  TrainingMaps other = simulated(gaussian + "data.simulate.power_spectrum = '" + spectrum(2000) + "'");
  EXPECT_NE(examples(other, 0, 12), training);
  TrainingMaps lognormal = simulated();
  EXPECT_NE(examples(lognormal, 0, 12), training);
}

TEST_F(TrainingMapsTest, RefusesWhatCannotWork) {
  const auto refused = [&](ExitCode code, const std::string& part, const std::function<void()>& action) {
    try {
      action();
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << "no " << part << " in " << error.what();
    }
  };
  write("a.npy", 3, {8, 12});
  refused(ExitCode::usage, "data.quarter_turns", [&] { from_files(); });
  const std::string keys = "data.quarter_turns = false\n";
  EXPECT_EQ(from_files(keys).grid(), (Grid{8, 12}));
  refused(ExitCode::input, "fewer than data.size = 16 x 8", [&] { from_files(keys + "data.size = [16, 8]"); });
  refused(ExitCode::usage, "whole pixels", [&] { from_files(keys + "data.size = [8.5, 8]"); });
  refused(ExitCode::usage, "whole pixels", [&] { from_files(keys + "data.size = [4, 8]"); });
  refused(ExitCode::input, "data.crop", [&] { from_files(keys + "data.size = [8, 8]\ndata.crop = false"); });
  refused(ExitCode::usage, "data.validation_maps", [&] { from_files(keys + "data.validation_maps = 3"); });
  refused(ExitCode::usage, "no map is left", [&] { from_files(keys + "data.split = 'file'"); });
  refused(ExitCode::usage, "neither or both", [&] { from_files("data.simulate.kind = 'gaussian'"); });
  refused(ExitCode::usage, "data.flips", [&] { simulated("data.simulate = {}\ndata.flips = true"); });
  refused(ExitCode::usage, "data.pixel_arcmin",
          [&] { TrainingMaps(Communicator(), Config::parse("data.maps = '" + folder_ + "'"), 1); });
  write("b.npy", 1, {9, 12});
  refused(ExitCode::usage, "differ in size", [&] { from_files(keys); });
  EXPECT_EQ(from_files(keys + "data.size = [12, 8]").training_size(), 3);

  TrainingMaps maps = from_files(keys + "data.size = [12, 8]\ndata.validation_fraction = 0");
  refused(ExitCode::usage, "no validation maps", [&] { examples(maps, 0, 1, true); });
  refused(ExitCode::usage, "no room", [&] { maps.draw(0, 2, MapBatch("out", 1, 8, 12)); });
  refused(ExitCode::usage, "no room", [&] { maps.draw(0, 1, MapBatch("out", 1, 12, 8)); });
  refused(ExitCode::usage, "no such example", [&] { examples(maps, -1, 1); });
  refused(ExitCode::usage, "no such example", [&] { examples(maps, TrainingMaps::max_index - 1, 2); });
  examples(maps, TrainingMaps::max_index - 2, 2);
}

TEST_F(TrainingMapsTest, KeysOfItsOwnAreKnown) {
  write("a.npy", 3, {8, 8});
  const Config config = Config::parse("[data]\npixel_arcmin = 1\nmaps = ['" + folder_ +
                                      "/a.npy']\ndataset = '/kappa'\ncache_gib = 0.1\nsubtract_mean = true\n"
                                      "crop = true\nflips = true\nquarter_turns = true\nsplit = 'map'\n"
                                      "validation_fraction = 0.4\n");
  TrainingMaps maps(Communicator(), config, 1);
  config.reject_unknown_keys();
  EXPECT_EQ(maps.inputs().size(), 1U);
  EXPECT_EQ(maps.describe(),
            "maps: 3 (7.15e-07 GiB), files: 1, to train: 2, to validate: 1; examples of 8 x 8 pixels, flipped, turned");
  const std::vector<float> all = examples(maps, 0, 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(std::accumulate(all.begin() + 64 * i, all.begin() + 64 * (i + 1), 0.0), 0.0);
  }
  const Config simulation = Config::parse(
      "[data]\npixel_arcmin = 1\nsize = [16, 16]\nvalidation_maps = 0\n"
      "[data.simulate]\nkind = 'lognormal'\nkappa0 = 0.1\nsource_redshift = 1.5\n"
      "cosmology.omega_m = 0.3\n");
  TrainingMaps drawn(Communicator(), simulation, 1);
  simulation.reject_unknown_keys();
  EXPECT_EQ(drawn.validation_size(), 0);
  EXPECT_THROW(examples(drawn, 0, 1, true), Error);
}

TEST(RandomOrder, IsEvenAndComplete) {
  std::array<std::array<int, 5>, 5> counts{};
  for (std::uint32_t i = 0; i < 5000; ++i) {
    const auto order = random_order({3, Purpose::training_order, i, 0}, 5);
    std::set<std::uint32_t> seen(order.begin(), order.end());
    ASSERT_EQ(seen.size(), 5U);
    for (std::size_t place = 0; place < 5; ++place) ++counts[place][order[place]];
  }
  for (const auto& place : counts) {
    for (const int count : place) EXPECT_NEAR(count, 1000, 140);  // standard deviation 28
  }
  EXPECT_TRUE(random_order({}, 0).empty());
}

}  // namespace
}  // namespace umbriel
