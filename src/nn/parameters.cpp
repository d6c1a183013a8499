#include "umbriel/nn/parameters.hpp"

#include <algorithm>

namespace umbriel::nn {
namespace {

constexpr std::int64_t alignment = 16;  // floats: a cache line

std::int64_t size_of(const std::vector<int>& shape) {
  std::int64_t size = 1;
  for (const int extent : shape) size *= extent;
  return size;
}

int declare(std::vector<Parameter>& list, std::int64_t& extent, Parameter parameter) {
  const bool known =
      std::any_of(list.begin(), list.end(), [&](const Parameter& p) { return p.name == parameter.name; });
  require(!known, ExitCode::usage, "two parameters have one name", parameter.name, "give each layer a name of its own");
  parameter.size = size_of(parameter.shape);
  parameter.offset = extent;
  extent += (parameter.size + alignment - 1) / alignment * alignment;
  list.push_back(std::move(parameter));
  return static_cast<int>(list.size()) - 1;
}

}  // namespace

ParameterId ParameterSet::add(const std::string& name, Role role, const std::vector<int>& shape, bool spectral) {
  return {declare(parameters_, extent_, {name, role, shape, 0, 0, spectral, false})};
}

ParameterId ParameterSet::add_buffer(const std::string& name, const std::vector<int>& shape, float initial) {
  const ParameterId id{declare(buffers_, buffer_extent_, {name, Role::other, shape, 0, 0, false, false})};
  buffer_initial_.resize(static_cast<std::size_t>(buffer_extent_), 0.0f);
  const Parameter& buffer = buffers_.back();
  std::fill_n(buffer_initial_.begin() + buffer.offset, buffer.size, initial);
  return id;
}

void ParameterSet::allocate() {
  values_ = View1<float>("umbriel::nn::parameters", static_cast<std::size_t>(extent_));
  gradients_ = View1<float>("umbriel::nn::gradients", static_cast<std::size_t>(extent_));
  buffer_values_ = View1<float>("umbriel::nn::buffers", static_cast<std::size_t>(buffer_extent_));
  const Kokkos::View<const float*, HostMemory, Kokkos::MemoryUnmanaged> initial(buffer_initial_.data(),
                                                                                buffer_initial_.size());
  Kokkos::deep_copy(buffer_values_, initial);
}

void ParameterSet::bind(const View1<float>& values, const View1<float>& gradients) {
  const auto extent = static_cast<std::size_t>(extent_);
  require(values.size() >= extent && (gradients.size() == 0 || gradients.size() >= extent) && buffers_.empty(),
          ExitCode::usage, "a set of parameters does not fit the arrays that it is bound to", "ParameterSet::bind");
  values_ = values;
  gradients_ = gradients;
}

std::int64_t ParameterSet::count() const {
  std::int64_t total = 0;
  for (const Parameter& parameter : parameters_) total += parameter.size;
  return total;
}

}  // namespace umbriel::nn
