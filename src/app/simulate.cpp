// umbriel simulate kappa: convergence maps with a given power spectrum, sharded over ranks.
#include <algorithm>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/simulation/convergence_map.hpp"
#include "umbriel/simulation/simulate.hpp"

namespace umbriel {
namespace {

/// Maps of this rank's shard, in order, and which of them are drawn.
struct Maps {
  ShardRange shard;
  std::size_t pixels = 0;
  std::vector<float> values;  // [map of the shard, y, x]
  std::vector<char> drawn;    // [map of the shard]

  Maps(const ShardRange& range, Grid grid)
      : shard(range),
        pixels(static_cast<std::size_t>(grid.pixels())),
        values(static_cast<std::size_t>(range.count) * pixels),
        drawn(static_cast<std::size_t>(range.count), 0) {}

  float* map(std::size_t local) { return values.data() + local * pixels; }
};

/// Saves the maps that all ranks have drawn. Collective.
void save(const Communicator& comm, const std::string& path, const std::string& identity, Maps& maps) {
  std::vector<std::int64_t> indices;
  std::vector<float> rows;
  for (std::size_t i = 0; i < maps.drawn.size(); ++i) {
    if (maps.drawn[i] == 0) continue;
    indices.push_back(maps.shard.first + static_cast<std::int64_t>(i));
    rows.insert(rows.end(), maps.map(i), maps.map(i) + maps.pixels);
  }
  const Rows part(comm, indices.size());
  ResultFile file(path, comm, "checkpoint of simulate");
  Hdf5Writer& hdf5 = file.hdf5();
  hdf5.write_sharded<std::int64_t>({"/index", {}, "1", "index of the map"}, {part.total}, part.first, part.count,
                                   indices.data());
  hdf5.write_sharded<float>({"/kappa", {}, "1", "convergence"}, {part.total, maps.pixels}, part.first, part.count,
                            rows.data());
  hdf5.attribute("/", "schema_version", static_cast<std::int64_t>(schema_version));
  hdf5.attribute("/", "command", std::string("checkpoint of simulate"));
  hdf5.attribute("/", "identity", identity);
  hdf5.commit(true);
}

/// Fills in the maps that a checkpoint holds. Collective.
void load(const Communicator& comm, const std::string& good, Maps& maps) {
  if (good.empty()) return;
  comm.together([&] {
    const Hdf5Reader file(good);
    const std::vector<std::uint64_t> shape = file.shape("/kappa");
    const std::vector<std::int64_t> indices = file.read<std::int64_t>("/index");
    require(shape.size() == 2 && shape[0] == indices.size() && (indices.empty() || shape[1] == maps.pixels),
            ExitCode::input, "the checkpoint has maps of another size", good, "remove it to start anew");
    for (std::size_t row = 0; row < indices.size(); ++row) {
      const std::int64_t local = indices[row] - maps.shard.first;
      if (local < 0 || local >= maps.shard.count) continue;
      const std::vector<float> map = file.read<float>("/kappa", row, 1);
      std::copy(map.begin(), map.end(), maps.map(static_cast<std::size_t>(local)));
      maps.drawn[static_cast<std::size_t>(local)] = 1;
    }
  });
}

}  // namespace

ExitCode run_simulate(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  std::string output;
  std::uint64_t seed = 0;
  std::int64_t samples = 0;
  Grid grid;
  double pixel = 0;
  RunLimits limits;
  std::string identity;
  std::unique_ptr<ConvergenceSimulator> simulator;
  std::vector<InputRecord> inputs;
  comm.together([&] {
    require(line.arguments == std::vector<std::string>{"kappa"}, ExitCode::usage,
            "umbriel cannot simulate " + line.arguments.front(), "umbriel simulate", "the target there is: kappa");
    output = read_output(config);
    seed = read_seed(config);
    samples = config.integer("simulate.samples", 1, 1, std::int64_t{1} << 31);
    const std::vector<double> size = config.numbers("simulate.size", std::vector<double>{360, 360});
    require(size.size() == 2 && std::all_of(size.begin(), size.end(), [](double n) { return n >= 2 && n <= 65536; }),
            ExitCode::usage, "the size is not two numbers from 2 to 65536", config.where("simulate.size"),
            "give [width, height] in pixels");
    grid = {static_cast<int>(size[1]), static_cast<int>(size[0])};
    pixel = config.number("simulate.pixel_arcmin", 0.29, 1e-4, 1e4);
    const FieldKind kind = field_kind(config.choice("simulate.kind", "lognormal", {"lognormal", "gaussian"}));
    const double kappa0 = config.number("simulate.kappa0", 0.05, 1e-6, 100);
    const PowerSpectrum spectrum = power_spectrum_from(config, "simulate");
    if (config.has("simulate.power_spectrum")) {
      const std::string path = config.path("simulate.power_spectrum");
      inputs.push_back({path, sha256_of_file(path)});
    }
    limits = read_run_limits(config);
    config.reject_unknown_keys();
    identity = identity_of(config, seed, inputs, {"run.", "simulate.samples "});  // more samples extend a run
    simulator = std::make_unique<ConvergenceSimulator>(spectrum, grid, pixel, kind, kappa0);
  });
  const double bytes = static_cast<double>(samples) * static_cast<double>(grid.pixels()) * sizeof(float);
  const double disk = bytes * (limits.checkpoint > 0 ? 4 : 1);  // the result, and three generations of checkpoints
  if (line.dry_run) {
    print_dry_run(line, {"disk: " + human_bytes(bytes) + ", with checkpoints up to " + human_bytes(disk),
                         "memory a rank: " + human_bytes(bytes / comm.size())});
    return ExitCode::done;
  }

  const Job job(comm, output, limits, disk, true);
  comm.together([&] { log::start(comm.rank(), output + ".log.jsonl"); });
  const ShardRange shard = shard_range(samples, comm.rank(), comm.size());
  Maps maps(shard, grid);
  load(comm, open_checkpoint(comm, checkpoint_path(output), identity, line.override_checkpoint), maps);
  const std::int64_t done = comm.sum(static_cast<std::int64_t>(std::count(maps.drawn.begin(), maps.drawn.end(), 1)));
  if (done > 0) log::info("resuming: " + std::to_string(done) + " maps are drawn already");
  const int batch = static_cast<int>(std::min<std::int64_t>(16, std::max<std::int64_t>(1, shard.count)));
  const MapBatch drawn("umbriel::simulated", batch, grid.height, grid.width);
  Progress progress(comm, "simulating", samples - done, "maps");
  std::size_t next = 0;
  const bool whole = job.work(
      watch,
      [&](const std::function<bool()>& pause) {
        const std::size_t count = maps.drawn.size();
        while (true) {
          while (next < count && maps.drawn[next] != 0) ++next;
          if (next == count) return true;
          if (pause()) return false;
          int n = 0;  // maps in a row that are still to be drawn
          while (n < batch && next + static_cast<std::size_t>(n) < count &&
                 maps.drawn[next + static_cast<std::size_t>(n)] == 0)
            ++n;
          simulator->draw(seed, static_cast<std::uint32_t>(shard.first + static_cast<std::int64_t>(next)), n, drawn);
          Kokkos::fence();
          const auto host = on_host(drawn);
          std::copy_n(host.data(), static_cast<std::size_t>(n) * maps.pixels, maps.map(next));
          std::fill_n(maps.drawn.begin() + static_cast<std::ptrdiff_t>(next), n, 1);
          progress.add(n);
        }
      },
      [&] { save(comm, checkpoint_path(output), identity, maps); });
  if (!whole) {
    log::info("stopped before the end; to go on, run the same command again: " +
              command_to_resume(line, "simulate kappa"));
    return ExitCode::stopped;
  }
  ResultFile result(output, comm, "simulate kappa");
  result.write_map_axes(grid, pixel);
  result.write_index_axis("sample", static_cast<std::uint64_t>(samples), "index of the map");
  result.hdf5().write_sharded<float>({"/simulation/kappa", {"sample", "y", "x"}, "1", "convergence"},
                                     {static_cast<std::uint64_t>(samples), static_cast<std::uint64_t>(grid.height),
                                      static_cast<std::uint64_t>(grid.width)},
                                     static_cast<std::uint64_t>(shard.first), static_cast<std::uint64_t>(shard.count),
                                     maps.values.data());
  result.write_provenance(config, static_cast<std::int64_t>(seed), inputs, watch.seconds());
  result.commit();
  comm.together([&] {
    if (comm.is_root()) remove_checkpoint(checkpoint_path(output));
  });
  log::info("wrote " + output);
  return ExitCode::done;
}

}  // namespace umbriel
