// Normalisations against plain float64 loops, and their gradients against finite differences of those.
#include "umbriel/ops/normalization.hpp"

#include "reference_activation.hpp"
#include "support.hpp"

namespace umbriel {
namespace {

using testing::describe;
using testing::expect_near;
using testing::Field;
using testing::random;
using testing::Reference;
using testing::reference_activation;

constexpr Activation all[] = {Activation::none, Activation::relu,     Activation::elu,
                              Activation::silu, Activation::softplus, Activation::tanh};
constexpr double epsilon = 1e-3;

std::vector<double> vector(int count, std::uint32_t stream, double mean = 0) {
  return random({1, 1, 1, count}, stream, mean).values;
}

/// Mean and 1 / sqrt(variance + epsilon) over samples [first, last) and channels [c0, c1).
std::pair<double, double> moments(const Reference& x, int first, int last, int c0, int c1) {
  double sum = 0, squares = 0, count = 0;
  const auto each = [&](const auto& f) {
    for (int n = first; n < last; ++n) {
      for (int y = 0; y < x.extents.h; ++y) {
        for (int i = 0; i < x.extents.w; ++i) {
          for (int c = c0; c < c1; ++c) f(x(n, y, i, c));
        }
      }
    }
  };
  each([&](double value) { sum += value, ++count; });
  each([&](double value) { squares += (value - sum / count) * (value - sum / count); });
  return {sum / count, 1 / std::sqrt(squares / count + epsilon)};
}

TEST(ChannelMoments, EqualFloat64Sums) {
  for (const auto& shape : testing::shapes()) {
    const Extents e = shape.extents;
    const Reference x = random(e, 1, 3);
    const auto channels = static_cast<std::size_t>(e.c);
    const View1<float> shift = testing::upload<float>(vector(e.c, 2, 3));
    const std::vector<double> shifts = testing::download(shift);
    for (const bool shifted : {false, true}) {
      std::vector<double> expected(2 * channels);
      x.for_each([&](int n, int y, int i, int c) {
        const auto k = static_cast<std::size_t>(c);
        const double value = x(n, y, i, c) - (shifted ? shifts[k] : 0);
        expected[k] += value;
        expected[channels + k] += value * value;
      });
      const View1<double> sums("sums", 2 * channels), dense_sums("sums", 2 * channels);
      const Field in(x, shape.wider), dense(x);
      channel_moments(Space(), in.slice, shifted ? shift.data() : nullptr, sums);
      expect_near(testing::download(sums), expected, 1e-12, describe(shape));
      channel_moments(Space(), dense.slice, shifted ? shift.data() : nullptr, dense_sums);
      testing::expect_same_bits(testing::download(sums), testing::download(dense_sums), describe(shape));
    }
  }
}

TEST(ScaleShift, IsAnAffineMapOfEachChannel) {
  for (const auto& shape : testing::shapes()) {
    const Extents e = shape.extents;
    const Reference x = random(e, 1), residual = random(e, 4);
    const View1<float> scale = testing::upload<float>(vector(e.c, 2, 1)),
                       shift = testing::upload<float>(vector(e.c, 3));
    const std::vector<double> scales = testing::download(scale), shifts = testing::download(shift);
    const Field in(x, shape.wider), beside(residual, shape.wider / 2), out(e, shape.wider);
    for (const Activation f : all) {
      for (const bool adds : {false, true}) {
        Reference expected(e);
        expected.for_each([&](int n, int y, int i, int c) {
          const auto k = static_cast<std::size_t>(c);
          const double z = x(n, y, i, c) * scales[k] + shifts[k] + (adds ? residual(n, y, i, c) : 0);
          expected(n, y, i, c) = reference_activation(f, z);
        });
        scale_shift(Space(), in.slice, scale.data(), shift.data(), adds ? beside.slice : Activations(), f, out.slice);
        expect_near(out, expected, 2e-6, describe(shape));
      }
    }
  }
}

TEST(BatchNormBackward, IsTheGradient) {
  for (const Activation f : all) {
    for (const int channels : {3, 70}) {
      const Extents e{2, 3, 3, channels};
      Reference x = random(e, 1, 0.5), residual = random(e, 2);
      if (f == Activation::silu) residual.values.assign(residual.values.size(), 0);
      const Reference dy = random(e, 3), before = random(e, 4);
      std::vector<double> gamma = vector(channels, 5, 1), beta = vector(channels, 6);
      const auto forward = [&] {
        Reference y(e);
        for (int c = 0; c < channels; ++c) {
          const auto [mean, rstd] = moments(x, 0, e.n, c, c + 1);
          const auto k = static_cast<std::size_t>(c);
          for (int n = 0; n < e.n; ++n) {
            for (int j = 0; j < e.h; ++j) {
              for (int i = 0; i < e.w; ++i) {
                y(n, j, i, c) =
                    reference_activation(f, (x(n, j, i, c) - mean) * rstd * gamma[k] + beta[k] + residual(n, j, i, c));
              }
            }
          }
        }
        return y;
      };
      const auto loss = [&] { return testing::dot(forward().values, dy.values); };
      Reference dx(e);
      dx.values = testing::finite_differences(x.values, loss);
      const std::vector<double> dgamma = testing::finite_differences(gamma, loss);
      const std::vector<double> dbeta = testing::finite_differences(beta, loss);

      std::vector<double> mean, rstd, scale, shift;
      for (int c = 0; c < channels; ++c) {
        const auto k = static_cast<std::size_t>(c);
        const auto [m, r] = moments(x, 0, e.n, c, c + 1);
        mean.push_back(m);
        rstd.push_back(r);
        scale.push_back(gamma[k] * r);
        shift.push_back(beta[k] - m * gamma[k] * r);
      }
      const View1<float> means = testing::upload<float>(mean), rstds = testing::upload<float>(rstd),
                         scales = testing::upload<float>(scale), shifts = testing::upload<float>(shift);
      for (const int wider : {0, 3}) {
        for (const bool accumulate : {false, true}) {
          const Field in(x, wider), out(forward(), wider), upper(dy, wider), lower(before, wider);
          const View1<double> sums("sums", 2 * channels);
          // dz takes the place of dy.
          batch_norm_backward_sums(Space(), in.slice, out.slice, upper.slice, means.data(), rstds.data(), scales.data(),
                                   shifts.data(), f, upper.slice, sums);
          EXPECT_TRUE(upper.neighbours_untouched());
          const std::vector<double> both = testing::download(sums);
          expect_near({both.begin(), both.begin() + channels}, dbeta, 3e-6, "dbeta");
          expect_near({both.begin() + channels, both.end()}, dgamma, 3e-6, "dgamma");
          batch_norm_backward_data(Space(), in.slice, upper.slice, means.data(), rstds.data(), scales.data(), sums,
                                   static_cast<double>(e.pixels()), lower.slice, accumulate);
          Reference expected = dx;
          for (std::size_t i = 0; accumulate && i < expected.values.size(); ++i) expected.values[i] += before.values[i];
          expect_near(lower, expected, 5e-6, std::string("dx of ").append(name_of(f)));
        }
      }
    }
  }
}

struct Case {
  Extents extents;
  int groups;
};
constexpr Case cases[] = {{{2, 3, 4, 6}, 3}, {{3, 4, 3, 4}, 1}, {{2, 2, 3, 5}, 5}, {{1, 2, 2, 66}, 2}};

Reference group_norm_reference(const Reference& x, int groups, const std::vector<double>& gamma,
                               const std::vector<double>& beta, Activation f) {
  Reference y(x.extents);
  const int size = x.extents.c / groups;
  for (int n = 0; n < x.extents.n; ++n) {
    for (int g = 0; g < groups; ++g) {
      const auto [mean, rstd] = moments(x, n, n + 1, g * size, (g + 1) * size);
      for (int j = 0; j < x.extents.h; ++j) {
        for (int i = 0; i < x.extents.w; ++i) {
          for (int c = g * size; c < (g + 1) * size; ++c) {
            const auto k = static_cast<std::size_t>(c);
            y(n, j, i, c) = reference_activation(f, (x(n, j, i, c) - mean) * rstd * gamma[k] + beta[k]);
          }
        }
      }
    }
  }
  return y;
}

TEST(GroupNorm, NormalisesEachGroupOfEachSample) {
  for (const Case& test : {cases[0], cases[1], cases[2], cases[3], Case{{2, 31, 29, 16}, 4}, {{2, 5, 7, 257}, 1}}) {
    const Extents e = test.extents;
    const Reference x = random(e, 1, 2);
    const std::vector<double> gamma = vector(e.c, 2, 1), beta = vector(e.c, 3);
    const View1<float> gains = testing::upload<float>(gamma), offsets = testing::upload<float>(beta);
    for (const int wider : {0, 3}) {
      for (const Activation f : all) {
        const Field in(x, wider), out(e, wider);
        const View3<float> kept("moments", e.n, test.groups, 2);
        group_norm(Space(), in.slice, test.groups, static_cast<float>(epsilon), gains.data(), offsets.data(), f,
                   out.slice, kept);
        expect_near(out, group_norm_reference(x, test.groups, gamma, beta, f), 2e-6, describe({e, wider}));
      }
    }
  }
}

TEST(GroupNormBackward, IsTheGradient) {
  for (const Case& test : cases) {
    const Extents e = test.extents;
    for (const Activation f : all) {
      Reference x = random(e, 1, 0.5);
      const Reference dy = random(e, 2), before = random(e, 3);
      std::vector<double> gamma = vector(e.c, 4, 1), beta = vector(e.c, 5);
      const auto loss = [&] {
        return testing::dot(group_norm_reference(x, test.groups, gamma, beta, f).values, dy.values);
      };
      Reference dx(e);
      dx.values = testing::finite_differences(x.values, loss);
      const std::vector<double> dgamma = testing::finite_differences(gamma, loss);
      const std::vector<double> dbeta = testing::finite_differences(beta, loss);
      const View1<float> gains = testing::upload<float>(gamma), offsets = testing::upload<float>(beta),
                         to_gamma("dgamma", e.c), to_beta("dbeta", e.c);
      const View3<float> kept("moments", e.n, test.groups, 2);
      const View3<double> scratch("scratch", e.n, e.c, 2);
      for (const int wider : {0, 3}) {
        for (const bool accumulate : {false, true}) {
          const Field in(x, wider), out(e, wider), upper(dy, wider), lower(before, wider);
          group_norm(Space(), in.slice, test.groups, static_cast<float>(epsilon), gains.data(), offsets.data(), f,
                     out.slice, kept);
          group_norm_backward(Space(), in.slice, upper.slice, test.groups, gains.data(), offsets.data(), f, kept,
                              lower.slice, accumulate, to_gamma.data(), to_beta.data(), scratch);
          Reference expected = dx;
          for (std::size_t i = 0; accumulate && i < expected.values.size(); ++i) expected.values[i] += before.values[i];
          const std::string what = std::string(name_of(f)).append(describe({e, wider}));
          expect_near(lower, expected, 5e-6, what);
          expect_near(testing::download(to_gamma), dgamma, 3e-6, what);
          expect_near(testing::download(to_beta), dbeta, 3e-6, what);
        }
      }
    }
  }
}

Reference channel_norm_reference(const Reference& x, const std::vector<double>& gamma,
                                 const std::vector<double>& beta) {
  Reference y(x.extents);
  for (int n = 0; n < x.extents.n; ++n) {
    for (int j = 0; j < x.extents.h; ++j) {
      for (int i = 0; i < x.extents.w; ++i) {
        Reference pixel({1, 1, 1, x.extents.c});
        for (int c = 0; c < x.extents.c; ++c) pixel(0, 0, 0, c) = x(n, j, i, c);
        const auto [mean, rstd] = moments(pixel, 0, 1, 0, x.extents.c);
        for (int c = 0; c < x.extents.c; ++c) {
          const auto k = static_cast<std::size_t>(c);
          y(n, j, i, c) = (x(n, j, i, c) - mean) * rstd * gamma[k] + beta[k];
        }
      }
    }
  }
  return y;
}

TEST(ChannelNorm, NormalisesTheChannelsOfEachPixelAndHasTheRightGradient) {
  for (const Extents& e : {Extents{2, 3, 4, 6}, {3, 4, 3, 4}, {1, 2, 2, 66}, {1, 2, 3, 2}}) {
    Reference x = random(e, 1, 0.5);
    const Reference dy = random(e, 2), before = random(e, 3);
    std::vector<double> gamma = vector(e.c, 4, 1), beta = vector(e.c, 5);
    const auto loss = [&] { return testing::dot(channel_norm_reference(x, gamma, beta).values, dy.values); };
    Reference dx(e);
    dx.values = testing::finite_differences(x.values, loss);
    const std::vector<double> dgamma = testing::finite_differences(gamma, loss);
    const std::vector<double> dbeta = testing::finite_differences(beta, loss);
    const View1<float> gains = testing::upload<float>(gamma), offsets = testing::upload<float>(beta),
                       to_gamma("dgamma", e.c), to_beta("dbeta", e.c);
    const auto narrow = static_cast<float>(epsilon);
    for (const int wider : {0, 3}) {
      for (const bool accumulate : {false, true}) {
        const Field in(x, wider), out(e, wider), upper(dy, wider), lower(before, wider), scratch(e, wider);
        channel_norm(Space(), in.slice, narrow, gains.data(), offsets.data(), out.slice);
        expect_near(out, channel_norm_reference(x, gamma, beta), 2e-6, describe({e, wider}));
        // The gradient may take the place of dy.
        const Activations target = accumulate ? lower.slice : upper.slice;
        channel_norm_backward(Space(), in.slice, upper.slice, narrow, gains.data(), target, accumulate, to_gamma.data(),
                              to_beta.data(), scratch.slice);
        Reference expected = dx;
        for (std::size_t i = 0; accumulate && i < expected.values.size(); ++i) expected.values[i] += before.values[i];
        expect_near(accumulate ? lower : upper, expected, 1e-5, describe({e, wider}));
        expect_near(testing::download(to_gamma), dgamma, 3e-6, describe({e, wider}));
        expect_near(testing::download(to_beta), dbeta, 3e-6, describe({e, wider}));
      }
    }
  }
}

TEST(GroupNorm, DoesNotDependOnTheBatch) {
  for (const Extents& e : {Extents{3, 23, 19, 12}, {3, 130, 131, 4}, {2, 5, 7, 130}}) {
    const Reference x = random(e, 1, 1), dy = random(e, 2);
    const View1<float> gamma = testing::upload<float>(vector(e.c, 3, 1)), beta = testing::upload<float>(vector(e.c, 4)),
                       unused("unused", e.c);
    const auto run = [&](const Reference& in, const Reference& upper_in) {
      const Field values(in), out(in.extents), upper(upper_in), lower(in.extents);
      const View3<float> kept("moments", in.extents.n, 2, 2);
      group_norm(Space(), values.slice, 2, 1e-5f, gamma.data(), beta.data(), Activation::silu, out.slice, kept);
      group_norm_backward(Space(), values.slice, upper.slice, 2, gamma.data(), beta.data(), Activation::silu, kept,
                          lower.slice, false, unused.data(), unused.data(),
                          View3<double>("scratch", in.extents.n, e.c, 2));
      return std::pair(out.read(), lower.read());
    };
    const auto [out, lower] = run(x, dy);
    for (int n = 0; n < e.n; ++n) {
      const auto [out_alone, lower_alone] = run(x.samples(n, 1), dy.samples(n, 1));
      testing::expect_same_bits(out_alone.values, out.samples(n, 1).values, "forward");
      testing::expect_same_bits(lower_alone.values, lower.samples(n, 1).values, "backward");
    }
  }
}

TEST(GroupNorm, RefusesGroupsThatDoNotDivideTheChannels) {
  const Extents e{1, 2, 2, 6};
  const Field x(e);
  const View1<float> gamma("gamma", 6), beta("beta", 6);
  EXPECT_THROW(group_norm(Space(), x.slice, 4, 1e-5f, gamma.data(), beta.data(), Activation::none, x.slice,
                          View3<float>("moments", 1, 4, 2)),
               Error);
}

}  // namespace
}  // namespace umbriel
