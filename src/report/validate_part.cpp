// What `umbriel validate` found: is the posterior calibrated?
//
// Simulation-based calibration: Talts et al. 2018 (arXiv 1804.06788). If the sampler is right, the rank of the truth
// among the draws is uniform over mocks.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "umbriel/core/check.hpp"
#include "umbriel/report/parts.hpp"
#include "umbriel/report/svg.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

constexpr double p_value_limit = 0.001;

/// Smallest k with P(X <= k) >= q, X binomial with n trials of probability p.
double binomial_quantile(double q, double n, double p) {
  if (p <= 0) return 0;
  if (p >= 1) return n;
  double sum = 0;
  for (double k = 0; k < n; ++k) {
    sum += std::exp(std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) + k * std::log(p) +
                    (n - k) * std::log1p(-p));
    if (sum >= q) return k;
  }
  return n;
}

/// Histogram of the ranks of one quantity with the range each bin should stay in.
std::string rank_figure(const std::vector<double>& ranks, std::size_t draws, const std::string& name, double p_value) {
  const std::size_t mocks = ranks.size(), values = draws + 1;  // ranks are 0 ... draws
  const std::size_t bins = std::clamp<std::size_t>(mocks / 10, 2, std::min<std::size_t>(20, values));
  std::vector<double> edges, counts(bins, 0), low, high;
  for (std::size_t b = 0; b <= bins; ++b) edges.push_back(double(b * values / bins));
  for (std::size_t b = 0; b < bins; ++b) {
    const double share = (edges[b + 1] - edges[b]) / double(values);
    low.push_back(binomial_quantile(0.005, double(mocks), share));
    high.push_back(binomial_quantile(0.995, double(mocks), share));
  }
  for (const double rank : ranks) {
    const auto after = std::upper_bound(edges.begin(), edges.end(), rank);
    if (after != edges.begin() && after != edges.end()) ++counts[std::size_t(after - edges.begin()) - 1];
  }
  std::size_t outside = 0;
  for (std::size_t b = 0; b < bins; ++b) outside += counts[b] < low[b] || counts[b] > high[b];
  const double top =
      1.15 * std::max(*std::max_element(counts.begin(), counts.end()), *std::max_element(high.begin(), high.end()));

  std::vector<double> band_x, band_low, band_high;
  for (std::size_t b = 0; b < bins; ++b) {
    band_x.insert(band_x.end(), {edges[b], edges[b + 1]});
    band_low.insert(band_low.end(), {low[b], low[b]});
    band_high.insert(band_high.end(), {high[b], high[b]});
  }
  Plot plot({"rank of the truth", 0, double(values), false}, {"mocks", 0, top, false});
  plot.height(190)
      .band(band_x, band_low, band_high, "prior", 0.25)
      .bars(edges, counts, outside > 1 ? "warn" : "posterior");
  std::string caption =
      outside == 0 ? "Every bar is inside the band."
                   : fmt::format("{} of {} bars {} outside the band.", outside, bins, outside == 1 ? "is" : "are");
  if (std::isfinite(p_value)) {
    caption += fmt::format(" <span{}>p\u00a0=\u00a0{}</span>.", p_value < p_value_limit ? " class=\"warn-text\"" : "",
                           number_text(p_value, 2));
  }
  return figure(plot.svg("Rank histogram of " + name), name, caption);
}

void add_ranks(const Hdf5Reader& file, Part& part) {
  if (!file.has("/validate/sbc_ranks")) return;
  const auto shape = file.shape("/validate/sbc_ranks");
  require(shape.size() == 2, ExitCode::input, "the ranks are not [quantity, mock]",
          file.path() + ": /validate/sbc_ranks", "the file is damaged or not a result of umbriel");
  if (shape[0] == 0 || shape[1] == 0) return;
  const auto all = file.read<double>("/validate/sbc_ranks");
  const double given = attribute_number(file, "/validate", "draws");
  const auto draws =
      static_cast<std::size_t>(given >= 1 ? given : std::max(1.0, *std::max_element(all.begin(), all.end())));
  const auto names = names_for(file, "/validate", "names", shape[0]);
  auto p_values = values_or_none(file, "/validate/p_value");
  p_values.resize(shape[0], std::nan(""));
  std::vector<std::string> plots;
  for (std::size_t q = 0; q < shape[0]; ++q) {
    const auto first = all.begin() + std::ptrdiff_t(q * shape[1]);
    plots.push_back(rank_figure({first, first + std::ptrdiff_t(shape[1])}, draws, spoken_name(names[q]), p_values[q]));
  }
  part.key_figures.push_back({number_text(double(shape[1]), 6), "mocks", false});
  part.key_figures.push_back({number_text(double(draws), 6), "draws a mock", false});
  double smallest = 2;
  for (const double p : p_values) {
    if (std::isfinite(p)) smallest = std::min(smallest, p);
  }
  if (smallest <= 1)
    part.key_figures.push_back({number_text(smallest, 2), "smallest p-value", smallest < p_value_limit});
  part.sections.push_back(
      {"ranks", "Ranks of the truth",
       "<p>For each mock the truth is ranked among the draws of its posterior. If the sampler is right every rank is "
       "equally likely and the histogram is flat: 99 of 100 bars stay inside the grey band. A dome means error bars "
       "that are too wide, a bowl too narrow, a slope a bias.</p>\n" +
           figures(plots, 3)});
}

void add_coverage(const Hdf5Reader& file, Part& part) {
  const auto nominal = values_or_none(file, "/validate/coverage_nominal");
  const auto inside = values_or_none(file, "/validate/coverage_inside"),
             outside = values_or_none(file, "/validate/coverage_outside");
  const auto ratio = values_or_none(file, "/validate/band_variance_ratio");
  std::vector<std::string> plots;
  if (!nominal.empty() && (!inside.empty() || !outside.empty())) {
    Plot plot({"nominal share", 0, 1, false}, {"share of pixels that hold the truth", 0, 1, false});
    plot.height(300).line({0, 1}, {0, 1}, {"prior", 1.4, 1, "4 4"}).legend_line("right", {"prior", 1.4, 1, "4 4"});
    double worst = 0;
    for (const auto& [values, name, colour] :
         {std::tuple{&inside, "observed", "posterior"}, std::tuple{&outside, "unobserved", "direct"}}) {
      if (values->empty()) continue;
      plot.line(nominal, *values, {colour, 1.8}).points(nominal, *values, colour, 3.2).legend_line(name, {colour, 1.8});
      for (std::size_t i = 0; i < std::min(nominal.size(), values->size()); ++i)
        worst = std::max(worst, std::abs((*values)[i] - nominal[i]));
    }
    plots.push_back(
        figure(plot.svg("Measured against nominal coverage"), "Coverage",
               fmt::format("How often the truth lies inside intervals of a given nominal share. On the diagonal the "
                           "error bars are right; below it they are too small. Largest distance {}.",
                           number_text(worst, 2))));
  }
  if (!ratio.empty()) {
    auto band = values_or_none(file, "/band");
    const bool multipoles = band.size() == ratio.size() && band.front() > 0;
    std::vector<double> edges;
    if (multipoles) {  // edges halfway, in logarithm, between band centres
      const std::size_t n = band.size();
      const double first = n > 1 ? std::sqrt(band[1] / band[0]) : 1.2,
                   last = n > 1 ? std::sqrt(band[n - 1] / band[n - 2]) : 1.2;
      edges.push_back(band[0] / first);
      for (std::size_t i = 1; i < n; ++i) edges.push_back(std::sqrt(band[i - 1] * band[i]));
      edges.push_back(band[n - 1] * last);
    } else {
      for (std::size_t i = 0; i <= ratio.size(); ++i) edges.push_back(double(i) + 0.5);
    }
    double reach = 0.1;
    for (const double r : ratio) {
      if (std::isfinite(r)) reach = std::max(reach, 1.15 * std::abs(r - 1));
    }
    Plot plot({multipoles ? "multipole \u2113" : "band", edges.front(), edges.back(), multipoles},
              {"variance / right variance", 1 - reach, 1 + reach, false});
    plot.height(300).bars(edges, ratio, "wiener", 1).horizontal(1, {"truth", 1});
    plots.push_back(figure(plot.svg("Ratio of sampled to right variance in bands of multipole"),
                           "Variance on each scale",
                           "The spread of the samples over the right spread, by angular scale. 1 is right; lower bars "
                           "say that the samples are too much alike there."));
  }
  if (!plots.empty()) part.sections.push_back({"coverage", "Are the error bars right?", figures(plots, 2)});
}

}  // namespace

bool has_validation(const Hdf5Reader& file) {
  for (const auto& name : file.datasets()) {
    if (name.rfind("/validate/", 0) == 0) return true;
  }
  return false;
}

Part validate_part(const Hdf5Reader& file) {
  Part part;
  part.title = "Is the posterior right?";
  part.lead =
      "A posterior is a promise about how often it is wrong. Here it is tested where the answer is known: skies are "
      "drawn from the prior, observed with the survey\u2019s mask and noise, sampled, and compared with the sky that "
      "was drawn.";
  add_ranks(file, part);
  add_coverage(file, part);
  for (const auto& [name, meaning] : {std::pair{"mean_error_ratio", "error of the mean / exact"},
                                      {"std_ratio_inside", "spread / exact, observed"},
                                      {"std_ratio_outside", "spread / exact, unobserved"}}) {
    const double value = attribute_number(file, "/validate", name);
    if (std::isfinite(value)) part.key_figures.push_back({fixed_text(value, 3), meaning, false});
  }
  const double wall = attribute_number(file, "/", "wall_seconds");
  if (wall >= 0) part.key_figures.push_back({duration_text(wall), "wall time", false});
  return part;
}

}  // namespace umbriel::report
