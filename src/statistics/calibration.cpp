#include "umbriel/statistics/calibration.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "umbriel/core/check.hpp"

namespace umbriel {

double chi2_tail(double chi2, double degrees) {
  // Regularised incomplete gamma function Q(a, x): series below x = a + 1, continued fraction (Lentz) above.
  const double a = degrees / 2, x = chi2 / 2;
  if (!(x > 0)) return 1;
  const double front = std::exp(-x + a * std::log(x) - std::lgamma(a));
  if (x < a + 1) {
    double term = 1 / a, sum = term;
    for (int n = 1; n < 1000 && term > 1e-16 * sum; ++n) {
      term *= x / (a + n);
      sum += term;
    }
    return 1 - front * sum;
  }
  constexpr double tiny = 1e-300;
  double b = x + 1 - a, c = 1 / tiny, d = 1 / b, fraction = d;
  for (int n = 1; n < 1000; ++n) {
    const double numerator = -n * (n - a);
    b += 2;
    d = 1 / (std::fabs(numerator * d + b) < tiny ? tiny : numerator * d + b);
    c = std::fabs(b + numerator / c) < tiny ? tiny : b + numerator / c;
    fraction *= d * c;
    if (std::fabs(d * c - 1) < 1e-15) break;
  }
  return front * fraction;
}

double rank_uniformity(const std::vector<std::int64_t>& ranks, int draws, int bins) {
  require(bins > 1 && (draws + 1) % bins == 0, ExitCode::usage, "ranks 0 ... draws do not fall into equal bins",
          "rank_uniformity", "let bins divide draws + 1");
  std::vector<double> counts(static_cast<std::size_t>(bins), 0);
  const std::int64_t width = (draws + 1) / bins;
  for (const std::int64_t rank : ranks) counts[static_cast<std::size_t>(rank / width)] += 1;
  const double expected = static_cast<double>(ranks.size()) / bins;
  double chi2 = 0;
  for (const double count : counts) chi2 += (count - expected) * (count - expected) / expected;
  return chi2_tail(chi2, bins - 1);
}

std::int64_t rank_among(double truth, const std::vector<double>& draws) {
  return std::count_if(draws.begin(), draws.end(), [&](double draw) { return draw < truth; });
}

double central_coverage(const std::vector<std::int64_t>& rank_counts, double level) {
  const double low = (1 - level) / 2, high = (1 + level) / 2;
  const auto bins = static_cast<double>(rank_counts.size());
  double inside = 0, total = 0;
  for (std::size_t r = 0; r < rank_counts.size(); ++r) {
    const double from = static_cast<double>(r) / bins, to = (static_cast<double>(r) + 1) / bins;
    const double overlap = std::max(0.0, std::min(to, high) - std::max(from, low)) * bins;
    inside += overlap * static_cast<double>(rank_counts[r]);
    total += static_cast<double>(rank_counts[r]);
  }
  return total > 0 ? inside / total : std::numeric_limits<double>::quiet_NaN();
}

MapMetrics map_metrics(const float* map, const float* truth, const float* mask, std::int64_t pixels) {
  double map_mean = 0, truth_mean = 0;
  for (std::int64_t i = 0; i < pixels; ++i) {
    map_mean += static_cast<double>(map[i]);
    truth_mean += static_cast<double>(truth[i]);
  }
  map_mean /= static_cast<double>(pixels);
  truth_mean /= static_cast<double>(pixels);
  double n = 0, error = 0, sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
  for (std::int64_t i = 0; i < pixels; ++i) {
    if (mask[i] == 0) continue;
    const double x = static_cast<double>(map[i]) - map_mean, y = static_cast<double>(truth[i]) - truth_mean;
    n += 1;
    error += (x - y) * (x - y);
    sx += x;
    sy += y;
    sxx += x * x;
    syy += y * y;
    sxy += x * y;
  }
  const double covariance = sxy - sx * sy / n;
  return {std::sqrt(error / n), covariance / std::sqrt((sxx - sx * sx / n) * (syy - sy * sy / n))};
}

}  // namespace umbriel
