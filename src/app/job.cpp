#include "umbriel/app/job.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <limits>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/signals.hpp"
#include "umbriel/mpi/shared_flag.hpp"

namespace umbriel {
namespace {

/// Bytes of the generations that an earlier job has left, whose room the next ones will take.
double checkpoint_bytes(const std::string& output) {
  double bytes = 0;
  for (const std::string& path : {checkpoint_path(output), previous_generation(checkpoint_path(output))}) {
    std::error_code none;
    const auto size = std::filesystem::file_size(path, none);
    if (!none) bytes += static_cast<double>(size);
  }
  return bytes;
}

}  // namespace

double RunLimits::last_second() const {
  return walltime > 0 ? std::max(1.0, 60 * walltime - 30) : std::numeric_limits<double>::infinity();
}

RunLimits read_run_limits(const Config& config) {
  RunLimits limits;
  limits.checkpoint = config.number("run.checkpoint_minutes", limits.checkpoint, 0, 1e6);
  limits.walltime = config.number("run.max_walltime_minutes", limits.walltime, 0, 1e6);
  limits.deadline = config.number("run.deadline_minutes", limits.deadline, 0, 1e6);
  return limits;
}

Job::Job(const Communicator& comm, const std::string& output, const RunLimits& limits, double bytes,
         bool stops_in_order)
    : comm_(comm),
      limits_(limits),
      lock_([&] {
        FileLock lock;
        // Who sees the lock file may send signals, to any rank.
        if (stops_in_order) watch_stop_signals();
        comm.barrier();
        comm.together([&] {
          if (!comm.is_root()) return;
          lock = FileLock(output);
          require_free_space(output, std::max(0.0, bytes - checkpoint_bytes(output)));
        });
        return lock;
      }()),
      watchdog_(comm, 60 * limits.deadline) {}

bool Job::work(const Stopwatch& since, const std::function<bool(const std::function<bool()>& pause)>& advance,
               const std::function<void()>& save) const {
  const double interval = limits_.checkpoint > 0 ? 60 * limits_.checkpoint : std::numeric_limits<double>::infinity();
  const double end = limits_.last_second();
  const Stopwatch watch;
  double next = interval, writing = 0;
  std::int64_t written = 0;
  SharedFlag stop_asked(comm_);
  while (true) {
    const bool done = advance([&] {
      report_alive();
      if (stop_signal_received()) stop_asked.raise();
      return stop_asked.raised() || since.seconds() > end || watch.seconds() > next;
    });
    const bool asked = stop_asked.meet(stop_signal_received);
    const bool stop = comm_.max(asked || since.seconds() > end ? 1 : 0) == 1;
    const bool all_done = comm_.min(done ? 1 : 0) == 1;
    if (!all_done) {
      const Stopwatch writes;
      save();
      writing += writes.seconds();
      ++written;
      log::event("checkpoint", {{"seconds", writes.seconds()}, {"at_seconds", watch.seconds()}});
    }
    if (written > 0 && (stop || all_done)) {
      char text[96];
      std::snprintf(text, sizeof text, "%d checkpoint(s) took %.2g s, %.2g %% of the time", static_cast<int>(written),
                    writing, 100 * writing / watch.seconds());
      log::info(text);
    }
    if (all_done) return true;
    if (stop) return false;
    next = watch.seconds() + interval;
  }
}

std::string command_to_resume(const CommandLine& line, const std::string& command) {
  std::string text = line.comm.size() > 1 ? "mpirun -n " + std::to_string(line.comm.size()) + " " : "";
  text += "umbriel " + command + " " + line.config_path;
  for (const std::string& assignment : line.overrides) text.append(" --set '").append(assignment).append("'");
  return text;
}

}  // namespace umbriel
