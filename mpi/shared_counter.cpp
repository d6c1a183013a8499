#include "umbriel/mpi/shared_counter.hpp"

#include <chrono>
#include <deque>

#include "umbriel/mpi/mpi_check.hpp"

namespace umbriel {
namespace {
constexpr int counter_tag = 77;
using Clock = std::chrono::steady_clock;
}  // namespace

struct SharedCounter::State {
  Communicator comm;
  std::int64_t total = 0;    // rank 0: all that arrived; others: their own
  std::int64_t unsent = 0;   // others: not yet sent to rank 0
  std::int64_t messages = 0; // sent (others) or received (rank 0)
  Clock::time_point last = Clock::now();
  struct Message {
    std::int64_t value;
    MPI_Request request;
  };
  std::deque<Message> in_flight;  // addresses stay while a send is pending

  MPI_Comm mpi() const { return *static_cast<MPI_Comm*>(comm.native()); }

  void send() {
    auto& message = in_flight.emplace_back(Message{unsent, MPI_REQUEST_NULL});
    unsent = 0;
    UMBRIEL_CHECK_MPI(MPI_Isend(&message.value, 1, MPI_INT64_T, 0, counter_tag, mpi(), &message.request));
    ++messages;
    last = Clock::now();
    while (!in_flight.empty()) {
      int done = 0;
      UMBRIEL_CHECK_MPI(MPI_Test(&in_flight.front().request, &done, MPI_STATUS_IGNORE));
      if (done == 0) break;
      in_flight.pop_front();
    }
  }

  void receive_one() {
    std::int64_t value = 0;
    UMBRIEL_CHECK_MPI(MPI_Recv(&value, 1, MPI_INT64_T, MPI_ANY_SOURCE, counter_tag, mpi(), MPI_STATUS_IGNORE));
    total += value;
    ++messages;
  }
};

SharedCounter::SharedCounter(const Communicator& comm) : state_(std::make_unique<State>()) { state_->comm = comm; }
SharedCounter::~SharedCounter() = default;

void SharedCounter::add(std::int64_t n) {
  state_->total += n;
  if (state_->comm.is_root()) return;
  state_->unsent += n;
  if (Clock::now() - state_->last > std::chrono::milliseconds(100)) state_->send();
}

std::int64_t SharedCounter::total() {
  if (state_->comm.is_root() && state_->comm.size() > 1) {
    int waiting = 1;
    while (true) {
      UMBRIEL_CHECK_MPI(MPI_Iprobe(MPI_ANY_SOURCE, counter_tag, state_->mpi(), &waiting, MPI_STATUS_IGNORE));
      if (waiting == 0) break;
      state_->receive_one();
    }
  }
  return state_->total;
}

void SharedCounter::finish() {
  if (state_->comm.size() == 1) return;
  if (!state_->comm.is_root() && state_->unsent != 0) state_->send();
  const std::int64_t received = state_->comm.is_root() ? state_->messages : 0;
  const std::int64_t sent = state_->comm.sum(state_->comm.is_root() ? 0 : state_->messages);
  if (state_->comm.is_root()) {
    for (std::int64_t i = received; i < sent; ++i) state_->receive_one();
  }
  for (auto& message : state_->in_flight) UMBRIEL_CHECK_MPI(MPI_Wait(&message.request, MPI_STATUS_IGNORE));
  state_->in_flight.clear();
}

bool SharedCounter::is_root() const { return state_->comm.is_root(); }

}  // namespace umbriel
