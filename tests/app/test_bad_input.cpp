// Bad input is refused before work starts: what is wrong, where, what to do; the documented exit code; nothing left.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "program.hpp"

namespace umbriel {
namespace {

using namespace testing;

struct Bad {
  const char* name;
  int code;
  std::vector<const char*> words;  // all must be in the message
  void (*spoil)(const Folder&);    // what is done to the good survey
  const char* arguments = "sample survey.toml";
};

void rewrite(const Folder& folder, const char* file, float value, bool everywhere, int height = 24, int width = 32) {
  FitsImage image = read_fits_image(folder / file);
  std::vector<float> map(image.values.begin(), image.values.end());
  map.resize(static_cast<std::size_t>(height) * width);
  if (everywhere) {
    std::fill(map.begin(), map.end(), value);
  } else {
    map[3 * static_cast<std::size_t>(width) + 4] = value;
  }
  std::filesystem::remove(folder / file);
  write_fits_map(folder / file, map.data(), {height, width}, "", "spoiled");
}

const Bad cases[] = {
    {"NanInAnObservedPixel",
     3,
     {"e1.fits", "y = 3", "x = 4", "mask"},
     [](const Folder& f) { rewrite(f, "e1.fits", std::numeric_limits<float>::quiet_NaN(), false); }},
    {"EmptyMask", 3, {"mask is empty", "mask.fits"}, [](const Folder& f) { rewrite(f, "mask.fits", 0, true); }},
    {"ShapeMismatch", 3, {"e2.fits", "e1.fits"}, [](const Folder& f) { rewrite(f, "e2.fits", 0, false, 25, 32); }},
    {"NoiseZeroWhereObserved",
     3,
     {"noise.fits", "y = 3", "x = 4", "positive"},
     [](const Folder& f) { rewrite(f, "noise.fits", 0, false); }},
    {"NoiseNegative", 3, {"noise.fits", "positive"}, [](const Folder& f) { rewrite(f, "noise.fits", -0.1f, false); }},
    {"TruncatedFits",
     3,
     {"e2.fits", "truncated"},
     [](const Folder& f) {
       std::filesystem::resize_file(f / "e2.fits", std::filesystem::file_size(f / "e2.fits") - 2880);
     }},
    {"NotFits", 3, {"e2.fits"}, [](const Folder& f) { f.write("e2.fits", "this is no FITS file\n"); }},
    {"MissingFile", 5, {"e1.fits"}, [](const Folder& f) { std::filesystem::remove(f / "e1.fits"); }},
    {"MissingConfiguration", 5, {"nowhere.toml"}, [](const Folder&) {}, "sample nowhere.toml"},
    {"UnknownKey",
     2,
     {"sampler.chain", "did you mean sampler.chains"},
     [](const Folder&) {},
     "sample survey.toml --set sampler.chain=3"},
    {"WrongType",
     2,
     {"sampler.chains", "whole number"},
     [](const Folder&) {},
     "sample survey.toml --set sampler.chains=many"},
    {"OutOfRange", 2, {"sampler.chains", "outside"}, [](const Folder&) {}, "sample survey.toml --set sampler.chains=0"},
    {"NotToml", 2, {"survey.toml", "line 2"}, [](const Folder& f) { f.write("survey.toml", "[run]\noutput = = 3\n"); }},
    {"UnknownCommand", 2, {"--help"}, [](const Folder&) {}, "smaple survey.toml"},
    {"NoConfiguration", 2, {"run.output"}, [](const Folder&) {}, "sample"},
    {"NoSuchOutputFolder",
     5,
     {"folder", "nowhere"},
     [](const Folder&) {},
     "sample survey.toml --set run.output=nowhere/x.h5"},
    {"SpectrumWithNegativePower", 3, {"cl.txt"}, [](const Folder& f) { f.write("cl.txt", "10 1e-8\n1000 -1e-9\n"); }},
    {"CatalogueInRadians",
     3,
     {"radians", "degrees"},
     [](const Folder& f) {
       std::string rows;
       std::vector<float> columns[5];
       for (int i = 0; i < 400; ++i) {
         columns[0].push_back(static_cast<float>((150.0 + 0.2 * (i % 20) / 20) * std::acos(-1.0) / 180));
         columns[1].push_back(static_cast<float>((2.0 + 0.2 * (i / 20) / 20.0) * std::acos(-1.0) / 180));
         columns[2].push_back(i % 2 == 0 ? 0.2f : -0.2f);
         columns[3].push_back(i % 3 == 0 ? 0.2f : -0.1f);
         columns[4].push_back(1);
       }
       const char* names[] = {"ra.fits", "dec.fits", "g1.fits", "g2.fits", "w.fits"};
       // A 1 x n image is a column too.
       for (int c = 0; c < 5; ++c) write_fits_map(f / names[c], columns[c].data(), {1, 400}, "", "column");
       f.write("survey.toml",
               "[run]\noutput = \"out.h5\"\n[survey]\nsize = [32, 24]\npixel_arcmin = 0.5\n"
               "catalogue = {ra = \"ra.fits\", dec = \"dec.fits\", e1 = \"g1.fits\", e2 = \"g2.fits\", weight = "
               "\"w.fits\"}\n"
               "[prior]\npower_spectrum = \"cl.txt\"\n");
     }},
    {"PaperModeHotterThanReducedShearAllows",
     2,
     {"sampler.sigma_start"},
     [](const Folder&) {},
     "sample survey.toml --set model.reduced_shear=true --set sampler.sigma_start=1.0"},
};

class BadInput : public ::testing::TestWithParam<Bad> {};

TEST_P(BadInput, IsRefusedWithPlaceRemedyAndExitCode) {
  const Bad& bad = GetParam();
  for (const int ranks : {1, 2}) {
    const Folder folder;
    write_survey_files(folder);
    bad.spoil(folder);
    const auto before = folder.files();
    const Outcome outcome = folder.umbriel(bad.arguments, ranks);
    EXPECT_EQ(outcome.code, bad.code) << outcome.output;
    for (const char* word : bad.words)
      EXPECT_NE(outcome.output.find(word), std::string::npos) << word << " in " << outcome.output;
    EXPECT_NE(outcome.output.find("\u2014"), std::string::npos) << "a remedy in " << outcome.output;
    EXPECT_EQ(folder.files(), before) << "nothing is left behind";
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, BadInput, ::testing::ValuesIn(cases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(BadInput, OfReportAndInspectIsRefused) {
  const Folder folder;
  folder.write("text.h5", "no HDF5");
  EXPECT_EQ(folder.umbriel("inspect text.h5").code, 3);
  EXPECT_EQ(folder.umbriel("report text.h5").code, 3);
  EXPECT_EQ(folder.umbriel("inspect missing.h5").code, 5);
  EXPECT_EQ(folder.files(), std::vector<std::string>{"text.h5"});
}

}  // namespace
}  // namespace umbriel
