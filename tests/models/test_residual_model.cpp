#include "umbriel/models/residual_model.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>

#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/models/vae.hpp"
#include "umbriel/nn/initialise.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

constexpr int side = 16;
constexpr std::int64_t maps = 60;

Config config() {
  return Config::parse("[network]\nlatent = 3\nencoder = [8]\ndecoder = [8]\nbase = 4\ndense = 8\nnorm = \"group\"\n",
                       "test");
}

/// Noise that is alike along rows.
MapBatch map_of(std::int64_t number) {
  const MapBatch map("map", 1, side, side);
  const auto host = Kokkos::create_mirror_view(HostMemory{}, map);
  const auto noise = [&](int y, int x) {
    return normal({8, Purpose::test, static_cast<std::uint32_t>(number), 0}, static_cast<std::uint64_t>(40 * y + x));
  };
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) host(0, y, x) = 0.7f * (noise(y, x) + noise(y, x + 1));
  Kokkos::deep_copy(map, host);
  return map;
}

void each(const std::function<void(const MapBatch&, std::int64_t)>& f) {
  for (std::int64_t i = 0; i < maps; ++i) f(map_of(i), i);
}

struct Measured {
  Vae vae{config(), {side, side}};
  VaeRunner runner{vae, 1};
  ResidualModel model;

  /// @param last  factor of the decoder's last layer
  explicit Measured(float last) {
    nn::initialise(vae.parameters(), 3, nn::Initialisation::he_normal);
    const auto values = on_host(vae.parameters().values());
    for (const nn::Parameter& p : vae.parameters().parameters()) {
      for (std::int64_t i = p.offset; p.name.starts_with("decoder.last") && i < p.offset + p.size; ++i)
        values(static_cast<std::size_t>(i)) *= last;
    }
    Kokkos::deep_copy(vae.parameters().values(), values);
    runner.load(Space());
    model = measure_residual(Communicator(), Space(), vae, runner, 2, 5, each);
  }
};

TEST(ResidualModel, OfADecoderThatWritesNothingIsTheMaps) {
  const Measured measured(0);
  ASSERT_EQ(measured.model.value, std::vector<double>{0});
  EXPECT_NEAR(measured.model.deviation[0], 0.7 * std::numbers::sqrt2, 0.03);
  // P = (2 + 2 cos kx) / 2 of unit variance, over rings of constant width; faded edges mix neighbouring modes.
  const double lowest = multipole({side, side}, 2, 0, 1);
  std::vector<double> expected(8, 0), modes(8, 0);
  for (int ky = 0; ky < side; ++ky) {
    for (int kx = 0; kx < side; ++kx) {
      const double l = multipole({side, side}, 2, ky, std::min(kx, side - kx));
      const auto ring = std::min<std::size_t>(7, static_cast<std::size_t>(std::lround(l / lowest)));
      expected[ring] += 1 + std::cos(2 * std::numbers::pi * kx / side);
      modes[ring] += 1;
    }
  }
  ASSERT_EQ(measured.model.power.size(), 8U);
  EXPECT_EQ(measured.model.multipole[0], 0);
  for (std::size_t ring = 0; ring < 8; ++ring) {
    const double error = 4 / std::sqrt(0.3 * maps * modes[ring]);
    EXPECT_NEAR(measured.model.power[ring] / (expected[ring] / modes[ring]), 1, 0.06 + error) << ring;
  }
}

// Draws, over the deviation that a table says for the decoded value, have the power of the model.
TEST(ResidualDraws, HaveTheirDeviationWhereAMapIsBright) {
  const ResidualModel model{{-1, 1, 2}, {0.1, 0.3, 0.9}, {0, 1000, 20000}, {1, 1, 1}};
  const Grid grid{side, side};
  constexpr int batch = 8;
  ResidualDraws draws(model, grid, 2, batch);
  const MapBatch fields("fields", batch, side, side), latent("latent", batch, 1, 3);
  const View1<DrawKey> keys("keys", batch);
  const auto host_keys = Kokkos::create_mirror_view(HostMemory{}, keys);
  constexpr std::array values = {-3.0, -1.0, 0.5, 1.0, 1.5, 2.0, 7.0};
  std::array<double, values.size()> squares = {}, count = {};
  for (int round = 0; round < 20; ++round) {
    const auto host = Kokkos::create_mirror_view(HostMemory{}, fields);
    for (std::size_t i = 0; i < host.size(); ++i) host.data()[i] = static_cast<float>(values[i % values.size()]);
    Kokkos::deep_copy(fields, host);
    for (std::uint32_t i = 0; i < batch; ++i)
      host_keys(i) = {11, Purpose::test, static_cast<std::uint32_t>(round * batch) + i, 1};
    Kokkos::deep_copy(keys, host_keys);
    draws.add(Space(), keys, batch - 1, latent, fields);
    const auto drawn = on_host(fields);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      const double off = static_cast<double>(drawn.data()[i]) - values[i % values.size()];
      if (i >= drawn.size() / batch * (batch - 1)) {
        ASSERT_EQ(off, 0) << "not asked for";
        continue;
      }
      squares[i % values.size()] += off * off;
      ++count[i % values.size()];
    }
  }
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_NEAR(std::sqrt(squares[i] / count[i]) / model.deviation_at(values[i]), 1, 4 / std::sqrt(2 * count[i]))
        << values[i];
}

// The amplitude of a map follows from its last octave of latent variables, and has a part of its own.
TEST(ResidualDraws, HaveAnAmplitudeForEachMap) {
  ResidualModel model{{0}, {1}, {0, 1000, 20000}, {1, 1, 1}};
  model.offset = 0.3, model.slope = 0.8, model.spread = 0.4;
  const Grid grid{side, side};
  constexpr int batch = 64, latent = 6;  // octaves of four and of two
  ResidualDraws draws(model, grid, 2, batch);
  const MapBatch fields("fields", batch, side, side), z("z", batch, 1, latent);
  const View1<DrawKey> keys("keys", batch);
  const auto host_keys = Kokkos::create_mirror_view(HostMemory{}, keys);
  const auto host_z = Kokkos::create_mirror_view(HostMemory{}, z);
  std::vector<double> expected;
  for (std::uint32_t i = 0; i < batch; ++i) {
    host_keys(i) = {12, Purpose::test, i, 5};
    std::vector<float> of_map;
    for (std::uint64_t c = 0; c < latent; ++c)
      of_map.push_back(host_z(i, 0, c) = (i % 2 == 0 ? 3.0f : 0.2f) * normal({13, Purpose::test, i, 0}, c));
    const double q = 0.5 * std::log((std::pow(of_map[4], 2) + std::pow(of_map[5], 2)) / 2);
    EXPECT_NEAR(model.log_amplitude(of_map), 0.3 + 0.8 * q, 1e-6);
    expected.push_back(std::exp(0.3 + 0.8 * q + 0.4 * static_cast<double>(normal({12, Purpose::test, i, 6}, 0))));
  }
  Kokkos::deep_copy(keys, host_keys);
  Kokkos::deep_copy(z, host_z);
  draws.add(Space(), keys, batch, z, fields);
  const auto drawn = on_host(fields);
  for (std::size_t i = 0; i < batch; ++i) {
    double squares = 0;
    for (std::size_t p = i * side * side; p < (i + 1) * side * side; ++p)
      squares += std::pow(static_cast<double>(drawn.data()[p]), 2) / (side * side);
    EXPECT_NEAR(0.5 * std::log(squares), std::log(expected[i]), 0.25) << i;  // of white noise, 256 pixels
  }
}

// Whatever the decoder: residuals over their deviation have unit variance, where decoded maps are low and where high.
TEST(ResidualModel, ResidualsOverTheirDeviationHaveUnitVariance) {
  Measured measured(1);
  const ResidualModel& model = measured.model;
  ASSERT_GT(model.value.size(), 3U);
  for (std::size_t i = 1; i < model.value.size(); ++i) EXPECT_GT(model.value[i], model.value[i - 1]);
  double squares[2] = {}, count[2] = {};
  const double middle = model.value[model.value.size() / 2];
  const MapBatch normals("normals", 1, 1, 3);
  const View1<DrawKey> keys("keys", 1);
  each([&](const MapBatch& map, std::int64_t number) {
    Kokkos::deep_copy(keys, DrawKey{99, Purpose::test, static_cast<std::uint32_t>(number), 0});
    fill_normals(Space(), normals, keys, 1);
    draw_latent(Space(), measured.runner.encode(Space(), map, 1), normals, measured.runner.latent());
    const auto decoded = on_host(measured.runner.decode(Space())), host = on_host(map);
    for (std::size_t i = 0; i < host.size(); ++i) {
      const auto g = static_cast<double>(decoded.data()[i]);
      const int high = g > middle ? 1 : 0;
      squares[high] += std::pow((static_cast<double>(host.data()[i]) - g) / model.deviation_at(g), 2);
      ++count[high];
    }
  });
  for (const int high : {0, 1}) {
    EXPECT_GT(count[high], 100);
    EXPECT_NEAR(squares[high] / count[high], 1, 0.1) << high;
  }
  // And so has their power, over all modes.
  const double lowest = multipole({side, side}, 2, 0, 1);
  double variance = 0;
  for (int ky = 0; ky < side; ++ky) {
    for (int kx = 0; kx < side; ++kx) {
      const double l = multipole({side, side}, 2, ky, std::min(kx, side - kx));
      variance += model.power[std::min<std::size_t>(7, static_cast<std::size_t>(std::lround(l / lowest)))] / 256;
    }
  }
  EXPECT_NEAR(variance, 1, 0.15);
}

TEST(ResidualModel, IsReadAsItWasWritten) {
  ResidualModel model{{-1, 0.5, 3}, {0.25, 0.5, 1}, {0, 10, 20}, {4, 2, 1}, -0.125, 0.75, 0.25};
  nn::Metadata metadata;
  EXPECT_FALSE(ResidualModel::from(metadata, "x").has_value());
  model.record(metadata);
  const auto read = ResidualModel::from(metadata, "x");
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->value, model.value);
  EXPECT_EQ(read->deviation, model.deviation);
  EXPECT_EQ(read->multipole, model.multipole);
  EXPECT_EQ(read->power, model.power);
  EXPECT_EQ(read->offset, -0.125);
  EXPECT_EQ(read->slope, 0.75);
  EXPECT_EQ(read->spread, 0.25);
  EXPECT_EQ(read->deviation_at(-9), 0.25);
  EXPECT_EQ(read->deviation_at(9), 1);
  EXPECT_DOUBLE_EQ(read->deviation_at(1.75), 0.75);
  for (const char* text : {"", "1 2 3", "1 0", "2 1\n1 1", "nan 1", "0 inf", "words"}) {
    nn::Metadata damaged = metadata;
    damaged["umbriel.residual.power"] = text;
    EXPECT_THROW(ResidualModel::from(damaged, "x"), Error) << text;
  }
  for (const char* text : {"", "1 2", "1 2 -1", "nan 0 0", "0 0 1e9"}) {
    nn::Metadata damaged = metadata;
    damaged["umbriel.residual.amplitude"] = text;
    EXPECT_THROW(ResidualModel::from(damaged, "x"), Error) << text;
  }
  metadata.erase("umbriel.residual.amplitude");
  EXPECT_EQ(ResidualModel::from(metadata, "x")->spread, 0) << "as older versions wrote it";
  metadata.erase("umbriel.residual.deviation");
  EXPECT_THROW(ResidualModel::from(metadata, "x"), Error);
}

TEST(ResidualModel, WantsMaps) {
  Vae vae(config(), {side, side});
  nn::initialise(vae.parameters(), 3, nn::Initialisation::he_normal);
  VaeRunner runner(vae, 1);
  runner.load(Space());
  EXPECT_THROW(measure_residual(Communicator(), Space(), vae, runner, 2, 5, [](const auto&) {}), Error);
}

}  // namespace
}  // namespace umbriel
