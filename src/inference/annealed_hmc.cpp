#include "umbriel/inference/annealed_hmc.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>

#include "umbriel/inference/spectra.hpp"

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

/// Takes states from temperature t0 = from^2 to t1 = sigma^2. The score is that of the Gaussian prior, -x / (P + t),
/// plus that of the likelihood, l, plus the residual r of a learned prior. With s = sqrt(P + t), u = x / s obeys
///   du/ds = -(side l + r),
/// so the flow of the Gaussian prior is exact. l and s^2 r change least along the way; they are taken as lines in s
/// through this evaluation and the last (`before`), a multistep method of second order at one evaluation a step (for
/// r with P = 0, that of Lu et al. 2022, arXiv 2211.01095). The first step has no last evaluation: before = 0, and they
/// are constant. With q = s1 / s0 and d = 1 / (s_before - s0) this is
///   x <- q x + q s0^2 (1 - q) [side l + 1/2 (1 - q) s0 d side (l - l_before)]
///          + (1 - q) s0^2 r + (1 - q + q log q) s0 d (s0^2 r - s_before^2 r_before).
/// Denoising is a step of the whole, x <- x + t0 (-x / (P + t0) + side l + r).
struct Flow {
  View2<float> power;
  View1<float> from, sigma, before;  // a slot
  float side;
  bool denoise;

  /// x <- keep x + now f + last f_before, of the likelihood's score or the residual.
  struct Step {
    float keep, now, last;
  };
  KOKKOS_INLINE_FUNCTION float spring(int slot, int ky, int kx) const {
    const float p = power(ky, kx);
    return p > 0.0f ? 1.0f / (p + from(slot) * from(slot)) : 0.0f;
  }
  KOKKOS_INLINE_FUNCTION Step likelihood(int slot, int ky, int kx) const {
    const float p = power(ky, kx);
    if (!(p > 0.0f)) return {0.0f, 0.0f, 0.0f};
    if (denoise) return {p * spring(slot, ky, kx), side * from(slot) * from(slot), 0.0f};
    const Stretch way(p, from(slot), sigma(slot), before(slot));
    const float now = side * (1.0f - way.fall) * way.start * way.start * way.fall;
    return {1.0f - way.fall, now * (1.0f + 0.5f * way.fall * way.reach), -now * 0.5f * way.fall * way.reach};
  }
  KOKKOS_INLINE_FUNCTION Step residual(int slot, int ky, int kx) const {
    const float p = power(ky, kx);
    if (!(p > 0.0f)) return {1.0f, 0.0f, 0.0f};
    if (denoise) return {1.0f, from(slot) * from(slot), 0.0f};
    const Stretch way(p, from(slot), sigma(slot), before(slot));
    const float d = way.fall;  // d + (1 - d) log(1 - d), by its series where that would cancel
    const float bend =
        d < 0.03f ? d * d * (0.5f + d * (1.0f / 6 + d / 12)) : d + (d < 1.0f ? (1.0f - d) * math::log(1.0f - d) : 0.0f);
    return {1.0f, way.start * way.start * (d + bend * way.reach),
            -(p + before(slot) * before(slot)) * bend * way.reach};
  }

 private:
  /// From s0 = `start` to s1: fall = 1 - s1 / s0, reach = s0 / (s_before - s0), without cancellation where P >> t.
  struct Stretch {
    float start, fall, reach;

    KOKKOS_INLINE_FUNCTION Stretch(float p, float from, float to, float before) {
      const float t0 = from * from, t1 = to * to, t2 = before * before;
      start = math::sqrt(p + t0);
      fall = (t0 - t1) / (start * (start + math::sqrt(p + t1)));
      reach = before > 0.0f ? start * (math::sqrt(p + t2) + start) / (t2 - t0) : 0.0f;
    }
  };
};

/// The part of the exact score, from `score` = -x / (P + t0) + l; last <- l.
void follow_flow(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const Flow& flow,
                 const SpectrumBatch& score, const SpectrumBatch& last, const SpectrumBatch& state) {
  for_each_element(
      "umbriel::follow_flow", space, n * fields, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(int map, int ky, int kx) {
        const int slot = list(map / fields);
        const int at = slot * fields + map % fields;
        const Flow::Step step = flow.likelihood(slot, ky, kx);
        const float spring = flow.spring(slot, ky, kx);
        const Complex g = score(at, ky, kx), x = state(at, ky, kx), l0 = last(at, ky, kx);
        const Complex l(g.real() + spring * x.real(), g.imag() + spring * x.imag());
        last(at, ky, kx) = l;
        state(at, ky, kx) = Complex(step.keep * x.real() + step.now * l.real() + step.last * l0.real(),
                                    step.keep * x.imag() + step.now * l.imag() + step.last * l0.imag());
      });
}

// Kernels of the learned residual, which knows the first field of each slot alone: its arrays hold one map a slot.

/// to(slot) <- to + factor(slot) residual, on first fields: a kick of momenta, or a step of states.
void add_residual(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const View1<float>& factor,
                  const SpectrumBatch& residual, const SpectrumBatch& to) {
  for_each_element(
      "umbriel::add_residual", space, n, grid.height, grid.half_width(), KOKKOS_LAMBDA(int i, int ky, int kx) {
        const int slot = list(i);
        const Complex r = residual(slot, ky, kx), x = to(slot * fields, ky, kx);
        to(slot * fields, ky, kx) = Complex(x.real() + factor(slot) * r.real(), x.imag() + factor(slot) * r.imag());
      });
}

/// The part of the residual in a step of the flow; last <- r.
void follow_residual(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const Flow& flow,
                     const SpectrumBatch& residual, const SpectrumBatch& last, const SpectrumBatch& state) {
  for_each_element(
      "umbriel::follow_residual", space, n, grid.height, grid.half_width(), KOKKOS_LAMBDA(int i, int ky, int kx) {
        const int slot = list(i);
        const Flow::Step step = flow.residual(slot, ky, kx);
        const Complex r = residual(slot, ky, kx), r0 = last(slot, ky, kx), x = state(slot * fields, ky, kx);
        last(slot, ky, kx) = r;
        state(slot * fields, ky, kx) = Complex(x.real() + step.now * r.real() + step.last * r0.real(),
                                               x.imag() + step.now * r.imag() + step.last * r0.imag());
      });
}

/// point(slot) <- first field of the state, or of the point at `fraction` < 1 of the way to it from the saved state.
void gather_points(const Space& space, Grid grid, int n, int fields, const View1<float>& fraction,
                   const SpectrumBatch& state, const SpectrumBatch& saved, const SpectrumBatch& point) {
  for_each_element(
      "umbriel::gather_points", space, n, grid.height, grid.half_width(), KOKKOS_LAMBDA(int slot, int ky, int kx) {
        const float t = fraction(slot);
        const Complex b = state(slot * fields, ky, kx);
        if (t < 1.0f) {
          const Complex a = saved(slot * fields, ky, kx);
          point(slot, ky, kx) = Complex(a.real() + t * (b.real() - a.real()), a.imag() + t * (b.imag() - a.imag()));
        } else {
          point(slot, ky, kx) = b;
        }
      });
}

/// What a residual just evaluated is for, and what take_answers sums up.
enum Role : int {
  role_score = 0,  // the residual at the state: |r|^2, to tell that it is finite
  role_step = 1,   // the same at the end of an integrator step: its work since the last, 1/2 <r_old + r, x - x_old>
  role_path = 2    // at a point of the path from the saved state: <r, x - x_saved>
};

void take_answers(const Space& space, Grid grid, int n, int fields, const View1<int>& role, const SpectrumBatch& answer,
                  const SpectrumBatch& state, const SpectrumBatch& saved, const SpectrumBatch& residual,
                  const SpectrumBatch& anchor, const SumWorkspace& sums, const View1<double>& out) {
  sum_each_map(
      "umbriel::take_answers", space, n, grid.height, grid.half_width(), sums, out,
      KOKKOS_LAMBDA(int slot, int ky, int kx) {
        const Complex r = answer(slot, ky, kx), x = state(slot * fields, ky, kx);
        const float weight = mode_weight(grid, kx);
        if (role(slot) == role_path) {
          const Complex x0 = saved(slot * fields, ky, kx);
          return weight * (r.real() * (x.real() - x0.real()) + r.imag() * (x.imag() - x0.imag()));
        }
        const Complex r0 = residual(slot, ky, kx), x0 = anchor(slot, ky, kx);
        residual(slot, ky, kx) = r;
        anchor(slot, ky, kx) = x;
        if (role(slot) == role_score) return weight * (r.real() * r.real() + r.imag() * r.imag());
        return weight * 0.5f *
               ((r0.real() + r.real()) * (x.real() - x0.real()) + (r0.imag() + r.imag()) * (x.imag() - x0.imag()));
      });
}

/// out(i) = <r + r_saved, x - x_saved> of listed slot i: what the ends of a path add to Simpson's rule.
void chord_work(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const SpectrumBatch& residual,
                const SpectrumBatch& saved_residual, const SpectrumBatch& state, const SpectrumBatch& saved,
                const SumWorkspace& sums, const View1<double>& out) {
  sum_each_map(
      "umbriel::chord_work", space, n, grid.height, grid.half_width(), sums, out, KOKKOS_LAMBDA(int i, int ky, int kx) {
        const int slot = list(i);
        const Complex r = residual(slot, ky, kx), r0 = saved_residual(slot, ky, kx);
        const Complex x = state(slot * fields, ky, kx), x0 = saved(slot * fields, ky, kx);
        return mode_weight(grid, kx) *
               ((r0.real() + r.real()) * (x.real() - x0.real()) + (r0.imag() + r.imag()) * (x.imag() - x0.imag()));
      });
}

/// anchor(slot) <- first field of listed slots.
void set_anchors(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const SpectrumBatch& state,
                 const SpectrumBatch& anchor) {
  for_each_element(
      "umbriel::set_anchors", space, n, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(int i, int ky, int kx) { anchor(list(i), ky, kx) = state(list(i) * fields, ky, kx); });
}

/// mean(slot) <- mean + share E[field | state], the latter state + sigma^2 (-state / (P + sigma^2) + residual).
void add_means(const Space& space, Grid grid, int n, int fields, const View1<int>& list, const View2<float>& power,
               const View1<float>& sigma, float share, const SpectrumBatch& state, const SpectrumBatch& residual,
               const SpectrumBatch& mean) {
  const bool learned = residual.size() > 0;
  for_each_element(
      "umbriel::add_means", space, n * fields, grid.height, grid.half_width(), KOKKOS_LAMBDA(int map, int ky, int kx) {
        const int slot = list(map / fields), field = map % fields;
        const float p = power(ky, kx), t = sigma(slot) * sigma(slot);
        const float keep = p > 0.0f ? share * p / (p + t) : 0.0f;
        const Complex x = state(slot * fields + field, ky, kx), m = mean(slot * fields + field, ky, kx);
        float re = m.real() + keep * x.real(), im = m.imag() + keep * x.imag();
        if (learned && field == 0) {
          const Complex r = residual(slot, ky, kx);
          re += share * t * r.real();
          im += share * t * r.imag();
        }
        mean(slot * fields + field, ky, kx) = Complex(re, im);
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

/// The maps of a slot in an array that holds so many a slot.
SpectrumBatch maps_of_slot(const SpectrumBatch& array, int slot, int maps) {
  return Kokkos::subview(array, std::make_pair(slot * maps, (slot + 1) * maps), Kokkos::ALL, Kokkos::ALL);
}

double uniform_draw(const HmcOptions& options, Purpose purpose, std::int64_t chain, int step, int element) {
  return uniform({options.seed, purpose, static_cast<std::uint32_t>(chain), static_cast<std::uint32_t>(step)},
                 static_cast<std::uint64_t>(element));
}

}  // namespace

double HmcOptions::first_step_factor(double pixels) const {
  return std::min(std::pow(64.0 * 64.0 / pixels, 0.25), 1.0);
}

double HmcOptions::expected_evaluations(double learned_pixels) const {
  const bool learned = learned_pixels > 0;
  if (mode == Mode::paper) {
    const double a_step = paper_leapfrogs + (learned ? 3 : 0), a_test = learned ? 5 : 2;
    return paper_steps * a_step + 1.1 * a_test * 239 + paper_ode_steps;
  }
  const double coolings = temperatures - (sigma_final == sigma_end && !sharpen ? 1 : 0);
  const double shorter = learned ? first_step_factor(learned_pixels) : 1;
  const double a_trajectory = mode == Mode::langevin ? 1 : (min_steps + max_steps) / shorter;
  return 1 + coolings + trajectories() * a_trajectory + (finish == Finish::ode ? ode_steps - 1 : 0);
}

HmcOptions HmcOptions::for_residual(double sigma_min, double sharpest, double pixels) const {
  HmcOptions options = *this;
  options.temperatures = 3;
  // On larger maps chains begin with shorter steps, and need the longer to fit them and to arrive.
  options.settling = static_cast<int>(std::ceil(3 / first_step_factor(pixels)));
  options.tail = 3;
  options.sigma_end = options.sigma_final = std::max(sigma_min, std::min(0.1, 0.95 * sharpest));
  options.sharpen = options.sigma_final <= sharpest;
  options.finish = Finish::ode;
  options.ode_steps = 24;
  options.ode_end = std::max(sigma_min, 1e-3);
  options.paper_ode_end = std::max(1e-5, sigma_min * sigma_min);
  return options;
}

HmcOptions HmcOptions::for_langevin() const {
  HmcOptions options = *this;
  options.mode = Mode::langevin;
  options.trajectories_a_temperature = 10;
  options.settling = 40;
  options.trajectories_a_tail = 10;
  options.step = 0.3;
  return options;
}

HmcOptions HmcOptions::for_probability_flow() const {
  HmcOptions options = *this;
  options.ode_end = std::max(1e-3, sigma_final);
  options.sigma_end = options.sigma_final = options.sigma_start;
  options.temperatures = 1;
  options.settling = 4;
  options.tail = 1;
  options.sharpen = true;
  options.finish = Finish::ode;
  options.ode_steps = 32;
  return options;
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
  bool sharp = false;                   // the likelihood's noise is less, not more, by sigma^2
  bool cooled = false;                  // the temperature has just been lowered: the state is to follow
  float flow_from = 0;                  // temperature from which the flow takes the state to sigma
  float flow_before = 0;                // temperature of the evaluation before that, 0: none
  double step = 0;                      // between two evaluations of the whole score, of the current trajectory
  double step_factor = 1;               // adapted while annealing, from this chain's own acceptances
  double log_density = 0, kinetic = 0;  // log-density: of the exact part
  double previous_log_density = 0;
  double work = 0;     // of the residual since the trajectory began
  int path_point = 0;  // "paper" with a residual: fourths of the straight path
  double path_sum = 0;
  int tested = 0, accepted = 0;  // Metropolis tests
  int steps_here = 0;            // "paper": steps at this temperature
  float proposed_sigma = 0;      // "paper": temperature under test
  double path_old = 0, path_new = 0;
  int ode_step = 0;
  double ode_factor = 0;
  ChainResult result;

  float temperature() const { return sharp ? -sigma : sigma; }  // as LogDensity takes it

  /// Calls f with each number of a chain's state, in an order that checkpoints keep.
  template <class F>
  void each_number(const F& f) {
    f(chain), f(phase), f(trajectory), f(leap), f(leaps), f(sigma), f(precision), f(sharp), f(cooled);
    f(flow_before), f(step), f(step_factor), f(log_density), f(kinetic), f(previous_log_density), f(work);
    f(path_point), f(path_sum), f(tested), f(accepted), f(steps_here), f(proposed_sigma), f(path_old), f(path_new);
    f(ode_step), f(ode_factor);
    f(result.diverged), f(result.energy_error), f(result.score_evaluations), f(result.density_evaluations);
  }

  /// Takes over a state of as many numbers. @return false if one of them is not what that member can be
  bool take(const ChainState& state) {
    bool sound = true;
    auto next = state.numbers.begin();
    each_number([&](auto& value) {
      using T = std::decay_t<decltype(value)>;
      const double number = *next++;
      if constexpr (!std::is_floating_point_v<T>) {
        double low = -1, high = 9007199254740992.0;  // 2^53
        if constexpr (std::is_same_v<T, int>) high = INT_MAX;
        if constexpr (std::is_same_v<T, bool>) low = 0, high = 1;
        if constexpr (std::is_same_v<T, Phase>) low = 0, high = static_cast<double>(Phase::ode);
        sound = sound && number >= low && number <= high && number == std::floor(number);
      } else if constexpr (std::is_same_v<T, float>) {  // temperatures
        sound = sound && number >= 0 && number <= std::numeric_limits<float>::max();
      }
      if (sound) value = static_cast<T>(number);
    });
    result.chain = chain;
    result.trace_sigma = state.trace_sigma;
    result.trace_log_density = state.trace_log_density;
    result.tail = state.tail;
    return sound && chain == state.chain;
  }
};

AnnealedHmc::AnnealedHmc(const LogDensity& density, const RealFft& fft, const SpectrumBatch& start_mean,
                         HmcOptions options, const ScoreResidual* residual)
    : density_(density),
      fft_(fft),
      residual_(residual),
      start_mean_(start_mean),
      options_(options),
      drifts_(residual != nullptr && options.mode == HmcOptions::Mode::preconditioned ? 2 * options.inner_steps : 1) {
  require(options.batch > 0 && options.tail > 0 && options.temperatures > 0 && options.min_steps > 0 &&
              options.max_steps >= options.min_steps && options.trajectories_a_temperature > 0 &&
              options.trajectories_a_tail > 0 && options.inner_steps > 0 && options.ode_steps > 0,
          ExitCode::usage, "sampler options must be positive", "[sampler]");
  require(options.tail * options.tail_every() <= options.trajectories(), ExitCode::usage,
          "the tail is longer than the run", "sampler.tail", "shorten it or take more steps");
  require(!options.sharpened() || options.sigma_final <= static_cast<double>(density.sharpest()), ExitCode::usage,
          std::string("sigma_final is above what the noise allows, ").append(std::to_string(density.sharpest())),
          "sampler.sigma_end", "choose a smaller one, or floor the noise map");
  if (residual != nullptr) {
    const bool paper = options.mode == HmcOptions::Mode::paper;
    double coldest = paper ? std::min(options.paper_floor, std::sqrt(options.paper_ode_end))
                           : std::min(options.sigma_end, options.sigma_final);
    if (!paper && options.finish == HmcOptions::Finish::ode && options.ode_steps > 1)
      coldest = std::min(coldest, options.ode_end);
    require(coldest >= 0.9999 * static_cast<double>(residual->sigma_min()), ExitCode::usage,
            std::string("the learned prior knows temperatures from ")
                .append(std::to_string(residual->sigma_min()))
                .append(", the sampler goes down to ")
                .append(std::to_string(coldest)),
            "[sampler]", "stay above, or train for less noise");
  }
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
  if (options.sharpened()) mean_ = spectra("umbriel::hmc_mean");
  if (residual != nullptr) {
    const auto first_fields = [&](const std::string& label) {
      return SpectrumBatch(label, options.batch, grid.height, grid.half_width());
    };
    learned_ = first_fields("umbriel::hmc_residual");
    saved_learned_ = first_fields("umbriel::hmc_saved_residual");
    anchor_ = first_fields("umbriel::hmc_anchor");
    point_ = first_fields("umbriel::hmc_point");
    answer_ = first_fields("umbriel::hmc_answer");
  }
  maps_ = MapBatch("umbriel::hmc_maps", maps, grid.height, grid.width);
  sigma_ = View1<float>("umbriel::hmc_sigma", options.batch);
  precision_ = View1<float>("umbriel::hmc_precision", options.batch);
  kick_ = View1<float>("umbriel::hmc_kick", options.batch);
  turn_ = View1<float>("umbriel::hmc_turn", options.batch);
  drift_ = View1<float>("umbriel::hmc_drift", options.batch);
  pull_ = View1<float>("umbriel::hmc_pull", options.batch);
  list_ = View1<int>("umbriel::hmc_list", options.batch);
  role_ = View1<int>("umbriel::hmc_role", options.batch);
  log_density_ = View1<double>("umbriel::hmc_log_density", options.batch);
  sums_out_ = View1<double>("umbriel::hmc_sums", maps * monitored_blocks * monitored_blocks);
  sums_ = SumWorkspace(maps, grid.height);
}

AnnealedHmc::~AnnealedHmc() = default;

void AnnealedHmc::set_sigma(Slot& slot, float sigma) {
  slot.sigma = sigma;
  slot.precision = static_cast<float>(options_.mass_precision) * density_.precision(slot.temperature());
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
    if (residual_ != nullptr && options_.mode == HmcOptions::Mode::preconditioned)
      slot.step_factor = options_.first_step_factor(static_cast<double>(density_.grid().pixels()));
    const auto superchain = static_cast<std::uint32_t>(chain / options_.chains_a_superchain);
    for (int f = 0; f < fields; ++f)
      keys.push_back({options_.seed, Purpose::chain_start, superchain, static_cast<std::uint32_t>(f)});
  }
  upload(slots, list_);
  white_noise(space, fft_, keys, maps_, scratch_);
  const double start = paper ? options_.paper_start : options_.sigma_start;
  start_states(space, density_.grid(), static_cast<int>(slots.size()), fields, list_, density_.prior_power(),
               static_cast<float>(start * start), paper ? 0.0f : 1.0f, start_mean_, scratch_, state_);
  if (!options_.sharpened()) return;
  for (const int s : slots) Kokkos::deep_copy(space, maps_of_slot(mean_, s, fields), Complex(0, 0));
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
    } else if (options_.mode == HmcOptions::Mode::langevin) {
      const double jitter = uniform_draw(options_, Purpose::trajectory, slot.chain, slot.trajectory, 0);
      slot.step = options_.step * slot.step_factor * (0.8 + 0.4 * jitter);
      slot.leaps = 1;
    } else {
      const double jitter = uniform_draw(options_, Purpose::trajectory, slot.chain, slot.trajectory, 0);
      const double length = uniform_draw(options_, Purpose::trajectory, slot.chain, slot.trajectory, 1);
      slot.step = 0.5 * options_.step * slot.step_factor * (0.8 + 0.4 * jitter);  // a drift is half a step
      const int steps = options_.min_steps + static_cast<int>(length * (options_.max_steps - options_.min_steps + 1));
      // Where a residual shortens the step, more of them cover the same way.
      slot.leaps = 2 * (residual_ == nullptr ? steps : static_cast<int>(std::ceil(steps / slot.step_factor)));
    }
    slot.previous_log_density = slot.log_density;
    slot.work = 0;
    slot.flow_before = 0;  // trajectories lie between this evaluation and the next
    for (int f = 0; f < fields; ++f)
      keys.push_back({options_.seed, Purpose::momentum, static_cast<std::uint32_t>(slot.chain),
                      static_cast<std::uint32_t>(slot.trajectory * fields + f)});
  }
  upload(slots, list_);
  std::vector<float> sigma(slots_.size()), precision(slots_.size());
  for (std::size_t s = 0; s < slots_.size(); ++s) {
    sigma[s] = slots_[s].temperature();
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
  if (residual_ == nullptr) return;
  copy_slots(space, density_.grid(), n, 1, list_, learned_, saved_learned_);
  set_anchors(space, density_.grid(), n, fields, list_, state_, anchor_);
}

/// One drift of every slot that is in a trajectory, number `drift` since the last evaluation of the whole score.
void AnnealedHmc::move(const Space& space, int drift) {
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  const bool leapfrog = options_.mode != HmcOptions::Mode::preconditioned;
  const int n = static_cast<int>(slots_.size());
  std::vector<float> kick(n, 0.0f), turn(n, 0.0f), along(n, 0.0f), pull(n, 0.0f), sigma(n), precision(n);
  std::vector<float> learned_kick(n, 0.0f);
  std::vector<int> moving;
  for (int s = 0; s < n; ++s) {
    const Slot& slot = slots_[s];
    sigma[s] = slot.temperature();
    precision[s] = slot.precision;
    if (slot.phase != Phase::leap) continue;
    const double length = slot.step / drifts_;
    kick[s] = static_cast<float>(kick_before(slot.leap * drifts_ + drift, leapfrog) * length);
    learned_kick[s] = static_cast<float>(kick_before(slot.leap, leapfrog) * slot.step);
    turn[s] = paper ? 1.0f : static_cast<float>(std::cos(length));
    along[s] = static_cast<float>(paper ? length : std::sin(length));
    pull[s] = paper ? 0.0f : along[s];
    moving.push_back(s);
  }
  upload(sigma, sigma_);
  upload(precision, precision_);
  if (moving.empty()) return;
  upload(moving, list_);
  if (residual_ != nullptr && drift == 0) {
    upload(learned_kick, kick_);
    add_residual(space, density_.grid(), static_cast<int>(moving.size()), density_.fields(), list_, kick_, learned_,
                 momentum_);
  }
  upload(kick, kick_);
  upload(turn, turn_);
  upload(along, drift_);
  upload(pull, pull_);
  kick_and_drift(space, density_.grid(), static_cast<int>(moving.size()), density_.fields(), list_,
                 Mass{density_.prior_power(), sigma_, precision_, paper},
                 {kick_, turn_, drift_, pull_, paper ? 0.0f : 1.0f}, score_, momentum_, state_);
}

/// Evaluates the residual where each slot needs it: all of them at once.
AnnealedHmc::Answers AnnealedHmc::ask_residual(const Space& space) {
  Answers answers{std::vector<double>(slots_.size(), 0.0), std::vector<double>(slots_.size(), 0.0)};
  if (residual_ == nullptr) return answers;
  const Grid grid = density_.grid();
  const int fields = density_.fields();
  const int n = static_cast<int>(slots_.size());
  std::vector<float> fraction(n, 1.0f);
  std::vector<int> role(n, role_score), chords;
  for (int s = 0; s < n; ++s) {
    const Slot& slot = slots_[s];
    if (slot.phase == Phase::path || slot.phase == Phase::temper_path) {
      fraction[s] = 0.25f * static_cast<float>(slot.path_point);
      role[s] = role_path;
    } else if (slot.phase == Phase::leap && options_.mode == HmcOptions::Mode::preconditioned) {
      role[s] = role_step;
    }
    if ((slot.phase == Phase::path && slot.path_point == 3) || slot.phase == Phase::temper_old) chords.push_back(s);
  }
  std::vector<float> sigma(n);
  for (int s = 0; s < n; ++s) sigma[s] = slots_[s].sigma;
  upload(fraction, kick_);
  upload(sigma, turn_);
  upload(role, role_);
  gather_points(space, grid, n, fields, kick_, state_, saved_state_, point_);
  residual_->evaluate(space, n, point_, turn_, answer_);
  take_answers(space, grid, n, fields, role_, answer_, state_, saved_state_, learned_, anchor_, sums_, sums_out_);
  answers.sum = download(sums_out_, slots_.size());
  if (!chords.empty()) {
    upload(chords, list_);
    chord_work(space, grid, static_cast<int>(chords.size()), fields, list_, learned_, saved_learned_, state_,
               saved_state_, sums_, sums_out_);
    const std::vector<double> work = download(sums_out_, chords.size());
    for (std::size_t i = 0; i < chords.size(); ++i) answers.chord[static_cast<std::size_t>(chords[i])] = work[i];
  }
  return answers;
}

void AnnealedHmc::end_trajectories(const Space& space, const std::vector<int>& slots) {
  if (slots.empty()) return;
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  const bool langevin = options_.mode == HmcOptions::Mode::langevin;
  const int fields = density_.fields();
  const int n = static_cast<int>(slots.size());
  std::vector<float> kick(slots_.size(), 0.0f);
  upload(slots, list_);
  if (residual_ != nullptr) {
    for (const int s : slots) kick[s] = static_cast<float>(last_kick_share(paper) * slots_[s].step);
    upload(kick, kick_);
    add_residual(space, density_.grid(), n, fields, list_, kick_, learned_, momentum_);
  }
  for (const int s : slots) kick[s] = static_cast<float>(last_kick_share(paper) * slots_[s].step / drifts_);
  upload(kick, kick_);
  last_kick(space, density_.grid(), n, fields, list_, Mass{density_.prior_power(), sigma_, precision_, paper},
            {kick_, turn_, drift_, pull_, paper ? 0.0f : 1.0f}, score_, state_, momentum_, sums_, sums_out_);
  const std::vector<double> squares = download(sums_out_, static_cast<std::size_t>(n) * fields);
  const double least_step =
      options_.least_step * options_.first_step_factor(static_cast<double>(density_.grid().pixels()));
  std::vector<int> rejected;
  for (int i = 0; i < n; ++i) {
    Slot& slot = slots_[slots[i]];
    double kinetic = 0;
    for (int f = 0; f < fields; ++f) kinetic += 0.5 * squares[i * fields + f];
    const double change = (slot.log_density + slot.work - kinetic) - (slot.previous_log_density - slot.kinetic);
    const double u = uniform_draw(options_, Purpose::acceptance, slot.chain, slot.trajectory, 0);
    // Cooling is a way to a good start: its moves need no exact test, only energy conserved well enough to be stable.
    const bool cooling = !paper && slot.trajectory < options_.cooling() + options_.settling;
    // With a residual the work is a sum over few points, and a trajectory that runs away may seem to gain energy: its
    // own kinetic energy is then no measure, but how that of a thermal state scatters is.
    const double scatter = std::sqrt(std::min(kinetic, 4 * slot.kinetic));
    const bool conserved =
        residual_ == nullptr ? change > -0.05 * std::max(kinetic, slot.kinetic) : std::fabs(change) < 10 + 2 * scatter;
    const bool stable = langevin || conserved;
    const bool tested = paper || (!cooling && !langevin && options_.metropolis);
    const bool sane = residual_ == nullptr || std::fabs(change) < 10 + 0.5 * std::min(kinetic, slot.kinetic);
    const bool accepted = std::isfinite(change) && (tested ? sane && std::log(u) < change : stable);
    if (cooling && residual_ != nullptr && !langevin) {
      const double probability = std::isfinite(change) ? std::min(1.0, std::exp(change)) : 0;
      slot.step_factor =
          std::clamp(slot.step_factor * std::exp(0.5 * (probability - options_.target_acceptance)), least_step, 1.0);
    }
    if (!cooling) {
      ++slot.tested;
      slot.accepted += accepted ? 1 : 0;
      if (std::isfinite(change)) slot.result.energy_error = std::max(slot.result.energy_error, std::fabs(change));
    }
    if (!accepted) {
      slot.log_density = slot.previous_log_density;
      slot.work = 0;
      rejected.push_back(slots[i]);
    }
    after_trajectory(slot, accepted);
  }
  upload(rejected, list_);
  copy_slots(space, density_.grid(), static_cast<int>(rejected.size()), fields, list_, saved_state_, state_);
  copy_slots(space, density_.grid(), static_cast<int>(rejected.size()), fields, list_, saved_score_, score_);
  if (residual_ != nullptr)
    copy_slots(space, density_.grid(), static_cast<int>(rejected.size()), 1, list_, saved_learned_, learned_);
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
      slot.path_old = slot.log_density - slot.previous_log_density + slot.work;
    } else {
      slot.phase = Phase::leap;
    }
    return;
  }
  slot.phase = Phase::leap;
  if (slot.trajectory < options_.cooling()) {
    const bool fitted = residual_ != nullptr && options_.mode == HmcOptions::Mode::preconditioned;
    if (!fitted) slot.step_factor = std::min(1.0, slot.step_factor * (accepted ? 1.1 : 0.7));
    if (slot.trajectory % options_.trajectories_a_temperature != 0) return;
    const int level = slot.trajectory / options_.trajectories_a_temperature;
    const double fraction = static_cast<double>(level) / std::max(1, options_.temperatures - 1);
    slot.cooled = fitted;
    slot.flow_from = slot.sigma;
    set_sigma(slot,
              static_cast<float>(options_.sigma_start * std::pow(options_.sigma_end / options_.sigma_start, fraction)));
    slot.phase = Phase::evaluate;
  } else if (slot.trajectory == options_.cooling()) {
    slot.sharp = options_.sharpen;
    if (!slot.sharp && slot.sigma == static_cast<float>(options_.sigma_final)) return;
    set_sigma(slot, static_cast<float>(options_.sigma_final));
    slot.phase = Phase::evaluate;
  }
}

/// Takes the states of slots from temperature flow_from to sigma, by the flow or by denoising.
void AnnealedHmc::flow(const Space& space, const std::vector<int>& slots, float side, bool denoise) {
  if (slots.empty()) return;
  const Grid grid = density_.grid();
  const int fields = density_.fields();
  const int n = static_cast<int>(slots.size());
  std::vector<float> from(slots_.size(), 0.0f), to(slots_.size(), 0.0f), before(slots_.size(), 0.0f);
  for (const int s : slots) {
    from[s] = slots_[s].flow_from;
    to[s] = slots_[s].sigma;
    before[s] = slots_[s].flow_before;
    slots_[s].flow_before = slots_[s].flow_from;
  }
  upload(slots, list_);
  upload(from, turn_);
  upload(to, drift_);
  upload(before, pull_);
  const Flow step{density_.prior_power(), turn_, drift_, pull_, side, denoise};
  follow_flow(space, grid, n, fields, list_, step, score_, saved_score_, state_);
  if (residual_ != nullptr) follow_residual(space, grid, n, fields, list_, step, learned_, saved_learned_, state_);
}

/// Of the n slots in list_, whose scores are at hand.
void AnnealedHmc::add_to_means(const Space& space, int n) {
  std::vector<float> sigma(slots_.size());
  for (std::size_t s = 0; s < slots_.size(); ++s) sigma[s] = slots_[s].sigma;
  upload(sigma, turn_);
  add_means(space, density_.grid(), n, density_.fields(), list_, density_.prior_power(), turn_,
            1.0f / static_cast<float>(options_.tail), state_, learned_, mean_);
}

void AnnealedHmc::record_tail(const Space& space, const std::vector<int>& slots) {
  if (slots.empty()) return;
  const Grid grid = density_.grid();
  const int fields = density_.fields();
  const int n = static_cast<int>(slots.size());
  constexpr int blocks = monitored_blocks * monitored_blocks;
  upload(slots, list_);
  if (options_.sharpened()) add_to_means(space, n);
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
  const std::size_t size = static_cast<std::size_t>(fields) * grid.pixels();
  const auto take = [&](const SpectrumBatch& spectra, std::vector<float> ChainResult::*maps) {
    gather_slots(space, grid, n, fields, list_, spectra, scratch_);
    to_maps(space, fft_, n * fields, scratch_, scratch_, maps_);
    const auto host = on_host(maps_);
    for (int i = 0; i < n; ++i) {
      const float* first = host.data() + static_cast<std::size_t>(i) * size;
      (slots_[slots[i]].result.*maps).assign(first, first + size);
    }
  };
  take(state_, &ChainResult::sample);
  if (options_.sharpened()) take(mean_, &ChainResult::mean);
  for (int i = 0; i < n; ++i) {
    Slot& slot = slots_[slots[i]];
    ChainResult& result = slot.result;
    for (const auto* maps : {&result.sample, &result.mean})
      result.diverged =
          result.diverged || !std::all_of(maps->begin(), maps->end(), [](float v) { return std::isfinite(v); });
    if (result.diverged) {
      for (auto* maps : {&result.sample, &result.mean})
        std::fill(maps->begin(), maps->end(), std::numeric_limits<float>::quiet_NaN());
    }
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

void AnnealedHmc::add(std::vector<ChainState> states) {
  for (ChainState& state : states) {
    require(state.numbers.size() == state_numbers() && state.arrays.size() == state_floats(), ExitCode::input,
            "the state of chain " + std::to_string(state.chain) + " is that of another kind of run", "",
            "remove the checkpoint to start anew");
    require(Slot().take(state) && state.trace_sigma.size() <= static_cast<std::size_t>(options_.trace_length()) &&
                state.trace_log_density.size() <= static_cast<std::size_t>(options_.trace_length()) &&
                state.tail.size() <= static_cast<std::size_t>(options_.tail) * monitored_quantities,
            ExitCode::input, "the state of chain " + std::to_string(state.chain) + " cannot be one", "",
            "remove the checkpoint to start anew");
    resumed_.push_back(std::move(state));
  }
}

std::size_t AnnealedHmc::state_numbers() {
  std::size_t n = 0;
  Slot().each_number([&](auto&) { ++n; });
  return n;
}

std::size_t AnnealedHmc::state_floats() const {
  std::size_t n = 0;
  for (const auto& [array, maps] : arrays_of_a_state())
    n += static_cast<std::size_t>(maps) * 2 * static_cast<std::size_t>(density_.grid().modes());
  return n;
}

/// The arrays that outlive an evaluation, and how many of their maps belong to a slot.
std::vector<std::pair<SpectrumBatch, int>> AnnealedHmc::arrays_of_a_state() const {
  std::vector<std::pair<SpectrumBatch, int>> arrays;
  for (const SpectrumBatch& array : {state_, momentum_, score_, saved_state_, saved_score_})
    arrays.emplace_back(array, density_.fields());
  if (options_.sharpened()) arrays.emplace_back(mean_, density_.fields());
  if (residual_ != nullptr) {
    for (const SpectrumBatch& array : {learned_, saved_learned_, anchor_}) arrays.emplace_back(array, 1);
  }
  return arrays;
}

std::vector<ChainState> AnnealedHmc::states() const {
  std::vector<ChainState> states(resumed_.begin(), resumed_.end());
  for (std::size_t s = 0; s < slots_.size(); ++s) {
    Slot slot = slots_[s];
    ChainState& state = states.emplace_back();
    state.chain = slot.chain;
    slot.each_number([&](auto& number) { state.numbers.push_back(static_cast<double>(number)); });
    for (const auto& [array, maps] : arrays_of_a_state()) {
      const auto host = on_host(maps_of_slot(array, static_cast<int>(s), maps));
      const auto* first = reinterpret_cast<const float*>(host.data());
      state.arrays.insert(state.arrays.end(), first, first + 2 * host.size());
    }
    state.trace_sigma = std::move(slot.result.trace_sigma);
    state.trace_log_density = std::move(slot.result.trace_log_density);
    state.tail = std::move(slot.result.tail);
  }
  return states;
}

void AnnealedHmc::restore(int s, const ChainState& state) {
  Slot& slot = slots_[static_cast<std::size_t>(s)];
  slot = Slot{};
  slot.take(state);
  const float* values = state.arrays.data();
  for (const auto& [array, maps] : arrays_of_a_state()) {
    const SpectrumBatch to = maps_of_slot(array, s, maps);
    const Kokkos::View<const Complex***, Kokkos::LayoutRight, HostMemory, Kokkos::MemoryUnmanaged> from(
        reinterpret_cast<const Complex*>(values), to.extent(0), to.extent(1), to.extent(2));
    Kokkos::deep_copy(to, from);
    values += 2 * to.size();
  }
}

/// Gives a free place to a chain that waits; `fresh` are places of chains that have to begin.
void AnnealedHmc::fill_place(int s, std::vector<int>& fresh) {
  if (!resumed_.empty()) {
    restore(s, resumed_.front());
    resumed_.pop_front();
  } else {
    slots_[static_cast<std::size_t>(s)].chain = waiting_.front();
    waiting_.pop_front();
    fresh.push_back(s);
  }
}

bool AnnealedHmc::run(const Space& space, const std::function<void(ChainResult&&)>& finished,
                      const std::function<void(double)>& advanced, const std::function<bool()>& stop) {
  const bool paper = options_.mode == HmcOptions::Mode::paper;
  const Grid grid = density_.grid();
  const int fields = density_.fields();
  const int tail_begins = options_.trajectories() - options_.tail * options_.tail_every();
  std::vector<int> fresh;
  while (static_cast<int>(slots_.size()) < options_.batch && !(waiting_.empty() && resumed_.empty())) {
    slots_.emplace_back();
    fill_place(static_cast<int>(slots_.size()) - 1, fresh);
  }
  begin_chains(space, fresh);

  while (!slots_.empty()) {
    if (stop()) return false;
    for (int drift = 0; drift < drifts_; ++drift) {
      move(space, drift);
      density_.evaluate(space, static_cast<int>(slots_.size()), state_, sigma_, score_, log_density_);
    }
    const std::vector<double> values = download(log_density_, slots_.size());
    const Answers answers = ask_residual(space);

    std::vector<int> ended, begin, old_paths, swap_back, ode, flowing, recorded, done;
    double progress = 0;
    for (int s = 0; s < static_cast<int>(slots_.size()); ++s) {
      Slot& slot = slots_[s];
      ++slot.result.score_evaluations;
      slot.result.density_evaluations += drifts_;
      const double answer = answers.sum[s], chord = answers.chord[s];
      const bool finite = std::isfinite(values[s]) && std::isfinite(answer);
      switch (slot.phase) {
        case Phase::evaluate:
          slot.log_density = values[s];
          if (finite) {
            begin.push_back(s);
          } else {  // the current state itself is lost: nothing to go back to
            slot.result.diverged = true;
            done.push_back(s);
          }
          break;
        case Phase::leap:
          slot.log_density = values[s];
          if (!finite) slot.work = std::numeric_limits<double>::quiet_NaN();
          if (options_.mode == HmcOptions::Mode::preconditioned) slot.work += answer;
          if (++slot.leap < slot.leaps && finite) break;
          if (paper && residual_ != nullptr && finite) {
            slot.phase = Phase::path;
            slot.path_point = 1;
            slot.path_sum = 0;
          } else {
            ended.push_back(s);
          }
          break;
        case Phase::path:
          slot.path_sum += (slot.path_point == 2 ? 2 : 4) * answer;
          if (++slot.path_point < 4) break;
          slot.work = (chord + slot.path_sum) / 12;
          ended.push_back(s);
          break;
        case Phase::temper_new:
          slot.path_new = values[s];
          if (residual_ != nullptr) {
            slot.phase = Phase::temper_path;
            slot.path_point = 1;
            slot.path_sum = 0;
          } else {
            slot.phase = Phase::temper_old;
            old_paths.push_back(s);
          }
          break;
        case Phase::temper_path:
          slot.path_sum += (slot.path_point == 2 ? 2 : 4) * answer;
          if (++slot.path_point < 4) break;
          slot.phase = Phase::temper_old;
          old_paths.push_back(s);
          break;
        case Phase::temper_old: {
          double new_path = slot.path_new - values[s];
          if (residual_ != nullptr) new_path += (slot.path_sum - chord) / 12;  // the path's ends have changed places
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
        if (paper || (slot.sigma > 0 && options_.finish != HmcOptions::Finish::none)) {
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

    // A network knows fields with the noise of their temperature. Where that is lowered the prior's flow takes the
    // noise off, as far as the score just evaluated says; trajectories do the rest.
    std::vector<int> cooled;
    for (const int s : ended) {
      if (slots_[s].cooled) cooled.push_back(s);
      slots_[s].cooled = false;
    }
    flow(space, cooled, 0.0f, false);

    // "paper": the start of the last trajectory takes the state's place for one evaluation at the cooler temperature.
    std::vector<int> swaps = old_paths;
    swaps.insert(swaps.end(), swap_back.begin(), swap_back.end());
    if (!swaps.empty()) {
      upload(swaps, list_);
      swap_slots(space, grid, static_cast<int>(swaps.size()), fields, list_, state_, saved_state_);
      swap_slots(space, grid, static_cast<int>(swaps.size()), fields, list_, score_, saved_score_);
      if (residual_ != nullptr)
        swap_slots(space, grid, static_cast<int>(swaps.size()), 1, list_, learned_, saved_learned_);
    }

    // The last steps, from sigma_final (or the floor of "paper" mode) towards 0.
    std::vector<float> factor(slots_.size(), 0.0f);
    std::vector<int> plain;
    for (const int s : ode) {
      Slot& slot = slots_[s];
      const double t = static_cast<double>(slot.sigma) * slot.sigma;
      if (paper) {  // Euler steps in equal ratios of t = sigma^2
        if (slot.ode_step == 0) slot.ode_factor = std::pow(options_.paper_ode_end / t, 1.0 / options_.paper_ode_steps);
        if (slot.ode_step == options_.paper_ode_steps || t <= options_.paper_ode_end) {
          done.push_back(s);
          continue;
        }
        factor[s] = static_cast<float>(0.5 * t * (1 - slot.ode_factor));
        set_sigma(slot, static_cast<float>(std::sqrt(t * slot.ode_factor)));
        ++slot.ode_step;
        plain.push_back(s);
      } else {
        slot.flow_from = slot.sigma;
        flowing.push_back(s);
        if (options_.finish == HmcOptions::Finish::denoise || ++slot.ode_step == options_.ode_steps) {
          set_sigma(slot, 0.0f);
          done.push_back(s);
        } else {
          const double fraction = static_cast<double>(slot.ode_step) / (options_.ode_steps - 1);
          set_sigma(slot, static_cast<float>(options_.sigma_final *
                                             std::pow(options_.ode_end / options_.sigma_final, fraction)));
        }
      }
    }
    if (!plain.empty()) {
      upload(factor, kick_);
      upload(plain, list_);
      add_score(space, grid, static_cast<int>(plain.size()), fields, list_, kick_, score_, state_);
      if (residual_ != nullptr)
        add_residual(space, grid, static_cast<int>(plain.size()), fields, list_, kick_, learned_, state_);
    }
    const bool denoise = options_.finish == HmcOptions::Finish::denoise;
    flow(space, flowing, !options_.sharpen ? 1.0f : denoise ? 0.0f : -1.0f, denoise);

    begin_trajectories(space, begin);
    finish_chains(space, done, finished);
    if (progress > 0) advanced(progress);

    // Waiting chains take the places of finished ones; then the last slots fill what gaps remain.
    fresh.clear();
    for (const int s : done) {
      if (waiting_.empty() && resumed_.empty()) break;
      fill_place(s, fresh);
    }
    begin_chains(space, fresh);
    for (int s = static_cast<int>(slots_.size()) - 1; s >= 0; --s) {
      if (slots_[s].chain >= 0) continue;
      const int last = static_cast<int>(slots_.size()) - 1;
      if (s != last) {
        for (const auto& [array, maps] : arrays_of_a_state())
          Kokkos::deep_copy(space, maps_of_slot(array, s, maps), maps_of_slot(array, last, maps));
        slots_[s] = std::move(slots_[last]);
      }
      slots_.pop_back();
    }
  }
  return true;
}

}  // namespace umbriel
