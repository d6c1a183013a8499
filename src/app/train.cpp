// umbriel train: learns a prior or a model of maps, data-parallel over ranks.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <type_traits>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/job.hpp"
#include "umbriel/app/learned_prior.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/app/train.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/models/diffusion.hpp"
#include "umbriel/models/flow_model.hpp"
#include "umbriel/models/score_task.hpp"
#include "umbriel/models/vae.hpp"
#include "umbriel/nn/initialise.hpp"

namespace umbriel {
namespace {

/// @param rate  default
/// @param keep_best  default
nn::TrainerOptions read_training(const Config& config, double rate, bool keep_best) {
  nn::TrainerOptions o;
  o.steps = config.integer("train.steps", 10000, 1, std::int64_t{1} << 40);
  o.seed = read_seed(config);
  nn::Schedule& schedule = o.schedule;
  schedule.kind = nn::Schedule::kind_named(
      config.choice("train.schedule", "cosine", {"constant", "steps", "cosine", "inverse-square-root"}));
  schedule.rate = config.number("train.learning_rate", rate, 1e-12, 10);
  schedule.warm_up = config.integer("train.warm_up", 300, 0);
  schedule.total = o.steps;
  schedule.last = config.number("train.last_rate", 0, 0, schedule.rate);
  const std::vector<double> drops = config.numbers("train.drops", std::vector<double>{});
  require(drops.empty() || schedule.kind == nn::Schedule::Kind::steps, ExitCode::usage,
          "train.drops are for another schedule", config.where("train.drops"), "set train.schedule = \"steps\"");
  for (const double step : drops)
    schedule.factors.emplace_back(static_cast<std::int64_t>(step), config.number("train.drop_factor", 0.1, 1e-9, 1));
  nn::OptimiserOptions& optimiser = o.optimiser;
  optimiser.name = config.choice("train.optimiser", "adam", {"adam", "adabelief", "adafactor"});
  optimiser.clip_norm = config.number("train.clip_norm", 0.5, 0, 1e9);
  optimiser.weight_decay = config.number("train.weight_decay", 0, 0, 1);
  if (optimiser.name != "adafactor") {
    optimiser.beta1 = config.number("train.beta1", 0.9, 0, 0.999999);
    optimiser.beta2 = config.number("train.beta2", 0.99, 0, 0.999999);
  }
  o.average_decay = config.number("train.average_decay", 0.999, 0, 0.9999999);
  o.validate_every = config.integer("train.validate_every", 500, 0);
  o.keep_best = config.choice("train.keep", keep_best ? "best" : "last", {"best", "last"}) == "best";
  const RunLimits limits = read_run_limits(config);
  o.checkpoint_minutes = limits.checkpoint;
  o.checkpoint_steps = config.integer("train.checkpoint_steps", 0, 0);
  o.max_walltime_minutes = limits.walltime;
  return o;
}

/// What decides the series of steps: all but how the run is managed.
std::string identity_of(const Config& config, const std::vector<InputFile>& inputs, int ranks) {
  std::string identity, line;
  for (const char c : config.resolved()) {
    line += c;
    if (c != '\n') continue;
    if (line.rfind("run.", 0) != 0 && line.rfind("train.checkpoint_steps", 0) != 0) identity += line;
    line.clear();
  }
  for (const InputFile& input : inputs) identity += "input " + input.sha256 + "\n";
  identity += "seed = " + std::to_string(read_seed(config)) + "\n";
  // Sums over another number of ranks round differently.
  return identity + "ranks = " + std::to_string(ranks) + "\n";
}

/// What a word after `train` stands for.
struct Target {
  std::unique_ptr<nn::TrainingTask> task;
  double rate = 0;         ///< default of the learning rate
  bool keep_best = false;  ///< default of what is kept
  std::string description;
  double flops = 0, bytes = 0;  ///< of a step on this rank; bytes without the trainer's own
  double bytes_to_begin = 0;    ///< of memory before the first step
  std::vector<InputFile> inputs;
  std::function<void(std::uint64_t seed, nn::Initialisation scheme)> initialise;
  std::function<void(const Space& space, const View1<float>& values, nn::Metadata& record)> measure;  ///< or none
  std::function<void(const std::string& path, const View1<float>& values, nn::Metadata record)> save;
};

template <class Task>
Target describe(std::unique_ptr<Task> task, double rate) {
  Target target;
  target.rate = rate;
  target.description = task->describe();
  target.flops = task->flops();
  target.bytes = task->bytes();
  if constexpr (std::is_base_of_v<MapTask, Task>) target.bytes_to_begin = task->bytes_to_begin();
  target.inputs = task->inputs();
  target.task = std::move(task);
  return target;
}

Target score_target(const Communicator& comm, const Config& config, const nn::Options& compute) {
  auto owned = std::make_unique<ScoreTask>(comm, config, read_seed(config), compute);
  ScoreTask* const task = owned.get();
  Target target = describe(std::move(owned), task->model().settings().whitened ? 2e-3 : 1e-4);
  target.initialise = [task](std::uint64_t seed, nn::Initialisation scheme) {
    nn::initialise(task->parameters(), seed, scheme);
  };
  target.save = [task, &config](const std::string& path, const View1<float>& values, nn::Metadata record) {
    record["umbriel.power_spectrum"] = task->spectrum_text();
    record["umbriel.pixel_arcmin"] = task->pixels_text();
    if (config.has("data.simulate") && config.text("data.simulate.kind", "lognormal") == "lognormal") {
      char text[32];
      std::snprintf(text, sizeof text, "%.9g", config.number("data.simulate.kappa0", 0.05));
      record["umbriel.kappa0"] = text;
    }
    task->model().save(path, values, std::move(record));
  };
  return target;
}

/// @param initialise  sets the parameters of a task
template <class Task, class Initialise>
Target maps_target(const Communicator& comm, const Config& config, const nn::Options& compute,
                   const Initialise& initialise) {
  auto owned = std::make_unique<Task>(comm, config, read_seed(config), compute);
  Task* const task = owned.get();
  Target target = describe(std::move(owned), 1e-3);
  target.keep_best = true;
  target.initialise = [=](std::uint64_t seed, nn::Initialisation scheme) { initialise(*task, seed, scheme); };
  target.save = [task](const std::string& path, const View1<float>& values, nn::Metadata record) {
    task->record().save(path, task->parameters(), values, std::move(record));
  };
  return target;
}

Target make_target(const std::string& name, const Communicator& comm, const Config& config,
                   const nn::Options& compute) {
  if (name == "score") return score_target(comm, config, compute);
  if (name == "flow") {
    return maps_target<FlowTask>(comm, config, compute, [](const FlowTask& task, std::uint64_t seed, auto scheme) {
      task.flow().initialise(seed, scheme);
    });
  }
  if (name == "vae") {
    Target target = maps_target<VaeTask>(
        comm, config, compute, [](VaeTask& task, std::uint64_t seed, auto scheme) { task.initialise(seed, scheme); });
    target.rate = 1e-4;
    // Running moments are those of the last weights.
    target.keep_best = !static_cast<VaeTask&>(*target.task).vae().batch_norm();
    target.measure = [&task = static_cast<VaeTask&>(*target.task)](const Space& space, const View1<float>& values,
                                                                   nn::Metadata& record) {
      const auto residual = task.residual(space, values);
      if (!residual) return;
      residual->record(record);
      task.filter(space, values, *residual).record(record);
    };
    return target;
  }
  return maps_target<DiffusionTask>(comm, config, compute,
                                    [](const DiffusionTask& task, std::uint64_t seed, auto scheme) {
                                      nn::initialise(task.parameters(), seed, scheme);
                                    });
}

}  // namespace

ExitCode run_train(const CommandLine& line) {
  for (const std::string& key : line.config.keys_below("tune")) line.config.has(key);  // one file serves `tune` too
  return train(line, {});
}

ExitCode train(const CommandLine& line, const TrainingHooks& hooks) {
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  std::string output;
  comm.together([&] {
    const std::vector<std::string> targets = {"score", "flow", "diffusion", "vae"};
    require(line.arguments.size() == 1 && std::count(targets.begin(), targets.end(), line.arguments[0]) == 1,
            ExitCode::usage, "umbriel cannot train " + line.arguments.front(), "umbriel train",
            "the targets there are: score, flow, diffusion, vae");
    output = read_output(config);
  });
  nn::Options compute;
  comm.together([&] { compute = read_compute(config); });
  compute.comm = comm;
  const Target target = make_target(line.arguments[0], comm, config, compute);
  nn::TrainingTask& task = *target.task;
  nn::TrainerOptions options;
  nn::Initialisation initial{};
  comm.together([&] {
    options = read_training(config, target.rate, target.keep_best);
    initial = nn::initialisation_named(
        config.choice("train.initialisation", "he-normal",
                      {"he-normal", "he-uniform", "glorot-normal", "glorot-uniform", "pytorch"}));
    config.reject_unknown_keys();
    options.stem = stem_of(output);
    options.identity = identity_of(config, target.inputs, comm.size());
    options.judge = [now = options.identity, overridden = line.override_checkpoint](const auto& then,
                                                                                    const auto& path) {
      require_same_configuration(now, then, path, overridden);
    };
  });
  const nn::ParameterSet& set = task.parameters();
  char text[160];
  std::snprintf(text, sizeof text, "%.3g million parameters, %.3g GFLOP a step and rank, ",
                1e-6 * static_cast<double>(set.count()), 1e-9 * target.flops);
  // The trainer adds the average of weights, the optimiser's two moments and the best weights.
  const double bytes = target.bytes + (options.keep_best ? 16.0 : 12.0) * static_cast<double>(set.count());
  const double to_begin = target.bytes_to_begin + set.bytes();
  std::string costs = text + human_bytes(bytes) + " a rank";
  if (to_begin > bytes) costs += ", " + human_bytes(to_begin) + " before the first step";
  // Weights, their average and the optimiser's two moments, in three generations; a line of metrics a step.
  const double disk = 3 * (options.keep_best ? 20.0 : 16.0) * static_cast<double>(set.count()) +
                      60.0 * static_cast<double>(options.steps);
  const double kept = 4.0 * static_cast<double>(set.count()) + 120.0 * static_cast<double>(options.steps);
  if (hooks.checked && !hooks.checked({target.description, costs, options.identity, disk, kept, target.inputs}))
    return ExitCode::done;
  if (line.dry_run) {
    print_dry_run(line, {target.description, costs, "disk: " + human_bytes(disk)});
    return ExitCode::done;
  }

  const Job job(comm, output, read_run_limits(config), disk, true);
  comm.together([&] { log::start(comm.rank(), output + ".log.jsonl"); });
  const std::string command = "train " + line.arguments[0];
  log::info("umbriel " + command + " on " + std::to_string(comm.size()) + " rank(s), " + device_name());
  log::info(target.description);
  log::info(costs);
  target.initialise(read_seed(config), initial);
  const Space space;
  nn::Trainer trainer(comm, task, options);
  trainer.resume();
  if (!trainer.run(space)) {
    log::info("stopped before the end; to go on, run the same command again: " + command_to_resume(line, command));
    return ExitCode::stopped;
  }

  const nn::TrainingHistory& history = trainer.history();
  nn::Metadata record;
  record["umbriel.version"] = version() + " (" + git_revision() + ")";
  record["umbriel.trained"] = utc_now();
  record["umbriel.training"] = config.resolved();
  record["umbriel.data"] = target.description;
  record["umbriel.ranks"] = std::to_string(comm.size());
  record["umbriel.device"] = device_name();
  std::snprintf(text, sizeof text, "%.0f", history.seconds.empty() ? 0.0 : history.seconds.back());
  record["umbriel.seconds"] = text;
  for (std::size_t i = 0; i < history.names.size(); ++i) {
    std::snprintf(text, sizeof text, "%.5f", history.values[trainer.kept() * history.names.size() + i]);
    record["umbriel.validation." + history.names[i]] = text;
  }
  std::string inputs;
  for (const InputFile& input : target.inputs)  // names alone: the file travels, folders do not
    inputs += input.sha256 + "  " + std::filesystem::path(input.path).filename().string() + "\n";
  record["umbriel.inputs"] = inputs;
  if (target.measure) target.measure(space, trainer.averaged(), record);
  comm.together([&] {
    if (comm.is_root()) target.save(output, trainer.averaged(), record);
  });
  if (hooks.trained) {
    hooks.trained(history.names.at(0), history.values[trainer.kept() * history.names.size()],
                  history.seconds.empty() ? 0 : history.seconds.back());
  }
  trainer.remove_checkpoint();
  log::info("wrote " + output);
  return ExitCode::done;
}

}  // namespace umbriel
