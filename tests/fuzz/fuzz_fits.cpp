// FITS maps and columns. CFITSIO and wcslib are the system's and not instrumented: what is found in them are crashes,
// and memory asked for in vain.
//
// Input: a file as it is; or, where it begins with '|', headers and data in a form that mutations do not tear apart:
// a card a line up to the line "END", then data up to the line "%%", with which the next HDU begins.
#include <algorithm>
#include <string>

#include "support.hpp"
#include "umbriel/data/fits.hpp"

namespace {

constexpr std::size_t block = 2880, card = 80;

void fill_block(std::string& file, char with) { file.resize((file.size() + block - 1) / block * block, with); }

std::string assemble(const std::string& text) {
  std::string file;
  for (std::size_t at = 0; at < text.size();) {
    for (bool end = false; !end && at < text.size();) {
      std::string line = text.substr(at, text.find('\n', at) - at);
      at += line.size() + 1;
      end = line == "END";
      line.resize(card, ' ');
      file += line;
    }
    fill_block(file, ' ');
    if (at >= text.size()) break;
    const std::size_t stop = text.find("\n%%\n", at);
    file += text.substr(at, stop - at);
    fill_block(file, '\0');
    at = stop == std::string::npos ? stop : stop + 4;
  }
  file.resize(std::min(file.size(), 8 * block));
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using umbriel::fuzz::refused;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size > 0 && bytes[0] == '|') bytes = assemble(bytes.substr(1));
  const std::string path = umbriel::fuzz::scratch_file(".fits", bytes.data(), bytes.size());
  refused([&] {
    const umbriel::FitsImage image = umbriel::read_fits_image(path);
    if (image.values.size() != static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width) *
                                   static_cast<std::size_t>(image.planes))
      umbriel::fuzz::fail("the values do not fill the shape");
  });
  refused([&] { umbriel::read_fits_column(path); });
  refused([&] { umbriel::read_fits_column(path, "ra"); });
  return 0;
}
