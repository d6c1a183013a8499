// umbriel stats as a user runs it, and what covariance makes of it.
#include <gtest/gtest.h>

#include <cmath>

#include "program.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using namespace testing;

TEST(StatsProgram, MeasuresTheSpectrumThatWasSimulatedBehindAMaskOnAnyNumberOfRanks) {
  const Folder folder;
  folder.write("cl.txt", "10 1e-8\n1000 1e-8\n100000 1e-8\n");  // white: every band has the same power
  ASSERT_EQ(folder
                .umbriel("simulate kappa --set simulate.power_spectrum=cl.txt --set simulate.kind=gaussian --set "
                         "simulate.samples=200 --set simulate.size=[48,40] --set run.output=maps.h5")
                .code,
            0);
  std::vector<float> mask(48 * 40, 1);
  for (int y = 10; y < 22; ++y) std::fill_n(mask.begin() + y * 48 + 15, 9, 0.0f);
  write_fits_map(folder / "mask.fits", mask.data(), {40, 48}, "", "mask");
  std::string first;
  for (const int ranks : {1, 2, 3}) {
    const Outcome outcome = folder.umbriel(
        "stats --set stats.maps=maps.h5 --set stats.pixel_arcmin=0.29 --set stats.mask=mask.fits --set "
        "stats.apodisation_arcmin=1 --set stats.edges=[0,12000,22000,32000,60000] --set run.output=stats.h5",
        ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const std::string digest = Hdf5Reader(folder / "stats.h5").data_digest();
    if (first.empty()) first = digest;
    EXPECT_EQ(digest, first) << ranks;
  }
  ASSERT_EQ(folder.umbriel("covariance --set covariance.vectors=stats.h5 --set run.output=c.h5", 2).code, 0);
  const Hdf5Reader stats(folder / "stats.h5"), covariance(folder / "c.h5");
  const auto modes = stats.read<double>("/statistics/band_modes"), mean = covariance.read<double>("/covariance/mean");
  ASSERT_EQ(mean.size(), 4U);
  for (std::size_t b = 1; b < 4; ++b)  // the first lacks the mean, which simulations do not have
    EXPECT_NEAR(mean[b], 1e-8, 5e-8 * std::sqrt(3 / modes[b] / 200)) << b;
}

TEST(StatsProgram, RefusesMapsOfTwoSizesAndAnotherMask) {
  const Folder folder;
  const std::vector<float> map(30 * 30, 0.5f);
  write_fits_map(folder / "a.fits", map.data(), {30, 30}, "", "map");
  write_fits_map(folder / "b.fits", map.data(), {20, 30}, "", "map");
  folder.write("sizes.toml", "[run]\noutput = \"s.h5\"\n[stats]\nmaps = [\"a.fits\", \"b.fits\"]\npixel_arcmin = 1\n");
  for (const int ranks : {1, 2}) {
    const Outcome sizes = folder.umbriel("stats sizes.toml", ranks);
    EXPECT_EQ(sizes.code, 3) << sizes.output;
    EXPECT_NE(sizes.output.find("b.fits"), std::string::npos) << sizes.output;
    const Outcome mask = folder.umbriel(
        "stats --set stats.pixel_arcmin=1 --set run.output=s.h5 --set stats.maps=a.fits --set stats.mask=b.fits",
        ranks);
    EXPECT_EQ(mask.code, 3) << mask.output;
    EXPECT_NE(mask.output.find("give one of 30 x 30 pixels"), std::string::npos) << mask.output;
    EXPECT_EQ(folder.files(), (std::vector<std::string>{"a.fits", "b.fits", "sizes.toml"}));
  }
}

}  // namespace
}  // namespace umbriel
