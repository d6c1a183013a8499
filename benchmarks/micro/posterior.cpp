// Evaluations of the posterior of a COSMOS-like mock survey, each beside the transforms it cannot do without.
//
// Counts for N = side^2 pixels and one chain, in bytes read and written once each (spectra and maps are 4 bytes a
// pixel):
//   multiply by D        state 4, two spectra 8                                           12 N,   4 FLOP a pixel
//   weigh the residual   two maps both ways 16, data 8, variance 8                        32 N,  11 FLOP, 2 divisions
//   adjoint and prior    two spectra 8, state 4, power 2, score 4                         18 N,  12 FLOP, 1 a mode
// Transforms, two inverse and two forward: 32 N bytes and 10 N log2 N FLOP. At 360 x 360 that is 8 MB and 2.4 MFLOP of
// passes beside 4 MB and 22 MFLOP of transforms: at the 100 GB/s of a core's level-2 cache (memory_triad) the passes
// have a floor of 0.08 ms, at the 30 GB/s of memory one of 0.27 ms, beside transforms of 0.7 ms; measured 0.15 ms.
#include <algorithm>
#include <chrono>

#include "sizes.hpp"
#include "umbriel/inference/annealed_hmc.hpp"
#include "umbriel/inference/gaussian_posterior.hpp"
#include "umbriel/inference/spectra.hpp"
#include "umbriel/simulation/convergence_map.hpp"
#include "umbriel/simulation/convergence_power.hpp"
#include "umbriel/simulation/mock_survey.hpp"

namespace umbriel::bench {
namespace {

constexpr double pixel_arcmin = 0.29;

/// A posterior, and a state of each of n chains drawn from the prior.
struct Fixture {
  Space space;
  Grid grid;
  int n;
  HostView2<float> power;
  Survey survey;
  ConvergencePosterior posterior;
  SpectrumBatch state, score;
  MapBatch shear;
  View1<float> sigma;
  View1<double> log_density;

  explicit Fixture(const benchmark::State& state_) : Fixture(grid_of(state_), batch_of(state_)) {}

  Fixture(Grid g, int chains)
      : grid(g),
        n(chains),
        power(pixel_power(spectrum(), g, pixel_arcmin)),
        survey(mock(g)),
        posterior(survey, power, ForwardModel{}, chains),
        state("state", chains, g.height, g.half_width()),
        score("score", chains, g.height, g.half_width()),
        shear("shear", 2 * chains, g.height, g.width),
        sigma("sigma", chains),
        log_density("log_density", chains) {
    ConvergenceSimulator simulator(spectrum(), g, pixel_arcmin, FieldKind::gaussian);
    simulator.draw(2, 0, chains, shear, space);
    to_spectra(space, posterior.fft(), chains, shear, state);
    Kokkos::deep_copy(sigma, 0.02f);
    space.fence();
  }

  static const PowerSpectrum& spectrum() {
    static const PowerSpectrum found = [] {
      std::vector<double> multipoles;
      for (double l = 10; l < 2e5; l *= 1.1) multipoles.push_back(l);
      return convergence_power(Cosmology{}, SourceDistribution::plane(1.0), multipoles);
    }();
    return found;
  }

  static Survey mock(Grid g) {
    ConvergenceSimulator simulator(spectrum(), g, pixel_arcmin, FieldKind::lognormal);
    const MapBatch map("map", 1, g.height, g.width);
    simulator.draw(1, 0, 1, map);
    const HostMaps mask = survey_mask(g, "cosmos-like", 1);
    const auto truth = on_host(map);
    return mock_survey(truth, mask, shape_noise(g, mask, pixel_arcmin), pixel_arcmin, 1);
  }

  /// The transforms of one evaluation, chain by chain through the same memory as the posterior.
  struct Transforms {
    RealFft fft;
    SpectrumBatch spectra;
    MapBatch maps;
    int at_once;
    void operator()(const Space& space, int n) const {
      for (int i = 0; i < n; i += at_once) {
        fft.inverse(space, spectra, maps, 2 * at_once);
        fft.forward(space, maps, spectra, 2 * at_once);
      }
    }
  };
  Transforms transforms() const {
    const int at_once = runs_on_host ? 1 : n;
    return {RealFft(grid), SpectrumBatch("spectra", 2 * at_once, grid.height, grid.half_width()),
            MapBatch("maps", 2 * at_once, grid.height, grid.width), at_once};
  }
};

double seconds_of(const Space& space, const auto& action) {
  const auto start = std::chrono::steady_clock::now();
  action();
  space.fence();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Log-density and score. The transforms alone run in turn with the evaluations, so that `ratio_to_fft`, of medians, is
// of one moment; it is to stay below 1.4 at 360 x 360.
void gradient(benchmark::State& state) {
  const Fixture f(state);
  const auto transforms = f.transforms();
  std::vector<double> evaluations, ffts;
  for (auto _ : state) {
    evaluations.push_back(
        seconds_of(f.space, [&] { f.posterior.evaluate(f.space, f.n, f.state, f.sigma, f.score, f.log_density); }));
    ffts.push_back(seconds_of(f.space, [&] { transforms(f.space, f.n); }));
    state.SetIterationTime(evaluations.back());
  }
  state.counters["ratio_to_fft"] = median(evaluations) / median(ffts);
  count_bytes(state, (12 + 32 + 18 + 32) * static_cast<double>(f.n) * static_cast<double>(f.grid.pixels()));
}

// Shear of a state, and the adjoint of that: 76 bytes a pixel with the transforms.
void spin2_pair(benchmark::State& state) {
  const Fixture f(state);
  for (auto _ : state) {
    f.posterior.forward(f.space, f.n, f.state, f.shear);
    f.posterior.adjoint(f.space, f.n, f.shear, f.score);
    f.space.fence();
  }
  count_bytes(state, (12 + 16 + 16 + 12) * static_cast<double>(f.n) * static_cast<double>(f.grid.pixels()));
}

// A short annealed run, per evaluation of the score: gradient plus the integrator's pass (score, momentum, state and
// power: 22 bytes a pixel) plus each trajectory's momenta and acceptance.
void integrator_step(benchmark::State& state) {
  const Fixture f(state);
  HmcOptions options;
  options.batch = f.n;
  options.temperatures = 2;
  options.settling = 1;
  options.tail = 1;
  const SpectrumBatch start("start", f.posterior.fields(), f.grid.height, f.grid.half_width());
  std::vector<std::int64_t> chains;
  for (int i = 0; i < f.n; ++i) chains.push_back(i);
  AnnealedHmc sampler(f.posterior, f.posterior.fft(), start, options);
  double evaluations = 0;
  for (auto _ : state) {
    sampler.add(chains);
    sampler.run(
        f.space, [&](ChainResult&& chain) { evaluations += static_cast<double>(chain.score_evaluations); },
        [](double) {}, [] { return false; });
  }
  state.counters["seconds_a_score"] =
      benchmark::Counter(evaluations, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["scores_a_chain"] = evaluations / (static_cast<double>(f.n) * static_cast<double>(state.iterations()));
}

// One exact constrained realisation a chain: the conjugate gradients dominate, an iteration costs about a gradient.
void exact_draw(benchmark::State& state) {
  const Fixture f(state);
  GaussianPosterior exact(f.posterior, f.n);
  const MapBatch maps("maps", f.n, f.grid.height, f.grid.width);
  std::uint32_t sample = 0;
  for (auto _ : state) {
    exact.draw(f.space, 1, sample, f.n, maps);
    f.space.fence();
    sample += static_cast<std::uint32_t>(f.n);
  }
  state.counters["cg_iterations"] = exact.iterations();
  state.counters["seconds_a_draw"] = benchmark::Counter(
      static_cast<double>(f.n), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

}  // namespace

BENCHMARK(spin2_pair)->Apply(map_sizes);
BENCHMARK(gradient)->Apply(map_sizes_by_hand);
BENCHMARK(integrator_step)->Apply(map_sizes);
BENCHMARK(exact_draw)->Apply(map_sizes);

}  // namespace umbriel::bench
