// Files written by all ranks: what goes in comes out, whatever the number of ranks; h5py sees what the schema promises.
#include <gtest/gtest.h>

#include <algorithm>

#include <sys/stat.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "support.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using testing::SharedFolder;
using Shape = std::vector<std::uint64_t>;

/// Writes this rank's share of `whole`, whose items are shape[1] ... long.
template <class T>
void write_share(Hdf5Writer& file, const Communicator& comm, const DatasetInfo& info, const Shape& shape,
                 const std::vector<T>& whole) {
  const ShardRange shard = shard_range(static_cast<std::int64_t>(shape[0]), comm.rank(), comm.size());
  const std::uint64_t item = shape[0] == 0 ? 0 : whole.size() / shape[0];
  const auto length = static_cast<std::ptrdiff_t>(item);
  const std::vector<T> mine(whole.begin() + shard.first * length, whole.begin() + (shard.first + shard.count) * length);
  file.write_sharded<T>(info, shape, static_cast<std::uint64_t>(shard.first), static_cast<std::uint64_t>(shard.count),
                        mine.data());
}

template <class T>
std::vector<T> some_values(std::size_t n) {
  std::vector<T> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      values[i] = static_cast<T>(std::sin(static_cast<double>(i)) * std::pow(10.0, static_cast<double>(i % 30)));
    } else {
      values[i] = static_cast<T>(i * i * 2654435761U);
    }
  }
  return values;
}

/// A file with a bit of everything; the same content at every number of ranks.
void write_sample(const std::string& path, const Communicator& comm) {
  Hdf5Writer file(path, comm);
  std::vector<double> chain(7), y(5), x(4);
  std::iota(chain.begin(), chain.end(), 0.0);
  std::iota(y.begin(), y.end(), 0.0);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.29 * static_cast<double>(i);
  file.write_axis("chain", chain, "1", "index of the chain");
  file.write_axis("y", y, "arcmin", "along declination");
  file.write_axis("x", x, "arcmin", "along right ascension");
  const auto maps = some_values<float>(140);
  write_share(file, comm, {"/posterior/kappa", {"chain", "y", "x"}, "1", "convergence"}, {7, 5, 4}, maps);
  const auto mean = comm.is_root() ? some_values<double>(20) : std::vector<double>();
  file.write<double>({"/summary/mean", {"y", "x"}, "1", "posterior mean"}, comm.is_root() ? Shape{5, 4} : Shape{},
                     mean.data());
  const auto counts = some_values<std::int64_t>(7);
  write_share(file, comm, {"/sample_stats/evaluations", {"chain"}, "1", "score evaluations"}, {7}, counts);
  const double rmse = 0.125;
  file.write<double>({"/metrics/rmse", {}, "1", "root mean square error"}, {}, &rmse);
  file.attribute("/", "schema_version", std::int64_t{3});
  file.attribute("/", "wall_seconds", 12.5);
  file.attribute("/", "title", "\u03ba and \u03b3");
  file.attribute("/summary", "note", "");
  file.attribute("/new/group", "kind", "made for its attribute");
  file.attribute("/summary/mean", "clipped", std::int64_t{-1});
  file.commit();
}

TEST(Hdf5File, HasTheSameDataForAnyNumberOfRanks) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  write_sample(folder / "a.h5", comm);
  // Written once with one rank; each number of ranks compares with it.
  EXPECT_EQ(Hdf5Reader(folder / "a.h5").data_digest(),
            "ac9350b9eca761a29ff4f2aff4e4a38435830b3b221501ea2c8de5a5f2a9799c");
  EXPECT_EQ(folder.contents(), std::vector<std::string>{"a.h5"});
}

TEST(Hdf5File, GivesBackWhatWasWritten) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  write_sample(folder / "a.h5", comm);
  const Hdf5Reader file(folder / "a.h5");
  EXPECT_EQ(file.path(), folder / "a.h5");
  EXPECT_EQ(file.datasets(), (std::vector<std::string>{"/chain", "/metrics/rmse", "/posterior/kappa",
                                                       "/sample_stats/evaluations", "/summary/mean", "/x", "/y"}));
  EXPECT_EQ(file.shape("/posterior/kappa"), (Shape{7, 5, 4}));
  EXPECT_EQ(file.shape("/metrics/rmse"), Shape());
  EXPECT_EQ(file.read<float>("/posterior/kappa"), some_values<float>(140));
  const auto all = some_values<float>(140);
  EXPECT_EQ(file.read<float>("/posterior/kappa", 2, 3), std::vector<float>(all.begin() + 40, all.begin() + 100));
  EXPECT_TRUE(file.read<float>("/posterior/kappa", 7, 0).empty());
  EXPECT_EQ(file.read<double>("/summary/mean"), some_values<double>(20));
  EXPECT_EQ(file.read<std::int64_t>("/sample_stats/evaluations"), some_values<std::int64_t>(7));
  EXPECT_EQ(file.read<double>("/metrics/rmse"), std::vector<double>{0.125});
  EXPECT_EQ(file.read<double>("/x")[3], 0.29 * 3);
}

TEST(Hdf5File, GivesBackItsAttributes) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  write_sample(folder / "a.h5", comm);
  const Hdf5Reader file(folder / "a.h5");
  EXPECT_EQ(file.attribute("/", "schema_version"), "3");
  EXPECT_EQ(file.attribute("/", "wall_seconds"), "12.5");
  EXPECT_EQ(file.attribute("/", "title"), "\u03ba and \u03b3");
  EXPECT_EQ(file.attribute("/summary", "note"), "");
  EXPECT_EQ(file.attribute("/new/group", "kind"), "made for its attribute");
  EXPECT_EQ(file.attribute("/summary/mean", "clipped"), "-1");
  EXPECT_EQ(file.attribute("/summary/mean", "units"), "1");
  EXPECT_EQ(file.attribute("/y", "units"), "arcmin");
  EXPECT_EQ(file.attribute("/posterior/kappa", "long_name"), "convergence");
  EXPECT_EQ(file.attributes("/"), (std::vector<std::string>{"schema_version", "title", "wall_seconds"}));
  EXPECT_TRUE(file.has("/"));
  EXPECT_TRUE(file.has("/summary"));
  EXPECT_TRUE(file.has("/summary/mean"));
  EXPECT_FALSE(file.has("/summary/median"));
  EXPECT_FALSE(file.has("/nothing/at/all"));
  EXPECT_FALSE(file.has("/summary/mean/below"));
  EXPECT_TRUE(file.has_attribute("/summary", "note"));
  EXPECT_FALSE(file.has_attribute("/summary", "other"));
  EXPECT_FALSE(file.has_attribute("/nothing", "note"));
}

template <class T>
class Hdf5Types : public ::testing::Test {};
using Types = ::testing::Types<float, double, std::int32_t, std::int64_t, std::uint8_t>;
TYPED_TEST_SUITE(Hdf5Types, Types);

TYPED_TEST(Hdf5Types, ComeBackBitForBit) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  std::vector<TypeParam> values = some_values<TypeParam>(60);
  values[0] = std::numeric_limits<TypeParam>::max();
  values[1] = std::numeric_limits<TypeParam>::lowest();
  if constexpr (std::is_floating_point_v<TypeParam>) {
    values[2] = std::numeric_limits<TypeParam>::infinity();
    values[3] = std::numeric_limits<TypeParam>::denorm_min();
    values[4] = -TypeParam{0};
  }
  {
    Hdf5Writer file(folder / "a.h5", comm);
    file.write<TypeParam>({"/whole", {}, "1", "whole"}, {3, 4, 5}, values.data());
    write_share<TypeParam>(file, comm, {"/sharded", {}, "1", "sharded"}, {12, 5}, values);
    write_share<TypeParam>(file, comm, {"/few", {}, "1", "fewer items than ranks"}, {1, 60}, values);
    write_share<TypeParam>(file, comm, {"/none", {}, "1", "no items"}, {0, 5}, {});
    write_share<TypeParam>(file, comm, {"/flat", {}, "1", "items without size"}, {5, 0}, {});
    file.write<TypeParam>({"/empty", {}, "1", "empty"}, {0}, nullptr);
    file.commit();
  }
  const Hdf5Reader file(folder / "a.h5");
  for (const char* name : {"/whole", "/sharded", "/few"}) {
    const std::vector<TypeParam> back = file.read<TypeParam>(name);
    ASSERT_EQ(back.size(), 60U) << name;
    EXPECT_EQ(std::memcmp(back.data(), values.data(), 60 * sizeof(TypeParam)), 0) << name;
  }
  EXPECT_EQ(file.shape("/none"), (Shape{0, 5}));
  EXPECT_EQ(file.shape("/flat"), (Shape{5, 0}));
  for (const char* name : {"/none", "/flat", "/empty"}) EXPECT_TRUE(file.read<TypeParam>(name).empty()) << name;
  const std::string expected = std::is_same_v<TypeParam, float>          ? "float32"
                               : std::is_same_v<TypeParam, double>       ? "float64"
                               : std::is_same_v<TypeParam, std::int32_t> ? "int32"
                               : std::is_same_v<TypeParam, std::int64_t> ? "int64"
                                                                         : "uint8";
  EXPECT_EQ(file.type("/whole"), expected);
  EXPECT_EQ(file.type("/sharded"), expected);
}

// Chunks are cut to 16 MiB: here an item is longer, and so is a dataset written whole.
TEST(Hdf5File, CutsLongItemsIntoChunks) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  const std::uint64_t side = 2100;
  std::vector<float> values(2 * side * side);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1000003);
  {
    Hdf5Writer file(folder / "a.h5", comm);
    write_share<float>(file, comm, {"/sharded", {}, "1", "sharded"}, {2, side, side}, values);
    file.write<float>({"/whole", {}, "1", "whole"}, {2 * side, side}, values.data());
    file.commit();
  }
  const Hdf5Reader file(folder / "a.h5");
  EXPECT_TRUE(file.read<float>("/sharded") == values);
  EXPECT_TRUE(file.read<float>("/whole") == values);
  EXPECT_EQ(file.read<float>("/whole", 4199, 1).back(), values.back());
}

// More chunks than HDF5 keeps the index of in memory.
TEST(Hdf5File, TakesManyShortItems) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  const std::uint64_t items = 70000;
  std::vector<std::int32_t> values(2 * items);
  std::iota(values.begin(), values.end(), 0);
  {
    Hdf5Writer file(folder / "a.h5", comm);
    write_share<std::int32_t>(file, comm, {"/first", {}, "1", "first"}, {items, 2}, values);
    write_share<std::int32_t>(file, comm, {"/second", {}, "1", "second"}, {2 * items}, values);
    file.commit();
  }
  const Hdf5Reader file(folder / "a.h5");
  EXPECT_TRUE(file.read<std::int32_t>("/first") == values);
  EXPECT_TRUE(file.read<std::int32_t>("/second") == values);
}

TEST(Hdf5File, KeepsLongTexts) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  const std::string text(300000, 'z');  // a configuration may be longer than the 64 KiB of an object header
  {
    Hdf5Writer file(folder / "a.h5", comm);
    file.attribute("/", "configuration", text + "end");
    file.commit();
  }
  EXPECT_EQ(Hdf5Reader(folder / "a.h5").attribute("/", "configuration"), text + "end");
}

TEST(Hdf5File, TakesValuesFromRankZero) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  {
    Hdf5Writer file(folder / "a.h5", comm);
    file.attribute("/", "host", std::string(static_cast<std::size_t>(comm.rank() + 1), 'h'));
    file.attribute("/", "seconds", 1.5 + comm.rank());
    file.attribute("/", "ranks", std::int64_t{comm.size() + comm.rank()});
    const std::vector<float> mine(static_cast<std::size_t>(6 + comm.rank()), static_cast<float>(comm.rank()));
    file.write<float>({"/data", {}, "1", "data"}, {2, static_cast<std::uint64_t>(3 + comm.rank())}, mine.data());
    file.commit();
  }
  const Hdf5Reader file(folder / "a.h5");
  EXPECT_EQ(file.attribute("/", "host"), "h");
  EXPECT_EQ(file.attribute("/", "seconds"), "1.5");
  EXPECT_EQ(file.attribute("/", "ranks"), std::to_string(comm.size()));
  EXPECT_EQ(file.shape("/data"), (Shape{2, 3}));
  EXPECT_EQ(file.read<float>("/data"), std::vector<float>(6, 0.0f));
}

TEST(Hdf5File, ReplacesTheOldFileOnlyOnCommit) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  const auto write = [&](float value, bool commit) {
    Hdf5Writer file(folder / "a.h5", comm);
    file.write<float>({"/data", {}, "1", "data"}, {1}, &value);
    comm.barrier();
    if (value > 1) {
      EXPECT_EQ(Hdf5Reader(folder / "a.h5").read<float>("/data")[0], 1);
    }
    comm.barrier();
    if (commit) file.commit();
  };
  write(1, true);
  write(2, false);
  EXPECT_EQ(folder.contents(), std::vector<std::string>{"a.h5"});
  EXPECT_EQ(Hdf5Reader(folder / "a.h5").read<float>("/data")[0], 1);
  comm.barrier();
  write(3, true);
  EXPECT_EQ(Hdf5Reader(folder / "a.h5").read<float>("/data")[0], 3);
  EXPECT_EQ(folder.contents(), std::vector<std::string>{"a.h5"});
}

TEST(Hdf5File, RemovesWhatAKilledRunLeftAndNothingElse) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  if (comm.is_root()) {
    for (const char* name : {"a.h5.17.partial", "a.h5.partial", "a.h5.x.partial", "b.h5.17.partial"})
      testing::write_bytes(folder / name, std::string(10000, 'x'));
  }
  comm.barrier();
  write_sample(folder / "a.h5", comm);
  auto names = folder.contents();
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"a.h5", "a.h5.partial", "a.h5.x.partial", "b.h5.17.partial"}));
  EXPECT_TRUE(Hdf5Reader(folder / "a.h5").has("/summary/mean"));
}

TEST(Hdf5File, LeavesNothingWithoutCommit) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  {
    Hdf5Writer file(folder / "a.h5", comm);
    file.write_axis("x", {1, 2}, "1", "x");
  }
  EXPECT_TRUE(folder.contents().empty());
  testing::agreed_error(comm, ExitCode::usage, [&] {
    Hdf5Writer file(folder / "a.h5", comm);
    comm.together([&] { require(!comm.is_root(), ExitCode::usage, "stopped"); });
  });
  EXPECT_TRUE(folder.contents().empty());
}

TEST(Hdf5File, GivesBackTheRoomThatItReserved) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  {
    Hdf5Writer file(folder / "a.h5", comm);
    for (int i = 0; i < 50; ++i) {
      std::string name = "/a";
      file.write_axis(name.append(std::to_string(i)), {1}, "1", "axis");  // 32 KiB of room each
    }
    file.commit();
  }
  struct stat status {};
  ASSERT_EQ(::stat((folder / "a.h5").c_str(), &status), 0);
  EXPECT_LT(512 * status.st_blocks, 800000);  // bytes on disk
}

TEST(Hdf5File, DigestTellsDataApartAndNothingElse) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  int made = 0;
  const auto digest = [&](float value, const Shape& shape, const std::string& name, const std::string& note) {
    std::string path = folder / "d";
    path.append(std::to_string(made++)).append(".h5");
    Hdf5Writer file(path, comm);
    const std::vector<float> data(6, value);
    file.write<float>({name, {}, "1", "data"}, shape, data.data());
    file.attribute("/", "note", note);
    file.commit();
    return Hdf5Reader(path).data_digest();
  };
  const std::string first = digest(1, {6}, "/a", "one");
  EXPECT_EQ(first.size(), 64U);
  EXPECT_EQ(digest(1, {6}, "/a", "two"), first);
  EXPECT_NE(digest(2, {6}, "/a", "one"), first);
  EXPECT_NE(digest(1, {2, 3}, "/a", "one"), first);
  EXPECT_NE(digest(1, {6}, "/b", "one"), first);
}

/// Runs `program` by the first python3 of the PATH that has h5py, with `path` as its argument; false if there is none.
bool python_sees(const std::string& program, const std::string& path) {
  testing::write_bytes(path + ".py", program);
  std::string command = "for p in $(which -a python3); do $p -c 'import h5py, numpy' 2> /dev/null && exec $p ";
  command.append(path).append(".py ").append(path).append("; done; exit 77");
  const int status = std::system(command.c_str());
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return false;
  EXPECT_EQ(status, 0) << "h5py sees something else";
  return true;
}

TEST(Hdf5File, OpensInH5pyWithDimensionScalesUnitsAndPlainStrings) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  write_sample(folder / "a.h5", comm);
  bool known = true;
  if (comm.is_root()) {
    known = python_sees(R"(
import sys, h5py, numpy
with h5py.File(sys.argv[1]) as f:
    k = f['posterior/kappa']
    assert k.shape == (7, 5, 4) and k.dtype == numpy.float32 and k.chunks == (1, 5, 4) and k.fletcher32
    for axis, name in enumerate(['chain', 'y', 'x']):
        assert f[name].is_scale, name
        assert list(k.dims[axis].keys()) == [name], list(k.dims[axis].keys())
        assert k.dims[axis][name].shape == (k.shape[axis],)
    assert k.attrs['units'] == '1' and k.attrs['long_name'] == 'convergence'
    assert isinstance(k.attrs['units'], str)
    assert f.attrs['title'] == '\u03ba and \u03b3'
    assert f.attrs['schema_version'] == 3 and f.attrs['wall_seconds'] == 12.5
    assert f['summary'].attrs['note'] == '' and f['y'].attrs['units'] == 'arcmin'
    assert f['metrics/rmse'][()] == 0.125 and f['summary/mean'].fletcher32
    n = numpy.arange(140)
    assert numpy.allclose(k[:].ravel(), numpy.sin(n) * 10.0 ** (n % 30), rtol=1e-6)
)",
                        folder / "a.h5");
  }
  if (comm.min(known ? 1 : 0) == 0) GTEST_SKIP() << "no python3 with h5py";
}

}  // namespace
}  // namespace umbriel
