#include "umbriel/data/fits.hpp"

#include <fitsio.h>
#include <wcslib/wcs.h>
#include <wcslib/wcshdr.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <numbers>
#include <string_view>
#include <utility>

#include "umbriel/base/files.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel {

namespace {

constexpr const char* damaged =
    "the file is damaged or not what it should be: fetch or write it again, or look at it with fitsverify";
constexpr double degree = std::numbers::pi / 180;

/// CFITSIO's text for `status` and the messages on its stack, which it empties.
std::string cfitsio_text(int status) {
  char text[FLEN_STATUS] = "";
  fits_get_errstatus(status, text);
  std::string all = "CFITSIO: " + std::string(text) + " (" + std::to_string(status) + ")";
  char message[FLEN_ERRMSG];
  while (fits_read_errmsg(message) != 0) all += std::string("; ") + message;
  return all;
}

/// An open file and the calls this folder makes on it, each checked.
class Fits {
 public:
  /// Opens for reading. CFITSIO's file-name filters ("x.fits[1]") are switched off: a path is a path.
  explicit Fits(const std::string& path) : path_(path), file_size_(readable_size(path)) {
    check_headers();
    fits_clear_errmsg();
    check(fits_open_diskfile(&file_, path.c_str(), READONLY, &status_), "cannot open it as a FITS file");
  }

  /// Creates `path`, which must not exist.
  static Fits create(const std::string& path) {
    Fits fits;
    fits.path_ = path;
    fits.code_ = ExitCode::file_system;
    fits.remedy_ = "check the folder, its permissions and the free space";
    fits_clear_errmsg();
    fits.check(fits_create_diskfile(&fits.file_, path.c_str(), &fits.status_), "cannot create the file");
    return fits;
  }

  Fits(Fits&& other) noexcept { *this = std::move(other); }
  Fits& operator=(Fits&& other) noexcept {
    std::swap(file_, other.file_);
    std::swap(path_, other.path_);
    std::swap(file_size_, other.file_size_);
    std::swap(size_, other.size_);
    std::swap(packed_, other.packed_);
    std::swap(code_, other.code_);
    std::swap(remedy_, other.remedy_);
    return *this;
  }
  ~Fits() {
    int ignored = 0;
    if (file_ != nullptr) fits_close_file(file_, &ignored);
  }

  /// Closes a written file; unlike the destructor it reports a failed write.
  void close() {
    fitsfile* file = std::exchange(file_, nullptr);
    check(fits_close_file(file, &status_), "cannot finish the file");
  }

  fitsfile* file() const { return file_; }
  int* status() { return &status_; }

  /// Throws unless the CFITSIO call that gave `status` succeeded.
  void check(int status, const std::string& what) {
    if (status > 0) {
      status_ = 0;
      throw Error(code_, what + ": " + cfitsio_text(status), where(), remedy_);
    }
  }

  [[noreturn]] void refuse(const std::string& what, const std::string& remedy = damaged) const {
    throw Error(ExitCode::input, what, where(), remedy);
  }

  std::string where() const {
    if (file_ == nullptr) return path_;
    int hdu = 0;
    fits_get_hdu_num(file_, &hdu);
    return path_ + ", HDU " + std::to_string(hdu - 1);  // counted from 0, as astropy and DS9 do
  }

  int hdu_count() {
    int count = 0;
    check(fits_get_num_hdus(file_, &count, &status_), "cannot count the HDUs");
    return count;
  }

  /// Moves to HDU `index` (from 0) and returns its CFITSIO type.
  int move_to(int index) {
    int type = 0;
    check(fits_movabs_hdu(file_, index + 1, &type, &status_), "cannot read HDU " + std::to_string(index));
    return type;
  }

  /// Axis lengths of the image in this HDU, NAXIS1 first.
  std::vector<LONGLONG> axes() {
    int count = 0;
    check(fits_get_img_dim(file_, &count, &status_), "cannot read NAXIS");
    std::vector<LONGLONG> lengths(static_cast<std::size_t>(count));
    if (count > 0) check(fits_get_img_sizell(file_, count, lengths.data(), &status_), "cannot read the axes");
    return lengths;
  }

  /// Throws unless the data of this HDU are all in the file and agree with the checksums it states.
  void require_whole() {
    LONGLONG header = 0, data = 0, end = 0;
    check(fits_get_hduaddrll(file_, &header, &data, &end, &status_), "cannot read the header");
    if (static_cast<std::uint64_t>(end) > size_)
      refuse("the file is truncated: its header asks for " + std::to_string(end) + " bytes and it has " +
                 std::to_string(size_),
             "fetch or write it again");
    int data_state = 0, header_state = 0;  // 1 right, 0 absent, -1 wrong
    check(fits_verify_chksum(file_, &data_state, &header_state, &status_), "cannot verify the checksums");
    if (data_state < 0) refuse("the data do not agree with DATASUM: bits changed since it was written");
    if (header_state < 0) refuse("the HDU does not agree with CHECKSUM: bits changed since it was written");
  }

  /// Throws unless a column of so many rows and numbers a row has room in the file, at a byte each or more.
  void require_room(LONGLONG rows, LONGLONG numbers_a_row) {
    if (static_cast<double>(rows) * static_cast<double>(numbers_a_row) > static_cast<double>(size_))
      refuse("the column claims to hold more numbers than the file has bytes");
  }

  /// The n values of this HDU's image as float64, with BLANK as NaN.
  std::vector<double> pixels(LONGLONG n) {
    int type = 0;
    check(fits_get_img_type(file_, &type, &status_), "cannot read BITPIX");
    const bool compressed = fits_is_compressed_image(file_, &status_) != 0;
    if (compressed) check_compression(n);
    std::vector<double> values(static_cast<std::size_t>(n));
    // Only integers have a BLANK. Asked to look for it in plain floating-point images, CFITSIO turns infinities to NaN.
    double blank = std::numeric_limits<double>::quiet_NaN();
    void* null = type > 0 || compressed ? &blank : nullptr;
    int any_blank = 0;  // CFITSIO writes it although its guide calls it optional
    check(fits_read_img(file_, TDOUBLE, 1, n, null, values.data(), &any_blank, &status_), "cannot read the image");
    return values;
  }

  /// Value of a text key; empty if it is absent.
  std::string text_key(const char* key) {
    char value[FLEN_VALUE] = "";
    const int status = fits_read_key(file_, TSTRING, key, value, nullptr, &status_);
    if (status == KEY_NO_EXIST) {
      status_ = 0;
      fits_clear_errmsg();
      return "";
    }
    check(status, std::string("cannot read ") + key);
    return value;
  }

 private:
  Fits() = default;

  /// Refuses tile-compressed images that CFITSIO may not be given.
  void check_compression(LONGLONG n) {
    const std::string kind = text_key("ZCMPTYPE");
    // gzip in gzip may grow a millionfold, which CFITSIO does in small steps.
    if (packed_)
      refuse("the image is compressed, and its file is packed once more", "unpack the file first, with gunzip");
    // CFITSIO 4.2 follows damaged PLIO lists out of its buffers.
    if (kind == "PLIO_1") refuse("the image is compressed by PLIO", "unpack it first, with funpack");
    if (static_cast<double>(n) > most_pixels())
      refuse("the compressed image claims to hold " + std::to_string(n) + " pixels, more than the file has room for");
    // Tiles are packed by gzip where the image is, or where another way had no success with them.
    for (const char* column : {"COMPRESSED_DATA", "GZIP_COMPRESSED_DATA"}) {
      if (column[0] != 'G' && !kind.starts_with("GZIP")) continue;
      int number = 0, none = 0;
      if (fits_get_colnum(file_, CASEINSEN, const_cast<char*>(column), &number, &none) != 0) {
        fits_clear_errmsg();
        continue;
      }
      require_whole_tiles(number);
    }
  }

  /// Refuses tiles packed by gzip that do not end: CFITSIO 4.2 takes more and more memory for what they might hold.
  void require_whole_tiles(int column) {
    LONGLONG rows = 0;
    check(fits_get_num_rowsll(file_, &rows, &status_), "cannot read the tiles");
    std::vector<unsigned char> tile, out(1U << 16);
    for (LONGLONG row = 1; row <= rows; ++row) {
      LONGLONG bytes = 0, offset = 0;
      check(fits_read_descriptll(file_, column, row, &bytes, &offset, &status_), "cannot read the tiles");
      if (bytes == 0) continue;
      if (bytes < 0 || static_cast<std::uint64_t>(bytes) > size_) refuse("a tile claims to be larger than the file");
      tile.resize(static_cast<std::size_t>(bytes));
      int any = 0;
      check(fits_read_col(file_, TBYTE, column, row, 1, bytes, nullptr, tile.data(), &any, &status_),
            "cannot read the tiles");
      z_stream stream{};
      if (inflateInit2(&stream, 15 + 32) != Z_OK) refuse("a tile cannot be unpacked");
      stream.next_in = tile.data();
      stream.avail_in = static_cast<uInt>(tile.size());
      int state = Z_OK;
      while (state == Z_OK) {
        stream.next_out = out.data();
        stream.avail_out = static_cast<uInt>(out.size());
        state = inflate(&stream, Z_NO_FLUSH);
      }
      inflateEnd(&stream);
      if (state != Z_STREAM_END)
        refuse("tile " + std::to_string(row) + " of the compressed image is damaged or cut short");
    }
  }

  /// Looks through the headers before CFITSIO does, in packed files too, and finds how long the file really is.
  void check_headers() {
    std::array<unsigned char, 2> magic{};
    std::ifstream(path_, std::ios::binary).read(reinterpret_cast<char*>(magic.data()), magic.size());
    const int kind = magic[0] << 8 | magic[1];
    packed_ = kind == 0x1f8b;
    // pack, compress, LZH, zip, bzip2
    for (const int other : {0x1f1e, 0x1f9d, 0x1fa0, 'P' << 8 | 'K', 'B' << 8 | 'Z'}) {
      if (kind == other) refuse("the file is packed, and not by gzip", "unpack it first");
    }
    const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path_.c_str(), "rb"), gzclose);
    require(file != nullptr, ExitCode::file_system, "cannot read the file", path_, "check the path");
    gzbuffer(file.get(), 1U << 18);
    std::array<char, 2880> block;
    bool in_header = true;
    double tile = 1;
    int n = 0;
    for (size_ = 0; (n = gzread(file.get(), block.data(), block.size())) > 0; size_ += static_cast<std::uint64_t>(n)) {
      const std::string_view text(block.data(), static_cast<std::size_t>(n));
      if (text.starts_with("XTENSION")) {
        in_header = true;
        tile = 1;
      }
      // Without its first keys in their order CFITSIO makes a table of as many columns as chance has it.
      if (text.starts_with("XTENSION") && text.substr(0, 80).find("TABLE") != text.npos) {
        std::size_t at = 0;
        for (const char* key : {"BITPIX  ", "NAXIS   ", "NAXIS1  ", "NAXIS2  ", "PCOUNT  ", "GCOUNT  ", "TFIELDS "}) {
          at += 80;
          if (text.size() < at + 80 || !text.substr(at).starts_with(key))
            refuse("the header of a table does not begin with its keys, in their order, up to TFIELDS");
        }
      }
      for (std::size_t at = 0; in_header && at + 80 <= text.size(); at += 80) {
        const std::string_view card = text.substr(at, 80);
        if (card.starts_with("END     ")) in_header = false;
        check_card(card, tile);
      }
    }
    if (n < 0) refuse("it cannot be unpacked: it is damaged");
    // CFITSIO takes as much memory as the end of a packed file says, before it unpacks.
    std::array<unsigned char, 4> end{};
    std::ifstream(path_, std::ios::binary).seekg(-4, std::ios::end).read(reinterpret_cast<char*>(end.data()), 4);
    const std::uint64_t stated = end[0] | end[1] << 8 | end[2] << 16 | std::uint64_t{end[3]} << 24;
    if (packed_ && stated > size_) refuse("its packed end claims more bytes than it unpacks to");
  }

  /// Refuses what CFITSIO and wcslib do not stand: they take memory for as many axes, columns and pixels of a tile as a
  /// header says, and a key without a value leaves a number of theirs unset.
  void check_card(std::string_view card, double& tile) const {
    std::string_view key = card.substr(0, 8);
    key = key.substr(0, key.find(' '));
    const std::string_view base = key.substr(0, key.find_last_not_of("0123456789") + 1);
    const bool axes = key == "NAXIS" || key == "ZNAXIS" || key == "TFIELDS" || key.starts_with("WCSAXES");
    const bool is_tile = base == "ZTILE";
    // CFITSIO has room for the longest text in quotes, not for the longest value without them, after "=" with no blank
    // too.
    if (base == "TTYPE" && card.find('=') != card.npos) {
      const auto first = card.find_first_not_of(' ', card.find('=') + 1);
      if (first != card.npos && card[first] != '\'')
        refuse("the header key " + std::string(key) + " is no text in quotes");
    }
    if (!axes && !is_tile && base != "NAXIS" && base != "ZNAXIS" && key != "BITPIX" && key != "ZBITPIX" &&
        key != "PCOUNT" && key != "GCOUNT")
      return;
    std::string_view value = card.substr(10, card.find('/', 10) - 10);
    value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
    value = value.substr(0, value.find_last_not_of(' ') + 1);
    if (value.starts_with('+')) value.remove_prefix(1);
    std::int64_t number = 0;
    const auto [stop, error] = std::from_chars(value.begin(), value.end(), number);
    if (card.substr(8, 2) != "= " || error != std::errc() || stop != value.end())
      refuse("the header key " + std::string(key) + " is no whole number");
    if (axes && (number < 0 || number > 999))
      refuse("the header key " + std::string(key) + " = " + std::to_string(number) + " is not from 0 to 999");
    if (is_tile && number < 1) refuse("the header key " + std::string(key) + " is not from 1");
    if (is_tile) tile *= static_cast<double>(number);
    if (tile > most_pixels()) refuse("the tiles of the compressed image claim to be larger than the file has room for");
  }

  /// Whatever the compression, a tile takes a few bytes of a file.
  double most_pixels() const { return 2048 * static_cast<double>(file_size_); }

  fitsfile* file_ = nullptr;
  int status_ = 0;
  std::string path_;
  std::uint64_t file_size_ = 0;  // of the file on disk
  std::uint64_t size_ = 0;       // unpacked
  bool packed_ = false;          // by gzip, as a whole
  ExitCode code_ = ExitCode::input;
  std::string remedy_ = damaged;
};

/// True if the text value of an 80-character header card has its closing quote; other cards have none to miss.
bool has_closing_quote(std::string_view card) {
  const auto value = card.find_first_not_of(' ', 10);
  if (card.substr(8, 2) != "= " || value == card.npos || card[value] != '\'') return true;
  // A doubled quote stands for one inside the text.
  for (std::size_t i = value + 1; i < card.size(); ++i) {
    if (card[i] != '\'') continue;
    if (i + 1 == card.size() || card[i + 1] != '\'') return true;
    ++i;
  }
  return false;
}

/// FITS headers hold printable ASCII only.
std::string ascii(std::string text) {
  for (char& c : text)
    if (c < 32 || c > 126) c = '?';
  return text;
}

/// The tangent plane of this HDU's image; nothing if the header has no right ascension and declination.
/// The axes of the sky must be the first two of the image.
std::optional<TangentPlane> read_tangent_plane(Fits& fits, int height, int width) {
  char* text = nullptr;
  int card_count = 0;
  fits.check(fits_hdr2str(fits.file(), 1, nullptr, 0, &text, &card_count, fits.status()), "cannot read the header");
  std::string cards = ascii(text);
  int ignored = 0;
  fits_free_memory(text, &ignored);
  // wcslib's parser writes past its buffers where a quote is missing.
  for (std::size_t at = 0; at < cards.size(); at += 80) {
    const std::string card = cards.substr(at, 80);
    if (!has_closing_quote(card)) fits.refuse("the header has a text without its closing quote: " + card.substr(0, 40));
  }

  int rejected = 0, count = 0;
  wcsprm* list = nullptr;
  if (const int status = wcspih(cards.data(), card_count, WCSHDR_all, 0, &rejected, &count, &list); status != 0)
    fits.refuse("cannot read the sky coordinates: wcslib: " + std::string(wcshdr_errmsg[status]));
  struct ListOwner {
    int* count;
    wcsprm** list;
    ~ListOwner() { wcsvfree(count, list); }
  } list_owner{&count, &list};
  if (count == 0) return std::nullopt;

  wcsprm& wcs = list[0];
  if (const int status = wcsset(&wcs); status != 0)
    fits.refuse("its sky coordinates are not valid: wcslib: " + std::string(wcs_errmsg[status]),
                "correct CTYPE, CRVAL, CRPIX, CDELT and CD in the header, or remove them and set survey.pixel_arcmin");
  const bool equatorial = wcs.lng == 0 && wcs.lat == 1 && std::strncmp(wcs.lattyp, "DEC", 3) == 0;
  if (!equatorial) return std::nullopt;

  const auto sky = [&](double x, double y) {
    const auto axes = static_cast<std::size_t>(wcs.naxis);
    std::vector<double> pixel(axes, 1.0), intermediate(axes), world(axes);
    pixel[0] = x;
    pixel[1] = y;
    double phi = 0, theta = 0;
    int bad = 0;
    if (const int status =
            wcsp2s(&wcs, 1, wcs.naxis, pixel.data(), intermediate.data(), &phi, &theta, world.data(), &bad);
        status != 0)
      fits.refuse("no sky position at pixel (" + std::to_string(x) + ", " + std::to_string(y) +
                  "): wcslib: " + wcs_errmsg[status]);
    return std::array<double, 2>{world[0], world[1]};
  };

  const bool tangent = std::strcmp(wcs.cel.prj.code, "TAN") == 0;
  TangentPlane plane;
  plane.crpix_x = tangent ? wcs.crpix[0] : 0.5 * (width + 1);
  plane.crpix_y = tangent ? wcs.crpix[1] : 0.5 * (height + 1);
  const auto centre = sky(plane.crpix_x, plane.crpix_y);
  plane.ra_deg = centre[0];
  plane.dec_deg = centre[1];

  // The CD matrix by central differences on the plane; they are exact for TAN, whose pixels are linear there.
  const auto difference = [&](double dx, double dy) {
    const auto before = sky(plane.crpix_x - dx, plane.crpix_y - dy);
    const auto after = sky(plane.crpix_x + dx, plane.crpix_y + dy);
    const auto p = project_tangent(before[0], before[1], centre[0], centre[1]);
    const auto q = project_tangent(after[0], after[1], centre[0], centre[1]);
    return std::array<double, 2>{q[0] - p[0], q[1] - p[1]};
  };
  const auto along_x = difference(0.5, 0.0);
  const auto along_y = difference(0.0, 0.5);
  const double determinant = along_x[0] * along_y[1] - along_y[0] * along_x[1];
  plane.cdelt_x_deg = std::copysign(std::hypot(along_x[0], along_x[1]), determinant);
  plane.cdelt_y_deg = std::hypot(along_y[0], along_y[1]);
  plane.rotation_deg = std::atan2(-along_y[0], along_y[1]) / degree;
  // The same pixels with the rotation in (-90, 90], so that a plain header stays plain.
  if (plane.rotation_deg > 90 || plane.rotation_deg <= -90) {
    plane.rotation_deg += plane.rotation_deg > 0 ? -180 : 180;
    plane.cdelt_x_deg = -plane.cdelt_x_deg;
    plane.cdelt_y_deg = -plane.cdelt_y_deg;
  }
  if (std::abs(plane.rotation_deg) < 1e-7) plane.rotation_deg = 0;  // rounding of the differences
  return plane;
}

/// Moves to the first HDU for which `wanted(type)` holds; false if there is none.
template <class Wanted>
bool find_hdu(Fits& fits, const Wanted& wanted) {
  const int count = fits.hdu_count();
  for (int hdu = 0; hdu < count; ++hdu)
    if (wanted(fits.move_to(hdu))) return true;
  fits.move_to(0);
  return false;
}

/// Names of the columns of the table in this HDU.
std::vector<std::string> column_names(Fits& fits) {
  int count = 0;
  fits.check(fits_get_num_cols(fits.file(), &count, fits.status()), "cannot count the columns");
  std::vector<std::string> names;
  for (int column = 1; column <= count; ++column)
    names.push_back(fits.text_key(("TTYPE" + std::to_string(column)).c_str()));
  return names;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::vector<double> read_table_column(Fits& fits, int column, const std::string& name) {
  fits.require_whole();
  int type = 0;
  LONGLONG repeat = 0, width = 0, rows = 0;
  fits.check(fits_get_eqcoltypell(fits.file(), column, &type, &repeat, &width, fits.status()),
             "cannot read the column type");
  fits.check(fits_get_num_rowsll(fits.file(), &rows, fits.status()), "cannot count the rows");
  int hdu_type = 0;
  fits.check(fits_get_hdu_type(fits.file(), &hdu_type, fits.status()), "cannot read the HDU type");
  if (type == TSTRING || type < 0 || (hdu_type == BINARY_TBL && repeat != 1))
    fits.refuse("column " + name + " does not hold one number a row", "name a column of numbers");
  std::vector<double> values(static_cast<std::size_t>(rows));
  double null = std::numeric_limits<double>::quiet_NaN();
  int any_null = 0;
  if (rows > 0)
    fits.check(fits_read_col(fits.file(), TDOUBLE, column, 1, 1, rows, &null, values.data(), &any_null, fits.status()),
               "cannot read column " + name);
  return values;
}

void write_key(Fits& fits, const FitsKey& entry) {
  const std::string comment = ascii(entry.comment);
  std::visit(
      [&](const auto& value) {
        using Value = std::decay_t<decltype(value)>;
        const char* key = entry.key.c_str();
        if constexpr (std::is_same_v<Value, std::string>) {
          fits_write_key_longstr(fits.file(), key, ascii(value).c_str(), comment.c_str(), fits.status());
        } else if constexpr (std::is_same_v<Value, double>) {
          fits_write_key_dbl(fits.file(), key, value, -16, comment.c_str(), fits.status());
        } else {
          fits_write_key_lng(fits.file(), key, static_cast<LONGLONG>(value), comment.c_str(), fits.status());
        }
      },
      entry.value);
  fits.check(*fits.status(), "cannot write the header key " + entry.key);
}

std::vector<FitsKey> tangent_plane_keys(const TangentPlane& plane) {
  const double cosine = std::cos(plane.rotation_deg * degree);
  const double sine = std::sin(plane.rotation_deg * degree);
  std::vector<FitsKey> keys = {
      {"CTYPE1", "RA---TAN", "right ascension, gnomonic projection"},
      {"CTYPE2", "DEC--TAN", "declination, gnomonic projection"},
      {"CUNIT1", "deg", ""},
      {"CUNIT2", "deg", ""},
      {"CRVAL1", plane.ra_deg, "right ascension of the reference pixel"},
      {"CRVAL2", plane.dec_deg, "declination of the reference pixel"},
      {"CRPIX1", plane.crpix_x, "reference pixel, the first is 1"},
      {"CRPIX2", plane.crpix_y, ""},
      {"CDELT1", plane.cdelt_x_deg, "degrees a pixel"},
      {"CDELT2", plane.cdelt_y_deg, ""},
  };
  if (plane.rotation_deg != 0) {
    keys.push_back({"PC1_1", cosine, ""});
    keys.push_back({"PC1_2", -sine * plane.cdelt_y_deg / plane.cdelt_x_deg, ""});
    keys.push_back({"PC2_1", sine * plane.cdelt_x_deg / plane.cdelt_y_deg, ""});
    keys.push_back({"PC2_2", cosine, ""});
  }
  keys.push_back({"RADESYS", "ICRS", ""});
  return keys;
}

}  // namespace

FitsImage read_fits_image(const std::string& path) {
  Fits fits(path);
  std::vector<LONGLONG> axes;
  const bool found = find_hdu(fits, [&](int type) {
    if (type != IMAGE_HDU) return false;
    axes = fits.axes();
    return axes.size() >= 2;
  });
  if (!found) fits.refuse("no HDU of the file holds an image of two dimensions", "give a map");

  // More values than any map has are damage, and are refused before memory is asked for.
  constexpr LONGLONG most = LONGLONG{1} << 31;
  LONGLONG values = 1;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] < 1 || axes[i] >= most / values || (i > 2 && axes[i] != 1))
      fits.refuse("NAXIS" + std::to_string(i + 1) + " = " + std::to_string(axes[i]) + " is not an axis of a map",
                  "give an image [y, x] or a few planes [plane, y, x]");
    values *= axes[i];
  }
  fits.require_whole();

  FitsImage image;
  image.width = static_cast<int>(axes[0]);
  image.height = static_cast<int>(axes[1]);
  image.planes = axes.size() > 2 ? static_cast<int>(axes[2]) : 1;
  image.values = fits.pixels(values);
  image.unit = fits.text_key("BUNIT");
  image.wcs = read_tangent_plane(fits, image.height, image.width);
  return image;
}

std::vector<double> read_fits_column(const std::string& path, const std::string& name) {
  Fits fits(path);
  if (name.empty()) {
    std::vector<LONGLONG> axes;
    const bool found = find_hdu(fits, [&](int type) {
      axes.clear();
      if (type == IMAGE_HDU) axes = fits.axes();
      return type != IMAGE_HDU || !axes.empty();
    });
    if (!found) fits.refuse("the file holds no data", "give a file with a column of numbers");
    if (axes.empty()) {
      const auto names = column_names(fits);
      if (names.size() != 1)
        fits.refuse("the table has " + std::to_string(names.size()) + " columns, not one",
                    "give the file as survey.catalogue.file and name its columns");
      return read_table_column(fits, 1, names[0]);
    }
    const LONGLONG longest = *std::max_element(axes.begin(), axes.end());
    if (std::any_of(axes.begin(), axes.end(), [&](LONGLONG n) { return n < 1; }) ||
        std::count(axes.begin(), axes.end(), 1) < static_cast<std::ptrdiff_t>(axes.size()) - 1)
      fits.refuse("the file holds an image, not a column", "give a file with one value a galaxy");
    fits.require_whole();
    return fits.pixels(longest);
  }

  std::string known;
  int column = 0;
  const bool found = find_hdu(fits, [&](int type) {
    if (type == IMAGE_HDU) return false;
    const auto names = column_names(fits);
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (lower(names[i]) == lower(name)) {
        column = static_cast<int>(i) + 1;
        return true;
      }
      known += (known.empty() ? "" : ", ") + names[i];
    }
    return false;
  });
  if (!found)
    fits.refuse("the file has no column " + name,
                known.empty() ? "it holds no table: give a catalogue, or one file a column" : "it has " + known);
  return read_table_column(fits, column, name);
}

struct FitsColumn::Table {
  Fits fits;
  int column = 0;         // from 1
  bool integers = false;  // only they have a TNULL
  LONGLONG repeat = 0, rows = 0;
};

FitsColumn::FitsColumn(const std::string& path, const std::string& column)
    : table_(std::make_unique<Table>(Table{Fits(path)})) {
  Fits& fits = table_->fits;
  const bool by_number = !column.empty() && column.find_first_not_of("0123456789") == column.npos;
  std::string known;
  const bool found = find_hdu(fits, [&](int type) {
    if (type != BINARY_TBL) return false;
    const auto names = column_names(fits);
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (by_number ? std::to_string(i) == column : lower(names[i]) == lower(column)) {
        table_->column = static_cast<int>(i) + 1;
        return true;
      }
      known += (known.empty() ? "" : ", ") + names[i];
    }
    return false;
  });
  if (!found)
    fits.refuse("the file has no binary table with a column " + column,
                known.empty() ? "give a file with such a table" : "it has " + known + ", counted from 0");
  fits.require_whole();
  int type = 0;
  LONGLONG width = 0;
  fits.check(fits_get_eqcoltypell(fits.file(), table_->column, &type, &table_->repeat, &width, fits.status()),
             "cannot read the column type");
  fits.check(fits_get_num_rowsll(fits.file(), &table_->rows, fits.status()), "cannot count the rows");
  const bool number = type == TBYTE || type == TSBYTE || type == TSHORT || type == TUSHORT || type == TINT ||
                      type == TUINT || type == TLONG || type == TULONG || type == TLONGLONG || type == TFLOAT ||
                      type == TDOUBLE;
  if (!number || table_->repeat < 1 || table_->rows < 0)
    fits.refuse("column " + column + " does not hold numbers", "name a column of numbers");
  table_->integers = type != TFLOAT && type != TDOUBLE;
  fits.require_room(table_->rows, table_->repeat);
}

FitsColumn::~FitsColumn() = default;

std::int64_t FitsColumn::size() const { return table_->rows * table_->repeat; }

void FitsColumn::read(std::int64_t first, std::int64_t n, float* out) const {
  Fits& fits = table_->fits;
  require(first >= 0 && n >= 0 && first <= size() - n, ExitCode::usage, "there are no such values", fits.where());
  if (n == 0) return;
  float nan = std::numeric_limits<float>::quiet_NaN();
  void* null = table_->integers ? &nan : nullptr;  // as in Fits::pixels
  int any_null = 0;
  fits.check(fits_read_col(fits.file(), TFLOAT, table_->column, first / table_->repeat + 1, first % table_->repeat + 1,
                           n, null, out, &any_null, fits.status()),
             "cannot read the column");
}

std::string FitsColumn::unit() const {
  return table_->fits.text_key(("TUNIT" + std::to_string(table_->column)).c_str());
}

std::string FitsColumn::key(const std::string& name) const { return table_->fits.text_key(name.c_str()); }

void write_fits_column(const std::string& path, const std::string& column, const float* values, std::int64_t n,
                       int a_row, const std::string& unit, const std::vector<FitsKey>& keys) {
  const auto write = [&](const std::string& temporary) {
    Fits fits = Fits::create(temporary);
    std::string name = ascii(column), form = std::to_string(a_row) + "E", units = ascii(unit);
    std::array<char*, 1> names = {name.data()}, forms = {form.data()}, all_units = {units.data()};
    fits.check(fits_create_tbl(fits.file(), BINARY_TBL, n / a_row, 1, names.data(), forms.data(), all_units.data(),
                               nullptr, fits.status()),
               "cannot write the header");
    for (const FitsKey& entry : keys) write_key(fits, entry);
    fits.check(fits_write_col(fits.file(), TFLOAT, 1, 1, 1, n, const_cast<float*>(values), fits.status()),
               "cannot write the table");
    fits.check(fits_write_chksum(fits.file(), fits.status()), "cannot write the checksums");
    fits.close();
  };
  const auto verify = [&](const std::string& temporary) {
    const FitsColumn back(temporary, "0");
    bool same = back.size() == n;
    std::vector<float> piece(1 << 16);
    for (std::int64_t at = 0; same && at < n; at += static_cast<std::int64_t>(piece.size())) {
      const auto count = std::min(n - at, static_cast<std::int64_t>(piece.size()));
      back.read(at, count, piece.data());
      for (std::int64_t i = 0; same && i < count; ++i) {
        const float value = values[at + i], read = piece[static_cast<std::size_t>(i)];
        same = read == value || (std::isnan(read) && std::isnan(value));
      }
    }
    require(same, ExitCode::file_system, "the table read back differs from the one written", path,
            "check the disk and its free space");
  };
  write_then_rename(path, static_cast<std::uint64_t>(n) * sizeof(float), write, verify);
}

void write_fits_map(const std::string& path, const float* map, Grid grid, const std::string& unit,
                    const std::string& long_name, const std::optional<TangentPlane>& wcs,
                    const std::vector<FitsKey>& keys) {
  const auto write = [&](const std::string& temporary) {
    Fits fits = Fits::create(temporary);
    std::array<LONGLONG, 2> axes = {grid.width, grid.height};
    fits.check(fits_create_imgll(fits.file(), FLOAT_IMG, 2, axes.data(), fits.status()), "cannot write the header");
    if (!unit.empty()) write_key(fits, {"BUNIT", unit, ""});
    if (!long_name.empty()) write_key(fits, {"OBJECT", long_name, ""});
    if (wcs) {
      for (const FitsKey& entry : tangent_plane_keys(*wcs)) write_key(fits, entry);
    }
    for (const FitsKey& entry : keys) write_key(fits, entry);
    // CFITSIO takes a pointer to non-const and does not write to it.
    fits.check(fits_write_img(fits.file(), TFLOAT, 1, grid.pixels(), const_cast<float*>(map), fits.status()),
               "cannot write the image");
    fits.check(fits_write_chksum(fits.file(), fits.status()), "cannot write the checksums");
    fits.close();
  };
  const auto verify = [&](const std::string& temporary) {
    const FitsImage back = read_fits_image(temporary);
    bool same = back.height == grid.height && back.width == grid.width && back.planes == 1;
    for (std::size_t i = 0; same && i < back.values.size(); ++i) {
      const double value = map[i];
      same = back.values[i] == value || (std::isnan(back.values[i]) && std::isnan(value));
    }
    require(same, ExitCode::file_system, "the map read back differs from the map written", path,
            "check the disk and its free space");
  };
  write_then_rename(path, static_cast<std::uint64_t>(grid.pixels()) * sizeof(float), write, verify);
}

}  // namespace umbriel
