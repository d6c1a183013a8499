// What `umbriel validate` found: is the posterior calibrated?
//
// Simulation-based calibration: Talts et al. 2018 (arXiv 1804.06788). If the sampler is right, the rank of the truth
// among the draws is uniform over mocks. TARP: Lemos et al. 2023 (arXiv 2302.03026). The gain: the error of the
// posterior mean over that of the exact Wiener mean.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include <fmt/format.h>

#include "umbriel/core/check.hpp"
#include "umbriel/report/parts.hpp"
#include "umbriel/report/svg.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

constexpr double p_value_limit = 0.001;
constexpr double coverage_limit = 3;  // percentage points: the band drawn about the nominal coverage

/// A row of a dataset [row, column].
std::vector<double> row_of(const std::vector<double>& values, std::size_t row, std::size_t columns) {
  const auto first = values.begin() + std::ptrdiff_t(row * columns);
  return {first, first + std::ptrdiff_t(columns)};
}

/// The shape of a dataset of two axes; {0, 0} if it is missing.
std::vector<std::uint64_t> table_shape(const Hdf5Reader& file, const std::string& dataset) {
  if (!file.has(dataset)) return {0, 0};
  const auto shape = file.shape(dataset);
  require(shape.size() == 2, ExitCode::input, "the dataset has not two axes", file.path() + ": " + dataset,
          "the file is damaged or not a result of umbriel");
  return shape;
}

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

/// What the mocks look at.
std::string skies_of(const std::string& kind) {
  if (kind == "gaussian") return "Gaussian skies are drawn from the spectrum of the prior";
  if (kind == "lognormal") return "lognormal skies are drawn with the spectrum of the prior";
  if (kind == "files") return "given skies are taken from files";
  return "skies are drawn from the prior";
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

/// Outline of the rank histograms of all pixels, over the flat one.
std::string pixel_rank_figure(const Hdf5Reader& file) {
  std::vector<double> edges, inside, outside;
  double top = 1;
  const auto density = [&](const std::string& dataset) {
    const auto counts = values_or_none(file, dataset);
    double total = 0;
    for (const double count : counts) total += count;
    if (!(total > 0)) return std::vector<double>{};
    const std::size_t bins = std::min<std::size_t>(20, counts.size());
    edges.clear();
    std::vector<double> out(bins, 0);
    for (std::size_t b = 0; b <= bins; ++b) edges.push_back(double(b * counts.size() / bins));
    for (std::size_t b = 0; b < bins; ++b) {
      for (auto r = std::size_t(edges[b]); r < std::size_t(edges[b + 1]); ++r) out[b] += counts[r];
      out[b] *= double(counts.size()) / (edges[b + 1] - edges[b]) / total;
      top = std::max(top, out[b]);
    }
    return out;
  };
  inside = density("/validate/pixel_ranks_inside");
  outside = density("/validate/pixel_ranks_outside");
  if (inside.empty() && outside.empty()) return "";
  Plot plot({"rank of the truth", 0, edges.back(), false}, {"pixels / flat", 0, 1.25 * top, false});
  plot.height(173).horizontal(1, {"prior", 1.4, 1, "4 4"});  // with the legend as high as the other histograms
  if (!inside.empty()) plot.steps(edges, inside, {"posterior"}).legend_line("observed", {"posterior"});
  if (!outside.empty()) plot.steps(edges, outside, {"direct"}).legend_line("unobserved", {"direct"});
  return figure(plot.svg("Rank histogram of all pixels"), "every pixel",
                "Neighbours rise and fall together: small waves are chance.");
}

void add_ranks(const Hdf5Reader& file, Part& part) {
  const auto shape = table_shape(file, "/validate/sbc_ranks");
  if (shape[0] == 0 || shape[1] == 0) return;
  const auto all = file.read<double>("/validate/sbc_ranks");
  const double given = attribute_number(file, "/validate", "draws");
  const double largest = given >= 1 ? given : extreme_of(all, true);
  const auto draws = static_cast<std::size_t>(largest >= 1 ? std::min(largest, 1e9) : 1.0);
  const auto names = names_for(file, "/validate", "names", shape[0]);
  auto p_values = values_or_none(file, "/validate/p_value");
  p_values.resize(shape[0], std::nan(""));
  std::vector<std::string> plots;
  for (std::size_t q = 0; q < shape[0]; ++q) {
    plots.push_back(rank_figure(row_of(all, q, shape[1]), draws, spoken_name(names[q]), p_values[q]));
  }
  const std::string pixels = pixel_rank_figure(file);
  if (!pixels.empty()) plots.push_back(pixels);
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

/// Measured minus nominal coverage, with whiskers of two standard errors.
std::string coverage_figure(const Hdf5Reader& file) {
  const auto nominal = values_or_none(file, "/validate/coverage_nominal");
  const double n = double(nominal.size()), nan = std::nan("");
  struct Series {
    std::string name, colour;
    std::vector<double> x, y;                  // points
    std::vector<double> whisker_x, whisker_y;  // lines with gaps
  };
  std::vector<Series> all;
  double worst = 0, reach = 1.4 * coverage_limit;
  for (const auto& [dataset, name, colour, aside] :
       {std::tuple{"inside", "observed", "posterior", -0.11}, std::tuple{"outside", "unobserved", "direct", 0.11}}) {
    const auto values = values_or_none(file, std::string("/validate/coverage_") + dataset),
               errors = values_or_none(file, std::string("/validate/coverage_") + dataset + "_error");
    Series series{name, colour, {}, {}, {}, {}};
    for (std::size_t l = 0; l < std::min(nominal.size(), values.size()); ++l) {
      if (!std::isfinite(values[l])) continue;
      const double x = double(l) + 1 + aside, y = 100 * (values[l] - nominal[l]);
      const double error = l < errors.size() && std::isfinite(errors[l]) ? 200 * errors[l] : 0;
      series.x.push_back(x);
      series.y.push_back(y);
      series.whisker_x.insert(series.whisker_x.end(), {x, x, nan, x - 0.05, x + 0.05, nan, x - 0.05, x + 0.05, nan});
      for (const double end : {y - error, y + error, nan, y - error, y - error, nan, y + error, y + error, nan})
        series.whisker_y.push_back(end);
      worst = std::max(worst, std::abs(y));
      reach = std::max(reach, 1.1 * (std::abs(y) + error));
    }
    if (!series.x.empty()) all.push_back(std::move(series));
  }
  if (all.empty()) return "";
  Plot plot({"nominal coverage", 0.5, n + 0.5, false}, {"measured \u2212 nominal, points", -reach, reach, false});
  std::vector<Tick> ticks;
  for (std::size_t l = 0; l < nominal.size(); ++l)
    ticks.push_back({double(l) + 1, number_text(100 * nominal[l]) + "\u2009%"});
  plot.height(300).x_ticks(ticks);
  plot.band({0.5, n + 0.5}, {-coverage_limit, -coverage_limit}, {coverage_limit, coverage_limit}, "prior", 0.2)
      .horizontal(0, {"prior", 1.4, 1, "4 4"});
  for (const Series& series : all) {
    plot.line(series.whisker_x, series.whisker_y, {series.colour, 1.4})
        .points(series.x, series.y, series.colour, 3.6)
        .legend_point(series.name, series.colour);
  }
  plot.legend_band("\u00b13 points", "prior");
  return figure(plot.svg("Measured minus nominal coverage"), "Coverage",
                fmt::format("How much more often than promised the truth lies inside the central intervals of a pixel; "
                            "whiskers are two standard errors over mocks. Below zero the error bars are too small. "
                            "Largest distance <span{}>{}\u00a0points</span>.",
                            worst > coverage_limit ? " class=\"warn-text\"" : "", number_text(worst, 2)));
}

/// Expected coverage against credibility, in the 95 % band of a calibrated posterior.
std::string tarp_figure(const Hdf5Reader& file) {
  const auto shape = table_shape(file, "/validate/tarp_coverage");
  const auto credibility = values_or_none(file, "/credibility");
  if (shape[0] == 0 || shape[1] == 0 || credibility.size() != shape[1]) return "";
  const auto all = file.read<double>("/validate/tarp_coverage");
  const auto names = names_for(file, "/validate", "references", shape[0]);
  auto largest = values_or_none(file, "/validate/tarp_largest"),
       p_values = values_or_none(file, "/validate/tarp_p_value");
  largest.resize(shape[0], std::nan(""));
  p_values.resize(shape[0], std::nan(""));
  const double band = attribute_number(file, "/validate", "tarp_band");

  Plot plot({"credibility", 0, 1, false}, {"expected coverage", 0, 1, false});
  plot.height(300);
  if (std::isfinite(band)) {
    std::vector<double> low, high;
    for (const double c : credibility) {
      low.push_back(std::max(0.0, c - band));
      high.push_back(std::min(1.0, c + band));
    }
    plot.band(credibility, low, high, "prior", 0.2);
  }
  plot.line({0, 1}, {0, 1}, {"prior", 1.4, 1, "4 4"});
  std::string verdicts;
  const char* const colours[] = {"posterior", "wiener", "direct"};
  for (std::size_t r = 0; r < shape[0]; ++r) {
    const Stroke stroke{colours[r % 3], 2};
    plot.line(credibility, row_of(all, r, shape[1]), stroke).legend_line(spoken_name(names[r]), stroke);
    verdicts += fmt::format("{} {}: <span{}>{} of {}</span>, p\u00a0=\u00a0{}", r == 0 ? "" : ";",
                            escape_html(spoken_name(names[r])), largest[r] > band ? " class=\"warn-text\"" : "",
                            fixed_text(largest[r], 3), fixed_text(band, 3), number_text(p_values[r], 2));
  }
  plot.legend_band("95\u2009% band", "prior");
  return figure(
      plot.svg("Expected coverage of balls about reference points against their credibility"),
      "Balls about reference points",
      "How often the truth is among the given share of draws nearest to a point (TARP). A calibrated posterior "
      "keeps its whole curve inside the band in 19 of 20 validations. Largest distance from the diagonal, of "
      "the band\u2019s half-width:" +
          verdicts + ".");
}

std::string variance_figure(const Hdf5Reader& file) {
  const auto ratio = values_or_none(file, "/validate/band_variance_ratio");
  if (ratio.empty()) return "";
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
  return figure(
      plot.svg("Ratio of sampled to right variance in bands of multipole"), "Variance on each scale",
      "The spread of the samples over the right spread, by angular scale. 1 is right; lower bars say that the "
      "samples are too much alike there.");
}

void add_coverage(const Hdf5Reader& file, Part& part) {
  std::vector<std::string> plots;
  for (const auto& make : {coverage_figure, tarp_figure, variance_figure}) {
    std::string one = make(file);
    if (!one.empty()) plots.push_back(std::move(one));
  }
  if (!plots.empty()) part.sections.push_back({"coverage", "Are the error bars right?", figures(plots, 2)});
}

/// The whole numbers among the ticks of an axis that counts.
std::vector<Tick> whole_ticks(const Axis& axis) {
  std::vector<Tick> ticks;
  for (const Tick& tick : nice_ticks(axis)) {
    if (tick.value == std::round(tick.value)) ticks.push_back({tick.value, number_text(tick.value, 6)});
  }
  return ticks;
}

/// The posterior mean against the exact Wiener mean, mock by mock.
void add_gain(const Hdf5Reader& file, Part& part) {
  const auto rmse = values_or_none(file, "/validate/rmse_posterior_mean"),
             limit = values_or_none(file, "/validate/rmse_posterior_mean_limit"),
             wiener = values_or_none(file, "/validate/rmse_wiener_mean"),
             pearson = values_or_none(file, "/validate/pearson_posterior_mean"),
             wiener_pearson = values_or_none(file, "/validate/pearson_wiener_mean"),
             evaluations = values_or_none(file, "/validate/score_evaluations");
  const std::size_t mocks = rmse.size();
  if (mocks == 0 || wiener.size() != mocks || limit.size() != mocks) return;
  std::vector<std::size_t> order(mocks);
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](std::size_t i) {  // what is no number comes last: beside it nothing has an order
    const double ratio = rmse[i] / wiener[i];
    return std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
  };
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return key(a) < key(b); });
  std::vector<double> place, ratio, limit_ratio, reach = {1};
  for (std::size_t i = 0; i < mocks; ++i) {
    place.push_back(double(i) + 1);
    ratio.push_back(rmse[order[i]] / wiener[order[i]]);
    limit_ratio.push_back(limit[order[i]] / wiener[order[i]]);
    reach.insert(reach.end(), {ratio.back(), limit_ratio.back()});
  }
  const double radius = mocks > 100 ? 2 : mocks > 40 ? 2.6 : 3.4, margin = 0.5 + 0.02 * double(mocks);
  const Axis mock_axis{"mocks, the largest gain first", 1 - margin, double(mocks) + margin, false};
  const double mean = mean_of(ratio), worst = extreme_of(ratio, true), mean_limit = mean_of(limit_ratio);

  std::vector<std::string> plots;
  Axis ratio_axis = axis_around("RMSE / exact Wiener\u2019s", reach);
  ratio_axis.low -= 0.1 * (ratio_axis.high - ratio_axis.low);
  Plot gain(mock_axis, ratio_axis);
  gain.height(260)
      .x_ticks(whole_ticks(mock_axis))
      .horizontal(1, {"wiener", 1.6})
      .horizontal(mean, {"posterior", 1.2, 0.8, "4 4"})
      .points(place, limit_ratio, "prior", radius)
      .points(place, ratio, "posterior", radius)
      .legend_point("posterior mean", "posterior")
      .legend_point("infinitely many draws", "prior");
  plots.push_back(
      figure(gain.svg("Error of the posterior mean over that of the Wiener mean, for each mock"), "Gain over Wiener",
             fmt::format("Below the line the posterior mean is nearer to the truth, inside the mask. Mean {}, "
                         "worst {}. Grey: without the scatter of a mean of finitely many draws.",
                         fixed_text(mean, 3), fixed_text(worst, 3))));
  if (pearson.size() == mocks && wiener_pearson.size() == mocks) {
    std::vector<double> both = pearson;
    both.insert(both.end(), wiener_pearson.begin(), wiener_pearson.end());
    Axis x = axis_around("exact Wiener mean", both), y = axis_around("posterior mean", both);
    Plot plot(x, y);
    plot.height(260)
        .line({x.low, x.high}, {x.low, x.high}, {"wiener", 1.6})
        .points(wiener_pearson, pearson, "posterior", radius)
        .legend_point("mock", "posterior")
        .legend_line("equal", {"wiener", 1.6});
    plots.push_back(figure(plot.svg("Correlation with the truth of the posterior mean against the Wiener mean"),
                           "Correlation with the truth",
                           fmt::format("Pearson\u2019s coefficient inside the mask. Above the line the posterior mean "
                                       "follows the truth better. On average {}, Wiener {}.",
                                       fixed_text(mean_of(pearson), 3), fixed_text(mean_of(wiener_pearson), 3))));
  }
  if (evaluations.size() == mocks) {
    std::vector<double> index;
    for (std::size_t i = 0; i < mocks; ++i) index.push_back(double(i));
    Axis y = axis_around("evaluations a sample", evaluations);
    y.low = 0;
    y.high *= 1.15;
    const Axis x{"mock", -margin, double(mocks) - 1 + margin, false};
    Plot plot(x, y);
    plot.height(277).x_ticks(whole_ticks(x)).points(index, evaluations, "posterior", radius);
    plots.push_back(figure(plot.svg("Score evaluations a sample, for each mock"), "Cost",
                           fmt::format("Evaluations of the score that one sample takes; on average {}.",
                                       number_text(mean_of(evaluations), 4))));
    part.key_figures.push_back({number_text(mean_of(evaluations), 4), "evaluations a sample", false});
  }
  part.key_figures.push_back({fixed_text(mean, 3), "error / Wiener\u2019s", false});

  std::string table =
      "<div class=\"scroll\"><table class=\"numbers\">\n<thead><tr><th>Mean over mocks, inside the mask</th><th>exact "
      "Wiener mean</th><th>posterior mean</th><th>of infinitely many draws</th></tr></thead>\n<tbody>\n";
  table += fmt::format("<tr><th scope=\"row\">RMSE</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                       number_text(mean_of(wiener), 4), number_text(mean_of(rmse), 4), number_text(mean_of(limit), 4));
  table += fmt::format("<tr><th scope=\"row\">RMSE / exact Wiener\u2019s</th><td>1</td><td>{}</td><td>{}</td></tr>\n",
                       fixed_text(mean, 4), fixed_text(mean_limit, 4));
  table += fmt::format("<tr><th scope=\"row\">the same, worst mock</th><td>1</td><td>{}</td><td>{}</td></tr>\n",
                       fixed_text(worst, 4), fixed_text(extreme_of(limit_ratio, true), 4));
  if (pearson.size() == mocks && wiener_pearson.size() == mocks)
    table += fmt::format("<tr><th scope=\"row\">Pearson correlation</th><td>{}</td><td>{}</td><td></td></tr>\n",
                         fixed_text(mean_of(wiener_pearson), 4), fixed_text(mean_of(pearson), 4));
  table += "</tbody>\n</table></div>\n";
  part.sections.push_back(
      {"gain", "What the prior gains",
       "<p>The Wiener mean is the best linear map, and under a Gaussian prior the best of all. A prior "
       "that knows more than the power spectrum should bring the posterior mean nearer to the truth; "
       "under the Gaussian prior itself the two agree but for the scatter of the draws.</p>\n" +
           figures(plots, plots.size() == 3 ? 3 : 2) + table});
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
  part.lead = "A posterior is a promise about how often it is wrong. Here it is tested where the answer is known: " +
              skies_of(attribute_or(file, "/validate", "mocks_kind")) +
              ", observed with the survey\u2019s mask and noise, sampled, and compared with the true sky.";
  const std::string aside = attribute_or(file, "/validate", "mocks_set_aside");
  if (!aside.empty())
    part.lead +=
        " <span class=\"warn-text\">Set aside, for a chain of theirs diverged: " + escape_html(aside) + ".</span>";
  add_ranks(file, part);
  add_coverage(file, part);
  add_gain(file, part);
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
