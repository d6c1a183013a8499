#include "umbriel/nn/phases.hpp"

#include "umbriel/core/loops.hpp"
#include "umbriel/ops/activation_math.hpp"
#include "umbriel/ops/packs.hpp"

namespace umbriel::nn {
namespace {

/// Row y = ci 4 + phase of tap `map` = 2 row + column.
struct PhaseWeights {
  const float* weights;
  float* phases;
  int c_in, c_out;

  KOKKOS_INLINE_FUNCTION void operator()(int map, int y, int begin, int end) const {
    const int p = y % 4 / 2, q = y % 2, ci = y / 4;
    float* to = phases + (static_cast<std::int64_t>(map) * c_in + ci) * 4 * c_out + (2 * p + q) * c_out;
    for (int c = begin; c < end; ++c) to[c] = 0;
    for (int ky = 0; ky < 3; ++ky) {
      for (int kx = 0; kx < 3; ++kx) {
        if (2 * phase_tap(p, ky) + phase_tap(q, kx) != map) continue;
        const float* from = weights + (static_cast<std::int64_t>(ky * 3 + kx) * c_in + ci) * c_out;
        for (int c = begin; c < end; ++c) to[c] += from[c];
      }
    }
  }
};

/// Row ci of tap `map` = 3 ky + kx.
struct FineWeightsGradient {
  const float* phases;
  float* gradient;
  int c_in, c_out;
  bool accumulate;

  KOKKOS_INLINE_FUNCTION void operator()(int map, int ci, int begin, int end) const {
    const int ky = map / 3, kx = map % 3;
    float* to = gradient + (static_cast<std::int64_t>(map) * c_in + ci) * c_out;
    for (int c = begin; !accumulate && c < end; ++c) to[c] = 0;
    for (int phase = 0; phase < 4; ++phase) {
      const int tap = 2 * phase_tap(phase / 2, ky) + phase_tap(phase % 2, kx);
      const float* from = phases + (static_cast<std::int64_t>(tap) * c_in + ci) * 4 * c_out + phase * c_out;
      for (int c = begin; c < end; ++c) to[c] += from[c];
    }
  }
};

template <Activation f, bool adds_bias, bool adds_residual>
struct Interleave {
  ConstActivations phases;
  const float* bias;
  ConstActivations residual;
  Activations y;
  int shrink;  // of the residual: 1 or 2

  /// Channels [first, last) of a fine pixel.
  KOKKOS_INLINE_FUNCTION void pixel(int n, int fine_y, int fine_x, int first, int last) const {
    const int p = fine_y % 2, q = fine_x % 2;
    const float* from = &phases(n, fine_y / 2 + p, fine_x / 2 + q, (2 * p + q) * y.extents.c);
    const float* more = adds_residual ? &residual(n, fine_y / shrink, fine_x / shrink, 0) : nullptr;
    const float* add = bias;
    float* to = &y(n, fine_y, fine_x, 0);
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int c = first; c < last; ++c) {
      float value = from[c];
      if (adds_bias) value += add[c];
      if (adds_residual) value += more[c];
      to[c] = activated<f>(value);
    }
  }

  /// A row of y on a host, an element on a device.
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t index) const {
    const int c = y.extents.c, w = y.extents.w, h = y.extents.h;
    if constexpr (runs_on_host) {
      const Interleave self = *this;
      for (int x = 0; x < w; ++x) self.pixel(static_cast<int>(index / h), static_cast<int>(index % h), x, 0, c);
    } else {
      const detail::Split channel(index, c), column(channel.whole, w), row(column.whole, h);
      pixel(static_cast<int>(row.whole), row.rest, column.rest, channel.rest, channel.rest + 1);
    }
  }
};

struct Separate {
  ConstActivations dy;
  Activations phases;

  /// Channels [first, last) of a phase's pixel.
  KOKKOS_INLINE_FUNCTION void pixel(int n, int y, int x, int phase, int first, int last) const {
    const int coarse_y = y - phase / 2, coarse_x = x - phase % 2;
    float* to = &phases(n, y, x, phase * dy.extents.c);
    if (coarse_y < 0 || coarse_x < 0 || 2 * coarse_y >= dy.extents.h || 2 * coarse_x >= dy.extents.w) {
      for (int c = first; c < last; ++c) to[c] = 0;
      return;
    }
    const float* from = &dy(n, 2 * coarse_y + phase / 2, 2 * coarse_x + phase % 2, 0);
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int c = first; c < last; ++c) to[c] = from[c];
  }

  /// A row of the phases on a host, an element on a device.
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t index) const {
    const int c = dy.extents.c, w = phases.extents.w, h = phases.extents.h;
    if constexpr (runs_on_host) {
      const Separate self = *this;
      const int n = static_cast<int>(index / h), y = static_cast<int>(index % h);
      for (int x = 0; x < w; ++x) {
        for (int phase = 0; phase < 4; ++phase) self.pixel(n, y, x, phase, 0, c);
      }
    } else {
      const detail::Split channel(index, c), phase(channel.whole, 4), column(phase.whole, w), row(column.whole, h);
      pixel(static_cast<int>(row.whole), row.rest, column.rest, phase.rest, channel.rest, channel.rest + 1);
    }
  }
};

Range rows_or_elements(const Space& space, const Extents& e) {
  return {space, 0, runs_on_host ? static_cast<std::int64_t>(e.n) * e.h : e.elements()};
}

template <bool adds_bias, bool adds_residual>
void run_interleave(const Space& space, ConstActivations phases, const float* bias, ConstActivations residual,
                    Activation activation, Activations y) {
  const int shrink = adds_residual && residual.extents.h < y.extents.h ? 2 : 1;
  with_activation(activation, [&](auto f) {
    Kokkos::parallel_for("umbriel::nn::interleave", rows_or_elements(space, y.extents),
                         Interleave<f(), adds_bias, adds_residual>{phases, bias, residual, y, shrink});
  });
}

}  // namespace

bool suits_coarse_map(const Conv2dGeometry& g) {
  const bool three = g.kernel_y == 3 && g.kernel_x == 3 && g.pad_y == 1 && g.pad_x == 1;
  const bool one = g.kernel_y == 1 && g.kernel_x == 1 && g.pad_y == 0 && g.pad_x == 0;
  return g.stride == 1 && g.groups == 1 && (one || three);
}

Conv2dGeometry phase_geometry(const Conv2dGeometry& fine) {
  return {fine.c_in, 4 * fine.c_out, 2, 2, 1, 1, 1, fine.padding, 1};
}

void phase_weights(const Space& space, const Conv2dGeometry& fine, const float* weights, float* phases) {
  for_each_row("umbriel::nn::phase_weights", space, 4, 4 * fine.c_in, fine.c_out,
               PhaseWeights{weights, phases, fine.c_in, fine.c_out});
}

void fine_weights_gradient(const Space& space, const Conv2dGeometry& fine, const float* phases, float* gradient,
                           bool accumulate) {
  for_each_row("umbriel::nn::fine_weights_gradient", space, 9, fine.c_in, fine.c_out,
               FineWeightsGradient{phases, gradient, fine.c_in, fine.c_out, accumulate});
}

void interleave(const Space& space, ConstActivations phases, const float* bias, ConstActivations residual,
                Activation activation, Activations y) {
  if (bias && residual) {
    run_interleave<true, true>(space, phases, bias, residual, activation, y);
  } else if (bias) {
    run_interleave<true, false>(space, phases, bias, {}, activation, y);
  } else if (residual) {
    run_interleave<false, true>(space, phases, nullptr, residual, activation, y);
  } else {
    run_interleave<false, false>(space, phases, nullptr, {}, activation, y);
  }
}

void separate(const Space& space, ConstActivations dy, Activations phases) {
  Kokkos::parallel_for("umbriel::nn::separate", rows_or_elements(space, phases.extents), Separate{dy, phases});
}

}  // namespace umbriel::nn
