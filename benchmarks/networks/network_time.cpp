// Seconds that a network takes, for comparisons with other programs (compare_torch.py) and to see where they go.
//
//   network_time --pass frozen --size 360                    the published network, one map of 360 x 360
//   mpirun -n 2 network_time --pass training --size 64 --batch 16
//   network_time --pass frozen --size 360 --by-operation
//
// Prints one line of JSON: `wall` are the seconds from when all ranks begin to when the last one ends, `cpu` the
// processor time of this process (of rank 0), each for one repeat on all ranks' maps together; `maps` is their number.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>

#include "runs.hpp"
#include "umbriel/base/provenance.hpp"
#include "umbriel/core/check.hpp"

namespace {

using umbriel::Communicator;
using umbriel::Space;
using umbriel::nn::Operation;
using umbriel::nn::Tape;

struct Arguments {
  std::string config, pass = "frozen", backend = "automatic", precision = "float32";
  int size = 360, batch = 1, repeats = 5, warm_up = 2;
  bool by_operation = false;
};

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

struct Samples {
  std::vector<double> wall, cpu;
};

template <class Run>
Samples time(const Communicator& comm, const Arguments& arguments, Run& run) {
  const Space space;
  Samples samples;
  for (int i = 0; i < arguments.warm_up; ++i) run(space);
  for (int i = 0; i < arguments.repeats; ++i) {
    comm.barrier();
    const double wall = wall_seconds(), cpu = cpu_seconds();
    run(space);
    samples.cpu.push_back(cpu_seconds() - cpu);
    double took = wall_seconds() - wall;
    comm.max(&took, 1);
    samples.wall.push_back(took);
  }
  return samples;
}

/// "convolution 3x3 32x360x360 -> 64x360x360"
std::string described(const Tape& tape, const Operation& operation) {
  const auto text = [&](umbriel::nn::Value value) {
    const umbriel::Extents e = tape.extents(value);
    return std::to_string(e.c) + "x" + std::to_string(e.h) + "x" + std::to_string(e.w);
  };
  std::string words(operation.name());
  if (!operation.inputs.empty()) words += " " + text(operation.inputs[0]);
  return words + " -> " + text(operation.output);
}

/// Processor seconds by operation, least of the repeats of each, and the rate where an operation counts its FLOPs.
class Profile {
 public:
  template <class F>
  void add(const std::string& name, double flops, int repeat, const F& f) {
    const double start = cpu_seconds();
    f();
    const double took = cpu_seconds() - start;
    if (repeat == 0) {
      entries_.push_back({name, flops, took});
      next_ = 0;
    } else {
      Entry& entry = entries_[next_++ % entries_.size()];
      entry.seconds = std::min(entry.seconds, took);
    }
  }

  void print() const {
    std::map<std::string, Entry> kinds;
    double total = 0;
    for (const Entry& entry : entries_) {
      Entry& kind = kinds[entry.name];
      kind.seconds += entry.seconds;
      kind.flops += entry.flops;
      ++kind.count;
      total += entry.seconds;
    }
    for (const auto& [name, kind] : kinds) {
      std::printf("%9.3f ms %5.1f %%  %3d x  %s", 1e3 * kind.seconds, 100 * kind.seconds / total, kind.count,
                  name.c_str());
      if (kind.flops > 0) std::printf("  %.0f GFLOP/s", 1e-9 * kind.flops / kind.seconds);
      std::printf("\n");
    }
    std::printf("%9.3f ms in all\n", 1e3 * total);
  }

 private:
  struct Entry {
    std::string name;
    double flops = 0, seconds = 0;
    int count = 0;
  };
  std::vector<Entry> entries_;
  std::size_t next_ = 0;
};

void profile_forward(Profile& profile, const Space& space, const Tape& tape, int repeat) {
  for (const auto& operation : tape.operations()) {
    if (tape.left_out(operation->output)) continue;
    profile.add(described(tape, *operation), operation->flops(tape), repeat, [&] {
      operation->forward(space, tape);
      space.fence();
    });
  }
}

void profile_backward(Profile& profile, const Space& space, const Tape& tape, int repeat) {
  for (std::size_t i = tape.operations().size(); i-- > 0;) {
    Operation& operation = *tape.operations()[i];
    if (!tape.wants_gradient(operation.output) || tape.left_out(operation.output)) continue;
    profile.add("backward " + described(tape, operation), 2 * operation.flops(tape), repeat, [&] {
      operation.backward(space, tape);
      space.fence();
    });
  }
}

void run(const Communicator& comm, const Arguments& arguments) {
  const umbriel::Config config = arguments.config.empty() ? umbriel::Config::parse("network.kind = \"uresnet18\"")
                                                          : umbriel::Config::load(arguments.config);
  const umbriel::nn::Options options{umbriel::backend_named(arguments.backend),
                                     umbriel::precision_named(arguments.precision), comm};
  const Space space;
  Samples samples;
  double flops = 0;
  Profile profile;
  if (arguments.pass == "frozen") {
    const umbriel::bench::FrozenRun frozen(config, arguments.size, arguments.batch, options);
    samples = time(comm, arguments, frozen);
    flops = frozen.flops();
    for (int i = 0; arguments.by_operation && i < arguments.repeats; ++i)
      profile_forward(profile, space, frozen.tape(), i);
  } else {
    umbriel::require(arguments.batch % comm.size() == 0, umbriel::ExitCode::usage,
                     "the batch cannot be shared evenly by the ranks", "--batch", "give a multiple of the ranks");
    umbriel::bench::TrainingRun training(config, arguments.size, arguments.batch / comm.size(), options);
    samples = time(comm, arguments, training);
    flops = training.flops();
    for (int i = 0; arguments.by_operation && i < arguments.repeats; ++i) {
      profile.add("load parameters", 0, i, [&] {
        for (const auto& operation : training.tape().operations()) operation->load_parameters(space, training.tape());
      });
      profile_forward(profile, space, training.tape(), i);
      profile.add("gradient of the loss", 0, i, [&] { training.set_output_gradient(space); });
      profile_backward(profile, space, training.tape(), i);
      profile.add("optimiser", 0, i, [&] {
        training.optimiser().step(space, 1e-4);
        space.fence();
      });
    }
  }
  if (!comm.is_root()) return;
  if (arguments.by_operation) profile.print();
  const int maps = arguments.pass == "frozen" ? arguments.batch * comm.size() : arguments.batch;
  const nlohmann::json line = {{"pass", arguments.pass},
                               {"size", arguments.size},
                               {"precision", arguments.precision},
                               {"maps", maps},
                               {"ranks", comm.size()},
                               {"threads", space.concurrency()},
                               {"flops", flops * comm.size()},
                               {"wall", samples.wall},
                               {"cpu", samples.cpu},
                               {"device", umbriel::device_name()},
                               {"libraries", umbriel::library_versions()},
                               {"version", umbriel::version()},
                               {"revision", umbriel::git_revision()}};
  std::printf("%s\n", line.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  umbriel::MpiSession mpi(argc, argv);
  const Communicator comm = Communicator::world();
  Arguments arguments;
  CLI::App app("Seconds that a network takes: the published UResNet18, or that of a configuration");
  app.add_option("--config", arguments.config, "configuration whose network is timed (TOML, network.*)");
  app.add_option("--pass", arguments.pass, "what is timed")
      ->check(CLI::IsMember({"frozen", "training"}))
      ->capture_default_str();
  app.add_option("--size", arguments.size, "side of the maps in pixels")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch", arguments.batch, "maps: frozen, on each rank; in a training step, on all ranks together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--backend", arguments.backend, "of convolutions: automatic, kokkos, onednn or cudnn")
      ->capture_default_str();
  app.add_option("--precision", arguments.precision, "of their products: float32, tf32 or bfloat16")
      ->capture_default_str();
  app.add_option("--repeats", arguments.repeats)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--warm-up", arguments.warm_up, "repeats before those that are timed")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--by-operation", arguments.by_operation, "also print processor time by operation");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& outcome) {
    return comm.is_root() ? app.exit(outcome) : outcome.get_exit_code();
  }
  const Kokkos::ScopeGuard kokkos(argc, argv);
  try {
    run(comm, arguments);
  } catch (const umbriel::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    umbriel::abort_job(static_cast<int>(error.code()));
  }
  return 0;
}
