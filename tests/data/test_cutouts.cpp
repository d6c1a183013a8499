// Patches of the sky: their centres, where their pixels lie, the division of the sky, and the way back.
#include "umbriel/data/cutouts.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "support.hpp"
#include "umbriel/data/tangent_plane.hpp"

namespace umbriel {
namespace {

using test::expect_error;

constexpr double degree = std::numbers::pi / 180;
using Vector = std::array<double, 3>;

Vector vector_of(double longitude_deg, double latitude_deg) {
  const double l = longitude_deg * degree, b = latitude_deg * degree;
  return {std::cos(b) * std::cos(l), std::cos(b) * std::sin(l), std::sin(b)};
}

/// A map whose value is f of the direction.
template <class F>
HealpixMap map_of(const HealpixPixels& pixels, const F& f) {
  std::vector<float> values(static_cast<std::size_t>(pixels.count()));
  for (std::int64_t i = 0; i < pixels.count(); ++i) {
    const auto centre = pixels.centre(i);
    values[static_cast<std::size_t>(i)] = static_cast<float>(f(vector_of(centre[0], centre[1])));
  }
  return {pixels, std::move(values)};
}

/// Direction of a patch pixel: the plane that touches the sphere at the pole, turned about y and then about z.
Vector direction(const PatchCentre& centre, const PatchGrid& grid, double x, double y) {
  const double step = grid.size_deg * degree / grid.pixels, middle = 0.5 * (grid.pixels - 1);
  // At the pole, seen from outside, x points to longitude 0 and y to longitude 90.
  const double toward_south = -(y - middle) * step, toward_east = (middle - x) * step;
  const Vector v = {toward_south, toward_east, 1};
  const double polar = (90 - centre.latitude_deg) * degree, l = centre.longitude_deg * degree;
  const Vector w = {std::cos(polar) * v[0] + std::sin(polar) * v[2], v[1],
                    -std::sin(polar) * v[0] + std::cos(polar) * v[2]};
  const double length = std::sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2]);
  return {(std::cos(l) * w[0] - std::sin(l) * w[1]) / length, (std::sin(l) * w[0] + std::cos(l) * w[1]) / length,
          w[2] / length};
}

const PatchCentre places[] = {{0, 0}, {120, 45}, {359, -30}, {77, -90}, {200, 87}, {10, 90}};

TEST(PatchCentres, AreAsManyAsPublished) {
  EXPECT_EQ(patch_centres(15, 4).size(), 1775U);
  EXPECT_EQ(patch_centres(5, 4).size(), 2261U);
  const auto centres = patch_centres(15, 4);
  EXPECT_EQ(centres[0].latitude_deg, -90);
  EXPECT_EQ(centres[1].latitude_deg, -86);
  EXPECT_EQ(centres[1].longitude_deg, 0);
  EXPECT_NEAR(centres[2].longitude_deg, 4 / std::cos(86 * degree), 1e-12);
  EXPECT_EQ(centres.back().latitude_deg, 87);
  for (const PatchCentre& centre : centres) EXPECT_GE(std::fabs(centre.latitude_deg), 19);
}

TEST(Cutouts, PixelsLieWhereTheTangentPlaneHasThem) {
  const HealpixPixels pixels(256, false);
  // Three maps give the direction that a pixel was taken from. Linear interpolation along a ring errs by its sagitta,
  // the more the narrower the ring.
  const HealpixMap x_map = map_of(pixels, [](const Vector& v) { return v[0]; });
  const HealpixMap y_map = map_of(pixels, [](const Vector& v) { return v[1]; });
  const HealpixMap z_map = map_of(pixels, [](const Vector& v) { return v[2]; });
  const double pixel = pixels.pixel_deg() * degree;
  const PatchGrid grid{17, 8};
  std::vector<float> x(17 * 17), y(x), z(x);
  for (const PatchCentre& centre : places) {
    EXPECT_EQ(cut_patch(x_map, centre, grid, Interpolation::bilinear, x.data()), 0);
    cut_patch(y_map, centre, grid, Interpolation::bilinear, y.data());
    cut_patch(z_map, centre, grid, Interpolation::bilinear, z.data());
    for (int row = 0; row < 17; ++row) {
      for (int column = 0; column < 17; ++column) {
        const Vector v = direction(centre, grid, column, row);
        const auto i = static_cast<std::size_t>(row * 17 + column);
        const double error = pixel * pixel * (2 + 0.5 / std::max(pixel, std::hypot(v[0], v[1])));
        EXPECT_NEAR(x[i], v[0], error);
        EXPECT_NEAR(y[i], v[1], error);
        EXPECT_NEAR(z[i], v[2], error);
      }
    }
  }
  // Longitude grows to the left, latitude upwards.
  const HealpixMap longitude = map_of(pixels, [](const Vector& v) { return std::atan2(v[1], v[0]) / degree; });
  const HealpixMap latitude = map_of(pixels, [](const Vector& v) { return std::asin(v[2]) / degree; });
  cut_patch(longitude, {50, 30}, grid, Interpolation::bilinear, x.data());
  cut_patch(latitude, {50, 30}, grid, Interpolation::bilinear, y.data());
  EXPECT_GT(x[8 * 17], x[8 * 17 + 16] + 8);
  EXPECT_LT(y[8], y[16 * 17 + 8] - 7);
}

TEST(Cutouts, APartOfTheMapIsEnoughForAPatch) {
  for (const bool nested : {false, true}) {
    const HealpixPixels pixels(64, nested);
    const HealpixMap map = map_of(pixels, [](const Vector& v) { return std::sin(40 * v[0]) + v[1] * v[2]; });
    const std::string path = (std::filesystem::temp_directory_path() / "umbriel-part.fits").string();
    std::vector<float> values;
    for (std::int64_t i = 0; i < pixels.count(); ++i) values.push_back(map[i]);
    write_healpix_map(path, pixels, values, "T", "K", "G");
    const HealpixFile file(path, "0");
    const PatchGrid grid{16, 8};
    std::vector<float> whole(256), part(256);
    for (const PatchCentre& centre : places) {
      for (const Interpolation how : {Interpolation::bilinear, Interpolation::area}) {
        cut_patch(map, centre, grid, how, whole.data());
        cut_patch(file.read(pixels_of_patch(pixels, centre, grid)), centre, grid, how, part.data());
        EXPECT_EQ(whole, part);
      }
    }
    std::filesystem::remove(path);
  }
}

TEST(Cutouts, AreaKeepsTheMeanOfTheSky) {
  const HealpixPixels pixels(256, false);
  std::uint32_t state = 1;
  const HealpixMap map = map_of(pixels, [&](const Vector&) {
    state = state * 1664525U + 1013904223U;
    return static_cast<double>(state >> 8) * 0x1p-24;
  });
  // White noise in pixels of 0.23 degrees, in patch pixels of 1 degree.
  const PatchGrid grid{8, 8};
  std::vector<float> area(64), bilinear(64);
  const PatchCentre centre{120, 45};
  cut_patch(map, centre, grid, Interpolation::area, area.data());
  cut_patch(map, centre, grid, Interpolation::bilinear, bilinear.data());
  // The plain mean of the pixels of the map inside each patch pixel.
  std::vector<double> sum(64), count(64);
  for (const PixelRange& range : pixels_of_patch(pixels, centre, grid)) {
    for (std::int64_t i = range.first; i < range.end; ++i) {
      const auto sky = pixels.centre(i);
      const auto plane = project_tangent(sky[0], sky[1], centre.longitude_deg, centre.latitude_deg);
      const double x = std::floor(4 - plane[0]), y = std::floor(4 + plane[1]);
      if (x < 0 || x > 7 || y < 0 || y > 7) continue;
      sum[static_cast<std::size_t>(8 * y + x)] += static_cast<double>(map[i]);
      count[static_cast<std::size_t>(8 * y + x)] += 1;
    }
  }
  double area_error = 0, bilinear_error = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    area_error += std::pow(area[i] - sum[i] / count[i], 2) / 64;
    bilinear_error += std::pow(bilinear[i] - sum[i] / count[i], 2) / 64;
  }
  // The scatter of a mean of 19 pixels is 0.29 / sqrt(19) = 0.066; what differs are pixels cut by the edges.
  EXPECT_LT(std::sqrt(area_error), 0.03);
  EXPECT_GT(std::sqrt(bilinear_error), 0.1);
  const HealpixMap even = map_of(pixels, [](const Vector&) { return 2.5; });
  cut_patch(even, centre, grid, Interpolation::area, area.data());
  for (const float value : area) EXPECT_FLOAT_EQ(value, 2.5F);
}

TEST(Cutouts, MissingPixelsAreCounted) {
  const HealpixPixels pixels(128, false);
  const PatchCentre centre{120, 45};
  const Vector middle = vector_of(120, 45);
  // All within a degree of the centre.
  const HealpixMap map = map_of(pixels, [&](const Vector& v) {
    const double cosine = v[0] * middle[0] + v[1] * middle[1] + v[2] * middle[2];
    return cosine > std::cos(degree) ? std::numeric_limits<double>::quiet_NaN() : 1.0;
  });
  const PatchGrid grid{64, 8};
  for (const Interpolation how : {Interpolation::bilinear, Interpolation::area}) {
    std::vector<float> patch(64 * 64);
    const std::int64_t missing = cut_patch(map, centre, grid, how, patch.data());
    EXPECT_EQ(missing, std::count_if(patch.begin(), patch.end(), [](float v) { return std::isnan(v); }));
    // Pixels of 1/64 square degree; the edge takes up to half a degree more all round.
    EXPECT_GT(missing, 64 * 3.1);
    EXPECT_LT(missing, 64 * 3.1 * 2.3);
  }
}

TEST(SkySplit, NoPixelOfTheMapServesTwoParts) {
  for (const double latitude_min : {15.0, 5.0}) {
    const HealpixPixels pixels(128, false);
    const PatchGrid grid{32, 8};
    const auto centres = patch_centres(latitude_min, 4);
    const auto parts = split_by_sky(pixels, centres, grid, {0.7, 0.15, 0.15}, 0);
    std::vector<std::int32_t> owner(static_cast<std::size_t>(pixels.count()), sky_border);
    std::array<double, 4> count{};
    for (std::size_t i = 0; i < centres.size(); ++i) {
      count[static_cast<std::size_t>(parts[i] + 1)] += 1;
      if (parts[i] == sky_border) continue;
      for (int k = 0; k < 32 * 32; ++k) {
        const Vector v = direction(centres[i], grid, k % 32, k / 32);
        const PixelNeighbours near = pixels.neighbours(std::atan2(v[1], v[0]) / degree, std::asin(v[2]) / degree);
        for (std::size_t j = 0; j < 4; ++j) {
          if (near.weight[j] == 0) continue;
          std::int32_t& part = owner[static_cast<std::size_t>(near.pixel[j])];
          ASSERT_TRUE(part == sky_border || part == parts[i]) << "patch " << i << ", pixel " << near.pixel[j];
          part = parts[i];
        }
      }
    }
    const double used = count[1] + count[2] + count[3];
    EXPECT_NEAR(count[2] / used, 0.15, 0.01);
    EXPECT_NEAR(count[3] / used, 0.15, 0.01);
    // Most patches are left: borders are narrow.
    EXPECT_GT(used, 0.8 * static_cast<double>(centres.size()));
    // Both sides of the Galaxy are in each part.
    for (const std::int32_t part : {sky_training, sky_validation, sky_test}) {
      for (const double side : {-1.0, 1.0}) {
        bool found = false;
        for (std::size_t i = 0; i < centres.size(); ++i)
          found = found || (parts[i] == part && centres[i].latitude_deg * side > 0);
        EXPECT_TRUE(found) << part << " " << side;
      }
    }
  }
}

TEST(SkySplit, WithoutValidationAndTestAllTrain) {
  const HealpixPixels pixels(64, false);
  const auto parts = split_by_sky(pixels, patch_centres(15, 10), {16, 8}, {1, 0, 0}, 30);
  EXPECT_TRUE(std::all_of(parts.begin(), parts.end(), [](std::int32_t part) { return part == sky_training; }));
  expect_error(ExitCode::usage, {"no patch is left to train on"}, [&] {
    split_by_sky(pixels, patch_centres(15, 10), {16, 120}, {0.7, 0.15, 0.15}, 0);
  });
}

TEST(PatchAssembly, ASmoothSkyComesBack) {
  const HealpixPixels pixels(64, false);
  const auto sky = [](const Vector& v) { return 2 + v[0] + std::sin(5 * v[1]) * std::cos(4 * v[2]); };
  const HealpixMap map = map_of(pixels, sky);
  const PatchGrid grid{64, 8};
  const auto centres = patch_centres(15, 4);
  // Two shares of the sky.
  std::vector<float> back;
  const std::int64_t half = pixels.count() / 3;
  for (const PixelRange share : {PixelRange{0, half}, PixelRange{half, pixels.count()}}) {
    PatchAssembler assembler(pixels, grid, share);
    std::vector<float> patch(64 * 64);
    for (const PatchCentre& centre : centres) {
      if (!assembler.reaches(centre)) continue;
      for (int k = 0; k < 64 * 64; ++k)
        patch[static_cast<std::size_t>(k)] = static_cast<float>(sky(direction(centre, grid, k % 64, k / 64)));
      assembler.add(centre, patch.data());
    }
    const auto values = assembler.values();
    back.insert(back.end(), values.begin(), values.end());
  }
  std::int64_t covered = 0;
  for (std::int64_t i = 0; i < pixels.count(); ++i) {
    const float value = back[static_cast<std::size_t>(i)];
    const double latitude = pixels.centre(i)[1];
    if (std::fabs(latitude) > 18.5 && std::fabs(latitude) < 85) {
      EXPECT_FALSE(std::isnan(value)) << latitude;
    }
    if (latitude < 14 && latitude > -17) {
      EXPECT_TRUE(std::isnan(value)) << latitude;
    }
    if (std::isnan(value)) continue;
    ++covered;
    // The sky's second derivative is below 50; a patch pixel has 1/8 degree.
    EXPECT_NEAR(value, map[i], 2 * 50 * std::pow(0.125 * degree, 2) / 8);
  }
  EXPECT_GT(covered, pixels.count() * 65 / 100);
}

TEST(PatchAssembly, PatchesFadeIntoEachOther) {
  // Two constant patches side by side: between their centres the mean goes from one to the other without a step.
  const HealpixPixels pixels(512, false);
  const PatchGrid grid{64, 8};
  PatchAssembler assembler(pixels, grid, {0, pixels.count()});
  const std::vector<float> zero(64 * 64, 0), one(64 * 64, 1);
  assembler.add({100, 0}, zero.data());
  assembler.add({104, 0}, one.data());
  const HealpixMap map(pixels, assembler.values());
  float last = map.interpolate(99, 0);
  EXPECT_EQ(last, 0);
  for (double longitude = 99; longitude < 105; longitude += 0.05) {
    const float value = map.interpolate(longitude, 0);
    EXPECT_GE(value, last - 1e-6F);
    EXPECT_LT(value - last, 0.03F);
    last = value;
  }
  EXPECT_NEAR(map.interpolate(102, 0), 0.5, 0.01);
  EXPECT_EQ(last, 1);
}

}  // namespace
}  // namespace umbriel
