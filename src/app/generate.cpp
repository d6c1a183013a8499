// umbriel generate: new maps from a trained model, sharded over ranks.
#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/map_series.hpp"
#include "umbriel/models/generative_model.hpp"
#include "umbriel/mpi/sha256.hpp"

namespace umbriel {

ExitCode run_generate(const CommandLine& line) {
  const Stopwatch watch;
  const Config& config = line.config;
  MapSeries series;
  std::unique_ptr<MapGenerator> generator;
  const Space space;
  line.comm.together([&] {
    const std::string target = line.arguments.front();
    require(target == "kappa" || target == "dust", ExitCode::usage, "umbriel cannot generate " + target,
            "umbriel generate", "the targets there are: kappa, dust");
    series.command = "generate " + target;
    series.doing = "generating";
    series.dataset = "/generated/" + target;
    series.output = read_output(config);
    series.seed = read_seed(config);
    series.samples = config.integer("generate.samples", 1, 1, std::int64_t{1} << 31);
    const std::string path = config.path("generate.model");
    const GenerativeModelRecord record = GenerativeModelRecord::load(path);
    require(target == "dust" || !record.field.standardised, ExitCode::usage,
            "the model's maps are standardised, and no convergence", path, "generate dust");
    if (target == "dust")
      series.long_name = record.field.standardised ? "dust, in units of the map's deviation" : "dust";
    series.inputs.push_back({path, sha256_of_file(path)});
    series.grid = record.grid;
    series.pixel_arcmin = record.pixel_arcmin;
    series.limits = read_run_limits(config);
    nn::Options compute = read_compute(config);
    generator = make_generator(path, record, config, compute);
    series.batch = generator->batch();
    config.reject_unknown_keys();
    series.identity = identity_of(config, series.seed, series.inputs, {"run.", "generate.samples "});
  });
  series.draw = [&](std::int64_t first, int n, const MapBatch& out) {
    generator->draw(space, series.seed, first, n, out);
  };
  return draw_series(line, watch, series);
}

}  // namespace umbriel
