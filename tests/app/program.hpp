// Starts the program as a user would, in an empty folder of its own.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "umbriel/data/fits.hpp"

namespace umbriel::testing {

struct Outcome {
  int code = -1;
  std::string output;  // standard output and error
};

/// A folder that lives as long as the test.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "umbriel-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ + "/" + name) << text; }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  /// Runs a shell command here. The environment is a fresh one: this test may itself run under mpiexec, and a child
  /// must not take itself for one of its ranks.
  Outcome shell(const std::string& command) const {
    const char* home = std::getenv("HOME");
    const std::string line = "cd '" + path_ + "' && env -i PATH=\"$PATH\" LD_LIBRARY_PATH=\"$LD_LIBRARY_PATH\" HOME='" +
                             (home != nullptr ? home : "/tmp") +
                             "' OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 "
                             "OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none "
                             "ASAN_OPTIONS=detect_leaks=0 sh -c '" +
                             command + "' 2>&1";
    Outcome outcome;
    std::FILE* pipe = ::popen(line.c_str(), "r");
    char buffer[4096];
    while (std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) outcome.output.append(buffer, n);
    const int status = ::pclose(pipe);
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return outcome;
  }

  /// Starts a program here, waits until it has made the file `begun`, and `seconds` more, and then does `act`: shell
  /// commands in which $pid is the program, or its mpirun. How long a program takes on a busy machine nobody knows
  /// beforehand: one that came to its end before that is started once more, and met after half the time.
  /// @param output  files of the program, which are removed with `begun` before it is started once more
  /// @return how the program ended; 0 if it came to its end first every time
  Outcome disturbed(const std::string& program, const std::string& output, const std::string& begun, double seconds,
                    const std::string& act) const {
    for (int attempt = 1;; ++attempt, seconds /= 2) {
      const Outcome outcome =
          shell(program + " & pid=$!; while kill -0 $pid && ! test -s " + begun + "; do sleep 0.01; done; sleep " +
                std::to_string(seconds) + "; " + act + "; wait $pid; exit $?");
      if (outcome.code != 0 || attempt == 6) return outcome;
      shell("rm -rf " + output + " " + begun);
    }
  }

  Outcome umbriel(const std::string& arguments, int ranks = 1) const { return shell(program(arguments, ranks)); }

  static std::string program(const std::string& arguments, int ranks = 1) {
    std::string command;
    if (ranks > 1) command.append(UMBRIEL_MPIEXEC).append(" -n ").append(std::to_string(ranks)).append(" ");
    return command.append(UMBRIEL_PROGRAM).append(" ").append(arguments);
  }

 private:
  std::string path_;
};

/// Writes e1.fits, e2.fits, noise.fits and mask.fits of a small survey, a spectrum, and survey.toml that names them.
inline void write_survey_files(const Folder& folder, int height = 24, int width = 32) {
  const Grid grid{height, width};
  std::vector<float> e1(static_cast<std::size_t>(height) * width), e2(e1), noise(e1), mask(e1);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const auto i = static_cast<std::size_t>(y * width + x);
      const bool hole = x > 10 && x < 15 && y > 5 && y < 12;
      mask[i] = hole ? 0.0f : 1.0f;
      noise[i] = hole ? 0.0f : 0.1f;
      e1[i] = hole ? 0.0f : 0.05f * static_cast<float>((x * 7 + y * 3) % 11 - 5);
      e2[i] = hole ? 0.0f : 0.05f * static_cast<float>((x * 5 + y * 9) % 13 - 6);
    }
  }
  write_fits_map(folder / "e1.fits", e1.data(), grid, "", "shear 1");
  write_fits_map(folder / "e2.fits", e2.data(), grid, "", "shear 2");
  write_fits_map(folder / "noise.fits", noise.data(), grid, "", "noise");
  write_fits_map(folder / "mask.fits", mask.data(), grid, "", "mask");
  folder.write("cl.txt", "10 1e-8\n1000 1e-9\n10000 2e-11\n100000 1e-13\n");
  folder.write("survey.toml",
               "[run]\noutput = \"out.h5\"\n[survey]\nshear = [\"e1.fits\", \"e2.fits\"]\nnoise = \"noise.fits\"\n"
               "mask = \"mask.fits\"\npixel_arcmin = 0.5\n[prior]\npower_spectrum = \"cl.txt\"\n"
               "[sampler]\nchains = 6\n[reference]\ndraws = 4\n");
}

/// A command that is to be refused.
struct Refusal {
  const char* arguments;
  int code, ranks;
  const char* word;  ///< of the message
};

/// Each is refused with its exit code and word, says a remedy, and leaves nothing behind.
/// @param start  what comes before the arguments
template <class Refusals>
void expect_refusals(const Folder& folder, const Refusals& refusals, const std::string& start = "") {
  const auto before = folder.files();
  for (const Refusal& refusal : refusals) {
    SCOPED_TRACE(refusal.arguments);
    const Outcome outcome = folder.umbriel(start + refusal.arguments, refusal.ranks);
    EXPECT_EQ(outcome.code, refusal.code) << outcome.output;
    EXPECT_NE(outcome.output.find(refusal.word), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("\u2014"), std::string::npos) << "a remedy in " << outcome.output;
    EXPECT_EQ(folder.files(), before) << "nothing is left behind";
  }
}

}  // namespace umbriel::testing
