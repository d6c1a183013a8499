// libpng's "simplified" interface: it reports errors as return values, so no setjmp crosses C++ code.
#include "umbriel/report/png.hpp"

#include <algorithm>

#include <png.h>

#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

/// @param colormap  RGBA entries, or null for full colour
std::string write_png(png_image& image, const std::uint8_t* pixels, const void* colormap) {
  // The bound is generous; the call then says how much it used.
  png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string png(bytes, '\0');
  const int ok = png_image_write_to_memory(&image, png.data(), &bytes, 0, pixels, 0, colormap);
  const std::string message = image.message;
  png_image_free(&image);
  require(ok != 0, ExitCode::file_system, "libpng could not encode a picture: " + message);
  png.resize(bytes);
  return png;
}

png_image describe(int width, int height, std::uint32_t format) {
  require(width > 0 && height > 0, ExitCode::input, "a picture needs at least one pixel");
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width);
  image.height = static_cast<png_uint_32>(height);
  image.format = format;
  return image;
}

}  // namespace

std::string encode_png(int width, int height, const std::vector<std::uint8_t>& rgb) {
  png_image image = describe(width, height, PNG_FORMAT_RGB);
  require(rgb.size() == 3 * std::size_t(width) * std::size_t(height), ExitCode::input,
          "a picture's pixels do not fit its size");
  return write_png(image, rgb.data(), nullptr);
}

std::string encode_png(int width, int height, const std::vector<std::uint8_t>& indices, const std::vector<Rgb>& palette,
                       int transparent) {
  png_image image = describe(width, height, PNG_FORMAT_RGBA_COLORMAP);
  require(indices.size() == std::size_t(width) * std::size_t(height), ExitCode::input,
          "a picture's pixels do not fit its size");
  require(!palette.empty() && palette.size() <= 256, ExitCode::input, "a palette holds 1 to 256 colours");
  require(*std::max_element(indices.begin(), indices.end()) < palette.size(), ExitCode::input,
          "a pixel's colour is not in the palette");
  image.colormap_entries = static_cast<png_uint_32>(palette.size());
  std::vector<std::uint8_t> rgba;
  for (std::size_t i = 0; i < palette.size(); ++i) {
    const std::uint8_t alpha = static_cast<int>(i) == transparent ? 0 : 255;
    rgba.insert(rgba.end(), {palette[i].red, palette[i].green, palette[i].blue, alpha});
  }
  return write_png(image, indices.data(), rgba.data());
}

std::string base64(std::string_view bytes) {
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group = group << 8 | (i + j < bytes.size() ? static_cast<std::uint8_t>(bytes[i + j]) : 0u);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      out += i + j <= bytes.size() ? alphabet[group >> (18 - 6 * j) & 63] : '=';
    }
  }
  return out;
}

std::string png_data_uri(std::string_view png) { return "data:image/png;base64," + base64(png); }

}  // namespace umbriel
