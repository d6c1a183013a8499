#include "umbriel/data/kappatng.hpp"

#include <bit>
#include <cstdint>
#include <cstring>

#include "umbriel/base/files.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel {

static_assert(std::endian::native == std::endian::little, "kappatng.cpp copies little-endian values as they are");

KappaTngMap read_kappatng(const std::string& path) {
  const std::string bytes = read_bytes(path);
  const auto refuse = [&](const std::string& what) {
    throw Error(ExitCode::input, what, path,
                "fetch it again; this format is an int32 side, side x side float64 and the int32 side once more");
  };
  std::int32_t first = 0, last = 0;
  constexpr std::size_t count = sizeof(first);
  if (bytes.size() < 2 * count) refuse("the file is too short for a kappaTNG map");
  std::memcpy(&first, bytes.data(), count);
  std::memcpy(&last, bytes.data() + bytes.size() - count, count);
  if (first < 1 || first > 65536) refuse("this is no kappaTNG map: it would have a side of " + std::to_string(first));
  const auto side = static_cast<std::size_t>(first);
  const std::size_t expected = 2 * count + side * side * sizeof(double);
  if (bytes.size() != expected) {
    refuse("this is no whole kappaTNG map: with a side of " + std::to_string(first) + " it would have " +
           std::to_string(expected) + " bytes, and it has " + std::to_string(bytes.size()));
  }
  if (last != first) {
    refuse("the kappaTNG map is damaged: its side is " + std::to_string(first) + " at its beginning and " +
           std::to_string(last) + " at its end");
  }
  KappaTngMap map{first, std::vector<double>(side * side)};
  std::memcpy(map.values.data(), bytes.data() + count, side * side * sizeof(double));
  return map;
}

}  // namespace umbriel
