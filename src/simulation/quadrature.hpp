/// Gauss-Legendre quadrature for the theory integrals.
#pragma once

#include <array>
#include <utility>

namespace umbriel {

/// Calls f(x, weight) at the nodes of `panels` equal panels of [low, high], eight Gauss-Legendre nodes each
/// (Abramowitz & Stegun 1964, table 25.4): sum weight * g(x) is exact for polynomials of degree 15 in a panel. No error
/// estimate: callers choose a smooth variable.
template <class F>
void for_each_node(double low, double high, int panels, F&& f) {
  constexpr std::array<std::pair<double, double>, 4> node_and_weight = {{{0.183434642495649805, 0.362683783378361983},
                                                                         {0.525532409916328986, 0.313706645877887287},
                                                                         {0.796666477413626740, 0.222381034453374471},
                                                                         {0.960289856497536232, 0.101228536290376259}}};
  const double half = 0.5 * (high - low) / panels;
  for (int panel = 0; panel < panels; ++panel) {
    const double centre = low + (2 * panel + 1) * half;
    for (const auto& [node, weight] : node_and_weight) {
      f(centre - half * node, half * weight);
      f(centre + half * node, half * weight);
    }
  }
}

/// Integral of f over [low, high] by the nodes above.
template <class F>
double integrate(F&& f, double low, double high, int panels) {
  double sum = 0;
  for_each_node(low, high, panels, [&](double x, double weight) { sum += weight * f(x); });
  return sum;
}

}  // namespace umbriel
