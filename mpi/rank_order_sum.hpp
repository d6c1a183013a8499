/// How a sum over ranks is split so that its bits do not depend on the algorithm MPI picks: rank r receives piece r of
/// everyone, adds the pieces in pairs of neighbouring ranks, and all gather the sums.
#pragma once

#include <cstddef>
#include <vector>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel::detail {

/// Arguments of MPI_Alltoallv and MPI_Allgatherv for one array, which is the same length on every rank.
struct RankOrderPieces {
  std::vector<int> counts, offsets;        ///< piece r of the array
  std::vector<int> in_counts, in_offsets;  ///< what this rank receives from rank r
  int mine = 0;                            ///< length of this rank's piece

  RankOrderPieces() = default;
  /// @param n  at most 2^31 - 1 less the number of ranks: offsets may exceed the length by one a rank
  RankOrderPieces(const Communicator& comm, std::size_t n) {
    const int ranks = comm.size();
    for (int r = 0; r < ranks; ++r) {
      const ShardRange shard = shard_range(static_cast<std::int64_t>(n), r, ranks);
      counts.push_back(static_cast<int>(shard.count));
      offsets.push_back(static_cast<int>(shard.first));
    }
    mine = counts[comm.rank()];
    in_counts.assign(ranks, mine);
    for (int r = 0; r < ranks; ++r) in_offsets.push_back(r * mine);
  }

  std::size_t received() const { return static_cast<std::size_t>(mine) * counts.size(); }
};

/// The first `mine` of the received values <- sum over ranks, ((0 + 1) + (2 + 3)) + ...: in pairs, so that 2^n ranks
/// give what one rank gives that adds up its parts alike (GradientSum).
template <class T>
void add_in_pairs(const RankOrderPieces& pieces, T* received) {
  const std::size_t ranks = pieces.counts.size(), n = static_cast<std::size_t>(pieces.mine);
  for (std::size_t distance = 1; distance < ranks; distance *= 2) {
    for (std::size_t r = 0; r + distance < ranks; r += 2 * distance) {
      T* to = received + r * n;
      const T* from = received + (r + distance) * n;
      for (std::size_t i = 0; i < n; ++i) to[i] += from[i];
    }
  }
}

}  // namespace umbriel::detail
