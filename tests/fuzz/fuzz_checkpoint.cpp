// Checkpoints of `sample`. Input: changes to a good one (see hdf5_changes.hpp), which is sealed again.
#include <string>
#include <vector>

#include "hdf5_changes.hpp"
#include "support.hpp"
#include "umbriel/app/checkpoint.hpp"
#include "umbriel/base/log.hpp"

namespace umbriel {
// The one thing that checkpoints ask of the sampler, which takes long to build.
std::size_t AnnealedHmc::state_numbers() { return 5; }
}  // namespace umbriel

namespace {

using namespace umbriel;

constexpr std::size_t sample_size = 12, state_floats = 24;

HmcOptions options() {
  HmcOptions options;
  options.tail = 2;
  options.sharpen = true;
  return options;
}

std::string good_checkpoint() {
  log::start(1);  // only rank 0 speaks, and warnings of bad checkpoints are many
  const HmcOptions hmc = options();
  const auto trace = static_cast<std::size_t>(hmc.trace_length());
  const auto tail = static_cast<std::size_t>(hmc.tail) * monitored_quantities;
  Checkpoint chains;
  for (int chain = 0; chain < 3; ++chain) {
    ChainResult& result = chains.finished.emplace_back();
    result.chain = chain;
    result.sample.assign(sample_size, 0.5F);
    result.mean.assign(sample_size, 0.25F);
    result.trace_sigma.assign(trace, 0.1F);
    result.trace_log_density.assign(trace, -3);
    result.tail.assign(tail, 0.25);
  }
  for (int chain = 3; chain < 6; ++chain) {
    ChainState& state = chains.under_way.emplace_back();
    state.chain = chain;
    state.numbers = {static_cast<double>(chain), 1, 2, 3, 4};
    state.arrays.assign(state_floats, 0.5F);
    state.trace_sigma.assign(trace / 2, 0.1F);
    state.trace_log_density.assign(trace / 2, -3);
    state.tail.assign(tail / 2, 0.25);
  }
  const std::string path = fuzz::scratch_file(".good.h5", "", 0);
  write_checkpoint(Communicator(), path, "identity", hmc, sample_size, state_floats, chains);
  return fuzz::unsealed_bytes(path);
}

/// What the sampler relies on, whatever the file.
void require_sound(const Checkpoint& chains, const ShardRange& shard) {
  const HmcOptions hmc = options();
  const auto trace = static_cast<std::size_t>(hmc.trace_length());
  const auto tail = static_cast<std::size_t>(hmc.tail) * monitored_quantities;
  std::vector<bool> seen(static_cast<std::size_t>(shard.count), false);
  const auto mark = [&](std::int64_t chain) {
    if (chain < shard.first || chain >= shard.first + shard.count) fuzz::fail("a chain of another shard");
    if (seen[static_cast<std::size_t>(chain - shard.first)]) fuzz::fail("a chain twice");
    seen[static_cast<std::size_t>(chain - shard.first)] = true;
  };
  for (const ChainResult& chain : chains.finished) {
    mark(chain.chain);
    if (chain.sample.size() != sample_size || chain.mean.size() != sample_size || chain.trace_sigma.size() != trace ||
        chain.trace_log_density.size() != trace || chain.tail.size() != tail)
      fuzz::fail("a finished chain of another size");
  }
  for (const ChainState& chain : chains.under_way) {
    mark(chain.chain);
    if (chain.numbers.size() != AnnealedHmc::state_numbers() || chain.arrays.size() != state_floats ||
        chain.trace_sigma.size() > trace || chain.trace_log_density.size() > trace || chain.tail.size() > tail)
      fuzz::fail("a chain on its way of another size");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string good = good_checkpoint();
  const std::string path = fuzz::scratch_file(".checkpoint", good.data(), good.size());
  if (!fuzz::change_hdf5(path, data, size)) return 0;
  fuzz::seal(path);
  const ShardRange shard{1, 4};
  fuzz::refused([&] {
    const std::string good = open_checkpoint(Communicator(), path, "identity", false);
    require_sound(read_checkpoint(Communicator(), good, options(), sample_size, state_floats, shard), shard);
  });
  return 0;
}
