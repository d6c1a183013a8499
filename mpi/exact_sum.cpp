#include "umbriel/mpi/exact_sum.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace umbriel {

void ExactSum::add(double value) {
  if (!std::isfinite(value)) {
    ++not_finite_;
    return;
  }
  if (value == 0) return;
  int exponent = 0;
  const double fraction = std::frexp(std::fabs(value), &exponent);  // [1/2, 1) * 2^exponent
  const auto mantissa = static_cast<std::uint64_t>(std::ldexp(fraction, 53));
  int low_bit = exponent - 53 + 1074;  // position of the mantissa's lowest bit; >= 0 for normal numbers
  std::uint64_t bits = mantissa;
  if (low_bit < 0) {  // subnormal: the bits shifted out are zero
    bits >>= -low_bit;
    low_bit = 0;
  }
  const int first = low_bit / 32;
  const int shift = low_bit % 32;
  const std::uint64_t low = (bits & 0xffffffffU) << shift;  // < 2^63
  const std::uint64_t high = (bits >> 32) << shift;         // < 2^53
  const std::int64_t sign = value < 0 ? -1 : 1;
  limb_[first] += sign * static_cast<std::int64_t>(low & 0xffffffffU);
  limb_[first + 1] += sign * static_cast<std::int64_t>((low >> 32) + (high & 0xffffffffU));
  limb_[first + 2] += sign * static_cast<std::int64_t>(high >> 32);
  if (++pending_ == (std::int64_t{1} << 28)) carry();  // each addition adds less than 2^33 to a limb
}

void ExactSum::add(const ExactSum& other) {
  ExactSum term = other;
  term.carry();
  carry();
  for (int i = 0; i < limbs; ++i) limb_[i] += term.limb_[i];
  pending_ += 1;
  not_finite_ += term.not_finite_;
}

void ExactSum::carry() {
  for (int i = 0; i + 1 < limbs; ++i) {
    const std::int64_t over = limb_[i] >> 32;  // floor
    limb_[i] -= over * (std::int64_t{1} << 32);
    limb_[i + 1] += over;
  }
  pending_ = 0;
}

double ExactSum::value() const {
  if (not_finite_ != 0) return std::numeric_limits<double>::quiet_NaN();
  ExactSum sum = *this;
  sum.carry();
  // All limbs but the highest are now in [0, 2^32); a negative sum has a negative head.
  const bool negative = sum.limb_[limbs - 1] < 0;
  if (negative) {
    for (auto& limb : sum.limb_) limb = -limb;
    sum.carry();
  }
  int top = limbs - 1;
  while (top > 0 && sum.limb_[top] == 0) --top;
  const int highest = 32 * top + static_cast<int>(std::bit_width(static_cast<std::uint64_t>(sum.limb_[top]))) - 1;
  if (highest < 0) return 0;
  const auto bit = [&](int position) -> std::uint64_t {
    const int limb = std::min(position / 32, limbs - 1);  // the highest limb is longer than 32 bits
    return (static_cast<std::uint64_t>(sum.limb_[limb]) >> (position - 32 * limb)) & 1;
  };
  // The 53 highest bits, and to nearest, ties to even, by what lies below them.
  const int lowest = std::max(highest - 52, 0);
  std::uint64_t mantissa = 0;
  for (int position = highest; position >= lowest; --position) mantissa = mantissa << 1 | bit(position);
  if (lowest > 0 && bit(lowest - 1) != 0) {
    bool more = false;
    for (int position = lowest - 2; position >= 0 && !more; --position) more = bit(position) != 0;
    if (more || (mantissa & 1) != 0) ++mantissa;
  }
  const double total = std::ldexp(static_cast<double>(mantissa), lowest - 1074);
  return negative ? -total : total;
}

std::vector<double> exact_sum_over_ranks(const Communicator& comm, std::vector<ExactSum> sums) {
  constexpr std::size_t length = ExactSum::limbs + 1;
  std::vector<std::int64_t> all(sums.size() * length);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sums[i].carry();
    std::copy(sums[i].limb_.begin(), sums[i].limb_.end(), all.begin() + i * length);
    all[i * length + ExactSum::limbs] = sums[i].not_finite_;
  }
  comm.sum(all.data(), all.size());
  std::vector<double> values(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    std::copy_n(all.begin() + i * length, ExactSum::limbs, sums[i].limb_.begin());
    sums[i].not_finite_ = all[i * length + ExactSum::limbs];
    values[i] = sums[i].value();
  }
  return values;
}

}  // namespace umbriel
