#include <gtest/gtest.h>

#include "decode.hpp"
#include "umbriel/core/check.hpp"
#include "umbriel/report/png.hpp"

using namespace umbriel;

TEST(Png, FullColourPicturesComeBackUnchanged) {
  const int width = 7, height = 3;
  std::vector<std::uint8_t> rgb;
  for (int i = 0; i < 3 * width * height; ++i) rgb.push_back(std::uint8_t(37 * i + 5));
  const Picture picture = decode_png(encode_png(width, height, rgb));
  ASSERT_EQ(picture.width, width);
  ASSERT_EQ(picture.height, height);
  for (int i = 0; i < width * height; ++i) {
    for (int c = 0; c < 3; ++c) EXPECT_EQ(picture.rgba[std::size_t(4 * i + c)], rgb[std::size_t(3 * i + c)]);
    EXPECT_EQ(picture.rgba[std::size_t(4 * i + 3)], 255);
  }
}

TEST(Png, PalettePicturesComeBackUnchanged) {
  std::vector<Rgb> palette;
  for (int i = 0; i < 256; ++i) palette.push_back({std::uint8_t(i), std::uint8_t(255 - i), std::uint8_t(i * 7)});
  std::vector<std::uint8_t> indices;
  for (int i = 0; i < 16 * 20; ++i) indices.push_back(std::uint8_t(i * 11));
  const Picture picture = decode_png(encode_png(16, 20, indices, palette, 55));
  ASSERT_EQ(picture.width, 16);
  ASSERT_EQ(picture.height, 20);
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const std::uint8_t* p = &picture.rgba[4 * i];
    if (indices[i] == 55) {
      EXPECT_EQ(p[3], 0);
      continue;
    }
    EXPECT_EQ((Rgb{p[0], p[1], p[2]}), palette[indices[i]]);
    EXPECT_EQ(p[3], 255);
  }
}

TEST(Png, RefusesSizesAndColoursThatDoNotFit) {
  EXPECT_THROW(encode_png(2, 2, {1, 2, 3}), Error);
  EXPECT_THROW(encode_png(0, 2, std::vector<std::uint8_t>{}), Error);
  EXPECT_THROW(encode_png(2, 1, {0, 3}, {{}, {}, {}}), Error);
}

TEST(Base64, KnownAnswers) {  // RFC 4648, section 10
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foob"), "Zm9vYg==");
  EXPECT_EQ(base64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("\xff\xfe\xfd"), "//79");
}
