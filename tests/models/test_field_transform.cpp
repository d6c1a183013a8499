#include "umbriel/models/field_transform.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/rng/philox.hpp"
#include "umbriel/simulation/convergence_map.hpp"

namespace umbriel {
namespace {

const Grid grid{32, 32};
constexpr double pixel = 2;

HostMaps draw(ConvergenceSimulator simulator, int n, std::uint64_t seed) {
  const MapBatch maps("maps", n, grid.height, grid.width);
  simulator.draw(seed, 0, n, maps);
  Kokkos::fence();
  const HostMaps host("host", maps.extent(0), maps.extent(1), maps.extent(2));
  Kokkos::deep_copy(host, maps);
  return host;
}

HostMaps lognormal_maps(int n, double kappa0, std::uint64_t seed = 11) {
  const PowerSpectrum spectrum({1, 100, 1000, 10000}, {1e-9, 5e-10, 1e-10, 1e-11});
  return draw({spectrum, grid, pixel, FieldKind::lognormal, kappa0}, n, seed);
}

Config config(const std::string& text) { return Config::parse("[field]\n" + text, "test"); }

TEST(FieldTransform, FindsTheShiftOfLognormalFields) {
  const auto s = fit_field_transform(config(""), lognormal_maps(128, 0.03), pixel);
  EXPECT_TRUE(s.lognormal);
  EXPECT_NEAR(s.kappa0, 0.03, 0.002);
}

TEST(FieldTransform, StandardisesEachMapByItself) {
  HostMaps maps = lognormal_maps(4, 0.03);
  for (std::size_t i = 0; i < maps.size(); ++i) {  // means and deviations of their own, and a constant map
    const std::size_t map = i / 1024;
    maps.data()[i] = map == 3 ? 5.0F : static_cast<float>(map + 1) * maps.data()[i] + 10.0F * static_cast<float>(map);
  }
  const auto settings = fit_field_transform(config("transform = 'standardised'\nwhiten = false\n"), maps, pixel);
  EXPECT_TRUE(settings.standardised);
  FieldTransform transform(settings, grid, pixel);
  const Space space;
  const MapBatch fields("fields", 4, grid.height, grid.width), back("back", 4, grid.height, grid.width);
  const View1<double> jacobian("jacobian", 4);
  transform.forward(space, on_device(maps), 4, fields, jacobian);
  transform.inverse(space, fields, 4, back);
  space.fence();
  const auto host = on_host(fields), again = on_host(back);
  for (std::size_t map = 0; map < 4; ++map) {
    double sum = 0, squares = 0;
    for (std::size_t i = map * 1024; i < (map + 1) * 1024; ++i) {
      const auto x = static_cast<double>(host.data()[i]);
      sum += x, squares += x * x;
      EXPECT_NEAR(again.data()[i], host.data()[i], 1e-5) << "the way back ends at the standardised map";
    }
    EXPECT_NEAR(sum / 1024, 0, 1e-5);
    EXPECT_NEAR(squares / 1024, map == 3 ? 0 : 1, 1e-5);
    EXPECT_NEAR(on_host(jacobian)(map), 0, 1e-9);
  }
}

TEST(FieldTransform, TakesLogarithmsOfStandardisedMaps) {
  HostMaps maps = lognormal_maps(6, 0.03);
  for (std::size_t i = 0; i < maps.size(); ++i) maps.data()[i] = static_cast<float>(i / 1024 + 1) * maps.data()[i];
  const auto settings =
      fit_field_transform(config("transform = 'standardised-lognormal'\nwhiten = false\n"), maps, pixel);
  EXPECT_TRUE(settings.standardised && settings.lognormal);
  EXPECT_EQ(settings.name(), "standardised-lognormal");
  FieldTransform transform(settings, grid, pixel);
  const Space space;
  const MapBatch fields("fields", 6, grid.height, grid.width), back("back", 6, grid.height, grid.width);
  const MapBatch standard("standard", 6, grid.height, grid.width);
  const View1<double> jacobian("jacobian", 6), mean("mean", 6), deviation("deviation", 6);
  SumWorkspace workspace;
  transform.forward(space, on_device(maps), 6, fields, jacobian);
  transform.inverse(space, fields, 6, back);
  standardise(space, on_device(maps), 6, standard, mean, deviation, workspace);
  space.fence();
  const auto field = on_host(fields), again = on_host(back), expected = on_host(standard);
  double sum = 0, squares = 0;
  for (std::size_t map = 0; map < 6; ++map) {
    double log_jacobian = 0;
    for (std::size_t i = map * 1024; i < (map + 1) * 1024; ++i) {
      const auto v = static_cast<double>(field.data()[i]), x = static_cast<double>(expected.data()[i]);
      sum += v, squares += v * v;
      EXPECT_NEAR(again.data()[i], x, 2e-5 * (1 + std::fabs(x))) << "the way back ends at the standardised map";
      EXPECT_NEAR(settings.field_of(x), v, 2e-5);
      EXPECT_NEAR(settings.map_of(v), x, 2e-5 * (1 + std::fabs(x)));
      EXPECT_NEAR(settings.slope_at(v), (settings.map_of(v + 1e-4) - settings.map_of(v - 1e-4)) / 2e-4, 1e-5);
      log_jacobian -= std::log(settings.slope_at(v));
    }
    EXPECT_NEAR(on_host(jacobian)(map), log_jacobian, 1e-2);
  }
  EXPECT_NEAR(sum / 6144, 0, 1e-5);
  EXPECT_NEAR(squares / 6144, 1, 1e-4);
}

TEST(FieldTransform, MakesLognormalFieldsWhiteAndNormal) {
  const auto settings = fit_field_transform(config(""), lognormal_maps(512, 0.03), pixel);
  const HostMaps fresh = lognormal_maps(256, 0.03, 12);

  FieldTransform transform(settings, grid, pixel);
  const Space space;
  const MapBatch fields("fields", 256, grid.height, grid.width);
  const View1<double> jacobian("jacobian", 256);
  transform.forward(space, on_device(fresh), 256, fields, jacobian);
  space.fence();
  const auto host = on_host(fields);
  double moments[4] = {};
  for (std::size_t i = 0; i < host.size(); ++i) {
    const auto x = static_cast<double>(host.data()[i]);
    moments[0] += x, moments[1] += x * x, moments[2] += x * x * x, moments[3] += x * x * x * x;
  }
  const auto n = static_cast<double>(host.size());
  EXPECT_NEAR(moments[0] / n, 0, 0.01);
  EXPECT_NEAR(moments[1] / n, 1, 0.01);
  EXPECT_NEAR(moments[2] / n, 0, 0.03);
  EXPECT_NEAR(moments[3] / n, 3, 0.06);
  // Neighbours are independent.
  double product = 0;
  for (std::size_t m = 0; m < 256; ++m) {
    for (std::size_t y = 0; y < 32; ++y) {
      for (std::size_t x = 0; x < 31; ++x)
        product += static_cast<double>(host(m, y, x)) * static_cast<double>(host(m, y, x + 1));
    }
  }
  EXPECT_NEAR(product / (256 * 32 * 31), 0, 0.01);
}

TEST(FieldTransform, FollowsTheSpectrumAsFarAsTheMapsShowIt) {
  std::vector<double> l, wavy, plain;
  for (double at = 100; at < 12000; at *= 1.05) {
    l.push_back(at);
    plain.push_back(1e-9 * std::pow(at / 1000, -1.2));
    wavy.push_back(plain.back() * (1 + 0.1 * std::sin(4 * std::log(at))));
  }
  const double pixel_area = std::pow(pixel * std::acos(-1.0) / 10800, 2);
  // Root mean square deviation from the truth, at the knots from `least` on.
  const auto deviation = [&](int n, const std::vector<double>& power, double least) {
    const PowerSpectrum truth(l, power);
    double sum = 0;
    int count = 0;
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      const auto s = fit_field_transform(config("transform = \"linear\""),
                                         draw({truth, grid, pixel, FieldKind::gaussian, 0}, n, seed), pixel);
      for (std::size_t i = 1; i < s.multipole.size(); ++i) {
        if (s.multipole[i] < least) continue;
        const double ratio = s.power[i] * pixel_area / truth(s.multipole[i]);
        sum += (ratio - 1) * (ratio - 1);
        ++count;
      }
    }
    return std::sqrt(sum / count);
  };
  EXPECT_LT(deviation(256, wavy, 1000), 0.012);  // waves of many maps are found,
  EXPECT_LT(deviation(8, plain, 0), 0.06);       // and few maps are not followed in theirs: a ring of 4 modes has 0.25
}

TEST(FieldTransform, IsInvertedAndKnowsItsJacobian) {
  const HostMaps maps = lognormal_maps(64, 0.03);
  for (const std::string text : {"", "transform = 'linear'\n", "whiten = false\n", "kappa0 = 0.05\n"}) {
    const auto settings = fit_field_transform(config(text), maps, pixel);
    FieldTransform transform(settings, grid, pixel);
    const Space space;
    const MapBatch in = on_device(maps);
    const MapBatch fields("fields", 64, grid.height, grid.width), back("back", 64, grid.height, grid.width);
    const View1<double> jacobian("jacobian", 64);
    transform.forward(space, in, 64, fields, jacobian);
    transform.inverse(space, fields, 64, back);
    space.fence();
    const auto out = on_host(back);
    for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out.data()[i], maps.data()[i], 2e-6) << text;

    // A constant that is added to the map moves the mean mode of the linear one, and stretches nothing.
    double expected = 0;  // -1/2 sum of ln P over modes, and -sum ln(kappa + kappa0)
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.width; ++kx) {
        const int half = kx <= grid.width / 2 ? kx : grid.width - kx;
        const double l = multipole(grid, pixel, kx <= grid.width / 2 ? ky : (grid.height - ky) % grid.height, half);
        // Power by its definition: linear in logarithms between the bins.
        std::size_t above = 0;
        while (above < settings.multipole.size() && settings.multipole[above] < l) ++above;
        double log_power = std::log(settings.power[std::min(above, settings.power.size() - 1)]);
        if (above > 1 && above < settings.power.size()) {
          const double t = std::log(l / settings.multipole[above - 1]) /
                           std::log(settings.multipole[above] / settings.multipole[above - 1]);
          log_power = (1 - t) * std::log(settings.power[above - 1]) + t * log_power;
        }
        expected -= 0.5 * log_power;
      }
    }
    if (settings.lognormal) {
      for (std::size_t i = 0; i < 32 * 32; ++i)
        expected -= std::log(static_cast<double>(maps.data()[i]) + settings.kappa0);
    }
    EXPECT_NEAR(on_host(jacobian)(0), expected, 1e-5 * std::fabs(expected)) << text;
  }
}

TEST(FieldTransform, HasTheGradientOfItsFieldsAndJacobian) {
  const HostMaps maps = lognormal_maps(64, 0.03);
  for (const std::string text : {"", "transform = 'linear'\n", "whiten = false\n"}) {
    FieldTransform transform(fit_field_transform(config(text), maps, pixel), grid, pixel);
    const Space space;
    const auto batch = [](const std::string& label) { return MapBatch(label, 2, grid.height, grid.width); };
    const MapBatch in = batch("in"), fields = batch("fields"), upper = batch("upper"), lower = batch("lower");
    const auto at = on_host(in), up = on_host(upper);
    for (std::size_t i = 0; i < at.size(); ++i) {
      at.data()[i] = maps.data()[i];
      up.data()[i] = normal({4, Purpose::test, 0, 0}, i);
    }
    Kokkos::deep_copy(upper, up);
    const View1<double> jacobian("jacobian", 2);
    constexpr double weight = -0.7;  // of the log-Jacobian in the loss
    const auto loss = [&] {
      Kokkos::deep_copy(in, at);
      transform.forward(space, in, 2, fields, jacobian);
      space.fence();
      const auto field = on_host(fields);
      double sum = weight * (on_host(jacobian)(0) + on_host(jacobian)(1));
      for (std::size_t i = 0; i < field.size(); ++i)
        sum += static_cast<double>(up.data()[i]) * static_cast<double>(field.data()[i]);
      return sum;
    };
    Kokkos::deep_copy(in, at);
    transform.backward(space, in, 2, upper, static_cast<float>(weight), lower);
    space.fence();
    const auto gradient = on_host(lower);
    double expected = 0, size = 0;
    std::vector<float> along(at.size());
    for (std::size_t i = 0; i < along.size(); ++i) {
      along[i] = normal({5, Purpose::test, 0, 0}, i);
      expected += static_cast<double>(along[i]) * static_cast<double>(gradient.data()[i]);
      size += static_cast<double>(gradient.data()[i]) * static_cast<double>(gradient.data()[i]);
    }
    constexpr double step = 2e-5;  // of maps whose deviation is 0.02
    double moved[2];
    for (const int side : {0, 1}) {
      for (std::size_t i = 0; i < along.size(); ++i)
        at.data()[i] = maps.data()[i] + static_cast<float>((side == 0 ? step : -step) * static_cast<double>(along[i]));
      moved[side] = loss();
    }
    EXPECT_NEAR((moved[0] - moved[1]) / (2 * step), expected, 0.005 * std::sqrt(size)) << text;
    // The logarithm alone has unit variance over many maps.
    const MapBatch all = on_device(maps), u("u", 64, grid.height, grid.width);
    transform.logarithm(space, all, 64, u);
    space.fence();
    const auto host = on_host(u);
    double squares = 0;
    for (std::size_t i = 0; i < host.size(); ++i)
      squares += static_cast<double>(host.data()[i]) * static_cast<double>(host.data()[i]);
    EXPECT_NEAR(squares / static_cast<double>(host.size()), 1, 0.05) << text;
  }
}

TEST(FieldTransform, RefusesWhatItCannotFit) {
  HostMaps flat("flat", 4, 8, 8);
  EXPECT_THROW(fit_field_transform(config(""), flat, pixel), Error);
  EXPECT_THROW(fit_field_transform(config("kappa0 = 1e-6\n"), lognormal_maps(4, 0.03), pixel), Error);
  EXPECT_THROW(fit_field_transform(config("transform = 'cubic'\n"), lognormal_maps(4, 0.03), pixel), Error);
}

}  // namespace
}  // namespace umbriel
