/// What the fuzzers share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace umbriel::fuzz {

/// A file in memory that holds these bytes; this process has one for each `ending`, by which readers tell kinds apart.
std::string scratch_file(const std::string& ending, const void* bytes, std::size_t n);

/// Runs a reader. It may return, or throw umbriel::Error with a message that names an error of the user's; all else
/// ends the fuzzer. @return true if it threw
bool refused(const std::function<void()>& reader);

/// Ends the fuzzer: a promise was broken.
[[noreturn]] void fail(const std::string& what);

}  // namespace umbriel::fuzz
