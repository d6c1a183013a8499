/// What a command that runs for long holds while it does.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "umbriel/app/commands.hpp"
#include "umbriel/base/file_lock.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/mpi/watchdog.hpp"

namespace umbriel {

/// [run] of such a command, in minutes.
struct RunLimits {
  double checkpoint = 10;  ///< between checkpoints; 0: only when it is stopped
  double walltime = 0;     ///< the job stops in order before; 0: no limit
  double deadline = 5;     ///< how long it may hang before it is ended; 0: for ever

  /// Seconds after its start when the job must begin to stop: half a minute to write and end in order.
  double last_second() const;
};

/// run.checkpoint_minutes, run.max_walltime_minutes, run.deadline_minutes. @throws Error(usage)
RunLimits read_run_limits(const Config& config);

/// The output is this job's alone, there is room for it, and a job that hangs is ended.
class Job {
 public:
  /// Collective.
  /// @param bytes           of disk that the output and its checkpoints will take
  /// @param stops_in_order  the command asks for stop signals (base/signals.hpp), which else end it
  /// @throws Error(usage) on all ranks if another job is at work on `output`, Error(file_system) if there is no room
  Job(const Communicator& comm, const std::string& output, const RunLimits& limits, double bytes, bool stops_in_order);

  /// Does work that all ranks share, with checkpoints that they write together. Collective.
  /// @param since    when the program began
  /// @param advance  works until it is done or `pause()`, which it asks often, is true; returns whether it is done
  /// @param save     writes a checkpoint
  /// @return false if the job was asked to stop, or max_walltime_minutes came near, before the end
  bool work(const Stopwatch& since, const std::function<bool(const std::function<bool()>& pause)>& advance,
            const std::function<void()>& save) const;

 private:
  Communicator comm_;
  RunLimits limits_;
  FileLock lock_;
  Watchdog watchdog_;
};

/// The command to type again after a stop: with mpirun, configuration and overrides as they were given.
std::string command_to_resume(const CommandLine& line, const std::string& command);

}  // namespace umbriel
