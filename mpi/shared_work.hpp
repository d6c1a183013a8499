/// Items that ranks share as they get on: who is done with its own takes some from another.
///
/// Every rank begins with a shard of its own, so that most items are done where they belong. A rank that has none left
/// asks one neighbour after the other (the next ranks, which mostly sit on the same node), and who is asked gives the
/// second half of what it has not begun (work stealing, Blumofe & Leiserson 1999). Asked ranks answer between two
/// pieces, so nobody is interrupted, and no one-sided communication is needed, which Open MPI 4 lacks between nodes
/// without RDMA. A rank that fails ends the job as elsewhere; no other answers in its stead.
#pragma once

#include <functional>
#include <memory>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

class SharedWork {
 public:
  /// Collective. @param mine   the items that this rank begins with: those of all ranks are disjoint
  ///             @param piece  most items handed out by a `take`; the same on every rank
  SharedWork(const Communicator& comm, const ShardRange& mine, std::int64_t piece);
  /// Collective, after `meet`, unless an exception is passing.
  ~SharedWork();

  /// Items to do next, this rank's own or another's; count 0 when there are none to be had. May wait until a neighbour
  /// is between two pieces. Call it often: here others are answered.
  ShardRange take();

  /// Waits until all ranks are here, and answers them meanwhile. Collective, to be called before any other collective
  /// call. What is not taken yet stays for later. @param meanwhile  called again and again
  void meet(const std::function<void()>& meanwhile = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbriel
