/// Bispectra of flat-sky maps in rings of multipoles, by the FFT estimator (Scoccimarro 2015, Phys. Rev. D 92, 083532,
/// sec. III, in two dimensions). In float64, on the host.
#pragma once

#include <memory>
#include <vector>

#include "umbriel/statistics/masked_spectrum.hpp"

namespace umbriel {

/// With a(k) = pixel area times the discrete transform of mask times map, and A the map's area,
///   B(i, j, l) = 1 / (A <mask^3>) times the mean of a(k) a(k') a(k'') over all triangles k + k' + k'' = 0 with k in
///   ring i, k' in ring j, k'' in ring l,
/// in steradians squared times the map's units cubed: <kappa(k) kappa(k') kappa(k'')> = (2 pi)^2 delta(k + k' + k'') B.
/// The mask's mixing of multipoles stays: keep rings wider than 2 pi over the mask's extent, and its edges smooth.
/// Not safe to use from two threads at a time.
class Bispectrum {
 public:
  /// @param mask   [y, x] weights from 0 to 1
  /// @param edges  increasing multipoles: ring i holds edges[i] <= l < edges[i + 1]
  /// @throws Error(usage) for edges that do not increase from above 0 or end beyond two thirds of the grid's highest
  ///         multipole along an axis, where triangles close by going round the grid, and for a ring without
  ///         triangles; Error(input) for a mask of another size, one that is not finite, or zero everywhere
  Bispectrum(const FlatSky& sky, const std::vector<double>& mask, const std::vector<double>& edges);
  ~Bispectrum();
  Bispectrum(Bispectrum&&) noexcept;

  int rings() const;
  const std::vector<double>& centres() const;  ///< [ring] mean multipole of the modes

  /// Of three modes in one ring, and of two in one ring with the third in the first ring. [ring]
  struct Triangles {
    std::vector<double> equilateral, squeezed;
  };
  /// Ordered triangles (k, k', k'') that are averaged over.
  const Triangles& counts() const;
  /// The bispectrum. @param map  [y, x]
  Triangles operator()(const double* map);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The two thirds of the grid's highest multipole along an axis up to which bispectra go.
double highest_bispectrum_multipole(const FlatSky& sky);

}  // namespace umbriel
