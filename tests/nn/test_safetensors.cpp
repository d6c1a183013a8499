// safetensors files written byte by byte, damaged in every way we can think of, and weights in PyTorch's layouts.
#include "umbriel/nn/safetensors.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "../data/support.hpp"
#include "umbriel/nn/weights.hpp"

namespace umbriel::nn {
namespace {

using test::expect_error;

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string file_of(const std::string& header, const std::string& data) {
  return raw<std::uint64_t>({header.size()}) + header + data;
}

class Safetensors : public test::Folder {
 protected:
  std::vector<float> read_one(const std::string& type, const std::string& data, std::size_t n) const {
    const std::string header = R"({"x":{"dtype":")" + type + R"(","shape":[)" + std::to_string(n) +
                               R"(],"data_offsets":[0,)" + std::to_string(data.size()) + "]}}";
    const SafetensorsFile file(write("one.safetensors", file_of(header, data)));
    return file.read(file.entries().at(0));
  }
};

TEST_F(Safetensors, AFileWrittenByHand) {
  const std::string header =
      R"({ "b":{"shape":[],"dtype":"I64","data_offsets":[24,32]}, "__metadata__":{"format":"pt","é":"\u00fc"},)"
      R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"none":{"dtype":"F64","shape":[0,9],"data_offsets":[24,24]}}  )";
  const std::vector<float> values = {1, -2, 0.5f, 4, 5e-40f, 6};
  const SafetensorsFile file(write("hand", file_of(header, raw(values) + raw<std::int64_t>({7}))));
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}, {"é", "ü"}}));
  ASSERT_EQ(file.entries().size(), 3U);
  EXPECT_EQ(file.entries()[0].name, "a");
  EXPECT_EQ(file.entries()[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(file.read(file.entries()[0]), values);
  EXPECT_EQ(file.entries()[1].name, "none");
  EXPECT_TRUE(file.read(file.entries()[1]).empty());
  EXPECT_EQ(file.entries()[2].type, "I64");
  EXPECT_TRUE(file.entries()[2].shape.empty());
  expect_error(ExitCode::input, {"type I64", "tensor b", "hand", "export it as"},
               [&] { file.read(file.entries()[2]); });
  EXPECT_TRUE(SafetensorsFile(write("empty", file_of("{}", ""))).entries().empty());
}

TEST_F(Safetensors, EveryFloatingPointType) {
  EXPECT_EQ(read_one("F64", raw<double>({0.1, -3}), 2), (std::vector<float>{0.1f, -3}));
  // 1, -2, largest 65504, smallest normal 2^-14, smallest 2^-24, 1/3 rounded
  EXPECT_EQ(read_one("F16", raw<std::uint16_t>({0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x3555}), 6),
            (std::vector<float>{1, -2, 65504, 0x1p-14f, 0x1p-24f, 1365 * 0x1p-12f}));
  const std::vector<float> special = read_one("F16", raw<std::uint16_t>({0x7c00, 0xfc00, 0x7e00, 0x8000}), 4);
  EXPECT_EQ(special[0], INFINITY);
  EXPECT_EQ(special[1], -INFINITY);
  EXPECT_TRUE(std::isnan(special[2]));
  EXPECT_TRUE(special[3] == 0 && std::signbit(special[3]));
  EXPECT_EQ(read_one("BF16", raw<std::uint16_t>({0x3f80, 0xc040, 0x0001}), 3),
            (std::vector<float>{1, -3, std::bit_cast<float>(0x00010000U)}));
}

TEST_F(Safetensors, RoundTrip) {
  const std::vector<NamedTensor> tensors = {
      {"z.weight", {2, 1, 3}, {1, 2, 3, 4, 5, -0.0f}}, {"a \"quoted\" näme", {}, {NAN}}, {"empty", {4, 0}, {}}};
  const Metadata metadata = {{"config", "[a]\nb = 1\n"}, {"bytes", "not \xff UTF-8"}};
  const std::string where = path("round");
  write_safetensors(where, tensors, metadata);
  const SafetensorsFile file(where);
  EXPECT_EQ(file.metadata().at("config"), "[a]\nb = 1\n");
  EXPECT_EQ(file.metadata().at("bytes"), "not \xef\xbf\xbd UTF-8");
  ASSERT_EQ(file.entries().size(), 3U);
  for (const auto& entry : file.entries()) {
    const auto tensor =
        std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == entry.name; });
    ASSERT_NE(tensor, tensors.end());
    EXPECT_EQ(entry.shape, tensor->shape);
    EXPECT_EQ(raw(file.read(entry)), raw(tensor->values));
    EXPECT_EQ(entry.begin % 4, 0U);
  }
  expect_error(ExitCode::usage, {"two tensors have one name", "x"}, [&] {
    write_safetensors(path("twice"), {{"x", {1}, {1}}, {"x", {1}, {2}}}, {});
  });
  expect_error(ExitCode::usage, {"shape"}, [&] { write_safetensors(path("shape"), {{"x", {2}, {1}}}, {}); });
}

TEST_F(Safetensors, AFailedWriteLeavesTheOldFile) {
  const std::string where = path("keep");
  write_safetensors(where, {{"x", {1}, {1}}}, {});
  const std::string before = bytes("keep");
  std::filesystem::create_directory(path("folder"));
  EXPECT_THROW(write_safetensors(path("folder"), {{"x", {1}, {2}}}, {}), Error);
  expect_error(ExitCode::file_system, {"cannot write", "missing/x"}, [&] {
    write_safetensors(path("missing/x"), {{"x", {1}, {2}}}, {});
  });
  EXPECT_EQ(bytes("keep"), before);
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(where).parent_path()))
    files += entry.is_regular_file() ? 1 : 0;
  EXPECT_EQ(files, 1U) << "a temporary file was left behind";
}

TEST_F(Safetensors, DamageIsNamed) {
  const std::string eight(8, '\0');
  const auto tensor = [](const std::string& members) { return R"({"x":{)" + members + "}}"; };
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  ASSERT_NO_THROW(SafetensorsFile(write("good", file_of(tensor(good), eight))));
  struct Case {
    std::string what;  // part of the message
    std::string bytes;
  };
  const auto with = [&](const std::string& what, const std::string& header, const std::string& data) {
    return Case{what, file_of(header, data)};
  };
  const std::string two = R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"F32","shape":[1],)";
  const std::vector<Case> cases = {
      {"shorter than 8 bytes", ""},
      {"shorter than 8 bytes", "1234567"},
      {"longer than the file", raw<std::uint64_t>({1})},
      {"longer than the file", file_of(tensor(good), eight).substr(0, 30)},
      {"longer than 100 MB", raw<std::uint64_t>({100'000'001}) + "{}"},
      {"longer than 100 MB", raw<std::uint64_t>({~0ULL}) + "{}"},
      {"longer than 100 MB", raw<std::uint64_t>({1ULL << 63}) + "{}"},
      with("does not begin with {", "", ""),
      with("does not begin with {", "[]", ""),
      with("does not begin with {", " " + tensor(good), eight),
      with("not JSON", "{", ""),
      with("not JSON", "{}{}", ""),
      with("not JSON", tensor(good).substr(0, 40), eight),
      with("not JSON", "{\"\xff\":1}", ""),
      with("not JSON", tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],)"), eight),
      with("nested too deeply", R"({"x":{"shape":)" + std::string(100'000, '['), eight),
      with("stands twice", R"({"x":{)" + good + R"(},"x":{)" + good + "}}", eight),
      with("stands twice", tensor(good + R"(,"dtype":"F32")"), eight),
      with("stands twice", R"({"__metadata__":{"a":"1","a":"2"}})", ""),
      with("not an object", R"({"x":[1]})", ""),
      with("no dtype", tensor(R"("shape":[2],"data_offsets":[0,8])"), eight),
      with("no dtype", tensor(R"("dtype":4,"shape":[2],"data_offsets":[0,8])"), eight),
      with("no type F33", tensor(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"), eight),
      with("no array shape", tensor(R"("dtype":"F32","data_offsets":[0,8])"), eight),
      with("no array data_offsets", tensor(R"("dtype":"F32","shape":[2])"), eight),
      with("no array data_offsets", tensor(R"("dtype":"F32","shape":[2],"data_offsets":8)"), eight),
      with("other than whole numbers", tensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), eight),
      with("other than whole numbers", tensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), eight),
      with("other than whole numbers", tensor(R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])"), eight),
      with("a begin and an end", tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), eight),
      with("a begin and an end", tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4,8])"), eight),
      with("a begin and an end", tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), eight),
      with("cut short", tensor(good), eight.substr(1)),
      with("cut short", tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615])"), eight),
      with("larger than the file", tensor(R"("dtype":"F32","shape":[2147483647,2147483647],"data_offsets":[0,8])"),
           eight),
      with("larger than the file", tensor(R"("dtype":"F32","shape":[4294967296,4294967296,1],"data_offsets":[0,0])"),
           ""),
      with("beyond 32 bits", tensor(R"("dtype":"F32","shape":[0,4294967296],"data_offsets":[0,0])"), ""),
      with("disagree", tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), eight),
      with("disagree", tensor(R"("dtype":"F64","shape":[],"data_offsets":[0,4])"), eight),
      with("overlaps", two + R"("data_offsets":[0,4]}})", eight.substr(4)),
      with("overlaps", two + R"("data_offsets":[2,6]}})", eight.substr(2)),
      with("a hole before", two + R"("data_offsets":[8,12]}})", eight + "1234"),
      with("a hole before", tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), eight),
      with("goes on after", tensor(good), eight + "0"),
      with("__metadata__ is not", R"({"__metadata__":["a"]})", ""),
      with("other than text", R"({"__metadata__":{"a":1}})", ""),
  };
  for (const Case& damaged : cases) {
    SCOPED_TRACE(damaged.bytes.substr(0, 200));
    expect_error(ExitCode::input, {damaged.what, "damaged.safetensors", "copy or export it again"},
                 [&] { SafetensorsFile(write("damaged.safetensors", damaged.bytes)); });
  }
  expect_error(ExitCode::file_system, {"absent"}, [&] { SafetensorsFile(path("absent")); });
  expect_error(ExitCode::file_system, {"not a regular file"}, [&] { SafetensorsFile(path(".")); });
}

TEST_F(Safetensors, CutFilesAreRefusedAndFlippedBitsRefusedOrHarmless) {
  write_safetensors(path("whole"), {{"x", {2, 2}, {1, 2, 3, 4}}, {"y", {1}, {5}}}, {{"k", "v"}});
  const std::string whole = bytes("whole");
  for (std::size_t n = 0; n < whole.size(); n += 5)
    expect_error(ExitCode::input, {}, [&] { SafetensorsFile(write("cut", whole.substr(0, n))); });
  for (std::size_t bit = 0; bit < 8 * whole.size(); bit += 11) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    try {
      const SafetensorsFile file(write("flipped", flipped));
      for (const auto& entry : file.entries()) file.read(entry);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input) << error.what();
    }
  }
}

// --- Weights of a network --------------------------------------------------------------------------------------------

struct Network {
  ParameterSet set;
  ParameterId convolution, transposed, dense, bias, running_mean;

  explicit Network(bool other = false) {
    convolution = set.add("c.weight", Role::convolution, {3, 2, 4, 5});
    bias = set.add("c.bias", Role::bias, {5});
    transposed = set.add("t.weight", Role::transposed_convolution, {2, 2, 3, 6});
    dense = set.add(other ? "e.weight" : "d.weight", Role::dense, {7, other ? 9 : 8});
    running_mean = set.add_buffer("n.running_mean", {5}, 0.25f);
    set.allocate();
  }

  void fill(float step) const {
    const auto host = Kokkos::create_mirror_view(HostMemory{}, set.values());
    Kokkos::deep_copy(host, 0.0f);
    float value = 0;
    for (const Parameter& p : set.parameters())
      for (std::int64_t i = 0; i < p.size; ++i) host(p.offset + i) = value += step;
    Kokkos::deep_copy(set.values(), host);
  }
};

std::vector<float> floats(const View1<float>& view) {
  const auto host = Kokkos::create_mirror_view_and_copy(HostMemory{}, view);
  return {host.data(), host.data() + host.extent(0)};
}

TEST_F(Safetensors, WeightsLieOnDiskAsPyTorchHasThem) {
  const Network network;
  network.fill(1);
  save_weights(path("w"), network.set, network.set.values(), {{"epoch", "3"}});
  const SafetensorsFile file(path("w"));
  const auto values = floats(network.set.values());
  for (const auto& entry : file.entries()) {
    const std::vector<float> disk = file.read(entry);
    if (entry.name == "c.weight") {
      ASSERT_EQ(entry.shape, (std::vector<std::int64_t>{5, 4, 3, 2}));  // [out, in, ky, kx]
      const float* memory = values.data() + network.set[network.convolution].offset;
      for (int o = 0; o < 5; ++o)
        for (int i = 0; i < 4; ++i)
          for (int y = 0; y < 3; ++y)
            for (int x = 0; x < 2; ++x)
              EXPECT_EQ(disk[static_cast<std::size_t>(((o * 4 + i) * 3 + y) * 2 + x)],
                        memory[((y * 2 + x) * 4 + i) * 5 + o]);
    } else if (entry.name == "t.weight") {
      ASSERT_EQ(entry.shape, (std::vector<std::int64_t>{6, 3, 2, 2}));  // [in, out, ky, kx]
      const float* memory = values.data() + network.set[network.transposed].offset;
      for (int i = 0; i < 6; ++i)
        for (int o = 0; o < 3; ++o)
          for (int yx = 0; yx < 4; ++yx)
            EXPECT_EQ(disk[static_cast<std::size_t>((i * 3 + o) * 4 + yx)], memory[(yx * 3 + o) * 6 + i]);
    } else if (entry.name == "d.weight") {
      ASSERT_EQ(entry.shape, (std::vector<std::int64_t>{8, 7}));  // [out, in]
      const float* memory = values.data() + network.set[network.dense].offset;
      for (int o = 0; o < 8; ++o)
        for (int i = 0; i < 7; ++i) EXPECT_EQ(disk[static_cast<std::size_t>(o * 7 + i)], memory[i * 8 + o]);
    } else if (entry.name == "n.running_mean") {
      EXPECT_EQ(disk, std::vector<float>(5, 0.25f));
    } else {
      EXPECT_EQ(entry.name, "c.bias");
    }
  }
  EXPECT_EQ(file.entries().size(), 5U);

  const Network again;
  Kokkos::deep_copy(again.set.buffer_values(), 0.0f);
  EXPECT_EQ(load_weights(path("w"), again.set, again.set.values()), (Metadata{{"epoch", "3"}}));
  EXPECT_EQ(floats(again.set.values()), values);
  EXPECT_EQ(floats(again.set.buffer_values()), floats(network.set.buffer_values()));
}

TEST_F(Safetensors, AveragedWeightsAndBatchCountsOfPyTorch) {
  const Network network;
  network.fill(1);
  const View1<float> average("average", network.set.values().extent(0));
  Kokkos::deep_copy(average, network.set.values());
  network.fill(0.5f);
  save_weights(path("w"), network.set, average, {});
  // The same with the count of batches that PyTorch keeps beside the moments.
  const std::string plain = bytes("w");
  std::uint64_t length;
  std::memcpy(&length, plain.data(), 8);
  std::string header = plain.substr(8, length);
  const std::size_t data = plain.size() - 8 - length;
  header = header.substr(0, header.rfind('}')) +
           R"(,"n.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[)" + std::to_string(data) + "," +
           std::to_string(data + 8) + "]}}";
  write("torch", file_of(header, plain.substr(8 + length) + raw<std::int64_t>({99})));
  const Network again;
  load_weights(path("torch"), again.set, again.set.values());
  EXPECT_EQ(floats(again.set.values()), floats(average));
}

TEST_F(Safetensors, WeightsOfAnotherNetworkAreRefusedWhole) {
  const Network network, other(true);
  network.fill(1);
  save_weights(path("w"), network.set, network.set.values(), {});
  other.fill(2);
  const auto before = floats(other.set.values());
  expect_error(ExitCode::input, {"missing: e.weight", "unexpected: d.weight", path("w")},
               [&] { load_weights(path("w"), other.set, other.set.values()); });

  ParameterSet wide;
  wide.add("c.weight", Role::convolution, {3, 2, 4, 6});
  for (int i = 0; i < 8; ++i) wide.add(std::string("extra.").append(std::to_string(i)), Role::bias, {1});
  wide.allocate();
  expect_error(ExitCode::input,
               {"c.weight [5, 4, 3, 2], not [6, 4, 3, 2]",
                "missing: extra.0, extra.1, extra.2, extra.3, extra.4 and 3 more", "unexpected: "},
               [&] { load_weights(path("w"), wide, wide.values()); });

  network.fill(std::numeric_limits<float>::infinity());
  expect_error(ExitCode::numerical, {"not finite", "tensor c.weight"},
               [&] { save_weights(path("w"), network.set, network.set.values(), {}); });
  EXPECT_EQ(floats(other.set.values()), before);
}

TEST_F(Safetensors, AWeightThatIsNotFiniteIsRefusedBeforeAnyIsTaken) {
  ParameterSet set;
  set.add("a", Role::bias, {2});
  set.add("b", Role::bias, {2});
  set.allocate();
  write_safetensors(path("bad"), {{"a", {2}, {1, 2}}, {"b", {2}, {3, NAN}}}, {});
  expect_error(ExitCode::input, {"not finite", "tensor b"}, [&] { load_weights(path("bad"), set, set.values()); });
  for (const float value : floats(set.values())) EXPECT_EQ(value, 0);
}

}  // namespace
}  // namespace umbriel::nn
