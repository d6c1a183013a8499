// Activations against the standard library in float64, to a few units in the last place, and gradients against finite
// differences.
#include "umbriel/ops/activation.hpp"

#include <limits>

#include "reference_activation.hpp"
#include "support.hpp"
#include "umbriel/ops/activation_math.hpp"

namespace umbriel {
namespace {

using testing::Field;
using testing::Reference;

constexpr Activation all[] = {Activation::none, Activation::relu,     Activation::elu,
                              Activation::silu, Activation::softplus, Activation::tanh};

TEST(ActivationMath, IsAccurateToAFewUnitsInTheLastPlace) {
  for (const Activation f : all) {
    double worst = 0;
    const auto check = [&](float x) {
      const double expected = testing::reference_activation(f, static_cast<double>(x));
      if (expected == 0) {
        EXPECT_EQ(activation_value(f, x), 0);
      } else {
        worst = std::max(worst, std::fabs(static_cast<double>(activation_value(f, x)) / expected - 1));
      }
    };
    for (int i = -200000; i <= 200000; ++i) check(static_cast<float>(i) * 4e-4f);  // to +-80
    for (int i = 0; i < 60000; ++i) {                                              // to both sides of 0
      const float x = static_cast<float>(std::exp(-30 + 5e-4 * i));
      check(x);
      check(-x);
    }
    EXPECT_LT(worst, 2.5e-7) << name_of(f);
  }
  for (int i = -86000; i <= 86000; ++i) {
    const float x = static_cast<float>(i) * 1e-3f;
    ASSERT_NEAR(static_cast<double>(sigmoid(x)) * (1 + std::exp(-static_cast<double>(x))), 1, 2e-7) << x;
  }
}

TEST(ActivationMath, KeepsNanAndStaysFiniteFarOut) {
  for (const Activation f : all) {
    EXPECT_TRUE(std::isnan(activation_value(f, std::numeric_limits<float>::quiet_NaN()))) << name_of(f);
    EXPECT_TRUE(std::isfinite(activation_value(f, 1e30f))) << name_of(f);
    EXPECT_TRUE(std::isfinite(activation_value(f, -1e30f))) << name_of(f);
  }
  EXPECT_EQ(activation_value(Activation::tanh, 50), 1);
  EXPECT_EQ(activation_value(Activation::tanh, -50), -1);
  EXPECT_EQ(activation_value(Activation::silu, 100), 100);
  EXPECT_EQ(activation_value(Activation::elu, -50), -1);
  EXPECT_EQ(sigmoid(50), 1);
}

TEST(Activate, AppliesTheFunctionToEveryElement) {
  for (const auto& shape : testing::shapes()) {
    const Reference x = testing::random(shape.extents, 1);
    for (const Activation f : all) {
      Reference expected(shape.extents);
      for (std::size_t i = 0; i < x.values.size(); ++i)
        expected.values[i] = testing::reference_activation(f, x.values[i]);
      const Field in(x, shape.wider), out(shape.extents, shape.wider / 2);
      activate(Space(), f, in.slice, out.slice);
      testing::expect_near(out, expected, 3e-7, testing::describe(shape));
      activate(Space(), f, in.slice, in.slice);
      testing::expect_same_bits(in.read().values, out.read().values, "in place");
    }
  }
}

TEST(ActivateBackward, IsTheGradient) {
  for (const auto& shape : testing::shapes()) {
    const Reference x = testing::random(shape.extents, 1), dy = testing::random(shape.extents, 2),
                    before = testing::random(shape.extents, 3);
    for (const Activation f : all) {
      Reference gradient(shape.extents), sum(shape.extents);
      for (std::size_t i = 0; i < x.values.size(); ++i) {
        constexpr double h = 1e-6;
        const double slope =
            (testing::reference_activation(f, x.values[i] + h) - testing::reference_activation(f, x.values[i] - h)) /
            (2 * h);
        gradient.values[i] = slope * dy.values[i];
        sum.values[i] = before.values[i] + gradient.values[i];
      }
      const Field in(x, shape.wider), out(shape.extents), upper(dy, shape.wider), lower(shape.extents, 3);
      activate(Space(), f, in.slice, out.slice);
      const ConstActivations kept = derivative_from_output(f) ? out.slice : in.slice;
      activate_backward(Space(), f, kept, upper.slice, lower.slice, false);
      testing::expect_near(lower, gradient, 1e-6, std::string(name_of(f)).append(testing::describe(shape)));
      const Field added(before, shape.wider);
      activate_backward(Space(), f, kept, upper.slice, added.slice, true);
      testing::expect_near(added, sum, 1e-6, std::string(name_of(f)).append(" added"));
    }
  }
}

TEST(Activation, HasANameThatIsRead) {
  for (const Activation f : all) EXPECT_EQ(activation_named(name_of(f)), f);
  EXPECT_THROW(activation_named("swish"), Error);
}

TEST(Activate, RefusesOtherExtents) {
  const Field a(Extents{1, 4, 4, 2}), b(Extents{1, 4, 4, 3});
  EXPECT_THROW(activate(Space(), Activation::relu, a.slice, b.slice), Error);
}

}  // namespace
}  // namespace umbriel
