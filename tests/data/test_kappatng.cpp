// kappaTNG maps: bytes as documented, and what is refused.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "support.hpp"
#include "umbriel/data/kappatng.hpp"

namespace umbriel {
namespace {

using test::expect_error;

class KappaTngTest : public test::Folder {
 protected:
  /// @param side  as written before and after the values
  static std::string file(const std::vector<double>& values, std::int32_t before, std::int32_t after) {
    std::string out(8 + 8 * values.size(), '\0');
    std::memcpy(out.data(), &before, 4);
    std::memcpy(out.data() + 4, values.data(), 8 * values.size());
    std::memcpy(out.data() + 4 + 8 * values.size(), &after, 4);
    return out;
  }
};

TEST_F(KappaTngTest, ReadsBytesAsDocumented) {
  // side 2; 1, -2, 0.5 and 1.5 as IEEE 754 doubles, lowest byte first; side 2
  const char bytes[] =
      "\x02\0\0\0"
      "\0\0\0\0\0\0\xf0\x3f"
      "\0\0\0\0\0\0\0\xc0"
      "\0\0\0\0\0\0\xe0\x3f"
      "\0\0\0\0\0\0\xf8\x3f"
      "\x02\0\0";  // and the literal's own zero
  const KappaTngMap map = read_kappatng(write("kappa23.dat", std::string(bytes, sizeof(bytes))));
  EXPECT_EQ(map.side, 2);
  EXPECT_EQ(map.values, (std::vector<double>{1, -2, 0.5, 1.5}));
}

TEST_F(KappaTngTest, ReadsMapsOfAnySide) {
  std::vector<double> values(static_cast<std::size_t>(33) * 33);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<double>(i));
  const KappaTngMap map = read_kappatng(write("kappa.dat", file(values, 33, 33)));
  EXPECT_EQ(map.side, 33);
  EXPECT_EQ(map.values, values);
}

TEST_F(KappaTngTest, RefusesWhatIsNone) {
  const std::vector<double> values(9, 0.01);
  const auto refused = [&](const std::string& bytes, const std::vector<std::string>& words) {
    const std::string path = write("kappa.dat", bytes);
    std::vector<std::string> parts = words;
    parts.push_back(path);
    expect_error(ExitCode::input, parts, [&] { read_kappatng(path); });
  };
  refused("", {"too short"});
  refused("0.0", {"too short"});
  refused("0.506\n1.034\n1.532\n", {"no kappaTNG map", "side of"});
  refused(file(values, 0, 0), {"side of 0"});
  refused(file(values, -3, -3), {"side of -3"});
  refused(file(values, 72, 72), {"no whole kappaTNG map", "41480 bytes", "has 80"});  // a Fortran record of 72 bytes
  refused(file(values, 4, 4), {"136 bytes", "has 80"});
  refused(file(values, 3, 2), {"damaged", "3 at its beginning", "2 at its end"});
  refused(file(values, 3, 3).substr(0, 79), {"80 bytes", "has 79"});
  refused(file(values, 3, 3) + "\n", {"80 bytes", "has 81"});
  refused(file(values, 3 << 24, 3 << 24), {"side of 50331648"});  // highest byte first
  expect_error(ExitCode::file_system, {path("none.dat")}, [&] { read_kappatng(path("none.dat")); });
}

}  // namespace
}  // namespace umbriel
