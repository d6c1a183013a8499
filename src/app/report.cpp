// umbriel report: a result as one HTML page.
#include "umbriel/report/report.hpp"

#include <filesystem>

#include "umbriel/app/commands.hpp"
#include "umbriel/base/log.hpp"

namespace umbriel {

ExitCode run_report(const CommandLine& line) {
  require(line.arguments.size() == 1, ExitCode::usage, "a report is about one result file", "umbriel report",
          "name one");
  const std::string& input = line.arguments.front();
  const std::string output =
      line.output.empty() ? std::filesystem::path(input).replace_extension(".html").string() : line.output;
  line.comm.together([&] {
    if (!line.comm.is_root()) return;
    require_seal(input);  // before the HDF5 library, which does not stand damaged bytes, sees the file
    write_report(Hdf5Reader(input), output);
  });
  log::info("wrote " + output);
  return ExitCode::done;
}

}  // namespace umbriel
