// Binning: a catalogue small enough to bin by hand, what is refused, and the published COSMOS maps.
#include <cmath>
#include <cstring>
#include <numbers>

#include "support.hpp"
#include "umbriel/data/catalogue.hpp"
#include "umbriel/data/fits.hpp"

namespace umbriel {
namespace {

using test::expect_error;

/// Two galaxies in pixel [1, 1], one in [0, 2], one of no weight in [0, 0], one outside; grid 2 x 3 of 0.1 degrees.
ShapeCatalogue five_galaxies(double ra0 = 10) {
  ShapeCatalogue c;
  c.ra = {ra0, ra0, ra0 + 0.1, ra0 - 0.1, ra0 + 2};
  for (double& ra : c.ra) ra = std::fmod(ra + 360, 360);
  c.dec = {0.05, 0.05, -0.05, -0.05, 0};
  c.e1 = {0.1, 0.3, -0.2, 1.0, 0.2};
  c.e2 = {0.2, -0.4, 0.1, 1.0, 0.1};
  c.weight = {1, 3, 2, 0, 1};
  return c;
}

const Grid grid{2, 3};

BinningOptions about(double ra, double dec) {
  BinningOptions options;
  options.centre = {ra, dec};
  return options;
}

TEST(Catalogue, BinsByHand) {
  for (const double ra0 : {10.0, 0.0, 359.95}) {  // also across right ascension 0
    for (const Projection projection : {Projection::plate_carree, Projection::tangent}) {
      BinningOptions options = about(ra0, 0);
      options.projection = projection;
      options.insist_on_degrees = true;
      const BinnedShear out = bin_catalogue(five_galaxies(ra0), grid, 6, options);
      const std::vector<double> shear1 = {0, 0, -0.2, 0, 0.25, 0};
      const std::vector<double> shear2 = {0, 0, -0.1, 0, 0.25, 0};  // the sign of e2 turned
      // Scatter of {0.1, 0.3, -0.2, 0.2}: mean 0.1, variance 0.14 / 4; of {0.2, -0.4, 0.1, 0.1}: mean 0, 0.22 / 4.
      const std::vector<double> noise1 = {0, 0, std::sqrt(0.035), 0, std::sqrt(0.0175), 0};
      const std::vector<double> noise2 = {0, 0, std::sqrt(0.055), 0, std::sqrt(0.0275), 0};
      for (std::size_t i = 0; i < 6; ++i) {
        EXPECT_NEAR(out.shear1[i], shear1[i], 1e-15) << i;
        EXPECT_NEAR(out.shear2[i], shear2[i], 1e-15) << i;
        EXPECT_NEAR(out.noise1[i], noise1[i], 1e-15) << i;
        EXPECT_NEAR(out.noise2[i], noise2[i], 1e-15) << i;
      }
      EXPECT_EQ(out.mask, (std::vector<std::uint8_t>{0, 0, 1, 0, 1, 0}));
      EXPECT_EQ(out.galaxies, 3);
      EXPECT_EQ(out.projection, projection);
    }
  }
}

TEST(Catalogue, CentreMayBeAnyTurnOfTheSame) {
  for (const double ra0 : {-0.05, 359.95}) {
    const BinnedShear out = bin_catalogue(five_galaxies(359.95), grid, 6, about(ra0, 0));
    EXPECT_EQ(out.mask, (std::vector<std::uint8_t>{0, 0, 1, 0, 1, 0}));
    EXPECT_NEAR(out.plane.ra_deg, 359.95, 1e-12);
  }
}

TEST(Catalogue, Flips) {
  BinningOptions options = about(10, 0);
  options.flip_e1 = true;
  options.flip_e2 = false;
  const BinnedShear out = bin_catalogue(five_galaxies(), grid, 6, options);
  EXPECT_NEAR(out.shear1[4], -0.25, 1e-15);
  EXPECT_NEAR(out.shear2[4], -0.25, 1e-15);
}

TEST(Catalogue, CentreIsTheMedianPosition) {
  ShapeCatalogue c = five_galaxies(359.95);
  const BinnedShear odd = bin_catalogue(c, grid, 6);
  EXPECT_NEAR(odd.plane.ra_deg, 359.95, 1e-12);
  EXPECT_EQ(odd.plane.dec_deg, 0);
  for (auto* column : {&c.ra, &c.dec, &c.e1, &c.e2, &c.weight}) column->push_back((*column)[2]);
  const BinnedShear even = bin_catalogue(c, grid, 6);
  EXPECT_NEAR(even.plane.ra_deg, 0.0, 1e-12);  // between 359.95 and 0.05
  EXPECT_EQ(even.plane.dec_deg, -0.025);
}

// A galaxy at a pixel's centre on the sky falls in that pixel, so grid and plane agree; far from the equator too.
TEST(Catalogue, PlaneIsTheGridOnTheSky) {
  const Grid wide{40, 50};
  ShapeCatalogue one = five_galaxies();
  one.dec[0] = 60;
  const TangentPlane plane = bin_catalogue(one, wide, 6, about(10, 60)).plane;
  EXPECT_GT(plane.cdelt_x_deg, 0);  // x grows with right ascension
  EXPECT_DOUBLE_EQ(plane.cdelt_y_deg, 0.1);
  for (const auto& [x, y] : {std::pair{0, 0}, {49, 0}, {0, 39}, {49, 39}, {25, 20}, {7, 31}}) {
    const auto position = sky_position(plane, x + 1, y + 1);
    one.ra[0] = position[0];
    one.dec[0] = position[1];
    one.weight = {1, 0, 0, 0, 0};
    const BinnedShear out = bin_catalogue(one, wide, 6, about(10, 60));
    EXPECT_EQ(out.projection, Projection::tangent);
    EXPECT_EQ(out.mask[static_cast<std::size_t>(y * 50 + x)], 1) << x << " " << y;
  }
}

TEST(Catalogue, ProjectionFollowsTheDeclination) {
  EXPECT_EQ(choose_projection(2.2475), Projection::plate_carree);
  EXPECT_EQ(choose_projection(-2.55), Projection::plate_carree);
  EXPECT_EQ(choose_projection(2.57), Projection::tangent);
  EXPECT_EQ(choose_projection(-60), Projection::tangent);
}

TEST(Catalogue, Refusals) {
  const auto refused = [](const std::function<void(ShapeCatalogue&)>& spoil, const std::vector<std::string>& parts) {
    ShapeCatalogue c = five_galaxies();
    spoil(c);
    expect_error(ExitCode::input, parts, [&] { bin_catalogue(c, grid, 6, about(10, 0), "cat.fits"); });
  };
  refused([](auto& c) { c = {}; }, {"no galaxies", "cat.fits"});
  refused([](auto& c) { c.e2.pop_back(); }, {"column e2 has 4", "ra has 5", "cat.fits"});
  refused([](auto& c) { c.ra[3] = std::nan(""); }, {"column ra holds nan", "galaxy 3"});
  refused([](auto& c) { c.dec[1] = 90.5; }, {"column dec holds 90.5", "galaxy 1", "-90 to 90"});
  refused([](auto& c) { c.e1[2] = -99; }, {"column e1 holds -99", "galaxy 2"});
  refused([](auto& c) { c.e2[2] = INFINITY; }, {"column e2 holds inf"});
  refused([](auto& c) { c.weight[0] = -1; }, {"column weight holds -1", "galaxy 0"});
  refused([](auto& c) { c.weight.assign(5, 0); }, {"every weight", "zero"});
  refused([](auto& c) { c.ra.assign(5, 200); }, {"no galaxy", "survey.centre"});
  expect_error(ExitCode::input, {"pixel size", "survey.pixel_arcmin"}, [] { bin_catalogue(five_galaxies(), grid, 0); });
}

TEST(Catalogue, RadiansAreRefusedAndSmallDegreesAreNot) {
  // A COSMOS-like field in radians: right ascension 2.62, declination 0.039, 1.4 degrees on a side.
  ShapeCatalogue c;
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 20; ++j) {
      c.ra.push_back(149.4 + 0.07 * i);
      c.dec.push_back(1.6 + 0.07 * j);
      c.e1.push_back(0.1 * (i % 3));
      c.e2.push_back(0.1 * (j % 3));
      c.weight.push_back(1);
    }
  }
  const Grid cosmos{360, 360};
  EXPECT_EQ(bin_catalogue(c, cosmos, 0.29).galaxies, 400);
  ShapeCatalogue radians = c;
  for (double& v : radians.ra) v *= std::numbers::pi / 180;
  for (double& v : radians.dec) v *= std::numbers::pi / 180;
  expect_error(ExitCode::input, {"look like radians", "cat.fits", "give degrees", "survey.catalogue.unit = \"deg\""},
               [&] { bin_catalogue(radians, cosmos, 0.29, {}, "cat.fits"); });
  // Density tells where the grid is only a small part of the field: 100 times the galaxies, grid of 10 arcmin.
  ShapeCatalogue dense;
  for (int copy = 0; copy < 100; ++copy)
    for (auto member :
         {&ShapeCatalogue::ra, &ShapeCatalogue::dec, &ShapeCatalogue::e1, &ShapeCatalogue::e2, &ShapeCatalogue::weight})
      (dense.*member).insert((dense.*member).end(), (radians.*member).begin(), (radians.*member).end());
  expect_error(ExitCode::input, {"look like radians"}, [&] { bin_catalogue(dense, {36, 36}, 0.29); });
  BinningOptions insist;
  insist.insist_on_degrees = true;
  EXPECT_EQ(bin_catalogue(radians, cosmos, 0.29, insist).galaxies, 400);
  // A mock field about (1, 1) degrees.
  for (double& v : c.ra) v -= 149.1;
  for (double& v : c.dec) v -= 1.6;
  EXPECT_EQ(bin_catalogue(c, cosmos, 0.29).galaxies, 400);
}

TEST(Catalogue, ReproducesTheCosmosMaps) {
  UMBRIEL_NEEDS_REFERENCE_DATA(data);
  const auto column = [&](const char* name) { return read_fits_column(data + "/cosmos/" + name + ".fits"); };
  const auto map = [&](const char* name) { return read_fits_image(data + "/cosmos/" + name + ".fits").values; };
  const ShapeCatalogue c = {column("ra"), column("dec"), column("e1"), column("e2"), column("nhweight_int")};
  ASSERT_EQ(c.ra.size(), 417117U);
  const BinnedShear out = bin_catalogue(c, {360, 360}, 0.29);
  EXPECT_EQ(out.projection, Projection::plate_carree);
  EXPECT_EQ(out.galaxies, 417117);

  const auto largest_difference = [](const std::vector<double>& a, const std::vector<double>& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
    return largest;
  };
  const double d1 = largest_difference(out.shear1, map("e1_map"));
  const double d2 = largest_difference(out.shear2, map("e2_map"));
  EXPECT_LT(d1, 6e-8);
  EXPECT_LT(d2, 6e-8);
  std::printf("largest difference from the COSMOS maps: e1 %.3g, e2 %.3g\n", d1, d2);
  // The maps are float32: the rounded values agree bit by bit.
  const auto as_float = [](std::vector<double> values) {
    for (double& v : values) v = static_cast<double>(static_cast<float>(v));
    return values;
  };
  EXPECT_EQ(as_float(out.shear1), map("e1_map"));
  EXPECT_EQ(as_float(out.shear2), map("e2_map"));
  EXPECT_EQ(std::vector<double>(out.mask.begin(), out.mask.end()), map("mask"));
  EXPECT_EQ(out.noise1, map("std1"));  // float64, bit by bit
  EXPECT_EQ(out.noise2, map("std2"));

  ShapeCatalogue radians = c;
  for (double& v : radians.ra) v *= std::numbers::pi / 180;
  for (double& v : radians.dec) v *= std::numbers::pi / 180;
  expect_error(ExitCode::input, {"look like radians"}, [&] { bin_catalogue(radians, {360, 360}, 0.29); });
}

}  // namespace
}  // namespace umbriel
