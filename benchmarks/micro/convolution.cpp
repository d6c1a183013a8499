// Convolutions by layer, pass and backend, in GFLOP/s of one sample. fma is the floor above: fused multiply-adds on
// registers alone.
//
// The layers are those of the published score network on a 360 x 360 map (32, 64, 128, 128 channels at 360, 180, 90 and
// 45 pixels, a 7 x 7 convolution in and a 5 x 5 one out), 16 and 48 channels of smaller networks, the stride-2
// convolutions of autoencoders, and a depthwise one.
#include <benchmark/benchmark.h>

#include <string>

#include "fma.hpp"
#include "umbriel/ops/conv2d.hpp"

namespace umbriel::bench {
namespace {

struct LayerCase {
  const char* name;
  int kernel, c_in, c_out, stride, side;
  int groups = 1;
};

constexpr LayerCase layers[] = {
    {"7x7_3_32_360", 7, 3, 32, 1, 360},     {"3x3_32_32_360", 3, 32, 32, 1, 360},
    {"3x3_32_64_180", 3, 32, 64, 1, 180},   {"3x3_64_64_180", 3, 64, 64, 1, 180},
    {"3x3_128_128_90", 3, 128, 128, 1, 90}, {"3x3_128_128_45", 3, 128, 128, 1, 45},
    {"1x1_64_128_90", 1, 64, 128, 1, 90},   {"5x5_64_1_360", 5, 64, 1, 1, 360},
    {"3x3_16_16_64", 3, 16, 16, 1, 64},     {"3x3_48_48_64", 3, 48, 48, 1, 64},
    {"3x3_1_16_64", 3, 1, 16, 1, 64},       {"3x3_16_1_64", 3, 16, 1, 1, 64},
    {"4x4s2_64_128_64", 4, 64, 128, 2, 64}, {"3x3_depthwise_64_90", 3, 64, 64, 1, 90, 64},
};

enum class Pass { forward, data, weights };

View1<float> filled(std::int64_t size, float scale) {
  const View1<float> values("values", size);
  Kokkos::parallel_for(
      "umbriel::bench_fill", Range(Space(), 0, size),
      KOKKOS_LAMBDA(std::int64_t i) { values(i) = scale * static_cast<float>((i * 7919) % 1009 - 504) / 504.0f; });
  return values;
}

void convolution(benchmark::State& state, const LayerCase& layer, Pass pass, Backend backend) {
  const Space space;
  Conv2dGeometry g;
  g.c_in = layer.c_in;
  g.c_out = layer.c_out;
  g.kernel_y = g.kernel_x = layer.kernel;
  g.stride = layer.stride;
  g.groups = layer.groups;
  g.pad_y = g.pad_x = (layer.kernel - 1) / 2;
  const Extents in{1, layer.side, layer.side, layer.c_in};
  Conv2d conv(g, in, pass != Pass::forward, backend);
  const Extents out = conv.output();
  const View1<float> x = filled(in.elements(), 1), y = filled(out.elements(), 1), w = filled(g.weights(), 0.1f),
                     dw = filled(g.weights(), 0), bias = filled(g.c_out, 1), db = filled(g.c_out, 1);
  conv.set_weights(space, w.data());
  const auto call = [&] {
    if (pass == Pass::forward) {
      conv.forward(space, {x.data(), in}, bias.data(), {}, Activation::relu, {y.data(), out});
    } else if (pass == Pass::data) {
      conv.backward_data(space, {y.data(), out}, {x.data(), in}, false);
    } else {
      conv.backward_weights(space, {x.data(), in}, {y.data(), out}, dw.data(), db.data(), false);
    }
    space.fence();
  };
  call();
  for (auto _ : state) call();
  state.counters["GFLOP/s"] = benchmark::Counter(conv.flops() * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

/// See fma.hpp.
void fma(benchmark::State& state) {
  constexpr int repeats = 1000;
  float values[fma_chains] = {};
  for (auto _ : state) multiply_add(values, repeats);
  state.counters["GFLOP/s"] =
      benchmark::Counter(1e-9 * fma_flops * repeats, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(fma)->Unit(benchmark::kMicrosecond)->UseRealTime();

[[maybe_unused]] const bool registered = [] {
  for (const LayerCase& layer : layers) {
    for (const auto& [pass, pass_name] :
         {std::pair{Pass::forward, "forward"}, {Pass::data, "backward_data"}, {Pass::weights, "backward_weights"}}) {
      for (const Backend backend : {Backend::kokkos, Backend::onednn, Backend::cudnn}) {
        if (!has_backend(backend)) continue;
        const std::string name = std::string("convolution/")
                                     .append(layer.name)
                                     .append("/")
                                     .append(pass_name)
                                     .append("/")
                                     .append(name_of(backend));
        benchmark::RegisterBenchmark(name.c_str(), convolution, layer, pass, backend)
            ->Unit(benchmark::kMicrosecond)
            ->UseRealTime();
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace umbriel::bench
