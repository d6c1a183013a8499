// HEALPix maps: tables whose header says how many pixels they have and in which order.
#include <cmath>
#include <string>

#include "fits_text.hpp"
#include "support.hpp"
#include "umbriel/data/healpix_map.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using umbriel::fuzz::refused;
  const std::string bytes = umbriel::fuzz::assemble({reinterpret_cast<const char*>(data), size});
  const std::string path = umbriel::fuzz::scratch_file(".fits", bytes.data(), bytes.size());
  for (const char* field : {"0", "Q"}) {
    refused([&] {
      const umbriel::HealpixFile file(path, field);
      file.unit();
      const umbriel::HealpixMap whole = file.read();
      for (std::int64_t i = 0; i < file.pixels().count(); ++i)
        if (std::isinf(whole[i])) umbriel::fuzz::fail("an infinite pixel");
      const umbriel::HealpixMap part = file.read(file.pixels().disc(30, 40, 50));
      for (const double latitude : {-90.0, 40.0}) {
        const float a = whole.interpolate(30, latitude);
        if (latitude < 0) continue;
        const float b = part[file.pixels().at(30, latitude)], c = whole[file.pixels().at(30, latitude)];
        if (!(b == c || (std::isnan(b) && std::isnan(c))) || std::isinf(a))
          umbriel::fuzz::fail("a part differs from the whole");
      }
    });
  }
  return 0;
}
