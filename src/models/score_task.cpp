#include "umbriel/models/score_task.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/rng/normal.hpp"
#include "umbriel/simulation/simulate.hpp"

namespace umbriel {
namespace {

/// Steps of the streams under Purpose::training_noise: of each size its own.
enum NoiseStream : std::uint32_t { noise_of_example = 0, level_of_example = 1, noise_of_validation = 2, streams = 3 };

constexpr double validated_levels[] = {0.01, 0.02, 0.05, 0.1, 0.2};

/// Standard normal of a uniform in (0, 1) by bisection: the noise level is drawn once a sample.
double normal_quantile(double u) {
  double low = -9, high = 9;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < u ? low : high) = middle;
  }
  return low;
}

template <class T>
void to_device(const std::vector<T>& values, const View1<T>& view) {
  Kokkos::deep_copy(Kokkos::subview(view, std::make_pair(std::size_t{0}, values.size())),
                    Kokkos::View<const T*, HostMemory, Kokkos::MemoryUnmanaged>(values.data(), values.size()));
}

}  // namespace

ScoreTask::ScoreTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options)
    : comm_(comm), seed_(seed), options_(std::move(options)) {
  int batch = 0;
  std::vector<std::optional<Grid>> grids;
  std::vector<std::optional<double>> pixels;
  comm.together([&] {
    spectrum_ = power_spectrum_from(config, "prior");
    for (const char* key : {"prior.power_spectrum", "prior.source_distribution"}) {
      if (!config.has(key)) continue;
      const std::string path = config.path(key);
      prior_inputs_.push_back({path, sha256_of_file(path)});
    }
    batch = static_cast<int>(config.integer("train.batch", 16, 1, 1 << 20));
    if (config.has("data.sides")) {
      require(!config.has("data.size"), ExitCode::usage, "data.size and data.sides are both given",
              config.where("data.sides"), "give one of them");
      for (const double side : config.numbers("data.sides")) {
        require(side >= 8 && side <= 65536 && side == std::floor(side), ExitCode::usage,
                "a side is not a whole number from 8 to 65536", config.where("data.sides"));
        grids.emplace_back(Grid{static_cast<int>(side), static_cast<int>(side)});
      }
    } else {
      grids.emplace_back(std::nullopt);
    }
    if (config.is_array("data.pixel_arcmin")) {
      for (const double pixel : config.numbers("data.pixel_arcmin")) {
        require(pixel > 1e-4 && pixel < 1e4, ExitCode::usage, "a pixel size is out of range",
                config.where("data.pixel_arcmin"));
        pixels.emplace_back(pixel);
      }
    } else {
      pixels.emplace_back(std::nullopt);
    }
    require(!grids.empty() && !pixels.empty(), ExitCode::usage, "a list of sizes is empty", config.where("data"));
  });
  for (const auto& pixel : pixels) {
    for (const auto& grid : grids) {
      Size size;
      const std::uint64_t own_seed = seed + 0x9E3779B97F4A7C15ULL * sizes_.size();
      size.maps = std::make_unique<TrainingMaps>(comm, config, own_seed, grid, pixel);
      sizes_.push_back(std::move(size));
    }
  }
  comm.together([&] {
    for (Size& size : sizes_) {
      const Grid grid = size.maps->grid();
      size.host_power = pixel_power(*spectrum_, grid, size.maps->pixel_arcmin());
      size.power = on_device(size.host_power);
      const double share = static_cast<double>(sizes_[0].maps->grid().pixels()) / static_cast<double>(grid.pixels());
      const int ranks = comm.size();
      // A whole number for each rank, so that the moments of batch norm weigh ranks alike.
      size.batch = std::max(1, static_cast<int>(std::lround(batch * share)));
      require(size.batch % ranks == 0, ExitCode::usage,
              "a batch of " + std::to_string(size.batch) + " maps cannot be shared evenly by " + std::to_string(ranks) +
                  " ranks",
              config.where("train.batch"), "choose a multiple of the number of ranks");
    }
    model_ =
        std::make_unique<ScoreModel>(config, pixel_standard_deviation(sizes_[0].host_power, sizes_[0].maps->grid()));
    const std::string usual = model_->settings().whitened ? "log-uniform" : "normal";
    log_uniform_ = config.choice("train.sigma", usual, {"log-uniform", "normal"}) == "log-uniform";
    sigma_std_ = config.number("train.sigma_std", 0.2, 1e-6, 100);
    sum_ = std::make_unique<nn::GradientSum>(parameters().gradients());
    const int micro = micro_batch(config, batch);
    for (Size& size : sizes_) {
      const int mine = size.batch / comm.size();
      const int wanted = static_cast<int>(std::max<std::int64_t>(1, std::int64_t{size.batch} * micro / batch));
      const int part = std::gcd(wanted, mine);
      size.parts = mine / part;
      size.training = std::make_unique<ScoreTraining>(*model_, size.maps->grid(), size.power, part, options_);
    }
  });
}

int ScoreTask::micro_batch(const Config& config, int batch) const {
  const bool batch_norm = !model_->network().parameters().buffers().empty();  // whose moments are the whole share's
  int usual = batch;
  if (runs_on_host && !batch_norm) {
    // Enough pixels to keep a core busy, and parts for eight ranks if there are that many examples.
    constexpr std::int64_t pixels = 128 * 128;
    usual = 1;
    while (2 * usual * sizes_[0].maps->grid().pixels() <= pixels && 16 * usual <= batch) usual *= 2;
  }
  const auto micro = static_cast<int>(config.integer("train.micro_batch", usual, 1, 1 << 20));
  require(batch % micro == 0, ExitCode::usage, "it does not divide the batch of " + std::to_string(batch),
          config.where("train.micro_batch"), "choose a divisor of train.batch");
  require(!batch_norm || micro == batch, ExitCode::usage, "batch norm takes a rank's whole share at once",
          config.where("train.micro_batch"), "leave it out");
  return micro;
}

void ScoreTask::make_buffers(Size& size) {
  if (size.examples.extent(0) > 0) return;
  const Grid grid = size.maps->grid();
  const int mine = size.batch / comm_.size();
  size.examples = MapBatch("umbriel::examples", mine, grid.height, grid.width);
  size.noise = MapBatch("umbriel::example_noise", mine, grid.height, grid.width);
  size.sigma = View1<float>("umbriel::example_sigma", mine);
  size.losses = View1<double>("umbriel::losses", mine);
  size.keys = View1<DrawKey>("umbriel::example_keys", mine);
}

void ScoreTask::draw_noise(const Space& space, Size& size, std::uint32_t stream, std::int64_t first, int n) {
  const auto index = static_cast<std::uint32_t>(&size - sizes_.data());
  std::vector<DrawKey> keys;
  for (int i = 0; i < n; ++i) {
    keys.push_back({seed_, Purpose::training_noise, static_cast<std::uint32_t>(first + i), index * streams + stream});
  }
  to_device(keys, size.keys);
  fill_normals(space, size.noise, size.keys, n);
}

std::vector<double> ScoreTask::gradients(const Space& space, std::int64_t step,
                                         const std::function<void(std::int64_t)>& ready) {
  Size& size = sizes_[static_cast<std::size_t>(step) % sizes_.size()];
  const auto index = static_cast<std::uint32_t>(&size - sizes_.data());
  const int mine = size.batch / comm_.size();
  make_buffers(size);
  const std::int64_t visit = step / static_cast<std::int64_t>(sizes_.size());
  const ShardRange share = shard_range(size.batch, comm_.rank(), comm_.size());
  const std::int64_t first = visit * size.batch + share.first;
  size.maps->draw(first, mine, size.examples, space);
  draw_noise(space, size, noise_of_example, first, mine);
  const ScoreSettings& settings = model_->settings();
  std::vector<float> sigma;
  for (int i = 0; i < mine; ++i) {
    const DrawKey key{seed_, Purpose::training_noise, static_cast<std::uint32_t>(first + i),
                      index * streams + level_of_example};
    const double u = uniform(key, 0);
    if (log_uniform_) {
      const double even = (static_cast<double>(share.first + i) + u) / size.batch;
      sigma.push_back(static_cast<float>(settings.sigma_min * std::pow(settings.sigma_max / settings.sigma_min, even)));
    } else {
      sigma.push_back(static_cast<float>(std::max(settings.sigma_min, sigma_std_ * std::fabs(normal_quantile(u)))));
    }
  }
  to_device(sigma, size.sigma);

  for (int part = 0; part < size.parts; ++part) {
    const auto maps = std::make_pair(part * size.training->batch(), (part + 1) * size.training->batch());
    const auto step_of_part = [&](const std::function<void(std::int64_t)>& final_from) {
      size.training->step(space, Kokkos::subview(size.examples, maps, Kokkos::ALL, Kokkos::ALL),
                          Kokkos::subview(size.noise, maps, Kokkos::ALL, Kokkos::ALL),
                          Kokkos::subview(size.sigma, maps), size.batch, Kokkos::subview(size.losses, maps),
                          final_from);
    };
    if (part + 1 < size.parts) {
      step_of_part([](std::int64_t) {});
      sum_->keep(space, part);
      continue;
    }
    auto end = static_cast<std::int64_t>(parameters().gradients().size());
    const auto complete_from = [&](std::int64_t first) {
      sum_->complete(space, part, first, end);
      end = first;
      ready(first);
    };
    step_of_part(complete_from);
    complete_from(0);
  }
  space.fence();
  const auto host = on_host(size.losses);
  return {host.data(), host.data() + mine};
}

std::vector<std::pair<std::string, double>> ScoreTask::validate(const Space& space, const View1<float>& values) {
  // The share of each rank, one map at a time: what a map gives depends on nothing but the map.
  Size& size = sizes_[0];
  make_buffers(size);  // a resumed training may come here before a step of this size
  const Grid grid = size.maps->grid();
  const auto levels = std::size(validated_levels);
  std::vector<ExactSum> sums(2 * levels);
  const ShardRange share = shard_range(size.maps->validation_size(), comm_.rank(), comm_.size());
  if (share.count > 0) {
    const ScoreEvaluator evaluator(*model_, values, grid, size.power, options_);
    const MapBatch map("umbriel::validation_map", 1, grid.height, grid.width);
    for (std::int64_t i = share.first; i < share.first + share.count; ++i) {
      size.maps->draw_validation(i, 1, map, space);
      draw_noise(space, size, noise_of_validation, i, 1);
      for (std::size_t level = 0; level < levels; ++level) {
        const auto errors = denoising_errors(space, evaluator, grid, size.power, 1, map, size.noise,
                                             static_cast<float>(validated_levels[level]));
        for (std::size_t kind = 0; kind < 2; ++kind) sums[2 * level + kind].add(errors[0][kind]);
      }
    }
  }
  const std::vector<double> totals = exact_sum_over_ranks(comm_, sums);
  std::vector<std::pair<std::string, double>> measured;
  double mean = 0;
  for (std::size_t level = 0; level < levels; ++level)
    mean += totals[2 * level + 1] / totals[2 * level] / static_cast<double>(levels);
  if (size.maps->validation_size() > 0) measured.emplace_back("relative_error", mean);
  for (std::size_t level = 0; level < levels && size.maps->validation_size() > 0; ++level) {
    char name[32];
    std::snprintf(name, sizeof name, "gain_%g", validated_levels[level]);
    measured.emplace_back(name, 1 - totals[2 * level + 1] / totals[2 * level]);
  }
  return measured;
}

double ScoreTask::flops() const {
  double most = 0;
  for (const Size& size : sizes_) most = std::max(most, size.parts * size.training->flops());
  return most;
}

double ScoreTask::bytes() const {
  double total = parameters().bytes();
  for (const Size& size : sizes_) total += size.training->bytes();
  return total;
}

std::string ScoreTask::describe() const {
  std::string text;
  for (const Size& size : sizes_) {
    if (!text.empty()) text += "; ";
    text.append(std::to_string(size.batch)).append(" a step of ").append(size.maps->describe());
  }
  return text;
}

std::string ScoreTask::spectrum_text() const {
  std::string text;
  char line[64];
  for (std::size_t i = 0; i < spectrum_->multipole.size(); ++i) {
    std::snprintf(line, sizeof line, "%.9g %.9g\n", spectrum_->multipole[i], spectrum_->value[i]);
    text += line;
  }
  return text;
}

std::string ScoreTask::pixels_text() const {
  std::string text;
  char number[32];
  for (const Size& size : sizes_) {
    std::snprintf(number, sizeof number, "%.9g", size.maps->pixel_arcmin());
    if (text.find(number) == std::string::npos) text.append(text.empty() ? "" : " ").append(number);
  }
  return text;
}

std::vector<InputFile> ScoreTask::inputs() const {
  std::vector<InputFile> all = prior_inputs_;
  const std::vector<InputFile>& more = sizes_[0].maps->inputs();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace umbriel
