// Loops over batches and the sums whose bits depend on a map alone.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "umbriel/core/loops.hpp"

namespace umbriel {
namespace {

/// Values of very different size and sign, so that the order of a sum shows in its bits.
HostMaps uneven_maps(int n, int height, int width) {
  HostMaps maps("maps", n, height, width);
  for (int map = 0; map < n; ++map) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const int i = (map * 31 + y) * 57 + x;
        maps(map, y, x) = static_cast<float>(std::sin(1.7 * i) * std::pow(10.0, 9 * std::sin(0.37 * i)));
      }
    }
  }
  return maps;
}

std::vector<double> sums_of(const HostMaps& host) {
  const int n = static_cast<int>(host.extent(0)), height = static_cast<int>(host.extent(1));
  const MapBatch maps = on_device(host);
  const SumWorkspace workspace(n, height);
  const View1<double> out("out", host.extent(0));
  sum_each_map(
      "test_sum", Space(), n, height, static_cast<int>(host.extent(2)), workspace, out,
      KOKKOS_LAMBDA(int map, int y, int x) { return maps(map, y, x); });
  const auto result = on_host(out);
  return {result.data(), result.data() + n};
}

/// The same through stretches of rows.
std::vector<double> sums_by_rows_of(const HostMaps& host) {
  const int n = static_cast<int>(host.extent(0)), height = static_cast<int>(host.extent(1));
  const MapBatch maps = on_device(host);
  const SumWorkspace workspace(n, height);
  const View1<double> out("out", host.extent(0));
  sum_each_map_by_rows(
      "test_sum", Space(), n, height, static_cast<int>(host.extent(2)), workspace, out,
      KOKKOS_LAMBDA(int map, int y, int begin, int end, float* terms) {
        for (int x = begin; x < end; ++x) terms[x - begin] = maps(map, y, x);
      });
  const auto result = on_host(out);
  return {result.data(), result.data() + n};
}

// nvcc takes no device lambda in a test's body, which is a private function.
struct Square {
  MapBatch squares;
  KOKKOS_INLINE_FUNCTION float operator()(int map, int y, int x) const {
    const float value = static_cast<float>(15 * map + 5 * y + x);
    squares(map, y, x) = value * value;
    return value;
  }
};

struct One {
  KOKKOS_INLINE_FUNCTION double operator()(int, int, int) const { return 1.0; }
};

struct Visit {
  MapBatch visits;
  KOKKOS_INLINE_FUNCTION void operator()(int map, int y, int x) const {
    visits(map, y, x) += static_cast<float>(1 + map + 10 * y + 1000 * x);
  }
  KOKKOS_INLINE_FUNCTION void operator()(int map, int y, int begin, int end) const {
    for (int x = begin; x < end; ++x) (*this)(map, y, x);
  }
};

/// The documented order: lane l of a row adds x = l, l + 16, ...; lanes, then rows, in index order.
double sum_in_documented_order(const HostMaps& maps, int map) {
  double total = 0;
  for (std::size_t y = 0; y < maps.extent(1); ++y) {
    double row = 0;
    for (std::size_t lane = 0; lane < sum_lanes; ++lane) {
      double sum = 0;
      for (std::size_t x = lane; x < maps.extent(2); x += sum_lanes) sum += static_cast<double>(maps(map, y, x));
      row += sum;
    }
    total += row;
  }
  return total;
}

TEST(SumEachMap, HasTheBitsOfTheDocumentedOrderForEveryWidth) {
  for (int width = 1; width <= 67; ++width) {
    const HostMaps maps = uneven_maps(3, 5, width);
    const std::vector<double> sums = sums_of(maps);
    for (int map = 0; map < 3; ++map) {
      EXPECT_EQ(std::bit_cast<std::uint64_t>(sums[map]),
                std::bit_cast<std::uint64_t>(sum_in_documented_order(maps, map)))
          << "width " << width << ", map " << map;
    }
  }
}

TEST(SumEachMap, AgreesWithAFloat64Sum) {
  for (const auto& [height, width] : {std::pair{1, 1}, {7, 13}, {64, 64}, {33, 100}}) {
    const HostMaps maps = uneven_maps(2, height, width);
    const std::vector<double> sums = sums_of(maps);
    for (int map = 0; map < 2; ++map) {
      long double exact = 0, magnitude = 0;
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          exact += static_cast<long double>(maps(map, y, x));
          magnitude += std::fabs(static_cast<long double>(maps(map, y, x)));
        }
      }
      EXPECT_NEAR(sums[map], static_cast<double>(exact), static_cast<double>(magnitude) * 1e-14);
    }
  }
}

TEST(SumEachMap, HasTheSameBitsAtEveryPlaceOfEveryBatch) {
  constexpr int height = 9, width = 37;
  const HostMaps one = uneven_maps(1, height, width);
  const double alone = sums_of(one)[0];
  for (const int batch : {2, 3, 7, 16}) {
    for (int place = 0; place < batch; ++place) {
      HostMaps maps = uneven_maps(batch, height, width);
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) maps(place, y, x) = one(0, y, x);
      }
      EXPECT_EQ(std::bit_cast<std::uint64_t>(sums_of(maps)[place]), std::bit_cast<std::uint64_t>(alone))
          << "place " << place << " of " << batch;
    }
  }
}

TEST(SumEachMapByRows, HasTheBitsOfTheDocumentedOrderForEveryWidth) {
  for (int width = 1; width <= 300; ++width) {
    const HostMaps maps = uneven_maps(2, 3, width);
    const std::vector<double> sums = sums_by_rows_of(maps);
    for (int map = 0; map < 2; ++map) {
      EXPECT_EQ(std::bit_cast<std::uint64_t>(sums[map]),
                std::bit_cast<std::uint64_t>(sum_in_documented_order(maps, map)))
          << "width " << width << ", map " << map;
    }
  }
}

TEST(SumEachMap, MayWriteArraysAndLeavesOtherSumsAlone) {
  const MapBatch squares("squares", 2, 3, 5);
  const SumWorkspace workspace(4, 8);  // larger than needed
  const View1<double> out("out", 3);
  Kokkos::deep_copy(out, -1.0);
  sum_each_map("test_write", Space(), 2, 3, 5, workspace, out, Square{squares});
  const auto sums = on_host(out);
  const auto written = on_host(squares);
  EXPECT_EQ(sums(0), 105);
  EXPECT_EQ(sums(1), 330);
  EXPECT_EQ(sums(2), -1);
  EXPECT_EQ(written(1, 2, 4), 29.0f * 29.0f);
}

TEST(SumEachMap, RefusesAWorkspaceOrOutputThatIsTooSmall) {
  const auto sum = [](int maps, int height, int room_maps, int room_height, int room_out) {
    const SumWorkspace workspace(room_maps, room_height);
    const View1<double> out("out", static_cast<std::size_t>(room_out));
    sum_each_map("test_small", Space(), maps, height, 4, workspace, out, One{});
  };
  EXPECT_NO_THROW(sum(2, 3, 2, 3, 2));
  EXPECT_THROW(sum(2, 3, 1, 3, 2), Error);
  EXPECT_THROW(sum(2, 3, 2, 2, 2), Error);
  EXPECT_THROW(sum(2, 3, 2, 3, 1), Error);
  EXPECT_NO_THROW(sum(0, 3, 0, 0, 0));
}

TEST(ForEachElement, VisitsEveryElementOnce) {
  for (const auto& [n, height, width] : {std::tuple{1, 1, 1}, {3, 5, 7}, {2, 16, 33}}) {
    const MapBatch visits("visits", n + 1, height, width);
    for_each_element("test_visit", Space(), n, height, width, Visit{visits});
    for_each_element("test_nothing", Space(), 0, height, width, Visit{visits});
    const MapBatch by_rows("by_rows", n + 1, height, width);
    for_each_row("test_visit_rows", Space(), n, height, width, Visit{by_rows});
    for_each_row("test_no_rows", Space(), 0, height, width, Visit{by_rows});
    const auto seen_by_rows = on_host(by_rows);
    const auto seen = on_host(visits);
    for (int map = 0; map <= n; ++map) {
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          EXPECT_EQ(seen_by_rows(map, y, x), seen(map, y, x));
          EXPECT_EQ(seen(map, y, x), map < n ? static_cast<float>(1 + map + 10 * y + 1000 * x) : 0.0f);
        }
      }
    }
  }
}

}  // namespace
}  // namespace umbriel
