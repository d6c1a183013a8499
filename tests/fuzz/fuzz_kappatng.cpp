// Binary maps of kappaTNG.
#include "support.hpp"
#include "umbriel/data/kappatng.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using umbriel::fuzz::refused;
  const std::string path = umbriel::fuzz::scratch_file(".dat", data, size);
  refused([&] {
    const umbriel::KappaTngMap map = umbriel::read_kappatng(path);
    const auto side = static_cast<std::size_t>(map.side);
    if (side == 0 || side * side != map.values.size()) umbriel::fuzz::fail("the values do not fill the map");
  });
  return 0;
}
