#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

std::string compose(const std::string& what, const std::string& where, const std::string& remedy) {
  std::string text = what;
  if (!where.empty()) text += " (" + where + ")";
  if (!remedy.empty()) text += " \u2014 " + remedy;
  return text;
}

}  // namespace

Error::Error(ExitCode code, const std::string& what, const std::string& where, const std::string& remedy)
    : std::runtime_error(compose(what, where, remedy)), code_(code) {}

}  // namespace umbriel
