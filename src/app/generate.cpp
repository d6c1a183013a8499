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
    require(line.arguments == std::vector<std::string>{"kappa"}, ExitCode::usage,
            "umbriel cannot generate " + line.arguments.front(), "umbriel generate", "the target there is: kappa");
    series.command = "generate kappa";
    series.doing = "generating";
    series.dataset = "/generated/kappa";
    series.output = read_output(config);
    series.seed = read_seed(config);
    series.samples = config.integer("generate.samples", 1, 1, std::int64_t{1} << 31);
    const std::string path = config.path("generate.model");
    const GenerativeModelRecord record = GenerativeModelRecord::load(path);
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
