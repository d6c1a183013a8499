#include "umbriel/statistics/starlet.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

/// Where pixel i of a line of n is that may lie beyond its ends.
int inside(int i, int n, Border border) {
  const int period = border == Border::periodic ? n : std::max(1, 2 * (n - 1));
  const int at = ((i % period) + period) % period;
  return border == Border::periodic || at < n ? at : period - at;
}

/// to[i] = the B3 spline of five lines of values.
void combine(const double* const from[5], std::size_t n, double* to) {
  const double *a = from[0], *b = from[1], *c = from[2], *d = from[3], *e = from[4];
  for (std::size_t i = 0; i < n; ++i) to[i] = 0.0625 * (a[i] + e[i]) + 0.25 * (b[i] + d[i]) + 0.375 * c[i];
}

}  // namespace

Starlet::Starlet(const Footprint& footprint, int scales)
    : footprint_(footprint), scales_(scales), along_x_(footprint.observed.size()) {
  const int side = std::min(footprint.grid.height, footprint.grid.width);
  require(scales >= 1 && scales < 31 && (1 << scales) <= side, ExitCode::usage,
          "the map cannot hold that many wavelet scales",
          "a scale of 2^" + std::to_string(scales) + " pixels, a side of " + std::to_string(side), "take fewer");
  planes_.resize(footprint.observed.size() * static_cast<std::size_t>(planes()));
}

void Starlet::smooth(const double* from, int step, double* to) {
  const int height = footprint_.grid.height, width = footprint_.grid.width;
  const auto columns = static_cast<std::size_t>(width);
  const int first = std::min(2 * step, width), last = std::max(first, width - 2 * step);
  for (int y = 0; y < height; ++y) {
    const double* row = from + static_cast<std::size_t>(y) * columns;
    double* out = along_x_.data() + static_cast<std::size_t>(y) * columns;
    const auto at_end = [&](int x) {
      const auto value = [&](int offset) { return row[inside(x + offset * step, width, footprint_.border)]; };
      out[x] = 0.0625 * (value(-2) + value(2)) + 0.25 * (value(-1) + value(1)) + 0.375 * row[x];
    };
    for (int x = 0; x < first; ++x) at_end(x);
    if (last > first) {
      const double* const shifted[5] = {row + first - 2 * step, row + first - step, row + first, row + first + step,
                                        row + first + 2 * step};
      combine(shifted, static_cast<std::size_t>(last - first), out + first);
    }
    for (int x = last; x < width; ++x) at_end(x);
  }
  for (int y = 0; y < height; ++y) {
    const double* rows[5];
    for (int i = 0; i < 5; ++i)
      rows[i] =
          along_x_.data() + static_cast<std::size_t>(inside(y + (i - 2) * step, height, footprint_.border)) * columns;
    combine(rows, columns, to + static_cast<std::size_t>(y) * columns);
  }
}

const std::vector<double>& Starlet::transform(const double* map) {
  const std::size_t n = footprint_.observed.size();
  for (std::size_t i = 0; i < n; ++i) planes_[i] = footprint_.observed[i] != 0 ? map[i] : 0;
  for (int j = 0; j < scales_; ++j) {
    double *plane = planes_.data() + static_cast<std::size_t>(j) * n, *rest = plane + n;
    smooth(plane, 1 << j, rest);
    for (std::size_t i = 0; i < n; ++i) plane[i] -= rest[i];
  }
  return planes_;
}

// Along one axis c_j has the transfer function k_j(q) = prod_(i < j) cos^4(2^i q / 2), here times the Gaussian's, and
// planes are differences of products over both axes. With S(i, j) the mean of k_i k_j over all q, the variance of c_j
// is S(j, j)^2 and the covariance of c_i and c_j is S(i, j)^2.
std::vector<double> starlet_noise(int scales, double smoothing) {
  std::vector<double> taps = {1};
  if (smoothing > 0) taps = gaussian_taps(smoothing);
  const std::size_t reach = (std::size_t{4} << scales) + 2 * taps.size(), n = 2 * reach;  // no kernel goes round
  const auto planes = static_cast<std::size_t>(scales) + 1;
  std::vector<double> same(planes, 0), next(planes, 0), k(planes);
  for (std::size_t i = 0; i < n; ++i) {
    const double q = 2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(n);
    k[0] = taps[0];
    for (std::size_t t = 1; t < taps.size(); ++t) k[0] += 2 * taps[t] * std::cos(q * static_cast<double>(t));
    for (std::size_t j = 1; j < planes; ++j)
      k[j] = k[j - 1] * std::pow(std::cos(std::ldexp(q, static_cast<int>(j) - 2)), 4);
    for (std::size_t j = 0; j < planes; ++j) {
      same[j] += k[j] * k[j] / static_cast<double>(n);
      if (j + 1 < planes) next[j] += k[j] * k[j + 1] / static_cast<double>(n);
    }
  }
  std::vector<double> out(planes);
  for (std::size_t j = 0; j + 1 < planes; ++j)
    out[j] = std::sqrt(same[j] * same[j] + same[j + 1] * same[j + 1] - 2 * next[j] * next[j]);
  out.back() = same.back();
  return out;
}

std::vector<double> l1_norm(const Footprint& footprint, const double* plane, const Bins& bins, double unit) {
  const Bins scaled = bins.scaled(unit);
  std::vector<double> sums(bins.size(), 0);
  for (std::size_t i = 0; i < footprint.observed.size(); ++i) {
    const int bin = footprint.observed[i] != 0 ? scaled(plane[i]) : -1;
    if (bin >= 0) sums[static_cast<std::size_t>(bin)] += std::abs(plane[i]);
  }
  for (double& sum : sums) sum /= unit;
  return sums;
}

}  // namespace umbriel
