// Addresses of draws, Philox's published answers, and the float32 functions under the normals.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

using Words = std::array<std::uint32_t, 4>;

Words words_of(const DrawKey& key, std::uint32_t block) {
  const auto words = random_words(key, block);
  return {words[0], words[1], words[2], words[3]};
}

// tests/kat_vectors of Random123 1.14, lines "philox4x32 10": counter[4] key[2] answer[4]. The counter is
// (block, step, chain, purpose), the key the seed, low word first.
TEST(RandomWords, AreThePublishedAnswersOfPhilox) {
  EXPECT_EQ(words_of({0, Purpose::test, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(words_of({0xffffffffffffffff, static_cast<Purpose>(ones), ones, ones}, ones),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  // Digits of pi.
  const DrawKey pi{0x299f31d0a4093822, static_cast<Purpose>(0x03707344), 0x13198a2e, 0x85a308d3};
  EXPECT_EQ(words_of(pi, 0x243f6a88), (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomWords, ChangeWithEveryPartOfTheAddress) {
  const DrawKey key{1, Purpose::momentum, 2, 3};
  const Words here = words_of(key, 4);
  EXPECT_EQ(words_of(key, 4), here);
  EXPECT_NE(words_of(key, 5), here);
  EXPECT_NE(words_of({2, Purpose::momentum, 2, 3}, 4), here);
  EXPECT_NE(words_of({1 + (std::uint64_t{1} << 32), Purpose::momentum, 2, 3}, 4), here);
  EXPECT_NE(words_of({1, Purpose::trajectory, 2, 3}, 4), here);
  EXPECT_NE(words_of({1, Purpose::momentum, 3, 3}, 4), here);
  EXPECT_NE(words_of({1, Purpose::momentum, 2, 4}, 4), here);
}

// Numbers of purposes are part of the file format: a resumed run must draw the same.
TEST(Purpose, KeepsItsNumbers) {
  EXPECT_EQ(static_cast<int>(Purpose::simulation_field), 1);
  EXPECT_EQ(static_cast<int>(Purpose::survey_noise), 2);
  EXPECT_EQ(static_cast<int>(Purpose::survey_mask), 3);
  EXPECT_EQ(static_cast<int>(Purpose::chain_start), 4);
  EXPECT_EQ(static_cast<int>(Purpose::momentum), 5);
  EXPECT_EQ(static_cast<int>(Purpose::trajectory), 6);
  EXPECT_EQ(static_cast<int>(Purpose::acceptance), 7);
  EXPECT_EQ(static_cast<int>(Purpose::tempering), 8);
  EXPECT_EQ(static_cast<int>(Purpose::realisation_prior), 9);
  EXPECT_EQ(static_cast<int>(Purpose::realisation_noise), 10);
  EXPECT_EQ(static_cast<int>(Purpose::galaxy_positions), 11);
  EXPECT_EQ(static_cast<int>(Purpose::galaxy_shapes), 12);
  EXPECT_EQ(static_cast<int>(Purpose::bootstrap), 13);
}

TEST(Uniform, IsInsideTheOpenUnitInterval) {
  EXPECT_EQ(to_uniform(0), 0x1p-33);
  EXPECT_EQ(to_uniform(0xffffffff), 1 - 0x1p-33);
  EXPECT_GT(to_uniform(0), 0);
  EXPECT_LT(to_uniform(0xffffffff), 1);
}

TEST(Uniform, IsTheWordOfItsElement) {
  const DrawKey key{7, Purpose::acceptance, 1, 2};
  for (std::uint64_t element = 0; element < 40; ++element) {
    EXPECT_EQ(uniform(key, element), to_uniform(words_of(key, static_cast<std::uint32_t>(element / 4))[element % 4]));
  }
}

TEST(Uniform, FillsItsIntervalEvenly) {
  constexpr int n = 1 << 20, bins = 64;
  const DrawKey key{11, Purpose::test, 0, 0};
  double sum = 0, squares = 0;
  std::array<int, bins> counts{};
  for (int i = 0; i < n; ++i) {
    const double u = uniform(key, static_cast<std::uint64_t>(i));
    sum += u;
    squares += u * u;
    ++counts[static_cast<std::size_t>(u * bins)];
  }
  EXPECT_NEAR(sum / n, 0.5, 4 * std::sqrt(1.0 / 12 / n));          // 4 sigma
  EXPECT_NEAR(squares / n, 1.0 / 3, 4 * std::sqrt(4.0 / 45 / n));  // Var u^2 = 1/5 - 1/9
  double chi2 = 0;
  for (const int count : counts) chi2 += std::pow(count - n / bins, 2) / (n / bins);
  EXPECT_NEAR(chi2, bins - 1, 4 * std::sqrt(2.0 * (bins - 1)));
}

/// Largest relative error of log_positive over every `stride`-th float of [low, high].
double worst_log_error(float low, float high, std::uint32_t stride) {
  double worst = 0;
  for (std::uint32_t bits = std::bit_cast<std::uint32_t>(low); bits <= std::bit_cast<std::uint32_t>(high);
       bits += stride) {
    const float x = std::bit_cast<float>(bits);
    const double exact = std::log(static_cast<double>(x));
    const double error = std::fabs(static_cast<double>(detail::log_positive(x)) - exact);
    worst = std::fmax(worst, exact == 0 ? error * 1e30 : error / std::fabs(exact));
  }
  return worst;
}

TEST(LogPositive, HasItsPromisedRelativeErrorOverAllNormalNumbers) {
  EXPECT_LT(worst_log_error(0x1p-126f, 0x1.fffffep127f, 997), 2e-7);
  EXPECT_LT(worst_log_error(0x1p-33f, 1.0f, 61), 2e-7);   // what the normals ask for
  EXPECT_LT(worst_log_error(0.999f, 1.001f, 1), 2e-7);    // the logarithm goes through zero
  EXPECT_LT(worst_log_error(0.7065f, 0.7077f, 1), 2e-7);  // the seam at sqrt(1/2)
  EXPECT_EQ(detail::log_positive(1.0f), 0.0f);
}

TEST(CosSinTurn, HasItsPromisedAbsoluteError) {
  double worst = 0, worst_norm = 0;
  const auto test = [&](std::uint32_t k) {
    const float u = static_cast<float>(k) * 0x1p-24f;
    float cosine = 0, sine = 0;
    detail::cos_sin_turn(u, cosine, sine);
    const double angle = 2 * std::numbers::pi * static_cast<double>(u);
    worst = std::fmax(worst, std::fabs(static_cast<double>(cosine) - std::cos(angle)));
    worst = std::fmax(worst, std::fabs(static_cast<double>(sine) - std::sin(angle)));
    worst_norm = std::fmax(worst_norm, std::fabs(std::hypot(static_cast<double>(cosine), sine) - 1));
  };
  for (std::uint32_t k = 0; k < (1U << 24); k += 7) test(k);
  for (std::uint32_t eighth = 0; eighth < 8; ++eighth) {  // both sides of every seam
    for (std::uint32_t k = 0; k < 1000; ++k) {
      test((eighth << 21) + k);
      test(((eighth + 1) << 21) - 1 - k);
    }
  }
  EXPECT_LT(worst, 2e-7);
  EXPECT_LT(worst_norm, 2e-7);
}

TEST(CosSinTurn, IsExactAtQuarterTurns) {
  constexpr float expected[4][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
  for (int quarter = 0; quarter < 4; ++quarter) {
    float cosine = 2, sine = 2;
    detail::cos_sin_turn(0.25f * static_cast<float>(quarter), cosine, sine);
    EXPECT_EQ(cosine, expected[quarter][0]);
    EXPECT_EQ(sine, expected[quarter][1]);
  }
}

}  // namespace
}  // namespace umbriel
