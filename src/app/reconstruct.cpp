// umbriel reconstruct: maps through an autoencoder and back, sharded over ranks.
//
// A reconstruction is the mean of decoded draws of q(z|x): of the maps that the decoder thinks likely, given this one.
#include <cmath>

#include "umbriel/app/autoencoder.hpp"
#include "umbriel/app/checkpoint.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

/// Mean map of `draws` decoded draws for map number `map` of the files; draws are added in order.
std::vector<float> mean_of_draws(const Space& space, const AutoencoderMaps& maps, VaeRunner& runner,
                                 const std::vector<float>& statistics, std::uint64_t seed, std::int64_t map,
                                 int draws) {
  const std::size_t latent = statistics.size() / 2;
  std::vector<double> sum(static_cast<std::size_t>(runner.grid().pixels()), 0);
  for (int first = 0; first < draws; first += runner.batch()) {
    const int n = std::min(runner.batch(), draws - first);
    std::vector<float> z;
    for (int draw = first; draw < first + n; ++draw) {
      const DrawKey key{seed, Purpose::latent, static_cast<std::uint32_t>(map), static_cast<std::uint32_t>(draw + 1)};
      for (std::size_t c = 0; c < latent; ++c) z.push_back(statistics[c] + statistics[latent + c] * normal(key, c));
    }
    const std::vector<float> decoded = maps.decoded(space, runner, z);
    for (std::size_t i = 0; i < decoded.size(); ++i) sum[i % sum.size()] += static_cast<double>(decoded[i]);
  }
  std::vector<float> mean;
  for (const double value : sum) mean.push_back(static_cast<float>(value / draws));
  return mean;
}

}  // namespace

ExitCode run_reconstruct(const CommandLine& line) {
  const Stopwatch watch;
  const Config& config = line.config;
  const AutoencoderMaps maps(line.comm, config, "reconstruct");
  MapSeries series;
  std::vector<std::int64_t> chosen;
  int draws = 0;
  std::unique_ptr<VaeRunner> runner;
  const Space space;
  line.comm.together([&] {
    series = read_series(config);
    series.command = "reconstruct";
    series.doing = "reconstructing";
    series.dataset = "/reconstruction/mean";
    series.long_name = "mean of decoded draws, in units of the map's deviation";
    maps.describe(series);
    chosen = maps.part(config.choice("reconstruct.part", "all", {"all", "training", "validation", "test"}));
    series.samples = static_cast<std::int64_t>(chosen.size());
    draws = static_cast<int>(config.integer("reconstruct.draws", 100, 1, 1 << 24));
    runner = std::make_unique<VaeRunner>(maps.vae(), series.batch, read_compute(config));
    config.reject_unknown_keys();
    series.identity = identity_of(config, series.seed, series.inputs, {"run."});
    const ShardRange shard = shard_range(series.samples, line.comm.rank(), line.comm.size());
    for (std::int64_t i = shard.first; i < shard.first + shard.count; ++i)
      maps.read(chosen[static_cast<std::size_t>(i)]);
    runner->load(space);
  });
  const auto pixels = static_cast<std::size_t>(series.grid.pixels());
  series.draw = [&](std::int64_t first, int n, const MapBatch& out) {
    std::vector<StandardMap> means;
    for (std::int64_t i = first; i < first + n; ++i) {
      const std::int64_t map = chosen[static_cast<std::size_t>(i)];
      means.push_back(
          {mean_of_draws(space, maps, *runner, maps.encoded(space, *runner, maps.read(map)), series.seed, map, draws)});
    }
    Kokkos::deep_copy(Kokkos::subview(out, std::make_pair(0, n), Kokkos::ALL, Kokkos::ALL),
                      batch_of(means, series.grid));
  };
  series.more = [&](ResultFile& result, const ShardRange& shard, const std::vector<float>& means) {
    std::vector<float> input, residual, latent_mean, latent_deviation;
    std::vector<std::int64_t> index;
    std::vector<double> mean, deviation, rmse;
    const auto latent = static_cast<std::uint64_t>(maps.vae().latent());
    for (std::int64_t i = 0; i < shard.count; ++i) {
      const std::int64_t map = chosen[static_cast<std::size_t>(shard.first + i)];
      const StandardMap standard = maps.read(map);
      double squares = 0;
      for (std::size_t p = 0; p < pixels; ++p) {
        residual.push_back(standard.values[p] - means[static_cast<std::size_t>(i) * pixels + p]);
        squares += static_cast<double>(residual.back()) * static_cast<double>(residual.back());
      }
      input.insert(input.end(), standard.values.begin(), standard.values.end());
      const std::vector<float> statistics = maps.encoded(space, *runner, standard);
      latent_mean.insert(latent_mean.end(), statistics.begin(), statistics.begin() + static_cast<long>(latent));
      latent_deviation.insert(latent_deviation.end(), statistics.begin() + static_cast<long>(latent), statistics.end());
      index.push_back(map);
      mean.push_back(standard.mean);
      deviation.push_back(standard.deviation);
      rmse.push_back(std::sqrt(squares / static_cast<double>(pixels)));
    }
    const auto samples = static_cast<std::uint64_t>(series.samples);
    const auto height = static_cast<std::uint64_t>(series.grid.height);
    const auto width = static_cast<std::uint64_t>(series.grid.width);
    result.write_index_axis("latent", latent, "index of the latent variable");
    const auto write = [&]<class T>(const std::string& name, const std::vector<std::string>& axes,
                                    const std::vector<std::uint64_t>& shape, const std::string& words,
                                    const std::vector<T>& values) {
      result.hdf5().write_sharded<T>({"/reconstruction/" + name, axes, "1", words}, shape,
                                     static_cast<std::uint64_t>(shard.first), static_cast<std::uint64_t>(shard.count),
                                     values.data());
    };
    write("input", {"sample", "y", "x"}, {samples, height, width}, "map less its mean, over its deviation", input);
    write("residual", {"sample", "y", "x"}, {samples, height, width}, "input less reconstruction", residual);
    write("latent_mean", {"sample", "latent"}, {samples, latent}, "means of q(z|x)", latent_mean);
    write("latent_deviation", {"sample", "latent"}, {samples, latent}, "deviations of q(z|x)", latent_deviation);
    write("map", {"sample"}, {samples}, "number of the map in the files", index);
    write("input_mean", {"sample"}, {samples}, "mean of the map, in its own unit", mean);
    write("input_deviation", {"sample"}, {samples}, "standard deviation of the map, in its own unit", deviation);
    write("rmse", {"sample"}, {samples}, "root mean square of the residual", rmse);
  };
  return draw_series(line, watch, series);
}

}  // namespace umbriel
