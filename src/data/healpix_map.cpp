#include "umbriel/data/healpix_map.hpp"

#include <healpix_base.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "umbriel/core/check.hpp"

namespace umbriel {

namespace {

constexpr double degree = std::numbers::pi / 180;
constexpr float unseen = -1.6375e30F;

pointing direction(double longitude_deg, double latitude_deg) {
  double phi = std::fmod(longitude_deg, 360.0);
  if (phi < 0) phi += 360.0;
  if (phi >= 360.0) phi = 0;  // what a tiny negative angle became
  return {std::clamp((90 - latitude_deg) * degree, 0.0, std::numbers::pi), phi * degree};
}

/// Missing pixels of a file are NaN here. Programs write UNSEEN with different last digits.
void mark_missing(float* values, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    if (std::fabs(values[i] - unseen) < 1e-5F * -unseen || !std::isfinite(values[i]))
      values[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

/// The sides of a table with `size` pixels, from its keys. @throws Error(input)
HealpixPixels pixels_of(const FitsColumn& column, const std::string& path) {
  const auto refuse = [&](const std::string& what, const std::string& remedy) {
    throw Error(ExitCode::input, what, path, remedy);
  };
  const std::string type = column.key("PIXTYPE"), order = column.key("ORDERING"), scheme = column.key("INDXSCHM"),
                    nside_key = column.key("NSIDE");
  if (type != "HEALPIX") refuse("the table is no HEALPix map: PIXTYPE is '" + type + "'", "give a HEALPix map");
  if (scheme == "EXPLICIT")
    refuse("the map covers a part of the sky only (INDXSCHM = 'EXPLICIT')",
           "write it as a full sky first: healpy.read_map and write_map with partial=False");
  if (order != "RING" && order != "NESTED" && order != "NEST")
    refuse("the order of the pixels, ORDERING = '" + order + "', is neither RING nor NESTED", "correct the header");
  const auto nside = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(column.size()) / 12)));
  if (nside < 1 || nside > HealpixPixels::max_nside || 12 * nside * nside != column.size())
    refuse("the column has " + std::to_string(column.size()) + " values, not 12 nside^2 with an nside from 1 to " +
               std::to_string(HealpixPixels::max_nside),
           "give a map of the full sky");
  if (nside_key != std::to_string(nside))
    refuse("the header says NSIDE = " + nside_key + ", and the column has pixels for " + std::to_string(nside),
           "correct the header");
  const bool nested = order != "RING";
  if (nested && (nside & (nside - 1)) != 0)
    refuse("NSIDE = " + std::to_string(nside) + " is no power of two, and the order is NESTED", "correct the header");
  return {static_cast<int>(nside), nested};
}

}  // namespace

struct HealpixPixels::Base {
  T_Healpix_Base<std::int64_t> healpix;
};

HealpixPixels::HealpixPixels(int nside, bool nested) : nside_(nside), nested_(nested) {
  require(nside >= 1 && nside <= max_nside && (!nested || (nside & (nside - 1)) == 0), ExitCode::input,
          "there are no HEALPix pixels with nside = " + std::to_string(nside), "",
          "give a power of two from 1 to " + std::to_string(max_nside));
  base_ = std::make_shared<const Base>(Base{T_Healpix_Base<std::int64_t>(nside, nested ? NEST : RING, SET_NSIDE)});
}

double HealpixPixels::pixel_deg() const { return std::sqrt(std::numbers::pi / 3) / nside_ / degree; }

std::int64_t HealpixPixels::at(double longitude_deg, double latitude_deg) const {
  return base_->healpix.ang2pix(direction(longitude_deg, latitude_deg));
}

std::array<double, 2> HealpixPixels::centre(std::int64_t pixel) const {
  const pointing p = base_->healpix.pix2ang(pixel);
  return {p.phi / degree, 90 - p.theta / degree};
}

PixelNeighbours HealpixPixels::neighbours(double longitude_deg, double latitude_deg) const {
  fix_arr<std::int64_t, 4> pixel;
  fix_arr<double, 4> weight;
  base_->healpix.get_interpol(direction(longitude_deg, latitude_deg), pixel, weight);
  PixelNeighbours out;
  for (std::size_t i = 0; i < 4; ++i) {
    out.pixel[i] = pixel[i];
    out.weight[i] = weight[i];
  }
  return out;
}

std::vector<PixelRange> HealpixPixels::disc(double longitude_deg, double latitude_deg, double radius_deg) const {
  rangeset<std::int64_t> found;
  base_->healpix.query_disc(direction(longitude_deg, latitude_deg), radius_deg * degree, found);
  std::vector<PixelRange> ranges;
  for (tsize i = 0; i < found.nranges(); ++i) ranges.push_back({found.ivbegin(i), found.ivend(i)});
  return ranges;
}

HealpixMap::HealpixMap(const HealpixPixels& pixels)
    : pixels_(pixels), slots_(static_cast<std::size_t>((pixels.count() + block - 1) / block), -1) {}

HealpixMap::HealpixMap(const HealpixPixels& pixels, std::vector<float> values) : HealpixMap(pixels) {
  require(static_cast<std::int64_t>(values.size()) == pixels.count(), ExitCode::usage, "the values are not one a pixel",
          "HealpixMap");
  values_ = std::move(values);
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i] = static_cast<std::int32_t>(i);
}

void HealpixMap::refuse(std::int64_t pixel) const {
  throw Error(ExitCode::usage, "pixel " + std::to_string(pixel) + " of the map was not read", "HealpixMap", "");
}

float HealpixMap::interpolate(double longitude_deg, double latitude_deg) const {
  const PixelNeighbours near = pixels_.neighbours(longitude_deg, latitude_deg);
  double sum = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    if (near.weight[i] != 0) sum += near.weight[i] * static_cast<double>((*this)[near.pixel[i]]);
  }
  return static_cast<float>(sum);
}

HealpixFile::HealpixFile(const std::string& path, const std::string& field)
    : column_(path, field), pixels_(pixels_of(column_, path)) {
  coordinates_ = column_.key("COORDSYS").substr(0, 1);
}

HealpixMap HealpixFile::read() const { return read({{0, pixels_.count()}}); }

HealpixMap HealpixFile::read(const std::vector<PixelRange>& ranges) const {
  constexpr std::int64_t block = HealpixMap::block;
  HealpixMap map(pixels_);
  std::vector<std::int32_t>& slots = map.slots_;
  std::int32_t count = 0;
  for (const PixelRange& range : ranges) {
    for (std::int64_t i = range.first / block; i * block < range.end; ++i) slots[static_cast<std::size_t>(i)] = 0;
  }
  for (std::int32_t& slot : slots)
    if (slot == 0) slot = count++;
  map.values_.assign(static_cast<std::size_t>(count) * block, std::numeric_limits<float>::quiet_NaN());
  // Blocks that follow each other are read at once.
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i] < 0) continue;
    std::size_t end = i;
    while (end < slots.size() && slots[end] >= 0) ++end;
    const std::int64_t first = static_cast<std::int64_t>(i) * block;
    const std::int64_t n = std::min(static_cast<std::int64_t>(end) * block, pixels_.count()) - first;
    float* out = map.values_.data() + static_cast<std::int64_t>(slots[i]) * block;
    column_.read(first, n, out);
    mark_missing(out, n);
    i = end;
  }
  return map;
}

std::uint64_t HealpixFile::bytes_of(const std::vector<PixelRange>& ranges) {
  constexpr std::int64_t block = HealpixMap::block;
  std::int64_t blocks = 0;
  for (const PixelRange& range : ranges) blocks += (range.end + block - 1) / block - range.first / block;
  return static_cast<std::uint64_t>(blocks * block) * sizeof(float);
}

void write_healpix_map(const std::string& path, const HealpixPixels& pixels, const std::vector<float>& values,
                       const std::string& column, const std::string& unit, const std::string& coordinates,
                       const std::vector<FitsKey>& keys) {
  require(static_cast<std::int64_t>(values.size()) == pixels.count(), ExitCode::usage, "the values are not one a pixel",
          "write_healpix_map");
  std::vector<float> out = values;
  for (float& value : out)
    if (std::isnan(value)) value = unseen;
  std::vector<FitsKey> all = {
      {"PIXTYPE", "HEALPIX", "HEALPix pixelisation"},
      {"ORDERING", pixels.nested() ? "NESTED" : "RING", "order of the pixels"},
      {"NSIDE", std::int64_t{pixels.nside()}, "the sky has 12 NSIDE^2 pixels"},
      {"FIRSTPIX", std::int64_t{0}, "first pixel, counted from 0"},
      {"LASTPIX", pixels.count() - 1, "last pixel"},
      {"INDXSCHM", "IMPLICIT", "a value for each pixel, in order"},
      {"OBJECT", "FULLSKY", ""},
      {"BAD_DATA", static_cast<double>(unseen), "value of a missing pixel"},
  };
  if (!coordinates.empty()) all.push_back({"COORDSYS", coordinates, "G Galactic, C equatorial, E ecliptic"});
  all.insert(all.end(), keys.begin(), keys.end());
  write_fits_column(path, column, out.data(), pixels.count(), pixels.count() % 1024 == 0 ? 1024 : 1, unit, all);
}

}  // namespace umbriel
