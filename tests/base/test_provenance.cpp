// Where a result comes from.
#include <gtest/gtest.h>

#include <cctype>
#include <nlohmann/json.hpp>
#include <string>

#include "umbriel/base/provenance.hpp"

namespace umbriel {
namespace {

TEST(Provenance, NamesVersionRevisionHostAndDevice) {
  int dots = 0;
  for (const char letter : version()) {
    EXPECT_TRUE(letter == '.' || std::isdigit(static_cast<unsigned char>(letter))) << version();
    dots += letter == '.' ? 1 : 0;
  }
  EXPECT_EQ(dots, 2);
  EXPECT_FALSE(git_revision().empty());
  EXPECT_FALSE(host_name().empty());
  EXPECT_FALSE(device_name().empty());
}

TEST(Provenance, ListsLibrariesAsJson) {
  const auto versions = nlohmann::json::parse(library_versions());
  EXPECT_TRUE(versions.is_object());
  const std::string kokkos = versions["kokkos"];
  EXPECT_GE(kokkos, "3.4");
  EXPECT_TRUE(versions.contains("compiler"));
}

TEST(Provenance, TellsTimeInUtc) {
  const std::string now = utc_now();
  ASSERT_EQ(now.size(), 20U);
  EXPECT_EQ(now.substr(0, 2), "20");
  for (const auto& [at, mark] : {std::pair{4, '-'}, {7, '-'}, {10, 'T'}, {13, ':'}, {16, ':'}, {19, 'Z'}})
    EXPECT_EQ(now[static_cast<std::size_t>(at)], mark) << now;
}

TEST(Stopwatch, NeverRunsBackwards) {
  const Stopwatch watch;
  double before = watch.seconds();
  EXPECT_GE(before, 0);
  for (int i = 0; i < 1000; ++i) {
    const double now = watch.seconds();
    EXPECT_GE(now, before);
    before = now;
  }
}

}  // namespace
}  // namespace umbriel
