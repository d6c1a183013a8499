/// Places buffers of known lifetimes in one block of memory, so that those that never live together share it.
#pragma once

#include <cstdint>
#include <vector>

namespace umbriel::nn {

/// A buffer that is written at step `first` and read last at step `last` (both inclusive).
struct Lifetime {
  int first = 0, last = 0;
  std::int64_t size = 0;  ///< floats
};

struct BufferPlan {
  std::vector<std::int64_t> offsets;  ///< of each buffer, multiples of 16 floats
  std::int64_t total = 0;             ///< floats of the block
};

/// Largest buffers first, each at the lowest offset that is free during its life: within a few per cent of the least
/// possible block for networks of layers.
BufferPlan plan_buffers(const std::vector<Lifetime>& lifetimes);

}  // namespace umbriel::nn
