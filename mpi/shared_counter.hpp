/// A counter that every rank adds to and rank 0 reads, without anybody waiting: for progress displays.
#pragma once

#include <cstdint>
#include <memory>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class SharedCounter {
 public:
  explicit SharedCounter(const Communicator& comm);
  ~SharedCounter();

  /// Adds on any rank; messages to rank 0 are at most ten a second.
  void add(std::int64_t n);
  /// Rank 0: all that has arrived so far. Other ranks: their own part.
  std::int64_t total();
  /// Collective: afterwards rank 0 holds the full total. Called once.
  void finish();
  bool is_root() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbriel
