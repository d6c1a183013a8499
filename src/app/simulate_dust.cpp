// umbriel simulate dust: a made-up sky of Galactic dust, as a HEALPix map.
#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/data/healpix_map.hpp"
#include "umbriel/simulation/dust_map.hpp"

namespace umbriel {

ExitCode run_simulate_dust(const CommandLine& line) {
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  std::string output;
  RunLimits limits;
  DustOptions options;
  std::uint64_t seed = 0;
  comm.together([&] {
    output = read_output(config);
    seed = read_seed(config);
    limits = read_run_limits(config);
    options.nside = static_cast<int>(config.integer("simulate.nside", options.nside, 1, HealpixPixels::max_nside));
    options.slope = config.number("simulate.slope", options.slope, -6, 0);
    options.contrast = config.number("simulate.contrast", options.contrast, 0, 3);
    options.filaments = config.number("simulate.filaments", options.filaments, 0, 100);
    options.pole = config.number("simulate.pole", options.pole, 1e-6, 1e6);
    config.reject_unknown_keys();
    require(output.ends_with(".fits"), ExitCode::usage, "a HEALPix map is a FITS file, and the output is not named so",
            config.where("run.output"), "name it dust.fits, for instance");
  });
  const HealpixPixels pixels(options.nside, false);
  const double bytes = static_cast<double>(pixels.count()) * sizeof(float);
  if (line.dry_run) {
    print_dry_run(line, {"memory of the first rank, which does it all: " + human_bytes(6 * bytes),
                         "disk: " + human_bytes(bytes)});
    return ExitCode::done;
  }
  const Job job(comm, output, limits, bytes, false);
  comm.together([&] {
    log::start(comm.rank(), output + ".log.jsonl");
    if (!comm.is_root()) return;
    const std::vector<float> values = simulate_dust(options, seed);
    write_healpix_map(output, pixels, values, "I_STOKES", "MJy/sr", "G",
                      {{"CREATOR", "umbriel " + version() + " " + git_revision(), "simulate dust"},
                       {"SEED", static_cast<std::int64_t>(seed), ""},
                       {"SLOPE", options.slope, "of the spectrum of the Gaussian field"},
                       {"CONTRAST", options.contrast, "its standard deviation in ln I"},
                       {"FILAMENT", options.filaments, "strength of the filaments"},
                       {"POLE", options.pole, "mean intensity at the Galactic poles"}});
  });
  log::info("wrote " + output);
  return ExitCode::done;
}

}  // namespace umbriel
