/// What `map`, `sample` and `validate` start from: survey, prior, forward model, as the configuration says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "umbriel/app/commands.hpp"
#include "umbriel/app/learned_prior.hpp"
#include "umbriel/data/power_spectrum.hpp"
#include "umbriel/data/survey.hpp"
#include "umbriel/inference/annealed_hmc.hpp"
#include "umbriel/inference/convergence_posterior.hpp"
#include "umbriel/io/result_file.hpp"

namespace umbriel {

struct Problem {
  Survey survey;
  PowerSpectrum spectrum;  ///< C_l of the prior
  HostView2<float> power;  ///< [H, W/2+1] the same a mode
  ForwardModel model;
  double smoothing_arcmin;                      ///< of the Kaiser-Squires map shown and scored
  std::shared_ptr<const LearnedPrior> learned;  ///< what prior.kind = "score" adds to the Gaussian prior; or null
};

/// Reads survey.*, prior.*, model.* and reference.smoothing_arcmin. @throws Error as the readers
Problem read_problem(const Config& config);

/// Reads sampler.*; `seed` is run.seed. Defaults depend on the prior.
HmcOptions read_sampler(const Config& config, std::uint64_t seed, const Problem& problem);

/// Mean number of score evaluations that a chain of this problem takes, for dry runs.
double evaluations_a_chain(const Problem& problem, const HmcOptions& sampler);

/// Memory of a rank that moves chains, without their results, for dry runs.
double chain_bytes(const Problem& problem, const HmcOptions& sampler);

/// Makes the keys of every command known, so that one file serves them all; misspelt ones stay errors.
void know_all_keys(const Config& config);

/// run.output with its folder checked; run.seed.
std::string read_output(const Config& config);
std::uint64_t read_seed(const Config& config);

/// "x.h5" -> "x".
std::string stem_of(const std::string& output);

std::vector<InputRecord> input_records(const Survey& survey);

/// Writes /survey/{shear, noise, mask, truth} and axis "component".
void write_survey(ResultFile& result, const Survey& survey);

/// Smooths a map with a Gaussian whose standard deviation is `arcmin`.
std::vector<float> smoothed(const Space& space, const RealFft& fft, const float* map, double arcmin,
                            double pixel_arcmin);

/// Prints the resolved configuration and the lines of an estimate on rank 0.
void print_dry_run(const CommandLine& line, const std::vector<std::string>& estimate);

}  // namespace umbriel
