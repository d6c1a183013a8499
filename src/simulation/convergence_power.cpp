#include "umbriel/simulation/convergence_power.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "umbriel/core/check.hpp"
#include "umbriel/simulation/matter_power.hpp"
#include "umbriel/simulation/quadrature.hpp"

namespace umbriel {
namespace {

/// Panels of the integral along the line of sight: with 32 the result is converged to 1e-6.
constexpr int line_of_sight_panels = 32;
/// Points in every interval of a redshift table.
constexpr int points_an_interval = 4;

/// Sources as planes: distance [Mpc/h] and share of the galaxies.
struct SourcePlanes {
  std::vector<double> distance, share;
};

SourcePlanes planes_of(const Cosmology& cosmology, const SourceDistribution& sources) {
  if (sources.redshift.size() == 1) return {{cosmology.comoving_distance(sources.redshift[0])}, {1.0}};
  SourcePlanes planes;
  double total = 0;
  for (std::size_t i = 0; i + 1 < sources.redshift.size(); ++i) {
    const double low = sources.redshift[i], width = sources.redshift[i + 1] - low;
    for (int j = 0; j < points_an_interval; ++j) {
      const double t = (j + 0.5) / points_an_interval;
      const double weight = ((1 - t) * sources.density[i] + t * sources.density[i + 1]) * width;
      planes.distance.push_back(cosmology.comoving_distance(low + t * width));
      planes.share.push_back(weight);
      total += weight;
    }
  }
  for (double& share : planes.share) share /= total;
  return planes;
}

/// g(chi), with distances in Mpc/h.
double lensing_efficiency(const SourcePlanes& planes, double chi) {
  double sum = 0;
  for (std::size_t i = 0; i < planes.share.size(); ++i) {
    if (planes.distance[i] > chi) sum += planes.share[i] * (1 - chi / planes.distance[i]);
  }
  return sum;
}

}  // namespace

SourceDistribution SourceDistribution::plane(double z_s) {
  require(std::isfinite(z_s) && z_s > 0, ExitCode::usage,
          "source redshift " + std::to_string(z_s) + " is not a positive number", "source distribution");
  return {{z_s}, {1.0}};
}

SourceDistribution SourceDistribution::read(const std::string& path) {
  std::ifstream file(path);
  require(file.good(), ExitCode::file_system, "cannot read the redshift distribution", path);
  SourceDistribution sources;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(" \t\r,") == std::string::npos) continue;
    std::replace(line.begin(), line.end(), ',', ' ');
    std::istringstream words(line);
    double z, n;
    require(static_cast<bool>(words >> z >> n), ExitCode::input, "a line is no pair of numbers",
            path + ":" + std::to_string(number), "give two columns: redshift and number density");
    sources.redshift.push_back(z);
    sources.density.push_back(n);
  }
  sources.check(path);
  return sources;
}

void SourceDistribution::check(const std::string& name) const {
  require(!redshift.empty() && redshift.size() == density.size(), ExitCode::input,
          std::to_string(redshift.size()) + " redshifts and " + std::to_string(density.size()) + " densities", name,
          "give one density for each redshift");
  double total = 0;
  for (std::size_t i = 0; i < redshift.size(); ++i) {
    const std::string where = name + ", point " + std::to_string(i);
    require(std::isfinite(redshift[i]) && redshift[i] >= 0, ExitCode::input, "a redshift is negative or not a number",
            where);
    require(std::isfinite(density[i]) && density[i] >= 0, ExitCode::input, "a density is negative or not a number",
            where);
    require(i == 0 || redshift[i] > redshift[i - 1], ExitCode::input, "redshifts do not rise", where,
            "sort the table and remove points that repeat");
    total += density[i];
  }
  require(total > 0 && redshift.back() > 0, ExitCode::input, "there are no sources behind the lenses", name);
}

PowerSpectrum convergence_power(const Cosmology& cosmology, const SourceDistribution& sources,
                                const std::vector<double>& multipoles) {
  sources.check("source distribution");
  for (std::size_t i = 0; i < multipoles.size(); ++i) {
    require(std::isfinite(multipoles[i]) && multipoles[i] > 0 && (i == 0 || multipoles[i] > multipoles[i - 1]),
            ExitCode::usage, "multipoles must be positive and rise", "multipole " + std::to_string(i));
  }
  const MatterPower matter(cosmology);
  const SourcePlanes planes = planes_of(cosmology, sources);

  std::vector<double> power(multipoles.size(), 0.0);
  // One pass along the line of sight for all multipoles: halofit's parameters belong to a redshift. With z = z_max t^2
  // points gather at low redshift, where high multipoles probe wavenumbers that rise as 1/chi.
  const double z_max = sources.redshift.back();
  const double lens_strength = 1.5 * cosmology.omega_m / (hubble_length * hubble_length);  // (3/2) omega_m (H0/c)^2
  for_each_node(0, 1, line_of_sight_panels, [&](double t, double weight) {
    const double z = z_max * t * t;
    const double chi = cosmology.comoving_distance(z);
    const double chi_step = weight * 2 * z_max * t * hubble_length / cosmology.expansion(z);
    const double kernel = lens_strength * (1 + z) * lensing_efficiency(planes, chi);
    const HalofitParameters halofit = matter.halofit(z);
    for (std::size_t i = 0; i < multipoles.size(); ++i) {
      power[i] += chi_step * kernel * kernel * matter.nonlinear((multipoles[i] + 0.5) / chi, halofit);
    }
  });
  return PowerSpectrum(multipoles, power, "theory");
}

}  // namespace umbriel
