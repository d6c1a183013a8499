// Writes that fail: the same error on every rank, no rank left waiting, no file left behind.
#include <gtest/gtest.h>

#include <sys/mount.h>
#include <sys/resource.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "support.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using testing::agreed_error;
using testing::SharedFolder;

void write_megabytes(const std::string& path, const Communicator& comm, int megabytes) {
  Hdf5Writer file(path, comm);
  const ShardRange shard = shard_range(4 * megabytes, comm.rank(), comm.size());
  const std::vector<float> data(static_cast<std::size_t>(shard.count) << 16, 1.5f);
  const auto items = static_cast<std::uint64_t>(4 * megabytes);
  file.write_sharded<float>({"/data", {}, "1", "data"}, {items, 1 << 16}, static_cast<std::uint64_t>(shard.first),
                            static_cast<std::uint64_t>(shard.count), data.data());
  file.commit();
}

TEST(Hdf5Failures, AFolderThatIsNotThere) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  const std::string text = agreed_error(comm, ExitCode::file_system, [&] { Hdf5Writer(folder / "none/a.h5", comm); });
  EXPECT_NE(text.find("none/a.h5"), std::string::npos) << text;
  EXPECT_TRUE(folder.contents().empty());
}

TEST(Hdf5Failures, AFolderThatIsAFile) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  if (comm.is_root()) testing::write_bytes(folder / "file", "x");
  comm.barrier();
  agreed_error(comm, ExitCode::file_system, [&] { Hdf5Writer(folder / "file/a.h5", comm); });
  EXPECT_EQ(folder.contents(), std::vector<std::string>{"file"});
}

TEST(Hdf5Failures, AFolderWithoutPermission) {
  const Communicator comm = Communicator::world();
  agreed_error(comm, ExitCode::file_system, [&] { Hdf5Writer("/proc/umbriel.h5", comm); });  // not even for root
}

TEST(Hdf5Failures, ATargetThatCannotBeReplaced) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  if (comm.is_root()) std::filesystem::create_directory(folder / "a.h5");
  comm.barrier();
  const std::string text =
      agreed_error(comm, ExitCode::file_system, [&] { write_megabytes(folder / "a.h5", comm, 1); });
  EXPECT_NE(text.find("rename"), std::string::npos) << text;
  EXPECT_EQ(folder.contents(), std::vector<std::string>{"a.h5"});
}

TEST(Hdf5Failures, AFileSizeLimitOnAnyRank) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  for (int limited = 0; limited < comm.size(); ++limited) {
    struct rlimit before {
    }, low{};
    ::getrlimit(RLIMIT_FSIZE, &before);
    low = before;
    low.rlim_cur = 1000000;
    if (comm.rank() == limited) ::setrlimit(RLIMIT_FSIZE, &low);
    const std::string text =
        agreed_error(comm, ExitCode::file_system, [&] { write_megabytes(folder / "a.h5", comm, 2); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_NE(text.find("limit of file sizes"), std::string::npos) << text;
    EXPECT_TRUE(folder.contents().empty());
  }
  EXPECT_NO_THROW(write_megabytes(folder / "a.h5", comm, 2));  // all goes on
}

TEST(Hdf5Failures, AFullDisk) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  bool mounted = true;
  if (comm.is_root()) {
    std::filesystem::create_directory(folder / "small");
    mounted = ::mount("none", (folder / "small").c_str(), "tmpfs", 0, "size=2m") == 0;
  }
  if (comm.min(mounted ? 1 : 0) == 0) GTEST_SKIP() << "only root can mount a small disk";
  const std::string text =
      agreed_error(comm, ExitCode::file_system, [&] { write_megabytes(folder / "small/a.h5", comm, 4); });
  EXPECT_NE(text.find("No space left"), std::string::npos) << text;
  comm.barrier();
  EXPECT_TRUE(std::filesystem::is_empty(folder / "small"));
  EXPECT_NO_THROW(write_megabytes(folder / "small/a.h5", comm, 1));
  comm.barrier();
  if (comm.is_root()) ::umount2((folder / "small").c_str(), MNT_DETACH);
}

TEST(Hdf5Failures, AnAxisThatWasNotWritten) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  const std::string text = agreed_error(comm, ExitCode::file_system, [&] {
    Hdf5Writer file(folder / "a.h5", comm);
    const float value = 1;
    file.write<float>({"/data", {"y"}, "1", "data"}, {1}, &value);
  });
  EXPECT_NE(text.find("axis y was not written"), std::string::npos) << text;
  EXPECT_TRUE(folder.contents().empty());
}

TEST(Hdf5Failures, ANameThatIsTaken) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  agreed_error(comm, ExitCode::file_system, [&] {
    Hdf5Writer file(folder / "a.h5", comm);
    file.write_axis("x", {1}, "1", "x");
    file.write_axis("x", {1}, "1", "x");
  });
  EXPECT_TRUE(folder.contents().empty());
}

TEST(Hdf5Failures, NothingMoreOnABrokenFile) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  Hdf5Writer file(folder / "a.h5", comm);
  const float value = 1;
  agreed_error(comm, ExitCode::file_system, [&] { file.write<float>({"/data", {"y"}, "1", "data"}, {1}, &value); });
  agreed_error(comm, ExitCode::file_system, [&] { file.write<float>({"/more", {}, "1", "more"}, {1}, &value); });
  const std::string text = agreed_error(comm, ExitCode::file_system, [&] { file.commit(); });
  EXPECT_NE(text.find("failed earlier"), std::string::npos) << text;
}

TEST(Hdf5Failures, ShardsThatDoNotMakeUpTheWhole) {
  const Communicator comm = Communicator::world();
  const SharedFolder folder(comm);
  const std::vector<float> data(20, 1.0f);
  Hdf5Writer file(folder / "a.h5", comm);
  const auto ranks = static_cast<std::uint64_t>(comm.size()), rank = static_cast<std::uint64_t>(comm.rank());
  const bool last = comm.rank() == comm.size() - 1;
  agreed_error(comm, ExitCode::usage, [&] {  // one item too few
    file.write_sharded<float>({"/few", {}, "1", "few"}, {ranks + 1, 2}, rank, 1, data.data());
  });
  agreed_error(comm, ExitCode::usage, [&] {  // one rank reaches beyond the end
    file.write_sharded<float>({"/far", {}, "1", "far"}, {ranks, 2}, rank + (last ? 1 : 0), 1, data.data());
  });
  agreed_error(comm, ExitCode::usage, [&] {  // a scalar has no items
    file.write_sharded<float>({"/none", {}, "1", "none"}, {}, 0, 0, data.data());
  });
  file.write_sharded<float>({"/data", {}, "1", "data"}, {ranks, 2}, rank, 1, data.data());  // the file is not broken
  file.commit();
  EXPECT_EQ(Hdf5Reader(folder / "a.h5").datasets(), std::vector<std::string>{"/data"});
}

}  // namespace
}  // namespace umbriel
