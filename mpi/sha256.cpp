#include "umbriel/mpi/sha256.hpp"

#include <openssl/evp.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "umbriel/core/check.hpp"

namespace umbriel {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() {
    require(context != nullptr && EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1, ExitCode::numerical,
            "OpenSSL cannot compute SHA-256");
  }
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::~Sha256() = default;

void Sha256::update(const void* bytes, std::size_t n) { EVP_DigestUpdate(state_->context, bytes, n); }

std::string Sha256::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  EVP_DigestFinal_ex(state_->context, digest, &length);
  std::string text;
  for (unsigned int i = 0; i < length; ++i) {
    char pair[3];
    std::snprintf(pair, sizeof pair, "%02x", digest[i]);
    text += pair;
  }
  return text;
}

std::string sha256_of_file(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  require(file != nullptr, ExitCode::file_system, std::string("cannot read the file: ") + std::strerror(errno), path,
          "check the path and its permissions");
  Sha256 sum;
  std::vector<char> buffer(1 << 20);
  std::size_t n = 0;
  while ((n = std::fread(buffer.data(), 1, buffer.size(), file)) > 0) sum.update(buffer.data(), n);
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  require(!failed, ExitCode::file_system, "reading the file failed", path, "check the file system");
  return sum.finish();
}

}  // namespace umbriel
