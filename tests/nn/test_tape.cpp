// Every operation, and networks of them, against the float64 reference: forward, and gradients by finite differences.
#include "umbriel/nn/tape.hpp"

#include <algorithm>

#include "double_interpreter.hpp"
#include "umbriel/nn/buffer_plan.hpp"
#include "umbriel/nn/layers.hpp"

namespace umbriel::nn {
namespace {

using namespace testing;

constexpr Activation every_activation[] = {Activation::none, Activation::relu,     Activation::elu,
                                           Activation::silu, Activation::softplus, Activation::tanh};

/// Declares parameters, sets them, records on a tape for training and checks it.
template <class Declare, class Record>
void check(const char* what, const Declare& declare, const Record& record, const Tolerances& tolerances = {}) {
  SCOPED_TRACE(what);
  ParameterSet set;
  const auto layers = declare(set);
  set.allocate();
  set_parameters(set);
  for (const bool training : {true, false}) {
    SCOPED_TRACE(training ? "training" : "inference");
    Tape tape(set, training);
    const Value y = record(tape, layers);
    expect_forward_and_gradients(tape, y, tolerances);
  }
}

TEST(Operation, Convolution) {
  struct Case {
    const char* name;
    Conv2dGeometry geometry;
    Extents input;
  };
  const Case cases[] = {
      {"3 x 3", {3, 5, 3, 3, 1, 1, 1, Padding::zeros, 1}, {2, 5, 7, 3}},
      {"3 x 3 periodic", {4, 2, 3, 3, 1, 1, 1, Padding::periodic, 1}, {3, 4, 5, 4}},
      {"stride 2", {3, 4, 3, 3, 2, 1, 1, Padding::zeros, 1}, {2, 7, 6, 3}},
      {"stride 2, even kernel, periodic", {2, 4, 4, 4, 2, 1, 1, Padding::periodic, 1}, {2, 6, 8, 2}},
      {"5 x 5, two groups, stride 3", {6, 4, 5, 5, 3, 2, 2, Padding::zeros, 2}, {1, 9, 8, 6}},
      {"depthwise", {5, 5, 3, 3, 1, 1, 1, Padding::periodic, 5}, {2, 6, 5, 5}},
      {"1 x 1", {6, 3, 1, 1, 1, 0, 0, Padding::zeros, 1}, {2, 3, 4, 6}},
      {"no padding, oblong", {2, 3, 1, 3, 1, 0, 0, Padding::zeros, 1}, {2, 5, 6, 2}},
      {"7 x 7 to one channel", {3, 1, 7, 7, 1, 3, 3, Padding::zeros, 1}, {1, 9, 8, 3}},
  };
  for (const Case& c : cases) {
    for (const Activation f : every_activation) {
      for (const bool bias : {false, true}) {
        const Conv2dGeometry& g = c.geometry;
        const Extents out{c.input.n, g.output_height(c.input.h), g.output_width(c.input.w), g.c_out};
        check((std::string(c.name) + " " + name_of(f)).c_str(),
              [&](ParameterSet& set) {
                std::vector<ParameterId> ids = {
                    declare_leaf(set, "x", c.input), declare_leaf(set, "residual", out),
                    set.add("weight", Role::convolution, {g.kernel_y, g.kernel_x, g.c_in / g.groups, g.c_out})};
                ids.push_back(bias ? set.add("bias", Role::bias, {g.c_out}) : ParameterId{});
                return ids;
              },
              [&](Tape& tape, const std::vector<ParameterId>& ids) {
                // The bias goes together with a residual.
                const Value x = leaf(tape, ids[0]), r = bias ? leaf(tape, ids[1]) : Value{};
                return tape.record(std::make_unique<ConvolutionOperation>(x, r, g, ids[2], ids[3], f, false), out);
              });
      }
    }
  }
}

TEST(Operation, TransposedConvolution) {
  Convolution::Settings halves, groups, thirds;
  halves.transposed = groups.transposed = thirds.transposed = true;
  halves.kernel = 4;
  halves.stride = 2;
  halves.pad = 1;
  groups.stride = 2;
  groups.groups = 2;
  groups.bias = false;
  thirds.kernel = 5;
  thirds.stride = 3;
  thirds.pad = 0;
  for (const auto& [name, settings] :
       {std::pair{"4 x 4, stride 2", halves}, {"3 x 3, two groups", groups}, {"5 x 5, stride 3", thirds}}) {
    for (const Activation f : every_activation) {
      check((std::string(name) + " " + name_of(f)).c_str(),
            [&](ParameterSet& set) {
              const ParameterId x = declare_leaf(set, "x", {2, 3, 4, 6});
              return std::pair{x, Convolution(set, "up", 6, 4, settings)};
            },
            [&](Tape& tape, const auto& layers) { return layers.second(tape, leaf(tape, layers.first), f); });
    }
  }
}

TEST(Operation, BatchNorm) {
  for (const Activation f : every_activation) {
    for (const char* residual : {"none", "another", "the input"}) {
      const bool has = std::string(residual) != "none";
      if (has && f == Activation::silu) continue;
      check(
          (std::string(name_of(f)) + ", residual: " + residual).c_str(),
          [&](ParameterSet& set) {
            const ParameterId x = declare_leaf(set, "x", {3, 4, 5, 6}), r = declare_leaf(set, "r", {3, 4, 5, 6});
            return std::tuple{x, r, BatchNorm(set, "norm", 6)};
          },
          [&](Tape& tape, const auto& layers) {
            const auto& [x, r, norm] = layers;
            const Value in = leaf(tape, x);
            const Value y = norm(tape, in, f, !has ? Value{} : std::string(residual) == "another" ? leaf(tape, r) : in);
            return has && std::string(residual) == "another" ? y : sum(tape, y, leaf(tape, r));
          });
    }
  }
}

TEST(Operation, BatchNormWithANonlinearityThatCannotFollowAResidualIsRefused) {
  ParameterSet set;
  const BatchNorm norm(set, "norm", 2);
  const ParameterId x = declare_leaf(set, "x", {1, 2, 2, 2});
  set.allocate();
  Tape tape(set, true);
  const Value in = leaf(tape, x);
  const Value y = norm(tape, in, Activation::silu, in);
  EXPECT_THROW(tape.plan(y), Error);
}

/// Gradients of inputs, through the network as it is used, are those of the inference tape's output.
TEST(Tape, GradientsOfInputsAloneAreOfTheNetworkInUse) {
  ParameterSet set;
  const ParameterId x0 = declare_leaf(set, "x", {2, 4, 4, 3});
  Convolution::Settings settings, twice;
  settings.padding = Padding::periodic;
  twice.transposed = true;
  twice.kernel = 4;
  twice.stride = 2;
  twice.pad = 1;
  const Convolution convolution(set, "convolution", 3, 4, settings), up(set, "up", 4, 2, twice);
  const BatchNorm norm(set, "norm", 4), last(set, "last", 2);
  set.allocate();
  set_parameters(set);
  const auto moments = on_host(set.buffer_values());
  for (std::size_t i = 0; i < moments.size(); ++i) moments(i) = 0.5f + 0.1f * static_cast<float>(i % 7);
  Kokkos::deep_copy(set.buffer_values(), moments);
  const auto build = [&](Tape& tape, Value x) {
    return last(tape, up(tape, norm(tape, convolution(tape, x), Activation::tanh)), Activation::softplus);
  };
  Options options;
  options.inputs_only = true;
  Tape frozen(set, false), tape(set, true, options);
  const Value x = tape.input({2, 4, 4, 3}, true), in = frozen.input({2, 4, 4, 3});
  const Value y = build(tape, x), out = build(frozen, in);
  tape.plan(y);
  frozen.plan(out);
  const Space space;
  tape.load_parameters(space);
  frozen.load_parameters(space);
  const auto all = [](const Activations& a) {
    return Kokkos::View<float*, Memory, Kokkos::MemoryUnmanaged>(a.data,
                                                                 static_cast<std::size_t>(a.extents.elements()));
  };
  const Kokkos::View<const float*, Memory, Kokkos::MemoryUnmanaged> start(set.value(x0), 96);
  Kokkos::deep_copy(all(tape.value(x)), start);
  const auto before = on_host(set.buffer_values());
  const std::vector<float> kept(before.data(), before.data() + before.size());
  tape.forward(space);
  const auto sum_of_squares = [&](int moved, float by) {
    const auto host = Kokkos::create_mirror_view_and_copy(HostMemory{}, start);
    View1<float> at("at", 96);
    const auto writable = Kokkos::create_mirror_view(HostMemory{}, at);
    for (std::size_t i = 0; i < 96; ++i) writable(i) = host(i) + (static_cast<int>(i) == moved ? by : 0.0f);
    Kokkos::deep_copy(all(frozen.value(in)), writable);
    frozen.forward(space);
    space.fence();
    const auto values = Kokkos::create_mirror_view_and_copy(HostMemory{}, all(frozen.value(out)));
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      sum += 0.5 * static_cast<double>(values(i)) * static_cast<double>(values(i));
    return sum;
  };
  Kokkos::deep_copy(all(tape.gradient(y)), all(tape.value(y)));
  tape.backward(space);
  space.fence();
  const auto gradient = Kokkos::create_mirror_view_and_copy(HostMemory{}, all(tape.gradient(x)));
  for (const int i : {0, 13, 50, 95}) {
    const double expected = (sum_of_squares(i, 1e-2f) - sum_of_squares(i, -1e-2f)) / 2e-2;
    EXPECT_NEAR(gradient(static_cast<std::size_t>(i)), expected, 2e-3 * (1 + std::fabs(expected))) << i;
  }
  const auto after = on_host(set.buffer_values());
  EXPECT_EQ(kept, std::vector<float>(after.data(), after.data() + after.size())) << "moments are left as they are";
}

TEST(Operation, GroupNorm) {
  for (const Activation f : every_activation) {
    for (const int groups : {1, 2, 6}) {
      check(
          name_of(f),
          [&](ParameterSet& set) {
            const ParameterId x = declare_leaf(set, "x", {2, 4, 5, 6});
            return std::pair{x, GroupNorm(set, "norm", 6, groups)};
          },
          [&](Tape& tape, const auto& layers) { return layers.second(tape, leaf(tape, layers.first), f); });
    }
  }
}

TEST(Operation, ChannelNorm) {
  check(
      "alone",
      [&](ParameterSet& set) {
        const ParameterId x = declare_leaf(set, "x", {2, 4, 5, 6});
        return std::pair{x, ChannelNorm(set, "norm", 6)};
      },
      [&](Tape& tape, const auto& layers) { return layers.second(tape, leaf(tape, layers.first)); });
  check(
      "twice, of one value",
      [&](ParameterSet& set) {
        const ParameterId x = declare_leaf(set, "x", {2, 4, 5, 6});
        return std::pair{x, ChannelNorm(set, "norm", 6)};
      },
      [&](Tape& tape, const auto& layers) {
        const Value x = leaf(tape, layers.first);
        return product(tape, layers.second(tape, x), layers.second(tape, sum(tape, x, x)));
      });
}

TEST(Operation, WithoutParametersOfItsOwn) {
  struct Case {
    const char* name;
    std::function<Value(Tape&, Value, Value, Value)> record;  // a, b: [2, 6, 7, 4]; m: [2, 1, 1, 8]
  };
  std::vector<Case> cases = {
      {"sum", [](Tape& t, Value a, Value b, Value) { return sum(t, a, b, 0.7f, -1.3f); }},
      {"sum with itself", [](Tape& t, Value a, Value, Value) { return sum(t, a, a, 0.7f, 0.5f); }},
      {"product", [](Tape& t, Value a, Value b, Value) { return product(t, a, b); }},
      {"square", [](Tape& t, Value a, Value, Value) { return product(t, a, a); }},
      {"modulation", [](Tape& t, Value a, Value, Value m) { return modulate(t, a, m); }},
      {"pool 2", [](Tape& t, Value a, Value, Value) { return average_pool(t, a, 2); }},
      {"pool 3", [](Tape& t, Value a, Value, Value) { return average_pool(t, a, 3); }},
      {"upsampling 2", [](Tape& t, Value a, Value, Value) { return upsample(t, a, 2); }},
      {"upsampling 3", [](Tape& t, Value a, Value, Value) { return upsample(t, a, 3); }},
      {"reshaping and back",
       [](Tape& t, Value a, Value b, Value) {
         return reshape(t, product(t, reshape(t, a, {0, 1, 1, 168}), reshape(t, b, {0, 1, 1, 168})), {0, 6, 7, 4});
       }},
      {"concatenation",
       [](Tape& t, Value a, Value b, Value) {
         return t.concatenate({b, a});
       }},
      {"concatenation with itself",
       [](Tape& t, Value a, Value b, Value) {
         return t.concatenate({a, b, a});
       }},
      {"scaling", [](Tape& t, Value a, Value, Value) { return scale_samples(t, a, t.scalars(2)); }},
      {"plane",
       [](Tape& t, Value a, Value, Value) {
         return t.concatenate({a, plane(t, t.extents(a), t.scalars(2))});
       }},
  };
  for (const Activation f : every_activation)
    cases.push_back({name_of(f), [f](Tape& t, Value a, Value, Value) { return activation(t, a, f); }});
  // Each alone, and where something else read its inputs, so that their gradients add.
  for (const Case& c : cases) {
    for (const bool shared : {false, true}) {
      check((std::string(c.name) + (shared ? ", inputs shared" : "")).c_str(),
            [&](ParameterSet& set) {
              return std::array{declare_leaf(set, "a", {2, 6, 7, 4}), declare_leaf(set, "b", {2, 6, 7, 4}),
                                declare_leaf(set, "m", {2, 1, 1, 8})};
            },
            [&](Tape& tape, const auto& ids) {
              const Value a = leaf(tape, ids[0]), b = leaf(tape, ids[1]), m = leaf(tape, ids[2]);
              if (!shared) return c.record(tape, a, b, m);
              // Readers before and after, all in the output through maps of one pixel.
              const auto pooled = [&](Value v) { return average_pool(tape, v, 6); };
              const auto half = [&](Value v) { return activation(tape, v, Activation::tanh); };
              const Value before = tape.concatenate({pooled(product(tape, a, b)), half(m)});
              const Value y = c.record(tape, a, b, m);
              const Value after = tape.concatenate({pooled(sum(tape, b, a)), m});
              const int side = std::min(tape.extents(y).h, tape.extents(y).w);
              return tape.concatenate({before, average_pool(tape, y, side), after});
            });
    }
  }
}

// --- networks --------------------------------------------------------------------------------------------------------

TEST(Network, OfResidualBlocksWithBatchNorm) {
  struct Layers {
    Convolution first, down, shortcut, up;
    BatchNorm norm, norm2, shortcut_norm, up_norm;
  };
  check(
      "residual blocks",
      [](ParameterSet& set) {
        Convolution::Settings plain, point;
        plain.bias = point.bias = false;
        point.kernel = 1;
        Layers l;
        l.first = Convolution(set, "first", 2, 5, plain);
        l.down = Convolution(set, "down", 5, 5, plain);
        l.shortcut = Convolution(set, "shortcut", 5, 7, point);
        l.up = Convolution(set, "up", 5, 7, plain);
        l.norm = BatchNorm(set, "norm", 5);
        l.norm2 = BatchNorm(set, "norm2", 5);
        l.shortcut_norm = BatchNorm(set, "shortcut_norm", 7);
        l.up_norm = BatchNorm(set, "up_norm", 7);
        return l;
      },
      [](Tape& tape, const Layers& l) {
        const Value x = tape.input({4, 8, 8, 1});
        const Scalars noise = tape.scalars(4), factor = tape.scalars(4);
        const Value a = l.first(tape, tape.concatenate({x, plane(tape, tape.extents(x), noise)}));
        const Value b = average_pool(tape, a, 2);
        const Value c =
            l.norm2(tape, l.down(tape, l.norm(tape, l.down(tape, b), Activation::relu)), Activation::relu, b);
        const Value d = upsample(tape, c, 2);
        const Value e = l.up_norm(tape, l.up(tape, d), Activation::elu, l.shortcut_norm(tape, l.shortcut(tape, d)));
        // a was read before and lies in the concatenation; e is read by it alone.
        return scale_samples(tape, tape.concatenate({e, a}), factor);
      });
}

TEST(Network, OfTransposedStridedAndGroupedConvolutions) {
  struct Layers {
    Convolution narrow, grouped, widen, last;
    GroupNorm norm;
  };
  check(
      "encoder and decoder",
      [](ParameterSet& set) {
        Convolution::Settings narrow, grouped, widen;
        narrow.stride = 2;
        grouped.groups = 3;
        grouped.padding = Padding::periodic;
        widen.transposed = true;
        widen.stride = 2;
        widen.kernel = 4;
        widen.pad = 1;
        Layers l;
        l.narrow = Convolution(set, "narrow", 2, 6, narrow);
        l.grouped = Convolution(set, "grouped", 6, 6, grouped);
        l.norm = GroupNorm(set, "norm", 6, 2);
        l.widen = Convolution(set, "widen", 6, 4, widen);
        l.last = Convolution(set, "last", 6, 1, Convolution::Settings{});
        return l;
      },
      [](Tape& tape, const Layers& l) {
        const Value x = tape.input({2, 6, 10, 2});
        const Value a = l.narrow(tape, x, Activation::silu);
        // One layer twice: its weights' gradients add.
        const Value b = l.grouped(tape, l.norm(tape, l.grouped(tape, a, Activation::elu), Activation::silu));
        const Value c = l.widen(tape, sum(tape, a, product(tape, a, b)), Activation::softplus);
        return l.last(tape, tape.concatenate({c, x}), Activation::tanh);
      });
}

/// Where the parts of a concatenation are read, and by whom, decides whether they can lie in its memory.
TEST(Network, OfConcatenationsThatShareMemoryAndThatCannot) {
  for (const int variant : {0, 1, 2, 3, 4, 5}) {
    check(
        std::string("variant ").append(std::to_string(variant)).c_str(),
        [](ParameterSet& set) {
          std::vector<Convolution> c;
          for (const auto& [in, out] : {std::pair{2, 3}, {3, 3}, {6, 2}, {3, 3}, {8, 3}})
            c.emplace_back(set, std::string("c").append(std::to_string(c.size())), in, out, Convolution::Settings{});
          return c;
        },
        [&](Tape& tape, const std::vector<Convolution>& c) {
          const Value x = tape.input({2, 5, 4, 2});
          const Value a = c[0](tape, x, Activation::tanh);
          const Value b = c[1](tape, a, Activation::silu);
          const Value ab = tape.concatenate({a, b});
          const Value d = c[2](tape, ab, Activation::elu);
          switch (variant) {
            case 0:
              return tape.concatenate({d, ab});  // one inside another
            case 1:
              return tape.concatenate({ab, d, a});  // read again later
            case 2:
              return tape.concatenate({activation(tape, b, Activation::relu), ab});  // read before the outer one
            case 3:
              return sum(tape, c[3](tape, a), c[4](tape, tape.concatenate({ab, d})));
            case 4:
              return tape.concatenate({d, ab, d, x});
            default:
              return product(tape, tape.concatenate({b, a}), ab);  // in two at once
          }
        });
  }
}

/// Convolutions of an upsampled map may run on the coarse one, whatever else reads that.
TEST(Network, OfConvolutionsBehindUpsamplings) {
  struct Layers {
    Convolution three, point, last;
  };
  for (const Padding padding : {Padding::zeros, Padding::periodic}) {
    for (const Activation f : every_activation) {
      for (const int variant : {0, 1, 2, 3, 4}) {
        check(
            std::string(name_of(f)).append(", variant ").append(std::to_string(variant)).c_str(),
            [&](ParameterSet& set) {
              Convolution::Settings three, point;
              three.padding = padding;
              point.kernel = 1;
              return Layers{Convolution(set, "three", 3, 3, three), Convolution(set, "point", 3, 3, point),
                            Convolution(set, "last", 6, 2, three)};
            },
            [&](Tape& tape, const Layers& l) {
              const Value x = l.point(tape, tape.input({2, 3, 5, 3}), Activation::tanh), up = upsample(tape, x, 2);
              const Value a = l.three(tape, up, f);
              switch (variant) {
                case 0:
                  return product(tape, a, l.point(tape, up, f));  // two readers
                case 1:
                  return product(tape, a, up);  // and one that needs the map
                case 2:
                  return l.last(tape, upsample(tape, tape.concatenate({l.three(tape, x), x}), 2));
                case 3:
                  return sum(tape, average_pool(tape, l.point(tape, a), 2), x);  // the coarse map again, later
                default: {  // the coarse map lies in what is upsampled next, and one layer reads both
                  const Value c = tape.concatenate({average_pool(tape, a, 2), x});
                  return l.last(tape, upsample(tape, c, 2), f);
                }
              }
            });
      }
    }
  }
}

TEST(Network, IgnoresWhatItsOutputDoesNotNeed) {
  ParameterSet set;
  const ParameterId a = declare_leaf(set, "a", {1, 3, 4, 2}), unused = declare_leaf(set, "unused", {1, 3, 4, 2});
  set.allocate();
  set_parameters(set);
  Tape tape(set, true);
  const Value x = leaf(tape, a), dead = leaf(tape, unused);
  const Value y = activation(tape, x, Activation::tanh);
  tape.concatenate({product(tape, x, dead), dead});  // reads x later than the output
  expect_forward_and_gradients(tape, y);
  const Parameter& p = set[unused];
  for (std::int64_t i = 0; i < p.size; ++i)
    EXPECT_EQ(to_doubles(set.gradients())[static_cast<std::size_t>(p.offset + i)], 0);
}

TEST(Tape, SaysBeforehandWhatPlanTakes) {
  ParameterSet set;
  const Convolution c(set, "c", 4, 4, Convolution::Settings{});
  set.allocate();
  for (const bool training : {false, true}) {
    Tape tape(set, training);
    Value y = tape.input({2, 8, 8, 4});
    for (int i = 0; i < 6; ++i) y = c(tape, y);
    const double map = 2 * 8 * 8 * 4 * sizeof(float), weights = 9 * 4 * 4 * sizeof(float);
    // A chain needs two maps, or all of them; each convolution its weights, or those of both ways.
    EXPECT_EQ(tape.bytes(y), training ? (7 + 2) * map + 12 * weights : 2 * map + 6 * weights);
    EXPECT_EQ(tape.flops(), 6 * 2.0 * 9 * 4 * 4 * 2 * 8 * 8);
  }
}

TEST(Tape, RunsOnFewerSamplesThanWereRecordedButNotInTraining) {
  ParameterSet set;
  const Convolution convolution(set, "layer", 2, 3, Convolution::Settings{});
  set.allocate();
  set_parameters(set);
  for (const bool training : {false, true}) {
    Tape tape(set, training);
    const Value x = tape.input({3, 4, 5, 2});
    const Value y = convolution(tape, x);
    tape.plan(y);
    if (training) {
      EXPECT_THROW(tape.use_samples(1), Error);
      continue;
    }
    EXPECT_THROW(tape.use_samples(0), Error);
    EXPECT_THROW(tape.use_samples(4), Error);
    EXPECT_EQ(tape.value(y).extents.n, 3);
    tape.use_samples(2);
    EXPECT_EQ(tape.value(x).extents.n, 2);
    EXPECT_EQ(tape.value(y).extents.n, 2);
  }
}

TEST(Tape, RefusesToPutMapsOfDifferentSizeSideBySide) {
  ParameterSet set;
  set.allocate();
  Tape tape(set, false);
  const Value a = tape.input({1, 4, 4, 1}), b = tape.input({1, 4, 5, 1});
  EXPECT_THROW(tape.concatenate({a, b}), Error);
}

// --- the plan of buffers ---------------------------------------------------------------------------------------------

void expect_sound(const std::vector<Lifetime>& lives, const BufferPlan& plan) {
  ASSERT_EQ(plan.offsets.size(), lives.size());
  for (std::size_t i = 0; i < lives.size(); ++i) {
    EXPECT_EQ(plan.offsets[i] % 16, 0);
    EXPECT_LE(plan.offsets[i] + lives[i].size, plan.total);
    for (std::size_t j = 0; j < i; ++j) {
      const bool together = lives[i].first <= lives[j].last && lives[j].first <= lives[i].last;
      const bool overlap =
          plan.offsets[i] < plan.offsets[j] + lives[j].size && plan.offsets[j] < plan.offsets[i] + lives[i].size;
      EXPECT_FALSE(together && overlap) << i << " and " << j;
    }
  }
}

/// Floats that live together, at most.
std::int64_t peak(const std::vector<Lifetime>& lives) {
  std::int64_t most = 0;
  for (const Lifetime& at : lives) {
    std::int64_t sum = 0;
    for (const Lifetime& life : lives) sum += life.first <= at.first && at.first <= life.last ? life.size : 0;
    most = std::max(most, sum);
  }
  return most;
}

TEST(BufferPlan, NeverPutsTwoThatLiveTogetherInOnePlace) {
  for (std::uint32_t trial = 0; trial < 50; ++trial) {
    std::vector<Lifetime> lives;
    const DrawKey key{3, Purpose::test, trial, 0};
    for (std::uint64_t i = 0; i < 40; ++i) {
      const int first = static_cast<int>(30 * uniform(key, 3 * i)),
                length = static_cast<int>(12 * uniform(key, 3 * i + 1));
      lives.push_back({first, first + length, static_cast<std::int64_t>(1 + 1000 * uniform(key, 3 * i + 2))});
    }
    const BufferPlan plan = plan_buffers(lives);
    expect_sound(lives, plan);
    EXPECT_GE(plan.total, peak(lives));
    std::int64_t all = 0;
    for (const Lifetime& life : lives) all += (life.size + 15) / 16 * 16;
    EXPECT_LT(plan.total, all);
  }
  EXPECT_EQ(plan_buffers({}).total, 0);
}

TEST(BufferPlan, TakesLittleMoreThanTheLeastForChains) {
  std::vector<Lifetime> even, pyramid, unet;
  for (int i = 0; i < 20; ++i) even.push_back({i, i + 1, 4096});
  EXPECT_EQ(plan_buffers(even).total, 2 * 4096);
  for (int i = 0; i < 8; ++i) pyramid.push_back({i, i + 1, 65536 >> i});
  EXPECT_EQ(plan_buffers(pyramid).total, peak(pyramid));
  for (int i = 0; i < 5; ++i) unet.push_back({i, 10 - i, 65536 >> (2 * i)});  // kept for the way up
  for (int i = 0; i < 10; ++i) unet.push_back({i, i + 1, 65536 >> (2 * (i < 5 ? i : 10 - i))});
  for (const auto& lives : {even, pyramid, unet}) {
    const BufferPlan plan = plan_buffers(lives);
    expect_sound(lives, plan);
    EXPECT_LE(static_cast<double>(plan.total), 1.2 * static_cast<double>(peak(lives)));
  }
}

}  // namespace
}  // namespace umbriel::nn
