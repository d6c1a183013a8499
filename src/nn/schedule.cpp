#include "umbriel/nn/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/core/check.hpp"

namespace umbriel::nn {

Schedule::Kind Schedule::kind_named(const std::string& name) {
  if (name == "constant") return Kind::constant;
  if (name == "steps") return Kind::steps;
  if (name == "cosine") return Kind::cosine;
  if (name == "inverse-square-root") return Kind::inverse_square_root;
  throw Error(ExitCode::usage, "there is no such schedule of the learning rate", name,
              "use one of constant, steps, cosine, inverse-square-root");
}

double Schedule::at(std::int64_t step) const {
  const double count = static_cast<double>(step + 1);
  double value = rate;
  if (step < warm_up) value *= count / static_cast<double>(warm_up);
  switch (kind) {
    case Kind::constant:
      return value;
    case Kind::steps:
      for (const auto& [first, factor] : factors)
        if (step >= first) value *= factor;
      return value;
    case Kind::cosine: {
      if (step < warm_up) return value;
      const double span = static_cast<double>(std::max<std::int64_t>(total - warm_up, 1));
      const double progress = std::min(static_cast<double>(step - warm_up) / span, 1.0);
      return last + (rate - last) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
    }
    case Kind::inverse_square_root: {
      const double plateau = static_cast<double>(std::max<std::int64_t>(warm_up, 1));
      return value * std::sqrt(plateau / std::max(count, plateau));
    }
  }
  return value;
}

}  // namespace umbriel::nn
