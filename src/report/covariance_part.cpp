// Covariance matrices, and how two ensembles of vectors compare.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "umbriel/report/map_picture.hpp"
#include "umbriel/report/parts.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

constexpr std::size_t most_shown = 1024;  // numbers a vector; more are no picture

/// [p, p] of a dataset, or nothing where it is missing or of another shape.
Map matrix_of(const Hdf5Reader& file, const std::string& name, std::size_t p) {
  if (!file.has(name) || file.shape(name) != std::vector<std::uint64_t>{p, p}) return {};
  const std::vector<double> values = file.read<double>(name);
  return {values.begin(), values.end()};
}

std::vector<double> vector_of(const Hdf5Reader& file, const std::string& name, std::size_t p) {
  std::vector<double> values = values_or_none(file, name);
  if (values.size() != p) values.clear();
  return values;
}

Field square(std::size_t p) {
  Field field;
  field.rows = field.columns = p;
  field.x = {"statistic", -0.5, static_cast<double>(p) - 0.5, false};
  field.y = field.x;
  return field;
}

std::vector<double> numbers(std::size_t p) {
  std::vector<double> x(p);
  for (std::size_t i = 0; i < p; ++i) x[i] = static_cast<double>(i);
  return x;
}

/// Values with standard errors as a band about them, beside the line where two ensembles agree. On a logarithmic axis
/// where they are positive and span more than two decades.
std::string with_errors(const std::vector<double>& values, const std::vector<double>& errors, double agreement,
                        const std::string& label, const std::string& title, const std::string& caption) {
  std::vector<double> low, high, all = {agreement};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double error = i < errors.size() ? errors[i] : 0;
    low.push_back(values[i] - error);
    high.push_back(values[i] + error);
    all.insert(all.end(), {low.back(), high.back()});
  }
  const double least = extreme_of(values, false), most = extreme_of(values, true);
  const bool logarithmic = least > 0 && most > 100 * least;
  if (logarithmic) {
    all = values;
    if (agreement > 0) all.push_back(agreement);
    for (double& value : low) value = std::max(value, 1e-3 * least);  // a band below 0 goes on below the picture
    for (std::size_t i = 0; i < high.size(); ++i) all.push_back(high[i]);
  }
  const auto x = numbers(values.size());
  Plot plot({"statistic", -0.5, static_cast<double>(values.size()) - 0.5, false}, axis_around(label, all, logarithmic));
  plot.horizontal(agreement, {"truth", 1.2, 1, "5 4"});
  if (!errors.empty()) plot.band(x, low, high, "posterior");
  plot.line(x, values).points(x, values, "posterior", 2);
  return figure(plot.svg(title), title, caption);
}

std::vector<double> diagonal(const Map& matrix, std::size_t p) {
  std::vector<double> values;
  for (std::size_t i = 0; i < p && !matrix.empty(); ++i) values.push_back(matrix[i * p + i]);
  return values;
}

}  // namespace

bool has_covariance(const Hdf5Reader& file) {
  if (!file.has("/covariance/mean") || !file.has("/covariance/covariance")) return false;
  const auto shape = file.shape("/covariance/mean");
  return shape.size() == 1 && shape[0] > 0 && shape[0] <= most_shown;
}

Part covariance_part(const Hdf5Reader& file) {
  const std::vector<double> mean = values_or_none(file, "/covariance/mean");
  const std::size_t p = mean.size();
  Part part;
  part.title = "Covariance";
  const double vectors = attribute_number(file, "/covariance", "vectors");
  part.lead = fmt::format("The covariance of {} numbers from {} vectors.", p, number_text(vectors, 6));
  part.key_figures.push_back({number_text(vectors, 6), "vectors"});
  const double hartlap = attribute_number(file, "/covariance", "hartlap_factor");
  const bool invertible = std::isfinite(hartlap);
  part.key_figures.push_back({invertible ? fixed_text(hartlap, 4) : "\u2013",
                              invertible ? "Hartlap\u2019s factor of the inverse" : "too few vectors to invert it",
                              !invertible || hartlap < 0.8});
  part.key_figures.push_back({fixed_text(attribute_number(file, "/covariance", "shrinkage"), 4),
                              "shrinkage towards the unit matrix that pays (Ledoit &amp; Wolf)"});

  const Field field = square(p);
  std::vector<std::string> all;
  const Map covariance = matrix_of(file, "/covariance/covariance", p);
  std::vector<double> deviations;
  for (const double variance : diagonal(covariance, p)) deviations.push_back(std::sqrt(variance));
  if (!deviations.empty())
    all.push_back(with_errors(mean, deviations, 0, "mean", "Mean",
                              "Mean of the vectors; the band is the standard deviation of one."));
  const Map correlation = matrix_of(file, "/covariance/correlation", p);
  if (!correlation.empty())
    all.push_back(
        map_figure(field, correlation, {&Colormap::dusk(), -1, 1, "correlation"}, "Correlation",
                   "Coefficients of each number with each other; numbers are counted from 0, as in the vectors."));
  part.sections.push_back({"covariance", "Mean and correlation", figures(all, 2)});

  const std::vector<double> ratio = vector_of(file, "/comparison/mean_ratio", p);
  if (ratio.empty()) return part;
  all.clear();
  all.push_back(with_errors(ratio, vector_of(file, "/comparison/mean_ratio_error", p), 1, "ratio", "Means",
                            "Mean over that of the other ensemble; the band is the standard error."));
  const Map variances = matrix_of(file, "/comparison/covariance_ratio", p);
  if (!variances.empty())
    all.push_back(
        with_errors(diagonal(variances, p), diagonal(matrix_of(file, "/comparison/covariance_ratio_error", p), p), 1,
                    "ratio", "Variances", "Variance over that of the other ensemble; the band is the standard error."));
  const Map difference = matrix_of(file, "/comparison/correlation_difference", p);
  if (!difference.empty()) {
    const double range = round_up(std::max(1e-6, symmetric_range(field, {&difference})));
    all.push_back(map_figure(field, difference, {&Colormap::dusk(), -range, range, "difference"}, "Correlations",
                             "Correlation coefficients less those of the other ensemble."));
  }
  const std::vector<double> eigenvalues = vector_of(file, "/comparison/eigenvalue_ratios", p);
  if (!eigenvalues.empty()) {
    all.push_back(
        with_errors(eigenvalues, {}, 1, "ratio", "Eigenvalues",
                    "Variances along the directions in which the two covariances differ least and most, in order; "
                    "samples of one distribution scatter about 1."));
    const double divergence = attribute_number(file, "/comparison", "divergence"),
                 expected = attribute_number(file, "/comparison", "divergence_expected");
    part.key_figures.push_back(
        {number_text(divergence),
         fmt::format("nats between the two ensembles; {} from their sizes alone", number_text(expected)),
         divergence > 3 * expected});
  }
  part.sections.push_back({"comparison", "Against the other ensemble", figures(all, 2)});
  return part;
}

}  // namespace umbriel::report
