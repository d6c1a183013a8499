/// How a sum over ranks is split so that its bits do not depend on the algorithm MPI picks: rank r receives piece r of
/// everyone, adds the pieces in pairs of neighbouring ranks, and all gather the sums.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "umbriel/core/loops.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel::detail {

/// Arguments of MPI_Alltoallv and MPI_Allgatherv for one array, which is the same length on every rank. A rank's own
/// piece stays where it is.
struct RankOrderPieces {
  int rank = 0;
  std::vector<int> counts, offsets;        ///< piece r of the array
  std::vector<int> out_counts;             ///< what of it goes to rank r
  std::vector<int> in_counts, in_offsets;  ///< what this rank receives from rank r

  RankOrderPieces() = default;
  /// @param n    at most 2^31 - 1 less the number of ranks: offsets may exceed the length by one a rank
  /// @param row  a piece is so many elements, or a multiple; the array's end may cut the last one short
  RankOrderPieces(const Communicator& comm, std::size_t n, std::int64_t row = 1) : rank(comm.rank()) {
    const int ranks = comm.size();
    const auto length = static_cast<std::int64_t>(n);
    for (int r = 0; r < ranks; ++r) {
      const ShardRange rows = shard_range((length + row - 1) / row, r, ranks);
      const std::int64_t first = std::min(length, rows.first * row), end = std::min(length, first + rows.count * row);
      counts.push_back(static_cast<int>(end - first));
      offsets.push_back(static_cast<int>(first));
    }
    out_counts = counts;
    out_counts[rank] = 0;
    in_counts.assign(ranks, mine());
    in_counts[rank] = 0;
    for (int r = 0; r < ranks; ++r) in_offsets.push_back((r < rank ? r : std::max(r - 1, 0)) * mine());
  }

  int mine() const { return counts[rank]; }
  std::size_t received() const { return static_cast<std::size_t>(mine()) * (counts.size() - 1); }
};

/// This rank's piece of `array` <- sum over ranks, ((0 + 1) + (2 + 3)) + ...: in pairs, so that 2^n ranks give what one
/// rank gives that adds up its parts alike (GradientSum).
/// @param received  of the others; used up
template <class T>
void add_in_pairs(const RankOrderPieces& pieces, T* array, T* received) {
  const int ranks = static_cast<int>(pieces.counts.size()), n = pieces.mine();
  T* const mine = array + pieces.offsets[pieces.rank];
  const auto of_rank = [&](int r) { return r == pieces.rank ? mine : received + pieces.in_offsets[r]; };
  for (int distance = 1; distance < ranks; distance *= 2) {
    const bool last = 2 * distance >= ranks;
    for (int r = 0; r + distance < ranks; r += 2 * distance) {
      const T *a = of_rank(r), *b = of_rank(r + distance);
      T* const sum = last ? mine : of_rank(r);
      UMBRIEL_INDEPENDENT_ITERATIONS
      for (int i = 0; i < n; ++i) sum[i] = a[i] + b[i];
    }
  }
}

}  // namespace umbriel::detail
