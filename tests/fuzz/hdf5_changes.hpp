/// HDF5 files that are sound for the HDF5 library and wrong for us.
///
/// The library itself does not stand damaged bytes, so that these fuzzers do not make any: they take a good file apart
/// through the library's own functions, and seal it again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace umbriel::fuzz {

/// All bytes of a file but its seal.
std::string unsealed_bytes(const std::string& path);

/// Changes a file, as the input says: takes datasets, groups, links and attributes away, and puts others in their
/// place, of other shapes, types, layouts and values. False where the library cannot write such a file: it is no input.
[[nodiscard]] bool change_hdf5(const std::string& path, const std::uint8_t* data, std::size_t size);

/// Ends a file with the SHA-256 sum of all before, as Hdf5Writer does.
void seal(const std::string& path);

}  // namespace umbriel::fuzz
