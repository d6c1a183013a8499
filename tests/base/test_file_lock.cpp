// One holder at a time, and none after its death.
#include "umbriel/base/file_lock.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

struct Place {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("umbriel-lock-" + std::to_string(::getpid()));
  std::string output = (folder / "out.h5").string();
  Place() { std::filesystem::create_directories(folder); }
  ~Place() { std::filesystem::remove_all(folder); }
};

TEST(FileLock, IsOneJobsAtATimeAndNamesIt) {
  const Place place;
  {
    const FileLock lock(place.output);
    try {
      const FileLock second(place.output);
      ADD_FAILURE() << "two jobs hold one output";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      const std::string words = error.what();
      EXPECT_NE(words.find("process " + std::to_string(::getpid())), std::string::npos) << words;
      EXPECT_NE(words.find(place.output), std::string::npos) << words;
    }
    EXPECT_NO_THROW(FileLock(place.output + "2"));
  }
  EXPECT_FALSE(std::filesystem::exists(place.output + ".lock"));
  EXPECT_NO_THROW(FileLock(place.output));
}

TEST(FileLock, OfAKilledProcessIsNoObstacle) {
  const Place place;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const FileLock lock(place.output);
    if (::write(ready[1], "x", 1) == 1) ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THROW(FileLock(place.output), Error);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(std::filesystem::exists(place.output + ".lock"));
  EXPECT_NO_THROW(FileLock(place.output));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(FileLock, MovesWithItsHolder) {
  const Place place;
  FileLock holder;
  {
    FileLock lock(place.output);
    holder = std::move(lock);
  }
  EXPECT_THROW(FileLock(place.output), Error);
  holder = FileLock();
  EXPECT_NO_THROW(FileLock(place.output));
}

TEST(FileLock, SaysWhereItCannotBe) {
  try {
    const FileLock lock("/nowhere/at/all.h5");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::file_system);
  }
}

}  // namespace
}  // namespace umbriel
