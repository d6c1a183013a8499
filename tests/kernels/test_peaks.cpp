// Local maxima, by hand.
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "umbriel/maps/peaks.hpp"

namespace umbriel {
namespace {

/// One line of digits a row; returns a line of '#' (peak) and '.' a row.
std::vector<std::string> peaks_of(const std::vector<std::string>& rows, float threshold) {
  const int height = static_cast<int>(rows.size()), width = static_cast<int>(rows[0].size());
  HostMaps host("maps", 1, height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const char digit = rows[static_cast<std::size_t>(y)][static_cast<std::size_t>(x)];
      host(0, y, x) = digit == 'n' ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(digit - '0');
    }
  }
  const MapBatch maps("maps", 1, height, width), found("found", 1, height, width);
  Kokkos::deep_copy(maps, host);
  Kokkos::deep_copy(found, 5.0f);
  local_maxima(Space(), maps, 1, threshold, found);
  const auto result = on_host(found);
  std::vector<std::string> picture;
  for (int y = 0; y < height; ++y) {
    std::string row;
    for (int x = 0; x < width; ++x) row += result(0, y, x) == 1 ? '#' : result(0, y, x) == 0 ? '.' : '?';
    picture.push_back(row);
  }
  return picture;
}

using Picture = std::vector<std::string>;

TEST(LocalMaxima, AreAboveAllEightNeighbours) {
  EXPECT_EQ(peaks_of({"000000", "050040", "000000", "001000", "000300", "000000"}, 0),
            (Picture{"......", ".#..#.", "......", "......", "...#..", "......"}));
}

TEST(LocalMaxima, FailByAnyOneNeighbour) {
  for (int dy = -1; dy <= 1; ++dy) {
    for (int dx = -1; dx <= 1; ++dx) {
      if (dy == 0 && dx == 0) continue;
      Picture rows(5, "00000");
      rows[2][2] = '5';
      rows[static_cast<std::size_t>(2 + dy)][static_cast<std::size_t>(2 + dx)] = '6';
      const Picture picture = peaks_of(rows, 0);
      EXPECT_EQ(picture[2][2], '.');
      EXPECT_EQ(picture[static_cast<std::size_t>(2 + dy)][static_cast<std::size_t>(2 + dx)], '#');
    }
  }
}

TEST(LocalMaxima, DoNotCountPlateaus) {
  EXPECT_EQ(peaks_of({"00000", "05500", "00000", "00020", "00000"}, 0),
            (Picture{".....", ".....", ".....", "...#.", "....."}));
  EXPECT_EQ(peaks_of({"0000", "0500", "0050", "0000"}, 0), (Picture{"....", "....", "....", "...."}));  // by a corner
}

TEST(LocalMaxima, AreNeverOnTheEdge) {
  EXPECT_EQ(peaks_of({"90009", "00000", "90009"}, 0), (Picture{".....", ".....", "....."}));
  EXPECT_EQ(peaks_of({"000", "080", "000"}, 0), (Picture{"...", ".#.", "..."}));
  EXPECT_EQ(peaks_of({"09", "90"}, 0), (Picture{"..", ".."}));
  EXPECT_EQ(peaks_of({"9"}, 0), (Picture{"."}));
}

TEST(LocalMaxima, AreStrictlyAboveTheThreshold) {
  const Picture rows = {"00000", "03040", "00000"};
  EXPECT_EQ(peaks_of(rows, 2.5f)[1], ".#.#.");
  EXPECT_EQ(peaks_of(rows, 3)[1], "...#.");
  EXPECT_EQ(peaks_of(rows, 4)[1], ".....");
  EXPECT_EQ(peaks_of(rows, -std::numeric_limits<float>::infinity())[1], ".#.#.");
}

TEST(LocalMaxima, DoNotTouchPixelsThatAreNotNumbers) {
  EXPECT_EQ(peaks_of({"00000", "05n00", "00000", "00700", "00000"}, 0),
            (Picture{".....", ".....", ".....", "..#..", "....."}));
}

TEST(LocalMaxima, AreFoundInEveryMapOfABatchAndNoFurther) {
  const MapBatch maps("maps", 3, 3, 3), found("found", 3, 3, 3);
  HostMaps host("maps", 3, 3, 3);
  for (int map = 0; map < 3; ++map) host(map, 1, 1) = 1;
  Kokkos::deep_copy(maps, host);
  Kokkos::deep_copy(found, 7.0f);
  local_maxima(Space(), maps, 2, 0, found);
  const auto result = on_host(found);
  EXPECT_EQ(result(0, 1, 1), 1);
  EXPECT_EQ(result(1, 1, 1), 1);
  EXPECT_EQ(result(2, 1, 1), 7);
}

}  // namespace
}  // namespace umbriel
