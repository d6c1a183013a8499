#include "umbriel/report/map_picture.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "umbriel/core/check.hpp"
#include "umbriel/report/parts.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

const float nan_value = std::numeric_limits<float>::quiet_NaN();

constexpr std::size_t largest_picture = 800;  // pixels a side; larger maps are averaged down

/// Edges of the pixels whose centres are the dimension scale `name`, in arcmin; pixel numbers if there is none.
/// Ticks carry the unit themselves; a label beside the axis says it where there is none.
Axis sky_axis(const Hdf5Reader& file, const std::string& name, std::size_t n, double& pixel_arcmin) {
  const auto centres = values_or_none(file, "/" + name);
  if (centres.size() != n || n < 2) return {name + " [pixels]", -0.5, double(n) - 0.5, false};
  const double factor = attribute_or(file, "/" + name, "units", "arcmin").rfind("deg", 0) == 0 ? 60 : 1;
  const double step = factor * (centres.back() - centres.front()) / double(n - 1);
  pixel_arcmin = std::abs(step);
  return {"", factor * centres.front() - step / 2, factor * centres.back() + step / 2, false};
}

/// The map as a picture, at most `largest_picture` pixels a side; the last row of the map is at the top.
std::string map_png(const Field& field, const Map& map, const Look& look) {
  const std::size_t k = shrink_factor(field);
  const std::size_t width = (field.columns + k - 1) / k, height = (field.rows + k - 1) / k;
  std::vector<std::uint8_t> indices(width * height);
  for (std::size_t row = 0; row < height; ++row) {
    for (std::size_t column = 0; column < width; ++column) {
      double sum = 0;
      int n = 0;
      for (std::size_t i = row * k; i < std::min((row + 1) * k, field.rows); ++i) {
        for (std::size_t j = column * k; j < std::min((column + 1) * k, field.columns); ++j) {
          const float value = map[i * field.columns + j];
          if (std::isfinite(value)) sum += value, ++n;
        }
      }
      indices[(height - 1 - row) * width + column] =
          n > 0 ? Colormap::index(sum / n, look.low, look.high) : Colormap::no_value;
    }
  }
  return encode_png(int(width), int(height), indices, look.colours->palette(), Colormap::no_value);
}

}  // namespace

std::string edge_path(const std::vector<std::uint8_t>& observed, std::size_t rows, std::size_t columns) {
  std::vector<char> inside(rows * columns), seen(rows * columns, 0);
  for (std::size_t i = 0; i < inside.size(); ++i) inside[i] = observed[i] != 0;
  std::vector<std::size_t> region;
  for (std::size_t start = 0; start < inside.size(); ++start) {
    if (seen[start]) continue;
    region.assign(1, start);
    seen[start] = 1;
    for (std::size_t k = 0; k < region.size(); ++k) {
      const std::size_t i = region[k], row = i / columns, column = i % columns;
      const auto visit = [&](std::size_t j) {
        if (seen[j] || inside[j] != inside[start]) return;
        seen[j] = 1;
        region.push_back(j);
      };
      if (row > 0) visit(i - columns);
      if (row + 1 < rows) visit(i + columns);
      if (column > 0) visit(i - 1);
      if (column + 1 < columns) visit(i + 1);
    }
    if (region.size() < smallest_outlined) {
      for (const std::size_t i : region) inside[i] = !inside[i];
    }
  }
  std::string path;
  for (std::size_t row = 1; row < rows; ++row) {  // horizontal pieces, neighbours joined
    for (std::size_t c = 0; c < columns; ++c) {
      const std::size_t first = c;
      while (c < columns && inside[(row - 1) * columns + c] != inside[row * columns + c]) ++c;
      if (c > first) path += fmt::format("M{} {}h{}", first, rows - row, c - first);
    }
  }
  for (std::size_t column = 1; column < columns; ++column) {  // vertical pieces
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t first = r;
      while (r < rows && inside[r * columns + column - 1] != inside[r * columns + column]) ++r;
      if (r > first) path += fmt::format("M{} {}v{}", column, rows - r, r - first);
    }
  }
  return path;
}

std::optional<std::vector<std::uint64_t>> map_shape(const Hdf5Reader& file) {
  for (const char* name : {"/summary/mean", "/posterior/kappa", "/summary/std", "/summary/quantile_50"}) {
    if (file.has(name)) return file.shape(name);
  }
  for (const auto& name : file.datasets()) {
    if (name.rfind("/summary/", 0) == 0) return file.shape(name);
  }
  return std::nullopt;
}

Map read_map(const Hdf5Reader& file, const Field& field, const std::string& name, std::int64_t item) {
  if (!file.has(name)) return {};
  const auto shape = file.shape(name);
  const std::size_t first = item < 0 ? 0 : 1;
  require(shape.size() == first + 2 && shape[first] == field.rows && shape[first + 1] == field.columns, ExitCode::input,
          fmt::format("a map is not {} x {} pixels like the others", field.rows, field.columns),
          file.path() + ": " + name, "the file is damaged or not a result of umbriel");
  if (item < 0) return file.read<float>(name);
  if (static_cast<std::uint64_t>(item) >= shape[0]) return {};
  return file.read<float>(name, static_cast<std::uint64_t>(item), 1);
}

Field field_of(const Hdf5Reader& file, std::size_t rows, std::size_t columns) {
  Field field;
  field.rows = rows;
  field.columns = columns;
  field.x = sky_axis(file, "x", columns, field.pixel_arcmin);
  field.y = sky_axis(file, "y", rows, field.pixel_arcmin);
  return field;
}

Field read_field(const Hdf5Reader& file) {
  const auto shape = *map_shape(file);
  require(shape.size() >= 2 && shape.back() > 0 && shape[shape.size() - 2] > 0, ExitCode::input,
          "the maps of the result have no pixels", file.path(), "the file is damaged or not a result of umbriel");
  Field field = field_of(file, shape[shape.size() - 2], shape.back());
  for (const float m : read_map(file, field, "/survey/mask")) field.observed.push_back(m > 0.5f);
  const auto seen = std::count(field.observed.begin(), field.observed.end(), 1);
  if (seen > 0 && static_cast<std::size_t>(seen) < field.observed.size()) {
    field.edge = "<use class=\"edge-shade\" href=\"#mask-edge\"/><use class=\"edge\" href=\"#mask-edge\"/>";
  }
  return field;
}

std::vector<float> finite_values(const Field& field, const Map& map, bool observed_only) {
  std::vector<float> values;
  for (std::size_t i = 0; i < map.size(); ++i) {
    if (std::isfinite(map[i]) && (!observed_only || field.is_observed(i))) values.push_back(map[i]);
  }
  return values;
}

double quantile(std::vector<float> values, double q) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto at = values.begin() + std::ptrdiff_t(q * double(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

double round_up(double value) {
  if (!(value > 0) || !std::isfinite(value)) return 1;
  const double power = std::pow(10.0, std::floor(std::log10(value)));
  for (const double factor : {1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0}) {
    if (value <= factor * power * (1 + 1e-9)) return factor * power;
  }
  return 10 * power;
}

double symmetric_range(const Field& field, const std::vector<const Map*>& maps) {
  double widest = 0;
  for (const Map* map : maps) {
    auto values = finite_values(field, *map, true);
    for (float& v : values) v = std::abs(v);
    if (!values.empty()) widest = std::max(widest, quantile(std::move(values), 0.996));
  }
  return round_up(widest);
}

std::size_t shrink_factor(const Field& field) {
  return (std::max(field.rows, field.columns) + largest_picture - 1) / largest_picture;
}

std::string map_figure(const Field& field, const Map& map, const Look& look, const std::string& title,
                       const std::string& caption) {
  const auto ticks = [](const Axis& axis) {
    auto all = nice_ticks(axis, 5);
    for (auto& tick : all) {
      if (axis.label.empty()) tick.label += "\u2032";
    }
    return all;
  };
  Plot plot(field.x, field.y);
  plot.x_ticks(ticks(field.x))
      .y_ticks(ticks(field.y))
      .aspect(double(field.rows) / double(field.columns))
      .picture(map_png(field, map, look), int(field.columns), int(field.rows), field.edge)
      .colour_bar(*look.colours, look.low, look.high, look.label);
  return figure(plot.svg(title + ", map"), title, caption);
}

std::string panels_figure(const Field& field, const std::vector<Panel>& panels, std::size_t per_row, double width,
                          const std::string& title, const std::string& caption) {
  constexpr double gap = 8, above = 18;  // between pictures; for a title
  std::vector<const Look*> looks;        // each once
  for (const Panel& panel : panels) {
    const Look& look = panel.look;
    const bool known = std::any_of(looks.begin(), looks.end(), [&](const Look* other) {
      return other->colours == look.colours && other->low == look.low && other->high == look.high;
    });
    if (!known) looks.push_back(&look);
  }
  const bool labels = std::any_of(looks.begin(), looks.end(), [](const Look* look) { return !look->label.empty(); });
  const double bar = labels ? 84 : 58;  // for a colour bar and its words
  const double side = (width - bar * double(looks.size()) - gap * double(per_row - 1)) / double(per_row);
  const double tall = side * double(field.rows) / double(field.columns);
  const std::size_t rows = (panels.size() + per_row - 1) / per_row;
  const double height = double(rows) * (above + tall + gap);
  std::string out = fmt::format("<svg class=\"plot\" viewBox=\"0 0 {:.0f} {:.1f}\" role=\"img\" aria-label=\"{}\">",
                                width, height, escape_html(title));
  for (std::size_t i = 0; i < panels.size(); ++i) {
    const double x = double(i % per_row) * (side + gap), y = double(i / per_row) * (above + tall + gap) + above;
    out += fmt::format("<text class=\"label\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", x + side / 2,
                       y - 5, escape_html(panels[i].title));
    out += fmt::format(
        "<svg x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" viewBox=\"0 0 {} {}\" "
        "preserveAspectRatio=\"none\"><image{} width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" "
        "href=\"{}\"/>{}</svg>",
        x, y, side, tall, field.columns, field.rows,
        std::max(field.columns, field.rows) <= 160 ? " class=\"pixels\"" : "", field.columns, field.rows,
        png_data_uri(map_png(field, panels[i].map, panels[i].look)), panels[i].edge);
    out += fmt::format("<rect class=\"axis\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", x, y,
                       side, tall);
  }
  for (std::size_t i = 0; i < looks.size(); ++i) {
    // A plot of nothing but its colour bar: as high as the first row of pictures.
    const double x = double(per_row) * (side + gap) - gap + bar * double(i);
    out += fmt::format(
        "<g transform=\"translate({:.1f} {:.1f})\">{}</g>", x, above,
        colour_bar_svg(*looks[i]->colours, {"", looks[i]->low, looks[i]->high, false}, tall, looks[i]->label));
  }
  return figure(out + "</svg>", title, caption);
}

Map only_observed(const Field& field, Map map) {
  for (std::size_t i = 0; i < map.size(); ++i) {
    if (!field.is_observed(i)) map[i] = nan_value;
  }
  return map;
}

Map smoothed(const Field& field, const Map& map, double sigma) {
  // Beyond the map there is nothing, however small its pixels are said to be.
  const double longest = double(std::max(field.rows, field.columns));
  const int reach = std::max(1, int(std::min(std::ceil(4 * sigma), longest)));
  std::vector<double> kernel;
  for (int d = -reach; d <= reach; ++d) kernel.push_back(std::exp(-0.5 * d * d / (sigma * sigma)));
  const auto pass = [&](const Map& in, std::size_t step, std::size_t length) {
    Map out(in.size());
    for (std::size_t i = 0; i < in.size(); ++i) {
      const auto place = std::ptrdiff_t(i / step % length);
      double sum = 0, weight = 0;
      for (int d = -reach; d <= reach; ++d) {
        if (place + d < 0 || place + d >= std::ptrdiff_t(length)) continue;
        sum += kernel[std::size_t(d + reach)] * in[std::size_t(std::ptrdiff_t(i) + d * std::ptrdiff_t(step))];
        weight += kernel[std::size_t(d + reach)];
      }
      out[i] = float(sum / weight);
    }
    return out;
  };
  return pass(pass(map, 1, field.columns), field.columns, field.rows);
}

Map ratio(const Map& a, const Map& b) {
  Map out(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) out[i] = b[i] > 0 ? a[i] / b[i] : nan_value;
  return out;
}

Map minus_mean(Map map) {
  double sum = 0;
  for (const float v : map) sum += v;
  for (float& v : map) v -= float(sum / double(map.size()));
  return map;
}

}  // namespace umbriel::report
