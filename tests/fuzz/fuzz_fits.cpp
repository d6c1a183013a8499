// FITS maps and columns. CFITSIO and wcslib are the system's and not instrumented: what is found in them are crashes,
// and memory asked for in vain.
#include <string>

#include "fits_text.hpp"
#include "support.hpp"
#include "umbriel/data/fits.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using umbriel::fuzz::refused;
  const std::string bytes = umbriel::fuzz::assemble({reinterpret_cast<const char*>(data), size});
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
