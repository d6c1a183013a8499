#include "umbriel/app/job.hpp"

#include "umbriel/base/signals.hpp"

namespace umbriel {

double read_deadline_minutes(const Config& config) { return config.number("run.deadline_minutes", 5, 0, 1e6); }

Job::Job(const Communicator& comm, const std::string& output, double deadline_minutes, bool stops_in_order)
    : lock_([&] {
        FileLock lock;
        comm.together([&] {
          if (comm.is_root()) lock = FileLock(output);
        });
        return lock;
      }()),
      watchdog_(comm, 60 * deadline_minutes) {
  if (stops_in_order) watch_stop_signals();
}

std::string command_to_resume(const CommandLine& line, const std::string& command) {
  std::string text = line.comm.size() > 1 ? "mpirun -n " + std::to_string(line.comm.size()) + " " : "";
  text += "umbriel " + command + " " + line.config_path;
  for (const std::string& assignment : line.overrides) text.append(" --set '").append(assignment).append("'");
  return text;
}

}  // namespace umbriel
