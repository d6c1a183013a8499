// umbriel inspect: reads every chunk of result files, with its checksum, and says what they hold; of model files, their
// tensors and their training record.
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "umbriel/app/commands.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/nn/safetensors.hpp"

namespace umbriel {
namespace {

void print_attribute(const Hdf5Reader& file, const char* name, const char* words) {
  if (file.has_attribute("/", name)) std::printf("  %-16s %s\n", words, file.attribute("/", name).c_str());
}

void inspect(const std::string& path) {
  require_seal(path);  // before the HDF5 library, which does not stand damaged bytes, sees the file
  const Hdf5Reader file(path);
  require(file.has_attribute("/", "command"), ExitCode::input, "this HDF5 file is no umbriel result", path,
          "give a file that umbriel wrote");
  const std::string digest = file.data_digest();
  std::printf("%s\n", path.c_str());
  print_attribute(file, "command", "command");
  print_attribute(file, "schema_version", "schema");
  print_attribute(file, "umbriel_version", "umbriel");
  print_attribute(file, "git_revision", "revision");
  print_attribute(file, "seed", "seed");
  print_attribute(file, "ranks", "ranks");
  print_attribute(file, "devices", "device");
  print_attribute(file, "finished", "finished");
  print_attribute(file, "wall_seconds", "wall seconds");
  std::printf("  datasets\n");
  for (const std::string& name : file.datasets()) {
    std::string shape;
    for (const std::uint64_t n : file.shape(name)) shape.append(shape.empty() ? "" : " x ").append(std::to_string(n));
    const std::string words = file.has_attribute(name, "long_name") ? file.attribute(name, "long_name") : "";
    std::printf("    %-36s %-8s [%s] %s\n", name.c_str(), file.type(name).c_str(), shape.c_str(), words.c_str());
  }
  if (file.attribute("/", "command") == "checkpoint") {
    std::printf("  %llu chains finished, %llu on their way\n",
                static_cast<unsigned long long>(file.shape("/sample").at(0)),
                static_cast<unsigned long long>(file.shape("/under_way/numbers").at(0)));
  } else if (file.has_attribute("/", "step")) {
    std::printf("  %s steps of training\n", file.attribute("/", "step").c_str());
  }
  std::printf("  the seal and all checksums are good\n  data digest: %s\n", digest.c_str());
}

void inspect_model(const std::string& path) {
  const nn::SafetensorsFile file(path);
  std::int64_t values = 0;
  for (const auto& entry : file.entries()) {
    for (const float value : file.read(entry)) {
      require(std::isfinite(value), ExitCode::input, "a value of " + entry.name + " is not finite", path,
              "train again, or take the file from where it came");
      ++values;
    }
  }
  std::printf("%s\n  %zu tensors, %lld values, all finite\n", path.c_str(), file.entries().size(),
              static_cast<long long>(values));
  for (const auto& [key, text] : file.metadata()) {
    const bool long_text = text.find('\n') != std::string::npos;
    std::printf("  %s%s", key.c_str(), long_text ? "\n    " : "  ");
    for (const char& c : text) {
      std::putchar(c);
      if (c == '\n' && &c != &text.back()) std::printf("    ");
    }
    if (text.empty() || text.back() != '\n') std::printf("\n");
  }
}

}  // namespace

ExitCode run_inspect(const CommandLine& line) {
  line.comm.together([&] {
    if (!line.comm.is_root()) return;
    for (const std::string& path : line.arguments) {
      if (std::filesystem::path(path).extension() == ".safetensors") {
        inspect_model(path);
      } else {
        inspect(path);
      }
    }
  });
  return ExitCode::done;
}

}  // namespace umbriel
