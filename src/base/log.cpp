#include "umbriel/base/log.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "umbriel/base/provenance.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel::log {
namespace {

struct State {
  int rank = 0;
  bool status_shown = false;
  int quiet = 0;  // how many Quiet live
  std::shared_ptr<spdlog::logger> file;
};

State& state() {
  static State instance;
  return instance;
}

void clear_status() {
  if (!state().status_shown) return;
  std::fputs("\r\033[K", stderr);
  state().status_shown = false;
}

void say(const char* level, const char* prefix, const std::string& message) {
  if (state().quiet == 0 || *prefix != '\0') {
    clear_status();
    const std::string rank = state().rank == 0 ? "" : "[rank " + std::to_string(state().rank) + "] ";
    std::fprintf(stderr, "%s%s%s\n", rank.c_str(), prefix, message.c_str());
  }
  event("log", {{"level", std::string(level)}, {"message", message}});
}

}  // namespace

void start(int rank, const std::string& jsonl_path) {
  state().rank = rank;
  if (rank != 0 || jsonl_path.empty()) return;
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_st>(jsonl_path, false);
    state().file = std::make_shared<spdlog::logger>("umbriel", sink);
    state().file->set_pattern("%v");
    state().file->flush_on(spdlog::level::info);
  } catch (const spdlog::spdlog_ex& failure) {
    throw Error(ExitCode::file_system, std::string("cannot write the log: ") + failure.what(), jsonl_path,
                "check that the folder of run.output exists and is writable");
  }
}

void stop() {
  clear_status();
  state().file.reset();
}

void info(const std::string& message) {
  if (state().rank == 0) say("info", "", message);
}
void warn(const std::string& message) { say("warning", "warning: ", message); }
void error(const std::string& message) { say("error", "error: ", message); }

Quiet::Quiet() { ++state().quiet; }
Quiet::~Quiet() { --state().quiet; }

void event(const std::string& name, const std::map<std::string, Field>& fields) {
  if (!state().file) return;
  nlohmann::ordered_json line;
  line["time"] = utc_now();
  line["event"] = name;
  for (const auto& field : fields) std::visit([&](const auto& value) { line[field.first] = value; }, field.second);
  state().file->info(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void status_line(const std::string& text) {
  if (state().rank != 0 || state().quiet > 0) return;
  if (is_terminal()) {
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    state().status_shown = true;
  } else {
    std::fprintf(stderr, "%s\n", text.c_str());
  }
  std::fflush(stderr);
}

bool is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

}  // namespace umbriel::log
