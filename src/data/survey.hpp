/// The observation: shear maps, their noise, the mask, and a true convergence where one is known.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/core/views.hpp"
#include "umbriel/data/tangent_plane.hpp"

namespace umbriel {

/// A file that was read, for the record in the result.
struct InputFile {
  std::string path, sha256;
};

struct Survey {
  Grid grid;
  double pixel_arcmin = 0;
  HostMaps shear;                 ///< [2, y, x] gamma1, gamma2; 0 where not observed
  HostMaps noise;                 ///< [2, y, x] standard deviation of each; 0 where not observed
  HostMaps mask;                  ///< [1, y, x] 1 observed, 0 not
  std::optional<HostMaps> truth;  ///< [1, y, x] convergence
  std::optional<TangentPlane> wcs;
  std::vector<InputFile> inputs;
};

/// The user's words for the parts of a survey, for messages: file or key.
struct SurveyNames {
  std::array<std::string, 2> shear = {"survey.shear", "survey.shear"};
  std::array<std::string, 2> noise = {"survey.noise", "survey.noise"};
  std::string mask = "survey.mask";
  std::string truth = "survey.truth";
  std::string pixel_arcmin = "survey.pixel_arcmin";
};

/// Refuses a survey that cannot be analysed, naming the first offending pixel. Values in unobserved pixels may be
/// anything.
/// @throws Error(input): arrays that do not fit the grid; a pixel size that is not positive; mask values other than 0
///         and 1, or no observed pixel; NaN or infinity in the shear of an observed pixel; shear beyond 2 in more than
///         a tenth of them; noise that is not finite and positive in one; a truth that is not finite everywhere
void check_survey(const Survey& survey, const SurveyNames& names = {});

/// Reads and checks the survey of a configuration. Maps are FITS, or .npy where the name ends so; file row 0 is y = 0.
/// Paths are relative to the configuration's file.
///
///   survey.shear         two files, or one with two planes: [2, y, x] or [y, x, 2]
///   survey.noise         the same (a single plane serves both components), or one number
///   survey.mask          file; default: observed where the noise is not 0
///   survey.pixel_arcmin  number; not needed if the shear has a FITS WCS, with which it must agree to 1 %
///   survey.truth         file, optional
/// or, in place of shear,
///   survey.catalogue     {ra, dec, e1, e2, weight}: files of one column; or with `file`: names of its columns.
///                        `weight` is optional (1). Further entries: flip_e1 = false, flip_e2 = true (see
///                        catalogue.hpp), projection = "auto", "tangent" or "plate-carree", unit = "deg" to insist
///   survey.size          [width, height] of the grid in pixels
///   survey.centre        [ra, dec] in degrees, optional: the median position
/// with which `noise` is optional (the scatter of the shapes) and `mask` only takes pixels away.
///
/// @throws Error(usage) for keys; Error(file_system) and Error(input) as the readers, check_catalogue and check_survey
Survey read_survey(const Config& config);

}  // namespace umbriel
