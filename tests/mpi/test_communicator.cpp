// Collective calls at any number of ranks, and the agreement on failures.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "support.hpp"
#include "umbriel/core/check.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel {
namespace {

TEST(ShardRange, SharesOutEveryItemOnceInOrder) {
  for (std::int64_t total = 0; total < 40; ++total) {
    for (int size = 1; size < 12; ++size) {
      std::int64_t next = 0;
      for (int rank = 0; rank < size; ++rank) {
        const ShardRange shard = shard_range(total, rank, size);
        EXPECT_EQ(shard.first, next);
        EXPECT_GE(shard.count, total / size);
        EXPECT_LE(shard.count, total / size + 1);
        EXPECT_LE(shard.count, shard_range(total, std::max(rank - 1, 0), size).count);
        for (; next < shard.first + shard.count; ++next) EXPECT_EQ(rank_of_item(next, total, size), rank);
      }
      EXPECT_EQ(next, total);
    }
  }
  const std::int64_t huge = std::int64_t{1} << 60;
  EXPECT_EQ(shard_range(huge, 999, 1000).first + shard_range(huge, 999, 1000).count, huge);
  EXPECT_EQ(rank_of_item(huge - 1, huge, 1000), 999);
}

/// Every test runs on all ranks together, and on each rank alone with a communicator that never calls MPI.
class Communicators : public ::testing::TestWithParam<bool> {
 protected:
  const Communicator comm = GetParam() ? Communicator::world() : Communicator();
  const int rank = comm.rank(), size = comm.size();
};

INSTANTIATE_TEST_SUITE_P(All, Communicators, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "World" : "Alone"; });

TEST_P(Communicators, KnowTheirRanks) {
  EXPECT_GE(size, 1);
  EXPECT_GE(rank, 0);
  EXPECT_LT(rank, size);
  EXPECT_EQ(comm.is_root(), rank == 0);
  EXPECT_EQ(comm.native() != nullptr, GetParam());
  EXPECT_TRUE(GetParam() || size == 1);
  EXPECT_EQ(comm.sum(std::int64_t{1}), size);
  comm.barrier();
}

TEST_P(Communicators, ReduceInPlace) {
  std::vector<std::int64_t> whole = {rank, 10 - rank, (std::int64_t{1} << 60) / size};
  comm.sum(whole.data(), whole.size());
  EXPECT_EQ(whole[0], size * (size - 1) / 2);
  EXPECT_EQ(whole[1], 10 * size - size * (size - 1) / 2);
  EXPECT_EQ(whole[2], (std::int64_t{1} << 60) / size * size);
  EXPECT_EQ(comm.max(std::int64_t{rank}), size - 1);
  EXPECT_EQ(comm.min(std::int64_t{rank - 5}), -5);
  std::vector<double> values = {0.5 * rank, -0.25 * rank};
  comm.max(values.data(), 2);
  EXPECT_EQ(values[0], 0.5 * (size - 1));
  EXPECT_EQ(values[1], 0);
  comm.min(values.data(), 1);
  EXPECT_EQ(values[0], 0.5 * (size - 1));
  comm.sum(static_cast<std::int64_t*>(nullptr), 0);
}

TEST_P(Communicators, SplitIntoGroups) {
  const Communicator group = comm.split(rank / 2);
  EXPECT_EQ(group.size(), std::min(2, size - rank / 2 * 2));
  EXPECT_EQ(group.rank(), rank % 2);
  EXPECT_EQ(group.native() != nullptr, GetParam());
  EXPECT_EQ(group.sum(std::int64_t{1} + rank), group.size() + (group.size() == 2 ? rank / 2 * 4 + 1 : rank));
  // Groups and all ranks do not get into each other's way.
  EXPECT_EQ(comm.sum(std::int64_t{group.size()}), size / 2 * 4 + size % 2);
  EXPECT_EQ(group.broadcast("from " + std::to_string(rank)), "from " + std::to_string(rank / 2 * 2));
  EXPECT_EQ(comm.split(0).size(), size);
}

TEST_P(Communicators, BroadcastFromEveryRank) {
  for (int root = 0; root < size; ++root) {
    int values[3] = {rank, rank + 1, rank + 2};
    comm.broadcast(values, sizeof values, root);
    EXPECT_EQ(values[0], root);
    EXPECT_EQ(values[2], root + 2);
    const std::string mine = root % 2 == 0 ? std::string(static_cast<std::size_t>(100000 + rank), 'a') : "";
    EXPECT_EQ(comm.broadcast(mine, root).size(), root % 2 == 0 ? static_cast<std::size_t>(100000 + root) : 0);
    EXPECT_EQ(comm.broadcast(std::string("rank\0x", 6) += std::to_string(rank), root),
              std::string("rank\0x", 6) += std::to_string(root));
  }
  int nothing = 0;
  comm.broadcast(&nothing, std::size_t{0});
}

TEST_P(Communicators, GatherBlocksOfUnequalLength) {
  for (int root = 0; root < size; ++root) {
    for (const int step : {0, 1, 3}) {  // 0: all empty; else rank r gives (r step) % 4 items, rank 0 none
      std::vector<std::int32_t> block(static_cast<std::size_t>(rank * step % 4), 100 * rank);
      const std::vector<std::int32_t> all = comm.gather(block, root);
      std::vector<std::int32_t> expected;
      for (int r = 0; r < size && rank == root; ++r)
        expected.insert(expected.end(), static_cast<std::size_t>(r * step % 4), 100 * r);
      EXPECT_EQ(all, expected);
    }
    const std::vector<std::byte> block(1, static_cast<std::byte>(rank));
    const std::vector<std::byte> all = comm.gather(block, root);
    EXPECT_EQ(all.size(), rank == root ? static_cast<std::size_t>(size) : 0);
    for (std::size_t r = 0; r < all.size(); ++r) EXPECT_EQ(std::to_integer<std::size_t>(all[r]), r);
  }
  EXPECT_THROW(comm.gather(std::vector<std::byte>(), size), Error);
}

TEST_P(Communicators, ExchangeBlocksOfUnequalLength) {
  const auto length = [](int from, int to) { return static_cast<std::size_t>((3 * from + 2 * to) % 5); };  // some empty
  std::vector<std::vector<float>> send(static_cast<std::size_t>(size));
  for (int to = 0; to < size; ++to)
    send[static_cast<std::size_t>(to)].assign(length(rank, to), static_cast<float>(10 * rank + to));
  const auto received = comm.exchange(send);
  ASSERT_EQ(received.size(), static_cast<std::size_t>(size));
  for (int from = 0; from < size; ++from) {
    EXPECT_EQ(received[static_cast<std::size_t>(from)],
              std::vector<float>(length(from, rank), static_cast<float>(10 * from + rank)));
  }
  for (const auto& block : comm.exchange(std::vector<std::vector<float>>(static_cast<std::size_t>(size))))
    EXPECT_TRUE(block.empty());
  EXPECT_THROW(comm.exchange(std::vector<std::vector<float>>(static_cast<std::size_t>(size) + 1)), Error);
  constexpr std::int64_t large = (std::int64_t{1} << 62) + 1;  // no float
  const auto numbers =
      comm.exchange(std::vector<std::vector<std::int64_t>>(static_cast<std::size_t>(size), {large + rank, -large}));
  for (int from = 0; from < size; ++from)
    EXPECT_EQ(numbers[static_cast<std::size_t>(from)], (std::vector<std::int64_t>{large + from, -large}));
}

TEST_P(Communicators, ExchangeLargeBlocks) {
  const std::vector<float> block(300000, static_cast<float>(rank));
  const std::vector<std::vector<float>> send(static_cast<std::size_t>(size), block);
  const auto received = comm.exchange(send);
  for (int from = 0; from < size; ++from) {
    EXPECT_EQ(received[static_cast<std::size_t>(from)].size(), 300000U);
    EXPECT_EQ(received[static_cast<std::size_t>(from)].back(), static_cast<float>(from));
  }
}

TEST_P(Communicators, GoOnTogetherWhenNobodyFails) {
  int runs = 0;
  comm.together([&] { ++runs; });
  EXPECT_EQ(runs, 1);
}

TEST_P(Communicators, ThrowOneRanksErrorOnAll) {
  for (int failing = 0; failing < size; ++failing) {
    const std::string text = testing::agreed_error(comm, ExitCode::input, [&] {
      comm.together(
          [&] { require(rank != failing, ExitCode::input, "no pixel is observed", "mask.fits", "check the mask"); });
    });
    EXPECT_NE(text.find("no pixel is observed (mask.fits) \u2014 check the mask"), std::string::npos) << text;
    std::string prefix = "rank ";
    prefix.append(std::to_string(failing)).append(": ");
    EXPECT_EQ(text.rfind(prefix, 0) == 0, size > 1) << text;
    EXPECT_EQ(comm.sum(std::int64_t{1}), size);  // the ranks are in step
  }
}

TEST_P(Communicators, ThrowTheLowestRanksErrorWhenSeveralFail) {
  const std::string text = testing::agreed_error(comm, size > 1 ? ExitCode::usage : ExitCode::input, [&] {
    comm.together([&] {
      if (size > 1 && rank == 0) return;
      std::string what = "failure ";
      throw Error(rank == 1 ? ExitCode::usage : ExitCode::input, what.append(std::to_string(rank)), "", "");
    });
  });
  EXPECT_NE(text.find(size > 1 ? "failure 1" : "failure 0"), std::string::npos) << text;
}

TEST_P(Communicators, TurnOtherExceptionsIntoErrors) {
  const int last = size - 1;
  std::string text = testing::agreed_error(comm, ExitCode::numerical, [&] {
    comm.together([&] {
      if (rank == last) throw std::runtime_error("a library gave up");
    });
  });
  EXPECT_NE(text.find("a library gave up"), std::string::npos);
  testing::agreed_error(comm, ExitCode::numerical, [&] {
    comm.together([&] {
      if (rank == last) throw std::bad_alloc();
    });
  });
  testing::agreed_error(comm, ExitCode::numerical, [&] {
    comm.together([&] {
      if (rank == last) throw 5;
    });
  });
}

TEST_P(Communicators, MarkErrorsThatAllRanksThrow) {
  try {
    comm.together([&] { require(rank != 0, ExitCode::usage, "failed"); });
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_TRUE(error.agreed());
  }
}

TEST(World, IsAnotherCommunicatorEachTime) {
  const Communicator first = Communicator::world(), second = Communicator::world();
  const Communicator copy = first;
  EXPECT_EQ(first.native(), copy.native());
  EXPECT_NE(first.native(), second.native());
}

}  // namespace
}  // namespace umbriel
