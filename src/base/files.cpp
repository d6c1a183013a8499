#include "umbriel/base/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "umbriel/core/check.hpp"

namespace umbriel {

namespace {

/// Throws the system's reason of the call that failed just now.
[[noreturn]] void refuse(const std::string& what, const std::string& path, const std::string& remedy) {
  const std::string reason = std::strerror(errno);
  throw Error(ExitCode::file_system, what + ": " + reason, path, remedy);
}

void flush_to_disk(const std::string& path, int flags) {
  const int file = ::open(path.c_str(), flags);
  const bool good = file >= 0 && ::fsync(file) == 0;
  if (!good) refuse("cannot flush to disk", path, "check the disk and its free space");
  ::close(file);
}

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace

std::uint64_t readable_size(const std::string& path) {
  const std::string remedy = "check the path and its permissions";
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) refuse("cannot read the file", path, remedy);
  require(S_ISREG(status.st_mode), ExitCode::file_system, "cannot read the file: it is not a regular file", path,
          remedy);
  if (::access(path.c_str(), R_OK) != 0) refuse("cannot read the file", path, remedy);
  return static_cast<std::uint64_t>(status.st_size);
}

std::string read_bytes(const std::string& path) {
  std::string bytes(readable_size(path), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  require(static_cast<bool>(file), ExitCode::file_system, "cannot read the whole file", path,
          "check the disk, and that nothing is writing the file");
  return bytes;
}

std::uint64_t free_space(const std::string& path) {
  struct statvfs status {};
  if (::statvfs(folder_of(path).c_str(), &status) != 0) refuse("cannot write there", path, "check the folder");
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

void require_free_space(const std::string& path, double bytes) {
  const auto left = static_cast<double>(free_space(path));
  require(bytes <= left, ExitCode::file_system,
          "No space left on device: " + human_bytes(bytes) + " are needed, " + human_bytes(left) + " are free", path,
          "make room, or write to another disk");
}

std::string human_bytes(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) {
    bytes /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.3g %s", bytes, units[unit]);
  return text;
}

void write_then_rename(const std::string& path, std::uint64_t bytes,
                       const std::function<void(const std::string&)>& write,
                       const std::function<void(const std::string&)>& verify) {
  require_free_space(path, static_cast<double>(bytes));
  const std::string temporary = path + ".tmp" + std::to_string(::getpid());
  try {
    write(temporary);
    verify(temporary);
    flush_to_disk(temporary, O_RDONLY);
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      refuse("cannot rename the finished file", path, "check the folder");
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  // The new name itself is on disk only after the folder is flushed.
  flush_to_disk(folder_of(path), O_RDONLY | O_DIRECTORY);
}

void write_bytes(const std::string& path, const std::string& bytes) {
  write_then_rename(
      path, bytes.size(),
      [&](const std::string& temporary) {
        std::ofstream file(temporary, std::ios::binary);
        file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        file.close();
        require(static_cast<bool>(file), ExitCode::file_system, "cannot write the file", path,
                "check the folder, its permissions and the free space");
      },
      [&](const std::string& temporary) {
        require(read_bytes(temporary) == bytes, ExitCode::file_system,
                "the file read back differs from what was written", path, "check the disk and its free space");
      });
}

}  // namespace umbriel
