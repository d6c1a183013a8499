#include <limits>

#include <gtest/gtest.h>

#include "umbriel/report/text.hpp"

using namespace umbriel;

TEST(Text, EscapesWhatHtmlReads) {
  EXPECT_EQ(escape_html("<b a=\"1\">'x' & y</b>"), "&lt;b a=&quot;1&quot;&gt;&#39;x&#39; &amp; y&lt;/b&gt;");
  EXPECT_EQ(escape_html("\u03ba \u00b1"), "\u03ba \u00b1");
}

TEST(Text, NumbersHaveTheDigitsThatMatter) {
  EXPECT_EQ(number_text(0), "0");
  EXPECT_EQ(number_text(0.02231), "0.0223");
  EXPECT_EQ(number_text(0.9996), "1");
  EXPECT_EQ(number_text(1e-320), "0");
  EXPECT_FALSE(number_text(std::numeric_limits<double>::max()).empty());
  EXPECT_EQ(number_text(-0.05), "\u22120.05");
  EXPECT_EQ(number_text(-12345), "\u221212\u202f300");
  EXPECT_EQ(number_text(1234, 4), "1234");
  EXPECT_EQ(number_text(3.14e-7, 2), "3.1\u00d710\u207b\u2077");
  EXPECT_EQ(number_text(1e12), "10\u00b9\u00b2");
  EXPECT_EQ(number_text(1000), "1000");
  EXPECT_EQ(number_text(std::numeric_limits<double>::quiet_NaN()), "\u2013");
  EXPECT_EQ(fixed_text(-0.0001, 2), "0.00");
  EXPECT_EQ(fixed_text(-1234567.5, 1), "\u22121\u202f234\u202f567.5");
}

TEST(Text, DurationsInWords) {
  EXPECT_EQ(duration_text(0.25), "0.25 s");
  EXPECT_EQ(duration_text(75), "1 min 15 s");
  EXPECT_EQ(duration_text(7500), "2 h 5 min");
  EXPECT_EQ(duration_text(273600), "3 d 4 h");
  EXPECT_EQ(duration_text(-1), "\u2013");
}

TEST(Text, NamesAreSplitAndSpoken) {
  EXPECT_EQ(split_names("log_density, low_l ,peak"), (std::vector<std::string>{"log_density", "low_l", "peak"}));
  EXPECT_TRUE(split_names("").empty());
  EXPECT_EQ(spoken_name("kaiser_squires_smoothed"), "Kaiser\u2013Squires smoothed");
  EXPECT_EQ(spoken_name("wiener_mean"), "Wiener mean");
}
