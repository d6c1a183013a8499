// umbriel simulate kappa: convergence maps with a given power spectrum, sharded over ranks.
#include <algorithm>

#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/simulation/convergence_map.hpp"
#include "umbriel/simulation/simulate.hpp"

namespace umbriel {

ExitCode run_simulate(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  std::string output;
  std::uint64_t seed = 0;
  std::int64_t samples = 0;
  Grid grid;
  double pixel = 0, deadline_minutes = 0;
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
    deadline_minutes = read_deadline_minutes(config);
    config.reject_unknown_keys();
    simulator = std::make_unique<ConvergenceSimulator>(spectrum, grid, pixel, kind, kappa0);
  });
  const double bytes = static_cast<double>(samples) * static_cast<double>(grid.pixels()) * sizeof(float);
  if (line.dry_run) {
    print_dry_run(line, {"disk: " + human_bytes(bytes), "memory a rank: " + human_bytes(bytes / comm.size())});
    return ExitCode::done;
  }

  const Job job(comm, output, deadline_minutes, false);
  const ShardRange shard = shard_range(samples, comm.rank(), comm.size());
  const int batch = static_cast<int>(std::min<std::int64_t>(16, std::max<std::int64_t>(1, shard.count)));
  const MapBatch maps("umbriel::simulated", batch, grid.height, grid.width);
  std::vector<float> local;
  local.reserve(static_cast<std::size_t>(shard.count * grid.pixels()));
  {
    Progress progress(comm, "simulating", samples, "maps");
    for (std::int64_t done = 0; done < shard.count; done += batch) {
      const int n = static_cast<int>(std::min<std::int64_t>(batch, shard.count - done));
      simulator->draw(seed, static_cast<std::uint32_t>(shard.first + done), n, maps);
      Kokkos::fence();
      const auto host = on_host(maps);
      local.insert(local.end(), host.data(), host.data() + n * grid.pixels());
      progress.add(n);
      report_alive();
    }
  }
  ResultFile result(output, comm, "simulate kappa");
  result.write_map_axes(grid, pixel);
  result.write_index_axis("sample", static_cast<std::uint64_t>(samples), "index of the map");
  result.hdf5().write_sharded<float>({"/simulation/kappa", {"sample", "y", "x"}, "1", "convergence"},
                                     {static_cast<std::uint64_t>(samples), static_cast<std::uint64_t>(grid.height),
                                      static_cast<std::uint64_t>(grid.width)},
                                     static_cast<std::uint64_t>(shard.first), static_cast<std::uint64_t>(shard.count),
                                     local.data());
  result.write_provenance(config, static_cast<std::int64_t>(seed), inputs, watch.seconds());
  result.commit();
  log::info("wrote " + output);
  return ExitCode::done;
}

}  // namespace umbriel
