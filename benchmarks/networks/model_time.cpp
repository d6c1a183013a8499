// Seconds that models of maps take, for comparisons with other programs (compare_models_torch.py).
//
//   model_time --model flow --pass training --size 64 --batch 16       a step: likelihood, its gradient, Adam
//   model_time --model flow --pass constant                            the same in constant memory
//   model_time --model flow --pass likelihood
//   model_time --model flow --pass generate                            latent variables to fields
//   model_time --model diffusion --pass training                       a step: the network, its gradient, Adam
//   model_time --model diffusion --pass forward                        one evaluation of the network, without gradients
//   model_time --model diffusion --pass generate --steps 10            as `umbriel generate kappa` does, noise to maps
//
// Networks are those of jobs/configs/flow.toml and diffusion.toml, or of --config. Prints one line of JSON; `wall` and
// `cpu` are the seconds of a batch on one rank.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runs.hpp"
#include "umbriel/base/provenance.hpp"
#include "umbriel/models/flow.hpp"
#include "umbriel/models/generative_model.hpp"

namespace {

using namespace umbriel;

struct Arguments {
  std::string model = "flow", pass = "training", path;
  int size = 64, batch = 16, repeats = 5, warm_up = 2, steps = 10;
};

/// What is measured: `run` once, after `prepare`, which is not timed.
struct Timed {
  std::function<void()> prepare = [] {}, run;
  double flops = 0;
  std::int64_t parameters = 0;
};

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

Timed flow(const Arguments& a, const Config& config, const Space& space) {
  const auto model = std::make_shared<Flow>(config);
  model->initialise(1, nn::Initialisation::he_normal);
  const bool training = a.pass == "training" || a.pass == "constant";
  const auto runner = std::make_shared<FlowRunner>(*model, Grid{a.size, a.size}, a.batch,
                                                   !training              ? FlowRunner::Memory::inference
                                                   : a.pass == "constant" ? FlowRunner::Memory::constant
                                                                          : FlowRunner::Memory::stored);
  const std::shared_ptr<nn::Optimiser> optimiser = nn::make_optimiser(model->parameters(), {});
  const View1<double> log_determinant("log_determinant", static_cast<std::size_t>(a.batch));
  const auto share = static_cast<float>(1.0 / (static_cast<double>(a.size) * a.size * a.batch));
  const auto host = Kokkos::create_mirror_view(HostMemory{}, runner->maps());
  for (std::size_t i = 0; i < host.size(); ++i) host.data()[i] = static_cast<float>(i * 7919 % 1009) / 504.0F - 1;
  runner->use(space, model->parameters().values());
  Timed timed;
  timed.prepare = [=] { Kokkos::deep_copy(runner->maps(), host); };
  timed.run = [=, pass = a.pass] {
    if (training) runner->use(space, model->parameters().values());
    if (pass == "generate") {
      runner->inverse(space);
    } else {
      runner->forward(space, log_determinant);
    }
    if (training) {
      linear_combination(space, share, runner->maps(), 0, runner->maps(), runner->gradients());
      runner->backward(space, -share);
      optimiser->step(space, 1e-4);
    }
    space.fence();
  };
  timed.flops = runner->flops();
  timed.parameters = model->parameters().count();
  return timed;
}

/// A generator reads its model from a file: one with random weights is written for it.
std::shared_ptr<MapGenerator> diffusion_generator(const Arguments& a, const Config& config) {
  GenerativeModelRecord record;
  record.kind = "diffusion";
  record.grid = {a.size, a.size};
  record.pixel_arcmin = 2;
  record.field.kappa0 = 0.05;
  record.field.mean = -3;
  record.field.multipole = {10, 1e5};
  record.field.power = {0.1, 0.1};
  const std::unique_ptr<Network> network = bench::make_random_network(config, 1);
  record.config = config.resolved();
  const std::string path =
      (std::filesystem::temp_directory_path() / ("model_time-" + std::to_string(::getpid()))).string() + ".safetensors";
  record.save(path, network->parameters(), network->parameters().values(), {});
  const Config how = Config::parse("generate.steps = " + std::to_string(a.steps));
  std::shared_ptr<MapGenerator> generator = make_generator(path, GenerativeModelRecord::load(path), how, {});
  std::filesystem::remove(path);
  return generator;
}

Timed diffusion(const Arguments& a, const Config& config, const Space& space) {
  Timed timed;
  timed.parameters = bench::make_random_network(config, 1)->parameters().count();
  if (a.pass == "training") {
    const auto step = std::make_shared<bench::TrainingRun>(config, a.size, a.batch, nn::Options{}, 1);
    timed.run = [=] { (*step)(space); };
    timed.flops = step->flops();
  } else if (a.pass == "forward") {
    const auto frozen = std::make_shared<bench::FrozenRun>(config, a.size, a.batch, nn::Options{}, 1);
    timed.run = [=] { (*frozen)(space); };
    timed.flops = frozen->flops();
  } else {
    const std::shared_ptr<MapGenerator> generator = diffusion_generator(a, config);
    const MapBatch maps("maps", static_cast<std::size_t>(a.batch), a.size, a.size);
    timed.run = [=, n = a.batch] {
      for (int first = 0; first < n; first += generator->batch()) {
        const int now = std::min(generator->batch(), n - first);
        const MapBatch some = Kokkos::subview(maps, std::make_pair(first, first + now), Kokkos::ALL, Kokkos::ALL);
        generator->draw(space, 1, first, now, some);
      }
      space.fence();
    };
  }
  return timed;
}

}  // namespace

int main(int argc, char** argv) {
  const MpiSession mpi(argc, argv);
  const Kokkos::ScopeGuard kokkos(argc, argv);
  CLI::App app("time a model of maps");
  Arguments a;
  app.add_option("--model", a.model)->check(CLI::IsMember({"flow", "diffusion"}));
  app.add_option("--pass", a.pass)->check(CLI::IsMember({"training", "constant", "likelihood", "forward", "generate"}));
  app.add_option("--config", a.path, "TOML with [network]");
  app.add_option("--size", a.size);
  app.add_option("--batch", a.batch);
  app.add_option("--steps", a.steps, "of a diffusion model's probability flow");
  app.add_option("--repeats", a.repeats);
  app.add_option("--warm-up", a.warm_up);
  CLI11_PARSE(app, argc, argv);
  try {
    const bool is_flow = a.model == "flow";
    require(a.pass == "training" || a.pass == "generate" || is_flow != (a.pass == "forward"), ExitCode::usage,
            "this model has no such pass", "--pass");
    const Config config = !a.path.empty() ? Config::load(a.path)
                          : is_flow       ? Config::parse("network.kind = \"glow\"")
                                          : Config::parse("network.widths = [16, 32, 32]\nnetwork.blocks = [1, 1, 1]");
    const Space space;
    const Timed timed = is_flow ? flow(a, config, space) : diffusion(a, config, space);
    std::vector<double> wall, cpu;
    for (int i = -a.warm_up; i < a.repeats; ++i) {
      timed.prepare();
      const double wall_start = wall_seconds(), cpu_start = cpu_seconds();
      timed.run();
      if (i < 0) continue;
      wall.push_back(wall_seconds() - wall_start);
      cpu.push_back(cpu_seconds() - cpu_start);
    }
    const nlohmann::json line = {{"model", a.model},
                                 {"pass", a.pass},
                                 {"size", a.size},
                                 {"maps", a.batch},
                                 {"wall", wall},
                                 {"cpu", cpu},
                                 {"flops", timed.flops},
                                 {"parameters", timed.parameters},
                                 {"revision", git_revision()}};
    std::printf("%s\n", line.dump().c_str());
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
