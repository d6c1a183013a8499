#include "umbriel/inference/annealed_hmc.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "umbriel/inference/spectra.hpp"
#include "umbriel/maps/spin2.hpp"

namespace umbriel {
namespace {

/// Fourier mass of a mode: unit in "paper" mode, else the curvature of the density at this temperature; 0 pins a mode.
struct Mass {
  View2<float> power;
  View1<float> sigma, precision;  // a slot
  bool unit;

  KOKKOS_INLINE_FUNCTION float operator()(int slot, int ky, int kx) const {
    return value(power(ky, kx), sigma(slot) * sigma(slot), precision(slot), unit);
  }
  KOKKOS_INLINE_FUNCTION float inverse(int slot, int ky, int kx) const {
    return inverse_value(power(ky, kx), sigma(slot) * sigma(slot), precision(slot), unit);
  }
  KOKKOS_INLINE_FUNCTION static float value(float p, float temperature, float precision, bool unit) {
    const float mass = unit ? 1.0f : 1.0f / (p > 0.0f ? p + temperature : 1.0f) + precision;
    return p > 0.0f ? mass : 0.0f;
  }
  KOKKOS_INLINE_FUNCTION static float inverse_value(float p, float temperature, float precision, bool unit) {
    const float spread = p + temperature;
    const float inverse = unit ? 1.0f : spread / (1.0f + spread * precision);
    return p > 0.0f ? inverse : 0.0f;
  }
};

// Kernels on the slots named in list(0 ... n - 1); a slot holds `fields` maps.

/// state <- mean + spread noise, with noise in compact order.
void start_states(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const View2<float>& power,
                  float white_power, float power_factor, const SpectrumBatch& mean, const SpectrumBatch& noise,
                  const SpectrumBatch& state) {
  for_each_element(
      "umbriel::start_states", space, n * fields, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(int map, int ky, int kx) {
        const int field = map % fields;
        const int to = list(map / fields) * fields + field;
        const float p = power(ky, kx);
        const float spread = p > 0.0f ? math::sqrt(power_factor * p + white_power) : 0.0f;
        const float keep = p > 0.0f ? 1.0f : 0.0f;
        const Complex a = noise(map, ky, kx), m = mean(field, ky, kx);
        state(to, ky, kx) = Complex(keep * m.real() + spread * a.real(), keep * m.imag() + spread * a.imag());
      });
}

/// momentum <- sqrt(M) noise; out(map) = |noise|^2 over free modes, twice the kinetic energy.
void draw_momenta(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const Mass& mass,
                  const SpectrumBatch& noise, const SpectrumBatch& momentum, const SumWorkspace& sums,
                  const View1<double>& out) {
  sum_each_map(
      "umbriel::draw_momenta", space, n * fields, grid.height, grid.half_width(), sums, out,
      KOKKOS_LAMBDA(int map, int ky, int kx) {
        const int slot = list(map / fields);
        const float m = mass(slot, ky, kx);
        const float root = math::sqrt(m);
        const Complex a = noise(map, ky, kx);
        momentum(slot * fields + map % fields, ky, kx) = Complex(root * a.real(), root * a.imag());
        return m > 0.0f ? mode_weight(grid, kx) * (a.real() * a.real() + a.imag() * a.imag()) : 0.0f;
      });
}

/// Coefficients of one integrator step of each slot.
///   p <- p + kick (score + harmonic M x)
///   x, p <- turn x + drift M^-1 p, turn p - pull M x
/// Leapfrog: harmonic = 0, turn = 1, drift = step, pull = 0. Split: harmonic = 1, turn = cos, drift = pull = sin.
struct StepCoefficients {
  View1<float> kick, turn, drift, pull;
  float harmonic;
};

void kick_and_drift(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const Mass& mass,
                    const StepCoefficients& step, const SpectrumBatch& score, const SpectrumBatch& momentum,
                    const SpectrumBatch& state) {
  for_each_row(
      "umbriel::kick_and_drift", space, n * fields, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(int map, int ky, int begin, int end) {
        const int slot = list(map / fields), at = slot * fields + map % fields;
        const float kick = step.kick(slot), turn = step.turn(slot), drift = step.drift(slot), pull = step.pull(slot);
        const float spring = step.harmonic, temperature = mass.sigma(slot) * mass.sigma(slot);
        const float precision = mass.precision(slot);
        const bool unit = mass.unit;
        const float *g = row_of(score, at, ky), *power = &mass.power(ky, 0);
        float *p = row_to(momentum, at, ky), *x = row_to(state, at, ky);
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int kx = begin; kx < end; ++kx) {
          const float m = Mass::value(power[kx], temperature, precision, unit);
          const float along = drift * Mass::inverse_value(power[kx], temperature, precision, unit);
          const float pulled = pull * m, push = kick * spring * m;
          const float xr = x[2 * kx], xi = x[2 * kx + 1];
          const float pr = p[2 * kx] + kick * g[2 * kx] + push * xr,
                      pi = p[2 * kx + 1] + kick * g[2 * kx + 1] + push * xi;
          p[2 * kx] = turn * pr - pulled * xr;
          p[2 * kx + 1] = turn * pi - pulled * xi;
          x[2 * kx] = turn * xr + along * pr;
          x[2 * kx + 1] = turn * xi + along * pi;
        }
      });
}

/// The last half kick of a trajectory; out(map) = <p, M^-1 p>.
void last_kick(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const Mass& mass,
               const StepCoefficients& step, const SpectrumBatch& score, const SpectrumBatch& state,
               const SpectrumBatch& momentum, const SumWorkspace& sums, const View1<double>& out) {
  sum_each_map(
      "umbriel::last_kick", space, n * fields, grid.height, grid.half_width(), sums, out,
      KOKKOS_LAMBDA(int map, int ky, int kx) {
        const int slot = list(map / fields);
        const int at = slot * fields + map % fields;
        const Complex g = score(at, ky, kx), p = momentum(at, ky, kx), x = state(at, ky, kx);
        const float kick = step.kick(slot), spring = step.harmonic * mass(slot, ky, kx);
        const float re = p.real() + kick * (g.real() + spring * x.real());
        const float im = p.imag() + kick * (g.imag() + spring * x.imag());
        momentum(at, ky, kx) = Complex(re, im);
        return mode_weight(grid, kx) * mass.inverse(slot, ky, kx) * (re * re + im * im);
      });
}

/// to(slot) <- from(slot) for listed slots, both arrays in slot order.
void copy_slots(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const SpectrumBatch& from,
                const SpectrumBatch& to) {
  for_each_element(
      "umbriel::copy_slots", space, n * fields, grid.height, grid.half_width(), KOKKOS_LAMBDA(int map, int ky, int kx) {
        const int at = list(map / fields) * fields + map % fields;
        to(at, ky, kx) = from(at, ky, kx);
      });
}

void swap_slots(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const SpectrumBatch& a,
                const SpectrumBatch& b) {
  for_each_element(
      "umbriel::swap_slots", space, n * fields, grid.height, grid.half_width(), KOKKOS_LAMBDA(int map, int ky, int kx) {
        const int at = list(map / fields) * fields + map % fields;
        const Complex kept = a(at, ky, kx);
        a(at, ky, kx) = b(at, ky, kx);
        b(at, ky, kx) = kept;
      });
}

/// x <- x + factor(slot) score: a step of the probability-flow ODE.
void add_score(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const View1<float>& factor,
               const SpectrumBatch& score, const SpectrumBatch& state) {
  for_each_element(
      "umbriel::add_score", space, n * fields, grid.height, grid.half_width(), KOKKOS_LAMBDA(int map, int ky, int kx) {
        const int slot = list(map / fields);
        const int at = slot * fields + map % fields;
        const Complex g = score(at, ky, kx), x = state(at, ky, kx);
        state(at, ky, kx) = Complex(x.real() + factor(slot) * g.real(), x.imag() + factor(slot) * g.imag());
      });
}

/// out(i) <- the state of listed slot i, in compact order.
void gather_slots(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const SpectrumBatch& state,
                  const SpectrumBatch& out) {
  for_each_element(
      "umbriel::gather_slots", space, n * fields, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(int map, int ky, int kx) {
        out(map, ky, kx) = state(list(map / fields) * fields + map % fields, ky, kx);
      });
}

/// out(i * blocks^2 + block) <- mean of map i * fields in each block of a blocks x blocks grid.
struct BlockMeans {
  MapBatch maps;
  View1<double> out;
  int fields, blocks, height, width;

  KOKKOS_INLINE_FUNCTION void operator()(const int index) const {
    const int block = index % (blocks * blocks);
    const int map = index / (blocks * blocks) * fields;
    const int by = block / blocks, bx = block % blocks;
    const int y0 = by * height / blocks, y1 = (by + 1) * height / blocks;
    const int x0 = bx * width / blocks, x1 = (bx + 1) * width / blocks;
    double sum = 0;
    for (int y = y0; y < y1; ++y) {
      for (int x = x0; x < x1; ++x) sum += static_cast<double>(maps(map, y, x));
    }
    out(index) = sum / (static_cast<double>(y1 - y0) * (x1 - x0));
  }
};

/// Two-stage splitting of McLachlan 1995 (kicks a, 1 - 2a, a around two drifts of half a step): per evaluation a tenth
/// of the energy error of leapfrog, so longer steps for the same acceptance (Blanes, Casas & Sanz-Serna 2014).
constexpr double two_stage = 0.21132486540518712;  // (3 - sqrt 3) / 6

/// Kick before drift number `drift` of a trajectory in units of the drift: neighbouring kicks of two steps are one.
double kick_before(int drift, bool leapfrog) {
  if (leapfrog) return drift == 0 ? 0.5 : 1.0;
  if (drift % 2 == 1) return 2 * (1 - 2 * two_stage);
  return drift == 0 ? 2 * two_stage : 4 * two_stage;
}

double last_kick_share(bool leapfrog) { return leapfrog ? 0.5 : 2 * two_stage; }

double uniform_draw(const HmcOptions& options, Purpose purpose, std::int64_t chain, int step, int element) {
  return uniform({options.seed, purpose, static_cast<std::uint32_t>(chain), static_cast<std::uint32_t>(step)},
                 static_cast<std::uint64_t>(element));
}

}  // namespace

double HmcOptions::expected_evaluations() const {
  if (mode == Mode::paper) return static_cast<double>(paper_steps) * paper_leapfrogs + 2.2 * 239 + paper_ode_steps;
  return 1 + temperatures + trajectories() * static_cast<double>(min_steps + max_steps);
}

std::vector<std::string> monitored_names() {
  std::vector<std::string> names = {"log_density"};
  for (int y = 0; y < monitored_blocks; ++y) {
    for (int x = 0; x < monitored_blocks; ++x)
      names.push_back(std::string("block_").append(std::to_string(y)).append("_").append(std::to_string(x)));
  }
  return names;
}

struct AnnealedHmc::Slot {
  std::int64_t chain = -1;
  Phase phase = Phase::evaluate;
  int trajectory = 0;       // trajectories finished
  int leap = 0, leaps = 0;  // in the current one
  float sigma = 0, precision = 0;
  double step = 0;         // of the current trajectory
  double step_factor = 1;  // adapted while annealing, from this chain's own acceptances
  double log_density = 0, kinetic = 0;
  double previous_log_density = 0;
  int tested = 0, accepted = 0;  // Metropolis tests
  int steps_here = 0;            // "paper": steps at this temperature
  float proposed_sigma = 0;      // "paper": temperature under test
  double path_old = 0, path_new = 0;
  int ode_step = 0;
  double ode_factor = 0;
  ChainResult result;
};

AnnealedHmc::AnnealedHmc(const LogDensity& density, const RealFft& fft, const SpectrumBatch& start_mean,
                         HmcOptions options)
    : density_(density), fft_(fft), start_mean_(start_mean), options_(options) {
  require(options.batch > 0 && options.tail > 0 && options.temperatures > 0 && options.min_steps > 0 &&
              options.max_steps >= options.min_steps,
          ExitCode::usage, "sampler options must be positive", "[sampler]");
  require(options.tail * options.tail_every() <= options.trajectories(), ExitCode::usage,
          "the tail is longer than the run", "sampler.tail", "shorten it or take more steps");
  const Grid grid = density.grid();
  const int maps = options.batch * density.fields();
  const auto spectra = [&](const std::string& label) {
    return SpectrumBatch(label, maps, grid.height, grid.half_width());
  };
  state_ = spectra("umbriel::hmc_state");
  momentum_ = spectra("umbriel::hmc_momentum");
  score_ = spectra("umbriel::hmc_score");
  saved_state_ = spectra("umbriel::hmc_saved_state");
  saved_score_ = spectra("umbriel::hmc_saved_score");
  scratch_ = spectra("umbriel::hmc_scratch");
  maps_ = MapBatch("umbriel::hmc_maps", maps, grid.height, grid.width);
  sigma_ = View1<float>("umbriel::hmc_sigma", options.batch);
  precision_ = View1<float>("umbriel::hmc_precision", options.batch);
  kick_ = View1<float>("umbriel::hmc_kick", options.batch);
  turn_ = View1<float>("umbriel::hmc_turn", options.batch);
  drift_ = View1<float>("umbriel::hmc_drift", options.batch);
  pull_ = View1<float>("umbriel::hmc_pull", options.batch);
  list_ = View1<int>("umbriel::hmc_list", options.batch);
  log_density_ = View1<double>("umbriel::hmc_log_density", options.batch);
  sums_out_ = View1<double>("umbriel::hmc_sums", maps * monitored_blocks * monitored_blocks);
  sums_ = SumWorkspace(maps, grid.height);
}

AnnealedHmc::~AnnealedHmc() = default;

void AnnealedHmc::set_sigma(Slot& slot, float sigma) {
  slot.sigma = sigma;
  slot.precision = static_cast<float>(options_.mass_precision) * density_.precision(sigma);
}

void AnnealedHmc::begin_chains(const Space& space, const std::vector<int>& slots) {
  if (slots.empty()) return;
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  const int fields = density_.fields();
  std::vector<DrawKey> keys;
  for (const int s : slots) {
    Slot& slot = slots_[s];
    const std::int64_t chain = slot.chain;
    slot = Slot{};
    slot.chain = chain;
    slot.result.chain = chain;
    set_sigma(slot, static_cast<float>(paper ? options_.paper_start : options_.sigma_start));
    const auto superchain = static_cast<std::uint32_t>(chain / options_.chains_a_superchain);
    for (int f = 0; f < fields; ++f)
      keys.push_back({options_.seed, Purpose::chain_start, superchain, static_cast<std::uint32_t>(f)});
  }
  upload(slots, list_);
  white_noise(space, fft_, keys, maps_, scratch_);
  const double start = paper ? options_.paper_start : options_.sigma_start;
  start_states(space, density_.grid(), static_cast<int>(slots.size()), fields, list_, density_.prior_power(),
               static_cast<float>(start * start), paper ? 0.0f : 1.0f, start_mean_, scratch_, state_);
}

void AnnealedHmc::begin_trajectories(const Space& space, const std::vector<int>& slots) {
  if (slots.empty()) return;
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  const int fields = density_.fields();
  const int n = static_cast<int>(slots.size());
  std::vector<DrawKey> keys;
  for (const int s : slots) {
    Slot& slot = slots_[s];
    slot.phase = Phase::leap;
    slot.leap = 0;
    if (paper) {
      slot.step = options_.paper_step * std::sqrt(static_cast<double>(slot.sigma) / options_.paper_start);
      slot.leaps = options_.paper_leapfrogs;
    } else {
      const double jitter = uniform_draw(options_, Purpose::trajectory, slot.chain, slot.trajectory, 0);
      const double length = uniform_draw(options_, Purpose::trajectory, slot.chain, slot.trajectory, 1);
      slot.step = 0.5 * options_.step * slot.step_factor * (0.8 + 0.4 * jitter);  // a drift is half a step
      slot.leaps = 2 * (options_.min_steps + static_cast<int>(length * (options_.max_steps - options_.min_steps + 1)));
    }
    slot.previous_log_density = slot.log_density;
    for (int f = 0; f < fields; ++f)
      keys.push_back({options_.seed, Purpose::momentum, static_cast<std::uint32_t>(slot.chain),
                      static_cast<std::uint32_t>(slot.trajectory * fields + f)});
  }
  upload(slots, list_);
  std::vector<float> sigma(slots_.size()), precision(slots_.size());
  for (std::size_t s = 0; s < slots_.size(); ++s) {
    sigma[s] = slots_[s].sigma;
    precision[s] = slots_[s].precision;
  }
  upload(sigma, sigma_);
  upload(precision, precision_);
  white_noise(space, fft_, keys, maps_, scratch_);
  draw_momenta(space, density_.grid(), n, fields, list_, Mass{density_.prior_power(), sigma_, precision_, paper},
               scratch_, momentum_, sums_, sums_out_);
  const std::vector<double> squares = download(sums_out_, static_cast<std::size_t>(n) * fields);
  for (int i = 0; i < n; ++i) {
    slots_[slots[i]].kinetic = 0;
    for (int f = 0; f < fields; ++f) slots_[slots[i]].kinetic += 0.5 * squares[i * fields + f];
  }
  copy_slots(space, density_.grid(), n, fields, list_, state_, saved_state_);
  copy_slots(space, density_.grid(), n, fields, list_, score_, saved_score_);
}

void AnnealedHmc::move(const Space& space) {
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  const int n = static_cast<int>(slots_.size());
  std::vector<float> kick(n, 0.0f), turn(n, 0.0f), drift(n, 0.0f), pull(n, 0.0f), sigma(n), precision(n);
  std::vector<int> moving;
  for (int s = 0; s < n; ++s) {
    const Slot& slot = slots_[s];
    sigma[s] = slot.sigma;
    precision[s] = slot.precision;
    if (slot.phase != Phase::leap) continue;
    kick[s] = static_cast<float>(kick_before(slot.leap, paper) * slot.step);
    turn[s] = paper ? 1.0f : static_cast<float>(std::cos(slot.step));
    drift[s] = static_cast<float>(paper ? slot.step : std::sin(slot.step));
    pull[s] = paper ? 0.0f : drift[s];
    moving.push_back(s);
  }
  upload(sigma, sigma_);
  upload(precision, precision_);
  if (moving.empty()) return;
  upload(moving, list_);
  upload(kick, kick_);
  upload(turn, turn_);
  upload(drift, drift_);
  upload(pull, pull_);
  kick_and_drift(space, density_.grid(), static_cast<int>(moving.size()), density_.fields(), list_,
                 Mass{density_.prior_power(), sigma_, precision_, paper},
                 {kick_, turn_, drift_, pull_, paper ? 0.0f : 1.0f}, score_, momentum_, state_);
}

void AnnealedHmc::end_trajectories(const Space& space, const std::vector<int>& slots) {
  if (slots.empty()) return;
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  const int fields = density_.fields();
  const int n = static_cast<int>(slots.size());
  std::vector<float> kick(slots_.size(), 0.0f);
  for (const int s : slots) kick[s] = static_cast<float>(last_kick_share(paper) * slots_[s].step);
  upload(kick, kick_);
  upload(slots, list_);
  last_kick(space, density_.grid(), n, fields, list_, Mass{density_.prior_power(), sigma_, precision_, paper},
            {kick_, turn_, drift_, pull_, paper ? 0.0f : 1.0f}, score_, state_, momentum_, sums_, sums_out_);
  const std::vector<double> squares = download(sums_out_, static_cast<std::size_t>(n) * fields);
  std::vector<int> rejected;
  for (int i = 0; i < n; ++i) {
    Slot& slot = slots_[slots[i]];
    double kinetic = 0;
    for (int f = 0; f < fields; ++f) kinetic += 0.5 * squares[i * fields + f];
    const double change = (slot.log_density - kinetic) - (slot.previous_log_density - slot.kinetic);
    const double u = uniform_draw(options_, Purpose::acceptance, slot.chain, slot.trajectory, 0);
    // Cooling is a way to a good start: its moves need no exact test, only energy conserved well enough to be stable.
    const bool cooling = !paper && slot.trajectory < options_.temperatures + options_.settling;
    const bool accepted =
        std::isfinite(change) && (cooling ? change > -0.05 * std::max(kinetic, slot.kinetic) : std::log(u) < change);
    if (!cooling) {
      ++slot.tested;
      slot.accepted += accepted ? 1 : 0;
      if (std::isfinite(change)) slot.result.energy_error = std::max(slot.result.energy_error, std::fabs(change));
    }
    if (!accepted) {
      slot.log_density = slot.previous_log_density;
      rejected.push_back(slots[i]);
    }
    after_trajectory(slot, accepted);
  }
  upload(rejected, list_);
  copy_slots(space, density_.grid(), static_cast<int>(rejected.size()), fields, list_, saved_state_, state_);
  copy_slots(space, density_.grid(), static_cast<int>(rejected.size()), fields, list_, saved_score_, score_);
}

/// Counts the trajectory, records the trace and chooses what this chain does next.
void AnnealedHmc::after_trajectory(Slot& slot, bool accepted) {
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  if (slot.trajectory % options_.trace_every() == 0) {
    slot.result.trace_sigma.push_back(slot.sigma);
    slot.result.trace_log_density.push_back(slot.log_density);
  }
  ++slot.trajectory;
  if (paper) {
    ++slot.steps_here;
    const float cooler = static_cast<float>(options_.paper_cooling) * slot.sigma;
    if (accepted && slot.steps_here > options_.paper_min_steps && cooler >= static_cast<float>(options_.paper_floor)) {
      // Cool if the move just made is as likely at the cooler temperature, by a Metropolis test on the two paths.
      slot.proposed_sigma = cooler;
      slot.phase = Phase::temper_new;
      slot.path_old = slot.log_density - slot.previous_log_density;
    } else {
      slot.phase = Phase::leap;
    }
    return;
  }
  slot.phase = Phase::leap;
  if (slot.trajectory < options_.temperatures) {
    slot.step_factor = std::min(1.0, slot.step_factor * (accepted ? 1.1 : 0.7));
    const double fraction = static_cast<double>(slot.trajectory) / std::max(1, options_.temperatures - 1);
    set_sigma(slot,
              static_cast<float>(options_.sigma_start * std::pow(options_.sigma_end / options_.sigma_start, fraction)));
    slot.phase = Phase::evaluate;
  } else if (slot.trajectory == options_.temperatures) {
    set_sigma(slot, static_cast<float>(options_.sigma_final));
    slot.phase = Phase::evaluate;
  }
}

void AnnealedHmc::record_tail(const Space& space, const std::vector<int>& slots) {
  if (slots.empty()) return;
  const Grid grid = density_.grid();
  const int fields = density_.fields();
  const int n = static_cast<int>(slots.size());
  constexpr int blocks = monitored_blocks * monitored_blocks;
  upload(slots, list_);
  gather_slots(space, grid, n, fields, list_, state_, scratch_);
  to_maps(space, fft_, n * fields, scratch_, scratch_, maps_);
  Kokkos::parallel_for("umbriel::block_means", Kokkos::RangePolicy<Space>(space, 0, n * blocks),
                       BlockMeans{maps_, sums_out_, fields, monitored_blocks, grid.height, grid.width});
  const std::vector<double> means = download(sums_out_, static_cast<std::size_t>(n) * blocks);
  for (int i = 0; i < n; ++i) {
    Slot& slot = slots_[slots[i]];
    slot.result.tail.push_back(slot.log_density);
    slot.result.tail.insert(slot.result.tail.end(), means.begin() + i * blocks, means.begin() + (i + 1) * blocks);
  }
}

void AnnealedHmc::finish_chains(const Space& space, const std::vector<int>& slots,
                                const std::function<void(ChainResult&&)>& finished) {
  if (slots.empty()) return;
  const Grid grid = density_.grid();
  const int fields = density_.fields();
  const int n = static_cast<int>(slots.size());
  upload(slots, list_);
  gather_slots(space, grid, n, fields, list_, state_, scratch_);
  to_maps(space, fft_, n * fields, scratch_, scratch_, maps_);
  const auto host = on_host(maps_);
  const std::size_t size = static_cast<std::size_t>(fields) * grid.pixels();
  for (int i = 0; i < n; ++i) {
    Slot& slot = slots_[slots[i]];
    ChainResult& result = slot.result;
    const float* first = host.data() + static_cast<std::size_t>(i) * size;
    result.sample.assign(first, first + size);
    result.diverged = result.diverged || !std::all_of(result.sample.begin(), result.sample.end(),
                                                      [](float v) { return std::isfinite(v); });
    if (result.diverged) std::fill(result.sample.begin(), result.sample.end(), std::numeric_limits<float>::quiet_NaN());
    result.accept_rate = slot.tested > 0 ? static_cast<double>(slot.accepted) / slot.tested : 0;
    result.trace_sigma.resize(options_.trace_length(), std::numeric_limits<float>::quiet_NaN());
    result.trace_log_density.resize(options_.trace_length(), std::numeric_limits<double>::quiet_NaN());
    result.tail.resize(static_cast<std::size_t>(options_.tail) * monitored_quantities,
                       std::numeric_limits<double>::quiet_NaN());
    finished(std::move(result));
    slot.chain = -1;
  }
}

void AnnealedHmc::add(const std::vector<std::int64_t>& chains) {
  waiting_.insert(waiting_.end(), chains.begin(), chains.end());
}

bool AnnealedHmc::run(const Space& space, const std::function<void(ChainResult&&)>& finished,
                      const std::function<void(double)>& advanced, const std::function<bool()>& stop) {
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  const Grid grid = density_.grid();
  const int fields = density_.fields();
  const int tail_begins = options_.trajectories() - options_.tail * options_.tail_every();
  std::vector<int> fresh;
  while (static_cast<int>(slots_.size()) < options_.batch && !waiting_.empty()) {
    fresh.push_back(static_cast<int>(slots_.size()));
    slots_.emplace_back().chain = waiting_.front();
    waiting_.pop_front();
  }
  begin_chains(space, fresh);

  while (!slots_.empty()) {
    if (stop()) return false;
    move(space);
    density_.evaluate(space, static_cast<int>(slots_.size()), state_, sigma_, score_, log_density_);
    const std::vector<double> values = download(log_density_, slots_.size());

    std::vector<int> ended, begin, old_paths, swap_back, ode, recorded, done;
    double progress = 0;
    for (int s = 0; s < static_cast<int>(slots_.size()); ++s) {
      Slot& slot = slots_[s];
      ++slot.result.score_evaluations;
      switch (slot.phase) {
        case Phase::evaluate:
          slot.log_density = values[s];
          if (std::isfinite(values[s])) {
            begin.push_back(s);
          } else {  // the current state itself is lost: nothing to go back to
            slot.result.diverged = true;
            done.push_back(s);
          }
          break;
        case Phase::leap:
          slot.log_density = values[s];
          if (++slot.leap == slot.leaps || !std::isfinite(values[s])) ended.push_back(s);
          break;
        case Phase::temper_new:
          slot.path_new = values[s];
          slot.phase = Phase::temper_old;
          old_paths.push_back(s);
          break;
        case Phase::temper_old: {
          const double new_path = slot.path_new - values[s];
          const double u = uniform_draw(options_, Purpose::tempering, slot.chain, slot.trajectory, 0);
          swap_back.push_back(s);
          if (std::log(u) < slot.path_old - new_path) {
            slot.log_density = slot.path_new;
            slot.steps_here = 0;
            begin.push_back(s);
          } else {  // back to the warmer temperature, whose score has to be found again
            set_sigma(slot, slot.proposed_sigma / static_cast<float>(options_.paper_cooling));
            slot.phase = Phase::evaluate;
          }
          break;
        }
        case Phase::ode:
          ode.push_back(s);
          break;
      }
    }

    end_trajectories(space, ended);
    for (const int s : ended) {
      Slot& slot = slots_[s];
      progress += 1.0 / options_.trajectories();
      const int in_tail = slot.trajectory - tail_begins;
      if (in_tail > 0 && in_tail % options_.tail_every() == 0) recorded.push_back(s);
      if (slot.trajectory == options_.trajectories()) {
        slot.phase = Phase::ode;
        if (paper) {
          ode.push_back(s);  // the score at this temperature is at hand
        } else {
          done.push_back(s);
        }
      } else if (slot.phase == Phase::leap) {
        begin.push_back(s);
      } else if (slot.phase == Phase::temper_new) {
        set_sigma(slot, slot.proposed_sigma);
      }
    }
    record_tail(space, recorded);

    // "paper": the start of the last trajectory takes the state's place for one evaluation at the cooler temperature.
    std::vector<int> swaps = old_paths;
    swaps.insert(swaps.end(), swap_back.begin(), swap_back.end());
    if (!swaps.empty()) {
      upload(swaps, list_);
      swap_slots(space, grid, static_cast<int>(swaps.size()), fields, list_, state_, saved_state_);
      swap_slots(space, grid, static_cast<int>(swaps.size()), fields, list_, score_, saved_score_);
    }

    // "paper": probability-flow steps in equal ratios of t = sigma^2.
    if (!ode.empty()) {
      std::vector<float> factor(slots_.size(), 0.0f);
      std::vector<int> moving;
      for (const int s : ode) {
        Slot& slot = slots_[s];
        const double t = static_cast<double>(slot.sigma) * slot.sigma;
        if (slot.ode_step == 0) slot.ode_factor = std::pow(options_.paper_ode_end / t, 1.0 / options_.paper_ode_steps);
        if (slot.ode_step == options_.paper_ode_steps || t <= options_.paper_ode_end) {
          done.push_back(s);
          continue;
        }
        factor[s] = static_cast<float>(0.5 * t * (1 - slot.ode_factor));
        set_sigma(slot, static_cast<float>(std::sqrt(t * slot.ode_factor)));
        ++slot.ode_step;
        moving.push_back(s);
      }
      upload(factor, kick_);
      upload(moving, list_);
      add_score(space, grid, static_cast<int>(moving.size()), fields, list_, kick_, score_, state_);
    }

    begin_trajectories(space, begin);
    finish_chains(space, done, finished);
    if (progress > 0) advanced(progress);

    // Waiting chains take the places of finished ones; then the last slots fill what gaps remain.
    fresh.clear();
    for (const int s : done) {
      if (waiting_.empty()) break;
      slots_[s].chain = waiting_.front();
      waiting_.pop_front();
      fresh.push_back(s);
    }
    begin_chains(space, fresh);
    for (int s = static_cast<int>(slots_.size()) - 1; s >= 0; --s) {
      if (slots_[s].chain >= 0) continue;
      const int last = static_cast<int>(slots_.size()) - 1;
      if (s != last) {
        for (const SpectrumBatch& array : {state_, momentum_, score_, saved_state_, saved_score_}) {
          for (int f = 0; f < fields; ++f) {
            Kokkos::deep_copy(space, Kokkos::subview(array, s * fields + f, Kokkos::ALL, Kokkos::ALL),
                              Kokkos::subview(array, last * fields + f, Kokkos::ALL, Kokkos::ALL));
          }
        }
        slots_[s] = std::move(slots_[last]);
      }
      slots_.pop_back();
    }
  }
  return true;
}

}  // namespace umbriel
