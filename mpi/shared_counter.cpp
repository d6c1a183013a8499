#include "umbriel/mpi/shared_counter.hpp"

#include <chrono>
#include <deque>

#include "umbriel/mpi/mpi_check.hpp"

namespace umbriel {
namespace {

using Clock = std::chrono::steady_clock;

/// A tag of its own for each counter, so that what a failed one left unread never reaches the next.
int next_tag() {
  static int made = 0;
  constexpr int first = 100, count = 30000;  // every MPI has tags up to 32767
  return first + made++ % count;
}

}  // namespace

struct SharedCounter::State {
  Communicator comm;
  int tag = 0;
  std::int64_t total = 0;   // rank 0: all that arrived; others: their own
  std::int64_t unsent = 0;  // others: not yet sent to rank 0
  int finished = 0;         // rank 0: other ranks whose last message has arrived
  Clock::time_point last = Clock::now();
  struct Message {
    std::int64_t content[2];  // amount, and 1 if it is the sender's last
    MPI_Request request;
  };
  std::deque<Message> in_flight;  // addresses stay while a send is pending

  MPI_Comm mpi() const { return *static_cast<MPI_Comm*>(comm.native()); }

  void send(bool is_last) {
    auto& message = in_flight.emplace_back(Message{{unsent, is_last ? 1 : 0}, MPI_REQUEST_NULL});
    unsent = 0;
    UMBRIEL_CHECK_MPI(MPI_Isend(message.content, 2, MPI_INT64_T, 0, tag, mpi(), &message.request));
    last = Clock::now();
    while (!in_flight.empty()) {
      int done = 0;
      UMBRIEL_CHECK_MPI(MPI_Test(&in_flight.front().request, &done, MPI_STATUS_IGNORE));
      if (done == 0) break;
      in_flight.pop_front();
    }
  }

  void receive_one() {
    std::int64_t content[2] = {};
    UMBRIEL_CHECK_MPI(MPI_Recv(content, 2, MPI_INT64_T, MPI_ANY_SOURCE, tag, mpi(), MPI_STATUS_IGNORE));
    total += content[0];
    finished += static_cast<int>(content[1]);
  }
};

SharedCounter::SharedCounter(const Communicator& comm) : state_(std::make_unique<State>()) {
  state_->comm = comm;
  if (comm.size() > 1) state_->tag = next_tag();
}
SharedCounter::~SharedCounter() = default;

void SharedCounter::add(std::int64_t n) {
  state_->total += n;
  if (state_->comm.is_root()) return;
  state_->unsent += n;
  if (Clock::now() - state_->last > std::chrono::milliseconds(100)) state_->send(false);
}

std::int64_t SharedCounter::total() {
  if (state_->comm.is_root() && state_->comm.size() > 1) {
    // A probe that finds nothing may have taken in messages for the next to find: between two calls nobody else does.
    constexpr int patience = 16;
    for (int misses = 0; misses < patience;) {
      int waiting = 0;
      UMBRIEL_CHECK_MPI(MPI_Iprobe(MPI_ANY_SOURCE, state_->tag, state_->mpi(), &waiting, MPI_STATUS_IGNORE));
      misses = waiting == 0 ? misses + 1 : 0;
      if (waiting != 0) state_->receive_one();
    }
  }
  return state_->total;
}

void SharedCounter::finish() {
  if (state_->comm.size() == 1) return;
  if (state_->comm.is_root()) {
    while (state_->finished < state_->comm.size() - 1) state_->receive_one();
    return;
  }
  state_->send(true);
  for (auto& message : state_->in_flight) UMBRIEL_CHECK_MPI(MPI_Wait(&message.request, MPI_STATUS_IGNORE));
  state_->in_flight.clear();
}

void SharedCounter::abandon() noexcept {
  if (state_->comm.is_root()) return;
  try {
    state_->send(true);
  } catch (const std::exception&) {
    // The communicator is broken: whoever broke it reports.
  }
}

bool SharedCounter::is_root() const { return state_->comm.is_root(); }

}  // namespace umbriel
