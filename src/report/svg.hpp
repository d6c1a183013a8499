/// A small plot builder: it writes one SVG element to put inside an HTML page.
///
/// Colours are CSS class names ("posterior", "truth", ...) that the page's style sheet defines for light and dark, so a
/// plot follows the reader's theme. Values that are not finite, or not positive on a logarithmic axis, leave a gap.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "umbriel/report/colormap.hpp"

namespace umbriel {

/// `low` is drawn left or at the bottom; low > high turns the axis round.
struct Axis {
  std::string label;
  double low = 0;
  double high = 1;
  bool logarithmic = false;

  /// 0 at `low`, 1 at `high`; NaN for a value that has no place on the axis.
  double fraction(double value) const;
};

struct Tick {
  double value = 0;
  std::string label;  ///< empty for a minor tick
};

/// Ticks at 1, 2 or 5 times a power of ten inside the axis' range, about `wanted` of them.
std::vector<Tick> nice_ticks(const Axis& axis, int wanted = 5);

/// An axis that holds all finite values (and only positive ones if logarithmic) with a small margin.
Axis axis_around(const std::string& label, const std::vector<double>& values, bool logarithmic = false);

/// How a line is drawn.
struct Stroke {
  std::string colour = "posterior";
  double width = 1.8;
  double opacity = 1;
  std::string dashes = "";  ///< SVG dash lengths, "5 4"
};

/// A colour bar of this height with its ticks and its label at the right, its upper left corner at (0, 0): what goes
/// into an SVG element. It is 14 from there to the bar, 10 wide; ticks and label take another 60 or so.
std::string colour_bar_svg(const Colormap& map, const Axis& axis, double height, const std::string& label);

class Plot {
 public:
  /// @param width  of the whole plot, in the units of its own drawing; text is 12 of them high
  Plot(Axis x, Axis y, double width = 420);

  /// Height of the area inside the axes, in drawing units. Default 0.52 of the width.
  Plot& height(double units);
  /// Height of the area inside the axes over its width: for pictures, whose pixels must stay square.
  Plot& aspect(double height_over_width);
  /// No numbers on the axis; names at given places instead.
  Plot& x_ticks(std::vector<Tick> ticks);
  Plot& y_ticks(std::vector<Tick> ticks);
  Plot& grid(bool on);

  Plot& line(std::vector<double> x, std::vector<double> y, const Stroke& stroke = {});
  /// Filled between `low` and `high`.
  Plot& band(std::vector<double> x, std::vector<double> low, std::vector<double> high, const std::string& colour,
             double opacity = 0.2);
  Plot& points(std::vector<double> x, std::vector<double> y, const std::string& colour, double radius = 3);
  /// Bars from `base` to heights[i] between edges[i] and edges[i + 1].
  Plot& bars(std::vector<double> edges, std::vector<double> heights, const std::string& colour, double base = 0);
  /// Outline of a histogram: heights[i] between edges[i] and edges[i + 1].
  Plot& steps(std::vector<double> edges, std::vector<double> heights, const Stroke& stroke = {});
  Plot& horizontal(double y, const Stroke& stroke);

  /// A picture that fills the axes. `overlay` is SVG in pixels of the picture: columns x rows, the top row first.
  Plot& picture(std::string png, int columns, int rows, std::string overlay = "");
  /// Colour bar at the right side.
  Plot& colour_bar(const Colormap& map, double low, double high, std::string label);

  /// @{ Entries of the legend, above the axes.
  Plot& legend_line(std::string text, const Stroke& stroke);
  Plot& legend_band(std::string text, const std::string& colour);
  Plot& legend_point(std::string text, const std::string& colour);
  /// @}

  /// @param description  read aloud in place of the picture
  std::string svg(const std::string& description) const;

 private:
  struct Frame;  // the inner area in drawing units
  using Mark = std::function<void(std::string& out, const Frame& frame)>;
  struct LegendEntry {
    std::string text, sample;
  };

  Axis x_, y_;
  double width_, height_, aspect_ = 0;  // aspect 0: `height_` holds
  bool grid_ = true;
  std::vector<Tick> x_ticks_, y_ticks_;
  std::vector<Mark> marks_;
  std::vector<LegendEntry> legend_;
  const Colormap* bar_ = nullptr;  // null: none
  std::string bar_label_;
  Axis bar_axis_;
};

}  // namespace umbriel
