/// Errors a user can act on, and the exit codes of every command.
///
/// Each message reads "what is wrong (where) - what to do", so that the last line of a failed job says how to go on.
#pragma once

#include <stdexcept>
#include <string>

namespace umbriel {

/// Exit code of a command; the table stands in docs/user-guide.md.
enum class ExitCode : int {
  done = 0,
  usage = 2,          ///< command line or configuration
  input = 3,          ///< input data: shape, unit, NaN, empty mask, damaged file
  numerical = 4,      ///< no convergence, all chains lost
  file_system = 5,    ///< cannot read, write, sync or rename
  communication = 6,  ///< MPI or NCCL
  stopped = 75        ///< stopped cleanly before the end: requeue
};

/// The one exception type that crosses layers.
class Error : public std::runtime_error {
 public:
  /// @param what    what is wrong, one clause without a full stop
  /// @param where   file, key, HDU, pixel; may be empty
  /// @param remedy  what the user can do about it; may be empty
  Error(ExitCode code, const std::string& what, const std::string& where, const std::string& remedy);

  ExitCode code() const noexcept { return code_; }

  /// True when every rank of the job throws this error, so that all can end in order; false when the others know
  /// nothing of it and the job must be aborted.
  bool agreed() const noexcept { return agreed_; }
  Error& mark_agreed() noexcept {
    agreed_ = true;
    return *this;
  }

 private:
  ExitCode code_;
  bool agreed_ = false;
};

/// Throws Error unless `condition` holds. For arguments of our own functions use `require` with the caller's names,
/// so that a wrong shape names the array.
inline void require(bool condition, ExitCode code, const std::string& what, const std::string& where = "",
                    const std::string& remedy = "") {
  if (!condition) throw Error(code, what, where, remedy);
}

}  // namespace umbriel
