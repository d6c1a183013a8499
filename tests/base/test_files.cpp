#include "umbriel/base/files.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

class Files : public ::testing::Test {
 protected:
  Files() {
    std::string pattern = (std::filesystem::temp_directory_path() / "umbriel-files-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~Files() override { std::filesystem::remove_all(folder_); }
  bool empty() const { return std::filesystem::is_empty(folder_); }

  std::string folder_;
};

TEST_F(Files, AreWrittenWholeOrNotAtAll) {
  const std::string path = folder_ + "/x";
  write_bytes(path, "first");
  EXPECT_EQ(read_bytes(path), "first");
  EXPECT_THROW(write_then_rename(
                   path, 1, [](const std::string& temporary) { write_bytes(temporary, "second"); },
                   [](const std::string&) { throw Error(ExitCode::file_system, "not as it should be", "", ""); }),
               Error);
  EXPECT_EQ(read_bytes(path), "first");
  std::filesystem::remove(path);
  EXPECT_TRUE(empty()) << "the temporary file stayed";
}

TEST_F(Files, AreNotBegunWithoutRoom) {
  const std::string path = folder_ + "/x";
  const std::uint64_t room = free_space(path);
  EXPECT_GT(room, 0U);
  EXPECT_NO_THROW(require_free_space(path, 1));
  bool begun = false;
  const auto begin = [&](const std::string&) { begun = true; };
  try {
    write_then_rename(path, 2 * room, begin, begin);
    FAIL() << "there is no such room";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::file_system);
    EXPECT_NE(std::string(error.what()).find("No space left on device"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  }
  EXPECT_FALSE(begun);
  EXPECT_TRUE(empty());
  EXPECT_THROW(free_space(folder_ + "/nowhere/x"), Error);
}

TEST(HumanBytes, HaveThreeDigitsAndAUnit) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(3.0 * (1U << 30)), "3 GiB");
}

}  // namespace
}  // namespace umbriel
