// Pointwise ops and sums against plain float64 loops.
#include "umbriel/ops/elementwise.hpp"

#include "support.hpp"

namespace umbriel {
namespace {

using testing::describe;
using testing::expect_near;
using testing::Field;
using testing::random;
using testing::Reference;

/// Runs `op(a, b, y, accumulate)` on dense and pitched arrays and expects f(a, b, n, c), or that added to y.
template <class Op, class F>
void check_pointwise(const Op& op, const F& f) {
  for (const auto& shape : testing::shapes()) {
    const Reference a = random(shape.extents, 1), b = random(shape.extents, 2), before = random(shape.extents, 3);
    for (const bool accumulate : {false, true}) {
      Reference expected = before;
      expected.for_each([&](int n, int y, int x, int c) {
        const double value = f(a(n, y, x, c), b(n, y, x, c), n, c);
        expected(n, y, x, c) = accumulate ? before(n, y, x, c) + value : value;
      });
      const Field in_a(a, shape.wider), in_b(b, shape.wider / 2), out(before, shape.wider);
      op(in_a.slice, in_b.slice, out.slice, accumulate);
      expect_near(out, expected, 3e-7, describe(shape));
    }
  }
}

TEST(Elementwise, SumsProductsAndCopies) {
  const Space space;
  check_pointwise([&](auto a, auto, auto y, bool add) { copy_channels(space, a, y, add); },
                  [](double a, double, int, int) { return a; });
  check_pointwise([&](auto a, auto b, auto y, bool add) { linear_combination(space, 0.5f, a, -3.0f, b, y, add); },
                  [](double a, double b, int, int) { return 0.5 * a - 3 * b; });
  check_pointwise([&](auto a, auto b, auto y, bool add) { multiply(space, a, b, y, add); },
                  [](double a, double b, int, int) { return a * b; });
  const View1<float> factor = testing::upload<float>({0.5, -2, 3, 0.25});
  const std::vector<double> factors = testing::download(factor);
  check_pointwise([&](auto a, auto, auto y, bool add) { scale_samples(space, a, factor, y, add); },
                  [&](double a, double, int n, int) { return a * factors[static_cast<std::size_t>(n)]; });
}

TEST(Elementwise, Fills) {
  const View1<float> values = testing::upload<float>({0.5, -2, 3, 0.25});
  for (const auto& shape : testing::shapes()) {
    const Field out(shape.extents, shape.wider);
    Reference expected(shape.extents);
    fill(Space(), 1.5f, out.slice);
    for (double& value : expected.values) value = 1.5;
    expect_near(out, expected, 0, describe(shape));
    fill_samples(Space(), values, out.slice);
    const std::vector<double> host = testing::download(values);
    expected.for_each([&](int n, int y, int x, int c) { expected(n, y, x, c) = host[static_cast<std::size_t>(n)]; });
    expect_near(out, expected, 0, describe(shape));
  }
}

TEST(Elementwise, CombinesInPlace) {
  const Extents e{2, 9, 7, 3};
  const Reference a = random(e, 1), b = random(e, 2);
  Reference expected(e);
  for (std::size_t i = 0; i < a.values.size(); ++i) expected.values[i] = 2 * a.values[i] - b.values[i];
  const Field x(a), y(b), z(a), w(b);
  linear_combination(Space(), 2, x.slice, -1, y.slice, x.slice);
  expect_near(x, expected, 3e-7, "into a");
  linear_combination(Space(), 2, z.slice, -1, w.slice, w.slice);
  expect_near(w, expected, 3e-7, "into b");
}

TEST(Modulate, ScalesAndShiftsEachChannelOfEachSample) {
  for (const auto& shape : testing::shapes()) {
    const Extents e = shape.extents, small{e.n, 1, 1, e.c};
    const Reference x = random(e, 1), scale = random(small, 2), shift = random(small, 3);
    const Field in(x, shape.wider), gain(scale, shape.wider), offset(shift, shape.wider), out(e, shape.wider);
    for (const bool scales : {true, false}) {
      for (const bool shifts : {true, false}) {
        Reference expected(e);
        expected.for_each([&](int n, int y, int i, int c) {
          expected(n, y, i, c) =
              x(n, y, i, c) * (1 + (scales ? scale(n, 0, 0, c) : 0)) + (shifts ? shift(n, 0, 0, c) : 0);
        });
        modulate(Space(), in.slice, scales ? gain.slice : Activations(), shifts ? offset.slice : Activations(),
                 out.slice);
        expect_near(out, expected, 4e-7, describe(shape));
      }
    }
  }
}

TEST(ModulateBackward, IsTheGradient) {
  const Extents e{2, 3, 5, 7}, small{2, 1, 1, 7};
  Reference x = random(e, 1), scale = random(small, 2), shift = random(small, 3);
  const Reference dy = random(e, 4), before = random(e, 5);
  const auto loss = [&] {
    double sum = 0;
    x.for_each([&](int n, int y, int i, int c) {
      sum += dy(n, y, i, c) * (x(n, y, i, c) * (1 + scale(n, 0, 0, c)) + shift(n, 0, 0, c));
    });
    return sum;
  };
  Reference dx(e);
  dx.values = testing::finite_differences(x.values, loss);
  Reference dscale(small), dshift(small);
  dscale.values = testing::finite_differences(scale.values, loss);
  dshift.values = testing::finite_differences(shift.values, loss);
  const View3<double> scratch("scratch", e.n, e.c, 2);
  for (const int wider : {0, 4}) {
    for (const bool accumulate : {false, true}) {
      const Field in(x, wider), gain(scale, wider), upper(dy, wider), lower(before, wider), dgain(small, wider),
          doffset(small, wider);
      modulate_backward(Space(), in.slice, gain.slice, upper.slice, lower.slice, accumulate, dgain.slice, doffset.slice,
                        scratch);
      Reference expected = dx;
      for (std::size_t i = 0; accumulate && i < expected.values.size(); ++i) expected.values[i] += before.values[i];
      expect_near(lower, expected, 1e-6, "dx");
      expect_near(dgain, dscale, 1e-6, "dscale");
      expect_near(doffset, dshift, 1e-6, "dshift");
    }
  }
}

TEST(SampleSums, EqualFloat64SumsAndDoNotDependOnTheBatchOrThePitch) {
  for (const auto& shape : testing::shapes()) {
    const Extents e = shape.extents;
    const Reference a = random(e, 1, 0.5), b = random(e, 2);
    const std::size_t samples = static_cast<std::size_t>(e.n);
    std::vector<double> sum(samples), square(samples), product(samples);
    a.for_each([&](int n, int y, int x, int c) {
      const auto i = static_cast<std::size_t>(n);
      sum[i] += a(n, y, x, c);
      square[i] += a(n, y, x, c) * a(n, y, x, c);
      product[i] += a(n, y, x, c) * b(n, y, x, c);
    });
    const View1<double> out("out", e.n), alone("alone", 1);
    const auto check = [&](const auto& op, const std::vector<double>& expected) {
      const Field in_a(a, shape.wider), in_b(b, shape.wider), dense_a(a), dense_b(b);
      op(in_a.slice, in_b.slice, out);
      const std::vector<double> batch = testing::download(out);
      expect_near(batch, expected, 1e-12, describe(shape));
      for (int n = 0; n < e.n; ++n) {
        op(dense_a.slice.samples(n, 1), dense_b.slice.samples(n, 1), alone);
        EXPECT_EQ(testing::download(alone)[0], batch[static_cast<std::size_t>(n)]) << describe(shape);
      }
    };
    check([](auto x, auto, auto to) { sum_samples(Space(), x, to); }, sum);
    check([](auto x, auto, auto to) { square_samples(Space(), x, to); }, square);
    check([](auto x, auto y, auto to) { dot_samples(Space(), x, y, to); }, product);
  }
}

TEST(SumPixels, AddsOverSamplesAndPixels) {
  for (const auto& shape : testing::shapes()) {
    const Extents e = shape.extents;
    const Reference x = random(e, 1);
    std::vector<double> expected(static_cast<std::size_t>(e.c)), twice;
    x.for_each([&](int n, int y, int i, int c) { expected[static_cast<std::size_t>(c)] += x(n, y, i, c); });
    for (const double value : expected) twice.push_back(2 * value);
    const Field in(x, shape.wider);
    const View1<float> out("out", e.c);
    sum_pixels(Space(), in.slice, out.data(), false);
    expect_near(testing::download(out), expected, 1e-7, describe(shape));
    sum_pixels(Space(), in.slice, out.data(), true);
    expect_near(testing::download(out), twice, 2e-7, describe(shape));
  }
}

}  // namespace
}  // namespace umbriel
