// Statistics of maps, `umbriel stats`: medians and quartiles over the maps of each file, all files in one plot.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include <fmt/format.h>

#include "umbriel/core/check.hpp"
#include "umbriel/report/parts.hpp"
#include "umbriel/report/svg.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

/// A dataset [map, bin] that a page can show, and how. Ratios suit what spans orders of magnitude, differences what
/// passes through 0.
struct Statistic {
  const char *name, *axis, *x_label, *y_label, *title;
  bool logarithmic_x, logarithmic_y, ratio;
};

constexpr Statistic known[] = {
    {"pdf", "pdf_bin", "value", "density", "One-point density", false, false, false},
    {"power_spectrum", "band", "multipole", "C_l [sr]", "Power spectrum", true, true, true},
    {"cross_power_spectrum", "band", "multipole", "C_l [sr]", "Cross spectrum", true, true, true},
    {"minkowski_v0", "minkowski_bin", "threshold", "area", "Minkowski V0", false, false, false},
    {"minkowski_v1", "minkowski_bin", "threshold", "boundary [1/arcmin]", "Minkowski V1", false, false, false},
    {"minkowski_v2", "minkowski_bin", "threshold", "Euler characteristic [1/arcmin²]", "Minkowski V2", false, false,
     false},
    {"peaks", "peak_bin", "height", "peaks", "Peaks", false, false, false},
    {"minima", "minimum_bin", "depth", "minima", "Minima", false, false, false},
    {"starlet_peaks", "starlet_bin", "bin, finest scale first", "peaks", "Starlet peaks", false, false, false},
    {"starlet_l1", "starlet_bin", "bin, finest scale first", "sum of |coefficient|", "Starlet l1-norm", false, false,
     false},
    {"bispectrum_equilateral", "ring", "multipole", "B [sr²]", "Equilateral bispectrum", true, true, true},
    {"bispectrum_squeezed", "ring", "multipole", "B [sr²]", "Squeezed bispectrum", true, true, true},
};

/// The first is what the others are compared with.
constexpr const char* colours[] = {"truth", "posterior", "wiener", "direct", "prior", "warn"};
constexpr std::size_t most_files = std::size(colours), most_bins = 4096;

std::string path_in_file(const Statistic& statistic) { return std::string("/statistics/") + statistic.name; }

bool has_statistic(const Hdf5Reader& file, const Statistic& statistic) {
  const std::string name = path_in_file(statistic), axis = std::string("/") + statistic.axis;
  if (!file.has(name) || !file.has(axis)) return false;
  const auto shape = file.shape(name), bins = file.shape(axis);
  return shape.size() == 2 && shape[0] > 0 && shape[1] > 0 && shape[1] <= most_bins && bins.size() == 1 &&
         bins[0] == shape[1];
}

std::vector<double> bins_of(const Hdf5Reader& file, const Statistic& statistic) {
  return file.read<double>(std::string("/") + statistic.axis);
}

bool same_bins(const std::vector<double>& a, const std::vector<double>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return std::abs(x - y) <= 1e-9 * std::max(std::abs(x), std::abs(y)); });
}

/// Quartiles over the maps of a file, bin by bin.
struct Quartiles {
  std::vector<double> low, median, high;
};

Quartiles quartiles_of(const Hdf5Reader& file, const Statistic& statistic) {
  const std::vector<double> rows = file.read<double>(path_in_file(statistic));
  const std::size_t bins = file.shape(path_in_file(statistic))[1];
  Quartiles out;
  for (std::size_t b = 0; b < bins; ++b) {
    std::vector<double> values;
    for (std::size_t i = b; i < rows.size(); i += bins) {
      if (std::isfinite(rows[i])) values.push_back(rows[i]);
    }
    std::sort(values.begin(), values.end());
    const auto at = [&](double q) {  // linear between order statistics
      if (values.empty()) return std::nan("");
      const double place = q * double(values.size() - 1);
      const auto below = std::size_t(place);
      const std::size_t above = std::min(below + 1, values.size() - 1);
      return values[below] + (place - double(below)) * (values[above] - values[below]);
    };
    out.low.push_back(at(0.25)), out.median.push_back(at(0.5)), out.high.push_back(at(0.75));
  }
  return out;
}

/// Files by their names without folder and endings; by their paths where two have the same name.
std::vector<std::string> names_of(const std::vector<const Hdf5Reader*>& files) {
  std::vector<std::string> names;
  std::map<std::string, int> times;
  for (const Hdf5Reader* file : files) {
    std::string name = std::filesystem::path(file->path()).stem().string();
    for (const char* ending : {".stats", "_stats"}) {
      if (name.ends_with(ending) && name.size() > 6) name.resize(name.size() - 6);
    }
    ++times[name];
    names.push_back(name);
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (times[names[i]] > 1) names[i] = files[i]->path();
  }
  return names;
}

/// Values less, or over, those of another ensemble.
std::vector<double> against(const std::vector<double>& values, const std::vector<double>& other, bool ratio) {
  std::vector<double> out;
  for (std::size_t b = 0; b < values.size(); ++b) {
    out.push_back(!ratio ? values[b] - other[b] : other[b] > 0 ? values[b] / other[b] : std::nan(""));
  }
  return out;
}

/// The finite value furthest from 0 and its place.
std::pair<double, double> furthest(const std::vector<double>& x, const std::vector<double>& values) {
  std::pair<double, double> out{std::nan(""), std::nan("")};
  for (std::size_t b = 0; b < values.size(); ++b) {
    if (std::isfinite(values[b]) && !(std::abs(values[b]) <= std::abs(out.first))) out = {values[b], x[b]};
  }
  return out;
}

std::string lines_figure(const Statistic& s, const std::vector<double>& x, const std::vector<Quartiles>& all,
                         const std::vector<std::string>& names) {
  std::vector<double> values;
  for (const Quartiles& q : all) {
    for (const auto* list : {&q.low, &q.median, &q.high}) values.insert(values.end(), list->begin(), list->end());
  }
  Axis x_axis = axis_around(s.x_label, x, s.logarithmic_x);
  // Powers that come out at or below 0 behind a mask must not hide the others: six decades are enough.
  Axis y_axis = axis_around(s.y_label, values, s.logarithmic_y);
  if (s.logarithmic_y) y_axis.low = std::max(y_axis.low, 1e-6 * y_axis.high);
  Plot plot(x_axis, y_axis);
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::vector<double> low = all[i].low;
    for (double& value : low) {  // a band that goes below 0 goes on below the picture
      if (s.logarithmic_y && std::isfinite(value)) value = std::max(value, 1e-3 * y_axis.low);
    }
    plot.band(x, low, all[i].high, colours[i], 0.18);
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    plot.line(x, all[i].median, {colours[i], 1.8});
    plot.legend_line(names[i], {colours[i], 1.8});
  }
  std::string caption = "Median of the maps; half of them lie in the band.";
  if (!s.ratio) {
    const double height = std::abs(furthest(x, all[0].median).first);
    for (std::size_t i = 1; i < all.size(); ++i) {
      std::string three;
      for (const auto& [mine, other] :
           {std::pair{&all[i].low, &all[0].low}, {&all[i].median, &all[0].median}, {&all[i].high, &all[0].high}}) {
        if (!three.empty()) three += mine == &all[i].high ? " and " : ", ";
        three += number_text(std::abs(furthest(x, against(*mine, *other, false)).first), 2);
      }
      caption += fmt::format(" Largest differences of {} from {}: {} (quartiles, in order).", escape_html(names[i]),
                             escape_html(names[0]), three);
    }
    if (all.size() > 1)
      caption += fmt::format(" The median of {} is at most {} in size.", escape_html(names[0]), number_text(height, 2));
  }
  return figure(plot.svg(s.title), s.title, caption);
}

std::string comparison_figure(const Statistic& s, const std::vector<double>& x, const std::vector<Quartiles>& all,
                              const std::vector<std::string>& names) {
  const Quartiles& first = all[0];
  const std::vector<double> low = against(first.low, first.median, s.ratio),
                            high = against(first.high, first.median, s.ratio);
  std::vector<double> values = low;
  values.insert(values.end(), high.begin(), high.end());
  std::vector<std::vector<double>> medians;
  for (std::size_t i = 1; i < all.size(); ++i) {
    medians.push_back(against(all[i].median, first.median, s.ratio));
    values.insert(values.end(), medians.back().begin(), medians.back().end());
  }
  Axis y_axis = axis_around((s.ratio ? "over that of " : "less that of ") + names[0], values, s.ratio);
  if (s.ratio) y_axis.low = std::max(y_axis.low, 1e-4), y_axis.high = std::min(y_axis.high, 1e4);
  Plot plot(axis_around(s.x_label, x, s.logarithmic_x), y_axis);
  plot.band(x, low, high, colours[0], 0.14).horizontal(s.ratio ? 1 : 0, {colours[0], 1.2, 1, "5 4"});
  for (std::size_t i = 1; i < all.size(); ++i) {
    plot.line(x, medians[i - 1], {colours[i], 1.8});
    plot.legend_line(names[i], {colours[i], 1.8});
  }
  return figure(plot.svg(std::string(s.title) + ", compared"), std::string(s.title) + ", compared",
                fmt::format("Medians {} that of {}, in whose band half of its own maps lie.", s.ratio ? "over" : "less",
                            escape_html(names[0])));
}

}  // namespace

bool has_statistics(const Hdf5Reader& file) {
  return std::any_of(std::begin(known), std::end(known),
                     [&](const Statistic& statistic) { return has_statistic(file, statistic); });
}

Part statistics_part(const std::vector<const Hdf5Reader*>& files) {
  require(files.size() <= most_files, ExitCode::usage,
          fmt::format("{} files are more than a page can tell apart", files.size()), "umbriel report",
          fmt::format("give at most {}", most_files));
  const std::vector<std::string> names = names_of(files);
  Part part;
  part.title = "Statistics of maps";
  part.lead =
      "Each statistic was measured in every map. Lines are medians over the maps of a file, and bands hold the "
      "middle half of them.";
  for (std::size_t i = 0; i < files.size(); ++i) {
    const bool counted = files[i]->has("/map") && files[i]->shape("/map").size() == 1;
    part.key_figures.push_back({number_text(counted ? double(files[i]->shape("/map")[0]) : std::nan(""), 9),
                                "maps of " + escape_html(names[i])});
  }
  std::vector<std::string> alone;  // figures of a single file share one section
  std::string left_out;
  for (const Statistic& statistic : known) {
    const auto having = std::count_if(files.begin(), files.end(),
                                      [&](const Hdf5Reader* file) { return has_statistic(*file, statistic); });
    if (having < std::ptrdiff_t(files.size())) {
      if (having > 0) left_out += (left_out.empty() ? "" : ", ") + std::string(statistic.title);
      continue;
    }
    const std::vector<double> x = bins_of(*files[0], statistic);
    std::vector<Quartiles> all;
    for (const Hdf5Reader* file : files) {
      require(same_bins(bins_of(*file, statistic), x), ExitCode::input,
              fmt::format("the bins of {} are not those of {}", statistic.name, files[0]->path()),
              file->path() + ": /" + statistic.axis, "measure all maps with the same [stats] keys");
      all.push_back(quartiles_of(*file, statistic));
    }
    alone.push_back(lines_figure(statistic, x, all, names));
    if (files.size() > 1) {
      part.sections.push_back(
          {statistic.name, statistic.title, figures({alone.back(), comparison_figure(statistic, x, all, names)}, 2)});
    }
  }
  require(!alone.empty(), ExitCode::input, "the files have no statistic in common", files.back()->path(),
          "measure all maps with the same [stats] keys");
  if (files.size() == 1) part.sections.push_back({"statistics", "Statistics", figures(alone, 2)});
  if (!left_out.empty()) part.lead += fmt::format(" Not in all files, and left out: {}.", left_out);
  return part;
}

}  // namespace umbriel::report
