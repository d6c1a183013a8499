#include "umbriel/report/report.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include <fmt/format.h>

#include "umbriel/core/check.hpp"
#include "umbriel/report/parts.hpp"
#include "umbriel/report/text.hpp"

namespace umbriel {
namespace report {

std::string figure(const std::string& svg, const std::string& title, const std::string& caption) {
  return fmt::format("<figure>{}<figcaption><b>{}</b> {}</figcaption></figure>\n", svg, escape_html(title), caption);
}

std::string figures(const std::vector<std::string>& all, int columns) {
  if (all.empty()) return "";
  std::string out = fmt::format("<div class=\"figures of-{}\">\n", columns);
  for (const auto& one : all) out += one;
  return out + "</div>\n";
}

std::string attribute_or(const Hdf5Reader& file, const std::string& object, const std::string& name,
                         const std::string& fallback) {
  if (object != "/" && !file.has(object)) return fallback;
  return file.has_attribute(object, name) ? file.attribute(object, name) : fallback;
}

double attribute_number(const Hdf5Reader& file, const std::string& object, const std::string& name) {
  const std::string text = attribute_or(file, object, name);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return end == text.c_str() ? std::numeric_limits<double>::quiet_NaN() : value;
}

std::vector<double> values_or_none(const Hdf5Reader& file, const std::string& dataset) {
  return file.has(dataset) ? file.read<double>(dataset) : std::vector<double>{};
}

double mean_of(const std::vector<double>& values) {
  double sum = 0, n = 0;
  for (const double v : values) {
    if (std::isfinite(v)) sum += v, ++n;
  }
  return n > 0 ? sum / n : std::numeric_limits<double>::quiet_NaN();
}

double extreme_of(const std::vector<double>& values, bool largest) {
  double out = std::numeric_limits<double>::quiet_NaN();
  for (const double v : values) {
    if (std::isfinite(v) && (std::isnan(out) || (largest ? v > out : v < out))) out = v;
  }
  return out;
}

std::vector<std::string> names_for(const Hdf5Reader& file, const std::string& object, const std::string& attribute,
                                   std::size_t n) {
  auto names = split_names(attribute_or(file, object, attribute));
  for (std::size_t i = names.size(); i < n; ++i) names.push_back(fmt::format("quantity {}", i + 1));
  names.resize(n);
  return names;
}

}  // namespace report

namespace {

using report::Part;

std::string file_name(const Hdf5Reader& file) {
  return escape_html(std::filesystem::path(file.path()).filename().string());
}

/// @param names  of the files, as HTML
std::string header(const Hdf5Reader& file, const std::string& names, const Part& part,
                   const std::vector<Part::Section>& sections) {
  std::string out =
      fmt::format("<header>\n<p class=\"brand\">umbriel <span>report</span></p>\n<h1>{}</h1>\n", part.title);
  std::string subtitle = names;
  for (const auto& [name, text] : {std::pair{"command", "<code>umbriel {}</code>"}, {"started", "started {}"}}) {
    std::string value = report::attribute_or(file, "/", name);
    if (value.size() == 20 && value[10] == 'T' && value[19] == 'Z')
      value = value.substr(0, 10) + " " + value.substr(11, 5) + " UTC";
    if (!value.empty()) subtitle += " <i>\u00b7</i> " + fmt::format(fmt::runtime(text), escape_html(value));
  }
  out += fmt::format("<p class=\"subtitle\">{}</p>\n<p class=\"lead\">{}</p>\n<dl class=\"key-figures\">\n", subtitle,
                     part.lead);
  for (const auto& key : part.key_figures) {
    out += fmt::format("<div{}><dt>{}</dt><dd>{}</dd></div>\n", key.warn ? " class=\"warning\"" : "", key.meaning,
                       key.value);
  }
  out += "</dl>\n<nav>";
  for (const auto& section : sections) out += fmt::format("<a href=\"#{}\">{}</a>", section.anchor, section.title);
  return out + "</nav>\n</header>\n";
}

}  // namespace

std::string report_html(const Hdf5Reader& result) { return report_html(std::vector{&result}); }

std::string report_html(const std::vector<const Hdf5Reader*>& results) {
  // 1. What is in the files.
  const Hdf5Reader& result = *results.at(0);
  for (const Hdf5Reader* file : results) {
    require(results.size() == 1 || report::has_statistics(*file), ExitCode::input,
            "several files make one page only if all hold statistics of maps", file->path(),
            "give files that 'umbriel stats' wrote, or one file");
  }
  // 2. Its parts: of the first kind that there is.
  Part part;
  const bool samples = report::has_samples(result), validation = report::has_validation(result);
  if (report::has_statistics(result)) {
    part = report::statistics_part(results);
  } else if (report::has_inpainting(result)) {  // it has samples, too
    part = report::inpainting_part(result);
  } else if (samples) {
    part = report::sample_part(result);
  } else if (validation) {
    part = report::validate_part(result);
  } else if (report::has_covariance(result)) {
    part = report::covariance_part(result);
  } else if (report::has_search(result)) {
    part = report::search_part(result);
  } else if (report::has_reconstructions(result)) {
    part = report::reconstruction_part(result);
  } else if (report::has_interpolation(result)) {
    part = report::interpolation_part(result);
  } else {
    require(report::has_new_patches(result), ExitCode::input,
            "there is nothing to report: no posterior, validation, statistics, covariance, search or patches",
            result.path(),
            "give a file that 'umbriel sample', 'validate', 'stats', 'covariance', 'tune', 'reconstruct', "
            "'interpolate', 'inpaint' or 'generate dust' wrote");
    part = report::new_patches_part(result);
  }
  if (samples && validation) {
    Part second = report::validate_part(result);
    for (auto& section : second.sections) part.sections.push_back(std::move(section));
  }
  Part::Section provenance{"provenance", "Provenance", ""};
  std::string names;
  for (const Hdf5Reader* file : results) {
    names += (names.empty() ? "" : ", ") + file_name(*file);
    if (results.size() > 1) provenance.html += "<h3>" + file_name(*file) + "</h3>\n";
    provenance.html += report::provenance_section(*file).html;
  }
  part.sections.push_back(std::move(provenance));

  // 3. The page.
  std::string page =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      // The browser itself refuses scripts and anything from elsewhere.
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
      "'unsafe-inline'\">\n";
  page += fmt::format("<title>{} \u2013 umbriel</title>\n<style>\n{}</style>\n</head>\n<body>\n", names,
                      report::style_sheet());
  if (!part.definitions.empty()) {
    page += "<svg class=\"definitions\" aria-hidden=\"true\"><defs>" + part.definitions + "</defs></svg>\n";
  }
  page += "<main>\n" + header(result, names, part, part.sections);
  for (const auto& section : part.sections) {
    page +=
        fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n", section.anchor, section.title, section.html);
  }
  return page + "</main>\n</body>\n</html>\n";
}

void write_report(const Hdf5Reader& result, const std::string& html_path) {
  write_report(std::vector{&result}, html_path);
}

void write_report(const std::vector<const Hdf5Reader*>& results, const std::string& html_path) {
  const std::string page = report_html(results);
  const std::string temporary = html_path + ".tmp";
  std::ofstream stream(temporary, std::ios::binary);
  stream << page << std::flush;
  stream.close();
  std::error_code error;
  if (stream) std::filesystem::rename(temporary, html_path, error);
  if (!stream || error) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw Error(ExitCode::file_system, "the report could not be written", html_path,
                "check that its folder exists, can be written and has room");
  }
}

}  // namespace umbriel
