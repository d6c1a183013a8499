#include "umbriel/data/survey.hpp"

#include <algorithm>
#include <cmath>

#include "umbriel/core/check.hpp"
#include "umbriel/data/catalogue.hpp"
#include "umbriel/data/fits.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/mpi/sha256.hpp"

namespace umbriel {

namespace {

std::string pixel_name(int y, int x) { return "pixel y = " + std::to_string(y) + ", x = " + std::to_string(x); }

/// Throws for the first observed pixel of plane `component` of `maps` that is not `good`.
template <class Good>
void require_observed(const Survey& survey, const HostMaps& maps, int component, const std::string& name,
                      const std::string& file, const std::string& demand, const std::string& remedy, const Good& good) {
  for (int y = 0; y < survey.grid.height; ++y)
    for (int x = 0; x < survey.grid.width; ++x) {
      const float value = maps(component, y, x);
      if (survey.mask(0, y, x) == 0 || good(value)) continue;
      throw Error(ExitCode::input, name + " is " + std::to_string(value) + " in an observed pixel; " + demand,
                  file + ", " + pixel_name(y, x), remedy);
    }
}

/// Maps of one file, in float64.
struct LoadedMaps {
  std::string name;  ///< "FILE.toml: key, map.fits"
  Grid grid;
  int planes = 1;
  std::vector<double> values;  ///< [plane, y, x]
  std::optional<TangentPlane> wcs;
};

/// [y, x, 2] -> [2, y, x]
void move_components_first(LoadedMaps& maps, Grid grid) {
  std::vector<double> out(maps.values.size());
  const std::size_t pixels = maps.values.size() / 2;
  for (std::size_t i = 0; i < maps.values.size(); ++i) out[(i % 2) * pixels + i / 2] = maps.values[i];
  maps.values = std::move(out);
  maps.grid = grid;
  maps.planes = 2;
}

class Reader {
 public:
  explicit Reader(const Config& config) : config_(config) {}

  std::vector<InputFile> inputs;

  /// Resolves `file` and records it. A file that is named twice is recorded once.
  std::string record(const std::string& file) {
    const std::string path = config_.resolve_path(file);
    if (std::none_of(inputs.begin(), inputs.end(), [&](const InputFile& input) { return input.path == path; }))
      inputs.push_back({path, sha256_of_file(path)});
    return path;
  }

  LoadedMaps maps(const std::string& key, const std::string& file) {
    LoadedMaps out;
    const std::string path = record(file);
    out.name = config_.where(key) + ", " + file;
    if (path.ends_with(".npy")) {
      NpyArray array = read_npy(path);
      const std::size_t rank = array.shape.size();
      require((rank == 2 || rank == 3) && !array.values.empty() &&
                  std::all_of(array.shape.begin(), array.shape.end(), [](std::uint64_t n) { return n < (1U << 20); }),
              ExitCode::input, "the array is not a map", out.name, "give an array [y, x] or [plane, y, x]");
      out.planes = rank == 3 ? static_cast<int>(array.shape[0]) : 1;
      out.grid = {static_cast<int>(array.shape[rank - 2]), static_cast<int>(array.shape[rank - 1])};
      out.values = std::move(array.values);
    } else {
      FitsImage image = read_fits_image(path);
      out.planes = image.planes;
      out.grid = {image.height, image.width};
      out.values = std::move(image.values);
      out.wcs = image.wcs;
    }
    if (out.planes > 2 && out.grid.width == 2) move_components_first(out, {out.planes, out.grid.height});
    return out;
  }

  /// The file or files of a key that takes two maps.
  std::vector<LoadedMaps> both_components(const std::string& key, bool one_serves_both) {
    const auto files = config_.is_array(key) ? config_.texts(key) : std::vector<std::string>{config_.text(key)};
    require(files.size() == 1 || files.size() == 2, ExitCode::usage,
            "the key names " + std::to_string(files.size()) + " files", config_.where(key),
            "give two files, or one with two planes");
    std::vector<LoadedMaps> out;
    for (const auto& file : files) out.push_back(maps(key, file));
    for (const LoadedMaps& part : out) {
      const int wanted = files.size() == 2 ? 1 : 2;
      require(part.planes == wanted || (one_serves_both && part.planes == 1), ExitCode::input,
              "the file has " + std::to_string(part.planes) + " planes, not " + std::to_string(wanted), part.name,
              "give two files with one map each, or one file with two planes");
    }
    return out;
  }

  std::vector<double> column(const std::string& key, const std::string& file) {
    return file.empty() ? read_fits_column(record(config_.text(key)))
                        : read_fits_column(record(file), config_.text(key));
  }

 private:
  const Config& config_;
};

void require_same_grid(const LoadedMaps& maps, Grid grid, const std::string& other) {
  const auto text = [](Grid g) { return std::to_string(g.height) + " x " + std::to_string(g.width); };
  require(maps.grid == grid, ExitCode::input,
          "the map has " + text(maps.grid) + " pixels (y, x) and " + other + " has " + text(grid), maps.name,
          "give maps of one grid");
}

/// Fills a [2, y, x] array from the plane or planes of one or two files.
void fill(const HostMaps& out, const std::vector<LoadedMaps>& parts, std::array<std::string, 2>& names) {
  const std::size_t pixels = out.extent(1) * out.extent(2);
  for (std::size_t component = 0; component < 2; ++component) {
    const LoadedMaps& part = parts.size() == 2 ? parts[component] : parts[0];
    const std::size_t plane = part.planes == 2 ? component : 0;
    names[component] = part.name;
    std::transform(part.values.begin() + static_cast<std::ptrdiff_t>(plane * pixels),
                   part.values.begin() + static_cast<std::ptrdiff_t>((plane + 1) * pixels),
                   out.data() + component * pixels, [](double value) { return static_cast<float>(value); });
  }
}

HostMaps single_map(Reader& reader, const Config& config, const std::string& key, Grid grid,
                    const std::string& shear_name, std::string& name) {
  const LoadedMaps maps = reader.maps(key, config.text(key));
  name = maps.name;
  require(maps.planes == 1, ExitCode::input, "the file has " + std::to_string(maps.planes) + " planes, not 1", name,
          "give one map");
  require_same_grid(maps, grid, shear_name);
  HostMaps out("umbriel::" + key, 1, static_cast<std::size_t>(grid.height), static_cast<std::size_t>(grid.width));
  std::transform(maps.values.begin(), maps.values.end(), out.data(), [](double v) { return static_cast<float>(v); });
  return out;
}

HostMaps two_maps(const std::string& label, Grid grid) {
  return HostMaps(label, 2, static_cast<std::size_t>(grid.height), static_cast<std::size_t>(grid.width));
}

/// The pixel size from the key, the WCS or both.
double pixel_size(const Config& config, const std::optional<TangentPlane>& wcs, const std::string& file) {
  const std::string key = "survey.pixel_arcmin";
  if (!wcs) return config.number(key);
  const double width = 60 * std::abs(wcs->cdelt_x_deg);
  const double height = 60 * std::abs(wcs->cdelt_y_deg);
  require(std::abs(width - height) <= 0.01 * height, ExitCode::input,
          "the pixels of the WCS are " + std::to_string(width) + " x " + std::to_string(height) + " arcmin", file,
          "give maps with square pixels");
  const double size = config.number(key, height);
  require(std::abs(size - height) <= 0.01 * height, ExitCode::input,
          "survey.pixel_arcmin is " + std::to_string(size) + " and the WCS says " + std::to_string(height), file,
          "correct one of them, or leave out survey.pixel_arcmin");
  return size;
}

Grid catalogue_grid(const Config& config) {
  const std::string key = "survey.size";
  const auto size = config.numbers(key);
  const auto good = [](double n) { return n >= 2 && n <= 1 << 16 && n == std::floor(n); };
  require(size.size() == 2 && good(size[0]) && good(size[1]), ExitCode::usage,
          "the size is not two whole numbers from 2 to 65536", config.where(key), "give [width, height] in pixels");
  return {static_cast<int>(size[1]), static_cast<int>(size[0])};
}

/// Shear, noise and mask from a catalogue.
void read_catalogue_survey(const Config& config, Reader& reader, Survey& survey, SurveyNames& names) {
  const std::string key = "survey.catalogue";
  const std::string where = config.where(key);
  require(config.is_table(key), ExitCode::usage, "the key is not a table", where,
          "give {ra = ..., dec = ..., e1 = ..., e2 = ..., weight = ...}");
  const std::string file = config.text(key + ".file", "");

  ShapeCatalogue catalogue;
  const char* columns[] = {"ra", "dec", "e1", "e2", "weight"};
  for (std::size_t c = 0; c < catalogue.files.size(); ++c) {
    const std::string column = key + "." + columns[c];
    if (config.has(column)) catalogue.files[c] = file.empty() ? config.text(column) : file;
  }
  catalogue.ra = reader.column(key + ".ra", file);
  catalogue.dec = reader.column(key + ".dec", file);
  catalogue.e1 = reader.column(key + ".e1", file);
  catalogue.e2 = reader.column(key + ".e2", file);
  if (config.has(key + ".weight"))
    catalogue.weight = reader.column(key + ".weight", file);
  else
    catalogue.weight.assign(catalogue.ra.size(), 1.0);

  BinningOptions options;
  options.flip_e1 = config.flag(key + ".flip_e1", options.flip_e1);
  options.flip_e2 = config.flag(key + ".flip_e2", options.flip_e2);
  options.insist_on_degrees = config.choice(key + ".unit", "auto", {"auto", "deg"}) == "deg";
  const std::string projection = config.choice(key + ".projection", "auto", {"auto", "tangent", "plate-carree"});
  if (projection == "tangent") options.projection = Projection::tangent;
  if (projection == "plate-carree") options.projection = Projection::plate_carree;
  if (config.has("survey.centre")) {
    const auto centre = config.numbers("survey.centre");
    require(centre.size() == 2 && std::abs(centre[0]) <= 360 && std::abs(centre[1]) <= 90, ExitCode::usage,
            "the centre is not a position on the sky", config.where("survey.centre"), "give [ra, dec] in degrees");
    options.centre = {centre[0], centre[1]};
  }

  survey.grid = catalogue_grid(config);
  survey.pixel_arcmin = config.number("survey.pixel_arcmin");
  const BinnedShear binned = bin_catalogue(catalogue, survey.grid, survey.pixel_arcmin, options, where);
  survey.wcs = binned.plane;
  const bool noise_from_shapes = !config.has("survey.noise");
  require(!noise_from_shapes || std::any_of(binned.noise1.begin(), binned.noise1.end(), [](double s) { return s > 0; }),
          ExitCode::input, "the ellipticities do not scatter, so the noise cannot be estimated from them", where,
          "give survey.noise, or a catalogue of more galaxies");

  survey.shear = two_maps("umbriel::survey.shear", survey.grid);
  survey.noise = two_maps("umbriel::survey.noise", survey.grid);
  survey.mask = HostMaps("umbriel::survey.mask", 1, static_cast<std::size_t>(survey.grid.height),
                         static_cast<std::size_t>(survey.grid.width));
  const std::size_t pixels = binned.mask.size();
  for (std::size_t i = 0; i < pixels; ++i) {
    survey.shear.data()[i] = static_cast<float>(binned.shear1[i]);
    survey.shear.data()[pixels + i] = static_cast<float>(binned.shear2[i]);
    survey.noise.data()[i] = static_cast<float>(binned.noise1[i]);
    survey.noise.data()[pixels + i] = static_cast<float>(binned.noise2[i]);
    survey.mask.data()[i] = static_cast<float>(binned.mask[i]);
  }
  names.shear = names.noise = {where, where};
  names.mask = where;
}

}  // namespace

void check_survey(const Survey& survey, const SurveyNames& names) {
  const Grid grid = survey.grid;
  require(grid.height > 0 && grid.width > 0, ExitCode::input, "the survey has no pixels", names.shear[0], "give maps");
  require(std::isfinite(survey.pixel_arcmin) && survey.pixel_arcmin > 0, ExitCode::input,
          "the pixel size is " + std::to_string(survey.pixel_arcmin), names.pixel_arcmin,
          "give the side of a pixel in arcminutes, a positive number");
  require_shape(survey.shear, 2, grid, names.shear[0]);
  require_shape(survey.noise, 2, grid, names.noise[0]);
  require_shape(survey.mask, 1, grid, names.mask);
  if (survey.truth) require_shape(*survey.truth, 1, grid, names.truth);

  long observed = 0;
  for (int y = 0; y < grid.height; ++y)
    for (int x = 0; x < grid.width; ++x) {
      const float value = survey.mask(0, y, x);
      if (value != 0 && value != 1)
        throw Error(ExitCode::input, "the mask is " + std::to_string(value), names.mask + ", " + pixel_name(y, x),
                    "give 1 where observed and 0 elsewhere");
      observed += value == 1;
    }
  require(observed > 0, ExitCode::input, "the mask is empty: no pixel is observed", names.mask,
          "give a mask with 1 where observed; without a mask, noise that is not 0 there");

  for (int component = 0; component < 2; ++component) {
    const auto i = static_cast<std::size_t>(component);
    const std::string gamma = "shear component " + std::to_string(component + 1);
    require_observed(survey, survey.shear, component, gamma, names.shear[i], "it must be finite",
                     "correct the map, or set the mask to 0 there", [](float v) { return std::isfinite(v); });
    require_observed(survey, survey.noise, component, "the noise of " + gamma, names.noise[i],
                     "it must be finite and positive", "correct the noise, or set the mask to 0 there",
                     [](float v) { return std::isfinite(v) && v > 0; });
  }

  // Ellipticities scatter by 0.3; a tenth of all pixels beyond 2 is another quantity or another unit.
  constexpr float largest = 2;
  long absurd = 0;
  std::string first;
  for (int y = 0; y < grid.height; ++y)
    for (int x = 0; x < grid.width; ++x) {
      if (survey.mask(0, y, x) == 0) continue;
      if (std::abs(survey.shear(0, y, x)) <= largest && std::abs(survey.shear(1, y, x)) <= largest) continue;
      if (absurd++ == 0) first = pixel_name(y, x);
    }
  require(absurd * 10 <= observed, ExitCode::input,
          "this does not look like shear: it is beyond 2 in " + std::to_string(absurd) + " of " +
              std::to_string(observed) + " observed pixels",
          names.shear[0] + ", first " + first, "give shear as a pure number, not in percent or as a spectrum");

  if (survey.truth) {
    for (int y = 0; y < grid.height; ++y)
      for (int x = 0; x < grid.width; ++x) {
        const float value = (*survey.truth)(0, y, x);
        if (!std::isfinite(value))
          throw Error(ExitCode::input, "the true convergence is " + std::to_string(value),
                      names.truth + ", " + pixel_name(y, x), "give a truth that is known everywhere, or leave it out");
      }
  }
}

Survey read_survey(const Config& config) {
  Reader reader(config);
  Survey survey;
  SurveyNames names;
  names.pixel_arcmin = config.where("survey.pixel_arcmin");
  const bool from_catalogue = config.has("survey.catalogue");
  require(from_catalogue != config.has("survey.shear"), ExitCode::usage,
          from_catalogue ? "the survey names a catalogue and shear maps" : "the survey names no data",
          config.where("survey"), "give one of survey.shear, survey.catalogue and survey.simulate");

  if (from_catalogue) {
    read_catalogue_survey(config, reader, survey, names);
  } else {
    const auto shear = reader.both_components("survey.shear", false);
    survey.grid = shear[0].grid;
    require_same_grid(shear.back(), survey.grid, shear[0].name);
    survey.wcs = shear[0].wcs ? shear[0].wcs : shear.back().wcs;
    survey.pixel_arcmin = pixel_size(config, survey.wcs, shear[0].name);
    survey.shear = two_maps("umbriel::survey.shear", survey.grid);
    fill(survey.shear, shear, names.shear);
  }

  if (!from_catalogue || config.has("survey.noise")) {
    const std::string key = "survey.noise";
    survey.noise = two_maps("umbriel::survey.noise", survey.grid);
    if (config.is_text(key) || config.is_array(key)) {
      const auto noise = reader.both_components(key, true);
      for (const LoadedMaps& part : noise) require_same_grid(part, survey.grid, names.shear[0]);
      fill(survey.noise, noise, names.noise);
    } else {
      Kokkos::deep_copy(survey.noise, static_cast<float>(config.number(key)));
      names.noise = {config.where(key), config.where(key)};
    }
  }

  // A catalogue observes the pixels with galaxies; a mask may take some away.
  const HostMaps from_galaxies = survey.mask;
  if (config.has("survey.mask")) {
    survey.mask = single_map(reader, config, "survey.mask", survey.grid, names.shear[0], names.mask);
  } else if (!from_catalogue) {
    survey.mask = HostMaps("umbriel::survey.mask", 1, static_cast<std::size_t>(survey.grid.height),
                           static_cast<std::size_t>(survey.grid.width));
    names.mask = names.noise[0];
    const bool one_number = !config.is_text("survey.noise") && !config.is_array("survey.noise");
    // A noise that is NaN or negative counts as observed, so that it is refused and not silently masked.
    for (int y = 0; y < survey.grid.height; ++y)
      for (int x = 0; x < survey.grid.width; ++x)
        survey.mask(0, y, x) = one_number || (survey.noise(0, y, x) != 0 && survey.noise(1, y, x) != 0) ? 1.0F : 0.0F;
  }
  if (from_catalogue && config.has("survey.mask")) {
    for (int y = 0; y < survey.grid.height; ++y)
      for (int x = 0; x < survey.grid.width; ++x)
        if (from_galaxies(0, y, x) == 0 && survey.mask(0, y, x) == 1) survey.mask(0, y, x) = 0;
  }

  if (config.has("survey.truth"))
    survey.truth = single_map(reader, config, "survey.truth", survey.grid, names.shear[0], names.truth);

  check_survey(survey, names);
  for (int component = 0; component < 2; ++component)
    for (int y = 0; y < survey.grid.height; ++y)
      for (int x = 0; x < survey.grid.width; ++x)
        if (survey.mask(0, y, x) == 0) survey.shear(component, y, x) = survey.noise(component, y, x) = 0;
  survey.inputs = std::move(reader.inputs);
  return survey;
}

}  // namespace umbriel
