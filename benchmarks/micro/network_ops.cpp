// Pointwise ops, normalisations and resampling of networks: all bound by memory, so bytes/s is to be held against
// copy_activations of the same run. Bytes are those that an op must move at least, each array once.
//
// Sizes: batch, side and channels of the activations.
#include "sizes.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/ops/normalization.hpp"
#include "umbriel/ops/resample.hpp"

namespace umbriel::bench {
namespace {

struct Arrays {
  Extents extents;
  View1<float> memory;
  Activations x, y, z;
  View1<float> ones, zeros, factors;
  View2<float> modulation;
  View1<double> sums, samples;
  View3<float> moments;
  View3<double> scratch;

  explicit Arrays(const benchmark::State& state)
      : extents{static_cast<int>(state.range(0)), static_cast<int>(state.range(1)), static_cast<int>(state.range(1)),
                static_cast<int>(state.range(2))},
        memory("memory", 3 * extents.elements()),
        x(memory.data(), extents),
        y(memory.data() + extents.elements(), extents),
        z(memory.data() + 2 * extents.elements(), extents),
        ones("ones", extents.c),
        zeros("zeros", extents.c),
        factors("factors", extents.n),
        modulation("modulation", 4, extents.n * extents.c),
        sums("sums", 2 * extents.c),
        samples("samples", extents.n),
        moments("moments", extents.n, groups(), 2),
        scratch("scratch", extents.n, extents.c, 2) {
    Kokkos::deep_copy(memory, 0.5f);
    Kokkos::deep_copy(ones, 1.0f);
    Kokkos::deep_copy(moments, 1.0f);
  }

  /// Scale, shift and their gradients, [N, 1, 1, C] each.
  Activations modulations(int i) const { return {&modulation(i, 0), {extents.n, 1, 1, extents.c}}; }
  int groups() const { return extents.c % 8 == 0 ? 8 : 1; }
};

/// Times `op`, which moves `passes` arrays of 4 bytes an element.
template <class Op>
void time(benchmark::State& state, double passes, const Op& op) {
  const Space space;
  const Arrays a(state);
  for (auto _ : state) {
    op(space, a);
    space.fence();
  }
  count_bytes(state, 4 * passes * static_cast<double>(a.extents.elements()));
}

void copy_activations(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { copy_channels(s, a.x, a.y); });
}
void fill_constant(benchmark::State& state) {
  time(state, 1, [](const Space& s, const Arrays& a) { fill(s, 0.5f, a.x); });
}
void fill_planes(benchmark::State& state) {
  time(state, 1, [](const Space& s, const Arrays& a) { fill_samples(s, a.factors, a.x); });
}
void scale_each_sample(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { scale_samples(s, a.x, a.factors, a.y); });
}
void product(benchmark::State& state) {
  time(state, 3, [](const Space& s, const Arrays& a) { multiply(s, a.x, a.y, a.z); });
}
void modulation(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { modulate(s, a.x, a.modulations(0), a.modulations(1), a.y); });
}
void modulation_backward(benchmark::State& state) {
  time(state, 4, [](const Space& s, const Arrays& a) {
    modulate_backward(s, a.x, a.modulations(0), a.y, a.z, false, a.modulations(2), a.modulations(3), a.scratch);
  });
}
void add(benchmark::State& state) {
  time(state, 3, [](const Space& s, const Arrays& a) { linear_combination(s, 1, a.x, 1, a.y, a.z); });
}
void activation_relu(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { activate(s, Activation::relu, a.x, a.y); });
}
void activation_silu(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { activate(s, Activation::silu, a.x, a.y); });
}
void activation_elu(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { activate(s, Activation::elu, a.x, a.y); });
}
void activation_tanh(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { activate(s, Activation::tanh, a.x, a.y); });
}
void activation_softplus(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { activate(s, Activation::softplus, a.x, a.y); });
}
void activation_silu_backward(benchmark::State& state) {
  time(state, 3, [](const Space& s, const Arrays& a) { activate_backward(s, Activation::silu, a.x, a.y, a.z, false); });
}
void batch_norm_moments(benchmark::State& state) {
  time(state, 1, [](const Space& s, const Arrays& a) { channel_moments(s, a.x, a.zeros.data(), a.sums); });
}
void batch_norm_apply_silu(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) {
    scale_shift(s, a.x, a.ones.data(), a.zeros.data(), {}, Activation::silu, a.y);
  });
}
void batch_norm_sums_silu(benchmark::State& state) {
  time(state, 3, [](const Space& s, const Arrays& a) {
    batch_norm_backward_sums(s, a.x, a.y, a.y, a.zeros.data(), a.ones.data(), a.ones.data(), a.zeros.data(),
                             Activation::silu, a.z, a.sums);
  });
}
void batch_norm_data(benchmark::State& state) {
  time(state, 3, [](const Space& s, const Arrays& a) {
    batch_norm_backward_data(s, a.x, a.y, a.zeros.data(), a.ones.data(), a.ones.data(), a.sums,
                             static_cast<double>(a.extents.pixels()), a.z, false);
  });
}
void group_norm_silu(benchmark::State& state) {
  time(state, 3, [](const Space& s, const Arrays& a) {
    group_norm(s, a.x, a.groups(), 1e-5f, a.ones.data(), a.zeros.data(), Activation::silu, a.y, a.moments);
  });
}
void group_norm_silu_backward(benchmark::State& state) {
  time(state, 5, [](const Space& s, const Arrays& a) {
    group_norm_backward(s, a.x, a.y, a.groups(), a.ones.data(), a.zeros.data(), Activation::silu, a.moments, a.z, false,
                        a.ones.data(), a.zeros.data(), a.scratch);
  });
}
void sample_dot(benchmark::State& state) {
  time(state, 2, [](const Space& s, const Arrays& a) { dot_samples(s, a.x, a.y, a.samples); });
}
void sample_sum(benchmark::State& state) {
  time(state, 1, [](const Space& s, const Arrays& a) { sum_samples(s, a.x, a.samples); });
}
void sample_square(benchmark::State& state) {
  time(state, 1, [](const Space& s, const Arrays& a) { square_samples(s, a.x, a.samples); });
}
void pixel_sum(benchmark::State& state) {
  time(state, 1, [](const Space& s, const Arrays& a) { sum_pixels(s, a.x, a.zeros.data(), false); });
}
Activations halved(const Activations& y) {
  return {y.data, {y.extents.n, y.extents.h / 2, y.extents.w / 2, y.extents.c}, y.pitch};
}
void pool(benchmark::State& state) {
  time(state, 1.25, [](const Space& s, const Arrays& a) { average_pool(s, a.x, 2, halved(a.y)); });
}
void upsample(benchmark::State& state) {
  time(state, 1.25, [](const Space& s, const Arrays& a) { upsample_nearest(s, halved(a.x), 2, a.y); });
}

void pool_backward(benchmark::State& state) {
  time(state, 1.25, [](const Space& s, const Arrays& a) { average_pool_backward(s, halved(a.x), 2, a.y, false); });
}
void upsample_backward(benchmark::State& state) {
  time(state, 1.25, [](const Space& s, const Arrays& a) { upsample_nearest_backward(s, a.x, 2, halved(a.y), false); });
}

void activation_sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({1, 360, 32})->Args({16, 64, 32})->Args({1, 360, 1});
  benchmark->Unit(benchmark::kMicrosecond)->UseRealTime();
}

}  // namespace

BENCHMARK(copy_activations)->Apply(activation_sizes);
BENCHMARK(fill_constant)->Apply(activation_sizes);
BENCHMARK(fill_planes)->Apply(activation_sizes);
BENCHMARK(scale_each_sample)->Apply(activation_sizes);
BENCHMARK(add)->Apply(activation_sizes);
BENCHMARK(product)->Apply(activation_sizes);
BENCHMARK(modulation)->Apply(activation_sizes);
BENCHMARK(modulation_backward)->Apply(activation_sizes);
BENCHMARK(activation_relu)->Apply(activation_sizes);
BENCHMARK(activation_silu)->Apply(activation_sizes);
BENCHMARK(activation_softplus)->Apply(activation_sizes);
BENCHMARK(activation_elu)->Apply(activation_sizes);
BENCHMARK(activation_tanh)->Apply(activation_sizes);
BENCHMARK(activation_silu_backward)->Apply(activation_sizes);
BENCHMARK(batch_norm_moments)->Apply(activation_sizes);
BENCHMARK(batch_norm_apply_silu)->Apply(activation_sizes);
BENCHMARK(batch_norm_sums_silu)->Apply(activation_sizes);
BENCHMARK(batch_norm_data)->Apply(activation_sizes);
BENCHMARK(group_norm_silu)->Apply(activation_sizes);
BENCHMARK(group_norm_silu_backward)->Apply(activation_sizes);
BENCHMARK(sample_dot)->Apply(activation_sizes);
BENCHMARK(sample_sum)->Apply(activation_sizes);
BENCHMARK(sample_square)->Apply(activation_sizes);
BENCHMARK(pixel_sum)->Apply(activation_sizes);
BENCHMARK(pool)->Apply(activation_sizes);
BENCHMARK(pool_backward)->Apply(activation_sizes);
BENCHMARK(upsample)->Apply(activation_sizes);
BENCHMARK(upsample_backward)->Apply(activation_sizes);

}  // namespace umbriel::bench
