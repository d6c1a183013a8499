// .npy files against bytes made by hand, as NumPy's format description lays them out.
#include <cstring>

#include "support.hpp"
#include "umbriel/data/npy.hpp"

namespace umbriel {
namespace {

using test::expect_error;

using NpyTest = test::Folder;

std::string header(const std::string& dictionary, int version = 1) {
  std::string text = dictionary;
  text += '\n';
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(version);
  bytes += '\0';
  bytes += static_cast<char>(text.size());
  bytes += '\0';
  if (version > 1) bytes += std::string(2, '\0');
  return bytes + text;
}

std::string dictionary(const std::string& type, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

template <class T>
std::string raw(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

TEST_F(NpyTest, EveryType) {
  const std::vector<double> expected = {1, 0, 1};
  const std::vector<std::pair<std::string, std::string>> files = {{"<f4", raw<float>({1, 0, 1})},
                                                                  {"<f8", raw<double>({1, 0, 1})},
                                                                  {"<i4", raw<std::int32_t>({1, 0, 1})},
                                                                  {"<i8", raw<std::int64_t>({1, 0, 1})},
                                                                  {"|b1", std::string("\x01\x00\x01", 3)}};
  for (const auto& [type, values] : files) {
    const NpyArray array = read_npy(write("a.npy", header(dictionary(type, "(3,)")) + values));
    EXPECT_EQ(array.shape, (std::vector<std::uint64_t>{3})) << type;
    EXPECT_EQ(array.values, expected) << type;
  }
  EXPECT_EQ(read_npy(write("a.npy", header(dictionary("<i4", "(2,)")) + raw<std::int32_t>({-7, 9}))).values,
            (std::vector<double>{-7, 9}));
}

TEST_F(NpyTest, OrderVersionAndRank) {
  const auto values = raw<double>({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(read_npy(write("c.npy", header(dictionary("<f8", "(2, 3)"), 2) + values)).values,
            (std::vector<double>{1, 2, 3, 4, 5, 6}));
  const NpyArray fortran = read_npy(write("f.npy", header(dictionary("<f8", "(2, 3)", "True")) + values));
  EXPECT_EQ(fortran.shape, (std::vector<std::uint64_t>{2, 3}));
  EXPECT_EQ(fortran.values, (std::vector<double>{1, 3, 5, 2, 4, 6}));
  const NpyArray scalar = read_npy(write("s.npy", header(dictionary("<f8", "()")) + raw<double>({4.5})));
  EXPECT_TRUE(scalar.shape.empty());
  EXPECT_EQ(scalar.values, (std::vector<double>{4.5}));
  EXPECT_TRUE(read_npy(write("e.npy", header(dictionary("<f8", "(0, 99999999999)")))).values.empty());
}

TEST_F(NpyTest, RoundTrip) {
  const std::vector<double> values = {1, -2.5, 1e-300, 4, 5, 6};
  write_npy(path("a.npy"), {3, 2}, values.data());
  const NpyArray back = read_npy(path("a.npy"));
  EXPECT_EQ(back.shape, (std::vector<std::uint64_t>{3, 2}));
  EXPECT_EQ(back.values, values);
  EXPECT_EQ((bytes("a.npy").size() - 48) % 64, 0U);  // the values start at a multiple of 64 bytes
  write_npy(path("b.npy"), {6}, values.data());
  EXPECT_EQ(read_npy(path("b.npy")).shape, (std::vector<std::uint64_t>{6}));
  expect_error(ExitCode::file_system, {"no/a.npy"}, [&] { write_npy(path("no/a.npy"), {6}, values.data()); });
}

TEST_F(NpyTest, Refusals) {
  const auto refused = [&](const std::string& content, const std::vector<std::string>& parts) {
    write("bad.npy", content);
    expect_error(ExitCode::input, parts, [&] { read_npy(path("bad.npy")); });
  };
  expect_error(ExitCode::file_system, {"none.npy", "No such file"}, [&] { read_npy(path("none.npy")); });
  refused("", {"bad.npy", "not a .npy file"});
  refused("PK\x03\x04 a zip file", {"not a .npy file"});
  refused(header(dictionary("<f8", "(1,)"), 9) + raw<double>({1}), {"version 9"});
  refused(header(dictionary("<f8", "(1,)")).substr(0, 40), {"truncated"});
  refused(header(dictionary("<f8", "(2,)")) + raw<double>({1}), {"truncated", "1 values"});
  refused(header(dictionary("<f8", "(2,)")) + raw<double>({1, 2, 3}), {"longer"});
  refused(header(dictionary("<f8", "(999999999999999, 999999999999999, 999999999999999)")) + raw<double>({1}),
          {"truncated"});
  refused(header(dictionary("<f8", "(-1,)")), {"header"});
  refused(header(dictionary("<f8", "(99999999999999999999999,)")), {"header"});
  refused(header(dictionary("<f8", "2")) + raw<double>({1, 2}), {"header"});
  refused(header(dictionary("<f8", "(1,)", "Perhaps")) + raw<double>({1}), {"header"});
  refused(header("{'shape': (1,), }") + raw<double>({1}), {"header"});
  refused(header("{'descr'"), {"header"});
  refused(header(dictionary(">f8", "(1,)")) + raw<double>({1}), {"type >f8", "astype"});
  refused(header(dictionary("|O", "(1,)")) + raw<double>({1}), {"type |O"});
  refused(header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }") + raw<double>({1}), {"record"});
}

}  // namespace
}  // namespace umbriel
