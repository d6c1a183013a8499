// What a run says, to humans and as JSON lines.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "umbriel/base/log.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

class Log : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "umbriel-log-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = name + "/run.log.jsonl";
  }
  void TearDown() override {
    log::stop();
    log::start(0);
    std::filesystem::remove_all(folder_);
  }

  /// Every line of the file, each of which must be one JSON object.
  std::vector<nlohmann::json> lines() const {
    std::vector<nlohmann::json> all;
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      EXPECT_TRUE(nlohmann::json::accept(line)) << line;
      all.push_back(nlohmann::json::parse(line, nullptr, false));
      EXPECT_TRUE(all.back().is_object()) << line;
    }
    return all;
  }

  /// What `action` writes to standard error.
  template <class Action>
  static std::string said(const Action& action) {
    ::testing::internal::CaptureStderr();
    action();
    return ::testing::internal::GetCapturedStderr();
  }

  std::string folder_, path_;
};

TEST_F(Log, WritesOneJsonObjectALine) {
  log::start(0, path_);
  const std::string hard = "braces {} {0}, \"quotes\", back\\slash,\nnewline\ttab \x01 \u03ba %s";
  said([&] {
    log::info("plain");
    log::warn(hard);
    log::error("bad");
  });
  log::event("step", {{"text", hard}, {"number", 0.1}, {"count", std::int64_t{1} << 62}});
  log::stop();
  const auto all = lines();
  ASSERT_EQ(all.size(), 4U);
  EXPECT_EQ(all[0]["event"], "log");
  EXPECT_EQ(all[0]["level"], "info");
  EXPECT_EQ(all[0]["message"], "plain");
  EXPECT_EQ(all[1]["level"], "warning");
  EXPECT_EQ(all[1]["message"], hard);
  EXPECT_EQ(all[2]["level"], "error");
  EXPECT_EQ(all[3]["event"], "step");
  EXPECT_EQ(all[3]["text"], hard);
  EXPECT_EQ(all[3]["number"], 0.1);
  EXPECT_EQ(all[3]["count"], std::int64_t{1} << 62);
  for (const auto& line : all) {
    const std::string time = line["time"];
    ASSERT_EQ(time.size(), 20U) << time;
    EXPECT_EQ(time[10], 'T');
    EXPECT_EQ(time[19], 'Z');
  }
}

TEST_F(Log, StaysValidWithBrokenTextAndNumbersThatAreNone) {
  log::start(0, path_);
  log::event("odd", {{"text", std::string("\xff\xfe broken")}, {"nan", std::nan("")}, {"inf", HUGE_VAL}});
  log::stop();
  const auto all = lines();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_TRUE(all[0]["nan"].is_null());
  EXPECT_TRUE(all[0]["inf"].is_null());
}

TEST_F(Log, AppendsWhenARunGoesOn) {
  for (int i = 0; i < 2; ++i) {
    log::start(0, path_);
    log::event("start", {});
    log::stop();
  }
  EXPECT_EQ(lines().size(), 2U);
}

TEST_F(Log, IsOnDiskAfterEachEvent) {
  log::start(0, path_);
  log::event("one", {});
  EXPECT_EQ(lines().size(), 1U);
}

TEST_F(Log, SpeaksPlainlyOnRankZero) {
  log::start(0);
  EXPECT_EQ(said([] { log::info("wrote cosmos.h5"); }), "wrote cosmos.h5\n");
  EXPECT_EQ(said([] { log::warn("100% {} of it"); }), "warning: 100% {} of it\n");
  EXPECT_EQ(said([] { log::error("lost"); }), "error: lost\n");
}

TEST_F(Log, OtherRanksOnlyWarnWithTheirRank) {
  log::start(3, path_);
  EXPECT_EQ(said([] { log::info("wrote cosmos.h5"); }), "");
  EXPECT_EQ(said([] { log::warn("careful"); }), "[rank 3] warning: careful\n");
  EXPECT_EQ(said([] { log::error("lost"); }), "[rank 3] error: lost\n");
  EXPECT_EQ(said([] { log::status_line("half"); }), "");
  log::event("step", {});
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(Log, WritesStatusAsPlainLinesWhereThereIsNoTerminal) {
  log::start(0);
  EXPECT_EQ(said([] {
              log::status_line("a quarter");
              log::status_line("half");
              log::info("done");
            }),
            "a quarter\nhalf\ndone\n");
}

TEST_F(Log, NamesAFileThatCannotBeWritten) {
  for (const std::string& path : {std::string("/proc/none/run.log.jsonl"), folder_}) {
    try {
      log::start(0, path);
      FAIL() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::file_system);
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos);
    }
  }
}

TEST_F(Log, IsQuietWhereAskedTo) {
  log::start(0, path_);
  EXPECT_EQ(said([] {
              const log::Quiet quiet;
              log::info("unseen");
              log::status_line("unseen");
              { const log::Quiet again; }
              log::info("unseen too");
            }),
            "");
  EXPECT_NE(said([] {
              const log::Quiet quiet;
              log::warn("seen");
            }).find("seen"),
            std::string::npos);
  EXPECT_NE(said([] { log::info("back"); }).find("back"), std::string::npos);
  log::stop();
  EXPECT_EQ(lines().size(), 4U) << "the file has all of it";
}

}  // namespace
}  // namespace umbriel
