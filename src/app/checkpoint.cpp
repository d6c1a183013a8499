#include "umbriel/app/checkpoint.hpp"

#include <filesystem>

namespace umbriel {
namespace {

/// The scalars of a chain in one row: a table is simpler than a dataset each.
// chain, diverged, accept_rate, energy_error, score_evaluations, density_evaluations
constexpr std::size_t scalars = 6;

/// The first line in which two configurations differ.
std::string difference(const std::string& now, const std::string& then) {
  std::size_t at = 0;
  while (at < now.size() && at < then.size() && now[at] == then[at]) ++at;
  const auto line = [&](const std::string& text) {
    const std::size_t before = text.rfind('\n', at == 0 ? 0 : at - 1);
    const std::size_t begin = before == std::string::npos ? 0 : before + 1;
    return text.substr(begin, text.find('\n', std::max(begin, std::min(at, text.size()))) - begin);
  };
  return "it has \"" + line(then) + "\", the configuration \"" + line(now) + "\"";
}

}  // namespace

std::string checkpoint_path(const std::string& output) { return output + ".checkpoint"; }

void write_checkpoint(const Communicator& comm, const std::string& path, const std::string& identity,
                      const HmcOptions& options, std::size_t sample_size, const std::vector<ChainResult>& chains) {
  // Ranks hold any number of finished chains: theirs follow those of the lower ranks.
  const auto here = static_cast<std::uint64_t>(chains.size());
  std::vector<std::int64_t> counts(static_cast<std::size_t>(comm.size()), 0);
  counts[static_cast<std::size_t>(comm.rank())] = static_cast<std::int64_t>(here);
  comm.sum(counts.data(), counts.size());
  std::uint64_t first = 0, total = 0;
  for (int rank = 0; rank < comm.size(); ++rank) {
    if (rank < comm.rank()) first += static_cast<std::uint64_t>(counts[static_cast<std::size_t>(rank)]);
    total += static_cast<std::uint64_t>(counts[static_cast<std::size_t>(rank)]);
  }
  std::vector<float> samples, sigma;
  std::vector<double> table, log_density, tail;
  for (const ChainResult& chain : chains) {
    samples.insert(samples.end(), chain.sample.begin(), chain.sample.end());
    sigma.insert(sigma.end(), chain.trace_sigma.begin(), chain.trace_sigma.end());
    log_density.insert(log_density.end(), chain.trace_log_density.begin(), chain.trace_log_density.end());
    tail.insert(tail.end(), chain.tail.begin(), chain.tail.end());
    for (const double value : {static_cast<double>(chain.chain), chain.diverged ? 1.0 : 0.0, chain.accept_rate,
                               chain.energy_error, static_cast<double>(chain.score_evaluations),
                               static_cast<double>(chain.density_evaluations)})
      table.push_back(value);
  }
  const auto trace = static_cast<std::uint64_t>(options.trace_length());
  ResultFile file(path, comm, "checkpoint");
  Hdf5Writer& hdf5 = file.hdf5();
  hdf5.write_sharded<float>({"/sample", {}, "1", "final states"}, {total, sample_size}, first, here, samples.data());
  hdf5.write_sharded<float>({"/sigma", {}, "1", "temperatures"}, {total, trace}, first, here, sigma.data());
  hdf5.write_sharded<double>({"/log_density", {}, "1", "log-densities"}, {total, trace}, first, here,
                             log_density.data());
  hdf5.write_sharded<double>({"/tail", {}, "1", "monitored scalars"},
                             {total, static_cast<std::uint64_t>(options.tail) * monitored_quantities}, first, here,
                             tail.data());
  hdf5.write_sharded<double>({"/table", {}, "1", "chain, diverged, accept_rate, energy_error, score_evaluations, density_evaluations"},
                             {total, scalars}, first, here, table.data());
  hdf5.attribute("/", "schema_version", static_cast<std::int64_t>(schema_version));
  hdf5.attribute("/", "command", std::string("checkpoint"));
  hdf5.attribute("/", "identity", identity);
  file.commit();
}

std::vector<ChainResult> read_checkpoint(const std::string& path, const std::string& identity,
                                         const HmcOptions& options, std::size_t sample_size, const ShardRange& shard) {
  std::vector<ChainResult> chains;
  if (!std::filesystem::exists(path)) return chains;
  const Hdf5Reader file(path);
  const std::string then = file.attribute("/", "identity");
  require(then == identity, ExitCode::usage,
          "the checkpoint was made with another configuration: " + difference(identity, then), path,
          "run with the old configuration, or remove the checkpoint to start anew");
  const std::vector<double> table = file.read<double>("/table");
  const auto trace = static_cast<std::size_t>(options.trace_length());
  const auto tail = static_cast<std::size_t>(options.tail) * monitored_quantities;
  require(file.shape("/sample").back() == sample_size && file.shape("/sigma").back() == trace &&
              file.shape("/tail").back() == tail,
          ExitCode::input, "the checkpoint has arrays of other shapes", path, "remove it to start anew");
  for (std::size_t row = 0; row < table.size() / scalars; ++row) {
    const double* values = table.data() + row * scalars;
    const auto index = static_cast<std::int64_t>(values[0]);
    if (index < shard.first || index >= shard.first + shard.count) continue;
    ChainResult chain;
    chain.chain = index;
    chain.diverged = values[1] != 0;
    chain.accept_rate = values[2];
    chain.energy_error = values[3];
    chain.score_evaluations = static_cast<std::int64_t>(values[4]);
    chain.density_evaluations = static_cast<std::int64_t>(values[5]);
    chain.sample = file.read<float>("/sample", row, 1);
    chain.trace_sigma = file.read<float>("/sigma", row, 1);
    chain.trace_log_density = file.read<double>("/log_density", row, 1);
    chain.tail = file.read<double>("/tail", row, 1);
    chains.push_back(std::move(chain));
  }
  return chains;
}

}  // namespace umbriel
