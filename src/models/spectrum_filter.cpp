#include "umbriel/models/spectrum_filter.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "umbriel/base/linear_table.hpp"
#include "umbriel/fft/filter.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/models/metadata_table.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/mpi/watchdog.hpp"
#include "umbriel/simulation/stationary_field.hpp"

namespace umbriel {
namespace {

constexpr const char* filter_key = "umbriel.generate.filter";
constexpr int chunk = 8;    // maps at once
constexpr int rounds = 4;   // of the fit
constexpr double most = 2;  // factor of the filter, and the least is one over it

struct Value {
  MapBatch maps;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const { return static_cast<double>(maps(n, y, x)); }
};

/// to <- from less its mean, mirrored at the far edges. @param sums  of its pixels
struct Mirror {
  MapBatch from, to;
  View1<double> sums;
  int height, width;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const double mean = sums(n) / (static_cast<double>(height) * width);
    to(n, y, x) =
        from(n, y < height ? y : 2 * height - 1 - y, x < width ? x : 2 * width - 1 - x) - static_cast<float>(mean);
  }
};

struct CornerAndMean {
  MapBatch from, to;
  View1<double> sums;
  double pixels;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    to(n, y, x) = from(n, y, x) + static_cast<float>(sums(n) / pixels);
  }
};

struct FadeOut {
  MapBatch maps;
  View1<float> down, across;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { maps(n, y, x) *= down(y) * across(x); }
};

/// One inside, and towards the edges down to zero over an eighth of the side, as C1 apodisation.
View1<float> fade(int side) {
  const View1<float> out("umbriel::fade", static_cast<std::size_t>(side));
  const auto host = Kokkos::create_mirror_view(HostMemory{}, out);
  for (int i = 0; i < side; ++i) {
    const double x = std::min(1.0, 8 * (std::min(i, side - 1 - i) + 0.5) / side);
    host(static_cast<std::size_t>(i)) =
        static_cast<float>(x - std::sin(2 * std::numbers::pi * x) / (2 * std::numbers::pi));
  }
  Kokkos::deep_copy(out, host);
  return out;
}

/// What spectra are measured with.
class Spectra {
 public:
  Spectra(const Communicator& comm, FieldTransform& transform, Grid grid, const RadialBins& bands)
      : comm_(comm),
        transform_(transform),
        grid_(grid),
        bands_(bands),
        fft_(grid),
        maps_("umbriel::faded_maps", chunk, grid.height, grid.width),
        spectra_("umbriel::faded_spectra", chunk, grid.height, grid.half_width()),
        mean_("umbriel::means", chunk),
        deviation_("umbriel::deviations", chunk),
        power_("umbriel::band_powers", chunk, static_cast<std::size_t>(bands.bands())),
        down_(fade(grid.height)),
        across_(fade(grid.width)) {}

  /// Mean band powers of the standardised maps of the fields of all ranks.
  std::vector<double> operator()(const Space& space, const MapBatch& fields) {
    const auto bands = static_cast<std::size_t>(bands_.bands());
    std::vector<ExactSum> sums(bands + 1);
    each_chunk(fields, [&](const MapBatch& some, int n) {
      transform_.inverse(space, some, n, maps_);
      standardise(space, maps_, n, maps_, mean_, deviation_, workspace_);
      for_each_element("umbriel::fade_out", space, n, grid_.height, grid_.width, FadeOut{maps_, down_, across_});
      fft_.forward(space, maps_, spectra_, n);
      band_power(space, bands_, spectra_, n, power_);
      space.fence();
      const auto power = on_host(power_);
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        for (std::size_t b = 0; b < bands; ++b) sums[b].add(power(i, b));
        sums[bands].add(1);
      }
    });
    return means(sums);
  }

  /// Mean variance of the fields of all ranks.
  double variance(const Space& space, const MapBatch& fields) {
    std::vector<ExactSum> sums(2);
    each_chunk(fields, [&](const MapBatch& some, int n) {
      standardise(space, some, n, maps_, mean_, deviation_, workspace_);
      space.fence();
      const auto deviation = on_host(deviation_);
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        sums[0].add(deviation(i) * deviation(i));
        sums[1].add(1);
      }
    });
    return means(sums)[0];
  }

  template <class F>
  static void each_chunk(const MapBatch& fields, const F& f) {
    const std::size_t total = fields.extent(0);
    for (std::size_t first = 0; first < total; first += chunk) {
      report_alive();
      const std::size_t end = std::min(total, first + chunk);
      f(MapBatch(Kokkos::subview(fields, std::make_pair(first, end), Kokkos::ALL, Kokkos::ALL)),
        static_cast<int>(end - first));
    }
  }

 private:
  /// Of sums over maps, of which the last is their number.
  std::vector<double> means(const std::vector<ExactSum>& sums) const {
    std::vector<double> totals = exact_sum_over_ranks(comm_, sums);
    for (double& total : totals) total /= totals.back();
    totals.pop_back();
    return totals;
  }

  const Communicator& comm_;
  FieldTransform& transform_;
  Grid grid_;
  const RadialBins& bands_;
  RealFft fft_;
  MapBatch maps_;
  SpectrumBatch spectra_;
  View1<double> mean_, deviation_;
  View2<double> power_;
  View1<float> down_, across_;
  SumWorkspace workspace_;
};

}  // namespace

void SpectrumFilter::record(nn::Metadata& metadata) const { metadata[filter_key] = table_text(multipole, factor); }

std::optional<SpectrumFilter> SpectrumFilter::from(const nn::Metadata& metadata, const std::string& path) {
  if (metadata.count(filter_key) == 0) return {};
  SpectrumFilter filter;
  read_table(metadata, filter_key, path, "train the model again", filter.multipole, filter.factor);
  return filter;
}

MirroredFilter::MirroredFilter(const SpectrumFilter& filter, Grid grid, double pixel_arcmin, int batch)
    : grid_(grid),
      wide_({2 * grid.height, 2 * grid.width}),
      factors_(of_modes(wide_.grid(), pixel_arcmin,
                        [&](double l) {
                          return interpolated(filter.multipole, filter.factor, l) /
                                 static_cast<double>(wide_.grid().pixels());  // the transforms are not scaled
                        })),
      means_("umbriel::mirrored_means", static_cast<std::size_t>(batch)),
      maps_("umbriel::mirrored_maps", batch, wide_.grid().height, wide_.grid().width),
      spectra_("umbriel::mirrored_spectra", batch, wide_.grid().height, wide_.grid().half_width()),
      sums_(batch, grid.height) {}

void MirroredFilter::apply(const Space& space, int n, const MapBatch& from, const MapBatch& to) {
  const Grid wide = wide_.grid();
  sum_each_map("umbriel::sum_of_fields", space, n, grid_.height, grid_.width, sums_, means_, Value{from});
  for_each_element("umbriel::mirror_fields", space, n, wide.height, wide.width,
                   Mirror{from, maps_, means_, grid_.height, grid_.width});
  wide_.forward(space, maps_, spectra_, n);
  for_each_element("umbriel::filter_fields", space, n, wide.height, wide.half_width(),
                   FilterSpectra{spectra_, factors_});
  wide_.inverse(space, spectra_, maps_, n);
  for_each_element("umbriel::crop_fields", space, n, grid_.height, grid_.width,
                   CornerAndMean{maps_, to, means_, static_cast<double>(grid_.pixels())});
}

SpectrumFilter fit_spectrum_filter(const Communicator& comm, const Space& space, FieldTransform& transform, Grid grid,
                                   double pixel_arcmin, const MapBatch& drawn, const MapBatch& real) {
  const double lowest = std::min(multipole(grid, pixel_arcmin, 0, 1), multipole(grid, pixel_arcmin, 1, 0));
  const double nyquist =
      std::min(multipole(grid, pixel_arcmin, 0, grid.width / 2), multipole(grid, pixel_arcmin, grid.height / 2, 0));
  std::vector<double> edges = {0.5 * lowest};
  while (edges.back() < nyquist - lowest) edges.push_back(std::max(edges.back() + lowest, 1.2 * edges.back()));
  edges.back() = std::numeric_limits<double>::max();
  const RadialBins bands = radial_bins(grid, pixel_arcmin, edges);
  Spectra spectra(comm, transform, grid, bands);

  const ShardRange mine = shard_range(static_cast<std::int64_t>(real.extent(0)), comm.rank(), comm.size());
  const std::vector<double> target = spectra(
      space, Kokkos::subview(real, std::make_pair(mine.first, mine.first + mine.count), Kokkos::ALL, Kokkos::ALL));
  const double variance = spectra.variance(space, drawn);
  SpectrumFilter filter{bands.centres, std::vector<double>(bands.centres.size(), 1.0)};
  const MapBatch filtered("umbriel::filtered_fields", drawn.extent(0), drawn.extent(1), drawn.extent(2));
  const auto apply = [&] {
    MirroredFilter mirrored(filter, grid, pixel_arcmin, chunk);
    std::size_t first = 0;
    Spectra::each_chunk(drawn, [&](const MapBatch& some, int n) {
      const std::size_t end = first + static_cast<std::size_t>(n);
      mirrored.apply(space, n, some, Kokkos::subview(filtered, std::make_pair(first, end), Kokkos::ALL, Kokkos::ALL));
      first = end;
    });
  };
  for (int round = 0; round < rounds; ++round) {
    const std::vector<double> got = spectra(space, round == 0 ? drawn : filtered);
    for (std::size_t b = 0; b < target.size(); ++b) {
      const double change = std::sqrt(target[b] / std::max(got[b], 1e-30));
      filter.factor[b] = std::clamp(filter.factor[b] * change, 1 / most, most);
    }
    apply();
    const double scale = std::sqrt(variance / std::max(spectra.variance(space, filtered), 1e-30));
    for (double& factor : filter.factor) factor *= scale;
    if (round + 1 < rounds) apply();
  }
  return filter;
}

}  // namespace umbriel
