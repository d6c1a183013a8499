/// Is a posterior calibrated? Ranks of truths among draws (Talts et al. 2018, arXiv 1804.06788), coverage, and tests of
/// accuracy with random points, TARP (Lemos et al. 2023, arXiv 2302.03026).
///
/// Truth and n draws of an exact posterior are alike, so the truth's rank among them, 0 ... n, is uniform. Rank r
/// stands for the probability interval [r, r + 1] / (n + 1): then a calibrated posterior has exactly the nominal
/// coverage on average, for any n.
#pragma once

#include <cstdint>
#include <vector>

namespace umbriel {

/// Upper tail of the chi-squared distribution: probability of a value above `chi2` with `degrees` degrees of freedom.
double chi2_tail(double chi2, double degrees);

/// chi^2 test of uniform ranks 0 ... draws in `bins` equal bins. @return p-value
double rank_uniformity(const std::vector<std::int64_t>& ranks, int draws, int bins);

/// Number of draws below the truth: 0 ... n.
std::int64_t rank_among(double truth, const std::vector<double>& draws);

/// How often ranks 0 ... n occur: [n + 1]. @throws Error(usage) for a rank outside
std::vector<std::int64_t> count_ranks(const std::vector<std::int64_t>& ranks, int draws);

/// Share of the ranks below `probability` (0 ... 1), from counts of ranks 0 ... n; NaN without any.
double rank_distribution(const std::vector<std::int64_t>& rank_counts, double probability);

/// Coverage of the central interval of probability `level`, from counts of ranks 0 ... n.
double central_coverage(const std::vector<std::int64_t>& rank_counts, double level);

/// Mean of values that are independent, and its standard error (NaN for fewer than two).
struct MeanAndError {
  double mean = 0, error = 0;
};
MeanAndError mean_and_error(const std::vector<double>& values);

/// Probability that the empirical distribution of n independent uniform numbers strays from the diagonal by more than
/// `distance` somewhere (Kolmogorov's statistic, with the correction of Stephens 1970, J. R. Stat. Soc. B 32, 115).
double kolmogorov_tail(double distance, double n);

/// The distance that is exceeded with probability p.
double kolmogorov_distance(double p, double n);

/// Squared distance of two maps over the pixels where mask > 0.
/// @param a, b, mask  [pixels]
double squared_distance(const float* a, const float* b, const float* mask, std::int64_t pixels);

/// TARP. Each mock has a reference point; the truth is ranked among the draws by distance to it. The expected coverage
/// of balls about the references is then the nominal credibility, if the posterior is exact, for references that know
/// nothing of truth and draws but through the data: random points, or a function of the data. A function of the draws
/// (their mean, or distances in units of their spread) is none: draws lie nearer to their own mean than the truth does.
struct Tarp {
  std::vector<double> coverage;  ///< expected coverage at each credibility
  double largest = 0;            ///< largest |coverage - credibility|, anywhere
  double band = 0;               ///< `largest` stays below it in 95 % of the cases: a band about the whole curve
  double p_value = 1;            ///< probability of a larger one
};

/// @param ranks  of the truth's distance among those of the draws, 0 ... draws: [mock]
/// @throws Error(usage) without ranks
Tarp tarp(const std::vector<std::int64_t>& ranks, int draws, const std::vector<double>& credibility);

/// Root mean square error and Pearson correlation of a map against the truth inside the mask, after each map's
/// full-field mean is taken off.
struct MapMetrics {
  double rmse = 0, pearson = 0;
};
MapMetrics map_metrics(const float* map, const float* truth, const float* mask, std::int64_t pixels);

}  // namespace umbriel
