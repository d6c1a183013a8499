#include "umbriel/app/map_series.hpp"

#include <algorithm>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/mpi/shared_work.hpp"

namespace umbriel {
namespace {

/// Maps that this rank holds: those of its shard, and others that it has drawn in another's stead.
struct Maps {
  ShardRange shard;
  std::size_t pixels = 0;
  std::vector<float> values;          // [map of the shard, y, x]
  std::vector<char> here;             // [map of the shard]
  std::vector<bool> done;             // [map of the series] in the checkpoint
  std::vector<std::int64_t> foreign;  // numbers of the maps of other shards
  std::vector<float> foreign_values;  // [foreign map, y, x]

  Maps(const ShardRange& range, std::int64_t samples, Grid grid)
      : shard(range),
        pixels(static_cast<std::size_t>(grid.pixels())),
        values(static_cast<std::size_t>(range.count) * pixels),
        here(static_cast<std::size_t>(range.count), 0),
        done(static_cast<std::size_t>(samples), false) {}

  bool owns(std::int64_t map) const { return map >= shard.first && map < shard.first + shard.count; }

  void put(std::int64_t map, const float* from) {
    if (!owns(map)) {
      foreign.push_back(map);
      foreign_values.insert(foreign_values.end(), from, from + pixels);
      return;
    }
    const auto local = static_cast<std::size_t>(map - shard.first);
    std::copy_n(from, pixels, values.data() + local * pixels);
    here[local] = 1;
  }
};

/// Saves the maps that all ranks have drawn. Collective.
void save(const Communicator& comm, const MapSeries& series, Maps& maps) {
  std::vector<std::int64_t> indices;
  std::vector<float> rows;
  for (std::size_t i = 0; i < maps.here.size(); ++i) {
    if (maps.here[i] == 0) continue;
    indices.push_back(maps.shard.first + static_cast<std::int64_t>(i));
    const float* map = maps.values.data() + i * maps.pixels;
    rows.insert(rows.end(), map, map + maps.pixels);
  }
  indices.insert(indices.end(), maps.foreign.begin(), maps.foreign.end());
  rows.insert(rows.end(), maps.foreign_values.begin(), maps.foreign_values.end());
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
      if (indices[row] < 0 || indices[row] >= static_cast<std::int64_t>(maps.done.size())) continue;
      maps.done[static_cast<std::size_t>(indices[row])] = true;
      if (maps.owns(indices[row])) maps.put(indices[row], file.read<float>("/kappa", row, 1).data());
    }
  });
}

/// Draws the maps of a piece that no checkpoint holds. @return how many
std::int64_t draw_piece(const MapSeries& series, const ShardRange& piece, const MapBatch& drawn, Maps& maps) {
  std::int64_t count = 0;
  const std::int64_t end = piece.first + piece.count;
  const auto is_done = [&](std::int64_t map) { return maps.done[static_cast<std::size_t>(map)]; };
  for (std::int64_t first = piece.first; first < end;) {
    if (is_done(first)) {
      ++first;
      continue;
    }
    int n = 1;  // maps in a row that are still to be drawn
    while (first + n < end && !is_done(first + n)) ++n;
    series.draw(first, n, drawn);
    Kokkos::fence();
    const auto host = on_host(drawn);
    for (int i = 0; i < n; ++i) maps.put(first + i, host.data() + static_cast<std::size_t>(i) * maps.pixels);
    count += n;
    first += n;
  }
  return count;
}

/// Brings maps that other ranks have drawn to those whose shard they belong to. Collective.
void bring_home(const Communicator& comm, std::int64_t samples, Maps& maps) {
  const std::int64_t foreign = comm.sum(static_cast<std::int64_t>(maps.foreign.size()));
  log::event("work shared", {{"maps drawn for other ranks", foreign}});
  if (foreign == 0) return;
  const auto ranks = static_cast<std::size_t>(comm.size());
  std::vector<std::vector<std::int64_t>> numbers(ranks);
  std::vector<std::vector<float>> values(ranks);
  for (std::size_t i = 0; i < maps.foreign.size(); ++i) {
    const auto owner = static_cast<std::size_t>(rank_of_item(maps.foreign[i], samples, comm.size()));
    numbers[owner].push_back(maps.foreign[i]);
    const auto first = maps.foreign_values.begin() + static_cast<std::ptrdiff_t>(i * maps.pixels);
    values[owner].insert(values[owner].end(), first, first + static_cast<std::ptrdiff_t>(maps.pixels));
  }
  maps.foreign.clear();
  maps.foreign_values = {};
  numbers = comm.exchange(numbers);
  values = comm.exchange(values);
  for (std::size_t from = 0; from < ranks; ++from) {
    for (std::size_t i = 0; i < numbers[from].size(); ++i)
      maps.put(numbers[from][i], values[from].data() + i * maps.pixels);
  }
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
  Maps maps(shard, series.samples, grid);
  const std::string checkpoint = checkpoint_path(series.output);
  load(comm, open_checkpoint(comm, checkpoint, series.identity, line.override_checkpoint), maps);
  const std::int64_t done = std::count(maps.done.begin(), maps.done.end(), true);
  if (done > 0) log::info("resuming: " + std::to_string(done) + " maps are drawn already");
  bool whole = false;
  {
    const int batch = static_cast<int>(std::min<std::int64_t>(series.batch, series.samples));
    const MapBatch drawn("umbriel::drawn_maps", batch, grid.height, grid.width);
    Progress progress(comm, series.doing, series.samples - done, "maps");
    SharedWork work(comm, shard, batch);
    ShardRange piece;  // taken, but not drawn yet
    whole = job.work(
        watch,
        [&](const std::function<bool()>& pause) {
          bool all_drawn = false;
          while (true) {
            if (piece.count == 0) piece = work.take();
            all_drawn = piece.count == 0;
            if (all_drawn || pause()) break;
            progress.add(static_cast<double>(draw_piece(series, piece, drawn, maps)));
            piece = {};
          }
          work.meet([&] { pause(); });
          return all_drawn;
        },
        [&] { save(comm, series, maps); });
  }
  if (!whole) {
    log::info("stopped before the end; to go on, run the same command again: " +
              command_to_resume(line, series.command));
    return ExitCode::stopped;
  }
  bring_home(comm, series.samples, maps);
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
