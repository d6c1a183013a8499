#include "umbriel/report/text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <sstream>

#include <fmt/format.h>

namespace umbriel {
namespace {

const char* const minus = "\u2212";
const char* const thin_space = "\u202f";

/// A plain decimal "-1250.5" with thin spaces between thousands and a true minus sign.
std::string typeset(const std::string& plain) {
  const bool negative = plain.front() == '-';
  const std::string digits = plain.substr(negative ? 1 : 0);
  const auto point = std::min(digits.find('.'), digits.size());
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && i < point && (point - i) % 3 == 0 && point > 4) out += thin_space;
    out += digits[i];
  }
  const bool zero = digits.find_first_not_of("0.") == std::string::npos;
  return negative && !zero ? minus + out : out;
}

std::string without_trailing_zeros(std::string text) {
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string number_text(double value, int digits) {
  if (!std::isfinite(value)) return "\u2013";
  if (std::abs(value) < std::numeric_limits<double>::min()) return "0";
  // Round first: 0.9996 with three digits is 1, not 1.000.
  double rounded = std::strtod(fmt::format("{:.{}e}", value, digits - 1).c_str(), nullptr);
  if (!std::isfinite(rounded)) rounded = value;
  const int exponent = static_cast<int>(std::floor(std::log10(std::abs(rounded)) + 1e-12));
  if (exponent < -3 || exponent > 6) {
    const std::string mantissa = fmt::format("{:.{}f}", rounded / std::pow(10.0, exponent), digits - 1);
    const std::string factor = typeset(without_trailing_zeros(mantissa));
    if (factor == "1") return power_of_ten_text(exponent);
    return factor + "\u00d7" + power_of_ten_text(exponent);
  }
  return typeset(without_trailing_zeros(fmt::format("{:.{}f}", rounded, std::max(0, digits - 1 - exponent))));
}

std::string fixed_text(double value, int decimals) {
  if (!std::isfinite(value)) return "\u2013";
  return typeset(fmt::format("{:.{}f}", value, decimals));
}

std::string power_of_ten_text(int exponent) {
  static const char* const superscripts[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074",
                                             "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string out = "10";
  if (exponent < 0) out += "\u207b";
  for (const char digit : std::to_string(std::abs(exponent))) out += superscripts[digit - '0'];
  return out;
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e12)) return "\u2013";
  if (seconds < 60) return number_text(seconds) + " s";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t minutes = whole / 60, hours = whole / 3600, days = whole / 86400;
  if (days > 0) return fmt::format("{} d {} h", days, hours % 24);
  if (hours > 0) return fmt::format("{} h {} min", hours, minutes % 60);
  return fmt::format("{} min {} s", minutes, whole % 60);
}

std::vector<std::string> split_names(const std::string& list) {
  std::vector<std::string> names;
  std::istringstream stream(list);
  for (std::string name; std::getline(stream, name, ',');) {
    const auto first = name.find_first_not_of(" \t\n");
    const auto last = name.find_last_not_of(" \t\n");
    names.push_back(first == std::string::npos ? "" : name.substr(first, last - first + 1));
  }
  return names;
}

std::string spoken_name(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  const auto replace = [&name](const std::string& from, const std::string& to) {
    const auto at = name.find(from);
    if (at != std::string::npos) name.replace(at, from.size(), to);
  };
  replace("kaiser squires", "Kaiser\u2013Squires");
  replace("wiener", "Wiener");
  return name;
}

}  // namespace umbriel
