/// Runs the chains of a problem over all ranks: what `sample` and `validate` share.
#pragma once

#include <functional>
#include <vector>

#include "umbriel/app/reference.hpp"

namespace umbriel {

/// State about which chains start: zero, or in "paper" mode the Kaiser-Squires map of the masked data.
SpectrumBatch chain_start(const Space& space, const Problem& problem, const ConvergencePosterior& posterior,
                          const HmcOptions& options);

/// Runs `chains` on this rank alone, no checkpoints; results in order of chain.
/// @param stop  asked before every evaluation; what is returned after a stop is incomplete
std::vector<ChainResult> run_chains(const Space& space, const Problem& problem, const ConvergencePosterior& posterior,
                                    const SpectrumBatch& start, const HmcOptions& options,
                                    const std::vector<std::int64_t>& chains,
                                    const std::function<void(double)>& advanced,
                                    const std::function<bool()>& stop = {});

/// Indices first ... first + count - 1 of a shard.
std::vector<std::int64_t> indices_of(const ShardRange& shard);

}  // namespace umbriel
