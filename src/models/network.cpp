#include "umbriel/models/network.hpp"

#include <map>

namespace umbriel {
namespace {

/// In a function: registrations of other sources may run before this file's own statics.
std::map<std::string, NetworkMaker>& makers() {
  static std::map<std::string, NetworkMaker> table;
  return table;
}

}  // namespace

NetworkRegistration::NetworkRegistration(const std::string& kind, NetworkMaker maker) {
  makers()[kind] = std::move(maker);
}

std::unique_ptr<Network> make_network(const Config& config, int input_channels) {
  std::vector<std::string> kinds;
  for (const auto& [kind, maker] : makers()) kinds.push_back(kind);
  const std::string kind = config.choice("network.kind", "unet", kinds);
  std::unique_ptr<Network> network = makers().at(kind)(config, input_channels);
  network->parameters().allocate();
  return network;
}

void require_sides(int multiple, Grid grid, const std::string& what) {
  require(grid.height % multiple == 0 && grid.width % multiple == 0, ExitCode::usage,
          "maps of " + std::to_string(grid.width) + " x " + std::to_string(grid.height) + " pixels do not fit the " +
              what + ", which halves them until sides must be multiples of " + std::to_string(multiple),
          what, "change the size of the maps, or the number of halvings");
}

}  // namespace umbriel
