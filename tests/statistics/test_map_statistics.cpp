#include "umbriel/statistics/map_statistics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <numbers>

#include "umbriel/core/check.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

constexpr double pi = std::numbers::pi;
const double nan = std::nan("");

/// A map of exact numbers that NumPy makes too: ((37 y + 91 x + 13 x y) mod 101) / 101 - 0.4.
std::vector<double> rough(Grid grid) {
  std::vector<double> map;
  for (int y = 0; y < grid.height; ++y) {
    for (int x = 0; x < grid.width; ++x) map.push_back((37 * y + 91 * x + 13 * x * y) % 101 / 101.0 - 0.4);
  }
  return map;
}

const Grid small{9, 11};

/// All of that map, and all but two pixels, where the map is NaN.
std::vector<double> whole() { return std::vector<double>(99, 1.0); }
std::vector<double> holed() {
  std::vector<double> mask = whole();
  mask[4 * 11 + 5] = mask[0] = 0;
  return mask;
}
std::vector<double> rough_with_nan() {
  std::vector<double> map = rough(small);
  map[4 * 11 + 5] = map[0] = nan;
  return map;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], tolerance) << i;
}

TEST(MapStatistics, CountPeaksAndMinimaAsNumpyDoes) {
  const Bins bins({-0.4, -0.1, 0.2, 0.5, 0.61});
  using Counts = std::vector<double>;
  const std::vector<double> map = rough(small), with_nan = rough_with_nan();
  const Footprint open(small, whole(), Border::open), periodic(small, whole(), Border::periodic);
  const Footprint open_holed(small, holed(), Border::open), periodic_holed(small, holed(), Border::periodic);
  EXPECT_EQ(peak_counts(open, map.data(), bins, 1), (Counts{0, 0, 3, 5}));
  EXPECT_EQ(minimum_counts(open, map.data(), bins, 1), (Counts{8, 0, 0, 0}));
  EXPECT_EQ(peak_counts(periodic, map.data(), bins, 1), (Counts{0, 0, 3, 8}));
  EXPECT_EQ(minimum_counts(periodic, map.data(), bins, 1), (Counts{11, 0, 0, 0}));
  EXPECT_EQ(peak_counts(open_holed, with_nan.data(), bins, 1), (Counts{0, 0, 3, 4}));
  EXPECT_EQ(minimum_counts(open_holed, with_nan.data(), bins, 1), (Counts{6, 0, 0, 0}));
  EXPECT_EQ(peak_counts(periodic_holed, with_nan.data(), bins, 1), (Counts{0, 0, 3, 6}));
  EXPECT_EQ(minimum_counts(periodic_holed, with_nan.data(), bins, 1), (Counts{8, 0, 0, 0}));
  EXPECT_EQ(peak_counts(open, map.data(), Bins({-0.8, -0.2, 0.4, 1, 1.22}), 0.5), (Counts{0, 0, 3, 5}));
}

TEST(MapStatistics, APeakIsStrictlyAboveAllEightAndNotOnTheBorder) {
  const Grid grid{6, 7};
  const Footprint open(grid, std::vector<double>(42, 1.0), Border::open);
  const Bins bins({0, 1, 2, 3});
  std::vector<double> map(42, 0.0);
  map[2 * 7 + 3] = 2;  // on an edge: of the bin above
  map[0 * 7 + 5] = 1;  // on the border
  EXPECT_EQ(peak_counts(open, map.data(), bins, 1), (std::vector<double>{0, 0, 1}));
  for (const int neighbour : {1 * 7 + 2, 1 * 7 + 3, 1 * 7 + 4, 2 * 7 + 2, 2 * 7 + 4, 3 * 7 + 2, 3 * 7 + 3, 3 * 7 + 4}) {
    std::vector<double> flat = map;
    flat[static_cast<std::size_t>(neighbour)] = 2;
    EXPECT_EQ(peak_counts(open, flat.data(), bins, 1), (std::vector<double>{0, 0, 0})) << neighbour;
    std::vector<double> mask(42, 1.0), unknown = map;
    mask[static_cast<std::size_t>(neighbour)] = 0;
    unknown[static_cast<std::size_t>(neighbour)] = -5;
    EXPECT_EQ(peak_counts(Footprint(grid, mask, Border::open), unknown.data(), bins, 1), (std::vector<double>{0, 0, 0}))
        << neighbour;
    for (double& value : flat) value = -value;
    EXPECT_EQ(minimum_counts(open, flat.data(), Bins({-3, 0.1}), 1), (std::vector<double>{0})) << neighbour;
  }
}

TEST(MapStatistics, DensityIsTheShareOfTheObservedPixelsAsNumpyCounts) {
  const Footprint footprint(small, holed(), Border::open);
  const std::vector<double> map = rough_with_nan();
  const double sigma = standard_deviation(footprint, map.data());
  EXPECT_NEAR(sigma, 0.27063483071422967, 1e-15);
  EXPECT_NEAR(standard_deviation(Footprint(small, whole(), Border::open), rough(small).data()), 0.27288912208057187,
              1e-15);
  expect_near(pixel_density(footprint, map.data(), Bins({-1, 0, 1, 2}), sigma),
              {0.28865979381443296, 0.29896907216494845, 0.26804123711340205}, 1e-15);
}

TEST(MapStatistics, MinkowskiFunctionalsAreThoseOfNumpysDifferences) {
  const Bins bins({-0.4, -0.1, 0.2, 0.7});
  const auto periodic =
      minkowski_functionals(Footprint(small, whole(), Border::periodic), rough(small).data(), bins, 1, 0.5);
  expect_near(periodic.v0, {0.898989898989899, 0.5858585858585859, 0.15151515151515152}, 1e-15);
  expect_near(periodic.v1, {0.10984764142927139, 0.15277354118399378, 0.09489390915462617}, 1e-14);
  expect_near(periodic.v2, {-0.06802214553558683, -0.008453108599616182, 0.05126408178395173}, 1e-14);
  const auto open =
      minkowski_functionals(Footprint(small, holed(), Border::open), rough_with_nan().data(), bins, 1, 0.5);
  expect_near(open.v0, {0.8636363636363636, 0.5454545454545454, 0.18181818181818182}, 1e-15);
  expect_near(open.v1, {0.16095895612406555, 0.16797594099720922, 0.11417409061571916}, 1e-14);
  expect_near(open.v2, {-0.10560858081457725, -0.0008695606885179861, 0.06449866870109669}, 1e-14);
  // Of a plateau the gradient vanishes, and curvature is the limit along its diagonal: here 0.
  const auto flat = minkowski_functionals(Footprint(small, whole(), Border::periodic),
                                          std::vector<double>(99, 0.3).data(), bins, 1, 1);
  EXPECT_EQ(flat.v0, (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(flat.v1, (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(flat.v2, (std::vector<double>{0, 0, 0}));
}

// LensTools' C functions, run on this map with norm = True: V1 and V2 are sigma times ours.
TEST(MapStatistics, AreLensToolsOfASimulatedMap) {
  const char* reference = std::getenv("UMBRIEL_REFERENCE_DATA");
  const std::filesystem::path path =
      std::filesystem::path(reference != nullptr ? reference : "") / "kappa" / "massivenus_kappa_320.fits";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const FitsImage image = read_fits_image(path.string());
  std::vector<double> map;
  for (const double value : image.values) map.push_back(static_cast<double>(static_cast<float>(value)));
  const Footprint footprint({image.height, image.width}, std::vector<double>(map.size(), 1.0), Border::periodic);
  const double sigma = standard_deviation(footprint, map.data());
  EXPECT_NEAR(sigma, 0.018296550104734386, 1e-14);
  const Bins bins({-2, -1, 0, 1, 2, 3, 4, 5});
  EXPECT_EQ(peak_counts(footprint, map.data(), bins, sigma), (std::vector<double>{22, 761, 1207, 595, 223, 104, 44}));
  MinkowskiFunctionals v = minkowski_functionals(footprint, map.data(), bins, sigma, 1);
  for (double& value : v.v1) value *= sigma;
  for (double& value : v.v2) value *= sigma;
  expect_near(v.v0,
              {0.9986132812492334, 0.7315234374994763, 0.25704101562490783, 0.0770996093750034, 0.027099609375001502,
               0.01096679687499981, 0.005224609374999932},
              1e-11);
  expect_near(v.v1,
              {3.926382741970214e-05, 0.0004983230364901048, 0.0005226122228087688, 0.0002393735687516654,
               9.675461231109304e-05, 4.329663783926993e-05, 2.090744578173473e-05},
              1e-16);
  expect_near(v.v2,
              {-1.0244081280632246e-05, -2.9133788944209543e-05, 5.402763744573595e-05, 5.329759176725222e-05,
               2.8229788175098064e-05, 1.4538916055185627e-05, 7.0266425619870775e-06},
              1e-17);
}

// A Gaussian field: Tomita (1986, Prog. Theor. Phys. 76, 952) in two dimensions.
TEST(MapStatistics, OfAGaussianFieldAreThoseOfTheory) {
  const Grid grid{192, 192};
  const std::size_t pixels = 192 * 192;
  const Footprint footprint(grid, std::vector<double>(pixels, 1.0), Border::periodic);
  const double width = 3;
  GaussianSmoothing smooth(footprint, width);
  // White noise of variance 1 smoothed: variance 1 / (4 pi width^2), correlation exp(-r^2 / (4 width^2)).
  const double sigma = 1 / (2 * std::sqrt(pi) * width);
  const double slope = std::sqrt(1 - std::exp(-1 / (width * width)));  // of central differences, in sigma, both axes
  const Bins bins({-2.25, -1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75, 2.25});
  constexpr int maps = 24;
  std::vector<std::vector<double>> measured[4];
  for (std::uint32_t m = 0; m < maps; ++m) {
    std::vector<double> map(pixels);
    for (std::size_t i = 0; i < pixels; ++i)
      map[i] = static_cast<double>(normal({11, Purpose::test, m, 0}, static_cast<std::uint32_t>(i)));
    smooth(map.data());
    const MinkowskiFunctionals v = minkowski_functionals(footprint, map.data(), bins, sigma, 1);
    measured[0].push_back(pixel_density(footprint, map.data(), bins, sigma));
    measured[1].push_back(v.v0), measured[2].push_back(v.v1), measured[3].push_back(v.v2);
  }
  const auto mean_over = [](double low, double high, const auto& f) {
    double sum = 0;
    for (int i = 0; i < 200; ++i) sum += f(low + (high - low) * (i + 0.5) / 200) / 200;
    return sum;
  };
  for (std::size_t b = 0; b < bins.size(); ++b) {
    const double low = bins.edges()[b], high = bins.edges()[b + 1], nu = 0.5 * (low + high);
    const double expected[4] = {
        mean_over(low, high, [](double x) { return std::exp(-0.5 * x * x) / std::sqrt(2 * pi); }),
        0.5 * std::erfc(nu / std::sqrt(2.0)),
        mean_over(low, high, [&](double x) { return slope * std::exp(-0.5 * x * x) / (8 * std::sqrt(2.0)); }),
        mean_over(low, high,
                  [&](double x) { return slope * slope * x * std::exp(-0.5 * x * x) / (2 * std::pow(2 * pi, 1.5)); })};
    for (int which = 0; which < 4; ++which) {
      double mean = 0, square = 0;
      for (const auto& row : measured[which]) mean += row[b] / maps;
      for (const auto& row : measured[which]) square += (row[b] - mean) * (row[b] - mean) / (maps - 1);
      EXPECT_NEAR(mean, expected[which], 4.5 * std::sqrt(square / maps)) << which << " at " << nu;
    }
  }
}

TEST(GaussianSmoothing, IsNumpysAndWeighsObservedPixelsAlone) {
  std::vector<double> map = rough(small);
  GaussianSmoothing(Footprint(small, whole(), Border::periodic), 1.3)(map.data());
  expect_near({map[0], map[4 * 11 + 5], map[8 * 11 + 10]},
              {0.08352996036892614, 0.09042815132569218, 0.060320109283146905}, 1e-9);
  map = rough_with_nan();
  GaussianSmoothing smooth(Footprint(small, holed(), Border::open), 1.3);
  smooth(map.data());
  expect_near({map[1], map[4 * 11 + 4], map[8 * 11 + 10]},
              {0.19733854025902872, 0.06969728415103017, 0.08816641557418917}, 1e-9);
  EXPECT_EQ(map[0], 0) << "not observed";
  std::vector<double> constant(99, 0.7);
  smooth(constant.data());
  for (std::size_t i = 1; i < 99; ++i) {
    EXPECT_NEAR(constant[i], i == 4 * 11 + 5 ? 0 : 0.7, 1e-12) << i;
  }
}

TEST(MapStatistics, RefuseWhatMakesNoSense) {
  EXPECT_THROW(Bins({1}), Error);
  EXPECT_THROW(Bins({1, 1}), Error);
  EXPECT_THROW(Bins({1, 0}), Error);
  EXPECT_THROW(Bins({0, nan}), Error);
  EXPECT_THROW(Bins({0, 1}).scaled(0), Error);
  const Bins uneven({-1, 0, 1e-3, 0.5, 0.51, 40, 1e300});
  for (int b = 0; b < 6; ++b) {
    const double low = uneven.edges()[static_cast<std::size_t>(b)],
                 high = uneven.edges()[static_cast<std::size_t>(b) + 1];
    EXPECT_EQ(uneven(low), b);
    EXPECT_EQ(uneven(std::nextafter(high, low)), b);
    EXPECT_EQ(uneven(low + (high - low) / 3), b);
  }
  EXPECT_EQ(uneven(1e300), -1);
  EXPECT_EQ(uneven(std::nextafter(-1.0, -2.0)), -1);
  EXPECT_EQ(Bins({0, 1, 3})(nan), -1);
  EXPECT_EQ(Bins({0, 1, 3})(3), -1);
  EXPECT_EQ(Bins({0, 1, 3})(1), 1);
  EXPECT_THROW(Footprint(small, std::vector<double>(98, 1.0), Border::open), Error);
  EXPECT_THROW(Footprint(small, std::vector<double>(99, 0.0), Border::open), Error);
  EXPECT_THROW(Footprint(small, std::vector<double>(99, nan), Border::open), Error);
  std::vector<double> line(99, 0.0);
  for (std::size_t x = 0; x < 11; ++x) line[4 * 11 + x] = 1;
  const Footprint thin(small, line, Border::open);
  EXPECT_THROW(minkowski_functionals(thin, rough(small).data(), Bins({0, 1}), 1, 1), Error);
  EXPECT_THROW(GaussianSmoothing(thin, 0), Error);
  EXPECT_THROW(gaussian_taps(-1), Error);
  EXPECT_NEAR(smoothed_noise(2.5), 1 / (2 * std::sqrt(pi) * 2.5), 1e-10);
  EXPECT_EQ(standard_deviation(thin, std::vector<double>(99, 0.1).data()), 0) << "not what rounding leaves";
}

}  // namespace
}  // namespace umbriel
