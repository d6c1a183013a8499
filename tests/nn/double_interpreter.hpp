// What a tape's record means, in float64 with naive loops: the reference for forward passes, and by finite differences
// for gradients. Shares no code with the kernels.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "../kernels/ops/reference_activation.hpp"
#include "umbriel/nn/operations.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel::nn::testing {

using Doubles = std::vector<double>;

inline Doubles to_doubles(const float* data, std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  Kokkos::deep_copy(Kokkos::View<float*, HostMemory, Kokkos::MemoryUnmanaged>(values.data(), values.size()),
                    Kokkos::View<const float*, Memory, Kokkos::MemoryUnmanaged>(data, values.size()));
  return {values.begin(), values.end()};
}
inline Doubles to_doubles(const View1<float>& view) {
  return to_doubles(view.data(), static_cast<std::int64_t>(view.size()));
}
/// All channels of perhaps a slice of a wider array.
inline Doubles to_doubles(ConstActivations a) {
  Doubles dense;
  if (a.extents.elements() == 0) return dense;
  const Doubles all = to_doubles(a.data, (a.extents.pixels() - 1) * a.pitch + a.extents.c);
  for (std::int64_t p = 0; p < a.extents.pixels(); ++p) {
    for (int c = 0; c < a.extents.c; ++c) dense.push_back(all[static_cast<std::size_t>(p * a.pitch + c)]);
  }
  return dense;
}

/// Numbers that float32 holds, so that both precisions start from the same.
inline void set_floats(float* data, const Doubles& values) {
  const std::vector<float> floats(values.begin(), values.end());
  Kokkos::deep_copy(Kokkos::View<float*, Memory, Kokkos::MemoryUnmanaged>(data, floats.size()),
                    Kokkos::View<const float*, HostMemory, Kokkos::MemoryUnmanaged>(floats.data(), floats.size()));
}
inline Doubles draw_normals(std::uint32_t stream, std::int64_t n, double size = 1, double mean = 0) {
  Doubles values;
  for (std::int64_t i = 0; i < n; ++i) {
    const double z = static_cast<double>(normal({17, Purpose::test, stream, 0}, static_cast<std::uint64_t>(i)));
    values.push_back(static_cast<double>(static_cast<float>(mean + size * z)));
  }
  return values;
}

/// Weights of unit gain, other parameters and moments of order one, so that no layer's part in the result is small.
inline void set_parameters(const ParameterSet& set, std::uint32_t stream = 1) {
  for (const Parameter& p : set.parameters()) {
    const bool matrix = p.shape.size() > 1 && p.role != Role::other;
    const double fan = matrix ? static_cast<double>(p.size) / p.shape.back() : 1;
    const double size = matrix ? 1.4 / std::sqrt(fan) : p.role == Role::other ? 1 : 0.3;
    set_floats(set.values().data() + p.offset, draw_normals(++stream, p.size, size, p.role == Role::scale ? 1 : 0));
  }
  for (const Parameter& b : set.buffers()) {
    const bool variance = b.name.ends_with("running_var");
    Doubles values = draw_normals(++stream, b.size, 0.3);
    for (double& v : values) v = variance ? static_cast<double>(static_cast<float>(std::exp(v))) : v;
    set_floats(set.buffer_values().data() + b.offset, values);
  }
}

/// A parameter as activations: gives the operation behind it an input whose whole gradient can be seen.
class Leaf final : public Operation {
 public:
  explicit Leaf(ParameterId id) { parameters = {id}; }
  std::string_view name() const override { return "leaf"; }
  void forward(const Space& space, const Tape& tape) override {
    copy(space, tape.parameters().value(parameters[0]), tape.value(output), false);
  }
  void backward(const Space& space, const Tape& tape) override {
    copy(space, tape.gradient(output), tape.parameters().gradient(parameters[0]), tape.accumulates_parameter(*this, 0));
  }

  struct Copy {
    ConstActivations x;
    Activations y;
    bool add;
    KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t p) const {
      for (int c = 0; c < x.extents.c; ++c) y.pixel(p)[c] = (add ? y.pixel(p)[c] : 0.0f) + x.pixel(p)[c];
    }
  };

 private:
  void copy(const Space& space, const float* from, Activations to, bool add) const {
    run(space, ConstActivations(from, to.extents), to, add);
  }
  void copy(const Space& space, Activations from, float* to, bool add) const {
    run(space, from, Activations(to, from.extents), add);
  }
  static void run(const Space& space, ConstActivations x, Activations y, bool add) {
    Kokkos::parallel_for("leaf", Range(space, 0, x.extents.pixels()), Copy{x, y, add});
  }
};

inline ParameterId declare_leaf(ParameterSet& set, const std::string& name, Extents e) {
  return set.add(name, Role::other, {e.n, e.h, e.w, e.c});
}
inline Value leaf(Tape& tape, ParameterId id) {
  const std::vector<int>& s = tape.parameters()[id].shape;
  return tape.record(std::make_unique<Leaf>(id), {s[0], s[1], s[2], s[3]});
}

class DoubleInterpreter {
 public:
  /// Parameters and moments are those of the tape's set at this moment. The tape may be planned or not.
  explicit DoubleInterpreter(const Tape& tape)
      : parameters(to_doubles(tape.parameters().values())),
        buffers(to_doubles(tape.parameters().buffer_values())),
        inputs(tape.inputs().size()),
        scalars(static_cast<std::size_t>(tape.scalar_count())),
        tape_(tape) {}

  Doubles parameters, buffers;   ///< flat, as in ParameterSet
  std::vector<Doubles> inputs;   ///< of each input of the tape, dense
  std::vector<Doubles> scalars;  ///< of each of the tape's scalars

  Doubles evaluate(Value output) {
    values_.clear();
    for (std::size_t i = 0; i < inputs.size(); ++i) value(tape_.inputs()[i]) = inputs[i];
    for (const auto& operation : tape_.operations()) run(*operation);
    return value(output);
  }

 private:
  Doubles& value(Value v) {
    if (values_.size() <= static_cast<std::size_t>(v.index)) values_.resize(static_cast<std::size_t>(v.index) + 1);
    return values_[static_cast<std::size_t>(v.index)];
  }
  const double* parameter(ParameterId id) const { return parameters.data() + tape_.parameters()[id].offset; }
  const double* buffer(ParameterId id) const {
    return buffers.data() + tape_.parameters().buffers()[static_cast<std::size_t>(id.index)].offset;
  }
  static std::size_t at(Extents e, int n, int y, int x, int c) {
    return ((static_cast<std::size_t>(n) * e.h + y) * e.w + x) * e.c + static_cast<std::size_t>(c);
  }
  void convolution(const ConvolutionOperation& o, Doubles& y) {
    const Conv2dGeometry& g = o.geometry;
    // The wide side is what the convolution reads, or its transpose writes.
    const Extents wide = tape_.extents(o.transposed ? o.output : o.inputs[0]);
    const Extents narrow = tape_.extents(o.transposed ? o.inputs[0] : o.output);
    const Doubles x = value(o.inputs[0]);
    const double* w = parameter(o.weight);
    const int c_in = g.c_in / g.groups, c_out = g.c_out / g.groups;
    const auto wrap = [&](int i, int n) { return g.padding == Padding::periodic ? ((i % n) + n) % n : i; };
    for (int n = 0; n < narrow.n; ++n) {
      for (int oy = 0; oy < narrow.h; ++oy) {
        for (int ox = 0; ox < narrow.w; ++ox) {
          for (int ky = 0; ky < g.kernel_y; ++ky) {
            for (int kx = 0; kx < g.kernel_x; ++kx) {
              const int iy = wrap(g.stride * oy + ky - g.pad_y, wide.h),
                        ix = wrap(g.stride * ox + kx - g.pad_x, wide.w);
              if (iy < 0 || iy >= wide.h || ix < 0 || ix >= wide.w) continue;
              for (int co = 0; co < g.c_out; ++co) {
                for (int ci = 0; ci < c_in; ++ci) {
                  const double weight = w[((ky * g.kernel_x + kx) * c_in + ci) * g.c_out + co];
                  const std::size_t in = at(wide, n, iy, ix, co / c_out * c_in + ci), out = at(narrow, n, oy, ox, co);
                  if (o.transposed) {
                    y[in] += weight * x[out];
                  } else {
                    y[out] += weight * x[in];
                  }
                }
              }
            }
          }
        }
      }
    }
    const auto channels = static_cast<std::size_t>(tape_.extents(o.output).c);
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (o.bias) y[i] += parameter(o.bias)[i % channels];
      if (o.inputs.size() > 1) y[i] += value(o.inputs[1])[i];
      y[i] = umbriel::testing::reference_activation(o.activation, y[i]);
    }
  }

  void batch_norm(const BatchNormOperation& o, Doubles& y) {
    const Doubles x = value(o.inputs[0]);
    const auto channels = static_cast<std::size_t>(tape_.extents(o.output).c);
    for (std::size_t c = 0; c < channels; ++c) {
      double mean = 0, variance = 0;
      if (tape_.training()) {
        const double count = static_cast<double>(x.size() / channels);
        for (std::size_t i = c; i < x.size(); i += channels) mean += x[i] / count;
        for (std::size_t i = c; i < x.size(); i += channels) variance += (x[i] - mean) * (x[i] - mean) / count;
      } else {
        mean = buffer(o.running_mean)[c];
        variance = buffer(o.running_variance)[c];
      }
      for (std::size_t i = c; i < x.size(); i += channels) {
        y[i] = (x[i] - mean) / std::sqrt(variance + static_cast<double>(o.epsilon)) * parameter(o.gamma)[c] +
               parameter(o.beta)[c];
        if (o.inputs.size() > 1) y[i] += value(o.inputs[1])[i];
        y[i] = umbriel::testing::reference_activation(o.activation, y[i]);
      }
    }
  }

  void group_norm(const GroupNormOperation& o, Doubles& y) {
    const Doubles& x = value(o.inputs[0]);
    const Extents e = tape_.extents(o.output);
    const int width = e.c / o.groups;
    for (int n = 0; n < e.n; ++n) {
      for (int g = 0; g < o.groups; ++g) {
        const auto each = [&](const std::function<void(std::size_t, int)>& visit) {
          for (int p = 0; p < e.h * e.w; ++p) {
            for (int c = g * width; c < (g + 1) * width; ++c) visit(at(e, n, 0, p, c), c);
          }
        };
        const double count = static_cast<double>(e.h) * e.w * width;
        double mean = 0, variance = 0;
        each([&](std::size_t i, int) { mean += x[i] / count; });
        each([&](std::size_t i, int) { variance += (x[i] - mean) * (x[i] - mean) / count; });
        each([&](std::size_t i, int c) {
          const double z = (x[i] - mean) / std::sqrt(variance + static_cast<double>(o.epsilon));
          y[i] = umbriel::testing::reference_activation(o.activation, z * parameter(o.gamma)[c] + parameter(o.beta)[c]);
        });
      }
    }
  }

  void channel_norm(const ChannelNormOperation& o, Doubles& y) {
    const Doubles& x = value(o.inputs[0]);
    const auto channels = static_cast<std::size_t>(tape_.extents(o.output).c);
    for (std::size_t pixel = 0; pixel < x.size(); pixel += channels) {
      double mean = 0, variance = 0;
      for (std::size_t c = 0; c < channels; ++c) mean += x[pixel + c] / static_cast<double>(channels);
      for (std::size_t c = 0; c < channels; ++c)
        variance += (x[pixel + c] - mean) * (x[pixel + c] - mean) / static_cast<double>(channels);
      for (std::size_t c = 0; c < channels; ++c)
        y[pixel + c] =
            (x[pixel + c] - mean) / std::sqrt(variance + static_cast<double>(o.epsilon)) * parameter(o.gamma)[c] +
            parameter(o.beta)[c];
    }
  }

  void run(const Operation& operation) {
    const Extents e = tape_.extents(operation.output);
    value(operation.output);  // so that references stay good
    Doubles y(static_cast<std::size_t>(e.elements()), 0.0);
    // y(n, row, column, c) = f(...) for all.
    const auto each = [&](const std::function<double(int, int, int, int)>& f) {
      for (int n = 0; n < e.n; ++n) {
        for (int row = 0; row < e.h; ++row) {
          for (int column = 0; column < e.w; ++column) {
            for (int c = 0; c < e.c; ++c) y[at(e, n, row, column, c)] = f(n, row, column, c);
          }
        }
      }
    };
    const auto input = [&](std::size_t i) -> const Doubles& { return value(operation.inputs[i]); };
    const auto extents = [&](std::size_t i) { return tape_.extents(operation.inputs[i]); };
    if (const auto* o = dynamic_cast<const ConvolutionOperation*>(&operation)) {
      convolution(*o, y);
    } else if (const auto* o = dynamic_cast<const BatchNormOperation*>(&operation)) {
      batch_norm(*o, y);
    } else if (const auto* o = dynamic_cast<const GroupNormOperation*>(&operation)) {
      group_norm(*o, y);
    } else if (const auto* o = dynamic_cast<const ChannelNormOperation*>(&operation)) {
      channel_norm(*o, y);
    } else if (const auto* o = dynamic_cast<const ActivationOperation*>(&operation)) {
      for (std::size_t i = 0; i < y.size(); ++i)
        y[i] = umbriel::testing::reference_activation(o->activation, input(0)[i]);
    } else if (const auto* o = dynamic_cast<const SumOperation*>(&operation)) {
      for (std::size_t i = 0; i < y.size(); ++i)
        y[i] = static_cast<double>(o->alpha) * input(0)[i] + static_cast<double>(o->beta) * input(1)[i];
    } else if (dynamic_cast<const ProductOperation*>(&operation) != nullptr) {
      for (std::size_t i = 0; i < y.size(); ++i) y[i] = input(0)[i] * input(1)[i];
    } else if (dynamic_cast<const ModulateOperation*>(&operation) != nullptr) {
      each([&](int n, int row, int column, int c) {
        const double scale = input(1)[at(extents(1), n, 0, 0, c)], shift = input(1)[at(extents(1), n, 0, 0, e.c + c)];
        return input(0)[at(e, n, row, column, c)] * (1 + scale) + shift;
      });
    } else if (const auto* o = dynamic_cast<const PoolOperation*>(&operation)) {
      const int f = o->factor;
      each([&](int n, int row, int column, int c) {
        double sum = 0;
        for (int i = 0; i < f * f; ++i) sum += input(0)[at(extents(0), n, f * row + i / f, f * column + i % f, c)];
        return sum / (f * f);
      });
    } else if (const auto* o = dynamic_cast<const UpsampleOperation*>(&operation)) {
      each([&](int n, int row, int column, int c) {
        return input(0)[at(extents(0), n, row / o->factor, column / o->factor, c)];
      });
    } else if (dynamic_cast<const ReshapeOperation*>(&operation) != nullptr) {
      each([&](int n, int row, int column, int c) { return input(0)[at(e, n, row, column, c)]; });
    } else if (dynamic_cast<const ConcatenateOperation*>(&operation) != nullptr) {
      each([&](int n, int row, int column, int c) {
        std::size_t i = 0;
        for (; c >= extents(i).c; ++i) c -= extents(i).c;
        return input(i)[at(extents(i), n, row, column, c)];
      });
    } else if (const auto* o = dynamic_cast<const ScaleSamplesOperation*>(&operation)) {
      const Doubles& factor = scalars[static_cast<std::size_t>(o->factor.index)];
      each([&](int n, int row, int column, int c) {
        return input(0)[at(e, n, row, column, c)] * factor[static_cast<std::size_t>(n)];
      });
    } else if (const auto* o = dynamic_cast<const PlaneOperation*>(&operation)) {
      const Doubles& plane = scalars[static_cast<std::size_t>(o->value.index)];
      each([&](int n, int, int, int) { return plane[static_cast<std::size_t>(n)]; });
    } else if (dynamic_cast<const Leaf*>(&operation) != nullptr) {
      std::copy_n(parameter(operation.parameters[0]), y.size(), y.begin());
    } else {
      ADD_FAILURE() << "the reference does not know " << operation.name();
    }
    value(operation.output) = std::move(y);
  }

  const Tape& tape_;
  std::vector<Doubles> values_;
};

/// Largest difference over the largest value of `expected`.
inline double distance(const Doubles& a, const Doubles& expected) {
  EXPECT_EQ(a.size(), expected.size());
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < a.size() && i < expected.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    worst = std::max(worst, std::fabs(a[i] - expected[i]));
    largest = std::max(largest, std::fabs(expected[i]));
  }
  return worst / largest;
}

struct Tolerances {
  double value = 1e-5, gradient = 1e-4;
  int elements = 4;  ///< of each parameter whose own derivative is checked, beside one random direction of them all
};

/// Plans the record and proves: its forward pass gives what the float64 reference gives; its gradients of a linear
/// function of the output are the reference's finite differences; a second pass gives the same bits; and when a
/// gradient is announced as ready it is.
inline void expect_forward_and_gradients(Tape& tape, Value output, const Tolerances& tolerances = {},
                                         const std::vector<Doubles>& scalars = {}) {
  const Space space;
  const ParameterSet& set = tape.parameters();
  DoubleInterpreter reference(tape);
  tape.plan(output);
  std::uint32_t stream = 1000;
  for (std::size_t i = 0; i < reference.inputs.size(); ++i) {
    const Activations x = tape.value(tape.inputs()[i]);
    reference.inputs[i] = draw_normals(++stream, x.extents.elements());
    set_floats(x.data, reference.inputs[i]);
  }
  for (std::size_t i = 0; i < reference.scalars.size(); ++i) {
    const View1<float>& view = tape.scalars(Scalars{static_cast<int>(i)});
    reference.scalars[i] =
        i < scalars.size() ? scalars[i] : draw_normals(++stream, static_cast<std::int64_t>(view.size()), 0.3, 1);
    set_floats(view.data(), reference.scalars[i]);
  }
  if (!tape.training()) tape.load_parameters(space);
  tape.forward(space);
  space.fence();
  const Doubles y = to_doubles(tape.value(output));
  EXPECT_LT(distance(y, reference.evaluate(output)), tolerances.value);
  if (!tape.training()) return;

  const Doubles seed = draw_normals(++stream, static_cast<std::int64_t>(y.size()));
  const auto loss = [&] {
    const Doubles z = reference.evaluate(output);
    double sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i) sum += seed[i] * z[i];
    return sum;
  };
  set_floats(tape.gradient(output).data, seed);
  std::vector<std::pair<std::int64_t, Doubles>> announced;
  tape.backward(space, [&](std::int64_t first) {
    space.fence();
    announced.emplace_back(first, to_doubles(set.gradients()));
  });
  space.fence();
  const Doubles gradient = to_doubles(set.gradients());
  ASSERT_FALSE(announced.empty());
  EXPECT_EQ(announced.back().first, 0);
  for (const auto& [first, then] : announced) {
    for (std::size_t i = static_cast<std::size_t>(first); i < gradient.size(); ++i)
      ASSERT_EQ(then[i], gradient[i]) << "announced from " << first << " on, element " << i;
  }
  // Nothing is added to what an earlier step left.
  tape.forward(space);
  set_floats(tape.gradient(output).data, seed);
  tape.backward(space);
  space.fence();
  const Doubles again = to_doubles(set.gradients());
  for (const Parameter& p : set.parameters()) {
    for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
      // Moments are summed relative to running ones, which have moved.
      ASSERT_NEAR(again[static_cast<std::size_t>(i)], gradient[static_cast<std::size_t>(i)],
                  1e-4 * (1 + std::fabs(gradient[static_cast<std::size_t>(i)])))
          << p.name << ", second pass";
    }
  }

  // Central differences along a direction.
  const auto derivative = [&](const Doubles& direction, std::int64_t offset) {
    constexpr double h = 1e-5;
    const Doubles kept = reference.parameters;
    double ends[2];
    for (const int side : {0, 1}) {
      for (std::size_t i = 0; i < direction.size(); ++i)
        reference.parameters[static_cast<std::size_t>(offset) + i] =
            kept[static_cast<std::size_t>(offset) + i] + (side == 0 ? -h : h) * direction[i];
      ends[side] = loss();
    }
    reference.parameters = kept;
    return (ends[1] - ends[0]) / (2 * h);
  };
  double largest_of_all = 0;
  for (const double g : gradient) largest_of_all = std::max(largest_of_all, std::fabs(g));
  ASSERT_GT(largest_of_all, 0);
  for (const Parameter& p : set.parameters()) {
    double square = 0, largest = 0;
    for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
      const double g = gradient[static_cast<std::size_t>(i)];
      square += g * g;
      largest = std::max(largest, std::fabs(g));
    }
    // A gradient that cancels (a shift before a norm) is zero up to the rounding of its terms.
    const double floor = 1e-3 * largest_of_all;
    Doubles direction = draw_normals(++stream, p.size, 1 / std::sqrt(static_cast<double>(p.size)));
    double along = 0;
    for (std::size_t i = 0; i < direction.size(); ++i)
      along += direction[i] * gradient[static_cast<std::size_t>(p.offset) + i];
    EXPECT_NEAR(along, derivative(direction, p.offset),
                tolerances.gradient * std::max(std::sqrt(square / static_cast<double>(p.size)), floor))
        << p.name << ", all elements";
    for (int k = 0; k < tolerances.elements; ++k) {
      const double u = uniform({18, Purpose::test, stream, 0}, static_cast<std::uint64_t>(k));
      const auto i = std::min<std::int64_t>(static_cast<std::int64_t>(u * static_cast<double>(p.size)), p.size - 1);
      EXPECT_NEAR(gradient[static_cast<std::size_t>(p.offset + i)], derivative({1.0}, p.offset + i),
                  tolerances.gradient * std::max(largest, floor))
          << p.name << ", element " << i;
    }
  }
}

}  // namespace umbriel::nn::testing
