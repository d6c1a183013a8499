#include "umbriel/ops/coupling.hpp"

#include "support.hpp"

namespace umbriel {
namespace {

using testing::Field;
using testing::random;
using testing::Reference;

constexpr float limit = 1.5F;
const Extents extents{3, 4, 6, 5};

double log_scale(double raw) { return static_cast<double>(limit) * std::tanh(raw / static_cast<double>(limit)); }

/// y, and the sum of s over each sample.
Reference coupled(const Reference& raw, const Reference& shift, const Reference& x, std::vector<double>& sums) {
  Reference y(x.extents);
  sums.assign(static_cast<std::size_t>(x.extents.n), 0);
  y.for_each([&](int n, int i, int j, int c) {
    const double s = log_scale(raw(n, i, j, c));
    y(n, i, j, c) = x(n, i, j, c) * std::exp(s) + shift(n, i, j, c);
    sums[static_cast<std::size_t>(n)] += s;
  });
  return y;
}

TEST(Coupling, IsTheFormulaAndItsInverse) {
  const Reference x = random(extents, 1), raw = random(extents, 2), shift = random(extents, 3);
  Field in(x, 2), r(raw, 1), t(shift, 0);
  const Space space;
  const View1<double> sums("sums", 3);
  Kokkos::deep_copy(sums, 1.0);
  couple(space, limit, r.slice, t.slice, in.slice, sums);
  space.fence();
  std::vector<double> expected;
  const Reference y = coupled(raw, shift, x, expected);
  testing::expect_near(in, y, 1e-6, "y");
  const auto host = on_host(sums);
  for (std::size_t n = 0; n < 3; ++n) EXPECT_NEAR(host(n), 1 + expected[n], 1e-4);
  uncouple(space, limit, r.slice, t.slice, in.slice);
  space.fence();
  testing::expect_near(in, x, 1e-5, "x");
}

TEST(Coupling, GradientsAreFiniteDifferences) {
  const Reference x = random(extents, 1), raw = random(extents, 2), shift = random(extents, 3), g = random(extents, 4);
  constexpr double of_log_determinant = -0.3;
  std::vector<double> sums;
  const auto loss = [&](const Reference& r, const Reference& t, const Reference& v) {
    const Reference y = coupled(r, t, v, sums);
    double total = 0;
    y.for_each([&](int n, int i, int j, int c) { total += y(n, i, j, c) * g(n, i, j, c); });
    for (const double sum : sums) total += of_log_determinant * sum;
    return total;
  };
  Field y(coupled(raw, shift, x, sums), 0), dy(g, 2), r(raw, 1), t(shift, 0), dr(extents, 1), dt(extents, 0);
  const Space space;
  couple_backward(space, limit, r.slice, t.slice, static_cast<float>(of_log_determinant), y.slice, dy.slice, dr.slice,
                  dt.slice);
  space.fence();
  testing::expect_near(y, x, 1e-5, "x");
  const auto check = [&](Reference moved, const std::function<double(const Reference&)>& f, const Field& found) {
    const std::vector<double> expected = testing::finite_differences(moved.values, [&] { return f(moved); });
    testing::expect_near(found.read().values, expected, 1e-5, "gradient");
  };
  check(
      raw, [&](const Reference& v) { return loss(v, shift, x); }, dr);
  check(
      shift, [&](const Reference& v) { return loss(raw, v, x); }, dt);
  check(
      x, [&](const Reference& v) { return loss(raw, shift, v); }, dy);
}

TEST(Coupling, GradientsOfTheInverseAreFiniteDifferences) {
  const Reference y = random(extents, 1), raw = random(extents, 2), shift = random(extents, 3), g = random(extents, 4);
  const auto inverse = [&](const Reference& r, const Reference& t, const Reference& v) {
    Reference x(extents);
    x.for_each([&](int n, int i, int j, int c) {
      x(n, i, j, c) = (v(n, i, j, c) - t(n, i, j, c)) * std::exp(-log_scale(r(n, i, j, c)));
    });
    return x;
  };
  const auto loss = [&](const Reference& r, const Reference& t, const Reference& v) {
    const Reference x = inverse(r, t, v);
    double total = 0;
    x.for_each([&](int n, int i, int j, int c) { total += x(n, i, j, c) * g(n, i, j, c); });
    return total;
  };
  Field x(inverse(raw, shift, y), 0), dx(g, 2), r(raw, 1), dr(extents, 1), dt(extents, 0);
  const Space space;
  uncouple_backward(space, limit, r.slice, x.slice, dx.slice, dr.slice, dt.slice);
  space.fence();
  const auto check = [&](Reference moved, const std::function<double(const Reference&)>& f, const Field& found) {
    const std::vector<double> expected = testing::finite_differences(moved.values, [&] { return f(moved); });
    testing::expect_near(found.read().values, expected, 1e-5, "gradient");
  };
  check(
      raw, [&](const Reference& v) { return loss(v, shift, y); }, dr);
  check(
      shift, [&](const Reference& v) { return loss(raw, v, y); }, dt);
  check(
      y, [&](const Reference& v) { return loss(raw, shift, v); }, dx);
}

TEST(Coupling, CheckerboardKeepsItsPixels) {
  const Reference x = random(extents, 1);
  for (const int parity : {0, 1}) {
    Field out(x, 1);
    const Space space;
    keep_checkerboard(space, parity, out.slice, out.slice);
    space.fence();
    Reference expected = x;
    expected.for_each([&](int n, int i, int j, int c) {
      if ((i + j) % 2 != parity) expected(n, i, j, c) = 0;
    });
    testing::expect_near(out, expected, 0, "expected");
  }
}

TEST(Coupling, SqueezePutsPixelsIntoChannelsAndBack) {
  const Reference fine = random({2, 4, 6, 3}, 1);
  Reference coarse({2, 2, 3, 12});
  coarse.for_each(
      [&](int n, int y, int x, int c) { coarse(n, y, x, c) = fine(n, 2 * y + c / 6, 2 * x + c / 3 % 2, c % 3); });
  Field in(fine, 1), out(Extents{2, 2, 3, 12}, 2), back(Extents{2, 4, 6, 3}, 0);
  const Space space;
  squeeze(space, in.slice, out.slice);
  unsqueeze(space, out.slice, back.slice);
  space.fence();
  testing::expect_near(out, coarse, 0, "coarse");
  testing::expect_near(back, fine, 0, "fine");
  EXPECT_THROW(squeeze(space, in.slice, in.slice), Error);
}

}  // namespace
}  // namespace umbriel
