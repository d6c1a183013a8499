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

/// This rank's rows among those of all ranks: theirs follow those of the lower ranks.
struct Rows {
  std::uint64_t first = 0, count = 0, total = 0;

  /// Collective. @param here  rows of this rank
  Rows(const Communicator& comm, std::size_t here);
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

/// The lines in which two of them differ.
std::string difference_of(const std::string& now, const std::string& then);

/// Throws Error(usage) with the lines that differ unless a checkpoint was made with this configuration, or only says so
/// where the user has overridden that.
void require_same_configuration(const std::string& now, const std::string& then, const std::string& path,
                                bool overridden);

/// The newest good generation of a checkpoint, with a warning about those that are not; empty if there is none. To be
/// called before work begins. Collective.
/// @throws Error(usage) if it was made with another configuration, Error(input) if there are generations but none is
///         good
std::string open_checkpoint(const Communicator& comm, const std::string& path, const std::string& identity,
                            bool overridden);

/// Chains of this rank's `shard` that a good generation holds; none without one (an empty name). Collective.
/// @throws Error(input) if it does not hold what it should
Checkpoint read_checkpoint(const Communicator& comm, const std::string& good, const HmcOptions& options,
                           std::size_t sample_size, std::size_t state_floats, const ShardRange& shard);

/// Removes all generations, once the result is safe.
void remove_checkpoint(const std::string& path);

}  // namespace umbriel
