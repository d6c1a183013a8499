/// Pixel statistics of an ensemble of maps that is sharded over ranks, with the same bits for any number of ranks.
///
/// Ranks exchange slabs of pixels so that each holds all maps of its slab, and work through them in index order.
#pragma once

#include <cstdint>
#include <vector>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

/// Statistics of each pixel over the maps that are finite; on rank 0, empty elsewhere.
struct EnsembleSummary {
  std::int64_t maps = 0;                        ///< maps counted
  std::vector<float> mean, standard_deviation;  ///< [pixel]; deviation with 1/(n - 1), NaN for one map
  std::vector<std::vector<float>> quantiles;    ///< [level][pixel], linear between order statistics (numpy's default)
};

/// @param local   this rank's maps, one after the other: maps [first of rank, ...) in rank order, each `pixels` long
/// @param levels  quantile levels in [0, 1]
EnsembleSummary summarise(const Communicator& comm, const std::vector<float>& local, std::int64_t pixels,
                          const std::vector<double>& levels);

/// Quantile of sorted values, linear between order statistics.
double quantile_of_sorted(const std::vector<float>& sorted, double level);

}  // namespace umbriel
