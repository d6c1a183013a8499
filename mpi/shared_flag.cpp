#include "umbriel/mpi/shared_flag.hpp"

#include <chrono>
#include <exception>
#include <thread>
#include <vector>

#include "umbriel/mpi/mpi_check.hpp"

namespace umbriel {

struct SharedFlag::State {
  Communicator comm;
  MPI_Comm messages = MPI_COMM_NULL;  // of its own: nobody else's news come by it
  bool up = false, sent = false;
  int received = 0;
  int exceptions = std::uncaught_exceptions();
  std::vector<MPI_Request> sends;  // one from a rank to rank 0, one from rank 0 to each

  void send(int to) { UMBRIEL_CHECK_MPI(MPI_Isend(nullptr, 0, MPI_BYTE, to, 0, messages, &sends.emplace_back())); }
  void tell() {
    if (sent || comm.size() == 1) return;
    sent = true;
    if (!comm.is_root()) return send(0);
    for (int rank = 1; rank < comm.size(); ++rank) send(rank);
  }
  void receive() {
    UMBRIEL_CHECK_MPI(MPI_Recv(nullptr, 0, MPI_BYTE, MPI_ANY_SOURCE, 0, messages, MPI_STATUS_IGNORE));
    ++received;
    up = true;
    if (comm.is_root()) tell();
  }
};

SharedFlag::SharedFlag(const Communicator& comm) : state_(std::make_unique<State>()) {
  state_->comm = comm;
  if (comm.size() == 1) return;
  UMBRIEL_CHECK_MPI(MPI_Comm_dup(*static_cast<MPI_Comm*>(comm.native()), &state_->messages));
  UMBRIEL_CHECK_MPI(MPI_Comm_set_errhandler(state_->messages, MPI_ERRORS_RETURN));
}

/// Every message is received, for nothing of it may be under way when MPI ends.
SharedFlag::~SharedFlag() {
  State& s = *state_;
  if (s.comm.size() == 1 || std::uncaught_exceptions() > s.exceptions) return;
  try {
    const auto to_root = s.comm.sum(s.sent && !s.comm.is_root() ? 1 : 0);
    while (s.comm.is_root() && s.received < to_root) s.receive();
    const auto from_root = s.comm.max(s.sent && s.comm.is_root() ? 1 : 0);
    while (!s.comm.is_root() && s.received < from_root) s.receive();
    UMBRIEL_CHECK_MPI(MPI_Waitall(static_cast<int>(s.sends.size()), s.sends.data(), MPI_STATUSES_IGNORE));
    MPI_Comm_free(&s.messages);
  } catch (const std::exception&) {
    // The communicator is broken: whoever broke it reports.
  }
}

void SharedFlag::raise() {
  state_->up = true;
  state_->tell();
}

bool SharedFlag::raised() {
  State& s = *state_;
  if (s.comm.size() == 1) return s.up;
  int here = 0;
  UMBRIEL_CHECK_MPI(MPI_Iprobe(MPI_ANY_SOURCE, 0, s.messages, &here, MPI_STATUS_IGNORE));
  if (here != 0) s.receive();
  return s.up;
}

bool SharedFlag::meet(const std::function<bool()>& here) {
  State& s = *state_;
  if (s.comm.size() > 1) {
    const detail::Waiting waiting;
    MPI_Request request;
    UMBRIEL_CHECK_MPI(MPI_Ibarrier(*static_cast<MPI_Comm*>(s.comm.native()), &request));
    for (int done = 0; done == 0;) {
      if (here()) raise();
      raised();
      UMBRIEL_CHECK_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
      if (done == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  } else if (here()) {
    raise();
  }
  return s.comm.max(s.up ? 1 : 0) == 1;
}

}  // namespace umbriel
