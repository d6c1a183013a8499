// Runs chains, and compares them with an exact Gaussian posterior: what the tests of samplers share.
#pragma once

#include <algorithm>
#include <vector>

#include "small_survey.hpp"
#include "umbriel/inference/annealed_hmc.hpp"
#include "umbriel/inference/gaussian_posterior.hpp"

namespace umbriel::testing {

inline std::vector<std::int64_t> first_chains(int n) {
  std::vector<std::int64_t> chains;
  for (int i = 0; i < n; ++i) chains.push_back(i);
  return chains;
}

inline std::vector<ChainResult> run(const LogDensity& density, const RealFft& fft, const HmcOptions& options,
                                    const std::vector<std::int64_t>& chains, int pause_every = 0,
                                    const ScoreResidual* residual = nullptr) {
  const SpectrumBatch start("start", density.fields(), density.grid().height, density.grid().half_width());
  AnnealedHmc sampler(density, fft, start, options, residual);
  sampler.add(chains);
  std::vector<ChainResult> results;
  int asked = 0;
  const auto keep = [&](ChainResult&& chain) { results.push_back(std::move(chain)); };
  const auto stop = [&] { return pause_every > 0 && ++asked % pause_every == 0; };
  while (!sampler.run(
      Space(), keep, [](double) {}, stop)) {
  }
  std::sort(results.begin(), results.end(), [](const auto& a, const auto& b) { return a.chain < b.chain; });
  return results;
}

/// The same, stopped after every `turns` evaluations: the chains on their way go on with a new sampler, which has
/// places for another number of them.
inline std::vector<ChainResult> run_from_hand_to_hand(const LogDensity& density, const RealFft& fft, HmcOptions options,
                                                      std::vector<std::int64_t> chains, int turns,
                                                      const ScoreResidual* residual = nullptr) {
  const SpectrumBatch start("start", density.fields(), density.grid().height, density.grid().half_width());
  std::vector<ChainResult> results;
  std::vector<ChainState> states;
  for (bool done = false; !done;) {
    options.batch = options.batch % 3 + 1;
    AnnealedHmc sampler(density, fft, start, options, residual);
    sampler.add(states);
    sampler.add(chains);
    int asked = 0;
    done = sampler.run(
        Space(), [&](ChainResult&& chain) { results.push_back(std::move(chain)); }, [](double) {},
        [&] { return ++asked > turns; });
    states = sampler.states();
    const auto begun = [&](std::int64_t chain) {
      const auto is_it = [&](const auto& c) { return c.chain == chain; };
      return std::any_of(states.begin(), states.end(), is_it) || std::any_of(results.begin(), results.end(), is_it);
    };
    chains.erase(std::remove_if(chains.begin(), chains.end(), begun), chains.end());
  }
  std::sort(results.begin(), results.end(), [](const auto& a, const auto& b) { return a.chain < b.chain; });
  return results;
}

/// What `posterior` says of chains that should sample it: mean over chains of (x - mean)^T H (x - mean), and distance
/// of the chains' mean from the exact one in units of what independent draws would have.
struct Agreement {
  double quadratic, mean_error;
};

inline Agreement against_exact(const ConvergencePosterior& posterior, const std::vector<ChainResult>& chains) {
  const Grid grid = posterior.grid();
  const int fields = posterior.fields();
  GaussianPosterior exact(posterior, 1);
  const SpectrumBatch mean = exact.mean(Space());
  SpectrumBatch sum("sum", fields, grid.height, grid.half_width());
  const SpectrumBatch product("product", fields, grid.height, grid.half_width());
  double quadratic = 0;
  for (const ChainResult& chain : chains) {
    const MapBatch maps("maps", fields, grid.height, grid.width);
    const auto host = Kokkos::create_mirror_view(maps);
    std::copy(chain.sample.begin(), chain.sample.end(), host.data());
    Kokkos::deep_copy(maps, host);
    const SpectrumBatch state("state", fields, grid.height, grid.half_width());
    to_spectra(Space(), posterior.fft(), fields, maps, state);
    const SpectrumBatch difference = combined(fields, grid, state, -1.0f, mean);
    posterior.apply_curvature(Space(), 1, difference, product);
    quadratic += dot(grid, fields, difference, product);
    sum = combined(fields, grid, sum, 1.0f, difference);
  }
  const auto n = static_cast<double>(chains.size());
  posterior.apply_curvature(Space(), 1, sum, product);
  const double degrees = fields * static_cast<double>(grid.pixels() - 1);
  return {quadratic / n / degrees, dot(grid, fields, sum, product) / n / degrees};
}

inline bool same(const ChainResult& a, const ChainResult& b) {
  return a.chain == b.chain && a.sample == b.sample && a.mean == b.mean && a.tail == b.tail &&
         a.trace_sigma == b.trace_sigma && a.trace_log_density == b.trace_log_density &&
         a.accept_rate == b.accept_rate && a.score_evaluations == b.score_evaluations &&
         a.energy_error == b.energy_error;
}

}  // namespace umbriel::testing
