#include "umbriel/models/generative_model.hpp"

#include <cmath>
#include <cstdio>
#include <sstream>

#include "umbriel/models/diffusion.hpp"
#include "umbriel/models/flow_model.hpp"
#include "umbriel/models/metadata_table.hpp"
#include "umbriel/models/vae.hpp"

namespace umbriel {
namespace {

constexpr const char* format_key = "umbriel.format";
constexpr const char* format_name = "umbriel maps 1";

std::string exact(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

}  // namespace

void GenerativeModelRecord::save(const std::string& path, const nn::ParameterSet& parameters,
                                 const View1<float>& values, nn::Metadata more) const {
  more[format_key] = format_name;
  more["umbriel.kind"] = kind;
  more["umbriel.config"] = config;
  more["umbriel.width"] = std::to_string(grid.width);
  more["umbriel.height"] = std::to_string(grid.height);
  more["umbriel.pixel_arcmin"] = exact(pixel_arcmin);
  more["umbriel.field"] = field.name();
  more["umbriel.field.kappa0"] = exact(field.kappa0);
  more["umbriel.field.mean"] = exact(field.mean);
  more["umbriel.field.highest"] = exact(field.highest);
  more["umbriel.field.power"] = table_text(field.multipole, field.power);
  if (conditions.size() > 0) more["umbriel.parameters"] = conditions.text();
  if (quantisation_step > 0) more["umbriel.quantisation_step"] = exact(quantisation_step);
  nn::save_weights(path, parameters, values, more);
}

GenerativeModelRecord GenerativeModelRecord::load(const std::string& path) {
  const nn::Metadata metadata = nn::SafetensorsFile(path).metadata();
  const std::string remedy = "give a file that `umbriel train flow` or `train diffusion` wrote";
  const auto entry = [&](const std::string& key) {
    const auto found = metadata.find(key);
    require(found != metadata.end(), ExitCode::input, "the metadata lack " + key, path, remedy);
    return found->second;
  };
  const auto number = [&](const std::string& key, double low, double high) {
    std::istringstream text(entry(key));
    double value = NAN;
    text >> value;
    require(value >= low && value <= high, ExitCode::input, key + " in the metadata is not a number in its range", path,
            remedy);
    return value;
  };
  require(entry(format_key) == format_name, ExitCode::input, "the file holds another kind of model, or a later version",
          path, remedy);
  GenerativeModelRecord record;
  record.kind = entry("umbriel.kind");
  record.config = entry("umbriel.config");
  record.grid = {static_cast<int>(number("umbriel.height", 2, 65536)),
                 static_cast<int>(number("umbriel.width", 2, 65536))};
  record.pixel_arcmin = number("umbriel.pixel_arcmin", 1e-4, 1e4);
  const std::string transform = entry("umbriel.field");
  record.field.standardised = transform.starts_with("standardised");
  record.field.lognormal = transform.ends_with("lognormal");
  require(transform == record.field.name(), ExitCode::input, "there is no transform \"" + transform + "\"", path,
          "give a file that this version of umbriel wrote");
  record.field.kappa0 = number("umbriel.field.kappa0", 0, 1e9);
  record.field.mean = number("umbriel.field.mean", -1e9, 1e9);
  if (metadata.count("umbriel.field.highest") > 0) record.field.highest = number("umbriel.field.highest", -1e30, 1e30);
  read_table(metadata, "umbriel.field.power", path, remedy, record.field.multipole, record.field.power);
  if (metadata.count("umbriel.parameters") > 0)
    record.conditions = MapConditions::parse(entry("umbriel.parameters"), path);
  if (metadata.count("umbriel.quantisation_step") > 0)
    record.quantisation_step = number("umbriel.quantisation_step", 1e-30, 1e30);
  return record;
}

int maps_at_once(Grid grid, std::int64_t host_pixels) {
  int n = 1;
  while (n < 16 && 2 * n * grid.pixels() <= (runs_on_host ? host_pixels : 4096 * 4096)) n *= 2;
  return n;
}

std::unique_ptr<MapGenerator> make_generator(const std::string& path, const GenerativeModelRecord& record,
                                             const Config& config, const nn::Options& options) {
  if (record.kind == "diffusion") return make_diffusion_generator(path, record, config, options);
  if (record.kind == "vae") return make_vae_generator(path, config, options);
  require(record.kind == "flow", ExitCode::input, "there is no model of the kind \"" + record.kind + "\"", path,
          "give a file that this version of umbriel wrote");
  return make_flow_generator(path, record, options);
}

}  // namespace umbriel
