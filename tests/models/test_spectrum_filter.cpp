#include "umbriel/models/spectrum_filter.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/simulation/stationary_field.hpp"

namespace umbriel {
namespace {

constexpr double pixel = 2;
const Grid grid{24, 32};

TEST(SpectrumFilter, IsOfModesOfTheMirroredField) {
  const SpectrumFilter filter{{100, 3000}, {0.5, 2}};
  const int ky = 3, kx = 5;
  const double l = std::hypot(ky * multipole({48, 64}, pixel, 1, 0), kx * multipole({48, 64}, pixel, 0, 1));
  const double factor = 0.5 + 1.5 * (l - 100) / 2900;
  const MapBatch fields("fields", 3, grid.height, grid.width);
  const auto host = Kokkos::create_mirror_view(HostMemory{}, fields);
  const auto mode = [&](int y, int x) {
    return std::cos(std::numbers::pi * ky * (y + 0.5) / grid.height) *
           std::cos(std::numbers::pi * kx * (x + 0.5) / grid.width);
  };
  for (int n = 0; n < 3; ++n) {
    for (int y = 0; y < grid.height; ++y)
      for (int x = 0; x < grid.width; ++x) host(n, y, x) = static_cast<float>(7 * n + (n + 1) * mode(y, x));
  }
  Kokkos::deep_copy(fields, host);
  const Space space;
  MirroredFilter(filter, grid, pixel, 4).apply(space, 2, fields, fields);
  space.fence();
  const auto filtered = on_host(fields);
  for (int n = 0; n < 3; ++n) {
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x)
        ASSERT_NEAR(filtered(n, y, x), 7 * n + (n < 2 ? factor : 1) * (n + 1) * mode(y, x), 3e-6) << n << y << x;
    }
  }
}

MapBatch fields_of(std::uint32_t stream, std::int64_t first, std::int64_t count, double steepness) {
  std::vector<double> l, power;
  for (double at = 50; at < 9000; at *= 1.2) {
    l.push_back(at);
    power.push_back(std::pow(1 + at / 400, -steepness));
  }
  StationaryField field(grid, pixel, l, power, 1);
  const MapBatch out("fields", count, grid.height, grid.width);
  const View1<DrawKey> key("key", 1);
  const Space space;
  for (std::int64_t i = 0; i < count; ++i) {
    Kokkos::deep_copy(key, DrawKey{4, Purpose::test, static_cast<std::uint32_t>(first + i), stream});
    field.draw(space, key, 1, Kokkos::subview(out, std::make_pair(i, i + 1), Kokkos::ALL, Kokkos::ALL));
  }
  space.fence();
  return out;
}

/// Of standardised exponentials, in pixels away from the edges: their mean square difference from the pixel to the
/// right.
double roughness(const MapBatch& fields) {
  const auto u = on_host(fields);
  double sum = 0;
  for (std::size_t n = 0; n < u.extent(0); ++n) {
    double moments[2] = {}, square = 0;
    for (std::size_t y = 3; y < 21; ++y) {
      for (std::size_t x = 4; x < 28; ++x) {
        const double value = std::exp(static_cast<double>(u(n, y, x))),
                     next = std::exp(static_cast<double>(u(n, y, x + 1)));
        moments[0] += value / 432, moments[1] += value * value / 432, square += (next - value) * (next - value) / 432;
      }
    }
    sum += square / (moments[1] - moments[0] * moments[0]);
  }
  return sum / static_cast<double>(u.extent(0));
}

TEST(SpectrumFilter, GivesMapsTheSpectrumOfThoseThatTheyAreToBeLike) {
  const Communicator world = Communicator::world();
  constexpr std::int64_t drawn = 301, real = 400;
  FieldTransformSettings settings;  // u = ln map
  settings.kappa0 = 1e-6;
  settings.multipole = {1};
  settings.power = {1};
  FieldTransform transform(settings, grid, pixel);
  const Space space;
  const ShardRange mine = shard_range(drawn, world.rank(), world.size());
  const MapBatch to_be_like = fields_of(1, 0, real, 4);
  const auto fit = [&](const Communicator& comm, const ShardRange& share) {
    return fit_spectrum_filter(comm, space, transform, grid, pixel, fields_of(0, share.first, share.count, 3.5),
                               to_be_like);
  };
  const SpectrumFilter filter = fit(world, mine);
  // One rank by itself finds the same bits.
  const SpectrumFilter alone = fit(world.split(world.rank()), {0, drawn});
  EXPECT_EQ(filter.factor, alone.factor);
  EXPECT_EQ(filter.multipole, alone.multipole);
  EXPECT_GT(filter.factor.front(), 1.2 * filter.factor.back());

  // And fields that it was not fitted to: rough ones have become as smooth as they should, with the variance they had.
  const MapBatch fresh = fields_of(2, 0, real, 3.5), filtered("filtered", real, grid.height, grid.width);
  MirroredFilter(filter, grid, pixel, real).apply(space, real, fresh, filtered);
  space.fence();
  const double wanted = roughness(to_be_like);
  EXPECT_GT(roughness(fresh), 1.15 * wanted);
  EXPECT_NEAR(roughness(filtered), wanted, 0.02 * wanted);
  const View1<double> mean("mean", real), before("before", real), after("after", real);
  SumWorkspace workspace;
  standardise(space, fresh, real, filtered, mean, before, workspace);
  MirroredFilter(filter, grid, pixel, real).apply(space, real, fresh, filtered);
  standardise(space, filtered, real, filtered, mean, after, workspace);
  space.fence();
  double squares[2] = {};
  for (std::size_t i = 0; i < real; ++i) {
    squares[0] += std::pow(on_host(before)(i), 2);
    squares[1] += std::pow(on_host(after)(i), 2);
  }
  EXPECT_NEAR(squares[1] / squares[0], 1, 0.02);
}

/// Of fields that have hardly any power where they should have much, noise is not made into structure.
TEST(SpectrumFilter, MultipliesByNoMoreThanTwoEitherWay) {
  FieldTransformSettings settings;
  settings.kappa0 = 1e-6;
  settings.multipole = {1};
  settings.power = {1};
  FieldTransform transform(settings, grid, pixel);
  const SpectrumFilter filter = fit_spectrum_filter(Communicator(), Space(), transform, grid, pixel,
                                                    fields_of(0, 0, 60, 6), fields_of(1, 0, 60, 1));
  const auto [least, most] = std::minmax_element(filter.factor.begin(), filter.factor.end());
  EXPECT_GT(*most, 2 * *least);
  EXPECT_LT(*most, 4.0001 * *least);
}

TEST(SpectrumFilter, StandsInAFilesMetadata) {
  nn::Metadata metadata;
  EXPECT_FALSE(SpectrumFilter::from(metadata, "m.safetensors").has_value());
  SpectrumFilter{{54, 100.5}, {1.01, 0.93}}.record(metadata);
  const auto read = SpectrumFilter::from(metadata, "m.safetensors");
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->multipole, (std::vector<double>{54, 100.5}));
  EXPECT_EQ(read->factor, (std::vector<double>{1.01, 0.93}));
  metadata["umbriel.generate.filter"] = "54 1.01\n30 0.9\n";
  try {
    SpectrumFilter::from(metadata, "m.safetensors");
    FAIL() << "multipoles do not rise";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("umbriel.generate.filter"), std::string::npos);
    EXPECT_EQ(error.code(), ExitCode::input);
  }
}

}  // namespace
}  // namespace umbriel
