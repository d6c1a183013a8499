#include "umbriel/base/file_lock.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "umbriel/base/provenance.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

/// An exclusive lock of the whole file, held by the descriptor. @return 0 or the reason
int take(int descriptor) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
#ifdef F_OFD_SETLK
  return ::fcntl(descriptor, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
#else
  return ::fcntl(descriptor, F_SETLK, &lock) == 0 ? 0 : errno;
#endif
}

std::string words_in(int descriptor) {
  char text[256] = {};
  const ssize_t n = ::pread(descriptor, text, sizeof text - 1, 0);
  return n > 0 ? std::string(text, static_cast<std::size_t>(n)) : "an unknown job";
}

}  // namespace

FileLock::FileLock(const std::string& path) : path_(path + ".lock") {
  while (true) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    require(descriptor_ >= 0, ExitCode::file_system, std::string("cannot make a lock file: ") + std::strerror(errno),
            path_, "check the folder and its permissions");
    const int reason = take(descriptor_);
    if (reason == EAGAIN || reason == EACCES) {
      const std::string holder = words_in(descriptor_);
      ::close(std::exchange(descriptor_, -1));
      throw Error(ExitCode::usage, "another job is at work on this output: " + holder, path,
                  "wait until it ends, or choose another run.output");
    }
    // Whoever held it before may have removed the file between the two calls: then others see another one.
    struct stat mine {
    }, named{};
    const bool same = ::fstat(descriptor_, &mine) == 0 && ::stat(path_.c_str(), &named) == 0 &&
                      mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
    if (same) break;
    ::close(descriptor_);
  }
  const std::string words = "process " + std::to_string(::getpid()) + " on " + host_name() + ", since " + utc_now();
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, words.data(), words.size(), 0) < 0) {
    // Only the words are missing: the lock holds.
  }
}

FileLock::~FileLock() {
  if (descriptor_ < 0) return;
  ::unlink(path_.c_str());
  ::close(descriptor_);
}

FileLock::FileLock(FileLock&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

}  // namespace umbriel
