// umbriel: posterior maps of dark matter and dust. The program in numbered steps:
//   1. MPI  2. the command line  3. Kokkos  4. the command  5. its outcome as an exit code
#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>

#include "umbriel/app/commands.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/provenance.hpp"
#include "umbriel/core/device_layout.hpp"
#include "umbriel/core/kokkos.hpp"

namespace {

using umbriel::CommandLine;
using umbriel::ExitCode;

/// The table of commands: add one here.
struct Command {
  const char* name;
  const char* summary;
  const char* details;
  ExitCode (*run)(const CommandLine&);
  enum class Takes { config, target_and_config, result } takes;
  const char* target = "";
};

constexpr Command commands[] = {
    {"simulate", "simulate convergence maps with a given power spectrum, or a sky of Galactic dust",
     "Example: umbriel simulate kappa jobs/configs/simulate.toml --set simulate.samples=100", umbriel::run_simulate,
     Command::Takes::target_and_config, "what to simulate: kappa, dust"},
    {"cutouts", "cut square patches from a HEALPix map",
     "Example: mpirun -n 2 umbriel cutouts --set cutouts.map=dust.fits --set run.output=patches.h5",
     umbriel::run_cutouts, Command::Takes::config},
    {"assemble", "put patches back on the sky, as a HEALPix map",
     "Example: umbriel assemble --set assemble.patches=patches.h5 --set run.output=sky.fits", umbriel::run_assemble,
     Command::Takes::config},
    {"train", "learn a prior, or a model that makes maps, from simulated or observed maps",
     "Example: mpirun -n 2 umbriel train score jobs/configs/prior.toml\n"
     "The same command resumes a run that was stopped (exit code 75).",
     umbriel::run_train, Command::Takes::target_and_config, "what to train: score, flow, diffusion, vae"},
    {"tune", "search for the settings of a training with the least validation loss",
     "Example: mpirun -n 2 umbriel tune jobs/configs/tune_flow.toml\n"
     "The same command resumes a search that was stopped (exit code 75).",
     umbriel::run_tune, Command::Takes::config},
    {"generate", "make new maps with a trained model",
     "Example: mpirun -n 2 umbriel generate kappa --set generate.model=flow.safetensors --set generate.samples=10000\n"
     "The same command resumes a run that was stopped (exit code 75).",
     umbriel::run_generate, Command::Takes::target_and_config, "what to generate: kappa, dust"},
    {"reconstruct", "take maps through an autoencoder and back",
     "Example: umbriel reconstruct --set reconstruct.model=dust.safetensors --set reconstruct.maps=patches.h5 \\\n"
     "  --set run.output=reconstructed.h5\n"
     "The same command resumes a run that was stopped (exit code 75).",
     umbriel::run_reconstruct, Command::Takes::config},
    {"interpolate", "maps on the way from one to another through an autoencoder's latent space",
     "Example: umbriel interpolate --set interpolate.model=dust.safetensors --set interpolate.maps=patches.h5 \\\n"
     "  --set interpolate.from=[0] --set interpolate.to=[5] --set run.output=interpolated.h5",
     umbriel::run_interpolate, Command::Takes::config},
    {"inpaint", "what a map is like where it was not observed, under an autoencoder of such maps",
     "Example: mpirun -n 2 umbriel inpaint --set inpaint.model=dust.safetensors --set inpaint.maps=patches.h5 \\\n"
     "  --set inpaint.map=3 --set inpaint.mask=mask.fits --set run.output=inpainted.h5",
     umbriel::run_inpaint, Command::Takes::config},
    {"map", "Kaiser-Squires, Wiener and maximum-posterior maps of a survey, as FITS",
     "Example: umbriel map jobs/configs/cosmos.toml", umbriel::run_map, Command::Takes::config},
    {"sample", "sample the posterior of the convergence given a survey",
     "Example: mpirun -n 4 umbriel sample jobs/configs/cosmos.toml --set sampler.chains=256\n"
     "The same command resumes a run that was stopped (exit code 75).",
     umbriel::run_sample, Command::Takes::config},
    {"validate", "test the sampler: against the exact Wiener posterior, and for calibration on mocks",
     "Example: mpirun -n 2 umbriel validate jobs/configs/calibration.toml", umbriel::run_validate,
     Command::Takes::config},
    {"stats", "power spectra of maps behind a mask, map by map",
     "Example: umbriel stats --set stats.maps=maps.h5 --set stats.pixel_arcmin=0.29 --set run.output=stats.h5",
     umbriel::run_stats, Command::Takes::config},
    {"covariance", "mean, covariance and correlation of vectors of statistics, with errors",
     "Example: umbriel covariance --set covariance.vectors=counts.npy --set run.output=covariance.h5",
     umbriel::run_covariance, Command::Takes::config},
    {"inspect", "verify a result or model file and say what is in it", "Example: umbriel inspect cosmos.h5",
     umbriel::run_inspect, Command::Takes::result},
    {"report", "write a result as one self-contained HTML page",
     "Example: umbriel report cosmos.h5 -o cosmos.html\n"
     "Several files of `stats` are compared: umbriel report test.stats.h5 new.stats.h5 -o compared.html",
     umbriel::run_report, Command::Takes::result},
};

constexpr const char* footer =
    "Exit codes: 0 done, 2 usage or configuration, 3 input data, 4 numerical failure, 5 file system,\n"
    "6 communication, 75 stopped cleanly before the end (run the same command again).\n"
    "Every key of a configuration is described in docs/user-guide.md.";

/// Prints from one rank; exits of all ranks follow from the same words on each.
int finish(const umbriel::Communicator& comm, const CLI::App& app, const CLI::ParseError& outcome) {
  const bool asked_for_help = outcome.get_exit_code() == 0;
  if (comm.is_root()) {
    if (asked_for_help) {
      app.exit(outcome);
    } else {
      std::fprintf(stderr, "error: %s \u2014 see umbriel --help\n", outcome.what());
    }
  }
  return asked_for_help ? 0 : static_cast<int>(ExitCode::usage);
}

int report_error(const umbriel::Communicator& comm, const umbriel::Error& error) {
  const int code = static_cast<int>(error.code());
  if (error.agreed() || comm.size() == 1) {
    if (comm.is_root()) umbriel::log::error(error.what());
    return code;
  }
  umbriel::log::error(error.what());  // with its rank; the others know nothing of it
  umbriel::abort_job(code);
}

}  // namespace

int main(int argc, char** argv) {
  umbriel::MpiSession mpi(argc, argv);
  const umbriel::Communicator comm = umbriel::Communicator::world();
  umbriel::log::start(comm.rank());

  CLI::App app("umbriel " + umbriel::version() + ": posterior maps of dark matter and dust");
  app.set_version_flag("--version", umbriel::version() + " (" + umbriel::git_revision() + ")");
  app.footer(footer);
  app.require_subcommand(1);
  std::string config_path, target;
  std::vector<std::string> results, overrides;
  CommandLine line;
  line.comm = comm;
  for (const Command& command : commands) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    sub->footer(std::string(command.details).append("\n\n").append(footer));
    if (command.takes == Command::Takes::result) {
      sub->add_option(
             "result", results,
             command.run == umbriel::run_inspect ? "result (HDF5) or model (safetensors)" : "result file (HDF5)")
          ->required();
      if (command.run == umbriel::run_report) sub->add_option("-o,--output", line.output, "HTML page to write");
      continue;
    }
    if (command.takes == Command::Takes::target_and_config)
      sub->add_option("target", target, command.target)->required();
    sub->add_option("config", config_path, "configuration (TOML)");
    sub->add_option("--set", overrides, "key.path=value, on top of the configuration; may be repeated")
        ->allow_extra_args(false);
    if (command.run != umbriel::run_map && command.run != umbriel::run_stats && command.run != umbriel::run_cutouts &&
        command.run != umbriel::run_assemble && command.run != umbriel::run_covariance &&
        command.run != umbriel::run_inpaint && command.run != umbriel::run_tune) {
      sub->add_flag("--override", line.override_checkpoint,
                    "go on from a checkpoint although the configuration has changed since");
    }
    sub->add_flag("--dry-run", line.dry_run, "print the resolved configuration and what the run will take, and stop");
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& outcome) {
    return finish(comm, app, outcome);
  }

  Kokkos::ScopeGuard kokkos(argc, argv);
  int code = 0;
  try {
    umbriel::require_device_layout();
    for (const Command& command : commands) {
      if (!app.got_subcommand(command.name)) continue;
      if (command.takes == Command::Takes::result) {
        line.arguments = results;
      } else {
        if (!target.empty()) line.arguments = {target};
        line.config_path = config_path;
        line.overrides = overrides;
        comm.together([&] { line.config = umbriel::Config::load(config_path, overrides); });
      }
      code = static_cast<int>(command.run(line));
    }
  } catch (const umbriel::Error& error) {
    code = report_error(comm, error);
  } catch (const std::bad_alloc&) {
    code = report_error(comm, umbriel::Error(ExitCode::numerical, "out of memory", "",
                                             "use more nodes, fewer chains a rank, or a smaller sampler.batch"));
  } catch (const std::exception& error) {
    code = report_error(comm, umbriel::Error(ExitCode::numerical, error.what(), "", "this is a bug: please report it"));
  }
  umbriel::log::stop();
  return code;
}
