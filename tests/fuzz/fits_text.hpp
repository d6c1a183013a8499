/// FITS files as text: headers and data in a form that mutations do not tear apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

namespace umbriel::fuzz {

inline constexpr std::size_t block = 2880, card = 80;

inline void fill_block(std::string& file, char with) { file.resize((file.size() + block - 1) / block * block, with); }

/// Input as it is; or, where it begins with '|', the file that it describes: a card a line up to the line "END", then
/// data up to the line "%%", with which the next HDU begins.
inline std::string assemble(const std::string& input) {
  if (input.empty() || input[0] != '|') return input;
  const std::string text = input.substr(1);
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

}  // namespace umbriel::fuzz
