// Convolutions on processors: register-blocked kernels written for the vector registers of the machine they are
// compiled for.
//
// Forward. A tile is up to tile_pixels pixels of a row times tile_vectors vectors of output channels, all of whose sums
// stay in registers while taps and input channels go by: each step broadcasts one value a pixel and loads
// tile_vectors vectors of weights, which were packed in just that order. Where pixels are dense, (kx, ci) is one loop
// over neighbouring floats, so that layers with few input channels run as fast. Tiles at the border, and thin slices,
// read a small copy of their surroundings with the padding in it. Bias, residual and activation are applied before the
// one store.
//
// For inference, kernels of 3 x 3 and 2 x 2 go by Winograd's algorithm instead (conv2d_winograd.cpp).
//
// Gradient of the input. The same kernel with turned weights; a stride s makes s * s such convolutions, one for each
// remainder of the coordinates.
//
// Gradient of the weights. A tile is tile_pixels neighbouring (kx, ci) times vectors of output channels, summed over
// the pixels of a few rows in float32, and from one such block to the next in float64, in an order that depends on the
// layer alone.
//
// Dense layers, whose maps are one pixel, take samples for pixels and their weights as they were given.
//
// Layers with one to three output channels fill vectors with (kx, ci) instead, and depthwise layers with channels.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "umbriel/core/loops.hpp"
#include "umbriel/core/views.hpp"
#include "umbriel/ops/activation_math.hpp"
#include "umbriel/ops/conv2d_host.hpp"
#include "umbriel/ops/conv2d_implementation.hpp"
#include "umbriel/ops/conv2d_winograd.hpp"

namespace umbriel {
namespace {

using namespace host;

constexpr int thin_channels = 3;  ///< at most so many outputs make a thin layer

/// What a kernel needs to know of one tile.
struct Tile {
  const float* source;  ///< first channel of the first tap of the first pixel
  std::int64_t row_step, segment_step, pixel_step;
  int rows, segments, length;  ///< taps: rows of `segments` runs of `length` floats
  const float* weights;        ///< packed: [row, segment, run, output]
  const float* bias;           ///< or null
  const float* residual;       ///< or null
  float* target;
  std::int64_t residual_step, target_step;
  int channels;  ///< outputs
  Activation activation;
};

using TileKernel = void (*)(const Tile&);

/// f for the outputs of a tile where it is more than a comparison.
void activate_tile(const Tile& t, int pixels) {
  with_activation(t.activation, [&](auto f) {
    for (int m = 0; m < pixels; ++m) {
      float* values = t.target + m * t.target_step;
      UMBRIEL_INDEPENDENT_ITERATIONS
      for (int c = 0; c < t.channels; ++c) values[c] = activated<f()>(values[c]);
    }
  });
}

/// Stores a tile; `whole` where its vectors are full, so that all sums stay in registers.
template <int M, int V, bool whole>
inline void finish_tile(const Tile& t, Vector (&sums)[M][V]) {
  const auto count = [&](int v) { return whole ? lanes : t.channels - v * lanes; };
  if (t.bias) {
    for (int v = 0; v < V; ++v) {
      const Vector bias = load_first(t.bias + v * lanes, count(v));
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) sums[m][v] += bias;
    }
  }
  if (t.residual) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      for (int v = 0; v < V; ++v) sums[m][v] += load_first(t.residual + m * t.residual_step + v * lanes, count(v));
    }
  }
  if (t.activation == Activation::relu) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      for (int v = 0; v < V; ++v) sums[m][v] = sums[m][v] < 0.0f ? Vector{} : sums[m][v];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    for (int v = 0; v < V; ++v) store_first(t.target + m * t.target_step + v * lanes, sums[m][v], count(v));
  }
  if (t.activation != Activation::none && t.activation != Activation::relu) activate_tile(t, M);
}

/// M pixels, V vectors of outputs.
template <int M, int V>
void convolve_tile(const Tile& t) {
  Vector sums[M][V] = {};
  const float* weights = t.weights;
  const std::int64_t step = t.pixel_step;
  for (int row = 0; row < t.rows; ++row) {
    for (int segment = 0; segment < t.segments; ++segment) {
      const float* source = t.source + row * t.row_step + segment * t.segment_step;
      for (int k = 0; k < t.length; ++k, ++source, weights += V * lanes) {
        Vector w[V];
        for (int v = 0; v < V; ++v) w[v] = load(weights + v * lanes);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
          const float x = source[m * step];
          for (int v = 0; v < V; ++v) sums[m][v] += w[v] * x;
        }
      }
    }
  }
  if (t.channels == V * lanes) {
    finish_tile<M, V, true>(t, sums);
  } else {
    finish_tile<M, V, false>(t, sums);
  }
}

inline float sum_of_lanes(Vector v) {
  float part[lanes];
  store(part, v);
  for (int width = lanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  }
  return part[0];
}

/// M pixels, C outputs, with lanes along a run of the source.
template <int M, int C>
void convolve_thin_tile(const Tile& t) {
  Vector sums[M][C] = {};
  const float* weights = t.weights;
  for (int row = 0; row < t.rows; ++row) {
    for (int segment = 0; segment < t.segments; ++segment) {
      const float* source = t.source + row * t.row_step + segment * t.segment_step;
      int k = 0;
      for (; k + lanes <= t.length; k += lanes, weights += C * lanes) {
        Vector w[C];
        for (int c = 0; c < C; ++c) w[c] = load(weights + c * lanes);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
          const Vector x = load(source + k + m * t.pixel_step);
          for (int c = 0; c < C; ++c) sums[m][c] += w[c] * x;
        }
      }
      if (k == t.length) continue;
      for (int m = 0; m < M; ++m) {
        const Vector x = load_first(source + k + m * t.pixel_step, t.length - k);
        for (int c = 0; c < C; ++c) sums[m][c] += load(weights + c * lanes) * x;
      }
      weights += C * lanes;
    }
  }
  const bool relu = t.activation == Activation::relu;
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    for (int c = 0; c < C; ++c) {
      float y = sum_of_lanes(sums[m][c]);
      if (t.bias) y += t.bias[c];
      if (t.residual) y += t.residual[m * t.residual_step + c];
      t.target[m * t.target_step + c] = relu ? activated<Activation::relu>(y) : y;
    }
  }
  if (t.activation != Activation::none && !relu) activate_tile(t, M);
}

template <int V, int... M>
constexpr std::array<TileKernel, sizeof...(M)> tile_kernels(std::integer_sequence<int, M...>) {
  return {&convolve_tile<M + 1, V>...};
}
template <int C, int... M>
constexpr std::array<TileKernel, sizeof...(M)> thin_tile_kernels(std::integer_sequence<int, M...>) {
  return {&convolve_thin_tile<M + 1, C>...};
}
/// [vectors - 1][pixels - 1]
constexpr std::array wide_kernels = {tile_kernels<1>(std::make_integer_sequence<int, tile_pixels>()),
                                     tile_kernels<2>(std::make_integer_sequence<int, tile_pixels>())};
/// Pixels of a thin tile, by outputs: as many sums as in a wide tile.
constexpr std::array thin_pixels = {tile_pixels, tile_pixels, tile_pixels * 2 / 3};
/// [outputs - 1][pixels - 1]
constexpr std::array thin_kernels = {thin_tile_kernels<1>(std::make_integer_sequence<int, tile_pixels>()),
                                     thin_tile_kernels<2>(std::make_integer_sequence<int, tile_pixels>()),
                                     thin_tile_kernels<3>(std::make_integer_sequence<int, tile_pixels>())};

/// A correlation term by term.
struct DirectSum : Correlation {
  View1<float> weights = {};  ///< see pack
  View2<float> patches = {};  ///< [thread, ...]: surroundings of a tile

  bool depthwise() const { return groups > 1 && in == 1 && out == 1; }
  bool thin() const { return out <= thin_channels && out * blocks_of(taps_x * in, lanes) < taps_x * in; }
  int block_channels() const { return thin() ? out : tile_vectors * lanes; }
  int blocks() const { return blocks_of(out, block_channels()); }
  int pixels() const { return thin() ? thin_pixels[static_cast<std::size_t>(out - 1)] : tile_pixels; }
  /// Vectors of outputs in a block: a layer of 16 channels needs but one.
  int vectors(int block) const { return std::min(tile_vectors, blocks_of(out - block * block_channels(), lanes)); }
  /// Floats of one row of taps in the packed weights of a block.
  std::int64_t row_floats(int block) const {
    if (thin()) return static_cast<std::int64_t>(rounded_up(taps_x * in, lanes)) * out;
    return static_cast<std::int64_t>(taps_x) * in * vectors(block) * lanes;
  }
  std::int64_t group_floats() const {
    std::int64_t floats = 0;
    for (int block = 0; block < blocks(); ++block) floats += taps_y * row_floats(block);
    return floats;
  }
  std::int64_t patch_floats() const {
    return static_cast<std::int64_t>(taps_y) * ((pixels() - 1) * step + taps_x) * in;
  }

  void plan(int threads) {
    weights = View1<float>("umbriel::conv2d_weights", groups * group_floats());
    patches = View2<float>("umbriel::conv2d_patches", threads, patch_floats());
  }

  /// Fills `weights` from value(ky, kx, group, ci, co), as [group, block of outputs, ky, kx, ci, output of the block];
  /// thin layers: [group, ky, vector of (kx, ci), co, (kx, ci) of the vector]; depthwise: [ky, kx, group].
  template <class Value>
  void pack(const Value& value) const {
    float* to = weights.data();
    for (int i = 0; depthwise() && i < taps_y * taps_x * groups; ++i) {
      to[i] = value(i / groups / taps_x, i / groups % taps_x, i % groups, 0, 0);
    }
    for (int group = 0; group < groups && !depthwise(); ++group) {
      for (int block = 0; block < blocks(); ++block) {
        for (int ky = 0; ky < taps_y; ++ky, to += row_floats(block)) {
          for (int k = 0; k < taps_x * in; ++k) {
            const int kx = k / in, ci = k % in;
            if (thin()) {
              for (int co = 0; co < out; ++co) {
                to[(k / lanes * out + co) * lanes + k % lanes] = value(ky, kx, group, ci, co);
              }
            } else {
              const int width = vectors(block) * lanes;
              for (int i = 0; i < width; ++i) {
                const int co = block * block_channels() + i;
                to[static_cast<std::int64_t>(k) * width + i] = co < out ? value(ky, kx, group, ci, co) : 0.0f;
              }
            }
          }
        }
      }
    }
  }

  /// One row of outputs of one sample and group.
  void run_row(ConstActivations source, int row, int group, const float* bias, ConstActivations residual,
               Activation activation, Activations target, float* patch) const {
    const int top = row * step + origin_y;
    const int skipped = periodic ? 0 : std::clamp(-top, 0, taps_y);
    const int used = periodic ? taps_y : std::clamp(source_h - top, skipped, taps_y) - skipped;
    const bool wraps = periodic && (top < 0 || top + taps_y > source_h);
    const bool dense = source.pitch == in;
    // Runs of a few channels are too short, and weights of thin layers are packed for dense pixels.
    const bool unsuited = !dense && (in < 16 || (thin() && in % lanes != 0));
    const std::int64_t target_row = static_cast<std::int64_t>(first_y + row * place) * target.extents.w;

    Tile tile;
    tile.rows = used;
    tile.activation = activation;
    tile.target_step = place * target.pitch;
    tile.residual_step = place * residual.pitch;
    const int tiles = blocks_of(count_x, pixels());
    for (int t = 0; t < tiles; ++t) {
      const int begin = static_cast<int>(static_cast<std::int64_t>(t) * count_x / tiles);
      const int end = static_cast<int>(static_cast<std::int64_t>(t + 1) * count_x / tiles);
      const int left = begin * step + origin_x, columns = (end - 1 - begin) * step + taps_x;
      if (wraps || unsuited || left < 0 || left + columns > source_w) {
        for (int ky = 0; ky < used; ++ky) {
          const float* from = source.data + static_cast<std::int64_t>(inside(top + skipped + ky, source_h, periodic)) *
                                                source_w * source.pitch;
          copy_columns(from, source.pitch, left, columns, patch + static_cast<std::int64_t>(ky) * columns * in);
        }
        tile.source = patch;
        tile.row_step = static_cast<std::int64_t>(columns) * in;
        tile.segment_step = in;
        tile.pixel_step = static_cast<std::int64_t>(step) * in;
        tile.segments = 1;
        tile.length = taps_x * in;
      } else {
        tile.source = source.data + (static_cast<std::int64_t>(top + skipped) * source_w + left) * source.pitch;
        tile.row_step = source_w * source.pitch;
        tile.segment_step = source.pitch;
        tile.pixel_step = step * source.pitch;
        tile.segments = dense ? 1 : taps_x;
        tile.length = dense ? taps_x * in : in;
      }
      const float* packed = weights.data() + group * group_floats();
      const std::int64_t pixel = target_row + first_x + static_cast<std::int64_t>(begin) * place;
      for (int block = 0; block < blocks(); ++block) {
        const int channel = block * block_channels();
        tile.weights = packed + skipped * row_floats(block);
        packed += taps_y * row_floats(block);
        tile.channels = std::min(block_channels(), out - channel);
        tile.bias = bias ? bias + channel : nullptr;
        tile.residual = residual ? residual.pixel(pixel) + channel : nullptr;
        tile.target = target.pixel(pixel) + channel;
        const auto size = static_cast<std::size_t>(end - begin - 1);
        if (thin()) {
          thin_kernels[static_cast<std::size_t>(out - 1)][size](tile);
        } else {
          wide_kernels[static_cast<std::size_t>(vectors(block) - 1)][size](tile);
        }
      }
    }
  }

  /// One row of a depthwise layer, all channels.
  void run_depthwise_row(ConstActivations source, int row, const float* bias, ConstActivations residual,
                         Activation activation, Activations target) const {
    constexpr int V = 4;
    const std::int64_t target_row = static_cast<std::int64_t>(first_y + row * place) * target.extents.w + first_x;
    Tile tile;
    tile.activation = activation;
    tile.target_step = tile.residual_step = 0;
    for (int i = 0; i < count_x; ++i) {
      const std::int64_t pixel = target_row + static_cast<std::int64_t>(i) * place;
      for (int channel = 0; channel < groups; channel += V * lanes) {
        tile.channels = std::min(V * lanes, groups - channel);
        Vector sums[1][V] = {};
        for (int ky = 0; ky < taps_y; ++ky) {
          const int y = inside(row * step + origin_y + ky, source_h, periodic);
          for (int kx = 0; kx < taps_x && y >= 0; ++kx) {
            const int x = inside(i * step + origin_x + kx, source_w, periodic);
            if (x < 0) continue;
            const float* from = source.pixel(static_cast<std::int64_t>(y) * source_w + x) + channel;
            const float* w = weights.data() + static_cast<std::int64_t>(ky * taps_x + kx) * groups + channel;
            for (int v = 0; v < V; ++v) {
              const int count = tile.channels - v * lanes;
              sums[0][v] += load_first(from + v * lanes, count) * load_first(w + v * lanes, count);
            }
          }
        }
        tile.bias = bias ? bias + channel : nullptr;
        tile.residual = residual ? residual.pixel(pixel) + channel : nullptr;
        tile.target = target.pixel(pixel) + channel;
        finish_tile<1, V, false>(tile, sums);
      }
    }
  }

  /// Pixels left ... left + columns - 1 of a padded row into a dense array.
  void copy_columns(const float* row, std::int64_t pitch, int left, int columns, float* to) const {
    for (int i = 0; i < columns; ++i, to += in) {
      const int x = inside(left + i, source_w, periodic);
      if (x < 0) {
        std::fill_n(to, in, 0.0f);
      } else {
        std::copy_n(row + x * pitch, in, to);
      }
    }
  }
};

/// One thread's share of the rows.
struct DirectRows {
  DirectSum job;
  ConstActivations source;
  const float* bias;
  ConstActivations residual;
  Activation activation;
  Activations target;
  int threads;

  void operator()(std::int64_t thread) const {
    const std::int64_t rows = static_cast<std::int64_t>(source.extents.n) * job.count_y;
    float* patch = &job.patches(thread, 0);
    for (std::int64_t i = thread * rows / threads; i < (thread + 1) * rows / threads; ++i) {
      const int n = static_cast<int>(i / job.count_y), row = static_cast<int>(i % job.count_y);
      if (job.depthwise()) {
        job.run_depthwise_row(source.samples(n, 1), row, bias, residual ? residual.samples(n, 1) : residual, activation,
                              target.samples(n, 1));
        continue;
      }
      for (int group = 0; group < job.groups; ++group) {
        const ConstActivations skip =
            residual ? residual.samples(n, 1).channels(group * job.out, job.out) : ConstActivations();
        job.run_row(source.samples(n, 1).channels(group * job.in, job.in), row, group,
                    bias ? bias + group * job.out : nullptr, skip, activation,
                    target.samples(n, 1).channels(group * job.out, job.out), patch);
      }
    }
  }
};

/// A correlation and the code for it: one of the two.
struct Job {
  Correlation shape;
  std::optional<DirectSum> direct;
  std::optional<Winograd> winograd;

  Job(const Correlation& s, int threads, bool training) : shape(s) {
    if (!training && Winograd::suits(s)) {
      winograd.emplace(s, threads);
    } else {
      direct.emplace(DirectSum{s});
      direct->plan(threads);
    }
  }

  /// @param value  value(ky, kx, group, ci, co): a weight
  template <class Value>
  void pack(const Value& value) const {
    if (winograd) {
      winograd->pack(value);
    } else {
      direct->pack(value);
    }
  }
};

/// M samples of one pixel, two vectors of outputs, with weights as they were given: rows of `step` floats.
template <int M>
void dense_tile(const Tile& t, std::int64_t step) {
  constexpr int V = 2, ahead = 8;  // rows are far apart in memory, and nobody but us fetches them in time
  Vector sums[M][V] = {};
  const float* weights = t.weights;
  for (int k = 0; k < t.length; ++k, weights += step) {
    Vector w[V];
    for (int v = 0; v < V; ++v) {
      w[v] = load(weights + v * lanes);
      __builtin_prefetch(weights + ahead * step + v * lanes);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float x = t.source[m * t.pixel_step + k];
      for (int v = 0; v < V; ++v) sums[m][v] += w[v] * x;
    }
  }
  if (t.channels == V * lanes) {
    finish_tile<M, V, true>(t, sums);
  } else {
    finish_tile<M, V, false>(t, sums);
  }
}

/// The products of M samples' gradients with C rows of weights: of as many inputs.
template <int M, int C>
void dense_data_tile(const Tile& t, std::int64_t step) {
  Vector sums[M][C] = {};
  int k = 0;
  for (; k + lanes <= t.length; k += lanes) {
    Vector w[C];
    for (int c = 0; c < C; ++c) w[c] = load(t.weights + c * step + k);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Vector dy = load(t.source + m * t.pixel_step + k);
      for (int c = 0; c < C; ++c) sums[m][c] += w[c] * dy;
    }
  }
  if (const int left = t.length - k; left > 0) {
    for (int m = 0; m < M; ++m) {
      const Vector dy = load_first(t.source + m * t.pixel_step + k, left);
      for (int c = 0; c < C; ++c) sums[m][c] += load_first(t.weights + c * step + k, left) * dy;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    for (int c = 0; c < C; ++c) {
      float* const to = t.target + m * t.target_step + c;
      const float sum = sum_of_lanes(sums[m][c]);
      *to = t.residual ? *to + sum : sum;
    }
  }
}

using DenseKernel = void (*)(const Tile&, std::int64_t step);
template <int... M>
constexpr std::array<DenseKernel, sizeof...(M)> dense_kernels_of(std::integer_sequence<int, M...>) {
  return {&dense_tile<M + 1>...};
}
template <int C, int... M>
constexpr std::array<DenseKernel, sizeof...(M)> dense_data_kernels_of(std::integer_sequence<int, M...>) {
  return {&dense_data_tile<M + 1, C>...};
}
/// [samples - 1]
constexpr auto dense_kernels = dense_kernels_of(std::make_integer_sequence<int, tile_pixels>());
/// [inputs - 1][samples - 1]
constexpr std::array dense_data_kernels = {dense_data_kernels_of<1>(std::make_integer_sequence<int, tile_pixels>()),
                                           dense_data_kernels_of<2>(std::make_integer_sequence<int, tile_pixels>())};

/// A dense layer: samples are of one pixel, and there is one tap. Its weights may be millions, which are gone through
/// once for `tile_pixels` samples, as they were given: to pack them would take longer than to use them.
struct DenseWeights {
  int in, out;
  View1<float> weights;  ///< [ci, co], and room for a tile beyond the last

  DenseWeights(int c_in, int c_out)
      : in(c_in), out(c_out), weights("umbriel::dense_weights", static_cast<std::int64_t>(c_in) * c_out + 2 * lanes) {}

  void set(const float* given) const { std::copy_n(given, static_cast<std::int64_t>(in) * out, weights.data()); }

  /// f(first sample, samples) for tiles of them.
  template <class F>
  static void for_tiles(int samples, const F& f) {
    const int tiles = blocks_of(samples, tile_pixels);
    for (int t = 0; t < tiles; ++t) {
      const int begin = t * samples / tiles;
      f(begin, (t + 1) * samples / tiles - begin);
    }
  }

  void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
               Activation activation, Activations y) const {
    constexpr int width = 2 * lanes;
    const DenseWeights self = *this;
    Kokkos::parallel_for("umbriel::dense", Range(space, 0, blocks_of(out, width)), [=](std::int64_t block) {
      const int channel = static_cast<int>(block) * width;
      Tile tile = {};
      tile.length = self.in;
      tile.pixel_step = x.pitch;
      tile.target_step = y.pitch;
      tile.residual_step = residual.pitch;
      tile.activation = activation;
      tile.weights = self.weights.data() + channel;
      tile.channels = std::min(width, self.out - channel);
      tile.bias = bias ? bias + channel : nullptr;
      for_tiles(x.extents.n, [&](int first, int count) {
        tile.source = x.pixel(first);
        tile.residual = residual ? residual.pixel(first) + channel : nullptr;
        tile.target = y.pixel(first) + channel;
        dense_kernels[static_cast<std::size_t>(count - 1)](tile, self.out);
      });
    });
  }

  void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const {
    const DenseWeights self = *this;
    Kokkos::parallel_for("umbriel::dense_data", Range(space, 0, blocks_of(in, 2)), [=](std::int64_t pair) {
      const int first_row = static_cast<int>(pair) * 2, rows = std::min(2, self.in - first_row);
      Tile tile = {};
      tile.length = self.out;
      tile.pixel_step = dy.pitch;
      tile.target_step = dx.pitch;
      tile.weights = self.weights.data() + static_cast<std::int64_t>(first_row) * self.out;
      for_tiles(dy.extents.n, [&](int first, int count) {
        tile.source = dy.pixel(first);
        tile.target = dx.pixel(first) + first_row;
        tile.residual = accumulate ? tile.target : nullptr;
        dense_data_kernels[static_cast<std::size_t>(rows - 1)][static_cast<std::size_t>(count - 1)](tile, self.out);
      });
    });
  }
};

/// What a kernel of the weights' gradient needs: `rows` rows of `pixels` pixels of input and output.
struct GradientTile {
  const float* x;   ///< first (kx, ci) of the tile at the first pixel
  const float* dy;  ///< first output of the tile
  std::int64_t x_row_step, x_pixel_step, dy_row_step, dy_pixel_step;
  int rows, pixels;
  double* sums = nullptr;  ///< [(kx, ci), output]
  std::int64_t sums_step;
  float* gradient = nullptr;  ///< as sums, and in their place, where the tile holds the whole sum
  bool accumulate = false;    ///< adds to `gradient`
  int values;  ///< (kx, ci) of the tile; channels of a depthwise layer
};

using GradientKernel = void (*)(const GradientTile&);

/// M values of (kx, ci), V vectors of outputs.
template <int M, int V>
void gradient_tile(const GradientTile& t) {
  Vector sums[M][V] = {};
  for (int row = 0; row < t.rows; ++row) {
    const float* x = t.x + row * t.x_row_step;
    const float* dy = t.dy + row * t.dy_row_step;
    for (int pixel = 0; pixel < t.pixels; ++pixel, x += t.x_pixel_step, dy += t.dy_pixel_step) {
      Vector d[V];
      for (int v = 0; v < V; ++v) d[v] = load(dy + v * lanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const float value = x[m];
        for (int v = 0; v < V; ++v) sums[m][v] += d[v] * value;
      }
    }
  }
  if (t.gradient) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      for (int v = 0; v < V; ++v) {
        float* const to = t.gradient + m * t.sums_step + v * lanes;
        store(to, t.accumulate ? load(to) + sums[m][v] : sums[m][v]);
      }
    }
    return;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    float part[V * lanes];
    for (int v = 0; v < V; ++v) store(part + v * lanes, sums[m][v]);
    double* to = t.sums + m * t.sums_step;
    for (int i = 0; i < V * lanes; ++i) to[i] += static_cast<double>(part[i]);
  }
}

/// M vectors of (kx, ci), C outputs.
template <int M, int C>
void thin_gradient_tile(const GradientTile& t) {
  Vector sums[M][C] = {};
  for (int row = 0; row < t.rows; ++row) {
    const float* x = t.x + row * t.x_row_step;
    const float* dy = t.dy + row * t.dy_row_step;
    for (int pixel = 0; pixel < t.pixels; ++pixel, x += t.x_pixel_step, dy += t.dy_pixel_step) {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Vector value = load(x + m * lanes);
        for (int c = 0; c < C; ++c) sums[m][c] += value * dy[c];
      }
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) {
    float part[M * lanes];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) store(part + m * lanes, sums[m][c]);
    for (int k = 0; k < t.values; ++k) t.sums[k * t.sums_step + c] += static_cast<double>(part[k]);
  }
}

template <int V, int... M>
constexpr std::array<GradientKernel, sizeof...(M)> gradient_kernels_of(std::integer_sequence<int, M...>) {
  return {&gradient_tile<M + 1, V>...};
}
template <int C, int... M>
constexpr std::array<GradientKernel, sizeof...(M)> thin_gradient_kernels_of(std::integer_sequence<int, M...>) {
  return {&thin_gradient_tile<M + 1, C>...};
}
/// [vectors - 1][values - 1]
constexpr std::array gradient_kernels = {gradient_kernels_of<1>(std::make_integer_sequence<int, tile_pixels>()),
                                         gradient_kernels_of<2>(std::make_integer_sequence<int, tile_pixels>())};
constexpr int thin_vectors = 8;
/// [outputs - 1][vectors - 1]
constexpr std::array thin_gradient_kernels = {
    thin_gradient_kernels_of<1>(std::make_integer_sequence<int, thin_vectors>()),
    thin_gradient_kernels_of<2>(std::make_integer_sequence<int, thin_vectors>()),
    thin_gradient_kernels_of<3>(std::make_integer_sequence<int, thin_vectors>())};

/// One tap of a depthwise layer, `t.values` channels.
void depthwise_gradient_tile(const GradientTile& t) {
  constexpr int V = 4;
  Vector sums[V] = {};
  for (int row = 0; row < t.rows; ++row) {
    const float* x = t.x + row * t.x_row_step;
    const float* dy = t.dy + row * t.dy_row_step;
    for (int pixel = 0; pixel < t.pixels; ++pixel, x += t.x_pixel_step, dy += t.dy_pixel_step) {
      for (int v = 0; v < V; ++v) {
        const int count = t.values - v * lanes;
        sums[v] += load_first(x + v * lanes, count) * load_first(dy + v * lanes, count);
      }
    }
  }
  float part[V * lanes];
  for (int v = 0; v < V; ++v) store(part + v * lanes, sums[v]);
  for (int c = 0; c < t.values; ++c) t.sums[c * t.sums_step] += static_cast<double>(part[c]);
}
constexpr int depthwise_channels = 4 * lanes;

/// The gradient of the weights, block of rows by block of rows.
struct WeightGradient {
  Conv2dGeometry g;
  int h, w, out_h, out_w, in, out;  ///< in, out: channels of a group
  int block_rows;                   ///< rows of outputs whose products are added in float32
  int width;                        ///< of the padded input
  int padded_out;                   ///< outputs of a group, rounded up to vectors
  View1<float> x;                   ///< [row, padded x, c_in]: padded input of a block
  View1<float> dy;                  ///< [row, x, group, padded_out]: where channels do not fill vectors
  bool whole;                       ///< one block holds all there is: its sums need no float64
  View1<double> sums;               ///< [group, ky, kx, ci, padded_out], unless `whole`
  float* gradient = nullptr;        ///< where it goes
  bool accumulate = false;          ///< is added to

  /// @param one_block  the layer is dense, and a block has room for all samples
  WeightGradient(const Conv2dGeometry& geometry, Extents input, bool one_block)
      : g(geometry),
        h(input.h),
        w(input.w),
        out_h(geometry.output_height(input.h)),
        out_w(geometry.output_width(input.w)),
        in(geometry.c_in / geometry.groups),
        out(geometry.c_out / geometry.groups),
        block_rows(std::min(out_h, blocks_of(512, out_w))),
        width((out_w - 1) * geometry.stride + geometry.kernel_x),
        padded_out(thin() ? out : rounded_up(out, lanes)),
        whole(one_block && !thin() && padded_out == out) {
    const std::int64_t slack = thin_vectors * lanes;  // vectors may reach beyond the last value
    x = View1<float>("umbriel::conv2d_padded_rows",
                     (static_cast<std::int64_t>(block_rows - 1) * g.stride + g.kernel_y) * width * g.c_in + slack);
    if (padded_out != out) {
      dy = View1<float>("umbriel::conv2d_padded_gradients",
                        static_cast<std::int64_t>(block_rows) * out_w * g.groups * padded_out);
    }
    if (!whole) {
      sums = View1<double>("umbriel::conv2d_weight_sums",
                           static_cast<std::int64_t>(g.groups) * g.kernel_y * g.kernel_x * in * padded_out);
    }
  }

  bool depthwise() const { return g.groups > 1 && in == 1 && out == 1; }
  bool thin() const { return out <= thin_channels; }
  /// Runs of (kx, ci) that are neighbouring floats.
  int segments() const { return g.groups == 1 ? 1 : g.kernel_x; }
  int length() const { return g.groups == 1 ? g.kernel_x * in : in; }
  int tile_values() const { return thin() ? thin_vectors * lanes : tile_pixels; }
  int value_tiles() const { return blocks_of(length(), tile_values()); }
  int out_tiles() const { return thin() ? 1 : blocks_of(out, tile_vectors * lanes); }
  std::int64_t tiles() const {
    if (depthwise()) return g.kernel_y * g.kernel_x * blocks_of(g.groups, depthwise_channels);
    return static_cast<std::int64_t>(g.groups) * out_tiles() * g.kernel_y * segments() * value_tiles();
  }

  /// Row `row` of the block that begins at output row `first`, of the padded input.
  void copy_input(ConstActivations sample, int first, std::int64_t row) const {
    const bool periodic = g.padding == Padding::periodic;
    float* to = x.data() + row * width * g.c_in;
    const int y = inside(first * g.stride + static_cast<int>(row) - g.pad_y, h, periodic);
    for (int i = 0; i < width; ++i, to += g.c_in) {
      const int from = inside(i - g.pad_x, w, periodic);
      if (y < 0 || from < 0) {
        std::fill_n(to, g.c_in, 0.0f);
      } else {
        std::copy_n(&sample(0, y, from, 0), g.c_in, to);
      }
    }
  }

  void copy_gradients(ConstActivations sample, int first, std::int64_t row) const {
    for (int i = 0; i < out_w; ++i) {
      const float* from = &sample(0, first + static_cast<int>(row), i, 0);
      for (int group = 0; group < g.groups; ++group) {
        std::copy_n(from + group * out, out, dy.data() + ((row * out_w + i) * g.groups + group) * padded_out);
      }
    }
  }

  void run_tile(ConstActivations sample, int first, int rows, std::int64_t index) const {
    GradientTile tile;
    tile.x_row_step = static_cast<std::int64_t>(g.stride) * width * g.c_in;
    tile.x_pixel_step = static_cast<std::int64_t>(g.stride) * g.c_in;
    tile.rows = rows;
    tile.pixels = out_w;
    if (depthwise()) {
      const int taps = g.kernel_y * g.kernel_x;
      const int tap = static_cast<int>(index % taps), channel = static_cast<int>(index / taps) * depthwise_channels;
      tile.x = x.data() + static_cast<std::int64_t>(tap / g.kernel_x * width + tap % g.kernel_x) * g.c_in + channel;
      tile.dy = &sample(0, first, 0, channel);
      tile.dy_pixel_step = sample.pitch;
      tile.dy_row_step = out_w * sample.pitch;
      tile.values = std::min(depthwise_channels, g.groups - channel);
      tile.sums = sums.data() + static_cast<std::int64_t>(channel) * taps + tap;
      tile.sums_step = taps;
      return depthwise_gradient_tile(tile);
    }
    const int value_tile = static_cast<int>(index % value_tiles());
    index /= value_tiles();
    const int segment = static_cast<int>(index % segments());
    index /= segments();
    const int ky = static_cast<int>(index % g.kernel_y);
    index /= g.kernel_y;
    const int out_tile = static_cast<int>(index % out_tiles()), group = static_cast<int>(index / out_tiles());
    const int begin = value_tile * length() / value_tiles(), end = (value_tile + 1) * length() / value_tiles();
    const int channel = out_tile * tile_vectors * lanes;

    tile.x = x.data() + static_cast<std::int64_t>(ky) * width * g.c_in + segment * g.c_in + group * in + begin;
    if (padded_out == out) {
      tile.dy = &sample(0, first, 0, group * out + channel);
      tile.dy_pixel_step = sample.pitch;
    } else {
      tile.dy = dy.data() + group * padded_out + channel;
      tile.dy_pixel_step = static_cast<std::int64_t>(g.groups) * padded_out;
    }
    tile.dy_row_step = out_w * tile.dy_pixel_step;
    tile.sums_step = padded_out;
    const std::int64_t row_of_sums =
        (static_cast<std::int64_t>(group) * g.kernel_y + ky) * g.kernel_x * in + segment * in + begin;
    const std::int64_t place = row_of_sums * padded_out + channel;
    if (whole) {
      tile.gradient = gradient + place;
      tile.accumulate = accumulate;
    } else {
      tile.sums = sums.data() + place;
    }
    tile.values = end - begin;
    if (thin()) {
      thin_gradient_kernels[static_cast<std::size_t>(out - 1)]
                           [static_cast<std::size_t>(blocks_of(tile.values, lanes) - 1)](tile);
    } else {
      const int vectors = std::min(tile_vectors, (padded_out - channel) / lanes);
      gradient_kernels[static_cast<std::size_t>(vectors - 1)][static_cast<std::size_t>(tile.values - 1)](tile);
    }
  }

  void begin(const Space& space, int samples, float* to, bool adds) {
    gradient = to;
    accumulate = adds;
    if (!whole) {
      Kokkos::deep_copy(space, sums, 0.0);
    } else if (samples == 0 && !adds) {
      std::fill_n(to, static_cast<std::int64_t>(in) * out, 0.0f);
    }
  }

  /// Adds a sample's part.
  void add(const Space& space, ConstActivations input, ConstActivations gradients) const {
    for (int first = 0; first < out_h; first += block_rows) {
      const int rows = std::min(block_rows, out_h - first);
      Kokkos::parallel_for("umbriel::conv2d_copy_rows",
                           Range(space, 0, static_cast<std::int64_t>(rows - 1) * g.stride + g.kernel_y),
                           [&](std::int64_t row) { copy_input(input, first, row); });
      if (padded_out != out) {
        Kokkos::parallel_for("umbriel::conv2d_copy_gradients", Range(space, 0, rows),
                             [&](std::int64_t row) { copy_gradients(gradients, first, row); });
      }
      Kokkos::parallel_for("umbriel::conv2d_backward_weights", Range(space, 0, tiles()),
                           [&](std::int64_t tile) { run_tile(gradients, first, rows, tile); });
    }
    space.fence();
  }

  void finish() const {
    for (int row = 0; !whole && row < g.kernel_y * g.kernel_x * in; ++row) {
      for (int group = 0; group < g.groups; ++group) {
        const double* from =
            sums.data() + (static_cast<std::int64_t>(group) * g.kernel_y * g.kernel_x * in + row) * padded_out;
        float* to = gradient + static_cast<std::int64_t>(row) * g.c_out + group * out;
        for (int c = 0; c < out; ++c)
          to[c] = accumulate ? to[c] + static_cast<float>(from[c]) : static_cast<float>(from[c]);
      }
    }
  }
};

/// Adds all pixels, [c]: rows in float32, one row to the next in float64.
void add_rows(ConstActivations values, double* sums) {
  constexpr int width = 4 * lanes;
  const Extents e = values.extents;
  for (std::int64_t row = 0; row < static_cast<std::int64_t>(e.n) * e.h; ++row) {
    for (int begin = 0; begin < e.c; begin += width) {
      const int count = std::min(width, e.c - begin);
      float row_sums[width] = {};
      for (int i = 0; i < e.w; ++i) {
        const float* from = values.pixel(row * e.w + i) + begin;
        for (int c = 0; c < count; ++c) row_sums[c] += from[c];
      }
      for (int c = 0; c < count; ++c) sums[begin + c] += static_cast<double>(row_sums[c]);
    }
  }
}

class HostConv2d final : public Conv2d::Implementation {
 public:
  HostConv2d(const Conv2dGeometry& geometry, Extents input, const Passes& passes)
      : g_(geometry), threads_(Space().concurrency()) {
    const int out_h = geometry.output_height(input.h), out_w = geometry.output_width(input.w);
    const int in = geometry.c_in / geometry.groups, out = geometry.c_out / geometry.groups;
    const bool periodic = geometry.padding == Padding::periodic;
    dense_ = is_dense(geometry, input);
    if (dense_ && (passes.forward || passes.data)) dense_weights_.emplace(in, out);
    const Correlation shape{geometry.groups,
                            in,
                            out,
                            input.h,
                            input.w,
                            periodic,
                            geometry.kernel_y,
                            geometry.kernel_x,
                            geometry.stride,
                            -geometry.pad_y,
                            -geometry.pad_x,
                            out_h,
                            out_w,
                            0,
                            0,
                            1};
    if (passes.forward && !dense_) forward_.emplace_back(shape, threads_, passes.data || passes.weights);
    if (passes.data && !dense_) {
      const int s = geometry.stride;
      if (periodic && (input.h != s * out_h || input.w != s * out_w)) {
        // Outputs have a period of their own only where they are as many as the strides in the map.
        irregular_data_ = make_portable_conv2d(geometry, input, {false, true, false});
      } else {
        for (int ry = 0; ry < std::min(s, input.h); ++ry) {
          for (int rx = 0; rx < std::min(s, input.w); ++rx)
            data_.emplace_back(turned(input, out_h, out_w, ry, rx), threads_, true);
        }
      }
    }
    if (passes.weights) bias_sums_ = View1<double>("umbriel::conv2d_bias_sums", geometry.c_out);
    if (!passes.weights) return;
    most_in_a_row_ = std::min(input.n, 512);
    gradient_ = std::make_unique<WeightGradient>(geometry, dense_ ? Extents{1, 1, most_in_a_row_, input.c} : input,
                                                 dense_ && most_in_a_row_ == input.n);
  }

  void set_weights(const Space& space, const float* weights) override {
    space.fence();
    const int in = g_.c_in / g_.groups, out = g_.c_out / g_.groups;
    const auto at = [&](int ky, int kx, int group, int ci, int co) {
      return weights[((static_cast<std::int64_t>(ky) * g_.kernel_x + kx) * in + ci) * g_.c_out + group * out + co];
    };
    if (dense_weights_) dense_weights_->set(weights);
    for (const Job& job : forward_) job.pack(at);
    for (const Job& job : data_) {
      const Correlation& s = job.shape;
      const int first_ky = (s.first_y + g_.pad_y) % g_.stride, first_kx = (s.first_x + g_.pad_x) % g_.stride;
      job.pack([&](int ty, int tx, int group, int co, int ci) {
        return at(first_ky + g_.stride * (s.taps_y - 1 - ty), first_kx + g_.stride * (s.taps_x - 1 - tx), group, ci,
                  co);
      });
    }
    if (irregular_data_) irregular_data_->set_weights(space, weights);
  }

  void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
               Activation activation, Activations y) const override {
    if (dense_) return dense_weights_->forward(space, x, bias, residual, activation, y);
    run(space, forward_.front(), x, bias, residual, activation, y);
  }

  void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const override {
    if (dense_) return dense_weights_->backward_data(space, dy, dx, accumulate);
    if (irregular_data_) return irregular_data_->backward_data(space, dy, dx, accumulate);
    for (const Job& job : data_) {
      run(space, job, dy, nullptr, accumulate ? ConstActivations(dx) : ConstActivations(), Activation::none, dx);
    }
  }

  void backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights, float* dbias,
                        bool accumulate) const override {
    space.fence();
    Kokkos::deep_copy(space, bias_sums_, 0.0);
    gradient_->begin(space, x.extents.n, dweights, accumulate);
    for (int n = 0; dense_ && n < x.extents.n; n += most_in_a_row_) {
      const int count = std::min(most_in_a_row_, x.extents.n - n);
      gradient_->w = gradient_->width = gradient_->out_w = count;
      gradient_->add(space, in_a_row(x.samples(n, count)), in_a_row(dy.samples(n, count)));
    }
    for (int n = 0; !dense_ && n < x.extents.n; ++n) gradient_->add(space, x.samples(n, 1), dy.samples(n, 1));
    gradient_->finish();
    if (!dbias) return;
    add_rows(dy, bias_sums_.data());
    for (int c = 0; c < g_.c_out; ++c) {
      const auto sum = static_cast<float>(bias_sums_(c));
      dbias[c] = accumulate ? dbias[c] + sum : sum;
    }
  }

 private:
  /// One pixel a sample: samples are the pixels of a row, so that the weights are gone through once and not for each.
  static bool is_dense(const Conv2dGeometry& g, Extents input) {
    return input.h == 1 && input.w == 1 && g.kernel_y == 1 && g.kernel_x == 1 && g.pad_y == 0 && g.pad_x == 0 &&
           g.stride == 1 && g.groups == 1;
  }
  static ConstActivations in_a_row(ConstActivations a) { return {a.data, {1, 1, a.extents.n, a.extents.c}, a.pitch}; }

  /// The part of the gradient at pixels (ry, rx) modulo the stride. Output row oy reached input row iy = s j + ry by
  /// tap ky = s oy' with s oy = iy + pad - ky: taps ky = k0, k0 + s, ..., of outputs that step down by one.
  Correlation turned(Extents input, int out_h, int out_w, int ry, int rx) const {
    const int s = g_.stride;
    const int ky = (ry + g_.pad_y) % s, kx = (rx + g_.pad_x) % s;
    const int taps_y = ky < g_.kernel_y ? blocks_of(g_.kernel_y - ky, s) : 0;
    const int taps_x = kx < g_.kernel_x ? blocks_of(g_.kernel_x - kx, s) : 0;
    return {g_.groups,
            g_.c_out / g_.groups,
            g_.c_in / g_.groups,
            out_h,
            out_w,
            g_.padding == Padding::periodic,
            taps_y,
            taps_x,
            1,
            (ry + g_.pad_y - ky) / s - taps_y + 1,
            (rx + g_.pad_x - kx) / s - taps_x + 1,
            blocks_of(input.h - ry, s),
            blocks_of(input.w - rx, s),
            ry,
            rx,
            s};
  }

  void run(const Space& space, const Job& job, ConstActivations source, const float* bias, ConstActivations residual,
           Activation activation, Activations target) const {
    if (job.winograd) {
      Kokkos::parallel_for("umbriel::conv2d_winograd", Range(space, 0, threads_), [&](std::int64_t thread) {
        job.winograd->run(static_cast<int>(thread), source, bias, residual, activation, target);
      });
    } else {
      Kokkos::parallel_for("umbriel::conv2d_direct", Range(space, 0, threads_),
                           DirectRows{*job.direct, source, bias, residual, activation, target, threads_});
    }
  }

  Conv2dGeometry g_;
  int threads_;
  bool dense_ = false;                         ///< samples are taken for pixels
  int most_in_a_row_ = 0;                      ///< of them, in the gradient of the weights
  std::optional<DenseWeights> dense_weights_;  ///< of a dense layer, in place of jobs
  std::vector<Job> forward_, data_;  ///< one; one for each remainder modulo the stride
  std::unique_ptr<Conv2d::Implementation> irregular_data_;
  std::unique_ptr<WeightGradient> gradient_;
  View1<double> bias_sums_;  ///< [c_out]
};

}  // namespace

bool suits_winograd(const Conv2dGeometry& g, Extents output) {
  return Winograd::suits({g.groups, g.c_in / g.groups, g.c_out / g.groups, 0, 0, false, g.kernel_y, g.kernel_x,
                          g.stride, 0, 0, output.h, output.w, 0, 0, 1});
}

std::unique_ptr<Conv2d::Implementation> make_host_conv2d(const Conv2dGeometry& geometry, Extents input,
                                                         const Passes& passes) {
  return std::make_unique<HostConv2d>(geometry, input, passes);
}

}  // namespace umbriel
