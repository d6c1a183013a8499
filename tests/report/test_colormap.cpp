#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "umbriel/report/colormap.hpp"

using namespace umbriel;

namespace {

struct Lab {
  double L, a, b;
};

/// CIE 1976 L*a*b* (D65): another space than the one the maps are made in.
Lab cie_lab(const Rgb& c) {
  const auto linear = [](int byte) {
    const double v = byte / 255.0;
    return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4);
  };
  const double r = linear(c.red), g = linear(c.green), b = linear(c.blue);
  const auto f = [](double t) { return t > 216.0 / 24389 ? std::cbrt(t) : (24389.0 / 27 * t + 16) / 116; };
  const double x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
  const double y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
  const double z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.0890);
  return {116 * y - 16, 500 * (x - y), 200 * (y - z)};
}

double distance(const Lab& p, const Lab& q) { return std::hypot(p.L - q.L, p.a - q.a, p.b - q.b); }

}  // namespace

TEST(Colormap, SequentialMapsGrowLighterEvenly) {
  for (const Colormap* map : {&Colormap::umbra(), &Colormap::tide()}) {
    double before = -1;
    for (int i = 0; i < Colormap::size; i += 2) {
      const double lightness = cie_lab(map->at(double(i) / (Colormap::size - 1))).L;
      EXPECT_GT(lightness, before) << "colour " << i;
      before = lightness;
    }
    EXPECT_LT(cie_lab(map->at(0)).L, 15);
    EXPECT_GT(cie_lab(map->at(1)).L, 90);
    // No tenth of the range is more than 2.5 times as colourful a step as another.
    double smallest = 1e9, largest = 0;
    for (int i = 0; i < 10; ++i) {
      const double step = distance(cie_lab(map->at(i / 10.0)), cie_lab(map->at((i + 1) / 10.0)));
      smallest = std::min(smallest, step);
      largest = std::max(largest, step);
    }
    EXPECT_LT(largest / smallest, 2.5);
  }
}

TEST(Colormap, DivergingMapIsLightestInTheMiddleAndEvenOnBothSides) {
  const Colormap& map = Colormap::dusk();
  for (int i = 2; i <= (Colormap::size - 1) / 2; i += 2) {
    const double t = double(i) / (Colormap::size - 1), before = double(i - 2) / (Colormap::size - 1);
    EXPECT_GT(cie_lab(map.at(t)).L, cie_lab(map.at(before)).L) << i;
    EXPECT_GT(cie_lab(map.at(1 - t)).L, cie_lab(map.at(1 - before)).L) << i;
    EXPECT_NEAR(cie_lab(map.at(t)).L, cie_lab(map.at(1 - t)).L, 8) << i;
  }
  EXPECT_LT(std::hypot(cie_lab(map.at(0.5)).a, cie_lab(map.at(0.5)).b), 4) << "zero is not near white";
}

TEST(Colormap, IndexClampsAndMarksMissingValues) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(Colormap::index(-1, -1, 1), 0);
  EXPECT_EQ(Colormap::index(0, -1, 1), 127);
  EXPECT_EQ(Colormap::index(1, -1, 1), 254);
  EXPECT_EQ(Colormap::index(infinity, -1, 1), 254);
  EXPECT_EQ(Colormap::index(-7, -1, 1), 0);
  EXPECT_EQ(Colormap::index(nan, -1, 1), Colormap::no_value);
  EXPECT_EQ(Colormap::index(3, 2, 2), 127);
  EXPECT_EQ(Colormap::umbra().palette().size(), 256u);
}
