#include "umbriel/statistics/ensemble.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "umbriel/core/check.hpp"

namespace umbriel {

double quantile_of_sorted(const std::vector<float>& sorted, double level) {
  if (sorted.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double position = level * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double fraction = position - static_cast<double>(below);
  return (1 - fraction) * static_cast<double>(sorted[below]) + fraction * static_cast<double>(sorted[above]);
}

EnsembleSummary summarise(const Communicator& comm, const std::vector<float>& local, std::int64_t pixels,
                          const std::vector<double>& levels) {
  require(pixels > 0 && static_cast<std::int64_t>(local.size()) % pixels == 0, ExitCode::usage,
          "the ensemble is not made of whole maps");
  const std::int64_t here = static_cast<std::int64_t>(local.size()) / pixels;
  std::vector<std::vector<float>> send(static_cast<std::size_t>(comm.size()));
  for (int rank = 0; rank < comm.size(); ++rank) {
    const ShardRange slab = shard_range(pixels, rank, comm.size());
    auto& block = send[static_cast<std::size_t>(rank)];
    block.reserve(static_cast<std::size_t>(here * slab.count));
    for (std::int64_t map = 0; map < here; ++map) {
      const auto first = local.begin() + map * pixels + slab.first;
      block.insert(block.end(), first, first + slab.count);
    }
  }
  const auto received = comm.exchange(send);
  send.clear();

  const ShardRange mine = shard_range(pixels, comm.rank(), comm.size());
  const auto slab = static_cast<std::size_t>(mine.count);
  std::vector<float> mean(slab), deviation(slab);
  std::vector<std::vector<float>> quantiles(levels.size(), std::vector<float>(slab));
  std::vector<float> values;
  std::int64_t counted = 0;
  for (std::size_t pixel = 0; pixel < slab; ++pixel) {
    values.clear();
    for (const auto& block : received) {
      for (std::size_t at = pixel; at < block.size(); at += slab) {
        if (std::isfinite(block[at])) values.push_back(block[at]);
      }
    }
    counted = std::max(counted, static_cast<std::int64_t>(values.size()));
    const auto n = static_cast<double>(values.size());
    double sum = 0, square = 0;
    for (const float v : values) sum += static_cast<double>(v);
    const double centre = sum / n;
    for (const float v : values) square += (static_cast<double>(v) - centre) * (static_cast<double>(v) - centre);
    mean[pixel] = static_cast<float>(centre);
    deviation[pixel] = static_cast<float>(std::sqrt(square / (n - 1)));
    if (levels.empty()) continue;
    std::sort(values.begin(), values.end());
    for (std::size_t q = 0; q < levels.size(); ++q)
      quantiles[q][pixel] = static_cast<float>(quantile_of_sorted(values, levels[q]));
  }

  EnsembleSummary summary;
  summary.maps = comm.max(counted);
  summary.mean = comm.gather(mean);
  summary.standard_deviation = comm.gather(deviation);
  for (const auto& level : quantiles) summary.quantiles.push_back(comm.gather(level));
  return summary;
}

}  // namespace umbriel
