/// Loops over batches of maps, and sums over each map that give the same bits on every backend, for any number of
/// threads and for any batch size.
///
/// A map is summed row by row; in a row, lane l adds the elements x = l, l + lanes, ... in float64; then lanes and
/// rows are added in index order. On a host that order fills vector registers; on a GPU neighbouring lanes are
/// neighbouring threads. The result depends on the map alone.
#pragma once

#include <cstdint>
#include <string>

#include "umbriel/core/views.hpp"

namespace umbriel {

/// Partial sums of a row: 16 doubles are two AVX-512 registers or half a warp.
inline constexpr int sum_lanes = 16;

#if defined(__GNUC__) && !defined(__clang__) && !defined(__NVCC__)
#define UMBRIEL_INDEPENDENT_ITERATIONS _Pragma("GCC ivdep")
#else
#define UMBRIEL_INDEPENDENT_ITERATIONS
#endif

/// Buffer for sum_each_map; one serves any number of calls one after the other.
struct SumWorkspace {
  View3<double> rows;  ///< [map, y, lane]

  SumWorkspace() = default;
  SumWorkspace(int maps, int height) : rows("umbriel::sum_workspace", maps, height, sum_lanes) {}
};

namespace detail {

// Functors and not lambdas: nvcc refuses an extended lambda that captures inside `if constexpr`.

template <class F>
struct RowLoop {
  F f;
  int height, width;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t row) const {
    const int map = static_cast<int>(row / height);
    const int y = static_cast<int>(row % height);
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int x = 0; x < width; ++x) f(map, y, x);
  }
};

/// The same where f takes a stretch of a row.
template <class F>
struct StretchLoop {
  F f;
  int height, width;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t row) const {
    f(static_cast<int>(row / height), static_cast<int>(row % height), 0, width);
  }
};

/// @{ One element of a row as a stretch of its own.
template <class F>
struct ElementOfStretch {
  F f;
  KOKKOS_INLINE_FUNCTION void operator()(int map, int y, int x) const { f(map, y, x, x + 1); }
};
template <class F>
struct TermOfStretch {
  F f;
  KOKKOS_INLINE_FUNCTION float operator()(int map, int y, int x) const {
    float term;
    f(map, y, x, x + 1, &term);
    return term;
  }
};
/// @}

template <class F>
struct ElementLoop {
  F f;
  int height, width;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const std::int64_t elements = static_cast<std::int64_t>(height) * width;
    const int element = static_cast<int>(i % elements);
    f(static_cast<int>(i / elements), element / width, element % width);
  }
};

template <class F>
struct RowSum {
  F f;
  View3<double> rows;
  int height, width;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t row) const {
    const int map = static_cast<int>(row / height);
    const int y = static_cast<int>(row % height);
    double sums[sum_lanes] = {};
    int x = 0;
    for (; x + sum_lanes <= width; x += sum_lanes) {
      UMBRIEL_INDEPENDENT_ITERATIONS
      for (int lane = 0; lane < sum_lanes; ++lane) sums[lane] += static_cast<double>(f(map, y, x + lane));
    }
    for (int lane = 0; x + lane < width; ++lane) sums[lane] += static_cast<double>(f(map, y, x + lane));
    for (int lane = 0; lane < sum_lanes; ++lane) rows(map, y, lane) = sums[lane];
  }
};

/// The same where f takes a stretch of a row. The terms of a stretch are found first, and then added: a loop that does
/// both is not vectorised.
template <class F>
struct StretchSum {
  F f;
  View3<double> rows;
  int height, width;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t row) const {
    const int map = static_cast<int>(row / height);
    const int y = static_cast<int>(row % height);
    constexpr int stretch = 8 * sum_lanes;
    float terms[stretch];
    double sums[sum_lanes] = {};
    for (int first = 0; first < width; first += stretch) {
      const int n = width - first < stretch ? width - first : stretch;
      f(map, y, first, first + n, terms);
      const int whole = (n + sum_lanes - 1) / sum_lanes * sum_lanes;
      for (int i = n; i < whole; ++i) terms[i] = 0;  // adding zero changes no sum
      for (int i = 0; i < whole; i += sum_lanes) {
        for (int lane = 0; lane < sum_lanes; ++lane) sums[lane] += static_cast<double>(terms[i + lane]);
      }
    }
    for (int lane = 0; lane < sum_lanes; ++lane) rows(map, y, lane) = sums[lane];
  }
};

template <class F>
struct LaneSum {
  F f;
  View3<double> rows;
  int height, width;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const std::int64_t lanes_a_map = static_cast<std::int64_t>(height) * sum_lanes;
    const int map = static_cast<int>(i / lanes_a_map);
    const int y = static_cast<int>(i % lanes_a_map) / sum_lanes;
    const int lane = static_cast<int>(i % sum_lanes);
    double sum = 0;
    for (int x = lane; x < width; x += sum_lanes) sum += static_cast<double>(f(map, y, x));
    rows(map, y, lane) = sum;
  }
};

/// Lanes of each row in order, for devices: MapSum then has fewer values to go through.
struct RowTotal {
  View3<double> rows;
  int height;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const int map = static_cast<int>(i / height), y = static_cast<int>(i % height);
    double row = 0;
    for (int lane = 0; lane < sum_lanes; ++lane) row += rows(map, y, lane);
    rows(map, y, 0) = row;
  }
};

struct MapSum {
  View3<double> rows;
  View1<double> out;
  int height, lanes;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t map) const {
    double total = 0;
    for (int y = 0; y < height; ++y) {
      double row = 0;
      for (int lane = 0; lane < lanes; ++lane) row += rows(map, y, lane);
      total += row;
    }
    out(map) = total;
  }
};

inline void require_room(const SumWorkspace& workspace, const View1<double>& out, int maps, int height,
                         const std::string& label) {
  require(static_cast<int>(workspace.rows.extent(0)) >= maps && static_cast<int>(workspace.rows.extent(1)) >= height &&
              static_cast<int>(out.extent(0)) >= maps,
          ExitCode::usage, "the sum workspace or the output is too small", label);
}

/// out(map) = sum of its rows' lanes, in index order.
inline void sum_rows(const std::string& label, const Space& space, int maps, int height, const View3<double>& rows,
                     const View1<double>& out) {
  if constexpr (!runs_on_host) {
    Kokkos::parallel_for(label + "_lanes", Range(space, 0, static_cast<std::int64_t>(maps) * height),
                         RowTotal{rows, height});
  }
  Kokkos::parallel_for(label + "_rows", Range(space, 0, maps), MapSum{rows, out, height, runs_on_host ? sum_lanes : 1});
}

}  // namespace detail

/// Calls f(map, y, x) for every element of `maps` arrays of height x width. Iterations must be independent.
template <class F>
void for_each_element(const std::string& label, const Space& space, int maps, int height, int width, const F& f) {
  if (maps <= 0) return;
  if constexpr (runs_on_host) {
    Kokkos::parallel_for(label, Range(space, 0, static_cast<std::int64_t>(maps) * height),
                         detail::RowLoop<F>{f, height, width});
  } else {
    Kokkos::parallel_for(label, Range(space, 0, static_cast<std::int64_t>(maps) * height * width),
                         detail::ElementLoop<F>{f, height, width});
  }
}

/// out(map) = sum over y, x of f(map, y, x), in float64; f may also write arrays, so that a kernel that computes a
/// field and its norm reads memory once.
/// @param out  [>= maps] float64
template <class F>
void sum_each_map(const std::string& label, const Space& space, int maps, int height, int width,
                  const SumWorkspace& workspace, const View1<double>& out, const F& f) {
  if (maps <= 0) return;
  detail::require_room(workspace, out, maps, height, label);
  const std::int64_t rows = static_cast<std::int64_t>(maps) * height;
  if constexpr (runs_on_host) {
    Kokkos::parallel_for(label, Range(space, 0, rows), detail::RowSum<F>{f, workspace.rows, height, width});
  } else {
    Kokkos::parallel_for(label, Range(space, 0, rows * sum_lanes),
                         detail::LaneSum<F>{f, workspace.rows, height, width});
  }
  detail::sum_rows(label, space, maps, height, workspace.rows, out);
}

/// @{ As for_each_element and sum_each_map, with f(map, y, begin, end) for the elements x = begin ... end - 1 of a row
/// (and f(map, y, begin, end, terms), which sets terms[x - begin], float32): a whole row or a good part of it on a
/// host, one element on a device. What does not change along a row is computed once, and a loop over x on plain
/// pointers is vectorised, which the compiler does not manage through Views. (nvcc falls over functions that return the
/// body of the loop.)
template <class F>
void for_each_row(const std::string& label, const Space& space, int maps, int height, int width, const F& f) {
  if (maps <= 0) return;
  if constexpr (runs_on_host) {
    Kokkos::parallel_for(label, Range(space, 0, static_cast<std::int64_t>(maps) * height),
                         detail::StretchLoop<F>{f, height, width});
  } else {
    for_each_element(label, space, maps, height, width, detail::ElementOfStretch<F>{f});
  }
}

template <class F>
void sum_each_map_by_rows(const std::string& label, const Space& space, int maps, int height, int width,
                          const SumWorkspace& workspace, const View1<double>& out, const F& f) {
  if constexpr (runs_on_host) {
    if (maps <= 0) return;
    detail::require_room(workspace, out, maps, height, label);
    Kokkos::parallel_for(label, Range(space, 0, static_cast<std::int64_t>(maps) * height),
                         detail::StretchSum<F>{f, workspace.rows, height, width});
    detail::sum_rows(label, space, maps, height, workspace.rows, out);
  } else {
    sum_each_map(label, space, maps, height, width, workspace, out, detail::TermOfStretch<F>{f});
  }
}
/// @}

}  // namespace umbriel
