// Where a result comes from: program, machine, inputs with checksums, libraries, configuration.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "umbriel/report/parts.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel::report {
namespace {

/// A JSON value as text for people: strings bare, all else as JSON.
std::string plain(const nlohmann::json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

std::string inputs_table(const std::string& text) {
  const auto inputs = nlohmann::json::parse(text, nullptr, false);
  if (!inputs.is_array()) return "<pre>" + escape_html(text) + "</pre>\n";
  if (inputs.empty()) return "";
  std::string out =
      "<div class=\"scroll\"><table>\n<thead><tr><th>Input file</th><th>SHA-256</th></tr></thead>\n<tbody>\n";
  for (const auto& input : inputs) {
    const bool object = input.is_object();
    const std::string path = object && input.contains("path") ? plain(input["path"]) : plain(input);
    const std::string sum = object && input.contains("sha256") ? plain(input["sha256"]) : "";
    out += fmt::format("<tr><td>{}</td><td class=\"checksum\">{}</td></tr>\n", escape_html(path), escape_html(sum));
  }
  return out + "</tbody>\n</table></div>\n";
}

}  // namespace

Part::Section provenance_section(const Hdf5Reader& file) {
  std::string rows;
  const auto row = [&rows](const std::string& name, const std::string& value) {
    if (!value.empty())
      rows += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", name, escape_html(value));
  };
  row("Command", attribute_or(file, "/", "command"));
  row("umbriel", attribute_or(file, "/", "umbriel_version"));
  row("Git revision", attribute_or(file, "/", "git_revision"));
  row("Schema version", attribute_or(file, "/", "schema_version"));
  row("Seed", attribute_or(file, "/", "seed"));
  row("Ranks", attribute_or(file, "/", "ranks"));
  row("Devices", attribute_or(file, "/", "devices"));
  row("Started", attribute_or(file, "/", "started"));
  const double wall = attribute_number(file, "/", "wall_seconds");
  if (wall >= 0) row("Wall time", duration_text(wall));
  rows += "<tr><th scope=\"row\">Digest of all data</th><td class=\"checksum\">" + file.data_digest() + "</td></tr>\n";
  const std::string libraries = attribute_or(file, "/", "libraries");
  if (!libraries.empty()) {
    const auto json = nlohmann::json::parse(libraries, nullptr, false);
    std::string list;
    if (json.is_object()) {
      for (const auto& [name, version] : json.items()) list += (list.empty() ? "" : ", ") + name + " " + plain(version);
    }
    row("Libraries", list.empty() ? libraries : list);
  }

  std::string html = "<div class=\"scroll\"><table class=\"facts\">\n<tbody>\n" + rows + "</tbody>\n</table></div>\n";
  const std::string inputs = attribute_or(file, "/", "inputs");
  if (!inputs.empty()) html += "<h3>Inputs</h3>\n" + inputs_table(inputs);
  const std::string config = attribute_or(file, "/", "config");
  if (!config.empty()) {
    html +=
        "<h3>Configuration</h3>\n<p>Every key the command read, with the value in force. Saved as a <code>.toml</code> "
        "file it repeats the run.</p>\n<pre>" +
        escape_html(config) + "</pre>\n";
  }
  return {"provenance", "Provenance", html};
}

}  // namespace umbriel::report
