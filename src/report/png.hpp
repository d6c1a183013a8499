/// PNG pictures in memory, and base64 to put them inside a page.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace umbriel {

struct Rgb {
  std::uint8_t red = 0, green = 0, blue = 0;
  bool operator==(const Rgb&) const = default;
};

/// @param rgb  [height, width, 3], top row first
/// @return the bytes of a PNG file. @throws Error(input) if the sizes disagree
std::string encode_png(int width, int height, const std::vector<std::uint8_t>& rgb);

/// A picture of at most 256 colours; a third of the size of a full-colour one.
/// @param indices      [height, width], top row first, each below palette.size()
/// @param transparent  index drawn as nothing at all, -1 for none
std::string encode_png(int width, int height, const std::vector<std::uint8_t>& indices, const std::vector<Rgb>& palette,
                       int transparent = -1);

/// RFC 4648, with padding.
std::string base64(std::string_view bytes);

/// "data:image/png;base64,..."
std::string png_data_uri(std::string_view png);

}  // namespace umbriel
