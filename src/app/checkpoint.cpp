#include "umbriel/app/checkpoint.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <sstream>

#include "umbriel/base/log.hpp"

namespace umbriel {
namespace {

/// The scalars of a finished chain in one row: a table is simpler than a dataset each.
// chain, diverged, accept_rate, energy_error, score_evaluations, density_evaluations
constexpr std::size_t scalars = 6;

/// Rows of `width` numbers, one an item, padded with NaN where an item has fewer.
template <class T, class Item, class Get>
std::vector<T> table_of(const std::vector<Item>& items, std::size_t width, const Get& get) {
  std::vector<T> table;
  table.reserve(items.size() * width);
  for (const Item& item : items) {
    const auto& values = get(item);
    table.insert(table.end(), values.begin(), values.end());
    table.resize(table.size() + (width - values.size()), std::numeric_limits<T>::quiet_NaN());
  }
  return table;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

Rows::Rows(const Communicator& comm, std::size_t here) : count(here) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(comm.size()), 0);
  counts[static_cast<std::size_t>(comm.rank())] = static_cast<std::int64_t>(here);
  comm.sum(counts.data(), counts.size());
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto n = static_cast<std::uint64_t>(counts[static_cast<std::size_t>(rank)]);
    if (rank < comm.rank()) first += n;
    total += n;
  }
}

std::string checkpoint_path(const std::string& output) { return output + ".checkpoint"; }

std::string difference_of(const std::string& now, const std::string& then) {
  const std::vector<std::string> here = lines_of(now), there = lines_of(then);
  std::string text;
  const auto list = [&](const char* whose, const std::vector<std::string>& from,
                        const std::vector<std::string>& other) {
    for (const std::string& line : from) {
      if (std::find(other.begin(), other.end(), line) != other.end()) continue;
      text.append(text.empty() ? "" : "; ").append(whose).append(" \"").append(line).append("\"");
    }
  };
  list("the checkpoint has", there, here);
  list("the configuration", here, there);
  return text;
}

std::string identity_of(const Config& config, std::uint64_t seed, const std::vector<InputRecord>& inputs,
                        const std::vector<std::string>& but) {
  std::string identity;
  for (const std::string& line : lines_of(config.resolved())) {
    if (std::none_of(but.begin(), but.end(), [&](const auto& start) { return line.rfind(start, 0) == 0; }))
      identity += line + "\n";
  }
  identity += "seed = " + std::to_string(seed) + "\n";
  for (const InputRecord& input : inputs) identity += "input " + input.sha256 + "\n";
  return identity;
}

void require_same_configuration(const std::string& now, const std::string& then, const std::string& path,
                                bool overridden) {
  if (now == then) return;
  const std::string what = "the checkpoint was made with another configuration: " + difference_of(now, then);
  require(overridden, ExitCode::usage, what, path,
          "run with the old configuration, remove the checkpoint to start anew, or go on all the same with --override");
  log::warn(what + " (" + path + "); going on all the same, as --override asks");
}

void write_checkpoint(const Communicator& comm, const std::string& path, const std::string& identity,
                      const HmcOptions& options, std::size_t sample_size, std::size_t state_floats,
                      const Checkpoint& chains) {
  const auto trace = static_cast<std::uint64_t>(options.trace_length());
  const auto tail = static_cast<std::uint64_t>(options.tail) * monitored_quantities;
  ResultFile file(path, comm, "checkpoint");
  Hdf5Writer& hdf5 = file.hdf5();
  {
    const Rows rows(comm, chains.finished.size());
    std::vector<double> table;
    for (const ChainResult& chain : chains.finished) {
      for (const double value :
           {static_cast<double>(chain.chain), chain.diverged ? 1.0 : 0.0, chain.accept_rate, chain.energy_error,
            static_cast<double>(chain.score_evaluations), static_cast<double>(chain.density_evaluations)})
        table.push_back(value);
    }
    const auto write = [&](const std::string& name, const std::string& words, std::uint64_t width, const auto& values) {
      using T = std::decay_t<decltype(values.front())>;
      hdf5.write_sharded<T>({"/" + name, {}, "1", words}, {rows.total, width}, rows.first, rows.count, values.data());
    };
    const auto& list = chains.finished;
    write("sample", "final states", sample_size,
          table_of<float>(
              list, sample_size, [](const ChainResult& c) -> auto& { return c.sample; }));
    if (options.sharpened())
      write("mean", "means over tails", sample_size,
            table_of<float>(
                list, sample_size, [](const ChainResult& c) -> auto& { return c.mean; }));
    write("sigma", "temperatures", trace,
          table_of<float>(
              list, trace, [](const ChainResult& c) -> auto& { return c.trace_sigma; }));
    write("log_density", "log-densities", trace,
          table_of<double>(
              list, trace, [](const ChainResult& c) -> auto& { return c.trace_log_density; }));
    write("tail", "monitored scalars", tail,
          table_of<double>(
              list, tail, [](const ChainResult& c) -> auto& { return c.tail; }));
    write("table", "chain, diverged, accept_rate, energy_error, score_evaluations, density_evaluations", scalars,
          table);
  }
  {
    const Rows rows(comm, chains.under_way.size());
    std::vector<std::int64_t> lengths;
    for (const ChainState& state : chains.under_way) {
      for (const std::size_t n : {state.trace_sigma.size(), state.trace_log_density.size(), state.tail.size()})
        lengths.push_back(static_cast<std::int64_t>(n));
    }
    const auto write = [&](const std::string& name, const std::string& words, std::uint64_t width, const auto& values) {
      using T = std::decay_t<decltype(values.front())>;
      hdf5.write_sharded<T>({"/under_way/" + name, {}, "1", words}, {rows.total, width}, rows.first, rows.count,
                            values.data());
    };
    const auto& list = chains.under_way;
    const std::uint64_t numbers = AnnealedHmc::state_numbers();
    write("numbers", "numbers of a chain's state", numbers,
          table_of<double>(
              list, numbers, [](const ChainState& c) -> auto& { return c.numbers; }));
    write("arrays", "arrays of a chain's state", state_floats,
          table_of<float>(
              list, state_floats, [](const ChainState& c) -> auto& { return c.arrays; }));
    write("sigma", "temperatures so far", trace,
          table_of<float>(
              list, trace, [](const ChainState& c) -> auto& { return c.trace_sigma; }));
    write("log_density", "log-densities so far", trace,
          table_of<double>(
              list, trace, [](const ChainState& c) -> auto& { return c.trace_log_density; }));
    write("tail", "monitored scalars so far", tail,
          table_of<double>(
              list, tail, [](const ChainState& c) -> auto& { return c.tail; }));
    write("lengths", "of sigma, log_density and tail", 3, lengths);
  }
  hdf5.attribute("/", "schema_version", static_cast<std::int64_t>(schema_version));
  hdf5.attribute("/", "command", std::string("checkpoint"));
  hdf5.attribute("/", "identity", identity);
  hdf5.commit(true);
}

std::string open_checkpoint(const Communicator& comm, const std::string& path, const std::string& identity,
                            bool overridden) {
  const std::string good = newest_good_generation(
      comm, path, [](const std::string& what) { log::warn("a checkpoint is not good and is passed over: " + what); });
  if (comm.is_root() && !good.empty() && good != path) log::warn("going on from the generation before: " + good);
  comm.together([&] {
    if (good.empty() || !comm.is_root()) return;
    require_same_configuration(identity, Hdf5Reader(good).attribute("/", "identity"), good, overridden);
  });
  return good;
}

Checkpoint read_checkpoint(const Communicator& comm, const std::string& good, const HmcOptions& options,
                           std::size_t sample_size, std::size_t state_floats, const ShardRange& shard) {
  Checkpoint chains;
  if (good.empty()) return chains;
  comm.together([&] {
    const Hdf5Reader file(good);
    const auto trace = static_cast<std::size_t>(options.trace_length());
    const auto tail = static_cast<std::size_t>(options.tail) * monitored_quantities;
    const auto check = [&](bool sound, const std::string& dataset) {
      require(sound, ExitCode::input, "the checkpoint does not hold what it should", good + ", " + dataset,
              "remove it to start anew");
    };
    // Rows of a table of so many columns; as many as the others of its group.
    const auto rows = [&](const std::string& dataset, std::size_t columns, std::optional<std::uint64_t> expected) {
      const std::vector<std::uint64_t> shape = file.shape(dataset);
      check(shape.size() == 2 && shape[1] == columns && (!expected || shape[0] == *expected), dataset);
      return shape[0];
    };
    std::set<double> taken;
    // A whole number that a double holds exactly. Chains count from 0, and none is there twice.
    const auto whole = [&](double value, const std::string& dataset) {
      constexpr double largest = 9007199254740992.0;  // 2^53
      check(std::abs(value) <= largest && value == std::floor(value), dataset);
      return static_cast<std::int64_t>(value);
    };
    const auto chain_of = [&](double value, const std::string& dataset) {
      const std::int64_t chain = whole(value, dataset);
      check(chain >= 0 && taken.insert(value).second, dataset);
      return chain;
    };
    const auto mine = [&](std::int64_t chain) { return chain >= shard.first && chain < shard.first + shard.count; };

    const std::uint64_t finished = rows("/table", scalars, {});
    rows("/sample", sample_size, finished);
    if (options.sharpened()) rows("/mean", sample_size, finished);
    for (const char* dataset : {"/sigma", "/log_density"}) rows(dataset, trace, finished);
    rows("/tail", tail, finished);
    const std::vector<double> table = file.read<double>("/table");
    for (std::size_t row = 0; row < finished; ++row) {
      const double* values = table.data() + row * scalars;
      ChainResult chain;
      chain.chain = chain_of(values[0], "/table");
      if (!mine(chain.chain)) continue;
      chain.diverged = values[1] != 0;
      chain.accept_rate = values[2];
      chain.energy_error = values[3];
      chain.score_evaluations = whole(values[4], "/table");
      chain.density_evaluations = whole(values[5], "/table");
      chain.sample = file.read<float>("/sample", row, 1);
      if (options.sharpened()) chain.mean = file.read<float>("/mean", row, 1);
      chain.trace_sigma = file.read<float>("/sigma", row, 1);
      chain.trace_log_density = file.read<double>("/log_density", row, 1);
      chain.tail = file.read<double>("/tail", row, 1);
      chains.finished.push_back(std::move(chain));
    }

    const std::size_t wide = AnnealedHmc::state_numbers();
    const std::uint64_t under_way = rows("/under_way/numbers", wide, {});
    rows("/under_way/arrays", state_floats, under_way);
    for (const char* dataset : {"/under_way/sigma", "/under_way/log_density"}) rows(dataset, trace, under_way);
    rows("/under_way/tail", tail, under_way);
    rows("/under_way/lengths", 3, under_way);
    const std::vector<double> numbers = file.read<double>("/under_way/numbers");
    const std::vector<std::int64_t> lengths = file.read<std::int64_t>("/under_way/lengths");
    for (std::size_t row = 0; row < under_way; ++row) {
      ChainState state;
      state.chain = chain_of(numbers[row * wide], "/under_way/numbers");  // a state begins with the chain's index
      if (!mine(state.chain)) continue;
      state.numbers.assign(numbers.begin() + static_cast<std::ptrdiff_t>(row * wide),
                           numbers.begin() + static_cast<std::ptrdiff_t>((row + 1) * wide));
      state.arrays = file.read<float>("/under_way/arrays", row, 1);
      state.trace_sigma = file.read<float>("/under_way/sigma", row, 1);
      state.trace_log_density = file.read<double>("/under_way/log_density", row, 1);
      state.tail = file.read<double>("/under_way/tail", row, 1);
      // Rows are as long as those of finished chains: what a chain has not reached yet is cut off.
      const auto cut = [&](auto& values, std::int64_t length) {
        check(length >= 0 && static_cast<std::uint64_t>(length) <= values.size(), "/under_way/lengths");
        values.resize(static_cast<std::size_t>(length));
      };
      cut(state.trace_sigma, lengths[3 * row]);
      cut(state.trace_log_density, lengths[3 * row + 1]);
      cut(state.tail, lengths[3 * row + 2]);
      chains.under_way.push_back(std::move(state));
    }
  });
  return chains;
}

void remove_checkpoint(const std::string& path) {
  remove_leftovers(path);
  std::filesystem::remove(path);
  std::filesystem::remove(previous_generation(path));
}

}  // namespace umbriel
