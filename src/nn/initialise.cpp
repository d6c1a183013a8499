#include "umbriel/nn/initialise.hpp"

#include <array>
#include <cmath>
#include <utility>

#include "umbriel/rng/philox.hpp"

namespace umbriel::nn {
namespace {

constexpr std::array<std::pair<const char*, Initialisation>, 5> names = {
    {{"he-normal", Initialisation::he_normal},
     {"he-uniform", Initialisation::he_uniform},
     {"glorot-normal", Initialisation::glorot_normal},
     {"glorot-uniform", Initialisation::glorot_uniform},
     {"pytorch", Initialisation::pytorch}}};

bool is_weight(const Parameter& parameter) {
  return parameter.role == Role::convolution || parameter.role == Role::transposed_convolution ||
         parameter.role == Role::dense;
}

struct Fans {
  double in = 0, out = 0;
};

Fans fans_of(const Parameter& weight) {
  const double outputs = weight.shape.back();
  const double inputs = static_cast<double>(weight.size) / outputs;
  const double channels_in = weight.shape[weight.shape.size() - 2];
  return {inputs, inputs / channels_in * outputs};
}

void draw_uniform(const DrawKey& key, double bound, float* out, std::int64_t n) {
  for (std::int64_t e = 0; e < n; ++e)
    out[e] = static_cast<float>(bound * (2 * uniform(key, static_cast<std::uint64_t>(e)) - 1));
}

void draw_normal(const DrawKey& key, double deviation, float* out, std::int64_t n) {
  for (std::int64_t e = 0; e < n; ++e)
    out[e] = static_cast<float>(deviation) * normal(key, static_cast<std::uint64_t>(e));
}

void draw_weights(const DrawKey& key, Initialisation scheme, Fans fans, float* out, std::int64_t n) {
  switch (scheme) {
    case Initialisation::he_normal:
      return draw_normal(key, std::sqrt(2 / fans.in), out, n);
    case Initialisation::he_uniform:
      return draw_uniform(key, std::sqrt(6 / fans.in), out, n);
    case Initialisation::glorot_normal:
      return draw_normal(key, std::sqrt(2 / (fans.in + fans.out)), out, n);
    case Initialisation::glorot_uniform:
      return draw_uniform(key, std::sqrt(6 / (fans.in + fans.out)), out, n);
    case Initialisation::pytorch:
      return draw_uniform(key, 1 / std::sqrt(fans.in), out, n);
  }
}

/// The weight of the layer that a bias belongs to, or null.
const Parameter* weight_of(const ParameterSet& parameters, const Parameter& bias) {
  const std::string ending = "bias";
  if (!bias.name.ends_with(ending)) return nullptr;
  const std::string name = bias.name.substr(0, bias.name.size() - ending.size()).append("weight");
  for (const Parameter& parameter : parameters.parameters())
    if (parameter.name == name && is_weight(parameter)) return &parameter;
  return nullptr;
}

}  // namespace

Initialisation initialisation_named(const std::string& name) {
  std::string known;
  for (const auto& [word, scheme] : names) {
    if (name == word) return scheme;
    known.append(known.empty() ? "" : ", ").append(word);
  }
  throw Error(ExitCode::usage, "there is no such initialisation", name, std::string("use one of ").append(known));
}

void initialise(const ParameterSet& parameters, std::uint64_t seed, Initialisation scheme) {
  const View1<float> target = parameters.values();
  const auto values = Kokkos::create_mirror_view(HostMemory{}, target);
  Kokkos::deep_copy(values, 0.0f);
  const auto& list = parameters.parameters();
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Parameter& parameter = list[i];
    if (parameter.starts_at_zero) continue;
    const DrawKey key{seed, Purpose::weights, static_cast<std::uint32_t>(i), 0};
    float* out = values.data() + parameter.offset;
    if (is_weight(parameter)) {
      draw_weights(key, scheme, fans_of(parameter), out, parameter.size);
    } else if (parameter.role == Role::scale) {
      for (std::int64_t e = 0; e < parameter.size; ++e) out[e] = 1;
    } else if (parameter.role == Role::bias && scheme == Initialisation::pytorch) {
      if (const Parameter* weight = weight_of(parameters, parameter))
        draw_uniform(key, 1 / std::sqrt(fans_of(*weight).in), out, parameter.size);
    }
  }
  Kokkos::deep_copy(target, values);
}

}  // namespace umbriel::nn
