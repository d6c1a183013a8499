/// Ends a job that hangs: a stopped process, a lost node, a dead device.
///
/// Collective calls wait for ever for a rank that does not come. A thread in each process tells the next rank (in a
/// ring) every second or so that it lives, and listens to the rank before. It ends the job, with a message and the exit
/// code of a failed communication, when the rank before has been silent for longer than the deadline, or when this
/// process has for so long neither got on (report_alive) nor waited for others; at once when NCCL reports a failure,
/// after which its collectives never end. A job that was suspended as a whole and goes on is not taken for one that
/// hangs.
#pragma once

#include <memory>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class Watchdog {
 public:
  /// Starts watching. Collective. One at a time. @param deadline  seconds; 0: watches nothing
  Watchdog(const Communicator& comm, double deadline);
  /// Collective, unless an exception is passing.
  ~Watchdog();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// This process gets on with its work. Costs nanoseconds: call it in every loop whose turns take long.
void report_alive();

namespace detail {

/// While it lives this process waits for other ranks, for which it is not to blame.
class Waiting {
 public:
  Waiting();
  ~Waiting();
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
};

}  // namespace detail

}  // namespace umbriel
