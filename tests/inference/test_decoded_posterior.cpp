// What a decoder leaves out, and posteriors of decoded maps, against dense algebra.
#include "umbriel/inference/decoded_posterior.hpp"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <limits>
#include <numbers>

#include "umbriel/maps/radial_bins.hpp"

namespace umbriel {
namespace {

constexpr Grid grid{6, 8};
constexpr int pixels = 48;
constexpr double pixel_arcmin = 2, noise = 0.3, fwhm = 2.5;
const std::vector<double> multipoles = {0, 1500, 3000, 6000}, power = {3, 2, 0.4, 0.05};

std::vector<float> mask() {
  std::vector<float> mask(pixels, 1);
  for (const int y : {2, 3})
    for (const int x : {3, 4, 5}) mask[static_cast<std::size_t>(y * grid.width + x)] = 0;
  return mask;
}

std::vector<float> deviation() {
  std::vector<float> h;
  for (int i = 0; i < pixels; ++i) h.push_back(0.4f + 0.03f * static_cast<float>(i % 17));
  return h;
}

float draw(std::uint32_t stream, std::uint64_t i) { return normal({6, Purpose::test, stream, 0}, i); }

double power_at(double l) {
  for (std::size_t i = 1; i < multipoles.size(); ++i) {
    if (l > multipoles[i]) continue;
    const double t = (l - multipoles[i - 1]) / (multipoles[i] - multipoles[i - 1]);
    return std::exp((1 - t) * std::log(power[i - 1]) + t * std::log(power[i]));
  }
  return power.back();
}

/// <rho rho^T>, by a direct sum over the waves of the wide grid.
Eigen::MatrixXd correlation() {
  const Grid wide{10, 12};  // half as wide again, and even
  Eigen::MatrixXd r(pixels, pixels);
  for (int a = 0; a < pixels; ++a) {
    for (int b = 0; b < pixels; ++b) {
      double sum = 0;
      for (int ky = 0; ky < wide.height; ++ky) {
        for (int kx = 0; kx < wide.width; ++kx) {
          const double phase = 2 * std::numbers::pi *
                               (static_cast<double>(ky * (a / grid.width - b / grid.width)) / wide.height +
                                static_cast<double>(kx * (a % grid.width - b % grid.width)) / wide.width);
          const int near = kx <= wide.width / 2 ? kx : wide.width - kx;
          sum += power_at(multipole(wide, pixel_arcmin, ky, near)) * std::cos(phase);
        }
      }
      r(a, b) = sum / static_cast<double>(wide.pixels());
    }
  }
  return r;
}

/// Everything as matrices.
struct Dense {
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(pixels, pixels), h, field, s;

  Dense() {
    // A Gaussian beam on the periodic map, by its waves.
    const std::vector<float> observed = mask();
    const double sigma = fwhm / std::sqrt(8 * std::numbers::ln2), radians = pixel_arcmin / 60 * std::numbers::pi / 180;
    for (int i = 0; i < pixels; ++i) {
      for (int j = 0; j < pixels; ++j) {
        for (int ky = 0; ky < grid.height; ++ky) {
          for (int kx = 0; kx < grid.width; ++kx) {
            const double phase = 2 * std::numbers::pi *
                                 (static_cast<double>(ky * (i / grid.width - j / grid.width)) / grid.height +
                                  static_cast<double>(kx * (i % grid.width - j % grid.width)) / grid.width);
            const int near = kx <= grid.width / 2 ? kx : grid.width - kx;
            const double k = multipole(grid, pixel_arcmin, ky, near) * radians;
            a(i, j) += static_cast<double>(observed[static_cast<std::size_t>(i)]) *
                       std::exp(-0.5 * sigma * sigma * k * k) * std::cos(phase) / pixels;
          }
        }
      }
    }
    Eigen::VectorXd deviations(pixels);
    for (int i = 0; i < pixels; ++i) deviations(i) = static_cast<double>(deviation()[static_cast<std::size_t>(i)]);
    field = deviations.asDiagonal() * correlation() * deviations.asDiagonal();
    s = a * field * a.transpose() + noise * noise * Eigen::MatrixXd::Identity(pixels, pixels);
  }
};

Eigen::VectorXd vector_of(const float* values, int n = pixels) {
  return Eigen::Map<const Eigen::VectorXf>(values, n).cast<double>();
}

MapBatch maps_of(const std::vector<float>& values) {
  const MapBatch maps("maps", values.size() / pixels, grid.height, grid.width);
  const auto host = Kokkos::create_mirror_view(HostMemory{}, maps);
  std::copy(values.begin(), values.end(), host.data());
  Kokkos::deep_copy(maps, host);
  return maps;
}

std::vector<float> masked_noise(std::size_t maps) {
  std::vector<float> values;
  for (std::size_t i = 0; i < maps * pixels; ++i) values.push_back(mask()[i % pixels] * draw(1, i));
  return values;
}

struct Field {
  MaskedBeam instrument;
  ResidualField field;
  explicit Field(int batch)
      : instrument(grid, mask(), fwhm, batch), field(instrument, grid, pixel_arcmin, multipoles, power, noise, batch) {
    field.set_deviation(deviation());
  }
};

TEST(ResidualField, SolvesAsDenseAlgebraDoes) {
  const Dense dense;
  Field f(3);
  const std::vector<float> data = masked_noise(3);
  const MapBatch solution("solution", 3, grid.height, grid.width), mean("mean", 3, grid.height, grid.width);
  const Space space;
  f.field.solve(space, 3, maps_of(data), solution);
  f.field.mean(space, 3, solution, mean);
  space.fence();
  const auto found = on_host(solution), field = on_host(mean);
  for (int map = 0; map < 3; ++map) {
    const Eigen::VectorXd expected = dense.s.ldlt().solve(vector_of(data.data() + map * pixels));
    EXPECT_LT((vector_of(found.data() + map * pixels) - expected).norm(), 3e-4 * expected.norm());
    const Eigen::VectorXd r = dense.field * dense.a.transpose() * expected;
    EXPECT_LT((vector_of(field.data() + map * pixels) - r).norm(), 3e-4 * r.norm());
  }
  EXPECT_LT(f.field.iterations(), 30);
}

TEST(ResidualField, AMapGivesTheSameBitsInAnyBatch) {
  Field together(4), alone(1);
  std::vector<float> data = masked_noise(4);
  for (int i = 0; i < pixels; ++i) data[static_cast<std::size_t>(i)] *= 1e-3f;  // maps are done at different times
  std::fill_n(data.begin() + pixels, pixels, 0.0f);
  const MapBatch all("all", 4, grid.height, grid.width), one("one", 1, grid.height, grid.width);
  const Space space;
  together.field.solve(space, 4, maps_of(data), all);
  space.fence();
  for (std::size_t map = 0; map < 4; ++map) {
    alone.field.solve(
        space, 1,
        maps_of({data.begin() + static_cast<long>(map) * pixels, data.begin() + static_cast<long>(map + 1) * pixels}),
        one);
    space.fence();
    const auto a = on_host(all), b = on_host(one);
    for (std::size_t i = 0; i < pixels; ++i) EXPECT_EQ(a.data()[map * pixels + i], b.data()[i]) << map << " " << i;
  }
}

TEST(ResidualField, DataThatAreNotFiniteHaveNoSolutionAndDisturbNoOther) {
  Field f(2);
  std::vector<float> data = masked_noise(2);
  data[3] = std::numeric_limits<float>::infinity();
  const MapBatch solution("solution", 2, grid.height, grid.width), one("one", 1, grid.height, grid.width);
  const Space space;
  f.field.solve(space, 2, maps_of(data), solution);
  f.field.solve(space, 1, maps_of({data.begin() + pixels, data.end()}), one);
  space.fence();
  const auto both = on_host(solution), alone = on_host(one);
  double form = 0;
  for (std::size_t i = 0; i < pixels; ++i) {
    form += static_cast<double>(data[i]) * static_cast<double>(both.data()[i]);
    EXPECT_EQ(both.data()[pixels + i], alone.data()[i]);
  }
  EXPECT_FALSE(std::isfinite(form));
}

// The maximum of the likelihood and the prior of ln c^2, on a grid, by dense algebra; data are drawn with c = 0.6
// ... 1.8.
TEST(ResidualField, FitsTheAmplitudeThatMakesTheDataLikeliest) {
  const Dense dense;
  const Eigen::MatrixXd field = dense.a * dense.field * dense.a.transpose();
  const Eigen::MatrixXd white = noise * noise * Eigen::MatrixXd::Identity(pixels, pixels);
  constexpr double spread = 0.7;
  constexpr int cases = 24;
  double sum = 0;
  for (std::uint32_t i = 0; i < cases; ++i) {
    const double c = 0.6 + 0.05 * i;
    const Eigen::MatrixXd root = (c * c * field + white).llt().matrixL();
    Eigen::VectorXd normals(pixels);
    for (int k = 0; k < pixels; ++k) normals(k) = static_cast<double>(draw(100 + i, static_cast<std::uint64_t>(k)));
    std::vector<float> data;
    for (int k = 0; k < pixels; ++k)
      data.push_back(mask()[static_cast<std::size_t>(k)] * static_cast<float>((root * normals)(k)));
    double best = 0, most = -std::numeric_limits<double>::infinity();
    for (double logarithm = -4; logarithm < 4; logarithm += 0.02) {
      const Eigen::LLT<Eigen::MatrixXd> s(std::exp(logarithm) * field + white);
      const double value = -0.5 * vector_of(data.data()).dot(s.solve(vector_of(data.data()))) -
                           s.matrixLLT().diagonal().array().log().sum() -
                           0.5 * logarithm * logarithm / (spread * spread);
      if (value > most) most = value, best = logarithm;
    }
    Field f(5);
    const double fitted = 2 * std::log(f.field.fit_amplitude(Space(), i, maps_of(data), spread));
    EXPECT_NEAR(fitted, best, 0.3) << "c = " << c;  // by 24 simulations
    sum += fitted - best;
  }
  EXPECT_NEAR(sum / cases, 0, 0.05);
}

TEST(ResidualField, KeepsTheAmplitudeThatItFitted) {
  std::vector<float> data = masked_noise(1);
  for (float& value : data) value *= 3;
  Field f(1), scaled(1);
  const Space space;
  const double c = f.field.fit_amplitude(space, 1, maps_of(data), 0.3);
  EXPECT_GT(c, 1.1);
  EXPECT_LT(c, std::exp(0.61)) << "white noise is nothing that the field makes: not beyond four spreads";
  std::vector<float> h = deviation();
  for (float& value : h) value *= static_cast<float>(c);
  scaled.field.set_deviation(h);
  const MapBatch a("a", 1, grid.height, grid.width), b("b", 1, grid.height, grid.width);
  f.field.solve(space, 1, maps_of(data), a);
  scaled.field.solve(space, 1, maps_of(data), b);
  space.fence();
  for (std::size_t i = 0; i < pixels; ++i) EXPECT_NEAR(on_host(a).data()[i], on_host(b).data()[i], 1e-4);
}

/// g(u) = W u + c
class Linear final : public MapDecoder {
 public:
  static constexpr int numbers = 3;
  Eigen::MatrixXd w = Eigen::MatrixXd(pixels, numbers);
  Eigen::VectorXd c = Eigen::VectorXd(pixels);

  explicit Linear(int batch) : batch_(batch) {
    for (int i = 0; i < pixels; ++i) {
      c(i) = 0.5 * std::cos(0.7 * i);
      for (int k = 0; k < numbers; ++k)
        w(i, k) = std::cos(0.4 * (k + 1) * (i % umbriel::grid.width) + 0.5 * k * (i / umbriel::grid.width));
    }
  }
  int size() const override { return numbers; }
  int batch() const override { return batch_; }
  Grid grid() const override { return umbriel::grid; }
  MapBatch decode(const Space&, const std::vector<float>& points) override {
    std::vector<float> maps;
    for (std::size_t n = 0; n < points.size() / numbers; ++n) {
      const Eigen::VectorXd map = w * vector_of(points.data() + n * numbers, numbers) + c;
      for (int i = 0; i < pixels; ++i) maps.push_back(static_cast<float>(map(i)));
    }
    return maps_of(maps);
  }
  std::vector<float> pull_back(const Space& space, const MapBatch& gradient, int n) override {
    space.fence();
    const auto host = on_host(gradient);
    std::vector<float> out;
    for (int map = 0; map < n; ++map) {
      const Eigen::VectorXd pulled = w.transpose() * vector_of(host.data() + map * pixels);
      for (int k = 0; k < numbers; ++k) out.push_back(static_cast<float>(pulled(k)));
    }
    return out;
  }

 private:
  int batch_;
};

// x = W u + c + r is a Gaussian field with known mean and covariance, and so is its posterior.
TEST(DecodedPosterior, OfALinearDecoderIsThatOfDenseAlgebra) {
  const Dense dense;
  constexpr int batch = 16;
  Linear decoder(batch);
  Field f(batch);
  const std::vector<float> data = masked_noise(1);
  DecodedPosterior posterior(decoder, f.instrument, f.field, data);
  const Space space;

  const Eigen::VectorXd left = vector_of(data.data()) - dense.a * decoder.c;
  const Eigen::MatrixXd seen = dense.a * decoder.w;
  const Eigen::MatrixXd precision = Eigen::MatrixXd::Identity(3, 3) + seen.transpose() * dense.s.ldlt().solve(seen);
  const Eigen::VectorXd u = precision.ldlt().solve(seen.transpose() * dense.s.ldlt().solve(left));
  const Eigen::MatrixXd prior = decoder.w * decoder.w.transpose() + dense.field;
  const Eigen::MatrixXd gain =
      prior * dense.a.transpose() *
      (dense.a * prior * dense.a.transpose() + noise * noise * Eigen::MatrixXd::Identity(pixels, pixels)).inverse();
  const Eigen::VectorXd x = decoder.c + gain * left;
  const Eigen::MatrixXd spread = prior - gain * dense.a * prior;

  double value = 0;
  const std::vector<float> maximum = maximum_of(space, posterior, {2, -1, 1}, 100, value);
  for (int k = 0; k < 3; ++k) EXPECT_NEAR(maximum[static_cast<std::size_t>(k)], u(k), 1e-3);
  const Eigen::VectorXd expected_left = left - seen * u;
  EXPECT_NEAR(value, -0.5 * (u.squaredNorm() + expected_left.dot(dense.s.ldlt().solve(expected_left))), 1e-3);
  const std::vector<float> mean = posterior.mean(space, maximum);
  for (int i = 0; i < pixels; ++i) EXPECT_NEAR(mean[static_cast<std::size_t>(i)], x(i), 3e-3) << i;

  VectorHmcOptions options;
  options.metric = metric_at(space, posterior, maximum);
  for (std::size_t k = 0; k < 3; ++k) {
    const Eigen::Map<const Eigen::Vector3d> vector(options.metric.vectors.data() + 3 * k);
    EXPECT_LT((precision * vector / options.metric.eigenvalues[k] - vector).norm(), 0.02);
  }

  options.warm_up = 50;
  options.draws = 60;
  options.trajectories_a_draw = 3;
  options.leapfrogs = 4;
  const int n_chains = 32;
  std::vector<VectorChain> chains;
  for (int chain = 0; chain < n_chains; ++chain) chains.push_back(begin_vector_chain(options, 3, chain));
  ASSERT_TRUE(run_vector_chains(space, posterior, options, chains));
  Eigen::VectorXd sum = Eigen::VectorXd::Zero(pixels), squares = Eigen::VectorXd::Zero(pixels);
  double form = 0;
  const Eigen::LDLT<Eigen::MatrixXd> inverse(spread);
  for (const VectorChain& chain : chains) {
    for (int first = 0; first < options.draws; first += 15) {
      std::vector<DrawKey> keys;
      for (int i = 0; i < 15; ++i)
        keys.push_back(
            {1, Purpose::test, static_cast<std::uint32_t>(chain.chain), static_cast<std::uint32_t>(first + i)});
      const std::vector<float> maps =
          posterior.draw(space, {chain.draws.begin() + first * 3, chain.draws.begin() + (first + 15) * 3}, keys);
      for (int i = 0; i < 15; ++i) {
        const Eigen::VectorXd off = vector_of(maps.data() + i * pixels) - x;
        sum += off;
        squares += off.cwiseAbs2();
        form += off.dot(inverse.solve(off));
      }
    }
  }
  const double draws = n_chains * options.draws;
  for (int i = 0; i < pixels; ++i) {
    const double deviation = std::sqrt(spread(i, i));
    EXPECT_NEAR(sum(i) / draws, 0, 5 * deviation / std::sqrt(0.5 * draws)) << i;
    EXPECT_NEAR(squares(i) / draws, spread(i, i), 0.15 * spread(i, i)) << i;
  }
  // With as many degrees of freedom as pixels: any wrong correlation moves it.
  EXPECT_NEAR(form / draws, pixels, 5 * std::sqrt(2.0 * pixels / (0.5 * draws)));
}

}  // namespace
}  // namespace umbriel
