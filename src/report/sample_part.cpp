// What `umbriel sample` found: maps, spectra, chains, metrics.
#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include "umbriel/core/check.hpp"
#include "umbriel/report/map_picture.hpp"
#include "umbriel/report/parts.hpp"
#include "umbriel/report/svg.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

/// All maps of the page.
struct Maps {
  Map mean, std, truth, wiener, direct, best;
  std::vector<std::pair<std::size_t, Map>> samples;  ///< chain, map
  std::size_t n_samples = 0;
  bool computed_here = false;  ///< mean and std from the stored samples
};

Maps read_maps(const Hdf5Reader& file, const Field& field) {
  Maps maps;
  maps.mean = read_map(file, field, "/summary/mean");
  maps.std = read_map(file, field, "/summary/std");
  maps.truth = read_map(file, field, "/survey/truth");
  maps.wiener = read_map(file, field, "/reference/wiener_mean");
  maps.direct = read_map(file, field, "/reference/kaiser_squires");
  maps.best = read_map(file, field, "/reference/map");
  const std::string posterior = "/posterior/kappa";
  if (!file.has(posterior)) return maps;
  require(file.shape(posterior).size() == 3, ExitCode::input, "the posterior is not [chain, y, x]",
          file.path() + ": " + posterior, "the file is damaged or not a result of umbriel");

  // Three chains, spread over all that did not diverge.
  read_map(file, field, posterior, 0);  // refuses a shape that is not the other maps', or claims more than there is
  maps.n_samples = file.shape(posterior)[0];
  const auto diverged = values_or_none(file, "/sample_stats/diverged");
  std::vector<std::size_t> good;
  for (std::size_t c = 0; c < maps.n_samples; ++c) {
    if (c >= diverged.size() || diverged[c] == 0) good.push_back(c);
  }
  const std::size_t shown = std::min<std::size_t>(3, good.size());
  for (std::size_t i = 0; i < shown; ++i) {
    const std::size_t c = good[i * good.size() / shown];
    maps.samples.emplace_back(c, read_map(file, field, posterior, std::int64_t(c)));
  }
  if (maps.mean.empty() && !good.empty()) {  // no summary in the file
    const std::size_t n = field.rows * field.columns;
    std::vector<double> mean(n, 0), squares(n, 0);  // Welford's running sums
    double count = 0;
    for (const std::size_t c : good) {
      const Map sample = read_map(file, field, posterior, std::int64_t(c));
      ++count;
      for (std::size_t i = 0; i < n; ++i) {
        const double before = sample[i] - mean[i];
        mean[i] += before / count;
        squares[i] += before * (sample[i] - mean[i]);
      }
    }
    maps.mean.assign(mean.begin(), mean.end());
    if (count > 1 && maps.std.empty()) {
      for (const double s : squares) maps.std.push_back(float(std::sqrt(s / (count - 1))));
    }
    maps.computed_here = true;
  }
  return maps;
}

void add_map_sections(const Hdf5Reader& file, const Field& field, const Maps& maps, Part& part) {
  // One colour range for all maps of convergence, so that they compare at a glance.
  std::vector<const Map*> compared{&maps.mean, &maps.truth, &maps.wiener, &maps.best};
  for (const auto& sample : maps.samples) compared.push_back(&sample.second);
  // Mass is skewed: peaks reach further from the mean than voids, so the range does too.
  const double range = symmetric_range(field, compared);
  const Look convergence{&Colormap::umbra(), -range / 2, range, "convergence \u03ba"};
  const std::string mean_caption =
      "The average of all samples. Bright is more mass than average along the line of sight, dark is less. It is the "
      "best single map in squared error, and smoother than the sky: what the data leave open averages out.";

  std::vector<std::string> all;
  if (!maps.mean.empty()) all.push_back(map_figure(field, maps.mean, convergence, "Posterior mean", mean_caption));
  if (const auto values = finite_values(field, maps.std, false); !values.empty()) {
    const double low = quantile(values, 0.002), high = quantile(values, 0.998);
    const Look look{&Colormap::tide(), low, high, "standard deviation of \u03ba"};
    std::string caption = "The spread of the samples at each pixel: how far the map may be off.";
    if (!field.edge.empty()) {
      const Map inside = only_observed(field, maps.std);
      double in = 0, out = 0, n_in = 0, n_out = 0;
      for (std::size_t i = 0; i < maps.std.size(); ++i) {
        if (!std::isfinite(maps.std[i])) continue;
        (field.is_observed(i) ? in : out) += maps.std[i];
        (field.is_observed(i) ? n_in : n_out) += 1;
      }
      caption += fmt::format(" On average {} inside the observed region and {} outside, where the prior alone speaks.",
                             number_text(in / n_in), number_text(out / n_out));
    }
    all.push_back(map_figure(field, maps.std, look, "Posterior standard deviation", caption));
  }
  if (!all.empty()) {
    std::string html = fmt::format(
        "<p>All maps of convergence on this page share one range of colours, from {} to {}, so that they compare at a "
        "glance.{}{}</p>\n",
        number_text(-range / 2), number_text(range), field.pixel_arcmin > 0 ? " Axes are offsets in arcminutes." : "",
        field.edge.empty() ? "" : " The thin line is the edge of the observed region.");
    html += figures(all, 2);
    std::string note;
    if (maps.computed_here)
      note +=
          fmt::format(" The file holds no summary: mean and spread were computed from its {} samples.", maps.n_samples);
    if (!field.edge.empty()) note += fmt::format(" Holes of fewer than {} pixels are not outlined.", smallest_outlined);
    if (shrink_factor(field) > 1)
      note += fmt::format(" Each pixel of a picture is the mean of {0} \u00d7 {0} pixels of the map.",
                          shrink_factor(field));
    if (!note.empty()) html += "<p class=\"note\">" + note.substr(1) + "</p>\n";
    part.sections.push_back({"map", "The map", html});
  }

  all.clear();
  for (const auto& [chain, sample] : maps.samples) {
    all.push_back(map_figure(field, sample, convergence, fmt::format("Sample of chain {}", chain), ""));
  }
  if (!all.empty()) {
    part.sections.push_back(
        {"samples", "Samples of the posterior",
         fmt::format("<p>{} of {} maps that the data and the prior allow, each as rough and as peaked as the sky "
                     "itself. What is the same in all of them is known; what differs is not.</p>\n",
                     maps.samples.size() == 1   ? "One"
                     : maps.samples.size() == 2 ? "Two"
                                                : "Three",
                     maps.n_samples) +
             figures(all, 3)});
  }

  all.clear();
  if (!maps.truth.empty())
    all.push_back(map_figure(field, maps.truth, convergence, "Truth", "The map the mock data were made from."));
  if (!maps.wiener.empty()) {
    all.push_back(map_figure(field, maps.wiener, convergence, "Wiener mean",
                             "The exact posterior mean under a Gaussian prior with the same power spectrum: what an "
                             "ideal linear filter gives."));
  }
  if (!maps.direct.empty() && field.pixel_arcmin > 0) {
    all.push_back(map_figure(
        field, smoothed(field, maps.direct, 1 / field.pixel_arcmin), convergence, "Kaiser\u2013Squires, smoothed",
        "The direct inversion of the shear, smoothed here by a Gaussian with a standard deviation of 1 arcmin. It "
        "takes unobserved pixels for zero shear, which leaves false structure around the mask."));
  }
  if (!maps.best.empty())
    all.push_back(map_figure(field, maps.best, convergence, "Most probable map", "The maximum of the posterior."));
  if (!all.empty()) {
    part.sections.push_back({"comparison", "Beside other maps",
                             "<p>The same field, the same colours, other methods.</p>\n" +
                                 figures(all, all.size() == 2 || all.size() == 4 ? 2 : 3)});
  }

  all.clear();
  if (!maps.mean.empty() && !maps.std.empty()) {
    all.push_back(map_figure(field, ratio(maps.mean, maps.std), {&Colormap::dusk(), -4, 4, "mean / standard deviation"},
                             "Signal to noise",
                             "The posterior mean in units of its standard deviation. Deep red: more mass than average "
                             "in nearly every sample. Pale: the data do not decide."));
  }
  const Map peaks = read_map(file, field, "/summary/peak_probability");
  if (!peaks.empty()) {
    const double high = round_up(std::max(0.01, quantile(finite_values(field, peaks, false), 0.999)));
    all.push_back(map_figure(field, peaks, {&Colormap::tide(), 0, std::min(1.0, high), "probability"},
                             "Peak probability",
                             "The share of samples with a peak at this place. Isolated bright spots are the candidates "
                             "for clusters of galaxies."));
  }
  if (!maps.truth.empty() && !maps.mean.empty() && !maps.std.empty()) {
    Map difference = minus_mean(maps.truth);
    const Map mean = minus_mean(maps.mean);
    for (std::size_t i = 0; i < difference.size(); ++i) difference[i] -= mean[i];
    const Map pull = ratio(difference, maps.std);
    double one = 0, two = 0, n = 0;
    for (const float p : finite_values(field, pull, true)) one += std::abs(p) < 1, two += std::abs(p) < 2, ++n;
    all.push_back(map_figure(
        field, pull, {&Colormap::dusk(), -4, 4, "(truth \u2212 mean) / standard deviation"}, "Truth against posterior",
        fmt::format(
            "How many standard deviations the truth lies from the mean, each map\u2019s own average removed. Within "
            "one: {} % of the observed pixels, within two: {} % (a Gaussian posterior expects 68 % and 95 %).",
            fixed_text(100 * one / n, 1), fixed_text(100 * two / n, 1))));
  }
  if (!all.empty()) {
    part.sections.push_back({"significance", "What stands out", figures(all, all.size() == 3 ? 3 : 2)});
  }
}

void add_data_section(const Hdf5Reader& file, const Field& field, const Maps& maps, Part& part) {
  std::vector<std::string> all;
  std::vector<Map> shear;
  if (file.has("/survey/shear")) {
    for (std::int64_t c = 0; c < 2; ++c)
      shear.push_back(only_observed(field, read_map(file, field, "/survey/shear", c)));
    const double range = symmetric_range(field, {&shear[0], &shear[1]});
    const Look look{&Colormap::dusk(), -range, range, "shear"};
    const char* const titles[] = {"Observed shear \u03b3\u2081", "Observed shear \u03b3\u2082"};
    const char* const captions[] = {
        "The data: the mean ellipticity of the galaxies in each pixel, component 1 (along x and y).",
        "Component 2 (along the diagonals). In a single pixel the signal is far below the noise."};
    for (std::size_t c = 0; c < 2; ++c) {
      if (!shear[c].empty()) all.push_back(map_figure(field, shear[c], look, titles[c], captions[c]));
    }
  }
  if (file.has("/survey/noise")) {
    const bool stacked = file.shape("/survey/noise").size() == 3;
    const Map noise = only_observed(field, read_map(file, field, "/survey/noise", stacked ? 0 : -1));
    const auto values = finite_values(field, noise, true);
    if (!values.empty()) {
      const double low = quantile(values, 0.002), high = quantile(values, 0.998);
      all.push_back(map_figure(
          field, noise, {&Colormap::tide(), low, high > low ? high : low * 1.001 + 1e-12, "noise of \u03b3\u2081"},
          "Noise and mask",
          fmt::format("Standard deviation of the shear noise; blank where nothing was observed. Median {}.",
                      number_text(quantile(values, 0.5)))));
    }
  } else if (!field.observed.empty()) {
    const Map mask(field.observed.begin(), field.observed.end());
    all.push_back(map_figure(field, mask, {&Colormap::tide(), 0, 1, "observed"}, "Mask",
                             "1 where shear was observed, 0 elsewhere."));
  }
  if (!maps.direct.empty()) {
    const double range = symmetric_range(field, {&maps.direct});
    all.push_back(map_figure(
        field, maps.direct, {&Colormap::umbra(), -range / 2, range, "convergence \u03ba"},
        "Kaiser\u2013Squires, as it comes",
        fmt::format("The direct inversion without smoothing, on a range of its own: noise hides the mass.")));
  }
  if (!all.empty()) part.sections.push_back({"data", "The data", figures(all, 2)});
}

void add_spectra_section(const Hdf5Reader& file, Part& part) {
  const auto band = values_or_none(file, "/band");
  if (band.empty()) return;
  // l (l + 1) C_l / 2 pi: power in each unit of ln l.
  const auto spectrum = [&](const std::string& name) {
    auto values = values_or_none(file, "/spectra/" + name);
    values.resize(std::min(values.size(), band.size()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] *= band[i] * (band[i] + 1) / (2 * std::numbers::pi);
    return values;
  };
  struct Series {
    const char *name, *label;
    Stroke stroke;
  };
  const Series series[] = {{"kaiser_squires", "Kaiser\u2013Squires", {"direct", 1.6}},
                           {"prior", "prior", {"prior", 1.6, 1, "2 4"}},
                           {"wiener_mean", "Wiener mean", {"wiener", 1.8, 1, "8 4"}},
                           {"truth", "truth", {"truth", 1.8}},
                           {"posterior_mean", "samples, mean", {"posterior", 2.4}}};
  // The range follows the posterior; unsmoothed Kaiser-Squires noise may leave at the top.
  std::vector<double> heights, multipoles;
  for (const char* name : {"posterior_mean", "posterior_05", "posterior_95", "truth", "wiener_mean"}) {
    const auto values = spectrum(name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isfinite(values[i]) && values[i] > 0) heights.push_back(values[i]), multipoles.push_back(band[i]);
    }
  }
  if (heights.empty()) return;
  const Axis x = axis_around("multipole \u2113", multipoles, true);
  Axis y = axis_around("\u2113(\u2113+1) C\u2097 / 2\u03c0", heights, true);
  y.low = std::max(y.low, y.high * 1e-5);
  y.high *= 2;

  // The same spectra over the truth's, or the prior's where there is no truth.
  const bool truth = file.has("/spectra/truth");
  const auto reference = spectrum(truth ? "truth" : "prior");
  const auto relative = [&](std::vector<double> values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] /= i < reference.size() && reference[i] > 0 ? reference[i] : std::nan("");
    return values;
  };
  Plot plot(x, y), over(x, {truth ? "C\u2097 / truth" : "C\u2097 / prior", 0, 2, false});
  plot.height(250);
  over.height(250);
  const auto low = spectrum("posterior_05"), high = spectrum("posterior_95");
  if (!low.empty() && !high.empty()) {
    plot.band(band, low, high, "posterior", 0.22).legend_band("samples, 5 to 95 %", "posterior");
    over.band(band, relative(low), relative(high), "posterior", 0.22).legend_band("samples, 5 to 95 %", "posterior");
  }
  for (const auto& one : series) {
    const auto values = spectrum(one.name);
    if (values.empty()) continue;
    plot.line(band, values, one.stroke).legend_line(one.label, one.stroke);
    over.line(band, relative(values), one.stroke).legend_line(one.label, one.stroke);
  }
  std::vector<std::string> all{
      figure(plot.svg("Angular power spectra of the posterior and of reference maps"), "Power on each angular scale",
             std::string("Large scales are on the left. ") +
                 (truth ? "Samples should carry the power of the truth: its line belongs inside the band. "
                        : "Samples carry the power that the data and the prior agree on. ") +
                 "A Wiener map falls below on small scales, where noise wins; that is right for a mean, and the reason "
                 "to use samples for statistics.")};
  if (!reference.empty()) {
    all.push_back(figure(over.svg("The same power spectra relative to a reference"),
                         truth ? "Relative to the truth" : "Relative to the prior",
                         truth ? "1 is the power of the true map."
                               : "1 is the power the prior expects; the data may ask for more or less."));
  }
  part.sections.push_back({"spectra", "Power spectra", figures(all, 2)});
}

void add_metrics_section(const Hdf5Reader& file, Part& part) {
  const auto rmse = values_or_none(file, "/metrics/rmse"), pearson = values_or_none(file, "/metrics/pearson");
  const std::size_t n = std::max(rmse.size(), pearson.size());
  if (n == 0) return;
  const auto names = names_for(file, "/metrics", "methods", n);
  const double best_rmse = extreme_of(rmse, false), best_pearson = extreme_of(pearson, true);
  std::string html =
      "<p>Each map against the truth, over the observed pixels, its own average removed. RMSE is the typical error "
      "(lower is better), Pearson the correlation (higher is better); the best are in bold.</p>\n<div "
      "class=\"scroll\"><table class=\"numbers\">\n<thead><tr><th>Map</th>";
  if (!rmse.empty()) html += "<th>RMSE</th>";
  if (!pearson.empty()) html += "<th>Pearson</th>";
  html += "</tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < n; ++i) {
    html += fmt::format("<tr><th scope=\"row\">{}</th>", escape_html(spoken_name(names[i])));
    const auto cell = [&](const std::vector<double>& values, double best, int decimals) {
      if (values.empty()) return;
      const bool bold = i < values.size() && values[i] == best;
      html += fmt::format("<td{}>{}</td>", bold ? " class=\"best\"" : "",
                          i < values.size() ? fixed_text(values[i], decimals) : "");
    };
    cell(rmse, best_rmse, 4);
    cell(pearson, best_pearson, 3);
    html += "</tr>\n";
  }
  part.sections.push_back({"metrics", "Against the truth", html + "</tbody>\n</table></div>\n"});
}

void add_key_figures(const Hdf5Reader& file, const Field& field, const Maps& maps, Part& part) {
  auto& keys = part.key_figures;
  if (field.pixel_arcmin > 0) {
    keys.push_back({number_text(std::abs(field.x.high - field.x.low)) + "\u2032\u2009\u00d7\u2009" +
                        number_text(std::abs(field.y.high - field.y.low)) + "\u2032",
                    fmt::format("field, {} \u00d7 {} pixels of {}\u2032", field.columns, field.rows,
                                number_text(field.pixel_arcmin)),
                    false});
  } else {
    keys.push_back({fmt::format("{}\u2009\u00d7\u2009{}", field.columns, field.rows), "pixels", false});
  }
  if (!field.observed.empty()) {
    const double seen = double(std::count(field.observed.begin(), field.observed.end(), 1));
    keys.push_back(
        {number_text(100 * seen / double(field.observed.size())) + "\u2009%", "of the field observed", false});
  }
  const auto diverged = values_or_none(file, "/sample_stats/diverged");
  const auto accept = values_or_none(file, "/sample_stats/accept_rate");
  const std::size_t chains = std::max({maps.n_samples, diverged.size(), accept.size()});
  if (chains > 0) {
    const auto bad = std::count_if(diverged.begin(), diverged.end(), [](double d) { return d != 0; });
    keys.push_back(
        {number_text(double(chains), 6), bad > 0 ? fmt::format("chains, {} diverged", bad) : "chains", bad > 0});
  }
  const auto evaluations = values_or_none(file, "/sample_stats/score_evaluations");
  if (!evaluations.empty()) keys.push_back({number_text(mean_of(evaluations)), "score evaluations a sample", false});
  const auto rhat = values_or_none(file, "/diagnostics/nested_rhat");
  const double worst = extreme_of(rhat, true);
  const auto limits = rhat_limits(file, rhat.size());
  bool disagree = false;
  for (std::size_t q = 0; q < rhat.size(); ++q) disagree = disagree || rhat[q] > limits[q];
  if (std::isfinite(worst)) keys.push_back({fixed_text(worst, 3), "largest nested R\u0302", disagree});
  const double fewest = extreme_of(values_or_none(file, "/diagnostics/effective_sample_size"), false);
  if (std::isfinite(fewest)) keys.push_back({fixed_text(fewest, 0), "effective samples, at least", false});
  const double wall = attribute_number(file, "/", "wall_seconds");
  if (wall >= 0) keys.push_back({duration_text(wall), "wall time", false});
}

}  // namespace

bool has_samples(const Hdf5Reader& file) { return map_shape(file).has_value(); }

Part sample_part(const Hdf5Reader& file) {
  const Field field = read_field(file);
  const Maps maps = read_maps(file, field);
  Part part;
  part.title = "Posterior mass map";
  part.lead = maps.n_samples > 0 && !maps.samples.empty()
                  ? fmt::format(
                        "Weak lensing tells the mass along the line of sight only through noise and holes. So this is "
                        "not one map but {}: samples of all the maps that fit the observed shear and look like the "
                        "sky. Their mean is the best guess, their spread the uncertainty.",
                        number_text(double(maps.n_samples), 6))
                  : "The mass along the line of sight as weak lensing shows it: the average of many maps that fit the "
                    "observed shear and look like the sky, and their spread, which is the uncertainty.";
  if (!field.edge.empty())
    part.definitions = "<path id=\"mask-edge\" d=\"" + edge_path(field.observed, field.rows, field.columns) + "\"/>";
  add_key_figures(file, field, maps, part);
  add_map_sections(file, field, maps, part);
  add_metrics_section(file, part);
  add_spectra_section(file, part);
  add_data_section(file, field, maps, part);
  Part::Section chains;
  if (chains_section(file, chains)) part.sections.push_back(std::move(chains));
  return part;
}

}  // namespace umbriel::report
