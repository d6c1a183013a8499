#include "umbriel/report/svg.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "umbriel/report/text.hpp"

namespace umbriel {
namespace {

constexpr double character_width = 6.6;  // of 12-unit sans-serif digits, a little generous
constexpr double legend_row = 19;

/// Characters as seen: UTF-8 continuation bytes do not count.
double text_width(const std::string& text) {
  const auto seen = std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
  return character_width * static_cast<double>(seen);
}

std::string stroke_attributes(const Stroke& stroke) {
  std::string out = fmt::format("class=\"line {}\" stroke-width=\"{:.3g}\"", stroke.colour, stroke.width);
  if (stroke.opacity < 1) out += fmt::format(" stroke-opacity=\"{:.3g}\"", stroke.opacity);
  if (!stroke.dashes.empty()) out += fmt::format(" stroke-dasharray=\"{}\"", stroke.dashes);
  return out;
}

std::vector<Tick> linear_ticks(double low, double high, int wanted) {
  const double rough = (high - low) / std::max(1, wanted);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= 0.8 * rough) {
      step = factor * power;
      break;
    }
  }
  const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  const bool plain = decimals <= 5 && std::max(std::abs(low), std::abs(high)) < 1e7;
  std::vector<Tick> ticks;
  const double slack = 1e-9 * (high - low);
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack; ++i) {
    const double value = i * step;
    ticks.push_back({value, plain ? fixed_text(value, decimals) : number_text(value, 4)});
  }
  return ticks;
}

std::vector<Tick> logarithmic_ticks(double low, double high, int wanted) {
  const int first = static_cast<int>(std::floor(std::log10(low) + 1e-9));
  const int last = static_cast<int>(std::ceil(std::log10(high) - 1e-9));
  const double decades = std::log10(high / low);
  const int every = std::max(1, static_cast<int>(std::lround(decades / std::max(1, wanted))));
  // Under two decades the powers of ten alone are too few labels.
  const bool label_2_5 = decades < 2;
  std::vector<Tick> ticks;
  for (int e = first; e <= last; ++e) {
    for (int digit = 1; digit < 10; ++digit) {
      const double value = digit * std::pow(10.0, e);
      if (value < low * (1 - 1e-9) || value > high * (1 + 1e-9)) continue;
      std::string label;
      if (digit == 1 && e % every == 0) label = e >= -2 && e <= 3 ? number_text(value) : power_of_ten_text(e);
      if ((digit == 2 || digit == 5) && label_2_5) label = number_text(value);
      if (digit == 1 || every == 1) ticks.push_back({value, label});
    }
  }
  return ticks;
}

/// Room for the words of ticks, five characters at least.
double tick_width(const std::vector<Tick>& ticks) {
  double width = 5 * character_width;
  for (const auto& tick : ticks) width = std::max(width, text_width(tick.label));
  return width;
}

}  // namespace

std::string colour_bar_svg(const Colormap& map, const Axis& axis, double height, const std::string& label) {
  constexpr double x = 14;
  std::vector<std::uint8_t> indices(Colormap::size);
  for (int i = 0; i < Colormap::size; ++i) indices[std::size_t(i)] = static_cast<std::uint8_t>(Colormap::size - 1 - i);
  std::string out =
      fmt::format("<image x=\"{:.1f}\" width=\"10\" height=\"{:.1f}\" preserveAspectRatio=\"none\" href=\"{}\"/>", x,
                  height, png_data_uri(encode_png(1, Colormap::size, indices, map.palette())));
  const auto ticks = nice_ticks(axis, 5);
  std::string marks;
  for (const auto& tick : ticks) {
    const double y = height * (1 - axis.fraction(tick.value));
    marks += fmt::format("M{:.1f} {:.1f}h4", x + 10, y);
    out += fmt::format("<text class=\"ticks\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", x + 17, y + 4,
                       escape_html(tick.label));
  }
  out += fmt::format("<path class=\"axis\" d=\"M{0:.1f} 0h10V{1:.1f}h-10Z{2}\"/>", x, height, marks);
  if (!label.empty()) {
    out += fmt::format(
        "<text class=\"label\" transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        x + 16 + tick_width(ticks) + 15, height / 2, escape_html(label));
  }
  return out;
}

struct Plot::Frame {
  Axis x, y;
  double left, top, width, height;

  double px(double value) const { return width * x.fraction(value); }
  double py(double value) const { return height * (1 - y.fraction(value)); }
};

double Axis::fraction(double value) const {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (!std::isfinite(value) || (logarithmic && value <= 0)) return nan;
  if (low == high) return 0.5;
  return logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
}

std::vector<Tick> nice_ticks(const Axis& axis, int wanted) {
  const double low = std::min(axis.low, axis.high), high = std::max(axis.low, axis.high);
  // Of a range that is no range, too wide for a number, or too narrow to count steps in, one end must do.
  if (!(high - low > 1e-12 * std::max(std::abs(low), std::abs(high))) || !std::isfinite(high - low) ||
      !std::isnormal(high - low) || (axis.logarithmic && !(low > 0 && std::isnormal(low))))
    return {{low, number_text(low)}};
  return axis.logarithmic ? logarithmic_ticks(low, high, wanted) : linear_ticks(low, high, wanted);
}

Axis axis_around(const std::string& label, const std::vector<double>& values, bool logarithmic) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double v : values) {
    if (!std::isfinite(v) || (logarithmic && v <= 0)) continue;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  if (low > high) return {label, logarithmic ? 0.1 : 0.0, 1.0, logarithmic};
  if (logarithmic) {
    const double margin = high > low ? std::pow(high / low, 0.05) : 2.0;
    return {label, low / margin, high * margin, true};
  }
  const double margin = high > low ? 0.05 * (high - low) : std::max(0.5 * std::abs(high), 1e-3);
  return {label, low - margin, high + margin, false};
}

Plot::Plot(Axis x, Axis y, double width) : x_(std::move(x)), y_(std::move(y)), width_(width), height_(0.52 * width) {
  x_ticks_ = nice_ticks(x_, 5);
  y_ticks_ = nice_ticks(y_, 5);
}

Plot& Plot::height(double units) {
  height_ = units;
  return *this;
}

Plot& Plot::aspect(double height_over_width) {
  aspect_ = height_over_width;
  return *this;
}

Plot& Plot::x_ticks(std::vector<Tick> ticks) {
  x_ticks_ = std::move(ticks);
  return *this;
}

Plot& Plot::y_ticks(std::vector<Tick> ticks) {
  y_ticks_ = std::move(ticks);
  return *this;
}

Plot& Plot::grid(bool on) {
  grid_ = on;
  return *this;
}

Plot& Plot::line(std::vector<double> x, std::vector<double> y, const Stroke& stroke) {
  marks_.push_back([x = std::move(x), y = std::move(y), stroke](std::string& out, const Frame& frame) {
    std::string path;
    bool pen_down = false;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      const double px = frame.px(x[i]), py = frame.py(y[i]);
      if (std::isfinite(px) && std::isfinite(py)) path += fmt::format("{}{:.1f} {:.1f}", pen_down ? 'L' : 'M', px, py);
      pen_down = std::isfinite(px) && std::isfinite(py);
    }
    out += fmt::format("<path {} d=\"{}\"/>", stroke_attributes(stroke), path);
  });
  return *this;
}

Plot& Plot::band(std::vector<double> x, std::vector<double> low, std::vector<double> high, const std::string& colour,
                 double opacity) {
  marks_.push_back([=](std::string& out, const Frame& frame) {
    const std::size_t n = std::min({x.size(), low.size(), high.size()});
    std::string path, there, back;
    const auto close = [&] {
      if (!there.empty()) {
        there.front() = 'M';
        path += there + back + 'Z';
      }
      there.clear();
      back.clear();
    };
    for (std::size_t i = 0; i < n; ++i) {
      const double px = frame.px(x[i]), bottom = frame.py(low[i]), top = frame.py(high[i]);
      if (std::isfinite(px) && std::isfinite(bottom) && std::isfinite(top)) {
        there += fmt::format("L{:.1f} {:.1f}", px, top);
        back = fmt::format("L{:.1f} {:.1f}", px, bottom) + back;
      } else {
        close();
      }
    }
    close();
    out += fmt::format("<path class=\"area {}\" fill-opacity=\"{:.3g}\" d=\"{}\"/>", colour, opacity, path);
  });
  return *this;
}

Plot& Plot::points(std::vector<double> x, std::vector<double> y, const std::string& colour, double radius) {
  marks_.push_back([=](std::string& out, const Frame& frame) {
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      const double px = frame.px(x[i]), py = frame.py(y[i]);
      if (!std::isfinite(px) || !std::isfinite(py)) continue;
      out +=
          fmt::format("<circle class=\"area {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.3g}\"/>", colour, px, py, radius);
    }
  });
  return *this;
}

Plot& Plot::bars(std::vector<double> edges, std::vector<double> heights, const std::string& colour, double base) {
  marks_.push_back([=](std::string& out, const Frame& frame) {
    for (std::size_t i = 0; i < heights.size() && i + 1 < edges.size(); ++i) {
      const double a = frame.px(edges[i]), b = frame.px(edges[i + 1]);
      const double top = frame.py(std::max(heights[i], base)), bottom = frame.py(std::min(heights[i], base));
      if (!std::isfinite(a) || !std::isfinite(b) || !std::isfinite(top) || !std::isfinite(bottom)) continue;
      out += fmt::format(
          "<rect class=\"area {}\" fill-opacity=\".75\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>",
          colour, a + 0.5, top, std::max(0.5, b - a - 1), bottom - top);
    }
  });
  return *this;
}

Plot& Plot::steps(std::vector<double> edges, std::vector<double> heights, const Stroke& stroke) {
  std::vector<double> x, y;
  for (std::size_t i = 0; i < heights.size() && i + 1 < edges.size(); ++i) {
    x.insert(x.end(), {edges[i], edges[i + 1]});
    y.insert(y.end(), {heights[i], heights[i]});
  }
  return line(std::move(x), std::move(y), stroke);
}

Plot& Plot::horizontal(double y, const Stroke& stroke) { return line({x_.low, x_.high}, {y, y}, stroke); }

Plot& Plot::picture(std::string png, int columns, int rows, std::string overlay) {
  grid_ = false;
  // Few pixels are shown as squares; many are left to the browser's smooth scaling.
  const char* const rendering = std::max(columns, rows) <= 160 ? " class=\"pixels\"" : "";
  marks_.push_back([=, png = std::move(png)](std::string& out, const Frame& frame) {
    out += fmt::format(
        "<svg width=\"{:.1f}\" height=\"{:.1f}\" viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\">"
        "<image{} width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" href=\"{}\"/>{}</svg>",
        frame.width, frame.height, columns, rows, rendering, columns, rows, png_data_uri(png), overlay);
  });
  return *this;
}

Plot& Plot::colour_bar(const Colormap& map, double low, double high, std::string label) {
  bar_ = &map;
  bar_axis_ = {"", low, high, false};
  bar_label_ = std::move(label);
  return *this;
}

Plot& Plot::legend_line(std::string text, const Stroke& stroke) {
  legend_.push_back({std::move(text), fmt::format("<path {} d=\"M0 -4H18\"/>", stroke_attributes(stroke))});
  return *this;
}

Plot& Plot::legend_band(std::string text, const std::string& colour) {
  legend_.push_back(
      {std::move(text),
       fmt::format("<rect class=\"area {}\" fill-opacity=\".25\" y=\"-9\" width=\"18\" height=\"10\"/>", colour)});
  return *this;
}

Plot& Plot::legend_point(std::string text, const std::string& colour) {
  legend_.push_back({std::move(text), fmt::format("<circle class=\"area {}\" cx=\"9\" cy=\"-4\" r=\"3.5\"/>", colour)});
  return *this;
}

std::string Plot::svg(const std::string& description) const {
  // Room for five characters at least, so that plots side by side get areas of the same size.
  double label_width = (bar_ == nullptr ? 5 : 4) * character_width;
  for (const auto& tick : y_ticks_) label_width = std::max(label_width, text_width(tick.label));

  // The legend flows in rows above the axes.
  std::string legend;
  double legend_x = 0, legend_y = 13;
  for (const auto& entry : legend_) {
    const double entry_width = 24 + text_width(entry.text) + 14;
    if (legend_x > 0 && legend_x + entry_width > width_ - 20) legend_x = 0, legend_y += legend_row;
    legend += fmt::format("<g transform=\"translate({:.1f} {:.1f})\">{}<text x=\"24\">{}</text></g>", legend_x,
                          legend_y, entry.sample, escape_html(entry.text));
    legend_x += entry_width;
  }

  const double left = (y_.label.empty() ? 0 : 20) + label_width + 10;
  const double top = legend_.empty() ? 8 : legend_y + 12;
  const double right =
      bar_ == nullptr ? 12 : 14 + 10 + 6 + tick_width(nice_ticks(bar_axis_, 5)) + (bar_label_.empty() ? 2 : 20);
  const double bottom = x_.label.empty() ? 24 : 42;
  const double inner_width = width_ - left - right, inner_height = aspect_ > 0 ? inner_width * aspect_ : height_;
  const Frame frame{x_, y_, left, top, inner_width, inner_height};

  std::string out = fmt::format("<svg class=\"plot\" viewBox=\"0 0 {:.0f} {:.1f}\" role=\"img\" aria-label=\"{}\">",
                                width_, top + inner_height + bottom, escape_html(description));
  if (!legend.empty())
    out += fmt::format("<g class=\"legend\" transform=\"translate({:.1f} 0)\">{}</g>", std::min(left, 40.0), legend);
  out += fmt::format("<g transform=\"translate({:.1f} {:.1f})\">", left, top);

  std::string grid, marks, labels;
  for (const auto& tick : x_ticks_) {
    const double x = frame.px(tick.value);
    if (!std::isfinite(x) || x < -0.5 || x > inner_width + 0.5) continue;
    const bool major = !tick.label.empty();
    if (grid_ && major) grid += fmt::format("M{:.1f} 0V{:.1f}", x, inner_height);
    marks += fmt::format("M{:.1f} {:.1f}v{}", x, inner_height, major ? 5 : 3);
    if (major)
      labels += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", x, inner_height + 18,
                            escape_html(tick.label));
  }
  for (const auto& tick : y_ticks_) {
    const double y = frame.py(tick.value);
    if (!std::isfinite(y) || y < -0.5 || y > inner_height + 0.5) continue;
    const bool major = !tick.label.empty();
    if (grid_ && major) grid += fmt::format("M0 {:.1f}H{:.1f}", y, inner_width);
    marks += fmt::format("M0 {:.1f}h-{}", y, major ? 5 : 3);
    if (major)
      labels +=
          fmt::format("<text x=\"-8\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", y + 4, escape_html(tick.label));
  }
  if (!grid.empty()) out += fmt::format("<path class=\"grid\" d=\"{}\"/>", grid);
  // A nested svg element clips what lies outside the axes.
  out += fmt::format("<svg width=\"{:.1f}\" height=\"{:.1f}\">", inner_width, inner_height);
  for (const auto& mark : marks_) mark(out, frame);
  out += "</svg>";
  out += fmt::format("<path class=\"axis\" d=\"M0 0H{0:.1f}V{1:.1f}H0Z{2}\"/>", inner_width, inner_height, marks);
  out += "<g class=\"ticks\">" + labels + "</g>";
  if (!x_.label.empty()) {
    out += fmt::format("<text class=\"label\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>",
                       inner_width / 2, inner_height + 37, escape_html(x_.label));
  }
  if (!y_.label.empty()) {
    out += fmt::format(
        "<text class=\"label\" transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        -(label_width + 17), inner_height / 2, escape_html(y_.label));
  }
  if (bar_ != nullptr) {
    out += fmt::format("<g transform=\"translate({:.1f} 0)\">{}</g>", inner_width,
                       colour_bar_svg(*bar_, bar_axis_, inner_height, bar_label_));
  }
  return out + "</g></svg>";
}

}  // namespace umbriel
