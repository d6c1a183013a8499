/// Pointwise nonlinearities and their derivatives.
#pragma once

#include <string>

#include "umbriel/ops/activations.hpp"

namespace umbriel {

/// none: x; relu: max(x, 0); elu: x or e^x - 1 below 0; silu: x / (1 + e^-x); softplus: ln(1 + e^x); tanh.
enum class Activation { none, relu, elu, silu, softplus, tanh };

/// @throws Error(usage) unless `name` is one of the above
Activation activation_named(const std::string& name);
const char* name_of(Activation activation);

/// True where the derivative follows from the output alone: a fused layer need not keep its input.
constexpr bool derivative_from_output(Activation activation) { return activation != Activation::silu; }

/// y = f(x); x and y may be one array.
void activate(const Space& space, Activation activation, ConstActivations x, Activations y);

/// dx = dy f'(x), or dx += with `accumulate`. `kept` is the output y where derivative_from_output, else the input x.
void activate_backward(const Space& space, Activation activation, ConstActivations kept, ConstActivations dy,
                       Activations dx, bool accumulate);

}  // namespace umbriel
