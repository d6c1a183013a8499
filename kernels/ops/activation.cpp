#include "umbriel/ops/activation.hpp"

#include "umbriel/ops/activation_math.hpp"
#include "umbriel/ops/pixel_loops.hpp"

namespace umbriel {
namespace {

constexpr const char* names[] = {"none", "relu", "elu", "silu", "softplus", "tanh"};

template <Activation f>
struct Activate {
  static constexpr int inputs = 1, coefficients = 0;
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float*) const { return activated<f>(x); }
};

template <Activation f>
struct ActivateBackward {
  static constexpr int inputs = 2, coefficients = 0;
  KOKKOS_INLINE_FUNCTION float operator()(float kept, float dy, float, const float*) const {
    return dy * derivative<f>(kept);
  }
};

}  // namespace

Activation activation_named(const std::string& name) {
  int i = 0;
  for (const char* known : names) {
    if (name == known) return static_cast<Activation>(i);
    ++i;
  }
  throw Error(ExitCode::usage, "there is no activation \"" + name + "\"", "",
              "take one of none, relu, elu, silu, softplus, tanh");
}

const char* name_of(Activation activation) { return names[static_cast<int>(activation)]; }

void activate(const Space& space, Activation activation, ConstActivations x, Activations y) {
  if (activation == Activation::none && x.data == y.data && x.pitch == y.pitch) return;
  with_activation(activation, [&](auto f) {
    detail::map_pixels("umbriel::activate", space, Activate<f()>{}, {x, {}, {}}, y);
  });
}

void activate_backward(const Space& space, Activation activation, ConstActivations kept, ConstActivations dy,
                       Activations dx, bool accumulate) {
  with_activation(activation, [&](auto f) {
    detail::map_pixels("umbriel::activate_backward", space, ActivateBackward<f()>{}, {kept, dy, {}}, dx, accumulate);
  });
}

}  // namespace umbriel
