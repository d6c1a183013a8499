// Weights: the header, and every tensor.
#include "support.hpp"
#include "umbriel/nn/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using umbriel::fuzz::refused;
  const std::string path = umbriel::fuzz::scratch_file(".safetensors", data, size);
  refused([&] {
    const umbriel::nn::SafetensorsFile file(path);
    for (const auto& entry : file.entries()) {
      refused([&] {
        std::int64_t values = 1;
        for (const std::int64_t extent : entry.shape) values *= extent;
        if (static_cast<std::int64_t>(file.read(entry).size()) != values)
          umbriel::fuzz::fail("the values do not fill the shape");
      });
    }
  });
  return 0;
}
