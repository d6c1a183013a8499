// A survey from its configuration: every form of input, and every refusal with its exit code and its words.
#include <fitsio.h>

#include <cmath>

#include "support.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/data/survey.hpp"

namespace umbriel {
namespace {

using test::expect_error;

const Grid grid{2, 3};
const double nan_value = std::nan("");

class SurveyTest : public test::Folder {
 protected:
  void SetUp() override {
    fits("e1.fits", {0.1F, 0.2F, 0.3F, 0.4F, 0.5F, 0.6F});
    fits("e2.fits", {-0.1F, -0.2F, -0.3F, -0.4F, -0.5F, -0.6F});
    fits("std1.fits", {0.3F, 0.3F, 0, 0.3F, 0.2F, 0.1F});
    fits("std2.fits", {0.4F, 0.4F, 0, 0.4F, 0.2F, 0.1F});
    fits("mask.fits", {1, 1, 0, 1, 1, 0});
    fits("kappa.fits", {1, 2, 3, 4, 5, 6});
  }

  std::string fits(const std::string& name, const std::vector<float>& map, Grid size = grid,
                   const std::optional<TangentPlane>& wcs = std::nullopt) {
    write_fits_map(path(name), map.data(), size, "", "", wcs);
    return path(name);
  }

  /// The survey of a configuration with the keys of `text`; unknown keys would be refused too.
  Survey survey(const std::string& text) {
    const Config config = Config::load(write("run.toml", "[survey]\n" + text));
    Survey out = read_survey(config);
    config.reject_unknown_keys();
    return out;
  }

  void refused(ExitCode code, const std::string& text, const std::vector<std::string>& parts) {
    expect_error(code, parts, [&] { survey(text); });
  }

  /// The default survey with one map replaced.
  void refused_map(const std::string& name, const std::vector<float>& map, const std::vector<std::string>& parts,
                   Grid size = grid) {
    const std::string before = bytes(name);
    fits(name, map, size);
    refused(ExitCode::input, all, parts);
    write(name, before);
  }

  const std::string shear = "shear = [\"e1.fits\", \"e2.fits\"]\n";
  const std::string noise = "noise = [\"std1.fits\", \"std2.fits\"]\n";
  const std::string pixel = "pixel_arcmin = 0.5\n";
  const std::string all = shear + noise + pixel + "mask = \"mask.fits\"\ntruth = \"kappa.fits\"\n";
};

TEST_F(SurveyTest, ReadsMaps) {
  const Survey s = survey(all);
  EXPECT_EQ(s.grid, grid);
  EXPECT_EQ(s.pixel_arcmin, 0.5);
  EXPECT_EQ(s.shear(0, 0, 1), 0.2F);
  EXPECT_EQ(s.shear(1, 1, 0), -0.4F);  // file row 1 is y = 1
  EXPECT_EQ(s.noise(0, 1, 1), 0.2F);
  EXPECT_EQ(s.noise(1, 0, 0), 0.4F);
  EXPECT_EQ(s.mask(0, 1, 1), 1.0F);
  EXPECT_EQ(s.shear(0, 0, 2), 0.0F);  // not observed
  EXPECT_EQ(s.noise(0, 1, 2), 0.0F);
  ASSERT_TRUE(s.truth);
  EXPECT_EQ((*s.truth)(0, 1, 2), 6.0F);
  EXPECT_FALSE(s.wcs);
  ASSERT_EQ(s.inputs.size(), 6U);
  EXPECT_EQ(s.inputs[0].path, path("e1.fits"));
  EXPECT_EQ(s.inputs[0].sha256.size(), 64U);
  EXPECT_NE(s.inputs[0].sha256, s.inputs[1].sha256);
}

TEST_F(SurveyTest, MaskFollowsTheNoise) {
  const Survey s = survey(shear + noise + pixel);
  EXPECT_EQ(s.mask(0, 0, 2), 0.0F);
  EXPECT_EQ(s.mask(0, 1, 2), 1.0F);
  const Survey uniform = survey(shear + pixel + "noise = 0.25\n");
  EXPECT_EQ(uniform.noise(1, 1, 2), 0.25F);
  EXPECT_EQ(uniform.mask(0, 0, 2), 1.0F);
}

TEST_F(SurveyTest, OneFileWithTwoPlanes) {
  std::vector<double> first(12), last(12);
  for (std::size_t component = 0; component < 2; ++component) {
    for (std::size_t i = 0; i < 6; ++i) {
      first[component * 6 + i] = static_cast<double>(component) + 0.1 * static_cast<double>(i);
      last[i * 2 + component] = first[component * 6 + i];
    }
  }
  write_npy(path("planes.npy"), {2, 2, 3}, first.data());
  write_npy(path("last.npy"), {2, 3, 2}, last.data());
  write_npy(path("big.npy"), {3, 2, 2}, last.data());
  const Survey planes = survey("shear = \"planes.npy\"\nnoise = 0.3\n" + pixel);
  EXPECT_EQ(planes.grid, grid);
  EXPECT_EQ(planes.shear(1, 1, 0), 1.3F);
  const Survey pairs = survey("shear = [\"big.npy\"]\nnoise = 0.3\n" + pixel);
  EXPECT_EQ(pairs.grid, (Grid{3, 2}));
  EXPECT_EQ(pairs.shear(1, 1, 1), 1.3F);
  const Survey one_noise = survey(shear + pixel + "noise = \"std1.fits\"\n");
  EXPECT_EQ(one_noise.noise(1, 1, 1), 0.2F);
}

TEST_F(SurveyTest, ReadsTheReferenceShearOfTwoPlanes) {
  UMBRIEL_NEEDS_REFERENCE_DATA(data);
  const Survey s = survey("shear = \"" + data + "/kappa/massivenus_e_bright_320.fits\"\nnoise = 0.1\nmask = \"" + data +
                          "/kappa/massivenus_mask_320.fits\"\ntruth = \"" + data +
                          "/kappa/massivenus_kappa_320.fits\"\npixel_arcmin = 0.4\n");
  EXPECT_EQ(s.grid, (Grid{320, 320}));
  const FitsImage image = read_fits_image(data + "/kappa/massivenus_e_bright_320.fits");
  ASSERT_EQ(image.width, 2);
  const int y = 200, x = 150;
  ASSERT_EQ(s.mask(0, y, x), 1.0F);
  EXPECT_EQ(s.shear(0, y, x), static_cast<float>(image.values[(y * 320 + x) * 2]));
  EXPECT_EQ(s.shear(1, y, x), static_cast<float>(image.values[(y * 320 + x) * 2 + 1]));
}

TEST_F(SurveyTest, PixelSizeFromTheWcs) {
  const TangentPlane plane{150, 2, 1.5, 1, -0.5 / 60, 0.5 / 60, 0};
  fits("e1.fits", std::vector<float>(6, 0.1F), grid, plane);
  const Survey s = survey(shear + noise);
  EXPECT_NEAR(s.pixel_arcmin, 0.5, 1e-9);
  ASSERT_TRUE(s.wcs);
  EXPECT_NEAR(s.wcs->ra_deg, 150, 1e-12);
  EXPECT_EQ(survey(shear + noise + "pixel_arcmin = 0.504\n").pixel_arcmin, 0.504);
  refused(ExitCode::input, shear + noise + "pixel_arcmin = 0.51\n", {"0.51", "WCS says 0.5", "e1.fits"});
  fits("e1.fits", std::vector<float>(6, 0.1F), grid, TangentPlane{150, 2, 1.5, 1, -0.4 / 60, 0.5 / 60, 0});
  refused(ExitCode::input, shear + noise, {"0.4", "0.5", "square pixels"});
}

TEST_F(SurveyTest, KeysAreChecked) {
  refused(ExitCode::usage, noise + pixel, {"no data", "survey.shear", "survey.catalogue"});
  refused(ExitCode::usage, all + "catalogue = {ra = \"ra.fits\"}\n", {"a catalogue and shear maps"});
  refused(ExitCode::usage, shear + noise, {"pixel_arcmin"});
  refused(ExitCode::usage, shear + pixel, {"noise"});
  refused(ExitCode::usage, "shear = [\"e1.fits\", \"e2.fits\", \"e1.fits\"]\n" + noise + pixel, {"3 files"});
  refused(ExitCode::usage, all + "size = [3, 2]\n", {"size"});
}

TEST_F(SurveyTest, FilesAreChecked) {
  refused(ExitCode::file_system, "shear = [\"e1.fits\", \"gone.fits\"]\n" + noise + pixel, {"gone.fits"});
  refused(ExitCode::input, "shear = \"e1.fits\"\n" + noise + pixel, {"1 planes, not 2", "survey.shear", "e1.fits"});
  const std::string whole = bytes("e2.fits");
  write("e2.fits", whole.substr(0, whole.size() - 2880));
  refused(ExitCode::input, all, {"truncated", "e2.fits"});
}

TEST_F(SurveyTest, MapsOfAnotherShapeAreRefused) {
  const Grid other{3, 2};
  const std::vector<float> map(6, 1);
  for (const char* name : {"e2.fits", "std1.fits", "std2.fits", "mask.fits", "kappa.fits"})
    refused_map(name, map, {"3 x 2", "2 x 3", name, "e1.fits", "run.toml"}, other);
}

TEST_F(SurveyTest, ValuesInObservedPixelsAreChecked) {
  const auto nan_float = static_cast<float>(nan_value);
  refused_map("e1.fits", {0, 0, 0, 0, nan_float, 0}, {"shear component 1 is nan", "e1.fits", "y = 1, x = 1", "mask"});
  refused_map("e2.fits", {0, 0, 0, INFINITY, 0, 0}, {"shear component 2 is inf", "e2.fits", "y = 1, x = 0"});
  refused_map("std1.fits", {1, 0, 1, 1, 1, 1},
              {"noise of shear component 1 is 0", "std1.fits", "y = 0, x = 1", "positive"});
  refused_map("std2.fits", {1, -1, 1, 1, 1, 1}, {"noise of shear component 2 is -1", "std2.fits", "y = 0, x = 1"});
  refused_map("std2.fits", {nan_float, 1, 1, 1, 1, 1}, {"is nan", "std2.fits", "y = 0, x = 0"});
  refused_map("std2.fits", {1, 1, 1, 1, INFINITY, 1}, {"is inf", "std2.fits", "y = 1, x = 1"});
  refused_map("mask.fits", {1, 1, 0.5F, 1, 1, 1}, {"mask is 0.5", "mask.fits", "y = 0, x = 2", "1 where observed"});
  refused_map("mask.fits", {1, 1, nan_float, 1, 1, 1}, {"mask is nan", "y = 0, x = 2"});
  refused_map("mask.fits", {0, 0, 0, 0, 0, 0}, {"mask is empty", "mask.fits"});
  refused_map("kappa.fits", {1, 1, 1, 1, 1, nan_float}, {"true convergence is nan", "kappa.fits", "y = 1, x = 2"});
  refused_map("e1.fits", {10, -20, 30, 10, 5, 0}, {"does not look like shear", "4 of 4", "e1.fits", "y = 0, x = 0"});
  refused(ExitCode::input, shear + pixel + "noise = 0\n", {"noise", "is 0", "survey.noise", "y = 0, x = 0"});
  refused(ExitCode::input, shear + noise + "pixel_arcmin = 0\n", {"pixel size is 0", "survey.pixel_arcmin"});
  refused(ExitCode::input, shear + noise + "pixel_arcmin = -1\n", {"pixel size is -1"});

  // The default mask does not hide a broken noise.
  fits("std1.fits", {0.3F, nan_float, 0, 0.3F, 0.2F, 0.1F});
  refused(ExitCode::input, shear + noise + pixel, {"is nan", "std1.fits", "y = 0, x = 1"});
}

TEST_F(SurveyTest, UnobservedPixelsMayHoldAnything) {
  const auto nan_float = static_cast<float>(nan_value);
  fits("e1.fits", {0, 0, nan_float, 0, 0, INFINITY});
  fits("std1.fits", {1, 1, nan_float, 1, 1, -1});
  const Survey s = survey(all);
  EXPECT_EQ(s.shear(0, 0, 2), 0.0F);
  EXPECT_EQ(s.shear(0, 1, 2), 0.0F);
  EXPECT_EQ(s.noise(0, 0, 2), 0.0F);
  EXPECT_EQ(s.noise(0, 1, 2), 0.0F);
}

TEST_F(SurveyTest, ChecksASurveyMadeInMemory) {
  Survey s = survey(all);
  s.shear = HostMaps("s", 1, 2, 3);
  expect_error(ExitCode::input, {"[1, 2, 3]", "[2, 2, 3]"}, [&] { check_survey(s); });
}

class CatalogueSurveyTest : public SurveyTest {
 protected:
  void SetUp() override {
    make_table();
    for (const char* name : {"ra", "dec", "e1", "e2", "w"}) make_column(name);
  }

  // The galaxies of test_catalogue.cpp without the one of no weight.
  const std::vector<std::pair<const char*, std::vector<double>>> columns = {{"ra", {10, 10, 10.1, 12}},
                                                                            {"dec", {0.05, 0.05, -0.05, 0}},
                                                                            {"e1", {0.1, 0.3, -0.2, 0.2}},
                                                                            {"e2", {0.2, -0.4, 0.1, 0.1}},
                                                                            {"w", {1, 3, 2, 1}}};

  void make_column(const std::string& wanted) {
    fitsfile* file = nullptr;
    int status = 0;
    fits_create_diskfile(&file, path(wanted + ".fits").c_str(), &status);
    for (const auto& [name, values] : columns) {
      if (wanted != name) continue;
      long axes[1] = {static_cast<long>(values.size())};
      fits_create_img(file, DOUBLE_IMG, 1, axes, &status);
      fits_write_img(file, TDOUBLE, 1, axes[0], const_cast<double*>(values.data()), &status);
    }
    fits_close_file(file, &status);
    ASSERT_EQ(status, 0);
  }

  void make_table() {
    fitsfile* file = nullptr;
    int status = 0;
    fits_create_diskfile(&file, path("cat.fits").c_str(), &status);
    std::vector<char*> names, forms(columns.size(), const_cast<char*>("D"));
    for (const auto& column : columns) names.push_back(const_cast<char*>(column.first));
    fits_create_tbl(file, BINARY_TBL, 0, static_cast<int>(columns.size()), names.data(), forms.data(), nullptr, nullptr,
                    &status);
    int index = 0;
    for (const auto& column : columns)
      fits_write_col(file, TDOUBLE, ++index, 1, 1, static_cast<LONGLONG>(column.second.size()),
                     const_cast<double*>(column.second.data()), &status);
    fits_close_file(file, &status);
    ASSERT_EQ(status, 0);
  }

  const std::string grid_keys = "size = [3, 2]\ncentre = [10, 0]\npixel_arcmin = 6\n";
  const std::string files =
      "ra = \"ra.fits\", dec = \"dec.fits\", e1 = \"e1.fits\", e2 = \"e2.fits\", weight = \"w.fits\"";
};

TEST_F(CatalogueSurveyTest, FromColumnsAndFromATable) {
  for (const std::string& form :
       {files,
        std::string("file = \"cat.fits\", ra = \"RA\", dec = \"DEC\", e1 = \"e1\", e2 = \"e2\", weight = \"w\"")}) {
    const Survey s = survey("catalogue = {" + form + "}\n" + grid_keys);
    EXPECT_EQ(s.grid, grid);
    EXPECT_EQ(s.pixel_arcmin, 6);
    EXPECT_EQ(s.shear(0, 1, 1), 0.25F);
    EXPECT_EQ(s.shear(1, 1, 1), 0.25F);
    EXPECT_EQ(s.shear(1, 0, 2), -0.1F);
    EXPECT_FLOAT_EQ(s.noise(0, 1, 1), std::sqrt(0.0175F));
    EXPECT_FLOAT_EQ(s.noise(1, 0, 2), std::sqrt(0.055F));
    EXPECT_EQ(s.mask(0, 0, 2), 1.0F);
    EXPECT_EQ(s.mask(0, 0, 0), 0.0F);
    ASSERT_TRUE(s.wcs);
    EXPECT_EQ(s.wcs->ra_deg, 10);
    EXPECT_EQ(s.wcs->crpix_x, 2);
    EXPECT_EQ(s.inputs.size(), form == files ? 5U : 1U);
  }
}

TEST_F(CatalogueSurveyTest, OptionsNoiseAndMask) {
  const std::string unweighted = "ra = \"ra.fits\", dec = \"dec.fits\", e1 = \"e1.fits\", e2 = \"e2.fits\"";
  const Survey s =
      survey("catalogue = {" + unweighted + ", flip_e1 = true, flip_e2 = false, projection = \"tangent\"}\n" +
             grid_keys + "noise = 0.5\n");
  EXPECT_FLOAT_EQ(s.shear(0, 1, 1), -0.2F);
  EXPECT_FLOAT_EQ(s.shear(1, 1, 1), -0.1F);
  EXPECT_EQ(s.noise(0, 1, 1), 0.5F);
  EXPECT_EQ(s.noise(0, 0, 0), 0.0F);
  fits("holes.fits", {1, 1, 0, 1, 1, 1});
  const Survey masked = survey("catalogue = {" + files + "}\n" + grid_keys + "mask = \"holes.fits\"\n");
  EXPECT_EQ(masked.mask(0, 0, 2), 0.0F);
  EXPECT_EQ(masked.mask(0, 1, 1), 1.0F);
  EXPECT_EQ(masked.mask(0, 0, 0), 0.0F);  // no galaxies
}

TEST_F(CatalogueSurveyTest, Refusals) {
  const std::string good = "catalogue = {" + files + "}\n";
  refused(ExitCode::usage, good + "pixel_arcmin = 6\n", {"survey.size"});
  refused(ExitCode::usage, good + "size = [3, 2]\n", {"pixel_arcmin"});
  refused(ExitCode::usage, good + "size = [3.5, 2]\npixel_arcmin = 6\n", {"size", "[width, height]"});
  refused(ExitCode::usage, good + "size = [3, 2]\npixel_arcmin = 6\ncentre = [10]\n", {"centre", "[ra, dec]"});
  refused(ExitCode::usage, "catalogue = \"cat.fits\"\n" + grid_keys, {"not a table"});
  refused(ExitCode::usage, "catalogue = {ra = \"ra.fits\"}\n" + grid_keys, {"survey.catalogue.dec"});
  refused(ExitCode::usage, "catalogue = {" + files + ", projection = \"mercator\"}\n" + grid_keys,
          {"mercator", "tangent"});
  refused(ExitCode::usage, "catalogue = {" + files + ", wieght = \"w.fits\"}\n" + grid_keys, {"wieght"});
  refused(ExitCode::input,
          "catalogue = {file = \"cat.fits\", ra = \"ALPHA\", dec = \"dec\", e1 = \"e1\", e2 = \"e2\"}\n" + grid_keys,
          {"no column ALPHA", "ra, dec, e1, e2, w", "cat.fits"});
  const std::string no_scatter =
      "catalogue = {ra = \"ra.fits\", dec = \"dec.fits\", e1 = \"w.fits\", e2 = \"w.fits\"}\n";
  const double ones[4] = {1, 1, 1, 1};
  fitsfile* file = nullptr;
  int status = 0;
  fits_open_diskfile(&file, path("w.fits").c_str(), READWRITE, &status);
  fits_write_img(file, TDOUBLE, 1, 4, const_cast<double*>(ones), &status);
  fits_close_file(file, &status);
  refused(ExitCode::input, no_scatter + grid_keys, {"do not scatter", "survey.noise"});
  refused(ExitCode::input, good + "size = [3, 2]\ncentre = [50, 0]\npixel_arcmin = 6\n",
          {"no galaxy", "survey.catalogue"});
}

TEST_F(CatalogueSurveyTest, ReadsCosmos) {
  UMBRIEL_NEEDS_REFERENCE_DATA(data);
  const std::string folder = data + "/cosmos/";
  const Survey maps =
      survey("shear = [\"" + folder + "e1_map.fits\", \"" + folder + "e2_map.fits\"]\nnoise = [\"" + folder +
             "std1.fits\", \"" + folder + "std2.fits\"]\nmask = \"" + folder + "mask.fits\"\npixel_arcmin = 0.29\n");
  const Survey binned =
      survey("catalogue = {ra = \"" + folder + "ra.fits\", dec = \"" + folder + "dec.fits\", e1 = \"" + folder +
             "e1.fits\", e2 = \"" + folder + "e2.fits\", weight = \"" + folder +
             "nhweight_int.fits\"}\nsize = [360, 360]\npixel_arcmin = 0.29\n");
  long observed = 0, different = 0;
  for (int y = 0; y < 360; ++y) {
    for (int x = 0; x < 360; ++x) {
      observed += maps.mask(0, y, x) == 1;
      different += maps.mask(0, y, x) != binned.mask(0, y, x);
      for (int component = 0; component < 2; ++component) {
        different += maps.shear(component, y, x) != binned.shear(component, y, x);
        different += maps.noise(component, y, x) != binned.noise(component, y, x);
      }
    }
  }
  EXPECT_EQ(observed, 69191);
  EXPECT_EQ(different, 0);
}

}  // namespace
}  // namespace umbriel
