#include "umbriel/nn/tape.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>

#include "umbriel/nn/operations.hpp"

namespace umbriel::nn {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

/// Zeros for activations, on a host in large pages where the system gives them on request: tens of MiB that are gone
/// through again and again outrun the tables of small pages, which costs 1 to 2 % of a pass.
View1<float> activation_memory(const std::string& label, std::int64_t floats) {
  const auto memory = uninitialised<View1<float>>(label, static_cast<std::size_t>(floats));
#ifdef __linux__
  if constexpr (runs_on_host) {
    constexpr std::uintptr_t large_page = std::uintptr_t{1} << 21;
    const auto begin = (reinterpret_cast<std::uintptr_t>(memory.data()) + large_page - 1) / large_page * large_page;
    const auto end = reinterpret_cast<std::uintptr_t>(memory.data() + floats) / large_page * large_page;
    // Only advice: a system without large pages may refuse it.
    if (begin < end) (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
  Kokkos::deep_copy(memory, 0.0f);
  return memory;
}

}  // namespace

Tape::Tape(const ParameterSet& parameters, bool training, Options options)
    : parameters_(parameters), training_(training), options_(std::move(options)) {}

Tape::~Tape() = default;

Value Tape::input(Extents extents, bool wants_gradient) {
  nodes_.push_back({extents, -1, wants_gradient && training_, {}, -1, 0, 0, 0});
  inputs_.push_back({static_cast<int>(nodes_.size()) - 1});
  return inputs_.back();
}

Scalars Tape::scalars(int n) {
  scalars_.emplace_back("umbriel::nn::scalars", n);
  return {static_cast<int>(scalars_.size()) - 1};
}

Value Tape::record(std::unique_ptr<Operation> operation, Extents output) {
  const int position = static_cast<int>(operations_.size());
  bool wants = !operation->parameters.empty() && !options_.inputs_only;
  for (const Value input : operation->inputs) {
    Node& node = nodes_[at(input.index)];
    node.consumers.push_back(position);
    wants = wants || node.wants_gradient;
  }
  nodes_.push_back({output, position, wants && training_, {}, -1, 0, 0, 0});
  operation->position = position;
  operation->output = {static_cast<int>(nodes_.size()) - 1};
  operations_.push_back(std::move(operation));
  return operations_.back()->output;
}

Value Tape::concatenate(const std::vector<Value>& values) {
  Extents extents = this->extents(values.front());
  extents.c = 0;
  for (const Value value : values) {
    const Extents part = this->extents(value);
    require(part.n == extents.n && part.h == extents.h && part.w == extents.w, ExitCode::usage,
            "values of different size are put side by side", "concatenate");
    extents.c += part.c;
  }
  auto operation = std::make_unique<ConcatenateOperation>();
  operation->inputs = values;
  return record(std::move(operation), extents);
}

double Tape::flops() const {
  double total = 0;
  for (const auto& operation : operations_) total += operation->flops(*this);
  return total;
}

Tape::Place Tape::place_of(Value value) const {
  Place place{left_out(value) ? nodes_[at(value.index)].upsampled_from : value.index, 0};
  while (nodes_[at(place.root)].part_of >= 0) {
    place.first_channel += nodes_[at(place.root)].first_channel;
    place.root = nodes_[at(place.root)].part_of;
  }
  return place;
}

Activations Tape::slice(Value value, const View1<float>& memory, bool gradient) const {
  const Place place = place_of(value);
  const Node& root = nodes_[at(place.root)];
  float* first = memory.data() + (gradient ? root.gradient_offset : root.offset);
  return Activations(first, root.extents).channels(place.first_channel, extents(value).c);
}

Activations Tape::value(Value value) const {
  const Activations all = slice(value, memory_, false);
  return samples_ > 0 ? all.samples(0, samples_) : all;
}
Activations Tape::gradient(Value value) const { return slice(value, gradient_memory_, true); }

/// Buffers, one for each value that does not lie in another's. Times are positions on the tape; a gradient lives while
/// the consumers (backwards) have written it and the producer has not read it.
std::vector<Lifetime> Tape::lifetimes(Value output, bool gradients, std::vector<int>& roots) const {
  const int end = static_cast<int>(operations_.size());
  std::vector<Lifetime> lives;
  std::vector<int> slot(nodes_.size(), -1);
  roots.clear();
  for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
    const Node& node = nodes_[at(i)];
    if ((gradients && !node.wants_gradient) || left_out({i})) continue;
    // Inputs are written before the first step; while training every value is kept for the way back.
    int first = node.producer, last = std::max(node.producer, 0);
    for (const int consumer : node.consumers) last = std::max(last, consumer);
    if (i == output.index || (training_ && !gradients)) last = end;
    const int root = place_of({i}).root;
    if (slot[at(root)] < 0) {
      slot[at(root)] = static_cast<int>(lives.size());
      roots.push_back(root);
      lives.push_back({first, last, nodes_[at(root)].extents.elements()});
    } else {
      Lifetime& life = lives[at(slot[at(root)])];
      life.first = std::min(life.first, first);
      life.last = std::max(life.last, last);
    }
  }
  return lives;
}

double Tape::bytes(Value output) const {
  std::vector<int> roots;
  const double floats = static_cast<double>(plan_buffers(lifetimes(output, false, roots)).total) +
                        (training_ ? static_cast<double>(plan_buffers(lifetimes(output, true, roots)).total) : 0.0);
  double bytes = floats * sizeof(float);
  for (const auto& operation : operations_) bytes += operation->bytes(*this);
  return bytes;
}

void Tape::leave_out_upsamplings() {
  for (const auto& operation : operations_) {
    const auto* up = dynamic_cast<const UpsampleOperation*>(operation.get());
    if (up == nullptr || up->factor != 2 || up->output == output_) continue;
    const std::vector<int>& readers = nodes_[at(up->output.index)].consumers;
    const bool all = std::all_of(readers.begin(), readers.end(), [&](int reader) {
      const auto* convolution = dynamic_cast<const ConvolutionOperation*>(operations_[at(reader)].get());
      return convolution != nullptr && convolution->suits_coarse_map();
    });
    if (!all) continue;
    nodes_[at(up->output.index)].upsampled_from = up->inputs[0].index;
    std::vector<int>& coarse_readers = nodes_[at(up->inputs[0].index)].consumers;
    coarse_readers.insert(coarse_readers.end(), readers.begin(), readers.end());
    std::sort(coarse_readers.begin(), coarse_readers.end());
  }
}

void Tape::plan(Value output) {
  output_ = output;
  if (training_) leave_out_upsamplings();
  // A value lies inside the concatenation that reads it, if nobody reads it later: on the way back the concatenation's
  // gradient is then written first, and every other reader's is added.
  for (const auto& operation : operations_) {
    if (dynamic_cast<const ConcatenateOperation*>(operation.get()) == nullptr) continue;
    int channel = 0;
    for (const Value input : operation->inputs) {
      Node& node = nodes_[at(input.index)];
      const bool last_reader = node.consumers.back() == operation->position &&
                               std::count(node.consumers.begin(), node.consumers.end(), operation->position) == 1;
      // An input has no gradient, and its caller fills it as a dense array.
      if (last_reader && node.part_of < 0 && node.producer >= 0 && input != output &&
          (!training_ || node.wants_gradient == nodes_[at(operation->output.index)].wants_gradient)) {
        node.part_of = operation->output.index;
        node.first_channel = channel;
      }
      channel += node.extents.c;
    }
  }
  const auto place = [&](bool gradients) {
    std::vector<int> roots;
    const BufferPlan plan = plan_buffers(lifetimes(output, gradients, roots));
    for (std::size_t i = 0; i < roots.size(); ++i) {
      Node& node = nodes_[at(roots[i])];
      (gradients ? node.gradient_offset : node.offset) = plan.offsets[i];
    }
    const std::string label = gradients ? "umbriel::nn::value_gradients" : "umbriel::nn::values";
    return activation_memory(label, plan.total);
  };
  memory_ = place(false);
  if (training_) {
    gradient_memory_ = place(true);
    find_accumulation();
  }
  for (const auto& operation : operations_) operation->plan(*this);
}

void Tape::find_accumulation() {
  const std::size_t n = operations_.size();
  std::vector<bool> written(nodes_.size(), false);
  std::vector<bool> parameter_written(parameters_.parameters().size(), false);
  std::vector<std::size_t> first_use(parameters_.parameters().size(), n);
  written[at(output_.index)] = true;
  runs_backward_.assign(n, false);
  adds_.assign(n, {});
  adds_to_parameter_.assign(n, {});
  for (std::size_t i = n; i-- > 0;) {
    const Operation& operation = *operations_[i];
    for (const ParameterId id : operation.parameters) {
      adds_to_parameter_[i].push_back(parameter_written[at(id.index)]);
    }
    runs_backward_[i] = written[at(operation.output.index)] && wants_gradient(operation.output);
    for (const Value input : operation.inputs) {
      const std::size_t read = at(left_out(input) ? nodes_[at(input.index)].upsampled_from : input.index);
      adds_[i].push_back(written[read]);
      if (runs_backward_[i]) written[read] = true;
    }
    if (!runs_backward_[i]) continue;
    for (const ParameterId id : operation.parameters) {
      parameter_written[at(id.index)] = true;
      first_use[at(id.index)] = i;
    }
  }
  final_from_.assign(n, 0);
  for (std::size_t i = 0; i < n; ++i) {
    for (const Parameter& parameter : parameters_.parameters()) {
      const auto index = static_cast<std::size_t>(&parameter - parameters_.parameters().data());
      if (first_use[index] < i) final_from_[i] = std::max(final_from_[i], parameter.offset + parameter.size);
    }
  }
}

bool Tape::accumulates(const Operation& operation, int input) const { return adds_[at(operation.position)][at(input)]; }

bool Tape::accumulates_parameter(const Operation& operation, int parameter) const {
  return adds_to_parameter_[at(operation.position)][at(parameter)];
}

void Tape::load_parameters(const Space& space) {
  for (const auto& operation : operations_) operation->load_parameters(space, *this);
}

void Tape::use_samples(int n) {
  require(!training_ && n > 0 && n <= extents(inputs_.front()).n, ExitCode::usage,
          "a tape cannot run on " + std::to_string(n) + " samples", "use_samples",
          "ask for no more than were recorded");
  samples_ = n;
}

void Tape::forward(const Space& space) {
  if (training_ && !options_.inputs_only) load_parameters(space);
  for (const auto& operation : operations_) {
    if (!left_out(operation->output)) operation->forward(space, *this);
  }
}

void Tape::backward(const Space& space, const std::function<void(std::int64_t)>& ready) {
  for (std::size_t i = operations_.size(); i-- > 0;) {
    if (runs_backward_[i]) operations_[i]->backward(space, *this);
    if (ready) ready(final_from_[i]);
  }
}

}  // namespace umbriel::nn
