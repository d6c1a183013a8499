/// The functions behind activations, for kernels that fuse them with other work.
///
/// std::exp is a call: a loop that makes it is not vectorised, and runs ten times slower than memory. So exponential
/// and logarithm are polynomials of our own, without branches and with explicit fused multiply-adds, so that no
/// compiler can round them differently: every backend gives the same bits. Relative errors are a few units in the last
/// place (tests/kernels/ops/test_activation.cpp states them). Arguments beyond the range of float32 give large or
/// small finite numbers; NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "umbriel/ops/activation.hpp"

namespace umbriel {
namespace detail {

/// e^x = scale (1 + rest), scale a power of two and |rest| < 0.42: x = k ln 2 + r, |r| <= ln 2 / 2, and rest = e^r - 1
/// as r + r^2 q(r), q fitted at Chebyshev nodes.
struct SplitExponential {
  float scale, rest;
};

KOKKOS_INLINE_FUNCTION SplitExponential split_exponential(float x) {
  // Comparisons in this order keep NaN. 2^-126 <= scale <= 2^127 holds within these bounds.
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the low bits.
  constexpr float rounder = 0x1.8p23f;
  const float shifted = math::fma(x, 1.44269504f, rounder);
  const float k = shifted - rounder;
  float r = math::fma(k, -0x1.62e43p-1f, x);  // exact: ln 2 to 24 bits, then the rest
  r = math::fma(k, 0x1.05c61p-29f, r);
  float q = math::fma(r, 0.00135233406f, 0.00836323288f);
  q = math::fma(r, q, 0.0416726157f);
  q = math::fma(r, q, 0.166665767f);
  q = math::fma(r, q, 0.499999818f);
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) + 127U;
  return {std::bit_cast<float>(exponent << 23), math::fma(r * r, q, r)};
}

/// e^x
KOKKOS_INLINE_FUNCTION float exponential(float x) {
  const auto [scale, rest] = split_exponential(x);
  return math::fma(scale, rest, scale);
}

/// e^x - 1, accurate near 0 too
KOKKOS_INLINE_FUNCTION float exponential_less_one(float x) {
  const auto [scale, rest] = split_exponential(x);
  return math::fma(scale, rest, scale - 1.0f);
}

/// ln(1 + t) for 0 <= t <= 1: 2 atanh(s), s = t / (2 + t) <= 1/3, as an odd polynomial.
KOKKOS_INLINE_FUNCTION float log_one_plus(float t) {
  const float s = t / (2.0f + t);
  const float s2 = s * s;
  float p = math::fma(s2, 0.26851498f, 0.282366198f);
  p = math::fma(s2, p, 0.400075606f);
  p = math::fma(s2, p, 0.666666403f);
  return math::fma(s * s2, p, s + s);
}

}  // namespace detail

/// 1 / (1 + e^-x)
KOKKOS_INLINE_FUNCTION float sigmoid(float x) { return 1.0f / (1.0f + detail::exponential(-x)); }

/// f(x)
template <Activation f>
KOKKOS_INLINE_FUNCTION float activated(float x) {
  if constexpr (f == Activation::relu) {
    return x < 0.0f ? 0.0f : x;
  } else if constexpr (f == Activation::elu) {
    const float below = detail::exponential_less_one(x);
    return x < 0.0f ? below : x;
  } else if constexpr (f == Activation::silu) {
    return x / (1.0f + detail::exponential(-x));
  } else if constexpr (f == Activation::softplus) {
    const float tail = detail::log_one_plus(detail::exponential(x < 0.0f ? x : -x));
    return x < 0.0f ? tail : x + tail;
  } else if constexpr (f == Activation::tanh) {
    const float e = detail::exponential_less_one(x + x);
    return e / (2.0f + e);
  } else {
    return x;
  }
}

/// f'(x), from f(x) where derivative_from_output(f), else from x.
template <Activation f>
KOKKOS_INLINE_FUNCTION float derivative(float kept) {
  if constexpr (f == Activation::relu) {
    return kept > 0.0f ? 1.0f : 0.0f;
  } else if constexpr (f == Activation::elu) {
    return kept < 0.0f ? kept + 1.0f : 1.0f;
  } else if constexpr (f == Activation::silu) {
    const float e = detail::exponential(-kept);
    const float s = 1.0f / (1.0f + e);
    return s * math::fma(kept, e * s, 1.0f);  // 1 - s = e s, without cancellation
  } else if constexpr (f == Activation::softplus) {
    return -detail::exponential_less_one(-kept);  // 1 - e^-y = sigmoid(x)
  } else if constexpr (f == Activation::tanh) {
    return math::fma(-kept, kept, 1.0f);
  } else {
    return 1.0f;
  }
}

/// f(x) where f is known only at run time.
KOKKOS_INLINE_FUNCTION float activation_value(Activation f, float x) {
  switch (f) {
    case Activation::relu:
      return activated<Activation::relu>(x);
    case Activation::elu:
      return activated<Activation::elu>(x);
    case Activation::silu:
      return activated<Activation::silu>(x);
    case Activation::softplus:
      return activated<Activation::softplus>(x);
    case Activation::tanh:
      return activated<Activation::tanh>(x);
    case Activation::none:
      break;
  }
  return x;
}

/// Calls action(std::integral_constant<Activation, f>()), so that a kernel is compiled for each activation and its
/// loop holds no switch: `with_activation(f, [&](auto constant) { run<constant()>(...); })`.
template <class Action>
void with_activation(Activation f, const Action& action) {
  switch (f) {
    case Activation::none:
      return action(std::integral_constant<Activation, Activation::none>());
    case Activation::relu:
      return action(std::integral_constant<Activation, Activation::relu>());
    case Activation::elu:
      return action(std::integral_constant<Activation, Activation::elu>());
    case Activation::silu:
      return action(std::integral_constant<Activation, Activation::silu>());
    case Activation::softplus:
      return action(std::integral_constant<Activation, Activation::softplus>());
    case Activation::tanh:
      return action(std::integral_constant<Activation, Activation::tanh>());
  }
}

}  // namespace umbriel
