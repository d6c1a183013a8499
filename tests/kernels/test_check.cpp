// Messages of errors: "what is wrong (where) - what to do".
#include <gtest/gtest.h>

#include <string>

#include "umbriel/core/views.hpp"

namespace umbriel {
namespace {

TEST(Error, PutsWhatWhereAndRemedyTogether) {
  EXPECT_STREQ(Error(ExitCode::input, "no pixel is observed", "mask.fits", "check the mask").what(),
               "no pixel is observed (mask.fits) \u2014 check the mask");
  EXPECT_STREQ(Error(ExitCode::input, "no pixel is observed", "", "").what(), "no pixel is observed");
  EXPECT_STREQ(Error(ExitCode::input, "no pixel is observed", "mask.fits", "").what(),
               "no pixel is observed (mask.fits)");
  EXPECT_STREQ(Error(ExitCode::input, "no pixel is observed", "", "check").what(), "no pixel is observed \u2014 check");
}

TEST(Error, ExitCodesAreTheDocumentedOnes) {
  EXPECT_EQ(static_cast<int>(ExitCode::done), 0);
  EXPECT_EQ(static_cast<int>(ExitCode::usage), 2);
  EXPECT_EQ(static_cast<int>(ExitCode::input), 3);
  EXPECT_EQ(static_cast<int>(ExitCode::numerical), 4);
  EXPECT_EQ(static_cast<int>(ExitCode::file_system), 5);
  EXPECT_EQ(static_cast<int>(ExitCode::communication), 6);
  EXPECT_EQ(static_cast<int>(ExitCode::stopped), 75);
}

TEST(Error, IsAgreedOnlyWhereItWasMarked) {
  Error error(ExitCode::input, "a", "b", "c");
  EXPECT_FALSE(error.agreed());
  try {
    throw error.mark_agreed();
  } catch (const Error& caught) {
    EXPECT_TRUE(caught.agreed());
    EXPECT_EQ(caught.code(), ExitCode::input);
  }
}

TEST(Require, ThrowsOnlyWhereTheConditionFails) {
  EXPECT_NO_THROW(require(true, ExitCode::usage, "never said"));
  try {
    require(false, ExitCode::numerical, "said");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerical);
    EXPECT_STREQ(error.what(), "said");
  }
}

TEST(RequireShape, NamesTheArrayAndBothShapes) {
  const HostMaps maps("maps", 2, 3, 5);
  EXPECT_NO_THROW(require_shape(maps, 2, Grid{3, 5}, "survey.shear"));
  for (const auto& [n, grid] : {std::pair{1, Grid{3, 5}}, {2, Grid{5, 3}}, {2, Grid{3, 4}}}) {
    try {
      require_shape(maps, static_cast<std::size_t>(n), grid, "survey.shear");
      FAIL() << "a wrong shape passed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      EXPECT_NE(std::string(error.what()).find("survey.shear has shape [2, 3, 5], not ["), std::string::npos);
    }
  }
}

TEST(Grid, CountsPixelsAndModesInSixtyFourBits) {
  const Grid odd{3, 5}, even{4, 6}, large{100000, 100000};
  EXPECT_EQ(odd.half_width(), 3);
  EXPECT_EQ(even.half_width(), 4);
  EXPECT_EQ(even.modes(), 16);
  EXPECT_EQ(large.pixels(), 10000000000L);
}

}  // namespace
}  // namespace umbriel
