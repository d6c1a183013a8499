/// Parameters of a network in one flat array: one kernel updates them, one reduction sums their gradients, one dataset
/// saves them.
///
/// Weights of a convolution are [kernel_y, kernel_x, c_in / groups, c_out], of a dense layer [in, out]. Buffers are
/// what a network keeps beside its parameters and no gradient changes: batch norm's running moments.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel::nn {

/// What a parameter is to its layer; decides its initial value and its layout in weight files.
enum class Role { convolution, transposed_convolution, dense, bias, scale, shift, other };

struct Parameter {
  std::string name;  ///< "down.0.1.body.0.weight": the path of its layer, as PyTorch names it
  Role role = Role::other;
  std::vector<int> shape;   ///< our layout
  std::int64_t offset = 0;  ///< first element in the flat array
  std::int64_t size = 0;
  bool spectral = false;  ///< its spectral norm is kept at most 1
  bool starts_at_zero = false;
};

/// Handle of a parameter or a buffer: its place in ParameterSet.
struct ParameterId {
  int index = -1;
  explicit operator bool() const { return index >= 0; }
};

class ParameterSet {
 public:
  /// Declares a parameter; offsets are multiples of 16 floats. Storage is made by `allocate`, after all are declared.
  ParameterId add(const std::string& name, Role role, const std::vector<int>& shape, bool spectral = false);
  ParameterId add_buffer(const std::string& name, const std::vector<int>& shape, float initial);
  /// Has `initialise` set this parameter to zero: the last layer of a residual branch, which then starts as nothing.
  void start_at_zero(ParameterId id) { parameters_[static_cast<std::size_t>(id.index)].starts_at_zero = true; }
  void allocate();
  /// In place of `allocate`: this set's arrays are parts of others, where another set has the same parameters in the
  /// same order. A tape that was recorded with this set runs on what it is bound to.
  /// @param values, gradients  [>= extent] from the first of these parameters on; gradients may be empty
  void bind(const View1<float>& values, const View1<float>& gradients);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<Parameter>& buffers() const { return buffers_; }
  const Parameter& operator[](ParameterId id) const { return parameters_[static_cast<std::size_t>(id.index)]; }
  /// Floats of the flat arrays.
  std::int64_t extent() const { return extent_; }
  /// Number of parameters, without the gaps between them.
  std::int64_t count() const;
  /// Of memory that values, gradients and buffers take.
  double bytes() const {
    return sizeof(float) * (2.0 * static_cast<double>(extent_) + static_cast<double>(buffer_extent_));
  }

  /// Flat arrays [extent]; gaps are zero.
  const View1<float>& values() const { return values_; }
  const View1<float>& gradients() const { return gradients_; }
  const View1<float>& buffer_values() const { return buffer_values_; }

  float* value(ParameterId id) const { return values_.data() + (*this)[id].offset; }
  float* gradient(ParameterId id) const { return gradients_.data() + (*this)[id].offset; }
  float* buffer(ParameterId id) const {
    return buffer_values_.data() + buffers_[static_cast<std::size_t>(id.index)].offset;
  }

 private:
  std::vector<Parameter> parameters_, buffers_;
  std::int64_t extent_ = 0, buffer_extent_ = 0;
  std::vector<float> buffer_initial_;
  View1<float> values_, gradients_, buffer_values_;
};

}  // namespace umbriel::nn
