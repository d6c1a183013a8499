/// Text for people: escaped for HTML, numbers with the digits that matter, durations in words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace umbriel {

/// `text` with &, <, > and both quotes replaced, safe in HTML text and in quoted attributes.
std::string escape_html(std::string_view text);

/// "0.0223", "−1 250", "3.1×10⁻⁷": `digits` significant digits, no trailing zeros, a true minus sign, thin spaces
/// between thousands; "–" for a value that is not finite.
std::string number_text(double value, int digits = 3);

/// `value` with a fixed number of decimals and a true minus sign.
std::string fixed_text(double value, int decimals);

/// "10⁻³"
std::string power_of_ten_text(int exponent);

/// "12.5 s", "1 min 15 s", "2 h 5 min", "3 d 4 h"
std::string duration_text(double seconds);

/// "log_density,low_l_power" -> {"log_density", "low_l_power"}, blanks at the ends removed
std::vector<std::string> split_names(const std::string& list);

/// "log_density" -> "log density": names from a file as captions.
std::string spoken_name(std::string name);

}  // namespace umbriel
