/// Result files: one schema for every command (docs/file-formats.md).
///
/// Over Hdf5Writer this adds what all results share: schema version, provenance, the axes of a map, and map datasets.
#pragma once

#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/base/provenance.hpp"
#include "umbriel/core/views.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {

inline constexpr int schema_version = 1;

/// An input of a run: path and SHA-256.
struct InputRecord {
  std::string path, sha256;
};

class ResultFile {
 public:
  /// Opens the temporary file; nothing is seen at `path` before `commit`. Collective, like every call.
  ResultFile(const std::string& path, const Communicator& comm, const std::string& command);

  /// Axes "y" and "x" of a map: offsets of pixel centres from the map's centre, in arcminutes.
  void write_map_axes(Grid grid, double pixel_arcmin);
  /// A map [y, x] known to rank 0.
  void write_map(const std::string& path, Grid grid, const float* map, const std::string& units,
                 const std::string& long_name);
  /// An axis that only counts: 0 ... n - 1.
  void write_index_axis(const std::string& name, std::uint64_t n, const std::string& long_name);

  /// Attributes of the root: configuration, revision, libraries, ranks, seed, inputs, time.
  void write_provenance(const Config& config, std::int64_t seed, const std::vector<InputRecord>& inputs,
                        double wall_seconds);

  Hdf5Writer& hdf5() { return writer_; }
  void commit() { writer_.commit(); }

 private:
  Communicator comm_;
  std::string command_;
  Hdf5Writer writer_;
};

}  // namespace umbriel
