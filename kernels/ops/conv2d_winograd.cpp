// Winograd's minimal filtering. A tile of 6 x 6 source pixels gives m x m outputs of a kernel of r x r, m = 7 - r: four
// by four for 3 x 3, five by five for 2 x 2,
//   Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A ,
// with 36 products where the sum term by term has m² r²: 4 and 2.8 times as many. Summed over input channels each of
// the 36 is a product of matrices, [tiles, c_in] by [c_in, c_out].
//
// The polynomial's roots are 0, ±a, ±b and infinity, and the matrices follow from them (Blahut 2010, ch. 5):
//   Bᵀ: coefficients of the product of (x - q) over the other roots q;
//   G:  (1, p, ..., p^(r-1)) over the product of p - q;
//   Aᵀ: powers of the roots.
// a = 5/8, b = 3/2 keep float32's rounding at 1.6e-6 of the largest output, a quarter of that of the usual 1 and 2.
//
// A block of tiles stays in the second-level cache from its input to its output: transform, multiply a block of output
// channels at 36 frequencies, transform back, add bias and residual, store. What a tile gives depends on nothing but
// its own pixels, so that samples have the same bits in any batch and for any number of threads.
#include "umbriel/ops/conv2d_winograd.hpp"

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "umbriel/core/loops.hpp"
#include "umbriel/ops/activation_math.hpp"

namespace umbriel::host {
namespace {

constexpr int side = 6, frequencies = side * side;
constexpr double root_a = 0.625, root_b = 1.5;
constexpr double roots[side - 1] = {0, root_a, -root_a, root_b, -root_b};
/// Bytes of transformed input that a block of tiles may take.
constexpr std::int64_t block_bytes = 128 << 10;

constexpr auto squared(double x) { return x * x; }
constexpr auto a1 = static_cast<float>(root_a), a2 = static_cast<float>(squared(root_a)),
               b1 = static_cast<float>(root_b), b2 = static_cast<float>(squared(root_b)),
               a2_b2 = static_cast<float>(squared(root_a * root_b)),
               a2_plus_b2 = static_cast<float>(squared(root_a) + squared(root_b)),
               a3 = static_cast<float>(root_a * squared(root_a)), b3 = static_cast<float>(root_b * squared(root_b)),
               a4 = static_cast<float>(squared(squared(root_a))), b4 = static_cast<float>(squared(squared(root_b)));

/// Bᵀ d
inline void transform_input(const Vector (&d)[side], Vector (&u)[side]) {
  const Vector even_a = d[4] - b2 * d[2], odd_a = d[3] - b2 * d[1];
  const Vector even_b = d[4] - a2 * d[2], odd_b = d[3] - a2 * d[1];
  u[0] = a2_b2 * d[0] + (d[4] - a2_plus_b2 * d[2]);
  u[1] = even_a + a1 * odd_a;
  u[2] = even_a - a1 * odd_a;
  u[3] = even_b + b1 * odd_b;
  u[4] = even_b - b1 * odd_b;
  u[5] = a2_b2 * d[1] + (d[5] - a2_plus_b2 * d[3]);
}

/// Aᵀ p, `m` rows of it
template <int m>
inline void transform_output(const Vector (&p)[side], Vector (&y)[m]) {
  const Vector even_a = p[1] + p[2], odd_a = p[1] - p[2], even_b = p[3] + p[4], odd_b = p[3] - p[4];
  y[0] = p[0] + even_a + even_b;
  y[1] = a1 * odd_a + b1 * odd_b;
  y[2] = a2 * even_a + b2 * even_b;
  y[3] = a3 * odd_a + b3 * odd_b;
  if constexpr (m > 4) y[4] = a4 * even_a + b4 * even_b;
  y[m - 1] += p[5];
}

/// G of a kernel of `taps`: [root][tap]
template <int taps>
constexpr std::array<std::array<double, taps>, side> kernel_matrix() {
  std::array<std::array<double, taps>, side> g{};
  for (std::size_t i = 0; i + 1 < side; ++i) {
    double others = 1;
    for (std::size_t j = 0; j + 1 < side; ++j) others *= j == i ? 1.0 : roots[i] - roots[j];
    double power = 1 / others;
    for (std::size_t k = 0; k < taps; ++k, power *= roots[i]) g[i][k] = power;
  }
  g[side - 1][taps - 1] = 1;
  return g;
}

/// G g
template <int taps>
inline void transform_kernel(const Vector (&kernel)[taps], Vector (&w)[side]) {
  constexpr auto g = kernel_matrix<taps>();
  for (std::size_t i = 0; i < side; ++i) {
    w[i] = static_cast<float>(g[i][0]) * kernel[0];
    for (std::size_t k = 1; k < taps; ++k) w[i] += static_cast<float>(g[i][k]) * kernel[k];
  }
}

/// Vector v of `channels` values of a pixel, and zeros; `whole` where all are there.
template <bool whole>
inline Vector load_channels(const float* from, int channels) {
  if constexpr (whole) return load(from);
  return load_first(from, channels);
}

/// Bᵀ d B of the 6 x 6 pixels at `pixels`, `channels` of them, to [frequency].
template <bool whole>
inline void transform_pixels(const float* pixels, std::int64_t row_step, std::int64_t pixel_step, int channels,
                             float* to, std::int64_t step) {
  Vector rows[side][side];
  for (int y = 0; y < side; ++y) {
    Vector d[side];
#pragma GCC unroll 6
    for (int x = 0; x < side; ++x) d[x] = load_channels<whole>(pixels + y * row_step + x * pixel_step, channels);
    transform_input(d, rows[y]);
  }
  for (int x = 0; x < side; ++x) {
    const Vector d[side] = {rows[0][x], rows[1][x], rows[2][x], rows[3][x], rows[4][x], rows[5][x]};
    Vector u[side];
    transform_input(d, u);
#pragma GCC unroll 6
    for (int y = 0; y < side; ++y) store(to + (y * side + x) * step, u[y]);
  }
}

/// Where the outputs of a tile go.
struct Outputs {
  const float* bias;      ///< or null
  const float* residual;  ///< or null
  float* target;
  std::int64_t residual_row, residual_pixel, target_row, target_pixel;
  int rows, columns, channels;
  Activation activation;
};

/// f(Aᵀ p A + bias + residual) of products [frequency].
template <int m, bool whole>
inline void transform_products(const float* from, std::int64_t step, const Outputs& o) {
  Vector half[side][m];
  for (int x = 0; x < side; ++x) {
    Vector p[side];
#pragma GCC unroll 6
    for (int y = 0; y < side; ++y) p[y] = load(from + (y * side + x) * step);
    transform_output(p, half[x]);
  }
  const Vector bias = o.bias ? load_channels<whole>(o.bias, o.channels) : Vector{};
  const bool relu = o.activation == Activation::relu;
  for (int y = 0; y < o.rows; ++y) {
    const Vector p[side] = {half[0][y], half[1][y], half[2][y], half[3][y], half[4][y], half[5][y]};
    Vector sums[m];
    transform_output(p, sums);
    float* to = o.target + y * o.target_row;
    for (int x = 0; x < o.columns; ++x, to += o.target_pixel) {
      Vector sum = sums[x] + bias;
      if (o.residual) {
        sum += load_channels<whole>(o.residual + y * o.residual_row + x * o.residual_pixel, o.channels);
      }
      if (relu) sum = sum < 0.0f ? Vector{} : sum;
      if constexpr (whole) {
        store(to, sum);
      } else {
        store_first(to, sum, o.channels);
      }
    }
  }
  if (relu || o.activation == Activation::none) return;
  with_activation(o.activation, [&](auto f) {
    for (int y = 0; y < o.rows; ++y) {
      for (int x = 0; x < o.columns; ++x) {
        float* to = o.target + y * o.target_row + x * o.target_pixel;
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int c = 0; c < o.channels; ++c) to[c] = activated<f()>(to[c]);
      }
    }
  });
}

/// Some pixels of a sample, with the first channel of each.
struct Window {
  const float* pixels;
  std::int64_t row_step, pixel_step;
};

/// The size x size pixels from (top, left): in place where all are on the map, else copied with the padding in them.
/// @param patch  [size, size, channels]
Window window(ConstActivations map, int n, int top, int left, int size, bool periodic, float* patch) {
  const auto [samples, h, w, channels] = map.extents;
  if (top >= 0 && left >= 0 && top + size <= h && left + size <= w) {
    return {&map(n, top, left, 0), w * map.pitch, map.pitch};
  }
  float* to = patch;
  for (int i = 0; i < size * size; ++i, to += channels) {
    const int y = inside(top + i / size, h, periodic), x = inside(left + i % size, w, periodic);
    if (y < 0 || x < 0) {
      std::fill_n(to, channels, 0.0f);
    } else {
      std::copy_n(&map(n, y, x, 0), channels, to);
    }
  }
  return {patch, static_cast<std::int64_t>(size) * channels, channels};
}

/// products[t, :] = sum over k of input[t, k] weights[k, :], for M tiles and V vectors of outputs.
struct Product {
  const float* input;
  std::int64_t input_step;
  int depth;
  const float* weights;
  float* products;
  std::int64_t product_step;
};

template <int M, int V>
void multiply(const Product& p) {
  Vector sums[M][V] = {};
  const float *weights = p.weights, *input = p.input;
  const std::int64_t step = p.input_step;
  for (int k = 0; k < p.depth; ++k, weights += V * lanes) {
    Vector w[V];
    for (int v = 0; v < V; ++v) w[v] = load(weights + v * lanes);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float x = input[m * step + k];
      for (int v = 0; v < V; ++v) sums[m][v] += w[v] * x;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    for (int v = 0; v < V; ++v) store(p.products + m * p.product_step + v * lanes, sums[m][v]);
  }
}

template <int V, int... M>
constexpr auto multipliers_of(std::integer_sequence<int, M...>) {
  return std::array{&multiply<M + 1, V>...};
}
/// [vectors - 1][tiles - 1]
constexpr std::array multipliers = {multipliers_of<1>(std::make_integer_sequence<int, tile_pixels>()),
                                    multipliers_of<2>(std::make_integer_sequence<int, tile_pixels>())};

}  // namespace

Winograd::Winograd(const Correlation& shape, int threads) : shape_(shape), threads_(threads) {
  const int outputs = side + 1 - shape.taps_x;
  tiles_y_ = blocks_of(shape.count_y, outputs);
  tiles_x_ = blocks_of(shape.count_x, outputs);
  const std::int64_t tile_bytes = static_cast<std::int64_t>(frequencies) * shape.in * static_cast<int>(sizeof(float));
  block_tiles_ = tile_pixels * static_cast<int>(std::clamp<std::int64_t>(block_bytes / tile_bytes / tile_pixels, 3, 8));
  std::int64_t floats = 0;
  for (int block = 0; block < out_blocks(); ++block) {
    floats += static_cast<std::int64_t>(frequencies) * shape.in * vectors(block) * lanes;
  }
  weights_ = View1<float>("umbriel::conv2d_winograd_weights", floats);
  const std::int64_t tile_floats = rounded_up(shape.in, lanes) + tile_vectors * lanes;
  workspaces_ = View2<float>("umbriel::conv2d_winograd_workspace", threads,
                             frequencies * (block_tiles_ * tile_floats + shape.in));
}

int Winograd::vectors(int block) const {
  return std::min(tile_vectors, blocks_of(shape_.out - block * tile_vectors * lanes, lanes));
}
std::int64_t Winograd::block_offset(int block) const {
  return static_cast<std::int64_t>(block) * frequencies * shape_.in * tile_vectors * lanes;
}

void Winograd::pack_kernels(const Vector* kernel, int ci, int co) const {
  const int block = co / (tile_vectors * lanes), width = vectors(block) * lanes;
  float* to =
      weights_.data() + block_offset(block) + static_cast<std::int64_t>(ci) * width + co % (tile_vectors * lanes);
  const auto pack_taps = [&]<int taps>(std::integral_constant<int, taps>) {
    Vector rows[taps][side];
    for (int y = 0; y < taps; ++y) {
      Vector g[taps];
      for (int x = 0; x < taps; ++x) g[x] = kernel[y * taps + x];
      transform_kernel<taps>(g, rows[y]);
    }
    for (int x = 0; x < side; ++x) {
      Vector g[taps], w[side];
      for (int y = 0; y < taps; ++y) g[y] = rows[y][x];
      transform_kernel<taps>(g, w);
      for (int y = 0; y < side; ++y) store(to + static_cast<std::int64_t>(y * side + x) * shape_.in * width, w[y]);
    }
  };
  if (shape_.taps_x == 3) {
    pack_taps(std::integral_constant<int, 3>());
  } else {
    pack_taps(std::integral_constant<int, 2>());
  }
}

template <int taps>
void Winograd::run_tiles(std::int64_t begin, int count, ConstActivations source, const float* bias,
                         ConstActivations residual, Activation activation, Activations target, float* workspace) const {
  constexpr int m = side + 1 - taps;
  const int in = shape_.in, pitch = rounded_up(in, lanes), tiles_of_map = tiles_y_ * tiles_x_;
  const int groups = blocks_of(count, tile_pixels);
  const std::int64_t input_step = static_cast<std::int64_t>(tile_pixels) * pitch,
                     product_step = static_cast<std::int64_t>(tile_pixels) * tile_vectors * lanes;
  float *inputs = workspace, *products = inputs + groups * frequencies * input_step,
        *patch = products + groups * frequencies * product_step;

  for (int t = 0; t < count; ++t) {
    const int n = static_cast<int>((begin + t) / tiles_of_map), tile = static_cast<int>((begin + t) % tiles_of_map);
    const Window w = window(source, n, tile / tiles_x_ * m + shape_.origin_y, tile % tiles_x_ * m + shape_.origin_x,
                            side, shape_.periodic, patch);
    float* to = inputs + t / tile_pixels * frequencies * input_step + t % tile_pixels * pitch;
    int c = 0;
    for (; c + lanes <= in; c += lanes) {
      transform_pixels<true>(w.pixels + c, w.row_step, w.pixel_step, lanes, to + c, input_step);
    }
    if (c < in) transform_pixels<false>(w.pixels + c, w.row_step, w.pixel_step, in - c, to + c, input_step);
  }

  for (int block = 0; block < out_blocks(); ++block) {
    const int channel = block * tile_vectors * lanes, block_vectors = vectors(block), width = block_vectors * lanes;
    const auto& kernels = multipliers[static_cast<std::size_t>(block_vectors - 1)];
    for (int f = 0; f < frequencies; ++f) {
      const float* factors = weights_.data() + block_offset(block) + static_cast<std::int64_t>(f) * in * width;
      for (int group = 0; group < groups; ++group) {
        const std::int64_t place = group * frequencies + f;
        const int tiles = std::min(tile_pixels, count - group * tile_pixels);
        kernels[static_cast<std::size_t>(tiles - 1)](
            {inputs + place * input_step, pitch, in, factors, products + place * product_step, width});
      }
    }
    for (int t = 0; t < count; ++t) {
      const int n = static_cast<int>((begin + t) / tiles_of_map), tile = static_cast<int>((begin + t) % tiles_of_map);
      const int first_y = tile / tiles_x_ * m, first_x = tile % tiles_x_ * m;
      const int y = shape_.first_y + shape_.place * first_y, x = shape_.first_x + shape_.place * first_x;
      Outputs o;
      o.activation = activation;
      o.rows = std::min(m, shape_.count_y - first_y);
      o.columns = std::min(m, shape_.count_x - first_x);
      o.target_pixel = shape_.place * target.pitch;
      o.target_row = o.target_pixel * target.extents.w;
      o.residual_pixel = shape_.place * residual.pitch;
      o.residual_row = o.residual_pixel * residual.extents.w;
      const float* from = products + t / tile_pixels * frequencies * product_step + t % tile_pixels * width;
      for (int v = 0; v < block_vectors; ++v) {
        const int c = channel + v * lanes;
        o.channels = std::min(lanes, shape_.out - c);
        o.bias = bias ? bias + c : nullptr;
        o.residual = residual ? &residual(n, y, x, c) : nullptr;
        o.target = &target(n, y, x, c);
        if (o.channels == lanes) {
          transform_products<m, true>(from + v * lanes, product_step, o);
        } else {
          transform_products<m, false>(from + v * lanes, product_step, o);
        }
      }
    }
  }
}

void Winograd::run(int thread, ConstActivations source, const float* bias, ConstActivations residual,
                   Activation activation, Activations target) const {
  const std::int64_t tiles = static_cast<std::int64_t>(source.extents.n) * tiles_y_ * tiles_x_;
  const std::int64_t blocks = (tiles + block_tiles_ - 1) / block_tiles_;
  for (std::int64_t i = thread * blocks / threads_; i < (thread + 1) * blocks / threads_; ++i) {
    const std::int64_t begin = i * block_tiles_;
    const int count = static_cast<int>(std::min<std::int64_t>(block_tiles_, tiles - begin));
    float* workspace = &workspaces_(thread, 0);
    if (shape_.taps_x == 3) {
      run_tiles<3>(begin, count, source, bias, residual, activation, target, workspace);
    } else {
      run_tiles<2>(begin, count, source, bias, residual, activation, target, workspace);
    }
  }
}

}  // namespace umbriel::host
