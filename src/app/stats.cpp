// umbriel stats: statistics of maps, map by map, in one result file.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "umbriel/app/chains.hpp"
#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/data/map_folder.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/statistics/bispectrum.hpp"
#include "umbriel/statistics/map_statistics.hpp"
#include "umbriel/statistics/masked_spectrum.hpp"
#include "umbriel/statistics/starlet.hpp"

namespace umbriel {
namespace {

/// What stats.measure may name.
const std::vector<std::string> measures = {"power_spectrum", "bispectrum", "pdf",    "peaks",
                                           "minima",         "minkowski",  "starlet"};

/// Bins of values are in units of the map's standard deviation, of its noise, or of nothing.
enum class Unit { sigma, noise, kappa };

struct Settings {
  std::string output;
  RunLimits limits;
  std::vector<std::string> maps, cross_maps;
  MapFolder::Options folder;
  double pixel_arcmin = 0;
  std::string mask;  // path; empty: none
  std::vector<std::string> measure;
  // In Fourier space
  double apodisation_arcmin = 0;
  Apodisation apodisation = Apodisation::c2;
  std::vector<double> edges;  // empty: bands of one width, or logarithmic ones
  double band_width = 0;      // 0: logarithmic
  int bands = 0;
  std::vector<double> rings;  // edges; empty: eight of one width
  // In real space
  double smoothing_arcmin = 0;
  Border border = Border::open;
  Unit unit = Unit::sigma;
  double noise = 0;  // in a pixel of the maps as they are given
  std::optional<Bins> pdf, peaks, minima, minkowski, starlet;
  int starlet_scales = 0;

  bool measures(const std::string& name) const {
    return std::find(measure.begin(), measure.end(), name) != measure.end();
  }
};

std::vector<std::string> read_names(const Config& config, const std::string& key,
                                    const std::optional<std::vector<std::string>>& fallback = std::nullopt) {
  if (config.is_text(key)) return {config.text(key)};
  return config.texts(key, fallback);
}

/// The bins of a statistic that is measured, by default `bins` of one width from low to high, in units of sigma or of
/// noise.
std::optional<Bins> read_bins(const Config& config, const Settings& s, const std::string& statistic,
                              const std::string& key, double low, double high, int bins) {
  std::vector<double> edges;
  for (int b = 0; b <= bins; ++b) edges.push_back(low + (high - low) * b / bins);
  const bool given = config.has(key);
  edges = config.numbers(key, edges);
  if (!s.measures(statistic)) {
    require(!given, ExitCode::usage, "there are bins for what is not measured", config.where(key),
            "add \"" + statistic + "\" to stats.measure, or remove the bins");
    return std::nullopt;
  }
  require(given || s.unit != Unit::kappa, ExitCode::usage, "bins in units of convergence have no default",
          config.where(key), "give their edges, or stats.unit = \"sigma\"");
  return Bins(edges, config.where(key));
}

Settings read_settings(const Config& config) {
  Settings s;
  s.output = read_output(config);
  s.limits = read_run_limits(config);
  s.maps = read_names(config, "stats.maps");
  s.cross_maps = read_names(config, "stats.cross_maps", std::vector<std::string>{});
  for (std::string& path : s.maps) path = config.resolve_path(path);
  for (std::string& path : s.cross_maps) path = config.resolve_path(path);
  s.folder.dataset = config.text("stats.dataset", s.folder.dataset);
  s.pixel_arcmin = config.number("stats.pixel_arcmin", std::nullopt, 1e-4, 1e4);
  s.folder.patch_pixels = static_cast<int>(config.integer("stats.patch", 0, 0, 65536));
  s.folder.pixel_arcmin = s.pixel_arcmin;
  if (config.has("stats.mask")) s.mask = config.path("stats.mask");
  s.measure = read_names(config, "stats.measure", std::vector<std::string>{"power_spectrum"});
  std::string all;
  for (const std::string& name : measures) all += (all.empty() ? "" : ", ") + name;
  require(!s.measure.empty(), ExitCode::usage, "there is nothing to measure", config.where("stats.measure"),
          "name some of: " + all);
  for (const std::string& name : s.measure) {
    require(std::find(measures.begin(), measures.end(), name) != measures.end(), ExitCode::usage,
            "no statistic is called \"" + name + "\"", config.where("stats.measure"), "take some of: " + all);
  }

  s.apodisation_arcmin = config.number("stats.apodisation_arcmin", 0, 0, 1e4);
  const std::string apodisation = config.choice("stats.apodisation", "c2", {"c1", "c2", "smooth"});
  s.apodisation = apodisation == "c1" ? Apodisation::c1 : apodisation == "c2" ? Apodisation::c2 : Apodisation::smooth;
  require(s.cross_maps.empty() || s.measures("power_spectrum"), ExitCode::usage,
          "there are maps to cross, and no power spectrum is measured", config.where("stats.cross_maps"),
          "add \"power_spectrum\" to stats.measure, or remove them");
  s.edges = config.numbers("stats.edges", std::vector<double>{});
  s.band_width = config.number("stats.band_width", 0, 0, 1e6);
  require((s.band_width > 0) + !s.edges.empty() + config.has("stats.bands") <= 1, ExitCode::usage,
          "the bands are given in two ways", config.where(s.band_width > 0 ? "stats.band_width" : "stats.bands"),
          "give one of stats.edges, stats.band_width and stats.bands");
  s.bands = static_cast<int>(config.integer("stats.bands", 15, 1, 10000));

  s.rings = config.numbers("stats.bispectrum_edges", std::vector<double>{});
  require(s.rings.empty() || s.measures("bispectrum"), ExitCode::usage, "there are bins for what is not measured",
          config.where("stats.bispectrum_edges"), "add \"bispectrum\" to stats.measure, or remove the bins");

  s.smoothing_arcmin = config.number("stats.smoothing_arcmin", 0, 0, 1e6);
  s.border = config.choice("stats.border", "open", {"open", "periodic"}) == "open" ? Border::open : Border::periodic;
  const std::string unit = config.choice("stats.unit", "sigma", {"sigma", "noise", "kappa"});
  s.unit = unit == "sigma" ? Unit::sigma : unit == "noise" ? Unit::noise : Unit::kappa;
  s.noise = config.number("stats.noise", 0, 0, 1e300);
  require((s.noise > 0) == (s.unit == Unit::noise), ExitCode::usage,
          s.noise > 0 ? "there is noise, and bins are not in units of it" : "bins are in units of a noise of 0",
          config.where("stats.noise"),
          s.noise > 0 ? "give stats.unit = \"noise\", or remove it"
                      : "give the standard deviation of the noise in a pixel of the maps");
  s.pdf = read_bins(config, s, "pdf", "stats.pdf_edges", -2, 4, 20);
  s.peaks = read_bins(config, s, "peaks", "stats.peak_edges", -2, 6, 16);
  s.minima = read_bins(config, s, "minima", "stats.minimum_edges", -6, 2, 16);
  s.minkowski = read_bins(config, s, "minkowski", "stats.minkowski_edges", -3, 4, 28);
  s.starlet = read_bins(config, s, "starlet", "stats.starlet_edges", -4, 6, 20);
  s.starlet_scales = static_cast<int>(config.integer("stats.starlet_scales", 5, 1, 30));
  config.reject_unknown_keys();
  return s;
}

/// Edges of bands of one width, as many as end by the highest multipole along an axis; the first lacks multipole 0.
std::vector<double> even_edges(Grid grid, double pixel_arcmin, double width) {
  const double lowest = std::min(multipole(grid, pixel_arcmin, 1, 0), multipole(grid, pixel_arcmin, 0, 1));
  const double highest = 180 * 60 / pixel_arcmin;
  require(width > lowest && width <= highest, ExitCode::usage,
          "bands of that width hold no modes, or there is not one of them", "stats.band_width",
          "give one above " + std::to_string(lowest) + " and up to " + std::to_string(highest));
  std::vector<double> edges = {lowest / 2};
  for (int band = 1; band * width <= highest * (1 + 1e-9); ++band) edges.push_back(band * width);
  return edges;
}

/// Weights [y, x] of a mask file. @throws Error(input) for one of another size, with NaN or infinity, or of zeros alone
std::vector<double> read_mask(const std::string& path, Grid grid) {
  std::vector<double> values;
  Grid found;
  if (path.ends_with(".npy")) {
    NpyArray array = read_npy(path);
    if (array.shape.size() == 2) found = {static_cast<int>(array.shape[0]), static_cast<int>(array.shape[1])};
    values = std::move(array.values);
  } else {
    FitsImage image = read_fits_image(path);
    if (image.planes == 1) found = {image.height, image.width};
    values = std::move(image.values);
  }
  require(found == grid, ExitCode::input, "the mask is no map of the maps' size", path,
          "give one of " + std::to_string(grid.width) + " x " + std::to_string(grid.height) + " pixels");
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto width = static_cast<std::size_t>(grid.width);
    require(std::isfinite(values[i]), ExitCode::input, "the mask is not finite",
            path + ", pixel y = " + std::to_string(i / width) + ", x = " + std::to_string(i % width),
            "give weights from 0 to 1");
  }
  require(std::any_of(values.begin(), values.end(), [](double value) { return value != 0; }), ExitCode::input,
          "the mask is empty: no pixel is observed", path, "give weights above 0 where observed");
  return values;
}

/// What maps are measured with, and a row of numbers a map for each dataset.
class Measurement {
 public:
  Measurement(const Settings& settings, Grid grid, const std::vector<double>& mask)
      : s_(settings), grid_(grid), footprint_(grid, mask, settings.border) {
    if (s_.measures("power_spectrum") || s_.measures("bispectrum")) prepare_fourier_space(mask);
    if (s_.pdf || s_.peaks || s_.minima || s_.minkowski || s_.starlet) prepare_real_space();
  }

  /// The datasets' numbers a map.
  std::uint64_t numbers() const {
    std::uint64_t sum = 0;
    for (const Dataset& dataset : datasets_) sum += dataset.size;
    return sum;
  }

  /// Adds the rows of the next map.
  /// @param other  the map it is crossed with, or null
  /// @param name   for messages
  void measure(const float* values, const float* other, const std::string& name) {
    std::vector<double> map(values, values + grid_.pixels());
    row_ = 0;
    if (spectrum_) add((*spectrum_)(map.data()));
    if (other != nullptr) add((*spectrum_)(map.data(), std::vector<double>(other, other + grid_.pixels()).data()));
    if (bispectrum_) {
      const Bispectrum::Triangles b = (*bispectrum_)(map.data());
      add(b.equilateral), add(b.squeezed);
    }
    if (real_space_) measure_in_real_space(map.data(), name);
  }

  /// Writes axes and datasets of n maps, of which this rank has `shard`.
  void write(ResultFile& result, std::uint64_t n, const ShardRange& shard) const {
    Hdf5Writer& hdf5 = result.hdf5();
    result.write_index_axis("map", n, "index of the map");
    if (spectrum_) {
      hdf5.write_axis("band", spectrum_->centres(), "1", "mean multipole of the band");
      write_along(hdf5, "band", "low", "lowest multipole of the band", edges_.data(), edges_.size() - 1);
      write_along(hdf5, "band", "high", "multipole above the band", edges_.data() + 1, edges_.size() - 1);
      write_along(hdf5, "band", "modes", "modes of the full plane in the band", spectrum_->modes().data(),
                  edges_.size() - 1);
      const MaskedSpectrum::Windows windows = spectrum_->windows();
      const std::size_t rings = windows.multipoles.size();
      hdf5.write_axis("multipole", windows.multipoles, "1", "mean multipole of a narrow ring of modes");
      write_along(hdf5, "multipole", "low", "lowest multipole of the ring", windows.low.data(), rings);
      write_along(hdf5, "multipole", "high", "multipole above the ring", windows.high.data(), rings);
      hdf5.write<double>({"/statistics/bandpower_window",
                          {"band", "multipole"},
                          "1",
                          "the expected power of a band is the sum over multipoles of window times C_l"},
                         {edges_.size() - 1, rings}, windows.window.data());
    }
    if (bispectrum_) {
      const auto rings = static_cast<std::size_t>(bispectrum_->rings());
      hdf5.write_axis("ring", bispectrum_->centres(), "1", "mean multipole of the bispectrum's ring");
      write_along(hdf5, "ring", "low", "lowest multipole of the ring", s_.rings.data(), rings);
      write_along(hdf5, "ring", "high", "multipole above the ring", s_.rings.data() + 1, rings);
      write_along(hdf5, "ring", "equilateral_triangles", "ordered triangles of three modes in the ring",
                  bispectrum_->counts().equilateral.data(), rings);
      write_along(hdf5, "ring", "squeezed_triangles",
                  "ordered triangles of two modes in the ring and one in the first ring",
                  bispectrum_->counts().squeezed.data(), rings);
    }
    const std::string unit = s_.unit == Unit::kappa   ? "of the map's value"
                             : s_.unit == Unit::sigma ? "of the map's value over its standard deviation"
                                                      : "of the map's value over the standard deviation of its noise";
    write_bins(hdf5, s_.pdf, "pdf_bin", unit);
    write_bins(hdf5, s_.peaks, "peak_bin", unit);
    write_bins(hdf5, s_.minima, "minimum_bin", unit);
    write_bins(hdf5, s_.minkowski, "minkowski_bin", unit);
    if (starlet_) write_starlet_axis(result);
    for (const Dataset& dataset : datasets_) {
      std::vector<std::string> axes = {"map"};
      std::vector<std::uint64_t> shape = {n};
      if (!dataset.axis.empty()) axes.push_back(dataset.axis), shape.push_back(dataset.size);
      hdf5.write_sharded<double>({"/statistics/" + dataset.name, axes, dataset.units, dataset.words}, shape,
                                 static_cast<std::uint64_t>(shard.first), static_cast<std::uint64_t>(shard.count),
                                 dataset.rows.data());
    }
  }

 private:
  struct Dataset {
    std::string name, axis, units, words;  // no axis: one number a map
    std::uint64_t size;
    std::vector<double> rows;
  };

  void declare(const std::string& name, const std::string& axis, std::size_t size, const std::string& units,
               const std::string& words) {
    datasets_.push_back({name, axis, units, words, size, {}});
  }
  /// The next dataset's row: in the order in which they were declared.
  void add(const std::vector<double>& row) {
    Dataset& dataset = datasets_.at(row_++);
    require(row.size() == dataset.size, ExitCode::numerical, "a statistic has another length than it said",
            dataset.name, "report this as a fault of umbriel");
    dataset.rows.insert(dataset.rows.end(), row.begin(), row.end());
  }

  static void write_along(Hdf5Writer& hdf5, const std::string& axis, const std::string& name, const std::string& words,
                          const double* values, std::size_t n) {
    hdf5.write<double>({"/statistics/" + axis + "_" + name, {axis}, "1", words}, {n}, values);
  }
  static void write_bins(Hdf5Writer& hdf5, const std::optional<Bins>& bins, const std::string& axis,
                         const std::string& unit) {
    if (!bins) return;
    hdf5.write_axis(axis, bins->centres(), "1", "middle of the bin " + unit);
    write_along(hdf5, axis, "low", "lowest value of the bin", bins->edges().data(), bins->size());
    write_along(hdf5, axis, "high", "value above the bin", bins->edges().data() + 1, bins->size());
  }

  /// Bins of one plane after those of the one before: rows stay vectors, which `covariance` reads.
  void write_starlet_axis(ResultFile& result) const {
    std::vector<double> plane, scale, low, high;
    for (int p = 0; p < starlet_->planes(); ++p) {
      for (std::size_t b = 0; b < s_.starlet->size(); ++b) {
        plane.push_back(p + 1);
        scale.push_back(std::ldexp(s_.pixel_arcmin, std::min(p + 1, s_.starlet_scales)));
        low.push_back(s_.starlet->edges()[b]);
        high.push_back(s_.starlet->edges()[b + 1]);
      }
    }
    result.write_index_axis("starlet_bin", plane.size(), "index of the bin, those of the finest scale first");
    Hdf5Writer& hdf5 = result.hdf5();
    write_along(hdf5, "starlet_bin", "plane", "wavelet scale from 1 on; the last is what is left, the smoothed map",
                plane.data(), plane.size());
    hdf5.write<double>({"/statistics/starlet_bin_scale", {"starlet_bin"}, "arcmin", "2^scale pixels"}, {plane.size()},
                       scale.data());
    write_along(hdf5, "starlet_bin", "low", "lowest value of the bin", low.data(), plane.size());
    write_along(hdf5, "starlet_bin", "high", "value above the bin", high.data(), plane.size());
  }

  void prepare_fourier_space(std::vector<double> mask) {
    const double radians = std::numbers::pi / 180 / 60;
    const FlatSky sky{grid_, s_.pixel_arcmin * radians, s_.pixel_arcmin * radians};
    if (s_.apodisation_arcmin > 0 && s_.mask.empty()) {  // it rises from the map's edge
      const auto height = static_cast<std::size_t>(grid_.height), width = static_cast<std::size_t>(grid_.width);
      for (std::size_t y = 0; y < height; ++y) mask[y * width] = mask[y * width + width - 1] = 0;
      for (std::size_t x = 0; x < width; ++x) mask[x] = mask[(height - 1) * width + x] = 0;
    }
    if (s_.apodisation_arcmin > 0) mask = apodise(sky, mask, s_.apodisation_arcmin * radians, s_.apodisation);
    if (s_.measures("power_spectrum")) {
      edges_ = !s_.edges.empty()   ? s_.edges
               : s_.band_width > 0 ? even_edges(grid_, s_.pixel_arcmin, s_.band_width)
                                   : logarithmic_edges(grid_, s_.pixel_arcmin, s_.bands);
      spectrum_ = std::make_unique<MaskedSpectrum>(sky, mask, edges_);
      declare("power_spectrum", "band", edges_.size() - 1, "sr", "C_l, the mask's coupling taken out");
      if (!s_.cross_maps.empty())
        declare("cross_power_spectrum", "band", edges_.size() - 1, "sr",
                "C_l of map and cross map, the mask's coupling taken out");
    }
    if (s_.measures("bispectrum")) {
      if (s_.rings.empty()) {
        const double highest = highest_bispectrum_multipole(sky);
        const double lowest =
            0.5 * std::min(multipole(grid_, s_.pixel_arcmin, 1, 0), multipole(grid_, s_.pixel_arcmin, 0, 1));
        for (int r = 0; r <= 8; ++r) s_.rings.push_back(lowest + (highest - lowest) * r / 8);
      }
      bispectrum_ = std::make_unique<Bispectrum>(sky, mask, s_.rings);
      declare("bispectrum_equilateral", "ring", s_.rings.size() - 1, "sr2",
              "B of triangles with their modes in one ring, for the mask's mean cube");
      declare("bispectrum_squeezed", "ring", s_.rings.size() - 1, "sr2",
              "B of triangles with two modes in the ring and one in the first, for the mask's mean cube");
    }
  }

  void prepare_real_space() {
    real_space_ = true;
    noise_ = s_.noise;
    if (s_.smoothing_arcmin > 0) {
      const double sigma = s_.smoothing_arcmin / s_.pixel_arcmin;
      require(sigma <= std::min(grid_.height, grid_.width), ExitCode::usage,
              "the maps are smaller than the Gaussian that smooths them", "stats.smoothing_arcmin",
              "smooth by less than " + std::to_string(std::min(grid_.height, grid_.width) * s_.pixel_arcmin) +
                  " arcminutes");
      smoothing_ = std::make_unique<GaussianSmoothing>(footprint_, sigma);
      noise_ *= smoothed_noise(sigma);
    }
    declare("standard_deviation", "", 1, "1", "standard deviation of the map, smoothed if so, in its observed pixels");
    if (s_.pdf)
      declare("pdf", "pdf_bin", s_.pdf->size(), "1", "share of the observed pixels in the bin over its width");
    if (s_.peaks)
      declare("peaks", "peak_bin", s_.peaks->size(), "1", "number of pixels above all eight neighbours, by height");
    if (s_.minima)
      declare("minima", "minimum_bin", s_.minima->size(), "1", "number of pixels below all eight neighbours, by depth");
    if (s_.minkowski) {
      const auto size = s_.minkowski->size();
      declare("minkowski_v0", "minkowski_bin", size, "1", "area above the bin's middle over the area of the map");
      declare("minkowski_v1", "minkowski_bin", size, "arcmin-1",
              "a quarter of the boundary's length over the area of the map");
      declare("minkowski_v2", "minkowski_bin", size, "arcmin-2",
              "the boundary's curvature over 2 pi and the area of the map");
    }
    if (s_.starlet) {
      starlet_ = std::make_unique<Starlet>(footprint_, s_.starlet_scales);
      for (const double gain : starlet_noise(s_.starlet_scales, s_.smoothing_arcmin / s_.pixel_arcmin))
        starlet_noise_.push_back(s_.noise * gain);
      const std::size_t size = s_.starlet->size() * static_cast<std::size_t>(starlet_->planes());
      declare("starlet_peaks", "starlet_bin", size, "1",
              "number of coefficients above all eight neighbours, by height");
      declare("starlet_l1", "starlet_bin", size, "1", "sum of the absolute values of the coefficients in the bin");
    }
  }

  void measure_in_real_space(double* map, const std::string& name) {
    if (smoothing_) (*smoothing_)(map);
    const double sigma = standard_deviation(footprint_, map);
    require(sigma > 0 || s_.unit != Unit::sigma, ExitCode::input,
            "the map is constant, and bins are in units of its standard deviation", name,
            "leave it out, or give stats.unit = \"kappa\"");
    const double unit = s_.unit == Unit::sigma ? sigma : s_.unit == Unit::noise ? noise_ : 1;
    add({sigma});
    if (s_.pdf) add(pixel_density(footprint_, map, *s_.pdf, unit));
    if (s_.peaks) add(peak_counts(footprint_, map, *s_.peaks, unit));
    if (s_.minima) add(minimum_counts(footprint_, map, *s_.minima, unit));
    if (s_.minkowski) {
      const MinkowskiFunctionals v = minkowski_functionals(footprint_, map, *s_.minkowski, unit, s_.pixel_arcmin);
      add(v.v0), add(v.v1), add(v.v2);
    }
    if (s_.starlet) {
      const std::vector<double>& planes = starlet_->transform(map);
      std::vector<double> peaks, norms;
      for (std::size_t p = 0; p < starlet_noise_.size(); ++p) {
        const double* plane = planes.data() + p * footprint_.observed.size();
        const double scale = s_.unit == Unit::sigma   ? standard_deviation(footprint_, plane)
                             : s_.unit == Unit::noise ? starlet_noise_[p]
                                                      : 1;
        const std::vector<double> counts = peak_counts(footprint_, plane, *s_.starlet, scale),
                                  sums = l1_norm(footprint_, plane, *s_.starlet, scale);
        peaks.insert(peaks.end(), counts.begin(), counts.end());
        norms.insert(norms.end(), sums.begin(), sums.end());
      }
      add(peaks), add(norms);
    }
  }

  Settings s_;
  Grid grid_;
  Footprint footprint_;
  std::vector<double> edges_;  // of the bands
  std::unique_ptr<MaskedSpectrum> spectrum_;
  std::unique_ptr<Bispectrum> bispectrum_;
  bool real_space_ = false;
  std::unique_ptr<GaussianSmoothing> smoothing_;
  std::unique_ptr<Starlet> starlet_;
  double noise_ = 0;                   // of the smoothed map
  std::vector<double> starlet_noise_;  // of each plane
  std::vector<Dataset> datasets_;
  std::size_t row_ = 0;
};

}  // namespace

ExitCode run_stats(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  Settings s;
  comm.together([&] { s = read_settings(line.config); });
  MapFolder maps(comm, s.maps, s.folder);
  std::optional<MapFolder> cross;
  if (!s.cross_maps.empty()) cross.emplace(comm, s.cross_maps, s.folder);
  const Grid grid = maps.grid(0);
  std::unique_ptr<Measurement> measurement;
  std::vector<InputRecord> inputs;
  comm.together([&] {
    for (const MapFolder* folder : {&maps, cross ? &*cross : nullptr}) {
      if (folder == nullptr) continue;
      for (std::int64_t i = 0; i < folder->size(); ++i) {
        require(folder->grid(i) == grid, ExitCode::input, "the maps differ in size", folder->name(i),
                "give maps of " + std::to_string(grid.width) + " x " + std::to_string(grid.height) + " pixels");
      }
      for (const InputFile& input : folder->inputs()) inputs.push_back({input.path, input.sha256});
    }
    require(!cross || cross->size() == maps.size(), ExitCode::input,
            "there are " + std::to_string(maps.size()) + " maps and " + std::to_string(cross ? cross->size() : 0) +
                " to cross them with",
            line.config.where("stats.cross_maps"), "give as many of one as of the other, in the same order");
    std::vector<double> mask(static_cast<std::size_t>(grid.pixels()), 1.0);
    if (!s.mask.empty()) {
      mask = read_mask(s.mask, grid);
      inputs.push_back({s.mask, sha256_of_file(s.mask)});
    }
    measurement = std::make_unique<Measurement>(s, grid, mask);
  });
  const auto n = static_cast<std::uint64_t>(maps.size());
  const double bytes = static_cast<double>(n * measurement->numbers() * sizeof(double));
  if (line.dry_run) {
    print_dry_run(line, {std::to_string(n) + " maps, " + std::to_string(measurement->numbers()) + " numbers each",
                         "disk: " + human_bytes(bytes)});
    return ExitCode::done;
  }
  const Job job(comm, s.output, s.limits, bytes, false);
  comm.together([&] { log::start(comm.rank(), s.output + ".log.jsonl"); });

  const ShardRange shard = shard_range(maps.size(), comm.rank(), comm.size());
  {
    Progress progress(comm, "measuring", maps.size(), "maps");
    comm.together([&] {
      for (const std::int64_t i : indices_of(shard)) {
        const std::shared_ptr<const float> map = maps.read(i), other = cross ? cross->read(i) : nullptr;
        measurement->measure(map.get(), other.get(), maps.name(i));
        progress.add(1);
        report_alive();
      }
    });
  }
  ResultFile result(s.output, comm, "stats");
  measurement->write(result, n, shard);
  result.write_provenance(line.config, 0, inputs, watch.seconds());
  result.commit();
  log::info("wrote " + s.output);
  return ExitCode::done;
}

}  // namespace umbriel
