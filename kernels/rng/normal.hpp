/// Standard normals for whole batches of maps.
#pragma once

#include "umbriel/core/views.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {

/// Fills maps [n, y, x] with standard normals; map i takes the stream keys(i), element y * width + x.
/// @param maps  [>= n, y, x]
/// @param keys  [>= n], one address a map
void fill_normals(const Space& space, const MapBatch& maps, const View1<DrawKey>& keys, int n);

}  // namespace umbriel
