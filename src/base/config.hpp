/// Configuration: a TOML file, `--set key.path=value` on top, and typed look-ups that check type and range.
///
/// A command reads all its keys and then calls `reject_unknown_keys`: a key that nobody asked for is an error with the
/// nearest known name. Every key read is kept with the value in force, so that a result records its full configuration.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace umbriel {

class Config {
 public:
  /// @param path       TOML file; empty: start from nothing
  /// @param overrides  "key.path=value", value in TOML syntax; a bare word counts as a string
  /// @throws Error(usage) with line and column for a file that does not parse, Error(file_system) for one that cannot
  ///         be read
  static Config load(const std::string& path, const std::vector<std::string>& overrides = {});
  /// The same from text; `name` stands for the file in messages.
  static Config parse(const std::string& text, const std::string& name = "text",
                      const std::vector<std::string>& overrides = {});

  /// @{ Value at a dotted key ("sampler.chains"). With a default the key may be missing; without one it must be there.
  /// @throws Error(usage) for a wrong type or a value outside [low, high]
  std::string text(const std::string& key, const std::optional<std::string>& fallback = std::nullopt) const;
  double number(const std::string& key, const std::optional<double>& fallback = std::nullopt, double low = -1e300,
                double high = 1e300) const;
  std::int64_t integer(const std::string& key, const std::optional<std::int64_t>& fallback = std::nullopt,
                       std::int64_t low = INT64_MIN, std::int64_t high = INT64_MAX) const;
  bool flag(const std::string& key, bool fallback) const;
  std::vector<std::string> texts(const std::string& key,
                                 const std::optional<std::vector<std::string>>& fallback = std::nullopt) const;
  std::vector<double> numbers(const std::string& key,
                              const std::optional<std::vector<double>>& fallback = std::nullopt) const;
  /// One of `choices`, else an error that lists them.
  std::string choice(const std::string& key, const std::string& fallback,
                     const std::vector<std::string>& choices) const;
  /// @}

  bool has(const std::string& key) const;
  /// True if the value at `key` is a string / an array / a table: for keys that take more than one form.
  bool is_text(const std::string& key) const;
  bool is_array(const std::string& key) const;
  bool is_table(const std::string& key) const;

  /// Dotted paths of all values below a table; a part of a path that holds a dot itself stands in quotes.
  std::vector<std::string> keys_below(const std::string& table) const;
  /// Items of a list of any values, each as TOML.
  /// @throws Error(usage) if the key is missing or holds no list
  std::vector<std::string> items(const std::string& key) const;
  /// The same with more on top: "key.path=value" as for `load`. What was asked of this one is not known there.
  Config with(const std::vector<std::string>& overrides) const;

  /// A path in the configuration is relative to the file that names it; absolute paths stay.
  std::string path(const std::string& key, const std::optional<std::string>& fallback = std::nullopt) const;
  std::string resolve_path(const std::string& value) const;

  /// @throws Error(usage) naming the first key that was never asked for, and the nearest known key
  void reject_unknown_keys() const;

  /// Every key asked for with the value in force, as TOML.
  std::string resolved() const;
  /// "FILE" or "FILE: key", for messages about a value.
  std::string where(const std::string& key) const;

 private:
  struct Tree;
  std::shared_ptr<Tree> tree_;
};

}  // namespace umbriel
