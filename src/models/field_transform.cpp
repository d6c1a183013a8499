#include "umbriel/models/field_transform.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>

#include "umbriel/fft/filter.hpp"
#include "umbriel/maps/radial_bins.hpp"

namespace umbriel {
namespace {

/// Where a map reaches below -kappa0 it is taken to be this share of kappa0 above.
constexpr double least_share = 1e-3;

struct Logarithm {
  MapBatch maps, fields;
  float kappa0, least, mean;
  bool lognormal;
  /// The term of -ln |du / dkappa|.
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const {
    if (!lognormal) {
      fields(n, y, x) = maps(n, y, x) - mean;
      return 0;
    }
    const float shifted = maps(n, y, x) + kappa0;
    const float u = math::log(shifted < least ? least : shifted);
    fields(n, y, x) = u - mean;
    return static_cast<double>(u);
  }
};

/// u / deviation.
struct ScaledLogarithm {
  Logarithm logarithm;
  float factor;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    logarithm(n, y, x);
    logarithm.fields(n, y, x) *= factor;
  }
};

/// From the gradient of u, to which ln |du / dkappa| = -u - mean adds, to that of kappa.
struct LogarithmBackward {
  MapBatch maps, gradients;
  float kappa0, least, dlog;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const float shifted = maps(n, y, x) + kappa0;
    gradients(n, y, x) = shifted < least ? 0.0f : (gradients(n, y, x) - dlog) / shifted;
  }
};

struct Exponential {
  MapBatch maps;
  float kappa0, mean;
  bool lognormal;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const float u = maps(n, y, x) + mean;
    maps(n, y, x) = lognormal ? math::exp(u) - kappa0 : u;
  }
};

struct Sum {
  MapBatch maps;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const { return static_cast<double>(maps(n, y, x)); }
};

struct Divide {
  View1<double> values;
  double by;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const { values(n) /= by; }
};

struct SquareOfCentred {
  MapBatch maps;
  View1<double> mean;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const {
    const double centred = static_cast<double>(maps(n, y, x)) - mean(n);
    return centred * centred;
  }
};

struct DeviationOfSquares {
  View1<double> values;
  double pixels;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const { values(n) = math::sqrt(values(n) / pixels); }
};

struct Standardise {
  MapBatch maps, fields;
  View1<double> mean, deviation;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const double centred = static_cast<double>(maps(n, y, x)) - mean(n);
    fields(n, y, x) = deviation(n) > 0 ? static_cast<float>(centred / deviation(n)) : 0.0f;
  }
};

struct FinishJacobian {
  View1<double> out;
  double whitening;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const { out(n) = whitening - out(n); }
};

/// Mean power of u over modes of one multipole.
class Spectrum {
 public:
  Spectrum(Grid grid, double pixel_arcmin) : grid_(grid), fft_(grid) {
    std::map<long, std::vector<int>> rings;  // by multipole, to a thousandth of the lowest
    const double lowest = std::min(multipole(grid, pixel_arcmin, 0, 1), multipole(grid, pixel_arcmin, 1, 0));
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.half_width(); ++kx)
        rings[std::lround(1000 * multipole(grid, pixel_arcmin, ky, kx) / lowest)].push_back(ky * grid.half_width() +
                                                                                            kx);
    }
    bin_.resize(static_cast<std::size_t>(grid.modes()));
    for (const auto& [ring, members] : rings) {
      modes_.push_back(0);
      multipoles_.push_back(0);
      for (const int mode : members) {
        const int ky = mode / grid.half_width(), kx = mode % grid.half_width();
        bin_[static_cast<std::size_t>(mode)] = modes_.size() - 1;
        modes_.back() += mode_weight(grid, kx);
        multipoles_.back() += mode_weight(grid, kx) * multipole(grid, pixel_arcmin, ky, kx);
      }
      multipoles_.back() /= modes_.back();
    }
  }

  /// @param values  [n, H, W]
  std::vector<double> operator()(const HostMaps& values) const {
    const MapBatch maps = on_device(values);
    const int n = static_cast<int>(values.extent(0));
    const SpectrumBatch spectra("umbriel::fitted_spectra", static_cast<std::size_t>(n),
                                static_cast<std::size_t>(grid_.height), static_cast<std::size_t>(grid_.half_width()));
    const Space space;
    fft_.forward(space, maps, spectra, n);
    space.fence();
    const auto host = on_host(spectra);
    std::vector<double> power(modes_.size(), 0);
    for (int i = 0; i < n; ++i) {
      for (int ky = 0; ky < grid_.height; ++ky) {
        for (int kx = 0; kx < grid_.half_width(); ++kx) {
          const Complex a = host(i, ky, kx);
          const double square = static_cast<double>(a.real()) * static_cast<double>(a.real()) +
                                static_cast<double>(a.imag()) * static_cast<double>(a.imag());
          power[bin_[static_cast<std::size_t>(ky * grid_.half_width() + kx)]] += mode_weight(grid_, kx) * square;
        }
      }
    }
    for (std::size_t b = 0; b < power.size(); ++b)
      power[b] /= modes_[b] * static_cast<double>(grid_.pixels()) * static_cast<double>(n);
    return power;
  }

  /// 1/2 sum over modes of ln P, a pixel.
  double entropy(const std::vector<double>& power) const {
    double sum = 0;
    for (std::size_t b = 0; b < power.size(); ++b) sum += modes_[b] * std::log(power[b]);
    return 0.5 * sum / static_cast<double>(grid_.pixels());
  }

  /// A smooth curve through the power of n maps: at the mean of maps (l = 0) its own value, else exp f(ln l), f making
  ///   sum over rings of w (ln P - f)^2 / phi + lambda sum over knots of (second difference of f)^2
  /// least, where 1 / w = 2 / (modes n) is the scatter of ln P of Gaussian maps. How much more theirs scatters, phi >=
  /// 1, and lambda are those of the largest restricted likelihood (Patterson & Thompson 1971, Biometrika 58, 545). So a
  /// few modes at the lowest multipoles lean on their neighbours, and many show what shape the spectrum has.
  void smooth(const std::vector<double>& power, double n, std::vector<double>& multipole,
              std::vector<double>& value) const {
    constexpr int knots = 32;
    const auto rings = static_cast<Eigen::Index>(power.size()) - 1;
    const double low = std::log(multipoles_[1]), spacing = (std::log(multipoles_.back()) - low) / (knots - 1);
    Eigen::VectorXd weight(rings), target(rings);
    Eigen::MatrixXd spline = Eigen::MatrixXd::Zero(rings, knots);  // f at a ring, of f at knots
    for (Eigen::Index r = 0; r < rings; ++r) {
      const auto b = static_cast<std::size_t>(r) + 1;
      weight(r) = modes_[b] * n / 2;
      target(r) = std::log(power[b]);
      const double at = (std::log(multipoles_[b]) - low) / spacing;
      const auto below = static_cast<Eigen::Index>(std::min(std::floor(at), knots - 2.0));
      spline(r, below) = 1 - (at - static_cast<double>(below));
      spline(r, below + 1) = at - static_cast<double>(below);
    }
    Eigen::MatrixXd difference = Eigen::MatrixXd::Zero(knots - 2, knots);
    for (int i = 0; i + 2 < knots; ++i) difference.block(i, i, 1, 3) << 1, -2, 1;
    const Eigen::MatrixXd weighted = spline.transpose() * weight.asDiagonal(), fit = weighted * spline,
                          rough = difference.transpose() * difference;
    const Eigen::VectorXd right = weighted * target;
    const auto freedom = static_cast<double>(std::max<Eigen::Index>(1, rings - 2));
    double best = std::numeric_limits<double>::infinity();
    Eigen::VectorXd curve;
    for (int step = -16; step <= 16; ++step) {
      const double lambda = weight.sum() / knots * std::pow(10, 0.5 * step);
      const Eigen::LLT<Eigen::MatrixXd> factors(fit + lambda * rough);
      const Eigen::VectorXd f = factors.solve(right);
      const double misfit =
          (weight.array() * (target - spline * f).array().square()).sum() + lambda * (difference * f).squaredNorm();
      const double phi = std::max(1.0, misfit / freedom);
      const double log_determinant = 2 * factors.matrixLLT().diagonal().array().log().sum();
      const double criterion =
          freedom * std::log(phi) + misfit / phi + log_determinant - (knots - 2) * std::log(lambda);
      if (!(criterion < best)) continue;
      best = criterion;
      curve = f;
    }
    multipole = {0};
    value = {power[0]};
    for (int i = 0; i < knots; ++i) {
      multipole.push_back(std::exp(low + i * spacing));
      value.push_back(std::exp(curve(i)));
    }
  }

 private:
  std::vector<double> multipoles_;
  Grid grid_;
  RealFft fft_;
  std::vector<std::size_t> bin_;  // of each mode
  std::vector<double> modes_;     // in each bin
};

struct Logarithms {
  HostMaps values;
  double mean = 0;
};

/// ln(kappa + kappa0) less its mean; without kappa0, kappa less its mean.
Logarithms logarithms(const HostMaps& maps, bool lognormal, double kappa0) {
  Logarithms result{HostMaps("umbriel::logarithms", maps.extent(0), maps.extent(1), maps.extent(2)), 0};
  std::vector<double> values(maps.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto kappa = static_cast<double>(maps.data()[i]);
    values[i] = lognormal ? std::log(kappa + kappa0) : kappa;
    result.mean += values[i];
  }
  result.mean /= static_cast<double>(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) result.values.data()[i] = static_cast<float>(values[i] - result.mean);
  return result;
}

/// Minimum of f in [a, b] by golden sections.
template <class F>
double minimum(double a, double b, const F& f) {
  const double ratio = 1 / std::numbers::phi;
  double c = b - ratio * (b - a), d = a + ratio * (b - a);
  double fc = f(c), fd = f(d);
  for (int i = 0; i < 24; ++i) {
    if (fc < fd) {
      b = d, d = c, fd = fc;
      c = b - ratio * (b - a), fc = f(c);
    } else {
      a = c, c = d, fc = fd;
      d = a + ratio * (b - a), fd = f(d);
    }
  }
  return 0.5 * (a + b);
}

}  // namespace

std::string FieldTransformSettings::name() const {
  if (standardised) return lognormal ? "standardised-lognormal" : "standardised";
  return lognormal ? "lognormal" : "linear";
}

double FieldTransformSettings::field_of(double map) const {
  const double u = lognormal ? std::log(std::max(map + kappa0, least_share * kappa0)) : map;
  return (u - mean) / std::sqrt(power.front());
}

double FieldTransformSettings::map_of(double field) const {
  const double u = field * std::sqrt(power.front()) + mean;
  return lognormal ? std::exp(u) - kappa0 : u;
}

double FieldTransformSettings::slope_at(double field) const {
  const double deviation = std::sqrt(power.front());
  return lognormal ? deviation * std::exp(field * deviation + mean) : deviation;
}

void standardise(const Space& space, const MapBatch& maps, int n, const MapBatch& fields, const View1<double>& mean,
                 const View1<double>& deviation, SumWorkspace& workspace) {
  const int height = static_cast<int>(maps.extent(1)), width = static_cast<int>(maps.extent(2));
  const auto pixels = static_cast<double>(height) * width;
  if (static_cast<int>(workspace.rows.extent(0)) < n) workspace = SumWorkspace(n, height);
  sum_each_map("umbriel::sum_of_maps", space, n, height, width, workspace, mean, Sum{maps});
  Kokkos::parallel_for("umbriel::mean_of_maps", Range(space, 0, n), Divide{mean, pixels});
  sum_each_map("umbriel::squares_of_maps", space, n, height, width, workspace, deviation, SquareOfCentred{maps, mean});
  Kokkos::parallel_for("umbriel::deviation_of_maps", Range(space, 0, n), DeviationOfSquares{deviation, pixels});
  for_each_element("umbriel::standardise", space, n, height, width, Standardise{maps, fields, mean, deviation});
}

FieldTransformSettings fit_field_transform(const Config& config, const HostMaps& given, double pixel_arcmin,
                                           FieldTransformDefaults defaults) {
  FieldTransformSettings s;
  const std::string transform = config.choice("field.transform", defaults.transform,
                                              {"lognormal", "linear", "standardised", "standardised-lognormal"});
  s.lognormal = transform == "lognormal" || transform == "standardised-lognormal";
  s.standardised = transform == "standardised" || transform == "standardised-lognormal";
  const bool whiten = config.flag("field.whiten", defaults.whiten);
  const Grid grid{static_cast<int>(given.extent(1)), static_cast<int>(given.extent(2))};
  HostMaps maps = given;
  if (s.standardised) {
    maps = HostMaps("umbriel::standardised_maps", given.extent(0), given.extent(1), given.extent(2));
    const MapBatch fields("umbriel::standardised_fields", given.extent(0), given.extent(1), given.extent(2));
    const View1<double> mean("umbriel::means", given.extent(0)), deviation("umbriel::deviations", given.extent(0));
    const Space space;
    SumWorkspace workspace;
    standardise(space, on_device(given), static_cast<int>(given.extent(0)), fields, mean, deviation, workspace);
    space.fence();
    Kokkos::deep_copy(maps, fields);
  }
  double least = std::numeric_limits<double>::infinity(), sum = 0, squares = 0;
  s.highest = -least;
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const auto value = static_cast<double>(maps.data()[i]);
    least = std::min(least, value);
    s.highest = std::max(s.highest, value);
    sum += value;
    squares += value * value;
  }
  const auto count = static_cast<double>(maps.size());
  const double deviation = std::sqrt(std::max(0.0, squares / count - sum / count * (sum / count)));
  require(deviation > 0, ExitCode::input, "the training maps do not vary", config.where("data"),
          "give maps that differ from pixel to pixel");
  const Spectrum spectrum(grid, pixel_arcmin);
  if (s.lognormal) {
    const double lowest = -least + 0.02 * deviation;  // nearer, a single pixel makes the likelihood infinite
    if (config.has("field.kappa0")) {
      s.kappa0 = config.number("field.kappa0", std::nullopt, 1e-9, 1e9);
      require(s.kappa0 > -least, ExitCode::input,
              "a training map reaches " + std::to_string(least) + ", not above -field.kappa0",
              config.where("field.kappa0"), "give a larger one, or leave it out to have it fitted");
    } else {
      const auto used = std::min<std::size_t>(maps.extent(0), 128);
      const auto some = Kokkos::subview(maps, std::make_pair(std::size_t{0}, used), Kokkos::ALL, Kokkos::ALL);
      const double low = std::log(lowest), high = std::log(lowest + 100 * deviation);
      s.kappa0 = std::exp(minimum(low, high, [&](double log_kappa0) {
        const Logarithms u = logarithms(some, true, std::exp(log_kappa0));
        return spectrum.entropy(spectrum(u.values)) + u.mean;
      }));
    }
  }
  const Logarithms u = logarithms(maps, s.lognormal, s.kappa0);
  const bool unit = s.standardised && !s.lognormal;  // already of no mean and unit variance
  s.mean = unit ? 0 : u.mean;
  if (whiten) {
    std::vector<double> power = spectrum(u.values);
    // Where the maps have no power, as simulated ones have no mean, there is rounding, which must not be made large.
    const double most = *std::max_element(power.begin(), power.end());
    for (double& p : power) p = std::max(p, 1e-10 * most);
    power[0] = std::max(power[0], 1e-3 * power[1]);
    spectrum.smooth(power, static_cast<double>(maps.extent(0)), s.multipole, s.power);
    require(std::all_of(s.power.begin(), s.power.end(), [](double p) { return p > 0; }), ExitCode::input,
            "the training maps have no power at some multipole", config.where("data"),
            "give maps that are not smoothed away, or set field.whiten = false");
  } else {
    double variance = 0;
    for (std::size_t i = 0; i < u.values.size(); ++i)
      variance += static_cast<double>(u.values.data()[i]) * static_cast<double>(u.values.data()[i]);
    s.multipole = {1};
    s.power = {unit ? 1 : variance / count};
  }
  return s;
}

FieldTransform::FieldTransform(const FieldTransformSettings& settings, Grid grid, double pixel_arcmin)
    : settings_(settings),
      fft_(grid),
      whiten_("umbriel::whiten", grid.height, grid.half_width()),
      colour_("umbriel::colour", grid.height, grid.half_width()) {
  const auto whiten = Kokkos::create_mirror_view(HostMemory{}, whiten_);
  const auto colour = Kokkos::create_mirror_view(HostMemory{}, colour_);
  const std::vector<double>&l = settings.multipole, &p = settings.power;
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      const double at = multipole(grid, pixel_arcmin, ky, kx);
      const auto above = static_cast<std::size_t>(std::lower_bound(l.begin(), l.end(), at) - l.begin());
      double power = p[std::min(above, p.size() - 1)];
      // The first bin is the mean of the map, from which nothing is interpolated.
      if (above > 1 && above < l.size() && l[above] > at) {
        const double t = std::log(at / l[above - 1]) / std::log(l[above] / l[above - 1]);
        power = std::exp((1 - t) * std::log(p[above - 1]) + t * std::log(p[above]));
      }
      log_jacobian_ -= 0.5 * mode_weight(grid, kx) * std::log(power);
      deviation_ += mode_weight(grid, kx) * power;
      const auto pixels = static_cast<double>(grid.pixels());  // the transforms are not scaled
      whiten(ky, kx) = static_cast<float>(1 / (std::sqrt(power) * pixels));
      colour(ky, kx) = static_cast<float>(std::sqrt(power) / pixels);
    }
  }
  deviation_ = std::sqrt(deviation_ / static_cast<double>(grid.pixels()));
  Kokkos::deep_copy(whiten_, whiten);
  Kokkos::deep_copy(colour_, colour);
}

void FieldTransform::filter(const Space& space, const MapBatch& from, int n, const View2<float>& factors,
                            const MapBatch& to) {
  const Grid grid = fft_.grid();
  if (static_cast<int>(spectra_.extent(0)) < n) {
    spectra_ = SpectrumBatch("umbriel::field_spectra", n, grid.height, grid.half_width());
    sums_ = SumWorkspace(n, grid.height);
  }
  fft_.forward(space, from, spectra_, n);
  for_each_element("umbriel::filter_fields", space, n, grid.height, grid.half_width(), FilterSpectra{spectra_, factors});
  fft_.inverse(space, spectra_, to, n);
}

void FieldTransform::forward(const Space& space, const MapBatch& maps, int n, const MapBatch& fields,
                             const View1<double>& log_jacobian) {
  const Grid grid = fft_.grid();
  if (static_cast<int>(sums_.rows.extent(0)) < n) sums_ = SumWorkspace(n, grid.height);
  if (settings_.standardised) {
    if (static_cast<int>(means_.extent(0)) < n) {
      means_ = View1<double>("umbriel::means", static_cast<std::size_t>(n));
      deviations_ = View1<double>("umbriel::deviations", static_cast<std::size_t>(n));
    }
    standardise(space, maps, n, fields, means_, deviations_, sums_);
  }
  sum_each_map("umbriel::field_logarithm", space, n, grid.height, grid.width, sums_, log_jacobian,
               Logarithm{settings_.standardised ? fields : maps, fields, static_cast<float>(settings_.kappa0),
                         static_cast<float>(least_share * settings_.kappa0), static_cast<float>(settings_.mean),
                         settings_.lognormal});
  Kokkos::parallel_for("umbriel::field_jacobian", Range(space, 0, n), FinishJacobian{log_jacobian, log_jacobian_});
  filter(space, fields, n, whiten_, fields);
}

void FieldTransform::inverse(const Space& space, const MapBatch& fields, int n, const MapBatch& maps) {
  const Grid grid = fft_.grid();
  filter(space, fields, n, colour_, maps);
  for_each_element(
      "umbriel::field_exponential", space, n, grid.height, grid.width,
      Exponential{maps, static_cast<float>(settings_.kappa0), static_cast<float>(settings_.mean), settings_.lognormal});
}

void FieldTransform::backward(const Space& space, const MapBatch& maps, int n, const MapBatch& dfields,
                              float dlog_jacobian, const MapBatch& dmaps) {
  filter(space, dfields, n, whiten_, dmaps);  // a symmetric matrix
  if (!settings_.lognormal) return;
  const Grid grid = fft_.grid();
  for_each_element("umbriel::field_logarithm_backward", space, n, grid.height, grid.width,
                   LogarithmBackward{maps, dmaps, static_cast<float>(settings_.kappa0),
                                     static_cast<float>(least_share * settings_.kappa0), dlog_jacobian});
}

void FieldTransform::logarithm(const Space& space, const MapBatch& maps, int n, const MapBatch& fields) const {
  const Grid grid = fft_.grid();
  for_each_element("umbriel::field_scaled_logarithm", space, n, grid.height, grid.width,
                   ScaledLogarithm{{maps, fields, static_cast<float>(settings_.kappa0),
                                    static_cast<float>(least_share * settings_.kappa0),
                                    static_cast<float>(settings_.mean), settings_.lognormal},
                                   static_cast<float>(1 / deviation_)});
}

}  // namespace umbriel
