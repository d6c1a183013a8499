// Decoders for the tests, independent of the code under test.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <png.h>

struct Picture {
  int width = 0, height = 0;
  std::vector<std::uint8_t> rgba;  // [height, width, 4]

  const std::uint8_t* pixel(int row, int column) const { return &rgba[4 * std::size_t(row * width + column)]; }
};

inline Picture decode_png(std::string_view bytes) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&image, bytes.data(), bytes.size())) throw std::runtime_error(image.message);
  image.format = PNG_FORMAT_RGBA;
  Picture picture{int(image.width), int(image.height), std::vector<std::uint8_t>(PNG_IMAGE_SIZE(image))};
  if (!png_image_finish_read(&image, nullptr, picture.rgba.data(), 0, nullptr)) throw std::runtime_error(image.message);
  return picture;
}

inline std::string decode_base64(std::string_view text) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  unsigned buffer = 0, bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    buffer = buffer << 6 | unsigned(alphabet.find(c));
    bits += 6;
    if (bits >= 8) out += char(buffer >> (bits -= 8) & 255);
  }
  return out;
}
