/// Colour maps that look even to the eye: equal steps in value are equal steps in Oklab.
///
/// Oklab: B. Ottosson, "A perceptual color space for image processing" (2020).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "umbriel/report/png.hpp"

namespace umbriel {

class Colormap {
 public:
  static constexpr int size = 255;  ///< colours; index 255 is left for "no value"
  static constexpr std::uint8_t no_value = 255;

  /// Night blue over violet, rose and amber to pale yellow: convergence. Lightness grows evenly.
  static const Colormap& umbra();
  /// Deep blue over teal to pale green: standard deviations, noise, probabilities. Lightness grows evenly.
  static const Colormap& tide();
  /// Blue over near-white to red, the middle lightest: shear and residuals, symmetric about zero.
  static const Colormap& dusk();

  /// Colour at t in [0, 1]; values outside take the end colours.
  Rgb at(double t) const;
  /// Palette index of `value` on the range [low, high]; `no_value` for NaN.
  static std::uint8_t index(double value, double low, double high);
  /// The `size` colours and one more, unused, for `no_value`.
  std::vector<Rgb> palette() const;

  /// A colour by lightness (0 to 1), chroma and hue (degrees) in Oklab.
  struct ControlPoint {
    double lightness, chroma, hue;
  };
  /// A smooth curve through control points, resampled to equal steps; colours outside sRGB lose chroma, never
  /// lightness.
  explicit Colormap(const std::vector<ControlPoint>& points);

 private:
  std::array<Rgb, size> colours_;
};

}  // namespace umbriel
