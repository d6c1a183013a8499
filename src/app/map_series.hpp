/// Maps drawn one by one, sharded over ranks: what `simulate kappa`, `generate`, `reconstruct` and others have in
/// common. Ranks that are done help the others; in the end every rank has the maps of its shard.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/app/series_parameters.hpp"
#include "umbriel/core/views.hpp"

namespace umbriel {

struct MapSeries {
  std::string command;  ///< "simulate kappa"
  std::string doing;    ///< "simulating"
  std::string dataset;  ///< "/simulation/kappa"
  std::string long_name = "convergence";
  std::string output;
  std::string identity;  ///< what a checkpoint must agree with
  RunLimits limits;
  std::uint64_t seed = 0;
  std::int64_t samples = 0;
  Grid grid;
  double pixel_arcmin = 0;
  std::vector<InputRecord> inputs;
  SeriesParameters parameters;  ///< of the maps, to be written beside them
  int batch = 16;               ///< maps drawn at once
  /// out[i] <- map first + i, i < n <= batch; a function of that number alone, on whatever rank.
  std::function<void(std::int64_t first, int n, const MapBatch& out)> draw;
  /// Writes what else belongs into the result, given this rank's maps [map of the shard, y, x]. Collective; may be
  /// none.
  std::function<void(ResultFile& result, const ShardRange& shard, const std::vector<float>& maps)> more;
};

/// A series with output, seed and limits as the configuration has them.
/// @throws Error(usage)
MapSeries read_series(const Config& config);

/// Draws the maps and writes the result, with checkpoints of what is drawn in between. Collective.
/// @return done or stopped
/// @throws Error
ExitCode draw_series(const CommandLine& line, const Stopwatch& watch, const MapSeries& series);

}  // namespace umbriel
