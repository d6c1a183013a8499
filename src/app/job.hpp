/// What a command that runs for long holds while it does.
#pragma once

#include <memory>
#include <string>

#include "umbriel/app/commands.hpp"
#include "umbriel/base/file_lock.hpp"
#include "umbriel/mpi/watchdog.hpp"

namespace umbriel {

/// run.deadline_minutes: how long the job may hang before it is ended.
double read_deadline_minutes(const Config& config);

/// The output is this job's alone, and a job that hangs is ended.
class Job {
 public:
  /// Collective. @param stops_in_order  the command asks for stop signals (base/signals.hpp), which else end it
  /// @throws Error(usage) on all ranks if another job is at work on `output`
  Job(const Communicator& comm, const std::string& output, double deadline_minutes, bool stops_in_order);

 private:
  FileLock lock_;
  Watchdog watchdog_;
};

/// The command to type again after a stop: with mpirun, configuration and overrides as they were given.
std::string command_to_resume(const CommandLine& line, const std::string& command);

}  // namespace umbriel
