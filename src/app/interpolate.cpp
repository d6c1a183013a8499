// umbriel interpolate: maps on the way from one to another through an autoencoder's latent space.
//
// Latent vectors of a normal distribution lie close to a sphere, and a straight line leaves it: the way is along the
// arc (Shoemake 1985), z(t) = (sin((1 - t) w) a + sin(t w) b) / sin w, with w the angle between a and b.
#include <cmath>

#include "umbriel/app/autoencoder.hpp"
#include "umbriel/app/checkpoint.hpp"

namespace umbriel {
namespace {

/// In radians, 0 ... pi.
double angle_between(const std::vector<float>& a, const std::vector<float>& b, std::size_t n) {
  double product = 0, square_a = 0, square_b = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    product += x * y;
    square_a += x * x;
    square_b += y * y;
  }
  const double length = std::sqrt(square_a * square_b);
  return length > 0 ? std::acos(std::clamp(product / length, -1.0, 1.0)) : 0;
}

std::vector<float> on_the_way(const std::vector<float>& a, const std::vector<float>& b, std::size_t n, double t) {
  const double w = angle_between(a, b, n), sine = std::sin(w);
  // Along one line through the origin there is no arc.
  const double of_a = sine > 1e-6 ? std::sin((1 - t) * w) / sine : 1 - t;
  const double of_b = sine > 1e-6 ? std::sin(t * w) / sine : t;
  std::vector<float> z;
  for (std::size_t i = 0; i < n; ++i)
    z.push_back(static_cast<float>(of_a * static_cast<double>(a[i]) + of_b * static_cast<double>(b[i])));
  return z;
}

std::vector<std::int64_t> numbers_of_maps(const Config& config, const std::string& key, std::int64_t maps) {
  std::vector<std::int64_t> numbers;
  for (const double value : config.numbers(key)) {
    require(value >= 0 && value < static_cast<double>(maps) && value == std::floor(value), ExitCode::usage,
            "there is no map number " + std::to_string(value), config.where(key),
            "give whole numbers from 0 to " + std::to_string(maps - 1));
    numbers.push_back(static_cast<std::int64_t>(value));
  }
  require(!numbers.empty(), ExitCode::usage, "no maps are given", config.where(key), "give the numbers of some");
  return numbers;
}

}  // namespace

ExitCode run_interpolate(const CommandLine& line) {
  const Stopwatch watch;
  const Config& config = line.config;
  const AutoencoderMaps maps(line.comm, config, "interpolate");
  MapSeries series;
  std::vector<std::int64_t> from, to;
  std::int64_t points = 0;
  std::unique_ptr<VaeRunner> runner;
  const Space space;
  line.comm.together([&] {
    series = read_series(config);
    series.command = "interpolate";
    series.doing = "interpolating";
    series.dataset = "/interpolation/map";
    series.long_name = "decoded map, in units of a map's deviation";
    maps.describe(series);
    from = numbers_of_maps(config, "interpolate.from", maps.size());
    to = numbers_of_maps(config, "interpolate.to", maps.size());
    require(from.size() == to.size(), ExitCode::usage,
            "there are " + std::to_string(from.size()) + " maps to start from and " + std::to_string(to.size()) +
                " to end at",
            config.where("interpolate.to"), "give as many of one as of the other");
    points = config.integer("interpolate.points", 10, 2, 1 << 20);
    series.samples = static_cast<std::int64_t>(from.size()) * points;
    runner = std::make_unique<VaeRunner>(maps.vae(), series.batch, read_compute(config));
    config.reject_unknown_keys();
    series.identity = identity_of(config, series.seed, series.inputs, {"run."});
    for (const auto* ends : {&from, &to})
      for (const std::int64_t map : *ends) maps.read(map);
    runner->load(space);
  });
  const auto latent = static_cast<std::size_t>(maps.vae().latent());
  const auto ends_of = [&](std::int64_t pair) {
    const auto p = static_cast<std::size_t>(pair);
    return std::pair(maps.encoded(space, *runner, maps.read(from[p])), maps.encoded(space, *runner, maps.read(to[p])));
  };
  series.draw = [&](std::int64_t first, int n, const MapBatch& out) {
    std::vector<float> z;
    std::int64_t pair = -1;
    std::pair<std::vector<float>, std::vector<float>> ends;
    for (std::int64_t i = first; i < first + n; ++i) {
      if (i / points != pair) ends = ends_of(pair = i / points);
      const double t = static_cast<double>(i % points) / static_cast<double>(points - 1);
      const std::vector<float> at = on_the_way(ends.first, ends.second, latent, t);
      z.insert(z.end(), at.begin(), at.end());
    }
    const std::vector<float> all = maps.decoded(space, *runner, z);
    std::vector<StandardMap> found;
    const auto pixels = static_cast<long>(series.grid.pixels());
    for (int i = 0; i < n; ++i) found.push_back({{all.begin() + i * pixels, all.begin() + (i + 1) * pixels}});
    Kokkos::deep_copy(Kokkos::subview(out, std::make_pair(0, n), Kokkos::ALL, Kokkos::ALL),
                      batch_of(found, series.grid));
  };
  series.more = [&](ResultFile& result, const ShardRange&, const std::vector<float>&) {
    std::vector<std::int64_t> start, end;
    std::vector<double> fraction, angle;
    for (std::int64_t pair = 0; pair < static_cast<std::int64_t>(from.size()); ++pair) {
      const auto [a, b] = ends_of(pair);
      for (std::int64_t i = 0; i < points; ++i) {
        start.push_back(from[static_cast<std::size_t>(pair)]);
        end.push_back(to[static_cast<std::size_t>(pair)]);
        fraction.push_back(static_cast<double>(i) / static_cast<double>(points - 1));
        angle.push_back(angle_between(a, b, latent) * 180 / std::acos(-1.0));
      }
    }
    const auto write = [&]<class T>(const std::string& name, const std::string& unit, const std::string& words,
                                    const std::vector<T>& values) {
      result.hdf5().write<T>({"/interpolation/" + name, {"sample"}, unit, words}, {values.size()}, values.data());
    };
    write("from", "1", "number of the map in the files where the way starts", start);
    write("to", "1", "number of the map in the files where it ends", end);
    write("fraction", "1", "of the way", fraction);
    write("angle", "deg", "between the ends' latent vectors", angle);
  };
  return draw_series(line, watch, series);
}

}  // namespace umbriel
