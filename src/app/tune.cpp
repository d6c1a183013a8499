// umbriel tune: searches for the settings of a training with the least validation loss, by Bayesian optimisation.
//
// Trial 0 is the configuration as it is. Groups of ranks train side by side, one trial each: trials come in batches of
// as many as there are groups, and a batch is proposed from the trials of the batches before it, in index order, so
// that the search is a function of configuration, seed and the number of groups. Each trial is a training of its own in
// STEM.trials, with its own checkpoint; NNN.toml beside it says how far it is, and is written anew, in one piece, when
// it begins and when it ends. So whatever is killed when, a finished trial is not repeated and one under way goes on.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <new>
#include <sstream>

#include "umbriel/app/checkpoint.hpp"
#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/app/train.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/base/signals.hpp"
#include "umbriel/inference/bayesian_optimisation.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/nn/safetensors.hpp"

namespace umbriel {
namespace {

/// Shortest text that reads back as the same number.
std::string number_text(double value) {
  char text[40];
  for (int digits = 6; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  return text;
}

/// A string of TOML.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return out + "\"";
}

/// One of tune.parameters.
struct Parameter {
  std::string key;  ///< of the training
  SearchRange range;
  std::vector<std::string> choices;  ///< as TOML

  /// As TOML.
  std::string text(double value) const {
    return range.choices > 0 ? choices.at(static_cast<std::size_t>(value)) : number_text(value);
  }
};

struct Settings {
  std::string train;
  int trials = 0, initial = 0, ranks_per_trial = 0;
  std::vector<Parameter> parameters;

  SearchSpace space() const {
    std::vector<SearchRange> ranges;
    for (const Parameter& parameter : parameters) ranges.push_back(parameter.range);
    return SearchSpace(ranges);
  }
  /// "train.learning_rate=0.002" and so on, as --set has it.
  std::vector<std::string> assignments(const SearchPoint& point) const {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < parameters.size(); ++i)
      out.push_back(parameters[i].key + "=" + parameters[i].text(point[i]));
    return out;
  }
};

std::string joined(const std::vector<std::string>& parts, const std::string& separator) {
  std::string out;
  for (const std::string& part : parts) out.append(out.empty() ? "" : separator).append(part);
  return out;
}

Parameter read_parameter(const Config& config, const std::string& path, const std::string& key) {
  Parameter parameter;
  parameter.key = key;
  require(key.rfind("run.", 0) != 0 && key.rfind("tune.", 0) != 0, ExitCode::usage, "the search cannot set " + key,
          config.where(path), "search among the keys of the training itself");
  SearchRange& range = parameter.range;
  if (config.has(path + ".choices")) {
    for (const char* other : {".min", ".max", ".log", ".integer"}) {
      require(!config.has(path + other), ExitCode::usage, path + " is both a range and a choice", config.where(path),
              "give choices = [...], or min and max");
    }
    parameter.choices = config.items(path + ".choices");
    const auto& choices = parameter.choices;
    require(choices.size() >= 2, ExitCode::usage, path + ".choices leaves no choice", config.where(path),
            "list two values or more");
    for (std::size_t i = 0; i < choices.size(); ++i) {
      require(std::find(choices.begin(), choices.begin() + static_cast<std::ptrdiff_t>(i), choices[i]) ==
                  choices.begin() + static_cast<std::ptrdiff_t>(i),
              ExitCode::usage, path + ".choices has " + choices[i] + " twice", config.where(path), "list it once");
    }
    range.choices = static_cast<int>(choices.size());
    return parameter;
  }
  range.whole = config.flag(path + ".integer", false);
  range.log = config.flag(path + ".log", false);
  if (range.whole) {
    range.min = static_cast<double>(config.integer(path + ".min"));
    range.max = static_cast<double>(config.integer(path + ".max"));
  } else {
    range.min = config.number(path + ".min");
    range.max = config.number(path + ".max");
  }
  require(
      range.min < range.max, ExitCode::usage,
      path + " runs from " + number_text(range.min) + " to " + number_text(range.max) + ": there is nothing between",
      config.where(path), "give min < max");
  require(!range.log || range.min > 0, ExitCode::usage, path + " has no logarithm at " + number_text(range.min),
          config.where(path), "give min > 0, or leave log out");
  return parameter;
}

Settings read_settings(const Communicator& comm, const Config& config) {
  Settings settings;
  settings.train = config.text("tune.train");
  settings.trials = static_cast<int>(config.integer("tune.trials", 30, 1, 1000));
  settings.initial = static_cast<int>(config.integer("tune.initial", 8, 1, 1000));
  settings.ranks_per_trial = static_cast<int>(config.integer("tune.ranks_per_trial", 1, 1, 1 << 20));
  require(comm.size() % settings.ranks_per_trial == 0, ExitCode::usage,
          std::to_string(comm.size()) + " ranks do not make groups of " + std::to_string(settings.ranks_per_trial),
          config.where("tune.ranks_per_trial"), "start a multiple of it");
  const std::string table = "tune.parameters.";
  std::vector<std::string> paths;
  for (const std::string& key : config.keys_below("tune.parameters")) {
    const std::size_t dot = key.find_last_of('.');
    const std::string path = key.substr(0, dot), last = key.substr(dot + 1);
    const bool known = last == "min" || last == "max" || last == "log" || last == "integer" || last == "choices";
    require(known && path.size() > table.size(), ExitCode::usage, key + " is no range", config.where(key),
            "write KEY = {min = ..., max = ...}, with log = true or integer = true where it is so, or KEY = {choices = "
            "[...]}");
    if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
  }
  require(!paths.empty(), ExitCode::usage, "there is nothing to search", config.where("tune.parameters"),
          "give ranges, for instance train.learning_rate = {min = 1e-5, max = 1e-2, log = true}");
  require(paths.size() <= 20, ExitCode::usage, "the search has too many parameters", config.where("tune.parameters"),
          "search at most 20 at once");
  for (const std::string& path : paths) {
    std::string key = path.substr(table.size());
    key.erase(std::remove(key.begin(), key.end(), '"'), key.end());
    for (const Parameter& other : settings.parameters) {
      require(other.key != key, ExitCode::usage, "the range of " + key + " stands twice",
              config.where("tune.parameters"), "keep one of them");
    }
    settings.parameters.push_back(read_parameter(config, path, key));
  }
  return settings;
}

/// A trial, as NNN.toml has it.
struct Trial {
  enum class State { none, begun, done, failed } state = State::none;
  SearchPoint point;
  double loss = std::numeric_limits<double>::quiet_NaN(), seconds = 0;
  std::string measure, digest, message;

  bool finished() const { return state == State::done || state == State::failed; }
};

constexpr const char* state_names[] = {"none", "begun", "done", "failed"};

std::string to_toml(const Trial& trial, const std::vector<std::string>& assignments) {
  std::string text = "state = " + quoted(state_names[static_cast<int>(trial.state)]) + "\n";
  std::vector<std::string> values, lines;
  for (const double value : trial.point) values.push_back(number_text(value));
  for (const std::string& assignment : assignments) lines.push_back(quoted(assignment));
  text += "point = [" + joined(values, ", ") + "]\nset = [" + joined(lines, ", ") + "]\n";
  if (trial.state == Trial::State::done)
    text += "measure = " + quoted(trial.measure) + "\nloss = " + number_text(trial.loss) +
            "\ndigest = " + quoted(trial.digest) + "\n";
  if (trial.state == Trial::State::failed) text += "message = " + quoted(trial.message) + "\n";
  return text + "seconds = " + number_text(trial.seconds) + "\n";
}

Trial from_toml(const std::string& text, const std::string& path, std::size_t parameters) {
  try {
    const Config config = Config::parse(text, path);
    Trial trial;
    const std::string state = config.choice("state", "", {"begun", "done", "failed"});
    trial.state = state == "begun" ? Trial::State::begun : state == "done" ? Trial::State::done : Trial::State::failed;
    trial.point = config.numbers("point");
    trial.seconds = config.number("seconds");
    trial.message = config.text("message", "");
    if (trial.state == Trial::State::done) {
      trial.measure = config.text("measure");
      trial.loss = config.number("loss");
      trial.digest = config.text("digest");
    }
    require(trial.point.size() == parameters, ExitCode::input, "the trial has other parameters", path, "");
    return trial;
  } catch (const Error& error) {
    throw Error(ExitCode::input, std::string("the record of a trial is damaged: ") + error.what(), path,
                "remove it to have the trial made again");
  }
}

/// SHA-256 of names and values of the weights.
std::string digest_of(const std::string& path) {
  const nn::SafetensorsFile file(path);
  Sha256 sum;
  for (const auto& entry : file.entries()) {
    const std::vector<float> values = file.read(entry);
    sum.update(entry.name.data(), entry.name.size() + 1);
    sum.update(values.data(), values.size() * sizeof(float));
  }
  return sum.finish();
}

/// "KEY = VALUE" of a resolved configuration; empty if nobody asked for the key.
std::string value_in(const Config& config, const std::string& key) {
  const std::string all = std::string("\n").append(config.resolved());
  const std::string start = std::string("\n").append(key).append(" = ");
  const std::size_t at = all.find(start);
  if (at == std::string::npos) return "";
  const std::size_t begin = at + start.size();
  return all.substr(begin, all.find('\n', begin) - begin);
}

class Tuning {
 public:
  Tuning(const CommandLine& line, const Stopwatch& watch)
      : line_(line), comm_(line.comm), config_(line.config), watch_(watch) {}

  ExitCode run();

 private:
  enum class Outcome { whole, stopped };

  void read();
  TrainingPlan check(const Config& config, const std::vector<std::string>& assignments) const;
  std::string stem(std::size_t index) const;
  CommandLine training(const Config& config) const;
  void mark_known(const Config& config) const;
  std::vector<std::string> assignments(std::size_t index, const Trial& trial) const;
  void write_record(std::size_t index, const Trial& trial) const;
  void open_folder();
  Outcome work();
  bool propose_batch(std::size_t first, std::size_t end);
  bool train_trial(std::size_t index);
  void fail(std::size_t index, const std::string& message);
  void say(std::size_t index) const;
  void write_result() const;
  std::size_t best() const;

  const CommandLine& line_;
  const Communicator& comm_;
  const Config& config_;
  const Stopwatch& watch_;
  std::string output_, folder_, identity_;
  std::uint64_t seed_ = 0;
  RunLimits limits_;
  Settings settings_;
  Communicator group_;
  std::size_t groups_ = 1, group_index_ = 0;
  TrainingPlan plan_;  // of the configuration as it is
  SearchPoint default_point_;
  double disk_ = 0;
  std::vector<Trial> trials_;
};

/// Reads and checks all there is to check, before work starts.
void Tuning::read() {
  comm_.together([&] {
    output_ = read_output(config_);
    require(output_.ends_with(".h5") || output_.ends_with(".hdf5"), ExitCode::usage,
            "the result of a search is an HDF5 file", config_.where("run.output"),
            "name it ....h5, for instance with --set run.output=tune.h5");
    limits_ = read_run_limits(config_);
    seed_ = read_seed(config_);
    settings_ = read_settings(comm_, config_);
  });
  const int per = settings_.ranks_per_trial;
  groups_ = static_cast<std::size_t>(comm_.size() / per);
  group_index_ = static_cast<std::size_t>(comm_.rank() / per);
  group_ = comm_.split(comm_.rank() / per);
  folder_ = stem_of(output_) + ".trials";

  // The configuration as it is; then both ends of all ranges and every choice at least once.
  std::vector<Config> checked;
  comm_.together([&] {
    plan_ = check(config_, {});
    disk_ = static_cast<double>(groups_) * plan_.disk + settings_.trials * plan_.kept;
    int corners = 2;
    for (const Parameter& parameter : settings_.parameters) corners = std::max(corners, parameter.range.choices);
    for (int corner = 0; corner < corners; ++corner) {
      SearchPoint point;
      for (const Parameter& parameter : settings_.parameters) {
        const SearchRange& range = parameter.range;
        point.push_back(range.choices > 0 ? std::min(corner, range.choices - 1) : corner == 0 ? range.min : range.max);
      }
      const std::vector<std::string> set = settings_.assignments(point);
      checked.push_back(config_.with(set));
      mark_known(checked.back());
      const TrainingPlan plan = check(checked.back(), set);
      disk_ = std::max(disk_, static_cast<double>(groups_) * plan.disk + settings_.trials * plan.kept);
    }
    // Where the configuration itself lies. A value that is no number, or none of the choices, lies outside.
    for (const Parameter& parameter : settings_.parameters) {
      const std::string text = value_in(config_, parameter.key);
      double value = -1;
      if (parameter.range.choices == 0) {
        char* end = nullptr;
        value = std::strtod(text.c_str(), &end);
        if (text.empty() || *end != '\0') value = -std::numeric_limits<double>::infinity();
      }
      for (int choice = parameter.range.choices; choice-- > 0;) {
        if (value_in(checked[static_cast<std::size_t>(choice)], parameter.key) == text) value = choice;
      }
      default_point_.push_back(value);
    }
  });

  // All that decides the trials but for how many there are.
  std::istringstream lines(plan_.identity);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("tune.", 0) != 0) identity_ += line + "\n";
  }
  identity_ += "train = " + settings_.train + "\ngroups = " + std::to_string(groups_) +
               "\ninitial = " + std::to_string(settings_.initial) + "\n";
  for (const Parameter& parameter : settings_.parameters) {
    const SearchRange& range = parameter.range;
    identity_ += parameter.key + " among ";
    identity_ += range.choices > 0 ? joined(parameter.choices, ", ")
                                   : number_text(range.min) + " to " + number_text(range.max) +
                                         (range.log ? ", logarithmic" : "") + (range.whole ? ", whole" : "");
    identity_ += "\n";
  }
}

/// Whether the training would start with this configuration. Collective over the group.
TrainingPlan Tuning::check(const Config& config, const std::vector<std::string>& assignments) const {
  TrainingPlan plan;
  TrainingHooks hooks;
  hooks.checked = [&](const TrainingPlan& found) {
    plan = found;
    return false;
  };
  try {
    train(training(config), hooks);
  } catch (const Error& error) {
    if (assignments.empty()) throw;
    // Which of them is at fault the message says; that they are the search's it does not know.
    throw Error(error.code(), "at an end of tune.parameters, " + joined(assignments, ", ") + ": " + error.what(), "",
                "");
  }
  return plan;
}

CommandLine Tuning::training(const Config& config) const {
  CommandLine line = line_;
  line.comm = group_;
  line.config = config;
  line.arguments = {settings_.train};
  line.dry_run = line.override_checkpoint = false;
  return line;
}

void Tuning::mark_known(const Config& config) const {
  for (const std::string& key : config.keys_below("tune")) config.has(key);
}

std::string Tuning::stem(std::size_t index) const {
  char name[32];
  std::snprintf(name, sizeof name, "/%03zu", index);
  return folder_ + name;
}

/// Trial 0 sets nothing.
std::vector<std::string> Tuning::assignments(std::size_t index, const Trial& trial) const {
  return index == 0 ? std::vector<std::string>{} : settings_.assignments(trial.point);
}

void Tuning::write_record(std::size_t index, const Trial& trial) const {
  write_bytes(stem(index) + ".toml", to_toml(trial, assignments(index, trial)));
}

/// Makes the folder of trials, or reads what is in it.
void Tuning::open_folder() {
  const std::string plan = folder_ + "/search.txt";
  trials_.resize(static_cast<std::size_t>(settings_.trials));
  comm_.together([&] {
    if (!comm_.is_root()) return;
    std::error_code error;
    std::filesystem::create_directory(folder_, error);
    require(std::filesystem::is_directory(folder_), ExitCode::file_system, "the folder of trials cannot be made",
            folder_, "check the folder it is to lie in");
    if (!std::filesystem::exists(plan)) {
      write_bytes(plan, identity_);
      return;
    }
    const std::string then = read_bytes(plan);
    require(then == identity_, ExitCode::usage,
            "the trials were made with another configuration: " + difference_of(identity_, then), folder_,
            "search with the old configuration and as many groups of ranks, or remove the folder to start anew");
  });
  for (std::size_t i = 0; i < trials_.size(); ++i) {
    const std::string path = stem(i) + ".toml";
    std::string text;
    comm_.together([&] {
      if (comm_.is_root() && std::filesystem::exists(path)) text = read_bytes(path);
    });
    text = comm_.broadcast(text);
    comm_.together([&] {
      if (!text.empty()) trials_[i] = from_toml(text, path, settings_.parameters.size());
    });
  }
  const auto done = std::count_if(trials_.begin(), trials_.end(), [](const Trial& t) { return t.finished(); });
  if (done > 0) log::info("going on: " + std::to_string(done) + " trials are finished already");
}

/// Gives trials first <= index < end their points. @return false if there are no points left for all of them
bool Tuning::propose_batch(std::size_t first, std::size_t end) {
  std::vector<double> points;
  std::int64_t count = 0;
  comm_.together([&] {
    if (!comm_.is_root()) return;
    const SearchSpace space = settings_.space();
    std::vector<SearchTrial> before;
    std::vector<SearchPoint> pending;
    for (std::size_t i = 0; i < first; ++i) before.push_back({trials_[i].point, trials_[i].loss});
    for (std::size_t i = first; i < end; ++i) {
      std::optional<SearchPoint> point = trials_[i].point;  // one that had begun goes on with what it had
      if (point->empty()) {
        point = i == 0 ? default_point_
                       : propose(space, seed_, static_cast<std::size_t>(settings_.initial), before, pending);
      }
      if (!point) break;
      pending.push_back(*point);
      points.insert(points.end(), point->begin(), point->end());
      ++count;
    }
  });
  comm_.broadcast(&count, sizeof count);
  const std::size_t d = settings_.parameters.size();
  points.resize(static_cast<std::size_t>(count) * d);
  comm_.broadcast(points.data(), points.size() * sizeof(double));
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const auto begin = points.begin() + static_cast<std::ptrdiff_t>(i * d);
    trials_[first + i].point.assign(begin, begin + static_cast<std::ptrdiff_t>(d));
  }
  return first + static_cast<std::size_t>(count) == end;
}

/// Trains on this group's ranks. @return false if it was stopped before the end
bool Tuning::train_trial(std::size_t index) {
  Trial& trial = trials_[index];
  const std::string weights = stem(index) + ".safetensors";
  std::vector<std::string> set = assignments(index, trial);
  set.push_back("run.output=" + quoted(weights));
  if (limits_.walltime > 0) {
    // The training's clock starts now.
    set.push_back("run.max_walltime_minutes=" + number_text(std::max(1e-3, limits_.walltime - watch_.seconds() / 60)));
  }
  const CommandLine line = training(config_.with(set));
  mark_known(line.config);
  if (trial.state == Trial::State::none) {
    trial.state = Trial::State::begun;
    group_.together([&] {
      if (group_.is_root()) write_record(index, trial);
    });
  }
  bool begun = false;
  TrainingHooks hooks;
  hooks.checked = [&](const TrainingPlan&) { return begun = true; };
  hooks.trained = [&](const std::string& measure, double value, double seconds) {
    if (!std::isfinite(value))
      throw Error(ExitCode::numerical, "the validation loss is not finite", "", "").mark_agreed();
    trial.measure = measure;
    trial.loss = value;
    trial.seconds = seconds;
    trial.state = Trial::State::done;
    group_.together([&] {
      if (!group_.is_root()) return;
      trial.digest = digest_of(weights);
      write_record(index, trial);
    });
  };
  try {
    return train(line, hooks) == ExitCode::done;
  } catch (const Error& error) {
    if (group_.size() > 1 && !error.agreed()) {
      log::error(error.what());  // the group's other ranks know nothing of it
      abort_job(static_cast<int>(error.code()));
    }
    // Settings that diverge or do not go together are an answer too. All else concerns the other trials as well.
    if (error.code() != ExitCode::numerical && (error.code() != ExitCode::usage || begun)) throw;
    fail(index, error.what());
  } catch (const std::bad_alloc&) {
    if (group_.size() > 1) {
      log::error("out of memory");
      abort_job(static_cast<int>(ExitCode::numerical));
    }
    fail(index, "out of memory");
  }
  return true;
}

void Tuning::fail(std::size_t index, const std::string& message) {
  Trial& trial = trials_[index];
  trial.state = Trial::State::failed;
  trial.loss = std::numeric_limits<double>::quiet_NaN();
  trial.message = message;
  group_.together([&] {
    if (!group_.is_root()) return;
    write_record(index, trial);
    for (const std::string& path :
         {stem(index) + ".checkpoint.h5", previous_generation(stem(index) + ".checkpoint.h5")})
      std::filesystem::remove(path);
  });
}

void Tuning::say(std::size_t index) const {
  const Trial& trial = trials_[index];
  char text[64];
  std::snprintf(text, sizeof text, "trial %zu: ", index);
  std::string words = text;
  if (trial.state == Trial::State::done) {
    std::snprintf(text, sizeof text, " = %.6g, %.3g s; ", trial.loss, trial.seconds);
    words += trial.measure + text;
  } else {
    words += "failed; ";
  }
  words += index == 0 ? "the configuration as it is" : joined(assignments(index, trial), ", ");
  if (trial.state == Trial::State::failed) words += " (" + trial.message + ")";
  log::info(words);
}

Tuning::Outcome Tuning::work() {
  for (std::size_t first = 0; first < trials_.size(); first += groups_) {
    std::size_t end = std::min(trials_.size(), first + groups_);
    if (!propose_batch(first, end)) {
      trials_.resize(static_cast<std::size_t>(
          std::find_if(trials_.begin(), trials_.end(), [](const Trial& t) { return t.point.empty(); }) -
          trials_.begin()));
      end = trials_.size();
      log::info("there are no more than these " + std::to_string(end) + " settings");
    }
    const bool late = limits_.walltime > 0 && watch_.seconds() > 60 * limits_.walltime - 5;
    const bool whole =
        std::all_of(trials_.begin() + static_cast<std::ptrdiff_t>(std::min(first, end)),
                    trials_.begin() + static_cast<std::ptrdiff_t>(end), [](const Trial& t) { return t.finished(); });
    if (whole) continue;
    if (comm_.max(late || stop_signal_received() ? 1 : 0) == 1) return Outcome::stopped;
    const std::size_t mine = first + group_index_;
    std::vector<bool> known;
    for (std::size_t i = first; i < end; ++i) known.push_back(trials_[i].finished());
    bool stopped = false;
    const auto own_log = [&] {  // in place of the trial's
      log::stop();
      log::start(comm_.rank(), output_ + ".log.jsonl");
    };
    comm_.together([&] {
      if (mine >= end || known[mine - first]) return;
      const log::Quiet quiet;
      try {
        stopped = !train_trial(mine);
      } catch (...) {
        own_log();
        throw;
      }
      own_log();
    });
    // What the first rank of a group knows of its trial, all learn.
    for (std::size_t i = first; i < end; ++i) {
      const int root = static_cast<int>(i - first) * settings_.ranks_per_trial;
      const std::string text = comm_.broadcast(to_toml(trials_[i], {}), root);
      comm_.together([&] { trials_[i] = from_toml(text, stem(i) + ".toml", settings_.parameters.size()); });
      if (trials_[i].finished() && !known[i - first]) say(i);
    }
    if (comm_.max(stopped ? 1 : 0) == 1) return Outcome::stopped;
  }
  return Outcome::whole;
}

/// The trial of the least loss; one of those that failed if all did.
std::size_t Tuning::best() const {
  std::size_t best = 0;
  for (std::size_t i = 1; i < trials_.size(); ++i) {
    if (trials_[i].loss < trials_[best].loss || !std::isfinite(trials_[best].loss)) best = i;
  }
  return best;
}

void Tuning::write_result() const {
  const std::size_t n = trials_.size(), d = settings_.parameters.size();
  std::vector<double> points, losses, failed;
  std::string names, scales, seconds, digests, measure;
  for (const Trial& trial : trials_) {
    points.insert(points.end(), trial.point.begin(), trial.point.end());
    losses.push_back(trial.loss);
    failed.push_back(trial.state == Trial::State::failed ? 1 : 0);
    const char* separator = &trial == &trials_.front() ? "" : ",";
    seconds.append(separator).append(number_text(trial.seconds));
    digests.append(separator).append(trial.digest);
    if (!trial.measure.empty()) measure = trial.measure;
  }
  for (const Parameter& parameter : settings_.parameters) {
    const char* separator = &parameter == &settings_.parameters.front() ? "" : ",";
    names.append(separator).append(parameter.key);
    scales.append(separator).append(parameter.range.choices > 0 ? "choice" : parameter.range.log ? "log" : "linear");
  }
  ResultFile result(output_, comm_, "tune");
  Hdf5Writer& hdf5 = result.hdf5();
  result.write_index_axis("trial", n, "index of the trial; 0 is the configuration as it was");
  result.write_index_axis("parameter", d, "index of the parameter");
  hdf5.write<double>({"/tune/loss", {"trial"}, "1", measure + " of the weights kept; NaN: failed"}, {n}, losses.data());
  hdf5.write<double>({"/tune/parameters",
                      {"trial", "parameter"},
                      "1",
                      "values tried; of a choice its number from 0, -1 for none of those listed"},
                     {n, d}, points.data());
  hdf5.write<double>({"/tune/failed", {"trial"}, "1", "1: the trial failed"}, {n}, failed.data());
  hdf5.attribute("/tune", "names", names);
  hdf5.attribute("/tune", "scales", scales);
  for (std::size_t i = 0; i < d; ++i) {
    if (settings_.parameters[i].range.choices > 0)
      hdf5.attribute("/tune", "choices_" + std::to_string(i), joined(settings_.parameters[i].choices, "\n"));
  }
  hdf5.attribute("/tune", "measure", measure);
  hdf5.attribute("/tune", "train", settings_.train);
  hdf5.attribute("/tune", "initial", static_cast<std::int64_t>(settings_.initial));
  hdf5.attribute("/tune", "groups", static_cast<std::int64_t>(groups_));
  hdf5.attribute("/tune", "best", static_cast<std::int64_t>(best()));
  hdf5.attribute("/tune", "seconds", seconds);
  hdf5.attribute("/tune", "weights_sha256", digests);
  std::vector<InputRecord> inputs;
  for (const InputFile& input : plan_.inputs) inputs.push_back({input.path, input.sha256});
  result.write_provenance(config_, static_cast<std::int64_t>(seed_), inputs, watch_.seconds());
  result.commit();
}

ExitCode Tuning::run() {
  read();
  if (line_.dry_run) {
    char text[160];
    std::snprintf(text, sizeof text, "%d trials, %zu at a time on %d rank(s) each: %d times as long as one training",
                  settings_.trials, groups_, settings_.ranks_per_trial,
                  static_cast<int>((static_cast<std::size_t>(settings_.trials) + groups_ - 1) / groups_));
    print_dry_run(line_, {plan_.data, plan_.network, text, "disk: " + human_bytes(disk_)});
    return ExitCode::done;
  }
  const Job job(comm_, output_, limits_, disk_, true);
  comm_.together([&] { log::start(comm_.rank(), output_ + ".log.jsonl"); });
  log::info("umbriel tune on " + std::to_string(comm_.size()) + " rank(s), " + device_name() + ": train " +
            settings_.train + ", " + std::to_string(settings_.trials) + " trials, " + std::to_string(groups_) +
            " at a time");
  log::info(plan_.data);
  log::info(plan_.network);
  open_folder();
  if (work() == Outcome::stopped) {
    log::info("stopped before the end; to go on, run the same command again: " + command_to_resume(line_, "tune"));
    return ExitCode::stopped;
  }

  const Trial &found = trials_[best()], &plain = trials_[0];
  require(std::isfinite(found.loss), ExitCode::numerical, "every trial failed: " + found.message, folder_,
          "narrow the ranges of tune.parameters, or lower train.learning_rate");
  write_result();
  char text[200];
  if (best() == 0) {
    std::snprintf(text, sizeof text, "no trial is better than the configuration as it is: %s = %.6g",
                  plain.measure.c_str(), plain.loss);
    log::info(text);
  } else {
    std::snprintf(text, sizeof text, "best is trial %zu: %s = %.6g", best(), found.measure.c_str(), found.loss);
    std::string words = text;
    std::snprintf(text, sizeof text, "; the configuration as it is has %.6g, more by %.3g", plain.loss,
                  plain.loss - found.loss);
    words += plain.state == Trial::State::done ? text : "; the configuration as it is failed";
    log::info(words);
    std::string command = "umbriel train " + settings_.train + " " + line_.config_path;
    for (const std::string& assignment : line_.overrides) {
      if (assignment.rfind("run.output", 0) != 0) command += " --set '" + assignment + "'";
    }
    for (const std::string& assignment : assignments(best(), found)) command += " --set '" + assignment + "'";
    log::info("weights: " + stem(best()) + ".safetensors; to train so again: " + command +
              " --set run.output=....safetensors");
  }
  log::info("wrote " + output_);
  return ExitCode::done;
}

}  // namespace

ExitCode run_tune(const CommandLine& line) {
  const Stopwatch watch;
  return Tuning(line, watch).run();
}

}  // namespace umbriel
