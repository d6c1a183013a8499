// Damaged bytes of sealed files. The HDF5 library does not stand them, so that the seal must: no file that differs in
// any byte from what was sealed may pass to it.
//
// Input: bytes of a file; or, where it begins with '|', changes to a good one: a kind, a place and a value, 4 bytes
// each.
#include <algorithm>
#include <string>

#include "hdf5_changes.hpp"
#include "support.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace {

using namespace umbriel;

std::string good_file() {
  log::start(1);
  const std::string path = fuzz::scratch_file(".good.h5", "", 0);
  Hdf5Writer file(path, Communicator());
  const double values[] = {1, 2, 3};
  file.write<double>({"/values", {}, "1", "numbers"}, {3}, values);
  file.attribute("/", "command", std::string("sample"));
  file.commit();
  const std::string bytes = fuzz::unsealed_bytes(path);
  const std::string again = fuzz::scratch_file(".good.h5", bytes.data(), bytes.size());
  fuzz::seal(again);
  return again;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string good = [] {
    const std::string path = good_file();
    require_seal(path);
    std::string bytes = fuzz::unsealed_bytes(path);
    std::string whole(bytes.size() + 80, '\0');
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (std::fread(whole.data(), 1, whole.size(), file) != whole.size()) fuzz::fail("cannot read the good file");
    std::fclose(file);
    return whole;
  }();
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size > 0 && bytes[0] == '|') {
    bytes = good;
    for (std::size_t i = 1; i + 4 <= size && !bytes.empty(); i += 4) {
      const std::size_t place = (data[i + 1] + 256U * data[i + 2]) % bytes.size();
      if (data[i] % 8 == 0) {
        bytes.resize(place);
      } else if (data[i] % 8 == 1) {
        bytes.insert(place, 1, static_cast<char>(data[i + 3]));
      } else {
        bytes[place] = static_cast<char>(data[i + 3]);
      }
    }
  }
  const std::string path = fuzz::scratch_file(".h5", bytes.data(), bytes.size());
  const bool sealed = !fuzz::refused([&] { require_seal(path); });
  if (bytes == good && !sealed) fuzz::fail("a good file did not pass");
  if (bytes != good && sealed && size > 0 && data[0] == '|') fuzz::fail("a damaged file passed its seal");
  const bool refused = fuzz::refused([&] {
    const std::string found = newest_good_generation(Communicator(), path, [](const std::string&) {});
    if (bytes == good) Hdf5Reader(found).data_digest();
  });
  if (refused == sealed) fuzz::fail("a damaged generation was taken, or a good one refused");
  return 0;
}
