#include "umbriel/data/npy.hpp"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cstring>

#include "umbriel/base/files.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel {

static_assert(std::endian::native == std::endian::little, "npy.cpp copies little-endian values as they are");

namespace {

constexpr char magic[] = "\x93NUMPY";
constexpr std::size_t magic_size = 6;

[[noreturn]] void refuse(const std::string& path, const std::string& what, const std::string& remedy) {
  throw Error(ExitCode::input, what, path, remedy);
}

[[noreturn]] void refuse_header(const std::string& path) {
  refuse(path, "the header of the .npy file cannot be understood", "write the file again with numpy.save");
}

/// The text after `'key':` in the header, a Python dictionary with the three keys 'descr', 'fortran_order', 'shape'.
std::string entry(const std::string& header, const std::string& key, const std::string& path) {
  const auto at = header.find("'" + key + "'");
  if (at == std::string::npos) refuse_header(path);
  auto start = header.find(':', at);
  if (start == std::string::npos) refuse_header(path);
  start = header.find_first_not_of(' ', start + 1);
  if (start == std::string::npos) refuse_header(path);
  return header.substr(start);
}

std::vector<std::uint64_t> parse_shape(const std::string& text, const std::string& path) {
  const auto close = text.find(')');
  if (text[0] != '(' || close == std::string::npos) refuse_header(path);
  std::vector<std::uint64_t> shape;
  for (std::size_t i = 1; i < close;) {
    if (text[i] == ' ' || text[i] == ',') {
      ++i;
      continue;
    }
    std::uint64_t length = 0;
    std::size_t digits = 0;
    for (; i < close && std::isdigit(static_cast<unsigned char>(text[i])) != 0; ++i, ++digits)
      length = length * 10 + static_cast<std::uint64_t>(text[i] - '0');
    if (digits == 0 || digits > 15) refuse_header(path);
    shape.push_back(length);
  }
  return shape;
}

template <class T>
std::vector<double> convert(const char* bytes, std::size_t n) {
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    values[i] = static_cast<double>(value);
  }
  return values;
}

/// From column-major to row-major.
std::vector<double> transpose(const std::vector<double>& values, const std::vector<std::uint64_t>& shape) {
  std::vector<double> out(values.size());
  std::vector<std::uint64_t> index(shape.size(), 0);
  for (double value : values) {
    std::size_t at = 0;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) at = at * shape[axis] + index[axis];
    out[at] = value;
    for (std::size_t axis = 0; axis < shape.size() && ++index[axis] == shape[axis]; ++axis) index[axis] = 0;
  }
  return out;
}

}  // namespace

NpyArray read_npy(const std::string& path) {
  const std::string bytes = read_bytes(path);
  if (bytes.size() < 10 || std::memcmp(bytes.data(), magic, magic_size) != 0)
    refuse(path, "this is not a .npy file", "write it with numpy.save");
  const auto byte = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(bytes[i])); };
  const std::size_t version = byte(6);
  if (version < 1 || version > 3)
    refuse(path, "version " + std::to_string(version) + " of the .npy format is not known", "write it with numpy.save");
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  const std::size_t start = 8 + length_bytes;
  if (bytes.size() < start) refuse_header(path);
  std::size_t length = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) length |= byte(8 + i) << (8 * i);
  if (length > bytes.size() - start) refuse(path, "the file is truncated in its header", "fetch or write it again");
  const std::string header = bytes.substr(start, length);

  const std::string type_text = entry(header, "descr", path);
  const auto type_end = type_text.find('\'', 1);
  const std::string type =
      type_text[0] == '\'' && type_end != std::string::npos ? type_text.substr(1, type_end - 1) : "a record type";
  const std::string order = entry(header, "fortran_order", path);
  const bool column_major = order.starts_with("True");
  if (!column_major && !order.starts_with("False")) refuse_header(path);

  NpyArray array;
  array.shape = parse_shape(entry(header, "shape", path), path);

  const bool known = type == "<f4" || type == "<f8" || type == "<i4" || type == "<i8" || type == "|b1";
  if (!known)
    refuse(path, "the array has type " + type + ", not little-endian float32, float64, int32, int64 or bool",
           "convert it: numpy.save(path, array.astype('<f8'))");
  const std::size_t item = type[2] == '1' ? 1 : type[2] == '4' ? 4 : 8;

  const std::size_t available = (bytes.size() - start - length) / item;
  std::size_t n = 1;
  const bool empty = std::find(array.shape.begin(), array.shape.end(), 0U) != array.shape.end();
  for (std::uint64_t extent : array.shape) {
    if (empty) break;
    if (extent > available / n)
      refuse(path,
             "the file is truncated: it holds " + std::to_string(available) + " values, fewer than its shape asks for",
             "fetch or write it again");
    n *= extent;
  }
  if (empty) n = 0;
  if (start + length + n * item != bytes.size())
    refuse(path, "the file is longer than its shape asks for", "fetch or write it again");

  const char* data = bytes.data() + start + length;
  if (type == "<f4") array.values = convert<float>(data, n);
  if (type == "<f8") array.values = convert<double>(data, n);
  if (type == "<i4") array.values = convert<std::int32_t>(data, n);
  if (type == "<i8") array.values = convert<std::int64_t>(data, n);
  if (type == "|b1") array.values = convert<std::uint8_t>(data, n);
  if (column_major && array.shape.size() > 1) array.values = transpose(array.values, array.shape);
  return array;
}

void write_npy(const std::string& path, const std::vector<std::uint64_t>& shape, const double* values) {
  std::string extents;
  std::size_t n = 1;
  for (std::uint64_t extent : shape) {
    extents += std::to_string(extent) + ", ";
    n *= extent;
  }
  if (shape.size() > 1) extents.resize(extents.size() - 2);
  std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': (" + extents + "), }";
  // The values start at a multiple of 64 bytes, so that the file can be mapped into memory.
  header.resize((magic_size + 4 + header.size() + 1 + 63) / 64 * 64 - magic_size - 4 - 1, ' ');
  header += '\n';

  std::string bytes(magic, magic_size);
  bytes += {'\x01', '\x00', static_cast<char>(header.size() & 255U), static_cast<char>(header.size() >> 8U)};
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(values), n * sizeof(double));
  write_bytes(path, bytes);
}

}  // namespace umbriel
