/// Mean and covariance of vectors of statistics (power spectra, peak counts, ...), their errors, and how two ensembles
/// compare. Sums are exact, so the same bits come out on any number of ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

/// Square symmetric matrices are row-major [p, p], and hold both triangles.
struct Covariance {
  std::int64_t n = 0;              ///< vectors
  std::vector<double> mean;        ///< [p]
  std::vector<double> covariance;  ///< [p, p], with 1 / (n - 1)

  std::size_t size() const { return mean.size(); }
};

/// Of the vectors of all ranks; the same on each. Collective.
/// @param local  this rank's vectors, one after the other, each of p numbers
/// @throws Error(input) on all ranks for fewer than two vectors, and for a number that is not finite, with its place
Covariance covariance_of(const Communicator& comm, const std::vector<double>& local, std::size_t p);

/// C_ij / sqrt(C_ii C_jj); NaN where a variance is 0.
std::vector<double> correlation_of(const std::vector<double>& covariance);

/// Hartlap, Simon & Schneider (2007, A&A 464, 399), eq. 17: (n - p - 2) / (n - 1) times the inverse of a covariance
/// that n vectors of p numbers gave is the unbiased inverse. @throws Error(usage) unless n > p + 2
double hartlap_factor(std::int64_t n, std::size_t p);

/// Logarithm of the density of a measurement whose covariance n simulations gave, the true one being marginalised over:
/// Sellentin & Heavens (2016, MNRAS 456, L132), eqs. 11 and 12. It stands in place of the Gaussian one.
/// @param chi2         (x - mean)^T C^-1 (x - mean), without Hartlap's factor
/// @param log_det      ln det C
double sellentin_heavens(double chi2, double log_det, std::int64_t n, std::size_t p);

/// The covariance shrunk towards the unit matrix times its mean variance, by the amount that costs least (Ledoit & Wolf
/// 2004, J. Multivar. Anal. 88, 365): for fewer vectors than wanted. Collective.
struct Shrunk {
  double amount = 0;               ///< 0: the covariance itself, 1: the multiple of the unit matrix
  std::vector<double> covariance;  ///< [p, p]
};
Shrunk ledoit_wolf(const Communicator& comm, const std::vector<double>& local, const Covariance& sample);

/// Standard errors [p, p] of the elements of a covariance.
/// @{ If the vectors are Gaussian (Wishart): sqrt((C_ij^2 + C_ii C_jj) / (n - 1)).
std::vector<double> gaussian_errors(const Covariance& sample);
/// @}
/// @{ From the vectors themselves, whatever their distribution: delete-one jackknife (Efron & Tibshirani 1993, An
/// Introduction to the Bootstrap, ch. 11). Collective. @throws Error(input) for fewer than three vectors
std::vector<double> jackknife_errors(const Communicator& comm, const std::vector<double>& local,
                                     const Covariance& sample);
/// @}
/// @{ The scatter over `resamples` ensembles of n vectors drawn with replacement. Draws are keyed by (seed, resample,
/// draw): the same for any number of ranks (ibid., ch. 6). Collective. @throws Error(usage) for fewer than two
/// resamples
std::vector<double> bootstrap_errors(const Communicator& comm, const std::vector<double>& local,
                                     const Covariance& sample, int resamples, std::uint64_t seed);
/// @}

/// How an ensemble of vectors differs from another, for instance generated maps from simulations.
struct EnsembleComparison {
  std::vector<double> mean_ratio, mean_ratio_error;              ///< [p]
  std::vector<double> covariance_ratio, covariance_ratio_error;  ///< [p, p]
  /// Of the correlation coefficients, [p, p]; its error is Gaussian, (1 - r^2) sqrt(1 / n + 1 / n').
  std::vector<double> correlation_difference, correlation_difference_error;
  /// Of C' ^-1/2 C C' ^-1/2, rising: the ratio of variances along the directions in which they differ most and least;
  /// empty where one of the covariances cannot be inverted.
  std::vector<double> eigenvalue_ratios;
  /// Kullback-Leibler divergence of N(mean', C') from N(mean, C) in nats, and what two samples of one Gaussian give on
  /// average, (p + p (p + 1) / 2) / 2 (1 / n + 1 / n'); NaN where one of the covariances cannot be inverted.
  double divergence = 0, divergence_expected = 0;
};

/// @param errors, other_errors  [p, p] standard errors of the covariances' elements
/// @throws Error(input) for vectors of different length
EnsembleComparison compare(const Covariance& ensemble, const std::vector<double>& errors, const Covariance& other,
                           const std::vector<double>& other_errors);

}  // namespace umbriel
