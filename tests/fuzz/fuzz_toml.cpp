// TOML configurations. Input: the text of a file; after a zero byte, if there is one, the values of --set, one a line.
#include <sstream>
#include <string>
#include <vector>

#include "support.hpp"
#include "umbriel/base/config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size), overrides;
  if (const auto zero = text.find('\0'); zero != std::string::npos) {
    overrides = text.substr(zero + 1);
    text.resize(zero);
  }
  std::vector<std::string> set;
  std::istringstream lines(overrides);
  for (std::string line; std::getline(lines, line);) set.push_back(line.c_str());  // no argument holds a zero

  using umbriel::Config;
  using umbriel::fuzz::refused;
  Config config;
  if (refused([&] { config = Config::parse(text, "fuzz.toml", set); })) return 0;
  // Every kind of question, about keys of every kind: each may be refused and leaves the others as they are.
  for (const std::string key : {"run.output", "survey.shear", "survey.noise", "sampler.chains", "a.b"}) {
    refused([&] { config.text(key, "x"); });
    refused([&] { config.text(key); });
    refused([&] { config.number(key, 1.0, -1e300, 1e300); });
    refused([&] { config.integer(key, 1, -5, 5); });
    refused([&] { config.flag(key, true); });
    refused([&] { config.texts(key); });
    refused([&] { config.numbers(key, std::vector<double>{1, 2}); });
    refused([&] { config.choice(key, "one", {"one", "two"}); });
    refused([&] { config.path(key, "file"); });
  }
  for (const std::string key : {"run", "survey", "survey.shear", "a", "a.b", "a[0]", "a.b[1].c"}) {
    config.is_text(key);
    config.is_array(key);
    config.is_table(key);
  }
  refused([&] { config.reject_unknown_keys(); });
  // What a result file keeps of a configuration reads back.
  const std::string resolved = config.resolved();
  if (refused([&] { Config::parse(resolved, "resolved", {}); })) umbriel::fuzz::fail("not TOML again:\n" + resolved);
  return 0;
}
