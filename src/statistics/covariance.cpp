#include "umbriel/statistics/covariance.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "umbriel/core/check.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

/// Elements (i, j <= i) of a symmetric matrix, and both triangles of it from them.
std::size_t triangle(std::size_t p) { return p * (p + 1) / 2; }

std::vector<double> both_triangles(const std::vector<double>& lower, std::size_t p) {
  std::vector<double> full(p * p);
  auto next = lower.begin();
  for (std::size_t i = 0; i < p; ++i) {
    for (std::size_t j = 0; j <= i; ++j) full[i * p + j] = full[j * p + i] = *next++;
  }
  return full;
}

/// Sums over the vectors of all ranks of term(vector minus the mean, i, j) for all (i, j <= i): both triangles.
/// @param term  called with the index of the vector on this rank, its deviations [p], i, j
template <class Term>
std::vector<double> sum_of_pairs(const Communicator& comm, const std::vector<double>& local,
                                 const std::vector<double>& mean, const Term& term) {
  const std::size_t p = mean.size();
  std::vector<ExactSum> sums(triangle(p));
  std::vector<double> deviation(p);
  for (std::size_t k = 0; k < local.size() / p; ++k) {
    for (std::size_t i = 0; i < p; ++i) deviation[i] = local[k * p + i] - mean[i];
    auto sum = sums.begin();
    for (std::size_t i = 0; i < p; ++i) {
      for (std::size_t j = 0; j <= i; ++j) (sum++)->add(term(k, deviation, i, j));
    }
  }
  return both_triangles(exact_sum_over_ranks(comm, std::move(sums)), p);
}

double count(std::int64_t n) { return static_cast<double>(n); }

}  // namespace

Covariance covariance_of(const Communicator& comm, const std::vector<double>& local, std::size_t p) {
  Covariance out;
  const auto here = static_cast<std::int64_t>(local.size() / p);
  out.n = comm.sum(here);
  require(out.n > 1, ExitCode::input, "a covariance needs more than one vector", "", "give more");
  // The first number that is not one, over all ranks.
  const auto bad = std::find_if(local.begin(), local.end(), [](double value) { return !std::isfinite(value); });
  std::vector<std::int64_t> counts(static_cast<std::size_t>(comm.size()), 0);
  counts[static_cast<std::size_t>(comm.rank())] = here;
  comm.sum(counts.data(), counts.size());
  std::int64_t before = 0;
  for (int rank = 0; rank < comm.rank(); ++rank) before += counts[static_cast<std::size_t>(rank)];
  const auto width = static_cast<std::int64_t>(p);
  const std::int64_t none = out.n * width;
  const std::int64_t first = comm.min(bad == local.end() ? none : before * width + (bad - local.begin()));
  require(first == none, ExitCode::input, "a statistic is not a finite number",
          "vector " + std::to_string(first / width) + ", number " + std::to_string(first % width) + ", counted from 0",
          "leave that vector out, or correct it");

  std::vector<ExactSum> sums(p);
  for (std::size_t at = 0; at < local.size(); ++at) sums[at % p].add(local[at]);
  out.mean = exact_sum_over_ranks(comm, std::move(sums));
  for (double& value : out.mean) value /= count(out.n);
  out.covariance =
      sum_of_pairs(comm, local, out.mean,
                   [](std::size_t, const std::vector<double>& d, std::size_t i, std::size_t j) { return d[i] * d[j]; });
  for (double& value : out.covariance) value /= count(out.n - 1);
  return out;
}

std::vector<double> correlation_of(const std::vector<double>& covariance) {
  const auto p = static_cast<std::size_t>(std::llround(std::sqrt(static_cast<double>(covariance.size()))));
  std::vector<double> out(p * p);
  for (std::size_t i = 0; i < p; ++i) {
    for (std::size_t j = 0; j < p; ++j) {
      const double norm = std::sqrt(covariance[i * p + i]) * std::sqrt(covariance[j * p + j]);
      const double value = norm > 0 ? covariance[i * p + j] / norm : std::numeric_limits<double>::quiet_NaN();
      out[i * p + j] = i == j && norm > 0 ? 1.0 : value;
    }
  }
  return out;
}

double hartlap_factor(std::int64_t n, std::size_t p) {
  require(count(n) > static_cast<double>(p) + 2, ExitCode::usage,
          std::to_string(n) + " vectors of " + std::to_string(p) + " numbers have no covariance that can be inverted",
          "", "take more simulations, fewer numbers, or shrinkage");
  return (count(n) - static_cast<double>(p) - 2) / count(n - 1);
}

double sellentin_heavens(double chi2, double log_det, std::int64_t n, std::size_t p) {
  const double vectors = count(n), numbers = static_cast<double>(p);
  const double norm = std::lgamma(vectors / 2) - std::lgamma((vectors - numbers) / 2) -
                      numbers / 2 * std::log(std::numbers::pi * (vectors - 1));
  return norm - log_det / 2 - vectors / 2 * std::log1p(chi2 / (vectors - 1));
}

Shrunk ledoit_wolf(const Communicator& comm, const std::vector<double>& local, const Covariance& sample) {
  const std::size_t p = sample.size();
  const double n = count(sample.n), numbers = static_cast<double>(p);
  // Of the covariance with 1 / n, as the paper has it.
  const double scale = (n - 1) / n;
  double mean_variance = 0, square = 0;  // trace / p, and sum of squares
  for (std::size_t i = 0; i < p; ++i) {
    mean_variance += scale * sample.covariance[i * p + i] / numbers;
    for (std::size_t j = 0; j < p; ++j) square += std::pow(scale * sample.covariance[i * p + j], 2);
  }
  ExactSum here;  // of |d|^4
  for (std::size_t k = 0; k < local.size() / p; ++k) {
    double length = 0;
    for (std::size_t i = 0; i < p; ++i) length += std::pow(local[k * p + i] - sample.mean[i], 2);
    here.add(length * length);
  }
  const double fourth = exact_sum_over_ranks(comm, {here})[0];
  const double distance = square - numbers * mean_variance * mean_variance;  // p delta^2, Lemma 3.3
  const double scatter = (fourth / n - square) / n;                          // p beta_bar^2, Lemma 3.4
  Shrunk out;
  out.amount = distance > 0 ? std::clamp(scatter / distance, 0.0, 1.0) : 1.0;
  out.covariance = sample.covariance;
  for (std::size_t i = 0; i < p; ++i) {
    for (std::size_t j = 0; j < p; ++j) {
      double& value = out.covariance[i * p + j];
      value *= 1 - out.amount;
      if (i == j) value += out.amount * mean_variance / scale;
    }
  }
  return out;
}

std::vector<double> gaussian_errors(const Covariance& sample) {
  const std::size_t p = sample.size();
  const std::vector<double>& c = sample.covariance;
  std::vector<double> out(p * p);
  for (std::size_t i = 0; i < p; ++i) {
    for (std::size_t j = 0; j < p; ++j)
      out[i * p + j] = std::sqrt((c[i * p + j] * c[i * p + j] + c[i * p + i] * c[j * p + j]) / count(sample.n - 1));
  }
  return out;
}

std::vector<double> jackknife_errors(const Communicator& comm, const std::vector<double>& local,
                                     const Covariance& sample) {
  // Without vector k, whose deviation from the mean of all is d, the covariance is
  // (S - n / (n - 1) d d^T) / (n - 2), S being the sum of d d^T. These n matrices scatter about S / (n - 1).
  const std::size_t p = sample.size();
  const double n = count(sample.n);
  require(sample.n > 2, ExitCode::input, "a jackknife needs more than two vectors", "", "give more");
  std::vector<double> out = sum_of_pairs(comm, local, sample.mean,
                                         [&](std::size_t, const std::vector<double>& d, std::size_t i, std::size_t j) {
                                           const double from = d[i] * d[j] - sample.covariance[i * p + j] * (n - 1) / n;
                                           return from * from;
                                         });
  for (double& value : out) value = std::sqrt(n / (n - 1) * value) / (n - 2);
  return out;
}

std::vector<double> bootstrap_errors(const Communicator& comm, const std::vector<double>& local,
                                     const Covariance& sample, int resamples, std::uint64_t seed) {
  require(resamples > 1, ExitCode::usage, "a bootstrap needs more than one resample", "", "ask for a hundred or more");
  const std::size_t p = sample.size();
  const double n = count(sample.n);
  std::vector<std::int64_t> vectors(static_cast<std::size_t>(comm.size()), 0);
  vectors[static_cast<std::size_t>(comm.rank())] = static_cast<std::int64_t>(local.size() / p);
  comm.sum(vectors.data(), vectors.size());
  std::size_t before = 0;
  for (int rank = 0; rank < comm.rank(); ++rank)
    before += static_cast<std::size_t>(vectors[static_cast<std::size_t>(rank)]);

  std::vector<double> sum(p * p, 0), squares(p * p, 0);
  std::vector<int> times(static_cast<std::size_t>(sample.n));  // that each vector is drawn
  for (int resample = 0; resample < resamples; ++resample) {
    std::fill(times.begin(), times.end(), 0);
    const DrawKey key{seed, Purpose::bootstrap, static_cast<std::uint32_t>(resample), 0};
    for (std::size_t k = 0; k < times.size(); k += 4) {
      const auto words = random_words(key, static_cast<std::uint32_t>(k / 4));
      for (std::size_t w = 0; w < 4 && k + w < times.size(); ++w)
        ++times[static_cast<std::size_t>(std::uint64_t{words[w]} * times.size() >> 32)];
    }
    std::vector<ExactSum> shifts(p);
    for (std::size_t at = 0; at < local.size(); ++at)
      shifts[at % p].add(times[before + at / p] * (local[at] - sample.mean[at % p]));
    const std::vector<double> shift = exact_sum_over_ranks(comm, std::move(shifts));
    const std::vector<double> pairs = sum_of_pairs(
        comm, local, sample.mean, [&](std::size_t k, const std::vector<double>& d, std::size_t i, std::size_t j) {
          return times[before + k] * (d[i] * d[j]);
        });
    for (std::size_t i = 0; i < p; ++i) {
      for (std::size_t j = 0; j < p; ++j) {
        const double c = (pairs[i * p + j] - shift[i] * shift[j] / n) / (n - 1) - sample.covariance[i * p + j];
        sum[i * p + j] += c;
        squares[i * p + j] += c * c;
      }
    }
  }
  std::vector<double> out(p * p);
  for (std::size_t e = 0; e < out.size(); ++e)
    out[e] = std::sqrt(std::max(0.0, squares[e] - sum[e] * sum[e] / resamples) / (resamples - 1));
  return out;
}

EnsembleComparison compare(const Covariance& ensemble, const std::vector<double>& errors, const Covariance& other,
                           const std::vector<double>& other_errors) {
  const std::size_t p = ensemble.size();
  require(other.size() == p, ExitCode::input,
          "vectors of " + std::to_string(p) + " numbers are compared with vectors of " + std::to_string(other.size()),
          "", "compare the same statistics");
  EnsembleComparison out;
  const auto error_of_ratio = [](double a, double a_error, double b, double b_error) {
    return std::fabs(a / b) * std::hypot(a_error / a, b_error / b);
  };
  for (std::size_t i = 0; i < p; ++i) {
    const double a = ensemble.mean[i], b = other.mean[i];
    out.mean_ratio.push_back(a / b);
    out.mean_ratio_error.push_back(error_of_ratio(a, std::sqrt(ensemble.covariance[i * p + i] / count(ensemble.n)), b,
                                                  std::sqrt(other.covariance[i * p + i] / count(other.n))));
  }
  const std::vector<double> r = correlation_of(ensemble.covariance), r_other = correlation_of(other.covariance);
  const double both = std::sqrt(1 / count(ensemble.n) + 1 / count(other.n));
  for (std::size_t i = 0; i < p * p; ++i) {
    const double a = ensemble.covariance[i], b = other.covariance[i];
    out.covariance_ratio.push_back(a / b);
    out.covariance_ratio_error.push_back(error_of_ratio(a, errors[i], b, other_errors[i]));
    out.correlation_difference.push_back(r[i] - r_other[i]);
    out.correlation_difference_error.push_back((1 - r_other[i] * r_other[i]) * both);
  }
  using Matrix = Eigen::Matrix<double, -1, -1, Eigen::RowMajor>;
  const auto n = static_cast<Eigen::Index>(p);
  const Matrix a = Eigen::Map<const Matrix>(ensemble.covariance.data(), n, n),
               b = Eigen::Map<const Matrix>(other.covariance.data(), n, n);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  out.divergence = out.divergence_expected = nan;
  const Eigen::LLT<Matrix> root(b);
  const bool enough = std::min(count(ensemble.n), count(other.n)) > static_cast<double>(p) + 1;
  if (!enough || root.info() != Eigen::Success) return out;
  const Matrix half = root.matrixL().solve(a);
  const Matrix relative = root.matrixL().solve(half.transpose());
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(relative, Eigen::EigenvaluesOnly);
  const Eigen::VectorXd& ratios = solver.eigenvalues();
  if (solver.info() != Eigen::Success || !(ratios.minCoeff() > 0)) return out;
  out.eigenvalue_ratios.assign(ratios.data(), ratios.data() + p);
  Eigen::VectorXd shift(n);
  for (std::size_t i = 0; i < p; ++i) shift(static_cast<Eigen::Index>(i)) = ensemble.mean[i] - other.mean[i];
  const Eigen::VectorXd white = root.matrixL().solve(shift);
  out.divergence = 0.5 * ((ratios.array() - 1 - ratios.array().log()).sum() + white.squaredNorm());
  const double numbers = static_cast<double>(p);
  out.divergence_expected =
      0.25 * (2 * numbers + numbers * (numbers + 1)) * (1 / count(ensemble.n) + 1 / count(other.n));
  return out;
}

}  // namespace umbriel
