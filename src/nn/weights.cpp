#include "umbriel/nn/weights.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace umbriel::nn {
namespace {

bool is_turned(const Parameter& parameter) {
  return parameter.role == Role::convolution || parameter.role == Role::transposed_convolution ||
         parameter.role == Role::dense;
}

std::vector<std::int64_t> disk_shape(const Parameter& parameter) {
  const std::vector<int>& shape = parameter.shape;
  std::vector<std::int64_t> result(shape.begin(), shape.end());
  if (is_turned(parameter)) {
    // [..., a, b] becomes [b, a, ...].
    std::rotate(result.begin(), result.end() - 2, result.end());
    std::swap(result[0], result[1]);
  }
  return result;
}

/// Calls f(index in memory, index on disk) for every element.
template <class F>
void for_each_place(const Parameter& parameter, const F& f) {
  if (!is_turned(parameter)) {
    for (std::int64_t i = 0; i < parameter.size; ++i) f(i, i);
    return;
  }
  const std::int64_t b_extent = parameter.shape.back(), a_extent = parameter.shape[parameter.shape.size() - 2];
  const std::int64_t outer = parameter.size / (a_extent * b_extent);
  std::int64_t memory = 0;
  for (std::int64_t k = 0; k < outer; ++k) {
    for (std::int64_t a = 0; a < a_extent; ++a) {
      for (std::int64_t b = 0; b < b_extent; ++b) f(memory++, (b * a_extent + a) * outer + k);
    }
  }
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) text.append(text.size() > 1 ? ", " : "").append(std::to_string(extent));
  return text.append("]");
}

/// "a, b, c and 4 more", or nothing.
std::string list_of(const std::string& title, const std::vector<std::string>& items) {
  constexpr std::size_t most = 5;
  if (items.empty()) return "";
  std::string text = title;
  for (std::size_t i = 0; i < std::min(items.size(), most); ++i) text.append(i == 0 ? " " : ", ").append(items[i]);
  if (items.size() > most) text.append(" and ").append(std::to_string(items.size() - most)).append(" more");
  return text;
}

using HostValues = decltype(Kokkos::create_mirror_view(HostMemory{}, View1<float>()));

/// The parameters, or the buffers, of a network and the flat array on the host that holds them.
struct Part {
  const std::vector<Parameter>& list;
  View1<float> device;
  HostValues host;

  Part(const std::vector<Parameter>& members, const View1<float>& values)
      : list(members), device(values), host(uninitialised<HostView1<float>>("umbriel::nn::weights", values.extent(0))) {
    Kokkos::deep_copy(host, device);
  }
};

}  // namespace

void save_weights(const std::string& path, const ParameterSet& parameters, const View1<float>& values,
                  const Metadata& metadata) {
  std::vector<NamedTensor> tensors;
  for (const Part& part :
       {Part(parameters.parameters(), values), Part(parameters.buffers(), parameters.buffer_values())}) {
    for (const Parameter& parameter : part.list) {
      NamedTensor tensor{parameter.name, disk_shape(parameter), std::vector<float>(parameter.size)};
      const float* source = part.host.data() + parameter.offset;
      for_each_place(parameter, [&](std::int64_t memory, std::int64_t disk) {
        tensor.values[static_cast<std::size_t>(disk)] = source[memory];
      });
      const bool finite =
          std::all_of(tensor.values.begin(), tensor.values.end(), [](float v) { return std::isfinite(v); });
      require(finite, ExitCode::numerical, "a weight to be saved is not finite",
              std::string(path).append(", tensor ").append(parameter.name),
              "training has diverged: lower the learning rate or clip the gradient's norm");
      tensors.push_back(std::move(tensor));
    }
  }
  write_safetensors(path, tensors, metadata);
}

Metadata load_weights(const std::string& path, const ParameterSet& parameters, const View1<float>& values) {
  const SafetensorsFile file(path);
  std::map<std::string, const SafetensorsFile::Entry*> entries;
  for (const auto& entry : file.entries()) entries[entry.name] = &entry;
  const std::vector<Part> parts = {Part(parameters.parameters(), values),
                                   Part(parameters.buffers(), parameters.buffer_values())};

  std::vector<std::string> missing, unexpected, reshaped;
  for (const Part& part : parts) {
    for (const Parameter& parameter : part.list) {
      const auto found = entries.find(parameter.name);
      if (found == entries.end()) {
        missing.push_back(parameter.name);
      } else if (found->second->shape != disk_shape(parameter)) {
        reshaped.push_back(std::string(parameter.name)
                               .append(" ")
                               .append(text_of(found->second->shape))
                               .append(", not ")
                               .append(text_of(disk_shape(parameter))));
      }
    }
  }
  const auto belongs = [](const std::vector<Parameter>& list, const std::string& name) {
    return std::any_of(list.begin(), list.end(), [&](const Parameter& p) { return p.name == name; });
  };
  for (const auto& entry : file.entries()) {
    if (!belongs(parameters.parameters(), entry.name) && !belongs(parameters.buffers(), entry.name) &&
        !entry.name.ends_with("num_batches_tracked"))
      unexpected.push_back(entry.name);
  }
  std::string differences;
  for (const std::string& text :
       {list_of("missing:", missing), list_of("unexpected:", unexpected), list_of("of another shape:", reshaped)})
    if (!text.empty()) differences.append(differences.empty() ? "" : "; ").append(text);
  require(differences.empty(), ExitCode::input,
          std::string("the weights are not those of this network (").append(differences).append(")"), path,
          "give the file and the network's settings that belong together");

  for (const Part& part : parts) {
    for (const Parameter& parameter : part.list) {
      const std::vector<float> stored = file.read(*entries.at(parameter.name));
      float* target = part.host.data() + parameter.offset;
      for_each_place(parameter, [&](std::int64_t memory, std::int64_t disk) {
        target[memory] = stored[static_cast<std::size_t>(disk)];
      });
      const bool finite = std::all_of(stored.begin(), stored.end(), [](float v) { return std::isfinite(v); });
      require(finite, ExitCode::input, "a weight is not finite",
              std::string(path).append(", tensor ").append(parameter.name), "use weights of a training that converged");
    }
  }
  for (const Part& part : parts) Kokkos::deep_copy(part.device, part.host);
  return file.metadata();
}

}  // namespace umbriel::nn
