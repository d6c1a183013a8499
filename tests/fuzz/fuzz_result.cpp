// Results as HDF5: the reader, the HTML page of `report`, and training maps. Input: changes to a good result (see
// hdf5_changes.hpp), which is sealed again, after a byte that says who reads it.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "hdf5_changes.hpp"
#include "support.hpp"
#include "umbriel/data/map_folder.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/report/report.hpp"

namespace {

using namespace umbriel;

constexpr std::uint64_t side = 6, chains = 4, bands = 5, steps = 7, mocks = 12;

std::vector<float> waves(std::size_t n, double phase) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i)
    values[i] = static_cast<float>(0.05 * std::sin(phase + 0.7 * static_cast<double>(i)));
  return values;
}

/// Results whose pages leave no room for others: statistics, a filled patch, reconstructions, ways between patches.
std::string good_page(int kind) {
  const std::string path = fuzz::scratch_file(".page.h5", "", 0);
  Hdf5Writer file(path, Communicator());
  const auto floats = [&](const std::string& name, const std::vector<std::uint64_t>& shape) {
    std::uint64_t n = 1;
    for (const std::uint64_t extent : shape) n *= extent;
    file.write<float>({name, {}, "1", "maps"}, shape, waves(n, 1).data());
  };
  const auto doubles = [&](const std::string& name, const std::vector<std::uint64_t>& shape) {
    std::uint64_t n = 1;
    for (const std::uint64_t extent : shape) n *= extent;
    std::vector<double> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = 0.5 + 0.1 * static_cast<double>(i % 3);
    file.write<double>({name, {}, "1", "numbers"}, shape, values.data());
  };
  if (kind == 0) {
    file.write_axis("map", {0, 1, 2, 3}, "1", "map");
    for (const char* axis : {"band", "pdf_bin", "minkowski_bin"}) file.write_axis(axis, {1, 2, 3}, "1", axis);
    for (const char* name : {"power_spectrum", "pdf", "minkowski_v2"})
      doubles(std::string("/statistics/") + name, {4, 3});
  } else if (kind == 1) {
    for (const char* name : {"/data/map", "/data/mask", "/summary/mean", "/summary/std", "/summary/quantile_05",
                             "/summary/quantile_95", "/reference/maximum", "/reference/diffusive"})
      floats(name, {side, side});
    floats("/posterior/map", {chains, 2, side, side});
    doubles("/sample_stats/accept_rate", {chains}), doubles("/sample_stats/log_density", {chains, 2});
    file.attribute("/sample_stats", "nested_r_hat", 1.2);
  } else if (kind == 2) {
    for (const char* name : {"mean", "input", "residual"})
      floats(std::string("/reconstruction/") + name, {mocks, side, side});
    doubles("/reconstruction/rmse", {mocks}), doubles("/reconstruction/map", {mocks});
    floats("/reconstruction/latent_mean", {mocks, 3});
  } else {
    floats("/interpolation/map", {mocks, side, side});
    for (const char* name : {"fraction", "from", "to", "angle"})
      doubles(std::string("/interpolation/") + name, {mocks});
  }
  file.commit();
  return fuzz::unsealed_bytes(path);
}

/// Everything that the page of `sample` and `validate` can show.
std::string good_result() {
  const std::string path = fuzz::scratch_file(".good.h5", "", 0);
  Hdf5Writer file(path, Communicator());
  const auto axis = [&](const char* name, std::size_t n) {
    std::vector<double> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = 100 * static_cast<double>(i + 1);
    file.write_axis(name, values, "arcmin", name);
  };
  axis("x", side), axis("y", side), axis("band", bands), axis("credibility", 3);
  const auto maps = [&](const std::string& name, std::uint64_t n) {
    file.write<float>({name, {}, "1", "maps"}, {n, side, side}, waves(n * side * side, 1).data());
  };
  const auto map = [&](const std::string& name) {
    file.write<float>({name, {}, "1", "a map"}, {side, side}, waves(side * side, 2).data());
  };
  const auto table = [&](const std::string& name, std::uint64_t rows, std::uint64_t columns) {
    std::vector<double> values(rows * columns);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::fmod(0.37 * static_cast<double>(i), 1.0) + 0.01;
    file.write<double>({name, {}, "1", "a table"}, {rows, columns}, values.data());
  };
  const auto list = [&](const std::string& name, std::uint64_t n) {
    std::vector<double> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = 0.5 + 0.1 * static_cast<double>(i % 3);
    file.write<double>({name, {}, "1", "a list"}, {n}, values.data());
  };
  maps("/posterior/kappa", chains), maps("/survey/shear", 2), maps("/survey/noise", 2), maps("/simulation/kappa", 3);
  for (const char* name : {"mean", "std", "peak_probability", "quantile_50"}) map(std::string("/summary/") + name);
  for (const char* name : {"kaiser_squires", "wiener_mean", "map"}) map(std::string("/reference/") + name);
  map("/survey/truth");
  std::vector<std::uint8_t> mask(side * side, 1);
  for (std::size_t i = 0; i < 2 * side; ++i) mask[i] = 0;
  file.write<std::uint8_t>({"/survey/mask", {}, "1", "1 observed"}, {side, side}, mask.data());
  for (const char* name :
       {"kaiser_squires", "prior", "wiener_mean", "truth", "posterior_mean", "posterior_05", "posterior_95"})
    list(std::string("/spectra/") + name, bands);
  for (const char* name : {"accept_rate", "score_evaluations", "diverged", "energy_error"})
    list(std::string("/sample_stats/") + name, chains);
  table("/sample_stats/sigma", chains, steps), table("/sample_stats/log_density", chains, steps);
  file.write<double>({"/sample_stats/tail", {}, "1", "tail"}, {chains, 3, 2},
                     std::vector<double>(chains * 6, 0.3).data());
  for (const char* name : {"nested_rhat", "nested_rhat_limit", "effective_sample_size"})
    list(std::string("/diagnostics/") + name, 2);
  list("/metrics/rmse", 2), list("/metrics/pearson", 2);
  std::vector<std::int32_t> ranks(2 * mocks);
  for (std::size_t i = 0; i < ranks.size(); ++i) ranks[i] = static_cast<std::int32_t>(i % 9);
  file.write<std::int32_t>({"/validate/sbc_ranks", {}, "1", "ranks"}, {2, mocks}, ranks.data());
  list("/validate/p_value", 2), list("/validate/band_variance_ratio", bands);
  for (const char* name : {"nominal", "inside", "outside", "inside_error", "outside_error"})
    list(std::string("/validate/coverage_") + name, 3);
  table("/validate/tarp_coverage", 2, 3), list("/validate/tarp_largest", 2), list("/validate/tarp_p_value", 2);
  list("/validate/pixel_ranks_inside", 9), list("/validate/pixel_ranks_outside", 9);
  for (const char* name : {"rmse_posterior_mean", "rmse_posterior_mean_limit", "rmse_wiener_mean",
                           "pearson_posterior_mean", "pearson_wiener_mean", "score_evaluations"})
    list(std::string("/validate/") + name, mocks);
  for (const auto& [name, value] : {std::pair{"command", "sample"},
                                    {"config", "run.seed = 1\n"},
                                    {"libraries", R"({"a": "1"})"},
                                    {"inputs", R"([{"path": "e1.fits", "sha256": "00"}])"},
                                    {"umbriel_version", "0.1.0"},
                                    {"started", "2024-01-01T00:00:00Z"},
                                    {"chains_set_aside", "3"}})
    file.attribute("/", name, std::string(value));
  file.attribute("/", "seed", std::int64_t{1});
  file.attribute("/", "wall_seconds", 12.5);
  file.attribute("/diagnostics", "names", std::string("log_density,kappa"));
  file.attribute("/metrics", "methods", std::string("posterior_mean,kaiser_squires"));
  file.attribute("/validate", "names", std::string("mean,peak"));
  file.attribute("/validate", "references", std::string("random,wiener"));
  file.attribute("/validate", "mocks_kind", std::string("gaussian"));
  file.attribute("/validate", "mocks_set_aside", std::string("2"));
  file.attribute("/validate", "draws", std::int64_t{8});
  for (const char* name : {"tarp_band", "mean_error_ratio", "std_ratio_inside", "std_ratio_outside"})
    file.attribute("/validate", name, 0.5);
  file.commit();
  return fuzz::unsealed_bytes(path);
}

/// Asks a reader about everything that is in the file. @param kind  of the numbers it reads
void ask_all(const Hdf5Reader& file, int kind) {
  using fuzz::refused;
  for (const std::string name : {"/", "/summary", "/no/such/thing", "/survey/mask", "/x"}) {
    file.has(name);
    refused([&] {
      for (const std::string& attribute : file.attributes(name)) refused([&] { file.attribute(name, attribute); });
    });
  }
  std::vector<std::string> datasets;
  refused([&] { datasets = file.datasets(); });
  for (const std::string& name : datasets) {
    refused([&] { file.type(name); });
    refused([&] { file.shape(name); });
    refused([&] {
      if (kind % 6 == 0) file.read<float>(name);
      if (kind % 6 == 1) file.read<double>(name);
      if (kind % 6 == 2) file.read<std::int64_t>(name);
      if (kind % 6 == 3) file.read<std::uint8_t>(name);
      if (kind % 6 == 4) file.read<double>(name, 0, 1);
      if (kind % 6 == 5) file.read<std::int32_t>(name, 1, 2);
    });
    if (kind % 3 == 0) refused([&] { file.attribute(name, "units"); });
  }
  refused([&] { file.data_digest(); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using fuzz::refused;
  if (size == 0) return 0;
  static const std::string results[] = {good_result(), good_page(0), good_page(1), good_page(2), good_page(3)};
  // Half of the pages are those of the first.
  const std::string& good = results[data[0] % 2 == 0 ? std::max(0, data[0] / 2 % 8 - 3) : 0];
  const std::string path = fuzz::scratch_file(".h5", good.data(), good.size());
  if (!fuzz::change_hdf5(path, data + 1, size - 1)) return 0;
  fuzz::seal(path);
  if (refused([&] { require_seal(path); })) fuzz::fail("a good seal was refused");
  refused([&] {
    const Hdf5Reader file(path);
    if (data[0] % 2 == 0) report_html(file);
    if (data[0] % 4 == 1) ask_all(file, data[0] / 4);
  });
  if (data[0] % 4 == 3) {
    refused([&] {
      MapFolder maps(Communicator(), {path}, {});
      for (std::int64_t i = 0; i < maps.size() && i < 4; ++i) maps.read(i);
    });
  }
  return 0;
}
