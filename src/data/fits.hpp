/// FITS maps and catalogues (CFITSIO), with their place on the sky (wcslib).
///
/// Every reader checks the file before it trusts it: CFITSIO reads zeros past the end of a truncated file, so the size
/// that the header demands is compared with the file's, and CHECKSUM and DATASUM are verified where the file has them.
/// Messages name the file, the HDU and CFITSIO's own text.
///
/// Errors of every function here: Error(file_system) for a file that is missing, unreadable or cannot be written;
/// Error(input) for one that is truncated, damaged or holds something else than was asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "umbriel/core/views.hpp"
#include "umbriel/data/tangent_plane.hpp"

namespace umbriel {

/// An image as the file holds it, after BSCALE and BZERO; BLANK and NaN pixels are NaN.
struct FitsImage {
  int height = 0;              ///< NAXIS2
  int width = 0;               ///< NAXIS1
  int planes = 1;              ///< NAXIS3, or 1
  std::vector<double> values;  ///< [plane, y, x]; FITS row 1 is y = 0, as numpy has it
  std::string unit;            ///< BUNIT, or empty
  std::optional<TangentPlane> wcs;
};

/// The first HDU that holds an image of at least two dimensions (tile-compressed images too).
///
/// `wcs` is set if the header has right ascension and declination in any projection wcslib knows. TAN is kept as it is;
/// any other projection is replaced by the tangent plane that touches it at the image's centre, which has the same
/// centre and pixel scale.
FitsImage read_fits_image(const std::string& path);

/// A column of numbers.
/// @param name  column of a binary or ASCII table, upper or lower case alike: the first table with such a column.
///              Empty: the file holds one column, as a 1-D image or a table with a single column
/// @return      the values after TSCAL and TZERO, NULL as NaN
std::vector<double> read_fits_column(const std::string& path, const std::string& name = "");

/// A column of a binary table with one or more numbers a row, read in pieces: what HEALPix maps are.
class FitsColumn {
 public:
  /// @param column  its name, upper or lower case alike, or its number from 0: of the first binary table that has it
  FitsColumn(const std::string& path, const std::string& column);
  ~FitsColumn();

  std::int64_t size() const;  ///< rows times numbers a row
  /// out <- values first ... first + n - 1, after TSCAL and TZERO; NULL is NaN.
  void read(std::int64_t first, std::int64_t n, float* out) const;
  /// TUNITn, or empty.
  std::string unit() const;
  /// Value of a header key of the table as text; empty if it is absent.
  std::string key(const std::string& name) const;

 private:
  struct Table;
  std::unique_ptr<Table> table_;
};

/// A header entry of the user's own.
struct FitsKey {
  std::string key;  ///< at most 8 of A-Z, 0-9, - and _; longer names become HIERARCH cards
  std::variant<std::string, double, std::int64_t> value;
  std::string comment;
};

/// Writes a float32 map [y, x] with BUNIT, WCS, CHECKSUM and DATASUM. The file is read back and compared before it gets
/// its name (see write_then_rename).
/// @param map        grid.height x grid.width values, row-major
/// @param unit       BUNIT; empty for a pure number, such as convergence
/// @param long_name  what the map shows, kept as OBJECT
void write_fits_map(const std::string& path, const float* map, Grid grid, const std::string& unit,
                    const std::string& long_name, const std::optional<TangentPlane>& wcs = std::nullopt,
                    const std::vector<FitsKey>& keys = {});

/// Writes a table of one float32 column, as `write_fits_map` does a map.
/// @param values       n numbers, `a_row` of them a row of the table
/// @param n            a multiple of a_row
void write_fits_column(const std::string& path, const std::string& column, const float* values, std::int64_t n,
                       int a_row, const std::string& unit, const std::vector<FitsKey>& keys = {});

}  // namespace umbriel
