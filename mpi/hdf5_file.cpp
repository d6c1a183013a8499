#include "umbriel/mpi/hdf5_file.hpp"

#include "umbriel/mpi/mpi_check.hpp"  // before hdf5.h, which includes mpi.h

#include <fcntl.h>
#include <hdf5.h>
#include <hdf5_hl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <limits>
#include <numeric>
#include <thread>
#include <utility>

#include "umbriel/mpi/sha256.hpp"

namespace umbriel {
namespace {

/// Owns one HDF5 identifier.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }
  hid_t release() { return std::exchange(id_, -1); }

 private:
  hid_t id_;
  Close close_;
};

/// The innermost entry of HDF5's error stack: what really went wrong.
std::string hdf5_text() {
  std::string text = "unknown HDF5 error";
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* entry, void* out) -> herr_t {
        if (n == 0 && entry->desc != nullptr) *static_cast<std::string*>(out) = entry->desc;
        return 0;
      },
      &text);
  H5Eclear2(H5E_DEFAULT);
  return text;
}

/// Quiet errors (they become exceptions) and no clean-up at exit: closing a broken parallel file would wait for ranks
/// that are gone. No file locks, which some parallel file systems lack: a file is written under a name that nobody else
/// opens. A file-size limit shall be an error like a full disk, not a signal that kills.
void prepare_hdf5() {
  static const bool once = [] {
    ::setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
    std::signal(SIGXFSZ, SIG_IGN);
    H5dont_atexit();
    H5open();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  (void)once;
}

}  // namespace

void detail::prepare_hdf5_before_mpi() { prepare_hdf5(); }

namespace {

template <class T>
hid_t memory_type();
template <>
hid_t memory_type<float>() {
  return H5T_NATIVE_FLOAT;
}
template <>
hid_t memory_type<double>() {
  return H5T_NATIVE_DOUBLE;
}
template <>
hid_t memory_type<std::int32_t>() {
  return H5T_NATIVE_INT32;
}
template <>
hid_t memory_type<std::int64_t>() {
  return H5T_NATIVE_INT64;
}
template <>
hid_t memory_type<std::uint8_t>() {
  return H5T_NATIVE_UINT8;
}

std::uint64_t product(const std::vector<std::uint64_t>& shape, std::size_t from = 0) {
  if (from >= shape.size()) return 1;
  return std::accumulate(shape.begin() + static_cast<std::ptrdiff_t>(from), shape.end(), std::uint64_t{1},
                         std::multiplies<>());
}

constexpr std::uint64_t largest_chunk = std::uint64_t{16} << 20;  // bytes
constexpr std::uint64_t largest_write = std::uint64_t{1} << 29;   // bytes a rank and call; MPI-IO counts are 32-bit
constexpr std::uint64_t most_chunks = 16384;                      // of all ranks in a call, see write_sharded
constexpr std::chrono::seconds patience{5};                       // of a rank that failed, until the others join it

/// Takes disk space for the first `bytes` of a file without changing its size, or throws. Where the file system cannot
/// promise space, nothing happens.
void reserve_space(const std::string& path, std::uint64_t bytes) {
#ifdef __linux__
  const int descriptor = ::open(path.c_str(), O_WRONLY);
  if (descriptor < 0) throw std::runtime_error(std::string("open: ") + std::strerror(errno));
  const int reason = ::fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  ::close(descriptor);
  if (reason == ENOSPC || reason == EDQUOT || reason == EFBIG) throw std::runtime_error(std::strerror(reason));
#else
  (void)path, (void)bytes;
#endif
}

/// Tells how to end the job where a write failed.
[[noreturn]] void end_job(int rank, const std::string& reason, const std::string& path, const std::string& temporary) {
  // Once: several writes may have failed, and MPI_Abort stands no second thread.
  static std::atomic<bool> ending{false};
  while (ending.exchange(true)) std::this_thread::sleep_for(std::chrono::hours(1));
  ::unlink(temporary.c_str());
  std::fprintf(stderr, "error: [rank %d] writing failed: %s (%s) \u2014 check free space, quota and permissions\n",
               rank, reason.c_str(), path.c_str());
  abort_job(static_cast<int>(ExitCode::file_system));
}

/// Where a write fails inside a collective call of HDF5's, the rank concerned may leave the order of the calls inside,
/// and then no rank comes out of it any more. Every write of HDF5's passes by here (the functions of MPI's profiling
/// interface below); if one falls short, and the step it belongs to is not over some seconds later, the job is ended.
struct StepsWatched {
  std::atomic<std::int64_t> step{0};  // counts beginnings and ends: odd inside a step
  std::string path, temporary;        // of the file at work
  int rank = 0;

  static StepsWatched& instance() {
    static StepsWatched watched;
    return watched;
  }

  /// What a write to an MPI file came to. Open MPI says success even where the disk took nothing, but knows how much.
  void wrote(int code, int count, MPI_Datatype type, const MPI_Status* status) {
    const std::int64_t here = step;
    if (here % 2 == 0) return;
    MPI_Count size = 0, bytes = 0;
    PMPI_Type_size_x(type, &size);
    if (code == MPI_SUCCESS && PMPI_Get_elements_x(status, MPI_BYTE, &bytes) == MPI_SUCCESS && bytes >= size * count)
      return;
    std::thread([this, here] {
      std::this_thread::sleep_for(patience);
      if (step == here) end_job(rank, "the file system did not take all of it", path, temporary);
    }).detach();
  }
};

/// PATH.NUMBER.partial, a name that no job had before. Open MPI guards the shared pointer of every file, which nobody
/// here uses, by a semaphore of the system's that bears the file's name: a process killed while it opens a file leaves
/// it taken, and every later job that opens a file of that name waits for it for ever.
std::string temporary_name(const std::string& path) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto number = std::chrono::duration_cast<std::chrono::microseconds>(now).count() * 1000 + ::getpid() % 1000;
  return path + "." + std::to_string(number) + ".partial";
}

/// Text of any length, as h5py writes and expects it.
hid_t text_type() {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

}  // namespace
}  // namespace umbriel

// MPI lets a program put its own functions in the place of its (MPI 4.0, ch. 14): every write tells what it came to.
namespace {
template <auto write>
int watched(MPI_File file, MPI_Offset offset, const void* data, int count, MPI_Datatype type, MPI_Status* status) {
  MPI_Status own;
  MPI_Status* result = status == MPI_STATUS_IGNORE ? &own : status;
  const int code = write(file, offset, data, count, type, result);
  umbriel::StepsWatched::instance().wrote(code, count, type, result);
  return code;
}
}  // namespace

extern "C" {
int MPI_File_write_at(MPI_File file, MPI_Offset at, const void* data, int n, MPI_Datatype type, MPI_Status* status) {
  return watched<PMPI_File_write_at>(file, at, data, n, type, status);
}
int MPI_File_write_at_all(MPI_File file, MPI_Offset at, const void* data, int n, MPI_Datatype type,
                          MPI_Status* status) {
  return watched<PMPI_File_write_at_all>(file, at, data, n, type, status);
}
}  // extern "C"

namespace umbriel {

struct Hdf5Writer::File {
  std::string path;
  std::string temporary;
  Communicator comm;
  hid_t id = -1;
  bool broken = false;
  bool committed = false;
  int exceptions = std::uncaught_exceptions();
  std::uint64_t reserved = 0;  // bytes of disk

  /// Without commit nothing stays. A broken file is left open: HDF5 would try to write what could not be written.
  /// Closing a parallel file is collective, so one is also left open where this rank alone may have failed.
  ~File() {
    if (committed) return;
    const bool all_here = comm.size() == 1 || std::uncaught_exceptions() <= exceptions;
    if (id >= 0 && !broken && all_here) H5Fclose(id);
    if (comm.is_root()) ::unlink(temporary.c_str());
  }

  /// The lowest rank that failed, or the number of ranks. HDF5 may leave the others inside a collective call for ever
  /// when one rank fails there; then no agreement is possible any more, and the rank that knows ends the job.
  std::int64_t lowest_failed(bool ok, const std::string& text) const {
    std::int64_t lowest = ok ? comm.size() : comm.rank();
    if (comm.size() == 1) return lowest;
    MPI_Request request;
    UMBRIEL_CHECK_MPI(MPI_Iallreduce(MPI_IN_PLACE, &lowest, 1, MPI_INT64_T, MPI_MIN,
                                     *static_cast<MPI_Comm*>(comm.native()), &request));
    if (ok) {
      UMBRIEL_CHECK_MPI(MPI_Wait(&request, MPI_STATUS_IGNORE));
      return lowest;
    }
    const auto deadline = std::chrono::steady_clock::now() + patience;
    for (int done = 0; done == 0; std::this_thread::sleep_for(std::chrono::milliseconds(1))) {
      UMBRIEL_CHECK_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
      if (done != 0 || std::chrono::steady_clock::now() < deadline) continue;
      end_job(comm.rank(), text, path, temporary);
    }
    return lowest;
  }

  /// Ends a step: the ranks agree on its outcome. `ok` and `text` are this rank's.
  void agree(bool ok, const std::string& text, const std::string& what) {
    const std::int64_t failed = lowest_failed(ok, text);
    if (failed == comm.size()) return;
    broken = true;
    const std::string reason = comm.broadcast(text, static_cast<int>(failed));
    throw Error(ExitCode::file_system, "writing failed on rank " + std::to_string(failed) + ": " + reason,
                path + ", " + what, "check free space, quota and permissions; no file was left behind")
        .mark_agreed();
  }

  template <class Action>
  void step(const std::string& what, const Action& action) {
    require(!broken, ExitCode::file_system, "the file failed earlier", path);
    std::string text;
    bool ok = true;
    StepsWatched& watched = StepsWatched::instance();
    watched.path = path, watched.temporary = temporary, watched.rank = comm.rank();
    ++watched.step;
    try {
      // Not detail::Waiting: all ranks are here, and if they do not get on it is the file system.
      action();
    } catch (const std::exception& error) {
      ok = false;
      text = error.what();
    }
    ++watched.step;
    agree(ok, text, what);
  }

  static void check(bool ok) {
    if (!ok) throw std::runtime_error(hdf5_text());
  }

  /// Makes sure of the room for `bytes` more before HDF5 begins: it cannot recover from a full disk, neither from one
  /// rank's in a collective write nor alone when it closes the file.
  void reserve(std::uint64_t bytes, const std::string& what) {
    reserved += bytes;
    step(what, [&] {
      struct rlimit limit {};
      if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && reserved > limit.rlim_cur)
        throw std::runtime_error("the limit of file sizes (ulimit -f) is too low");
      if (comm.is_root()) reserve_space(temporary, reserved);
    });
  }

  /// Room that a dataset takes with its header, and with the index and checksums of its chunks.
  static std::uint64_t room(const std::vector<std::uint64_t>& shape, std::uint64_t element_bytes,
                            bool one_item_chunks) {
    const std::uint64_t bytes = product(shape) * element_bytes;
    const std::uint64_t chunks = (one_item_chunks ? shape[0] : 0) + 2 * bytes / largest_chunk;
    return bytes + 256 * chunks + (std::uint64_t{1} << 15);
  }

  Handle transfer() const {
    Handle list(H5Pcreate(H5P_DATASET_XFER), H5Pclose);
    if (comm.size() > 1) {
      H5Pset_dxpl_mpio(list, H5FD_MPIO_COLLECTIVE);
      // All agree on where the chunks go; then each rank writes its own. Open MPI's collective writes of many small
      // chunks take memory and time that grow with the square of their number.
      H5Pset_dxpl_mpio_collective_opt(list, H5FD_MPIO_INDIVIDUAL_IO);
    }
    return Handle(list.release(), H5Pclose);
  }

  Handle create_dataset(const DatasetInfo& info, const std::vector<std::uint64_t>& shape, hid_t type,
                        bool one_item_chunks) {
    const std::vector<hsize_t> extent(shape.begin(), shape.end());
    Handle space(shape.empty() ? H5Screate(H5S_SCALAR)
                               : H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr),
                 H5Sclose);
    Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(links, 1);
    Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(creation, 0);  // the same data give the same bytes
    if (!shape.empty() && product(shape) > 0) {
      std::vector<hsize_t> chunk = extent;
      if (one_item_chunks) chunk[0] = 1;
      std::uint64_t bytes = H5Tget_size(type);
      for (const hsize_t n : chunk) bytes *= n;
      for (std::size_t axis = one_item_chunks ? 1 : 0; axis < chunk.size() && bytes > largest_chunk; ++axis) {
        const std::uint64_t pieces = std::min<std::uint64_t>(chunk[axis], (bytes + largest_chunk - 1) / largest_chunk);
        bytes /= chunk[axis];
        chunk[axis] = (chunk[axis] + pieces - 1) / pieces;
        bytes *= chunk[axis];
      }
      H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data());
      H5Pset_fletcher32(creation);
      H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
    }
    Handle dataset(H5Dcreate2(id, info.path.c_str(), type, space, links, creation, H5P_DEFAULT), H5Dclose);
    check(dataset.valid());
    text_attribute(dataset, "units", info.units);
    text_attribute(dataset, "long_name", info.long_name);
    for (std::size_t axis = 0; axis < info.axes.size(); ++axis) {
      Handle scale(H5Dopen2(id, ("/" + info.axes[axis]).c_str(), H5P_DEFAULT), H5Dclose);
      if (!scale.valid()) throw std::runtime_error("axis " + info.axes[axis] + " was not written");
      check(H5DSattach_scale(dataset, scale, static_cast<unsigned>(axis)) >= 0);
    }
    return Handle(dataset.release(), H5Dclose);
  }

  static void text_attribute(hid_t object, const std::string& name, const std::string& value) {
    Handle type(text_type(), H5Tclose);
    Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    Handle attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    check(attribute.valid());
    const char* bytes = value.c_str();
    check(H5Awrite(attribute, type, &bytes) >= 0);
  }

  /// Opens a dataset or group, making the group where there is none.
  Handle object(const std::string& path_in_file) {
    if (path_in_file == "/") return Handle(H5Oopen(id, "/", H5P_DEFAULT), H5Oclose);
    if (H5Lexists(id, path_in_file.c_str(), H5P_DEFAULT) > 0)
      return Handle(H5Oopen(id, path_in_file.c_str(), H5P_DEFAULT), H5Oclose);
    Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(links, 1);
    return Handle(H5Gcreate2(id, path_in_file.c_str(), links, H5P_DEFAULT, H5P_DEFAULT), H5Oclose);
  }

  template <class Scalar>
  void scalar_attribute(const std::string& path_in_file, const std::string& name, Scalar value) {
    comm.broadcast(&value, sizeof value);
    reserve(4096, path_in_file + "@" + name);
    step(path_in_file + "@" + name, [&] {
      Handle owner = object(path_in_file);
      check(owner.valid());
      Handle space(H5Screate(H5S_SCALAR), H5Sclose);
      const hid_t type = memory_type<Scalar>();
      Handle attribute(H5Acreate2(owner, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
      check(attribute.valid());
      check(H5Awrite(attribute, type, &value) >= 0);
    });
  }
};

Hdf5Writer::Hdf5Writer(const std::string& path, const Communicator& comm) : file_(std::make_unique<File>()) {
  prepare_hdf5();
  file_->path = path;
  file_->temporary = comm.broadcast(comm.is_root() ? temporary_name(path) : "");
  file_->comm = comm;
  if (comm.is_root()) remove_leftovers(path);
  file_->step("create", [&] {
    Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    if (comm.size() > 1) {
      File::check(H5Pset_fapl_mpio(access, *static_cast<MPI_Comm*>(comm.native()), MPI_INFO_NULL) >= 0);
    }
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);  // older indexes of chunks have no checksums
    // Room from the beginning for the index of a million chunks: see write_sharded.
    H5AC_cache_config_t cache{};
    cache.version = H5AC__CURR_CACHE_CONFIG_VERSION;
    File::check(H5Pget_mdc_config(access, &cache) >= 0);
    cache.set_initial_size = true;
    cache.initial_size = cache.max_size;
    cache.decr_mode = H5C_decr__off;
    File::check(H5Pset_mdc_config(access, &cache) >= 0);
    Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
    H5Pset_obj_track_times(creation, 0);
    file_->id = H5Fcreate(file_->temporary.c_str(), H5F_ACC_TRUNC, creation, access);
    File::check(file_->id >= 0);
  });
  file_->reserve(std::uint64_t{1} << 16, "create");
}

Hdf5Writer::~Hdf5Writer() = default;

void Hdf5Writer::write_axis(const std::string& name, const std::vector<double>& coordinates, const std::string& units,
                            const std::string& long_name) {
  write<double>({"/" + name, {}, units, long_name}, {coordinates.size()}, coordinates.data());
  file_->step("/" + name, [&] {
    Handle dataset(H5Dopen2(file_->id, ("/" + name).c_str(), H5P_DEFAULT), H5Dclose);
    File::check(dataset.valid() && H5DSset_scale(dataset, name.c_str()) >= 0);
  });
}

template <class T>
void Hdf5Writer::write(const DatasetInfo& info, const std::vector<std::uint64_t>& shape_on_root, const T* data) {
  std::uint64_t rank = shape_on_root.size();
  file_->comm.broadcast(&rank, sizeof rank);
  std::vector<std::uint64_t> shape = shape_on_root;
  shape.resize(rank);
  file_->comm.broadcast(shape.data(), rank * sizeof shape[0]);
  file_->reserve(File::room(shape, sizeof(T), false), info.path);
  file_->step(info.path, [&] {
    const hid_t type = memory_type<T>();
    Handle dataset = file_->create_dataset(info, shape, type, false);
    if (product(shape) == 0) return;
    Handle space(H5Dget_space(dataset), H5Sclose);
    if (!file_->comm.is_root()) H5Sselect_none(space);
    Handle list = file_->transfer();
    File::check(H5Dwrite(dataset, type, space, space, list, data) >= 0);
  });
}

template <class T>
void Hdf5Writer::write_sharded(const DatasetInfo& info, const std::vector<std::uint64_t>& shape, std::uint64_t first,
                               std::uint64_t count, const T* data) {
  // Found out before the first collective call of HDF5, in which a wrong rank would leave the others behind.
  const std::uint64_t items = shape.empty() ? 0 : shape[0];
  const bool fits = !shape.empty() && first <= items && count <= items - first;
  require(file_->comm.min(fits ? 1 : 0) == 1 &&
              file_->comm.sum(static_cast<std::int64_t>(count)) == static_cast<std::int64_t>(items),
          ExitCode::usage, "the shards of a dataset do not make up the whole", file_->path + ", " + info.path);
  const std::uint64_t item = product(shape, 1);
  std::uint64_t at_once = std::max<std::uint64_t>(1, largest_write / std::max<std::uint64_t>(1, item * sizeof(T)));
  if (file_->comm.size() > 1) {
    const auto share = most_chunks / static_cast<std::uint64_t>(file_->comm.size());
    at_once = std::clamp<std::uint64_t>(share, 1, at_once);
  }
  file_->reserve(File::room(shape, sizeof(T), true), info.path);
  const std::int64_t rounds = file_->comm.max(static_cast<std::int64_t>((count + at_once - 1) / at_once));
  file_->step(info.path, [&] {
    const hid_t type = memory_type<T>();
    Handle dataset = file_->create_dataset(info, shape, type, true);
    if (product(shape) == 0) return;
    Handle list = file_->transfer();
    for (std::int64_t round = 0; round < rounds; ++round) {
      const std::uint64_t begin = std::min<std::uint64_t>(count, round * at_once);
      const std::uint64_t n = std::min<std::uint64_t>(count - begin, at_once);
      std::vector<hsize_t> offset(shape.size(), 0), extent(shape.begin(), shape.end());
      offset[0] = first + begin;
      extent[0] = n;
      Handle space(H5Dget_space(dataset), H5Sclose);
      std::vector<hsize_t> memory_extent = extent;
      if (n == 0) memory_extent[0] = 1;
      Handle memory(H5Screate_simple(static_cast<int>(memory_extent.size()), memory_extent.data(), nullptr), H5Sclose);
      if (n == 0) {
        H5Sselect_none(space);
        H5Sselect_none(memory);
      } else {
        H5Sselect_hyperslab(space, H5S_SELECT_SET, offset.data(), nullptr, extent.data(), nullptr);
      }
      File::check(H5Dwrite(dataset, type, memory, space, list, data + begin * item) >= 0);
      // An index that no longer fits in its cache HDF5 1.10 would write in the midst of the next call, as if it were
      // part of that call's own data, and fail.
      File::check(round + 1 == rounds || H5Fflush(file_->id, H5F_SCOPE_LOCAL) >= 0);
    }
  });
}

void Hdf5Writer::attribute(const std::string& object, const std::string& name, const std::string& value) {
  const std::string agreed = file_->comm.broadcast(value);
  file_->reserve(agreed.size() + 4096, object + "@" + name);
  file_->step(object + "@" + name, [&] {
    Handle owner = file_->object(object);
    File::check(owner.valid());
    File::text_attribute(owner, name, agreed);
  });
}

void Hdf5Writer::attribute(const std::string& object, const std::string& name, double value) {
  file_->scalar_attribute(object, name, value);
}

void Hdf5Writer::attribute(const std::string& object, const std::string& name, std::int64_t value) {
  file_->scalar_attribute(object, name, value);
}

namespace {

constexpr char seal_magic[] = "umbriel SHA-256 ";  // then 64 hexadecimal digits
constexpr std::size_t seal_bytes = sizeof seal_magic - 1 + 64;

/// SHA-256 of the first n bytes of an open file.
std::string sum_of_beginning(std::FILE* file, std::uint64_t n) {
  Sha256 sum;
  std::vector<char> bytes(std::min<std::uint64_t>(n, std::uint64_t{1} << 20));
  while (n > 0) {
    const std::size_t piece = std::fread(bytes.data(), 1, std::min<std::uint64_t>(n, bytes.size()), file);
    if (piece == 0) throw std::runtime_error(std::string("read: ") + std::strerror(errno));
    sum.update(bytes.data(), piece);
    n -= piece;
  }
  return sum.finish();
}

using CFile = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

}  // namespace

void require_seal(const std::string& path) {
  const CFile file(std::fopen(path.c_str(), "rb"), std::fclose);
  require(file != nullptr, ExitCode::file_system, std::string("cannot read the file: ") + std::strerror(errno), path,
          "check the path and its permissions");
  struct stat status {};
  const auto damaged = [&](const std::string& what) {
    throw Error(ExitCode::input, what, path, "the file is damaged, not whole, or none that umbriel wrote");
  };
  if (::fstat(::fileno(file.get()), &status) != 0 || static_cast<std::uint64_t>(status.st_size) < seal_bytes)
    damaged("it has no seal");
  const std::uint64_t length = static_cast<std::uint64_t>(status.st_size) - seal_bytes;
  std::string sum;
  try {
    sum = sum_of_beginning(file.get(), length);
  } catch (const std::runtime_error& error) {
    throw Error(ExitCode::file_system, error.what(), path, "check the disk");
  }
  std::string seal(seal_bytes, '\0');
  if (std::fread(seal.data(), 1, seal_bytes, file.get()) != seal_bytes ||
      seal.compare(0, sizeof seal_magic - 1, seal_magic) != 0)
    damaged("it has no seal");
  if (seal.substr(sizeof seal_magic - 1) != sum) damaged("its bytes are not those that were sealed");
}

void remove_leftovers(const std::string& path) {
  const std::filesystem::path whole(path);
  const std::string begin = whole.filename().string() + ".", end = ".partial";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(
           whole.has_parent_path() ? whole.parent_path() : std::filesystem::path("."), error)) {
    const std::string name = entry.path().filename().string();
    if (name.size() <= begin.size() + end.size() || name.compare(0, begin.size(), begin) != 0 ||
        name.compare(name.size() - end.size(), end.size(), end) != 0)
      continue;
    const std::string middle = name.substr(begin.size(), name.size() - begin.size() - end.size());
    if (middle.find_first_not_of("0123456789") == std::string::npos) std::filesystem::remove(entry.path(), error);
  }
}

std::string previous_generation(const std::string& path) { return path + ".previous"; }

std::string newest_good_generation(const Communicator& comm, const std::string& path,
                                   const std::function<void(const std::string&)>& complain) {
  std::string good;
  comm.together([&] {
    if (!comm.is_root()) return;
    std::string wrong;
    for (const std::string& candidate : {path, previous_generation(path)}) {
      if (::access(candidate.c_str(), F_OK) != 0) continue;
      try {
        require_seal(candidate);
        good = candidate;
        break;
      } catch (const Error& error) {
        complain(error.what());
        wrong += wrong.empty() ? "" : "; ";
        wrong += error.what();
      }
    }
    require(!good.empty() || wrong.empty(), ExitCode::input, "no generation of the checkpoint is good: " + wrong, path,
            "remove them to start anew");
  });
  return comm.broadcast(good);
}

void Hdf5Writer::commit(bool keep_previous) {
  file_->step("flush", [&] {
    const herr_t flushed = H5Fflush(file_->id, H5F_SCOPE_GLOBAL);
    const std::string text = flushed < 0 ? hdf5_text() : "";
    const herr_t closed = H5Fclose(std::exchange(file_->id, -1));
    if (flushed < 0) throw std::runtime_error(text);
    File::check(closed >= 0);
  });
  const auto fail = [](const char* call) { throw std::runtime_error(std::string(call) + ": " + std::strerror(errno)); };
  // Two ranks share the reading: one checks the chunks, the other sums the bytes.
  std::string sum;
  file_->step("verify", [&] {
    if (file_->comm.is_root()) {
      const CFile file(std::fopen(file_->temporary.c_str(), "rb"), std::fclose);
      struct stat status {};
      if (file == nullptr || ::fstat(::fileno(file.get()), &status) != 0) fail("open");
      sum = sum_of_beginning(file.get(), static_cast<std::uint64_t>(status.st_size));
    }
    if (file_->comm.rank() == file_->comm.size() - 1) Hdf5Reader(file_->temporary).verify();
  });
  file_->step("seal and rename", [&] {
    if (!file_->comm.is_root()) return;
    {
      const CFile file(std::fopen(file_->temporary.c_str(), "r+b"), std::fclose);
      struct stat status {};
      if (file == nullptr || ::fstat(::fileno(file.get()), &status) != 0) fail("open");
      const std::string seal = seal_magic + sum;
      // Cutting at its end gives back the room that was reserved but not needed.
      if (std::fseek(file.get(), 0, SEEK_END) != 0 ||
          std::fwrite(seal.data(), 1, seal.size(), file.get()) != seal.size() || std::fflush(file.get()) != 0)
        fail("write");
      const off_t whole = status.st_size + static_cast<off_t>(seal.size());
      if (::ftruncate(::fileno(file.get()), whole) != 0 || ::fsync(::fileno(file.get())) != 0) fail("fsync");
    }
    // A crash between the two renames leaves the previous generation, and the next start finds that.
    if (keep_previous && ::rename(file_->path.c_str(), previous_generation(file_->path).c_str()) != 0 &&
        errno != ENOENT)
      fail("rename");
    if (::rename(file_->temporary.c_str(), file_->path.c_str()) != 0) fail("rename");
    const std::size_t slash = file_->path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : file_->path.substr(0, slash + 1);
    const int directory = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY);
    if (directory < 0) fail("open folder");
    const int folder_reason = ::fsync(directory) == 0 ? 0 : errno;
    ::close(directory);
    errno = folder_reason;
    if (errno != 0 && errno != EINVAL && errno != ENOTSUP) fail("fsync folder");  // some cannot sync folders
  });
  file_->committed = true;
}

// --- Reader --------------------------------------------------------------------------------------------------------

struct Hdf5Reader::File {
  std::string path;
  hid_t id = -1;

  ~File() {
    if (id >= 0) H5Fclose(id);
  }

  [[noreturn]] void fail(const std::string& what, const std::string& object) const {
    throw Error(ExitCode::input, what, path + ", " + object, "the file is damaged or of another kind; make it again");
  }

  Handle open(const std::string& dataset) const {
    Handle handle(H5Dopen2(id, dataset.c_str(), H5P_DEFAULT), H5Dclose);
    if (!handle.valid()) {
      H5Eclear2(H5E_DEFAULT);
      fail("there is no such dataset", dataset);
    }
    return Handle(handle.release(), H5Dclose);
  }

  std::vector<std::uint64_t> shape(hid_t dataset) const {
    Handle space(H5Dget_space(dataset), H5Sclose);
    if (H5Sget_simple_extent_type(space) == H5S_NULL) return {0};
    const int rank = H5Sget_simple_extent_ndims(space);
    std::vector<hsize_t> extent(std::max(rank, 0));
    if (rank > 0) H5Sget_simple_extent_dims(space, extent.data(), nullptr);
    return {extent.begin(), extent.end()};
  }

  /// Elements in a dataset of this shape; infinite if they are beyond counting.
  template <class Extents>
  static double elements_of(const Extents& extents) {
    // An extent of zero first: beside it others may be so large that their product is no number.
    if (std::count(extents.begin(), extents.end(), 0U) > 0) return 0;
    double n = 1;
    for (const std::uint64_t extent : extents) n *= static_cast<double>(extent);
    return n;
  }

  /// True for a type of numbers whose conversions the library masters: it overruns its buffers with very wide ones.
  static bool is_number(hid_t type) {
    const H5T_class_t kind = H5Tget_class(type);
    const std::size_t bytes = H5Tget_size(type);
    return kind == H5T_FLOAT ? bytes <= 16 : (kind == H5T_INTEGER || kind == H5T_ENUM) && bytes <= 8;
  }

  /// Elements in the dataset. Refuses a header that claims more than the file holds, before memory is taken for it.
  /// @param items  of the first axis that are asked for; all by default
  std::uint64_t checked_size(hid_t dataset, const std::string& name,
                             std::uint64_t items = std::numeric_limits<std::uint64_t>::max()) const {
    hsize_t file_bytes = 0;
    H5Fget_filesize(id, &file_bytes);
    Handle type(H5Dget_type(dataset), H5Tclose);
    if (!is_number(type)) fail("it does not hold numbers", name);
    Handle creation(H5Dget_create_plist(dataset), H5Pclose);
    const H5D_layout_t layout = H5Pget_layout(creation);
    if (layout == H5D_VIRTUAL || H5Pget_external_count(creation) > 0)
      fail("the values of the dataset lie in other files", name);
    // Other programs' files may be compressed; deflate gains at most a factor of 1032. Of the other filters the
    // library's own overrun their buffers, and those of others would be loaded as plug-ins.
    double gain = 1;
    for (int filter = 0; filter < H5Pget_nfilters(creation); ++filter) {
      unsigned flags = 0;
      std::size_t values = 0;
      const H5Z_filter_t kind =
          H5Pget_filter2(creation, static_cast<unsigned>(filter), &flags, &values, nullptr, 0, nullptr, nullptr);
      if (kind == H5Z_FILTER_DEFLATE) {
        gain = 1100;
      } else if (kind != H5Z_FILTER_FLETCHER32 && kind != H5Z_FILTER_SHUFFLE) {
        fail("the dataset is packed by another filter than gzip", name);
      }
    }
    const auto check = [&](double elements, bool stored, const char* what) {
      const double bytes = elements * static_cast<double>(H5Tget_size(type));
      if (bytes > gain * static_cast<double>(file_bytes)) fail(std::string(what) + " to be larger than the file", name);
      // How much of it is really there takes a look at every chunk, for which small pieces are not worth it.
      constexpr double small = 1 << 20;
      if (stored && bytes > small && bytes > gain * static_cast<double>(H5Dget_storage_size(dataset)))
        fail(std::string(what) + " to be larger than what the file holds of it", name);
    };
    std::vector<std::uint64_t> extents = shape(dataset);
    const double elements = elements_of(extents);
    check(elements, false, "the dataset claims");
    if (!extents.empty()) extents[0] = std::min(extents[0], items);
    check(elements_of(extents), true, "the dataset claims");
    if (elements > 0 && layout == H5D_CHUNKED) {  // HDF5 takes memory for a whole chunk, however little is asked for
      std::vector<hsize_t> chunk(H5S_MAX_RANK);
      chunk.resize(static_cast<std::size_t>(std::max(0, H5Pget_chunk(creation, H5S_MAX_RANK, chunk.data()))));
      check(elements_of(chunk), true, "a chunk of the dataset claims");
    }
    return static_cast<std::uint64_t>(elements);
  }
};

Hdf5Reader::Hdf5Reader(const std::string& path) : file_(std::make_unique<File>()) {
  prepare_hdf5();
  file_->path = path;
  const int reason = ::access(path.c_str(), R_OK) == 0 ? 0 : errno;
  require(reason == 0, ExitCode::file_system, std::string("cannot read the file: ") + std::strerror(reason), path,
          "check the path and its permissions");
  file_->id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file_->id < 0) {
    const std::string text = hdf5_text();
    throw Error(ExitCode::input, "this is no readable HDF5 file: " + text, path, "give an umbriel result file");
  }
}

Hdf5Reader::~Hdf5Reader() = default;

const std::string& Hdf5Reader::path() const { return file_->path; }

bool Hdf5Reader::has(const std::string& object) const {
  // Every group on the way must exist, or HDF5 calls the question an error.
  for (std::size_t slash = object.find('/', 1); slash != std::string::npos; slash = object.find('/', slash + 1)) {
    if (H5Lexists(file_->id, object.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return object == "/" || H5Lexists(file_->id, object.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Hdf5Reader::datasets() const {
  std::vector<std::string> names;
  // Not H5Lvisit, which takes stack for every level. Groups that hold themselves are deep too.
  constexpr int deepest = 16;
  const std::function<void(hid_t, const std::string&, int)> list = [&](hid_t group, const std::string& path,
                                                                       int depth) {
    if (depth > deepest) file_->fail("its groups are nested too deeply", path);
    std::vector<std::string> links;
    const herr_t status = H5Literate(
        group, H5_INDEX_NAME, H5_ITER_INC, nullptr,
        [](hid_t, const char* name, const H5L_info_t* link, void* out) -> herr_t {
          // A soft or external link may lead nowhere.
          if (link->type == H5L_TYPE_HARD) static_cast<std::vector<std::string>*>(out)->emplace_back(name);
          return 0;
        },
        &links);
    if (status < 0) file_->fail("its contents cannot be listed: " + hdf5_text(), path);
    for (const std::string& link : links) {
      const Handle object(H5Oopen(group, link.c_str(), H5P_DEFAULT), H5Oclose);
      const std::string name = path + link;
      if (!object.valid()) file_->fail("it cannot be opened: " + hdf5_text(), name);
      const H5I_type_t kind = H5Iget_type(object);
      if (kind == H5I_DATASET) names.push_back(name);
      if (kind == H5I_GROUP) list(object, name + "/", depth + 1);
    }
  };
  list(file_->id, "/", 0);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::uint64_t> Hdf5Reader::shape(const std::string& dataset) const {
  return file_->shape(file_->open(dataset));
}

std::string Hdf5Reader::type(const std::string& dataset) const {
  Handle handle = file_->open(dataset);
  Handle type(H5Dget_type(handle), H5Tclose);
  const std::size_t bits = 8 * H5Tget_size(type);
  const H5T_class_t kind = H5Tget_class(type);
  const bool is_float = kind == H5T_FLOAT;
  if (!File::is_number(type)) file_->fail("it does not hold numbers", dataset);
  const bool is_unsigned = !is_float && H5Tget_sign(type) == H5T_SGN_NONE;
  return std::string(is_unsigned ? "u" : "") + (is_float ? "float" : "int") + std::to_string(bits);
}

template <class T>
std::vector<T> Hdf5Reader::read(const std::string& dataset) const {
  Handle handle = file_->open(dataset);
  std::vector<T> values(file_->checked_size(handle, dataset));
  if (values.empty()) return values;
  if (H5Dread(handle, memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    file_->fail("it cannot be read: " + hdf5_text(), dataset);
  return values;
}

template <class T>
std::vector<T> Hdf5Reader::read(const std::string& dataset, std::uint64_t first, std::uint64_t count) const {
  Handle handle = file_->open(dataset);
  const std::vector<std::uint64_t> shape = file_->shape(handle);
  file_->checked_size(handle, dataset, count);
  if (shape.empty() || first > shape[0] || count > shape[0] - first)
    file_->fail("items are asked for that it does not hold", dataset);
  std::vector<hsize_t> offset(shape.size(), 0), extent(shape.begin(), shape.end());
  offset[0] = first;
  extent[0] = count;
  std::vector<T> values(count * product(shape, 1));
  if (values.empty()) return values;
  Handle space(H5Dget_space(handle), H5Sclose);
  H5Sselect_hyperslab(space, H5S_SELECT_SET, offset.data(), nullptr, extent.data(), nullptr);
  Handle memory(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose);
  if (H5Dread(handle, memory_type<T>(), memory, space, H5P_DEFAULT, values.data()) < 0)
    file_->fail("it cannot be read: " + hdf5_text(), dataset);
  return values;
}

bool Hdf5Reader::has_attribute(const std::string& object, const std::string& name) const {
  return has(object) && H5Aexists_by_name(file_->id, object.c_str(), name.c_str(), H5P_DEFAULT) > 0;
}

std::string Hdf5Reader::attribute(const std::string& object, const std::string& name) const {
  if (!has_attribute(object, name)) file_->fail("there is no attribute " + name, object);
  Handle attribute(H5Aopen_by_name(file_->id, object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  Handle type(H5Aget_type(attribute), H5Tclose);
  Handle space(H5Aget_space(attribute), H5Sclose);
  const hssize_t elements = H5Sget_simple_extent_npoints(space);
  const H5T_class_t kind = H5Tget_class(type);
  bool ok = elements == 1;
  std::string text;
  if (ok && kind == H5T_STRING && H5Tis_variable_str(type) > 0) {
    char* value = nullptr;
    ok = H5Aread(attribute, type, &value) >= 0;
    if (value != nullptr) text = value;
    H5free_memory(value);
  } else if (ok && kind == H5T_STRING) {
    text.resize(H5Tget_size(type));
    ok = H5Aread(attribute, type, text.data()) >= 0;
    text.resize(std::min(text.size(), text.find('\0')));
    if (H5Tget_strpad(type) == H5T_STR_SPACEPAD) text.resize(text.find_last_not_of(' ') + 1);
  } else if (ok && kind == H5T_INTEGER && File::is_number(type)) {
    std::int64_t value = 0;
    ok = H5Aread(attribute, H5T_NATIVE_INT64, &value) >= 0;
    text = std::to_string(value);
  } else if (ok && kind == H5T_FLOAT && File::is_number(type)) {
    double value = 0;
    ok = H5Aread(attribute, H5T_NATIVE_DOUBLE, &value) >= 0;
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.17g", value);
    text = digits;
  } else {
    ok = false;
  }
  if (!ok) file_->fail("the attribute " + name + " cannot be read", object);
  return text;
}

std::vector<std::string> Hdf5Reader::attributes(const std::string& object) const {
  std::vector<std::string> names;
  Handle owner(H5Oopen(file_->id, object.c_str(), H5P_DEFAULT), H5Oclose);
  if (!owner.valid()) file_->fail("there is no such object", object);
  const herr_t status = H5Aiterate2(
      owner, H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
        static_cast<std::vector<std::string>*>(out)->emplace_back(name);
        return 0;
      },
      &names);
  if (status < 0) file_->fail("its attributes cannot be listed: " + hdf5_text(), object);
  return names;
}

void Hdf5Reader::each_piece(const std::function<void(const void* bytes, std::size_t n)>& take) const {
  for (const std::string& name : datasets()) {
    Handle handle = file_->open(name);
    Handle type(H5Dget_type(handle), H5Tclose);
    const std::vector<std::uint64_t> shape = file_->shape(handle);
    std::string header = name + " " + this->type(name);
    for (const std::uint64_t n : shape) header.append(" ").append(std::to_string(n));
    take(header.data(), header.size());
    const std::uint64_t elements = file_->checked_size(handle, name);
    if (elements == 0) continue;
    // Item by item along the first axis, so that a large dataset never lies in memory whole.
    const std::size_t element_bytes = H5Tget_size(type);
    const std::uint64_t items = shape.empty() ? 1 : shape[0];
    const std::uint64_t item = elements / items;
    const std::uint64_t at_once = std::max<std::uint64_t>(1, largest_chunk / (item * element_bytes));
    std::vector<char> bytes;
    for (std::uint64_t first = 0; first < items; first += at_once) {
      const std::uint64_t count = std::min(at_once, items - first);
      bytes.resize(count * item * element_bytes);
      Handle space(H5Dget_space(handle), H5Sclose);
      // Of the same shape as in the file: between others HDF5 goes element by element.
      std::vector<hsize_t> offset(shape.size(), 0), extent(shape.begin(), shape.end());
      if (!shape.empty()) {
        offset[0] = first;
        extent[0] = count;
        H5Sselect_hyperslab(space, H5S_SELECT_SET, offset.data(), nullptr, extent.data(), nullptr);
      }
      Handle memory(shape.empty() ? H5Screate(H5S_SCALAR)
                                  : H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr),
                    H5Sclose);
      if (H5Dread(handle, type, memory, space, H5P_DEFAULT, bytes.data()) < 0)
        file_->fail("it cannot be read: " + hdf5_text(), name);
      take(bytes.data(), bytes.size());
    }
  }
}

void Hdf5Reader::verify() const {
  each_piece([](const void*, std::size_t) {});
}

std::string Hdf5Reader::data_digest() const {
  Sha256 sum;
  each_piece([&](const void* bytes, std::size_t n) { sum.update(bytes, n); });
  return sum.finish();
}

#define UMBRIEL_INSTANTIATE(T)                                                                                     \
  template void Hdf5Writer::write<T>(const DatasetInfo&, const std::vector<std::uint64_t>&, const T*);             \
  template void Hdf5Writer::write_sharded<T>(const DatasetInfo&, const std::vector<std::uint64_t>&, std::uint64_t, \
                                             std::uint64_t, const T*);                                             \
  template std::vector<T> Hdf5Reader::read<T>(const std::string&) const;                                           \
  template std::vector<T> Hdf5Reader::read<T>(const std::string&, std::uint64_t, std::uint64_t) const
UMBRIEL_INSTANTIATE(float);
UMBRIEL_INSTANTIATE(double);
UMBRIEL_INSTANTIATE(std::int32_t);
UMBRIEL_INSTANTIATE(std::int64_t);
UMBRIEL_INSTANTIATE(std::uint8_t);
#undef UMBRIEL_INSTANTIATE

}  // namespace umbriel
