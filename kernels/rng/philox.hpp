/// Random draws as pure functions of their address.
///
/// Generator: Philox4x32-10 (Salmon et al. 2011, SC'11), from Random123. The key is the user's seed; the counter is
/// the address of the draw: (element / 4, step, chain, purpose). Nothing depends on rank, thread, batch or time.
///
/// Normals: Box-Muller in float32 on polynomials of our own, written with explicit fused multiply-adds so that no
/// compiler can round them differently: every backend gives the same bits.
#pragma once

#include <cstdint>

// Random123 writes its own warnings off only for some compilers; we include it as a system header.
#include <Random123/philox.h>

#include "umbriel/core/kokkos.hpp"

namespace umbriel {

/// What a draw is for: two purposes never share a stream. Numbers are part of the file format (a resumed run must draw
/// the same); add at the end, never renumber.
enum class Purpose : std::uint32_t {
  test = 0,
  simulation_field = 1,    ///< Gaussian field under a simulated map
  survey_noise = 2,        ///< shape noise of a mock survey
  survey_mask = 3,         ///< holes of a mock mask
  chain_start = 4,         ///< initial state of a super-chain
  momentum = 5,            ///< HMC momenta
  trajectory = 6,          ///< jitter of step size and of length
  acceptance = 7,          ///< Metropolis test
  tempering = 8,           ///< test before cooling ("paper" mode)
  realisation_prior = 9,   ///< prior part of a constrained realisation
  realisation_noise = 10,  ///< noise part of a constrained realisation
  galaxy_positions = 11,   ///< mock catalogues
  galaxy_shapes = 12,      ///< intrinsic ellipticities of mock catalogues
  bootstrap = 13,          ///< resampling in diagnostics
  weights = 14,            ///< initial values of a network
  training_order = 15,     ///< which sample a training step takes
  training_noise = 16,     ///< noise added to training samples, and latent draws
  augmentation = 17,       ///< flips, turns and shifts of training samples
  power_iteration = 18,    ///< first vector of spectral normalisation
  mock_field = 19,         ///< random fields of made-up training data
  latent = 20,             ///< latent variables of generated maps
  tuning = 21,             ///< points of a search for hyper-parameters
  map_parameters = 22,     ///< parameters drawn for each map of a series
  amplitude_fit = 23,      ///< simulated data that an amplitude is fitted with
};

/// Address of a stream of elements.
struct DrawKey {
  std::uint64_t seed = 0;
  Purpose purpose = Purpose::test;
  std::uint32_t chain = 0;  ///< chain or sample index, global over all ranks
  std::uint32_t step = 0;
};

/// Four 32-bit words of the stream: elements 4 * block ... 4 * block + 3.
KOKKOS_INLINE_FUNCTION r123::Philox4x32::ctr_type random_words(const DrawKey& key, std::uint32_t block) {
  philox4x32_ctr_t counter = {{block, key.step, key.chain, static_cast<std::uint32_t>(key.purpose)}};
  philox4x32_key_t words = {{static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)}};
  philox4x32_ctr_t out = philox4x32_R(10, counter, words);
  r123::Philox4x32::ctr_type result;
  for (int i = 0; i < 4; ++i) result[i] = out.v[i];
  return result;
}

/// Uniform in (0, 1) with 32 bits, in float64: never 0 or 1.
KOKKOS_INLINE_FUNCTION double to_uniform(std::uint32_t word) { return (word + 0.5) * 0x1p-32; }

/// Element `element` of the stream as a uniform in (0, 1).
KOKKOS_INLINE_FUNCTION double uniform(const DrawKey& key, std::uint64_t element) {
  return to_uniform(random_words(key, static_cast<std::uint32_t>(element / 4))[element % 4]);
}

namespace detail {

/// ln(x) for normal positive x, relative error below 2e-7. x = 2^e m with m in [sqrt(1/2), sqrt(2)), then
/// ln m = 2 atanh(s), s = (m - 1)/(m + 1), as an odd polynomial.
KOKKOS_INLINE_FUNCTION float log_positive(float x) {
  std::uint32_t bits;
  static_assert(sizeof bits == sizeof x);
#if defined(__CUDA_ARCH__)
  bits = __float_as_uint(x);
#else
  __builtin_memcpy(&bits, &x, sizeof bits);
#endif
  const std::uint32_t shifted = bits - 0x3f3504f3U;  // sqrt(1/2)
  const std::int32_t exponent = static_cast<std::int32_t>(shifted) >> 23;
  const std::uint32_t mantissa_bits = (shifted & 0x007fffffU) + 0x3f3504f3U;
  float m;
#if defined(__CUDA_ARCH__)
  m = __uint_as_float(mantissa_bits);
#else
  __builtin_memcpy(&m, &mantissa_bits, sizeof m);
#endif
  const float s = (m - 1.0f) / (m + 1.0f);
  const float s2 = s * s;
  float p = math::fma(s2, 0.23f, 0.28571430f);
  p = math::fma(s2, p, 0.4f);
  p = math::fma(s2, p, 0.66666667f);
  const float tail = s * s2;
  const float log_m = math::fma(tail, p, s + s);
  return math::fma(static_cast<float>(exponent), 0.69314718f, log_m);
}

/// cos and sin of 2 pi u for u in [0, 1), absolute error below 2e-7. u is reduced to an eighth of a turn exactly.
KOKKOS_INLINE_FUNCTION void cos_sin_turn(float u, float& cosine, float& sine) {
  const float quarter = 4.0f * u;
  const int q = static_cast<int>(quarter + 0.5f);   // nearest quarter turn, 0 ... 4
  const float r = quarter - static_cast<float>(q);  // exact, in [-1/2, 1/2]
  const float a = r * 1.57079633f;
  const float a2 = a * a;
  float s = math::fma(a2, 2.7557319e-6f, -1.9841270e-4f);
  s = math::fma(a2, s, 8.3333333e-3f);
  s = math::fma(a2, s, -1.6666667e-1f);
  const float a3 = a * a2;
  s = math::fma(a3, s, a);
  float c = math::fma(a2, -2.7557319e-7f, 2.4801587e-5f);
  c = math::fma(a2, c, -1.3888889e-3f);
  c = math::fma(a2, c, 4.1666667e-2f);
  c = math::fma(a2, c, -0.5f);
  c = math::fma(a2, c, 1.0f);
  const bool swap = (q & 1) != 0;
  const float base_cos = swap ? s : c;
  const float base_sin = swap ? c : s;
  cosine = ((q + 1) & 2) != 0 ? -base_cos : base_cos;
  sine = (q & 2) != 0 ? -base_sin : base_sin;
}

/// Two independent normals from two words.
KOKKOS_INLINE_FUNCTION void box_muller(std::uint32_t a, std::uint32_t b, float& first, float& second) {
  // (a + 1/2) 2^-32 in (0, 1]: the largest normal is sqrt(2 ln 2^33) = 6.76.
  const float u = math::fma(static_cast<float>(a), 0x1p-32f, 0x1p-33f);
  const float radius = math::sqrt(-2.0f * log_positive(u < 1.0f ? u : 1.0f));
  float cosine, sine;
  cos_sin_turn(static_cast<float>(b >> 8) * 0x1p-24f, cosine, sine);
  first = radius * cosine;
  second = radius * sine;
}

}  // namespace detail

/// Elements 4 * block ... 4 * block + 3 of the stream as standard normals.
KOKKOS_INLINE_FUNCTION void normals(const DrawKey& key, std::uint32_t block, float out[4]) {
  const auto words = random_words(key, block);
  detail::box_muller(words[0], words[1], out[0], out[1]);
  detail::box_muller(words[2], words[3], out[2], out[3]);
}

/// One standard normal of the stream.
KOKKOS_INLINE_FUNCTION float normal(const DrawKey& key, std::uint64_t element) {
  float four[4];
  normals(key, static_cast<std::uint32_t>(element / 4), four);
  return four[element % 4];
}

}  // namespace umbriel
