// FITS maps, columns, coordinates, and what happens to damaged files.
#include <fitsio.h>
#include <zlib.h>

#include <cmath>
#include <limits>

#include "support.hpp"
#include "umbriel/data/fits.hpp"

namespace umbriel {
namespace {

using test::expect_error;

class FitsTest : public test::Folder {
 protected:
  /// Writes a file with CFITSIO itself.
  std::string make(const std::string& name, const std::function<void(fitsfile*, int*)>& fill) {
    fitsfile* file = nullptr;
    int status = 0;
    fits_create_diskfile(&file, path(name).c_str(), &status);
    fill(file, &status);
    fits_close_file(file, &status);
    EXPECT_EQ(status, 0);
    return path(name);
  }

  /// An all-zero float32 image with real-valued header keys.
  std::string make_image(const std::string& name, int width, int height, const std::string& projection,
                         const std::vector<std::pair<const char*, double>>& keys) {
    return make(name, [&](fitsfile* file, int* status) {
      long axes[2] = {width, height};
      fits_create_img(file, FLOAT_IMG, 2, axes, status);
      std::vector<float> zero(static_cast<std::size_t>(width * height));
      fits_write_img(file, TFLOAT, 1, width * height, zero.data(), status);
      std::string type1 = "RA---" + projection, type2 = "DEC--" + projection;
      fits_write_key_str(file, "CTYPE1", type1.c_str(), "", status);
      fits_write_key_str(file, "CTYPE2", type2.c_str(), "", status);
      for (const auto& [key, value] : keys) fits_write_key_dbl(file, key, value, -16, "", status);
    });
  }

  std::string make_table(const std::string& name, int type) {
    return make(name, [&](fitsfile* file, int* status) {
      char* names[] = {const_cast<char*>("ID"), const_cast<char*>("RA"), const_cast<char*>("Dec")};
      char* binary[] = {const_cast<char*>("8A"), const_cast<char*>("D"), const_cast<char*>("J")};
      char* text[] = {const_cast<char*>("A8"), const_cast<char*>("F10.4"), const_cast<char*>("I6")};
      fits_create_tbl(file, type, 0, 3, names, type == BINARY_TBL ? binary : text, nullptr, "SHAPES", status);
      double ra[] = {150.25, 149.5, 150.75};
      int dec[] = {2, -1, 3};
      fits_write_col(file, TDOUBLE, 2, 1, 1, 3, ra, status);
      fits_write_col(file, TINT, 3, 1, 1, 3, dec, status);
    });
  }
};

const Grid grid{3, 4};
const float map[12] = {0.5F, -1.25F, 3e-9F, std::numeric_limits<float>::infinity(),  5,
                       6,    7,      8,     std::numeric_limits<float>::quiet_NaN(), 10,
                       11,   -12};

TEST_F(FitsTest, MapComesBackBitForBit) {
  const TangentPlane plane{150.116, 2.2475, 2.5, 2.0, -0.29 / 60, 0.29 / 60, 0};
  write_fits_map(
      path("map.fits"), map, grid, "uK", "posterior mean", plane,
      {{"SEED", std::int64_t{12345678901}, "seed"}, {"SIGMA", 0.1, ""}, {"METHOD", "annealed HMC", "sampler"}});
  const FitsImage back = read_fits_image(path("map.fits"));
  EXPECT_EQ(back.height, 3);
  EXPECT_EQ(back.width, 4);
  EXPECT_EQ(back.planes, 1);
  EXPECT_EQ(back.unit, "uK");
  for (std::size_t i = 0; i < 12; ++i) {
    if (std::isnan(map[i]))
      EXPECT_TRUE(std::isnan(back.values[i]));
    else
      EXPECT_EQ(back.values[i], static_cast<double>(map[i]));
  }
  ASSERT_TRUE(back.wcs);
  EXPECT_NEAR(back.wcs->ra_deg, plane.ra_deg, 1e-12);
  EXPECT_NEAR(back.wcs->dec_deg, plane.dec_deg, 1e-12);
  EXPECT_EQ(back.wcs->crpix_x, plane.crpix_x);
  EXPECT_EQ(back.wcs->crpix_y, plane.crpix_y);
  EXPECT_NEAR(back.wcs->cdelt_x_deg, plane.cdelt_x_deg, 1e-12);
  EXPECT_NEAR(back.wcs->cdelt_y_deg, plane.cdelt_y_deg, 1e-12);
  EXPECT_EQ(back.wcs->rotation_deg, 0);
  const std::string header = bytes("map.fits").substr(0, 2880);
  for (const char* card :
       {"OBJECT  = 'posterior mean'", "SEED    =          12345678901", "SIGMA   =                  0.1",
        "METHOD  = 'annealed HMC'", "RADESYS = 'ICRS", "CHECKSUM=", "DATASUM ="})
    EXPECT_NE(header.find(card), std::string::npos) << card;
}

TEST_F(FitsTest, RotatedPlaneComesBack) {
  const TangentPlane plane{10.684, 41.269, 5.5, 3.25, -0.01, 0.012, 30};
  write_fits_map(path("map.fits"), map, grid, "", "", plane);
  const TangentPlane back = read_fits_image(path("map.fits")).wcs.value();
  EXPECT_NEAR(back.cdelt_x_deg, -0.01, 1e-11);
  EXPECT_NEAR(back.cdelt_y_deg, 0.012, 1e-11);
  EXPECT_NEAR(back.rotation_deg, 30, 1e-7);
}

TEST_F(FitsTest, FileAppearsOnlyWhenWhole) {
  write_fits_map(path("map.fits"), map, grid, "", "");
  const std::string before = bytes("map.fits");
  expect_error(ExitCode::file_system, {"no/map.fits", "No such file or directory"},
               [&] { write_fits_map(path("no/map.fits"), map, grid, "", ""); });
  // A value that no FITS header can hold: the finished file stays, nothing else is left.
  expect_error(ExitCode::file_system, {"map.fits"}, [&] {
    write_fits_map(path("map.fits"), map, grid, "", "", std::nullopt, {{"BAD", std::nan(""), ""}});
  });
  EXPECT_EQ(bytes("map.fits"), before);
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path(""))) ++files;
  EXPECT_EQ(files, 1);
}

TEST_F(FitsTest, ReadsPlanesScalesAndBlanks) {
  make("int.fits", [](fitsfile* file, int* status) {
    long axes[3] = {2, 2, 2};
    fits_create_img(file, SHORT_IMG, 3, axes, status);
    fits_write_key_lng(file, "BLANK", -1, "", status);
    short raw[8] = {0, 1, 2, 3, 4, -1, 6, 7};
    fits_write_img(file, TSHORT, 1, 8, raw, status);
    fits_write_key_dbl(file, "BSCALE", 0.5, 6, "", status);
    fits_write_key_dbl(file, "BZERO", 10, 6, "", status);
    fits_write_key_str(file, "BUNIT", "K", "", status);
  });
  const FitsImage image = read_fits_image(path("int.fits"));
  EXPECT_EQ(image.planes, 2);
  EXPECT_EQ(image.unit, "K");
  EXPECT_EQ(image.values[3], 11.5);
  EXPECT_TRUE(std::isnan(image.values[5]));
  EXPECT_EQ(image.values[7], 13.5);
  EXPECT_FALSE(image.wcs);
}

TEST_F(FitsTest, FindsTheImageBehindAnEmptyPrimaryHdu) {
  make("ext.fits", [](fitsfile* file, int* status) {
    long axes[2] = {2, 1};
    fits_create_img(file, FLOAT_IMG, 0, axes, status);
    fits_create_img(file, DOUBLE_IMG, 2, axes, status);
    double values[2] = {1, 2};
    fits_write_img(file, TDOUBLE, 1, 2, values, status);
  });
  EXPECT_EQ(read_fits_image(path("ext.fits")).values, (std::vector<double>{1, 2}));
}

// Sky positions from astropy 5 (WCS.wcs_pix2world, wcs_world2pix).
TEST_F(FitsTest, TangentPlaneAgreesWithAstropy) {
  const TangentPlane plane{10.684, 41.269, 5.5, 3.25, -0.01, 0.012, 30};
  const double pixels[3][2] = {{1, 1}, {5.5, 3.25}, {10, 6}};
  const double sky[3][2] = {
      {10.75380965079043, 41.26809623009677}, {10.684, 41.269}, {10.61019116698801, 41.27505526868102}};
  for (int i = 0; i < 3; ++i) {
    const auto position = sky_position(plane, pixels[i][0], pixels[i][1]);
    EXPECT_NEAR(position[0], sky[i][0], 1e-11);
    EXPECT_NEAR(position[1], sky[i][1], 1e-11);
  }
  const auto point = project_tangent(2.5, -58.25, 359, -60);  // across right ascension 0
  EXPECT_NEAR(point[0], 1.84236694662074, 1e-12);
  EXPECT_NEAR(point[1], 1.702656236419, 1e-12);
  EXPECT_TRUE(std::isnan(project_tangent(180, 0, 0, 0)[0]));
}

TEST_F(FitsTest, ReadsCdMatrix) {
  make_image("cd.fits", 10, 6, "TAN",
             {{"CRVAL1", 10.684},
              {"CRVAL2", 41.269},
              {"CRPIX1", 5.5},
              {"CRPIX2", 3.25},
              {"CD1_1", -0.01 * std::sqrt(0.75)},
              {"CD1_2", -0.006},
              {"CD2_1", -0.005},
              {"CD2_2", 0.012 * std::sqrt(0.75)}});
  const TangentPlane plane = read_fits_image(path("cd.fits")).wcs.value();
  EXPECT_NEAR(plane.cdelt_x_deg, -0.01, 1e-11);
  EXPECT_NEAR(plane.cdelt_y_deg, 0.012, 1e-11);
  EXPECT_NEAR(plane.rotation_deg, 30, 1e-7);
  const auto corner = sky_position(plane, 1, 1);
  EXPECT_NEAR(corner[0], 10.75380965079043, 1e-9);
  EXPECT_NEAR(corner[1], 41.26809623009677, 1e-9);
}

TEST_F(FitsTest, OtherProjectionsBecomeTheTangentPlaneOfTheCentre) {
  make_image("car.fits", 10, 5, "CAR",
             {{"CRVAL1", 120}, {"CRVAL2", 0}, {"CRPIX1", -20}, {"CRPIX2", -400}, {"CDELT1", -0.05}, {"CDELT2", 0.05}});
  const TangentPlane plane = read_fits_image(path("car.fits")).wcs.value();
  EXPECT_EQ(plane.crpix_x, 5.5);
  EXPECT_EQ(plane.crpix_y, 3.0);
  EXPECT_NEAR(plane.ra_deg, 118.725, 1e-11);
  EXPECT_NEAR(plane.dec_deg, 20.15, 1e-11);
  EXPECT_NEAR(plane.cdelt_x_deg, -0.05 * std::cos(20.15 * M_PI / 180), 1e-7);
  EXPECT_NEAR(plane.cdelt_y_deg, 0.05, 1e-7);
}

TEST_F(FitsTest, GalacticMapHasNoTangentPlaneAndABrokenOneIsRefused) {
  make("gal.fits", [](fitsfile* file, int* status) {
    long axes[2] = {2, 2};
    float values[4] = {};
    fits_create_img(file, FLOAT_IMG, 2, axes, status);
    fits_write_img(file, TFLOAT, 1, 4, values, status);
    fits_write_key_str(file, "CTYPE1", "GLON-TAN", "", status);
    fits_write_key_str(file, "CTYPE2", "GLAT-TAN", "", status);
  });
  EXPECT_FALSE(read_fits_image(path("gal.fits")).wcs);
  make_image("singular.fits", 2, 2, "TAN", {{"CDELT1", 0.0}, {"CDELT2", 0.1}});
  expect_error(ExitCode::input, {"sky coordinates", "singular.fits", "HDU 0", "wcslib", "survey.pixel_arcmin"},
               [&] { read_fits_image(path("singular.fits")); });
}

TEST_F(FitsTest, ReferenceMapKeepsItsPlane) {
  UMBRIEL_NEEDS_REFERENCE_DATA(data);
  const FitsImage image = read_fits_image(data + "/flatcl/map_flat.fits");
  EXPECT_EQ(image.width, 119);
  EXPECT_EQ(image.height, 89);
  ASSERT_TRUE(image.wcs);
  EXPECT_NEAR(image.wcs->dec_deg, -50, 1e-12);
  EXPECT_EQ(image.wcs->crpix_x, 59.5);
  EXPECT_NEAR(image.wcs->cdelt_x_deg, -0.33572142620796, 1e-11);
  EXPECT_NEAR(image.wcs->cdelt_y_deg, 0.33582633505616, 1e-11);
  const auto position = sky_position(*image.wcs, 60, 45);
  EXPECT_NEAR(position[0], 359.73976578, 5e-9);
  EXPECT_NEAR(position[1], -49.83179601, 5e-9);
}

TEST_F(FitsTest, MissingAndUnreadableFilesAreTheFileSystems) {
  expect_error(ExitCode::file_system, {"none.fits", "No such file", "check the path"},
               [&] { read_fits_image(path("none.fits")); });
  expect_error(ExitCode::file_system, {"not a regular file"}, [&] { read_fits_image(path("")); });
  expect_error(ExitCode::file_system, {"none.fits"}, [&] { read_fits_column(path("none.fits"), "RA"); });
}

TEST_F(FitsTest, OtherFilesAreRefused) {
  write("text.fits", "not a FITS file\n");
  expect_error(ExitCode::input, {"text.fits", "CFITSIO"}, [&] { read_fits_image(path("text.fits")); });
  write("empty.fits", "");
  expect_error(ExitCode::input, {"empty.fits"}, [&] { read_fits_image(path("empty.fits")); });
  make_table("table.fits", BINARY_TBL);
  expect_error(ExitCode::input, {"table.fits", "no HDU", "two dimensions"},
               [&] { read_fits_image(path("table.fits")); });
}

TEST_F(FitsTest, EveryTruncationIsSeen) {
  std::vector<float> big(200 * 200, 1.0F);
  write_fits_map(path("map.fits"), big.data(), {200, 200}, "", "");
  const std::string whole = bytes("map.fits");
  for (const std::size_t size : {whole.size() - 1, whole.size() - 2880, whole.size() / 2, std::size_t{2880}}) {
    write("cut.fits", whole.substr(0, size));
    expect_error(ExitCode::input,
                 {"truncated", "cut.fits", "HDU 0", std::to_string(whole.size()), std::to_string(size)},
                 [&] { read_fits_image(path("cut.fits")); });
  }
  write("cut.fits", whole.substr(0, 1000));
  expect_error(ExitCode::input, {"cut.fits"}, [&] { read_fits_image(path("cut.fits")); });

  make_table("table.fits", BINARY_TBL);
  const std::string table = bytes("table.fits");
  write("cut.fits", table.substr(0, table.size() - 2880));
  expect_error(ExitCode::input, {"truncated", "HDU 1"}, [&] { read_fits_column(path("cut.fits"), "RA"); });
}

TEST_F(FitsTest, ChangedBitsAreSeen) {
  write_fits_map(path("map.fits"), map, grid, "", "field");
  std::string damaged = bytes("map.fits");
  damaged[2880 + 5] ^= 1;
  write("data.fits", damaged);
  expect_error(ExitCode::input, {"DATASUM", "data.fits", "HDU 0"}, [&] { read_fits_image(path("data.fits")); });
  damaged = bytes("map.fits");
  damaged[damaged.find("field")] = 'F';
  write("header.fits", damaged);
  expect_error(ExitCode::input, {"CHECKSUM", "header.fits"}, [&] { read_fits_image(path("header.fits")); });
}

TEST_F(FitsTest, PackedFilesAreReadAndTheirTruncationIsSeen) {
  fitsfile* file = nullptr;
  int status = 0;
  long axes[2] = {100, 100};
  std::vector<float> values(10000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  fits_create_file(&file, path("map.fits.gz").c_str(), &status);  // packs because of the name
  fits_create_img(file, FLOAT_IMG, 2, axes, &status);
  fits_write_img(file, TFLOAT, 1, 10000, values.data(), &status);
  fits_close_file(file, &status);
  ASSERT_EQ(status, 0);
  const std::string whole = bytes("map.fits.gz");
  ASSERT_EQ(whole.substr(0, 2), "\x1f\x8b");
  EXPECT_EQ(read_fits_image(path("map.fits.gz")).values[7777], static_cast<double>(values[7777]));
  write("cut.fits.gz", whole.substr(0, whole.size() / 2));
  expect_error(ExitCode::input, {"cut.fits.gz"}, [&] { read_fits_image(path("cut.fits.gz")); });
}

TEST_F(FitsTest, TextWithoutItsQuoteIsRefused) {
  make_image("quote.fits", 2, 2, "TAN", {{"CRVAL1", 10}});
  std::string damaged = bytes("quote.fits");
  damaged[damaged.find("'RA---TAN'") + 9] = ' ';
  write("quote.fits", damaged);
  expect_error(ExitCode::input, {"closing quote", "CTYPE1", "quote.fits"},
               [&] { read_fits_image(path("quote.fits")); });
}

TEST_F(FitsTest, AbsurdAxesAreRefusedBeforeMemoryIsTaken) {
  std::vector<float> small(4);
  make_image("axes.fits", 2, 2, "TAN", {});
  std::string damaged = bytes("axes.fits");
  const std::string card = "NAXIS1  =                    2";
  const auto at = damaged.find(card);
  ASSERT_NE(at, std::string::npos);
  damaged.replace(at, card.size(), "NAXIS1  =        2000000000000");
  write("axes.fits", damaged);
  expect_error(ExitCode::input, {"NAXIS1 = 2000000000000", "axes.fits"}, [&] { read_fits_image(path("axes.fits")); });
}

TEST_F(FitsTest, ColumnsOfTables) {
  for (const int type : {BINARY_TBL, ASCII_TBL}) {
    const std::string file = make_table(type == BINARY_TBL ? "b.fits" : "a.fits", type);
    EXPECT_EQ(read_fits_column(file, "ra"), (std::vector<double>{150.25, 149.5, 150.75}));
    EXPECT_EQ(read_fits_column(file, "DEC"), (std::vector<double>{2, -1, 3}));
    expect_error(ExitCode::input, {"no column e1", "it has ID, RA, Dec", file}, [&] { read_fits_column(file, "e1"); });
    expect_error(ExitCode::input, {"column id", "one number a row"}, [&] { read_fits_column(file, "id"); });
    expect_error(ExitCode::input, {"3 columns"}, [&] { read_fits_column(file); });
  }
}

TEST_F(FitsTest, OneColumnFiles) {
  make("column.fits", [](fitsfile* file, int* status) {
    long axes[1] = {3};
    double values[3] = {1.5, -2, 3};
    fits_create_img(file, DOUBLE_IMG, 1, axes, status);
    fits_write_img(file, TDOUBLE, 1, 3, values, status);
  });
  EXPECT_EQ(read_fits_column(path("column.fits")), (std::vector<double>{1.5, -2, 3}));
  make("table.fits", [](fitsfile* file, int* status) {
    char* name[] = {const_cast<char*>("E1")};
    char* form[] = {const_cast<char*>("E")};
    fits_create_tbl(file, BINARY_TBL, 0, 1, name, form, nullptr, nullptr, status);
    float values[2] = {0.25F, 0.5F};
    fits_write_col(file, TFLOAT, 1, 1, 1, 2, values, status);
  });
  EXPECT_EQ(read_fits_column(path("table.fits")), (std::vector<double>{0.25, 0.5}));
  expect_error(ExitCode::input, {"no column RA", "no table"}, [&] { read_fits_column(path("column.fits"), "RA"); });
  write_fits_map(path("map.fits"), map, grid, "", "");
  expect_error(ExitCode::input, {"an image, not a column"}, [&] { read_fits_column(path("map.fits")); });
}

TEST_F(FitsTest, PackedFilesMayNotClaimMoreThanTheyHold) {
  make_image("map.fits", 10, 10, "TAN", {});
  const std::string raw = bytes("map.fits");
  const gzFile packed = gzopen(path("map.fits.gz").c_str(), "wb");
  gzwrite(packed, raw.data(), static_cast<unsigned>(raw.size()));
  gzclose(packed);
  std::string lying = bytes("map.fits.gz");
  lying.replace(lying.size() - 4, 4, "\xff\xff\xff\xf0");
  write("lying.fits.gz", lying);
  expect_error(ExitCode::input, {"lying.fits.gz"}, [&] { read_fits_image(path("lying.fits.gz")); });
  for (const std::string magic : {"\x1f\x1e", "\x1f\x9d", "\x1f\xa0", "PK", "BZ"}) {
    write("other.fits", magic + raw);
    expect_error(ExitCode::input, {"other.fits", "not by gzip", "unpack"},
                 [&] { read_fits_image(path("other.fits")); });
  }
}

// Headers on which CFITSIO 4.2 crashes, or takes memory as chance has it.
TEST_F(FitsTest, HeadersThatCfitsioDoesNotStandAreRefused) {
  make_table("table.fits", BINARY_TBL);
  const std::string table = bytes("table.fits");
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = table;
    const std::size_t at = text.rfind(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, to.size(), to);
    write("changed.fits", text);
    expect_error(ExitCode::input, {"changed.fits"}, [&] { read_fits_column(path("changed.fits"), "RA"); });
  };
  changed("GCOUNT  =", "GCOUNTS =");
  changed("TFIELDS =", "TFIELDS  ");
  changed("TFIELDS =                    3", "TFIELDS =            999999999");
  changed("TFIELDS =                    3", "TFIELDS =                     ");
  changed("PCOUNT  =                    0", "PCOUNT  =                  0x7");
}

TEST_F(FitsTest, NamesOfColumnsWithoutQuotesAreRefused) {
  std::string table;
  const auto card = [&](const std::string& text) { table += text + std::string(80 - text.size(), ' '); };
  const auto pad = [&] { table.resize((table.size() + 2879) / 2880 * 2880, ' '); };
  for (const char* text : {"SIMPLE  =                    T", "BITPIX  =                    8",
                           "NAXIS   =                    0", "EXTEND  =                    T", "END"})
    card(text);
  pad();
  for (const char* text :
       {"XTENSION= 'BINTABLE'", "BITPIX  =                    8", "NAXIS   =                    2",
        "NAXIS1  =                    8", "NAXIS2  =                    1", "PCOUNT  =                    0",
        "GCOUNT  =                    1", "TFIELDS =                    1"})
    card(text);
  card("TTYPE1  = " + std::string(70, 'x'));  // CFITSIO writes beyond its memory
  card("TFORM1  = '1D      '");
  card("END");
  pad();
  table += std::string(2880, '\0');
  write("bare.fits", table);
  expect_error(ExitCode::input, {"bare.fits", "TTYPE1", "quotes"}, [&] { read_fits_image(path("bare.fits")); });
  expect_error(ExitCode::input, {"bare.fits", "TTYPE1", "quotes"}, [&] { read_fits_column(path("bare.fits"), "x"); });
  table.replace(table.find("TTYPE1  = x"), 10, "TTYPE1  =x");  // no value by the standard, but by CFITSIO
  write("bare.fits", table);
  expect_error(ExitCode::input, {"bare.fits", "TTYPE1", "quotes"}, [&] { read_fits_image(path("bare.fits")); });
}

TEST_F(FitsTest, CompressedImagesMayNotClaimMoreThanTheFileHolds) {
  const auto compressed = [&](int kind) {
    return make("tiles.fits", [&](fitsfile* file, int* status) {
      long axes[2] = {64, 64};
      std::vector<short> values(64 * 64, 3);
      fits_set_compression_type(file, kind, status);
      fits_create_img(file, SHORT_IMG, 2, axes, status);
      fits_write_img(file, TSHORT, 1, 64 * 64, values.data(), status);
    });
  };
  const std::string file = compressed(RICE_1), whole = bytes("tiles.fits");
  EXPECT_EQ(read_fits_image(file).values, std::vector<double>(64 * 64, 3));
  const auto with = [&](const std::string& key, const std::string& value) {
    std::string text = whole;
    const std::size_t at = text.find(key);
    ASSERT_NE(at, std::string::npos) << key;
    text.replace(at + 10, 20, std::string(20 - value.size(), ' ') + value);
    write("changed.fits", text);
    expect_error(ExitCode::input, {"changed.fits"}, [&] { read_fits_image(path("changed.fits")); });
  };
  with("ZTILE1  =", "0");  // CFITSIO divides by it
  with("ZTILE1  =", "2000000000");
  with("ZNAXIS1 =", "2000000");
  std::filesystem::remove(file);
  compressed(PLIO_1);
  expect_error(ExitCode::input, {"PLIO", "funpack"}, [&] { read_fits_image(file); });
}

// CFITSIO 4.2 takes memory without end for what a packed tile that is cut short might still hold.
TEST_F(FitsTest, RefusesTilesThatDoNotEnd) {
  for (const int kind : {GZIP_1, GZIP_2}) {
    std::vector<short> values(64 * 64);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<short>(i * i % 1009);
    std::filesystem::remove(path("tiles.fits"));
    make("tiles.fits", [&](fitsfile* file, int* status) {
      long axes[2] = {64, 64}, tile[2] = {64, 64};
      fits_set_compression_type(file, kind, status);
      fits_set_tile_dim(file, 2, tile, status);
      fits_create_img(file, SHORT_IMG, 2, axes, status);
      fits_write_img(file, TSHORT, 1, 64 * 64, values.data(), status);
    });
    EXPECT_EQ(read_fits_image(path("tiles.fits")).values[77], values[77]);
    // The descriptor of the only tile, length and place, stands at the beginning of the table: half the length.
    std::string text = bytes("tiles.fits");
    std::size_t row = text.find("XTENSION");
    row = (text.find("END     ", row) / 2880 + 1) * 2880;
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[row + i]); };
    const unsigned length = (byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3)) / 2;
    for (int i = 0; i < 4; ++i) text[row + static_cast<std::size_t>(i)] = static_cast<char>(length >> (24 - 8 * i));
    write("cut.fits", text);
    expect_error(ExitCode::input, {"cut.fits", "tile 1", "cut short"}, [&] { read_fits_image(path("cut.fits")); });
  }
}

TEST_F(FitsTest, RefusesAnImageThatIsCompressedTwice) {
  make("tiles.fits", [](fitsfile* file, int* status) {
    long axes[2] = {64, 64};
    fits_set_compression_type(file, GZIP_1, status);
    fits_create_img(file, SHORT_IMG, 2, axes, status);
    std::vector<short> pixels(4096, 7);
    fits_write_img(file, TSHORT, 1, 4096, pixels.data(), status);
  });
  EXPECT_EQ(read_fits_image(path("tiles.fits")).values[99], 7);
  const std::string raw = bytes("tiles.fits");
  const gzFile packed = gzopen(path("twice.fits.gz").c_str(), "wb");
  gzwrite(packed, raw.data(), static_cast<unsigned>(raw.size()));
  gzclose(packed);
  expect_error(ExitCode::input, {"twice.fits.gz", "packed once more"}, [&] { read_fits_image(path("twice.fits.gz")); });
}

}  // namespace
}  // namespace umbriel
