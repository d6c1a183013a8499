// Convolutions in Kokkos for any geometry and any device: a thread computes a few neighbouring outputs and channels in
// registers, so that every value it loads is used several times; neighbouring threads take neighbouring channels, so
// that they load weights side by side.
//
// On processors conv2d_host.cpp is many times faster, and leaves to this file only what it does not cover.
#include <algorithm>

#include "umbriel/core/views.hpp"
#include "umbriel/ops/activation_math.hpp"
#include "umbriel/ops/conv2d_implementation.hpp"
#include "umbriel/ops/packs.hpp"

namespace umbriel {
namespace {

constexpr int tile_pixels = 4, tile_channels = 4;

// Arrays are registers on a device only where every index into them is known when the kernel is compiled.
#ifdef __CUDA_ARCH__
#define UMBRIEL_UNROLL _Pragma("unroll")
#else
#define UMBRIEL_UNROLL
#endif

constexpr int blocks_of(int count, int size) { return (count + size - 1) / size; }

/// A layer's integers, for kernels.
struct Layer {
  Conv2dGeometry g;
  int h, w, out_h, out_w;
  int group_in, group_out;

  Layer(const Conv2dGeometry& geometry, Extents input)
      : g(geometry),
        h(input.h),
        w(input.w),
        out_h(geometry.output_height(input.h)),
        out_w(geometry.output_width(input.w)),
        group_in(geometry.c_in / geometry.groups),
        group_out(geometry.c_out / geometry.groups) {}
};

/// Where coordinate i of the padded map lies in the map of `extent`, or -1 for a zero.
KOKKOS_INLINE_FUNCTION int inside(int i, int extent, Padding padding) {
  if (padding == Padding::zeros) return i >= 0 && i < extent ? i : -1;
  const int r = i % extent;
  return r < 0 ? r + extent : r;
}

/// y for tile_pixels pixels of a row and tile_channels channels of a group.
struct Forward {
  Layer layer;
  ConstActivations x;
  const float* weights;  ///< [ky, kx, ci, co]
  const float* bias;
  ConstActivations residual;
  Activation activation;
  Activations y;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const Conv2dGeometry& g = layer.g;
    const int group_blocks = blocks_of(layer.group_out, tile_channels);
    const int channel_blocks = g.groups * group_blocks, pixel_blocks = blocks_of(layer.out_w, tile_pixels);
    const int block = static_cast<int>(i % channel_blocks);
    i /= channel_blocks;
    const int first_x = static_cast<int>(i % pixel_blocks) * tile_pixels;
    i /= pixel_blocks;
    const int oy = static_cast<int>(i % layer.out_h), n = static_cast<int>(i / layer.out_h);
    const int group = block / group_blocks, first_in_group = block % group_blocks * tile_channels;
    const int first = group * layer.group_out + first_in_group;
    const int channels =
        layer.group_out - first_in_group < tile_channels ? layer.group_out - first_in_group : tile_channels;
    float sums[tile_pixels][tile_channels] = {};
    for (int ky = 0; ky < g.kernel_y; ++ky) {
      const int iy = inside(oy * g.stride + ky - g.pad_y, layer.h, g.padding);
      if (iy < 0) continue;
      const float* row = &x(n, iy, 0, group * layer.group_in);
      for (int kx = 0; kx < g.kernel_x; ++kx) {
        const float* tap =
            weights + (ky * g.kernel_x + kx) * static_cast<std::int64_t>(layer.group_in) * g.c_out + first;
        const float* pixels[tile_pixels];
        for (int p = 0; p < tile_pixels; ++p) {
          const int ix = inside((first_x + p) * g.stride + kx - g.pad_x, layer.w, g.padding);
          pixels[p] = ix < 0 || first_x + p >= layer.out_w ? nullptr : row + ix * x.pitch;
        }
        for (int ci = 0; ci < layer.group_in; ++ci, tap += g.c_out) {
          float w[tile_channels];
          for (int c = 0; c < tile_channels; ++c) w[c] = tap[c < channels ? c : 0];
          for (int p = 0; p < tile_pixels; ++p) {
            const float value = pixels[p] ? pixels[p][ci] : 0.0f;
            for (int c = 0; c < tile_channels; ++c) sums[p][c] += value * w[c];
          }
        }
      }
    }
    for (int p = 0; p < tile_pixels && first_x + p < layer.out_w; ++p) {
      for (int c = 0; c < channels; ++c) {
        float value = sums[p][c];
        if (bias) value += bias[first + c];
        if (residual.data) value += residual(n, oy, first_x + p, first + c);
        y(n, oy, first_x + p, first + c) = activation_value(activation, value);
      }
    }
  }

  std::int64_t threads() const {
    return static_cast<std::int64_t>(x.extents.n) * layer.out_h * blocks_of(layer.out_w, tile_pixels) * layer.g.groups *
           blocks_of(layer.group_out, tile_channels);
  }
};

/// y of few channels from many, stride 1, on a device: a team computes strips of neighbouring pixels. Sixteen lanes
/// share a strip, each with four input channels of every sixty-four, so that a pixel's channels are loaded side by side
/// and a value, once loaded, serves every tap of its row. Lanes are added in index order.
struct ThinForward {
  static constexpr int strip = 8, lanes = 16, strips = 8, quad = 4, most_out = 4, most_kernel = 9;
  static constexpr int team_size = lanes * strips;
  using Policy = Kokkos::TeamPolicy<Space, Kokkos::IndexType<std::int64_t>>;
  using Scratch = Kokkos::View<float*, Space::scratch_memory_space, Kokkos::MemoryUnmanaged>;
  using Quad = detail::Pack<quad>;

  Layer layer;
  ConstActivations x;
  const float* weights;  ///< [ky, kx, ci, co]
  const float* bias;
  ConstActivations residual;
  Activation activation;
  Activations y;

  static bool suits(const Conv2dGeometry& g) {
    return !runs_on_host && g.groups == 1 && g.stride == 1 && g.c_out <= most_out && g.kernel_x <= most_kernel &&
           g.c_in >= 16 && g.c_in % quad == 0;
  }
  static bool suits(ConstActivations x) { return detail::suits_packs(x); }
  KOKKOS_INLINE_FUNCTION std::int64_t all_strips() const {
    return static_cast<std::int64_t>(x.extents.n) * layer.out_h * blocks_of(layer.out_w, strip);
  }
  static constexpr std::size_t scratch_floats = static_cast<std::size_t>(team_size) * most_out * strip;

  KOKKOS_INLINE_FUNCTION void operator()(const Policy::member_type& member) const {
    const Conv2dGeometry& g = layer.g;
    const int lane = member.team_rank() % lanes, local = member.team_rank() / lanes;
    const std::int64_t index = static_cast<std::int64_t>(member.league_rank()) * strips + local;
    const int strips_a_row = blocks_of(layer.out_w, strip);
    const bool inside_batch = index < all_strips();
    const int first_x = static_cast<int>(index % strips_a_row) * strip;
    const int oy = static_cast<int>(index / strips_a_row % layer.out_h);
    const int n = static_cast<int>(index / strips_a_row / layer.out_h);
    float sums[most_out][strip] = {};
    for (int ci = lane * quad; inside_batch && ci < g.c_in; ci += lanes * quad) {
      for (int ky = 0; ky < g.kernel_y; ++ky) {
        const int iy = inside(oy + ky - g.pad_y, layer.h, g.padding);
        if (iy < 0) continue;
        Quad row[strip + most_kernel - 1];
        UMBRIEL_UNROLL
        for (int i = 0; i < strip + most_kernel - 1; ++i) {
          const int ix = i < strip + g.kernel_x - 1 ? inside(first_x + i - g.pad_x, layer.w, g.padding) : -1;
          row[i] = ix < 0 ? Quad{} : Quad::load(&x(n, iy, ix, ci));
        }
        UMBRIEL_UNROLL
        for (int kx = 0; kx < most_kernel; ++kx) {
          if (kx >= g.kernel_x) continue;
          const float* tap = weights + (static_cast<std::int64_t>(ky * g.kernel_x + kx) * g.c_in + ci) * g.c_out;
          UMBRIEL_UNROLL
          for (int co = 0; co < most_out; ++co) {
            if (co >= g.c_out) continue;
            UMBRIEL_UNROLL
            for (int q = 0; q < quad; ++q) {
              const float w = tap[q * g.c_out + co];
              UMBRIEL_UNROLL
              for (int p = 0; p < strip; ++p) sums[co][p] += row[kx + p].value[q] * w;
            }
          }
        }
      }
    }
    const Scratch shared(member.team_scratch(0), scratch_floats);
    // [strip of the team][output channel][pixel][lane]
    UMBRIEL_UNROLL
    for (int co = 0; co < most_out; ++co) {
      UMBRIEL_UNROLL
      for (int p = 0; p < strip; ++p) shared(((local * most_out + co) * strip + p) * lanes + lane) = sums[co][p];
    }
    member.team_barrier();
    if (!inside_batch) return;
    for (int i = lane; i < g.c_out * strip; i += lanes) {
      const int co = i / strip, p = i % strip;
      if (first_x + p >= layer.out_w) continue;
      float value = 0;
      for (int l = 0; l < lanes; ++l) value += shared(((local * most_out + co) * strip + p) * lanes + l);
      if (bias) value += bias[co];
      if (residual.data) value += residual(n, oy, first_x + p, co);
      y(n, oy, first_x + p, co) = activation_value(activation, value);
    }
  }

  void run(const Space& space) const {
    const std::int64_t teams = (all_strips() + strips - 1) / strips;
    Kokkos::parallel_for(
        "umbriel::conv2d_thin_forward",
        Policy(space, teams, team_size).set_scratch_size(0, Kokkos::PerTeam(Scratch::shmem_size(scratch_floats))),
        *this);
  }
};

/// dx for one pixel and tile_channels channels of a group: a gather over the outputs that the pixel went into.
struct BackwardData {
  Layer layer;
  ConstActivations dy;
  const float* weights;  ///< transposed: [ky, kx, co, ci]
  Activations dx;
  bool accumulate;

  /// Smallest padded coordinate that shows pixel i below tap k; periodic maps show it again one extent further on.
  KOKKOS_INLINE_FUNCTION int first_sight(int i, int k, int pad, int extent) const {
    const int t = i + pad - k;
    if (layer.g.padding == Padding::zeros) return t;
    const int r = t % extent;
    return r < 0 ? r + extent : r;
  }

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const Conv2dGeometry& g = layer.g;
    const int group_blocks = blocks_of(layer.group_in, tile_channels), channel_blocks = g.groups * group_blocks;
    const int block = static_cast<int>(i % channel_blocks);
    i /= channel_blocks;
    const int ix = static_cast<int>(i % layer.w);
    i /= layer.w;
    const int iy = static_cast<int>(i % layer.h), n = static_cast<int>(i / layer.h);
    const int group = block / group_blocks, first_in_group = block % group_blocks * tile_channels;
    const int channels =
        layer.group_in - first_in_group < tile_channels ? layer.group_in - first_in_group : tile_channels;
    const bool periodic = g.padding == Padding::periodic;
    const int period_y = periodic ? layer.h : 1 << 30, period_x = periodic ? layer.w : 1 << 30;
    const int last_y = (layer.out_h - 1) * g.stride, last_x = (layer.out_w - 1) * g.stride;
    float sums[tile_channels] = {};
    for (int ky = 0; ky < g.kernel_y; ++ky) {
      for (int ty = first_sight(iy, ky, g.pad_y, layer.h); ty <= last_y; ty += period_y) {
        if (ty < 0 || ty % g.stride != 0) continue;
        for (int kx = 0; kx < g.kernel_x; ++kx) {
          for (int tx = first_sight(ix, kx, g.pad_x, layer.w); tx <= last_x; tx += period_x) {
            if (tx < 0 || tx % g.stride != 0) continue;
            const float* gradient = &dy(n, ty / g.stride, tx / g.stride, group * layer.group_out);
            const float* tap =
                weights + first_in_group +
                (static_cast<std::int64_t>(ky * g.kernel_x + kx) * g.c_out + group * layer.group_out) * layer.group_in;
            for (int co = 0; co < layer.group_out; ++co, tap += layer.group_in) {
              for (int c = 0; c < tile_channels; ++c) sums[c] += gradient[co] * tap[c < channels ? c : 0];
            }
          }
        }
      }
    }
    float* target = &dx(n, iy, ix, group * layer.group_in + first_in_group);
    for (int c = 0; c < channels; ++c) target[c] = accumulate ? target[c] + sums[c] : sums[c];
  }

  std::int64_t threads() const {
    return dx.extents.pixels() * layer.g.groups * blocks_of(layer.group_in, tile_channels);
  }
};

/// Partial sums of the gradient of tile_channels weights, of one tap and input channel, over every `stretches`-th row
/// of the batch: float32 along a row, float64 from row to row. Index `weights` (past the last) stands for the bias.
struct BackwardWeights {
  Layer layer;
  ConstActivations x, dy;
  View2<double> partial;  ///< [stretch, (ky, kx, ci, co) then bias (co)]
  int stretches;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    const Conv2dGeometry& g = layer.g;
    const int group_blocks = blocks_of(layer.group_out, tile_channels), channel_blocks = g.groups * group_blocks;
    const int block = static_cast<int>(i % channel_blocks);
    i /= channel_blocks;
    const int stretch = static_cast<int>(i % stretches);
    const int k = static_cast<int>(i / stretches);  // (ky, kx, ci), or the bias
    const bool of_bias = k == g.kernel_y * g.kernel_x * layer.group_in;
    const int ci = k % layer.group_in, kx = k / layer.group_in % g.kernel_x, ky = k / layer.group_in / g.kernel_x;
    const int group = block / group_blocks, first_in_group = block % group_blocks * tile_channels;
    const int first = group * layer.group_out + first_in_group;
    const int channels =
        layer.group_out - first_in_group < tile_channels ? layer.group_out - first_in_group : tile_channels;
    double sums[tile_channels] = {};
    for (int row = stretch; row < dy.extents.n * layer.out_h; row += stretches) {
      const int n = row / layer.out_h, oy = row % layer.out_h;
      const int iy = of_bias ? 0 : inside(oy * g.stride + ky - g.pad_y, layer.h, g.padding);
      if (iy < 0) continue;
      float row_sums[tile_channels] = {};
      const float* gradient = &dy(n, oy, 0, first);
      for (int ox = 0; ox < layer.out_w; ++ox, gradient += dy.pitch) {
        float value = 1.0f;
        if (!of_bias) {
          const int ix = inside(ox * g.stride + kx - g.pad_x, layer.w, g.padding);
          if (ix < 0) continue;
          value = x(n, iy, ix, group * layer.group_in + ci);
        }
        for (int c = 0; c < tile_channels; ++c) row_sums[c] += value * gradient[c < channels ? c : 0];
      }
      for (int c = 0; c < tile_channels; ++c) sums[c] += static_cast<double>(row_sums[c]);
    }
    for (int c = 0; c < channels; ++c) partial(stretch, static_cast<std::int64_t>(k) * g.c_out + first + c) = sums[c];
  }

  std::int64_t threads() const {
    return static_cast<std::int64_t>(layer.g.kernel_y * layer.g.kernel_x * layer.group_in + 1) * stretches *
           layer.g.groups * blocks_of(layer.group_out, tile_channels);
  }
};

/// The stretches' sums in index order.
struct SumStretches {
  View2<double> partial;
  std::int64_t weights;
  int stretches;
  float *dweights, *dbias;
  bool accumulate;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    float* target = i < weights ? dweights + i : dbias ? dbias + (i - weights) : nullptr;
    if (!target) return;
    double sum = 0;
    for (int s = 0; s < stretches; ++s) sum += partial(s, i);
    *target = accumulate ? *target + static_cast<float>(sum) : static_cast<float>(sum);
  }
};

struct CopyWeights {
  Layer layer;
  const float* weights;
  View1<float> direct, transposed;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const {
    if (direct.extent(0) > 0) direct(i) = weights[i];
    if (transposed.extent(0) == 0) return;
    const std::int64_t co = i % layer.g.c_out, ci = i / layer.g.c_out % layer.group_in;
    const std::int64_t tap = i / layer.g.c_out / layer.group_in;
    transposed((tap * layer.g.c_out + co) * layer.group_in + ci) = weights[i];
  }
};

class PortableConv2d final : public Conv2d::Implementation {
 public:
  PortableConv2d(const Conv2dGeometry& geometry, Extents input, const Passes& passes) : layer_(geometry, input) {
    if (passes.forward) weights_ = uninitialised<View1<float>>("umbriel::conv2d_weights", geometry.weights());
    if (passes.data) transposed_ = uninitialised<View1<float>>("umbriel::conv2d_transposed", geometry.weights());
    if (passes.weights) {
      // Enough threads for a device; a number that depends on the layer alone, so that sums have the same bits.
      stretches_ = std::min(layer_.out_h, 32);
      partial_ =
          uninitialised<View2<double>>("umbriel::conv2d_partial", stretches_, geometry.weights() + geometry.c_out);
    }
  }

  void set_weights(const Space& space, const float* weights) override {
    Kokkos::parallel_for("umbriel::conv2d_set_weights", Range(space, 0, layer_.g.weights()),
                         CopyWeights{layer_, weights, weights_, transposed_});
  }

  void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
               Activation activation, Activations y) const override {
    if constexpr (!runs_on_host) {
      if (ThinForward::suits(layer_.g) && ThinForward::suits(x)) {
        ThinForward{layer_, x, weights_.data(), bias, residual, activation, y}.run(space);
        return;
      }
    }
    const Forward kernel{layer_, x, weights_.data(), bias, residual, activation, y};
    Kokkos::parallel_for("umbriel::conv2d_forward", Range(space, 0, kernel.threads()), kernel);
  }

  void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const override {
    const BackwardData kernel{layer_, dy, transposed_.data(), dx, accumulate};
    Kokkos::parallel_for("umbriel::conv2d_backward_data", Range(space, 0, kernel.threads()), kernel);
  }

  void backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights, float* dbias,
                        bool accumulate) const override {
    const BackwardWeights kernel{layer_, x, dy, partial_, stretches_};
    Kokkos::parallel_for("umbriel::conv2d_backward_weights", Range(space, 0, kernel.threads()), kernel);
    const std::int64_t weights = layer_.g.weights();
    Kokkos::parallel_for("umbriel::conv2d_sum_stretches", Range(space, 0, weights + layer_.g.c_out),
                         SumStretches{partial_, weights, stretches_, dweights, dbias, accumulate});
  }

 private:
  Layer layer_;
  View1<float> weights_, transposed_;
  View2<double> partial_;
  int stretches_ = 0;
};

}  // namespace

std::unique_ptr<Conv2d::Implementation> make_portable_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                             const Passes& passes) {
  return std::make_unique<PortableConv2d>(geometry, input, passes);
}

}  // namespace umbriel
