#include "umbriel/app/learned_prior.hpp"

#include <cmath>
#include <cstdlib>
#include <sstream>

namespace umbriel {

LearnedPrior::LearnedPrior(const std::string& path) : path_(path), model_(ScoreModel::load(path)) {}

PowerSpectrum LearnedPrior::spectrum() const {
  const auto& metadata = model_.metadata();
  const auto found = metadata.find("umbriel.power_spectrum");
  require(found != metadata.end(), ExitCode::input, "the model does not hold the power spectrum it was trained with",
          path_, "give prior.power_spectrum, prior.source_redshift or prior.source_distribution");
  std::istringstream text(found->second);
  std::vector<double> multipoles, values;
  for (double l, c; text >> l >> c;) {
    multipoles.push_back(l);
    values.push_back(c);
  }
  return PowerSpectrum(std::move(multipoles), std::move(values), path_);
}

double LearnedPrior::kappa0() const {
  const auto found = model_.metadata().find("umbriel.kappa0");
  return found == model_.metadata().end() ? 0 : stretch_ * std::strtod(found->second.c_str(), nullptr);
}

void LearnedPrior::plan(Grid grid, double pixel_arcmin, const HostView2<float>& power, nn::Options options) {
  const auto& metadata = model_.metadata();
  const auto found = metadata.find("umbriel.pixel_arcmin");
  if (found != metadata.end()) {
    std::istringstream text(found->second);
    bool seen = false;
    // Filters adapt to the grid; the network has seen structures of a certain size in pixels.
    for (double pixel; text >> pixel;) seen = seen || std::fabs(std::log(pixel_arcmin / pixel)) < 0.1;
    require(seen, ExitCode::usage,
            "the model was trained on pixels of " + found->second + " arcmin, and the survey's are of another size",
            path_, "choose such pixels for the survey, or train a model for its own");
  }
  if (metadata.count("umbriel.power_spectrum") > 0)
    stretch_ = pixel_standard_deviation(power, grid) /
               pixel_standard_deviation(pixel_power(spectrum(), grid, pixel_arcmin), grid);
  require(stretch_ > 0 && std::isfinite(stretch_), ExitCode::input, "the prior has no power on this map",
          "prior.power_spectrum", "give it positive values at the map's multipoles");
  evaluator_ = std::make_unique<ScoreEvaluator>(model_, model_.network().parameters().values(), grid, on_device(power),
                                                std::move(options), stretch_);
}

nn::Options read_compute(const Config& config) {
  nn::Options options;
  options.backend =
      backend_named(config.choice("compute.backend", "automatic", {"automatic", "kokkos", "onednn", "cudnn"}));
  options.precision = precision_named(config.choice("compute.precision", "float32", {"float32", "tf32", "bfloat16"}));
  return options;
}

}  // namespace umbriel
