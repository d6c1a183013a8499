// HEALPix maps: interpolation against the definition of the pixels, and files whole and in parts.
#include <cmath>
#include <limits>
#include <numbers>
#include <set>

#include "support.hpp"
#include "umbriel/data/healpix_map.hpp"

namespace umbriel {
namespace {

using test::expect_error;

class HealpixTest : public test::Folder {};

constexpr double degree = std::numbers::pi / 180;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// Ring i = 1 ... 4 nside - 1 of the definition (Gorski et al. 2005, section 5.1): pixels, first pixel, z, and phi of
/// the first pixel.
struct Ring {
  std::int64_t pixels, first;
  double z, phi;

  Ring(std::int64_t nside, std::int64_t i) {
    const double n = static_cast<double>(nside), r = static_cast<double>(i < nside ? i : 4 * nside - i);
    if (i < nside || i > 3 * nside) {
      const auto k = static_cast<std::int64_t>(r);
      pixels = 4 * k;
      first = i < nside ? 2 * k * (k - 1) : 12 * nside * nside - 2 * k * (k + 1);
      z = (1 - r * r / (3 * n * n)) * (i < nside ? 1 : -1);
      phi = std::numbers::pi / static_cast<double>(pixels);
    } else {
      pixels = 4 * nside;
      first = 2 * nside * (nside - 1) + (i - nside) * 4 * nside;
      z = 4.0 / 3 - 2 * static_cast<double>(i) / (3 * n);
      phi = (i - nside) % 2 == 0 ? std::numbers::pi / static_cast<double>(pixels) : 0;
    }
  }
};

/// Linear along the two rings beside a point, and linear in colatitude between them; beyond the last ring the pole
/// counts as the mean of that ring's four pixels.
double interpolate(const std::vector<float>& map, std::int64_t nside, double longitude_deg, double latitude_deg) {
  const double theta = (90 - latitude_deg) * degree, phi = longitude_deg * degree;
  std::int64_t above = 0;
  while (above < 4 * nside - 1 && std::acos(Ring(nside, above + 1).z) <= theta) ++above;
  const auto along = [&](std::int64_t i) {
    const Ring ring(nside, i);
    const auto n = static_cast<double>(ring.pixels);
    double place = std::fmod((phi - ring.phi) / (2 * std::numbers::pi) * n + n, n);
    const auto left = static_cast<std::int64_t>(place) % ring.pixels, right = (left + 1) % ring.pixels;
    place -= std::floor(place);
    return (1 - place) * static_cast<double>(map[static_cast<std::size_t>(ring.first + left)]) +
           place * static_cast<double>(map[static_cast<std::size_t>(ring.first + right)]);
  };
  const auto pole = [&](std::size_t first) {
    double sum = 0;
    for (std::size_t i = 0; i < 4; ++i) sum += static_cast<double>(map[first + i]) / 4;
    return sum;
  };
  const double theta0 = above == 0 ? 0 : std::acos(Ring(nside, above).z);
  const double theta1 = above == 4 * nside - 1 ? std::numbers::pi : std::acos(Ring(nside, above + 1).z);
  const double f = (theta - theta0) / (theta1 - theta0);
  const double value0 = above == 0 ? pole(0) : along(above);
  const double value1 = above == 4 * nside - 1 ? pole(map.size() - 4) : along(above + 1);
  return (1 - f) * value0 + f * value1;
}

/// Numbers without any pattern.
std::vector<float> noise(std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  std::uint32_t state = 1;
  for (float& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(state >> 8) * 0x1p-24F - 0.3F;
  }
  return values;
}

TEST(Healpix, InterpolatesAsTheRingsAreDefined) {
  for (const int nside : {1, 2, 5, 32}) {
    const HealpixPixels pixels(nside, false);
    const std::vector<float> values = noise(pixels.count());
    const HealpixMap map(pixels, values);
    for (int i = 0; i < 2000; ++i) {
      const double longitude = std::fmod(i * 137.50776, 360.0), latitude = std::asin(1 - (i + 0.5) / 1000) / degree;
      EXPECT_NEAR(map.interpolate(longitude, latitude), interpolate(values, nside, longitude, latitude), 1e-6)
          << nside << " at " << longitude << ", " << latitude;
    }
    for (const double latitude : {90.0, -90.0, 89.999, -89.999, 0.0})
      EXPECT_NEAR(map.interpolate(77, latitude), interpolate(values, nside, 77, latitude), 1e-6) << latitude;
    EXPECT_EQ(map.interpolate(-10, 20), map.interpolate(350, 20));
  }
}

TEST(Healpix, NestedPixelsAreTheSamePixelsInAnotherOrder) {
  const HealpixPixels ring(16, false), nested(16, true);
  const std::vector<float> values = noise(ring.count());
  std::vector<float> reordered(values.size());
  for (std::int64_t i = 0; i < ring.count(); ++i) {
    const auto centre = ring.centre(i);
    const std::int64_t other = nested.at(centre[0], centre[1]);
    EXPECT_EQ(ring.at(centre[0], centre[1]), i);
    reordered[static_cast<std::size_t>(other)] = values[static_cast<std::size_t>(i)];
  }
  const HealpixMap a(ring, values), b(nested, reordered);
  for (int i = 0; i < 500; ++i) {
    const double longitude = std::fmod(i * 137.50776, 360.0), latitude = std::asin(1 - (i + 0.5) / 250) / degree;
    EXPECT_NEAR(a.interpolate(longitude, latitude), b.interpolate(longitude, latitude), 1e-6);
  }
}

TEST(Healpix, NestedPixelsHoldTheirFourChildren) {
  const HealpixPixels parents(4, true), children(8, true);
  for (std::int64_t i = 0; i < children.count(); ++i) {
    const auto centre = children.centre(i);
    EXPECT_EQ(parents.at(centre[0], centre[1]), i / 4);
  }
}

TEST(Healpix, WeightsAreThoseOfAMeanAndPixelsKeepTheirValue) {
  for (const bool nested : {false, true}) {
    const HealpixPixels pixels(8, nested);
    const std::vector<float> values = noise(pixels.count());
    const HealpixMap map(pixels, values);
    for (std::int64_t i = 0; i < pixels.count(); ++i) {
      const auto centre = pixels.centre(i);
      const PixelNeighbours near = pixels.neighbours(centre[0] + 0.7, centre[1] * 0.99);
      double sum = 0;
      for (std::size_t k = 0; k < 4; ++k) {
        EXPECT_GE(near.weight[k], -1e-12);
        sum += near.weight[k];
      }
      EXPECT_NEAR(sum, 1, 1e-12);
      EXPECT_NEAR(map.interpolate(centre[0], centre[1]), values[static_cast<std::size_t>(i)], 1e-6);
    }
  }
}

TEST_F(HealpixTest, FilesComeBackInBothOrdersAndAllSides) {
  for (const bool nested : {false, true}) {
    for (const int nside : {1, 2, 3, 16, 32}) {
      if (nested && nside == 3) continue;
      const HealpixPixels pixels(nside, nested);
      std::vector<float> values = noise(pixels.count());
      values[3] = nan;
      write_healpix_map(path("map.fits"), pixels, values, "I_STOKES", "MJy/sr", "G");
      const HealpixFile file(path("map.fits"), "i_stokes");
      EXPECT_EQ(file.pixels().nside(), nside);
      EXPECT_EQ(file.pixels().nested(), nested);
      EXPECT_EQ(file.unit(), "MJy/sr");
      EXPECT_EQ(file.coordinates(), "G");
      const HealpixMap map = file.read();
      for (std::int64_t i = 0; i < pixels.count(); ++i) {
        const float value = values[static_cast<std::size_t>(i)];
        EXPECT_TRUE(map[i] == value || (std::isnan(map[i]) && std::isnan(value))) << i;
      }
    }
  }
}

TEST_F(HealpixTest, ReadsOnlyThePartsAskedFor) {
  for (const bool nested : {false, true}) {
    const HealpixPixels pixels(128, nested);
    const std::vector<float> values = noise(pixels.count());
    write_healpix_map(path("map.fits"), pixels, values, "T", "K", "");
    const HealpixFile file(path("map.fits"), "0");
    const std::vector<PixelRange> ranges = pixels.disc(10, -40, 5);
    const HealpixMap map = file.read(ranges);
    EXPECT_LT(map.bytes(), values.size() * sizeof(float) / 10);
    std::set<std::int64_t> inside;
    for (const PixelRange& range : ranges) {
      for (std::int64_t i = range.first; i < range.end; ++i) {
        EXPECT_EQ(map[i], values[static_cast<std::size_t>(i)]);
        inside.insert(i);
      }
    }
    const auto centre = pixels.centre(pixels.at(10, -40));
    EXPECT_EQ(inside.count(pixels.at(centre[0], centre[1])), 1U);
    // 25 pi square degrees.
    EXPECT_NEAR(static_cast<double>(inside.size()) * std::pow(pixels.pixel_deg(), 2), 78.5, 2);
    expect_error(ExitCode::usage, {"was not read"}, [&] { (void)map[pixels.at(190, 40)]; });
  }
}

TEST_F(HealpixTest, TakesUnseenInAnyDigitsAndInfinityForMissing) {
  const HealpixPixels pixels(2, false);
  std::vector<float> values(48, 1);
  values[5] = -1.63750e30F;
  values[6] = -1.6374999e30F;
  values[7] = std::numeric_limits<float>::infinity();
  write_healpix_map(path("map.fits"), pixels, values, "T", "", "");
  const HealpixMap map = HealpixFile(path("map.fits"), "T").read();
  for (const std::int64_t i : {5, 6, 7}) EXPECT_TRUE(std::isnan(map[i])) << i;
  EXPECT_EQ(map[8], 1);
  const auto centre = pixels.centre(5);
  EXPECT_TRUE(std::isnan(map.interpolate(centre[0] + 3, centre[1])));
}

TEST(Healpix, ReadsAPublishedMapAsHealpyDoes) {
  UMBRIEL_NEEDS_REFERENCE_DATA(folder);
  const std::string path = folder + "/dust/thermal_dust_353GHz_nside64.fits";
  const HealpixFile first(path, "0"), second(path, "Q_STOKES");
  EXPECT_EQ(first.unit(), "uK_RJ");
  EXPECT_EQ(first.pixels().nside(), 64);
  const HealpixMap intensity = first.read(), q = second.read();
  // healpy.get_interp_val in float64.
  const double truth[][4] = {
      {0, 0, 29682.9092, 95.3812752},
      {123.4, -56.7, 33.4307033, 2.53953211},
      {359.99, 89.5, 6.82693928, -0.00640894204},
      {45, 41.81, 33.9655927, -3.58381756},
      {271.3, -89.99, 7.84634586, 0.0741079266},
      {200, 3, 387.179895, 13.8058726},
  };
  for (const auto& [longitude, latitude, i, stokes_q] : truth) {
    EXPECT_NEAR(intensity.interpolate(longitude, latitude), i, 1e-6 * std::fabs(i));
    EXPECT_NEAR(q.interpolate(longitude, latitude), stokes_q, 2e-6 * std::fabs(stokes_q));
  }
}

TEST_F(HealpixTest, RefusesTablesThatAreNoHealpixMaps) {
  const std::vector<float> values(48, 1);
  const auto make = [&](std::int64_t n, const std::vector<FitsKey>& keys) {
    write_fits_column(path("map.fits"), "I", std::vector<float>(static_cast<std::size_t>(n), 1).data(), n, 1, "", keys);
    HealpixFile(path("map.fits"), "0");
  };
  const auto refused = [&](const std::string& what, std::int64_t n, const std::vector<FitsKey>& keys) {
    expect_error(ExitCode::input, {what, path("map.fits")}, [&] { make(n, keys); });
  };
  const FitsKey type{"PIXTYPE", "HEALPIX", ""}, ring{"ORDERING", "RING", ""}, nested{"ORDERING", "NESTED", ""};
  const auto nside = [](std::int64_t n) { return FitsKey{"NSIDE", n, ""}; };
  make(48, {type, ring, nside(2)});
  refused("PIXTYPE is ''", 48, {ring, nside(2)});
  refused("neither RING nor NESTED", 48, {type, nside(2)});
  refused("12 nside^2", 47, {type, ring, nside(2)});
  refused("NSIDE = 4", 48, {type, ring, nside(4)});
  refused("no power of two", 108, {type, nested, nside(3)});
  refused("part of the sky", 48, {type, ring, nside(2), {"INDXSCHM", "EXPLICIT", ""}});
  expect_error(ExitCode::input, {"no binary table with a column Q", "I"}, [&] { HealpixFile(path("map.fits"), "Q"); });
  expect_error(ExitCode::input, {"no binary table with a column 1"}, [&] { HealpixFile(path("map.fits"), "1"); });
  const std::string whole = bytes("map.fits");
  expect_error(ExitCode::input, {"truncated"},
               [&] { HealpixFile(write("short.fits", whole.substr(0, whole.size() - 2880)), "0"); });
  std::string changed = whole;
  changed[changed.size() - 2880 + 5] ^= 1;
  expect_error(ExitCode::input, {"DATASUM"}, [&] { HealpixFile(write("changed.fits", changed), "0"); });
}

}  // namespace
}  // namespace umbriel
