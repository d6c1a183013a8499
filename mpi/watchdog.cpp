#include "umbriel/mpi/watchdog.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>

#include "umbriel/mpi/collectives_nccl.hpp"
#include "umbriel/mpi/mpi_check.hpp"

namespace umbriel {
namespace {

using Clock = std::chrono::steady_clock;

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count();
}

std::atomic<std::int64_t> last_alive{0};  // milliseconds
std::atomic<int> waiting{0};

[[noreturn]] void end_job(int rank, const std::string& what) {
  std::fprintf(
      stderr,
      "error: [rank %d] %s \u2014 see that rank's node and device; run the same command again, it goes on from the "
      "checkpoint (run.deadline_minutes sets the patience)\n",
      rank, what.c_str());
  std::fflush(stderr);
  abort_job(static_cast<int>(ExitCode::communication));
}

}  // namespace

void report_alive() { last_alive.store(now(), std::memory_order_relaxed); }

namespace detail {
Waiting::Waiting() { waiting.fetch_add(1, std::memory_order_relaxed); }
Waiting::~Waiting() {
  report_alive();
  waiting.fetch_sub(1, std::memory_order_relaxed);
}
}  // namespace detail

struct Watchdog::State {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, size = 1;
  std::int64_t deadline = 0;  // milliseconds
  std::atomic<bool> stop{false};
  bool wait_for_others = true;
  int exceptions = std::uncaught_exceptions();
  std::thread thread;

  /// Calls of MPI in this thread must not throw, and need no words: if MPI is broken, the main thread says so.
  void watch() {
    constexpr int tag = 1;
    const int before = (rank + size - 1) % size, after = (rank + 1) % size;
    const std::int64_t tick = std::clamp<std::int64_t>(deadline / 20, 50, 1000);
    std::int64_t heard = now(), last_tick = heard;
    MPI_Request sending = MPI_REQUEST_NULL;
    int word = 0;  // 0: I live; 1: I have finished
    bool before_finished = size == 1, said_goodbye = size == 1;
    while (true) {
      const std::int64_t time = now();
      if (time - last_tick > std::max<std::int64_t>(deadline / 2, 10 * tick)) {  // this process was suspended
        heard = time;
        report_alive();
      }
      last_tick = time;
      if (size > 1) {
        int free = 1;
        MPI_Test(&sending, &free, MPI_STATUS_IGNORE);
        if (free != 0 && !said_goodbye) {
          said_goodbye = stop.load();
          word = said_goodbye ? 1 : 0;
          MPI_Isend(&word, 1, MPI_INT, after, tag, comm, &sending);
        }
        for (int here = 1; here != 0;) {
          MPI_Iprobe(before, tag, comm, &here, MPI_STATUS_IGNORE);
          if (here == 0) break;
          int heard_word = 0;
          MPI_Recv(&heard_word, 1, MPI_INT, before, tag, comm, MPI_STATUS_IGNORE);
          heard = time;
          before_finished = before_finished || heard_word == 1;
        }
      }
      if (stop.load() && said_goodbye && (before_finished || !wait_for_others)) {
        int free = 0;
        MPI_Test(&sending, &free, MPI_STATUS_IGNORE);
        if (free != 0 || !wait_for_others) return;
      }
      if (const std::string failure = detail::nccl_failure(); !failure.empty())
        end_job(rank, "NCCL failed: " + failure);
      if (!before_finished && time - heard > deadline) {
        end_job(rank, "nothing has been heard of rank " + std::to_string(before) + " for " +
                          std::to_string(deadline / 1000) + " s: it is stopped or lost");
      }
      if (!stop.load() && waiting.load(std::memory_order_relaxed) == 0 &&
          time - last_alive.load(std::memory_order_relaxed) > deadline) {
        end_job(rank, "this rank has not got on for " + std::to_string(deadline / 1000) +
                          " s: its device or file system does not answer");
      }
      const std::int64_t nap = stop.load() ? 1 : tick;
      for (std::int64_t slept = 0; slept < nap && stop.load() == (nap == 1); slept += std::min<std::int64_t>(nap, 20))
        std::this_thread::sleep_for(std::chrono::milliseconds(std::min<std::int64_t>(nap, 20)));
    }
  }
};

Watchdog::Watchdog(const Communicator& comm, double deadline) {
  if (!(deadline > 0)) return;
  int level = MPI_THREAD_SINGLE;
  if (comm.size() > 1) UMBRIEL_CHECK_MPI(MPI_Query_thread(&level));
  if (comm.size() > 1 && level < MPI_THREAD_MULTIPLE) return;  // this MPI has no place for a thread beside
  state_ = std::make_unique<State>();
  state_->rank = comm.rank();
  state_->size = comm.size();
  state_->deadline = static_cast<std::int64_t>(1000 * deadline);
  if (comm.size() > 1) {
    UMBRIEL_CHECK_MPI(MPI_Comm_dup(*static_cast<MPI_Comm*>(comm.native()), &state_->comm));
    UMBRIEL_CHECK_MPI(MPI_Comm_set_errhandler(state_->comm, MPI_ERRORS_RETURN));
  }
  report_alive();
  state_->thread = std::thread([state = state_.get()] { state->watch(); });
}

Watchdog::~Watchdog() {
  if (state_ == nullptr) return;
  state_->wait_for_others = std::uncaught_exceptions() <= state_->exceptions;
  state_->stop = true;
  state_->thread.join();
  if (state_->comm != MPI_COMM_NULL && state_->wait_for_others) MPI_Comm_free(&state_->comm);
}

}  // namespace umbriel
