#include "umbriel/base/signals.hpp"

#include <csignal>
#include <initializer_list>

namespace umbriel {
namespace {
volatile std::sig_atomic_t stop_flag = 0;
extern "C" void remember_stop(int) { stop_flag = 1; }
}  // namespace

void watch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = remember_stop;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) sigaction(signal, &action, nullptr);
}

bool stop_signal_received() { return stop_flag != 0; }

}  // namespace umbriel
