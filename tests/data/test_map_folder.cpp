// Folders of maps: what is listed, that every reader gives the values written, the cache, and what is refused, on any
// number of ranks.
#include <cmath>
#include <limits>

#include "support.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/data/map_folder.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using test::expect_error;

/// A folder of rank 0 that all ranks see.
class MapFolderTest : public test::Folder {
 protected:
  MapFolderTest() { shared_ = comm_.broadcast(comm_.is_root() ? path("maps") : ""); }
  void SetUp() override {
    if (comm_.is_root()) std::filesystem::create_directory(shared_);
  }
  void TearDown() override { comm_.barrier(); }

  std::string in(const std::string& name) const { return shared_ + "/" + name; }

  static float value(int file, std::size_t i) {
    return static_cast<float>(std::sin(1.0 + file) + 0.01 * std::cos(1.7 * static_cast<double>(i)));
  }
  static std::vector<float> values(int file, std::size_t n) {
    std::vector<float> out(n);
    for (std::size_t i = 0; i < n; ++i) out[i] = value(file, i);
    return out;
  }

  void npy(
      const std::string& name, int file, const std::vector<std::uint64_t>& shape,
      const std::function<void(std::vector<double>&)>& change = [](auto&) {}) {
    std::size_t n = 1;
    for (const std::uint64_t extent : shape) n *= extent;
    const std::vector<float> source = values(file, n);
    std::vector<double> wide(source.begin(), source.end());
    change(wide);
    if (comm_.is_root()) write_npy(in(name), shape, wide.data());
    comm_.barrier();
  }
  void hdf5(const std::string& name, int file, const std::vector<std::uint64_t>& shape,
            const std::string& dataset = "/simulation/kappa") {
    std::size_t n = 1;
    for (const std::uint64_t extent : shape) n *= extent;
    if (comm_.is_root()) {
      Hdf5Writer writer(in(name), Communicator());
      std::vector<std::string> axes;
      for (const std::uint64_t extent : shape) {
        axes.push_back("axis" + std::string(1, static_cast<char>('0' + axes.size())));
        writer.write_axis(axes.back(), std::vector<double>(extent), "1", "axis");
      }
      writer.write<float>({dataset, axes, "1", "maps"}, shape, values(file, n).data());
      writer.commit();
    }
    comm_.barrier();
  }
  void fits(const std::string& name, int file, Grid grid) {
    if (comm_.is_root()) write_fits_map(in(name), values(file, grid.pixels()).data(), grid, "", "map");
    comm_.barrier();
  }
  void kappatng(const std::string& name, int file, std::int32_t side) {
    const std::vector<float> source = values(file, static_cast<std::size_t>(side) * static_cast<std::size_t>(side));
    const std::vector<double> wide(source.begin(), source.end());
    if (comm_.is_root()) {
      std::ofstream out(in(name), std::ios::binary);
      out.write(reinterpret_cast<const char*>(&side), sizeof(side));
      out.write(reinterpret_cast<const char*>(wide.data()), static_cast<std::streamsize>(8 * wide.size()));
      out.write(reinterpret_cast<const char*>(&side), sizeof(side));
    }
    comm_.barrier();
  }
  MapFolder open(const std::vector<std::string>& paths, std::uint64_t cache_bytes = 1 << 20, bool subtract = false) {
    return {comm_, paths, {"/simulation/kappa", subtract, cache_bytes}};
  }
  MapFolder open() { return open({shared_}); }

  Communicator comm_ = Communicator::world();
  std::string shared_;
};

TEST_F(MapFolderTest, ReadsEveryKindInOrder) {
  hdf5("c.h5", 2, {3, 9, 8});
  npy("a.npy", 0, {2, 8, 11});
  fits("b.FITS", 1, {12, 10});
  npy("e.npy", 4, {8, 8});
  hdf5("d.hdf5", 3, {10, 13});
  kappatng("f.dat", 5, 9);
  if (comm_.is_root()) std::ofstream(in("README.txt")) << "no map";
  if (comm_.is_root()) std::filesystem::create_directory(in("old.h5"));
  comm_.barrier();
  MapFolder folder = open();
  const std::vector<std::string> names = {"a.npy", "b.FITS", "c.h5", "d.hdf5", "e.npy", "f.dat"};
  const std::vector<int> maps = {2, 1, 3, 1, 1, 1};
  const std::vector<Grid> grids = {{8, 11}, {12, 10}, {9, 8}, {10, 13}, {8, 8}, {9, 9}};
  ASSERT_EQ(folder.size(), 9);
  ASSERT_EQ(folder.inputs().size(), 6U);
  std::int64_t map = 0;
  std::uint64_t bytes = 0;
  for (int file = 0; file < 6; ++file) {
    EXPECT_EQ(folder.inputs()[file].path, in(names[file]));
    EXPECT_EQ(folder.inputs()[file].sha256.size(), 64U);
    for (int i = 0; i < maps[file]; ++i, ++map) {
      EXPECT_EQ(folder.file_of(map), file);
      EXPECT_EQ(folder.grid(map), grids[file]);
      EXPECT_EQ(folder.name(map), maps[file] == 1 ? in(names[file]) : in(names[file]) + ", map " + std::to_string(i));
      const auto pixels = static_cast<std::size_t>(grids[file].pixels());
      const std::shared_ptr<const float> read = folder.read(map);
      for (std::size_t p = 0; p < pixels; ++p) {
        ASSERT_EQ(read.get()[p], value(file, i * pixels + p)) << names[file] << " map " << i << " pixel " << p;
      }
      bytes += pixels * sizeof(float);
    }
  }
  EXPECT_EQ(folder.bytes(), bytes);
  EXPECT_THROW(folder.read(9), Error);
  EXPECT_THROW(folder.grid(-1), Error);
}

TEST_F(MapFolderTest, AListKeepsItsOrder) {
  npy("a.npy", 0, {8, 8});
  npy("b.npy", 1, {8, 8});
  MapFolder folder = open({in("b.npy"), in("a.npy")});
  EXPECT_EQ(folder.name(0), in("b.npy"));
  EXPECT_EQ(folder.name(1), in("a.npy"));
  EXPECT_EQ(folder.read(0).get()[5], value(1, 5));
}

// As the runs of kappaTNG lie in folders, each with a file a redshift.
TEST_F(MapFolderTest, APatternStandsForFiles) {
  if (comm_.is_root()) {
    for (const char* run : {"run2", "run1", "other"}) std::filesystem::create_directory(in(run));
  }
  comm_.barrier();
  kappatng("run2/kappa23.dat", 0, 8);
  kappatng("run1/kappa23.dat", 1, 8);
  kappatng("run1/kappa24.dat", 2, 8);
  kappatng("other/kappa23.dat", 3, 8);
  npy("a[1].npy", 4, {8, 8});
  MapFolder folder = open({in("run*/kappa23.dat"), in("a[1].npy")});  // a file's own name comes first
  ASSERT_EQ(folder.size(), 3);
  EXPECT_EQ(folder.name(0), in("run1/kappa23.dat"));
  EXPECT_EQ(folder.name(1), in("run2/kappa23.dat"));
  EXPECT_EQ(folder.name(2), in("a[1].npy"));
  EXPECT_EQ(folder.read(1).get()[7], value(0, 7));
  expect_error(ExitCode::file_system, {"no file fits", "run*/kappa99.dat"}, [&] { open({in("run*/kappa99.dat")}); });
  expect_error(ExitCode::input, {"named twice"}, [&] { open({in("run1/kappa23.dat"), in("run*/kappa23.dat")}); });
}

// A cache for two maps: what was dropped is read again (and so sees that its file is gone), what was kept is not.
TEST_F(MapFolderTest, TheCacheKeepsTheLatest) {
  for (int file = 0; file < 3; ++file) npy(std::string(1, static_cast<char>('a' + file)) + ".npy", file, {8, 8});
  MapFolder folder = open({shared_}, 2 * 64 * sizeof(float));
  const std::shared_ptr<const float> first = folder.read(0);
  folder.read(1);
  folder.read(0);
  folder.read(2);  // takes the place of map 1
  comm_.barrier();
  if (comm_.is_root()) {
    for (const char* name : {"a.npy", "b.npy", "c.npy"}) std::filesystem::remove(in(name));
  }
  comm_.barrier();
  EXPECT_EQ(folder.read(0).get(), first.get());
  EXPECT_EQ(folder.read(2).get()[3], value(2, 3));
  EXPECT_THROW(folder.read(1), Error);
  EXPECT_EQ(folder.read(0).get(), first.get());
}

TEST_F(MapFolderTest, AMapOutlivesItsPlaceInTheCache) {
  hdf5("a.h5", 0, {5, 8, 8});
  MapFolder folder = open({shared_}, 1);  // of HDF5 files maps are read one by one, however small the cache
  const std::shared_ptr<const float> first = folder.read(0);
  for (int map = 1; map < 5; ++map) EXPECT_EQ(folder.read(map).get()[7], value(0, map * 64 + 7));
  for (std::size_t i = 0; i < 64; ++i) ASSERT_EQ(first.get()[i], value(0, i));
}

TEST_F(MapFolderTest, SubtractsTheMeanOfEachMap) {
  npy("a.npy", 0, {2, 9, 7});
  MapFolder folder = open({shared_}, 1 << 20, true);
  for (int map = 0; map < 2; ++map) {
    double mean = 0;
    for (std::size_t i = 0; i < 63; ++i) mean += static_cast<double>(value(0, map * 63 + i)) / 63;
    const auto read = folder.read(map);
    for (std::size_t i = 0; i < 63; ++i) EXPECT_NEAR(read.get()[i], value(0, map * 63 + i) - mean, 1e-7);
  }
}

TEST_F(MapFolderTest, RefusesValuesThatAreNotFinite) {
  npy("a.npy", 0, {8, 8});
  npy("b.npy", 1, {2, 8, 10}, [](auto& v) { v[80 + 23] = std::numeric_limits<double>::quiet_NaN(); });
  expect_error(ExitCode::input, {"nan", "b.npy, map 1, pixel y = 2, x = 3"}, [&] { open(); });
  npy("b.npy", 1, {8, 10}, [](auto& v) { v[79] = -std::numeric_limits<double>::infinity(); });
  expect_error(ExitCode::input, {"-inf", "b.npy, pixel y = 7, x = 9"}, [&] { open(); });
  npy("b.npy", 1, {8, 10}, [](auto& v) { v[0] = 1e300; });  // too large for float32
  expect_error(ExitCode::input, {"inf", "b.npy, pixel y = 0, x = 0"}, [&] { open(); });
}

TEST_F(MapFolderTest, RefusesWhatIsNoSetOfMaps) {
  expect_error(ExitCode::input, {"holds no maps", shared_}, [&] { open(); });
  expect_error(ExitCode::input, {"no files"}, [&] { open({}); });
  expect_error(ExitCode::file_system, {in("none")}, [&] { open({in("none")}); });
  npy("a.npy", 0, {64});
  expect_error(ExitCode::input, {"[y, x]", "a.npy"}, [&] { open(); });
  npy("a.npy", 0, {0, 8, 8});
  expect_error(ExitCode::input, {"a.npy"}, [&] { open(); });
  npy("a.npy", 0, {2, 2, 8, 8});
  expect_error(ExitCode::input, {"a.npy"}, [&] { open(); });
  npy("a.npy", 0, {8, 8});
  expect_error(ExitCode::input, {"named twice", "a.npy"}, [&] { open({in("a.npy"), shared_}); });
  npy("b.npy", 0, {8, 8});
  expect_error(ExitCode::input, {"same bytes", "a.npy", "b.npy"}, [&] { open(); });
  npy("b.npy", 1, {300, 8, 8});
  expect_error(ExitCode::usage, {"b.npy", "data.cache_gib"}, [&] { open({shared_}, 1000); });
  hdf5("c.h5", 3, {8, 8}, "/other/maps");
  expect_error(ExitCode::input, {"no dataset /simulation/kappa", "c.h5", "it has", "/other/maps"}, [&] { open(); });
  if (comm_.is_root()) std::ofstream(in("c.h5")) << "damaged";
  comm_.barrier();
  expect_error(ExitCode::input, {"c.h5"}, [&] { open(); });
  if (comm_.is_root()) std::filesystem::remove(in("c.h5")), std::ofstream(in("c.dat")) << "0.506 1.034 1.532";
  comm_.barrier();
  expect_error(ExitCode::input, {"no kappaTNG map", "c.dat"}, [&] { open(); });
  if (comm_.is_root()) std::ofstream(in("d.txt")) << "text";
  comm_.barrier();
  expect_error(ExitCode::input, {"d.txt", ".npy"}, [&] { open({in("d.txt")}); });
}

TEST_F(MapFolderTest, RefusesAFileThatChanged) {
  npy("a.npy", 0, {8, 8});
  npy("b.npy", 1, {8, 8});
  MapFolder folder = open({shared_}, 64 * sizeof(float));
  npy("b.npy", 1, {8, 9});
  expect_error(ExitCode::input, {"changed", "b.npy"}, [&] { folder.read(1); });
}

TEST_F(MapFolderTest, CutsTilesFromLargerMaps) {
  npy("a.npy", 1, {2, 7, 9});  // two maps of 2 x 2 tiles of 3 x 4, one row and one column left over
  hdf5("b.h5", 2, {3, 3, 8});  // three of 1 x 2
  fits("c.fits", 3, {6, 4});   // one of 2 x 1
  const std::pair<Grid, int> maps[] = {{{7, 9}, 2}, {{3, 8}, 3}, {{6, 4}, 1}};
  MapFolder::Options options;
  options.tile = {3, 4};
  MapFolder folder(comm_, {in("a.npy"), in("b.h5"), in("c.fits")}, options);
  ASSERT_EQ(folder.size(), 2 * 4 + 3 * 2 + 1 * 2);
  std::int64_t tile = 0;
  for (int file = 0; file < 3; ++file) {
    const auto [grid, n] = maps[file];
    for (int map = 0; map < n; ++map) {
      for (int y = 0; y + 3 <= grid.height; y += 3) {
        for (int x = 0; x + 4 <= grid.width; x += 4, ++tile) {
          EXPECT_TRUE(folder.grid(tile) == (Grid{3, 4}));
          EXPECT_EQ(folder.file_of(tile), file);
          const auto values = folder.read(tile);
          for (int i = 0; i < 12; ++i) {
            const int place = (map * grid.height + y + i / 4) * grid.width + x + i % 4;
            EXPECT_EQ(values.get()[i], value(file + 1, static_cast<std::size_t>(place))) << tile << " " << i;
          }
        }
      }
    }
  }
  options.tile = {4, 4};
  expect_error(ExitCode::input, {"b.h5", "8 x 3", "4 x 4"}, [&] { MapFolder(comm_, {in("b.h5")}, options); });
}

}  // namespace
}  // namespace umbriel
