// A sum over triangles is a sum over pixels: with f_i the map filtered to ring i,
//   sum_x f_i f_j f_l = N^-2 sum over k + k' + k'' = 0 of a(k) a(k') a(k''),
// transforms without factors; and the same of a map whose modes are all 1 counts the triangles.
#include "umbriel/statistics/bispectrum.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <string>

#include "umbriel/core/check.hpp"
#include "umbriel/statistics/fourier_filter.hpp"

namespace umbriel {

struct Bispectrum::State {
  FlatSky sky;
  std::vector<double> mask;
  double cube = 0;  // mean of mask^3
  FourierFilter filter;
  std::vector<int> ring;  // [ky, kx] of the half plane, -1 outside all
  std::vector<double> centres, first, one;
  Triangles counts;

  explicit State(const FlatSky& s) : sky(s), filter(s.grid) {}

  /// Sums over pixels of f_i^3 and f_1 f_i^2 of the transform in `filter`.
  Triangles sums() {
    Triangles out;
    for (std::size_t r = 0; r < centres.size(); ++r) {
      std::vector<double>& plane = r == 0 ? first : one;
      filter.filter([&](std::size_t at) { return ring[at] == static_cast<int>(r) ? 1.0 : 0.0; }, plane.data());
      double equilateral = 0, squeezed = 0;
      for (std::size_t i = 0; i < plane.size(); ++i) {
        const double square = plane[i] * plane[i];
        equilateral += square * plane[i];
        squeezed += square * first[i];
      }
      out.equilateral.push_back(equilateral);
      out.squeezed.push_back(squeezed);
    }
    return out;
  }
};

double highest_bispectrum_multipole(const FlatSky& sky) {
  return 2.0 / 3 * std::numbers::pi / std::max(sky.pixel_y, sky.pixel_x);
}

Bispectrum::Bispectrum(const FlatSky& sky, const std::vector<double>& mask, const std::vector<double>& edges)
    : state_(std::make_unique<State>(sky)) {
  const Grid grid = sky.grid;
  require(mask.size() == static_cast<std::size_t>(grid.pixels()), ExitCode::input,
          "the mask has another size than the map", "", "give a mask of the map's grid");
  require(std::all_of(mask.begin(), mask.end(), [](double value) { return std::isfinite(value); }) &&
              std::any_of(mask.begin(), mask.end(), [](double value) { return value != 0; }),
          ExitCode::input, "the mask is not finite, or zero everywhere", "", "give weights from 0 to 1");
  require(edges.size() > 1 && edges[0] > 0 && std::is_sorted(edges.begin(), edges.end(), std::less_equal<>()),
          ExitCode::usage, "the edges of the rings do not increase from above 0", "",
          "give two multipoles or more, each above the one before");
  require(edges.back() <= highest_bispectrum_multipole(sky) * (1 + 1e-12), ExitCode::usage,
          "rings of the bispectrum reach too high for the pixels", "l = " + std::to_string(edges.back()),
          "end at " + std::to_string(highest_bispectrum_multipole(sky)) + ", two thirds of the highest multipole");
  State& s = *state_;
  s.mask = mask;
  for (const double w : mask) s.cube += w * w * w / static_cast<double>(grid.pixels());
  s.first.resize(mask.size());
  s.one.resize(mask.size());
  std::vector<double> modes(edges.size() - 1, 0);
  s.centres = modes;
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.half_width(); ++kx) {
      const double l = sky.multipole(ky, kx);
      const auto above = std::upper_bound(edges.begin(), edges.end(), l);
      const bool inside = above != edges.begin() && above != edges.end();
      s.ring.push_back(inside ? static_cast<int>(above - edges.begin()) - 1 : -1);
      if (!inside) continue;
      const auto r = static_cast<std::size_t>(s.ring.back());
      const double count = mode_weight(grid, kx);
      modes[r] += count;
      s.centres[r] += count * l;
    }
  }
  for (std::size_t r = 0; r < modes.size(); ++r) {
    require(modes[r] > 0, ExitCode::usage, "a ring holds no modes of this map",
            "l = " + std::to_string(edges[r]) + " to " + std::to_string(edges[r + 1]), "take wider rings");
    s.centres[r] /= modes[r];
  }
  s.filter.modes().assign(s.ring.size(), 1.0);
  s.counts = s.sums();
  const double pixels = static_cast<double>(grid.pixels());
  for (std::vector<double>* counts : {&s.counts.equilateral, &s.counts.squeezed}) {
    for (std::size_t r = 0; r < counts->size(); ++r) {
      (*counts)[r] = std::round((*counts)[r] * pixels * pixels);
      require((*counts)[r] > 0, ExitCode::usage, "no triangle has its modes in a ring of the bispectrum",
              "l = " + std::to_string(edges[r]) + " to " + std::to_string(edges[r + 1]), "take wider rings");
    }
  }
}

Bispectrum::~Bispectrum() = default;
Bispectrum::Bispectrum(Bispectrum&&) noexcept = default;

int Bispectrum::rings() const { return static_cast<int>(state_->centres.size()); }
const std::vector<double>& Bispectrum::centres() const { return state_->centres; }
const Bispectrum::Triangles& Bispectrum::counts() const { return state_->counts; }

Bispectrum::Triangles Bispectrum::operator()(const double* map) {
  State& s = *state_;
  for (std::size_t i = 0; i < s.mask.size(); ++i) s.filter.map()[i] = s.mask[i] == 0 ? 0 : s.mask[i] * map[i];
  s.filter.transform();
  Triangles out = s.sums();
  // N^2 sum_x of transforms with the pixel's area A / N each, over the area and the mask's loss.
  const double pixels = static_cast<double>(s.sky.grid.pixels());
  const double scale = s.sky.area() * s.sky.area() / pixels / s.cube;
  for (std::size_t r = 0; r < s.centres.size(); ++r) {
    out.equilateral[r] *= scale / s.counts.equilateral[r];
    out.squeezed[r] *= scale / s.counts.squeezed[r];
  }
  return out;
}

}  // namespace umbriel
