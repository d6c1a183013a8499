// umbriel generate: new maps from a trained model, sharded over ranks.
#include <algorithm>
#include <cstdio>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/map_series.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/models/generative_model.hpp"
#include "umbriel/mpi/sha256.hpp"

namespace umbriel {

namespace {

/// What the maps are to be conditional on: all parameters that the model knows, within what it was trained on.
SeriesParameters read_parameters(const Config& config, const MapConditions& conditions, std::uint64_t seed,
                                 std::vector<std::string>& warnings) {
  const std::string key = "generate.parameters";
  if (conditions.size() == 0) {
    require(!config.has(key), ExitCode::usage, "the model knows no parameters", config.where(key),
            "leave them out, or train one with data.parameters");
    return {};
  }
  std::vector<std::string> names;
  std::string all;
  for (const MapConditions::Parameter& p : conditions.parameters) {
    names.push_back(p.name);
    all += (all.empty() ? "" : ", ") + p.name;
  }
  const SeriesParameters given(config, key, names, seed);
  const bool beyond = config.flag("generate.extrapolate", false);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto at = std::find(given.names().begin(), given.names().end(), names[i]);
    require(at != given.names().end(), ExitCode::usage, "the maps have no " + names[i], config.where(key),
            "the model was trained with " + all + ": give each a number, a range, or a column of a table");
    const MapConditions::Parameter& p = conditions.parameters[i];
    const std::size_t column = static_cast<std::size_t>(at - given.names().begin());
    if (given.low(column) >= p.low && given.high(column) <= p.high) continue;
    char text[200];
    std::snprintf(text, sizeof text, " of %.6g to %.6g reaches beyond the training maps', %.6g to %.6g",
                  given.low(column), given.high(column), p.low, p.high);
    require(beyond, ExitCode::usage, p.name + text, config.where(key),
            "stay inside, or set generate.extrapolate = true to see what the model makes of it");
    warnings.push_back(p.name + text + ": what the model makes of that nobody has checked");
  }
  return given;
}

/// Maps with a pixel above twice the highest of the training maps: a model that stretches tails makes many, where fresh
/// simulations have hardly any.
std::int64_t count_beyond(const std::vector<float>& maps, Grid grid, double highest) {
  const auto pixels = static_cast<std::size_t>(grid.pixels());
  std::int64_t beyond = 0;
  for (std::size_t at = 0; at < maps.size(); at += pixels) {
    const auto first = maps.begin() + static_cast<std::ptrdiff_t>(at);
    const bool within = std::all_of(first, first + static_cast<std::ptrdiff_t>(pixels), [&](float value) {
      return static_cast<double>(value) <= 2 * highest;  // not for a NaN
    });
    beyond += within ? 0 : 1;
  }
  return beyond;
}

}  // namespace

ExitCode run_generate(const CommandLine& line) {
  const Stopwatch watch;
  const Config& config = line.config;
  MapSeries series;
  GenerativeModelRecord record;
  std::vector<std::string> warnings;
  std::unique_ptr<MapGenerator> generator;
  const Space space;
  line.comm.together([&] {
    const std::string target = line.arguments.front();
    require(target == "kappa" || target == "dust", ExitCode::usage, "umbriel cannot generate " + target,
            "umbriel generate", "the targets there are: kappa, dust");
    series = read_series(config);
    series.command = "generate " + target;
    series.doing = "generating";
    series.dataset = "/generated/" + target;
    const std::string path = config.path("generate.model");
    record = GenerativeModelRecord::load(path);
    require(target == "dust" || !record.field.standardised, ExitCode::usage,
            "the model's maps are standardised, and no convergence", path, "generate dust");
    if (target == "dust")
      series.long_name = record.field.standardised ? "dust, in units of the map's deviation" : "dust";
    series.inputs.push_back({path, sha256_of_file(path)});
    series.parameters = read_parameters(config, record.conditions, series.seed, warnings);
    series.inputs.insert(series.inputs.end(), series.parameters.inputs().begin(), series.parameters.inputs().end());
    const std::int64_t rows = series.parameters.rows();
    series.samples = config.integer("generate.samples", std::max<std::int64_t>(1, rows), 1, std::int64_t{1} << 31);
    require(rows < 0 || series.samples <= rows, ExitCode::usage,
            "the table of parameters has " + std::to_string(rows) + " rows, fewer than there are to be maps",
            config.where("generate.samples"), "lower it, or add rows");
    series.grid = record.grid;
    series.pixel_arcmin = record.pixel_arcmin;
    nn::Options compute = read_compute(config);
    generator = make_generator(path, record, config, compute);
    generator->set_conditions([&](std::int64_t map, float* out) {
      for (std::size_t i = 0; i < record.conditions.parameters.size(); ++i)
        out[i] = record.conditions.parameters[i].standardised(series.parameters.value(map, i));
    });
    series.batch = generator->batch();
    config.reject_unknown_keys();
    series.identity = identity_of(config, series.seed, series.inputs, {"run.", "generate.samples "});
  });
  for (const std::string& warning : warnings) log::warn(warning);
  series.draw = [&](std::int64_t first, int n, const MapBatch& out) {
    generator->draw(space, series.seed, first, n, out);
  };
  const double highest = record.field.highest;
  if (highest > 0) {
    series.more = [&](ResultFile& result, const ShardRange&, const std::vector<float>& maps) {
      const std::int64_t beyond = line.comm.sum(count_beyond(maps, series.grid, highest));
      result.hdf5().attribute(series.dataset, "maps_beyond_training", beyond);
      char text[160];
      std::snprintf(text, sizeof text,
                    "%lld of %lld maps have a pixel above %.3g, twice the highest of the training maps",
                    static_cast<long long>(beyond), static_cast<long long>(series.samples), 2 * highest);
      if (beyond > 0) log::warn(std::string(text) + ": compare maps before you trust this model (docs/generating.md)");
    };
  }
  return draw_series(line, watch, series);
}

}  // namespace umbriel
