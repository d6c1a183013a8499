// Shared work: every item is done once, whoever is slow, and those who are done help.
#include "umbriel/mpi/shared_work.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace umbriel {
namespace {

using namespace std::chrono_literals;

/// What a rank has done, with help of the others.
struct Done {
  std::vector<std::int64_t> times;  // [item] on this rank
  std::int64_t pieces = 0;
};

/// Takes until there is nothing to be had, or `most` pieces are done; each takes `seconds`.
void work_off(SharedWork& work, Done& done, std::int64_t piece, std::chrono::microseconds time,
              std::int64_t most = INT64_MAX) {
  for (std::int64_t n = 0; n < most; ++n) {
    const ShardRange taken = work.take();
    if (taken.count == 0) break;
    EXPECT_LE(taken.count, piece);
    ++done.pieces;
    for (std::int64_t i = taken.first; i < taken.first + taken.count; ++i) ++done.times.at(static_cast<std::size_t>(i));
    std::this_thread::sleep_for(time);
  }
  work.meet();
}

/// Each of so many items once, by all ranks together.
void expect_each_once(const Communicator& comm, const Done& done) {
  std::vector<std::int64_t> times = done.times;
  comm.sum(times.data(), times.size());
  EXPECT_EQ(times, std::vector<std::int64_t>(times.size(), 1)) << "rank " << comm.rank();
}

TEST(SharedWork, EveryItemIsDoneOnce) {
  const Communicator comm = Communicator::world();
  for (const std::int64_t items : {0, 1, 5, 64, 997}) {
    for (const std::int64_t piece : {1, 4, 1000}) {
      SharedWork work(comm, shard_range(items, comm.rank(), comm.size()), piece);
      Done done{std::vector<std::int64_t>(static_cast<std::size_t>(items), 0)};
      work_off(work, done, piece, 0us);
      expect_each_once(comm, done);
      EXPECT_EQ(work.take().count, 0);
      work.meet();
    }
  }
}

TEST(SharedWork, OwnItemsComeFirstAndInOrder) {
  const Communicator comm = Communicator::world();
  const ShardRange mine{100 * comm.rank(), 10};
  SharedWork work(comm, mine, 4);
  for (const std::int64_t at : {0, 4, 8}) {
    const ShardRange taken = work.take();
    if (at > 0 && taken.first != mine.first + at) break;  // given away: who began may be the others' neighbour
    EXPECT_EQ(taken.first, mine.first + at);
    EXPECT_EQ(taken.count, std::min<std::int64_t>(4, 10 - at));
  }
  while (work.take().count > 0) continue;
  work.meet();
}

// Each rank in turn is twenty times as slow: with fixed shards it would do all of its own.
TEST(SharedWork, OthersHelpWhoIsSlow) {
  const Communicator comm = Communicator::world();
  if (comm.size() == 1) GTEST_SKIP() << "nobody to help";
  for (int slow = 0; slow < comm.size(); ++slow) {
    constexpr std::int64_t items = 40, piece = 2;  // a rank
    SharedWork work(comm, {items * comm.rank(), items}, piece);
    Done done{std::vector<std::int64_t>(static_cast<std::size_t>(items * comm.size()), 0)};
    work_off(work, done, piece, comm.rank() == slow ? 20ms : 1ms);
    expect_each_once(comm, done);
    if (comm.rank() == slow) {
      EXPECT_LT(done.pieces, items / piece / 2);
    }
  }
}

// One rank has all the work, as after a resume with most of it done.
TEST(SharedWork, ReachesRanksWithoutWork) {
  const Communicator comm = Communicator::world();
  for (int owner = 0; owner < comm.size(); ++owner) {
    constexpr std::int64_t items = 60;
    SharedWork work(comm, {0, comm.rank() == owner ? items : 0}, 1);
    Done done{std::vector<std::int64_t>(items, 0)};
    comm.barrier();
    work_off(work, done, 1, 5ms);
    expect_each_once(comm, done);
    EXPECT_GT(done.pieces, 0) << "rank " << comm.rank();
  }
}

// Ranks that stop between two pieces, as for a checkpoint, while others still ask them.
TEST(SharedWork, GoesOnAfterAStop) {
  const Communicator comm = Communicator::world();
  constexpr std::int64_t items = 30;
  SharedWork work(comm, {items * comm.rank(), items}, 1);
  Done done{std::vector<std::int64_t>(static_cast<std::size_t>(items * comm.size()), 0)};
  for (int round = 0; round < 3; ++round) {  // rank 0 does two pieces and waits, the others far more
    work_off(work, done, 1, 200us, comm.is_root() ? 2 : 12);
  }
  const std::int64_t so_far = comm.sum(done.pieces);
  EXPECT_LT(so_far, items * comm.size());
  work_off(work, done, 1, 0us);
  expect_each_once(comm, done);
}

TEST(SharedWork, CallsBackWhileItWaits) {
  const Communicator comm = Communicator::world();
  SharedWork work(comm, {comm.rank(), 1}, 1);
  while (work.take().count > 0) continue;
  if (comm.rank() == comm.size() - 1) std::this_thread::sleep_for(20ms);
  int calls = 0;
  work.meet([&] { ++calls; });
  if (comm.size() > 1) {
    EXPECT_GT(calls, 0);
  }
}

TEST(SharedWork, WorksAlone) {
  SharedWork work({}, {7, 5}, 3);
  EXPECT_EQ(work.take().count, 3);
  const ShardRange last = work.take();
  EXPECT_EQ(last.first, 10);
  EXPECT_EQ(last.count, 2);
  EXPECT_EQ(work.take().count, 0);
  work.meet();
}

}  // namespace
}  // namespace umbriel
