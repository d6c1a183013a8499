#include "umbriel/ops/normalization.hpp"

#include "umbriel/ops/activation_math.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/ops/pixel_loops.hpp"

namespace umbriel {
namespace {

using detail::map_pixels;
using detail::require_extents;
using detail::sum_sample_channels;

/// f'(z)
template <Activation f>
KOKKOS_INLINE_FUNCTION float slope(float z) {
  return derivative<f>(derivative_from_output(f) ? activated<f>(z) : z);
}

// --- batch norm ------------------------------------------------------------------------------------------------------

struct Moments {
  static constexpr int inputs = 1, coefficients = 1, terms = 2;
  static constexpr bool writes = false;
  const float* shift;
  KOKKOS_INLINE_FUNCTION void prepare(int, int c, float* k) const { k[0] = shift ? shift[c] : 0.0f; }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float* k, double* t) const {
    t[0] = static_cast<double>(x) - static_cast<double>(k[0]);
    t[1] = t[0] * t[0];
    return 0;
  }
};

template <Activation f, bool adds_residual>
struct ScaleShift {
  static constexpr int inputs = adds_residual ? 2 : 1, coefficients = 2;
  const float *scale, *shift;
  KOKKOS_INLINE_FUNCTION void prepare(int, int c, float* k) const {
    k[0] = scale[c];
    k[1] = shift[c];
  }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float residual, float, const float* k) const {
    const float z = math::fma(x, k[0], k[1]);
    return activated<f>(adds_residual ? z + residual : z);
  }
};

/// Of x and dy and, where the derivative follows from it, y.
template <Activation f>
struct BatchNormSums {
  static constexpr int inputs = derivative_from_output(f) && f != Activation::none ? 3 : 2, coefficients = 4, terms = 2;
  static constexpr bool writes = true;
  const float *mean, *rstd, *scale, *shift;
  KOKKOS_INLINE_FUNCTION void prepare(int, int c, float* k) const {
    k[0] = mean[c];
    k[1] = rstd[c];
    k[2] = derivative_from_output(f) ? 0.0f : scale[c];
    k[3] = derivative_from_output(f) ? 0.0f : shift[c];
  }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float dy, float y, const float* k, double* t) const {
    const float dz = dy * derivative<f>(derivative_from_output(f) ? y : math::fma(x, k[2], k[3]));
    const float x_hat = (x - k[0]) * k[1];
    t[0] = static_cast<double>(dz);
    t[1] = static_cast<double>(dz) * static_cast<double>(x_hat);
    return dz;
  }
};

struct BatchNormData {
  static constexpr int inputs = 2, coefficients = 4;
  const float *mean, *rstd, *scale;
  View1<double> sums;
  double count;
  int channels;
  KOKKOS_INLINE_FUNCTION void prepare(int, int c, float* k) const {
    k[0] = mean[c];
    k[1] = scale[c];
    k[2] = static_cast<float>(sums(c) / count);
    k[3] = static_cast<float>(static_cast<double>(rstd[c]) * sums(channels + c) / count);
  }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float dz, float, const float* k) const {
    return k[1] * math::fma(k[0] - x, k[3], dz - k[2]);
  }
};

// --- group norm ------------------------------------------------------------------------------------------------------

struct PlainMoments {
  static constexpr int inputs = 1, coefficients = 0, terms = 2;
  static constexpr bool writes = false;
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float*, double* t) const {
    t[0] = static_cast<double>(x);
    t[1] = t[0] * t[0];
    return 0;
  }
};

/// Mean and rstd of a sample's group from sums over its channels, for i = n groups + group.
struct KeepGroupMoments {
  const double* totals;  // [N, 2, C]
  View3<float> moments;
  int groups, channels;
  double count;  // elements of a group
  double epsilon;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const std::int64_t n = i / groups;
    const int group = static_cast<int>(i % groups), size = channels / groups;
    double sum = 0, squares = 0;
    for (int c = group * size; c < (group + 1) * size; ++c) {
      sum += totals[2 * n * channels + c];
      squares += totals[(2 * n + 1) * channels + c];
    }
    const double mean = sum / count;
    const double variance = squares / count - mean * mean;
    moments(n, group, 0) = static_cast<float>(mean);
    moments(n, group, 1) = static_cast<float>(1 / math::sqrt((variance > 0 ? variance : 0) + epsilon));
  }
};

/// What the ops on group-normalised activations share: z = (x - mean) slope + beta.
struct GroupAffine {
  const float *gamma, *beta;
  View3<float> moments;
  int group_size;
  /// k[0 ... 2] = mean, gamma rstd, beta
  KOKKOS_INLINE_FUNCTION void set(int n, int c, float* k) const {
    const int group = c / group_size;
    k[0] = moments(n, group, 0);
    k[1] = gamma[c] * moments(n, group, 1);
    k[2] = beta[c];
  }
};

template <Activation f>
struct GroupNorm {
  static constexpr int inputs = 1, coefficients = 3;
  GroupAffine affine;
  KOKKOS_INLINE_FUNCTION void prepare(int n, int c, float* k) const { affine.set(n, c, k); }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float, float, const float* k) const {
    return activated<f>(math::fma(x - k[0], k[1], k[2]));
  }
};

/// Sums of dz and dz x_hat.
template <Activation f>
struct GroupNormSums {
  static constexpr int inputs = 2, coefficients = 4, terms = 2;
  static constexpr bool writes = false;
  GroupAffine affine;
  KOKKOS_INLINE_FUNCTION void prepare(int n, int c, float* k) const {
    affine.set(n, c, k);
    k[3] = affine.moments(n, c / affine.group_size, 1);
  }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float dy, float, const float* k, double* t) const {
    const float dz = dy * slope<f>(math::fma(x - k[0], k[1], k[2]));
    const float x_hat = (x - k[0]) * k[3];
    t[0] = static_cast<double>(dz);
    t[1] = static_cast<double>(dz) * static_cast<double>(x_hat);
    return 0;
  }
};

/// dgamma and dbeta: samples in order.
struct KeepGroupGradients {
  const double* totals;  // [N, 2, C]
  float *dgamma, *dbeta;
  int samples, channels;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t c) const {
    double to_beta = 0, to_gamma = 0;
    for (int n = 0; n < samples; ++n) {
      to_beta += totals[2LL * n * channels + c];
      to_gamma += totals[(2LL * n + 1) * channels + c];
    }
    dbeta[c] = static_cast<float>(to_beta);
    dgamma[c] = static_cast<float>(to_gamma);
  }
};

/// totals[n, :, first channel of a group] = means over the group of gamma dz and gamma dz x_hat.
struct GroupMeans {
  double* totals;  // [N, 2, C]
  const float* gamma;
  int groups, channels;
  double count;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const std::int64_t row = i / groups;  // n and term
    const int size = channels / groups, first = static_cast<int>(i % groups) * size;
    double total = 0;
    for (int c = first; c < first + size; ++c) total += static_cast<double>(gamma[c]) * totals[row * channels + c];
    totals[row * channels + first] = total / count;
  }
};

/// dx = rstd (gamma dz - mean(gamma dz) - x_hat mean(gamma dz x_hat))
template <Activation f>
struct GroupNormData {
  static constexpr int inputs = 2, coefficients = 5;
  GroupAffine affine;
  const double* means;  // [N, 2, C], see GroupMeans
  int channels;
  KOKKOS_INLINE_FUNCTION void prepare(int n, int c, float* k) const {
    affine.set(n, c, k);
    const int group = c / affine.group_size;
    const double rstd = static_cast<double>(affine.moments(n, group, 1));
    const double* first = means + 2LL * n * channels + group * affine.group_size;
    k[3] = static_cast<float>(rstd * first[0]);
    k[4] = static_cast<float>(rstd * rstd * first[channels]);
  }
  KOKKOS_INLINE_FUNCTION float operator()(float x, float dy, float, const float* k) const {
    const float centred = x - k[0];
    const float dz = dy * slope<f>(math::fma(centred, k[1], k[2]));
    return math::fma(-centred, k[4], math::fma(dz, k[1], -k[3]));
  }
};

void require_groups(const ConstActivations& x, int groups, const View3<float>& moments) {
  require_extents(groups > 0 && x.extents.c % groups == 0 && static_cast<int>(moments.extent(0)) >= x.extents.n &&
                      static_cast<int>(moments.extent(1)) == groups && moments.extent(2) == 2,
                  "umbriel::group_norm");
}

// --- channel norm ----------------------------------------------------------------------------------------------------

struct PixelMoments {
  float mean, rstd;

  KOKKOS_INLINE_FUNCTION PixelMoments(const float* x, int channels, double epsilon) {
    double sum = 0, squares = 0;
    for (int c = 0; c < channels; ++c) sum += static_cast<double>(x[c]);
    const double centre = sum / channels;
    for (int c = 0; c < channels; ++c) {
      const double d = static_cast<double>(x[c]) - centre;
      squares += d * d;
    }
    mean = static_cast<float>(centre);
    rstd = static_cast<float>(1 / math::sqrt(squares / channels + epsilon));
  }
};

struct ChannelNorm {
  ConstActivations x;
  const float *gamma, *beta;
  Activations y;
  double epsilon;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t pixel) const {
    const float* from = x.pixel(pixel);
    float* to = y.pixel(pixel);
    const PixelMoments m(from, x.extents.c, epsilon);
    for (int c = 0; c < x.extents.c; ++c) to[c] = math::fma((from[c] - m.mean) * m.rstd, gamma[c], beta[c]);
  }
};

/// dx = rstd (gamma dy - mean(gamma dy) - x_hat mean(gamma dy x_hat)), and to_gamma = dy x_hat.
struct ChannelNormBackward {
  ConstActivations x, dy;
  const float* gamma;
  Activations dx, to_gamma;
  double epsilon;
  bool accumulate;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t pixel) const {
    const float *from = x.pixel(pixel), *upper = dy.pixel(pixel);
    float *lower = dx.pixel(pixel), *product = to_gamma.pixel(pixel);
    const int channels = x.extents.c;
    const PixelMoments m(from, channels, epsilon);
    double first = 0, second = 0;
    for (int c = 0; c < channels; ++c) {
      product[c] = upper[c] * ((from[c] - m.mean) * m.rstd);
      first += static_cast<double>(gamma[c] * upper[c]);
      second += static_cast<double>(gamma[c] * product[c]);
    }
    const auto mean = static_cast<float>(first / channels), slope = static_cast<float>(second / channels);
    for (int c = 0; c < channels; ++c) {
      const float x_hat = (from[c] - m.mean) * m.rstd;
      const float d = m.rstd * (math::fma(gamma[c], upper[c], -mean) - x_hat * slope);
      lower[c] = accumulate ? lower[c] + d : d;
    }
  }
};

double group_elements(const Extents& e, int groups) {
  return static_cast<double>(e.h) * static_cast<double>(e.w) * (e.c / groups);
}

}  // namespace

void channel_moments(const Space& space, ConstActivations x, const float* shift, const View1<double>& sums) {
  const int row = 2 * x.extents.c;
  require_extents(static_cast<int>(sums.extent(0)) >= row, "umbriel::channel_moments");
  const double* totals = sum_sample_channels("umbriel::channel_moments", space, Moments{shift}, {x, {}, {}});
  Kokkos::parallel_for("umbriel::sum_over_samples", Range(space, 0, row),
                       detail::SumOverSamples{totals, sums.data(), x.extents.n, row});
}

void scale_shift(const Space& space, ConstActivations x, const float* scale, const float* shift,
                 ConstActivations residual, Activation activation, Activations y) {
  with_activation(activation, [&](auto f) {
    if (residual) {
      map_pixels("umbriel::scale_shift", space, ScaleShift<f(), true>{scale, shift}, {x, residual, {}}, y);
    } else {
      map_pixels("umbriel::scale_shift", space, ScaleShift<f(), false>{scale, shift}, {x, {}, {}}, y);
    }
  });
}

void batch_norm_backward_sums(const Space& space, ConstActivations x, ConstActivations y, ConstActivations dy,
                              const float* mean, const float* rstd, const float* scale, const float* shift,
                              Activation activation, Activations dz, const View1<double>& sums) {
  const int row = 2 * x.extents.c;
  require_extents(static_cast<int>(sums.extent(0)) >= row, "umbriel::batch_norm_backward_sums");
  with_activation(activation, [&](auto f) {
    using Op = BatchNormSums<f()>;
    const double* totals = sum_sample_channels("umbriel::batch_norm_backward_sums", space, Op{mean, rstd, scale, shift},
                                               {x, dy, Op::inputs > 2 ? y : ConstActivations()}, dz);
    Kokkos::parallel_for("umbriel::sum_over_samples", Range(space, 0, row),
                         detail::SumOverSamples{totals, sums.data(), x.extents.n, row});
  });
}

void batch_norm_backward_data(const Space& space, ConstActivations x, ConstActivations dz, const float* mean,
                              const float* rstd, const float* scale, const View1<double>& sums, double count,
                              Activations dx, bool accumulate) {
  require_extents(static_cast<int>(sums.extent(0)) >= 2 * x.extents.c, "umbriel::batch_norm_backward_data");
  map_pixels("umbriel::batch_norm_backward_data", space, BatchNormData{mean, rstd, scale, sums, count, x.extents.c},
             {x, dz, {}}, dx, accumulate);
}

void group_norm(const Space& space, ConstActivations x, int groups, float epsilon, const float* gamma,
                const float* beta, Activation activation, Activations y, const View3<float>& moments) {
  const Extents e = x.extents;
  require_groups(x, groups, moments);
  const double* totals = sum_sample_channels("umbriel::group_norm_sums", space, PlainMoments{}, {x, {}, {}});
  Kokkos::parallel_for(
      "umbriel::group_norm_moments", Range(space, 0, static_cast<std::int64_t>(e.n) * groups),
      KeepGroupMoments{totals, moments, groups, e.c, group_elements(e, groups), static_cast<double>(epsilon)});
  with_activation(activation, [&](auto f) {
    map_pixels("umbriel::group_norm", space, GroupNorm<f()>{{gamma, beta, moments, e.c / groups}}, {x, {}, {}}, y);
  });
}

void group_norm_backward(const Space& space, ConstActivations x, ConstActivations dy, int groups, const float* gamma,
                         const float* beta, Activation activation, const View3<float>& moments, Activations dx,
                         bool accumulate, float* dgamma, float* dbeta, const View3<double>& scratch) {
  const Extents e = x.extents;
  require_groups(x, groups, moments);
  require_extents(scratch.size() >= static_cast<std::size_t>(2 * e.n * e.c), "umbriel::group_norm_backward");
  const GroupAffine affine{gamma, beta, moments, e.c / groups};
  with_activation(activation, [&](auto f) {
    sum_sample_channels("umbriel::group_norm_backward_sums", space, GroupNormSums<f()>{affine}, {x, dy, {}}, {},
                        scratch.data());
  });
  Kokkos::parallel_for("umbriel::group_norm_gradients", Range(space, 0, e.c),
                       KeepGroupGradients{scratch.data(), dgamma, dbeta, e.n, e.c});
  Kokkos::parallel_for("umbriel::group_norm_means", Range(space, 0, 2LL * e.n * groups),
                       GroupMeans{scratch.data(), gamma, groups, e.c, group_elements(e, groups)});
  with_activation(activation, [&](auto f) {
    map_pixels("umbriel::group_norm_backward", space, GroupNormData<f()>{affine, scratch.data(), e.c}, {x, dy, {}}, dx,
               accumulate);
  });
}

void channel_norm(const Space& space, ConstActivations x, float epsilon, const float* gamma, const float* beta,
                  Activations y) {
  require_extents(x.extents == y.extents, "umbriel::channel_norm");
  Kokkos::parallel_for("umbriel::channel_norm", Range(space, 0, x.extents.pixels()),
                       ChannelNorm{x, gamma, beta, y, static_cast<double>(epsilon)});
}

void channel_norm_backward(const Space& space, ConstActivations x, ConstActivations dy, float epsilon,
                           const float* gamma, Activations dx, bool accumulate, float* dgamma, float* dbeta,
                           Activations scratch) {
  require_extents(x.extents == dy.extents && x.extents == dx.extents && x.extents == scratch.extents,
                  "umbriel::channel_norm_backward");
  sum_pixels(space, dy, dbeta, false);
  Kokkos::parallel_for("umbriel::channel_norm_backward", Range(space, 0, x.extents.pixels()),
                       ChannelNormBackward{x, dy, gamma, dx, scratch, static_cast<double>(epsilon), accumulate});
  sum_pixels(space, scratch, dgamma, false);
}

}  // namespace umbriel
