// A flag raised on one rank is seen on all, whoever waits.
#include "umbriel/mpi/shared_flag.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace umbriel {
namespace {

using namespace std::chrono_literals;

bool never() { return false; }

TEST(SharedFlag, IsSeenByAllRanksWhoeverRaisesIt) {
  const Communicator comm = Communicator::world();
  for (int raiser = 0; raiser < comm.size(); ++raiser) {
    SharedFlag flag(comm);
    EXPECT_FALSE(flag.raised());
    comm.barrier();
    if (comm.rank() == raiser) {
      flag.raise();
      flag.raise();
    }
    for (int turn = 0; turn < 5000 && !flag.raised(); ++turn) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(flag.raised());
    EXPECT_TRUE(flag.meet(never));
  }
}

TEST(SharedFlag, ReachesWorkersWhileTheOthersWait) {
  const Communicator comm = Communicator::world();
  SharedFlag flag(comm);
  const bool works = comm.rank() == comm.size() - 1;
  int turns = 0;
  if (works && comm.size() > 1) {
    // Rank 0 waits already, and passes on what rank 0 itself, or another that waits, has to say.
    while (turns < 10000 && !flag.raised()) {
      ++turns;
      std::this_thread::sleep_for(1ms);
    }
    EXPECT_TRUE(flag.raised());
  }
  const auto begin = std::chrono::steady_clock::now();
  const bool asks = comm.rank() == 0;
  EXPECT_TRUE(flag.meet([&] { return asks && std::chrono::steady_clock::now() - begin > 50ms; }) || comm.size() == 1);
}

TEST(SharedFlag, StaysDownWhereNobodyRaisesIt) {
  const Communicator comm = Communicator::world();
  SharedFlag flag(comm);
  EXPECT_FALSE(flag.meet(never));
  EXPECT_FALSE(flag.raised());
}

TEST(SharedFlag, LeavesNoMessageToTheNext) {
  const Communicator comm = Communicator::world();
  for (int i = 0; i < 20; ++i) {
    SharedFlag flag(comm);
    if (comm.rank() == i % comm.size()) flag.raise();  // and gone at once, without a look at it
  }
  SharedFlag flag(comm);
  EXPECT_FALSE(flag.meet(never));
}

}  // namespace
}  // namespace umbriel
