/// Sums gradients over ranks while the backward pass still runs.
///
/// The flat gradient array is cut into buckets of about `bucket_bytes`. A backward pass fills it from the end to the
/// beginning (the last layers' gradients come first): when everything from an element on is final, `ready` starts the
/// sums of the buckets that lie above it; `finish` waits for all.
///
/// Host memory goes through non-blocking MPI calls on communicators of the reducer's own, so that other collectives may
/// run in between; sums run in pairs of ranks and have the bits of all_reduce_sum (collectives.hpp), whatever the
/// buckets. Device memory goes through NCCL on a stream of its own, or through the host where there is none. One rank:
/// nothing is sent.
#pragma once

#include <cstdint>
#include <memory>

#include "umbriel/core/views.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class GradientReducer {
 public:
  /// Collective.
  /// @param gradients     flat array, the same length on every rank; the View is kept
  /// @param bucket_bytes  the same on every rank
  /// @throws Error(usage) on all ranks if lengths or buckets differ
  GradientReducer(const Communicator& comm, const View1<float>& gradients, std::size_t bucket_bytes = 1 << 20);
  /// Collective after `finish`. In the middle of a pass, when an exception ends the job, sums under way keep their
  /// memory: MPI may still write to it.
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Elements [first, end) of the array are final on this rank once `space` has done what it was given, and must not be
  /// touched before `finish`. Also lets transfers under way progress; never waits for another rank.
  /// @throws Error(usage) if `first` is outside the array or rises within a pass
  void ready(const Space& space, std::int64_t first);
  /// Starts what has not been started, waits for all sums and makes `space` see them. Ready for the next pass.
  /// Every rank must come here once a pass.
  void finish(const Space& space);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbriel
