/// Convergence diagnostics of many short chains.
#pragma once

#include <vector>

namespace umbriel {

/// Draws of one scalar: draws[chain][step]. Chains with a value that is not finite are left out.
using ChainDraws = std::vector<std::vector<double>>;

/// Nested R-hat of Margossian et al. 2024 (Bayesian Analysis; arXiv 2110.13017, eqs. 5-9): chains of a super-chain
/// start from one point, so that the spread between super-chain means shows what is left of the start even when every
/// chain is a few steps long. 1 when converged; NaN with fewer than two whole super-chains.
double nested_r_hat(const ChainDraws& draws, int chains_a_superchain);

/// Where a nested R-hat deserves a look: even independent chains give R-hat^2 = 1 + 1 / (M n) on average, for M chains a
/// super-chain worth n draws each, with a relative scatter of sqrt(2 / (K - 1)) over K super-chains. Three such
/// deviations above, and at least 1.05.
double nested_r_hat_limit(int superchains, int chains_a_superchain, double draws_a_chain);

/// Effective sample size of all draws together, from the autocorrelation averaged over chains with Geyer's initial
/// monotone sequence (Vehtari et al. 2021, arXiv 1903.08008, eq. 10). NaN where it cannot be told.
double effective_sample_size(const ChainDraws& draws);

/// Correlation of successive states, averaged over chains with the mean over all chains taken off.
double lag_one_correlation(const ChainDraws& draws);

}  // namespace umbriel
