// Counts of all ranks arrive at rank 0, whatever the others do.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "umbriel/mpi/shared_counter.hpp"

namespace umbriel {
namespace {

TEST(SharedCounter, HoldsTheTotalOnRootAfterFinish) {
  const Communicator comm = Communicator::world();
  SharedCounter counter(comm);
  EXPECT_EQ(counter.is_root(), comm.is_root());
  for (int i = 0; i < 1000 * (comm.rank() + 1); ++i) {
    counter.add(3);
    if (i % 100 == 0) counter.total();
  }
  counter.finish();
  const std::int64_t ranks = comm.size();
  EXPECT_EQ(counter.total(), comm.is_root() ? 3000 * ranks * (ranks + 1) / 2 : 3000 * (comm.rank() + 1));
}

TEST(SharedCounter, ShowsWhatHasArrivedBeforeTheEnd) {
  const Communicator comm = Communicator::world();
  SharedCounter counter(comm);
  std::this_thread::sleep_for(std::chrono::milliseconds(120));  // messages are 100 ms apart
  counter.add(7);
  comm.barrier();
  std::int64_t seen = counter.total();
  if (comm.is_root()) {  // a message may still be on its way
    for (int i = 0; i < 5000 && seen < 7 * comm.size(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      seen = counter.total();
    }
    EXPECT_EQ(seen, 7 * comm.size());
  }
  counter.finish();
}

TEST(SharedCounter, KeepsCountersApart) {
  const Communicator comm = Communicator::world();
  SharedCounter first(comm), second(comm);
  first.add(1);
  second.add(100);
  second.finish();
  EXPECT_EQ(second.total(), comm.is_root() ? 100 * comm.size() : 100);
  first.finish();
  EXPECT_EQ(first.total(), comm.is_root() ? comm.size() : 1);
}

TEST(SharedCounter, FinishesWithoutAnyCount) {
  const Communicator comm = Communicator::world();
  SharedCounter counter(comm);
  counter.finish();
  EXPECT_EQ(counter.total(), 0);
}

// The last rank fails: nobody waits for it, it waits for nobody, and the next counter starts clean.
TEST(SharedCounter, ReleasesTheOthersWhenARankGivesUp) {
  const Communicator comm = Communicator::world();
  {
    SharedCounter counter(comm);
    counter.add(5);
    if (comm.rank() == comm.size() - 1) {
      counter.abandon();
    } else {
      counter.finish();
    }
  }
  SharedCounter next(comm);
  next.add(1);
  next.finish();
  EXPECT_EQ(next.total(), comm.is_root() ? comm.size() : 1);
}

// Rank 0 fails: what the others sent is left unread, and does not reach the next counter.
TEST(SharedCounter, LeavesNothingToTheNextWhenRootGivesUp) {
  const Communicator comm = Communicator::world();
  {
    SharedCounter counter(comm);
    counter.add(5);
    if (comm.is_root()) {
      counter.abandon();
    } else {
      counter.finish();
    }
  }
  SharedCounter next(comm);
  next.add(1);
  next.finish();
  EXPECT_EQ(next.total(), comm.is_root() ? comm.size() : 1);
}

TEST(SharedCounter, WorksAlone) {
  SharedCounter counter{Communicator()};
  counter.add(2);
  counter.add(3);
  EXPECT_EQ(counter.total(), 5);
  counter.finish();
  EXPECT_EQ(counter.total(), 5);
}

}  // namespace
}  // namespace umbriel
