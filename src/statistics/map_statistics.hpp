/// Statistics of single maps in real space: one-point density, peaks and minima, Minkowski functionals. In float64, on
/// the host: a map is the work of one core.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "umbriel/core/views.hpp"

namespace umbriel {

/// What lies beyond the border of a map: nothing that was observed, or the map once more.
enum class Border { open, periodic };

/// The observed pixels of a grid, and those whose neighbours are observed too. [y, x], 1 or 0 each.
struct Footprint {
  /// @param mask  [y, x], 0 where not observed
  /// @throws Error(input) for a mask of another size, one that is not finite, or zero everywhere
  Footprint(Grid grid, const std::vector<double>& mask, Border border);

  Grid grid;
  Border border;
  std::vector<std::uint8_t> observed;
  std::vector<std::uint8_t> surrounded;      ///< and so are its eight neighbours
  std::vector<std::uint8_t> differentiable;  ///< and so are, too, the next but one along both axes
  double pixels = 0;                         ///< number observed
};

/// Bins of values: bin b holds edges[b] <= value < edges[b + 1].
class Bins {
 public:
  /// @param where  the user's word for the edges, for messages
  /// @throws Error(usage) unless there are two edges or more, finite, each above the one before
  explicit Bins(std::vector<double> edges, const std::string& where = "");

  std::size_t size() const { return edges_.size() - 1; }
  const std::vector<double>& edges() const { return edges_; }
  std::vector<double> centres() const;
  /// Edges times a unit above zero.
  Bins scaled(double unit) const;
  /// The bin of a value, -1 outside all and for NaN.
  int operator()(double value) const;

 private:
  std::vector<double> edges_;
  double bins_a_unit_;
};

/// Standard deviation of the observed pixels, with 1 / n, about their mean; 0 where it is no more than rounding.
/// @param map  [y, x]
double standard_deviation(const Footprint& footprint, const double* map);

// Below, bins are in units of `unit`, which is above zero: 1 for bins of the map's own values, the map's standard
// deviation, that of its noise.

/// Share of the observed pixels in each bin over the bin's width, [bin]: the density of map / unit. Over bins that hold
/// all pixels it integrates to 1. @param map  [y, x]
std::vector<double> pixel_density(const Footprint& footprint, const double* map, const Bins& bins, double unit);

/// Number of peaks in each bin of their height, [bin]: pixels strictly above all eight neighbours, which are observed
/// as the pixel is. On an open border pixels lack neighbours and are no peaks. @param map  [y, x]
std::vector<double> peak_counts(const Footprint& footprint, const double* map, const Bins& bins, double unit);

/// The same of minima: pixels strictly below all eight neighbours.
std::vector<double> minimum_counts(const Footprint& footprint, const double* map, const Bins& bins, double unit);

/// Minkowski functionals of the excursion sets map / unit >= nu, [bin] each, nu the bins' centres: their area V0,
/// boundary V1 and Euler characteristic V2, over the area of the footprint.
struct MinkowskiFunctionals {
  std::vector<double> v0, v1, v2;
};

/// As LensTools has them (Petri et al. 2013, Phys. Rev. D 88, 123002, eqs. 5 and 6; Petri 2016, Astron. Comput. 17,
/// 73):
///   V0 = mean of [f >= nu],  V1 = mean of |grad f| / 4 in the bin,
///   V2 = mean of (2 fx fy fxy - fx^2 fyy - fy^2 fxx) / (2 pi |grad f|^2) in the bin,
/// the last two over the bin's width; derivatives by central differences, fx = (f(x + 1) - f(x - 1)) / 2, fxx = fx of
/// fx, fxy = fy of fx, over pixels that have them all. Where the gradient vanishes V2 takes (2 fxy - fxx - fyy) / (4
/// pi). A functional belongs to a set and not to the unit of nu: widths are those in the map's own values. LensTools
/// with norm = True divides by widths in units of sigma; its V1 and V2 are sigma times these.
/// @param map    [y, x]
/// @param pixel  side of a pixel: V1 is in its inverse, V2 in its inverse square. LensTools has 1
MinkowskiFunctionals minkowski_functionals(const Footprint& footprint, const double* map, const Bins& bins, double unit,
                                           double pixel);

/// The Gaussian exp(-j^2 / (2 sigma^2)) at pixels j = 0, 1, ... to seven sigma, with a sum of 1 over all j, those below
/// zero too. @throws Error(usage) unless sigma > 0
std::vector<double> gaussian_taps(double sigma);

/// Standard deviation, away from borders, of white noise of variance 1 smoothed with those taps along both axes.
double smoothed_noise(double sigma);

/// Gaussian smoothing of maps with those taps along both axes. Unobserved pixels, and what lies beyond an open border,
/// have no weight: the smoothed map is the smoothed product of mask and map over the smoothed mask. Not safe to use
/// from two threads at a time.
class GaussianSmoothing {
 public:
  /// @param sigma  standard deviation in pixels, above zero
  GaussianSmoothing(const Footprint& footprint, double sigma);
  ~GaussianSmoothing();
  GaussianSmoothing(GaussianSmoothing&&) noexcept;

  /// In place; 0 where not observed. @param map  [y, x]
  void operator()(double* map);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbriel
