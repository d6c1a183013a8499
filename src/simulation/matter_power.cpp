#include "umbriel/simulation/matter_power.hpp"

#include <cmath>
#include <numbers>
#include <string>

#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

constexpr double pi = std::numbers::pi;
constexpr double cmb_temperature = 2.7255;  // K; Fixsen 2009, ApJ 707, 916

// Grid of the variance integrals. The filter ends them at 1/R, so that k_max serves radii down to min_radius.
constexpr double log_k_min = -13.8;  // k = 1e-6 h/Mpc
constexpr double log_k_max = 13.8;
constexpr int k_steps = 5520;
constexpr double min_radius = 1e-5, max_radius = 1e3;  // Mpc/h

double square(double x) { return x * x; }
double cube(double x) { return x * x * x; }

/// Window of a sphere in Fourier space, 3 (sin x - x cos x) / x^3.
double top_hat(double x) {
  if (x < 1e-2) return 1 - x * x / 10;
  return 3 * (std::sin(x) - x * std::cos(x)) / cube(x);
}

/// Eisenstein & Hu 1998, eqs. 19 and 20, with q of eq. 10.
double pressureless_transfer(double q, double alpha, double beta) {
  const double logarithm = std::log(std::numbers::e + 1.8 * beta * q);
  const double c = 14.2 / alpha + 386 / (1 + 69.9 * std::pow(q, 1.08));
  return logarithm / (logarithm + c * q * q);
}

}  // namespace

MatterPower::MatterPower(const Cosmology& cosmology) : cosmology_(cosmology) {
  cosmology.check();
  // Equation numbers are of Eisenstein & Hu 1998.
  const double matter = cosmology.omega_m * square(cosmology.h);
  const double baryons = cosmology.omega_b * square(cosmology.h);
  const double baryon_fraction = cosmology.omega_b / cosmology.omega_m;
  const double theta = cmb_temperature / 2.7;

  const double z_equality = 2.5e4 * matter / std::pow(theta, 4);  // 2
  k_equality_ = 7.46e-2 * matter / square(theta);                 // 3
  const double drag_b1 = 0.313 * std::pow(matter, -0.419) * (1 + 0.607 * std::pow(matter, 0.674));
  const double drag_b2 = 0.238 * std::pow(matter, 0.223);
  const double z_drag = 1291 * std::pow(matter, 0.251) / (1 + 0.659 * std::pow(matter, 0.828)) *
                        (1 + drag_b1 * std::pow(baryons, drag_b2));                                     // 4
  const auto momentum_ratio = [&](double z) { return 31.5 * baryons / std::pow(theta, 4) * 1e3 / z; };  // 5
  const double r_drag = momentum_ratio(z_drag), r_equality = momentum_ratio(z_equality);
  const double sound_ratio = (std::sqrt(1 + r_drag) + std::sqrt(r_drag + r_equality)) / (1 + std::sqrt(r_equality));
  sound_horizon_ = 2 / (3 * k_equality_) * std::sqrt(6 / r_equality) * std::log(sound_ratio);               // 6
  k_silk_ = 1.6 * std::pow(baryons, 0.52) * std::pow(matter, 0.73) * (1 + std::pow(10.4 * matter, -0.95));  // 7

  const double a1 = std::pow(46.9 * matter, 0.670) * (1 + std::pow(32.1 * matter, -0.532));
  const double a2 = std::pow(12.0 * matter, 0.424) * (1 + std::pow(45.0 * matter, -0.582));
  alpha_c_ = std::pow(a1, -baryon_fraction) * std::pow(a2, -cube(baryon_fraction));  // 11
  const double b1 = 0.944 / (1 + std::pow(458 * matter, -0.708));
  const double b2 = std::pow(0.395 * matter, -0.0266);
  beta_c_ = 1 / (1 + b1 * (std::pow(1 - baryon_fraction, b2) - 1));  // 12

  const double y = (1 + z_equality) / (1 + z_drag);
  const double root = std::sqrt(1 + y);
  const double g = y * (-6 * root + (2 + 3 * y) * std::log((root + 1) / (root - 1)));                  // 15
  alpha_b_ = 2.07 * k_equality_ * sound_horizon_ * std::pow(1 + r_drag, -0.75) * g;                    // 14
  beta_node_ = 8.41 * std::pow(matter, 0.435);                                                         // 23
  beta_b_ = 0.5 + baryon_fraction + (3 - 2 * baryon_fraction) * std::sqrt(square(17.2 * matter) + 1);  // 24

  k_.resize(k_steps + 1);
  power_.resize(k_steps + 1);
  for (int i = 0; i <= k_steps; ++i) k_[i] = std::exp(log_k_min + (log_k_max - log_k_min) * i / k_steps);
  const auto tabulate = [this] {
    for (int i = 0; i <= k_steps; ++i) power_[i] = cube(k_[i]) * linear_today(k_[i]) / (2 * square(pi));
  };
  tabulate();
  amplitude_ = square(cosmology.sigma_8 / sigma(8));
  tabulate();
}

double MatterPower::transfer(double k) const {
  const double k_mpc = k * cosmology_.h;
  const double q = k_mpc / (13.41 * k_equality_);  // 10
  const double ks = k_mpc * sound_horizon_;
  const double baryon_fraction = cosmology_.omega_b / cosmology_.omega_m;

  const double f = 1 / (1 + std::pow(ks / 5.4, 4));  // 18
  const double cold =
      f * pressureless_transfer(q, 1, beta_c_) + (1 - f) * pressureless_transfer(q, alpha_c_, beta_c_);  // 17

  const double phase = ks / std::cbrt(1 + cube(beta_node_ / ks));  // k times eq. 22
  const double oscillation = phase < 1e-4 ? 1 : std::sin(phase) / phase;
  const double baryonic = (pressureless_transfer(q, 1, 1) / (1 + square(ks / 5.2)) +
                           alpha_b_ / (1 + cube(beta_b_ / ks)) * std::exp(-std::pow(k_mpc / k_silk_, 1.4))) *
                          oscillation;                               // 21
  return baryon_fraction * baryonic + (1 - baryon_fraction) * cold;  // 16
}

double MatterPower::linear_today(double k) const {
  return amplitude_ * std::pow(k, cosmology_.n_s) * square(transfer(k));
}

double MatterPower::linear(double k, double z) const {
  require(std::isfinite(k) && k > 0, ExitCode::usage, "wavenumber " + std::to_string(k) + " is not positive",
          "matter power");
  return square(cosmology_.growth(z)) * linear_today(k);
}

double MatterPower::sigma(double radius) const {
  // The trapezoid rule in ln k converges fast here: the integrand falls to zero at both ends.
  double sum = 0;
  for (std::size_t i = 0; i < k_.size(); ++i) sum += power_[i] * square(top_hat(k_[i] * radius));
  return std::sqrt(sum * (log_k_max - log_k_min) / k_steps);
}

MatterPower::FilteredVariance MatterPower::filtered_variance(double radius) const {
  // Takahashi et al. 2012, eq. A4, differentiated under the integral with x = (kR)^2, dx/dlnR = 2x.
  FilteredVariance sum{0, 0, 0};
  for (std::size_t i = 0; i < k_.size(); ++i) {
    const double x = square(k_[i] * radius);
    if (x > 700) break;
    const double term = power_[i] * std::exp(-x);
    sum.value += term;
    sum.first -= 2 * x * term;
    sum.second += 4 * (x * x - x) * term;
  }
  const double step = (log_k_max - log_k_min) / k_steps;
  return {sum.value * step, sum.first * step, sum.second * step};
}

HalofitParameters MatterPower::halofit(double z) const {
  HalofitParameters p;
  p.growth_squared = square(cosmology_.growth(z));

  // Bisection in ln R: the variance falls monotonically, and twenty digits are not needed of a fit.
  double low = std::log(min_radius), high = std::log(max_radius);
  if (p.growth_squared * filtered_variance(min_radius).value < 1) {
    p.linear = true;
    return p;
  }
  while (high - low > 1e-10) {
    const double middle = 0.5 * (low + high);
    (p.growth_squared * filtered_variance(std::exp(middle)).value > 1 ? low : high) = middle;
  }
  const double radius = std::exp(0.5 * (low + high));
  const FilteredVariance variance = filtered_variance(radius);
  const double slope = variance.first / variance.value;
  p.k_sigma = 1 / radius;
  p.n_eff = -3 - slope;
  p.curvature = square(slope) - variance.second / variance.value;

  const double n = p.n_eff, c = p.curvature;
  const auto power_of_ten = [](double x) { return std::pow(10, x); };
  p.a = power_of_ten(1.5222 + n * (2.8553 + n * (2.3706 + n * (0.9903 + n * 0.2250))) - 0.6038 * c);  // A6
  p.b = power_of_ten(-0.5642 + n * (0.5864 + n * 0.5716) - 1.5474 * c);                               // A7
  p.c = power_of_ten(0.3698 + n * (2.0404 + n * 0.8161) + 0.5869 * c);                                // A8
  p.gamma = 0.1971 - 0.0843 * n + 0.8460 * c;                                                         // A9
  p.alpha = std::abs(6.0835 + n * (1.3373 - n * 0.1959) - 5.5274 * c);                                // A10
  p.beta = 2.0379 + n * (-0.7354 + n * (0.3157 + n * (1.2490 + n * 0.3980))) - 0.1682 * c;            // A11
  p.nu = power_of_ten(5.2105 + 3.6902 * n);                                                           // A13
  const double matter = cosmology_.matter_fraction(z);
  p.f1 = std::pow(matter, -0.0307);
  p.f2 = std::pow(matter, -0.0585);
  p.f3 = std::pow(matter, 0.0743);
  return p;
}

double MatterPower::nonlinear(double k, const HalofitParameters& p) const {
  require(std::isfinite(k) && k > 0, ExitCode::usage, "wavenumber " + std::to_string(k) + " is not positive",
          "matter power");
  const double linear = p.growth_squared * linear_today(k);
  if (p.linear) return linear;
  const double to_dimensionless = cube(k) / (2 * square(pi));
  const double delta = to_dimensionless * linear;
  const double y = k / p.k_sigma;
  // Two-halo term, A2.
  const double quasilinear = delta * std::pow(1 + delta, p.beta) / (1 + p.alpha * delta) * std::exp(-y / 4 - y * y / 8);
  // One-halo term, A3.
  const double one_halo = p.a * std::pow(y, 3 * p.f1) /
                          (1 + p.b * std::pow(y, p.f2) + std::pow(p.c * p.f3 * y, 3 - p.gamma)) /
                          (1 + p.nu / square(y));
  return (quasilinear + one_halo) / to_dimensionless;
}

}  // namespace umbriel
