// Requests to stop only set a flag.
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>
#include <csignal>
#include <cstdlib>

#include "umbriel/base/signals.hpp"

namespace umbriel {
namespace {

// In a process of its own: the flag cannot be taken back.
TEST(Signals, EachRequestSetsTheFlag) {
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      watch_stop_signals();
      if (stop_signal_received()) ::_exit(1);
      ::raise(signal);
      if (!stop_signal_received()) ::_exit(2);
      ::raise(signal);  // again: no harm
      ::_exit(stop_signal_received() ? 0 : 3);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << signal << " ended the process";
    EXPECT_EQ(WEXITSTATUS(status), 0) << "signal " << signal;
  }
  EXPECT_FALSE(stop_signal_received());
}

}  // namespace
}  // namespace umbriel
