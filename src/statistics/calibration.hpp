/// Is a posterior calibrated? Ranks of truths among draws (Talts et al. 2018, arXiv 1804.06788) and coverage.
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

/// Coverage of the central interval of probability `level`, from counts of ranks 0 ... n: rank r stands for the
/// probability interval [r, r + 1] / (n + 1), so that a calibrated posterior covers exactly `level` for any n.
double central_coverage(const std::vector<std::int64_t>& rank_counts, double level);

/// Root mean square error and Pearson correlation of a map against the truth inside the mask, after each map's
/// full-field mean is taken off.
struct MapMetrics {
  double rmse = 0, pearson = 0;
};
MapMetrics map_metrics(const float* map, const float* truth, const float* mask, std::int64_t pixels);

}  // namespace umbriel
