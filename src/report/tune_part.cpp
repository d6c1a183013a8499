// A search for the settings of a training: its trials, how far it got, and loss against each parameter.
#include <algorithm>
#include <cmath>
#include <sstream>

#include <fmt/format.h>

#include "umbriel/report/parts.hpp"
#include "umbriel/report/svg.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

constexpr std::size_t most_trials = 1000, most_parameters = 20;

struct Search {
  std::size_t n = 0, d = 0, best = 0;
  std::vector<double> loss, points, seconds;
  std::vector<std::string> names, scales;
  std::vector<std::vector<std::string>> choices;  // [parameter]; empty for numbers
  std::string measure;

  double value(std::size_t trial, std::size_t parameter) const { return points[trial * d + parameter]; }
  std::string text(std::size_t trial, std::size_t parameter) const {
    const double v = value(trial, parameter);
    if (choices[parameter].empty()) return number_text(v, 4);
    return v >= 0 && v < static_cast<double>(choices[parameter].size())
               ? escape_html(choices[parameter][static_cast<std::size_t>(v)])
               : "another";
  }
};

Search read_search(const Hdf5Reader& file) {
  Search s;
  s.loss = values_or_none(file, "/tune/loss");
  s.points = values_or_none(file, "/tune/parameters");
  s.n = s.loss.size();
  s.d = s.points.size() / s.n;
  s.names = names_for(file, "/tune", "names", s.d);
  s.scales = names_for(file, "/tune", "scales", s.d);
  for (std::size_t i = 0; i < s.d; ++i) {
    std::istringstream lines(attribute_or(file, "/tune", "choices_" + std::to_string(i)));
    s.choices.emplace_back();
    for (std::string line; std::getline(lines, line);) {
      if (line.size() > 1 && line.front() == '"' && line.back() == '"') line = line.substr(1, line.size() - 2);
      s.choices.back().push_back(line);
    }
  }
  for (const std::string& text : split_names(attribute_or(file, "/tune", "seconds")))
    s.seconds.push_back(std::strtod(text.c_str(), nullptr));
  s.seconds.resize(s.n, std::nan(""));
  s.measure = attribute_or(file, "/tune", "measure", "loss");
  for (std::size_t i = 1; i < s.n; ++i) {
    if (s.loss[i] < s.loss[s.best] || !std::isfinite(s.loss[s.best])) s.best = i;
  }
  return s;
}

/// The losses worth seeing apart: those far above the median lie at the upper edge, and failed trials too.
struct Shown {
  Axis axis;
  std::vector<double> loss;
  std::vector<bool> beyond;
};

Shown show(const Search& s) {
  std::vector<double> finite;
  for (const double loss : s.loss) {
    if (std::isfinite(loss)) finite.push_back(loss);
  }
  std::sort(finite.begin(), finite.end());
  Shown shown;
  if (finite.empty()) finite = {0, 1};
  const double low = finite.front(), median = finite[finite.size() / 2];
  const double limit = median > low ? low + 5 * (median - low) : finite.back();
  finite.erase(std::upper_bound(finite.begin(), finite.end(), limit), finite.end());
  shown.axis = axis_around(s.measure, finite);
  const double edge = shown.axis.high + 0.06 * (shown.axis.high - shown.axis.low);
  for (const double loss : s.loss) {
    shown.beyond.push_back(!(loss <= limit));
    shown.loss.push_back(shown.beyond.back() ? edge : loss);
  }
  if (std::count(shown.beyond.begin(), shown.beyond.end(), true) > 0)  // room for whole points there
    shown.axis.high = edge + 0.04 * (edge - shown.axis.low);
  return shown;
}

/// Points of the trials over `x`, the configuration as it was and the best one marked.
void add_trials(Plot& plot, const Search& s, const Shown& shown, const std::vector<double>& x, bool legend) {
  std::vector<double> good_x, good_y, bad_x, bad_y;
  for (std::size_t i = 0; i < s.n; ++i) {
    (shown.beyond[i] ? bad_x : good_x).push_back(x[i]);
    (shown.beyond[i] ? bad_y : good_y).push_back(shown.loss[i]);
  }
  plot.points(good_x, good_y, "posterior").points(bad_x, bad_y, "warn");
  plot.points({x[0]}, {shown.loss[0]}, "direct", 5);
  if (s.best != 0) plot.points({x[s.best]}, {shown.loss[s.best]}, "wiener", 5);
  if (!legend) return;
  plot.legend_point("trial", "posterior").legend_point("as it was", "direct");
  if (s.best != 0) plot.legend_point("best", "wiener");
  if (!bad_x.empty()) plot.legend_point("failed, or far above", "warn");
}

std::string progress_figure(const Search& s, const Shown& shown) {
  std::vector<double> x, best;
  for (std::size_t i = 0; i < s.n; ++i) {
    x.push_back(static_cast<double>(i));
    const double before = best.empty() ? HUGE_VAL : best.back();
    best.push_back(s.loss[i] < before ? s.loss[i] : before);
  }
  const auto n = static_cast<double>(s.n);
  Plot plot({"trial", -0.5 - 0.02 * n, n - 0.5 + 0.02 * n, false}, shown.axis);
  std::vector<double> corner_x, corner_y;  // the least loss so far is a staircase
  for (std::size_t i = 0; i < s.n; ++i) {
    if (i > 0) {
      corner_x.push_back(x[i]);
      corner_y.push_back(best[i - 1]);
    }
    corner_x.push_back(x[i]);
    corner_y.push_back(best[i]);
  }
  plot.line(corner_x, corner_y, {"truth", 1.2, 1, "5 4"});
  add_trials(plot, s, shown, x, true);
  plot.legend_line("least so far", {"truth", 1.2, 1, "5 4"});
  return figure(plot.svg("Losses of the trials"), "The search",
                "Loss of each trial, and the least so far. The other pictures show it against each parameter, whatever "
                "the others: "
                "one that matters alone shows as a valley.");
}

std::string parameter_figure(const Search& s, const Shown& shown, std::size_t parameter) {
  std::vector<double> x;
  for (std::size_t i = 0; i < s.n; ++i) x.push_back(s.value(i, parameter));
  const std::size_t choices = s.choices[parameter].size();
  const bool logarithmic = s.scales[parameter] == "log";
  Axis axis = choices > 0 ? Axis{s.names[parameter], -0.5, static_cast<double>(choices) - 0.5, false}
                          : axis_around(s.names[parameter], x, logarithmic);
  Plot plot(std::move(axis), shown.axis);
  if (choices > 0) {
    std::vector<Tick> ticks;
    for (std::size_t c = 0; c < choices; ++c) ticks.push_back({static_cast<double>(c), s.choices[parameter][c]});
    plot.x_ticks(ticks);
    for (double& value : x) {
      if (value < 0) value = std::nan("");  // none of them
    }
  }
  add_trials(plot, s, shown, x, false);
  // The name alone would get a capital, which the key does not have.
  const std::string title = "loss against " + s.names[parameter];
  return figure(plot.svg(title), title, "");
}

std::string table(const Search& s) {
  std::string html = "<div class=\"scroll\"><table class=\"numbers\">\n<thead><tr><th>Trial</th><th>" +
                     escape_html(s.measure) + "</th>";
  for (const std::string& name : s.names) html += "<th>" + escape_html(name) + "</th>";
  html += "<th>seconds</th></tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < s.n; ++i) {
    const std::string mark = i == s.best ? " class=\"best\"" : "";
    html += fmt::format("<tr><th scope=\"row\">{}</th>", i == 0 ? "0, as it was" : std::to_string(i));
    html += std::isfinite(s.loss[i]) ? fmt::format("<td{}>{}</td>", mark, number_text(s.loss[i], 6))
                                     : "<td class=\"warn-text\">failed</td>";
    for (std::size_t p = 0; p < s.d; ++p) html += fmt::format("<td{}>{}</td>", mark, s.text(i, p));
    html += fmt::format("<td>{}</td></tr>\n", number_text(s.seconds[i]));
  }
  return html + "</tbody>\n</table></div>\n";
}

}  // namespace

bool has_search(const Hdf5Reader& file) {
  if (!file.has("/tune/loss") || !file.has("/tune/parameters")) return false;
  const auto loss = file.shape("/tune/loss"), points = file.shape("/tune/parameters");
  return loss.size() == 1 && loss[0] > 0 && loss[0] <= most_trials && points.size() == 2 && points[0] == loss[0] &&
         points[1] > 0 && points[1] <= most_parameters;
}

Part search_part(const Hdf5Reader& file) {
  const Search s = read_search(file);
  const double best = s.loss[s.best], plain = s.loss[0];
  Part part;
  part.title = "Search for settings";
  part.lead = fmt::format("{} trainings of <code>train {}</code>, each with other settings. ", s.n,
                          escape_html(attribute_or(file, "/tune", "train")));
  part.lead +=
      s.best == 0 ? "None is better than the configuration as it was." : fmt::format("The best is trial {}.", s.best);
  part.key_figures.push_back({number_text(best, 5), "least " + escape_html(s.measure)});
  part.key_figures.push_back({number_text(plain, 5), "with the configuration as it was"});
  const auto failed = std::count_if(s.loss.begin(), s.loss.end(), [](double loss) { return !std::isfinite(loss); });
  part.key_figures.push_back({std::to_string(failed), fmt::format("of {} trials failed", s.n), failed > 0});

  const Shown shown = show(s);
  std::vector<std::string> all = {progress_figure(s, shown)};
  for (std::size_t p = 0; p < s.d; ++p) all.push_back(parameter_figure(s, shown, p));
  part.sections.push_back({"search", "The search", figures(all, 2)});
  part.sections.push_back({"trials", "Trials", table(s)});
  return part;
}

}  // namespace umbriel::report
