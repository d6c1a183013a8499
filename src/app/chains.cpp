#include "umbriel/app/chains.hpp"

#include <algorithm>

#include "umbriel/inference/spectra.hpp"
#include "umbriel/mpi/watchdog.hpp"

namespace umbriel {

SpectrumBatch chain_start(const Space& space, const Problem& problem, const ConvergencePosterior& posterior,
                          const HmcOptions& options) {
  const Grid grid = posterior.grid();
  const int fields = posterior.fields();
  SpectrumBatch start("umbriel::chain_start", fields, grid.height, grid.half_width());
  if (options.mode == HmcOptions::Mode::paper) {
    const MapBatch kaiser = kaiser_squires(space, problem.survey, posterior.fft(), 0);
    to_spectra(space, posterior.fft(), fields, kaiser, start);  // E, then B
    space.fence();
  }
  return start;
}

std::vector<ChainResult> run_chains(const Space& space, const Problem& problem, const ConvergencePosterior& posterior,
                                    const SpectrumBatch& start, const HmcOptions& options,
                                    const std::vector<std::int64_t>& chains,
                                    const std::function<void(double)>& advanced, const std::function<bool()>& stop) {
  AnnealedHmc sampler(posterior, posterior.fft(), start, options, problem.learned.get());
  sampler.add(chains);
  std::vector<ChainResult> results;
  sampler.run(
      space, [&](ChainResult&& chain) { results.push_back(std::move(chain)); }, advanced,
      [&] {
        report_alive();
        return stop && stop();
      });
  std::sort(results.begin(), results.end(), [](const auto& a, const auto& b) { return a.chain < b.chain; });
  return results;
}

std::vector<std::int64_t> indices_of(const ShardRange& shard) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(shard.count));
  for (std::int64_t i = 0; i < shard.count; ++i) indices[static_cast<std::size_t>(i)] = shard.first + i;
  return indices;
}

}  // namespace umbriel
