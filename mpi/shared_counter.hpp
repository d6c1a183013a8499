/// A counter that every rank adds to and rank 0 reads, without anybody waiting: for progress displays.
#pragma once

#include <cstdint>
#include <memory>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class SharedCounter {
 public:
  /// Every rank makes its counters in the same order: that is how their messages are told apart.
  explicit SharedCounter(const Communicator& comm);
  ~SharedCounter();

  /// Adds on any rank; messages to rank 0 are at most ten a second.
  void add(std::int64_t n);
  /// Rank 0: all that has arrived so far. Other ranks: their own part.
  std::int64_t total();
  /// Called once by every rank; afterwards rank 0 holds the full total. Only rank 0 waits for others.
  void finish();
  /// Instead of `finish` where this rank has failed: releases rank 0 from waiting for this rank, and waits for nobody.
  void abandon() noexcept;
  bool is_root() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbriel
