// The network rewritten for inference gives what the record means in float64, whatever was folded, fused or moved.
#include "umbriel/nn/frozen.hpp"

#include <set>

#include "double_interpreter.hpp"
#include "umbriel/nn/layers.hpp"

namespace umbriel::nn {
namespace {

using namespace testing;

std::multiset<std::string> names(const Tape& tape) {
  std::multiset<std::string> all;
  for (const auto& operation : tape.operations()) all.emplace(operation->name());
  return all;
}

/// Runs 5 samples through a network frozen for tiles of 2, and compares with the reference and with runs of one sample.
template <class Layers>
std::multiset<std::string> check(const std::string& what, const ParameterSet& set, const Layers& layers, Extents input,
                                 const std::function<Value(Tape&, Value, const Layers&)>& build) {
  SCOPED_TRACE(what);
  constexpr int samples = 5, tile = 2;
  const Space space;
  const auto record = [&](Tape& tape, int n) {
    return build(tape, tape.input({n, input.h, input.w, input.c}), layers);
  };
  Tape plain(set, false);
  const Value expected_output = record(plain, samples);
  DoubleInterpreter reference(plain);
  reference.inputs[0] = draw_normals(500, plain.extents(plain.inputs()[0]).elements());
  std::vector<View1<float>> scalars;
  for (std::size_t i = 0; i < reference.scalars.size(); ++i) {
    reference.scalars[i] = draw_normals(501 + static_cast<std::uint32_t>(i), samples, 0.3, 1);
    scalars.emplace_back("scalars", samples);
    set_floats(scalars.back().data(), reference.scalars[i]);
  }
  const Doubles expected = reference.evaluate(expected_output);
  const Extents out = plain.extents(expected_output), in = plain.extents(plain.inputs()[0]);

  std::unique_ptr<FrozenNetwork> frozen;
  {
    Tape tape(set, false);  // is gone when the network runs
    frozen = std::make_unique<FrozenNetwork>(tape, record(tape, tile), set.values());
  }
  EXPECT_EQ(frozen->tile(), tile);
  const View1<float> x("x", static_cast<std::size_t>(in.elements())), y("y", static_cast<std::size_t>(out.elements()));
  set_floats(x.data(), reference.inputs[0]);
  const Activations from(x.data(), in), to(y.data(), out);
  frozen->run(space, from, scalars, to);
  space.fence();
  const Doubles all = to_doubles(y);
  EXPECT_LT(distance(all, expected), 1e-5);

  Kokkos::deep_copy(y, NAN);
  for (int n = samples - 1; n >= 0; --n) {
    std::vector<View1<float>> mine;
    for (const auto& s : scalars) mine.push_back(Kokkos::subview(s, std::make_pair(n, n + 1)));
    frozen->run(space, from.samples(n, 1), mine, to.samples(n, 1));
  }
  space.fence();
  EXPECT_EQ(to_doubles(y), all) << "a sample's bits do not depend on its batch";
  return names(frozen->tape());
}

struct BlockLayers {
  Convolution first, second, shortcut;
  BatchNorm norm1, norm2, norm3;
};

BlockLayers declare_block(ParameterSet& set, int c_in, int c_out, Padding padding, bool bias) {
  Convolution::Settings three, one;
  three.padding = padding;
  three.bias = one.bias = bias;
  one.kernel = 1;
  BlockLayers l;
  l.first = Convolution(set, "first", c_in, c_out, three);
  l.second = Convolution(set, "second", c_out, c_out, three);
  l.shortcut = Convolution(set, "shortcut", c_in, c_out, one);
  l.norm1 = BatchNorm(set, "norm1", c_out);
  l.norm2 = BatchNorm(set, "norm2", c_out);
  l.norm3 = BatchNorm(set, "norm3", c_out);
  set.allocate();
  set_parameters(set);
  return l;
}

Value record_block(Tape& tape, Value x, const BlockLayers& l, Activation f) {
  const Value shortcut = l.norm3(tape, l.shortcut(tape, x));
  return l.norm2(tape, l.second(tape, l.norm1(tape, l.first(tape, x), f)), f, shortcut);
}

TEST(Frozen, FoldsBatchNormAndResidualsIntoConvolutions) {
  for (const Activation f : {Activation::relu, Activation::silu, Activation::softplus}) {
    for (const bool bias : {false, true}) {
      ParameterSet set;
      const BlockLayers layers = declare_block(set, 3, 6, Padding::zeros, bias);
      const auto left =
          check<BlockLayers>(name_of(f), set, layers, {0, 5, 7, 3},
                             [&](Tape& tape, Value x, const BlockLayers& l) { return record_block(tape, x, l, f); });
      EXPECT_EQ(left, (std::multiset<std::string>{"convolution", "convolution", "convolution"}));
    }
  }
}

TEST(Frozen, MovesConvolutionsBehindAnUpsamplingToTheCoarseMap) {
  for (const Padding padding : {Padding::zeros, Padding::periodic}) {
    for (const Activation f : {Activation::none, Activation::relu, Activation::tanh}) {
      for (const Extents e : {Extents{0, 4, 4, 3}, Extents{0, 3, 5, 3}, Extents{0, 1, 2, 3}}) {
        ParameterSet set;
        const BlockLayers layers = declare_block(set, 3, 4, padding, true);
        // The 1 x 1 shortcut is read on the coarse map by the 3 x 3 convolution's epilogue.
        const auto left =
            check<BlockLayers>(std::string(name_of(f)) + (padding == Padding::zeros ? ", zeros" : ", periodic"), set,
                               layers, e, [&](Tape& tape, Value x, const BlockLayers& l) {
                                 const Value up = upsample(tape, x, 2);
                                 return l.norm2(tape, l.first(tape, up), f, l.norm3(tape, l.shortcut(tape, up), f));
                               });
        EXPECT_EQ(left.count("upsampling"), 0U);
        // Both read elsewhere too; a residual of the fine map's size; a plain 3 x 3.
        check<BlockLayers>("others", set, layers, e, [&](Tape& tape, Value x, const BlockLayers& l) {
          const Value up = upsample(tape, x, 2);
          const Value point = l.shortcut(tape, up, f), three = l.first(tape, up, f);
          const Value more = sum(tape, l.second(tape, three), point);
          const Value again = upsample(tape, average_pool(tape, more, 2), 2);
          const Value late = activation(tape, sum(tape, more, l.second(tape, again)), f);
          return tape.concatenate({late, activation(tape, sum(tape, l.shortcut(tape, up), late), f), point});
        });
      }
    }
  }
}

TEST(Frozen, KeepsAnUpsamplingThatOthersRead) {
  ParameterSet set;
  const BlockLayers layers = declare_block(set, 3, 3, Padding::periodic, true);
  struct Variant {
    const char* name;
    std::size_t upsamplings;
    std::function<Value(Tape&, Value, const BlockLayers&)> build;
  };
  const Variant variants[] = {
      {"the output", 1,
       [](Tape& t, Value x, const BlockLayers& l) {
         const Value up = upsample(t, x, 2);
         l.first(t, up);
         return up;
       }},
      {"a residual", 1,
       [](Tape& t, Value x, const BlockLayers& l) {
         const Value up = upsample(t, x, 2);
         return sum(t, l.first(t, up, Activation::none), up);
       }},
      {"an activation", 1,
       [](Tape& t, Value x, const BlockLayers& l) {
         const Value up = upsample(t, x, 2);
         return sum(t, l.first(t, up), activation(t, up, Activation::elu));
       }},
      {"by three", 1, [](Tape& t, Value x, const BlockLayers& l) { return l.first(t, upsample(t, x, 3)); }},
      {"twice", 1,
       [](Tape& t, Value x, const BlockLayers& l) { return l.first(t, upsample(t, upsample(t, x, 2), 2)); }},
  };
  for (const Variant& v : variants)
    EXPECT_EQ(check<BlockLayers>(v.name, set, layers, {0, 3, 4, 3}, v.build).count("upsampling"), v.upsamplings);
}

TEST(Frozen, FusesOnlyWhatItMay) {
  ParameterSet set;
  const BlockLayers layers = declare_block(set, 3, 3, Padding::zeros, true);
  const std::pair<const char*, std::function<Value(Tape&, Value, const BlockLayers&)>> variants[] = {
      {"a sum of two convolutions",
       [](Tape& t, Value x, const BlockLayers& l) { return sum(t, l.first(t, x), l.second(t, x)); }},
      {"a weighted sum", [](Tape& t, Value x, const BlockLayers& l) { return sum(t, l.first(t, x), x, 0.5f, 2.0f); }},
      {"a sum that weighs one",
       [](Tape& t, Value x, const BlockLayers& l) {
         return sum(t, sum(t, l.first(t, x), x, 0.5f, 1.0f), l.second(t, x), 1.0f, 2.0f);
       }},
      {"a sum with itself",
       [](Tape& t, Value x, const BlockLayers& l) {
         const Value y = l.first(t, x);
         return sum(t, y, y);
       }},
      {"two nonlinearities",
       [](Tape& t, Value x, const BlockLayers& l) {
         return activation(t, l.first(t, x, Activation::tanh), Activation::softplus);
       }},
      {"a nonlinearity, then a sum",
       [](Tape& t, Value x, const BlockLayers& l) { return sum(t, x, l.first(t, x, Activation::silu)); }},
      {"two sums",
       [](Tape& t, Value x, const BlockLayers& l) { return sum(t, sum(t, l.first(t, x), x), l.second(t, x)); }},
      {"a value that is read twice",
       [](Tape& t, Value x, const BlockLayers& l) {
         const Value y = l.first(t, x);
         return product(t, activation(t, y, Activation::relu), y);
       }},
      {"the output is not behind its readers",
       [](Tape& t, Value x, const BlockLayers& l) {
         const Value y = l.first(t, x);
         activation(t, y, Activation::relu);
         return y;
       }},
      {"norm, sum, nonlinearity",
       [](Tape& t, Value x, const BlockLayers& l) {
         return activation(t, sum(t, x, l.norm1(t, l.first(t, x))), Activation::elu);
       }},
  };
  for (const auto& [name, build] : variants) check<BlockLayers>(name, set, layers, {0, 4, 5, 3}, build);
}

TEST(Frozen, CarriesEveryOtherOperationOver) {
  struct Layers {
    Convolution narrow, widen, grouped;
    GroupNorm norm;
    Dense dense;
  };
  ParameterSet set;
  Convolution::Settings narrow, widen, grouped;
  narrow.stride = 2;
  widen.transposed = true;
  widen.stride = 2;
  widen.kernel = 4;
  widen.pad = 1;
  grouped.groups = 2;
  Layers layers;
  layers.narrow = Convolution(set, "narrow", 3, 6, narrow);
  layers.widen = Convolution(set, "widen", 6, 4, widen);
  layers.grouped = Convolution(set, "grouped", 6, 6, grouped);
  layers.norm = GroupNorm(set, "norm", 6, 3);
  layers.dense = Dense(set, "dense", 2, 12);
  set.allocate();
  set_parameters(set);
  for (const Activation f : {Activation::none, Activation::silu}) {
    check<Layers>(name_of(f), set, layers, {0, 6, 12, 3}, [&](Tape& t, Value x, const Layers& l) {
      const Extents one{t.extents(x).n, 1, 1, 1};
      const Scalars a = t.scalars(one.n), b = t.scalars(one.n), c = t.scalars(one.n);
      const Value m = l.dense(t, t.concatenate({plane(t, one, a), plane(t, one, b)}), f);
      const Value y = l.grouped(t, modulate(t, l.norm(t, l.narrow(t, x, f), f), m), f);
      const Value z = l.widen(t, product(t, y, l.grouped(t, upsample(t, average_pool(t, y, 3), 3), f)), f);
      return scale_samples(t, t.concatenate({z, x}), c);
    });
  }
}

TEST(Frozen, UsesTheValuesItIsGiven) {
  ParameterSet set;
  const Convolution layer(set, "c", 2, 2, Convolution::Settings{});
  set.allocate();
  set_parameters(set);
  const View1<float> average("average", set.values().size());
  Kokkos::deep_copy(average, set.values());
  Kokkos::deep_copy(set.values(), NAN);
  Tape tape(set, false);
  const Value y = layer(tape, tape.input({1, 4, 4, 2}));
  const FrozenNetwork frozen(tape, y, average);
  const Tensor x("x", 1, 4, 4, 2), out("out", 1, 4, 4, 2);
  Kokkos::deep_copy(x, 1.0f);
  frozen.run(Space(), Activations(x), {}, Activations(out));
  for (const double v : to_doubles(Activations(out))) EXPECT_TRUE(std::isfinite(v));
}

int allocations = 0;

TEST(Frozen, AllocatesNothingInARun) {
  ParameterSet set;
  const BlockLayers layers = declare_block(set, 3, 6, Padding::periodic, true);
  Tape tape(set, false);
  const Value y = record_block(tape, upsample(tape, tape.input({2, 6, 8, 3}), 2), layers, Activation::silu);
  const FrozenNetwork frozen(tape, y, set.values());
  const Tensor x("x", 5, 6, 8, 3), out("out", 5, 12, 16, 6);
  frozen.run(Space(), Activations(x), {}, Activations(out));
  Kokkos::Tools::Experimental::set_allocate_data_callback(
      [](const Kokkos::Tools::SpaceHandle, const char*, const void*, const std::uint64_t) { ++allocations; });
  frozen.run(Space(), Activations(x), {}, Activations(out));
  const int counted = allocations;
  { const View1<float> one("one", 10); }
  Kokkos::Tools::Experimental::set_allocate_data_callback(nullptr);
  EXPECT_EQ(counted, 0);
  EXPECT_EQ(allocations, 1) << "allocations are counted";
}

TEST(Frozen, RefusesWhatItCannotFreeze) {
  ParameterSet set;
  const BlockLayers layers = declare_block(set, 3, 3, Padding::zeros, false);
  const std::function<Value(Tape&, Value)> bad[] = {
      [&](Tape& t, Value x) { return layers.norm1(t, x); },
      [&](Tape& t, Value x) {  // the convolution's own output is read too
        const Value y = layers.first(t, x);
        return sum(t, layers.norm1(t, y), y);
      },
      [&](Tape& t, Value x) { return layers.norm1(t, layers.first(t, x, Activation::relu)); },
      [&](Tape& t, Value x) { return layers.norm2(t, layers.norm1(t, layers.first(t, x))); },
      [&](Tape& t, Value x) { return layers.norm1(t, sum(t, layers.first(t, x), x)); },
  };
  for (const auto& build : bad) {
    Tape tape(set, false);
    const Value y = build(tape, tape.input({1, 4, 4, 3}));
    try {
      const FrozenNetwork frozen(tape, y, set.values());
      ADD_FAILURE() << "frozen";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find("batch norm"), std::string::npos) << error.what();
    }
  }
  Tape training(set, true);
  const Value y = layers.first(training, training.input({1, 4, 4, 3}));
  EXPECT_THROW(FrozenNetwork(training, y, set.values()), Error);
  Tape tape(set, false);
  const Value z = layers.first(tape, tape.input({1, 4, 4, 3}));
  const FrozenNetwork frozen(tape, z, set.values());
  const Tensor wrong("wrong", 1, 4, 5, 3);
  EXPECT_THROW(frozen.run(Space(), Activations(wrong), {}, Activations(wrong)), Error);
}

}  // namespace
}  // namespace umbriel::nn
