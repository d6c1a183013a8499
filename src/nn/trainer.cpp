#include "umbriel/nn/trainer.hpp"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "umbriel/base/log.hpp"
#include "umbriel/base/progress.hpp"
#include "umbriel/base/provenance.hpp"
#include "umbriel/base/signals.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/mpi/gradient_reducer.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/mpi/watchdog.hpp"

namespace umbriel::nn {
namespace {

/// Shortest text that reads back as the same number.
std::string exact_text(double value) {
  char text[40];
  for (int digits = 9; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  return text;
}

std::vector<float> to_host(const View1<float>& view) {
  const auto host = on_host(view);
  return {host.data(), host.data() + host.size()};
}

std::string checkpoint_of(const std::string& stem) { return stem + ".checkpoint.h5"; }

}  // namespace

Trainer::Trainer(const Communicator& comm, TrainingTask& task, TrainerOptions options)
    : comm_(comm),
      task_(task),
      options_(std::move(options)),
      optimiser_(make_optimiser(task.parameters(), options_.optimiser)),
      spectral_(task.parameters(), options_.seed, options_.spectral_limit),
      average_(task.parameters(), options_.average_decay) {
  if (options_.keep_best) best_ = View1<float>("umbriel::nn::best_weights", task.parameters().values().size());
}

std::vector<std::pair<std::string, View1<float>>> Trainer::state() const {
  std::vector<std::pair<std::string, View1<float>>> arrays = {{"weights", task_.parameters().values()},
                                                              {"buffers", task_.parameters().buffer_values()}};
  for (const auto& part : {optimiser_->state(), spectral_.state(), average_.state()})
    arrays.insert(arrays.end(), part.begin(), part.end());
  arrays.emplace_back("best", best_);
  return arrays;
}

void Trainer::write_checkpoint() const {
  Hdf5Writer file(checkpoint_of(options_.stem), comm_);
  for (const auto& [name, view] : state()) {
    if (view.size() == 0) continue;
    file.write<float>({"/state/" + name, {}, "1", name}, {view.size()}, to_host(view).data());
  }
  const auto write = [&](const std::string& name, const std::vector<double>& values) {
    if (!values.empty()) file.write<double>({"/history/" + name, {}, "1", name}, {values.size()}, values.data());
  };
  write("loss", history_.loss);
  write("gradient_norm", history_.gradient_norm);
  write("seconds", history_.seconds);
  write("validated", std::vector<double>(history_.validated.begin(), history_.validated.end()));
  write("values", history_.values);
  std::string names;
  for (const std::string& name : history_.names) names += name + "\n";
  file.attribute("/", "names", names);
  file.attribute("/", "step", step_);
  file.attribute("/", "optimiser_steps", optimiser_->steps());
  file.attribute("/", "average_updates", average_.updates());
  file.attribute("/", "command", std::string("training checkpoint"));
  file.attribute("/", "identity", options_.identity);
  file.commit(true);
}

void Trainer::resume() {
  const std::string newest = checkpoint_of(options_.stem);
  const std::string path = newest_good_generation(comm_, newest, [](const std::string& what) {
    log::warn("a checkpoint is not good and is passed over: " + what);
  });
  if (path.empty()) return;
  if (comm_.is_root() && path != newest) log::warn("going on from the generation before: " + path);
  comm_.together([&] {
    const Hdf5Reader file(path);
    const std::string then = file.attribute("/", "identity");
    if (options_.judge) {
      options_.judge(then, path);
    } else {
      require(then == options_.identity, ExitCode::usage, "the checkpoint was made with another configuration", path,
              "train with the old configuration, or remove the checkpoint to start anew");
    }
    for (const auto& [name, view] : state()) {
      if (view.size() == 0) continue;
      const std::vector<float> values = file.read<float>("/state/" + name);
      require(values.size() == view.size(), ExitCode::input, "the checkpoint's " + name + " has another size", path,
              "remove the checkpoint to start anew");
      Kokkos::deep_copy(view,
                        Kokkos::View<const float*, HostMemory, Kokkos::MemoryUnmanaged>(values.data(), values.size()));
    }
    const auto check = [&](bool sound, const std::string& name) {
      require(sound, ExitCode::input, "the checkpoint's " + name + " is not what it should be", path,
              "remove the checkpoint to start anew");
    };
    const auto read = [&](const std::string& name) {
      return file.has("/history/" + name) ? file.read<double>("/history/" + name) : std::vector<double>();
    };
    const auto count = [&](const std::string& name) {
      const std::string text = file.attribute("/", name);
      std::int64_t number = -1;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      check(error == std::errc() && end == text.data() + text.size() && number >= 0, name);
      return number;
    };
    history_.loss = read("loss");
    history_.gradient_norm = read("gradient_norm");
    history_.seconds = read("seconds");
    history_.values = read("values");
    for (const double step : read("validated")) {
      check(step >= 0 && step <= 9007199254740992.0, "history");  // 2^53
      history_.validated.push_back(static_cast<std::int64_t>(step));
    }
    std::string names = file.attribute("/", "names");
    for (std::size_t end; (end = names.find('\n')) != std::string::npos; names.erase(0, end + 1))
      history_.names.push_back(names.substr(0, end));
    check(history_.gradient_norm.size() == history_.loss.size() && history_.seconds.size() == history_.loss.size() &&
              history_.values.size() == history_.names.size() * history_.validated.size(),
          "history");
    step_ = count("step");
    optimiser_->set_steps(count("optimiser_steps"));
    average_.set_updates(count("average_updates"));
    seconds_before_ = history_.seconds.empty() ? 0 : history_.seconds.back();
  });
  if (comm_.is_root()) log::info("going on after step " + std::to_string(step_) + " (" + path + ")");
}

/// Appends the rows that are not in the files yet; `anew`: writes them from the first step on.
void Trainer::write_metrics(bool anew) const {
  comm_.together([&] {
    if (!comm_.is_root()) return;
    if (anew) rows_written_ = validations_written_ = 0;
    const auto mode = anew ? std::ios::trunc : std::ios::app;
    std::ofstream csv(options_.stem + ".metrics.csv", mode), lines(options_.stem + ".metrics.jsonl", mode);
    std::ofstream validation(options_.stem + ".validation.csv", mode);
    if (anew) csv << "step,loss,learning_rate,gradient_norm,seconds\n";
    std::size_t row = rows_written_;
    const auto write_validation = [&](std::size_t v) {
      if (v == 0) {
        validation << "step";
        for (const std::string& name : history_.names) validation << ',' << name;
        validation << '\n';
      }
      validation << history_.validated[v];
      lines << "{\"step\": " << history_.validated[v] << ", \"validation\": {";
      for (std::size_t i = 0; i < history_.names.size(); ++i) {
        const std::string value = exact_text(history_.values[v * history_.names.size() + i]);
        validation << ',' << value;
        lines << (i ? ", " : "") << '"' << history_.names[i] << "\": " << value;
      }
      validation << '\n';
      lines << "}}\n";
    };
    for (; row < history_.loss.size(); ++row) {
      const auto step = static_cast<std::int64_t>(row);
      const std::string loss = exact_text(history_.loss[row]), rate = exact_text(options_.schedule.at(step)),
                        norm = exact_text(history_.gradient_norm[row]), seconds = exact_text(history_.seconds[row]);
      csv << step << ',' << loss << ',' << rate << ',' << norm << ',' << seconds << '\n';
      lines << "{\"step\": " << step << ", \"loss\": " << loss << ", \"learning_rate\": " << rate
            << ", \"gradient_norm\": " << norm << ", \"seconds\": " << seconds << "}\n";
    }
    while (validations_written_ < history_.validated.size()) write_validation(validations_written_++);
    rows_written_ = row;
    csv.flush();
    lines.flush();
    validation.flush();
    require(csv.good() && lines.good() && validation.good(), ExitCode::file_system, "the metrics cannot be written",
            options_.stem + ".metrics.csv", "free space there, or choose another run.output");
  });
}

std::size_t Trainer::kept() const {
  const std::size_t names = history_.names.size(), last = history_.validated.size() - 1;
  if (best_.size() == 0 || names == 0) return last;
  std::size_t best = 0;
  for (std::size_t v = 1; v <= last; ++v) {
    if (history_.values[v * names] < history_.values[best * names]) best = v;
  }
  return best;
}

void Trainer::validate(const Space& space, const View1<float>& values) {
  const auto measured = task_.validate(space, values);
  history_.names.clear();
  std::string text;
  for (const auto& [name, value] : measured) {
    history_.names.push_back(name);
    history_.values.push_back(value);
    char entry[96];
    std::snprintf(entry, sizeof entry, "%s%s %.4g", text.empty() ? "" : ", ", name.c_str(), value);
    text += entry;
  }
  history_.validated.push_back(step_);
  if (best_.size() > 0 && kept() + 1 == history_.validated.size()) Kokkos::deep_copy(best_, values);
  if (comm_.is_root()) log::info("step " + std::to_string(step_) + ": " + text);
}

bool Trainer::run(const Space& space) {
  const ParameterSet& set = task_.parameters();
  GradientReducer reducer(comm_, set.gradients(), optimiser_->row());
  Progress progress(comm_, "training", options_.steps - step_, "steps");
  const Stopwatch watch;
  double last_checkpoint = 0, longest = 0;
  if (options_.keep_best && step_ == 0 && history_.validated.empty()) validate(space, set.values());
  write_metrics(true);
  while (step_ < options_.steps) {
    const double began = watch.seconds();
    report_alive();
    const std::vector<double> losses =
        task_.gradients(space, step_, [&](std::int64_t first) { reducer.ready(space, first); });
    reducer.finish(space);
    ExactSum here, count;
    for (const double loss : losses) here.add(loss);
    count.add(static_cast<double>(losses.size()));
    const std::vector<double> total = exact_sum_over_ranks(comm_, {here, count});
    const double loss = total[0] / total[1];
    optimiser_->step(space, options_.schedule.at(step_), &reducer);
    reducer.gather(space, set.values());
    spectral_.apply(space);
    average_.update(space, reducer.mine());
    const double norm = optimiser_->gradient_norm();
    if (!std::isfinite(loss) || !std::isfinite(norm)) {
      throw Error(ExitCode::numerical, "the loss or its gradient is not finite", "step " + std::to_string(step_),
                  "lower train.learning_rate, or set train.clip_norm; the last checkpoint is kept")
          .mark_agreed();
    }
    history_.loss.push_back(loss);
    history_.gradient_norm.push_back(norm);
    history_.seconds.push_back(seconds_before_ + watch.seconds());
    ++step_;
    const bool last = step_ == options_.steps;
    if (last || (options_.validate_every > 0 && step_ % options_.validate_every == 0)) {
      reducer.gather(space, average_.values());
      validate(space, average_.values());
    }
    char note[48];
    std::snprintf(note, sizeof note, "loss %.4f", loss);
    progress.add(comm_.is_root() ? 1 : 0, note);

    // The ranks must agree on what a clock or a signal says.
    longest = std::max(longest, watch.seconds() - began);
    const double limit = 60 * options_.max_walltime_minutes;
    std::int64_t wishes = stop_signal_received() || (limit > 0 && watch.seconds() + 2 * longest + 5 > limit) ? 2 : 0;
    if (wishes == 0 && options_.checkpoint_minutes > 0 &&
        watch.seconds() - last_checkpoint > 60 * options_.checkpoint_minutes)
      wishes = 1;
    wishes = comm_.max(wishes);
    const bool due = options_.checkpoint_steps > 0 && step_ % options_.checkpoint_steps == 0;
    if (wishes > 0 || due || last) {
      for (const auto& part : {optimiser_->state(), average_.state()}) {
        for (const auto& [name, view] : part) reducer.gather(space, view);
      }
      write_checkpoint();
      write_metrics(false);
      last_checkpoint = watch.seconds();
    }
    if (wishes == 2 && !last) return false;
  }
  return true;
}

void Trainer::remove_checkpoint() const {
  comm_.together([&] {
    if (!comm_.is_root()) return;
    remove_leftovers(checkpoint_of(options_.stem));
    std::filesystem::remove(checkpoint_of(options_.stem));
    std::filesystem::remove(previous_generation(checkpoint_of(options_.stem)));
  });
}

}  // namespace umbriel::nn
