/// What the micro-benchmarks share: sizes and the traffic counter.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>

#include "umbriel/core/views.hpp"

namespace umbriel::bench {

/// Sides and batches of every benchmark of maps.
inline void arguments(benchmark::internal::Benchmark* benchmark) {
  for (const int side : {64, 360}) {
    for (const int batch : {1, 4}) benchmark->Args({side, batch});
  }
  benchmark->Unit(benchmark::kMicrosecond);
}
inline void map_sizes(benchmark::internal::Benchmark* benchmark) {
  arguments(benchmark);
  benchmark->UseRealTime();
}
inline void map_sizes_by_hand(benchmark::internal::Benchmark* benchmark) {
  arguments(benchmark);
  benchmark->UseManualTime();
}

inline Grid grid_of(const benchmark::State& state) {
  return {static_cast<int>(state.range(0)), static_cast<int>(state.range(0))};
}

inline int batch_of(const benchmark::State& state) { return static_cast<int>(state.range(1)); }

/// Bytes that one iteration must at least move, as a rate: the floor is memory/copy, from the same run.
inline void count_bytes(benchmark::State& state, double bytes) {
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
}

}  // namespace umbriel::bench
