/// Flat patches that tile a full-sky HEALPix map: many maps for training or statistics from one simulated sky.
///
/// Patches (cutouts.hpp has their geometry) lie on a regular grid: rows from the equator to the poles, evenly spaced
/// along a row, as close as they can be without sharing a point of the sky. Around the poles a cap is left over.
#pragma once

#include <string>
#include <vector>

#include "umbriel/data/cutouts.hpp"

namespace umbriel {

/// Centres of the tiles, row by row: the equator first, then rows to the north, then those to the south.
/// @throws Error(usage) for patches wider than 60 degrees
std::vector<PatchCentre> tile_centres(const PatchGrid& grid);

/// Cuts all tiles, each pixel interpolated bilinearly at its centre.
/// @param map  the full sky
/// @return     [tile, y, x] in the map's unit; NaN where a pixel of the map is missing
std::vector<float> cut_tiles(const HealpixMap& map, const PatchGrid& grid);

/// A full sky whose values are one dataset [12 nside^2] of an HDF5 file, in RING order: how CosmoGrid (Kacprzak et al.
/// 2023), among others, keeps its maps.
/// @throws Error(file_system); Error(input) for a file without that dataset, or one that is no HEALPix map
HealpixMap read_hdf5_sky(const std::string& path, const std::string& dataset);

}  // namespace umbriel
