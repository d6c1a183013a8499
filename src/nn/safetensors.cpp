#include "umbriel/nn/safetensors.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "umbriel/base/files.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel::nn {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "safetensors files are read and written as they lie in memory");

constexpr std::uint64_t largest_header = 100'000'000;  // what the format allows
constexpr const char* metadata_key = "__metadata__";

[[noreturn]] void refuse(const std::string& what, const std::string& path, const std::string& tensor = "") {
  throw Error(ExitCode::input, what, tensor.empty() ? path : std::string(path).append(", tensor ").append(tensor),
              "the file is damaged or no safetensors file: copy or export it again");
}

/// Bytes of an element, or 0 for a type that the format does not know.
std::uint64_t bytes_of(const std::string& type) {
  static const std::map<std::string, std::uint64_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
      {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}, {"C64", 8}};
  const auto found = sizes.find(type);
  return found == sizes.end() ? 0 : found->second;
}

/// The header as JSON. A name that stands twice in an object is refused, and so is nesting deeper than the format's:
/// the parser would take the last of the former, and any depth.
json parse_header(const std::string& text, const std::string& path) {
  std::vector<std::set<std::string>> names;  // of the objects that are open
  const auto check = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > 4) refuse("the header is nested too deeply", path);
    if (event == json::parse_event_t::object_start) names.emplace_back();
    if (event == json::parse_event_t::object_end) names.pop_back();
    if (event == json::parse_event_t::key && !names.back().insert(value.get<std::string>()).second)
      refuse("a name stands twice in the header", path, value.get<std::string>());
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::exception&) {
    refuse("the header is not JSON", path);
  }
}

/// Member `key` of a tensor's description: an array of whole numbers that are not negative.
std::vector<std::uint64_t> whole_numbers(const json& description, const char* key, const std::string& path,
                                         const std::string& tensor) {
  std::vector<std::uint64_t> numbers;
  const auto found = description.find(key);
  if (found == description.end() || !found->is_array())
    refuse(std::string("there is no array ").append(key), path, tensor);
  for (const json& number : *found) {
    if (!number.is_number_unsigned())
      refuse(std::string(key).append(" holds something other than whole numbers from 0"), path, tensor);
    numbers.push_back(number.get<std::uint64_t>());
  }
  return numbers;
}

/// @param data       where the data begin in the file
/// @param available  bytes of data
SafetensorsFile::Entry entry_of(const std::string& name, const json& description, std::uint64_t data,
                                std::uint64_t available, const std::string& path) {
  if (!description.is_object()) refuse("a tensor's description is not an object", path, name);
  SafetensorsFile::Entry entry;
  entry.name = name;
  const auto type = description.find("dtype");
  if (type == description.end() || !type->is_string()) refuse("there is no dtype", path, name);
  entry.type = type->get<std::string>();
  const std::uint64_t element = bytes_of(entry.type);
  if (element == 0) refuse(std::string("there is no type ").append(entry.type), path, name);

  const auto offsets = whole_numbers(description, "data_offsets", path, name);
  if (offsets.size() != 2 || offsets[0] > offsets[1]) refuse("data_offsets are not a begin and an end", path, name);
  if (offsets[1] > available) refuse("data_offsets lie beyond the end of the file: it was cut short", path, name);

  const auto shape = whole_numbers(description, "shape", path, name);
  // With an extent of zero the tensor is empty; else every product up to here is at most the file's size.
  std::uint64_t size = std::count(shape.begin(), shape.end(), 0U) > 0 ? 0 : element;
  for (const std::uint64_t extent : shape) {
    if (size > 0 && extent > available / size) refuse("its shape is larger than the file", path, name);
    if (extent > INT32_MAX) refuse("an extent is beyond 32 bits", path, name);
    size *= extent;
    entry.shape.push_back(static_cast<std::int64_t>(extent));
  }
  if (size != offsets[1] - offsets[0]) refuse("its shape and data_offsets disagree", path, name);
  entry.begin = data + offsets[0];
  entry.end = data + offsets[1];
  return entry;
}

float from_half(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const float fraction = static_cast<float>(bits & 1023);
  float value;
  if (exponent == 31) {
    value = fraction == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    value = std::ldexp(fraction, -24);
  } else {
    value = std::ldexp(1024 + fraction, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

float from_bfloat16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

template <class Stored, class Convert>
void convert(const std::string& bytes, std::vector<float>& out, const Convert& convert_one) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + i * sizeof stored, sizeof stored);
    out[i] = convert_one(stored);
  }
}

/// Bytes [begin, end) of a file that is known to be as long.
std::string read_part(const std::string& path, std::uint64_t begin, std::uint64_t end) {
  std::string bytes(end - begin, '\0');
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(begin));
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  require(static_cast<bool>(file), ExitCode::file_system, "cannot read the file", path,
          "check the disk, and that nothing is writing the file");
  return bytes;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  const std::uint64_t size = readable_size(path);
  if (size < 8) refuse("the file is shorter than 8 bytes", path);
  std::uint64_t length;
  std::memcpy(&length, read_part(path, 0, 8).data(), 8);
  if (length > largest_header) refuse("the header is said to be longer than 100 MB", path);
  if (length > size - 8) refuse("the header is said to be longer than the file", path);
  const std::string text = read_part(path, 8, 8 + length);
  if (text.empty() || text.front() != '{') refuse("the header does not begin with {", path);
  const json header = parse_header(text, path);
  for (const auto& [name, description] : header.items()) {
    if (name != metadata_key) {
      entries_.push_back(entry_of(name, description, 8 + length, size - 8 - length, path));
      continue;
    }
    if (!description.is_object()) refuse("__metadata__ is not an object", path);
    for (const auto& [key, value] : description.items()) {
      if (!value.is_string()) refuse("__metadata__ holds something other than text", path);
      metadata_[key] = value.get<std::string>();
    }
  }
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t end = 8 + length;
  for (const Entry& entry : entries_) {
    if (entry.begin < end) refuse("it overlaps another tensor", path, entry.name);
    if (entry.begin > end) refuse("there is a hole before it", path, entry.name);
    end = entry.end;
  }
  if (end != size) refuse("the file goes on after its last tensor", path);
}

std::vector<float> SafetensorsFile::read(const Entry& entry) const {
  const bool known = entry.type == "F32" || entry.type == "F64" || entry.type == "F16" || entry.type == "BF16";
  require(known, ExitCode::input, std::string("a tensor of type ").append(entry.type).append(" cannot be weights"),
          std::string(path_).append(", tensor ").append(entry.name), "export it as F32, F16, BF16 or F64");
  const std::string bytes = read_part(path_, entry.begin, entry.end);
  std::vector<float> values(bytes.size() / bytes_of(entry.type));
  if (entry.type == "F32") {
    convert<float>(bytes, values, [](float value) { return value; });
  } else if (entry.type == "F64") {
    convert<double>(bytes, values, [](double value) { return static_cast<float>(value); });
  } else if (entry.type == "F16") {
    convert<std::uint16_t>(bytes, values, from_half);
  } else {
    convert<std::uint16_t>(bytes, values, from_bfloat16);
  }
  return values;
}

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors, const Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[metadata_key] = metadata;
  std::uint64_t end = 0;
  for (const NamedTensor& tensor : tensors) {
    std::int64_t size = 1;
    for (const std::int64_t extent : tensor.shape) size *= extent;
    require(size == static_cast<std::int64_t>(tensor.values.size()), ExitCode::usage,
            "a tensor's shape is not that of its values", tensor.name);
    require(!header.contains(tensor.name), ExitCode::usage, "two tensors have one name", tensor.name,
            "give each a name of its own");
    const std::uint64_t begin = end;
    end += tensor.values.size() * sizeof(float);
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data are aligned
  const std::uint64_t length = text.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  bytes.reserve(sizeof length + length + end);
  bytes += text;
  for (const NamedTensor& tensor : tensors)
    bytes.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float));
  write_bytes(path, bytes);
}

}  // namespace umbriel::nn
