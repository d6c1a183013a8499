// Loops run over rows of a copy of the map with a margin of two pixels, so that no neighbour needs its own test and the
// compiler can vectorise; what the margin holds beyond an open border is read, and then left out by the footprint.
#include "umbriel/statistics/map_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "umbriel/core/check.hpp"
#include "umbriel/statistics/fourier_filter.hpp"

namespace umbriel {
namespace {

constexpr int margin = 2;

/// A map with a margin: its other side where periodic, else zeros.
template <class T>
struct Padded {
  std::size_t stride;
  std::vector<T> values;

  template <class Source>
  Padded(Grid grid, Border border, const Source* map)
      : stride(static_cast<std::size_t>(grid.width + 2 * margin)),
        values(stride * static_cast<std::size_t>(grid.height + 2 * margin), T(0)) {
    const int extra = border == Border::periodic ? margin : 0;
    const auto wrapped = [](int i, int n) { return ((i % n) + n) % n; };
    for (int y = -extra; y < grid.height + extra; ++y) {
      const Source* from = map + static_cast<std::ptrdiff_t>(wrapped(y, grid.height)) * grid.width;
      T* to = row(y);
      std::copy_n(from, grid.width, to);
      for (int x = 0; x < extra; ++x) {
        to[-1 - x] = from[wrapped(-1 - x, grid.width)];
        to[grid.width + x] = from[wrapped(x, grid.width)];
      }
    }
  }

  /// Row y of the map, from x = 0 on.
  T* row(int y) { return values.data() + static_cast<std::size_t>(y + margin) * stride + margin; }
  const T* row(int y) const { return values.data() + static_cast<std::size_t>(y + margin) * stride + margin; }
};

/// Counts of extrema: above(a, b) is whether a stands out from its neighbour b.
template <class Above>
std::vector<double> extremum_counts(const Footprint& footprint, const double* map, const Bins& bins, double unit,
                                    const Above& above) {
  const Grid grid = footprint.grid;
  const Padded<double> padded(grid, footprint.border, map);
  const Bins scaled = bins.scaled(unit);
  const auto width = static_cast<std::size_t>(grid.width);
  std::vector<double> counts(bins.size(), 0);
  std::vector<std::uint8_t> found(width);
  for (int y = 0; y < grid.height; ++y) {
    const double *below = padded.row(y - 1), *here = padded.row(y), *over = padded.row(y + 1);
    const std::uint8_t* whole = footprint.surrounded.data() + static_cast<std::size_t>(y) * width;
    for (int x = 0; x < grid.width; ++x) {
      const double v = here[x];
      found[static_cast<std::size_t>(x)] =
          static_cast<std::uint8_t>((whole[x] != 0) & above(v, below[x - 1]) & above(v, below[x]) &
                                    above(v, below[x + 1]) & above(v, here[x - 1]) & above(v, here[x + 1]) &
                                    above(v, over[x - 1]) & above(v, over[x]) & above(v, over[x + 1]));
    }
    for (int x = 0; x < grid.width; ++x) {
      if (found[static_cast<std::size_t>(x)] == 0) continue;
      const int bin = scaled(here[x]);
      if (bin >= 0) counts[static_cast<std::size_t>(bin)] += 1;
    }
  }
  return counts;
}

}  // namespace

Footprint::Footprint(Grid size, const std::vector<double>& mask, Border beyond)
    : grid(size), border(beyond), observed(mask.size()), surrounded(mask.size()), differentiable(mask.size()) {
  require(mask.size() == static_cast<std::size_t>(grid.pixels()), ExitCode::input,
          "the mask has another size than the map", "", "give a mask of the map's grid");
  require(std::all_of(mask.begin(), mask.end(), [](double value) { return std::isfinite(value); }) &&
              std::any_of(mask.begin(), mask.end(), [](double value) { return value != 0; }),
          ExitCode::input, "the mask is not finite, or zero everywhere", "", "give weights from 0 to 1");
  for (std::size_t i = 0; i < mask.size(); ++i) observed[i] = mask[i] != 0;
  pixels = static_cast<double>(std::count(observed.begin(), observed.end(), 1));
  const Padded<std::uint8_t> padded(grid, border, observed.data());
  std::size_t at = 0;
  for (int y = 0; y < grid.height; ++y) {
    const std::uint8_t* row[5];
    for (int i = 0; i < 5; ++i) row[i] = padded.row(y + i - 2);
    for (int x = 0; x < grid.width; ++x, ++at) {
      bool all = true;
      for (int i = 1; i < 4; ++i) all = all && row[i][x - 1] && row[i][x] && row[i][x + 1];
      surrounded[at] = all;
      differentiable[at] = all && row[0][x] && row[4][x] && row[2][x - 2] && row[2][x + 2];
    }
  }
}

Bins::Bins(std::vector<double> edges, const std::string& where) : edges_(std::move(edges)) {
  require(edges_.size() > 1 && std::is_sorted(edges_.begin(), edges_.end(), std::less_equal<>()) &&
              std::all_of(edges_.begin(), edges_.end(), [](double edge) { return std::isfinite(edge); }),
          ExitCode::usage, "the edges of the bins do not increase", where,
          "give two numbers or more, each above the one before");
  bins_a_unit_ = static_cast<double>(size()) / (edges_.back() - edges_.front());
}

std::vector<double> Bins::centres() const {
  std::vector<double> out(size());
  for (std::size_t b = 0; b < out.size(); ++b) out[b] = 0.5 * (edges_[b] + edges_[b + 1]);
  return out;
}

Bins Bins::scaled(double unit) const {
  require(unit > 0, ExitCode::usage, "the unit of the bins is not above zero", "", "give one that is");
  std::vector<double> edges = edges_;
  for (double& edge : edges) edge *= unit;
  return Bins(std::move(edges));
}

int Bins::operator()(double value) const {
  if (!(value >= edges_.front() && value < edges_.back())) return -1;
  // Right at once where bins are of one width, and a few steps away where they are not.
  std::size_t bin = std::min(size() - 1, static_cast<std::size_t>((value - edges_.front()) * bins_a_unit_));
  while (value < edges_[bin]) --bin;
  while (value >= edges_[bin + 1]) ++bin;
  return static_cast<int>(bin);
}

double standard_deviation(const Footprint& footprint, const double* map) {
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < footprint.observed.size(); ++i) {
    if (footprint.observed[i] != 0) sum += map[i];
  }
  const double mean = sum / footprint.pixels;
  for (std::size_t i = 0; i < footprint.observed.size(); ++i) {
    if (footprint.observed[i] != 0) squares += (map[i] - mean) * (map[i] - mean);
  }
  const double sigma = std::sqrt(squares / footprint.pixels);
  return sigma > 1e-12 * std::abs(mean) ? sigma : 0;
}

std::vector<double> pixel_density(const Footprint& footprint, const double* map, const Bins& bins, double unit) {
  const Bins scaled = bins.scaled(unit);
  std::vector<double> density(bins.size(), 0);
  for (std::size_t i = 0; i < footprint.observed.size(); ++i) {
    const int bin = footprint.observed[i] != 0 ? scaled(map[i]) : -1;
    if (bin >= 0) density[static_cast<std::size_t>(bin)] += 1;
  }
  for (std::size_t b = 0; b < density.size(); ++b)
    density[b] /= footprint.pixels * (bins.edges()[b + 1] - bins.edges()[b]);
  return density;
}

std::vector<double> peak_counts(const Footprint& footprint, const double* map, const Bins& bins, double unit) {
  return extremum_counts(footprint, map, bins, unit, [](double a, double b) { return a > b; });
}

std::vector<double> minimum_counts(const Footprint& footprint, const double* map, const Bins& bins, double unit) {
  return extremum_counts(footprint, map, bins, unit, [](double a, double b) { return a < b; });
}

MinkowskiFunctionals minkowski_functionals(const Footprint& footprint, const double* map, const Bins& bins, double unit,
                                           double pixel) {
  const Grid grid = footprint.grid;
  const Padded<double> padded(grid, footprint.border, map);
  const Bins scaled = bins.scaled(unit);
  const std::vector<double> nu = scaled.centres();
  const std::size_t n = bins.size();
  MinkowskiFunctionals out{std::vector<double>(n, 0), std::vector<double>(n, 0), std::vector<double>(n, 0)};
  std::vector<double> above(n + 1, 0);  // pixels from one threshold to the next
  double pixels = 0;
  const auto width = static_cast<std::size_t>(grid.width);
  std::vector<double> boundary(width), curvature(width);
  const double pi = std::numbers::pi;
  for (int y = 0; y < grid.height; ++y) {
    const double *far_below = padded.row(y - 2), *below = padded.row(y - 1), *here = padded.row(y),
                 *over = padded.row(y + 1), *far_over = padded.row(y + 2);
    double *length = boundary.data(), *turn = curvature.data();
    for (int x = 0; x < grid.width; ++x) {
      const double fx = (here[x + 1] - here[x - 1]) / 2, fy = (over[x] - below[x]) / 2;
      const double fxx = (here[x + 2] + here[x - 2] - 2 * here[x]) / 4;
      const double fyy = (far_over[x] + far_below[x] - 2 * here[x]) / 4;
      const double fxy = (over[x + 1] + below[x - 1] - below[x + 1] - over[x - 1]) / 4;
      const double square = fx * fx + fy * fy;
      length[x] = std::sqrt(square) / 4;
      const double flat = (2 * fxy - fxx - fyy) / (4 * pi);
      const double bent = (2 * fx * fy * fxy - fx * fx * fyy - fy * fy * fxx) / (2 * pi * square);
      turn[x] = square == 0 ? flat : bent;
    }
    const std::uint8_t* known = footprint.differentiable.data() + static_cast<std::size_t>(y) * width;
    for (int x = 0; x < grid.width; ++x) {
      if (known[x] == 0) continue;
      pixels += 1;
      const int bin = scaled(here[x]);
      if (bin < 0) {
        above[here[x] < scaled.edges().front() ? 0 : n] += 1;
        continue;
      }
      const auto b = static_cast<std::size_t>(bin);
      above[here[x] < nu[b] ? b : b + 1] += 1;
      out.v1[b] += length[x];
      out.v2[b] += turn[x];
    }
  }
  require(pixels > 0, ExitCode::input, "no pixel of the mask has its neighbours observed, and so a gradient", "",
          "give a mask with whole areas, or leave Minkowski functionals out");
  double count = 0;
  for (std::size_t b = n; b-- > 0;) {
    count += above[b + 1];
    const double step = (scaled.edges()[b + 1] - scaled.edges()[b]) * pixels;
    out.v0[b] = count / pixels;
    out.v1[b] /= step * pixel;
    out.v2[b] /= step * pixel * pixel;
  }
  return out;
}

std::vector<double> gaussian_taps(double sigma) {
  require(sigma > 0, ExitCode::usage, "smoothing needs a width above zero", "", "give one, or do not smooth");
  std::vector<double> taps;
  for (int j = 0; j <= 7 * sigma + 1; ++j) taps.push_back(std::exp(-0.5 * j * j / (sigma * sigma)));
  const double sum = 2 * std::accumulate(taps.begin() + 1, taps.end(), 0.0) + taps[0];
  for (double& tap : taps) tap /= sum;
  return taps;
}

double smoothed_noise(double sigma) {
  const std::vector<double> taps = gaussian_taps(sigma);
  double squares = taps[0] * taps[0];
  for (std::size_t j = 1; j < taps.size(); ++j) squares += 2 * taps[j] * taps[j];
  return squares;  // its root along each of two axes
}

struct GaussianSmoothing::State {
  Footprint footprint;
  FourierFilter filter;
  std::vector<double> gain_y, gain_x;  // of the modes [ky] and [kx]
  std::vector<double> weight;          // [y, x] the smoothed mask; empty: 1 everywhere
  std::vector<double> wide;            // [y, x] of the transform's grid

  /// Beyond an open border the transform's grid has room without weight for the kernel.
  static Grid wide_enough(const Footprint& footprint, double sigma) {
    Grid grid = footprint.grid;
    if (footprint.border == Border::periodic) return grid;
    const auto smooth_size = [](int n) {  // a product of small primes, for the transform's sake
      for (;; ++n) {
        int rest = n;
        for (const int prime : {2, 3, 5}) {
          while (rest % prime == 0) rest /= prime;
        }
        if (rest == 1) return n;
      }
    };
    const int extra = static_cast<int>(gaussian_taps(sigma).size()) - 1;
    return {smooth_size(grid.height + extra), smooth_size(grid.width + extra)};
  }

  State(const Footprint& observed, double sigma)
      : footprint(observed),
        filter(wide_enough(observed, sigma)),
        wide(static_cast<std::size_t>(filter.grid().pixels())) {
    const std::vector<double> taps = gaussian_taps(sigma);
    const auto gain = [&](int k, int n) {
      double sum = taps[0];
      for (std::size_t j = 1; j < taps.size(); ++j)
        sum += 2 * taps[j] * std::cos(2 * std::numbers::pi * k * static_cast<double>(j) / n);
      return sum;
    };
    for (int ky = 0; ky < filter.grid().height; ++ky) gain_y.push_back(gain(ky, filter.grid().height));
    for (int kx = 0; kx < filter.grid().half_width(); ++kx) gain_x.push_back(gain(kx, filter.grid().width));
    if (footprint.border == Border::periodic && footprint.pixels == static_cast<double>(footprint.grid.pixels()))
      return;
    weight.assign(footprint.observed.begin(), footprint.observed.end());
    smooth(weight.data());
  }

  /// The product of mask and map, smoothed.
  void smooth(double* map) {
    const auto width = static_cast<std::size_t>(footprint.grid.width);
    const auto stride = static_cast<std::size_t>(filter.grid().width), half = gain_x.size();
    std::fill_n(filter.map(), wide.size(), 0.0);
    for (std::size_t i = 0; i < footprint.observed.size(); ++i) {
      if (footprint.observed[i] != 0) filter.map()[i / width * stride + i % width] = map[i];
    }
    filter.transform();
    auto& modes = filter.modes();
    for (std::size_t ky = 0; ky < gain_y.size(); ++ky) {
      for (std::size_t kx = 0; kx < half; ++kx) modes[ky * half + kx] *= gain_y[ky] * gain_x[kx];
    }
    filter.filter([](std::size_t) { return 1.0; }, wide.data());
    for (std::size_t i = 0; i < footprint.observed.size(); ++i) map[i] = wide[i / width * stride + i % width];
  }
};

GaussianSmoothing::GaussianSmoothing(const Footprint& footprint, double sigma)
    : state_(std::make_unique<State>(footprint, sigma)) {}
GaussianSmoothing::~GaussianSmoothing() = default;
GaussianSmoothing::GaussianSmoothing(GaussianSmoothing&&) noexcept = default;

void GaussianSmoothing::operator()(double* map) {
  State& s = *state_;
  s.smooth(map);
  if (s.weight.empty()) return;
  for (std::size_t i = 0; i < s.weight.size(); ++i) map[i] = s.footprint.observed[i] != 0 ? map[i] / s.weight[i] : 0;
}

}  // namespace umbriel
