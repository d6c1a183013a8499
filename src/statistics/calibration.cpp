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

std::vector<std::int64_t> count_ranks(const std::vector<std::int64_t>& ranks, int draws) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(draws) + 1, 0);
  for (const std::int64_t rank : ranks) {
    require(rank >= 0 && rank <= draws, ExitCode::usage, "a rank is outside 0 ... draws", "count_ranks");
    ++counts[static_cast<std::size_t>(rank)];
  }
  return counts;
}

double rank_distribution(const std::vector<std::int64_t>& rank_counts, double probability) {
  const double place = probability * static_cast<double>(rank_counts.size());
  double below = 0, total = 0;
  for (std::size_t r = 0; r < rank_counts.size(); ++r) {
    below += std::clamp(place - static_cast<double>(r), 0.0, 1.0) * static_cast<double>(rank_counts[r]);
    total += static_cast<double>(rank_counts[r]);
  }
  return total > 0 ? below / total : std::numeric_limits<double>::quiet_NaN();
}

double central_coverage(const std::vector<std::int64_t>& rank_counts, double level) {
  return rank_distribution(rank_counts, (1 + level) / 2) - rank_distribution(rank_counts, (1 - level) / 2);
}

MeanAndError mean_and_error(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) squares += (value - mean) * (value - mean);
  if (values.empty()) mean = std::numeric_limits<double>::quiet_NaN();
  return {mean, n > 1 ? std::sqrt(squares / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN()};
}

double kolmogorov_tail(double distance, double n) {
  const double root = std::sqrt(n), scaled = (root + 0.12 + 0.11 / root) * distance;
  if (scaled < 0.2) return 1;  // to 1e-12; the series below needs many terms there
  double tail = 0;
  for (int k = 1; k <= 100; ++k) tail += (k % 2 == 1 ? 2 : -2) * std::exp(-2.0 * k * k * scaled * scaled);
  return std::clamp(tail, 0.0, 1.0);
}

double kolmogorov_distance(double p, double n) {
  double low = 0, high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (kolmogorov_tail(middle, n) > p ? low : high) = middle;
  }
  return high;
}

double squared_distance(const float* a, const float* b, const float* mask, std::int64_t pixels) {
  double sum = 0;
  for (std::int64_t i = 0; i < pixels; ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += mask[i] > 0 ? difference * difference : 0.0;
  }
  return sum;
}

Tarp tarp(const std::vector<std::int64_t>& ranks, int draws, const std::vector<double>& credibility) {
  require(!ranks.empty(), ExitCode::usage, "there are no ranks to test", "tarp", "give at least one mock");
  const std::vector<std::int64_t> counts = count_ranks(ranks, draws);
  Tarp result;
  for (const double level : credibility) result.coverage.push_back(rank_distribution(counts, level));
  // The curve is straight between ranks, so that it is farthest from the diagonal at one of them.
  double below = 0;
  for (std::size_t r = 0; r < counts.size(); ++r) {
    below += static_cast<double>(counts[r]) / static_cast<double>(ranks.size());
    result.largest =
        std::max(result.largest, std::fabs(below - static_cast<double>(r + 1) / static_cast<double>(counts.size())));
  }
  // Ranks spread over their intervals stray less than the continuous quantities of Kolmogorov's test: for few draws the
  // band is on the wide side.
  const auto mocks = static_cast<double>(ranks.size());
  result.band = kolmogorov_distance(0.05, mocks);
  result.p_value = kolmogorov_tail(result.largest, mocks);
  return result;
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
