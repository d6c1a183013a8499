/// safetensors files (https://github.com/huggingface/safetensors): arrays by name, and text about them.
///
/// Eight bytes with the length of the header, little-endian; the header, JSON: {"NAME": {"dtype", "shape",
/// "data_offsets": [begin, end)}, ..., "__metadata__": {text: text}}; the arrays' bytes, row-major and little-endian,
/// one after the other without holes. Nothing in a file is trusted: a damaged one is Error(input), and no more memory
/// is taken than in proportion to the file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace umbriel::nn {

using Metadata = std::map<std::string, std::string>;

/// A file opened for reading. Tensors are read one by one, and those never asked for are never read.
class SafetensorsFile {
 public:
  struct Entry {
    std::string name, type;            ///< type: "F32", "BF16", "I64", ...
    std::vector<std::int64_t> shape;   ///< [] for a scalar
    std::uint64_t begin = 0, end = 0;  ///< bytes, from the start of the file
  };

  /// Reads and checks the header.
  /// @throws Error(file_system) if the file cannot be read; Error(input) if it is not a sound safetensors file
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  /// In the order of the data.
  const std::vector<Entry>& entries() const { return entries_; }
  const Metadata& metadata() const { return metadata_; }

  /// Values of a tensor of type F64, F32, F16 or BF16.
  /// @throws Error(input) for another type; Error(file_system) if the file cannot be read
  std::vector<float> read(const Entry& entry) const;

 private:
  std::string path_;
  std::vector<Entry> entries_;
  Metadata metadata_;
};

struct NamedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

/// Writes float32 tensors; the file appears under `path` only when it is whole, and was read back byte by byte.
/// @throws Error(file_system); Error(usage) for two tensors of one name, or a shape that is not that of the values
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors, const Metadata& metadata);

}  // namespace umbriel::nn
