// .npy arrays, and power spectra as .npy and as text.
#include "support.hpp"
#include "umbriel/core/check.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/data/power_spectrum.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using umbriel::fuzz::refused;
  const std::string array = umbriel::fuzz::scratch_file(".npy", data, size);
  refused([&] {
    const umbriel::NpyArray read = umbriel::read_npy(array);
    std::uint64_t values = 1;
    for (const std::uint64_t extent : read.shape) values *= extent;
    if (values != read.values.size()) umbriel::fuzz::fail("the values do not fill the shape");
  });
  refused([&] { umbriel::read_power_spectrum(array); });
  const std::string text = umbriel::fuzz::scratch_file(".txt", data, size);
  refused([&] { umbriel::read_power_spectrum(text)(1000); });
  return 0;
}
