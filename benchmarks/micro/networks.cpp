// Whole networks: frozen, one map at a time, and steps of training on 16 maps of 64 x 64.
//
// The published network needs 56 GFLOP for 360 x 360 pixels, 45 once convolutions behind upsamplings run on the coarse
// map; GFLOP/s counts those that are computed. of_peak is their share of the peak that multiply-adds on registers reach
// in the same process, on one core (nothing is said on a device). A step takes three forward passes.
#include "../networks/runs.hpp"

#include <benchmark/benchmark.h>

#include <chrono>

#include "fma.hpp"

namespace umbriel::bench {
namespace {

/// The published network, and the one of the configuration that is shipped.
Config network_named(const std::string& name) {
  if (name == "uresnet18") return Config::parse("network.kind = \"uresnet18\"");
  return Config::load(UMBRIEL_SOURCE_DIR "/jobs/configs/prior.toml");
}

template <class Run>
void time(benchmark::State& state, Run& run) {
  const Space space;
  run(space);
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) run(space);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const double rate = run.flops() * static_cast<double>(state.iterations()) / took.count();
  state.counters["GFLOP/s"] = 1e-9 * rate;
  if constexpr (runs_on_host) state.counters["of_peak"] = rate / (fma_peak() * space.concurrency());
}

void frozen(benchmark::State& state, const std::string& network) {
  const FrozenRun run(network_named(network), static_cast<int>(state.range(0)), 1);
  time(state, run);
}

void training(benchmark::State& state, const std::string& network) {
  TrainingRun run(network_named(network), static_cast<int>(state.range(0)), 16);
  time(state, run);
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->Arg(64)->Arg(128)->Arg(360)->Unit(benchmark::kMillisecond)->UseRealTime();
}
void training_size(benchmark::internal::Benchmark* benchmark) {
  benchmark->Arg(64)->Unit(benchmark::kMillisecond)->UseRealTime();
}

}  // namespace

BENCHMARK_CAPTURE(frozen, uresnet18, "uresnet18")->Apply(sizes);
BENCHMARK_CAPTURE(frozen, prior, "prior")->Apply(sizes);
BENCHMARK_CAPTURE(training, uresnet18, "uresnet18")->Apply(training_size);
BENCHMARK_CAPTURE(training, prior, "prior")->Apply(training_size);

}  // namespace umbriel::bench
