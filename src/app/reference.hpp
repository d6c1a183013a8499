/// Reference reconstructions of a survey: Kaiser-Squires, the exact Wiener posterior, the posterior maximum.
#pragma once

#include <vector>

#include "umbriel/app/problem.hpp"
#include "umbriel/inference/gaussian_posterior.hpp"

namespace umbriel {

/// Host maps of one field, [y, x].
using HostMap = std::vector<float>;

/// Maps 0 ... n - 1 of a state, on the host: fields [n, y, x] one after the other.
std::vector<HostMap> maps_of(const Space& space, const RealFft& fft, const SpectrumBatch& state, int n);

/// Kaiser-Squires map, unsmoothed (E mode) and its B mode.
std::vector<HostMap> kaiser_squires_maps(const Space& space, const Problem& problem, const RealFft& fft);

/// n exact posterior draws, sharded over ranks: this rank's [field maps of draw, ...], `fields` maps a draw.
std::vector<float> exact_draws(const Communicator& comm, const Space& space, const ConvergencePosterior& posterior,
                               std::uint64_t seed, std::int64_t n, int batch);

/// Posterior of the linear model of a problem: without reduced shear, which has no exact solution.
ConvergencePosterior linear_posterior(const Problem& problem, int max_chains);

}  // namespace umbriel
