/// Where a result comes from: version, revision, machine, time.
#pragma once

#include <string>

namespace umbriel {

std::string version();       ///< "0.1.0"
std::string git_revision();  ///< short hash, "-dirty" where the source had changes, "unknown" outside git
std::string host_name();
std::string utc_now();  ///< ISO 8601, seconds
/// Execution space and its concurrency, for instance "Serial" or "Cuda (NVIDIA H200)".
std::string device_name();
/// Versions of the libraries that decide results, as a JSON object.
std::string library_versions();

/// Seconds since it was made.
class Stopwatch {
 public:
  Stopwatch();
  double seconds() const;

 private:
  double start_;
};

}  // namespace umbriel
