/// Simulations as a configuration asks for them.
#pragma once

#include <string>

#include "umbriel/base/config.hpp"
#include "umbriel/data/power_spectrum.hpp"
#include "umbriel/data/survey.hpp"
#include "umbriel/simulation/convergence_power.hpp"
#include "umbriel/simulation/cosmology.hpp"

namespace umbriel {

/// Cosmology from TABLE.{omega_m, omega_b, h, n_s, sigma_8}; a key that is missing keeps its default.
/// @throws Error(usage)
Cosmology cosmology_from(const Config& config, const std::string& table);

/// Spectrum of theory, at 240 multipoles from 2 to 1e6: dense enough for linear interpolation to 0.1 %.
/// @throws Error(usage) for a bad cosmology
PowerSpectrum theory_spectrum(const Cosmology& cosmology, const SourceDistribution& sources);

/// Convergence spectrum of a table, for instance "prior" or "survey.simulate":
///
///   TABLE.power_spectrum        file with multipole and C_l (see read_power_spectrum); or else theory from
///   TABLE.cosmology             {omega_m, omega_b, h, n_s, sigma_8}, each optional
///   TABLE.source_redshift       all sources at one redshift, default 1; or
///   TABLE.source_distribution   text file with redshift and density
///
/// @throws Error(usage), Error(file_system), Error(input)
PowerSpectrum power_spectrum_from(const Config& config, const std::string& table);

/// The sources of a table: TABLE.source_distribution, or TABLE.source_redshift, default 1.
/// @throws Error(usage), Error(file_system), Error(input)
SourceDistribution sources_from(const Config& config, const std::string& table);

/// A mock survey with its truth.
///
///   survey.size                           [width, height] in pixels; not needed with a map of the convergence
///   survey.pixel_arcmin
///   survey.simulate.seed                  default 1
///   survey.simulate.sample                index of the mock, default 0: another map and other noise, the same mask and
///                                         galaxy counts
///   survey.simulate.kind                  "lognormal" (default) or "gaussian"
///   survey.simulate.kappa0                default 0.05
///   survey.simulate.convergence           FITS or .npy map to observe in place of a simulated one
///   survey.simulate.mask                  "cosmos-like" (default), "holes", "full", or a file
///   survey.simulate.noise                 two maps of standard deviations, to give a mock the noise of a real survey;
///                                         or else from
///   survey.simulate.galaxies_per_arcmin2  default 64.2
///   survey.simulate.sigma_e               default 0.305
///   survey.simulate.reduced_shear         default false
///
/// @param spectrum  C_l of the convergence; unused with a map
/// @throws Error(usage), Error(file_system), Error(input)
Survey simulate_survey(const Config& config, const PowerSpectrum& spectrum);

}  // namespace umbriel
