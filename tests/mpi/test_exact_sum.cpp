// Sums that do not depend on order or ranks, correctly rounded.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "umbriel/mpi/exact_sum.hpp"

namespace umbriel {
namespace {

__extension__ typedef __int128 Int128;

double sum_of(const std::vector<double>& terms) {
  ExactSum sum;
  for (const double term : terms) sum.add(term);
  return sum.value();
}

std::uint64_t bits(double value) { return std::bit_cast<std::uint64_t>(value); }

/// Doubles of every size and sign, subnormals among them.
std::vector<double> wild_terms(std::size_t n, unsigned seed, int lowest = -1074, int highest = 1000) {
  std::mt19937_64 engine(seed);
  std::vector<double> terms(n);
  for (double& term : terms) {
    const int exponent = lowest + static_cast<int>(engine() % static_cast<std::uint64_t>(highest - lowest));
    term = std::ldexp(static_cast<double>(engine() >> 11) * 0x1p-53 + 0.5, exponent) * ((engine() & 1) != 0 ? 1 : -1);
  }
  return terms;
}

TEST(ExactSum, AddsWhatFloatingPointLoses) {
  EXPECT_EQ(sum_of({}), 0);
  EXPECT_EQ(sum_of({0.0, -0.0}), 0);
  EXPECT_EQ(sum_of({1.5}), 1.5);
  EXPECT_EQ(sum_of({-1.5}), -1.5);
  EXPECT_EQ(sum_of({1e308, 1, -1e308}), 1);
  EXPECT_EQ(sum_of({1e308, -1e308, 1}), 1);
  EXPECT_EQ(sum_of({DBL_MAX, DBL_TRUE_MIN, -DBL_MAX}), DBL_TRUE_MIN);
  EXPECT_EQ(sum_of({DBL_MAX, DBL_MAX, -DBL_MAX}), DBL_MAX);
  EXPECT_EQ(sum_of({-DBL_MAX, -DBL_MAX, DBL_MAX}), -DBL_MAX);
  EXPECT_EQ(sum_of({1, 1e100, 1, -1e100}), 2);
  EXPECT_EQ(sum_of({0.1, 0.2, -0.3}), 0x1p-55);  // Python: math.fsum
}

TEST(ExactSum, HandlesSubnormals) {
  EXPECT_EQ(sum_of({DBL_TRUE_MIN, DBL_TRUE_MIN}), 2 * DBL_TRUE_MIN);
  EXPECT_EQ(sum_of({DBL_MIN, -DBL_TRUE_MIN}), std::nextafter(DBL_MIN, 0));
  EXPECT_EQ(sum_of({-DBL_TRUE_MIN}), -DBL_TRUE_MIN);
  EXPECT_EQ(sum_of({0x1.8p-1060, -0x1p-1060}), 0x1p-1061);
}

TEST(ExactSum, RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(sum_of({1, 0x1p-53}), 1);                          // a tie: down to even
  EXPECT_EQ(sum_of({1 + 0x1p-52, 0x1p-53}), 1 + 0x1p-51);      // a tie: up to even
  EXPECT_EQ(sum_of({1, 0x1p-53, DBL_TRUE_MIN}), 1 + 0x1p-52);  // above the tie, by the least there is
  EXPECT_EQ(sum_of({1, 0x1p-53, -DBL_TRUE_MIN}), 1);           // below
  EXPECT_EQ(sum_of({-1, -0x1p-53, -0x1p-200}), -1 - 0x1p-52);
  EXPECT_EQ(sum_of({0x1p52, 0.5, 0x1p-40}), 0x1p52 + 1);  // limbs added one by one round twice here
  EXPECT_EQ(sum_of({0x1.fffffffffffffp0, 0x1p-53}), 2);   // the mantissa overflows
  EXPECT_EQ(sum_of({DBL_MAX, 0x1p969}), DBL_MAX);         // under half a unit
  EXPECT_EQ(sum_of({DBL_MAX, 0x1p970}), HUGE_VAL);        // a tie at the end of the range
  EXPECT_EQ(sum_of({-DBL_MAX, -DBL_MAX}), -HUGE_VAL);
}

TEST(ExactSum, AgreesWithIntegerArithmetic) {
  std::mt19937_64 engine(3);
  for (int trial = 0; trial < 2000; ++trial) {
    ExactSum sum;
    Int128 exact = 0;
    const int n = 1 + trial % 50;
    for (int i = 0; i < n; ++i) {
      const int shift = static_cast<int>(engine() % 60);
      const auto mantissa = static_cast<std::int64_t>(engine() >> 12) * ((engine() & 1) != 0 ? 1 : -1);
      sum.add(std::ldexp(static_cast<double>(mantissa), shift - 700));
      exact += static_cast<Int128>(mantissa) * (Int128{1} << shift);
    }
    ASSERT_EQ(bits(sum.value()), bits(std::ldexp(static_cast<double>(exact), -700))) << "trial " << trial;
  }
}

// The remainder, sum - value, is exact in another accumulator: at most half a unit of the value's last place.
TEST(ExactSum, IsTheNearestDoubleForWildTerms) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    ExactSum sum;
    const bool wild = seed % 3 == 0;
    for (const double term : wild_terms(40, seed, wild ? -1074 : -60, wild ? 1000 : 60)) sum.add(term);
    const double value = sum.value();
    ASSERT_TRUE(std::isfinite(value));
    for (const double neighbour : {std::nextafter(value, -HUGE_VAL), std::nextafter(value, HUGE_VAL)}) {
      ExactSum here = sum, there = sum;
      here.add(-value);
      there.add(-neighbour);
      EXPECT_LE(std::fabs(here.value()), std::fabs(there.value()));
    }
  }
}

TEST(ExactSum, HasTheSameBitsInEveryOrder) {
  std::vector<double> terms = wild_terms(500, 7);
  const std::uint64_t expected = bits(sum_of(terms));
  std::mt19937_64 engine(1);
  for (int trial = 0; trial < 20; ++trial) {
    std::shuffle(terms.begin(), terms.end(), engine);
    EXPECT_EQ(bits(sum_of(terms)), expected);
    ExactSum parts[4], all;
    for (const double term : terms) parts[engine() % 4].add(term);
    for (const ExactSum& part : parts) all.add(part);
    EXPECT_EQ(bits(all.value()), expected);
  }
}

TEST(ExactSum, CarriesThroughVeryManyTerms) {
  ExactSum sum;
  sum.add(DBL_MAX);
  sum.add(-DBL_TRUE_MIN);
  for (int i = 0; i < 45; ++i) sum.add(ExactSum(sum));  // 2^45 times
  EXPECT_EQ(sum.value(), HUGE_VAL);
  ExactSum minus;
  minus.add(-DBL_MAX);
  for (int i = 0; i < 45; ++i) minus.add(ExactSum(minus));
  sum.add(minus);
  EXPECT_EQ(sum.value(), -std::ldexp(DBL_TRUE_MIN, 45));
  ExactSum ones;
  for (int i = 0; i < 3000000; ++i) ones.add(0.1);
  EXPECT_EQ(ones.value(), 300000);  // Python: math.fsum([0.1] * 3000000)
}

TEST(ExactSum, IsNaNAfterATermThatIsNotFinite) {
  EXPECT_TRUE(std::isnan(sum_of({1, std::numeric_limits<double>::quiet_NaN()})));
  EXPECT_TRUE(std::isnan(sum_of({HUGE_VAL})));
  EXPECT_TRUE(std::isnan(sum_of({HUGE_VAL, -HUGE_VAL, 1})));
  ExactSum bad, good;
  bad.add(HUGE_VAL);
  good.add(bad);
  EXPECT_TRUE(std::isnan(good.value()));
}

TEST(ExactSumOverRanks, HasTheSameBitsForEveryPartition) {
  const Communicator comm = Communicator::world();
  const std::vector<double> terms = wild_terms(300, 11), others = wild_terms(300, 12, -20, 20);
  const std::uint64_t expected[2] = {bits(sum_of(terms)), bits(sum_of(others))};
  for (int partition = 0; partition < 5; ++partition) {
    std::vector<ExactSum> sums(2);
    for (std::size_t i = 0; i < terms.size(); ++i) {
      // 0: contiguous; 1: dealt out; 2: all on the last rank; 3, 4: scattered
      const std::size_t ranks = static_cast<std::size_t>(comm.size());
      const std::size_t owner = partition == 0   ? i * ranks / terms.size()
                                : partition == 1 ? i % ranks
                                : partition == 2 ? ranks - 1
                                                 : (i * i + static_cast<std::size_t>(partition)) % ranks;
      if (owner != static_cast<std::size_t>(comm.rank())) continue;
      sums[0].add(terms[i]);
      sums[1].add(others[i]);
    }
    const std::vector<double> values = exact_sum_over_ranks(comm, sums);
    ASSERT_EQ(values.size(), 2U);
    EXPECT_EQ(bits(values[0]), expected[0]) << "partition " << partition;
    EXPECT_EQ(bits(values[1]), expected[1]) << "partition " << partition;
  }
}

TEST(ExactSumOverRanks, CancelsAcrossRanks) {
  const Communicator comm = Communicator::world();
  std::vector<ExactSum> sums(1);
  if (comm.rank() == 0) sums[0].add(1e308);
  if (comm.rank() == comm.size() - 1) sums[0].add(-1e308);
  sums[0].add(1);
  EXPECT_EQ(exact_sum_over_ranks(comm, sums)[0], comm.size());
}

TEST(ExactSumOverRanks, SpreadsNaNAndTakesNoSumsAtAll) {
  const Communicator comm = Communicator::world();
  std::vector<ExactSum> sums(2);
  if (comm.rank() == comm.size() - 1) sums[1].add(HUGE_VAL);
  const std::vector<double> values = exact_sum_over_ranks(comm, sums);
  EXPECT_EQ(values[0], 0);
  EXPECT_TRUE(std::isnan(values[1]));
  EXPECT_TRUE(exact_sum_over_ranks(comm, {}).empty());
}

}  // namespace
}  // namespace umbriel
