#include "umbriel/nn/gradient_sum.hpp"

namespace umbriel::nn {
namespace {

void add(const Space& space, const View1<float>& from, const View1<float>& to, std::int64_t first, std::int64_t end) {
  Kokkos::parallel_for(
      "umbriel::add_gradients", Range(space, first, end), KOKKOS_LAMBDA(std::int64_t i) { to(i) += from(i); });
}

}  // namespace

void GradientSum::keep(const Space& space, int part) {
  std::size_t level = 0;
  for (; (part >> level) % 2 == 1; ++level)
    add(space, pairs_[level], gradients_, 0, static_cast<std::int64_t>(gradients_.size()));
  if (level == pairs_.size()) pairs_.emplace_back("umbriel::gradient_pairs", gradients_.size());
  Kokkos::deep_copy(space, pairs_[level], gradients_);
}

void GradientSum::complete(const Space& space, int part, std::int64_t first, std::int64_t end) const {
  for (std::size_t level = 0; (part >> level) > 0; ++level) {
    if ((part >> level) % 2 == 1) add(space, pairs_[level], gradients_, first, end);
  }
}

}  // namespace umbriel::nn
