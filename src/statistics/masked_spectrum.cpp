// The coupling of bands b and b' is a sum over all pairs of modes,
//   M(b, b') = (4 pi^2 / A^2) / n_b sum_(k in b) sum_(k' in b') |w(k - k')|^2, w = F[mask], A the area of the map,
// which is a correlation of three functions of k. With the transforms I_b of the bands' indicators and V of |w|^2 it is
//   sum sum = (1 / N) sum_x I_b(x) I_b'(x) V(x).
// Indicators and |w|^2 are even, so their transforms are real and half a plane holds them.
#include "umbriel/statistics/masked_spectrum.hpp"

#include <Eigen/LU>
#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <string>

#include "umbriel/core/check.hpp"
#include "umbriel/fft/real_fft64.hpp"
#include "umbriel/statistics/fourier_filter.hpp"

namespace umbriel {
namespace {

using Complex64 = std::complex<double>;

}  // namespace

double FlatSky::multipole(int ky, int kx) const {
  const double turns_y = static_cast<double>(2 * ky <= grid.height ? ky : ky - grid.height) / grid.height;
  const double turns_x = static_cast<double>(kx) / grid.width;
  return 2 * std::numbers::pi * std::hypot(turns_y / pixel_y, turns_x / pixel_x);
}

struct MaskedSpectrum::State {
  FlatSky sky;
  std::vector<double> mask;
  std::vector<double> edges;
  std::vector<int> band;           // [ky, kx] of the half plane, -1 outside all
  std::vector<double> mask_power;  // V, [y, x] of the half plane
  std::vector<double> modes, centres, coupling;
  std::unique_ptr<RealFft64> transform;
  Eigen::PartialPivLU<Eigen::MatrixXd> inverse;

  std::size_t bands() const { return modes.size(); }

  /// Sums over the modes of the full plane in each band of value(index in the half plane).
  template <class Value>
  std::vector<double> band_sums(const Value& value) const {
    std::vector<double> sums(bands(), 0);
    const int columns = sky.grid.half_width();
    for (std::size_t at = 0; at < band.size(); ++at) {
      if (band[at] >= 0)
        sums[static_cast<std::size_t>(band[at])] +=
            mode_weight(sky.grid, static_cast<int>(at % static_cast<std::size_t>(columns))) * value(at);
    }
    return sums;
  }

  /// A real even function of k, given on the half plane, as the full plane in `transform->map()`.
  template <class Value>
  void unfold_even(const Value& value) const {
    unfold(sky.grid, value, value, transform->map());
  }

  void find_coupling() {
    const Grid grid = sky.grid;
    const std::size_t half = band.size(), n = bands();
    std::copy(mask.begin(), mask.end(), transform->map());
    std::vector<double> power(half);
    const auto& w = transform->forward();
    for (std::size_t at = 0; at < half; ++at) power[at] = std::norm(w[at]);
    unfold_even([&](std::size_t at) { return power[at]; });
    const auto& v = transform->forward();
    mask_power.resize(half);
    for (std::size_t at = 0; at < half; ++at) mask_power[at] = v[at].real();
    std::vector<double> weights(half);
    for (std::size_t at = 0; at < half; ++at)
      weights[at] =
          mask_power[at] * mode_weight(grid, static_cast<int>(at % static_cast<std::size_t>(grid.half_width())));
    std::vector<std::vector<double>> indicators(n);
    for (std::size_t b = 0; b < n; ++b) {
      unfold_even([&](std::size_t at) { return band[at] == static_cast<int>(b) ? 1.0 : 0.0; });
      const auto& modes_of_it = transform->forward();
      indicators[b].resize(half);
      for (std::size_t at = 0; at < half; ++at) indicators[b][at] = modes_of_it[at].real();
    }
    // In pieces that stay in the cache.
    std::vector<double> sums(n * n, 0);
    constexpr std::size_t piece = 1024;
    std::vector<double> scaled(piece);
    for (std::size_t begin = 0; begin < half; begin += piece) {
      const std::size_t length = std::min(piece, half - begin);
      for (std::size_t b = 0; b < n; ++b) {
        for (std::size_t i = 0; i < length; ++i) scaled[i] = indicators[b][begin + i] * weights[begin + i];
        const Eigen::Map<const Eigen::VectorXd> left(scaled.data(), static_cast<Eigen::Index>(length));
        for (std::size_t c = 0; c <= b; ++c) {
          const Eigen::Map<const Eigen::VectorXd> right(indicators[c].data() + begin,
                                                        static_cast<Eigen::Index>(length));
          sums[b * n + c] += left.dot(right);
        }
      }
    }
    // Transforms without their factor area / (2 pi N) each.
    const double pixels = static_cast<double>(grid.pixels());
    const double scale = 1 / (pixels * pixels * pixels);
    coupling.resize(n * n);
    for (std::size_t b = 0; b < n; ++b) {
      for (std::size_t c = 0; c <= b; ++c) {
        coupling[b * n + c] = scale * sums[b * n + c] / modes[b];
        coupling[c * n + b] = scale * sums[b * n + c] / modes[c];
      }
    }
  }
};

MaskedSpectrum::MaskedSpectrum(const FlatSky& sky, const std::vector<double>& mask, const std::vector<double>& edges)
    : state_(std::make_unique<State>()) {
  const Grid grid = sky.grid;
  require(mask.size() == static_cast<std::size_t>(grid.pixels()), ExitCode::input,
          "the mask has another size than the map", "", "give a mask of the map's grid");
  require(std::all_of(mask.begin(), mask.end(), [](double value) { return std::isfinite(value); }) &&
              std::any_of(mask.begin(), mask.end(), [](double value) { return value != 0; }),
          ExitCode::input, "the mask is not finite, or zero everywhere", "", "give weights from 0 to 1");
  require(edges.size() > 1 && std::is_sorted(edges.begin(), edges.end(), std::less_equal<>()), ExitCode::usage,
          "the edges of the bands do not increase", "", "give two multipoles or more, each above the one before");
  State& s = *state_;
  s.sky = sky;
  s.mask = mask;
  s.edges = edges;
  s.transform = std::make_unique<RealFft64>(grid);
  s.modes.assign(edges.size() - 1, 0);
  s.centres = s.modes;
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      const double l = sky.multipole(ky, kx);
      const auto above = std::upper_bound(edges.begin(), edges.end(), l);
      const bool inside = above != edges.begin() && above != edges.end();
      s.band.push_back(inside ? static_cast<int>(above - edges.begin()) - 1 : -1);
      if (!inside) continue;
      const auto b = static_cast<std::size_t>(s.band.back());
      s.modes[b] += mode_weight(grid, kx);
      s.centres[b] += mode_weight(grid, kx) * l;
    }
  }
  for (std::size_t b = 0; b < s.bands(); ++b) {
    require(s.modes[b] > 0, ExitCode::usage, "a band holds no modes of this map",
            "l = " + std::to_string(edges[b]) + " to " + std::to_string(edges[b + 1]), "take wider bands");
    s.centres[b] /= s.modes[b];
  }
  s.find_coupling();
  const auto n = static_cast<Eigen::Index>(s.bands());
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Rows matrix = Eigen::Map<const Rows>(s.coupling.data(), n, n);
  s.inverse.compute(matrix);
  require(s.inverse.rcond() > 1e-12, ExitCode::usage, "the mask couples the bands so that they cannot be told apart",
          "", "take wider bands, or observe more of the sky");
}

MaskedSpectrum::~MaskedSpectrum() = default;
MaskedSpectrum::MaskedSpectrum(MaskedSpectrum&&) noexcept = default;

int MaskedSpectrum::bands() const { return static_cast<int>(state_->bands()); }
const std::vector<double>& MaskedSpectrum::modes() const { return state_->modes; }
const std::vector<double>& MaskedSpectrum::centres() const { return state_->centres; }
const std::vector<double>& MaskedSpectrum::coupling() const { return state_->coupling; }

std::vector<double> MaskedSpectrum::coupled(const double* f, const double* g) const {
  State& s = *state_;
  const auto masked = [&](const double* map) -> const std::vector<Complex64>& {
    for (std::size_t i = 0; i < s.mask.size(); ++i) s.transform->map()[i] = s.mask[i] == 0 ? 0 : s.mask[i] * map[i];
    return s.transform->forward();
  };
  std::vector<double> out;
  if (f == g) {
    const auto& a = masked(f);
    out = s.band_sums([&](std::size_t at) { return std::norm(a[at]); });
  } else {
    const std::vector<Complex64> a = masked(f);
    const auto& b = masked(g);
    out = s.band_sums([&](std::size_t at) { return a[at].real() * b[at].real() + a[at].imag() * b[at].imag(); });
  }
  const double pixels = static_cast<double>(s.sky.grid.pixels());
  const double scale = s.sky.area() / (pixels * pixels);
  for (std::size_t b = 0; b < out.size(); ++b) out[b] *= scale / s.modes[b];
  return out;
}

std::vector<double> MaskedSpectrum::decoupled(const std::vector<double>& coupled) const {
  const auto n = static_cast<Eigen::Index>(coupled.size());
  const Eigen::VectorXd solution = state_->inverse.solve(Eigen::Map<const Eigen::VectorXd>(coupled.data(), n));
  return {solution.data(), solution.data() + n};
}

// What mode k' gives to coupled band b is, up to the factors of M, the correlation of I_b and |w|^2 at k':
//   (1 / N) sum_x I_b(x) V(x) exp(2 pi i k' x / N).
MaskedSpectrum::Windows MaskedSpectrum::windows() const {
  const State& s = *state_;
  const Grid grid = s.sky.grid;
  const std::size_t n = s.bands(), half = s.band.size(), columns = static_cast<std::size_t>(grid.half_width());
  // Rings, numbered along the multipoles: those of width `step`, cut at the edges of the bands.
  const double step = std::min(s.sky.multipole(grid.height > 1 ? 1 : 0, grid.height > 1 ? 0 : 1),
                               s.sky.multipole(grid.width > 1 ? 0 : 1, grid.width > 1 ? 1 : 0));
  std::vector<double> multipole(half), bounds = s.edges;
  for (std::size_t at = 0; at < half; ++at)
    multipole[at] = s.sky.multipole(static_cast<int>(at / columns), static_cast<int>(at % columns));
  const double highest = *std::max_element(multipole.begin(), multipole.end());
  for (int j = 0;; ++j) {
    bounds.push_back((j - 0.5) * step);
    if (bounds.back() > highest) break;
  }
  std::sort(bounds.begin(), bounds.end());
  std::vector<std::size_t> ring(half);
  std::vector<double> modes(bounds.size() + 1, 0), sums = modes;
  for (std::size_t at = 0; at < half; ++at) {
    ring[at] = static_cast<std::size_t>(std::upper_bound(bounds.begin(), bounds.end(), multipole[at]) - bounds.begin());
    const double count = mode_weight(grid, static_cast<int>(at % columns));
    modes[ring[at]] += count;
    sums[ring[at]] += count * multipole[at];
  }
  Windows out;
  std::vector<std::size_t> place(modes.size());  // of the rings that hold modes
  for (std::size_t j = 0; j < modes.size(); ++j) {
    place[j] = out.multipoles.size();
    if (modes[j] == 0) continue;
    out.low.push_back(bounds[j - 1]), out.high.push_back(bounds[j]);
    out.multipoles.push_back(sums[j] / modes[j]);
  }
  const std::size_t rings = out.multipoles.size();
  const double pixels = static_cast<double>(grid.pixels());
  Eigen::MatrixXd coupled = Eigen::MatrixXd::Zero(static_cast<Eigen::Index>(n), static_cast<Eigen::Index>(rings));
  std::vector<double> product(half);
  for (std::size_t b = 0; b < n; ++b) {
    s.unfold_even([&](std::size_t at) { return s.band[at] == static_cast<int>(b) ? 1.0 : 0.0; });
    const auto& indicator = s.transform->forward();
    for (std::size_t at = 0; at < half; ++at) product[at] = indicator[at].real() * s.mask_power[at];
    s.unfold_even([&](std::size_t at) { return product[at]; });
    const auto& leak = s.transform->forward();
    for (std::size_t at = 0; at < half; ++at) {
      coupled(static_cast<Eigen::Index>(b), static_cast<Eigen::Index>(place[ring[at]])) +=
          mode_weight(grid, static_cast<int>(at % columns)) * leak[at].real();
    }
    coupled.row(static_cast<Eigen::Index>(b)) /= pixels * pixels * pixels * s.modes[b];
  }
  const Eigen::MatrixXd window = s.inverse.solve(coupled);
  for (std::size_t b = 0; b < n; ++b) {
    for (std::size_t j = 0; j < rings; ++j)
      out.window.push_back(window(static_cast<Eigen::Index>(b), static_cast<Eigen::Index>(j)));
  }
  return out;
}

namespace {

/// Least over j of (step (i - j))^2 + height[j], for every i: lower envelope of parabolas (Felzenszwalb & Huttenlocher
/// 2012, Theory of Computing 8, 415). Infinite heights are no parabolas.
void lower_envelope(std::vector<double>& height, double step) {
  const double infinity = std::numeric_limits<double>::infinity();
  const int n = static_cast<int>(height.size());
  std::vector<int> apex;                 // of the parabolas that touch the envelope
  std::vector<double> from;              // where each begins to be the lowest
  const auto meet = [&](int a, int b) {  // a < b
    return 0.5 * (a + b) +
           0.5 * (height[static_cast<std::size_t>(b)] - height[static_cast<std::size_t>(a)]) / (step * step * (b - a));
  };
  for (int j = 0; j < n; ++j) {
    if (height[static_cast<std::size_t>(j)] == infinity) continue;
    while (!apex.empty() && meet(apex.back(), j) <= from.back()) apex.pop_back(), from.pop_back();
    from.push_back(apex.empty() ? -infinity : meet(apex.back(), j));
    apex.push_back(j);
  }
  if (apex.empty()) return;
  const std::vector<double> before = height;
  std::size_t k = 0;
  for (int i = 0; i < n; ++i) {
    while (k + 1 < apex.size() && from[k + 1] <= i) ++k;
    const double distance = step * (i - apex[k]);
    height[static_cast<std::size_t>(i)] = distance * distance + before[static_cast<std::size_t>(apex[k])];
  }
}

}  // namespace

std::vector<double> apodise(const FlatSky& sky, const std::vector<double>& mask, double theta, Apodisation kind) {
  require(theta > 0, ExitCode::usage, "an apodisation needs a width above zero", "",
          "give one, or leave the mask as it is");
  const auto height = static_cast<std::size_t>(sky.grid.height), width = static_cast<std::size_t>(sky.grid.width);
  // Squared distance to the nearest hole, along rows and then along columns.
  std::vector<double> square(mask.size());
  for (std::size_t i = 0; i < mask.size(); ++i) square[i] = mask[i] == 0 ? 0 : std::numeric_limits<double>::infinity();
  std::vector<double> line(width);
  for (std::size_t y = 0; y < height; ++y) {
    std::copy_n(square.begin() + static_cast<std::ptrdiff_t>(y * width), width, line.begin());
    lower_envelope(line, sky.pixel_x);
    std::copy_n(line.begin(), width, square.begin() + static_cast<std::ptrdiff_t>(y * width));
  }
  line.resize(height);
  for (std::size_t x = 0; x < width; ++x) {
    for (std::size_t y = 0; y < height; ++y) line[y] = square[y * width + x];
    lower_envelope(line, sky.pixel_y);
    for (std::size_t y = 0; y < height; ++y) square[y * width + x] = line[y];
  }
  std::vector<double> out(mask.size());
  if (kind == Apodisation::smooth) {
    FourierFilter filter(sky.grid);
    const double radius = 2.5 * theta;
    for (std::size_t i = 0; i < mask.size(); ++i) filter.map()[i] = std::sqrt(square[i]) <= radius ? 0 : mask[i];
    filter.transform();
    const auto columns = static_cast<std::size_t>(sky.grid.half_width());
    std::vector<double> gain(filter.modes().size());
    for (std::size_t at = 0; at < gain.size(); ++at) {
      const double l = sky.multipole(static_cast<int>(at / columns), static_cast<int>(at % columns));
      gain[at] = std::exp(-0.5 * l * l * theta * theta);
    }
    filter.filter([&](std::size_t at) { return gain[at]; }, out.data());
    for (std::size_t i = 0; i < mask.size(); ++i) out[i] *= mask[i];
    return out;
  }
  const double pi = std::numbers::pi;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const double x = std::min(1.0, std::sqrt(square[i]) / theta);
    out[i] = mask[i] * (kind == Apodisation::c1 ? x - std::sin(2 * pi * x) / (2 * pi) : 0.5 * (1 - std::cos(pi * x)));
  }
  return out;
}

}  // namespace umbriel
