// Bad input is refused before work starts: what is wrong, where, what to do; the documented exit code; nothing left.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
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

/// A catalogue of 400 galaxies about (150, 2) degrees: one file a column, and a configuration that bins them. `spoil`
/// gets the columns ra, dec, e1, e2, weight.
template <class F>
void write_catalogue(const Folder& folder, const F& spoil) {
  std::vector<float> columns[5];
  for (int i = 0; i < 400; ++i) {
    columns[0].push_back(150.0f + 0.01f * static_cast<float>(i % 20));
    columns[1].push_back(2.0f + 0.01f * static_cast<float>(i / 20));
    columns[2].push_back(i % 2 == 0 ? 0.2f : -0.2f);
    columns[3].push_back(i % 3 == 0 ? 0.2f : -0.1f);
    columns[4].push_back(1);
  }
  spoil(columns);
  const char* names[] = {"ra.fits", "dec.fits", "g1.fits", "g2.fits", "w.fits"};
  // A 1 x n image is a column too.
  for (int c = 0; c < 5; ++c)
    write_fits_map(folder / names[c], columns[c].data(), {1, static_cast<int>(columns[c].size())}, "", "column");
  folder.write("survey.toml",
               "[run]\noutput = \"out.h5\"\n[survey]\nsize = [32, 24]\npixel_arcmin = 0.5\n"
               "catalogue = {ra = \"ra.fits\", dec = \"dec.fits\", e1 = \"g1.fits\", e2 = \"g2.fits\", weight = "
               "\"w.fits\"}\n"
               "[prior]\npower_spectrum = \"cl.txt\"\n");
}

void write_text_after(const Folder& folder, const char* file, const char* text) {
  std::ofstream(folder / file, std::ios::app) << text;
}

/// Eight bytes of length, then the header of a safetensors file.
void write_model(const Folder& folder, std::uint64_t length, const std::string& header) {
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  folder.write("model.safetensors", bytes + header);
}

const char* const with_model = "sample survey.toml --set prior.kind=score --set prior.model=model.safetensors";

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
       write_catalogue(f, [](auto& columns) {
         for (int c = 0; c < 2; ++c) {
           for (float& angle : columns[c]) angle *= static_cast<float>(std::acos(-1.0) / 180);
         }
       });
     }},
    {"CatalogueWithNan",
     3,
     {"g1.fits", "galaxy 7"},
     [](const Folder& f) { write_catalogue(f, [](auto& c) { c[2][7] = std::numeric_limits<float>::quiet_NaN(); }); }},
    {"CatalogueWithNegativeWeight",
     3,
     {"w.fits", "galaxy 7"},
     [](const Folder& f) { write_catalogue(f, [](auto& c) { c[4][7] = -1; }); }},
    {"CatalogueBeyondThePole",
     3,
     {"dec.fits", "galaxy 7"},
     [](const Folder& f) { write_catalogue(f, [](auto& c) { c[1][7] = 91; }); }},
    {"CatalogueWithColumnsOfTwoLengths",
     3,
     {"g2.fits", "399"},
     [](const Folder& f) { write_catalogue(f, [](auto& c) { c[3].pop_back(); }); }},
    {"CatalogueBesideTheGrid",
     3,
     {"no galaxy"},
     [](const Folder& f) {
       write_catalogue(f, [](auto&) {});
       std::string text;
       std::getline(std::ifstream(f / "survey.toml"), text, '\0');
       f.write("survey.toml", text.insert(text.find("pixel_arcmin"), "centre = [10.0, 20.0]\n"));
     }},
    {"CatalogueWithoutTheColumn",
     3,
     {"cat.fits", "RA"},
     [](const Folder& f) {
       const float image[4] = {};
       write_fits_map(f / "cat.fits", image, {2, 2}, "", "no table");
       f.write("survey.toml",
               "[run]\noutput = \"out.h5\"\n[survey]\nsize = [32, 24]\npixel_arcmin = 0.5\n"
               "catalogue = {file = \"cat.fits\", ra = \"RA\", dec = \"DEC\", e1 = \"E1\", e2 = \"E2\"}\n"
               "[prior]\npower_spectrum = \"cl.txt\"\n");
     }},
    {"MaskBetweenZeroAndOne",
     3,
     {"the mask is 0.5", "mask.fits", "y = 3"},
     [](const Folder& f) { rewrite(f, "mask.fits", 0.5f, false); }},
    {"ShearInAnotherUnit", 3, {"shear", "e1.fits"}, [](const Folder& f) { rewrite(f, "e1.fits", 12, true); }},
    {"EmptyFile", 3, {"e1.fits"}, [](const Folder& f) { f.write("e1.fits", ""); }},
    {"FitsWithAChangedByte",
     3,
     {"e1.fits", "DATASUM"},
     [](const Folder& f) {
       std::fstream file(f / "e1.fits", std::ios::in | std::ios::out | std::ios::binary);
       file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(f / "e1.fits")) - 2880 + 5);
       file.put('x');
     }},
    {"NpyOfObjects",
     3,
     {"mask.npy"},
     [](const Folder& f) {
       std::string header = "{'descr': '|O', 'fortran_order': False, 'shape': (24, 32), }";
       header.resize(117, ' ');
       f.write("mask.npy", std::string("\x93NUMPY\x01\x00v\x00", 10) + header + "\n");
     },
     "sample survey.toml --set survey.mask=mask.npy"},
    {"NpyCutShort",
     3,
     {"mask.npy"},
     [](const Folder& f) {
       std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (24, 32), }";
       header.resize(117, ' ');
       f.write("mask.npy", std::string("\x93NUMPY\x01\x00v\x00", 10) + header + "\n" + std::string(100, '\0'));
     },
     "sample survey.toml --set survey.mask=mask.npy"},
    {"TruthOfAnotherSize",
     3,
     {"truth.fits"},
     [](const Folder& f) {
       const std::vector<float> map(25 * 32);
       write_fits_map(f / "truth.fits", map.data(), {25, 32}, "", "truth");
     },
     "sample survey.toml --set survey.truth=truth.fits"},
    {"SpectrumOfWords", 3, {"cl.txt", "line 2"}, [](const Folder& f) { f.write("cl.txt", "10 1e-8\nmany few\n"); }},
    {"SpectrumThatGoesBack",
     3,
     {"cl.txt"},
     [](const Folder& f) { f.write("cl.txt", "10 1e-8\n1000 1e-9\n100 1e-9\n"); }},
    {"SpectrumWithoutLines", 3, {"cl.txt"}, [](const Folder& f) { f.write("cl.txt", "# nothing\n"); }},
    {"MissingModel", 5, {"model.safetensors"}, [](const Folder&) {}, with_model},
    {"ModelThatIsNone",
     3,
     {"model.safetensors"},
     [](const Folder& f) { f.write("model.safetensors", "no model"); },
     with_model},
    {"ModelWithAHeaderBeyondItsEnd",
     3,
     {"model.safetensors"},
     [](const Folder& f) { write_model(f, std::uint64_t{1} << 60, "{}"); },
     with_model},
    {"ModelWithATensorBeyondItsEnd",
     3,
     {"model.safetensors", "head.bias"},
     [](const Folder& f) {
       const std::string header = R"({"head.bias":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}})";
       write_model(f, header.size(), header);
     },
     with_model},
    {"ModelOfSomebodyElse", 3, {"model.safetensors"}, [](const Folder& f) { write_model(f, 2, "{}"); }, with_model},
    {"CheckpointThatIsNone",
     3,
     {"out.h5.checkpoint"},
     [](const Folder& f) { f.write("out.h5.checkpoint", "no checkpoint"); }},
    {"ConfigurationIsAFolder",
     5,
     {"folder.toml"},
     [](const Folder& f) { std::filesystem::create_directory(f / "folder.toml"); },
     "sample folder.toml"},
    {"ConfigurationOfBytes",
     2,
     {"survey.toml"},
     [](const Folder& f) { f.write("survey.toml", std::string("\x89PNG\0\xff", 6)); }},
    {"KeyTwice",
     2,
     {"survey.toml", "output"},
     [](const Folder& f) { f.write("survey.toml", "[run]\noutput = \"a\"\noutput = \"b\"\n"); }},
    {"OutputIsAFolder", 5, {"out.h5"}, [](const Folder& f) { std::filesystem::create_directory(f / "out.h5"); }},
    {"SeedBelowZero", 2, {"run.seed"}, [](const Folder&) {}, "sample survey.toml --set run.seed=-1"},
    {"OverrideWithoutAValue", 2, {"sampler.chains"}, [](const Folder&) {}, "sample survey.toml --set sampler.chains"},
    {"TwoKindsOfSurvey",
     2,
     {"survey"},
     [](const Folder& f) { write_text_after(f, "survey.toml", "[survey.simulate]\nseed = 1\n"); }},
    {"RanksThatDoNotFill",
     2,
     {"validate.rank_bins"},
     [](const Folder&) {},
     "validate survey.toml --set validate.draws=10 --set validate.mocks=2"},
    {"SimulationOfNoPixels",
     2,
     {"simulate.size"},
     [](const Folder&) {},
     "simulate kappa --set simulate.size=[0,10] --set run.output=s.h5"},
    {"TrainingOnAnEmptyFolder",
     3,
     {"maps", "no maps"},
     [](const Folder& f) {
       std::filesystem::create_directory(f / "maps");
       f.write("train.toml",
               "[run]\noutput = \"p.safetensors\"\n[data]\nmaps = [\"maps\"]\npixel_arcmin = "
               "0.5\n[prior]\npower_spectrum = \"cl.txt\"\n");
     },
     "train score train.toml"},
    {"PaperModeHotterThanReducedShearAllows",
     2,
     {"sampler.sigma_start"},
     [](const Folder&) {},
     "sample survey.toml --set model.reduced_shear=true --set sampler.sigma_start=1.0"},
};

void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }

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
    std::filesystem::remove(folder / "out.h5.log.jsonl");  // says what was wrong with a checkpoint
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
