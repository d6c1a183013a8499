#include "umbriel/inference/gaussian_posterior.hpp"

#include <algorithm>
#include <cmath>

#include "umbriel/inference/spectra.hpp"
#include "umbriel/maps/smoothing.hpp"
#include "umbriel/maps/spin2.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

/// A unit of the preconditioner 1/(1/P + w) at a mode; 0 for pinned modes.
KOKKOS_INLINE_FUNCTION float preconditioner(float power, float precision) { return power / (1.0f + power * precision); }

/// out(map) = <r, M^-1 r>.
void preconditioned_norm(const Space& space, Grid grid, int n, const View2<float>& power, float precision,
                         const SpectrumBatch& r, const SumWorkspace& sums, const View1<double>& out) {
  sum_each_map_by_rows(
      "umbriel::preconditioned_norm", space, n, grid.height, grid.half_width(), sums, out,
      KOKKOS_LAMBDA(int map, int ky, int begin, int end, float* terms) {
        const float *a = row_of(r, map, ky), *p = &power(ky, 0);
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int kx = begin; kx < end; ++kx) {
          terms[kx - begin] = mode_weight(grid, kx) * preconditioner(p[kx], precision) *
                              (a[2 * kx] * a[2 * kx] + a[2 * kx + 1] * a[2 * kx + 1]);
        }
      });
}

/// p <- M^-1 r + beta(map) p.
void next_direction(const Space& space, Grid grid, int n, const View2<float>& power, float precision,
                    const View1<float>& beta, const SpectrumBatch& r, const SpectrumBatch& p) {
  for_each_row(
      "umbriel::next_direction", space, n, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(int map, int ky, int begin, int end) {
        const float keep = beta(map);
        const float *a = row_of(r, map, ky), *spread = &power(ky, 0);
        float* to = row_to(p, map, ky);
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int kx = begin; kx < end; ++kx) {
          const float m = preconditioner(spread[kx], precision);
          to[2 * kx] = m * a[2 * kx] + keep * to[2 * kx];
          to[2 * kx + 1] = m * a[2 * kx + 1] + keep * to[2 * kx + 1];
        }
      });
}

/// y <- y + sign * factor(map) x.
void add_scaled(const Space& space, Grid grid, int n, const View1<float>& factor, float sign, const SpectrumBatch& x,
                const SpectrumBatch& y) {
  for_each_row(
      "umbriel::add_scaled", space, n, grid.height, grid.half_width(),
      KOKKOS_LAMBDA(int map, int ky, int begin, int end) {
        const float f = sign * factor(map);
        const float* from = row_of(x, map, ky);
        float* to = row_to(y, map, ky);
        UMBRIEL_INDEPENDENT_ITERATIONS
        for (int kx = begin; kx < end; ++kx) {
          to[2 * kx] += f * from[2 * kx];
          to[2 * kx + 1] += f * from[2 * kx + 1];
        }
      });
}

/// Colours white spectra by the prior: a <- sqrt(P) a.
void colour(const Space& space, Grid grid, int n, const View2<float>& power, const SpectrumBatch& a) {
  for_each_element(
      "umbriel::colour", space, n, grid.height, grid.half_width(), KOKKOS_LAMBDA(int map, int ky, int kx) {
        const float root = math::sqrt(power(ky, kx));
        a(map, ky, kx) = Complex(root * a(map, ky, kx).real(), root * a(map, ky, kx).imag());
      });
}

/// shear <- W (data - shear) - sqrt(W) noise: the weighted residual of a mock observation.
void weigh_mock_residual(const Space& space, Grid grid, int n, const MapBatch& data, const MapBatch& variance,
                         const MapBatch& noise, const MapBatch& shear) {
  for_each_element(
      "umbriel::weigh_mock_residual", space, 2 * n, grid.height, grid.width, KOKKOS_LAMBDA(int map, int y, int x) {
        const float weight = 1.0f / variance(map % 2, y, x);
        shear(map, y, x) = weight * (data(map % 2, y, x) - shear(map, y, x)) - math::sqrt(weight) * noise(map, y, x);
      });
}

void weigh_data(const Space& space, Grid grid, const MapBatch& data, const MapBatch& variance, const MapBatch& out) {
  for_each_element(
      "umbriel::weigh_data", space, 2, grid.height, grid.width,
      KOKKOS_LAMBDA(int map, int y, int x) { out(map, y, x) = data(map, y, x) / variance(map, y, x); });
}

/// E = D1 g1 + D2 g2, B = D1 g2 - D2 g1, in place.
void unshear(const Space& space, Grid grid, const SpectrumBatch& shear) {
  for_each_element(
      "umbriel::unshear", space, 1, grid.height, grid.half_width(), KOKKOS_LAMBDA(int, int ky, int kx) {
        const Spin2 d = spin2(grid, ky, kx);
        const Complex g1 = shear(0, ky, kx), g2 = shear(1, ky, kx);
        shear(0, ky, kx) = Complex(d.d1 * g1.real() + d.d2 * g2.real(), d.d1 * g1.imag() + d.d2 * g2.imag());
        shear(1, ky, kx) = Complex(d.d1 * g2.real() - d.d2 * g1.real(), d.d1 * g2.imag() - d.d2 * g1.imag());
      });
}

void add_spectra(const Space& space, Grid grid, int n, const SpectrumBatch& x, const SpectrumBatch& y) {
  for_each_element(
      "umbriel::add_spectra", space, n, grid.height, grid.half_width(), KOKKOS_LAMBDA(int map, int ky, int kx) {
        const Complex a = x(map, ky, kx), b = y(map, ky, kx);
        y(map, ky, kx) = Complex(a.real() + b.real(), a.imag() + b.imag());
      });
}

}  // namespace

GaussianPosterior::GaussianPosterior(const ConvergencePosterior& posterior, int batch, SolverOptions options)
    : posterior_(posterior), batch_(batch), options_(options) {
  const Grid grid = posterior.grid();
  const int fields = posterior.fields();
  const auto spectra = [&](const std::string& label, int n) {
    return SpectrumBatch(label, n, grid.height, grid.half_width());
  };
  residual_ = spectra("umbriel::residual", batch * fields);
  direction_ = spectra("umbriel::direction", batch * fields);
  product_ = spectra("umbriel::product", batch * fields);
  solution_ = spectra("umbriel::solution", batch * fields);
  prior_part_ = spectra("umbriel::prior_part", batch * fields);
  shear_ = MapBatch("umbriel::mock_shear", 2 * batch, grid.height, grid.width);
  noise_ = MapBatch("umbriel::mock_noise", 2 * batch, grid.height, grid.width);
  sums_ = SumWorkspace(batch * fields, grid.height);
}

void GaussianPosterior::solve(const Space& space, int n, const SpectrumBatch& r, const SpectrumBatch& x) {
  const Grid grid = posterior_.grid();
  const int fields = posterior_.fields();
  const int maps = n * fields;
  const View2<float> power = posterior_.prior_power();
  const float precision = posterior_.precision(0.0f);
  const View1<double> sums("umbriel::sums", maps);
  const View1<float> factor("umbriel::factor", maps);
  // The fields of one draw are one vector: their sums add up.
  const auto over_fields = [&] {
    const std::vector<double> each = download(sums, maps);
    std::vector<double> total(n, 0);
    for (int i = 0; i < maps; ++i) total[i / fields] += each[i];
    return total;
  };
  const auto set_factor = [&](const std::vector<double>& values) {
    std::vector<float> each(maps);
    for (int i = 0; i < maps; ++i) each[i] = static_cast<float>(values[i / fields]);
    upload(each, factor);
  };

  Kokkos::deep_copy(space, x, Complex(0.0f, 0.0f));
  Kokkos::deep_copy(space, direction_, Complex(0.0f, 0.0f));
  preconditioned_norm(space, grid, maps, power, precision, r, sums_, sums);
  std::vector<double> norm = over_fields();
  const std::vector<double> first = norm;
  std::vector<double> beta(n, 0), alpha(n, 0);
  std::vector<bool> done(n, false);
  for (iterations_ = 0; iterations_ < options_.max_iterations; ++iterations_) {
    bool all_done = true;
    for (int i = 0; i < n; ++i) {
      require(std::isfinite(norm[i]), ExitCode::numerical, "the Wiener solver met a value that is not finite", "",
              "check the noise and shear maps for extreme values");
      done[i] = done[i] || norm[i] <= options_.tolerance * options_.tolerance * first[i];
      all_done = all_done && done[i];
    }
    if (all_done) return;
    set_factor(beta);
    next_direction(space, grid, maps, power, precision, factor, r, direction_);
    posterior_.apply_curvature(space, n, direction_, product_);
    inner_product(space, grid, maps, direction_, product_, sums_, sums);
    const std::vector<double> curvature = over_fields();
    for (int i = 0; i < n; ++i) alpha[i] = done[i] ? 0 : norm[i] / curvature[i];  // a finished map stands still
    set_factor(alpha);
    add_scaled(space, grid, maps, factor, 1.0f, direction_, x);
    add_scaled(space, grid, maps, factor, -1.0f, product_, r);
    preconditioned_norm(space, grid, maps, power, precision, r, sums_, sums);
    const std::vector<double> next = over_fields();
    for (int i = 0; i < n; ++i) beta[i] = done[i] ? 0 : next[i] / norm[i];
    norm = next;
  }
  throw Error(ExitCode::numerical,
              "the Wiener solver did not converge in " + std::to_string(options_.max_iterations) + " iterations", "",
              "the noise map spans too large a range; floor it, or mask its extremes");
}

SpectrumBatch GaussianPosterior::mean(const Space& space) {
  const Grid grid = posterior_.grid();
  const int fields = posterior_.fields();
  weigh_data(space, grid, posterior_.data(), posterior_.variance(), shear_);
  posterior_.adjoint(space, 1, shear_, residual_);
  solve(space, 1, residual_, solution_);
  SpectrumBatch mean("umbriel::wiener_mean", fields, grid.height, grid.half_width());
  Kokkos::deep_copy(space, mean, Kokkos::subview(solution_, std::make_pair(0, fields), Kokkos::ALL, Kokkos::ALL));
  return mean;
}

void GaussianPosterior::draw(const Space& space, std::uint64_t seed, std::uint32_t first, int n, const MapBatch& maps) {
  require(n <= batch_, ExitCode::usage, "more draws asked for than the batch holds");
  const Grid grid = posterior_.grid();
  const int fields = posterior_.fields();
  std::vector<DrawKey> prior_keys, noise_keys;
  for (int i = 0; i < n; ++i) {
    const auto sample = first + static_cast<std::uint32_t>(i);
    for (int f = 0; f < fields; ++f)
      prior_keys.push_back({seed, Purpose::realisation_prior, sample, static_cast<std::uint32_t>(f)});
    for (std::uint32_t c = 0; c < 2; ++c) noise_keys.push_back({seed, Purpose::realisation_noise, sample, c});
  }
  white_noise(space, posterior_.fft(), prior_keys, shear_, prior_part_);
  colour(space, grid, n * fields, posterior_.prior_power(), prior_part_);
  posterior_.forward(space, n, prior_part_, shear_);
  const View1<DrawKey> keys("umbriel::draw_keys", noise_keys.size());
  upload(noise_keys, keys);
  fill_normals(space, noise_, keys, 2 * n);
  weigh_mock_residual(space, grid, n, posterior_.data(), posterior_.variance(), noise_, shear_);
  posterior_.adjoint(space, n, shear_, residual_);
  solve(space, n, residual_, solution_);
  add_spectra(space, grid, n * fields, prior_part_, solution_);
  to_maps(space, posterior_.fft(), n * fields, solution_, residual_, maps);
}

MapBatch kaiser_squires(const Space& space, const Survey& survey, const RealFft& fft, double smoothing_pixels) {
  const Grid grid = survey.grid;
  HostMaps shear("umbriel::masked_shear", 2, grid.height, grid.width);
  for (int c = 0; c < 2; ++c) {
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) shear(c, y, x) = survey.mask(0, y, x) > 0 ? survey.shear(c, y, x) : 0.0f;
    }
  }
  SpectrumBatch spectra("umbriel::kaiser_squires_spectra", 2, grid.height, grid.half_width());
  SpectrumBatch scratch("umbriel::kaiser_squires_scratch", 2, grid.height, grid.half_width());
  MapBatch maps("umbriel::kaiser_squires", 2, grid.height, grid.width);
  to_spectra(space, fft, 2, on_device(shear), spectra);
  unshear(space, grid, spectra);
  if (smoothing_pixels > 0) smooth_spectra(space, grid, spectra, 2, smoothing_pixels);
  to_maps(space, fft, 2, spectra, scratch, maps);
  return maps;
}

}  // namespace umbriel
