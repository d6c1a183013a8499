/// Linear maps from a sky to what an instrument saw of it: all that an inference needs to know of the instrument.
#pragma once

#include <vector>

#include "umbriel/core/views.hpp"
#include "umbriel/fft/real_fft.hpp"

namespace umbriel {

class LinearOperator {
 public:
  virtual ~LinearOperator() = default;
  /// to[i] <- A from[i], i < n. @param from, to  [>= n, H, W], not the same
  virtual void apply(const Space& space, const MapBatch& from, int n, const MapBatch& to) const = 0;
  /// to[i] <- A^T from[i], i < n.
  virtual void transpose(const Space& space, const MapBatch& from, int n, const MapBatch& to) const = 0;
  /// maps[i] <- 0 where no datum is: where A gives 0 whatever the sky.
  virtual void keep_observed(const Space& space, const MapBatch& maps, int n) const = 0;
  /// What A makes of the amplitude of a wave of so many radians a pixel where all is observed. For preconditioners.
  virtual double response(double wave_number) const = 0;
};

/// A Gaussian beam on the periodic grid, and what is observed behind it: A = M B, A^T = B M.
class MaskedBeam final : public LinearOperator {
 public:
  /// @param mask          [H, W] 1 observed, 0 not
  /// @param fwhm_pixels   full width of the beam at half maximum; 0: none
  /// @param batch         maps at once, at most
  MaskedBeam(Grid grid, const std::vector<float>& mask, double fwhm_pixels, int batch);

  void apply(const Space& space, const MapBatch& from, int n, const MapBatch& to) const override;
  void transpose(const Space& space, const MapBatch& from, int n, const MapBatch& to) const override;
  void keep_observed(const Space& space, const MapBatch& maps, int n) const override;
  double response(double wave_number) const override;

 private:
  void smooth(const Space& space, int n, const MapBatch& maps) const;

  RealFft fft_;
  double sigma_pixels_;
  View2<float> mask_;
  SpectrumBatch scratch_;
};

}  // namespace umbriel
