/// The posterior of a map under a model that decodes it from few numbers and knows what it leaves out.
///
///   x = g(u) + r,  d = A x + n,  u ~ N(0, 1), r a Gaussian field (residual_field.hpp)
///   -2 ln p(u | d) = u^T u + (d - A g(u))^T S^-1 (d - A g(u)),  S = A <r r^T> A^T + sigma^2
///
/// r is integrated out while u is sampled, and drawn exactly given u and d. As S does not depend on u, the maximum of
/// p(u | d), with the mean of r there, is that of p(u, r | d) too.
#pragma once

#include "umbriel/inference/residual_field.hpp"
#include "umbriel/inference/vector_posterior.hpp"

namespace umbriel {

/// g: maps of few numbers that are standard normal a priori.
class MapDecoder {
 public:
  virtual ~MapDecoder() = default;
  virtual int size() const = 0;   ///< numbers
  virtual int batch() const = 0;  ///< maps at once, at most
  virtual Grid grid() const = 0;
  /// Maps of points [n, size], n <= batch(), valid until the next call. @return [>= n, H, W]
  virtual MapBatch decode(const Space& space, const std::vector<float>& points) = 0;
  /// The gradient with respect to the points that were decoded last, given that with respect to their maps.
  /// @param gradient  [>= n, H, W]. @return [n, size]
  virtual std::vector<float> pull_back(const Space& space, const MapBatch& gradient, int n) = 0;
};

class DecodedPosterior final : public VectorDensity {
 public:
  /// Keeps references to all three. @param data  [H, W] on the host, 0 where not observed
  DecodedPosterior(MapDecoder& decoder, const LinearOperator& instrument, ResidualField& field,
                   const std::vector<float>& data);

  int size() const override { return decoder_.size(); }
  int batch() const override { return decoder_.batch(); }
  std::vector<double> evaluate(const Space& space, const std::vector<float>& points,
                               std::vector<float>& gradient) override;

  /// What is left of the data, d - A g, of points [n, size], n <= batch(), valid until the next call. @return [>= n, H,
  /// W]
  MapBatch left_of_data(const Space& space, const std::vector<float>& points);
  /// @{ Maps [n, H, W] of points [n, size], n <= batch(), on the host: g(u); g(u) and the mean of r given u and the
  /// data; g(u) and a draw of r, of stream keys[i] (its purpose is set here).
  std::vector<float> decoded(const Space& space, const std::vector<float>& points);
  std::vector<float> mean(const Space& space, const std::vector<float>& points);
  std::vector<float> draw(const Space& space, const std::vector<float>& points, const std::vector<DrawKey>& keys);
  /// @}

 private:
  int count(const std::vector<float>& points) const { return static_cast<int>(points.size()) / decoder_.size(); }
  std::vector<float> with_decoded(const Space& space, const std::vector<float>& points, const MapBatch& r);

  MapDecoder& decoder_;
  const LinearOperator& instrument_;
  ResidualField& field_;
  MapBatch data_, left_, solution_, pulled_;
  SumWorkspace sums_;
};

}  // namespace umbriel
