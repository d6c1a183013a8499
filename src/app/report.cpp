// umbriel report: a result, or statistics of several ensembles of maps, as one HTML page.
#include "umbriel/report/report.hpp"

#include <filesystem>
#include <memory>

#include "umbriel/app/commands.hpp"
#include "umbriel/base/log.hpp"

namespace umbriel {

ExitCode run_report(const CommandLine& line) {
  const std::string output = line.output.empty()
                                 ? std::filesystem::path(line.arguments.front()).replace_extension(".html").string()
                                 : line.output;
  line.comm.together([&] {
    if (!line.comm.is_root()) return;
    std::vector<std::unique_ptr<Hdf5Reader>> files;
    std::vector<const Hdf5Reader*> results;
    for (const std::string& input : line.arguments) {
      require_seal(input);  // before the HDF5 library, which does not stand damaged bytes, sees the file
      results.push_back(files.emplace_back(std::make_unique<Hdf5Reader>(input)).get());
    }
    write_report(results, output);
  });
  log::info("wrote " + output);
  return ExitCode::done;
}

}  // namespace umbriel
