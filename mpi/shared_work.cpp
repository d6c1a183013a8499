#include "umbriel/mpi/shared_work.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <thread>

#include "umbriel/mpi/mpi_check.hpp"

namespace umbriel {
namespace {

constexpr int asking = 0, giving = 1;  // tags
constexpr int most_neighbours = 64;    // so that the end of a large job is not spent on asking everybody

}  // namespace

struct SharedWork::State {
  Communicator comm;
  MPI_Comm messages = MPI_COMM_NULL;  // of its own: no other messages come by it
  ShardRange left;                    // of this rank, not taken
  std::int64_t piece = 1;
  int neighbour = 1;  // the next to ask, counted from this rank
  int refusals = 0;   // in a row
  int exceptions = std::uncaught_exceptions();
  struct Answer {
    std::int64_t range[2];  // first, count
    MPI_Request request;
  };
  std::deque<Answer> in_flight;  // addresses stay while a send is pending

  int neighbours() const { return std::min(comm.size() - 1, most_neighbours); }

  /// The second half of what is left, in whole pieces, for another rank; none of a single piece.
  ShardRange give() {
    const std::int64_t pieces = (left.count + piece - 1) / piece, kept = (pieces + 1) / 2 * piece;
    if (pieces < 2) return {};
    const ShardRange given{left.first + kept, left.count - kept};
    left.count = kept;
    return given;
  }

  /// Answers those who have asked.
  void answer() {
    for (int here = 1; here != 0;) {
      MPI_Status status;
      UMBRIEL_CHECK_MPI(MPI_Iprobe(MPI_ANY_SOURCE, asking, messages, &here, &status));
      if (here == 0) break;
      UMBRIEL_CHECK_MPI(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, asking, messages, MPI_STATUS_IGNORE));
      const ShardRange given = give();
      Answer& out = in_flight.emplace_back(Answer{{given.first, given.count}, MPI_REQUEST_NULL});
      UMBRIEL_CHECK_MPI(MPI_Isend(out.range, 2, MPI_INT64_T, status.MPI_SOURCE, giving, messages, &out.request));
    }
    while (!in_flight.empty()) {
      int done = 0;
      UMBRIEL_CHECK_MPI(MPI_Test(&in_flight.front().request, &done, MPI_STATUS_IGNORE));
      if (done == 0) break;
      in_flight.pop_front();
    }
  }

  /// What another rank gives of its items, perhaps nothing.
  ShardRange ask(int rank) {
    const detail::Waiting waiting;
    std::int64_t range[2] = {};
    MPI_Request requests[2];
    UMBRIEL_CHECK_MPI(MPI_Irecv(range, 2, MPI_INT64_T, rank, giving, messages, &requests[0]));
    UMBRIEL_CHECK_MPI(MPI_Isend(nullptr, 0, MPI_BYTE, rank, asking, messages, &requests[1]));
    for (int done = 0; done == 0;) {
      answer();  // two may ask each other
      UMBRIEL_CHECK_MPI(MPI_Testall(2, requests, &done, MPI_STATUSES_IGNORE));
      if (done == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return {range[0], range[1]};
  }
};

SharedWork::SharedWork(const Communicator& comm, const ShardRange& mine, std::int64_t piece)
    : state_(std::make_unique<State>()) {
  state_->comm = comm;
  state_->left = mine;
  state_->piece = piece;
  if (comm.size() == 1) return;
  UMBRIEL_CHECK_MPI(MPI_Comm_dup(*static_cast<MPI_Comm*>(comm.native()), &state_->messages));
  UMBRIEL_CHECK_MPI(MPI_Comm_set_errhandler(state_->messages, MPI_ERRORS_RETURN));
}

SharedWork::~SharedWork() {
  if (state_->comm.size() > 1 && std::uncaught_exceptions() <= state_->exceptions) MPI_Comm_free(&state_->messages);
}

ShardRange SharedWork::take() {
  State& s = *state_;
  if (s.comm.size() > 1) s.answer();
  while (s.left.count == 0 && s.refusals < s.neighbours()) {
    s.left = s.ask((s.comm.rank() + s.neighbour) % s.comm.size());
    if (s.left.count > 0) {
      s.refusals = 0;
    } else {
      ++s.refusals;
      s.neighbour = s.neighbour % s.neighbours() + 1;
    }
  }
  const ShardRange taken{s.left.first, std::min(s.piece, s.left.count)};
  s.left = {s.left.first + taken.count, s.left.count - taken.count};
  return taken;
}

void SharedWork::meet(const std::function<void()>& meanwhile) {
  State& s = *state_;
  s.refusals = 0;
  if (s.comm.size() == 1) return;
  const detail::Waiting waiting;
  MPI_Request request;
  UMBRIEL_CHECK_MPI(MPI_Ibarrier(s.messages, &request));
  for (int done = 0; done == 0;) {
    if (meanwhile) meanwhile();
    s.answer();
    UMBRIEL_CHECK_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    if (done == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (auto& out : s.in_flight) UMBRIEL_CHECK_MPI(MPI_Wait(&out.request, MPI_STATUS_IGNORE));
  s.in_flight.clear();
}

}  // namespace umbriel
