#include "umbriel/data/power_spectrum.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <sstream>
#include <utility>

#include "umbriel/base/files.hpp"
#include "umbriel/core/check.hpp"
#include "umbriel/data/npy.hpp"

namespace umbriel {

PowerSpectrum::PowerSpectrum(std::vector<double> multipoles, std::vector<double> values, const std::string& where)
    : multipole(std::move(multipoles)), value(std::move(values)) {
  const std::string remedy = "give increasing multipoles and C_l >= 0";
  require(!multipole.empty() && multipole.size() == value.size(), ExitCode::input,
          "the power spectrum has " + std::to_string(multipole.size()) + " multipoles and " +
              std::to_string(value.size()) + " values",
          where, remedy);
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string entry = " (entry " + std::to_string(i) + ")";
    require(std::isfinite(multipole[i]) && multipole[i] >= 0 && (i == 0 || multipole[i] > multipole[i - 1]),
            ExitCode::input, "the multipoles of the power spectrum do not increase from zero" + entry, where, remedy);
    require(std::isfinite(value[i]) && value[i] >= 0, ExitCode::input,
            "the power spectrum is negative, infinite or NaN" + entry, where, remedy);
  }
}

double PowerSpectrum::operator()(double l) const {
  if (l <= multipole.front()) return value.front();
  if (l >= multipole.back()) return value.back();
  const auto after =
      static_cast<std::size_t>(std::upper_bound(multipole.begin(), multipole.end(), l) - multipole.begin());
  const double slope = (value[after] - value[after - 1]) / (multipole[after] - multipole[after - 1]);
  return slope * (l - multipole[after - 1]) + value[after - 1];
}

PowerSpectrum read_power_spectrum(const std::string& path) {
  if (path.ends_with(".npy")) {
    const NpyArray array = read_npy(path);
    require(array.shape.size() == 2 && array.shape[0] == 2, ExitCode::input,
            "the power spectrum does not have the shape (2, n)", path, "give row 0 the multipoles and row 1 the C_l");
    const auto middle = array.values.begin() + static_cast<std::ptrdiff_t>(array.shape[1]);
    return {{array.values.begin(), middle}, {middle, array.values.end()}, path};
  }

  std::vector<double> multipoles, values;
  std::istringstream file(read_bytes(path));
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line.resize(std::min(line.size(), line.find('#')));
    std::replace(line.begin(), line.end(), ',', ' ');
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::istringstream words(line);
    double l = 0, c = 0;
    std::string rest;
    require(words >> l >> c && !(words >> rest), ExitCode::input,
            "line " + std::to_string(number) + " of the power spectrum does not hold two numbers", path,
            "give two columns, l and C_l, or a .npy file of shape (2, n)");
    multipoles.push_back(l);
    values.push_back(c);
  }
  return {std::move(multipoles), std::move(values), path};
}

HostView2<float> pixel_power(const PowerSpectrum& spectrum, Grid grid, double pixel_arcmin) {
  require(std::isfinite(pixel_arcmin) && pixel_arcmin > 0, ExitCode::input, "the pixel size is not positive",
          "survey.pixel_arcmin", "give the side of a pixel in arcminutes");
  const double pixel = pixel_arcmin / 60 * std::numbers::pi / 180;
  HostView2<float> power("umbriel::pixel_power", static_cast<std::size_t>(grid.height),
                         static_cast<std::size_t>(grid.half_width()));
  for (int row = 0; row < grid.height; ++row) {
    const int ky = row <= grid.height / 2 ? row : row - grid.height;
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      const double frequency = std::hypot(static_cast<double>(ky) / grid.height, static_cast<double>(kx) / grid.width);
      power(row, kx) = static_cast<float>(spectrum(2 * std::numbers::pi * frequency / pixel) / (pixel * pixel));
    }
  }
  power(0, 0) = 0;
  return power;
}

double pixel_standard_deviation(const HostView2<float>& power, Grid grid) {
  double sum = 0;
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) sum += mode_weight(grid, kx) * power(ky, kx);
  }
  return std::sqrt(sum / static_cast<double>(grid.pixels()));
}

}  // namespace umbriel
