#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "umbriel/report/svg.hpp"

using namespace umbriel;

namespace {

std::vector<double> values(const std::vector<Tick>& ticks, bool labelled = true) {
  std::vector<double> out;
  for (const auto& tick : ticks) {
    if (!labelled || !tick.label.empty()) out.push_back(tick.value);
  }
  return out;
}

std::size_t count(const std::string& text, const std::string& piece) {
  std::size_t n = 0;
  for (auto at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++n;
  return n;
}

}  // namespace

TEST(Ticks, LinearOnesAreRoundAndInside) {
  const auto ticks = nice_ticks({"", -52.2, 52.2, false});
  ASSERT_EQ(values(ticks).size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(ticks[std::size_t(i)].value, -40 + 20 * i, 1e-9);
  EXPECT_EQ(ticks[0].label, "\u221240");
  EXPECT_EQ(ticks[2].label, "0");

  const auto small = nice_ticks({"", 0, 0.1, false});
  EXPECT_EQ(small.front().label, "0.00");
  EXPECT_EQ(small.back().label, "0.10");
  EXPECT_NEAR(small.back().value, 0.1, 1e-12);

  EXPECT_EQ(values(nice_ticks({"", 52.2, -52.2, false})).size(), 5u) << "an axis turned round";
  EXPECT_EQ(nice_ticks({"", 3, 3, false}).size(), 1u);
}

TEST(Ticks, ARangeThatCannotBeDividedHasOne) {
  const double huge = std::numeric_limits<double>::max(), tiny = std::numeric_limits<double>::denorm_min();
  for (const Axis& axis : {Axis{"", 1, 1 + 3e-16, false}, Axis{"", 1e18, 1e18 + 256, false}, Axis{"", 0, tiny, false},
                           Axis{"", -huge, huge, false}, Axis{"", std::nan(""), 1, false}, Axis{"", 0, 1, true},
                           Axis{"", -1, 1, true}, Axis{"", tiny, 1, true}})
    EXPECT_EQ(nice_ticks(axis).size(), 1u) << axis.low << " " << axis.high;
}

TEST(Ticks, LogarithmicOnesLabelDecades) {
  const auto ticks = nice_ticks({"", 1e-6, 1e-2, true});
  const auto labelled = values(ticks);
  ASSERT_EQ(labelled.size(), 5u);
  EXPECT_NEAR(labelled[0], 1e-6, 1e-15);
  EXPECT_EQ(ticks.front().label, "10\u207b\u2076");
  EXPECT_GT(values(ticks, false).size(), 30u) << "minor ticks";
  const auto narrow = values(nice_ticks({"", 0.15, 0.9, true}));
  ASSERT_EQ(narrow.size(), 2u);
  EXPECT_NEAR(narrow[0], 0.2, 1e-12);
  EXPECT_NEAR(narrow[1], 0.5, 1e-12);
  EXPECT_LE(values(nice_ticks({"", 1e-30, 1, true})).size(), 8u);
}

TEST(Axis, FractionsAndRanges) {
  EXPECT_DOUBLE_EQ((Axis{"", 1, 100, true}.fraction(10)), 0.5);
  EXPECT_DOUBLE_EQ((Axis{"", 4, 0, false}.fraction(3)), 0.25);
  EXPECT_TRUE(std::isnan(Axis{"", 1, 100, true}.fraction(-1)));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Axis axis = axis_around("", {nan, 1, 3, 2});
  EXPECT_LT(axis.low, 1);
  EXPECT_GT(axis.low, 0.5);
  EXPECT_GT(axis.high, 3);
  const Axis positive = axis_around("", {-5, 0, 1, 100}, true);
  EXPECT_GT(positive.low, 0.5);
  const Axis empty = axis_around("", {nan}, true);
  EXPECT_GT(empty.high, empty.low);
}

TEST(Plot, DrawsWhatItIsGiven) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Plot plot({"a < b", 0, 4, false}, {"y", 0, 1, false});
  plot.line({0, 1, 2, 3, 4}, {0.1, 0.2, nan, 0.4, 0.5}, {"truth", 2, 0.5, "4 4"})
      .band({0, 1, 2}, {0, 0, 0}, {1, 1, 1}, "posterior")
      .points({1, nan, 3}, {0.5, 0.5, nan}, "warn")
      .bars({0, 1, 2}, {0.5, 0.7}, "wiener")
      .legend_line("one & two", {});
  const std::string svg = plot.svg("about \"this\"");
  EXPECT_EQ(count(svg, "<circle"), 1u) << "points without a place are left out";
  EXPECT_EQ(count(svg, "<rect class=\"area wiener\""), 2u);
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  EXPECT_NE(svg.find("one &amp; two"), std::string::npos);
  EXPECT_NE(svg.find("aria-label=\"about &quot;this&quot;\""), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  // A value that is missing breaks the line in two.
  const auto begin = svg.find(" d=\"", svg.find("class=\"line truth\""));
  const std::string path = svg.substr(begin, svg.find("/>", begin) - begin);
  EXPECT_EQ(count(path, "M"), 2u) << path;
  EXPECT_EQ(count(path, "L"), 2u) << path;
  EXPECT_EQ(count(svg, "<svg"), count(svg, "</svg>"));
}
