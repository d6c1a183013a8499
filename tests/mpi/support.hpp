// A folder that all ranks of a test share.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "umbriel/core/check.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel::testing {

/// A new empty folder, made and removed by rank 0. Collective.
class SharedFolder {
 public:
  explicit SharedFolder(const Communicator& comm) : comm_(comm) {
    if (comm.is_root()) {
      std::string name = (std::filesystem::temp_directory_path() / "umbriel-test-XXXXXX").string();
      if (::mkdtemp(name.data()) != nullptr) path_ = name;
    }
    path_ = comm.broadcast(path_);
  }
  ~SharedFolder() {
    comm_.barrier();
    std::error_code ignored;
    if (comm_.is_root()) std::filesystem::remove_all(path_, ignored);
  }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  /// Names in the folder, once all ranks are here.
  std::vector<std::string> contents() const {
    comm_.barrier();
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      names.push_back(entry.path().filename().string());
    comm_.barrier();
    return names;
  }

 private:
  Communicator comm_;
  std::string path_;
};

/// Runs `action`, which must throw an Error with `code` on every rank, with the same text; returns that text.
template <class Action>
std::string agreed_error(const Communicator& comm, ExitCode code, const Action& action) {
  std::string text;
  try {
    action();
    ADD_FAILURE() << "rank " << comm.rank() << " threw nothing";
  } catch (const Error& error) {
    text = error.what();
    EXPECT_EQ(error.code(), code) << text;
  }
  EXPECT_EQ(text, comm.broadcast(text)) << "rank " << comm.rank() << " says something else than rank 0";
  return text;
}

inline std::string bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace umbriel::testing
