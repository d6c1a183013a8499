#include "umbriel/inference/residual_field.hpp"

#include <algorithm>
#include <cmath>

#include "umbriel/fft/filter.hpp"
#include "umbriel/inference/spectra.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

constexpr double tolerance = 1e-4;  // of the preconditioned residual norm, relative to that of the data
constexpr int most_iterations = 1000;

/// to <- factor from
struct Scale {
  MapBatch from, to;
  View2<float> factor;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { to(n, y, x) = factor(y, x) * from(n, y, x); }
};

struct Product {
  MapBatch a, b;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const {
    return static_cast<double>(a(n, y, x)) * static_cast<double>(b(n, y, x));
  }
};

/// to <- from + factor(map) to
struct Turn {
  MapBatch from, to;
  View1<float> factor;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    to(n, y, x) = from(n, y, x) + factor(n) * to(n, y, x);
  }
};

/// x += factor(map) p, r -= factor(map) q
struct Step {
  MapBatch p, q, x, r;
  View1<float> factor;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x_) const {
    x(n, y, x_) += factor(n) * p(n, y, x_);
    r(n, y, x_) -= factor(n) * q(n, y, x_);
  }
};

/// to += factor from
struct Add {
  MapBatch from, to;
  float factor;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { to(n, y, x) += factor * from(n, y, x); }
};

struct Copy {
  MapBatch from, to;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { to(n, y, x) = from(n, y, x); }
};

}  // namespace

ResidualField::ResidualField(const LinearOperator& instrument, Grid grid, double pixel_arcmin,
                             const std::vector<double>& multipole, const std::vector<double>& power, double noise,
                             int batch)
    : instrument_(instrument),
      grid_(grid),
      pixel_arcmin_(pixel_arcmin),
      noise_(noise),
      batch_(batch),
      fft_(grid),
      rho_(grid, pixel_arcmin, multipole, power, batch),
      deviation_("umbriel::residual_deviation", grid.height, grid.width),
      inverse_scale_("umbriel::residual_scale", grid.height, grid.width),
      sums_(batch, grid.height) {
  for (MapBatch* const buffer : {&pulled_, &residual_, &direction_, &product_, &preconditioned_})
    *buffer = MapBatch("umbriel::residual_maps", batch, grid.height, grid.width);
  spectra_ = SpectrumBatch("umbriel::residual_spectra", batch, grid.height, grid.half_width());
  set_deviation(std::vector<float>(static_cast<std::size_t>(grid.pixels()), 1.0f));
}

void ResidualField::set_deviation(const std::vector<float>& deviation) {
  const auto copy_to = [](const View2<float>& to, const std::vector<float>& from) {
    const auto host = Kokkos::create_mirror_view(HostMemory{}, to);
    std::copy(from.begin(), from.end(), host.data());
    Kokkos::deep_copy(to, host);
  };
  h_ = deviation;
  copy_to(deviation_, deviation);
  const auto pixels = static_cast<double>(deviation.size());
  const auto square = [](float h) { return static_cast<double>(h) * static_cast<double>(h); };
  double squares = 0, noise = 0, signal = 0;  // <h^2>, <sigma^2 / D^2>, <h^2 / D^2>
  for (const float h : deviation) squares += square(h) / pixels;
  std::vector<float> inverse;
  for (const float h : deviation) {
    const double scale = square(h) + squares / 4;
    noise += noise_ * noise_ / scale / pixels;
    signal += square(h) / scale / pixels;
    inverse.push_back(static_cast<float>(1 / std::sqrt(scale)));
  }
  copy_to(inverse_scale_, inverse);
  const double radians = pixel_arcmin_ / 60 * std::acos(-1.0) / 180;
  inverse_ = of_modes(grid_, pixel_arcmin_, [&](double l) {
    const double b = instrument_.response(l * radians);
    return 1 / ((noise + signal * b * b * rho_.power_at(l)) * pixels);
  });
}

void ResidualField::apply(const Space& space, int n, const MapBatch& from, const MapBatch& to) {
  instrument_.transpose(space, from, n, pulled_);
  rho_.covary(space, n, pulled_, deviation_, pulled_);
  instrument_.apply(space, pulled_, n, to);
  for_each_element("umbriel::add_noise_variance", space, n, grid_.height, grid_.width,
                   Add{from, to, static_cast<float>(noise_ * noise_)});
}

void ResidualField::precondition(const Space& space, int n, const MapBatch& from, const MapBatch& to) {
  const auto scale = [&](const MapBatch& maps) {
    for_each_element("umbriel::scale_maps", space, n, grid_.height, grid_.width, Scale{maps, to, inverse_scale_});
  };
  scale(from);
  fft_.forward(space, to, spectra_, n);
  for_each_element("umbriel::filter_maps", space, n, grid_.height, grid_.half_width(),
                   FilterSpectra{spectra_, inverse_});
  fft_.inverse(space, spectra_, to, n);
  scale(to);
  instrument_.keep_observed(space, to, n);
}

void ResidualField::solve(const Space& space, int n, const MapBatch& data, const MapBatch& solution) {
  require(n <= batch_, ExitCode::usage, "more maps than the batch holds", "ResidualField::solve");
  const auto maps = static_cast<std::size_t>(n);
  const View1<double> sums("umbriel::sums", maps);
  const View1<float> factor("umbriel::factor", maps);
  const auto dot = [&](const MapBatch& a, const MapBatch& b) {
    sum_each_map("umbriel::dot_of_maps", space, n, grid_.height, grid_.width, sums_, sums, Product{a, b});
    space.fence();
    return download(sums, maps);
  };
  const auto set_factor = [&](const std::vector<double>& values) {
    upload(std::vector<float>(values.begin(), values.end()), factor);
  };
  const auto for_pixels = [&](const char* label, const auto& f) {
    for_each_element(label, space, n, grid_.height, grid_.width, f);
  };

  for_pixels("umbriel::copy_maps", Copy{data, residual_});
  Kokkos::deep_copy(space, solution, 0.0f);
  Kokkos::deep_copy(space, direction_, 0.0f);
  std::vector<double> norm, first, alpha(maps, 0), beta(maps, 0);
  std::vector<bool> done(maps, false);
  for (iterations_ = 0; iterations_ <= most_iterations; ++iterations_) {
    precondition(space, n, residual_, preconditioned_);
    const std::vector<double> next = dot(residual_, preconditioned_);
    if (iterations_ == 0) first = next;
    bool all_done = true;
    for (std::size_t i = 0; i < maps; ++i) {
      beta[i] = iterations_ == 0 || done[i] ? 0 : next[i] / norm[i];
      // Not finite, as at the end of a trajectory that went astray: nothing to be solved.
      done[i] = done[i] || !(next[i] > tolerance * tolerance * first[i]) || !std::isfinite(next[i]);
      all_done = all_done && done[i];
    }
    if (all_done) return;
    norm = next;
    set_factor(beta);
    for_pixels("umbriel::next_direction", Turn{preconditioned_, direction_, factor});
    apply(space, n, direction_, product_);
    const std::vector<double> curvature = dot(direction_, product_);
    for (std::size_t i = 0; i < maps; ++i) alpha[i] = done[i] ? 0 : norm[i] / curvature[i];  // done: stands still
    set_factor(alpha);
    for_pixels("umbriel::solver_step", Step{direction_, product_, solution, residual_, factor});
  }
  throw Error(ExitCode::numerical,
              "the residual's solver did not converge in " + std::to_string(most_iterations) + " iterations", "",
              "give a larger noise: it is far below what the decoder leaves out");
}

void ResidualField::mean(const Space& space, int n, const MapBatch& solution, const MapBatch& mean) {
  instrument_.transpose(space, solution, n, pulled_);
  rho_.covary(space, n, pulled_, deviation_, mean);
}

void ResidualField::simulate(const Space& space, const std::vector<DrawKey>& prior, const std::vector<DrawKey>& noise,
                             const MapBatch& r, const MapBatch& data) {
  const int n = static_cast<int>(prior.size());
  const View1<DrawKey> keys("umbriel::residual_keys", prior.size());
  upload(prior, keys);
  rho_.draw(space, keys, n, r);
  for_each_element("umbriel::scale_maps", space, n, grid_.height, grid_.width, Scale{r, r, deviation_});
  instrument_.apply(space, r, n, data);
  upload(noise, keys);
  fill_normals(space, product_, keys, n);
  instrument_.keep_observed(space, product_, n);
  for_each_element("umbriel::add_noise", space, n, grid_.height, grid_.width,
                   Add{product_, data, static_cast<float>(noise_)});
}

std::vector<double> ResidualField::forms(const Space& space, int n, const MapBatch& data, const MapBatch& solution) {
  const auto maps = static_cast<std::size_t>(n);
  solve(space, n, data, solution);
  const View1<double> sums("umbriel::sums", maps);
  const auto dot = [&](const MapBatch& with) {
    sum_each_map("umbriel::dot_of_maps", space, n, grid_.height, grid_.width, sums_, sums, Product{with, solution});
    space.fence();
    return download(sums, maps);
  };
  std::vector<double> forms = dot(data);  // s^T S s
  const std::vector<double> squares = dot(solution);
  for (std::size_t i = 0; i < maps; ++i) forms[i] -= noise_ * noise_ * squares[i];
  return forms;
}

double ResidualField::fit_amplitude(const Space& space, std::uint64_t seed, const MapBatch& data, double spread) {
  constexpr int simulations = 24, most_steps = 20;
  constexpr double longest = 1, enough = 0.01;  // steps of ln c^2
  constexpr double farthest = 4;                // in spreads, for data that are nothing like the field
  const std::vector<float> h = h_;
  const auto maps = static_cast<std::size_t>(batch_);
  const MapBatch r("umbriel::simulated_residual", maps, grid_.height, grid_.width);
  const MapBatch simulated("umbriel::simulated_data", maps, grid_.height, grid_.width);
  const MapBatch solution("umbriel::amplitude_solution", maps, grid_.height, grid_.width);
  double logarithm = 0;
  for (int step = 0; step < most_steps; ++step) {
    const double q = forms(space, 1, data, solution)[0];
    double sum = 0, squares = 0;
    for (int first = 0; first < simulations; first += batch_) {
      const int n = std::min(batch_, simulations - first);
      std::vector<DrawKey> prior, noise;  // the same at each step, so that steps converge
      for (int i = first; i < first + n; ++i) {
        prior.push_back({seed, Purpose::amplitude_fit, static_cast<std::uint32_t>(i), 0});
        noise.push_back({seed, Purpose::amplitude_fit, static_cast<std::uint32_t>(i), 1});
      }
      simulate(space, prior, noise, r, simulated);
      for (const double form : forms(space, n, simulated, solution)) sum += form, squares += form * form;
    }
    const double mean = sum / simulations, variance = (squares - sum * mean) / (simulations - 1);
    const double weight = 1 / (spread * spread);
    const double change =
        std::clamp((0.5 * (q - mean) - weight * logarithm) / (0.25 * variance + weight), -longest, longest);
    logarithm = std::clamp(logarithm + change, -farthest * spread, farthest * spread);
    std::vector<float> scaled;
    for (const float value : h) scaled.push_back(static_cast<float>(std::exp(0.5 * logarithm)) * value);
    set_deviation(scaled);
    if (std::fabs(change) < enough) break;
  }
  return std::exp(0.5 * logarithm);
}

void ResidualField::draw(const Space& space, const std::vector<DrawKey>& keys, const MapBatch& data,
                         const MapBatch& r) {
  const int n = static_cast<int>(keys.size());
  const auto with = [&](Purpose purpose) {
    std::vector<DrawKey> of = keys;
    for (DrawKey& key : of) key.purpose = purpose;
    return of;
  };
  const MapBatch prior("umbriel::residual_prior", keys.size(), grid_.height, grid_.width);
  const MapBatch simulated("umbriel::simulated_data", keys.size(), grid_.height, grid_.width);
  simulate(space, with(Purpose::realisation_prior), with(Purpose::realisation_noise), prior, simulated);
  const auto add = [&](const MapBatch& from, const MapBatch& to, double factor) {
    for_each_element("umbriel::add_maps", space, n, grid_.height, grid_.width,
                     Add{from, to, static_cast<float>(factor)});
  };
  add(simulated, data, -1);
  const MapBatch solution("umbriel::residual_solution", keys.size(), grid_.height, grid_.width);
  solve(space, n, data, solution);
  mean(space, n, solution, r);
  add(prior, r, 1);
  space.fence();
}

}  // namespace umbriel
