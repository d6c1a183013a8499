// Patches and what an autoencoder makes of them: reconstructions, ways between two, filled holes, and new ones.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "umbriel/core/check.hpp"
#include "umbriel/report/map_picture.hpp"
#include "umbriel/report/parts.hpp"
#include "umbriel/report/svg.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

constexpr double full_width = 1060, half_width = 520;  // of figures, in units of which text is 12 high
const char* const unit_label = "in units of the patch\u2019s deviation";

/// Whether `name` holds maps [n, y, x], at least one of at least one pixel.
bool has_maps(const Hdf5Reader& file, const std::string& name) {
  if (!file.has(name)) return false;
  const auto shape = file.shape(name);
  return shape.size() == 3 && shape[0] > 0 && shape[1] > 0 && shape[2] > 0;
}

Field field_of_maps(const Hdf5Reader& file, const std::string& name) {
  const auto shape = file.shape(name);
  return field_of(file, shape[1], shape[2]);
}

/// Colours from the faintest to the brightest pixels of all maps but the most extreme half per cent.
Look common_look(const Field& field, const std::vector<Map>& maps, const std::string& label) {
  std::vector<float> all;
  for (const Map& map : maps) {
    const auto values = finite_values(field, map, false);
    all.insert(all.end(), values.begin(), values.end());
  }
  if (all.empty()) return {&Colormap::umbra(), 0, 1, label};
  const double low = quantile(all, 0.005), high = quantile(all, 0.995);
  return {&Colormap::umbra(), low, high > low ? high : low + 1, label};
}

/// "8.0° × 8.0°"; nothing where the size of pixels is not known.
std::string size_words(const Field& field) {
  if (!(field.pixel_arcmin > 0)) return "";
  const auto degrees = [&](std::size_t n) { return number_text(double(n) * field.pixel_arcmin / 60, 3) + "\u00b0"; };
  return degrees(field.columns) + "\u2009\u00d7\u2009" + degrees(field.rows);
}

std::string pixels_words(const Field& field) {
  const std::string size = size_words(field);
  return fmt::format("{}\u2009\u00d7\u2009{} pixels{}", field.columns, field.rows, size.empty() ? "" : ", " + size);
}

/// Outlines of every size, unlike those of surveys: a hole is what the picture is about.
std::string outline(const Map& mask, const Field& field) {
  std::vector<std::uint8_t> observed;
  for (const float m : mask) observed.push_back(m > 0.5f);
  const std::string path = edge_path(observed, field.rows, field.columns);
  return path.empty() ? ""
                      : fmt::format("<path class=\"edge-shade\" d=\"{0}\"/><path class=\"edge\" d=\"{0}\"/>", path);
}

double correlation(const Map& a, const Map& b) {
  double aa = 0, bb = 0, ab = 0, mean_a = 0, mean_b = 0;
  const double n = double(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) mean_a += double(a[i]) / n, mean_b += double(b[i]) / n;
  for (std::size_t i = 0; i < a.size(); ++i) {
    aa += (double(a[i]) - mean_a) * (double(a[i]) - mean_a);
    bb += (double(b[i]) - mean_b) * (double(b[i]) - mean_b);
    ab += (double(a[i]) - mean_a) * (double(b[i]) - mean_b);
  }
  return ab / std::sqrt(aa * bb);
}

/// Of the finite values; NaN for none.
double quantile_of(const std::vector<double>& values, double q) {
  std::vector<float> finite;
  for (const double v : values) {
    if (std::isfinite(v)) finite.push_back(float(v));
  }
  return quantile(std::move(finite), q);
}

std::string rmse_histogram(const std::vector<double>& rmse) {
  const double low = extreme_of(rmse, false), high = extreme_of(rmse, true);
  constexpr std::size_t bins = 20;
  std::vector<double> edges, counts(bins, 0);
  for (std::size_t b = 0; b <= bins; ++b) edges.push_back(low + (high - low) * double(b) / bins);
  for (const double v : rmse) {
    if (std::isfinite(v)) ++counts[std::min(bins - 1, std::size_t((v - low) / (high - low) * bins))];
  }
  Plot plot({"root mean square of the residual", low, high, false},
            {"patches", 0, 1.05 * extreme_of(counts, true), false});
  plot.bars(edges, counts, "posterior");
  return figure(
      plot.svg("Histogram of the residuals' root mean square"), "Residuals",
      fmt::format("Root mean square of each patch\u2019s residual {}: half of them lie between {} and {}.", unit_label,
                  fixed_text(quantile_of(rmse, 0.25), 3), fixed_text(quantile_of(rmse, 0.75), 3)));
}

}  // namespace

bool has_reconstructions(const Hdf5Reader& file) { return has_maps(file, "/reconstruction/mean"); }

Part reconstruction_part(const Hdf5Reader& file) {
  constexpr std::size_t most_shown = 6;
  const Field field = field_of_maps(file, "/reconstruction/mean");
  const std::size_t n = file.shape("/reconstruction/mean")[0];
  const std::vector<double> rmse = values_or_none(file, "/reconstruction/rmse"),
                            number = values_or_none(file, "/reconstruction/map");
  Part part;
  part.title = "Reconstructed patches";
  part.lead = fmt::format(
      "Each patch was written as a few numbers and decoded again. What is missing from a reconstruction, the "
      "autoencoder does not know of: small scales first. {}.",
      pixels_words(field));
  part.key_figures.push_back({number_text(double(n), 6), n == 1 ? "patch" : "patches"});
  if (!rmse.empty())
    part.key_figures.push_back({fixed_text(quantile_of(rmse, 0.5), 3),
                                fmt::format("median root mean square of the residual, {}", unit_label)});
  if (file.has("/reconstruction/latent_mean") && file.shape("/reconstruction/latent_mean").size() == 2)
    part.key_figures.push_back(
        {number_text(double(file.shape("/reconstruction/latent_mean")[1]), 6), "latent variables"});

  // From the best patch to the worst, evenly; in the file's order where it does not say which are good.
  std::vector<std::size_t> order;
  if (rmse.size() == n) {
    order.resize(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return std::isfinite(rmse[a]) && (!std::isfinite(rmse[b]) || rmse[a] < rmse[b]);
    });
  }
  const std::size_t shown = std::min(most_shown, n);
  std::vector<std::size_t> chosen;
  std::vector<Map> inputs, means, residuals, both;
  for (std::size_t i = 0; i < shown; ++i) {
    const std::size_t place = shown == 1 ? 0 : i * (n - 1) / (shown - 1);
    chosen.push_back(order.empty() ? place : order[place]);
    const auto item = std::int64_t(chosen.back());
    means.push_back(read_map(file, field, "/reconstruction/mean", item));
    inputs.push_back(read_map(file, field, "/reconstruction/input", item));
    residuals.push_back(read_map(file, field, "/reconstruction/residual", item));
    both.insert(both.end(), {inputs.back(), means.back()});
  }
  const Look look = common_look(field, both, "");
  double range = 0;
  for (const Map& residual : residuals) {
    if (!residual.empty()) range = std::max(range, symmetric_range(field, {&residual}));
  }
  std::vector<std::string> all;
  for (std::size_t i = 0; i < shown; ++i) {
    std::vector<Panel> panels;
    if (!inputs[i].empty()) panels.push_back({inputs[i], look, "patch"});
    panels.push_back({means[i], look, "reconstruction"});
    if (!residuals[i].empty()) panels.push_back({residuals[i], {&Colormap::dusk(), -range, range, ""}, "residual"});
    std::string caption;
    if (chosen[i] < rmse.size()) caption += fmt::format("Residual {}", fixed_text(rmse[chosen[i]], 3));
    if (!inputs[i].empty())
      caption += fmt::format("{}orrelation {}", caption.empty() ? "C" : ", c",
                             fixed_text(correlation(inputs[i], means[i]), 3));
    const double map = chosen[i] < number.size() ? number[chosen[i]] : double(chosen[i]);
    all.push_back(panels_figure(field, panels, panels.size(), half_width, "patch " + number_text(map, 9),
                                caption.empty() ? "" : caption + "."));
  }
  part.sections.push_back(
      {"patches", order.empty() ? "Some of them" : "From the best to the worst",
       fmt::format("<p>All {}. Residuals are the patch less its reconstruction.</p>\n", unit_label) + figures(all, 2)});
  const double width = extreme_of(rmse, true) - extreme_of(rmse, false);
  if (width > 0 && std::isfinite(width))
    part.sections.push_back({"residuals", "All patches", figures({rmse_histogram(rmse)}, 2)});
  return part;
}

bool has_interpolation(const Hdf5Reader& file) { return has_maps(file, "/interpolation/map"); }

Part interpolation_part(const Hdf5Reader& file) {
  constexpr std::size_t most_ways = 8, most_points = 10;
  const Field field = field_of_maps(file, "/interpolation/map");
  const std::size_t n = file.shape("/interpolation/map")[0];
  const std::vector<double> fraction = values_or_none(file, "/interpolation/fraction"),
                            from = values_or_none(file, "/interpolation/from"),
                            to = values_or_none(file, "/interpolation/to"),
                            angle = values_or_none(file, "/interpolation/angle");
  // A way ends where the next one starts from 0 again.
  std::vector<std::size_t> starts = {0};
  for (std::size_t i = 1; i < n && i < fraction.size(); ++i) {
    if (!(fraction[i] > fraction[i - 1])) starts.push_back(i);
  }
  const std::size_t ways = starts.size();
  starts.push_back(n);

  Part part;
  part.title = "From patch to patch";
  part.lead = fmt::format("Decoded patches on the way from one to another along an arc of the latent space. {}, {}.",
                          pixels_words(field), unit_label);
  part.key_figures.push_back({number_text(double(ways), 6), ways == 1 ? "way" : "ways"});
  part.key_figures.push_back({number_text(double(n), 6), "patches in all"});
  std::vector<std::string> all;
  for (std::size_t way = 0; way < std::min(ways, most_ways); ++way) {
    const std::size_t first = starts[way], length = starts[way + 1] - first, shown = std::min(length, most_points);
    std::vector<Map> maps;
    std::vector<std::string> titles;
    for (std::size_t i = 0; i < shown; ++i) {
      const std::size_t at = first + (shown == 1 ? 0 : i * (length - 1) / (shown - 1));
      maps.push_back(read_map(file, field, "/interpolation/map", std::int64_t(at)));
      titles.push_back(at < fraction.size() ? fixed_text(fraction[at], 2) : std::to_string(at - first));
    }
    const Look look = common_look(field, maps, "");
    std::vector<Panel> panels;
    for (std::size_t i = 0; i < shown; ++i) panels.push_back({maps[i], look, titles[i]});
    const bool named = first < from.size() && first < to.size();
    all.push_back(panels_figure(
        field, panels, shown, full_width,
        named ? fmt::format("from patch {} to patch {}", number_text(from[first], 9), number_text(to[first], 9))
              : fmt::format("way {}", way + 1),
        first < angle.size() ? fmt::format("Their latent vectors are {}\u00b0 apart.", number_text(angle[first], 3))
                             : ""));
  }
  std::string html = figures(all, 1);
  if (ways > most_ways)
    html += fmt::format("<p class=\"note\">The first {} of {} ways.</p>\n", most_ways, number_text(double(ways), 6));
  part.sections.push_back({"ways", ways == 1 ? "The way" : "The ways", html});
  return part;
}

bool has_new_patches(const Hdf5Reader& file) { return has_maps(file, "/generated/dust"); }

Part new_patches_part(const Hdf5Reader& file) {
  constexpr std::size_t most_shown = 24, per_row = 6;
  const Field field = field_of_maps(file, "/generated/dust");
  const std::size_t n = file.shape("/generated/dust")[0], shown = std::min(most_shown, n);
  std::vector<Map> maps;
  for (std::size_t i = 0; i < shown; ++i) maps.push_back(read_map(file, field, "/generated/dust", std::int64_t(i)));
  const Look look = common_look(field, maps, "");
  std::vector<Panel> panels;
  for (std::size_t i = 0; i < shown; ++i) panels.push_back({maps[i], look, std::to_string(i)});
  Part part;
  part.title = "New patches";
  part.lead = fmt::format(
      "Patches that a model drew. Compare their statistics with those of real ones: <code>umbriel stats</code> of "
      "both, "
      "and <code>umbriel report</code> of the two files together. {}.",
      pixels_words(field));
  part.key_figures.push_back({number_text(double(n), 6), n == 1 ? "patch" : "patches"});
  part.sections.push_back({"patches", shown < n ? "The first of them" : "All of them",
                           panels_figure(field, panels, std::min(per_row, shown), full_width, "patches",
                                         fmt::format("By their number in the file, {}.", unit_label))});
  return part;
}

bool has_inpainting(const Hdf5Reader& file) {
  for (const char* name : {"/data/map", "/data/mask", "/summary/mean"}) {
    if (!file.has(name) || file.shape(name).size() != 2) return false;
  }
  const auto shape = file.shape("/summary/mean");
  return shape[0] > 0 && shape[1] > 0;
}

namespace {

/// Everything about one filled patch; maps that the file lacks are empty.
struct Inpainting {
  Field field;
  Map given, mask, mean, deviation, maximum, diffusive, low, high;
  std::vector<Map> draws;
  std::vector<std::size_t> hidden;  // pixels
};

Inpainting read_inpainting(const Hdf5Reader& file) {
  constexpr std::size_t most_draws = 6;
  Inpainting in;
  const auto shape = file.shape("/summary/mean");
  in.field = field_of(file, shape[0], shape[1]);
  const auto read = [&](const char* name) { return read_map(file, in.field, name); };
  in.given = read("/data/map"), in.mask = read("/data/mask"), in.mean = read("/summary/mean");
  in.deviation = read("/summary/std"), in.low = read("/summary/quantile_05"), in.high = read("/summary/quantile_95");
  in.maximum = read("/reference/maximum"), in.diffusive = read("/reference/diffusive");
  for (std::size_t i = 0; i < in.mask.size(); ++i) {
    if (!(in.mask[i] > 0.5f)) in.hidden.push_back(i);
  }
  if (!file.has("/posterior/map")) return in;
  const auto samples = file.shape("/posterior/map");
  if (samples.size() != 4 || samples[1] == 0 || samples[2] != shape[0] || samples[3] != shape[1]) return in;
  // The last draw of chains that lie apart.
  const std::size_t shown = std::min<std::size_t>(most_draws, samples[0]), pixels = in.field.rows * in.field.columns;
  for (std::size_t i = 0; i < shown; ++i) {
    const std::vector<float> chain = file.read<float>("/posterior/map", i * samples[0] / shown, 1);
    in.draws.emplace_back(chain.end() - std::ptrdiff_t(pixels), chain.end());
  }
  return in;
}

/// Root mean square over the hidden pixels of a map less another, or of itself; NaN where something is missing.
double hidden_rms(const Inpainting& in, const Map& map, const Map& less) {
  if (map.empty() || in.hidden.empty()) return std::nan("");
  double squares = 0;
  for (const std::size_t i : in.hidden) {
    const double value = double(map[i]) - (less.empty() ? 0 : double(less[i]));
    squares += value * value;
  }
  return std::sqrt(squares / double(in.hidden.size()));
}

/// Values along the row of pixels with most hidden ones.
std::string cut_figure(const Inpainting& in) {
  std::vector<std::size_t> count(in.field.rows, 0);
  for (const std::size_t i : in.hidden) ++count[i / in.field.columns];
  const std::size_t most = *std::max_element(count.begin(), count.end());
  std::vector<std::size_t> rows;  // the middle one of those that tie
  for (std::size_t row = 0; row < count.size(); ++row) {
    if (count[row] == most) rows.push_back(row);
  }
  const std::size_t row = rows[rows.size() / 2];
  const auto along = [&](const Map& map) {
    std::vector<double> values;
    for (std::size_t x = 0; x < in.field.columns && !map.empty(); ++x)
      values.push_back(double(map[row * in.field.columns + x]));
    return values;
  };
  std::vector<double> x, hidden;
  for (std::size_t column = 0; column < in.field.columns; ++column) x.push_back(double(column));
  const std::vector<double> given = along(in.given), mean = along(in.mean), low = along(in.low), high = along(in.high),
                            diffusive = along(in.diffusive);
  std::vector<double> all = given;
  for (const auto* more : {&mean, &low, &high, &diffusive}) all.insert(all.end(), more->begin(), more->end());
  const Axis y = axis_around(unit_label, all);
  Plot plot({"pixel", -0.5, double(in.field.columns) - 0.5, false}, y, half_width);
  // What is hidden is shaded.
  for (std::size_t column = 0; column < in.field.columns; ++column) {
    if (in.mask[row * in.field.columns + column] > 0.5f) continue;
    const double left = double(column) - 0.5, right = double(column) + 0.5;
    plot.band({left, right}, {y.low, y.low}, {y.high, y.high}, "prior", 0.12);
  }
  if (!low.empty() && !high.empty()) plot.band(x, low, high, "posterior");
  if (!diffusive.empty()) plot.line(x, diffusive, {"direct", 1.4, 1, "5 4"});
  plot.line(x, mean).line(x, given, {"truth", 1.2});
  plot.legend_line("given", {"truth", 1.2}).legend_line("posterior mean", {});
  if (!low.empty() && !high.empty()) plot.legend_band("5 to 95 %", "posterior");
  if (!diffusive.empty()) plot.legend_line("Laplace", {"direct", 1.4, 1, "5 4"});
  return figure(plot.svg("Values along a row of pixels"), "across the hole",
                fmt::format("Row {} of the patch. Shaded pixels are hidden from the posterior.", row));
}

}  // namespace

Part inpainting_part(const Hdf5Reader& file) {
  const Inpainting in = read_inpainting(file);
  Part part;
  part.title = "A filled patch";
  const double share = double(in.hidden.size()) / double(in.mask.size());
  part.lead = fmt::format(
      "What the patch may be like where it was not observed: draws of the posterior, given the rest of it. {}, {}.",
      pixels_words(in.field), unit_label);
  part.key_figures.push_back({number_text(100 * share, 3) + "\u2009%", "of the pixels hidden"});
  const double error = hidden_rms(in, in.mean, in.given), plain = hidden_rms(in, in.diffusive, in.given);
  const bool known = std::isfinite(error) && error > 0;
  if (known) {
    part.key_figures.push_back({fixed_text(error, 3), "root mean square of the mean less the given map, where hidden"});
    if (std::isfinite(plain)) part.key_figures.push_back({fixed_text(plain, 3), "the same of Laplace\u2019s equation"});
  }
  const double spread = hidden_rms(in, in.deviation, {});
  if (std::isfinite(spread))
    part.key_figures.push_back(
        {fixed_text(spread, 3), "standard deviation of the posterior there", known && spread < 0.5 * error});
  if (known && !in.low.empty() && !in.high.empty()) {
    const auto inside = std::count_if(in.hidden.begin(), in.hidden.end(), [&](std::size_t i) {
      return in.given[i] >= in.low[i] && in.given[i] <= in.high[i];
    });
    const double percent = 100 * double(inside) / double(in.hidden.size());
    part.key_figures.push_back({fixed_text(percent, 0) + "\u2009%",
                                "of the hidden pixels within the 5 to 95\u2009% quantiles; 90\u2009% are expected",
                                percent < 70});
  }
  const double r_hat = attribute_number(file, "/sample_stats", "nested_r_hat");
  if (std::isfinite(r_hat))
    part.key_figures.push_back({fixed_text(r_hat, 3), "nested R\u0302 of the log density", r_hat > 1.05});

  std::vector<Map> maps = in.draws;
  for (const Map* map : {&in.given, &in.mean, &in.maximum, &in.diffusive}) maps.push_back(*map);
  const Look look = common_look(in.field, maps, "");
  const std::string edge = outline(in.mask, in.field);
  Map data = in.given;
  for (const std::size_t i : in.hidden) data[i] = std::nanf("");
  std::vector<Panel> panels = {{data, look, "data", edge}};
  const auto add = [&](const Map& map, const Look& how, const std::string& title) {
    if (!map.empty()) panels.push_back({map, how, title, edge});
  };
  add(in.maximum, look, "most probable"), add(in.mean, look, "posterior mean");
  const double widest =
      in.deviation.empty() ? 1 : round_up(quantile(finite_values(in.field, in.deviation, false), 0.995));
  add(in.deviation, {&Colormap::tide(), 0, widest, ""}, "deviation");
  if (known) add(in.given, look, "given map");
  add(in.diffusive, look, "Laplace");
  std::string html =
      figures({panels_figure(
                  in.field, panels, panels.size(), full_width, "maps",
                  "The outline is the edge of what is hidden. The given map is the file\u2019s, its hidden pixels "
                  "too: the truth, if they are known. Laplace\u2019s equation knows nothing but the pixels about the "
                  "hole.")},
              1);
  if (!in.draws.empty()) {
    panels.clear();
    for (std::size_t i = 0; i < in.draws.size(); ++i)
      panels.push_back({in.draws[i], look, "draw " + std::to_string(i + 1), edge});
    html += figures({panels_figure(in.field, panels, panels.size(), full_width, "draws",
                                   "The last draws of chains that lie apart: each might be the patch.")},
                    1);
  }
  part.sections.push_back({"maps", "Maps", html});
  if (!in.hidden.empty()) part.sections.push_back({"cut", "A cut", figures({cut_figure(in)}, 2)});
  Part::Section chains;
  if (chains_section(file, chains)) part.sections.push_back(std::move(chains));
  return part;
}

}  // namespace umbriel::report
