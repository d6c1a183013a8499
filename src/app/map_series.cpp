#include "umbriel/app/map_series.hpp"

#include <algorithm>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"

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
void save(const Communicator& comm, const MapSeries& series, Maps& maps) {
  std::vector<std::int64_t> indices;
  std::vector<float> rows;
  for (std::size_t i = 0; i < maps.drawn.size(); ++i) {
    if (maps.drawn[i] == 0) continue;
    indices.push_back(maps.shard.first + static_cast<std::int64_t>(i));
    rows.insert(rows.end(), maps.map(i), maps.map(i) + maps.pixels);
  }
  const Rows part(comm, indices.size());
  const std::string command = "checkpoint of " + series.command;
  ResultFile file(checkpoint_path(series.output), comm, command);
  Hdf5Writer& hdf5 = file.hdf5();
  hdf5.write_sharded<std::int64_t>({"/index", {}, "1", "index of the map"}, {part.total}, part.first, part.count,
                                   indices.data());
  hdf5.write_sharded<float>({"/kappa", {}, "1", series.long_name}, {part.total, maps.pixels}, part.first, part.count,
                            rows.data());
  hdf5.attribute("/", "schema_version", static_cast<std::int64_t>(schema_version));
  hdf5.attribute("/", "command", command);
  hdf5.attribute("/", "identity", series.identity);
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

MapSeries read_series(const Config& config) {
  MapSeries series;
  series.output = read_output(config);
  series.seed = read_seed(config);
  series.limits = read_run_limits(config);
  return series;
}

ExitCode draw_series(const CommandLine& line, const Stopwatch& watch, const MapSeries& series) {
  const Communicator& comm = line.comm;
  const Grid grid = series.grid;
  const double bytes = static_cast<double>(series.samples) * static_cast<double>(grid.pixels()) * sizeof(float);
  // The result, and three generations of checkpoints.
  const double disk = bytes * (series.limits.checkpoint > 0 ? 4 : 1);
  if (line.dry_run) {
    print_dry_run(line, {"disk: " + human_bytes(bytes) + ", with checkpoints up to " + human_bytes(disk),
                         "memory a rank: " + human_bytes(bytes / comm.size())});
    return ExitCode::done;
  }

  const Job job(comm, series.output, series.limits, disk, true);
  comm.together([&] { log::start(comm.rank(), series.output + ".log.jsonl"); });
  const ShardRange shard = shard_range(series.samples, comm.rank(), comm.size());
  Maps maps(shard, grid);
  const std::string checkpoint = checkpoint_path(series.output);
  load(comm, open_checkpoint(comm, checkpoint, series.identity, line.override_checkpoint), maps);
  const std::int64_t done = comm.sum(static_cast<std::int64_t>(std::count(maps.drawn.begin(), maps.drawn.end(), 1)));
  if (done > 0) log::info("resuming: " + std::to_string(done) + " maps are drawn already");
  const int batch = static_cast<int>(std::min<std::int64_t>(series.batch, std::max<std::int64_t>(1, shard.count)));
  const MapBatch drawn("umbriel::drawn_maps", batch, grid.height, grid.width);
  Progress progress(comm, series.doing, series.samples - done, "maps");
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
          series.draw(shard.first + static_cast<std::int64_t>(next), n, drawn);
          Kokkos::fence();
          const auto host = on_host(drawn);
          std::copy_n(host.data(), static_cast<std::size_t>(n) * maps.pixels, maps.map(next));
          std::fill_n(maps.drawn.begin() + static_cast<std::ptrdiff_t>(next), n, 1);
          progress.add(n);
        }
      },
      [&] { save(comm, series, maps); });
  if (!whole) {
    log::info("stopped before the end; to go on, run the same command again: " +
              command_to_resume(line, series.command));
    return ExitCode::stopped;
  }
  ResultFile result(series.output, comm, series.command);
  result.write_map_axes(grid, series.pixel_arcmin);
  result.write_index_axis("sample", static_cast<std::uint64_t>(series.samples), "index of the map");
  result.hdf5().write_sharded<float>({series.dataset, {"sample", "y", "x"}, "1", series.long_name},
                                     {static_cast<std::uint64_t>(series.samples),
                                      static_cast<std::uint64_t>(grid.height), static_cast<std::uint64_t>(grid.width)},
                                     static_cast<std::uint64_t>(shard.first), static_cast<std::uint64_t>(shard.count),
                                     maps.values.data());
  for (std::size_t i = 0; i < series.parameters.names().size(); ++i) {
    std::vector<double> values;
    for (std::int64_t map = 0; comm.is_root() && map < series.samples; ++map)
      values.push_back(series.parameters.value(map, i));
    const std::string& name = series.parameters.names()[i];
    const std::string group = series.dataset.substr(0, series.dataset.rfind('/'));
    result.hdf5().write<double>({group + "/parameters/" + name, {"sample"}, "1", name + " of the map"},
                                {static_cast<std::uint64_t>(series.samples)}, values.data());
  }
  if (series.more) series.more(result, shard, maps.values);
  result.write_provenance(line.config, static_cast<std::int64_t>(series.seed), series.inputs, watch.seconds());
  result.commit();
  comm.together([&] {
    if (comm.is_root()) remove_checkpoint(checkpoint);
  });
  log::info("wrote " + series.output);
  return ExitCode::done;
}

}  // namespace umbriel
