// Seconds that a flow takes, for comparisons with other programs (compare_flow_torch.py).
//
//   flow_time --pass training --size 64 --batch 16         a step: likelihood, its gradient, Adam; network of flow.toml
//   flow_time --pass generate --size 64 --batch 16 --config flow.toml
//
// Prints one line of JSON; `wall` are the seconds of a batch on one rank.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "umbriel/base/provenance.hpp"
#include "umbriel/models/flow.hpp"
#include "umbriel/nn/optimiser.hpp"
#include "umbriel/ops/elementwise.hpp"

namespace {

using namespace umbriel;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

int main(int argc, char** argv) {
  const MpiSession mpi(argc, argv);
  const Kokkos::ScopeGuard kokkos(argc, argv);
  CLI::App app("time a flow");
  std::string pass = "training", path;
  int size = 64, batch = 16, repeats = 5, warm_up = 2;
  app.add_option("--pass", pass)->check(CLI::IsMember({"training", "constant", "likelihood", "generate"}));
  app.add_option("--config", path, "TOML with [network]");
  app.add_option("--size", size);
  app.add_option("--batch", batch);
  app.add_option("--repeats", repeats);
  app.add_option("--warm-up", warm_up);
  CLI11_PARSE(app, argc, argv);
  try {
    const Flow flow(path.empty() ? Config::parse("network.kind = \"glow\"") : Config::load(path));
    flow.initialise(1, nn::Initialisation::he_normal);
    const bool training = pass == "training" || pass == "constant";
    FlowRunner runner(flow, {size, size}, batch,
                      !training            ? FlowRunner::Memory::inference
                      : pass == "constant" ? FlowRunner::Memory::constant
                                           : FlowRunner::Memory::stored);
    const auto optimiser = nn::make_optimiser(flow.parameters(), {});
    const View1<double> log_determinant("log_determinant", static_cast<std::size_t>(batch));
    const Space space;
    const auto share = static_cast<float>(1.0 / (static_cast<double>(size) * size * batch));
    const auto host = Kokkos::create_mirror_view(HostMemory{}, runner.maps());
    for (std::size_t i = 0; i < host.size(); ++i) host.data()[i] = static_cast<float>(i * 7919 % 1009) / 504.0F - 1;
    std::vector<double> wall;
    for (int i = -warm_up; i < repeats; ++i) {
      Kokkos::deep_copy(runner.maps(), host);
      const double start = seconds();
      if (i == -warm_up || training) runner.use(space, flow.parameters().values());
      if (pass == "generate") {
        runner.inverse(space);
      } else {
        runner.forward(space, log_determinant);
      }
      if (training) {
        linear_combination(space, share, runner.maps(), 0, runner.maps(), runner.gradients());
        runner.backward(space, -share);
        optimiser->step(space, 1e-4);
      }
      space.fence();
      if (i >= 0) wall.push_back(seconds() - start);
    }
    const nlohmann::json line = {{"pass", pass},
                                 {"size", size},
                                 {"maps", batch},
                                 {"wall", wall},
                                 {"flops", runner.flops()},
                                 {"parameters", flow.parameters().count()},
                                 {"revision", git_revision()}};
    std::printf("%s\n", line.dump().c_str());
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
