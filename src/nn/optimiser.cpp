#include "umbriel/nn/optimiser.hpp"

#include <cmath>

#include "umbriel/nn/flat_loop.hpp"

namespace umbriel::nn {
namespace {

// --- The gradient's norm ---------------------------------------------------------------------------------------------

constexpr int norm_row = 1024;

struct SquareOf {
  const float* data;

  KOKKOS_INLINE_FUNCTION double operator()(int row, int, int x) const {
    const double value = data[static_cast<std::int64_t>(row) * norm_row + x];
    return value * value;
  }
};

/// Squares of single elements.
struct Squares {
  const float* data;
  double* squares;

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    squares[i] = static_cast<double>(data[i]) * static_cast<double>(data[i]);
  }
};

/// The sum of squares and the factor.
struct ClipFactor {
  View1<double> squares, square;
  View1<float> factor;
  double limit;  // 0: none

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t) const {
    double sum = 0;
    for (std::size_t i = 0; i < squares.extent(0); ++i) sum += squares(i);
    square(0) = sum;
    const double norm = math::sqrt(sum);
    double value = limit > 0 && norm > limit ? limit / norm : 1.0;
    if (!math::isfinite(norm)) value = norm - norm;  // NaN
    factor(0) = static_cast<float>(value);
  }
};

// --- Adam and AdaBelief ----------------------------------------------------------------------------------------------

/// 28 bytes of memory traffic a parameter.
template <bool belief>
struct MomentStep {
  float* values;
  const float* gradients;
  float *first, *second;
  const float* factor;
  float share1, share2;            // 1 - beta
  float correction1, correction2;  // 1 / (1 - beta^t)
  float rate, decay, epsilon;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t begin, std::int64_t end) const {
    const float f = *factor;
    if (!(f >= 0)) return;
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (std::int64_t i = begin; i < end; ++i) {
      const float g = f * gradients[i];
      const float m = math::fma(share1, g - first[i], first[i]);
      const float d = belief ? g - m : g;
      float v = math::fma(share2, d * d - second[i], second[i]);
      if (belief) v += epsilon;
      first[i] = m;
      second[i] = v;
      const float move = rate * (m * correction1) / (math::sqrt(v * correction2) + epsilon);
      values[i] = values[i] - decay * values[i] - move;
    }
  }
};

template <bool belief>
class MomentOptimiser final : public Optimiser {
 public:
  MomentOptimiser(const ParameterSet& parameters, const OptimiserOptions& options)
      : Optimiser(parameters, options),
        first_("umbriel::nn::first_moments", values_.extent(0)),
        second_("umbriel::nn::second_moments", values_.extent(0)) {}

  std::vector<std::pair<std::string, View1<float>>> state() const override {
    return {{"first_moments", first_}, {"second_moments", second_}};
  }
  std::int64_t row() const override { return norm_row; }

 protected:
  void update(const Space& space, double learning_rate, const std::vector<Elements>& elements) override {
    const double t = static_cast<double>(steps_);
    MomentStep<belief> step;
    step.factor = factor_.data();
    step.share1 = static_cast<float>(1 - options_.beta1);
    step.share2 = static_cast<float>(1 - options_.beta2);
    step.correction1 = static_cast<float>(1 / (1 - std::pow(options_.beta1, t)));
    step.correction2 = static_cast<float>(1 / (1 - std::pow(options_.beta2, t)));
    step.rate = static_cast<float>(learning_rate);
    step.decay = static_cast<float>(learning_rate * options_.weight_decay);
    step.epsilon = static_cast<float>(options_.epsilon);
    for (const auto& [begin, end] : elements) {
      step.values = values_.data() + begin;
      step.gradients = gradients_.data() + begin;
      step.first = first_.data() + begin;
      step.second = second_.data() + begin;
      for_each_stretch(belief ? "umbriel::nn::adabelief" : "umbriel::nn::adam", space, end - begin, step);
    }
  }

 private:
  View1<float> first_, second_;
};

// --- Adafactor -------------------------------------------------------------------------------------------------------
// A parameter [..., rows, columns] is a stack of matrices; a vector is one row, whose factored moments are the exact
// ones (the row's moment cancels). Every sum is of one row, one column or one parameter, in index order.

constexpr double tiny_square = 1e-30;                   // the paper's epsilon_1, added to g^2
constexpr double smallest_scale = 1e-3;                 // epsilon_2
constexpr int lanes = runs_on_host ? 1 : 32;            // threads that share a row
constexpr int columns_abreast = runs_on_host ? 32 : 1;  // columns that one thread sums

struct Matrix {
  std::int64_t offset;  // in the flat arrays
  int rows, columns;
  int first_row, first_column;  // in the arrays of moments
  int parameter;
};

struct RowRange {
  int first, count;
  std::int64_t size;
};

struct ColumnGroup {
  int matrix, first;
};

struct Factors {
  const float* gradients;
  float* values;
  const float* factor;
  const Matrix* matrices;
  const int* matrix_of_row;
  float *row_moments, *column_moments;  // the state
  float *row_factors, *column_factors;  // product: 1 / sqrt(second moment)
  float share;                          // 1 - beta2
};

/// Row moments: mean of g^2 over the columns.
struct RowMoments {
  Factors a;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t row) const {
    const float f = *a.factor;
    if (!(f >= 0)) return;
    const Matrix m = a.matrices[a.matrix_of_row[row]];
    const float* g = a.gradients + m.offset + (row - m.first_row) * m.columns;
    const double square = static_cast<double>(f) * f * ordered_dot(g, g, m.columns);
    const float mean = static_cast<float>(square / m.columns + tiny_square);
    a.row_moments[row] = math::fma(a.share, mean - a.row_moments[row], a.row_moments[row]);
  }
};

struct ColumnMoments {
  Factors a;
  const ColumnGroup* groups;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t group) const {
    const float f = *a.factor;
    if (!(f >= 0)) return;
    const Matrix m = a.matrices[groups[group].matrix];
    const int first = groups[group].first;
    const int count = m.columns - first < columns_abreast ? m.columns - first : columns_abreast;
    const float* g = a.gradients + m.offset + first;
    double squares[columns_abreast] = {};
    for (int row = 0; row < m.rows; ++row, g += m.columns) {
      for (int c = 0; c < count; ++c) squares[c] += static_cast<double>(g[c]) * static_cast<double>(g[c]);
    }
    for (int c = 0; c < count; ++c) {
      const int column = m.first_column + first + c;
      const double square = static_cast<double>(f) * f * squares[c];
      const float mean = static_cast<float>(square / m.rows + tiny_square);
      const float moment = math::fma(a.share, mean - a.column_moments[column], a.column_moments[column]);
      a.column_moments[column] = moment;
      a.column_factors[column] = 1.0f / math::sqrt(moment);
    }
  }
};

struct RowFactors {
  Factors a;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t matrix) const {
    if (!(*a.factor >= 0)) return;
    const Matrix m = a.matrices[matrix];
    double mean = 0;
    for (int row = m.first_row; row < m.first_row + m.rows; ++row) mean += static_cast<double>(a.row_moments[row]);
    mean /= m.rows;
    for (int row = m.first_row; row < m.first_row + m.rows; ++row)
      a.row_factors[row] = static_cast<float>(math::sqrt(mean / static_cast<double>(a.row_moments[row])));
  }
};

/// Sums of squares of the update and of the values, of one row.
struct RowNorms {
  Factors a;
  double* norms;  // [row, 2]
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t row) const {
    const float f = *a.factor;
    if (!(f >= 0)) return;
    const Matrix m = a.matrices[a.matrix_of_row[row]];
    const std::int64_t start = m.offset + (row - m.first_row) * m.columns;
    const float *g = a.gradients + start, *values = a.values + start;
    const float* column_factors = a.column_factors + m.first_column;
    const float row_factor = a.row_factors[row];
    constexpr int piece = 4 * sum_lanes;
    float update[piece];
    double square = 0;
    for (int first = 0; first < m.columns; first += piece) {
      const int count = m.columns - first < piece ? m.columns - first : piece;
      for (int c = 0; c < count; ++c) update[c] = (f * g[first + c] * row_factor) * column_factors[first + c];
      square += ordered_dot(update, update, count);
    }
    norms[2 * row] = square;
    norms[2 * row + 1] = ordered_dot(values, values, m.columns);
  }
};

/// Length of a parameter's step for a unit update.
struct StepLengths {
  const RowRange* rows;
  const double* norms;
  const float* factor;
  float* lengths;
  double rate, update_clip;
  bool scale;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t parameter) const {
    if (!(*factor >= 0)) return;
    const RowRange range = rows[parameter];
    double update = 0, value = 0;
    for (int row = range.first; row < range.first + range.count; ++row) {
      update += norms[2 * row];
      value += norms[2 * row + 1];
    }
    const double excess = math::sqrt(update / static_cast<double>(range.size)) / update_clip;
    const double size = math::sqrt(value / static_cast<double>(range.size));
    double length = excess > 1 ? rate / excess : rate;
    if (scale) length *= size > smallest_scale ? size : smallest_scale;
    lengths[parameter] = static_cast<float>(length);
  }
};

struct FactoredStep {
  Factors a;
  const float* lengths;
  float decay;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const float f = *a.factor;
    if (!(f >= 0)) return;
    const std::int64_t row = i / lanes;
    const Matrix m = a.matrices[a.matrix_of_row[row]];
    const std::int64_t start = m.offset + (row - m.first_row) * m.columns;
    const float* g = a.gradients + start;
    float* values = a.values + start;
    const float* column_factors = a.column_factors + m.first_column;
    const float row_factor = a.row_factors[row], length = lengths[m.parameter];
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int c = static_cast<int>(i % lanes); c < m.columns; c += lanes) {
      const float update = (f * g[c] * row_factor) * column_factors[c];
      values[c] = values[c] - decay * values[c] - length * update;
    }
  }
};

class Adafactor final : public Optimiser {
 public:
  Adafactor(const ParameterSet& parameters, const OptimiserOptions& options) : Optimiser(parameters, options) {
    std::vector<Matrix> matrices;
    std::vector<int> matrix_of_row;
    std::vector<RowRange> ranges;
    std::vector<ColumnGroup> groups;
    int rows = 0, columns = 0;
    for (const Parameter& parameter : parameters.parameters()) {
      const std::vector<int>& shape = parameter.shape;
      const int n_columns = shape.empty() ? 1 : shape.back();
      const int n_rows = shape.size() < 2 ? 1 : shape[shape.size() - 2];
      const std::int64_t elements = static_cast<std::int64_t>(n_rows) * n_columns;
      const int first_row = rows;
      for (std::int64_t start = 0; start < parameter.size; start += elements) {
        const int matrix = static_cast<int>(matrices.size());
        matrices.push_back(
            {parameter.offset + start, n_rows, n_columns, rows, columns, static_cast<int>(ranges.size())});
        matrix_of_row.insert(matrix_of_row.end(), static_cast<std::size_t>(n_rows), matrix);
        for (int column = 0; column < n_columns; column += columns_abreast) groups.push_back({matrix, column});
        rows += n_rows;
        columns += n_columns;
      }
      ranges.push_back({first_row, rows - first_row, parameter.size});
    }
    matrices_ = table("umbriel::nn::adafactor_matrices", matrices);
    matrix_of_row_ = table("umbriel::nn::adafactor_rows", matrix_of_row);
    ranges_ = table("umbriel::nn::adafactor_parameters", ranges);
    groups_ = table("umbriel::nn::adafactor_columns", groups);
    row_moments_ = View1<float>("umbriel::nn::row_moments", rows);
    column_moments_ = View1<float>("umbriel::nn::column_moments", columns);
    row_factors_ = View1<float>("umbriel::nn::row_factors", rows);
    column_factors_ = View1<float>("umbriel::nn::column_factors", columns);
    norms_ = View1<double>("umbriel::nn::row_norms", 2 * static_cast<std::size_t>(rows));
    lengths_ = View1<float>("umbriel::nn::step_lengths", ranges.size());
  }

  std::vector<std::pair<std::string, View1<float>>> state() const override {
    return {{"row_moments", row_moments_}, {"column_moments", column_moments_}};
  }
  std::int64_t row() const override { return 0; }

 protected:
  void update(const Space& space, double learning_rate, const std::vector<Elements>&) override {
    const Factors a{
        gradients_.data(),      values_.data(),
        factor_.data(),         matrices_.data(),
        matrix_of_row_.data(),  row_moments_.data(),
        column_moments_.data(), row_factors_.data(),
        column_factors_.data(), static_cast<float>(std::pow(static_cast<double>(steps_), -options_.decay_exponent))};
    const auto over = [&](const auto& view, int times = 1) {
      return Range(space, 0, static_cast<std::int64_t>(view.extent(0)) * times);
    };
    Kokkos::parallel_for("umbriel::nn::adafactor_row_moments", over(matrix_of_row_), RowMoments{a});
    Kokkos::parallel_for("umbriel::nn::adafactor_column_moments", over(groups_), ColumnMoments{a, groups_.data()});
    Kokkos::parallel_for("umbriel::nn::adafactor_row_factors", over(matrices_), RowFactors{a});
    Kokkos::parallel_for("umbriel::nn::adafactor_norms", over(matrix_of_row_), RowNorms{a, norms_.data()});
    Kokkos::parallel_for("umbriel::nn::adafactor_lengths", over(ranges_),
                         StepLengths{ranges_.data(), norms_.data(), factor_.data(), lengths_.data(), learning_rate,
                                     options_.update_clip, options_.scale_by_parameter});
    Kokkos::parallel_for("umbriel::nn::adafactor_step", over(matrix_of_row_, lanes),
                         FactoredStep{a, lengths_.data(), static_cast<float>(learning_rate * options_.weight_decay)});
  }

 private:
  View1<Matrix> matrices_;
  View1<int> matrix_of_row_;
  View1<RowRange> ranges_;
  View1<ColumnGroup> groups_;
  View1<float> row_moments_, column_moments_, row_factors_, column_factors_;
  View1<double> norms_;   // [row, 2]: squares of the update, of the values
  View1<float> lengths_;  // [parameter]
};

}  // namespace

Optimiser::Optimiser(const ParameterSet& parameters, const OptimiserOptions& options)
    : options_(options),
      values_(parameters.values()),
      gradients_(parameters.gradients()),
      factor_("umbriel::nn::clip_factor", 1),
      workspace_(static_cast<int>(gradients_.extent(0) / norm_row), 1),
      squares_("umbriel::nn::row_squares", gradients_.extent(0) / norm_row + gradients_.extent(0) % norm_row),
      square_("umbriel::nn::gradient_square", 1) {
  const bool good = options.clip_norm >= 0 && options.weight_decay >= 0 && options.beta1 >= 0 && options.beta1 < 1 &&
                    options.beta2 >= 0 && options.beta2 < 1 && options.epsilon >= 0 && options.decay_exponent > 0 &&
                    options.update_clip > 0;
  require(good, ExitCode::usage, "a setting of the optimiser is out of range", options.name,
          "clip_norm, weight_decay and epsilon are not negative, beta1 and beta2 in [0, 1), decay_exponent and "
          "update_clip positive");
}

void Optimiser::step(const Space& space, double learning_rate, GradientReducer* reducer) {
  const auto n = static_cast<std::int64_t>(gradients_.extent(0));
  const std::vector<Elements> elements = reducer != nullptr ? reducer->mine() : std::vector<Elements>{{0, n}};
  Kokkos::deep_copy(space, squares_, 0.0);
  for (const auto& [begin, end] : elements) {
    const std::int64_t first = begin / norm_row, last = end / norm_row;
    sum_each_map("umbriel::nn::gradient_norm", space, static_cast<int>(last - first), 1, norm_row, workspace_,
                 Kokkos::subview(squares_, std::make_pair(first, last)), SquareOf{gradients_.data() + begin});
    Kokkos::parallel_for("umbriel::nn::gradient_squares", Range(space, 0, end - last * norm_row),
                         Squares{gradients_.data() + last * norm_row, squares_.data() + last});
  }
  if (reducer != nullptr) reducer->put_together(space, squares_);
  Kokkos::parallel_for("umbriel::nn::clip_factor", Range(space, 0, 1),
                       ClipFactor{squares_, square_, factor_, options_.clip_norm});
  ++steps_;
  update(space, learning_rate, elements);
}

double Optimiser::gradient_norm() const {
  double square = 0;
  Kokkos::deep_copy(Kokkos::View<double*, HostMemory, Kokkos::MemoryUnmanaged>(&square, 1), square_);
  return std::sqrt(square);
}

std::unique_ptr<Optimiser> make_optimiser(const ParameterSet& parameters, const OptimiserOptions& options) {
  if (options.name == "adam") return std::make_unique<MomentOptimiser<false>>(parameters, options);
  if (options.name == "adabelief") return std::make_unique<MomentOptimiser<true>>(parameters, options);
  if (options.name == "adafactor") return std::make_unique<Adafactor>(parameters, options);
  throw Error(ExitCode::usage, "there is no such optimiser", options.name, "use one of adam, adabelief, adafactor");
}

}  // namespace umbriel::nn
