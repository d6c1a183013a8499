/// What a model of maps leaves out, as a Gaussian field that is integrated out of a likelihood or drawn exactly.
///
///   d = A (g + r) + n,  r = h rho     rho stationary, with a power spectrum P(l); h its deviation, pixel by pixel;
///                                     n white noise of deviation sigma where A sees anything
///
/// So d given g is Gaussian about A g with the covariance S = A h R h A^T + sigma^2, and r given both has the mean
/// h R h A^T S^-1 (d - A g). Draws are constrained realisations (Hoffman & Ribak 1991): with r' ~ prior and n' ~ noise,
/// r' + h R h A^T S^-1 (d - A g - A r' - n') is an exact one.
///
/// S^-1 is by conjugate gradients, preconditioned by 1 / (sigma^2 + <h^2> b^2 P) on the map's own grid, as if it were
/// periodic, all of it observed, and the same everywhere; b is what A makes of a wave.
#pragma once

#include <vector>

#include "umbriel/core/loops.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/inference/linear_operator.hpp"
#include "umbriel/rng/philox.hpp"
#include "umbriel/simulation/stationary_field.hpp"

namespace umbriel {

class ResidualField {
 public:
  /// Keeps a reference to the instrument. h is 1 to begin with.
  /// @param multipole, power  P a mode of an orthonormal transform, ln P linear in l, constant beyond; increasing l
  /// @param noise             sigma
  /// @param batch             maps at once, at most
  ResidualField(const LinearOperator& instrument, Grid grid, double pixel_arcmin, const std::vector<double>& multipole,
                const std::vector<double>& power, double noise, int batch);

  /// @param deviation  [H, W] h, on the host, > 0
  void set_deviation(const std::vector<float>& deviation);

  /// Multiplies h by the factor c that makes the data likeliest, a priori ln c^2 ~ N(0, spread^2), by Fisher's scoring:
  ///   d ln p / d ln c^2 = 1/2 (q - <q>),  q = s^T A h R h A^T s,  s = S^-1 data,
  /// and the information is <(q - <q>)^2> / 4, both means over data simulated with c. ln c^2 stays within 4 spreads.
  /// @param data  [1, H, W] d - A g, zero where nothing is observed; kept
  /// @return c
  double fit_amplitude(const Space& space, std::uint64_t seed, const MapBatch& data, double spread);

  /// solution[i] <- S^-1 data[i], i < n. What a map gives does not depend on the batch. Data that are not finite have
  /// no solution, and their products with what is returned are not finite.
  /// @param data      [>= n, H, W] zero where nothing is observed; kept
  /// @param solution  [>= n, H, W], overwritten
  /// @throws Error(numerical) without convergence
  void solve(const Space& space, int n, const MapBatch& data, const MapBatch& solution);
  /// mean[i] <- h R h A^T solution[i]: of r, given solution = S^-1 (d - A g).
  void mean(const Space& space, int n, const MapBatch& solution, const MapBatch& mean);
  /// r[i] <- draw keys[i] of r given the data. The purpose of keys is set here.
  /// @param data  [>= n, H, W] d - A g; overwritten
  void draw(const Space& space, const std::vector<DrawKey>& keys, const MapBatch& data, const MapBatch& r);

  /// Of the last solve.
  int iterations() const { return iterations_; }

 private:
  /// r[i] <- h rho, data[i] <- A r + n, i < n, of streams that `prior` and `noise` give to the map.
  void simulate(const Space& space, const std::vector<DrawKey>& prior, const std::vector<DrawKey>& noise,
                const MapBatch& r, const MapBatch& data);
  /// s^T A h R h A^T s of each of n maps of data, with s = S^-1 data.
  std::vector<double> forms(const Space& space, int n, const MapBatch& data, const MapBatch& solution);
  /// to <- (A h R h A^T + sigma^2) from
  void apply(const Space& space, int n, const MapBatch& from, const MapBatch& to);
  void precondition(const Space& space, int n, const MapBatch& from, const MapBatch& to);

  const LinearOperator& instrument_;
  Grid grid_;
  double pixel_arcmin_, noise_;
  int batch_, iterations_ = 0;
  RealFft fft_;
  StationaryField rho_;
  std::vector<float> h_;
  View2<float> deviation_, inverse_scale_;  ///< h, 1 / D
  View2<float> inverse_;                    ///< over the pixels: transforms are not scaled
  MapBatch pulled_, residual_, direction_, product_, preconditioned_;
  SpectrumBatch spectra_;
  SumWorkspace sums_;
};

}  // namespace umbriel
