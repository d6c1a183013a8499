/// Progress of all ranks together, with rate and time left.
#pragma once

#include <cstdint>
#include <string>

#include "umbriel/base/provenance.hpp"
#include "umbriel/mpi/shared_counter.hpp"

namespace umbriel {

/// Counts units of work done by any rank; rank 0 shows a bar in a terminal, a plain line every half minute elsewhere.
/// The log gets the same, and an event once rank 0 has done its first unit.
class Progress {
 public:
  /// Every rank makes one. @param total  units over all ranks  @param unit  "chains", "mocks"
  Progress(const Communicator& comm, const std::string& title, std::int64_t total, const std::string& unit);
  /// Rank 0 waits here for the last counts of the others, unless an exception is passing.
  ~Progress();

  /// This rank did `n` more units, perhaps in fractions of one; `note` is shown behind the bar.
  void add(double n, const std::string& note = "");

 private:
  void show(bool last);

  SharedCounter counter_;  // millionths of a unit
  std::string title_, unit_, note_;
  std::int64_t total_;
  double shown_ = -1;  // seconds after the start; -1: not yet
  int exceptions_;
  Stopwatch watch_;
};

}  // namespace umbriel
