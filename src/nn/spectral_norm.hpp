/// Spectral normalisation after each optimiser step (Miyato et al. 2018, arXiv 1802.05957; as Remy et al. 2022 train).
///
/// Every parameter marked `spectral` is a matrix W [inputs = kernel_y kernel_x c_in / groups, c_out]. One power
/// iteration from the vector u kept from the step before, v = W u / |W u|, u = W^T v / |W^T v|, estimates its largest
/// singular value sigma = |W^T v|; then W := W / max(1, sigma / limit). Sums are float64 in index order.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "umbriel/nn/parameters.hpp"

namespace umbriel::nn {

class SpectralNormalisation {
 public:
  /// The vectors u start as normals of the stream (seed, power_iteration, chain = index of the parameter).
  SpectralNormalisation(const ParameterSet& parameters, std::uint64_t seed, double limit = 1.0);

  void apply(const Space& space);

  /// All that a checkpoint needs beside the settings.
  std::vector<std::pair<std::string, View1<float>>> state() const { return {{"singular_vectors", vectors_}}; }

  struct Matrix {
    std::int64_t offset;  ///< in the flat array
    int rows, columns;
    int first_row, first_column;  ///< in the vectors
  };
  struct ColumnGroup {
    int matrix, first;
  };

 private:
  double limit_;
  View1<float> values_;
  View1<Matrix> matrices_;
  View1<int> matrix_of_row_;
  View1<ColumnGroup> groups_;
  View1<float> vectors_;  // u of every matrix
  View1<double> images_;  // W u
  View1<double> scales_;  // [matrix]: 1 / |W u|, or 0
  View1<double> next_;    // W^T v
  View1<float> factors_;  // [matrix]: 1 / max(1, sigma / limit)
};

}  // namespace umbriel::nn
