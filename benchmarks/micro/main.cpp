// Micro-benchmarks of the kernels and of the posterior. To reproduce the figures of the documentation:
//
//   OMP_NUM_THREADS=1 taskset -c 0 bin/bench_micro --benchmark_enable_random_interleaving=true
//       --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
//       --benchmark_out=micro.json --benchmark_out_format=json
//
// Repetitions run interleaved, so that a noisy spell of a shared machine hits all benchmarks alike; compare medians.
// Sizes are the side of the map and the batch: fft_pair/360/4 transforms four maps of 360 x 360.
#include <benchmark/benchmark.h>

#include "umbriel/base/provenance.hpp"
#include "umbriel/core/kokkos.hpp"

int main(int argc, char** argv) {
  const Kokkos::ScopeGuard kokkos(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("umbriel_version", umbriel::version());
  benchmark::AddCustomContext("umbriel_revision", umbriel::git_revision());
  benchmark::AddCustomContext("libraries", umbriel::library_versions());
  benchmark::AddCustomContext("device", umbriel::device_name());
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
