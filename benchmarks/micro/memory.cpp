// Bandwidth of the memory the kernels use: the floor under every pass over maps.
//
// triad reads two floats and writes one per element, as STREAM's (McCalpin 1995): 12 bytes, 2 FLOP. Arrays of 0.5 MiB
// (one map of 360 x 360) stay in a core's level-2 cache, arrays of 256 MiB do not stay in any.
#include "sizes.hpp"

namespace umbriel::bench {
namespace {

void memory_triad(benchmark::State& state) {
  const Space space;
  const auto n = state.range(0) / static_cast<std::int64_t>(sizeof(float));
  const View1<float> a("a", n), b("b", n), c("c", n);
  Kokkos::deep_copy(b, 1.0f);
  Kokkos::deep_copy(c, 2.0f);
  for (auto _ : state) {
    Kokkos::parallel_for(
        "umbriel::bench_triad", Kokkos::RangePolicy<Space>(space, 0, n),
        KOKKOS_LAMBDA(const std::int64_t i) { a(i) = b(i) + 3.0f * c(i); });
    space.fence();
  }
  count_bytes(state, 12.0 * static_cast<double>(n));
}

}  // namespace

BENCHMARK(memory_triad)->Arg(512 << 10)->Arg(256 << 20)->Unit(benchmark::kMicrosecond)->UseRealTime();

}  // namespace umbriel::bench
