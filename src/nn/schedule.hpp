/// Learning rates as pure functions of the step, so that a resumed training needs no state for them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace umbriel::nn {

struct Schedule {
  enum class Kind { constant, steps, cosine, inverse_square_root };

  Kind kind = Kind::constant;
  double rate = 1e-3;  ///< the highest
  /// Steps over which the rate rises from rate / warm_up to `rate`, linearly; with any kind.
  std::int64_t warm_up = 0;
  /// steps: (step, factor): from this step on the rate is this much smaller; factors multiply.
  std::vector<std::pair<std::int64_t, double>> factors;
  std::int64_t total = 0;  ///< cosine: the step at which the rate has fallen to `last`
  double last = 0;         ///< cosine: rate at the end and after it

  /// "constant", "steps", "cosine", "inverse-square-root".
  /// @throws Error(usage) for any other name
  static Kind kind_named(const std::string& name);

  /// Rate of step 0, 1, ... . Cosine: half a period from the end of the warm-up to `total` (Loshchilov & Hutter 2017,
  /// arXiv 1608.03983). Inverse square root: rate sqrt(w / max(step + 1, w)), w = max(warm_up, 1) (Vaswani et al.
  /// 2017).
  double at(std::int64_t step) const;
};

}  // namespace umbriel::nn
