#include "umbriel/rng/normal.hpp"

#include "umbriel/core/loops.hpp"

namespace umbriel {
namespace {

/// Blocks of four elements computed side by side, so that the host's vector registers hold one word of each.
constexpr int blocks_abreast = 16;

struct FillNormals {
  float* data;
  View1<DrawKey> keys;
  std::int64_t elements;     // of a map
  std::int64_t tiles_a_map;  // a tile is blocks_abreast blocks

  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const std::int64_t map = i / tiles_a_map;
    const std::int64_t first_block = (i % tiles_a_map) * blocks_abreast;
    const DrawKey key = keys(map);
    float values[4][blocks_abreast];
    UMBRIEL_INDEPENDENT_ITERATIONS
    for (int b = 0; b < blocks_abreast; ++b) {
      const auto words = random_words(key, static_cast<std::uint32_t>(first_block + b));
      detail::box_muller(words[0], words[1], values[0][b], values[1][b]);
      detail::box_muller(words[2], words[3], values[2][b], values[3][b]);
    }
    float* out = data + map * elements;
    const std::int64_t first = 4 * first_block;
    for (int e = 0; e < 4 * blocks_abreast && first + e < elements; ++e) out[first + e] = values[e % 4][e / 4];
  }
};

}  // namespace

void fill_normals(const Space& space, const MapBatch& maps, const View1<DrawKey>& keys, int n) {
  if (n <= 0) return;
  require(n <= static_cast<int>(maps.extent(0)) && n <= static_cast<int>(keys.extent(0)), ExitCode::usage,
          "more maps asked for than there is room for", "fill_normals");
  const std::int64_t elements = static_cast<std::int64_t>(maps.extent(1)) * maps.extent(2);
  const std::int64_t tiles = (elements + 4 * blocks_abreast - 1) / (4 * blocks_abreast);
  Kokkos::parallel_for("umbriel::fill_normals", Range(space, 0, n * tiles),
                       FillNormals{maps.data(), keys, elements, tiles});
}

}  // namespace umbriel
