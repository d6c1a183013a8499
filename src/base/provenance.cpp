#include "umbriel/base/provenance.hpp"

#include <unistd.h>

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "umbriel/core/kokkos.hpp"
#include "umbriel_revision.hpp"

namespace umbriel {
namespace {

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string version() { return UMBRIEL_VERSION; }
std::string git_revision() { return UMBRIEL_REVISION; }

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::string device_name() {
  std::string name = Space::name();
#ifdef KOKKOS_ENABLE_CUDA
  name += std::string(" (") + Space().cuda_device_prop().name + ")";
#else
  const int threads = Space().concurrency();
  if (threads > 1) name += " (" + std::to_string(threads) + " threads)";
#endif
  return name;
}

std::string library_versions() {
  nlohmann::ordered_json versions;
  versions["kokkos"] = std::to_string(KOKKOS_VERSION / 10000) + "." + std::to_string(KOKKOS_VERSION / 100 % 100) + "." +
                       std::to_string(KOKKOS_VERSION % 100);
  versions["compiler"] = __VERSION__;
  return versions.dump();
}

Stopwatch::Stopwatch() : start_(monotonic_seconds()) {}
double Stopwatch::seconds() const { return monotonic_seconds() - start_; }

}  // namespace umbriel
