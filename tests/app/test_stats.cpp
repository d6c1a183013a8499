// umbriel stats as a user runs it, and what covariance makes of it.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "program.hpp"
#include "umbriel/data/npy.hpp"
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

/// Two files of two maps and one, 9 x 11 pixels of ((a y + b x + c x y) mod p) / 128, and mask.npy with two holes.
void write_rough_maps(const Folder& folder) {
  const auto map = [](int a, int b, int c, int p) {
    std::vector<double> out;
    for (int y = 0; y < 9; ++y) {
      for (int x = 0; x < 11; ++x) out.push_back((a * y + b * x + c * x * y) % p / 128.0);
    }
    return out;
  };
  std::vector<double> two = map(37, 91, 13, 101);
  const std::vector<double> second = map(17, 29, 7, 97), third = map(5, 11, 3, 89);
  two.insert(two.end(), second.begin(), second.end());
  write_npy(folder / "a.npy", {2, 9, 11}, two.data());
  write_npy(folder / "b.npy", {9, 11}, third.data());
  std::vector<double> mask(99, 1.0);
  mask[4 * 11 + 5] = mask[0] = 0;
  write_npy(folder / "mask.npy", {9, 11}, mask.data());
}

void expect_row(const Hdf5Reader& file, const std::string& name, std::size_t row, const std::vector<double>& expected,
                double tolerance) {
  const std::vector<double> all = file.read<double>("/statistics/" + name);
  ASSERT_EQ(all.size(), 3 * expected.size()) << name;
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(all[row * expected.size() + i], expected[i], tolerance) << name << " " << i;
}

TEST(StatsProgram, GivesNumpysNumbersOfMapsInRealSpaceOnAnyNumberOfRanks) {
  const Folder folder;
  write_rough_maps(folder);
  folder.write("stats.toml",
               "[run]\noutput = \"s.h5\"\n[stats]\nmaps = [\"a.npy\", \"b.npy\"]\npixel_arcmin = 0.5\nmask = "
               "\"mask.npy\"\nmeasure = [\"minkowski\", \"pdf\", \"peaks\", \"minima\"]\npdf_edges = [0, 1, 2, "
               "3]\npeak_edges = [1, 2, 2.5, 3]\nminimum_edges = [0, 0.3, 1, 2]\nminkowski_edges = [0.5, 1, 2]\n");
  std::string first;
  for (const int ranks : {1, 2, 3}) {
    const Outcome outcome = folder.umbriel("stats stats.toml", ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const std::string digest = Hdf5Reader(folder / "s.h5").data_digest();
    if (first.empty()) first = digest;
    EXPECT_EQ(digest, first) << ranks;
  }
  {
    const Hdf5Reader file(folder / "s.h5");
    EXPECT_FALSE(file.has("/statistics/power_spectrum"));
    EXPECT_EQ(file.shape("/statistics/pdf"), (std::vector<std::uint64_t>{3, 3}));
    EXPECT_EQ(file.read<double>("/pdf_bin"), (std::vector<double>{0.5, 1.5, 2.5}));
    EXPECT_EQ(file.read<double>("/statistics/peak_bin_high"), (std::vector<double>{2, 2.5, 3}));
    EXPECT_EQ(file.attribute("/statistics/minkowski_v1", "units"), "arcmin-1");
    expect_row(file, "standard_deviation", 1, {0.2149054227525637}, 1e-15);
    expect_row(file, "pdf", 1, {0.30927835051546393, 0.29896907216494845, 0.25773195876288657}, 1e-15);
    expect_row(file, "peaks", 1, {0, 0, 1}, 0);
    expect_row(file, "minima", 1, {4, 3, 0}, 0);
    expect_row(file, "minkowski_v0", 1, {0.6818181818181818, 0.5454545454545454}, 1e-15);
    expect_row(file, "minkowski_v1", 1, {0.20497662659113092, 0.19935326682785232}, 1e-14);
    expect_row(file, "minkowski_v2", 1, {-0.0174705468050101, -0.024167345641693764}, 1e-14);
  }
  for (const char* dataset : {"pdf", "peaks", "minima", "minkowski_v2"}) {
    const Outcome outcome = folder.umbriel(
        "covariance --set covariance.vectors=s.h5 --set run.output=c.h5 --set "
        "covariance.dataset=/statistics/" +
        std::string(dataset));
    EXPECT_EQ(outcome.code, 0) << outcome.output;
  }
  // Smoothed by 1.3 pixels, in units of noise that is smoothed too.
  const Outcome smoothed = folder.umbriel(
      "stats stats.toml --set stats.smoothing_arcmin=0.65 --set stats.unit=noise --set stats.noise=0.1 --set "
      "stats.pdf_edges=[10,20,25,30,40]");
  ASSERT_EQ(smoothed.code, 0) << smoothed.output;
  const Hdf5Reader file(folder / "s.h5");
  expect_row(file, "standard_deviation", 1, {0.04954978552681089}, 1e-9);
  expect_row(file, "pdf", 1, {0.09381443298969072, 0.012371134020618558, 0, 0}, 1e-12);
}

TEST(StatsProgram, CrossesTwoSetsOfMapsBehindAMaskAndWritesWindows) {
  const Folder folder;
  write_rough_maps(folder);
  // The cross spectrum of a map with itself is its own, and with twice itself twice that.
  const NpyArray two = read_npy(folder / "a.npy"), one = read_npy(folder / "b.npy");
  std::vector<double> twice;
  for (const NpyArray* array : {&two, &one}) {
    for (const double value : array->values) twice.push_back(2 * value);
  }
  write_npy(folder / "twice.npy", {3, 9, 11}, twice.data());
  folder.write("stats.toml",
               "[run]\noutput = \"s.h5\"\n[stats]\nmaps = [\"a.npy\", \"b.npy\"]\ncross_maps = "
               "\"twice.npy\"\npixel_arcmin = 0.5\nmask = \"mask.npy\"\napodisation = \"smooth\"\napodisation_arcmin = "
               "0.3\nedges = [0, 9000, 16000, 30000]\nmeasure = [\"power_spectrum\", \"bispectrum\"]\n"
               "bispectrum_edges = [3000, 9000, 14000]\n");
  std::string first;
  for (const int ranks : {1, 2, 3}) {
    const Outcome outcome = folder.umbriel("stats stats.toml", ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const std::string digest = Hdf5Reader(folder / "s.h5").data_digest();
    if (first.empty()) first = digest;
    EXPECT_EQ(digest, first) << ranks;
  }
  const Hdf5Reader file(folder / "s.h5");
  const auto power = file.read<double>("/statistics/power_spectrum"),
             cross = file.read<double>("/statistics/cross_power_spectrum"),
             window = file.read<double>("/statistics/bandpower_window"),
             high = file.read<double>("/statistics/multipole_high");
  ASSERT_EQ(cross.size(), 9U);
  for (std::size_t i = 0; i < 9; ++i) EXPECT_NEAR(cross[i], 2 * power[i], 1e-12 * std::abs(power[i]));
  for (std::size_t b = 0; b < 3; ++b) {
    double sum = 0;  // of a spectrum that is 1 in the first band
    for (std::size_t j = 0; j < high.size() && high[j] <= 9000; ++j) sum += window[b * high.size() + j];
    EXPECT_NEAR(sum, b == 0 ? 1 : 0, 1e-10);
  }
  EXPECT_EQ(file.shape("/statistics/bispectrum_squeezed"), (std::vector<std::uint64_t>{3, 2}));
  EXPECT_EQ(file.attribute("/statistics/bispectrum_equilateral", "units"), "sr2");
  const auto equilateral = file.read<double>("/statistics/bispectrum_equilateral"),
             squeezed = file.read<double>("/statistics/bispectrum_squeezed");
  EXPECT_EQ(equilateral[2], squeezed[2]) << "the first ring is its own soft ring";
  const Outcome fewer = folder.umbriel("stats stats.toml --set stats.cross_maps=b.npy", 2);
  EXPECT_EQ(fewer.code, 3) << fewer.output;
  EXPECT_NE(fewer.output.find("there are 3 maps and 1 to cross them with"), std::string::npos) << fewer.output;
}

TEST(StatsProgram, GivesScipysStarletsOnAnyNumberOfRanks) {
  const Folder folder;
  write_rough_maps(folder);
  folder.write("stats.toml",
               "[run]\noutput = \"s.h5\"\n[stats]\nmaps = [\"a.npy\", \"b.npy\"]\npixel_arcmin = 0.5\nmask = "
               "\"mask.npy\"\nmeasure = \"starlet\"\nstarlet_scales = 2\nstarlet_edges = [-2, 0, 3]\n");
  std::string first;
  for (const int ranks : {1, 3}) {
    const Outcome outcome = folder.umbriel("stats stats.toml", ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const std::string digest = Hdf5Reader(folder / "s.h5").data_digest();
    if (first.empty()) first = digest;
    EXPECT_EQ(digest, first) << ranks;
  }
  const Hdf5Reader file(folder / "s.h5");
  expect_row(file, "starlet_peaks", 1, {0, 7, 0, 1, 0, 0}, 0);
  expect_row(file, "starlet_l1", 1,
             {41.04263371955731, 43.16951788522807, 25.226004412007125, 38.861175868671026, 0, 0}, 1e-10);
  EXPECT_EQ(file.read<double>("/statistics/starlet_bin_plane"), (std::vector<double>{1, 1, 2, 2, 3, 3}));
  EXPECT_EQ(file.read<double>("/statistics/starlet_bin_scale"), (std::vector<double>{1, 1, 2, 2, 2, 2}));
  EXPECT_EQ(folder
                .umbriel("covariance --set covariance.vectors=s.h5 --set run.output=c.h5 --set "
                         "covariance.dataset=/statistics/starlet_l1")
                .code,
            0);
  // In units of noise, of which each plane has its own.
  const Outcome noise = folder.umbriel(
      "stats stats.toml --set stats.unit=noise --set stats.noise=0.05 --set stats.starlet_edges=[-999,999]");
  ASSERT_EQ(noise.code, 0) << noise.output;
  expect_row(Hdf5Reader(folder / "s.h5"), "starlet_l1", 1, {368.57356818937876, 333.1780212491824, 5642.501815064261},
             1e-8);
}

/// A full sky of nside 8, 768 values in one row that fall with the index, at kg/stage3_lensing1, as CosmoGrid has it.
void write_sky(const Folder& folder, const std::string& name) {
  std::vector<float> values(768);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.1F - 2e-4F * static_cast<float>(i * 37 % 768);
  Hdf5Writer writer(folder / name, Communicator());
  writer.write_axis("pixel", std::vector<double>(values.size()), "1", "pixel");
  writer.write<float>({"/kg/stage3_lensing1", {"pixel"}, "1", "convergence"}, {values.size()}, values.data());
  writer.commit();
}

// Patches of full skies and kappaTNG's binary maps, each of a few files, give the same on any number of ranks.
TEST(StatsProgram, TakesPublicSimulations) {
  const Folder folder;
  write_sky(folder, "sky.h5");
  for (int run = 1; run <= 3; ++run) {
    std::string bytes("\x10\0\0\0", 4);
    for (int i = 0; i < 256; ++i) {
      const double kappa = 0.01 * std::sin(run + 1.7 * i);
      bytes.append(reinterpret_cast<const char*>(&kappa), sizeof(kappa));
    }
    bytes.append("\x10\0\0\0", 4);
    std::filesystem::create_directory(folder / ("run" + std::to_string(run)));
    folder.write("run" + std::to_string(run) + "/kappa23.dat", bytes);
  }
  const struct {
    const char* keys;
    std::uint64_t maps;
  } cases[] = {{"stats.maps=run*/kappa23.dat", 3},
               {"stats.maps=sky.h5 --set stats.dataset=kg/stage3_lensing1 --set stats.patch=12", 33}};
  for (const auto& [keys, maps] : cases) {
    std::string first;
    for (const int ranks : {1, 2, 3}) {
      const Outcome outcome = folder.umbriel(
          "stats --set run.output=s.h5 --set stats.pixel_arcmin=155 --set stats.measure=pdf --set " + std::string(keys),
          ranks);
      ASSERT_EQ(outcome.code, 0) << outcome.output;
      const Hdf5Reader stats(folder / "s.h5");
      EXPECT_EQ(stats.shape("/statistics/pdf").at(0), maps);
      if (first.empty()) first = stats.data_digest();
      EXPECT_EQ(stats.data_digest(), first) << keys << ranks;
    }
  }
}

TEST(StatsProgram, RefusesWhatIsNoPublicSimulation) {
  const Folder folder;
  write_sky(folder, "sky.h5");
  folder.write("kappa23.dat", std::string("\0\x04\0\0", 4) + std::string(100, '\0'));
  const struct {
    const char* keys;
    int code;
    const char* words;
  } cases[] = {
      {"maps=kappa23.dat", 3, "with a side of 1024 it would have 8388616 bytes, and it has 104"},
      {"maps=run*/kappa99.dat", 5, "no file fits the pattern"},
      {"maps=sky.h5 --set stats.dataset=kg/stage3_lensing1", 3, "is one row of values"},
      {"maps=sky.h5 --set stats.dataset=ia --set stats.patch=12", 3, "no dataset ia"},
      {"maps=sky.h5 --set stats.patch=12", 2, "which dataset"},
      {"maps=kappa23.dat --set stats.patch=12", 3, "hold no map of the full sky"},
      {"maps=sky.h5 --set stats.dataset=kg/stage3_lensing1 --set stats.patch=4000", 2, "degrees wide"},
  };
  for (const auto& [keys, code, words] : cases) {
    for (const int ranks : {1, 2}) {
      const Outcome outcome = folder.umbriel(
          "stats --set run.output=s.h5 --set stats.pixel_arcmin=60 --set stats." + std::string(keys), ranks);
      EXPECT_EQ(outcome.code, code) << keys << outcome.output;
      EXPECT_NE(outcome.output.find(words), std::string::npos) << keys << outcome.output;
    }
  }
}

TEST(StatsProgram, ApodisesFromTheEdgeOfMapsWithoutAMask) {
  const Folder folder;
  write_rough_maps(folder);
  std::vector<double> edge(99, 1.0);
  for (int i = 0; i < 99; ++i) {
    if (i / 11 == 0 || i / 11 == 8 || i % 11 == 0 || i % 11 == 10) edge[static_cast<std::size_t>(i)] = 0;
  }
  write_npy(folder / "edge.npy", {9, 11}, edge.data());
  const std::string command =
      "stats --set stats.maps=[\\\"a.npy\\\",\\\"b.npy\\\"] --set stats.pixel_arcmin=10 --set "
      "stats.apodisation_arcmin=25 "
      "--set stats.apodisation=c1 --set stats.band_width=300 --set stats.measure=[\\\"power_spectrum\\\",\\\"pdf\\\"] "
      "--set run.output=";
  ASSERT_EQ(folder.umbriel(command + "a.h5").code, 0) << folder.umbriel(command + "a.h5").output;
  ASSERT_EQ(folder.umbriel(command + "b.h5 --set stats.mask=edge.npy").code, 0);
  const Hdf5Reader a(folder / "a.h5"), b(folder / "b.h5");
  EXPECT_EQ(a.read<double>("/statistics/power_spectrum"), b.read<double>("/statistics/power_spectrum"));
  EXPECT_NE(a.read<double>("/statistics/pdf"), b.read<double>("/statistics/pdf")) << "all pixels are observed";
  // 10' is a highest multipole of 1080, 11 of them a lowest of 196.4.
  const std::vector<double> low = a.read<double>("/statistics/band_low"),
                            high = a.read<double>("/statistics/band_high");
  EXPECT_EQ(high, (std::vector<double>{300, 600, 900}));
  EXPECT_NEAR(low[0], 98.18, 0.01);
  EXPECT_EQ(low[2], 600);

  // Both on one page.
  const Outcome page = folder.umbriel("report a.h5 b.h5 -o both.html", 2);
  ASSERT_EQ(page.code, 0) << page.output;
  std::string html;
  std::getline(std::ifstream(folder / "both.html"), html, '\0');
  for (const char* text : {"<b>Power spectrum, compared</b>", "maps of b", "Minima"})
    EXPECT_EQ(html.find(text) != std::string::npos, std::string(text) != "Minima") << text;
  ASSERT_EQ(folder.umbriel(command + "other.h5 --set stats.band_width=400").code, 0);
  ASSERT_EQ(folder.umbriel("covariance --set covariance.vectors=a.h5 --set run.output=c.h5").code, 0);
  const Refusal cases[] = {{"report a.h5 other.h5", 3, 2, "the bins of power_spectrum are not those of a.h5"},
                           {"report a.h5 c.h5", 3, 1, "c.h5"},
                           {"report a.h5 b.h5 a.h5 b.h5 a.h5 b.h5 a.h5", 2, 2, "give at most 6"}};
  expect_refusals(folder, cases);
}

TEST(StatsProgram, RefusesWhatMakesNoSense) {
  const Folder folder;
  write_rough_maps(folder);
  const std::vector<double> constant(99, 0.25), empty(99, 0.0);
  write_npy(folder / "constant.npy", {9, 11}, constant.data());
  write_npy(folder / "empty.npy", {9, 11}, empty.data());
  std::vector<double> nan = constant;
  nan[3 * 11 + 4] = NAN;
  write_npy(folder / "nan.npy", {9, 11}, nan.data());
  const struct {
    const char* keys;
    int code;
    const char* words;
  } cases[] = {
      {"measure=pdf --set stats.maps=constant.npy", 3,
       "the map is constant, and bins are in units of its standard deviation"},
      {"measure=pdf --set stats.mask=nan.npy", 3, "pixel y = 3, x = 4"},
      {"measure=pdf --set stats.maps=nan.npy", 3, "nan.npy, pixel y = 3, x = 4"},
      {"measure=pdf --set stats.mask=empty.npy", 3, "the mask is empty: no pixel is observed"},
      {"measure=peak", 2, "no statistic is called \"peak\""},
      {"measure=[]", 2, "there is nothing to measure"},
      {"pdf_edges=[0,1]", 2, "add \"pdf\" to stats.measure"},
      {"measure=pdf --set stats.pdf_edges=[0,0]", 2, "the edges of the bins do not increase"},
      {"measure=peaks --set stats.unit=kappa", 2, "bins in units of convergence have no default"},
      {"measure=peaks --set stats.unit=noise", 2, "give the standard deviation of the noise"},
      {"measure=peaks --set stats.noise=0.1", 2, "give stats.unit = \"noise\""},
      {"measure=peaks --set stats.smoothing_arcmin=9.5", 2, "the maps are smaller than the Gaussian"},
      {"measure=peaks --set stats.smoothing_arcmin=-1", 2, "outside [0"},
      {"measure=peaks --set stats.border=closed", 2, "stats.border"},
      {"bispectrum_edges=[1,2]", 2, "add \"bispectrum\" to stats.measure"},
      {"measure=bispectrum --set stats.bispectrum_edges=[3000,9000]", 2, "two thirds of the highest multipole"},
      {"measure=starlet", 2, "the map cannot hold that many wavelet scales"},
      {"measure=pdf --set stats.cross_maps=b.npy", 2, "no power spectrum is measured"},
      {"peak_bins=3", 2, "unknown key stats.peak_bins"},
      {"band_width=2000 --set stats.bands=3", 2, "the bands are given in two ways"},
      {"band_width=20", 2, "give one above"},
      {"band_width=20000", 2, "give one above"},
  };
  for (const auto& [keys, code, words] : cases) {
    for (const int ranks : {1, 2}) {
      const Outcome outcome = folder.umbriel(
          "stats --set run.output=s.h5 --set stats.pixel_arcmin=1 --set "
          "stats.maps=b.npy --set stats." +
              std::string(keys),
          ranks);
      EXPECT_EQ(outcome.code, code) << keys << outcome.output;
      EXPECT_NE(outcome.output.find(words), std::string::npos) << keys << outcome.output;
    }
  }
}

}  // namespace
}  // namespace umbriel
