// Optimisers against the papers' formulas in float64, clipping, resumption to the bit; schedules and averaged weights.
#include "umbriel/nn/optimiser.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <vector>

#include "umbriel/nn/average.hpp"
#include "umbriel/nn/schedule.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel::nn {
namespace {

using Doubles = std::vector<double>;

/// Parameters of odd shapes, with values and gradients of the test's own.
struct Problem {
  ParameterSet set;

  Problem() {
    set.add("a.weight", Role::convolution, {3, 2, 5, 7});
    set.add("a.bias", Role::bias, {7});
    set.add("b.weight", Role::dense, {67, 45});
    set.add("c.weight", Role::convolution, {1, 1, 40, 1});
    set.add("c.scale", Role::scale, {1});
    set.allocate();
    fill(set.values(), 100, 0.3f);
  }

  /// Normals of deviation `size` in the parameters, zero in the gaps.
  void fill(const View1<float>& target, std::uint32_t step, float size) const {
    const auto host = Kokkos::create_mirror_view(HostMemory{}, target);
    Kokkos::deep_copy(host, 0.0f);
    for (std::uint32_t i = 0; i < set.parameters().size(); ++i) {
      const Parameter& parameter = set.parameters()[i];
      for (std::int64_t e = 0; e < parameter.size; ++e)
        host(parameter.offset + e) =
            size * static_cast<float>(i + 1) * normal({5, Purpose::test, i, step}, static_cast<std::uint64_t>(e));
    }
    Kokkos::deep_copy(target, host);
  }
  void set_gradients(std::uint32_t step, float size = 0.01f) const { fill(set.gradients(), step, size); }
};

Doubles doubles(const View1<float>& view) {
  const auto host = Kokkos::create_mirror_view_and_copy(HostMemory{}, view);
  return {host.data(), host.data() + host.extent(0)};
}

void expect_close(const View1<float>& view, const Doubles& expected, double tolerance, const std::string& what) {
  const Doubles values = doubles(view);
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_NEAR(values[i], expected[i], tolerance * (std::abs(expected[i]) + 1e-3)) << what << ", element " << i;
}

OptimiserOptions options_for(const std::string& name) {
  OptimiserOptions options;
  options.name = name;
  return options;
}

const std::vector<std::string> every_name = {"adam", "adabelief", "adafactor"};

TEST(Optimiser, AdamsFirstStepIsTheSignOfTheGradient) {
  Problem problem;
  problem.set_gradients(0);
  const Doubles before = doubles(problem.set.values()), gradient = doubles(problem.set.gradients());
  make_optimiser(problem.set, options_for("adam"))->step(Space(), 0.125);
  const Doubles after = doubles(problem.set.values());
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double expected = std::abs(gradient[i]) < 1e-4 ? NAN : before[i] - 0.125 * (gradient[i] > 0 ? 1 : -1);
    if (gradient[i] == 0) {
      EXPECT_EQ(after[i], before[i]);
    } else if (!std::isnan(expected)) {
      EXPECT_NEAR(after[i], expected, 2e-5) << i;
    }
  }
}

TEST(Optimiser, AdamAndAdaBeliefAgreeWithFloat64) {
  for (const std::string name : {"adam", "adabelief"}) {
    Problem problem;
    OptimiserOptions options = options_for(name);
    options.beta1 = 0.8;
    options.beta2 = 0.95;
    options.epsilon = 1e-6;
    options.weight_decay = 0.1;
    const auto optimiser = make_optimiser(problem.set, options);
    Doubles p = doubles(problem.set.values()), m(p.size()), v(p.size());
    for (int t = 1; t <= 20; ++t) {
      const double rate = 0.02 / t;
      problem.set_gradients(static_cast<std::uint32_t>(t));
      const Doubles g = doubles(problem.set.gradients());
      optimiser->step(Space(), rate);
      for (std::size_t i = 0; i < p.size(); ++i) {
        m[i] = 0.8 * m[i] + 0.2 * g[i];
        const double d = name == "adam" ? g[i] : g[i] - m[i];
        v[i] = 0.95 * v[i] + 0.05 * d * d + (name == "adam" ? 0 : 1e-6);
        const double m_hat = m[i] / (1 - std::pow(0.8, t)), v_hat = v[i] / (1 - std::pow(0.95, t));
        p[i] = p[i] - rate * 0.1 * p[i] - rate * m_hat / (std::sqrt(v_hat) + 1e-6);
      }
    }
    expect_close(problem.set.values(), p, 2e-4, name);  // the first AdaBelief steps divide by (g - m) ~ 0.8 g: no loss
    expect_close(optimiser->state()[0].second, m, 1e-5, name + " first moments");
    expect_close(optimiser->state()[1].second, v, 1e-5, name + " second moments");
    EXPECT_EQ(optimiser->steps(), 20);
  }
}

TEST(Optimiser, AdafactorAgreesWithFloat64) {
  for (const bool scale : {true, false}) {
    Problem problem;
    OptimiserOptions options = options_for("adafactor");
    options.scale_by_parameter = scale;
    options.update_clip = 0.9;
    options.weight_decay = 0.01;
    const auto optimiser = make_optimiser(problem.set, options);
    Doubles p = doubles(problem.set.values());
    struct Second {
      Doubles row, column;
    };
    std::vector<std::vector<Second>> moments(problem.set.parameters().size());
    for (int t = 1; t <= 6; ++t) {
      const double rate = 0.05;
      problem.set_gradients(static_cast<std::uint32_t>(t), t == 4 ? 0.1f : 0.01f);  // one step that is clipped
      const Doubles g = doubles(problem.set.gradients());
      optimiser->step(Space(), rate);
      const double beta = 1 - std::pow(t, -0.8);
      for (std::size_t k = 0; k < moments.size(); ++k) {
        const Parameter& parameter = problem.set.parameters()[k];
        const bool matrix = parameter.shape.size() >= 2;
        const auto columns = static_cast<std::size_t>(matrix ? parameter.shape.back() : 1);
        const auto rows =
            static_cast<std::size_t>(matrix ? parameter.shape[parameter.shape.size() - 2] : parameter.size);
        const auto size = static_cast<std::size_t>(parameter.size), offset = static_cast<std::size_t>(parameter.offset);
        moments[k].resize(size / (rows * columns));
        Doubles update(size);
        double update_square = 0, value_square = 0;
        for (std::size_t s = 0; s < moments[k].size(); ++s) {
          Second& second = moments[k][s];
          const std::size_t start = s * rows * columns;
          second.row.resize(rows);
          second.column.resize(columns);
          for (double& x : second.row) x *= beta;
          for (double& x : second.column) x *= beta;
          for (std::size_t r = 0; r < rows; ++r) {
            for (std::size_t c = 0; c < columns; ++c) {
              const double square = std::pow(g[offset + start + r * columns + c], 2) + 1e-30;
              second.row[r] += (1 - beta) * square / static_cast<double>(columns);
              second.column[c] += (1 - beta) * square / static_cast<double>(rows);
            }
          }
          double mean = 0;
          for (const double x : second.row) mean += x / static_cast<double>(rows);
          for (std::size_t e = 0; e < rows * columns; ++e) {
            const double v = second.row[e / columns] * second.column[e % columns] / mean;
            update[start + e] = g[offset + start + e] / std::sqrt(v);
          }
        }
        for (std::size_t e = 0; e < size; ++e) {
          update_square += update[e] * update[e] / static_cast<double>(size);
          value_square += p[offset + e] * p[offset + e] / static_cast<double>(size);
        }
        double length = rate / std::max(1.0, std::sqrt(update_square) / 0.9);
        if (scale) length *= std::max(1e-3, std::sqrt(value_square));
        for (std::size_t e = 0; e < size; ++e) p[offset + e] -= rate * 0.01 * p[offset + e] + length * update[e];
      }
    }
    expect_close(problem.set.values(), p, 2e-5, scale ? "scaled" : "not scaled");
  }
}

TEST(Optimiser, AdafactorSurvivesGradientsOfZero) {
  Problem problem;
  const auto optimiser = make_optimiser(problem.set, options_for("adafactor"));
  const Doubles before = doubles(problem.set.values());
  Kokkos::deep_copy(problem.set.gradients(), 0.0f);
  optimiser->step(Space(), 0.1);
  EXPECT_EQ(doubles(problem.set.values()), before);
  // One row and one column of zeros among large gradients.
  problem.set_gradients(1, 1e3f);
  const Parameter& dense = problem.set.parameters()[2];
  const auto host = Kokkos::create_mirror_view_and_copy(HostMemory{}, problem.set.gradients());
  for (int r = 0; r < 67; ++r) {
    for (int c = 0; c < 45; ++c)
      if (r == 3 || c == 4) host(dense.offset + r * 45 + c) = 0;
  }
  Kokkos::deep_copy(problem.set.gradients(), host);
  optimiser->step(Space(), 0.1);
  for (const double value : doubles(problem.set.values())) EXPECT_TRUE(std::isfinite(value));
}

TEST(Optimiser, QuadraticsAreMinimised) {
  for (const std::string& name : every_name) {
    Problem problem;
    OptimiserOptions options = options_for(name);
    options.beta2 = 0.99;
    const auto optimiser = make_optimiser(problem.set, options);
    Schedule schedule;
    schedule.kind = Schedule::Kind::cosine;
    schedule.rate = 0.05;
    schedule.total = 600;
    // f = sum over elements of c (p - 1)^2 / 2, curvatures from 0.01 to 100; for moments that are factored, which
    // these curvatures are not, from 0.3 to 3.
    const double spread = name == "adafactor" ? 0.25 : 1;
    for (int t = 0; t < 600; ++t) {
      const auto p = Kokkos::create_mirror_view_and_copy(HostMemory{}, problem.set.values());
      const auto g = Kokkos::create_mirror_view(HostMemory{}, problem.set.gradients());
      Kokkos::deep_copy(g, 0.0f);
      for (const Parameter& parameter : problem.set.parameters()) {
        for (std::int64_t i = parameter.offset; i < parameter.offset + parameter.size; ++i)
          g(i) = static_cast<float>(std::pow(10.0, spread * (static_cast<double>(i % 5) - 2))) * (p(i) - 1);
      }
      Kokkos::deep_copy(problem.set.gradients(), g);
      optimiser->step(Space(), schedule.at(t));
    }
    const Doubles end = doubles(problem.set.values());
    for (const Parameter& parameter : problem.set.parameters()) {
      double square = 0;
      for (std::int64_t i = parameter.offset; i < parameter.offset + parameter.size; ++i)
        square += std::pow(end[static_cast<std::size_t>(i)] - 1, 2);
      EXPECT_LT(std::sqrt(square / static_cast<double>(parameter.size)), 0.02) << name << " " << parameter.name;
    }
  }
}

TEST(Optimiser, GradientsAreClippedByTheirNormTogether) {
  Problem problem;
  problem.set_gradients(1);
  const Doubles g = doubles(problem.set.gradients());
  double square = 0;
  for (const double x : g) square += x * x;
  const double norm = std::sqrt(square);
  for (const double limit : {0.5 * norm, 2 * norm, 0.0}) {
    OptimiserOptions options = options_for("adam");
    options.clip_norm = limit;
    const auto optimiser = make_optimiser(problem.set, options);
    optimiser->step(Space(), 1e-3);
    EXPECT_NEAR(optimiser->gradient_norm(), norm, 1e-12 * norm);
    const double factor = limit > 0 && limit < norm ? 0.5 : 1;
    Doubles moments;
    for (const double x : g) moments.push_back(0.1 * factor * x);
    expect_close(optimiser->state()[0].second, moments, 1e-6, "first moments");
  }
}

TEST(Optimiser, TheNormIsThatOfSquaresBeyondFloat32) {
  Problem problem;
  Kokkos::deep_copy(problem.set.gradients(), 1e30f);
  const auto optimiser = make_optimiser(problem.set, options_for("adafactor"));
  optimiser->step(Space(), 1e-3);
  const double n = static_cast<double>(problem.set.gradients().extent(0));
  EXPECT_NEAR(optimiser->gradient_norm() / (1e30 * std::sqrt(n)), 1, 1e-6);
}

TEST(Optimiser, AGradientThatIsNotFiniteChangesNothing) {
  for (const std::string& name : every_name) {
    for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      Problem problem;
      const auto optimiser = make_optimiser(problem.set, options_for(name));
      problem.set_gradients(1);
      optimiser->step(Space(), 0.01);
      const Doubles values = doubles(problem.set.values()), first = doubles(optimiser->state()[0].second),
                    second = doubles(optimiser->state()[1].second);
      problem.set_gradients(2);
      const std::int64_t place = problem.set.parameters()[2].offset + 11;
      Kokkos::deep_copy(Kokkos::subview(problem.set.gradients(), place), bad);
      optimiser->step(Space(), 0.01);
      EXPECT_FALSE(std::isfinite(optimiser->gradient_norm()));
      EXPECT_EQ(doubles(problem.set.values()), values) << name;
      EXPECT_EQ(doubles(optimiser->state()[0].second), first) << name;
      EXPECT_EQ(doubles(optimiser->state()[1].second), second) << name;
    }
  }
}

TEST(Optimiser, ResumesToTheBit) {
  for (const std::string& name : every_name) {
    Problem whole, first, second;
    const auto run = [](Problem& problem, Optimiser& optimiser, int from, int to) {
      for (int t = from; t < to; ++t) {
        problem.set_gradients(static_cast<std::uint32_t>(t));
        optimiser.step(Space(), 0.01);
      }
    };
    const auto uninterrupted = make_optimiser(whole.set, options_for(name));
    run(whole, *uninterrupted, 0, 7);
    const auto before = make_optimiser(first.set, options_for(name));
    run(first, *before, 0, 4);
    const auto after = make_optimiser(second.set, options_for(name));
    Kokkos::deep_copy(second.set.values(), first.set.values());
    const auto saved = before->state(), restored = after->state();
    for (std::size_t i = 0; i < saved.size(); ++i) Kokkos::deep_copy(restored[i].second, saved[i].second);
    after->set_steps(before->steps());
    run(second, *after, 4, 7);
    EXPECT_EQ(doubles(second.set.values()), doubles(whole.set.values())) << name;
  }
}

TEST(Optimiser, RefusesUnknownNamesAndSettings) {
  Problem problem;
  EXPECT_THROW(make_optimiser(problem.set, options_for("sgd")), Error);
  OptimiserOptions options;
  options.beta2 = 1;
  EXPECT_THROW(make_optimiser(problem.set, options), Error);
}

TEST(Schedule, ValuesOfEveryKind) {
  Schedule s;
  s.rate = 2;
  EXPECT_EQ(s.at(0), 2);
  EXPECT_EQ(s.at(1'000'000), 2);
  s.warm_up = 4;
  EXPECT_EQ(s.at(0), 0.5);
  EXPECT_EQ(s.at(3), 2);
  EXPECT_EQ(s.at(4), 2);

  s = Schedule{Schedule::kind_named("steps"), 1e-4, 0, {{100, 0.1}, {200, 0.5}}, 0, 0};
  EXPECT_EQ(s.at(99), 1e-4);
  EXPECT_DOUBLE_EQ(s.at(100), 1e-5);
  EXPECT_DOUBLE_EQ(s.at(200), 5e-6);

  s = Schedule{Schedule::kind_named("cosine"), 1, 10, {}, 110, 0.1};
  EXPECT_DOUBLE_EQ(s.at(4), 0.5);
  EXPECT_DOUBLE_EQ(s.at(10), 1);
  EXPECT_DOUBLE_EQ(s.at(60), 0.55);
  EXPECT_DOUBLE_EQ(s.at(35), 0.1 + 0.45 * (1 + std::sqrt(0.5)));
  EXPECT_DOUBLE_EQ(s.at(110), 0.1);
  EXPECT_DOUBLE_EQ(s.at(5000), 0.1);

  s = Schedule{Schedule::kind_named("inverse-square-root"), 1, 100, {}, 0, 0};
  EXPECT_DOUBLE_EQ(s.at(49), 0.5);
  EXPECT_DOUBLE_EQ(s.at(99), 1);
  EXPECT_DOUBLE_EQ(s.at(399), 0.5);
  s.warm_up = 0;
  EXPECT_DOUBLE_EQ(s.at(0), 1);
  EXPECT_DOUBLE_EQ(s.at(99), 0.1);
  EXPECT_THROW(Schedule::kind_named("cosin"), Error);
}

TEST(WeightAverage, AgreesWithFloat64AndResumes) {
  Problem problem;
  WeightAverage average(problem.set, 0.7), second(problem.set, 0.7);
  Doubles expected;
  for (int t = 0; t < 40; ++t) {
    problem.fill(problem.set.values(), static_cast<std::uint32_t>(t), 1);
    average.update(Space(), {{0, problem.set.extent()}});
    const Doubles p = doubles(problem.set.values());
    if (t == 0) {
      expected = p;
    } else {
      const double d = std::min(0.7, (1.0 + t) / (10.0 + t));
      for (std::size_t i = 0; i < p.size(); ++i) expected[i] = d * expected[i] + (1 - d) * p[i];
    }
    if (t == 20) {
      Kokkos::deep_copy(second.state()[0].second, average.state()[0].second);
      second.set_updates(average.updates());
    }
    if (t > 20) second.update(Space(), {{0, problem.set.extent()}});
  }
  expect_close(average.values(), expected, 1e-4, "average");
  EXPECT_EQ(doubles(second.values()), doubles(average.values()));
}

}  // namespace
}  // namespace umbriel::nn
