// What the tests of src/data share: a folder of their own, expected errors, reference data.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "umbriel/core/check.hpp"

namespace umbriel::test {

/// A fresh folder for one test; gone with it.
class Folder : public ::testing::Test {
 protected:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "umbriel-data-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~Folder() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

  std::string bytes(const std::string& name) const {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::filesystem::path folder_;
};

/// Runs `action` and expects an Error with this code, whose message holds every one of `parts`.
inline void expect_error(ExitCode code, const std::vector<std::string>& parts, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "no \"" << part << "\" in: " << error.what();
    return;
  }
  FAIL() << "no error";
}

/// Folder of the reference data (shared/data), or empty.
inline std::string reference_data() {
  const char* folder = std::getenv("UMBRIEL_REFERENCE_DATA");
  return folder != nullptr && std::filesystem::exists(folder) ? folder : "";
}

#define UMBRIEL_NEEDS_REFERENCE_DATA(folder)                    \
  const std::string folder = ::umbriel::test::reference_data(); \
  if (folder.empty()) GTEST_SKIP() << "needs the reference data: set UMBRIEL_REFERENCE_DATA to their folder"

}  // namespace umbriel::test
