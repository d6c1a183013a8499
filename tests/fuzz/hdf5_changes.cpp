#include "hdf5_changes.hpp"

#include <hdf5.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "support.hpp"
#include "umbriel/mpi/sha256.hpp"

namespace umbriel::fuzz {
namespace {

constexpr char seal_magic[] = "umbriel SHA-256 ";
constexpr hsize_t most_written = 4096;  // elements; more are claimed and not stored

/// Numbers from the input; zeros after its end.
class Choices {
 public:
  Choices(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  std::uint8_t byte() { return at_ < size_ ? data_[at_++] : std::uint8_t{0}; }
  std::size_t below(std::size_t n) { return byte() % n; }
  template <class T>
  const T& of(const std::vector<T>& list) {
    return list[below(list.size())];
  }
  std::string text() {
    std::string all;
    for (std::size_t n = below(32); n > 0; --n) all += static_cast<char>(byte());
    return all;
  }
  double number() {
    constexpr double inf = std::numeric_limits<double>::infinity();
    static const std::vector<double> numbers = {0,    1,     2,     3,   -1,   0.5,  -0.5, 1e-300, 1e300, -1e300,
                                                1e18, -1e18, 1e10,  1e5, 64,   255,  inf,  -inf,   NAN,   4,
                                                5,    6,     1e-30, 7,   1e30, 1e38, 8,    9,      100,   12345.678};
    return of(numbers);
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
};

hid_t string_type(std::size_t size, H5T_str_t padding = H5T_STR_NULLTERM) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, size);
  H5Tset_strpad(type, padding);
  return type;
}

/// A type for elements on disk, which the caller closes.
hid_t type_from(Choices& choose) {
  switch (choose.below(20)) {
    case 0:
      return H5Tcopy(H5T_IEEE_F32LE);
    case 1:
      return H5Tcopy(H5T_IEEE_F64LE);
    case 2:
      return H5Tcopy(H5T_IEEE_F32BE);
    case 3:
      return H5Tcopy(H5T_STD_I32LE);
    case 4:
      return H5Tcopy(H5T_STD_I64LE);
    case 5:
      return H5Tcopy(H5T_STD_U64LE);
    case 6:
      return H5Tcopy(H5T_STD_U8LE);
    case 7:
      return H5Tcopy(H5T_STD_I16BE);
    case 8:
      return H5Tcopy(H5T_STD_B8LE);
    case 9:
      return string_type(H5T_VARIABLE);
    case 10:
      return string_type(1 + choose.below(64), choose.below(2) == 0 ? H5T_STR_SPACEPAD : H5T_STR_NULLPAD);
    case 11:
      return H5Tvlen_create(H5T_IEEE_F64LE);
    case 12: {
      const hid_t type = H5Tcreate(H5T_COMPOUND, 12);
      H5Tinsert(type, "r", 0, H5T_IEEE_F32LE);
      H5Tinsert(type, "i", 4, H5T_IEEE_F64LE);
      return type;
    }
    case 13: {
      const hid_t type = H5Tenum_create(H5T_STD_I8LE);
      std::int8_t value = 1;
      H5Tenum_insert(type, "TRUE", &value);
      return type;
    }
    case 14: {
      const hsize_t extent[] = {1 + choose.below(4)};
      return H5Tarray_create2(H5T_IEEE_F32LE, 1, extent);
    }
    case 15: {
      const hid_t type = H5Tcreate(H5T_OPAQUE, 1 + choose.below(40));
      H5Tset_tag(type, "bytes");  // without one the library follows a null pointer when it writes
      return type;
    }
    case 16: {  // a whole number of 1 to 64 bytes
      const hid_t type = H5Tcopy(H5T_STD_U32LE);
      H5Tset_size(type, 1 + choose.below(64));
      return type;
    }
    case 17:
      return H5Tcopy(H5T_STD_REF_OBJ);
    case 18:
      return string_type(std::size_t{1} << (8 + choose.below(20)));  // very long texts
    default:
      return H5Tcopy(H5T_NATIVE_LDOUBLE);
  }
}

/// Writes `n` numbers, whatever the type, where the library knows a conversion.
template <class Write>
void write_numbers(Choices& choose, hsize_t n, hid_t type, const Write& write) {
  if (H5Tget_class(type) == H5T_STRING) {
    if (H5Tis_variable_str(type) > 0) {
      const std::string text = choose.text();
      const std::vector<const char*> pointers(n, choose.below(8) == 0 ? nullptr : text.c_str());
      write(type, pointers.data());
    } else if (H5Tget_size(type) * n < (1U << 20)) {
      std::string text = choose.text();
      text.resize(H5Tget_size(type) * n, 'x');
      write(type, text.data());
    }
    return;
  }
  // Conversions to other types are none, or overrun the library's buffers.
  const H5T_class_t kind = H5Tget_class(type);
  if ((kind != H5T_INTEGER && kind != H5T_FLOAT && kind != H5T_ENUM) || H5Tget_size(type) > 16) return;
  std::vector<double> values(n, choose.number());
  for (std::size_t i = 0; i < std::min<std::size_t>(n, 16); ++i) {
    values[i] = choose.number();
    if (i + 1 < n && choose.below(4) == 0)
      std::fill(values.begin() + static_cast<std::ptrdiff_t>(i), values.end(), values[i]);
  }
  write(H5T_NATIVE_DOUBLE, values.data());
}

hid_t space_from(Choices& choose, std::vector<hsize_t>& extent) {
  static const std::vector<hsize_t> extents = {1,
                                               2,
                                               3,
                                               4,
                                               5,
                                               6,
                                               8,
                                               16,
                                               0,
                                               7,
                                               12,
                                               36,
                                               1000,
                                               65536,
                                               65537,
                                               hsize_t{1} << 31,
                                               hsize_t{1} << 32,
                                               1000000000000000,
                                               hsize_t{1} << 48,
                                               hsize_t{1} << 63,
                                               ~hsize_t{0} - 1};
  extent.clear();
  const std::size_t rank = choose.below(8);
  if (rank == 0) return H5Screate(H5S_SCALAR);
  if (rank == 7) return H5Screate(H5S_NULL);
  const std::size_t axes = rank == 6 ? 32 : rank;
  for (std::size_t i = 0; i < axes; ++i) extent.push_back(choose.of(extents));
  if (choose.below(4) == 0) {
    const std::vector<hsize_t> unlimited(axes, H5S_UNLIMITED);
    return H5Screate_simple(static_cast<int>(axes), extent.data(), unlimited.data());
  }
  return H5Screate_simple(static_cast<int>(axes), extent.data(), nullptr);
}

/// Elements, or `most_written` + 1 for more than are ever written.
hsize_t elements_of(hid_t space) {
  const H5S_class_t kind = H5Sget_simple_extent_type(space);
  if (kind == H5S_NULL) return 0;
  std::vector<hsize_t> extent(32);
  const int rank = H5Sget_simple_extent_dims(space, extent.data(), nullptr);
  hsize_t n = 1;
  for (int i = 0; i < rank; ++i) {
    if (extent[static_cast<std::size_t>(i)] == 0) return 0;
    if (extent[static_cast<std::size_t>(i)] > most_written) n = most_written + 1;
  }
  for (int i = 0; i < rank && n <= most_written; ++i) n *= extent[static_cast<std::size_t>(i)];
  return std::min(n, most_written + 1);
}

/// False where the library would take much memory for a chunk, or overrun its buffers in a filter.
bool writable(hid_t dataset, hid_t type) {
  const hid_t creation = H5Dget_create_plist(dataset);
  bool good = true;
  if (H5Pget_layout(creation) == H5D_CHUNKED) {
    std::vector<hsize_t> chunk(32);
    const int rank = H5Pget_chunk(creation, 32, chunk.data());
    double bytes = static_cast<double>(H5Tget_size(type));
    for (int i = 0; i < rank; ++i) bytes *= static_cast<double>(chunk[static_cast<std::size_t>(i)]);
    good = bytes <= (1 << 20);
  }
  for (int i = 0; i < H5Pget_nfilters(creation); ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, nullptr);
    good = good && filter != H5Z_FILTER_NBIT && filter != H5Z_FILTER_SCALEOFFSET;
  }
  H5Pclose(creation);
  return good;
}

void make_dataset(hid_t file, const std::string& name, Choices& choose) {
  std::vector<hsize_t> extent;
  const hid_t type = type_from(choose), space = space_from(choose, extent);
  // The library overruns its own buffers while it makes what is beyond counting.
  double bytes = static_cast<double>(H5Tget_size(type));
  for (const hsize_t n : extent) bytes *= static_cast<double>(std::max<hsize_t>(1, n));
  if (bytes > 1e18) {
    if (space >= 0) H5Sclose(space);
    H5Tclose(type);
    return;
  }
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE), links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_LATE);
  switch (choose.below(6)) {
    case 0:
      if (bytes < 60000) H5Pset_layout(creation, H5D_COMPACT);
      break;
    case 1:
      break;  // contiguous
    case 2:
      H5Pset_external(creation, "/proc/self/maps", 0, H5F_UNLIMITED);
      break;
    case 3:
      if (space >= 0 && !extent.empty())
        H5Pset_virtual(creation, space, choose.below(2) == 0 ? "." : "/dev/null", "/x", space);
      break;
    default: {
      std::vector<hsize_t> chunk;
      for (const hsize_t n : extent) {
        static const std::vector<hsize_t> lengths = {1, 2, 4, 64, 4096, 1 << 20, 1 << 28};
        chunk.push_back(choose.below(2) == 0 ? std::clamp<hsize_t>(n, 1, 1 << 16) : choose.of(lengths));
      }
      if (!chunk.empty()) H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data());
      const std::size_t filters = choose.below(64);
      if ((filters & 1U) != 0) H5Pset_shuffle(creation);
      if ((filters & 2U) != 0) H5Pset_deflate(creation, 6);
      if ((filters & 4U) != 0) H5Pset_fletcher32(creation);
      if ((filters & 8U) != 0) H5Pset_scaleoffset(creation, H5Z_SO_INT, 0);
      if ((filters & 16U) != 0) H5Pset_nbit(creation);
      if (filters == 32U) H5Pset_filter(creation, 32000, H5Z_FLAG_OPTIONAL, 0, nullptr);  // one that nobody has
    }
  }
  const hid_t dataset = H5Dcreate2(file, name.c_str(), type, space, links, creation, H5P_DEFAULT);
  if (dataset >= 0) {
    const hsize_t n = elements_of(space);
    if (n > 0 && n <= most_written && writable(dataset, type) && choose.below(4) != 0)
      write_numbers(choose, n, type, [&](hid_t memory, const void* values) {
        H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
      });
    H5Dclose(dataset);
  }
  H5Pclose(links);
  H5Pclose(creation);
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
}

void make_attribute(hid_t object, const std::string& name, Choices& choose) {
  H5Adelete(object, name.c_str());
  if (choose.below(8) == 0) return;
  const bool text = choose.below(2) == 0;
  std::vector<hsize_t> extent;
  const hid_t type = text ? string_type(H5T_VARIABLE) : type_from(choose);
  const hid_t space = choose.below(4) == 0 ? space_from(choose, extent) : H5Screate(H5S_SCALAR);
  const hsize_t n = space < 0 ? 0 : elements_of(space);
  // The library reserves an attribute's whole size at once: what is not going to be written is not made.
  const bool made = n <= most_written && n * H5Tget_size(type) <= (1 << 20);
  const hid_t attribute =
      made ? H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT) : H5I_INVALID_HID;
  if (attribute >= 0) {
    if (n > 0)
      write_numbers(choose, n, type, [&](hid_t memory, const void* values) { H5Awrite(attribute, memory, values); });
    H5Aclose(attribute);
  }
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
}

/// Adds the names of all links below a group. Not H5Lvisit, which never ends in a group that holds itself alone.
void add_links(hid_t group, const std::string& path, int depth, std::vector<std::string>& names) {
  std::vector<std::string> links;
  H5Literate(
      group, H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
        static_cast<std::vector<std::string>*>(out)->push_back(name);
        return 0;
      },
      &links);
  for (const std::string& link : links) {
    names.push_back(path + link);
    H5L_info_t info;
    if (depth == 0 || H5Lget_info(group, link.c_str(), &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD) continue;
    const hid_t object = H5Oopen(group, link.c_str(), H5P_DEFAULT);
    if (object < 0) continue;
    if (H5Iget_type(object) == H5I_GROUP) add_links(object, path + link + "/", depth - 1, names);
    H5Oclose(object);
  }
}

std::vector<std::string> links_of(hid_t file) {
  std::vector<std::string> names = {"/"};
  add_links(file, "/", 2, names);
  return names;
}

std::vector<std::string> attributes_of(hid_t object) {
  std::vector<std::string> names;
  H5Aiterate2(
      object, H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
        static_cast<std::vector<std::string>*>(out)->emplace_back(name);
        return 0;
      },
      &names);
  return names;
}

void one_change(hid_t file, Choices& choose) {
  const std::vector<std::string> links = links_of(file);
  // Two bytes: there may be more than 256 links.
  const std::size_t high = choose.byte();
  const std::string name = links[(high * 256 + choose.byte()) % links.size()];
  const auto action = choose.below(12);
  if (action < 4) {  // values
    const hid_t dataset = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
    if (dataset < 0) return;
    const hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset);
    const hsize_t n = elements_of(space);
    if (n > 0 && n <= most_written && writable(dataset, type))
      write_numbers(choose, n, type, [&](hid_t memory, const void* values) {
        H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
      });
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(dataset);
  } else if (action < 7) {  // another dataset in its place
    if (name == "/") return;
    H5Ldelete(file, name.c_str(), H5P_DEFAULT);
    make_dataset(file, name, choose);
  } else if (action < 9) {  // an attribute
    const hid_t object = H5Oopen(file, name.c_str(), H5P_DEFAULT);
    if (object < 0) return;
    const std::vector<std::string> attributes = attributes_of(object);
    if (!attributes.empty()) make_attribute(object, choose.of(attributes), choose);
    H5Oclose(object);
  } else if (action == 9) {  // nothing in its place
    if (name != "/") H5Ldelete(file, name.c_str(), H5P_DEFAULT);
  } else {  // a link in its place, or a group
    if (name == "/") return;
    const std::string other = links[choose.below(links.size())];
    H5Ldelete(file, name.c_str(), H5P_DEFAULT);
    switch (choose.below(5)) {
      case 0:
        H5Lcreate_soft(other.c_str(), file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
        break;
      case 1:
        H5Lcreate_soft(name.c_str(), file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
        break;  // leads to itself
      case 2:
        H5Lcreate_external("/dev/null", "/x", file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
        break;
      case 3:
        H5Lcreate_hard(file, other.c_str(), file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
        break;
      default: {
        const hid_t group = H5Gcreate2(file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (group >= 0) H5Gclose(group);
      }
    }
  }
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

}  // namespace

std::string unsealed_bytes(const std::string& path) {
  std::string bytes = bytes_of(path);
  const std::size_t seal = bytes.rfind(seal_magic);
  if (seal == std::string::npos) fail("the good file has no seal");
  bytes.resize(seal);
  return bytes;
}

namespace {

void make_changes(const std::string& path, const std::uint8_t* data, std::size_t size) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // changes that the library refuses are left out
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, access);
  H5Pclose(access);
  if (file < 0) fail("the good file does not open");
  Choices choose(data, size);
  for (int change = 0; change < 16 && !choose.empty(); ++change) one_change(file, choose);
  if (H5Fclose(file) < 0) fail("the changed file cannot be closed");
}

}  // namespace

bool change_hdf5(const std::string& path, const std::uint8_t* data, std::size_t size) {
  // A process of its own: while it WRITES some of these the library itself crashes (it follows null pointers when it
  // closes a file in which it has failed to make a dataset), and what is looked for is what happens when they are read.
  const pid_t child = fork();
  if (child < 0) fail("no process for the changes");
  if (child == 0) {
    __sanitizer_set_death_callback(nullptr);  // it would leave the input as a finding
    for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGALRM}) std::signal(signal, SIG_DFL);
    alarm(10);
    make_changes(path, data, size);
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) fail("the process of the changes is lost");
  }
  return status == 0;
}

void seal(const std::string& path) {
  const std::string bytes = bytes_of(path);
  Sha256 sum;
  sum.update(bytes.data(), bytes.size());
  std::ofstream(path, std::ios::binary | std::ios::app) << seal_magic << sum.finish();
}

}  // namespace umbriel::fuzz
