#include "umbriel/models/mixing.hpp"

#include <Eigen/Dense>
#include <cmath>
#include <vector>

#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

View1<float> part(const View1<float>& flat, const nn::Parameter& parameter) {
  return Kokkos::subview(flat, std::make_pair(parameter.offset, parameter.offset + parameter.size));
}

std::vector<double> read(const View1<float>& view) {
  const auto host = on_host(view);
  return {host.data(), host.data() + host.size()};
}

Vector read_vector(const View1<float>& view) {
  const std::vector<double> values = read(view);
  return Eigen::Map<const Vector>(values.data(), static_cast<Eigen::Index>(values.size()));
}

Matrix read_matrix(const View1<float>& view, int n) {
  const std::vector<double> values = read(view);
  return Eigen::Map<const Eigen::Matrix<double, -1, -1, Eigen::RowMajor>>(values.data(), n, n);
}

/// @param entry  of element i
template <class Entry>
void write(const View1<float>& view, const Entry& entry) {
  const auto host = Kokkos::create_mirror_view(HostMemory{}, view);
  for (std::size_t i = 0; i < host.size(); ++i) host(i) = static_cast<float>(entry(static_cast<Eigen::Index>(i)));
  Kokkos::deep_copy(view, host);
}

/// Row by row.
template <class Derived>
void write_matrix(const View1<float>& view, const Eigen::MatrixBase<Derived>& matrix) {
  const Eigen::Index n = matrix.cols();
  write(view, [&](Eigen::Index i) { return matrix(i / n, i % n); });
}

}  // namespace

struct Mixing::Factors {
  Matrix permutation, lower, upper;  // `upper` with its diagonal
  Vector scale, bias, diagonal;
  double log_determinant = 0;
  Matrix matrix() const { return permutation * lower * upper * scale.asDiagonal(); }
};

Mixing::Mixing(nn::ParameterSet& set, const std::string& name, int channels) : channels_(channels) {
  const auto add = [&](const char* what, const std::vector<int>& shape) {
    return set.add(name + "." + what, nn::Role::other, shape);
  };
  log_scale_ = add("log_scale", {channels});
  bias_ = add("bias", {channels});
  lower_ = add("lower", {channels, channels});
  upper_ = add("upper", {channels, channels});
  log_diagonal_ = add("log_diagonal", {channels});
  permutation_ = set.add_buffer(name + ".permutation", {channels}, 0);
  sign_ = set.add_buffer(name + ".sign", {channels}, 1);
}

void Mixing::initialise(const nn::ParameterSet& set, std::uint64_t seed, std::uint32_t index) const {
  const int n = channels_;
  Matrix random(n, n);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j)
      random(i, j) = normal({seed, Purpose::weights, index, 1}, static_cast<std::uint64_t>(i) * n + j);
  }
  const Matrix rotation = Eigen::HouseholderQR<Matrix>(random).householderQ();
  const Eigen::PartialPivLU<Matrix> lu(rotation);
  const Matrix factors = lu.matrixLU();
  // P of PA = LU puts row indices()(i)... of A = P^-1 L U: row i of A is row permutation(i) of L U.
  const auto indices = lu.permutationP().indices();
  const View1<float>& values = set.values();
  const View1<float>& buffers = set.buffer_values();
  const auto buffer = [&](nn::ParameterId id) {
    return part(buffers, set.buffers()[static_cast<std::size_t>(id.index)]);
  };
  write(buffer(permutation_), [&](Eigen::Index i) { return indices(i); });
  write(buffer(sign_), [&](Eigen::Index i) { return factors(i, i) < 0 ? -1.0 : 1.0; });
  write_matrix(part(values, set[lower_]), Matrix(factors.triangularView<Eigen::StrictlyLower>()));
  write_matrix(part(values, set[upper_]), Matrix(factors.triangularView<Eigen::StrictlyUpper>()));
  write(part(values, set[log_diagonal_]), [&](Eigen::Index i) { return std::log(std::fabs(factors(i, i))); });
}

Mixing::Factors Mixing::factors(const nn::ParameterSet& set, const View1<float>& values) const {
  const auto value = [&](nn::ParameterId id) { return part(values, set[id]); };
  const auto buffer = [&](nn::ParameterId id) {
    return read_vector(part(set.buffer_values(), set.buffers()[static_cast<std::size_t>(id.index)]));
  };
  Factors f;
  const Vector permutation = buffer(permutation_), sign = buffer(sign_);
  f.permutation = Matrix::Zero(channels_, channels_);
  for (int i = 0; i < channels_; ++i) {
    const auto from = static_cast<Eigen::Index>(permutation(i));
    require(from >= 0 && from < channels_, ExitCode::input, "a permutation of channels is none", "flow",
            "give weights that umbriel wrote");
    f.permutation(i, from) = 1;
  }
  f.lower = Matrix::Identity(channels_, channels_);
  f.lower += Matrix(read_matrix(value(lower_), channels_).triangularView<Eigen::StrictlyLower>());
  f.upper = read_matrix(value(upper_), channels_).triangularView<Eigen::StrictlyUpper>();
  const Vector log_diagonal = read_vector(value(log_diagonal_)), log_scale = read_vector(value(log_scale_));
  f.diagonal = sign.array() * log_diagonal.array().exp();
  f.upper.diagonal() = f.diagonal;
  f.scale = log_scale.array().exp();
  f.bias = read_vector(value(bias_));
  f.log_determinant = log_diagonal.sum() + log_scale.sum();
  return f;
}

Mixing::Maps Mixing::maps(const nn::ParameterSet& set, const View1<float>& values) const {
  const Factors f = factors(set, values);
  const Matrix matrix = f.matrix();
  const Matrix inverse = matrix.inverse();
  const auto n = static_cast<std::size_t>(channels_);
  Maps maps{View1<float>("umbriel::mixing", n * n), View1<float>("umbriel::mixing_offset", n),
            View1<float>("umbriel::unmixing", n * n), View1<float>("umbriel::unmixing_offset", n), f.log_determinant};
  write_matrix(maps.weights, matrix.transpose());
  const Vector offset = matrix * f.bias;
  write(maps.offset, [&](Eigen::Index i) { return offset(i); });
  write_matrix(maps.inverse_weights, inverse.transpose());
  write(maps.inverse_offset, [&](Eigen::Index i) { return -f.bias(i); });
  return maps;
}

void Mixing::gradients(const nn::ParameterSet& set, const View1<float>& values, const View1<float>& dweights,
                       const View1<float>& doffset, double dlog_determinant) const {
  const Factors f = factors(set, values);
  const Matrix matrix = f.matrix();
  const Vector doff = read_vector(doffset);
  const Matrix dmatrix = read_matrix(dweights, channels_).transpose() + doff * f.bias.transpose();
  const Matrix unscaled = dmatrix * f.scale.asDiagonal();  // gradient of P L U
  const Matrix dupper = f.lower.transpose() * f.permutation.transpose() * unscaled;
  const Matrix dlower = f.permutation.transpose() * unscaled * f.upper.transpose();
  const Vector dbias = matrix.transpose() * doff;
  const auto gradient = [&](nn::ParameterId id) { return part(set.gradients(), set[id]); };
  write(gradient(log_scale_), [&](Eigen::Index i) { return dmatrix.col(i).dot(matrix.col(i)) + dlog_determinant; });
  write(gradient(bias_), [&](Eigen::Index i) { return dbias(i); });
  write_matrix(gradient(lower_), Matrix(dlower.triangularView<Eigen::StrictlyLower>()));
  write_matrix(gradient(upper_), Matrix(dupper.triangularView<Eigen::StrictlyUpper>()));
  write(gradient(log_diagonal_), [&](Eigen::Index i) { return dupper(i, i) * f.diagonal(i) + dlog_determinant; });
}

}  // namespace umbriel
