#include "umbriel/inference/convergence_posterior.hpp"

#include <cmath>
#include <limits>

#include "umbriel/maps/spin2.hpp"

namespace umbriel {
namespace {

// Every kernel below treats chains [first, first + n) of the state; scratch maps start at 0.

/// spectra <- scale D state: gamma1, gamma2 of each chain (and the convergence itself for reduced shear).
void apply_spin2(const Space& space, Grid grid, int first, int n, int fields, int maps, const SpectrumBatch& state,
                 const SpectrumBatch& spectra) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(grid.pixels()));
  const bool with_convergence = maps == 3;
  if (fields == 1) {
    for_each_element(
        "umbriel::apply_spin2", space, n, grid.height, grid.half_width(), KOKKOS_LAMBDA(int chain, int ky, int kx) {
          const Spin2 d = spin2(grid, ky, kx);
          const Complex e = state(first + chain, ky, kx);
          const float re = scale * e.real(), im = scale * e.imag();
          spectra(maps * chain, ky, kx) = Complex(d.d1 * re, d.d1 * im);
          spectra(maps * chain + 1, ky, kx) = Complex(d.d2 * re, d.d2 * im);
          if (with_convergence) spectra(maps * chain + 2, ky, kx) = Complex(re, im);
        });
  } else {
    for_each_element(
        "umbriel::apply_spin2_eb", space, n, grid.height, grid.half_width(), KOKKOS_LAMBDA(int chain, int ky, int kx) {
          const Spin2 d = spin2(grid, ky, kx);
          const Complex e = state(2 * (first + chain), ky, kx), b = state(2 * (first + chain) + 1, ky, kx);
          const float er = scale * e.real(), ei = scale * e.imag(), br = scale * b.real(), bi = scale * b.imag();
          spectra(maps * chain, ky, kx) = Complex(d.d1 * er - d.d2 * br, d.d1 * ei - d.d2 * bi);
          spectra(maps * chain + 1, ky, kx) = Complex(d.d2 * er + d.d1 * br, d.d2 * ei + d.d1 * bi);
          if (with_convergence) spectra(maps * chain + 2, ky, kx) = Complex(er, ei);
        });
  }
}

/// maps <- W (data - model), and chi^2 a chain. `data_factor` 0 leaves the data out (curvature).
void weigh_residual(const Space& space, Grid grid, int first, int n, float data_factor, const MapBatch& data,
                    const MapBatch& variance, const View1<float>& sigma, const MapBatch& maps, const SumWorkspace& sums,
                    const View1<double>& chi2) {
  sum_each_map(
      "umbriel::weigh_residual", space, n, grid.height, grid.width, sums, chi2,
      KOKKOS_LAMBDA(int chain, int y, int x) {
        const float temperature = sigma(first + chain) * sigma(first + chain);
        const float w1 = 1.0f / (variance(0, y, x) + temperature);
        const float w2 = 1.0f / (variance(1, y, x) + temperature);
        const float r1 = data_factor * data(0, y, x) - maps(2 * chain, y, x);
        const float r2 = data_factor * data(1, y, x) - maps(2 * chain + 1, y, x);
        maps(2 * chain, y, x) = w1 * r1;
        maps(2 * chain + 1, y, x) = w2 * r2;
        return w1 * r1 * r1 + w2 * r2 * r2;
      });
}

/// The same for g = gamma / (1 - kappa): maps hold gamma1, gamma2, kappa, and afterwards the derivatives of
/// -chi^2 / 2 by each of the three.
void weigh_reduced_residual(const Space& space, Grid grid, int first, int n, const MapBatch& data,
                            const MapBatch& variance, const View1<float>& sigma, const MapBatch& maps,
                            const SumWorkspace& sums, const View1<double>& chi2) {
  sum_each_map(
      "umbriel::weigh_reduced_residual", space, n, grid.height, grid.width, sums, chi2,
      KOKKOS_LAMBDA(int chain, int y, int x) {
        const float temperature = sigma(first + chain) * sigma(first + chain);
        const float w1 = 1.0f / (variance(0, y, x) + temperature);
        const float w2 = 1.0f / (variance(1, y, x) + temperature);
        const float u = 1.0f / (1.0f - maps(3 * chain + 2, y, x));
        const float g1 = maps(3 * chain, y, x) * u, g2 = maps(3 * chain + 1, y, x) * u;
        const float r1 = data(0, y, x) - g1, r2 = data(1, y, x) - g2;
        const float s1 = w1 * r1 * u, s2 = w2 * r2 * u;
        maps(3 * chain, y, x) = s1;
        maps(3 * chain + 1, y, x) = s2;
        maps(3 * chain + 2, y, x) = s1 * g1 + s2 * g2;
        return w1 * r1 * r1 + w2 * r2 * r2;
      });
}

/// out <- scale D^T spectra - prior_factor state / (P + sigma^2); `prior` sums |a|^2 / (P + sigma^2) a chain.
void adjoint_and_prior(const Space& space, Grid grid, int first, int n, int fields, int maps, float sign,
                       float prior_factor, const View2<float>& power, const View1<float>& sigma,
                       const SpectrumBatch& spectra, const SpectrumBatch& state, const SpectrumBatch& out,
                       const SumWorkspace& sums, const View1<double>& prior) {
  const float scale = sign / std::sqrt(static_cast<float>(grid.pixels()));
  const bool with_convergence = maps == 3;
  const bool with_prior = prior_factor != 0.0f;  // without it the state may be memory never set
  sum_each_map(
      "umbriel::adjoint_and_prior", space, n, grid.height, grid.half_width(), sums, prior,
      KOKKOS_LAMBDA(int chain, int ky, int kx) {
        const float temperature = sigma(first + chain) * sigma(first + chain);
        const float p = power(ky, kx);
        const float free = p > 0.0f ? 1.0f : 0.0f;  // pinned modes feel no force
        const float precision = free / (p > 0.0f ? p + temperature : 1.0f);
        const Spin2 d = spin2(grid, ky, kx);
        const Complex g1 = spectra(maps * chain, ky, kx), g2 = spectra(maps * chain + 1, ky, kx);
        float er = d.d1 * g1.real() + d.d2 * g2.real(), ei = d.d1 * g1.imag() + d.d2 * g2.imag();
        if (with_convergence) {
          er += spectra(maps * chain + 2, ky, kx).real();
          ei += spectra(maps * chain + 2, ky, kx).imag();
        }
        const int e_map = fields * (first + chain);
        const Complex e = with_prior ? state(e_map, ky, kx) : Complex(0.0f, 0.0f);
        out(e_map, ky, kx) = Complex(free * scale * er - prior_factor * precision * e.real(),
                                     free * scale * ei - prior_factor * precision * e.imag());
        float square = e.real() * e.real() + e.imag() * e.imag();
        if (fields == 2) {
          const Complex b = with_prior ? state(e_map + 1, ky, kx) : Complex(0.0f, 0.0f);
          const float br = d.d1 * g2.real() - d.d2 * g1.real(), bi = d.d1 * g2.imag() - d.d2 * g1.imag();
          out(e_map + 1, ky, kx) = Complex(free * scale * br - prior_factor * precision * b.real(),
                                           free * scale * bi - prior_factor * precision * b.imag());
          square += b.real() * b.real() + b.imag() * b.imag();
        }
        return mode_weight(grid, kx) * precision * square;
      });
}

}  // namespace

ConvergencePosterior::ConvergencePosterior(const Survey& survey, const HostView2<float>& power, ForwardModel model,
                                           int max_chains)
    : grid_(survey.grid),
      model_(model),
      fft_(survey.grid),
      at_once_(runs_on_host ? 1 : max_chains),
      host_variance_("umbriel::variance", 2, survey.grid.height, survey.grid.width) {
  require(static_cast<int>(power.extent(0)) == grid_.height && static_cast<int>(power.extent(1)) == grid_.half_width(),
          ExitCode::usage, "the prior power does not belong to the survey's grid");
  power_ = on_device(power);
  for (int c = 0; c < 2; ++c) {
    for (int y = 0; y < grid_.height; ++y) {
      for (int x = 0; x < grid_.width; ++x) {
        const float noise = survey.noise(c, y, x);
        host_variance_(c, y, x) = survey.mask(0, y, x) > 0 ? noise * noise : std::numeric_limits<float>::infinity();
      }
    }
  }
  variance_ = on_device(host_variance_);
  data_ = on_device(survey.shear);
  const int maps = maps_a_chain() * at_once_;
  scratch_.spectra = SpectrumBatch("umbriel::posterior_spectra", maps, grid_.height, grid_.half_width());
  scratch_.maps = MapBatch("umbriel::posterior_maps", maps, grid_.height, grid_.width);
  scratch_.sums = SumWorkspace(at_once_, grid_.height);
  scratch_.chi2 = View1<double>("umbriel::chi2", at_once_);
  scratch_.prior = View1<double>("umbriel::log_prior", at_once_);
}

void ConvergencePosterior::evaluate(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                                    const SpectrumBatch& score, const View1<double>& log_density) const {
  const int maps = maps_a_chain();
  const View1<double> chi2 = scratch_.chi2, prior = scratch_.prior;
  for (int first = 0; first < n; first += at_once_) {
    const int m = std::min(at_once_, n - first);
    apply_spin2(space, grid_, first, m, fields(), maps, state, scratch_.spectra);
    fft_.inverse(space, scratch_.spectra, scratch_.maps, maps * m);
    if (model_.reduced_shear) {
      weigh_reduced_residual(space, grid_, first, m, data_, variance_, sigma, scratch_.maps, scratch_.sums, chi2);
    } else {
      weigh_residual(space, grid_, first, m, 1.0f, data_, variance_, sigma, scratch_.maps, scratch_.sums, chi2);
    }
    fft_.forward(space, scratch_.maps, scratch_.spectra, maps * m);
    adjoint_and_prior(space, grid_, first, m, fields(), maps, 1.0f, 1.0f, power_, sigma, scratch_.spectra, state, score,
                      scratch_.sums, prior);
    Kokkos::parallel_for(
        "umbriel::log_density", Kokkos::RangePolicy<Space>(space, 0, m),
        KOKKOS_LAMBDA(int chain) { log_density(first + chain) = -0.5 * (chi2(chain) + prior(chain)); });
  }
}

void ConvergencePosterior::apply_curvature(const Space& space, int n, const SpectrumBatch& state,
                                           const SpectrumBatch& out) const {
  require(!model_.reduced_shear, ExitCode::usage, "the curvature is constant only without reduced shear");
  const View1<float> cold("umbriel::cold", n);
  for (int first = 0; first < n; first += at_once_) {
    const int m = std::min(at_once_, n - first);
    apply_spin2(space, grid_, first, m, fields(), 2, state, scratch_.spectra);
    fft_.inverse(space, scratch_.spectra, scratch_.maps, 2 * m);
    weigh_residual(space, grid_, first, m, 0.0f, data_, variance_, cold, scratch_.maps, scratch_.sums, scratch_.chi2);
    fft_.forward(space, scratch_.maps, scratch_.spectra, 2 * m);
    adjoint_and_prior(space, grid_, first, m, fields(), 2, -1.0f, -1.0f, power_, cold, scratch_.spectra, state, out,
                      scratch_.sums, scratch_.prior);
  }
}

void ConvergencePosterior::adjoint(const Space& space, int n, const MapBatch& shear, const SpectrumBatch& out) const {
  const View1<float> cold("umbriel::cold", n);
  for (int first = 0; first < n; first += at_once_) {
    const int m = std::min(at_once_, n - first);
    const auto part = Kokkos::subview(shear, std::make_pair(2 * first, 2 * (first + m)), Kokkos::ALL, Kokkos::ALL);
    fft_.forward(space, part, scratch_.spectra, 2 * m);
    adjoint_and_prior(space, grid_, first, m, fields(), 2, 1.0f, 0.0f, power_, cold, scratch_.spectra, out, out,
                      scratch_.sums, scratch_.prior);
  }
}

void ConvergencePosterior::forward(const Space& space, int n, const SpectrumBatch& state, const MapBatch& shear) const {
  for (int first = 0; first < n; first += at_once_) {
    const int m = std::min(at_once_, n - first);
    apply_spin2(space, grid_, first, m, fields(), 2, state, scratch_.spectra);
    const auto part = Kokkos::subview(shear, std::make_pair(2 * first, 2 * (first + m)), Kokkos::ALL, Kokkos::ALL);
    fft_.inverse(space, scratch_.spectra, part, 2 * m);
  }
}

float ConvergencePosterior::precision(float sigma) const {
  const auto found = precision_.find(sigma);
  if (found != precision_.end()) return found->second;
  double sum = 0;
  for (int c = 0; c < 2; ++c) {
    for (int y = 0; y < grid_.height; ++y) {
      for (int x = 0; x < grid_.width; ++x) sum += 1.0 / (static_cast<double>(host_variance_(c, y, x)) + static_cast<double>(sigma) * sigma);
    }
  }
  const auto mean = static_cast<float>(sum / (2.0 * static_cast<double>(grid_.pixels())));
  precision_[sigma] = mean;
  return mean;
}

}  // namespace umbriel
