/// HEALPix maps of the sky (HEALPix C++): where their pixels lie, interpolation between them, and their files.
///
/// Gorski et al. 2005 (ApJ 622, 759). Positions are longitude and latitude in degrees, in the map's own system:
/// Galactic for COORDSYS = 'G'. A missing pixel is NaN here; in files it is NaN or UNSEEN, -1.6375e30.
///
/// A full sky may be larger than the memory of one process: HealpixFile reads only the parts that are asked for.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "umbriel/data/fits.hpp"

namespace umbriel {

/// Pixels [first, end).
struct PixelRange {
  std::int64_t first = 0, end = 0;
};

/// The four pixels that bilinear interpolation mixes, and their weights, which sum to 1.
struct PixelNeighbours {
  std::array<std::int64_t, 4> pixel;
  std::array<double, 4> weight;
};

/// How a sky is divided into 12 nside^2 pixels of equal area, and their order. A small value.
class HealpixPixels {
 public:
  static constexpr int max_nside = 8192;

  /// @throws Error(input) for a side that is not from 1 to 8192, or in nested order no power of two
  HealpixPixels(int nside, bool nested);

  int nside() const { return nside_; }
  bool nested() const { return nested_; }
  std::int64_t count() const { return std::int64_t{12} * nside_ * nside_; }
  /// Side in degrees of a square of a pixel's area.
  double pixel_deg() const;

  /// Pixel at a position.
  std::int64_t at(double longitude_deg, double latitude_deg) const;
  /// Centre of a pixel: longitude in [0, 360) and latitude.
  std::array<double, 2> centre(std::int64_t pixel) const;
  /// For bilinear interpolation along the rings, as T_Healpix_Base::get_interpol and healpy.get_interp_val have it.
  PixelNeighbours neighbours(double longitude_deg, double latitude_deg) const;
  /// Pixels whose centres lie within `radius_deg`, in order.
  std::vector<PixelRange> disc(double longitude_deg, double latitude_deg, double radius_deg) const;

 private:
  struct Base;
  int nside_;
  bool nested_;
  std::shared_ptr<const Base> base_;
};

/// Values of a map, or of the parts of one that were read.
class HealpixMap {
 public:
  /// A full sky in memory. @param values  [pixels.count()], missing ones NaN
  HealpixMap(const HealpixPixels& pixels, std::vector<float> values);

  const HealpixPixels& pixels() const { return pixels_; }
  /// Bytes of the values in memory.
  std::uint64_t bytes() const { return values_.size() * sizeof(float); }

  /// Value of a pixel. @throws Error(usage) for one that was not read
  float operator[](std::int64_t pixel) const {
    const std::int32_t slot = slots_[static_cast<std::size_t>(pixel >> block_bits)];
    if (slot < 0) refuse(pixel);
    return values_[(static_cast<std::size_t>(slot) << block_bits) + static_cast<std::size_t>(pixel & (block - 1))];
  }

  /// Bilinear interpolation; NaN where a pixel that counts is missing.
  float interpolate(double longitude_deg, double latitude_deg) const;

 private:
  friend class HealpixFile;
  /// Memory is in blocks of pixels that follow each other: pieces of a ring, or little squares of the nested order.
  static constexpr int block_bits = 8;
  static constexpr std::int64_t block = std::int64_t{1} << block_bits;

  explicit HealpixMap(const HealpixPixels& pixels);
  [[noreturn]] void refuse(std::int64_t pixel) const;

  HealpixPixels pixels_;
  std::vector<std::int32_t> slots_;  ///< of each block of the sky its place in `values_`, or -1
  std::vector<float> values_;
};

/// A full-sky map in the first binary table of a FITS file that has the column asked for, RING or NESTED.
class HealpixFile {
 public:
  /// @param field  name of the column, or its number from 0: "0", or "I_STOKES"
  /// @throws Error(file_system), Error(input) as every reader of FITS; Error(input) for a table that is no HEALPix map
  ///         of the full sky
  HealpixFile(const std::string& path, const std::string& field);

  const HealpixPixels& pixels() const { return pixels_; }
  std::string unit() const { return column_.unit(); }
  /// COORDSYS: "G" Galactic, "C" equatorial, "E" ecliptic, or empty where the file does not say.
  std::string coordinates() const { return coordinates_; }

  HealpixMap read() const;
  /// Only pixels in these ranges, and those next to them in the file.
  HealpixMap read(const std::vector<PixelRange>& ranges) const;
  /// Bytes of memory that `read` takes for these ranges, at most.
  static std::uint64_t bytes_of(const std::vector<PixelRange>& ranges);

 private:
  FitsColumn column_;
  HealpixPixels pixels_;
  std::string coordinates_;
};

/// Writes a full sky that healpy.read_map and every other reader of HEALPix files take. NaN becomes UNSEEN.
/// @param values       [pixels.count()]
/// @param coordinates  COORDSYS, "G", "C", "E", or empty
/// @param column       name of the column, such as "I_STOKES"
void write_healpix_map(const std::string& path, const HealpixPixels& pixels, const std::vector<float>& values,
                       const std::string& column, const std::string& unit, const std::string& coordinates,
                       const std::vector<FitsKey>& keys = {});

}  // namespace umbriel
