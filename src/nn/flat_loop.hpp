/// Passes over flat arrays and sums over parts of them.
#pragma once

#include <string>
#include <vector>

#include "umbriel/core/loops.hpp"

namespace umbriel::nn {

namespace detail {

template <class F>
struct FlatStretch {
  F f;
  std::int64_t n;
  int stretch;

  KOKKOS_INLINE_FUNCTION void operator()(int, int row, int begin, int end) const {
    const std::int64_t first = static_cast<std::int64_t>(row) * stretch;
    const std::int64_t last = first + end < n ? first + end : n;
    if (first + begin < last) f(first + begin, last);
  }
};

}  // namespace detail

/// Calls f(begin, end) for stretches that cover elements 0 ... n - 1: long ones on a host, single elements on a device.
/// Elements must be independent.
template <class F>
void for_each_stretch(const std::string& label, const Space& space, std::int64_t n, const F& f) {
  constexpr int stretch = 4096;
  const int rows = static_cast<int>((n + stretch - 1) / stretch);
  for_each_row(label, space, 1, rows, stretch, detail::FlatStretch<F>{f, n, stretch});
}

/// Entries of a host vector in the kernels' memory.
template <class T>
View1<T> table(const std::string& label, const std::vector<T>& entries) {
  View1<T> view = uninitialised<View1<T>>(label, entries.size());
  const Kokkos::View<const T*, HostMemory, Kokkos::MemoryUnmanaged> source(entries.data(), entries.size());
  Kokkos::deep_copy(view, source);
  return view;
}

/// sum of a[i] b[i] in float64: lane l adds the products i = l, l + sum_lanes, ...; then lanes are added in order.
KOKKOS_INLINE_FUNCTION double ordered_dot(const float* a, const float* b, int n) {
  double lanes[sum_lanes] = {};
  int i = 0;
  for (; i + sum_lanes <= n; i += sum_lanes) {
    for (int l = 0; l < sum_lanes; ++l) lanes[l] += static_cast<double>(a[i + l]) * static_cast<double>(b[i + l]);
  }
  for (int l = 0; i + l < n; ++l) lanes[l] += static_cast<double>(a[i + l]) * static_cast<double>(b[i + l]);
  double sum = 0;
  for (int l = 0; l < sum_lanes; ++l) sum += lanes[l];
  return sum;
}

}  // namespace umbriel::nn
