#include "umbriel/nn/buffer_plan.hpp"

#include <algorithm>
#include <numeric>

namespace umbriel::nn {

BufferPlan plan_buffers(const std::vector<Lifetime>& lifetimes) {
  constexpr std::int64_t alignment = 16;
  const auto rounded = [](std::int64_t size) { return (size + alignment - 1) / alignment * alignment; };
  std::vector<std::size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return lifetimes[a].size > lifetimes[b].size; });
  BufferPlan plan;
  plan.offsets.assign(lifetimes.size(), 0);
  std::vector<std::size_t> placed;
  for (const std::size_t i : order) {
    const Lifetime& life = lifetimes[i];
    std::vector<std::pair<std::int64_t, std::int64_t>> taken;  // [begin, end) of buffers that live at the same time
    for (const std::size_t j : placed) {
      if (lifetimes[j].first <= life.last && life.first <= lifetimes[j].last)
        taken.emplace_back(plan.offsets[j], plan.offsets[j] + rounded(lifetimes[j].size));
    }
    std::sort(taken.begin(), taken.end());
    std::int64_t offset = 0;
    for (const auto& [begin, end] : taken) {
      if (offset + rounded(life.size) <= begin) break;
      offset = std::max(offset, end);
    }
    plan.offsets[i] = offset;
    plan.total = std::max(plan.total, offset + rounded(life.size));
    placed.push_back(i);
  }
  return plan;
}

}  // namespace umbriel::nn
