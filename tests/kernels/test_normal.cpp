// Standard normals: their distribution, their bits, and that nothing but the address decides them.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

View1<DrawKey> keys_of(const std::vector<DrawKey>& keys) {
  HostView1<DrawKey> host("keys", keys.size());
  std::copy(keys.begin(), keys.end(), host.data());
  return on_device(host);
}

/// 2^22 normals of one stream.
const std::vector<float>& many_normals() {
  static const std::vector<float> values = [] {
    const MapBatch maps("normals", 1, 2048, 2048);
    fill_normals(Space(), maps, keys_of({{20240131, Purpose::test, 0, 0}}), 1);
    const auto host = on_host(maps);
    return std::vector<float>(host.data(), host.data() + host.size());
  }();
  return values;
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

// The largest and the smallest radius Box-Muller can give, and words at the seams.
TEST(BoxMuller, StaysFiniteForAllWords) {
  const std::uint32_t seams[] = {0,          1,          2,          0x3fffffff, 0x40000000, 0x7fffffff,
                                 0x80000000, 0xfffffe00, 0xffffff7f, 0xffffff80, 0xffffffff};
  for (const std::uint32_t a : seams) {
    for (const std::uint32_t b : seams) {
      float first = 0, second = 0;
      detail::box_muller(a, b, first, second);
      ASSERT_TRUE(std::isfinite(first) && std::isfinite(second)) << a << " " << b;
      const double radius = std::sqrt(-2 * std::log(std::min(1.0, (a + 0.5) * 0x1p-32)));
      EXPECT_NEAR(std::hypot(static_cast<double>(first), second), radius, 4e-4);  // u itself is rounded to 24 bits
      EXPECT_LT(std::hypot(static_cast<double>(first), second), 6.77);
    }
  }
}

// Moment k of a normal: E = 0, 1, 0, 3; variances of the estimates 1, 2, 15, 96 over N.
TEST(Normal, HasTheMomentsOfANormalWithinFourSigma) {
  const std::vector<float>& values = many_normals();
  const auto n = static_cast<double>(values.size());
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  for (const double x : values) {
    m1 += x;
    m2 += x * x;
    m3 += x * x * x;
    m4 += x * x * x * x;
  }
  EXPECT_NEAR(m1 / n, 0, 4 * std::sqrt(1 / n));
  EXPECT_NEAR(m2 / n, 1, 4 * std::sqrt(2 / n));
  EXPECT_NEAR(m3 / n, 0, 4 * std::sqrt(15 / n));
  EXPECT_NEAR(m4 / n, 3, 4 * std::sqrt(96 / n));
}

TEST(Normal, HasTheTailsOfANormal) {
  const std::vector<float>& values = many_normals();
  const auto n = static_cast<double>(values.size());
  for (const double threshold : {1.0, 2.0, 3.0, 4.0, 4.5}) {
    const double p = normal_cdf(-threshold);
    const auto above = std::count_if(values.begin(), values.end(), [&](double x) { return x > threshold; });
    const auto below = std::count_if(values.begin(), values.end(), [&](double x) { return x < -threshold; });
    EXPECT_NEAR(static_cast<double>(above), n * p, 4 * std::sqrt(n * p)) << threshold;
    EXPECT_NEAR(static_cast<double>(below), n * p, 4 * std::sqrt(n * p)) << threshold;
  }
}

TEST(Normal, PassesKolmogorovSmirnov) {
  std::vector<float> values(many_normals().begin(), many_normals().begin() + (1 << 20));
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double distance = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double cdf = normal_cdf(static_cast<double>(values[i]));
    distance = std::max({distance, cdf - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - cdf});
  }
  EXPECT_LT(distance * std::sqrt(n), 1.63);  // exceeded by chance once in a hundred
}

TEST(Normal, HasNoCorrelationBetweenNeighbours) {
  const std::vector<float>& values = many_normals();
  const auto n = static_cast<double>(values.size());
  for (const std::size_t lag : {1, 2, 3, 4, 5, 2048}) {
    double product = 0, squares = 0;
    for (std::size_t i = 0; i + lag < values.size(); ++i) {
      const double a = static_cast<double>(values[i]), b = static_cast<double>(values[i + lag]);
      product += a * b;
      squares += (a * a - 1) * (b * b - 1);  // a pair of Box-Muller shares its radius
    }
    EXPECT_NEAR(product / n, 0, 4 / std::sqrt(n)) << "lag " << lag;
    EXPECT_NEAR(squares / n, 0, 4 * 2 / std::sqrt(n)) << "lag " << lag;
  }
}

TEST(Normal, HasNoCorrelationBetweenStreams) {
  const MapBatch maps("normals", 4, 512, 512);
  const std::vector<DrawKey> keys = {
      {5, Purpose::test, 0, 0}, {5, Purpose::test, 1, 0}, {5, Purpose::test, 0, 1}, {6, Purpose::test, 0, 0}};
  fill_normals(Space(), maps, keys_of(keys), 4);
  const auto host = on_host(maps);
  constexpr std::size_t n = 512 * 512;
  for (std::size_t a = 0; a < 4; ++a) {
    for (std::size_t b = a + 1; b < 4; ++b) {
      double product = 0;
      for (std::size_t i = 0; i < n; ++i) {
        product += static_cast<double>(host.data()[a * n + i]) * static_cast<double>(host.data()[b * n + i]);
      }
      EXPECT_NEAR(product / n, 0, 4 / std::sqrt(static_cast<double>(n))) << a << " and " << b;
    }
  }
}

// Written once on x86-64; every compiler and backend must give the same bits.
TEST(Normal, HasItsGoldenBits) {
  const DrawKey key{1, Purpose::momentum, 2, 3};
  constexpr std::uint32_t golden[12] = {0x3f1cc11b, 0xbea52327, 0x3e726794, 0xbff34235, 0x3eb7f32e, 0xbfd50ed2,
                                        0xbf6dc90f, 0x3e11515f, 0xbcd680ad, 0xbf219886, 0xbece25dd, 0x3c9e38e9};
  for (std::uint64_t element = 0; element < 8; ++element) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(normal(key, element)), golden[element]) << "element " << element;
  }
  const DrawKey far{0xfedcba9876543210, Purpose::bootstrap, 4000000000U, 123456789U};
  for (std::uint64_t element = 0; element < 4; ++element) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(normal(far, (std::uint64_t{1} << 33) + element)), golden[8 + element])
        << "element 2^33 + " << element;
  }
}

// All bits of many, as one number (FNV-1a).
TEST(Normal, HasItsGoldenSum) {
  std::uint64_t sum = 0xcbf29ce484222325;
  for (std::size_t i = 0; i < (std::size_t{1} << 18); ++i) {
    for (std::uint32_t bits = std::bit_cast<std::uint32_t>(many_normals()[i]), byte = 0; byte < 4; ++byte, bits >>= 8)
      sum = (sum ^ (bits & 0xff)) * 0x100000001b3;
  }
  EXPECT_EQ(sum, 4204862573505258328U);
}

TEST(FillNormals, GivesEveryElementOfItsStreamForOddSizes) {
  for (const auto& [height, width] : {std::pair{1, 1}, {1, 3}, {7, 13}, {5, 3}, {64, 64}, {1, 65}, {11, 23}}) {
    const std::vector<DrawKey> keys = {
        {3, Purpose::survey_noise, 9, 1}, {4, Purpose::momentum, 0, 0}, {3, Purpose::survey_noise, 9, 1}};
    const MapBatch maps("normals", 4, height, width);
    Kokkos::deep_copy(maps, -77.0f);
    fill_normals(Space(), maps, keys_of(keys), 3);
    const auto host = on_host(maps);
    for (int map = 0; map < 3; ++map) {
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          const float expected = normal(keys[static_cast<std::size_t>(map)], static_cast<std::uint64_t>(y * width + x));
          EXPECT_EQ(std::bit_cast<std::uint32_t>(host(map, y, x)), std::bit_cast<std::uint32_t>(expected));
        }
      }
    }
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) EXPECT_EQ(host(3, y, x), -77.0f) << "a map behind the batch was written";
    }
  }
}

TEST(FillNormals, DependsOnTheKeyAloneAndNotOnBatchOrOrder) {
  std::vector<DrawKey> keys;
  for (std::uint32_t chain = 0; chain < 9; ++chain) keys.push_back({8, Purpose::chain_start, chain, 5});
  const MapBatch all("all", 9, 6, 35);
  fill_normals(Space(), all, keys_of(keys), 9);
  const auto whole = on_host(all);
  const std::vector<DrawKey> reversed(keys.rbegin(), keys.rend());
  const MapBatch back("back", 9, 6, 35);
  fill_normals(Space(), back, keys_of(reversed), 9);
  const auto turned = on_host(back);
  for (std::size_t chain = 0; chain < 9; ++chain) {
    const MapBatch one("one", 1, 6, 35);
    fill_normals(Space(), one, keys_of({keys[chain]}), 1);
    const auto single = on_host(one);
    for (std::size_t i = 0; i < single.size(); ++i) {
      ASSERT_EQ(single.data()[i], whole.data()[chain * single.size() + i]);
      ASSERT_EQ(single.data()[i], turned.data()[(8 - chain) * single.size() + i]);
    }
  }
}

TEST(FillNormals, RefusesMoreMapsThanThereIsRoomFor) {
  const MapBatch maps("normals", 2, 3, 3);
  const View1<DrawKey> keys = keys_of({{}, {}, {}});
  EXPECT_THROW(fill_normals(Space(), maps, keys, 3), Error);
  EXPECT_THROW(fill_normals(Space(), MapBatch("normals", 4, 3, 3), keys, 4), Error);
  EXPECT_NO_THROW(fill_normals(Space(), maps, keys, 0));
}

}  // namespace
}  // namespace umbriel
