/// What a run says: plain lines for a human on standard error (rank 0; warnings of other ranks with their rank), and
/// the same as JSON lines in OUTPUT.log.jsonl.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>

namespace umbriel::log {

using Field = std::variant<std::string, double, std::int64_t>;

/// Starts logging. `jsonl_path` empty: no file. Only rank 0 writes the file.
void start(int rank, const std::string& jsonl_path = "");
/// Closes the file.
void stop();

void info(const std::string& message);
void warn(const std::string& message);
void error(const std::string& message);

/// While it lives, information and progress go to the JSON-lines file alone; warnings and errors are shown as ever.
class Quiet {
 public:
  Quiet();
  ~Quiet();
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
};

/// A machine-readable event: {"time": …, "event": name, fields…} in the JSON-lines file only.
void event(const std::string& name, const std::map<std::string, Field>& fields);

/// Keeps a line of progress at the bottom of a terminal; plain text where standard error is not one.
void status_line(const std::string& text);
bool is_terminal();

}  // namespace umbriel::log
