/// HDF5 files written and read by all ranks together.
///
/// A file is written under a temporary name and appears under its own only when `commit` has flushed, synced, closed,
/// re-read (every chunk's Fletcher-32 checksum) and renamed it. After every step the ranks agree on the outcome: a
/// failure on one rank is the same Error(file_system) on all, and no further collective call is made on that file.
/// Where the failure has caught the other ranks inside a collective call of HDF5's own, which they never leave, the
/// rank that failed says why and ends the job after some seconds, with the exit code of a file system error.
///
/// Datasets are chunked with checksums; every axis is a dimension scale, every dataset has `units` and `long_name`, so
/// that h5py and xarray open them without help.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

namespace detail {
/// HDF5 that starts before MPI does not hook itself into MPI_Finalize, where it would crash on a file that could not be
/// written. MpiSession calls this.
void prepare_hdf5_before_mpi();
}  // namespace detail

/// Name, axes and meaning of a dataset. Axis names refer to dimension scales written with `write_axis`.
struct DatasetInfo {
  std::string path;               ///< "/summary/mean"
  std::vector<std::string> axes;  ///< {"y", "x"}; empty for a scalar
  std::string units;              ///< "1" for a dimensionless quantity
  std::string long_name;          ///< for humans, one line
};

/// Element types of datasets: float, double, std::int32_t, std::int64_t, std::uint8_t.
class Hdf5Writer {
 public:
  /// Opens PATH's temporary file. @throws Error(file_system)
  Hdf5Writer(const std::string& path, const Communicator& comm);
  /// Without commit: removes the temporary file. Collective then, unless an exception is passing.
  ~Hdf5Writer();

  /// A dimension scale: the coordinates of one axis, at the root of the file.
  void write_axis(const std::string& name, const std::vector<double>& coordinates, const std::string& units,
                  const std::string& long_name);

  /// The whole dataset from rank 0; of the other ranks' arguments only `info` counts.
  template <class T>
  void write(const DatasetInfo& info, const std::vector<std::uint64_t>& shape, const T* data);

  /// A dataset sharded along its first axis: this rank holds items [first, first + count) of shape[0].
  /// Chunks are one item, so that no chunk is shared by two ranks.
  /// @throws Error(usage) on all ranks unless the ranks' items make up shape[0] in number
  template <class T>
  void write_sharded(const DatasetInfo& info, const std::vector<std::uint64_t>& shape, std::uint64_t first,
                     std::uint64_t count, const T* data);

  /// @{ Attribute of a group or dataset ("/" for the file); parent groups are made as needed.
  void attribute(const std::string& object, const std::string& name, const std::string& value);
  void attribute(const std::string& object, const std::string& name, double value);
  void attribute(const std::string& object, const std::string& name, std::int64_t value);
  /// @}

  /// Makes the file appear under its own name, whole, with a seal (see require_seal) at its end.
  /// @param keep_previous  a file that stood there before stays, as previous_generation(path)
  /// @throws Error(file_system); the temporary file is removed then
  void commit(bool keep_previous = false);

 private:
  struct File;
  std::unique_ptr<File> file_;
};

/// Throws Error(input) unless the last bytes of a file are the SHA-256 sum of all before: Hdf5Writer puts it there,
/// where HDF5 does not look. So any changed byte is found, and any missing end.
void require_seal(const std::string& path);

/// Removes temporary files of `path` that killed jobs have left. Hdf5Writer does so when it begins.
void remove_leftovers(const std::string& path);

/// PATH.previous
std::string previous_generation(const std::string& path);

/// The newer of `path` and its previous generation whose seal is good; empty if there is neither. Collective.
/// @param complain  rank 0: called with what is wrong with a newer one
/// @throws Error(input) on all ranks if there are files but no good one
std::string newest_good_generation(const Communicator& comm, const std::string& path,
                                   const std::function<void(const std::string&)>& complain);

/// Reads on this process alone: any rank may open a file by itself.
class Hdf5Reader {
 public:
  /// @throws Error(file_system) if it cannot be opened, Error(input) if it is not HDF5
  explicit Hdf5Reader(const std::string& path);
  ~Hdf5Reader();

  const std::string& path() const;
  bool has(const std::string& object) const;
  /// Paths of all datasets, in alphabetical order.
  std::vector<std::string> datasets() const;
  std::vector<std::uint64_t> shape(const std::string& dataset) const;
  /// "float32", "float64", "int32", "int64", "uint8"
  std::string type(const std::string& dataset) const;

  /// All elements, converted to T. @throws Error(input) for a missing dataset or a failed checksum
  template <class T>
  std::vector<T> read(const std::string& dataset) const;
  /// Items [first, first + count) along the first axis.
  template <class T>
  std::vector<T> read(const std::string& dataset, std::uint64_t first, std::uint64_t count) const;

  bool has_attribute(const std::string& object, const std::string& name) const;
  /// Attribute as text, whatever its type.
  std::string attribute(const std::string& object, const std::string& name) const;
  std::vector<std::string> attributes(const std::string& object) const;

  /// Reads every chunk, and with it every checksum. @throws Error(input) for one that fails
  void verify() const;

  /// SHA-256 over names, types, shapes and bytes of all datasets: equal for two results with the same data, whatever
  /// their provenance attributes.
  std::string data_digest() const;

 private:
  struct File;
  std::unique_ptr<File> file_;

  /// Name, type and shape of every dataset as text, and its bytes piece by piece.
  void each_piece(const std::function<void(const void* bytes, std::size_t n)>& take) const;
};

}  // namespace umbriel
