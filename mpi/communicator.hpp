/// A group of ranks: a small value that also works alone.
///
/// A default-made communicator is one rank and never calls MPI. Every call is collective unless it says otherwise;
/// every failure is an Error(communication) naming the call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace umbriel {

class Communicator {
 public:
  Communicator() = default;  ///< this process alone
  /// All ranks of the job; needs MPI_Init to have been called (see MpiSession).
  static Communicator world();

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }

  void barrier() const;

  /// @{ In-place reductions of n values over ranks. Integer results and extrema are exact; for sums of floating-point
  /// values that must not depend on the number of ranks use ExactSum (exact_sum.hpp).
  void sum(std::int64_t* values, std::size_t n) const;
  void max(std::int64_t* values, std::size_t n) const;
  void min(std::int64_t* values, std::size_t n) const;
  void max(double* values, std::size_t n) const;
  void min(double* values, std::size_t n) const;
  std::int64_t sum(std::int64_t value) const {
    sum(&value, 1);
    return value;
  }
  std::int64_t max(std::int64_t value) const {
    max(&value, 1);
    return value;
  }
  std::int64_t min(std::int64_t value) const {
    min(&value, 1);
    return value;
  }
  /// @}

  void broadcast(void* bytes, std::size_t n, int root = 0) const;
  std::string broadcast(std::string text, int root = 0) const;

  /// Concatenation over ranks, in rank order, of blocks of different length; empty on ranks other than root.
  std::vector<std::byte> gather(const std::vector<std::byte>& block, int root = 0) const;
  template <class T>
  std::vector<T> gather(const std::vector<T>& block, int root = 0) const {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto* first = reinterpret_cast<const std::byte*>(block.data());
    const auto bytes = gather(std::vector<std::byte>(first, first + block.size() * sizeof(T)), root);
    std::vector<T> all(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(all.data(), bytes.data(), bytes.size());
    return all;
  }

  /// Personalised exchange: block r of `send` goes to rank r; returns the blocks received, in rank order. T: float,
  /// std::int64_t.
  template <class T>
  std::vector<std::vector<T>> exchange(const std::vector<std::vector<T>>& send) const;

  /// Runs `action` on every rank and makes the ranks agree: if it threw on any rank, every rank throws the error of the
  /// lowest such rank (its message names that rank). No rank is left waiting.
  void together(const std::function<void()>& action) const;

  /// The ranks that give the same `colour` >= 0, in the order of their ranks here.
  Communicator split(int colour) const;

  /// The MPI_Comm as an opaque value for the HDF5 and NCCL layers; null for a process alone.
  void* native() const { return comm_.get(); }

 private:
  /// @param handle  an MPI_Comm from new, which it takes over
  static Communicator own(void* handle);

  std::shared_ptr<void> comm_;
  int rank_ = 0;
  int size_ = 1;
};

/// Starts MPI for the life of the program and stops it; a process not started by mpirun or srun becomes one rank.
class MpiSession {
 public:
  MpiSession(int& argc, char**& argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

/// Ends every rank of the job with `exit_code`: for errors that the ranks cannot agree on any more.
[[noreturn]] void abort_job(int exit_code);

/// Items [first, first + count) of `total`, the share of rank `rank` out of `size`: contiguous, sizes differ by at most
/// one, lower ranks hold the longer ones.
struct ShardRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};
ShardRange shard_range(std::int64_t total, int rank, int size);
/// The rank whose share has item `item` of `total`.
int rank_of_item(std::int64_t item, std::int64_t total, int size);

}  // namespace umbriel
