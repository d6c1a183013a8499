// The progress of all ranks, told by rank 0.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "umbriel/base/log.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

template <class Action>
std::string said(const Action& action) {
  ::testing::internal::CaptureStderr();
  action();
  return ::testing::internal::GetCapturedStderr();
}

class ProgressText : public ::testing::Test {
 protected:
  const Communicator comm = Communicator::world();
  void SetUp() override { log::start(comm.rank()); }
};

TEST_F(ProgressText, EndsWithTheWorkOfAllRanks) {
  const std::string text = said([&] {
    Progress progress(comm, "sampling", 4 * comm.size(), "chains");
    for (int i = 0; i < 16; ++i) progress.add(0.25);
  });
  if (comm.is_root()) {
    const std::string all = std::to_string(4 * comm.size());
    std::string amount = "sampling [########################] ";
    amount.append(all).append("/").append(all).append(" chains, ");
    EXPECT_EQ(text.rfind(amount, 0), 0U) << text;
    EXPECT_NE(text.find(" chains/s, in "), std::string::npos) << text;
  } else {
    EXPECT_EQ(text, "");
  }
}

TEST_F(ProgressText, ShowsHowFarItCame) {
  const std::string text = said([&] {
    Progress progress(comm, "mocks", 8 * comm.size(), "mocks");
    progress.add(2);
  });
  if (comm.is_root()) {
    EXPECT_NE(text.find("[######..................]"), std::string::npos) << text;
  }
}

TEST_F(ProgressText, TakesNothingAndTooMuch) {
  const std::string none = said([&] { Progress(comm, "nothing", 0, "maps"); });
  const std::string over = said([&] {
    Progress progress(comm, "more", 1, "maps");
    progress.add(3);
  });
  if (comm.is_root()) {
    EXPECT_NE(none.find("0/0 maps"), std::string::npos) << none;
    EXPECT_NE(over.find("[########################]"), std::string::npos) << over;
    EXPECT_EQ(over.find("-"), std::string::npos) << over;
  }
}

TEST_F(ProgressText, SurvivesALongTitle) {
  EXPECT_NO_THROW(said([&] { Progress(comm, std::string(1000, 't'), 1, std::string(500, 'u')); }));
}

// One rank fails: it waits for nobody, rank 0 does not wait for it, and the ranks agree on its error.
TEST_F(ProgressText, DoesNotHoldUpAFailure) {
  for (int failing = 0; failing < comm.size(); ++failing) {
    said([&] {
      EXPECT_THROW(comm.together([&] {
        Progress progress(comm, "failing", 1, "maps");
        progress.add(1);
        if (comm.rank() == failing) throw std::runtime_error("lost");
      }),
                   Error);
    });
    EXPECT_EQ(comm.sum(std::int64_t{1}), comm.size());  // in step
  }
}

// The others wait inside their work for rank 0, which has failed and must not wait for them.
TEST_F(ProgressText, DoesNotHoldUpAFailedRoot) {
  said([&] {
    try {
      Progress progress(comm, "failing", 1, "maps");
      if (comm.is_root()) throw std::runtime_error("lost");
      comm.barrier();
    } catch (const std::runtime_error&) {
      comm.barrier();
    }
  });
  EXPECT_EQ(comm.sum(std::int64_t{1}), comm.size());
}

}  // namespace
}  // namespace umbriel
