/// Sums gradients over ranks while the backward pass still runs.
///
/// The flat gradient array is cut into buckets of about `bucket_bytes`. A backward pass fills it from the end to the
/// beginning (the last layers' gradients come first): when everything from an element on is final, `ready` starts the
/// sums of the buckets that lie above it; `finish` waits for all. Transport as in collectives.hpp: non-blocking MPI on
/// hosts, NCCL on a stream of its own for devices. One rank: both do nothing.
#pragma once

#include <cstdint>
#include <memory>

#include "umbriel/core/views.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class GradientReducer {
 public:
  /// @param gradients  flat array, the same length on every rank; kept by reference
  GradientReducer(const Communicator& comm, const View1<float>& gradients, std::size_t bucket_bytes = 1 << 20);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Elements [first, end) of the array are final on this rank; calls come with falling `first`. Also lets transfers
  /// under way progress.
  void ready(const Space& space, std::int64_t first);
  /// Starts what has not been started, waits for all sums and makes `space` see them. Ready for the next pass.
  void finish(const Space& space);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbriel
