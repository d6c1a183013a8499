// Do the chains agree? Annealing, acceptance, energy errors and the tail at constant temperature.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "umbriel/report/parts.hpp"
#include "umbriel/report/svg.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

/// Rows of a [chain, step] dataset, thinned to at most `most` chains and `steps` steps.
struct Traces {
  std::vector<std::size_t> chains;
  std::vector<double> step;
  std::vector<std::vector<double>> values;  // [shown chain][shown step]
  std::vector<double> all() const {
    std::vector<double> out;
    for (const auto& v : values) out.insert(out.end(), v.begin(), v.end());
    return out;
  }
};

/// @param quantity  for [chain, step, quantity] datasets, else 0
Traces read_traces(const Hdf5Reader& file, const std::string& name, std::size_t quantity = 0) {
  constexpr std::size_t most_chains = 48, most_steps = 240;
  Traces traces;
  if (!file.has(name)) return traces;
  const auto shape = file.shape(name);
  if (shape.size() < 2 || shape.size() > 3 || shape[0] == 0 || shape[1] == 0) return traces;
  if (shape.size() == 3 && shape[2] <= quantity) return traces;
  const std::size_t stride = shape.size() == 3 ? shape[2] : 1;
  const std::size_t chains = std::min<std::size_t>(shape[0], most_chains),
                    steps = std::min<std::size_t>(shape[1], most_steps);
  for (std::size_t j = 0; j < steps; ++j) traces.step.push_back(double(j * shape[1] / steps));
  for (std::size_t i = 0; i < chains; ++i) {
    traces.chains.push_back(i * shape[0] / chains);
    const auto row = file.read<double>(name, traces.chains.back(), 1);
    traces.values.emplace_back();
    for (const double s : traces.step) traces.values.back().push_back(row[std::size_t(s) * stride + quantity]);
  }
  return traces;
}

/// Thin lines, one a chain; diverged chains in the warning colour.
std::string trace_figure(const Traces& traces, const std::vector<double>& diverged, const std::string& x_label,
                         const std::string& y_label, bool logarithmic, double height, const std::string& title,
                         const std::string& caption) {
  Plot plot({x_label, traces.step.front(), std::max(traces.step.back(), traces.step.front() + 1), false},
            axis_around(y_label, traces.all(), logarithmic));
  plot.height(height);
  const double opacity = std::clamp(6.0 / double(traces.chains.size()), 0.25, 0.9);
  for (std::size_t i = 0; i < traces.chains.size(); ++i) {
    const std::size_t c = traces.chains[i];
    const bool bad = c < diverged.size() && diverged[c] != 0;
    plot.line(traces.step, traces.values[i], {bad ? "warn" : "posterior", 1, bad ? 1 : opacity});
  }
  return figure(plot.svg(title), title, caption);
}

/// One point a chain.
std::string chain_points_figure(const std::vector<double>& values, const std::vector<double>& diverged, Axis y,
                                const std::string& title, const std::string& caption) {
  const double n = double(values.size());
  Plot plot({"chain", -0.5 - 0.02 * n, n - 0.5 + 0.02 * n, false}, std::move(y));
  std::vector<double> good_x, good_y, bad_x, bad_y;
  for (std::size_t c = 0; c < values.size(); ++c) {
    const bool bad = c < diverged.size() && diverged[c] != 0;
    (bad ? bad_x : good_x).push_back(double(c));
    (bad ? bad_y : good_y).push_back(values[c]);
  }
  const double radius = values.size() > 400 ? 1.4 : values.size() > 100 ? 2.2 : 3.2;
  plot.points(good_x, good_y, "posterior", radius).points(bad_x, bad_y, "warn", radius + 0.6);
  if (!bad_x.empty()) plot.legend_point("chain", "posterior").legend_point("diverged", "warn");
  return figure(plot.svg(title), title, caption);
}

}  // namespace

std::vector<double> rhat_limits(const Hdf5Reader& file, std::size_t quantities) {
  std::vector<double> limits = values_or_none(file, "/diagnostics/nested_rhat_limit");
  limits.resize(quantities, 1.05);
  return limits;
}

bool chains_section(const Hdf5Reader& file, Part::Section& section) {
  section = {"chains", "The chains", ""};
  std::string html;
  const auto diverged = values_or_none(file, "/sample_stats/diverged");
  const auto set_aside = attribute_or(file, "/", "chains_set_aside");
  const auto n_diverged = std::count_if(diverged.begin(), diverged.end(), [](double d) { return d != 0; });
  if (!diverged.empty() && n_diverged == 0 && set_aside.empty()) {
    html += "<p>No chain diverged, none was set aside.</p>\n";
  } else if (n_diverged > 0) {
    html += fmt::format("<p class=\"warn-text\">{} of {} chains diverged.</p>\n", n_diverged, diverged.size());
  }
  if (!set_aside.empty()) html += "<p><span class=\"warn-text\">Set aside:</span> " + escape_html(set_aside) + "</p>\n";

  // Do the chains agree, and how many independent draws are they worth?
  const auto rhat = values_or_none(file, "/diagnostics/nested_rhat");
  const auto ess = values_or_none(file, "/diagnostics/effective_sample_size");
  const auto limits = rhat_limits(file, rhat.size());
  const std::size_t n = std::max(rhat.size(), ess.size());
  const auto names = names_for(file, "/diagnostics", "names", n);
  if (n > 0) {
    html += fmt::format(
        "<p>At the end every chain runs on at the last temperature, and a few numbers of its map are followed. Nested "
        "R\u0302 near 1 says that the chains agree as well as if each had run for ever. A marked one is above {}, the "
        "most "
        "that so few draws give by chance, and deserves a look.</p>\n",
        number_text(limits.empty() ? 1.05 : extreme_of(limits, true)));
    html += "<div class=\"scroll\"><table class=\"numbers\">\n<thead><tr><th>Quantity</th>";
    if (!rhat.empty()) html += "<th>nested R\u0302</th>";
    if (!ess.empty()) html += "<th>effective samples</th>";
    html += "</tr></thead>\n<tbody>\n";
    for (std::size_t i = 0; i < n; ++i) {
      html += fmt::format("<tr><th scope=\"row\">{}</th>", escape_html(spoken_name(names[i])));
      if (i < rhat.size())
        html += fmt::format("<td{}>{}</td>", rhat[i] > limits[i] ? " class=\"warn-text\"" : "", fixed_text(rhat[i], 3));
      if (i < ess.size()) html += fmt::format("<td>{}</td>", fixed_text(ess[i], 0));
      html += "</tr>\n";
    }
    html += "</tbody>\n</table></div>\n";
  }

  std::vector<std::string> all;
  const Traces sigma = read_traces(file, "/sample_stats/sigma"),
               density = read_traces(file, "/sample_stats/log_density");
  if (!sigma.values.empty()) {
    all.push_back(trace_figure(sigma, diverged, "step", "temperature \u03c3", true, 220, "Annealing",
                               "The noise level at which each chain samples, from a blurred problem down to the real "
                               "one. Chains cool on their own."));
  }
  if (!density.values.empty()) {
    all.push_back(trace_figure(density, diverged, "step", "log density", false, 220, "Log density along the way",
                               "One line a chain. Lines that run together say that the chains reached the same region; "
                               "a line apart is a chain to look at."));
  }
  const auto accept = values_or_none(file, "/sample_stats/accept_rate");
  if (!accept.empty()) {
    all.push_back(
        chain_points_figure(accept, diverged, {"acceptance", 0, 1.02, false}, "Acceptance",
                            fmt::format("The share of proposed moves each chain took. Mean {}, lowest {}.",
                                        fixed_text(mean_of(accept), 2), fixed_text(extreme_of(accept, false), 2))));
  }
  const auto energy = values_or_none(file, "/sample_stats/energy_error");
  if (!energy.empty()) {
    all.push_back(chain_points_figure(energy, diverged, axis_around("largest |\u0394H|", energy, true), "Energy error",
                                      "The worst error of the integrator in each chain. Below about 1 trajectories are "
                                      "accurate; in the hundreds a chain has diverged."));
  }
  if (!all.empty()) html += figures(all, 2);

  if (file.has("/sample_stats/tail") && file.shape("/sample_stats/tail").size() == 3) {
    const std::size_t quantities = std::min<std::size_t>(file.shape("/sample_stats/tail")[2], 9);
    const auto tail_names = names_for(file, "/diagnostics", "names", quantities);
    std::vector<std::string> tails;
    for (std::size_t q = 0; q < quantities; ++q) {
      const Traces traces = read_traces(file, "/sample_stats/tail", q);
      if (traces.values.empty()) break;
      std::string caption;
      if (q < rhat.size()) caption += "R\u0302 " + fixed_text(rhat[q], 3);
      if (q < ess.size()) caption += (caption.empty() ? "" : ", ") + fixed_text(ess[q], 0) + " effective samples";
      tails.push_back(
          trace_figure(traces, diverged, "step of the tail", "", false, 180, spoken_name(tail_names[q]), caption));
    }
    if (!tails.empty()) {
      html += "<h3>The tail</h3>\n<p>Good chains look like fuzzy bands over each other.</p>\n" +
              figures(tails, tails.size() % 3 == 0 ? 3 : 2);
    }
  }
  section.html = html;
  return !html.empty();
}

}  // namespace umbriel::report
