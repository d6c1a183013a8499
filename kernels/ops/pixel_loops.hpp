/// Loops over the pixels of activations, and sums over them, for the pointwise ops of this folder.
///
/// An op is a functor at namespace scope with
///
///   static constexpr int inputs;        // arrays it reads, 0 ... 3
///   static constexpr int coefficients;  // numbers it needs for each sample and channel
///   void prepare(int n, int c, float* k) const;                            // sets them
///   float operator()(float a, float b, float d, const float* k) const;     // for map_pixels
///   float operator()(float a, float b, float d, const float* k, double* t) const;  // for sum_sample_channels
///
/// and the two functions here call it so that GCC vectorises the loop for any number of channels: coefficients are
/// laid out as a tile that repeats over as many pixels as fit, so that a dense array is one flat loop. On a device
/// there is one thread for one or four channels of a pixel.
///
/// Sums are float64. A sample is cut into blocks of pixels whose size depends on its extents alone; in a block,
/// pixels are added in order, in as many lanes as pixels fit in a tile; then come lanes, blocks and samples in order.
/// So a sample's sums have the same bits in any batch, for any pitch and any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "umbriel/core/check.hpp"
#include "umbriel/core/loops.hpp"
#include "umbriel/ops/activations.hpp"
#include "umbriel/ops/packs.hpp"

namespace umbriel::detail {

/// Ops run often, so nothing is allocated for a message unless it is needed.
inline void require_extents(bool fit, const char* where) {
  if (!fit) {
    throw Error(ExitCode::usage, "extents of activations do not fit together", where,
                "give arrays of the extents that the header of this function states");
  }
}

inline bool dense_or_absent(const ConstActivations& a) { return !a || a.dense(); }

/// The arrays an op reads; those beyond its `inputs` are empty.
struct Inputs {
  ConstActivations a, b, d;

  bool dense() const { return dense_or_absent(a) && dense_or_absent(b) && dense_or_absent(d); }
};

template <class Op>
inline constexpr int table_rows = Op::coefficients > 0 ? Op::coefficients : 1;

// --- maps ------------------------------------------------------------------------------------------------------------

/// One block of pixels of a sample, on a host.
template <class Op, bool accumulate>
struct MapBlock {
  static constexpr int tile = Op::coefficients > 0 ? 512 : 1;  ///< floats

  Op op;
  Inputs in;
  Activations y;
  std::int64_t pixels;  ///< of a sample
  std::int64_t block_pixels, blocks;
  bool dense;

  template <std::size_t... J>
  static void stretch(const Op f, const float* a, const float* b, const float* d, const float (*table)[tile], float* y,
                      std::int64_t count, std::index_sequence<J...>) {
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (std::int64_t i = 0; i < count; ++i) {
      const float k[] = {table[J][i]..., 0.0f};
      const float value =
          f(Op::inputs > 0 ? a[i] : 0.0f, Op::inputs > 1 ? b[i] : 0.0f, Op::inputs > 2 ? d[i] : 0.0f, k);
      y[i] = accumulate ? y[i] + value : value;
    }
  }

  void operator()(const std::int64_t index) const {
    const Op f = op;
    const int n = static_cast<int>(index / blocks);
    const std::int64_t start = index % blocks * block_pixels;
    const std::int64_t first = n * pixels + start;
    const std::int64_t last = n * pixels + std::min(start + block_pixels, pixels);
    const int c = y.extents.c;
    const int width = Op::coefficients > 0 ? std::min(c, tile) : c;
    const std::int64_t group = !dense || width < c ? 1 : Op::coefficients > 0 ? tile / c : block_pixels;
    alignas(64) float table[table_rows<Op>][tile];
    for (int c0 = 0; c0 < c; c0 += width) {
      const int w = std::min(width, c - c0);
      if constexpr (Op::coefficients > 0) {
        for (int i = 0; i < w; ++i) {
          float k[table_rows<Op>];
          f.prepare(n, c0 + i, k);
          for (int j = 0; j < Op::coefficients; ++j) table[j][i] = k[j];
        }
        const int filled = w * static_cast<int>(std::min(group, last - first));
        for (int j = 0; j < Op::coefficients; ++j) {
          for (int i = w; i < filled; ++i) table[j][i] = table[j][i - w];
        }
      }
      for (std::int64_t p = first; p < last; p += group) {
        stretch(f, Op::inputs > 0 ? in.a.pixel(p) + c0 : nullptr, Op::inputs > 1 ? in.b.pixel(p) + c0 : nullptr,
                Op::inputs > 2 ? in.d.pixel(p) + c0 : nullptr, table, y.pixel(p) + c0, std::min(group, last - p) * w,
                std::make_index_sequence<Op::coefficients>());
      }
    }
  }
};

/// A few channels of a pixel, on a device.
template <class Op, bool accumulate, int width>
struct MapPack {
  Op op;
  Inputs in;
  Activations y;
  std::int64_t pixels;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t index) const {
    const PackIndex<width> at(index, y.extents.c);
    Pack<width> a{}, b{}, d{}, out{};
    if constexpr (Op::inputs > 0) a = Pack<width>::load(in.a.pixel(at.pixel) + at.channel);
    if constexpr (Op::inputs > 1) b = Pack<width>::load(in.b.pixel(at.pixel) + at.channel);
    if constexpr (Op::inputs > 2) d = Pack<width>::load(in.d.pixel(at.pixel) + at.channel);
    float* const to = y.pixel(at.pixel) + at.channel;
    if constexpr (accumulate) out = Pack<width>::load(to);
    int n = 0;
    if constexpr (Op::coefficients > 0) n = static_cast<int>(Split(at.pixel, static_cast<int>(pixels)).whole);
    for (int i = 0; i < width; ++i) {
      float k[table_rows<Op>];
      if constexpr (Op::coefficients > 0) op.prepare(n, at.channel + i, k);
      const float value = op(a.value[i], b.value[i], d.value[i], k);
      out.value[i] = accumulate ? out.value[i] + value : value;
    }
    out.store(to);
  }
};

template <bool accumulate, class Op>
void run_map(const char* label, const Space& space, const Op& op, const Inputs& in, const Activations& y) {
  const std::int64_t pixels = static_cast<std::int64_t>(y.extents.h) * y.extents.w;
  if constexpr (runs_on_host) {
    const std::int64_t block = std::clamp<std::int64_t>(16384 / y.extents.c, 1, pixels);
    const std::int64_t blocks = (pixels + block - 1) / block;
    Kokkos::parallel_for(label, Range(space, 0, y.extents.n * blocks),
                         MapBlock<Op, accumulate>{op, in, y, pixels, block, blocks, in.dense() && y.dense()});
  } else if (suits_packs(in.a) && suits_packs(in.b) && suits_packs(in.d) && suits_packs(y)) {
    Kokkos::parallel_for(label, Range(space, 0, y.extents.elements() / widest_pack),
                         MapPack<Op, accumulate, widest_pack>{op, in, y, pixels});
  } else {
    Kokkos::parallel_for(label, Range(space, 0, y.extents.elements()), MapPack<Op, accumulate, 1>{op, in, y, pixels});
  }
}

/// y = op(a, b, d, coefficients), element by element, or y += with `accumulate`. y may be one of the inputs.
template <class Op>
void map_pixels(const char* label, const Space& space, const Op& op, const Inputs& in, const Activations& y,
                bool accumulate = false) {
  require_extents((Op::inputs < 1 || in.a.extents == y.extents) && (Op::inputs < 2 || in.b.extents == y.extents) &&
                      (Op::inputs < 3 || in.d.extents == y.extents),
                  label);
  if (y.extents.elements() == 0) return;
  if (accumulate) {
    run_map<true>(label, space, op, in, y);
  } else {
    run_map<false>(label, space, op, in, y);
  }
}

// --- sums ------------------------------------------------------------------------------------------------------------

/// Memory for partial sums, at least `count` doubles: grown where a larger sum than any before comes, and kept until
/// Kokkos ends. Sums on several instances of the execution space must not overlap.
inline double* sum_memory(std::size_t count) {
  static double* memory = nullptr;
  static std::size_t size = 0;
  if (count > size) {
    if (memory) {
      Kokkos::fence();
      Kokkos::kokkos_free<Memory>(memory);
    } else {
      Kokkos::push_finalize_hook([] {
        Kokkos::kokkos_free<Memory>(memory);
        memory = nullptr;
        size = 0;
      });
    }
    memory = nullptr;
    size = 0;
    memory = static_cast<double*>(Kokkos::kokkos_malloc<Memory>("umbriel::sum_memory", count * sizeof(double)));
    size = count;
  }
  return memory;
}

/// How a sample's pixels are cut: depends on its extents alone.
struct SumBlocks {
  std::int64_t pixels = 0, block = 0, count = 0;

  explicit SumBlocks(const Extents& e) : pixels(static_cast<std::int64_t>(e.h) * e.w) {
    block = runs_on_host ? std::max<std::int64_t>(16, 16384 / e.c) : 512;
    count = (pixels + block - 1) / block;
  }
};

/// One block of a sample, on a host: partials[n, block, term, c].
template <class Op>
struct SumBlock {
  static constexpr int tile = 64;  ///< lanes: accumulators stay in the first-level cache, and fill 8 vectors

  Op op;
  Inputs in;
  Activations written;
  SumBlocks cut;
  Extents extents;
  double* partials;
  bool dense;

  /// Adds `rows` rows of `lanes` elements; rows of array x lie x.pitch * step floats apart.
  template <std::size_t... R, std::size_t... J>
  void add(const Op f, std::int64_t p, int c0, int step, int lanes, const float (*table)[tile], double (*sums)[tile],
           std::index_sequence<R...>, std::index_sequence<J...>) const {
    const float* a = in.a.pixel(p) + c0;
    const float* b = Op::inputs > 1 ? in.b.pixel(p) + c0 : nullptr;
    const float* d = Op::inputs > 2 ? in.d.pixel(p) + c0 : nullptr;
    float* out = Op::writes ? written.pixel(p) + c0 : nullptr;
    const std::int64_t sa = in.a.pitch * step, sb = in.b.pitch * step, sd = in.d.pitch * step,
                       so = written.pitch * step;
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int i = 0; i < lanes; ++i) {
      const float k[] = {table[J][i]..., 0.0f};
      double total[2] = {sums[0][i], Op::terms > 1 ? sums[1][i] : 0.0};
      const auto row = [&](std::int64_t r) {
        double t[2];
        const float value =
            f(a[r * sa + i], Op::inputs > 1 ? b[r * sb + i] : 0.0f, Op::inputs > 2 ? d[r * sd + i] : 0.0f, k, t);
        if constexpr (Op::writes) out[r * so + i] = value;
        total[0] += t[0];
        if constexpr (Op::terms > 1) total[1] += t[1];
      };
      (row(R), ...);
      sums[0][i] = total[0];
      if constexpr (Op::terms > 1) sums[1][i] = total[1];
    }
  }

  void operator()(const std::int64_t index) const {
    const Op f = op;
    const auto coefficients = std::make_index_sequence<Op::coefficients>();
    const auto one_row = std::make_index_sequence<1>();
    const auto four_rows = std::make_index_sequence<4>();
    const int n = static_cast<int>(index / cut.count);
    const std::int64_t start = index % cut.count * cut.block;
    const std::int64_t first = n * cut.pixels + start;
    const std::int64_t last = n * cut.pixels + std::min(start + cut.block, cut.pixels);
    const int c = extents.c;
    const int chunks = (c + tile - 1) / tile;
    const int width = (c + chunks - 1) / chunks;
    const int group = c <= tile ? tile / c : 1;  // pixels side by side in the lanes
    alignas(64) float table[table_rows<Op>][tile];
    alignas(64) double sums[Op::terms][tile];
    for (int c0 = 0; c0 < c; c0 += width) {
      const int w = std::min(width, c - c0);
      for (int i = 0; i < group * w; ++i) {
        if constexpr (Op::coefficients > 0) {
          float k[table_rows<Op>];
          f.prepare(n, c0 + i % w, k);
          for (int j = 0; j < Op::coefficients; ++j) table[j][i] = k[j];
        }
        for (int t = 0; t < Op::terms; ++t) sums[t][i] = 0;
      }
      std::int64_t p = first;
      if (dense || group == 1) {
        for (; p + 4 * group <= last; p += 4 * group)
          add(f, p, c0, group, group * w, table, sums, four_rows, coefficients);
        for (; p < last; p += group) {
          const int lanes = static_cast<int>(std::min<std::int64_t>(group, last - p)) * w;
          add(f, p, c0, group, lanes, table, sums, one_row, coefficients);
        }
      } else {
        for (; p < last; ++p) {
          // The lanes that this pixel has in a dense array; `table` repeats, so its start serves.
          double shifted[Op::terms][tile];
          const std::int64_t lane = (p - first) % group * w;
          for (int t = 0; t < Op::terms; ++t) std::copy_n(&sums[t][lane], w, shifted[t]);
          add(f, p, c0, 1, w, table, shifted, one_row, coefficients);
          for (int t = 0; t < Op::terms; ++t) std::copy_n(shifted[t], w, &sums[t][lane]);
        }
      }
      for (int t = 0; t < Op::terms; ++t) {
        double* out = partials + (index * Op::terms + t) * c + c0;
        for (int i = 0; i < w; ++i) out[i] = sums[t][i];
        for (int g = 1; g < group; ++g) {
          for (int i = 0; i < w; ++i) out[i] += sums[t][g * w + i];
        }
      }
    }
  }
};

/// One channel of one block of a sample, on a device.
template <class Op>
struct SumBlockChannel {
  Op op;
  Inputs in;
  Activations written;
  SumBlocks cut;
  Extents extents;
  double* partials;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const int c = static_cast<int>(i % extents.c);
    const std::int64_t index = i / extents.c;
    const int n = static_cast<int>(index / cut.count);
    const std::int64_t start = index % cut.count * cut.block;
    const std::int64_t end = start + cut.block < cut.pixels ? start + cut.block : cut.pixels;
    float k[table_rows<Op>];
    if constexpr (Op::coefficients > 0) op.prepare(n, c, k);
    double total[2] = {}, t[2];
    for (std::int64_t p = n * cut.pixels + start; p < n * cut.pixels + end; ++p) {
      const float value = op(in.a.pixel(p)[c], Op::inputs > 1 ? in.b.pixel(p)[c] : 0.0f,
                             Op::inputs > 2 ? in.d.pixel(p)[c] : 0.0f, k, t);
      if constexpr (Op::writes) written.pixel(p)[c] = value;
      total[0] += t[0];
      if constexpr (Op::terms > 1) total[1] += t[1];
    }
    for (int term = 0; term < Op::terms; ++term) partials[(index * Op::terms + term) * extents.c + c] = total[term];
  }
};

/// Blocks of a sample in order: totals[n, term, c].
struct SumOverBlocks {
  const double* partials;
  double* totals;
  std::int64_t blocks, row;  ///< row: terms * channels

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const double* first = partials + i / row * blocks * row + i % row;
    double total = 0;
    for (std::int64_t b = 0; b < blocks; ++b) total += first[b * row];
    totals[i] = total;
  }
};

/// Samples in order: sums[term, c].
struct SumOverSamples {
  const double* totals;
  double* sums;
  int samples;
  std::int64_t row;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    double total = 0;
    for (int n = 0; n < samples; ++n) total += totals[n * row + i];
    sums[i] = total;
  }
};

/// Sums over the pixels of each sample of the op's terms t, and `written` = the op's value where Op::writes (which may
/// be one of the inputs).
/// @param kept  where the sums go, [N, terms, C]; null for memory that the next call takes again
/// @return [N, terms, C] in the kernels' memory
template <class Op>
const double* sum_sample_channels(const char* label, const Space& space, const Op& op, const Inputs& in,
                                  const Activations& written = {}, double* kept = nullptr) {
  const Extents e = in.a.extents;
  require_extents((Op::inputs < 2 || in.b.extents == e) && (Op::inputs < 3 || in.d.extents == e) &&
                      (!Op::writes || written.extents == e),
                  label);
  const std::int64_t row = static_cast<std::int64_t>(Op::terms) * e.c;
  if (e.n == 0 || row == 0) return nullptr;
  const SumBlocks cut(e);
  double* const memory = sum_memory(static_cast<std::size_t>((e.n + e.n * cut.count) * row));
  double* const totals = kept ? kept : memory;
  double* const partials = memory + e.n * row;
  if constexpr (runs_on_host) {
    const bool dense = in.dense() && dense_or_absent(written);
    Kokkos::parallel_for(label, Range(space, 0, e.n * cut.count),
                         SumBlock<Op>{op, in, written, cut, e, partials, dense});
  } else {
    Kokkos::parallel_for(label, Range(space, 0, e.n * cut.count * e.c),
                         SumBlockChannel<Op>{op, in, written, cut, e, partials});
  }
  Kokkos::parallel_for("umbriel::sum_over_blocks", Range(space, 0, e.n * row),
                       SumOverBlocks{partials, totals, cut.count, row});
  return totals;
}

}  // namespace umbriel::detail
