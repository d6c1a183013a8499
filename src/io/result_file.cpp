#include "umbriel/io/result_file.hpp"

#include <nlohmann/json.hpp>

namespace umbriel {

ResultFile::ResultFile(const std::string& path, const Communicator& comm, const std::string& command)
    : comm_(comm), command_(command), writer_(path, comm) {}

void ResultFile::write_map_axes(Grid grid, double pixel_arcmin) {
  const auto offsets = [&](int n) {
    std::vector<double> values(static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i) values[static_cast<std::size_t>(i)] = (i + 0.5 - 0.5 * n) * pixel_arcmin;
    return values;
  };
  writer_.write_axis("y", offsets(grid.height), "arcmin", "offset of the pixel's centre from the map's, along y");
  writer_.write_axis("x", offsets(grid.width), "arcmin", "offset of the pixel's centre from the map's, along x");
}

void ResultFile::write_map(const std::string& path, Grid grid, const float* map, const std::string& units,
                           const std::string& long_name) {
  writer_.write<float>({path, {"y", "x"}, units, long_name},
                       {static_cast<std::uint64_t>(grid.height), static_cast<std::uint64_t>(grid.width)}, map);
}

void ResultFile::write_index_axis(const std::string& name, std::uint64_t n, const std::string& long_name) {
  std::vector<double> index(n);
  for (std::uint64_t i = 0; i < n; ++i) index[i] = static_cast<double>(i);
  writer_.write_axis(name, index, "1", long_name);
}

void ResultFile::write_provenance(const Config& config, std::int64_t seed, const std::vector<InputRecord>& inputs,
                                  double wall_seconds) {
  nlohmann::ordered_json list = nlohmann::json::array();
  for (const InputRecord& input : inputs) list.push_back({{"path", input.path}, {"sha256", input.sha256}});
  writer_.attribute("/", "schema_version", static_cast<std::int64_t>(schema_version));
  writer_.attribute("/", "command", command_);
  writer_.attribute("/", "umbriel_version", version());
  writer_.attribute("/", "git_revision", git_revision());
  writer_.attribute("/", "libraries", library_versions());
  writer_.attribute("/", "config", config.resolved());
  writer_.attribute("/", "seed", seed);
  writer_.attribute("/", "inputs", list.dump());
  writer_.attribute("/", "ranks", static_cast<std::int64_t>(comm_.size()));
  writer_.attribute("/", "devices", device_name());
  writer_.attribute("/", "host", host_name());
  writer_.attribute("/", "finished", utc_now());
  writer_.attribute("/", "wall_seconds", wall_seconds);
}

}  // namespace umbriel
