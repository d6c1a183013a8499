/// The commands of umbriel: one file each, registered in main.cpp's table.
#pragma once

#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/core/check.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

/// What a command gets from the command line.
struct CommandLine {
  Communicator comm;
  Config config;
  std::string config_path;             ///< empty: none was given
  std::vector<std::string> overrides;  ///< --set
  std::vector<std::string> arguments;  ///< words after the command, but for the configuration
  std::string output;                  ///< -o
  bool dry_run = false;
  bool override_checkpoint = false;  ///< go on from a checkpoint of another configuration
};

/// @{ Each returns done or stopped, and throws Error.
ExitCode run_simulate(const CommandLine& line);
ExitCode run_simulate_dust(const CommandLine& line);  ///< for run_simulate
ExitCode run_cutouts(const CommandLine& line);
ExitCode run_assemble(const CommandLine& line);
ExitCode run_train(const CommandLine& line);
ExitCode run_tune(const CommandLine& line);
ExitCode run_generate(const CommandLine& line);
ExitCode run_reconstruct(const CommandLine& line);
ExitCode run_interpolate(const CommandLine& line);
ExitCode run_inpaint(const CommandLine& line);
ExitCode run_map(const CommandLine& line);
ExitCode run_sample(const CommandLine& line);
ExitCode run_validate(const CommandLine& line);
ExitCode run_stats(const CommandLine& line);
ExitCode run_covariance(const CommandLine& line);
ExitCode run_inspect(const CommandLine& line);
ExitCode run_report(const CommandLine& line);
/// @}

}  // namespace umbriel
