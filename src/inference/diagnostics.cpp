#include "umbriel/inference/diagnostics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace umbriel {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

ChainDraws finite_chains(const ChainDraws& draws) {
  ChainDraws kept;
  for (const auto& chain : draws) {
    if (!chain.empty() && std::all_of(chain.begin(), chain.end(), [](double v) { return std::isfinite(v); }))
      kept.push_back(chain);
  }
  return kept;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

/// Sample variance; 0 for one value.
double variance(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double centre = mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - centre) * (v - centre);
  return sum / static_cast<double>(values.size() - 1);
}

}  // namespace

double nested_r_hat(const ChainDraws& draws, int chains_a_superchain) {
  const std::size_t members = static_cast<std::size_t>(chains_a_superchain);
  std::vector<double> superchain_means, within;
  for (std::size_t first = 0; first + members <= draws.size(); first += members) {
    const ChainDraws superchain = finite_chains({draws.begin() + first, draws.begin() + first + members});
    if (superchain.size() != members) continue;
    std::vector<double> means, variances;
    for (const auto& chain : superchain) {
      means.push_back(mean(chain));
      variances.push_back(variance(chain));
    }
    superchain_means.push_back(mean(means));
    within.push_back(variance(means) + mean(variances));
  }
  if (superchain_means.size() < 2) return unknown;
  const double inside = mean(within);
  return inside > 0 ? std::sqrt(1 + variance(superchain_means) / inside) : unknown;
}

double lag_one_correlation(const ChainDraws& draws) {
  const ChainDraws kept = finite_chains(draws);
  if (kept.size() < 2 || kept.front().size() < 2) return unknown;
  std::vector<double> all;
  for (const auto& chain : kept) all.insert(all.end(), chain.begin(), chain.end());
  const double centre = mean(all);
  double lagged = 0, square = 0;
  std::size_t pairs = 0;
  for (const auto& chain : kept) {
    for (std::size_t t = 0; t + 1 < chain.size(); ++t, ++pairs) lagged += (chain[t] - centre) * (chain[t + 1] - centre);
  }
  for (const double v : all) square += (v - centre) * (v - centre);
  return lagged / static_cast<double>(pairs) / (square / static_cast<double>(all.size()));
}

double nested_r_hat_limit(int superchains, int chains_a_superchain, double draws_a_chain) {
  const double worth = chains_a_superchain * (std::isfinite(draws_a_chain) ? std::max(1.0, draws_a_chain) : 1.0);
  const double scatter = superchains > 1 ? std::sqrt(2.0 / (superchains - 1)) : 1.0;
  return std::max(1.05, std::sqrt(1 + (1 + 3 * scatter) / worth));
}

double effective_sample_size(const ChainDraws& draws) {
  const ChainDraws kept = finite_chains(draws);
  if (kept.size() < 2 || kept.front().size() < 4) return unknown;
  const std::size_t n = kept.front().size();
  const auto chains = static_cast<double>(kept.size());
  std::vector<double> means, variances;
  for (const auto& chain : kept) {
    means.push_back(mean(chain));
    variances.push_back(variance(chain));
  }
  const double within = mean(variances);
  const double total = within * static_cast<double>(n - 1) / static_cast<double>(n) + variance(means);
  if (!(total > 0)) return unknown;
  // rho_t = 1 - (W - mean over chains of the autocovariance) / var+
  const auto correlation = [&](std::size_t lag) {
    double covariance = 0;
    for (std::size_t c = 0; c < kept.size(); ++c) {
      double sum = 0;
      for (std::size_t t = 0; t + lag < n; ++t) sum += (kept[c][t] - means[c]) * (kept[c][t + lag] - means[c]);
      covariance += sum / static_cast<double>(n - 1);
    }
    return 1 - (within - covariance / chains) / total;
  };
  double tau = -1;
  double previous = std::numeric_limits<double>::infinity();
  for (std::size_t lag = 0; lag + 1 < n; lag += 2) {
    const double pair = std::min(previous, (lag == 0 ? 1.0 : correlation(lag)) + correlation(lag + 1));
    if (pair < 0) break;
    tau += 2 * pair;
    previous = pair;
  }
  const double draws_in_all = chains * static_cast<double>(n);
  return std::min(draws_in_all / std::max(tau, 1 / std::log10(draws_in_all)), draws_in_all * std::log10(draws_in_all));
}

}  // namespace umbriel
