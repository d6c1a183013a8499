#include "umbriel/nn/spectral_norm.hpp"

#include "umbriel/nn/flat_loop.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel::nn {
namespace {

using Matrix = SpectralNormalisation::Matrix;
using ColumnGroup = SpectralNormalisation::ColumnGroup;

constexpr int lanes = runs_on_host ? 1 : 32;            // threads that share a row
constexpr int columns_abreast = runs_on_host ? 32 : 1;  // columns that one thread sums

struct Arrays {
  float* values;
  const Matrix* matrices;
  const int* matrix_of_row;
  float* vectors;
  double *images, *scales, *next;
  float* factors;
};

/// W u
struct Image {
  Arrays a;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t row) const {
    const Matrix m = a.matrices[a.matrix_of_row[row]];
    const float* w = a.values + m.offset + (row - m.first_row) * m.columns;
    a.images[row] = ordered_dot(w, a.vectors + m.first_column, m.columns);
  }
};

struct ImageNorm {
  Arrays a;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t matrix) const {
    const Matrix m = a.matrices[matrix];
    double square = 0;
    for (int row = m.first_row; row < m.first_row + m.rows; ++row) square += a.images[row] * a.images[row];
    a.scales[matrix] = square > 0 ? 1 / math::sqrt(square) : 0.0;
  }
};

/// W^T v
struct Transpose {
  Arrays a;
  const ColumnGroup* groups;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t group) const {
    const int matrix = groups[group].matrix, first = groups[group].first;
    const Matrix m = a.matrices[matrix];
    const int count = m.columns - first < columns_abreast ? m.columns - first : columns_abreast;
    const float* w = a.values + m.offset + first;
    const double* image = a.images + m.first_row;
    double sums[columns_abreast] = {};
    for (int row = 0; row < m.rows; ++row, w += m.columns) {
      for (int c = 0; c < count; ++c) sums[c] += image[row] * static_cast<double>(w[c]);
    }
    for (int c = 0; c < count; ++c) a.next[m.first_column + first + c] = sums[c] * a.scales[matrix];
  }
};

/// sigma, the new u, and what W is multiplied by. A matrix that maps u to nothing keeps its u for a better day.
struct Estimate {
  Arrays a;
  double limit;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t matrix) const {
    const Matrix m = a.matrices[matrix];
    double square = 0;
    for (int c = m.first_column; c < m.first_column + m.columns; ++c) square += a.next[c] * a.next[c];
    const double sigma = math::sqrt(square);
    if (sigma > 0) {
      for (int c = m.first_column; c < m.first_column + m.columns; ++c)
        a.vectors[c] = static_cast<float>(a.next[c] / sigma);
    }
    a.factors[matrix] = sigma > limit ? static_cast<float>(limit / sigma) : 1.0f;
  }
};

struct ScaleRow {
  Arrays a;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const std::int64_t row = i / lanes;
    const int matrix = a.matrix_of_row[row];
    const float factor = a.factors[matrix];
    if (factor == 1.0f) return;
    const Matrix m = a.matrices[matrix];
    float* w = a.values + m.offset + (row - m.first_row) * m.columns;
    for (int c = static_cast<int>(i % lanes); c < m.columns; c += lanes) w[c] *= factor;
  }
};

}  // namespace

SpectralNormalisation::SpectralNormalisation(const ParameterSet& parameters, std::uint64_t seed, double limit)
    : limit_(limit), values_(parameters.values()) {
  require(limit > 0, ExitCode::usage, "the limit of spectral norms is not positive", "", "give for example 1.0");
  std::vector<Matrix> matrices;
  std::vector<int> matrix_of_row;
  std::vector<ColumnGroup> groups;
  std::vector<float> vectors;
  const auto& list = parameters.parameters();
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].spectral) continue;
    const int columns = list[i].shape.back(), rows = static_cast<int>(list[i].size / columns);
    const int matrix = static_cast<int>(matrices.size());
    const int first_column = static_cast<int>(vectors.size());
    matrices.push_back({list[i].offset, rows, columns, static_cast<int>(matrix_of_row.size()), first_column});
    matrix_of_row.insert(matrix_of_row.end(), static_cast<std::size_t>(rows), matrix);
    const DrawKey key{seed, Purpose::power_iteration, static_cast<std::uint32_t>(i), 0};
    for (int column = 0; column < columns; ++column) {
      if (column % columns_abreast == 0) groups.push_back({matrix, column});
      vectors.push_back(normal(key, static_cast<std::uint64_t>(column)));  // its length does not matter
    }
  }
  matrices_ = table("umbriel::nn::spectral_matrices", matrices);
  matrix_of_row_ = table("umbriel::nn::spectral_rows", matrix_of_row);
  groups_ = table("umbriel::nn::spectral_columns", groups);
  vectors_ = table("umbriel::nn::singular_vectors", vectors);
  images_ = View1<double>("umbriel::nn::spectral_images", matrix_of_row.size());
  scales_ = View1<double>("umbriel::nn::spectral_scales", matrices.size());
  next_ = View1<double>("umbriel::nn::spectral_next", vectors.size());
  factors_ = View1<float>("umbriel::nn::spectral_factors", matrices.size());
}

void SpectralNormalisation::apply(const Space& space) {
  const Arrays a{values_.data(), matrices_.data(), matrix_of_row_.data(), vectors_.data(),
                 images_.data(), scales_.data(),   next_.data(),          factors_.data()};
  const std::int64_t rows = static_cast<std::int64_t>(matrix_of_row_.extent(0));
  const std::int64_t matrices = static_cast<std::int64_t>(matrices_.extent(0));
  const std::int64_t groups = static_cast<std::int64_t>(groups_.extent(0));
  Kokkos::parallel_for("umbriel::nn::spectral_image", Range(space, 0, rows), Image{a});
  Kokkos::parallel_for("umbriel::nn::spectral_image_norm", Range(space, 0, matrices), ImageNorm{a});
  Kokkos::parallel_for("umbriel::nn::spectral_transpose", Range(space, 0, groups), Transpose{a, groups_.data()});
  Kokkos::parallel_for("umbriel::nn::spectral_estimate", Range(space, 0, matrices), Estimate{a, limit_});
  Kokkos::parallel_for("umbriel::nn::spectral_scale", Range(space, 0, rows * lanes), ScaleRow{a});
}

}  // namespace umbriel::nn
