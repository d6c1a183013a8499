/// One job at a time on an output.
#pragma once

#include <string>

namespace umbriel {

/// Holds PATH.lock for its life. The system gives the lock back when the process ends, however it ends, so that one
/// left behind by a job that was killed is no obstacle; the file itself only tells others who holds it.
class FileLock {
 public:
  FileLock() = default;
  /// @throws Error(usage) with host, process and time of the job that holds it; Error(file_system) if no lock file can
  /// be made. Where the file system knows no locks, none is taken.
  explicit FileLock(const std::string& path);
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;

 private:
  std::string path_;
  int descriptor_ = -1;
};

}  // namespace umbriel
