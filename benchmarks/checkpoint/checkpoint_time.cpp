// Seconds that a checkpoint of `sample` takes, beside those of plain writes of as many bytes to the same disk.
//
//   mpirun -n 2 checkpoint_time --size 360 --chains 1024 --folder /scratch
//
// Chains hold random numbers; the last few are still on their way, as many as move together on all ranks. Plain writes:
// each rank writes its share to a file of its own and flushes it. Both in turn, in one run. Prints one line of JSON:
// seconds from when all ranks begin to when the last one ends, a repeat each.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/base/provenance.hpp"
#include "umbriel/core/check.hpp"

namespace {

using namespace umbriel;

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class Action>
double timed(const Communicator& comm, const Action& action) {
  comm.barrier();
  const double began = wall_seconds();
  action();
  double took = wall_seconds() - began;
  comm.max(&took, 1);
  return took;
}

/// Numbers no compressing file system makes smaller.
std::vector<float> noise(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (float& value : values) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    value = static_cast<float>(state >> 40) * 0x1p-24f - 0.5f;
  }
  return values;
}

void write_plainly(const std::string& path, std::uint64_t bytes, const std::vector<float>& values) {
  const auto must = [&](bool good) { require(good, ExitCode::file_system, "cannot write", path, "check the disk"); };
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  must(file >= 0);
  while (bytes > 0) {
    const std::uint64_t n = std::min<std::uint64_t>(bytes, values.size() * sizeof(float));
    must(::write(file, values.data(), n) == static_cast<ssize_t>(n));
    bytes -= n;
  }
  must(::fsync(file) == 0);
  ::close(file);
}

}  // namespace

int main(int argc, char** argv) {
  MpiSession mpi(argc, argv);
  const Communicator comm = Communicator::world();
  const Kokkos::ScopeGuard kokkos(argc, argv);
  CLI::App app("Seconds that a checkpoint takes, beside plain writes of as many bytes");
  int size = 360, chains = 256, under_way = 2, repeats = 3;
  std::string folder = ".";
  app.add_option("--size", size, "side of the maps in pixels")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--chains", chains, "finished chains of all ranks")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--under-way", under_way, "chains on their way, a rank")->capture_default_str();
  app.add_option("--repeats", repeats)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--folder", folder, "on the disk to be measured")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const std::size_t pixels = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  const HmcOptions options = HmcOptions().for_residual(0.003, 0.1, static_cast<double>(pixels));
  // Nine spectra, as with a learned prior.
  const std::size_t state_floats = 9 * 2 * static_cast<std::size_t>(size) * static_cast<std::size_t>(size / 2 + 1);
  const ShardRange shard = shard_range(chains, comm.rank(), comm.size());
  Checkpoint all;
  for (std::int64_t chain = shard.first; chain < shard.first + shard.count; ++chain) {
    ChainResult& result = all.finished.emplace_back();
    result.chain = chain;
    result.sample = noise(pixels, static_cast<std::uint64_t>(chain));
    result.mean = noise(pixels, static_cast<std::uint64_t>(chains + chain));
    result.trace_sigma.assign(static_cast<std::size_t>(options.trace_length()), 0.1f);
    result.trace_log_density.assign(static_cast<std::size_t>(options.trace_length()), 0.1);
    result.tail.assign(static_cast<std::size_t>(options.tail) * monitored_quantities, 0.1);
  }
  for (int i = 0; i < under_way; ++i) {
    ChainState& state = all.under_way.emplace_back();
    state.chain = chains + comm.rank() * under_way + i;
    state.numbers.assign(AnnealedHmc::state_numbers(), 0.5);
    state.numbers[0] = static_cast<double>(state.chain);
    state.arrays = noise(state_floats, static_cast<std::uint64_t>(state.chain));
  }

  const std::string path = folder + "/checkpoint_time.h5", plain = folder + "/checkpoint_time.plain.";
  const std::vector<float> values = noise(std::size_t{1} << 21, 7);
  std::vector<double> wall, plain_wall, read_wall;
  std::uint64_t bytes = 0;
  for (int i = 0; i < repeats; ++i) {
    wall.push_back(timed(comm, [&] { write_checkpoint(comm, path, "identity", options, pixels, state_floats, all); }));
    bytes = std::filesystem::file_size(path);
    plain_wall.push_back(timed(comm, [&] {
      write_plainly(plain + std::to_string(comm.rank()), bytes / static_cast<std::uint64_t>(comm.size()), values);
    }));
    read_wall.push_back(timed(comm, [&] {
      const Checkpoint back =
          read_checkpoint(comm, open_checkpoint(comm, path, "identity", false), options, pixels, state_floats, shard);
      require(back.finished.size() == static_cast<std::size_t>(shard.count), ExitCode::numerical, "chains are missing");
    }));
  }
  comm.barrier();
  std::filesystem::remove(plain + std::to_string(comm.rank()));
  if (comm.is_root()) {
    remove_checkpoint(path);
    std::printf("%s\n", nlohmann::json{{"size", size},
                                       {"chains", chains},
                                       {"under_way", under_way * comm.size()},
                                       {"ranks", comm.size()},
                                       {"bytes", bytes},
                                       {"wall", wall},
                                       {"plain_wall", plain_wall},
                                       {"read_wall", read_wall},
                                       {"revision", git_revision()},
                                       {"libraries", library_versions()}}
                            .dump()
                            .c_str());
  }
  return 0;
}
