// umbriel simulate dust, cutouts and assemble as a user runs them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "program.hpp"
#include "umbriel/data/cutouts.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using namespace testing;

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string digest(const std::string& path) { return Hdf5Reader(path).data_digest(); }

/// A sky of nside 64 whose value is f(longitude, latitude).
template <class F>
void write_sky(const std::string& path, const F& f, bool nested = false, const std::string& coordinates = "G") {
  const HealpixPixels pixels(64, nested);
  std::vector<float> values;
  for (std::int64_t i = 0; i < pixels.count(); ++i) {
    const auto centre = pixels.centre(i);
    values.push_back(static_cast<float>(f(centre[0], centre[1])));
  }
  write_healpix_map(path, pixels, values, "I_STOKES", "MJy/sr", coordinates);
}

double smooth_sky(double longitude, double latitude) {
  const double degree = 3.14159265358979 / 180;
  return 3 + std::cos(2 * longitude * degree) * std::cos(latitude * degree) + std::sin(3 * latitude * degree);
}

TEST(CutoutsProgram, TheSameBitsOnAnyNumberOfRanksThreadsAndPieces) {
  const Folder folder;
  std::string sky, patches, back;
  const std::string cut = "cutouts --set cutouts.map=dust.fits --set cutouts.pixels=32 --set run.output=p.h5 ";
  for (const int ranks : {1, 2, 4}) {
    Outcome outcome = folder.shell("OMP_NUM_THREADS=" + std::to_string(ranks) + " " +
                                   Folder::program("simulate dust --set simulate.nside=64 --set run.output=dust.fits"));
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    // A gigabyte of the sky at once, or little more than a patch.
    outcome = folder.umbriel(cut + (ranks == 2 ? "--set cutouts.memory_gib=0.001" : ""), ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("1775 patches: "), std::string::npos) << outcome.output;
    outcome = folder.umbriel("assemble --set assemble.patches=p.h5 --set run.output=back.fits", ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    if (ranks == 1) {
      sky = contents(folder / "dust.fits");
      patches = digest(folder / "p.h5");
      back = contents(folder / "back.fits");
    }
    // The first block holds nothing but when CHECKSUM was written.
    EXPECT_EQ(contents(folder / "dust.fits").substr(3 * 2880), sky.substr(3 * 2880)) << ranks;
    EXPECT_EQ(digest(folder / "p.h5"), patches) << ranks;
    EXPECT_EQ(contents(folder / "back.fits").substr(3 * 2880), back.substr(3 * 2880)) << ranks;
  }
  EXPECT_EQ(folder.umbriel("inspect p.h5").code, 0);
}

TEST(CutoutsProgram, WritesWhatAReaderNeeds) {
  const Folder folder;
  write_sky(folder / "sky.fits", smooth_sky, true);
  const Outcome outcome = folder.umbriel(
      "cutouts --set cutouts.map=sky.fits --set cutouts.latitude_min=5 --set cutouts.pixels=16 --set "
      "cutouts.interpolation=area --set cutouts.field=I_STOKES --set run.output=p.h5");
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  const Hdf5Reader file(folder / "p.h5");
  EXPECT_EQ(file.shape("/patches/map"), (std::vector<std::uint64_t>{2261, 16, 16}));
  EXPECT_EQ(file.attribute("/patches/map", "units"), "MJy/sr");
  EXPECT_EQ(file.attribute("/patches", "ctype1"), "GLON-TAN");
  EXPECT_EQ(std::stod(file.attribute("/patches", "cdelt1")), -0.5);
  EXPECT_EQ(std::stod(file.attribute("/patches", "cdelt2")), 0.5);
  EXPECT_EQ(std::stod(file.attribute("/patches", "crpix1")), 8.5);
  const auto longitude = file.read<double>("/patches/longitude"), latitude = file.read<double>("/patches/latitude"),
             mean = file.read<double>("/patches/mean"), deviation = file.read<double>("/patches/deviation"),
             missing = file.read<double>("/patches/missing");
  const auto values = file.read<float>("/patches/map");
  std::array<int, 4> count{};
  for (const std::int32_t part : file.read<std::int32_t>("/patches/split"))
    ++count.at(static_cast<std::size_t>(part + 1));
  EXPECT_NEAR(count[1], 0.7 * (2261 - count[0]), 25);
  const HealpixMap map = HealpixFile(folder / "sky.fits", "0").read();
  std::vector<float> patch(256);
  for (const std::size_t i : {0U, 700U, 2260U}) {
    EXPECT_EQ(missing[i], 0);
    cut_patch(map, {longitude[i], latitude[i]}, {16, 8}, Interpolation::area, patch.data());
    double sum = 0, squares = 0;
    for (std::size_t k = 0; k < 256; ++k) {
      EXPECT_EQ(values[256 * i + k], patch[k]);
      sum += static_cast<double>(patch[k]) / 256;
    }
    for (std::size_t k = 0; k < 256; ++k) squares += std::pow(static_cast<double>(patch[k]) - sum, 2) / 256;
    EXPECT_NEAR(mean[i], sum, 1e-12);
    EXPECT_NEAR(deviation[i], std::sqrt(squares), 1e-12);
  }
}

TEST(CutoutsProgram, LeavesOutPatchesOfMissingPixelsOrFillsThem) {
  const Folder folder;
  // Half of the northern sky is missing.
  write_sky(folder / "sky.fits", [](double longitude, double latitude) {
    return longitude < 180 && latitude > 0 ? std::numeric_limits<double>::quiet_NaN() : smooth_sky(longitude, latitude);
  });
  const std::string cut = "cutouts --set cutouts.map=sky.fits --set cutouts.pixels=16 --set run.output=p.h5";
  ASSERT_EQ(folder.umbriel(cut, 2).code, 0);
  const auto longitude = Hdf5Reader(folder / "p.h5").read<double>("/patches/longitude"),
             latitude = Hdf5Reader(folder / "p.h5").read<double>("/patches/latitude");
  EXPECT_LT(longitude.size(), 1400U);
  for (std::size_t i = 0; i < longitude.size(); ++i) EXPECT_TRUE(latitude[i] < 0 || longitude[i] > 180);
  ASSERT_EQ(folder.umbriel(cut + " --set cutouts.maximum_missing=0.6").code, 0);
  const Hdf5Reader file(folder / "p.h5");
  EXPECT_GT(file.shape("/patches/map")[0], longitude.size() + 10);
  for (const float value : file.read<float>("/patches/map")) ASSERT_TRUE(std::isfinite(value));
  double most = 0;
  for (const double fraction : file.read<double>("/patches/missing")) most = std::max(most, fraction);
  EXPECT_GT(most, 0.3);
  EXPECT_LE(most, 0.6);
}

TEST(CutoutsProgram, AssembleGivesTheSkyBack) {
  const Folder folder;
  write_sky(folder / "sky.fits", smooth_sky);
  ASSERT_EQ(folder.umbriel("cutouts --set cutouts.map=sky.fits --set cutouts.pixels=64 --set run.output=p.h5").code, 0);
  const Outcome outcome = folder.umbriel("assemble --set assemble.patches=p.h5 --set run.output=back.fits", 2);
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  const HealpixFile file(folder / "back.fits", "0");
  EXPECT_EQ(file.unit(), "MJy/sr");
  EXPECT_EQ(file.coordinates(), "G");
  const HealpixMap back = file.read();
  std::int64_t covered = 0;
  for (std::int64_t i = 0; i < back.pixels().count(); ++i) {
    if (std::isnan(back[i])) continue;
    ++covered;
    const auto centre = back.pixels().centre(i);
    // Interpolated twice in pixels of a degree, where the second derivative is below 10: 10 (1 / 57)^2 / 8, twice.
    EXPECT_NEAR(back[i], smooth_sky(centre[0], centre[1]), 2e-3) << centre[0] << ", " << centre[1];
  }
  EXPECT_GT(covered, back.pixels().count() * 65 / 100);
}

TEST(CutoutsProgram, RefusesBadInput) {
  const Folder folder;
  write_sky(folder / "sky.fits", smooth_sky);
  write_sky(folder / "empty.fits", [](double, double) { return std::numeric_limits<double>::quiet_NaN(); });
  const std::vector<float> image(48, 1);
  write_fits_map(folder / "image.fits", image.data(), {6, 8}, "", "no table");
  write_fits_column(folder / "part.fits", "I", image.data(), 48, 1, "",
                    {{"PIXTYPE", "HEALPIX", ""}, {"ORDERING", "RING", ""}, {"NSIDE", std::int64_t{4}, ""}});
  ASSERT_EQ(folder.umbriel("cutouts --set cutouts.map=sky.fits --set cutouts.pixels=8 --set run.output=p.h5").code, 0);
  struct {
    std::string arguments;
    int code;
    std::string words;
  } const bad[] = {
      {"cutouts --set cutouts.map=none.fits", 5, "No such file"},
      {"cutouts --set cutouts.map=image.fits", 3, "no binary table with a column 0"},
      {"cutouts --set cutouts.map=part.fits", 3, "NSIDE = 4"},
      {"cutouts --set cutouts.map=sky.fits --set cutouts.field=Q_STOKES", 3, "it has I_STOKES"},
      {"cutouts --set cutouts.map=empty.fits --set cutouts.pixels=8", 3, "more missing pixels"},
      {"cutouts --set cutouts.map=sky.fits --set cutouts.split=[0.5,0.1,0.1]", 2, "sum to 1"},
      {"cutouts --set cutouts.map=sky.fits --set cutouts.pixels=8 --set cutouts.size_degrees=120", 2,
       "ask for fewer to validate"},
      {"cutouts --set cutouts.map=sky.fits --set cutouts.latitude_min=80 --set cutouts.step_degrees=12", 2,
       "no centre of a patch"},
      {"cutouts --set cutouts.map=sky.fits --set cutouts.pixel=8", 2, "cutouts.pixels"},
      {"assemble --set assemble.patches=p.h5 --set assemble.dataset=/patches/mean", 3, "square patches"},
      {"assemble --set assemble.patches=p.h5 --set run.output=x.h5", 2, "FITS"},
      {"assemble --set assemble.patches=sky.fits", 3, "sky.fits"},
      {"simulate dust --set run.output=x.h5", 2, "FITS"},
      {"simulate rain", 2, "kappa, dust"},
  };
  for (const auto& [arguments, code, words] : bad) {
    const bool output = arguments.find("run.output") == std::string::npos;
    const Outcome outcome = folder.umbriel(arguments + (output ? " --set run.output=out.fits" : ""), 2);
    EXPECT_EQ(outcome.code, code) << arguments << "\n" << outcome.output;
    EXPECT_NE(outcome.output.find(words), std::string::npos) << arguments << "\n" << outcome.output;
    EXPECT_FALSE(std::filesystem::exists(folder / "out.fits"));
  }
}

}  // namespace
}  // namespace umbriel
