// Convolutions of every backend against a naive float64 convolution, whose gradients are finite differences of it.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "reference_activation.hpp"
#include "umbriel/ops/conv2d.hpp"
#include "umbriel/ops/conv2d_implementation.hpp"

namespace umbriel {

namespace {

struct Case {
  Conv2dGeometry geometry;
  int height, width;
};

void PrintTo(const Case& c, std::ostream* out) {
  const Conv2dGeometry& g = c.geometry;
  *out << g.kernel_y << "x" << g.kernel_x << ", " << g.c_in << " to " << g.c_out << ", stride " << g.stride << ", pad "
       << g.pad_y << " " << g.pad_x << (g.padding == Padding::periodic ? " periodic" : "") << ", groups " << g.groups
       << ", map " << c.height << "x" << c.width;
}

Case make(int kernel_y, int kernel_x, int c_in, int c_out, int stride, int pad_y, int pad_x, Padding padding,
          int groups, int height, int width) {
  Conv2dGeometry g;
  g.c_in = c_in, g.c_out = c_out;
  g.kernel_y = kernel_y, g.kernel_x = kernel_x;
  g.stride = stride;
  g.pad_y = pad_y, g.pad_x = pad_x;
  g.padding = padding;
  g.groups = groups;
  return {g, height, width};
}

std::vector<Case> cases() {
  constexpr Padding zeros = Padding::zeros, periodic = Padding::periodic;
  return {
      make(3, 3, 32, 32, 1, 1, 1, zeros, 1, 11, 37),     // whole blocks
      make(3, 3, 64, 64, 1, 1, 1, periodic, 1, 9, 45),   //
      make(3, 3, 19, 37, 1, 1, 1, zeros, 1, 7, 13),      // no multiple of anything
      make(3, 3, 5, 130, 1, 1, 1, periodic, 1, 5, 6),    //
      make(3, 3, 16, 24, 1, 0, 2, zeros, 1, 14, 23),     // small kernels with other padding
      make(3, 3, 48, 16, 1, 2, 2, periodic, 1, 6, 7),    //
      make(2, 2, 33, 40, 1, 1, 1, zeros, 1, 11, 26),     //
      make(2, 2, 16, 48, 1, 0, 1, periodic, 1, 9, 10),   //
      make(5, 5, 20, 40, 1, 2, 2, zeros, 1, 7, 15),      //
      make(1, 1, 32, 64, 1, 0, 0, zeros, 1, 6, 29),      //
      make(1, 1, 7, 3, 2, 0, 0, zeros, 1, 7, 9),         //
      make(7, 7, 3, 32, 1, 3, 3, zeros, 1, 16, 31),      // thin in
      make(7, 7, 2, 16, 1, 3, 3, periodic, 1, 8, 9),     //
      make(5, 5, 1, 24, 1, 2, 2, zeros, 1, 9, 17),       //
      make(5, 5, 64, 1, 1, 2, 2, zeros, 1, 9, 33),       // thin out
      make(3, 3, 16, 1, 1, 1, 1, periodic, 1, 8, 14),    //
      make(3, 3, 20, 2, 1, 1, 1, zeros, 1, 6, 19),       //
      make(5, 3, 33, 3, 1, 2, 1, periodic, 1, 7, 10),    //
      make(3, 3, 1, 1, 1, 1, 1, zeros, 1, 5, 23),        // thin both ways
      make(3, 3, 3, 2, 1, 1, 1, periodic, 1, 6, 7),      //
      make(4, 4, 16, 32, 2, 1, 1, zeros, 1, 12, 16),     // strides
      make(4, 4, 16, 16, 2, 1, 1, periodic, 1, 12, 16),  //
      make(3, 3, 17, 20, 2, 1, 1, zeros, 1, 11, 14),     // a stride that leaves a remainder
      make(3, 3, 6, 5, 2, 1, 1, periodic, 1, 7, 9),      //
      make(2, 3, 8, 9, 3, 0, 2, zeros, 1, 13, 17),       // a stride wider than the kernel
      make(4, 2, 3, 18, 1, 2, 0, zeros, 1, 6, 5),        // even kernels, the map grows and shrinks
      make(2, 4, 3, 18, 1, 0, 3, periodic, 1, 6, 5),     //
      make(3, 3, 4, 6, 1, 4, 4, zeros, 1, 3, 3),         // padding beyond the kernel
      make(9, 9, 2, 3, 1, 4, 4, periodic, 1, 4, 5),      // a kernel larger than the map
      make(3, 3, 24, 40, 1, 1, 1, zeros, 2, 7, 15),      // groups
      make(3, 3, 6, 9, 2, 1, 1, zeros, 3, 8, 9),         //
      make(3, 3, 35, 35, 1, 1, 1, zeros, 35, 7, 15),     // depthwise
      make(3, 3, 80, 80, 1, 1, 1, periodic, 80, 5, 6),   //
      make(5, 5, 16, 16, 2, 2, 2, periodic, 16, 8, 12),  //
      make(3, 3, 4, 8, 1, 1, 1, zeros, 4, 5, 30),        // depthwise with two outputs a channel
      make(1, 1, 1, 1, 1, 0, 0, zeros, 1, 1, 1),         // one pixel
      make(1, 1, 70, 37, 1, 0, 0, zeros, 1, 1, 1),       // dense layers
      make(1, 1, 37, 96, 1, 0, 0, zeros, 1, 1, 1),       //
      make(1, 1, 80, 2, 1, 0, 0, zeros, 1, 1, 1),        //
  };
}

/// Host array of activations or weights.
using Values = std::vector<float>;

Values draws(std::size_t n, std::uint32_t stream) {
  Values values(n);
  std::uint64_t state = 0x9e3779b97f4a7c15ULL * (stream + 1);
  for (float& value : values) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    value = static_cast<float>(static_cast<double>(state >> 40) / (1 << 23) - 1.0);
  }
  return values;
}

/// A device array that a channel slice of `pitch` looks into, with `first` channels before it. Other channels hold a
/// number that no kernel may touch or use.
struct Array {
  static constexpr float foreign = 1e30f;
  Extents extents;
  int pitch, first;
  View1<float> data;

  Array(Extents e, const Values& values, int before = 0, int after = 0)
      : extents(e), pitch(e.c + before + after), first(before), data("array", e.pixels() * pitch) {
    HostView1<float> host("host", data.extent(0));
    for (std::int64_t i = 0; i < e.pixels() * pitch; ++i) host(i) = foreign;
    for (std::int64_t i = 0; i < e.elements() && !values.empty(); ++i)
      host(i / e.c * pitch + first + i % e.c) = values[i];
    Kokkos::deep_copy(data, host);
  }
  Activations slice() const { return {data.data() + first, extents, pitch}; }
  Values values() const {
    const auto host = on_host(data);
    Values result(static_cast<std::size_t>(extents.elements()));
    for (std::int64_t i = 0; i < extents.elements(); ++i)
      result[i] = host(i / extents.c * pitch + first + i % extents.c);
    return result;
  }
  bool foreign_channels_untouched() const {
    const auto host = on_host(data);
    for (std::int64_t i = 0; i < extents.pixels() * pitch; ++i) {
      const int channel = static_cast<int>(i % pitch);
      if ((channel < first || channel >= first + extents.c) && host(i) != foreign) return false;
    }
    return true;
  }
};

View1<float> on_device_array(const Values& values) {
  HostView1<float> host("host", values.size());
  for (std::size_t i = 0; i < values.size(); ++i) host(i) = values[i];
  const View1<float> result("values", values.size());
  Kokkos::deep_copy(result, host);
  return result;
}
Values from_device(const View1<float>& view) {
  const auto host = on_host(view);
  return {host.data(), host.data() + host.extent(0)};
}

/// The sum of the facade's definition, term by term: calls visit(output, input, weight) for each product, as indices
/// into dense arrays.
template <class Visit>
void for_each_product(const Conv2dGeometry& g, Extents in, const Visit& visit) {
  const int oh = (in.h + 2 * g.pad_y - g.kernel_y) / g.stride + 1,
            ow = (in.w + 2 * g.pad_x - g.kernel_x) / g.stride + 1;
  const int gi = g.c_in / g.groups, go = g.c_out / g.groups;
  for (int n = 0; n < in.n; ++n) {
    for (int oy = 0; oy < oh; ++oy) {
      for (int ox = 0; ox < ow; ++ox) {
        for (int ky = 0; ky < g.kernel_y; ++ky) {
          for (int kx = 0; kx < g.kernel_x; ++kx) {
            int iy = oy * g.stride + ky - g.pad_y, ix = ox * g.stride + kx - g.pad_x;
            if (g.padding == Padding::periodic) {
              iy = ((iy % in.h) + in.h) % in.h;
              ix = ((ix % in.w) + in.w) % in.w;
            }
            if (iy < 0 || iy >= in.h || ix < 0 || ix >= in.w) continue;
            for (int co = 0; co < g.c_out; ++co) {
              for (int ci = 0; ci < gi; ++ci) {
                visit(((static_cast<std::size_t>(n) * oh + oy) * ow + ox) * g.c_out + co,
                      ((static_cast<std::size_t>(n) * in.h + iy) * in.w + ix) * g.c_in + (co / go) * gi + ci,
                      ((static_cast<std::size_t>(ky) * g.kernel_x + kx) * gi + ci) * g.c_out + co);
              }
            }
          }
        }
      }
    }
  }
}

using Exact = std::vector<double>;

Exact exact_forward(const Conv2dGeometry& g, Extents in, const Values& x, const Values& w) {
  Exact y(static_cast<std::size_t>(in.n) * g.output_height(in.h) * g.output_width(in.w) * g.c_out);
  for_each_product(g, in, [&](std::size_t o, std::size_t i, std::size_t k) {
    y[o] += static_cast<double>(x[i]) * static_cast<double>(w[k]);
  });
  return y;
}
Exact exact_data(const Conv2dGeometry& g, Extents in, const Values& dy, const Values& w) {
  Exact dx(static_cast<std::size_t>(in.elements()));
  for_each_product(g, in, [&](std::size_t o, std::size_t i, std::size_t k) {
    dx[i] += static_cast<double>(dy[o]) * static_cast<double>(w[k]);
  });
  return dx;
}
Exact exact_weights(const Conv2dGeometry& g, Extents in, const Values& x, const Values& dy) {
  Exact dw(static_cast<std::size_t>(g.weights()));
  for_each_product(g, in, [&](std::size_t o, std::size_t i, std::size_t k) {
    dw[k] += static_cast<double>(x[i]) * static_cast<double>(dy[o]);
  });
  return dw;
}

/// Largest difference as a fraction of the largest exact value.
double error_of(const Values& values, const Exact& exact) {
  EXPECT_EQ(values.size(), exact.size());
  double largest = 1e-300, difference = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    if (!std::isfinite(values[i])) return INFINITY;
    largest = std::max(largest, std::fabs(exact[i]));
    difference = std::max(difference, std::fabs(static_cast<double>(values[i]) - exact[i]));
  }
  return difference / largest;
}

struct Problem {
  Conv2dGeometry g;
  Extents in, out;
  Values x, w, dy, bias, residual;

  explicit Problem(const Case& c, int samples = 2)
      : g(c.geometry),
        in{samples, c.height, c.width, g.c_in},
        out{samples, g.output_height(c.height), g.output_width(c.width), g.c_out},
        x(draws(in.elements(), 1)),
        w(draws(g.weights(), 2)),
        dy(draws(out.elements(), 3)),
        bias(draws(g.c_out, 4)),
        residual(draws(out.elements(), 5)) {
    // Sums of order one, where activations bend.
    for (float& weight : w) weight *= 2 / std::sqrt(static_cast<float>(g.weights() / g.c_out));
  }
};

/// Backends of the build, and the portable kernels by themselves, which hosts use for few geometries only.
struct Code {
  std::string name;
  Backend backend;
};

std::vector<Code> codes() {
  std::vector<Code> list;
  for (const Backend backend : {Backend::kokkos, Backend::onednn, Backend::cudnn}) {
    if (has_backend(backend)) list.push_back({name_of(backend), backend});
  }
  list.push_back({"portable", Backend::automatic});
  return list;
}

/// The implementation of `code`; portable kernels are behind no facade.
std::unique_ptr<Conv2d::Implementation> implementation(const Code& code, const Problem& p) {
  if (code.name == "portable") return make_portable_conv2d(p.g, p.in, {true, true, true});
  struct Facade final : Conv2d::Implementation {
    Conv2d layer;
    Facade(const Problem& problem, Backend backend) : layer(problem.g, problem.in, true, backend) {
      EXPECT_EQ(layer.forward_backend(), backend);
      EXPECT_EQ(layer.data_backend(), backend);
      EXPECT_EQ(layer.weights_backend(), backend);
    }
    void set_weights(const Space& space, const float* weights) override { layer.set_weights(space, weights); }
    void forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
                 Activation activation, Activations y) const override {
      layer.forward(space, x, bias, residual, activation, y);
    }
    void backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const override {
      layer.backward_data(space, dy, dx, accumulate);
    }
    void backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights, float* dbias,
                          bool accumulate) const override {
      layer.backward_weights(space, x, dy, dweights, dbias, accumulate);
    }
  };
  return std::make_unique<Facade>(p, code.backend);
}

constexpr double tolerance = 1e-5;

class EveryBackend : public ::testing::TestWithParam<Case> {};

TEST_P(EveryBackend, ConvolvesAsTheDefinition) {
  const Problem p(GetParam());
  const Exact exact = exact_forward(p.g, p.in, p.x, p.w);
  const Space space;
  for (const Code& code : codes()) {
    const auto layer = implementation(code, p);
    layer->set_weights(space, on_device_array(p.w).data());
    for (const bool sliced : {false, true}) {
      const Array x(p.in, p.x, 3 * sliced, 2 * sliced), y(p.out, {}, 5 * sliced, sliced);
      layer->forward(space, x.slice(), nullptr, {}, Activation::none, y.slice());
      space.fence();
      EXPECT_LT(error_of(y.values(), exact), tolerance) << code.name << (sliced ? ", slices" : "");
      EXPECT_TRUE(y.foreign_channels_untouched()) << code.name;
    }
  }
}

TEST_P(EveryBackend, FusesBiasResidualAndActivation) {
  const Problem p(GetParam());
  const Exact convolved = exact_forward(p.g, p.in, p.x, p.w);
  const Space space;
  const View1<float> bias = on_device_array(p.bias);
  for (const Code& code : codes()) {
    const auto layer = implementation(code, p);
    layer->set_weights(space, on_device_array(p.w).data());
    int number = 0;
    for (const Activation f : {Activation::none, Activation::relu, Activation::elu, Activation::silu,
                               Activation::softplus, Activation::tanh}) {
      for (const bool in_place : {false, true}) {
        const bool with_bias = ++number % 3 != 0;
        const bool sliced = number % 2 == 0;
        Exact exact = convolved;
        for (std::size_t i = 0; i < exact.size(); ++i) {
          exact[i] =
              testing::reference_activation(f, exact[i] + static_cast<double>(p.residual[i]) +
                                                   (with_bias ? static_cast<double>(p.bias[i % p.g.c_out]) : 0.0));
        }
        const Array x(p.in, p.x), r(p.out, p.residual, 0, 3 * sliced);
        const Array y(p.out, in_place ? p.residual : Values(), 2 * sliced, 0);
        layer->forward(space, x.slice(), with_bias ? bias.data() : nullptr, in_place ? y.slice() : r.slice(), f,
                       y.slice());
        space.fence();
        EXPECT_LT(error_of(y.values(), exact), tolerance) << code.name << ", " << name_of(f) << in_place;
        EXPECT_TRUE(y.foreign_channels_untouched()) << code.name;
        EXPECT_EQ(in_place ? p.residual : r.values(), p.residual);
      }
    }
  }
}

TEST_P(EveryBackend, BringsGradientsToTheInput) {
  const Problem p(GetParam());
  const Exact exact = exact_data(p.g, p.in, p.dy, p.w);
  const Values before = draws(p.in.elements(), 6);
  Exact added = exact;
  for (std::size_t i = 0; i < added.size(); ++i) added[i] += static_cast<double>(before[i]);
  const Space space;
  for (const Code& code : codes()) {
    const auto layer = implementation(code, p);
    layer->set_weights(space, on_device_array(p.w).data());
    for (const bool sliced : {false, true}) {
      const Array dy(p.out, p.dy, 2 * sliced, 3 * sliced), dx(p.in, {}, sliced, 4 * sliced);
      layer->backward_data(space, dy.slice(), dx.slice(), false);
      space.fence();
      EXPECT_LT(error_of(dx.values(), exact), tolerance) << code.name << (sliced ? ", slices" : "");
      EXPECT_TRUE(dx.foreign_channels_untouched()) << code.name;
      const Array sum(p.in, before, 3 * sliced, 0);
      layer->backward_data(space, dy.slice(), sum.slice(), true);
      space.fence();
      EXPECT_LT(error_of(sum.values(), added), tolerance) << code.name << " adds" << (sliced ? ", slices" : "");
      EXPECT_TRUE(sum.foreign_channels_untouched()) << code.name;
    }
  }
}

TEST_P(EveryBackend, BringsGradientsToWeightsAndBias) {
  const Problem p(GetParam(), 3);
  const Exact exact = exact_weights(p.g, p.in, p.x, p.dy);
  Exact exact_bias(p.g.c_out);
  for (std::size_t i = 0; i < p.dy.size(); ++i) exact_bias[i % p.g.c_out] += static_cast<double>(p.dy[i]);
  const Values before = draws(p.g.weights(), 7);
  Exact added = exact, added_bias = exact_bias;
  for (std::size_t i = 0; i < added.size(); ++i) added[i] += static_cast<double>(before[i]);
  for (std::size_t i = 0; i < added_bias.size(); ++i) added_bias[i] += static_cast<double>(p.bias[i]);
  const Space space;
  for (const Code& code : codes()) {
    const auto layer = implementation(code, p);
    for (const bool sliced : {false, true}) {
      const Array x(p.in, p.x, 3 * sliced, 2 * sliced), dy(p.out, p.dy, sliced, 4 * sliced);
      const View1<float> dw = on_device_array(Values(before.size(), NAN)), db = on_device_array(Values(p.g.c_out, NAN));
      layer->backward_weights(space, x.slice(), dy.slice(), dw.data(), db.data(), false);
      space.fence();
      EXPECT_LT(error_of(from_device(dw), exact), tolerance) << code.name << (sliced ? ", slices" : "");
      EXPECT_LT(error_of(from_device(db), exact_bias), tolerance) << code.name;
      const View1<float> sum = on_device_array(before), sum_bias = on_device_array(p.bias);
      layer->backward_weights(space, x.slice(), dy.slice(), sum.data(), sum_bias.data(), true);
      space.fence();
      EXPECT_LT(error_of(from_device(sum), added), tolerance) << code.name << " adds";
      EXPECT_LT(error_of(from_device(sum_bias), added_bias), tolerance) << code.name << " adds";
      layer->backward_weights(space, x.slice(), dy.slice(), dw.data(), nullptr, false);
      space.fence();
      EXPECT_LT(error_of(from_device(dw), exact), tolerance) << code.name << " without bias";
    }
  }
}

TEST_P(EveryBackend, GivesASampleTheSameBitsInAnyBatch) {
  const Problem p(GetParam(), 5);
  const Space space;
  for (const Code& code : codes()) {
    const auto layer = implementation(code, p);
    layer->set_weights(space, on_device_array(p.w).data());
    const Array x(p.in, p.x), y(p.out, {}), dy(p.out, p.dy), dx(p.in, {});
    layer->forward(space, x.slice(), nullptr, {}, Activation::silu, y.slice());
    layer->backward_data(space, dy.slice(), dx.slice(), false);
    for (const auto& [first, count] : {std::pair{0, 1}, {4, 1}, {1, 3}}) {
      Extents few_out = p.out, few_in = p.in;
      few_out.n = few_in.n = count;
      const Array few_y(few_out, {}), few_dx(few_in, {});
      layer->forward(space, x.slice().samples(first, count), nullptr, {}, Activation::silu, few_y.slice());
      layer->backward_data(space, dy.slice().samples(first, count), few_dx.slice(), false);
      space.fence();
      const Values all = y.values(), few = few_y.values(), all_dx = dx.values(), few_dx_values = few_dx.values();
      const std::size_t skipped = all.size() / 5 * first, skipped_dx = all_dx.size() / 5 * first;
      int different = 0;
      for (std::size_t i = 0; i < few.size(); ++i) {
        different += std::bit_cast<std::uint32_t>(few[i]) != std::bit_cast<std::uint32_t>(all[skipped + i]);
      }
      for (std::size_t i = 0; i < few_dx_values.size(); ++i) {
        different +=
            std::bit_cast<std::uint32_t>(few_dx_values[i]) != std::bit_cast<std::uint32_t>(all_dx[skipped_dx + i]);
      }
      EXPECT_EQ(different, 0) << code.name << ", samples " << first << " to " << first + count - 1;
    }
  }
}

// Ranks with few samples plan for few: what is chosen by itself must not depend on it.
TEST_P(EveryBackend, GivesASampleTheSameBitsHoweverManyItIsPlannedFor) {
  const Problem one(GetParam(), 1), many(GetParam(), 5);
  const Space space;
  for (const bool training : {false, true}) {
    Conv2d alone(one.g, one.in, training, Backend::automatic), together(one.g, many.in, training, Backend::automatic);
    const Array x(many.in, many.x), dy(many.out, many.dy), y(many.out, {}), dx(many.in, {});
    const Array one_y(one.out, {}), one_dx(one.in, {});
    for (Conv2d* const layer : {&alone, &together}) layer->set_weights(space, on_device_array(one.w).data());
    alone.forward(space, x.slice().samples(0, 1), nullptr, {}, Activation::none, one_y.slice());
    together.forward(space, x.slice(), nullptr, {}, Activation::none, y.slice());
    if (training) {
      alone.backward_data(space, dy.slice().samples(0, 1), one_dx.slice(), false);
      together.backward_data(space, dy.slice(), dx.slice(), false);
    }
    space.fence();
    const Values few = one_y.values(), all = y.values(), few_dx = one_dx.values(), all_dx = dx.values();
    EXPECT_TRUE(std::equal(few.begin(), few.end(), all.begin())) << training;
    EXPECT_TRUE(!training || std::equal(few_dx.begin(), few_dx.end(), all_dx.begin()));
  }
}

// Those that have more samples than a tile or a block of sums has pixels.
TEST(Conv2d, DenseLayersOfManySamples) {
  const Space space;
  for (const auto& [in, out, samples] :
       {std::array{45, 96, 29}, std::array{37, 40, 13}, std::array{20, 64, 530}, std::array{24, 3, 530}}) {
    const Problem p(make(1, 1, in, out, 1, 0, 0, Padding::zeros, 1, 1, 1), samples);
    Conv2d layer(p.g, p.in, true);
    layer.set_weights(space, on_device_array(p.w).data());
    const Array x(p.in, p.x, 3, 0), dy(p.out, p.dy, 0, 5), y(p.out, {}, 1, 1), dx(p.in, {}, 2, 2);
    const View1<float> dw = on_device_array(Values(p.w.size(), NAN));
    layer.forward(space, x.slice(), nullptr, {}, Activation::none, y.slice());
    layer.backward_data(space, dy.slice(), dx.slice(), false);
    layer.backward_weights(space, x.slice(), dy.slice(), dw.data(), nullptr, false);
    space.fence();
    EXPECT_LT(error_of(y.values(), exact_forward(p.g, p.in, p.x, p.w)), tolerance) << samples;
    EXPECT_LT(error_of(dx.values(), exact_data(p.g, p.in, p.dy, p.w)), tolerance) << samples;
    EXPECT_LT(error_of(from_device(dw), exact_weights(p.g, p.in, p.x, p.dy)), tolerance) << samples;
    EXPECT_TRUE(y.foreign_channels_untouched() && dx.foreign_channels_untouched());
    layer.backward_weights(space, x.slice().samples(0, 0), dy.slice().samples(0, 0), dw.data(), nullptr, false);
    space.fence();
    for (const float value : from_device(dw)) ASSERT_EQ(value, 0) << "no sample, no gradient";
  }
}

INSTANTIATE_TEST_SUITE_P(Conv2d, EveryBackend, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return std::to_string(info.index); });

TEST_P(EveryBackend, KeepsTheStatedErrorInLowerPrecision) {
  const Problem p(GetParam());
  const Space space;
  const Array x(p.in, p.x), dy(p.out, p.dy), y(p.out, {}), dx(p.in, {});
  const View1<float> w = on_device_array(p.w), dw = on_device_array(p.w);
  for (const auto& [precision, error] : {std::pair{Precision::tf32, 1e-3}, {Precision::bfloat16, 1e-2}}) {
    for (const Backend backend : {Backend::kokkos, Backend::onednn, Backend::cudnn}) {
      if (!has_backend(backend)) continue;
      Conv2d layer(p.g, p.in, true, backend, precision);
      layer.set_weights(space, w.data());
      layer.forward(space, x.slice(), nullptr, {}, Activation::none, y.slice());
      layer.backward_data(space, dy.slice(), dx.slice(), false);
      layer.backward_weights(space, x.slice(), dy.slice(), dw.data(), nullptr, false);
      space.fence();
      EXPECT_LT(error_of(y.values(), exact_forward(p.g, p.in, p.x, p.w)), error) << name_of(backend);
      EXPECT_LT(error_of(dx.values(), exact_data(p.g, p.in, p.dy, p.w)), error) << name_of(backend);
      EXPECT_LT(error_of(from_device(dw), exact_weights(p.g, p.in, p.x, p.dy)), error) << name_of(backend);
    }
  }
}

// The exact gradients above are what the tests rest on: they are finite differences of the exact convolution, which is
// linear in each argument, so that the differences have no truncation error.
/// Layers for inference alone, of the channels and sizes for which a backend may take an algorithm of fewer products.
TEST(Conv2d, KeepsItsAccuracyInWideLayersOfLargeMaps) {
  const Space space;
  constexpr Padding zeros = Padding::zeros, periodic = Padding::periodic;
  for (const Case& c :
       {make(3, 3, 48, 64, 1, 1, 1, zeros, 1, 45, 39), make(3, 3, 48, 64, 1, 1, 1, periodic, 1, 45, 39),
        make(3, 3, 19, 37, 1, 1, 1, zeros, 1, 14, 23), make(3, 3, 16, 24, 1, 0, 2, periodic, 1, 8, 13),
        make(2, 2, 33, 40, 1, 1, 1, zeros, 1, 19, 26), make(2, 2, 16, 129, 1, 0, 1, periodic, 1, 11, 10)}) {
    const Problem p(c);
    const Exact convolved = exact_forward(p.g, p.in, p.x, p.w);
    const View1<float> bias = on_device_array(p.bias);
    for (const Backend backend : {Backend::automatic, Backend::kokkos, Backend::onednn, Backend::cudnn}) {
      if (!has_backend(backend)) continue;
      SCOPED_TRACE(name_of(backend));
      Conv2d layer(p.g, p.in, false, backend);
      layer.set_weights(space, on_device_array(p.w).data());
      const auto check = [&](bool with_bias, bool with_residual, Activation f, int more) {
        Exact exact = convolved;
        for (std::size_t i = 0; i < exact.size(); ++i) {
          exact[i] =
              testing::reference_activation(f, exact[i] + (with_residual ? static_cast<double>(p.residual[i]) : 0.0) +
                                                   (with_bias ? static_cast<double>(p.bias[i % p.g.c_out]) : 0.0));
        }
        const Array x(p.in, p.x, more, 0), r(p.out, p.residual, 0, more), y(p.out, {}, more, more);
        layer.forward(space, x.slice(), with_bias ? bias.data() : nullptr,
                      with_residual ? ConstActivations(r.slice()) : ConstActivations(), f, y.slice());
        space.fence();
        EXPECT_LT(error_of(y.values(), exact), tolerance) << name_of(f) << more;
        EXPECT_TRUE(y.foreign_channels_untouched());
        return y.values();
      };
      check(false, false, Activation::none, 0);
      const Values both = check(true, true, Activation::relu, 0);
      EXPECT_EQ(check(true, true, Activation::relu, 3), both);
      check(true, false, Activation::silu, 0);
      check(false, true, Activation::elu, 3);

      Extents one_out = p.out;
      one_out.n = 1;
      const Array x(p.in, p.x), r(p.out, p.residual), alone(one_out, {});
      layer.forward(space, x.slice().samples(1, 1), bias.data(), r.slice().samples(1, 1), Activation::relu,
                    alone.slice());
      space.fence();
      const Values second = alone.values();
      EXPECT_TRUE(std::equal(second.begin(), second.end(), both.begin() + static_cast<std::ptrdiff_t>(second.size())));
    }
  }
}

TEST(Conv2d, ExactGradientsAreFiniteDifferences) {
  for (const Case& c : cases()) {
    const Problem p(c, 1);
    const Exact y = exact_forward(p.g, p.in, p.x, p.w);
    const Exact dx = exact_data(p.g, p.in, p.dy, p.w), dw = exact_weights(p.g, p.in, p.x, p.dy);
    const auto slope = [&](const Values& x, const Values& w) {
      const Exact moved = exact_forward(p.g, p.in, x, w);
      double change = 0;
      for (std::size_t i = 0; i < y.size(); ++i) change += (moved[i] - y[i]) * static_cast<double>(p.dy[i]);
      return change / 0.5;
    };
    for (int trial = 0; trial < 3; ++trial) {
      const std::size_t i = (trial * 7919UL + 3) % p.x.size(), k = (trial * 6007UL + 1) % p.w.size();
      Values x = p.x, w = p.w;
      x[i] += 0.5f;  // draws have 24 bits below 1: this is exact but for the last bit
      w[k] += 0.5f;
      EXPECT_NEAR(slope(x, p.w), dx[i], 1e-5 * (1 + std::fabs(dx[i]))) << ::testing::PrintToString(c);
      EXPECT_NEAR(slope(p.x, w), dw[k], 1e-5 * (1 + std::fabs(dw[k]))) << ::testing::PrintToString(c);
    }
  }
}

TEST(Conv2d, RefusesWhatDoesNotFit) {
  const Conv2dGeometry g{.c_in = 4, .c_out = 6};
  const Extents in{2, 8, 8, 4};
  const auto refuses = [](const auto& action, const std::string& what) {
    try {
      action();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
      return true;
    }
    return false;
  };
  Conv2dGeometry groups = g;
  groups.groups = 3;
  EXPECT_TRUE(refuses([&] { Conv2d(groups, in, false); }, "3 groups"));
  Conv2dGeometry large = g;
  large.kernel_y = 11;
  EXPECT_TRUE(refuses([&] { Conv2d(large, in, false); }, "larger than the padded map"));
  EXPECT_TRUE(refuses([&] { Conv2d(g, {2, 8, 8, 5}, false); }, "5 channels"));
  EXPECT_TRUE(refuses([&] { backend_named("mkl"); }, "mkl"));
  EXPECT_EQ(backend_named("onednn"), Backend::onednn);
  for (const Backend backend : {Backend::onednn, Backend::cudnn}) {
    if (!has_backend(backend)) {
      EXPECT_TRUE(refuses([&] { Conv2d(g, in, false, backend); }, name_of(backend)));
    }
  }
  const Conv2d layer(g, in, false);
  const Array x(in, {}), y({2, 8, 8, 6}, {}), small({2, 8, 7, 6}, {});
  EXPECT_TRUE(refuses([&] { layer.forward(Space(), x.slice(), nullptr, {}, Activation::none, small.slice()); },
                      "[2, 8, 7, 6], not [2, 8, 8, 6]"));
  EXPECT_TRUE(refuses([&] { layer.backward_data(Space(), y.slice(), x.slice(), false); }, "not planned"));
  EXPECT_EQ(layer.flops(), 2.0 * 2 * 8 * 8 * 6 * 4 * 9);
}

}  // namespace
}  // namespace umbriel
