#include "umbriel/statistics/starlet.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

const Grid small{9, 11};

/// ((37 y + 91 x + 13 x y) mod 101) / 101 - 0.4
std::vector<double> rough() {
  std::vector<double> map;
  for (int y = 0; y < 9; ++y) {
    for (int x = 0; x < 11; ++x) map.push_back((37 * y + 91 * x + 13 * x * y) % 101 / 101.0 - 0.4);
  }
  return map;
}

std::vector<double> holed() {
  std::vector<double> mask(99, 1.0);
  mask[4 * 11 + 5] = mask[0] = 0;
  return mask;
}

TEST(Starlet, IsScipysConvolutionAndItsPlanesSumToTheMap) {
  const double expected[2][4][3] = {{{-0.49164603960396036, 0.0625, -0.25216584158415845},
                                     {-0.01651272915377476, -0.0277099609375, 0.02369916557085397},
                                     {-0.010310881208665315, -0.006652832031249986, 0.02013432625496739},
                                     {0.11846964996640044, 0.11641724841429453, 0.11526304282764396}},
                                    {{-0.46561726485148514, 0.0625, -0.10972308168316831},
                                     {-0.043487699905244426, -0.027557373046874986, -0.07214657622988863},
                                     {-0.005272633958571027, -0.004703700542449965, -0.02482094682089174},
                                     {0.1143775987153006, 0.1143155290348695, 0.11362129780325558}}};
  for (const Border border : {Border::open, Border::periodic}) {
    const std::vector<double> map = rough();
    Starlet starlet(Footprint(small, std::vector<double>(99, 1.0), border), 3);
    ASSERT_EQ(starlet.planes(), 4);
    const std::vector<double>& planes = starlet.transform(map.data());
    const std::size_t pixels[3] = {0, 4 * 11 + 5, 8 * 11 + 9};
    for (std::size_t p = 0; p < 4; ++p) {
      for (std::size_t i = 0; i < 3; ++i)
        EXPECT_NEAR(planes[p * 99 + pixels[i]], expected[border == Border::periodic][p][i], 1e-15) << p << " " << i;
    }
    for (std::size_t i = 0; i < 99; ++i)
      EXPECT_NEAR(planes[i] + planes[99 + i] + planes[198 + i] + planes[297 + i], map[i], 1e-15) << i;
  }
}

TEST(Starlet, PeaksAndL1NormOfAPlaneAreNumpys) {
  const Footprint footprint(small, holed(), Border::open);
  std::vector<double> map = rough();
  map[4 * 11 + 5] = map[0] = std::nan("");
  Starlet starlet(footprint, 3);
  const double* plane = starlet.transform(map.data()).data() + 99;
  const double unit = standard_deviation(footprint, plane);
  EXPECT_NEAR(unit, 0.037621147385063045, 1e-15);
  const double numpy[] = {21.68230437678696, 8.915962324577652, 37.63353608063957};
  const std::vector<double> norms = l1_norm(footprint, plane, Bins({-2, -1, 0, 3}), unit);
  for (std::size_t b = 0; b < 3; ++b) EXPECT_NEAR(norms[b], numpy[b], 1e-12);
  EXPECT_EQ(peak_counts(footprint, plane, Bins({0, 1, 3}), unit), (std::vector<double>{1, 2}));
}

TEST(Starlet, NoiseInItsPlanesIsThatOfAnImpulse) {
  const std::vector<double> unsmoothed = starlet_noise(5, 0);
  // Starck & Murtagh (2006, Astronomical Image and Data Analysis, table 2.1).
  const double published[] = {0.890, 0.201, 0.086, 0.041, 0.020};
  for (std::size_t j = 0; j < 5; ++j) EXPECT_NEAR(unsmoothed[j], published[j], 1e-3) << j;
  const Grid grid{64, 64};
  const Footprint footprint(grid, std::vector<double>(4096, 1.0), Border::periodic);
  for (const double smoothing : {0.0, 0.4, 2.0}) {
    std::vector<double> map(4096, 0.0);
    map[32 * 64 + 32] = 1;
    if (smoothing > 0) GaussianSmoothing(footprint, smoothing)(map.data());
    Starlet starlet(footprint, 3);
    const std::vector<double>& planes = starlet.transform(map.data());
    const std::vector<double> noise = starlet_noise(3, smoothing);
    for (std::size_t p = 0; p < 4; ++p) {
      double squares = 0;
      for (std::size_t i = 0; i < 4096; ++i) squares += planes[p * 4096 + i] * planes[p * 4096 + i];
      EXPECT_NEAR(noise[p], std::sqrt(squares), 1e-9) << p << " " << smoothing;
    }
  }
}

TEST(Starlet, RefusesMoreScalesThanTheMapHolds) {
  const Footprint footprint(small, std::vector<double>(99, 1.0), Border::open);
  EXPECT_NO_THROW(Starlet(footprint, 3));
  EXPECT_THROW(Starlet(footprint, 4), Error);
  EXPECT_THROW(Starlet(footprint, 0), Error);
}

}  // namespace
}  // namespace umbriel
