/// A function given at increasing places: linear between them, constant beyond.
#pragma once

#include <algorithm>
#include <vector>

namespace umbriel {

inline double interpolated(const std::vector<double>& at, const std::vector<double>& values, double x) {
  const auto above = static_cast<std::size_t>(std::upper_bound(at.begin(), at.end(), x) - at.begin());
  if (above == 0) return values.front();
  if (above == at.size()) return values.back();
  const double t = (x - at[above - 1]) / (at[above] - at[above - 1]);
  return (1 - t) * values[above - 1] + t * values[above];
}

}  // namespace umbriel
