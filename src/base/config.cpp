#include "umbriel/base/config.hpp"

#include <toml++/toml.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

/// Edits that turn one word into another (Levenshtein).
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

/// Shortest decimal that reads back as the same number.
std::string print(double value) {
  char text[40];
  for (int digits = 6; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  std::string number = text;
  if (number.find_first_of(".en") == std::string::npos) number += ".0";  // TOML tells floats from whole numbers by this
  return number;
}

template <class T>
std::string print(const T& value) {
  std::ostringstream out;
  out << toml::value<T>(value);
  return out.str();
}

template <class T>
std::string print(const std::vector<T>& values) {
  std::string text;
  for (const T& value : values) text.append(text.empty() ? "[" : ", ").append(print(value));
  return text.empty() ? "[]" : text + "]";
}

std::string kind_of(const toml::node& node) {
  std::ostringstream out;
  out << node.type();
  return out.str();
}

/// Dotted paths of all values; of an empty table "table.", which is no unknown key where one of its keys is known.
void collect_keys(const toml::table& table, const std::string& prefix, std::vector<std::string>& keys) {
  for (const auto& [key, node] : table) {
    // "a.b" in quotes is one key and must not pass for the key b of table a.
    std::string name(key.str());
    if (name.empty() || name.find('.') != std::string::npos) name = '"' + name + '"';
    const std::string full = prefix + name;
    if (const toml::table* inner = node.as_table()) {
      if (inner->empty()) keys.push_back(full + ".");
      collect_keys(*inner, full + ".", keys);
    } else {
      keys.push_back(full);
    }
  }
}

}  // namespace

struct Config::Tree {
  std::string name;
  std::string folder;
  toml::table table;
  mutable std::map<std::string, std::string> asked;  // key -> value in force, as TOML

  const toml::node* find(const std::string& key) const { return table.at_path(key).node(); }
};

namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& where, const std::string& remedy) {
  throw Error(ExitCode::usage, what, where, remedy);
}

std::string trim(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

/// Where a character beyond ASCII stands outside strings and comments, else npos. toml++ 3.3 must not see one: its test
/// for foreign white space runs into undefined behaviour on Latin, Greek and Cyrillic letters.
std::size_t stray_letter(const std::string& text) {
  std::string closing;  // of the string or comment we are in
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!closing.empty()) {
      if (text[i] == '\\' && closing.front() == '"') {
        ++i;
      } else if (text.compare(i, closing.size(), closing) == 0) {
        i += closing.size() - 1;
        closing.clear();
      } else if (text[i] == '\n' && closing.size() == 1) {
        closing.clear();  // a string that was never closed: an error for the parser
      }
    } else if (text[i] == '#') {
      closing = "\n";
    } else if (text[i] == '"' || text[i] == '\'') {
      closing = std::string(text.compare(i, 3, std::string(3, text[i])) == 0 ? 3 : 1, text[i]);
      i += closing.size() - 1;
    } else if ((static_cast<unsigned char>(text[i]) & 0x80) != 0) {
      return i;
    }
  }
  return std::string::npos;
}

toml::table parse_table(const std::string& text, const std::string& name) {
  if (text.compare(0, 3, "\xef\xbb\xbf") == 0) return parse_table(text.substr(3), name);  // byte order mark
  const std::size_t stray = stray_letter(text);
  if (stray != std::string::npos) {
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(stray), '\n');
    const std::size_t begin = text.rfind('\n', stray);
    const std::size_t column = begin == std::string::npos ? stray + 1 : stray - begin;
    refuse("the configuration is not valid TOML: a letter beyond ASCII stands outside quotes",
           name + ", line " + std::to_string(line) + ", column " + std::to_string(column),
           "correct that line (strings need quotes)");
  }
  try {
    return toml::parse(text, name);
  } catch (const toml::parse_error& error) {
    std::ostringstream where;
    where << name << ", line " << error.source().begin.line << ", column " << error.source().begin.column;
    refuse("the configuration is not valid TOML: " + std::string(error.description()), where.str(),
           "correct that line (strings need quotes)");
  }
}

void apply_override(toml::table& table, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    refuse("--set needs key.path=value", "--set " + assignment, "for instance --set sampler.chains=64");
  const std::string key = trim(assignment.substr(0, equals));
  const std::string value = trim(assignment.substr(equals + 1));
  toml::table parsed;
  try {
    parsed = parse_table("value = " + value, "--set");
  } catch (const Error&) {
    if (!value.empty() && std::string("\"'[{").find(value.front()) != std::string::npos)
      refuse("the value is not valid TOML", "--set " + assignment,
             "close brackets and quotes; the items of a list need quotes of their own");
    parsed.insert_or_assign("value", value);  // a bare word is a string
  }
  toml::table* at = &table;
  std::string rest = key;
  for (std::size_t dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
    const std::string part = rest.substr(0, dot);
    rest = rest.substr(dot + 1);
    if (!at->contains(part)) at->insert(part, toml::table{});
    at = at->get(part)->as_table();
    if (at == nullptr) refuse(part + " holds a value, not keys", "--set " + assignment, "set the key itself");
  }
  parsed.get("value")->visit([&](auto&& node) { at->insert_or_assign(rest, node); });
}

}  // namespace

Config Config::load(const std::string& path, const std::vector<std::string>& overrides) {
  if (path.empty()) return parse("", "command line", overrides);
  std::ifstream file(path);
  std::error_code ignored;
  require(file.good() && !std::filesystem::is_directory(path, ignored), ExitCode::file_system,
          "cannot read the configuration file", path, "check the path and its permissions");
  std::ostringstream text;
  text << file.rdbuf();
  Config config = parse(text.str(), path, overrides);
  config.tree_->folder = std::filesystem::path(path).parent_path().string();
  return config;
}

Config Config::parse(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  Config config;
  config.tree_ = std::make_shared<Tree>();
  config.tree_->name = name;
  config.tree_->table = parse_table(text, name);
  for (const std::string& assignment : overrides) apply_override(config.tree_->table, assignment);
  return config;
}

std::string Config::where(const std::string& key) const { return tree_->name + ": " + key; }

namespace {

/// What a value of type T may be written as.
template <class T>
std::optional<T> convert(const toml::node& node);
template <>
std::optional<std::string> convert(const toml::node& node) {
  return node.is_string() ? node.value<std::string>() : std::nullopt;
}
template <>
std::optional<double> convert(const toml::node& node) {
  return node.is_number() ? node.value<double>() : std::nullopt;
}
template <>
std::optional<std::int64_t> convert(const toml::node& node) {
  return node.is_integer() ? node.value<std::int64_t>() : std::nullopt;
}
template <>
std::optional<bool> convert(const toml::node& node) {
  return node.is_boolean() ? node.value<bool>() : std::nullopt;
}

template <class T>
std::string type_name() {
  if constexpr (std::is_same_v<T, std::string>) return "a string in quotes";
  if constexpr (std::is_same_v<T, double>) return "a number";
  if constexpr (std::is_same_v<T, std::int64_t>) return "a whole number";
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  return "a value";
}

template <class T>
T scalar(const toml::node* node, const std::optional<T>& fallback, const std::string& where,
         std::map<std::string, std::string>& asked, const std::string& key) {
  if (node == nullptr) {
    if (!fallback) {
      asked.emplace(key, "");
      refuse("the key " + key + " is missing", where, "set it to " + type_name<T>());
    }
    asked[key] = print(*fallback);
    return *fallback;
  }
  const std::optional<T> value = convert<T>(*node);
  if (!value) refuse(key + " must be " + type_name<T>() + ", not " + kind_of(*node), where, "correct the value");
  asked[key] = print(*value);
  return *value;
}

template <class T>
std::vector<T> list(const toml::node* node, const std::optional<std::vector<T>>& fallback, const std::string& where,
                    std::map<std::string, std::string>& asked, const std::string& key) {
  if (node == nullptr) {
    if (!fallback) {
      asked.emplace(key, "");
      refuse("the key " + key + " is missing", where, "set it to a list, each item " + type_name<T>());
    }
    asked[key] = print(*fallback);
    return *fallback;
  }
  std::vector<T> values;
  if (const toml::array* array = node->as_array()) {
    for (const toml::node& item : *array) {
      const std::optional<T> value = convert<T>(item);
      if (!value) refuse(key + " must be a list, each item " + type_name<T>(), where, "correct the list");
      values.push_back(*value);
    }
  } else if (const std::optional<T> value = convert<T>(*node)) {
    values.push_back(*value);  // one item needs no brackets
  } else {
    refuse(key + " must be a list, each item " + type_name<T>() + ", not " + kind_of(*node), where,
           "correct the value");
  }
  asked[key] = print(values);
  return values;
}

}  // namespace

std::string Config::text(const std::string& key, const std::optional<std::string>& fallback) const {
  return scalar<std::string>(tree_->find(key), fallback, where(key), tree_->asked, key);
}

double Config::number(const std::string& key, const std::optional<double>& fallback, double low, double high) const {
  const double value = scalar<double>(tree_->find(key), fallback, where(key), tree_->asked, key);
  if (!(value >= low && value <= high))
    refuse(key + " = " + print(value) + " is outside [" + print(low) + ", " + print(high) + "]", where(key),
           "choose a value inside");
  return value;
}

std::int64_t Config::integer(const std::string& key, const std::optional<std::int64_t>& fallback, std::int64_t low,
                             std::int64_t high) const {
  const std::int64_t value = scalar<std::int64_t>(tree_->find(key), fallback, where(key), tree_->asked, key);
  if (value < low || value > high)
    refuse(
        key + " = " + std::to_string(value) + " is outside [" + std::to_string(low) + ", " + std::to_string(high) + "]",
        where(key), "choose a value inside");
  return value;
}

bool Config::flag(const std::string& key, bool fallback) const {
  return scalar<bool>(tree_->find(key), fallback, where(key), tree_->asked, key);
}

std::vector<std::string> Config::texts(const std::string& key,
                                       const std::optional<std::vector<std::string>>& fallback) const {
  return list<std::string>(tree_->find(key), fallback, where(key), tree_->asked, key);
}

std::vector<double> Config::numbers(const std::string& key, const std::optional<std::vector<double>>& fallback) const {
  return list<double>(tree_->find(key), fallback, where(key), tree_->asked, key);
}

std::string Config::choice(const std::string& key, const std::string& fallback,
                           const std::vector<std::string>& choices) const {
  const std::string value = text(key, fallback);
  if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
    std::string all;
    for (const std::string& choice : choices) all += (all.empty() ? "\"" : ", \"") + choice + "\"";
    refuse(key + " = \"" + value + "\" is not a choice", where(key), "choose one of " + all);
  }
  return value;
}

bool Config::has(const std::string& key) const {
  tree_->asked.emplace(key, "");  // known, though perhaps never read
  return tree_->find(key) != nullptr;
}

bool Config::is_text(const std::string& key) const {
  const toml::node* node = tree_->find(key);
  return node != nullptr && node->is_string();
}

bool Config::is_array(const std::string& key) const {
  const toml::node* node = tree_->find(key);
  return node != nullptr && node->is_array();
}

bool Config::is_table(const std::string& key) const {
  const toml::node* node = tree_->find(key);
  return node != nullptr && node->is_table();
}

std::string Config::path(const std::string& key, const std::optional<std::string>& fallback) const {
  return resolve_path(text(key, fallback));
}

std::string Config::resolve_path(const std::string& value) const {
  if (value.empty() || tree_->folder.empty() || std::filesystem::path(value).is_absolute()) return value;
  return (std::filesystem::path(tree_->folder) / value).string();
}

void Config::reject_unknown_keys() const {
  std::vector<std::string> given;
  collect_keys(tree_->table, "", given);
  for (std::string key : given) {
    if (key.back() == '.') {  // an empty table
      const auto next = tree_->asked.lower_bound(key);
      if (next != tree_->asked.end() && next->first.compare(0, key.size(), key) == 0) continue;
      key.pop_back();
    }
    if (tree_->asked.count(key) != 0) continue;
    std::string nearest;
    std::size_t best = key.size() / 2 + 1;
    for (const auto& [known, value] : tree_->asked) {
      const std::size_t d = distance(key, known);
      if (d < best) {
        best = d;
        nearest = known;
      }
    }
    refuse(
        "unknown key " + key, where(key),
        nearest.empty() ? "remove it; --help and docs/user-guide.md list the keys" : "did you mean " + nearest + "?");
  }
}

std::string Config::resolved() const {
  std::string text;
  for (const auto& [key, value] : tree_->asked) {
    if (!value.empty()) text += key + " = " + value + "\n";
  }
  return text;
}

}  // namespace umbriel
