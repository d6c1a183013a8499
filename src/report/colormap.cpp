#include "umbriel/report/colormap.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace umbriel {
namespace {

using Triple = std::array<double, 3>;

/// Oklab (L, a, b) to linear sRGB; components outside [0, 1] cannot be shown.
Triple linear_srgb(const Triple& lab) {
  const double l = std::pow(lab[0] + 0.3963377774 * lab[1] + 0.2158037573 * lab[2], 3);
  const double m = std::pow(lab[0] - 0.1055613458 * lab[1] - 0.0638541728 * lab[2], 3);
  const double s = std::pow(lab[0] - 0.0894841775 * lab[1] - 1.2914855480 * lab[2], 3);
  return {4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
          -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
          -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s};
}

bool can_be_shown(const Triple& lab) {
  const Triple rgb = linear_srgb(lab);
  return std::all_of(rgb.begin(), rgb.end(), [](double c) { return c >= 0 && c <= 1; });
}

/// The same lightness and hue with as much of the chroma as sRGB can show.
Triple into_gamut(const Triple& lab) {
  if (can_be_shown(lab)) return lab;
  double low = 0, high = 1;
  for (int i = 0; i < 40; ++i) {
    const double middle = 0.5 * (low + high);
    (can_be_shown({lab[0], middle * lab[1], middle * lab[2]}) ? low : high) = middle;
  }
  return {lab[0], low * lab[1], low * lab[2]};
}

std::uint8_t srgb_byte(double linear) {
  const double c = std::clamp(linear, 0.0, 1.0);
  const double encoded = c <= 0.0031308 ? 12.92 * c : 1.055 * std::pow(c, 1 / 2.4) - 0.055;
  return static_cast<std::uint8_t>(std::lround(255 * encoded));
}

/// Catmull-Rom curve through `points` at s in [0, points.size() - 1], continued straight beyond the ends.
Triple curve(const std::vector<Triple>& points, double s) {
  const int n = static_cast<int>(points.size());
  const int i = std::clamp(static_cast<int>(s), 0, n - 2);
  const double u = s - i;
  Triple out;
  for (std::size_t k = 0; k < 3; ++k) {
    const double p1 = points[std::size_t(i)][k], p2 = points[std::size_t(i) + 1][k];
    const double p0 = i > 0 ? points[std::size_t(i) - 1][k] : 2 * p1 - p2;
    const double p3 = i + 2 < n ? points[std::size_t(i) + 2][k] : 2 * p2 - p1;
    out[k] = 0.5 * (2 * p1 + (p2 - p0) * u + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u * u +
                    (3 * p1 - p0 - 3 * p2 + p3) * u * u * u);
  }
  return out;
}

}  // namespace

Colormap::Colormap(const std::vector<ControlPoint>& points) {
  std::vector<Triple> control;
  for (const auto& p : points) {
    const double hue = p.hue * std::numbers::pi / 180;
    control.push_back({p.lightness, p.chroma * std::cos(hue), p.chroma * std::sin(hue)});
  }
  // Walk the curve in fine steps, then pick colours at equal distance along it.
  constexpr int fine = 4096;
  std::vector<Triple> path;
  std::vector<double> length{0};
  for (int i = 0; i <= fine; ++i) {
    path.push_back(into_gamut(curve(control, double(i) / fine * double(control.size() - 1))));
    if (i == 0) continue;
    const Triple &a = path[std::size_t(i) - 1], &b = path[std::size_t(i)];
    length.push_back(length.back() + std::hypot(b[0] - a[0], b[1] - a[1], b[2] - a[2]));
  }
  for (int i = 0; i < size; ++i) {
    const double target = length.back() * i / (size - 1);
    const auto after = std::lower_bound(length.begin(), length.end() - 1, target);
    const Triple rgb = linear_srgb(path[std::size_t(after - length.begin())]);
    colours_[std::size_t(i)] = {srgb_byte(rgb[0]), srgb_byte(rgb[1]), srgb_byte(rgb[2])};
  }
}

const Colormap& Colormap::umbra() {
  static const Colormap map({{0.15, 0.050, 275},
                             {0.29, 0.120, 283},
                             {0.43, 0.165, 305},
                             {0.56, 0.170, 345},
                             {0.69, 0.165, 25},
                             {0.83, 0.140, 70},
                             {0.97, 0.075, 100}});
  return map;
}

const Colormap& Colormap::tide() {
  static const Colormap map({{0.20, 0.060, 270},
                             {0.35, 0.085, 250},
                             {0.50, 0.085, 220},
                             {0.65, 0.095, 190},
                             {0.80, 0.110, 160},
                             {0.96, 0.070, 125}});
  return map;
}

const Colormap& Colormap::dusk() {
  static const Colormap map({{0.34, 0.110, 262},
                             {0.55, 0.125, 250},
                             {0.78, 0.075, 235},
                             {0.97, 0.004, 90},
                             {0.78, 0.090, 45},
                             {0.55, 0.150, 30},
                             {0.34, 0.120, 20}});
  return map;
}

Rgb Colormap::at(double t) const { return colours_[std::size_t(std::lround(std::clamp(t, 0.0, 1.0) * (size - 1)))]; }

std::uint8_t Colormap::index(double value, double low, double high) {
  if (std::isnan(value)) return no_value;
  const double t = high > low ? (value - low) / (high - low) : 0.5;
  return static_cast<std::uint8_t>(std::lround(std::clamp(t, 0.0, 1.0) * (size - 1)));
}

std::vector<Rgb> Colormap::palette() const {
  std::vector<Rgb> all(colours_.begin(), colours_.end());
  all.push_back({128, 128, 128});
  return all;
}

}  // namespace umbriel
