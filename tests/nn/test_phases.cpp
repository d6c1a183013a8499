// Convolutions of upsampled maps on the coarse map while training: results and gradients are those of a record that
// keeps the fine map because somebody else reads it too.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "umbriel/nn/initialise.hpp"
#include "umbriel/nn/layers.hpp"
#include "umbriel/nn/operations.hpp"

namespace umbriel::nn {
namespace {

constexpr int channels = 5;

struct Layers {
  ParameterSet set;
  Convolution head, three, one, periodic;

  Layers() {
    Convolution::Settings point, wrapped;
    point.kernel = 1;
    wrapped.padding = Padding::periodic;
    head = Convolution(set, "head", 2, channels, {});
    three = Convolution(set, "three", channels, channels, {});
    one = Convolution(set, "one", channels, channels, point);
    periodic = Convolution(set, "periodic", channels, channels, wrapped);
    set.allocate();
    initialise(set, 3, Initialisation::he_normal);
    const auto values = on_host(set.values());
    for (const Parameter& p : set.parameters()) {
      for (std::int64_t i = 0; p.role == Role::bias && i < p.size; ++i)
        values(static_cast<std::size_t>(p.offset + i)) = 0.1f * static_cast<float>(i + 1);
    }
    Kokkos::deep_copy(set.values(), values);
  }
};

/// The network behind the head: from the coarse value to the output, upsampling with the function given.
using Body = std::function<Value(Tape&, Value, const Layers&, const std::function<Value(Value)>&)>;

struct Outcome {
  std::vector<float> output, gradients;
  int left_out = 0;
};

/// @param first  number of the first sample: input and seed of a sample depend on its number alone
Outcome run(const Body& body, bool fine_map_is_read, int first, int batch) {
  Layers layers;
  Tape tape(layers.set, true);
  const Extents e{batch, 6, 4, 2};
  const Value x = tape.input(e);
  std::vector<Value> upsampled;
  const Value y = body(tape, layers.head(tape, x, Activation::tanh), layers, [&](Value coarse) {
    upsampled.push_back(upsample(tape, coarse, 2));
    if (fine_map_is_read) activation(tape, upsampled.back(), Activation::tanh);
    return upsampled.back();
  });
  tape.plan(y);
  const auto fill = [&](Activations a, float frequency) {
    std::vector<float> values(static_cast<std::size_t>(a.extents.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto element = i + static_cast<std::size_t>(first) * (values.size() / static_cast<std::size_t>(batch));
      values[i] = std::sin(frequency * static_cast<float>(element + 1));
    }
    Kokkos::deep_copy(View1<float>(a.data, values.size()),
                      Kokkos::View<const float*, HostMemory, Kokkos::MemoryUnmanaged>(values.data(), values.size()));
  };
  fill(tape.value(x), 0.7f);
  const Space space;
  tape.forward(space);
  fill(tape.gradient(y), 1.3f);
  tape.backward(space);
  const auto read = [](const View1<float>& view) {
    const auto host = on_host(view);
    return std::vector<float>(host.data(), host.data() + host.size());
  };
  const Activations out = tape.value(y);
  Outcome outcome{read(View1<float>(out.data, static_cast<std::size_t>(out.extents.elements()))),
                  read(layers.set.gradients())};
  for (const Value up : upsampled) outcome.left_out += tape.left_out(up) ? 1 : 0;
  return outcome;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size());
  float largest = 0;
  for (const float value : b) largest = std::max(largest, std::fabs(value));
  EXPECT_GT(largest, 0.1f);
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 3e-6f * largest) << what << ' ' << i;
}

const std::pair<const char*, Body> bodies[] = {
    {"3 x 3",
     [](Tape& t, Value coarse, const Layers& l, const auto& up) { return l.three(t, up(coarse), Activation::none); }},
    {"1 x 1 with a derivative from the output",
     [](Tape& t, Value coarse, const Layers& l, const auto& up) { return l.one(t, up(coarse), Activation::elu); }},
    {"both, one twice, with a derivative from the input",
     [](Tape& t, Value coarse, const Layers& l, const auto& up) {
       const Value fine = up(coarse);
       return sum(t, l.three(t, fine, Activation::silu), sum(t, l.one(t, fine), l.three(t, fine)));
     }},
    {"of a coarse map that others read before and behind",
     [](Tape& t, Value coarse, const Layers& l, const auto& up) {
       const Value before = activation(t, coarse, Activation::tanh);
       const Value y = l.three(t, up(coarse));
       return sum(t, y, upsample(t, activation(t, sum(t, before, coarse), Activation::silu), 2));
     }},
    {"of a coarse map that a concatenation reads first",
     [](Tape& t, Value coarse, const Layers& l, const auto& up) {
       const Value fine = up(coarse);
       const Value both = t.concatenate({coarse, activation(t, coarse, Activation::tanh)});
       return t.concatenate({l.three(t, fine), upsample(t, both, 2)});
     }},
};

TEST(Phases, AgreeWithConvolutionsOfTheFineMap) {
  for (const auto& [name, body] : bodies) {
    SCOPED_TRACE(name);
    const Outcome coarse = run(body, false, 0, 3), fine = run(body, true, 0, 3);
    EXPECT_EQ(coarse.left_out, 1);
    EXPECT_EQ(fine.left_out, 0);
    expect_near(coarse.output, fine.output, "output");
    expect_near(coarse.gradients, fine.gradients, "gradient");
  }
}

TEST(Phases, OfASampleDoNotDependOnTheBatch) {
  for (const auto& [name, body] : bodies) {
    const std::vector<float> all = run(body, false, 0, 3).output;
    for (int sample = 0; sample < 3; ++sample) {
      const std::vector<float> alone = run(body, false, sample, 1).output;
      for (std::size_t i = 0; i < alone.size(); ++i)
        ASSERT_EQ(alone[i], all[static_cast<std::size_t>(sample) * alone.size() + i]) << name;
    }
  }
}

TEST(Phases, AreNotUsedWhereTheFineMapIsNeeded) {
  const std::pair<const char*, Body> others[] = {
      {"periodic", [](Tape& t, Value coarse, const Layers& l, const auto& up) { return l.periodic(t, up(coarse)); }},
      {"output", [](Tape&, Value coarse, const Layers&, const auto& up) { return up(coarse); }},
      {"sum", [](Tape& t, Value coarse, const Layers& l, const auto& up) {
         const Value fine = up(coarse);
         return sum(t, l.three(t, fine), fine);
       }}};
  for (const auto& [name, body] : others) EXPECT_EQ(run(body, false, 0, 1).left_out, 0) << name;
}

}  // namespace
}  // namespace umbriel::nn
