// Transforms and random numbers: what an evaluation of the posterior is made of.
#include "sizes.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/inference/spectra.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel::bench {
namespace {

// Forward and inverse. A real transform of N = side^2 pixels takes about 2.5 N log2 N FLOP, counted as usual for an
// FFT; a pair at 360 x 360 takes 11 MFLOP. Traffic: map and spectrum once each way, 16 bytes a pixel.
void fft_pair(benchmark::State& state) {
  const Space space;
  const Grid grid = grid_of(state);
  const int n = batch_of(state);
  const RealFft fft(grid);
  const MapBatch maps("maps", n, grid.height, grid.width);
  const SpectrumBatch spectra("spectra", n, grid.height, grid.half_width());
  for (auto _ : state) {
    fft.forward(space, maps, spectra, n);
    fft.inverse(space, spectra, maps, n);
    space.fence();
  }
  const double pixels = static_cast<double>(n) * static_cast<double>(grid.pixels());
  count_bytes(state, 16 * pixels);
  state.counters["flops"] = benchmark::Counter(5 * pixels * std::log2(static_cast<double>(grid.pixels())),
                                               benchmark::Counter::kIsIterationInvariantRate);
}

// Philox4x32-10 and Box-Muller, 4 bytes a pixel written: bound by arithmetic (some 60 FLOP and 25 integer operations a
// number), not by memory.
void normals_fill(benchmark::State& state) {
  const Space space;
  const Grid grid = grid_of(state);
  const int n = batch_of(state);
  const MapBatch maps("maps", n, grid.height, grid.width);
  const View1<DrawKey> keys("keys", n);
  std::vector<DrawKey> addresses(n);
  for (int i = 0; i < n; ++i) addresses[i].chain = static_cast<std::uint32_t>(i);
  upload(addresses, keys);
  for (auto _ : state) {
    fill_normals(space, maps, keys, n);
    space.fence();
  }
  const double pixels = static_cast<double>(n) * static_cast<double>(grid.pixels());
  count_bytes(state, 4 * pixels);
  state.counters["normals"] = benchmark::Counter(pixels, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

BENCHMARK(fft_pair)->Apply(map_sizes);
BENCHMARK(normals_fill)->Apply(map_sizes);

}  // namespace umbriel::bench
