#include "support.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "umbriel/core/check.hpp"

namespace umbriel::fuzz {

std::string scratch_file(const std::string& ending, const void* bytes, std::size_t n) {
  static const std::string folder = [] {
    std::string name = "/dev/shm/umbriel-fuzz-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) fail("cannot make a folder in /dev/shm");
    static std::string kept = name;
    std::atexit([] {  // after a finding there is no exit, and the folder stays
      std::error_code ignored;
      std::filesystem::remove_all(kept, ignored);
    });
    return name;
  }();
  const std::string path = folder + "/input" + ending;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  if (file == nullptr || std::fwrite(bytes, 1, n, file.get()) != n) fail("cannot write " + path);
  return path;
}

bool refused(const std::function<void()>& reader) {
  try {
    reader();
    return false;
  } catch (const Error& error) {
    // Communicator::together makes one of these of exceptions that are none of ours.
    if (error.code() == ExitCode::numerical || error.code() == ExitCode::communication)
      fail(std::string("a reader threw a foreign exception: ") + error.what());
    if (*error.what() == '\0') fail("an error without a message");
    return true;
  }
}

void fail(const std::string& what) {
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::abort();
}

}  // namespace umbriel::fuzz
