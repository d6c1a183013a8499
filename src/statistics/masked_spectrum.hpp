/// Power spectra of masked flat-sky maps, with the coupling that the mask brings between bands taken out: the
/// pseudo-C_l estimator of Hivon et al. (2002, ApJ 567, 2) on a flat sky, as NaMaster has it (Alonso et al. 2019, MNRAS
/// 484, 4127, sec. 2.3). In float64, on the host: a map is the work of one core.
#pragma once

#include <memory>
#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel {

/// A grid with the sides of its pixels, in radians.
struct FlatSky {
  Grid grid;
  double pixel_y = 0, pixel_x = 0;

  /// Area of the map, in steradians.
  double area() const { return static_cast<double>(grid.pixels()) * pixel_y * pixel_x; }
  /// Multipole |k| of mode (ky, kx), 0 <= kx <= W/2.
  double multipole(int ky, int kx) const;
};

/// Not safe to use from two threads at a time.
class MaskedSpectrum {
 public:
  /// @param mask   [y, x] weights, usually 0 to 1, smooth at the edges (see apodise); any scale
  /// @param edges  increasing multipoles: band b holds edges[b] <= l < edges[b + 1]
  /// @throws Error(input) for a mask that is not finite or zero everywhere; Error(usage) for edges that do not rise, a
  ///         band without modes, or bands that the mask couples so that they cannot be told apart
  MaskedSpectrum(const FlatSky& sky, const std::vector<double>& mask, const std::vector<double>& edges);
  ~MaskedSpectrum();
  MaskedSpectrum(MaskedSpectrum&&) noexcept;

  int bands() const;
  /// Modes of the full plane in each band, and their mean multipole.
  const std::vector<double>& modes() const;
  const std::vector<double>& centres() const;
  /// [band, band']: what a spectrum of 1 in band b' gives to the coupled band b.
  const std::vector<double>& coupling() const;

  /// Band powers of maps times the mask, in steradians times the maps' units squared. @param f, g  [y, x]
  std::vector<double> coupled(const double* f) const { return coupled(f, f); }
  std::vector<double> coupled(const double* f, const double* g) const;
  /// Band powers as they would be without a mask, if there is no power beyond the bands: what modes outside all of them
  /// leak in stays there, so let the bands reach further than those that are wanted.
  std::vector<double> decoupled(const std::vector<double>& coupled) const;

  /// What decoupled bands are of, where the spectrum changes within them: the expected band power is
  /// sum_j window(band, j) C(multipole j) for any spectrum, those of modes outside all bands too. Rings j of modes are
  /// as wide as the grid's lowest multipole, and end where bands do (Alonso et al. 2019, eqs. 19 and 20, summed over
  /// the plane's own modes).
  struct Windows {
    std::vector<double> low, high;   ///< [j] the ring holds low <= l < high
    std::vector<double> multipoles;  ///< [j] mean multipole of its modes
    std::vector<double> window;      ///< [band, j]
  };
  Windows windows() const;

  std::vector<double> operator()(const double* f) const { return decoupled(coupled(f, f)); }
  std::vector<double> operator()(const double* f, const double* g) const { return decoupled(coupled(f, g)); }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// How a mask rises from 0 at its holes to 1 at a distance of theta: with x = distance / theta < 1,
/// c1: x - sin(2 pi x) / (2 pi); c2: (1 - cos(pi x)) / 2 (Grain et al. 2009, Phys. Rev. D 79, 123515). NaMaster's
/// smooth: the mask, set to 0 within 2.5 theta of its holes and smoothed with a Gaussian of standard deviation theta.
enum class Apodisation { c1, c2, smooth };

/// A mask times that rise; of zeros it stays 0. Distances are those to the centre of the nearest pixel where the mask
/// is 0; what lies beyond the map is no hole, and smoothing goes round to the other side. @param theta  radians
std::vector<double> apodise(const FlatSky& sky, const std::vector<double>& mask, double theta, Apodisation kind);

}  // namespace umbriel
