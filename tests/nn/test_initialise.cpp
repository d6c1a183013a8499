// Initial values: their distributions, what stays at one or zero, and that a parameter's values depend on its index and
// the seed alone.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "umbriel/nn/initialise.hpp"

namespace umbriel::nn {
namespace {

std::vector<float> values_of(const ParameterSet& set, ParameterId id) {
  const auto host = Kokkos::create_mirror_view_and_copy(HostMemory{}, set.values());
  const Parameter& parameter = set[id];
  return {host.data() + parameter.offset, host.data() + parameter.offset + parameter.size};
}

struct Moments {
  double mean = 0, variance = 0, kurtosis = 0, largest = 0;
};

Moments moments(const std::vector<float>& values) {
  Moments m;
  const double n = static_cast<double>(values.size());
  double fourth = 0;
  for (const double v : values) {
    m.mean += v / n;
    m.variance += v * v / n;
    fourth += v * v * v * v / n;
    m.largest = std::max(m.largest, std::abs(v));
  }
  m.kurtosis = fourth / (m.variance * m.variance);
  return m;
}

TEST(Initialise, DistributionsOfEveryScheme) {
  struct Case {
    const char* name;
    double variance_convolution, variance_dense;  // fans 9 * 20 and 9 * 30; 60 and 50
    bool normal;
  };
  for (const Case& c :
       {Case{"he-normal", 2 / 180., 2 / 60., true}, Case{"he-uniform", 2 / 180., 2 / 60., false},
        Case{"glorot-normal", 2 / 450., 2 / 110., true}, Case{"glorot-uniform", 2 / 450., 2 / 110., false},
        Case{"pytorch", 1 / 540., 1 / 180., false}}) {
    ParameterSet set;
    const auto convolution = set.add("a.weight", Role::convolution, {3, 3, 20, 30});
    const auto bias = set.add("a.bias", Role::bias, {30});
    const auto dense = set.add("b.weight", Role::dense, {60, 50});
    const auto scale = set.add("n.weight", Role::scale, {13});
    const auto shift = set.add("n.bias", Role::shift, {13});
    const auto zero = set.add("z.weight", Role::convolution, {1, 1, 8, 8});
    set.start_at_zero(zero);
    set.allocate();
    Kokkos::deep_copy(set.values(), 7.0f);
    initialise(set, 3, initialisation_named(c.name));
    for (const auto& [id, variance] : {std::pair(convolution, c.variance_convolution), {dense, c.variance_dense}}) {
      const std::vector<float> values = values_of(set, id);
      const double n = static_cast<double>(values.size());
      const Moments m = moments(values);
      EXPECT_NEAR(m.mean, 0, 5 * std::sqrt(variance / n)) << c.name;
      EXPECT_NEAR(m.variance / variance, 1, 5 * std::sqrt((c.normal ? 2 : 0.8) / n)) << c.name;
      EXPECT_NEAR(m.kurtosis, c.normal ? 3 : 1.8, 0.3) << c.name;
      if (!c.normal) {
        EXPECT_LE(m.largest, std::sqrt(3 * variance) * (1 + 1e-6)) << c.name;
      }
    }
    const std::vector<float> biases = values_of(set, bias);
    if (std::string(c.name) == "pytorch") {
      EXPECT_LE(moments(biases).largest, 1 / std::sqrt(180.) * (1 + 1e-6));
      EXPECT_GT(moments(biases).largest, 0.7 / std::sqrt(180.));
    } else {
      EXPECT_EQ(biases, std::vector<float>(30, 0.0f)) << c.name;
    }
    EXPECT_EQ(values_of(set, scale), std::vector<float>(13, 1.0f)) << c.name;
    EXPECT_EQ(values_of(set, shift), std::vector<float>(13, 0.0f)) << c.name;
    EXPECT_EQ(values_of(set, zero), std::vector<float>(64, 0.0f)) << c.name;
    const auto all = Kokkos::create_mirror_view_and_copy(HostMemory{}, set.values());
    for (std::int64_t i = set[bias].offset + 30; i < set[dense].offset; ++i) EXPECT_EQ(all(i), 0) << "gap " << i;
  }
}

TEST(Initialise, ValuesDependOnIndexAndSeedAlone) {
  const auto draw = [](int before, bool after, std::uint64_t seed) {
    ParameterSet set;
    set.add("first.weight", Role::dense, {before, 5});
    const auto id = set.add("second.weight", Role::convolution, {3, 3, 2, 7});
    if (after) set.add("third.weight", Role::dense, {9, 9});
    set.allocate();
    initialise(set, seed, Initialisation::he_normal);
    return values_of(set, id);
  };
  EXPECT_EQ(draw(3, false, 1), draw(40, true, 1));
  EXPECT_NE(draw(3, false, 1), draw(3, false, 2));

  ParameterSet set;
  const auto a = set.add("a.weight", Role::dense, {4, 4});
  const auto b = set.add("b.weight", Role::dense, {4, 4});
  set.allocate();
  initialise(set, 1, Initialisation::he_normal);
  EXPECT_NE(values_of(set, a), values_of(set, b));
}

TEST(Initialise, UnknownNameListsTheKnown) {
  try {
    initialisation_named("henormal");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("he-normal, he-uniform, glorot-normal"), std::string::npos);
  }
}

}  // namespace
}  // namespace umbriel::nn
