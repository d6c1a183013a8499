/// Checkpoints of `sample`: the chains that are finished, and those on their way. A chain is a pure function of its
/// index and goes on with the same bits wherever it is taken up, so a resumed run, on any number of ranks, ends with
/// the same data as one that was never stopped. Two generations are kept: the one before the newest stays until the
/// newest is good.
#pragma once

#include <string>
#include <vector>

#include "umbriel/app/problem.hpp"

namespace umbriel {

struct Checkpoint {
  std::vector<ChainResult> finished;
  std::vector<ChainState> under_way;
};

/// "x.h5" -> "x.h5.checkpoint"
std::string checkpoint_path(const std::string& output);

/// Writes the chains of all ranks. Collective. @param identity  configuration that decides the chains
void write_checkpoint(const Communicator& comm, const std::string& path, const std::string& identity,
                      const HmcOptions& options, std::size_t sample_size, std::size_t state_floats,
                      const Checkpoint& chains);

/// What a checkpoint of chains must agree with: every line of the configuration but those that begin with one of `but`,
/// the seed and the inputs.
std::string identity_of(const Config& config, std::uint64_t seed, const std::vector<InputRecord>& inputs,
                        const std::vector<std::string>& but);

/// Throws Error(usage) with the lines that differ unless a checkpoint was made with this configuration, or only says so
/// where the user has overridden that.
void require_same_configuration(const std::string& now, const std::string& then, const std::string& path,
                                bool overridden);

/// Chains of this rank's `shard` that the newest good generation holds; none if there is no checkpoint. Collective.
/// @throws Error(usage) if it was made with another configuration, Error(input) if none is good
Checkpoint read_checkpoint(const Communicator& comm, const std::string& path, const std::string& identity,
                           const HmcOptions& options, std::size_t sample_size, std::size_t state_floats,
                           const ShardRange& shard, bool overridden = false);

/// The newest good generation of a checkpoint, with a warning about those that are not; empty if there is none.
/// Collective.
std::string newest_good_checkpoint(const Communicator& comm, const std::string& path);

/// Removes all generations, once the result is safe.
void remove_checkpoint(const std::string& path);

}  // namespace umbriel
