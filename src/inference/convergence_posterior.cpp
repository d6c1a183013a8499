#include "umbriel/inference/convergence_posterior.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "umbriel/inference/spectra.hpp"
#include "umbriel/maps/spin2.hpp"

namespace umbriel {
namespace {

// Every kernel below treats chains [first, first + n) of the state; scratch maps start at 0.

/// spectra <- scale D state: gamma1, gamma2 of each chain (and the convergence itself for reduced shear).
void apply_spin2(const Space& space, Grid grid, int first, int n, int fields, int maps, const SpectrumBatch& state,
                 const SpectrumBatch& spectra) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(grid.pixels()));
  if (fields == 1) {
    for_each_row(
        "umbriel::apply_spin2", space, n, grid.height, grid.half_width(),
        KOKKOS_LAMBDA(int chain, int ky, int begin, int end) {
          const float* e = row_of(state, first + chain, ky);
          float *g1 = row_to(spectra, maps * chain, ky), *g2 = row_to(spectra, maps * chain + 1, ky);
          UMBRIEL_INDEPENDENT_ITERATIONS
          for (int kx = begin; kx < end; ++kx) {
            const Spin2 d = spin2(grid, ky, kx);
            const float re = scale * e[2 * kx], im = scale * e[2 * kx + 1];
            g1[2 * kx] = d.d1 * re;
            g1[2 * kx + 1] = d.d1 * im;
            g2[2 * kx] = d.d2 * re;
            g2[2 * kx + 1] = d.d2 * im;
          }
        });
  } else {
    for_each_row(
        "umbriel::apply_spin2_eb", space, n, grid.height, grid.half_width(),
        KOKKOS_LAMBDA(int chain, int ky, int begin, int end) {
          const float *e = row_of(state, 2 * (first + chain), ky), *b = row_of(state, 2 * (first + chain) + 1, ky);
          float *g1 = row_to(spectra, maps * chain, ky), *g2 = row_to(spectra, maps * chain + 1, ky);
          UMBRIEL_INDEPENDENT_ITERATIONS
          for (int kx = begin; kx < end; ++kx) {
            const Spin2 d = spin2(grid, ky, kx);
            const float er = scale * e[2 * kx], ei = scale * e[2 * kx + 1];
            const float br = scale * b[2 * kx], bi = scale * b[2 * kx + 1];
            g1[2 * kx] = d.d1 * er - d.d2 * br;
            g1[2 * kx + 1] = d.d1 * ei - d.d2 * bi;
            g2[2 * kx] = d.d2 * er + d.d1 * br;
            g2[2 * kx + 1] = d.d2 * ei + d.d1 * bi;
          }
        });
  }
  if (maps == 3) {
    for_each_row(
        "umbriel::scale_convergence", space, n, grid.height, grid.half_width(),
        KOKKOS_LAMBDA(int chain, int ky, int begin, int end) {
          const float* e = row_of(state, fields * (first + chain), ky);
          float* out = row_to(spectra, maps * chain + 2, ky);
          UMBRIEL_INDEPENDENT_ITERATIONS
          for (int kx = begin; kx < end; ++kx) {
            out[2 * kx] = scale * e[2 * kx];
            out[2 * kx + 1] = scale * e[2 * kx + 1];
          }
        });
  }
}

/// maps <- W (data - model), and chi^2 a chain. `data_factor` 0 leaves the data out (curvature).
void weigh_residual(const Space& space, Grid grid, int first, int n, float data_factor, const MapBatch& data,
                    const MapBatch& variance, const View1<float>& sigma, const MapBatch& maps, const SumWorkspace& sums,
                    const View1<double>& chi2) {
  sum_each_map_by_rows(
      "umbriel::weigh_residual", space, n, grid.height, grid.width, sums, chi2,
      KOKKOS_LAMBDA(int chain, int y, int begin, int end, float* terms) {
        const float s = sigma(first + chain), temperature = s < 0.0f ? -s * s : s * s;
        const float *d1 = &data(0, y, 0), *d2 = &data(1, y, 0), *v1 = &variance(0, y, 0), *v2 = &variance(1, y, 0);
        float *m1 = &maps(2 * chain, y, 0), *m2 = &maps(2 * chain + 1, y, 0);
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int x = begin; x < end; ++x) {
          const float r1 = data_factor * d1[x] - m1[x], r2 = data_factor * d2[x] - m2[x];
          const float s1 = r1 / (v1[x] + temperature), s2 = r2 / (v2[x] + temperature);
          m1[x] = s1;
          m2[x] = s2;
          terms[x - begin] = s1 * r1 + s2 * r2;
        }
      });
}

/// The same for g = gamma / (1 - kappa): maps hold gamma1, gamma2, kappa, and afterwards the derivatives of
/// -chi^2 / 2 by each of the three.
void weigh_reduced_residual(const Space& space, Grid grid, int first, int n, const MapBatch& data,
                            const MapBatch& variance, const View1<float>& sigma, const MapBatch& maps,
                            const SumWorkspace& sums, const View1<double>& chi2) {
  sum_each_map_by_rows(
      "umbriel::weigh_reduced_residual", space, n, grid.height, grid.width, sums, chi2,
      KOKKOS_LAMBDA(int chain, int y, int begin, int end, float* terms) {
        const float s = sigma(first + chain), temperature = s < 0.0f ? -s * s : s * s;
        const float *d1 = &data(0, y, 0), *d2 = &data(1, y, 0), *v1 = &variance(0, y, 0), *v2 = &variance(1, y, 0);
        float *m1 = &maps(3 * chain, y, 0), *m2 = &maps(3 * chain + 1, y, 0), *kappa = &maps(3 * chain + 2, y, 0);
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int x = begin; x < end; ++x) {
          const float u = 1.0f / (1.0f - kappa[x]);
          const float g1 = m1[x] * u, g2 = m2[x] * u;
          const float r1 = d1[x] - g1, r2 = d2[x] - g2;
          const float s1 = r1 / (v1[x] + temperature), s2 = r2 / (v2[x] + temperature);
          m1[x] = s1 * u;
          m2[x] = s2 * u;
          kappa[x] = u * (s1 * g1 + s2 * g2);
          terms[x - begin] = s1 * r1 + s2 * r2;
        }
      });
}

/// out <- scale D^T spectra - prior_factor state / (P + sigma^2), and |state|^2 / (P + sigma^2) of each field of a
/// chain in `prior`. From gamma1 + i gamma2 = D (E + i B): E = D1 gamma1 + D2 gamma2, B = D1 gamma2 - D2 gamma1.
/// Without the prior the state may be memory never set.
template <bool with_prior>
void adjoint_and_prior(const Space& space, Grid grid, int first, int n, int fields, int maps, float sign,
                       float prior_factor, const View2<float>& power, const View1<float>& sigma,
                       const SpectrumBatch& spectra, const SpectrumBatch& state, const SpectrumBatch& out,
                       const SumWorkspace& sums, const View1<double>& prior) {
  const float scale = sign / std::sqrt(static_cast<float>(grid.pixels()));
  sum_each_map_by_rows(
      "umbriel::adjoint_and_prior", space, n * fields, grid.height, grid.half_width(), sums, prior,
      KOKKOS_LAMBDA(int map, int ky, int begin, int end, float* terms) {
        const int chain = map / fields, is_b = map % fields;
        const float temperature = sigma(first + chain) * sigma(first + chain);
        const float *g1 = row_of(spectra, maps * chain + is_b, ky), *g2 = row_of(spectra, maps * chain + 1 - is_b, ky);
        const float *a = row_of(state, fields * first + map, ky), *p = &power(ky, 0);
        float* to = row_to(out, fields * first + map, ky);
        const float sign2 = is_b ? -1.0f : 1.0f;
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int kx = begin; kx < end; ++kx) {
          const float free = p[kx] > 0.0f ? 1.0f : 0.0f;  // pinned modes feel no force
          const float precision = free / (p[kx] + temperature + (1.0f - free));
          const Spin2 d = spin2(grid, ky, kx);
          const float d2 = sign2 * d.d2, ar = with_prior ? a[2 * kx] : 0.0f, ai = with_prior ? a[2 * kx + 1] : 0.0f;
          const float pull = prior_factor * precision, keep = free * scale;
          to[2 * kx] = keep * (d.d1 * g1[2 * kx] + d2 * g2[2 * kx]) - pull * ar;
          to[2 * kx + 1] = keep * (d.d1 * g1[2 * kx + 1] + d2 * g2[2 * kx + 1]) - pull * ai;
          terms[kx - begin] = mode_weight(grid, kx) * precision * (ar * ar + ai * ai);
        }
      });
  if (maps < 3) return;
  for_each_row(  // reduced shear depends on the convergence itself, too
      "umbriel::adjoint_of_convergence", space, n, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(int chain, int ky, int begin, int end) {
        const float *kappa = row_of(spectra, 3 * chain + 2, ky), *p = &power(ky, 0);
        float* to = row_to(out, fields * (first + chain), ky);
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int kx = begin; kx < end; ++kx) {
          const float keep = p[kx] > 0.0f ? scale : 0.0f;
          to[2 * kx] += keep * kappa[2 * kx];
          to[2 * kx + 1] += keep * kappa[2 * kx + 1];
        }
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
  const float* variances = host_variance_.data();
  sharpest_ = std::sqrt(0.5f * *std::min_element(variances, variances + host_variance_.size()));
  variance_ = on_device(host_variance_);
  data_ = on_device(survey.shear);
  const int maps = maps_a_chain() * at_once_;
  scratch_.spectra = SpectrumBatch("umbriel::posterior_spectra", maps, grid_.height, grid_.half_width());
  scratch_.maps = MapBatch("umbriel::posterior_maps", maps, grid_.height, grid_.width);
  scratch_.sums = SumWorkspace(fields() * at_once_, grid_.height);
  scratch_.chi2 = View1<double>("umbriel::chi2", at_once_);
  scratch_.prior = View1<double>("umbriel::log_prior", fields() * at_once_);
}

void ConvergencePosterior::evaluate(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                                    const SpectrumBatch& score, const View1<double>& log_density) const {
  const int maps = maps_a_chain(), fields = this->fields();
  const View1<double> chi2 = scratch_.chi2, prior = scratch_.prior;
  for (int first = 0; first < n; first += at_once_) {
    const int m = std::min(at_once_, n - first);
    apply_spin2(space, grid_, first, m, fields, maps, state, scratch_.spectra);
    fft_.inverse(space, scratch_.spectra, scratch_.maps, maps * m);
    if (model_.reduced_shear) {
      weigh_reduced_residual(space, grid_, first, m, data_, variance_, sigma, scratch_.maps, scratch_.sums, chi2);
    } else {
      weigh_residual(space, grid_, first, m, 1.0f, data_, variance_, sigma, scratch_.maps, scratch_.sums, chi2);
    }
    fft_.forward(space, scratch_.maps, scratch_.spectra, maps * m);
    adjoint_and_prior<true>(space, grid_, first, m, fields, maps, 1.0f, 1.0f, power_, sigma, scratch_.spectra, state,
                            score, scratch_.sums, prior);
    Kokkos::parallel_for(
        "umbriel::log_density", Kokkos::RangePolicy<Space>(space, 0, m), KOKKOS_LAMBDA(int chain) {
          double sum = chi2(chain);
          for (int f = 0; f < fields; ++f) sum += prior(fields * chain + f);
          log_density(first + chain) = -0.5 * sum;
        });
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
    adjoint_and_prior<true>(space, grid_, first, m, fields(), 2, -1.0f, -1.0f, power_, cold, scratch_.spectra, state,
                            out, scratch_.sums, scratch_.prior);
  }
}

void ConvergencePosterior::adjoint(const Space& space, int n, const MapBatch& shear, const SpectrumBatch& out) const {
  const View1<float> cold("umbriel::cold", n);
  for (int first = 0; first < n; first += at_once_) {
    const int m = std::min(at_once_, n - first);
    const auto part = Kokkos::subview(shear, std::make_pair(2 * first, 2 * (first + m)), Kokkos::ALL, Kokkos::ALL);
    fft_.forward(space, part, scratch_.spectra, 2 * m);
    adjoint_and_prior<false>(space, grid_, first, m, fields(), 2, 1.0f, 0.0f, power_, cold, scratch_.spectra, out, out,
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
      for (int x = 0; x < grid_.width; ++x)
        sum += 1.0 / (static_cast<double>(host_variance_(c, y, x)) + static_cast<double>(sigma) * std::fabs(sigma));
    }
  }
  const auto mean = static_cast<float>(sum / (2.0 * static_cast<double>(grid_.pixels())));
  precision_[sigma] = mean;
  return mean;
}

}  // namespace umbriel
