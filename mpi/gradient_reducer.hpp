/// Sums gradients over ranks while the backward pass still runs.
///
/// The flat gradient array is cut into buckets of about `bucket_bytes`. A backward pass fills it from the end to the
/// beginning (the last layers' gradients come first): when everything from an element on is final, `ready` starts the
/// sums of the buckets that lie above it; `finish` waits for all.
///
/// Every rank gets all sums; or each rank only those of its own elements, to make new values of and give them to all:
/// as many bytes, and what comes of a sum is computed once.
///
/// Host memory goes through non-blocking MPI calls on communicators of the reducer's own, so that other collectives may
/// run in between; sums run in pairs of ranks and have the bits of all_reduce_sum (collectives.hpp), whatever the
/// buckets. Device memory goes through NCCL on a stream of its own, or through the host where there is none. One rank:
/// nothing is sent.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "umbriel/core/views.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

/// Elements [begin, end) of a flat array.
struct Elements {
  std::int64_t begin = 0, end = 0;
};

class GradientReducer {
 public:
  /// Collective.
  /// @param gradients     flat array, the same length on every rank; the View is kept
  /// @param row           0: every rank gets all sums. Else each gets those of its own elements, which are rows of so
  ///                      many, counted from the beginning of the array (device memory: all sums still)
  /// @param bucket_bytes  the same on every rank, as is `row`
  /// @throws Error(usage) on all ranks if lengths, rows or buckets differ
  GradientReducer(const Communicator& comm, const View1<float>& gradients, std::int64_t row = 0,
                  std::size_t bucket_bytes = 1 << 20);
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

  /// The elements whose sums `finish` leaves on this rank, from the end of the array to its beginning. The gradients'
  /// others are then used up, unless these are all.
  const std::vector<Elements>& mine() const;
  /// array[i] <- that of the rank whose own element i is; nothing is left to do where every rank gets all sums.
  /// Collective after `finish`.
  /// @param array  as long as the gradients
  /// @throws Error(usage) if it is not
  void gather(const Space& space, const View1<float>& array);
  /// values[i] <- that of the only rank where it is not zero. Collective after `finish`; does nothing where every rank
  /// gets all sums.
  void put_together(const Space& space, const View1<double>& values);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbriel
