// Pooling and upsampling against plain loops; gradients as transposes: <op(x), y> = <x, backward(y)>.
#include "umbriel/ops/resample.hpp"

#include "support.hpp"

namespace umbriel {
namespace {

using testing::expect_near;
using testing::Field;
using testing::random;
using testing::Reference;

struct Case {
  Extents fine;
  int factor;
};
constexpr Case cases[] = {{{2, 8, 6, 1}, 2},  {{1, 9, 11, 3}, 2},  {{2, 7, 10, 70}, 3},
                          {{1, 5, 4, 16}, 4}, {{1, 6, 5, 257}, 2}, {{2, 3, 3, 5}, 1}};

std::string describe(const Case& c, int wider) { return testing::describe({c.fine, wider}); }

TEST(AveragePool, IsTheMeanOfEachBlock) {
  for (const Case& test : cases) {
    const Extents coarse{test.fine.n, test.fine.h / test.factor, test.fine.w / test.factor, test.fine.c};
    const Reference x = random(test.fine, 1), before = random(coarse, 2);
    for (const int wider : {0, 3}) {
      for (const bool accumulate : {false, true}) {
        Reference expected(coarse);
        expected.for_each([&](int n, int y, int i, int c) {
          double sum = 0;
          for (int dy = 0; dy < test.factor; ++dy) {
            for (int dx = 0; dx < test.factor; ++dx) sum += x(n, y * test.factor + dy, i * test.factor + dx, c);
          }
          expected(n, y, i, c) = sum / (test.factor * test.factor) + (accumulate ? before(n, y, i, c) : 0);
        });
        const Field in(x, wider), out(before, wider);
        average_pool(Space(), in.slice, test.factor, out.slice, accumulate);
        expect_near(out, expected, 3e-7, describe(test, wider));
      }
    }
  }
}

TEST(AveragePoolBackward, IsTheTransposeOfAveragePool) {
  for (const Case& test : cases) {
    const Extents coarse{test.fine.n, test.fine.h / test.factor, test.fine.w / test.factor, test.fine.c};
    const Reference dy = random(coarse, 1), before = random(test.fine, 2);
    for (const int wider : {0, 3}) {
      for (const bool accumulate : {false, true}) {
        Reference expected = before;
        expected.for_each([&](int n, int y, int x, int c) {
          const bool dropped = y / test.factor >= coarse.h || x / test.factor >= coarse.w;
          const double value = dropped ? 0 : dy(n, y / test.factor, x / test.factor, c) / (test.factor * test.factor);
          expected(n, y, x, c) = accumulate ? before(n, y, x, c) + value : value;
        });
        const Field upper(dy, wider), lower(before, wider);
        average_pool_backward(Space(), upper.slice, test.factor, lower.slice, accumulate);
        expect_near(lower, expected, 3e-7, describe(test, wider));
      }
    }
    // <pool(x), dy> = <x, backward(dy)>
    const Reference x = random(test.fine, 3);
    const Field in(x), pooled(coarse), upper(dy), lower(test.fine);
    average_pool(Space(), in.slice, test.factor, pooled.slice);
    average_pool_backward(Space(), upper.slice, test.factor, lower.slice, false);
    EXPECT_NEAR(testing::dot(pooled.read().values, dy.values), testing::dot(x.values, lower.read().values), 1e-4);
  }
}

TEST(UpsampleNearest, RepeatsPixelsAndItsGradientSumsThem) {
  for (const Case& test : cases) {
    const Extents small = test.fine, big{small.n, small.h * test.factor, small.w * test.factor, small.c};
    const Reference x = random(small, 1), dy = random(big, 2), before = random(small, 3);
    for (const int wider : {0, 3}) {
      Reference expected(big), sums(small);
      expected.for_each([&](int n, int y, int i, int c) {
        expected(n, y, i, c) = x(n, y / test.factor, i / test.factor, c);
        sums(n, y / test.factor, i / test.factor, c) += dy(n, y, i, c);
      });
      const Field in(x, wider), out(big, wider), upper(dy, wider), lower(before, wider);
      upsample_nearest(Space(), in.slice, test.factor, out.slice);
      expect_near(out, expected, 0, describe(test, wider));
      upsample_nearest_backward(Space(), upper.slice, test.factor, lower.slice, false);
      expect_near(lower, sums, 3e-7, describe(test, wider));
      upsample_nearest_backward(Space(), upper.slice, test.factor, lower.slice, true);
      for (double& sum : sums.values) sum *= 2;
      expect_near(lower, sums, 6e-7, describe(test, wider));
    }
  }
}

TEST(Resample, RefusesExtentsThatDoNotFit) {
  const Field fine(Extents{1, 6, 6, 2}), coarse(Extents{1, 2, 3, 2});
  EXPECT_THROW(average_pool(Space(), fine.slice, 2, coarse.slice), Error);
  EXPECT_THROW(upsample_nearest(Space(), coarse.slice, 2, fine.slice), Error);
}

}  // namespace
}  // namespace umbriel
