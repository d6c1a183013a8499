// Flat patches that tile the sky: that they do, what they hold, and which files are full skies.
#include <array>
#include <cmath>
#include <numbers>

#include "support.hpp"
#include "umbriel/data/map_folder.hpp"
#include "umbriel/data/sky_tiles.hpp"
#include "umbriel/data/tangent_plane.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using test::expect_error;

constexpr double degree = std::numbers::pi / 180;

/// A smooth function of the position without any symmetry.
double field(double longitude_deg, double latitude_deg) {
  const double l = longitude_deg * degree, b = latitude_deg * degree;
  const double x = std::cos(b) * std::cos(l), y = std::cos(b) * std::sin(l), z = std::sin(b);
  return 0.3 * x - 0.5 * y + 0.8 * z + 0.4 * x * y + 0.6 * y * z;
}

/// Where a point of the sky lies in the plane of a patch, in tangents; false behind the patch.
bool project(const PatchCentre& centre, double longitude_deg, double latitude_deg, double& x, double& y) {
  const double l = (longitude_deg - centre.longitude_deg) * degree, b = latitude_deg * degree,
               c = centre.latitude_deg * degree;
  const double towards = std::sin(c) * std::sin(b) + std::cos(c) * std::cos(b) * std::cos(l);
  x = std::cos(b) * std::sin(l) / towards;
  y = (std::cos(c) * std::sin(b) - std::sin(c) * std::cos(b) * std::cos(l)) / towards;
  return towards > 0;
}

TEST(SkyTiles, ShareNoPointOfTheSky) {
  for (const double size : {10.0, 31.0}) {
    const PatchGrid grid{16, size};
    const std::vector<PatchCentre> centres = tile_centres(grid);
    const double half = 0.5 * size * degree;
    for (const PatchCentre& centre : centres) {
      // Points of the outline, a little inside.
      for (int i = 0; i < 32; ++i) {
        const double along = (2.0 * (i % 8) / 7 - 1) * 0.4999 * size, edge = 0.4999 * size;
        const std::array<double, 2> plane = i < 8    ? std::array{along, -edge}
                                            : i < 16 ? std::array{along, edge}
                                            : i < 24 ? std::array{-edge, along}
                                                     : std::array{edge, along};
        const auto sky = unproject_tangent(plane[0], plane[1], centre.longitude_deg, centre.latitude_deg);
        int holders = 0;
        for (const PatchCentre& other : centres) {
          double x = 0, y = 0;
          if (std::fabs(other.latitude_deg - centre.latitude_deg) > 2 * size) continue;
          if (project(other, sky[0], sky[1], x, y) && std::fabs(x) < half && std::fabs(y) < half) ++holders;
        }
        ASSERT_EQ(holders, 1) << size << ": " << centre.longitude_deg << " " << centre.latitude_deg;
      }
    }
  }
}

TEST(SkyTiles, CoverMostOfTheSky) {
  // The solid angle of a square of half side h in the plane is 4 asin(h^2 / (1 + h^2)).
  for (const auto& [size, least] : {std::pair{2.0, 0.97}, std::pair{7.3, 0.9}, std::pair{20.0, 0.78}}) {
    const double h = 0.5 * size * degree;
    const double covered =
        static_cast<double>(tile_centres({64, size}).size()) * std::asin(h * h / (1 + h * h)) / std::numbers::pi;
    EXPECT_GT(covered, least) << size;
    EXPECT_LT(covered, 1) << size;
  }
  expect_error(ExitCode::usage, {"61.000000 degrees wide"}, [] { tile_centres({64, 61}); });
}

class SkyFiles : public test::Folder {
 protected:
  static std::vector<float> sky(int nside) {
    const HealpixPixels pixels(nside, false);
    std::vector<float> values(static_cast<std::size_t>(pixels.count()));
    for (std::int64_t i = 0; i < pixels.count(); ++i) {
      const auto centre = pixels.centre(i);
      values[static_cast<std::size_t>(i)] = static_cast<float>(field(centre[0], centre[1]));
    }
    return values;
  }
  std::string hdf5(const std::string& name, const std::string& dataset, const std::vector<float>& values) const {
    Hdf5Writer writer(path(name), Communicator());
    writer.write_axis("pixel", std::vector<double>(values.size()), "1", "pixel");
    writer.write<float>({dataset, {"pixel"}, "1", "convergence"}, {values.size()}, values.data());
    writer.commit();
    return path(name);
  }
  static MapFolder open(const std::string& file, const std::string& dataset, int patch, double pixel_arcmin = 60) {
    MapFolder::Options options;
    options.dataset = dataset;
    options.patch_pixels = patch;
    options.pixel_arcmin = pixel_arcmin;
    return {Communicator(), {file}, options};
  }
};

// Every pixel of every patch against the function that the sky is made of, at the pixel's place.
TEST_F(SkyFiles, PatchesHoldTheSky) {
  const std::string cosmogrid = hdf5("maps.h5", "kg/stage3_lensing1", sky(64));
  const std::string fits = path("sky.fits");
  write_healpix_map(fits, HealpixPixels(64, false), sky(64), "KAPPA", "", "C");
  const int n = 12;
  const std::vector<PatchCentre> centres = tile_centres({n, 12});
  for (const std::string& file : {cosmogrid, fits}) {
    MapFolder folder = open(file, file == fits ? "" : "/kg/stage3_lensing1", n);
    ASSERT_EQ(folder.size(), static_cast<std::int64_t>(centres.size()));
    EXPECT_EQ(folder.grid(0), (Grid{n, n}));
    for (std::int64_t i = 0; i < folder.size(); ++i) {
      const std::shared_ptr<const float> map = folder.read(i);
      for (int y = 0; y < n; ++y) {
        for (int x = 0; x < n; ++x) {
          const auto& centre = centres[static_cast<std::size_t>(i)];
          const auto at = unproject_tangent(5.5 - x, y - 5.5, centre.longitude_deg, centre.latitude_deg);
          ASSERT_NEAR(map.get()[y * n + x], field(at[0], at[1]), 1e-3)
              << file << " patch " << i << ", " << y << " " << x;
        }
      }
    }
  }
}

TEST_F(SkyFiles, RefusesWhatIsNoFullSky) {
  const std::string maps = hdf5("maps.h5", "kg/stage3_lensing1", sky(8));
  expect_error(ExitCode::input, {"one row of values", maps, "patch"}, [&] { open(maps, "kg/stage3_lensing1", 0); });
  expect_error(ExitCode::usage, {"which dataset", maps}, [&] { open(maps, "", 12); });
  expect_error(ExitCode::input, {"no dataset kg/stage3_lensing9", maps}, [&] { open(maps, "kg/stage3_lensing9", 12); });
  const std::string short_map = hdf5("short.h5", "kg", std::vector<float>(767));
  expect_error(ExitCode::input, {"no HEALPix map", short_map}, [&] { open(short_map, "kg", 12); });
  expect_error(ExitCode::usage, {"80.000000 degrees wide"}, [&] { open(maps, "kg/stage3_lensing1", 80); });
  std::vector<float> holes = sky(8);
  holes[400] = std::nanf("");
  const std::string holed = hdf5("holes.h5", "kg", holes);
  expect_error(ExitCode::input, {"a map holds nan", holed, ", map "}, [&] { open(holed, "kg", 12); });
  const std::string flat = path("flat.fits");
  write_fits_map(flat, holes.data(), {8, 8}, "", "map");
  expect_error(ExitCode::input, {flat}, [&] { open(flat, "", 12); });
  const std::string other = write("map.npy", "no matter what");
  expect_error(ExitCode::input, {"no map of the full sky", other}, [&] { open(other, "", 12); });
}

}  // namespace
}  // namespace umbriel
