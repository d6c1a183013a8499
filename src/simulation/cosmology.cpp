#include "umbriel/simulation/cosmology.hpp"

#include <cmath>
#include <string>

#include "umbriel/core/check.hpp"
#include "umbriel/simulation/quadrature.hpp"

namespace umbriel {
namespace {

void check_range(const char* name, double value, double low, double high) {
  require(std::isfinite(value) && value >= low && value <= high, ExitCode::usage,
          std::string(name) + " = " + std::to_string(value) + " is outside " + std::to_string(low) + " ... " +
              std::to_string(high),
          "cosmology", "give a flat Lambda-CDM cosmology");
}

void check_redshift(double z) {
  require(std::isfinite(z) && z >= 0, ExitCode::usage, "redshift " + std::to_string(z) + " is not a number from 0 on",
          "cosmology");
}

/// Growth of the density contrast, not normalised: (H(a)/H0) times the integral of da / (a H(a)/H0)^3 from 0 to a.
/// With a = u^2 the integrand is u^4 times a smooth function.
double growing_mode(double omega_m, double a) {
  const double omega_l = 1 - omega_m;
  const double integral = integrate(
      [=](double u) {
        const double u2 = u * u;
        const double density = omega_m + omega_l * u2 * u2 * u2;
        return 2 * u2 * u2 / (density * std::sqrt(density));
      },
      0, std::sqrt(a), 16);
  return std::sqrt(omega_m / (a * a * a) + omega_l) * integral;
}

}  // namespace

void Cosmology::check() const {
  // Omega_m = 1 (Einstein-de Sitter) is allowed: tests compare with its closed forms.
  check_range("omega_m", omega_m, 0.05, 1);
  check_range("omega_b", omega_b, 0.001, 0.5);
  check_range("h", h, 0.3, 1.2);
  check_range("n_s", n_s, 0.5, 1.5);
  check_range("sigma_8", sigma_8, 0.1, 2);
  require(omega_b < omega_m, ExitCode::usage, "omega_b is not smaller than omega_m", "cosmology",
          "omega_m counts all matter, baryons among it");
}

double Cosmology::expansion(double z) const {
  check_redshift(z);
  const double a_inverse = 1 + z;
  return std::sqrt(omega_m * a_inverse * a_inverse * a_inverse + 1 - omega_m);
}

double Cosmology::matter_fraction(double z) const {
  const double e = expansion(z);
  const double a_inverse = 1 + z;
  return omega_m * a_inverse * a_inverse * a_inverse / (e * e);
}

double Cosmology::comoving_distance(double z) const {
  check_redshift(z);
  // In ln(1 + z) the integrand stays smooth up to any redshift.
  return hubble_length *
         integrate([this](double x) { return std::exp(x) / expansion(std::expm1(x)); }, 0, std::log1p(z), 16);
}

double Cosmology::growth(double z) const {
  check_redshift(z);
  return growing_mode(omega_m, 1 / (1 + z)) / growing_mode(omega_m, 1);
}

}  // namespace umbriel
