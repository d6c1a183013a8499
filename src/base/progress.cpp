#include "umbriel/base/progress.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>

#include "umbriel/base/log.hpp"

namespace umbriel {
namespace {

constexpr double scale = 1e6;

std::string duration(double seconds) {
  constexpr double longest = 3.6e9;  // a million hours stands for "unknown"
  if (!(seconds < longest)) return "?";
  const auto s = static_cast<std::int64_t>(std::llround(std::max(seconds, 0.0)));
  char text[48];
  if (s < 60) {
    std::snprintf(text, sizeof text, "%lds", static_cast<long>(s));
  } else if (s < 3600) {
    std::snprintf(text, sizeof text, "%ldm%02lds", static_cast<long>(s / 60), static_cast<long>(s % 60));
  } else {
    std::snprintf(text, sizeof text, "%ldh%02ldm", static_cast<long>(s / 3600), static_cast<long>(s / 60 % 60));
  }
  return text;
}

}  // namespace

Progress::Progress(const Communicator& comm, const std::string& title, std::int64_t total, const std::string& unit)
    : counter_(comm), title_(title), unit_(unit), total_(total), exceptions_(std::uncaught_exceptions()) {}

Progress::~Progress() {
  if (std::uncaught_exceptions() > exceptions_) {  // this rank failed: wait for nobody
    counter_.abandon();
    return;
  }
  try {
    counter_.finish();
    show(true);
  } catch (const std::exception&) {
    // A failed rank is reported by whoever failed.
  }
}

void Progress::add(double n, const std::string& note) {
  if (!note.empty()) note_ = note;
  counter_.add(static_cast<std::int64_t>(std::llround(n * scale)));
  show(false);
}

void Progress::show(bool last) {
  if (!counter_.is_root()) return;
  const double elapsed = watch_.seconds();
  const double every = log::is_terminal() ? 0.2 : 30.0;
  const bool first = shown_ < 0;
  if (!last && !first && elapsed - shown_ < every) return;
  shown_ = elapsed;
  const double done = static_cast<double>(counter_.total()) / scale;
  const double fraction = total_ > 0 ? std::clamp(done / static_cast<double>(total_), 0.0, 1.0) : 1.0;
  char text[256];
  std::string bar(static_cast<std::size_t>(std::lround(24 * fraction)), '#');
  bar.resize(24, '.');
  const double rate = elapsed > 0 ? done / elapsed : 0;
  const double left = rate > 0 ? (static_cast<double>(total_) - done) / rate : HUGE_VAL;
  std::snprintf(text, sizeof text, "%s [%s] %.*f/%ld %s, %.3g %s/s, %s %s", title_.c_str(), bar.c_str(), last ? 0 : 1,
                done, static_cast<long>(total_), unit_.c_str(), rate, unit_.c_str(), last ? "in" : "left",
                duration(last ? elapsed : left).c_str());
  if (last) {
    log::info(text);
  } else {
    if (!first) log::status_line(note_.empty() ? text : text + (", " + note_));
    log::event("progress", {{"done", done}, {"total", total_}, {"rate", rate}});
  }
}

}  // namespace umbriel
