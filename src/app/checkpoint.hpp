/// Checkpoints of `sample`: the chains that are finished. A chain is a pure function of its index, so a resumed run,
/// on any number of ranks, ends with the same data as one that was never stopped.
#pragma once

#include <string>
#include <vector>

#include "umbriel/app/problem.hpp"

namespace umbriel {

/// "x.h5" -> "x.h5.checkpoint"
std::string checkpoint_path(const std::string& output);

/// Writes the finished chains of all ranks. Collective. @param identity  configuration that decides the chains
void write_checkpoint(const Communicator& comm, const std::string& path, const std::string& identity,
                      const HmcOptions& options, std::size_t sample_size, const std::vector<ChainResult>& chains);

/// Chains of `shard` that the checkpoint holds; empty if there is no checkpoint.
/// @throws Error(usage) if it was made with another configuration, Error(input) if it is damaged
std::vector<ChainResult> read_checkpoint(const std::string& path, const std::string& identity,
                                         const HmcOptions& options, std::size_t sample_size, const ShardRange& shard);

}  // namespace umbriel
