// Spectral normalisation against the formula in float64, and against singular values found by many iterations.
#include "umbriel/nn/spectral_norm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "umbriel/nn/initialise.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel::nn {
namespace {

using Doubles = std::vector<double>;

Doubles doubles(const View1<float>& view) {
  const auto host = Kokkos::create_mirror_view_and_copy(HostMemory{}, view);
  return {host.data(), host.data() + host.extent(0)};
}

double norm(const Doubles& v) {
  double square = 0;
  for (const double x : v) square += x * x;
  return std::sqrt(square);
}

Doubles image(const Doubles& w, std::size_t rows, std::size_t columns, const Doubles& u) {
  Doubles result(rows);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c) result[r] += w[r * columns + c] * u[c];
  return result;
}

Doubles transposed_image(const Doubles& w, std::size_t rows, std::size_t columns, const Doubles& v) {
  Doubles result(columns);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c) result[c] += w[r * columns + c] * v[r];
  return result;
}

/// One power iteration: returns sigma and replaces u.
double iterate(const Doubles& w, std::size_t rows, std::size_t columns, Doubles& u) {
  Doubles v = image(w, rows, columns, u);
  const double length = norm(v);
  for (double& x : v) x /= length;
  u = transposed_image(w, rows, columns, v);
  const double sigma = norm(u);
  for (double& x : u) x /= sigma;
  return sigma;
}

double largest_singular_value(const Doubles& w, std::size_t rows, std::size_t columns) {
  Doubles u(columns);
  for (std::size_t c = 0; c < columns; ++c) u[c] = std::cos(static_cast<double>(c));
  double sigma = 0;
  for (int i = 0; i < 3000; ++i) sigma = iterate(w, rows, columns, u);
  return sigma;
}

struct Network {
  ParameterSet set;
  std::vector<ParameterId> marked;
  ParameterId plain, bias;

  Network() {
    marked.push_back(set.add("a.weight", Role::convolution, {3, 3, 2, 37}, true));
    bias = set.add("a.bias", Role::bias, {37});
    marked.push_back(set.add("b.weight", Role::dense, {70, 33}, true));
    plain = set.add("c.weight", Role::dense, {9, 9});
    marked.push_back(set.add("d.weight", Role::convolution, {5, 5, 3, 1}, true));
    set.allocate();
    initialise(set, 1, Initialisation::pytorch);
    scale(6);
  }

  void scale(float factor) const {
    const auto host = Kokkos::create_mirror_view_and_copy(HostMemory{}, set.values());
    for (std::size_t i = 0; i < host.extent(0); ++i) host(i) *= factor;
    Kokkos::deep_copy(set.values(), host);
  }
  Doubles values(ParameterId id) const {
    const Doubles all = doubles(set.values());
    return {all.begin() + set[id].offset, all.begin() + set[id].offset + set[id].size};
  }
  std::size_t columns(ParameterId id) const { return static_cast<std::size_t>(set[id].shape.back()); }
  std::size_t rows(ParameterId id) const { return static_cast<std::size_t>(set[id].size) / columns(id); }
};

TEST(SpectralNorm, OneStepIsThatOfTheFormula) {
  for (const double limit : {1.0, 2.5}) {
    const Network network;
    SpectralNormalisation spectral(network.set, 9, limit);
    std::vector<Doubles> before;
    for (const ParameterId id : network.marked) before.push_back(network.values(id));
    const Doubles vectors = doubles(spectral.state()[0].second);
    const Doubles plain = network.values(network.plain), bias = network.values(network.bias);
    spectral.apply(Space());
    const Doubles new_vectors = doubles(spectral.state()[0].second);
    std::size_t first = 0;
    for (std::size_t k = 0; k < before.size(); ++k) {
      const ParameterId id = network.marked[k];
      const std::size_t n = network.columns(id);
      Doubles u(vectors.begin() + static_cast<std::ptrdiff_t>(first),
                vectors.begin() + static_cast<std::ptrdiff_t>(first + n));
      const double sigma = iterate(before[k], network.rows(id), n, u);
      EXPECT_GT(sigma, limit);
      for (std::size_t c = 0; c < n; ++c) EXPECT_NEAR(new_vectors[first + c], u[c], 1e-6);
      const Doubles after = network.values(id);
      for (std::size_t e = 0; e < after.size(); ++e)
        EXPECT_NEAR(after[e], before[k][e] * limit / sigma, 1e-6 * std::abs(before[k][e]) + 1e-12);
      first += n;
    }
    EXPECT_EQ(network.values(network.plain), plain);
    EXPECT_EQ(network.values(network.bias), bias);
  }
}

TEST(SpectralNorm, RepeatedStepsBringTheLargestSingularValueToTheLimit) {
  const Network network;
  SpectralNormalisation spectral(network.set, 9);
  for (int i = 0; i < 1000; ++i) spectral.apply(Space());
  for (const ParameterId id : network.marked)
    EXPECT_NEAR(largest_singular_value(network.values(id), network.rows(id), network.columns(id)), 1, 2e-4);
  // From there one step follows a change of scale exactly.
  network.scale(3);
  spectral.apply(Space());
  for (const ParameterId id : network.marked)
    EXPECT_NEAR(largest_singular_value(network.values(id), network.rows(id), network.columns(id)), 1, 2e-4);
}

TEST(SpectralNorm, LeavesSmallMatricesAsTheyAre) {
  const Network network;
  network.scale(0.01f);
  const Doubles before = doubles(network.set.values());
  SpectralNormalisation spectral(network.set, 9);
  spectral.apply(Space());
  EXPECT_EQ(doubles(network.set.values()), before);
}

TEST(SpectralNorm, AMatrixOfZerosKeepsItsVector) {
  const Network network;
  SpectralNormalisation spectral(network.set, 9);
  const Doubles vectors = doubles(spectral.state()[0].second);
  Kokkos::deep_copy(network.set.values(), 0.0f);
  spectral.apply(Space());
  EXPECT_EQ(doubles(spectral.state()[0].second), vectors);
  EXPECT_EQ(norm(doubles(network.set.values())), 0);
}

TEST(SpectralNorm, ResumesToTheBitAndDependsOnTheSeed) {
  const Network one, two;
  SpectralNormalisation whole(one.set, 9), first(two.set, 9), other(two.set, 10);
  EXPECT_NE(doubles(first.state()[0].second), doubles(other.state()[0].second));
  for (int i = 0; i < 3; ++i) whole.apply(Space());
  for (int i = 0; i < 2; ++i) first.apply(Space());
  Kokkos::deep_copy(other.state()[0].second, first.state()[0].second);
  other.apply(Space());
  EXPECT_EQ(doubles(two.set.values()), doubles(one.set.values()));
}

}  // namespace
}  // namespace umbriel::nn
