/// The peak of one core where the kernels run on the host: multiply-adds on registers alone.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>

namespace umbriel::bench {

constexpr int fma_chains = 192;  ///< independent ones, enough to hide the latency
constexpr double fma_flops = 2.0 * fma_chains;

inline void multiply_add(float (&values)[fma_chains], int repeats) {
  constexpr float factor = 0.999f, term = 1e-3f;
  for (int r = 0; r < repeats; ++r) {
    for (int i = 0; i < fma_chains; ++i) values[i] = values[i] * factor + term;
  }
  benchmark::DoNotOptimize(values);
}

/// FLOP/s, the best of many short runs; measured at the first call.
inline double fma_peak() {
  static const double peak = [] {
    float values[fma_chains] = {};
    constexpr int repeats = 100000;
    double best = 0;
    for (int run = 0; run < 50; ++run) {
      const auto start = std::chrono::steady_clock::now();
      multiply_add(values, repeats);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      best = std::max(best, fma_flops * repeats / took.count());
    }
    return best;
  }();
  return peak;
}

}  // namespace umbriel::bench
