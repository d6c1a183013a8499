/// A flag that any rank raises and every rank comes to see, without anybody waiting: for requests to stop, which may
/// reach one process of a job alone.
#pragma once

#include <functional>
#include <memory>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class SharedFlag {
 public:
  /// Collective.
  explicit SharedFlag(const Communicator& comm);
  /// Collective, unless an exception is passing.
  ~SharedFlag();

  /// Tells the others, by way of rank 0. Only the first call does anything.
  void raise();
  /// True once it was raised here or the news has come. Rank 0 passes the news on here: call it often.
  bool raised();
  /// Waits until all ranks are here; news travel meanwhile. Collective. @param here  asked again and again: raise it?
  /// @return the same on every rank: was it raised?
  bool meet(const std::function<bool()>& here);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbriel
