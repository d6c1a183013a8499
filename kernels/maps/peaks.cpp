#include "umbriel/maps/peaks.hpp"

#include "umbriel/core/loops.hpp"

namespace umbriel {

void local_maxima(const Space& space, const MapBatch& maps, int n, float threshold, const MapBatch& is_peak) {
  const int height = static_cast<int>(maps.extent(1));
  const int width = static_cast<int>(maps.extent(2));
  for_each_element(
      "umbriel::local_maxima", space, n, height, width, KOKKOS_LAMBDA(int map, int y, int x) {
        bool peak = y > 0 && x > 0 && y < height - 1 && x < width - 1 && maps(map, y, x) > threshold;
        if (peak) {
          const float centre = maps(map, y, x);
          for (int dy = -1; dy <= 1; ++dy) {
            for (int dx = -1; dx <= 1; ++dx) {
              if ((dy != 0 || dx != 0) && !(centre > maps(map, y + dy, x + dx))) peak = false;
            }
          }
        }
        is_peak(map, y, x) = peak ? 1.0f : 0.0f;
      });
}

}  // namespace umbriel
