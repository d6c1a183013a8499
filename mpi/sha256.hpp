/// SHA-256 of files and of data sets (OpenSSL).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace umbriel {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(const void* bytes, std::size_t n);
  /// Lower-case hexadecimal; call once.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// @throws Error(file_system) if the file cannot be read
std::string sha256_of_file(const std::string& path);

}  // namespace umbriel
