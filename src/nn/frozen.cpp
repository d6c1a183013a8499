#include "umbriel/nn/frozen.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <map>

#include "umbriel/nn/operations.hpp"
#include "umbriel/nn/phases.hpp"
#include "umbriel/ops/elementwise.hpp"

namespace umbriel::nn {
namespace {

/// Weights [ky, kx, ci, co] and bias on the host, before they have a place in the frozen network's parameters.
struct HostLayer {
  Conv2dGeometry geometry;
  std::vector<float> weight, bias;
};

/// A convolution and what becomes its epilogue.
struct Chain {
  const ConvolutionOperation* convolution = nullptr;
  const BatchNormOperation* norm = nullptr;
  Value residual;
  Activation activation = Activation::none;
  int last = -1;  // position of the operation whose output the chain computes
};

std::vector<float> part(const std::vector<float>& flat, const Parameter& parameter) {
  return {flat.begin() + parameter.offset, flat.begin() + parameter.offset + parameter.size};
}

std::vector<float> to_host(const View1<float>& view) {
  const auto host = on_host(view);
  return {host.data(), host.data() + host.size()};
}

/// A 3 x 3 layer of a map upsampled by two as a 2 x 2 one of the coarse map (phases.hpp).
HostLayer on_coarse_map(const HostLayer& fine) {
  const Space space;
  HostLayer coarse{phase_geometry(fine.geometry), {}, fine.bias};
  const View1<float> weights("fine", fine.weight.size());
  const View1<float> phases("phases", static_cast<std::size_t>(coarse.geometry.weights()));
  Kokkos::deep_copy(
      weights, Kokkos::View<const float*, HostMemory, Kokkos::MemoryUnmanaged>(fine.weight.data(), fine.weight.size()));
  phase_weights(space, fine.geometry, weights.data(), phases.data());
  space.fence();
  coarse.weight = to_host(phases);
  return coarse;
}

class InterleaveOperation final : public Operation {
 public:
  InterleaveOperation(Value phases, Value residual, ParameterId bias_, Activation activation_)
      : bias(bias_), activation(activation_) {
    inputs = {phases};
    if (residual) inputs.push_back(residual);
    parameters = {bias};
  }
  std::string_view name() const override { return "interleaving"; }
  void forward(const Space& space, const Tape& tape) override {
    const ConstActivations residual = inputs.size() > 1 ? ConstActivations(tape.value(inputs[1])) : ConstActivations();
    interleave(space, tape.value(inputs[0]), tape.parameters().value(bias), residual, activation, tape.value(output));
  }
  void backward(const Space&, const Tape&) override {}

  const ParameterId bias;
  const Activation activation;
};

/// Rewrites one record into another.
class Freezer {
 public:
  Freezer(const Tape& record, Value output, const View1<float>& values)
      : record_(record), output_(output), values_(to_host(values)) {
    buffers_ = to_host(record.parameters().buffer_values());
    consumers_.resize(record.operations().size() + record.inputs().size());
    for (const auto& operation : record.operations()) {
      for (const Value input : operation->inputs)
        consumers_[static_cast<std::size_t>(input.index)].push_back(operation->position);
    }
    find_chains();
  }

  /// First pass: declares parameters, and writes down the operations as calls that record them.
  /// Second: with the parameters allocated, records.
  void rewrite(ParameterSet& set) {
    for (const auto& operation : record_.operations()) {
      const int position = operation->position;
      if (absorbed_[static_cast<std::size_t>(position)]) continue;
      const auto chain = chain_at_.find(position);
      if (chain != chain_at_.end()) {
        emit(set, chain->second);
      } else {
        emit(set, *operation);
      }
    }
    set.allocate();
    for (const auto& [id, value] : initial_) {
      const Kokkos::View<const float*, HostMemory, Kokkos::MemoryUnmanaged> host(value.data(), value.size());
      const auto first = static_cast<std::size_t>(set[id].offset);
      Kokkos::deep_copy(Kokkos::subview(set.values(), std::make_pair(first, first + value.size())), host);
    }
  }

  void record(Tape& tape, Value& input, std::vector<Scalars>& scalars, Value& output) {
    places_.assign(consumers_.size(), Value{});
    for (const Value old : record_.inputs()) {
      input = tape.input(record_.extents(old));
      places_[static_cast<std::size_t>(old.index)] = input;
    }
    const int tile = record_.extents(record_.inputs().front()).n;
    for (int i = 0; i < record_.scalar_count(); ++i) scalars.push_back(tape.scalars(tile));
    for (const auto& action : actions_) action(tape);
    output = place(output_);
  }

 private:
  const std::vector<int>& consumers(Value value) const { return consumers_[static_cast<std::size_t>(value.index)]; }
  const Operation& at(int position) const { return *record_.operations()[static_cast<std::size_t>(position)]; }
  Value place(Value old) const { return old ? places_[static_cast<std::size_t>(old.index)] : Value{}; }
  void put(Value old, Value fresh) { places_[static_cast<std::size_t>(old.index)] = fresh; }

  void find_chains() {
    absorbed_.assign(record_.operations().size(), false);
    std::vector<bool> claimed(record_.operations().size(), false);
    for (const auto& operation : record_.operations()) {
      const auto* convolution = dynamic_cast<const ConvolutionOperation*>(operation.get());
      if (convolution == nullptr || convolution->transposed) continue;
      Chain chain{convolution, nullptr, {}, convolution->activation, convolution->position};
      if (convolution->inputs.size() > 1) chain.residual = convolution->inputs[1];
      Value current = convolution->output;
      while (current != output_ && consumers(current).size() == 1) {
        const int next = consumers(current)[0];
        if (claimed[static_cast<std::size_t>(next)] || chain.activation != Activation::none) break;
        if (const auto* norm = dynamic_cast<const BatchNormOperation*>(&at(next))) {
          if (norm->inputs[0] != current || chain.norm != nullptr || chain.residual) break;
          chain.norm = norm;
          if (norm->inputs.size() > 1) chain.residual = norm->inputs[1];
          chain.activation = norm->activation;
        } else if (const auto* f = dynamic_cast<const ActivationOperation*>(&at(next))) {
          chain.activation = f->activation;
        } else if (const auto* sum = dynamic_cast<const SumOperation*>(&at(next))) {
          if (chain.residual || sum->alpha != 1 || sum->beta != 1 || sum->inputs[0] == sum->inputs[1]) break;
          chain.residual = sum->inputs[0] == current ? sum->inputs[1] : sum->inputs[0];
        } else {
          break;
        }
        claimed[static_cast<std::size_t>(next)] = true;
        absorbed_[static_cast<std::size_t>(chain.last)] = true;
        chain.last = next;
        current = at(next).output;
      }
      chain_at_[chain.last] = chain;
    }
    // An upsampling that only such convolutions read is left out.
    for (const auto& operation : record_.operations()) {
      const auto* up = dynamic_cast<const UpsampleOperation*>(operation.get());
      if (up == nullptr || up->factor != 2 || up->output == output_) continue;
      const bool all = std::all_of(consumers(up->output).begin(), consumers(up->output).end(), [&](int reader) {
        const auto* c = dynamic_cast<const ConvolutionOperation*>(&at(reader));
        if (c == nullptr || c->transposed || c->inputs[0] != up->output) return false;
        return suits_coarse_map(c->geometry) && !(c->inputs.size() > 1 && c->inputs[1] == up->output);
      });
      if (!all || consumers(up->output).empty()) continue;
      absorbed_[static_cast<std::size_t>(up->position)] = true;
      skipped_upsampling_[up->output.index] = up->inputs[0];
    }
  }

  /// Weights and bias of a chain, with batch norm folded in.
  HostLayer layer_of(const Chain& chain) const {
    const ParameterSet& set = record_.parameters();
    const ConvolutionOperation& c = *chain.convolution;
    HostLayer layer{c.geometry, part(values_, set[c.weight]), {}};
    const auto channels = static_cast<std::size_t>(c.geometry.c_out);
    layer.bias = c.bias ? part(values_, set[c.bias]) : std::vector<float>(channels, 0.0f);
    if (chain.norm == nullptr) return layer;
    const BatchNormOperation& n = *chain.norm;
    const auto gamma = part(values_, set[n.gamma]), beta = part(values_, set[n.beta]);
    const auto buffer = [&](ParameterId id) {
      return part(buffers_, set.buffers()[static_cast<std::size_t>(id.index)]);
    };
    const auto mean = buffer(n.running_mean), variance = buffer(n.running_variance);
    std::vector<double> scale(channels);
    for (std::size_t i = 0; i < channels; ++i) {
      scale[i] = gamma[i] / std::sqrt(static_cast<double>(variance[i]) + n.epsilon);
      layer.bias[i] = static_cast<float>((layer.bias[i] - mean[i]) * scale[i] + beta[i]);
    }
    for (std::size_t i = 0; i < layer.weight.size(); ++i)
      layer.weight[i] = static_cast<float>(layer.weight[i] * scale[i % channels]);
    return layer;
  }

  ParameterId declare(ParameterSet& set, Role role, const std::vector<int>& shape, std::vector<float> value) {
    const ParameterId id = set.add(std::to_string(set.parameters().size()), role, shape);
    initial_.emplace_back(id, std::move(value));
    return id;
  }

  struct Declared {
    Conv2dGeometry geometry;
    ParameterId weight, bias;
  };
  Declared declare(ParameterSet& set, HostLayer layer) {
    const Conv2dGeometry& g = layer.geometry;
    const ParameterId weight =
        declare(set, Role::convolution, {g.kernel_y, g.kernel_x, g.c_in / g.groups, g.c_out}, std::move(layer.weight));
    const auto size = static_cast<int>(layer.bias.size());
    return {g, weight, declare(set, Role::bias, {size}, std::move(layer.bias))};
  }

  static Value convolve(Tape& tape, Value x, Value residual, const Declared& d, ParameterId bias, Activation f) {
    Extents e = tape.extents(x);
    e = {e.n, d.geometry.output_height(e.h), d.geometry.output_width(e.w), d.geometry.c_out};
    return tape.record(std::make_unique<ConvolutionOperation>(x, residual, d.geometry, d.weight, bias, f, false), e);
  }

  void emit(ParameterSet& set, const Chain& chain) {
    const Value old_x = chain.convolution->inputs[0], old_y = at(chain.last).output;
    HostLayer layer = layer_of(chain);
    const auto coarse = skipped_upsampling_.find(old_x.index);
    if (coarse == skipped_upsampling_.end()) {
      const Declared d = declare(set, std::move(layer));
      actions_.push_back([=, this](Tape& tape) {
        put(old_y, convolve(tape, place(old_x), place(chain.residual), d, d.bias, chain.activation));
      });
      return;
    }
    const Value old_coarse = coarse->second;
    const Extents fine = record_.extents(old_y);
    if (layer.geometry.kernel_y == 1) {
      const Declared d = declare(set, std::move(layer));
      const bool plain = !chain.residual;
      actions_.push_back([=, this](Tape& tape) {
        Value y = convolve(tape, place(old_coarse), {}, d, d.bias, plain ? chain.activation : Activation::none);
        // Who can read the coarse map does (see Interleave); others get it upsampled.
        if (plain && reads_coarse(old_y)) {
          put(old_y, y);
          return;
        }
        y = tape.record(std::make_unique<UpsampleOperation>(y, 2), fine);
        if (!plain) {
          y = tape.record(std::make_unique<SumOperation>(1.0f, y, 1.0f, place(chain.residual)), fine);
          if (chain.activation != Activation::none)
            y = tape.record(std::make_unique<ActivationOperation>(y, chain.activation), fine);
        }
        put(old_y, y);
      });
      return;
    }
    const Declared d = declare(set, on_coarse_map(layer));
    actions_.push_back([=, this](Tape& tape) {
      const Value phases = convolve(tape, place(old_coarse), {}, d, {}, Activation::none);
      put(old_y,
          tape.record(std::make_unique<InterleaveOperation>(phases, place(chain.residual), d.bias, chain.activation),
                      fine));
    });
  }

  /// True if the only reader of a value is the residual of an interleaving.
  bool reads_coarse(Value value) const {
    if (value == output_ || consumers(value).size() != 1) return false;
    const auto reader = std::find_if(chain_at_.begin(), chain_at_.end(), [&](const auto& entry) {
      return entry.second.residual == value && entry.first == consumers(value)[0];
    });
    if (reader == chain_at_.end()) return false;
    const Chain& chain = reader->second;
    return chain.convolution->geometry.kernel_y == 3 &&
           skipped_upsampling_.count(chain.convolution->inputs[0].index) > 0;
  }

  /// Operations that stay as they are; their parameters are carried over.
  void emit(ParameterSet& set, const Operation& operation) {
    std::vector<ParameterId> ids;
    for (const ParameterId id : operation.parameters) {
      const Parameter& p = record_.parameters()[id];
      ids.push_back(declare(set, p.role, p.shape, part(values_, p)));
    }
    const Value old_y = operation.output;
    const Extents extents = record_.extents(old_y);
    const Operation* old = &operation;
    const auto again = [=, this](auto make) {
      actions_.push_back([=, this](Tape& tape) {
        std::vector<Value> x;
        for (const Value input : old->inputs) x.push_back(place(input));
        put(old_y, tape.record(make(x), extents));
      });
    };
    using Inputs = const std::vector<Value>&;
    if (const auto* o = dynamic_cast<const ConvolutionOperation*>(old)) {
      const ParameterId bias = o->bias ? ids[1] : ParameterId{};
      again([=](Inputs x) {
        return std::make_unique<ConvolutionOperation>(x[0], Value{}, o->geometry, ids[0], bias, o->activation,
                                                      o->transposed);
      });
    } else if (dynamic_cast<const BatchNormOperation*>(old) != nullptr) {
      throw Error(ExitCode::usage, "a batch norm does not follow a convolution that it could be folded into", "freeze",
                  "put it right behind a convolution that nothing else reads");
    } else if (const auto* o = dynamic_cast<const GroupNormOperation*>(old)) {
      again([=](Inputs x) {
        return std::make_unique<GroupNormOperation>(x[0], o->groups, ids[0], ids[1], o->epsilon, o->activation);
      });
    } else if (const auto* o = dynamic_cast<const ChannelNormOperation*>(old)) {
      again([=](Inputs x) { return std::make_unique<ChannelNormOperation>(x[0], ids[0], ids[1], o->epsilon); });
    } else if (const auto* o = dynamic_cast<const ActivationOperation*>(old)) {
      again([=](Inputs x) { return std::make_unique<ActivationOperation>(x[0], o->activation); });
    } else if (const auto* o = dynamic_cast<const SumOperation*>(old)) {
      again([=](Inputs x) { return std::make_unique<SumOperation>(o->alpha, x[0], o->beta, x[1]); });
    } else if (dynamic_cast<const ProductOperation*>(old) != nullptr) {
      again([=](Inputs x) { return std::make_unique<ProductOperation>(x[0], x[1]); });
    } else if (dynamic_cast<const ModulateOperation*>(old) != nullptr) {
      again([=](Inputs x) { return std::make_unique<ModulateOperation>(x[0], x[1]); });
    } else if (const auto* o = dynamic_cast<const PoolOperation*>(old)) {
      again([=](Inputs x) { return std::make_unique<PoolOperation>(x[0], o->factor); });
    } else if (const auto* o = dynamic_cast<const UpsampleOperation*>(old)) {
      again([=](Inputs x) { return std::make_unique<UpsampleOperation>(x[0], o->factor); });
    } else if (dynamic_cast<const ReshapeOperation*>(old) != nullptr) {
      again([=](Inputs x) { return std::make_unique<ReshapeOperation>(x[0]); });
    } else if (dynamic_cast<const ConcatenateOperation*>(old) != nullptr) {
      actions_.push_back([=, this](Tape& tape) {
        std::vector<Value> x;
        for (const Value input : old->inputs) x.push_back(place(input));
        put(old_y, tape.concatenate(x));
      });
    } else if (const auto* o = dynamic_cast<const ScaleSamplesOperation*>(old)) {
      again([=](Inputs x) { return std::make_unique<ScaleSamplesOperation>(x[0], o->factor); });
    } else if (const auto* o = dynamic_cast<const PlaneOperation*>(old)) {
      again([=](Inputs) { return std::make_unique<PlaneOperation>(o->value); });
    } else {
      throw Error(ExitCode::usage, std::string("an operation cannot be frozen: ").append(operation.name()), "freeze",
                  "add it to nn/frozen.cpp");
    }
  }

  const Tape& record_;
  Value output_;
  std::vector<float> values_, buffers_;
  std::vector<std::vector<int>> consumers_;
  std::vector<bool> absorbed_;
  std::map<int, Chain> chain_at_;
  std::map<int, Value> skipped_upsampling_;
  std::vector<std::pair<ParameterId, std::vector<float>>> initial_;
  std::vector<std::function<void(Tape&)>> actions_;
  std::vector<Value> places_;
};

}  // namespace

int samples_of_a_tile(std::int64_t pixels) {
  constexpr std::int64_t device_pixels = 1 << 20;
  return runs_on_host ? 1 : static_cast<int>(std::clamp<std::int64_t>(device_pixels / pixels, 1, 256));
}

FrozenNetwork::FrozenNetwork(const Tape& record, Value output, const View1<float>& values, Options options) {
  require(record.inputs().size() == 1 && !record.training(), ExitCode::usage,
          "only a record for inference with one input can be frozen", "freeze");
  Freezer freezer(record, output, values);
  freezer.rewrite(parameters_);
  tape_ = std::make_unique<Tape>(parameters_, false, std::move(options));
  freezer.record(*tape_, input_, scalars_, output_);
  tape_->plan(output_);
  tape_->load_parameters(Space());
}

FrozenNetwork::~FrozenNetwork() = default;

int FrozenNetwork::tile() const { return tape_->extents(input_).n; }
double FrozenNetwork::flops() const { return tape_->flops(); }
double FrozenNetwork::bytes() const { return tape_->bytes(output_) + parameters_.bytes(); }

void FrozenNetwork::run(const Space& space, ConstActivations input, const std::vector<View1<float>>& scalars,
                        Activations output) const {
  const Extents e = tape_->extents(input_);
  require(input.extents.h == e.h && input.extents.w == e.w && input.extents.c == e.c &&
              scalars.size() == scalars_.size() && output.extents.n == input.extents.n,
          ExitCode::usage, "the input does not have the shape that the network was frozen for", "network");
  for (int first = 0; first < input.extents.n; first += e.n) {
    const int n = std::min(e.n, input.extents.n - first);
    tape_->use_samples(n);
    copy_channels(space, input.samples(first, n), tape_->value(input_));
    for (std::size_t i = 0; i < scalars.size(); ++i) {
      const auto begin = static_cast<std::size_t>(first), count = static_cast<std::size_t>(n);
      Kokkos::deep_copy(space, Kokkos::subview(tape_->scalars(scalars_[i]), std::make_pair(std::size_t{0}, count)),
                        Kokkos::subview(scalars[i], std::make_pair(begin, begin + count)));
    }
    tape_->forward(space);
    copy_channels(space, tape_->value(output_), output.samples(first, n));
  }
}

}  // namespace umbriel::nn
