/// Local maxima of maps.
#pragma once

#include "umbriel/core/views.hpp"

namespace umbriel {

/// is_peak(map, y, x) = 1 where the pixel is strictly above its eight neighbours and above `threshold`, else 0. Pixels
/// on the edge of the map have no full neighbourhood and are never peaks.
/// @param maps     [>= n, y, x]
/// @param is_peak  [>= n, y, x], overwritten
void local_maxima(const Space& space, const MapBatch& maps, int n, float threshold, const MapBatch& is_peak);

}  // namespace umbriel
