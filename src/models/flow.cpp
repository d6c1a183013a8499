#include "umbriel/models/flow.hpp"

#include <algorithm>

#include "umbriel/models/network.hpp"
#include "umbriel/ops/coupling.hpp"
#include "umbriel/ops/elementwise.hpp"

namespace umbriel {
namespace {

std::string numbered(const char* name, int i) { return std::string(name).append(".").append(std::to_string(i)); }

struct AddConstant {
  View1<double> out;
  double value;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const { out(n) += value; }
};

}  // namespace

// --- networks of couplings -------------------------------------------------------------------------------------------

Conditioner::Conditioner(nn::ParameterSet& set, const std::string& name, int channels_in, int channels_out,
                         const ConditionerSettings& settings)
    : settings_(settings) {
  nn::Convolution::Settings wide, point, zero;
  wide.padding = zero.padding = settings.padding;
  zero.starts_at_zero = true;
  point.kernel = 1;
  const int width = settings.width;
  first_ = nn::Convolution(set, name + ".first", channels_in + settings.context, width, wide);
  if (settings.conditions > 0) modulation_ = nn::Dense(set, name + ".modulation", settings.conditions, 2 * width, true);
  for (int i = 0; i + 2 < settings.layers && !settings.gated; ++i)
    middle_.emplace_back(set, name + "." + numbered("middle", i), width, width, point);
  for (int i = 0; i < settings.layers && settings.gated; ++i) {
    const std::string block = name + "." + numbered("blocks", i);
    blocks_.push_back({nn::Convolution(set, block + ".wide", 2 * width, width, wide),
                       nn::Convolution(set, block + ".value", 2 * width, width, point),
                       nn::Convolution(set, block + ".gate", 2 * width, width, point),
                       nn::ChannelNorm(set, block + ".channel_norm", width)});
  }
  last_ = nn::Convolution(set, name + ".last", settings.gated ? 2 * width : width, channels_out, zero);
}

nn::Value Conditioner::operator()(nn::Tape& tape, nn::Value x, nn::Value context, nn::Value conditions) const {
  if (context) x = tape.concatenate({x, context});
  const bool told = settings_.conditions > 0;
  x = first_(tape, x, settings_.gated || told ? Activation::none : settings_.activation);
  if (told) x = nn::modulate(tape, x, modulation_(tape, conditions));
  if (!settings_.gated) {
    if (told) x = nn::activation(tape, x, settings_.activation);
    for (const nn::Convolution& layer : middle_) x = layer(tape, x, settings_.activation);
    return last_(tape, x);
  }
  const auto both_signs = [&](nn::Value v) {  // ELU of v and of -v
    return tape.concatenate(
        {nn::activation(tape, v, Activation::elu), nn::activation(tape, nn::sum(tape, v, v, -1, 0), Activation::elu)});
  };
  for (const Block& block : blocks_) {
    const nn::Value inner = both_signs(block.wide(tape, both_signs(x)));
    // value * sigmoid(gate) = (value + value tanh(gate / 2)) / 2
    const nn::Value value = block.value(tape, inner), gate = block.gate(tape, inner);
    const nn::Value turned = nn::activation(tape, nn::sum(tape, gate, gate, 0.5F, 0), Activation::tanh);
    const nn::Value gated = nn::sum(tape, value, nn::product(tape, value, turned), 0.5F, 0.5F);
    x = block.norm(tape, nn::sum(tape, x, gated));
  }
  return last_(tape, both_signs(x));
}

// --- the flow --------------------------------------------------------------------------------------------------------

FlowSettings flow_settings(const Config& config) {
  FlowSettings s;
  s.glow = config.choice("network.kind", "glow", {"glow", "realnvp"}) == "glow";
  s.levels = static_cast<int>(config.integer("network.levels", 3, 1, 10));
  s.steps = static_cast<int>(config.integer("network.steps", 4, 1, 1024));
  s.checkerboard = static_cast<int>(config.integer("network.checkerboard", s.glow ? 0 : 4, 0, 1024));
  s.limit = static_cast<float>(config.number("network.limit", 2, 0.01, 20));
  ConditionerSettings& c = s.conditioner;
  c.gated = config.choice("network.conditioner", "convolutions", {"convolutions", "gated"}) == "gated";
  if (!c.gated) c.activation = activation_named(config.choice("network.activation", "relu", {"relu", "elu", "silu"}));
  c.width = static_cast<int>(config.integer("network.width", 32, 1, 4096));
  c.layers = static_cast<int>(config.integer("network.layers", 3, c.gated ? 1 : 2, 64));
  c.padding = config.choice("network.padding", "periodic", {"periodic", "zeros"}) == "periodic" ? Padding::periodic
                                                                                                : Padding::zeros;
  return s;
}

Flow::Flow(const Config& config, int conditions)
    : settings_(flow_settings(config)), own_(std::make_unique<nn::ParameterSet>()), parameters_(own_.get()) {
  settings_.conditioner.conditions = conditions;
  declare("");
  parameters_->allocate();
}

Flow::Flow(const FlowSettings& settings, nn::ParameterSet& set, const std::string& name)
    : settings_(settings), parameters_(&set) {
  declare(name.empty() ? "" : name + ".");
}

void Flow::declare(const std::string& scope) {
  const auto declare = [&](Step step, const std::string& name) {
    step.first = parameters_->extent();
    if (settings_.glow && step.level >= 0)
      step.mixing = std::make_unique<Mixing>(*parameters_, scope + name + ".mixing", channels(step.level));
    step.network = parameters_->extent();
    conditioner(*parameters_, scope + name + ".network", step.level);
    steps_.push_back(std::move(step));
  };
  for (int i = 0; i < settings_.checkerboard; ++i) {
    Step step;
    step.parity = i % 2;
    declare(std::move(step), numbered("checkerboard", i));
  }
  for (int level = 0; level < levels(); ++level) {
    for (int i = 0; i < settings_.steps; ++i) {
      Step step;
      step.level = level;
      step.second_stays = !settings_.glow && i % 2 == 1;
      declare(std::move(step), numbered("levels", level) + "." + numbered("steps", i));
    }
  }
}

Conditioner Flow::conditioner(nn::ParameterSet& set, const std::string& name, int level) const {
  ConditionerSettings settings = settings_.conditioner;
  if (level < 0) return Conditioner(set, name, 1, 2, settings);
  settings.context = 0;
  return Conditioner(set, name, channels(level) / 2, channels(level), settings);
}

void Flow::initialise(std::uint64_t seed, nn::Initialisation scheme) const {
  nn::initialise(*parameters_, seed, scheme);
  std::uint32_t index = 0;
  for (const Step& step : steps_) {
    if (step.mixing) step.mixing->initialise(*parameters_, seed, index);
    ++index;
  }
}

// --- running it ------------------------------------------------------------------------------------------------------

/// States of a level.
struct FlowRunner::Level {
  Tensor state, other;  // [batch, h, w, C]; `other` is where a mixing puts its result, to change places
  Tensor gradient, other_gradient;
  std::unique_ptr<Conv2d> mix, unmix;
  View1<float> dweights, doffset;

  Level(Extents e, bool mixing, bool training, Backend backend) : state(tensor("umbriel::flow_state", e)) {
    if (training) gradient = tensor("umbriel::flow_gradient", e);
    if (!mixing) return;
    // Never less than float32: what is mixed must come out again.
    mix = std::make_unique<Conv2d>(point(e.c), e, training, backend);
    unmix = std::make_unique<Conv2d>(point(e.c), e, false, backend);
    other = tensor("umbriel::flow_other_state", e);
    if (!training) return;
    other_gradient = tensor("umbriel::flow_other_gradient", e);
    dweights = View1<float>("umbriel::flow_mixing_gradient", static_cast<std::size_t>(e.c) * e.c);
    doffset = View1<float>("umbriel::flow_offset_gradient", static_cast<std::size_t>(e.c));
  }

  static Tensor tensor(const char* label, Extents e) { return uninitialised<Tensor>(label, e.n, e.h, e.w, e.c); }
  static Conv2dGeometry point(int channels) { return {channels, channels, 1, 1, 1, 0, 0, Padding::zeros, 1}; }
};

/// The network of a coupling, on a tape of its own.
struct FlowRunner::Network {
  nn::ParameterSet set;
  std::unique_ptr<nn::Tape> tape;
  nn::Value input, context, conditions, output;

  Network(const Flow& flow, int level, Extents stays, bool training, const nn::Options& options) {
    const Conditioner conditioner = flow.conditioner(set, "network", level);
    tape = std::make_unique<nn::Tape>(set, training, options);
    input = tape->input(stays, true);
    const ConditionerSettings& settings = flow.settings().conditioner;
    if (level < 0 && settings.context > 0) context = tape->input({stays.n, stays.h, stays.w, settings.context});
    if (settings.conditions > 0) conditions = tape->input({stays.n, 1, 1, settings.conditions});
    output = conditioner(*tape, input, context, conditions);
    tape->plan(output);
  }

  void bind(const View1<float>& values, const View1<float>& gradients, std::int64_t first) {
    const auto from = [&](const View1<float>& flat) {
      const auto extent = set.extent();
      return flat.size() == 0 ? flat : View1<float>(Kokkos::subview(flat, std::make_pair(first, first + extent)));
    };
    set.bind(from(values), from(gradients));
  }
};

FlowRunner::FlowRunner(const Flow& flow, Grid grid, int batch, Memory memory, nn::Options options)
    : flow_(flow), batch_(batch), memory_(memory), options_(std::move(options)), values_(flow.parameters().values()) {
  require_sides(flow.side_multiple(), grid, "flow");
  const bool training = memory != Memory::inference;
  maps_ = Tensor("umbriel::flow_maps", batch, grid.height, grid.width, 1);
  if (training) map_gradients_ = Tensor("umbriel::flow_map_gradients", batch, grid.height, grid.width, 1);
  const ConditionerSettings& told = flow.settings().conditioner;
  if (told.conditions > 0) conditions_ = Tensor("umbriel::flow_conditions", batch, 1, 1, told.conditions);
  if (told.context > 0) context_ = Tensor("umbriel::flow_context", batch, grid.height, grid.width, told.context);
  Extents extents{batch, grid.height, grid.width, 1};
  std::vector<Extents> stays = {extents};  // of each level, first the full resolution's
  for (int level = 0; level < flow.levels(); ++level) {
    extents = {batch, extents.h / 2, extents.w / 2, flow.channels(level)};
    levels_.push_back(
        std::make_unique<Level>(extents, flow.steps().back().mixing != nullptr, training, options_.backend));
    stays.push_back({batch, extents.h, extents.w, extents.c / 2});
  }
  mixings_.resize(flow.steps().size());
  const auto network = [&](int level) {
    networks_.push_back(
        std::make_unique<Network>(flow, level, stays[static_cast<std::size_t>(level + 1)], training, options_));
  };
  if (memory == Memory::stored) {
    for (const Flow::Step& step : flow.steps()) network(step.level);
  } else {
    const bool full = !flow.steps().empty() && flow.steps().front().level < 0;
    networks_.emplace_back();
    if (full) {
      networks_.pop_back();
      network(-1);
    }
    for (int level = 0; level < flow.levels(); ++level) network(level);
  }
}

FlowRunner::~FlowRunner() = default;

FlowRunner::Network& FlowRunner::network(std::size_t step) {
  const Flow::Step& s = flow_.steps()[step];
  Network& network = *networks_[memory_ == Memory::stored ? step : static_cast<std::size_t>(s.level + 1)];
  network.bind(values_, flow_.parameters().gradients(), s.network);
  return network;
}

FlowRunner::Level* FlowRunner::level_of(const Flow::Step& step) {
  return step.level < 0 ? nullptr : levels_[static_cast<std::size_t>(step.level)].get();
}

void FlowRunner::use(const Space&, const View1<float>& values) {
  values_ = values;
  for (std::size_t i = 0; i < mixings_.size(); ++i) {
    const Flow::Step& step = flow_.steps()[i];
    if (step.mixing) mixings_[i] = step.mixing->maps(flow_.parameters(), values);
  }
}

namespace {

/// The channels that stay, and those that are changed.
struct Halves {
  Activations stays, changes;
};

Halves halves(const Flow::Step& step, const Activations& state) {
  if (step.level < 0) return {state, state};
  const int half = state.extents.c / 2;
  return {state.channels(step.second_stays ? half : 0, half), state.channels(step.second_stays ? 0 : half, half)};
}

Activations first_half(const Activations& pair) { return pair.channels(0, pair.extents.c / 2); }
Activations second_half(const Activations& pair) { return pair.channels(pair.extents.c / 2, pair.extents.c / 2); }

}  // namespace

void FlowRunner::run_network(const Space& space, const Flow::Step& step, Network& network, const Activations& state) {
  const Activations input = network.tape->value(network.input), output = network.tape->value(network.output);
  const Activations stays = halves(step, state).stays;
  if (step.parity >= 0) {
    keep_checkerboard(space, step.parity, stays, input);
  } else {
    copy_channels(space, stays, input);
  }
  if (network.context) copy_channels(space, context_, network.tape->value(network.context));
  if (network.conditions) copy_channels(space, conditions_, network.tape->value(network.conditions));
  if (!network.tape->training()) network.tape->load_parameters(space);
  network.tape->forward(space);
  if (step.parity >= 0) keep_checkerboard(space, 1 - step.parity, output, output);
}

void FlowRunner::spread(const Space& space, const Tensor& from, bool gradients) {
  Activations fine(from);
  for (const auto& level : levels_) {
    const Activations coarse(gradients ? level->gradient : level->state);
    squeeze(space, fine, coarse);
    fine = first_half(coarse);
  }
}

void FlowRunner::gather(const Space& space, const Tensor& to, bool gradients) {
  for (std::size_t i = levels_.size(); i-- > 0;) {
    const auto tensor = [&](const Level& level) { return Activations(gradients ? level.gradient : level.state); };
    unsqueeze(space, tensor(*levels_[i]), i > 0 ? first_half(tensor(*levels_[i - 1])) : Activations(to));
  }
}

void FlowRunner::forward(const Space& space, const View1<double>& log_determinant) {
  Kokkos::deep_copy(space, log_determinant, 0.0);
  int level = -1;
  for (std::size_t i = 0; i < flow_.steps().size(); ++i) {
    const Flow::Step& step = flow_.steps()[i];
    Level* const at = level_of(step);
    if (step.level > level) {
      level = step.level;
      squeeze(space, level == 0 ? Activations(maps_) : first_half(levels_[static_cast<std::size_t>(level) - 1]->state),
              at->state);
    }
    if (step.mixing) {
      const Mixing::Maps& mixing = mixings_[i];
      at->mix->set_weights(space, mixing.weights.data());
      at->mix->forward(space, at->state, mixing.offset.data(), {}, Activation::none, at->other);
      std::swap(at->state, at->other);
      const auto pixels = static_cast<double>(at->state.extent(1)) * static_cast<double>(at->state.extent(2));
      Kokkos::parallel_for("umbriel::flow_mixing", Range(space, 0, batch_),
                           AddConstant{log_determinant, pixels * mixing.log_determinant});
    }
    const Activations state(at ? at->state : maps_);
    Network& net = network(i);
    run_network(space, step, net, state);
    const Activations pair = net.tape->value(net.output);
    couple(space, flow_.limit(), first_half(pair), second_half(pair), halves(step, state).changes, log_determinant);
  }
  gather(space, maps_, false);
}

void FlowRunner::inverse(const Space& space) {
  spread(space, maps_, false);
  int level = flow_.levels() - 1;
  const auto leave_level = [&] {
    Level& at = *levels_[static_cast<std::size_t>(level)];
    unsqueeze(space, at.state,
              level == 0 ? Activations(maps_) : first_half(levels_[static_cast<std::size_t>(level) - 1]->state));
    --level;
  };
  for (std::size_t i = flow_.steps().size(); i-- > 0;) {
    const Flow::Step& step = flow_.steps()[i];
    while (level > step.level) leave_level();
    Level* const at = level_of(step);
    const Activations state(at ? at->state : maps_);
    Network& net = network(i);
    run_network(space, step, net, state);
    const Activations pair = net.tape->value(net.output);
    uncouple(space, flow_.limit(), first_half(pair), second_half(pair), halves(step, state).changes);
    if (step.mixing) {
      at->unmix->set_weights(space, mixings_[i].inverse_weights.data());
      at->unmix->forward(space, at->state, mixings_[i].inverse_offset.data(), {}, Activation::none, at->other);
      std::swap(at->state, at->other);
    }
  }
  while (level >= 0) leave_level();
}

void FlowRunner::backward(const Space& space, float dlog_determinant, const std::function<void(std::int64_t)>& ready) {
  require(memory_ != Memory::inference, ExitCode::usage, "a flow made for inference has no gradients", "FlowRunner");
  spread(space, map_gradients_, true);
  int level = flow_.levels() - 1;
  const auto leave_level = [&] {
    Level& at = *levels_[static_cast<std::size_t>(level)];
    const bool last = level == 0;
    Level* const finer = last ? nullptr : levels_[static_cast<std::size_t>(level) - 1].get();
    unsqueeze(space, at.state, last ? Activations(maps_) : first_half(finer->state));
    unsqueeze(space, at.gradient, last ? Activations(map_gradients_) : first_half(finer->gradient));
    --level;
  };
  for (std::size_t i = flow_.steps().size(); i-- > 0;) {
    const Flow::Step& step = flow_.steps()[i];
    while (level > step.level) leave_level();
    Level* const at = level_of(step);
    const Activations state(at ? at->state : maps_), gradient(at ? at->gradient : map_gradients_);
    Network& net = network(i);
    if (memory_ == Memory::constant) run_network(space, step, net, state);
    const Activations pair = net.tape->value(net.output), dpair = net.tape->gradient(net.output);
    couple_backward(space, flow_.limit(), first_half(pair), second_half(pair), dlog_determinant,
                    halves(step, state).changes, halves(step, gradient).changes, first_half(dpair), second_half(dpair));
    if (step.parity >= 0) keep_checkerboard(space, 1 - step.parity, dpair, dpair);
    net.tape->backward(space);
    const Activations dinput = net.tape->gradient(net.input);
    if (step.parity >= 0) keep_checkerboard(space, step.parity, dinput, dinput);
    copy_channels(space, dinput, halves(step, gradient).stays, true);
    if (step.mixing) {
      const Mixing::Maps& mixing = mixings_[i];
      at->unmix->set_weights(space, mixing.inverse_weights.data());
      at->unmix->forward(space, at->state, mixing.inverse_offset.data(), {}, Activation::none, at->other);
      std::swap(at->state, at->other);
      at->mix->set_weights(space, mixing.weights.data());
      at->mix->backward_weights(space, at->state, at->gradient, at->dweights.data(), at->doffset.data(), false);
      at->mix->backward_data(space, at->gradient, at->other_gradient, false);
      std::swap(at->gradient, at->other_gradient);
      const double pixels = static_cast<double>(at->state.extent(1)) * static_cast<double>(at->state.extent(2));
      space.fence();
      step.mixing->gradients(flow_.parameters(), values_, at->dweights, at->doffset,
                             pixels * batch_ * static_cast<double>(dlog_determinant));
    }
    if (ready) ready(step.first);
  }
  while (level >= 0) leave_level();
}

double FlowRunner::flops() const {
  double total = 0;
  for (const Flow::Step& step : flow_.steps()) {
    const std::size_t i = memory_ == Memory::stored ? static_cast<std::size_t>(&step - flow_.steps().data())
                                                    : static_cast<std::size_t>(step.level + 1);
    total += networks_[i]->tape->flops();
    if (step.mixing) total += levels_[static_cast<std::size_t>(step.level)]->mix->flops();
  }
  return total * (memory_ == Memory::inference ? 1 : memory_ == Memory::stored ? 3 : 4);
}

double FlowRunner::bytes() const {
  double total = static_cast<double>(maps_.size() + map_gradients_.size()) * sizeof(float);
  for (const auto& level : levels_) {
    for (const Tensor* tensor : {&level->state, &level->other, &level->gradient, &level->other_gradient})
      total += static_cast<double>(tensor->size()) * sizeof(float);
  }
  for (const auto& network : networks_)
    if (network) total += network->tape->bytes(network->output);
  return total;
}

}  // namespace umbriel
