// Files that are damaged, and files of other programs.
#include <gtest/gtest.h>

#include <filesystem>

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <hdf5.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "support.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using testing::SharedFolder;

/// Runs `action`, which must throw an Error with `code` that names the file.
template <class Action>
std::string refused(ExitCode code, const std::string& path, const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

std::string write_sample(const SharedFolder& folder) {
  Hdf5Writer file(folder / "a.h5", Communicator());
  const std::vector<float> kappa(1000, 1234.5f);
  const std::vector<double> mean(1000, 98765.25);
  file.write_sharded<float>({"/kappa", {}, "1", "kappa"}, {10, 100}, 0, 10, kappa.data());
  file.write<double>({"/mean", {}, "1", "mean"}, {1000}, mean.data());
  file.commit();
  return folder / "a.h5";
}

/// Flips one bit in the middle of the longest run of `value` in the file.
template <class T>
void damage(const std::string& path, T value) {
  std::string bytes = testing::bytes_of_file(path);
  std::string pattern;
  for (int i = 0; i < 50; ++i) pattern.append(reinterpret_cast<const char*>(&value), sizeof value);
  const std::size_t at = bytes.find(pattern);
  ASSERT_NE(at, std::string::npos);
  bytes[at + pattern.size() / 2] ^= 0x10;
  testing::write_bytes(path, bytes);
}

TEST(Hdf5Reader, FindsAFlippedBitInAnyChunk) {
  const SharedFolder folder{Communicator()};
  std::string path = write_sample(folder);
  damage(path, 1234.5f);
  {
    const Hdf5Reader file(path);
    const std::string text = refused(ExitCode::input, path, [&] { file.read<float>("/kappa"); });
    EXPECT_NE(text.find("/kappa"), std::string::npos) << text;
    EXPECT_EQ(file.read<double>("/mean").size(), 1000U);  // the others are whole
    refused(ExitCode::input, path, [&] { file.data_digest(); });
  }
  path = write_sample(folder);
  damage(path, 98765.25);
  const Hdf5Reader file(path);
  refused(ExitCode::input, path, [&] { file.read<double>("/mean"); });
  EXPECT_EQ(file.read<float>("/kappa").size(), 1000U);
}

TEST(Hdf5Reader, RefusesTruncatedFiles) {
  const SharedFolder folder{Communicator()};
  const std::string path = write_sample(folder);
  const std::string whole = testing::bytes_of_file(path);
  constexpr std::size_t seal = 80;  // behind the end of what HDF5 knows
  for (const std::size_t length : std::vector<std::size_t>{0, 1, 100, whole.size() / 2, whole.size() - seal - 1}) {
    testing::write_bytes(path, whole.substr(0, length));
    refused(ExitCode::input, path, [&] {
      const Hdf5Reader file(path);
      file.data_digest();
    });
  }
}

TEST(Seal, FindsEveryMissingEndAndEveryChangedByte) {
  const SharedFolder folder{Communicator()};
  const std::string path = write_sample(folder);
  const std::string whole = testing::bytes_of_file(path);
  EXPECT_NO_THROW(require_seal(path));
  for (std::size_t length = 0; length < whole.size(); length += length + 70 < whole.size() ? 67 : 1) {
    testing::write_bytes(path, whole.substr(0, length));
    refused(ExitCode::input, path, [&] { require_seal(path); });
  }
  for (std::size_t at = 0; at < whole.size(); at += at + 100 < whole.size() ? 41 : 1) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
    testing::write_bytes(path, bytes);
    refused(ExitCode::input, path, [&] { require_seal(path); });
  }
  testing::write_bytes(path, whole + "x");
  refused(ExitCode::input, path, [&] { require_seal(path); });
  refused(ExitCode::file_system, path + "no", [&] { require_seal(path + "no"); });
}

TEST(Generations, FallBackToTheOneBeforeAndComplain) {
  const SharedFolder folder{Communicator()};
  const std::string path = write_sample(folder), before = previous_generation(path);
  const std::string whole = testing::bytes_of_file(path);
  std::vector<std::string> complaints;
  const auto newest = [&] {
    complaints.clear();
    return newest_good_generation(Communicator(), path, [&](const std::string& what) { complaints.push_back(what); });
  };
  EXPECT_EQ(newest(), path);
  testing::write_bytes(before, whole);
  EXPECT_EQ(newest(), path);
  EXPECT_TRUE(complaints.empty());
  testing::write_bytes(path, whole.substr(0, whole.size() / 3));
  EXPECT_EQ(newest(), before);
  ASSERT_EQ(complaints.size(), 1U);
  EXPECT_NE(complaints[0].find(path), std::string::npos);
  testing::write_bytes(before, "not at all");
  EXPECT_THROW(newest(), Error);
  EXPECT_EQ(complaints.size(), 2U);
  std::filesystem::remove(path);
  std::filesystem::remove(before);
  EXPECT_EQ(newest(), "");
}

// Whatever is broken, the answer is an Error: no crash, no endless memory. (Texts of attributes are left out: they lie
// in HDF5's global heap, which has no checksum, and HDF5 1.10 itself crashes on a few broken ones.)
TEST(Hdf5Reader, SurvivesRandomDamage) {
  const SharedFolder folder{Communicator()};
  const std::string path = write_sample(folder);
  const std::string whole = testing::bytes_of_file(path);
  std::uint32_t state = 1;
  int refusals = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::string bytes = whole;
    for (int i = 0; i < 3; ++i) {
      state = state * 1664525 + 1013904223;
      bytes[state % bytes.size()] = static_cast<char>(state >> 24);
    }
    testing::write_bytes(path, bytes);
    try {
      const Hdf5Reader file(path);
      file.data_digest();
      for (const std::string& name : file.datasets()) {
        file.read<double>(name);
        file.attributes(name);
      }
    } catch (const Error&) {
      ++refusals;
    }
  }
  EXPECT_GT(refusals, 250);  // nearly all bytes are under checksums
}

TEST(Hdf5Reader, RefusesWhatIsNotHdf5) {
  const SharedFolder folder{Communicator()};
  testing::write_bytes(folder / "a.h5", "SIMPLE  =                    T / this is FITS");
  refused(ExitCode::input, folder / "a.h5", [&] { Hdf5Reader(folder / "a.h5"); });
  testing::write_bytes(folder / "b.h5", "");
  refused(ExitCode::input, folder / "b.h5", [&] { Hdf5Reader(folder / "b.h5"); });
  refused(ExitCode::input, folder / ".", [&] { Hdf5Reader(folder / "."); });
}

TEST(Hdf5Reader, NamesAFileThatIsNotThere) {
  const SharedFolder folder{Communicator()};
  const std::string text = refused(ExitCode::file_system, folder / "none.h5", [&] { Hdf5Reader(folder / "none.h5"); });
  EXPECT_NE(text.find("No such file"), std::string::npos) << text;
}

TEST(Hdf5Reader, NamesADatasetOrItemThatIsNotThere) {
  const SharedFolder folder{Communicator()};
  const std::string path = write_sample(folder);
  const Hdf5Reader file(path);
  const std::string text = refused(ExitCode::input, path, [&] { file.read<float>("/nothing"); });
  EXPECT_NE(text.find("/nothing"), std::string::npos) << text;
  refused(ExitCode::input, path, [&] { file.read<float>("/no/group"); });
  refused(ExitCode::input, path, [&] { file.read<float>("/"); });
  refused(ExitCode::input, path, [&] { file.shape("/nothing"); });
  refused(ExitCode::input, path, [&] { file.type("/nothing"); });
  refused(ExitCode::input, path, [&] { file.attribute("/kappa", "nothing"); });
  refused(ExitCode::input, path, [&] { file.attribute("/nothing", "units"); });
  refused(ExitCode::input, path, [&] { file.attributes("/nothing"); });
  refused(ExitCode::input, path, [&] { file.read<float>("/kappa", 5, 6); });
  refused(ExitCode::input, path, [&] { file.read<float>("/kappa", 11, 0); });
  refused(ExitCode::input, path, [&] { file.read<float>("/kappa", UINT64_MAX, 2); });  // the sum overflows
  EXPECT_EQ(file.read<float>("/kappa", 9, 1).size(), 100U);
}

TEST(Hdf5Reader, ConvertsTypes) {
  const SharedFolder folder{Communicator()};
  const Hdf5Reader file(write_sample(folder));
  EXPECT_EQ(file.read<double>("/kappa")[5], 1234.5);
  EXPECT_EQ(file.read<float>("/mean")[5], 98765.25f);
  EXPECT_EQ(file.read<std::int32_t>("/mean")[5], 98765);
}

// --- Files of other programs ----------------------------------------------------------------------------------------

void text_attribute(hid_t object, const char* name, const char* value, std::size_t size, H5T_str_t padding) {
  const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  H5Tset_size(type, size);
  if (size != H5T_VARIABLE) H5Tset_strpad(type, padding);
  const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  if (size == H5T_VARIABLE) {
    H5Awrite(attribute, type, &value);
  } else {
    H5Awrite(attribute, type, value);
  }
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
}

TEST(Hdf5Reader, ReadsTextAttributesOfEveryKind) {
  const SharedFolder folder{Communicator()};
  const std::string path = folder / "a.h5";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  text_attribute(file, "variable", "as h5py writes it", H5T_VARIABLE, H5T_STR_NULLTERM);
  text_attribute(file, "terminated", "ab\0cd", 6, H5T_STR_NULLTERM);
  text_attribute(file, "full", "abcdef", 6, H5T_STR_NULLPAD);
  text_attribute(file, "padded", "ab\0\0\0\0", 6, H5T_STR_NULLPAD);
  text_attribute(file, "spaced", "ab    ", 6, H5T_STR_SPACEPAD);
  const std::int16_t pair[2] = {7, 8};
  const hsize_t two = 2, one = 1;
  for (const auto& [name, extent] : {std::pair{"pair", &two}, {"single", &one}}) {
    const hid_t space = H5Screate_simple(1, extent, nullptr);
    const hid_t attribute = H5Acreate2(file, name, H5T_STD_I16BE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT16, pair);
    H5Aclose(attribute);
    H5Sclose(space);
  }
  H5Fclose(file);
  const Hdf5Reader reader(path);
  EXPECT_EQ(reader.attribute("/", "variable"), "as h5py writes it");
  EXPECT_EQ(reader.attribute("/", "terminated"), "ab");
  EXPECT_EQ(reader.attribute("/", "full"), "abcdef");
  EXPECT_EQ(reader.attribute("/", "padded"), "ab");
  EXPECT_EQ(reader.attribute("/", "spaced"), "ab");
  EXPECT_EQ(reader.attribute("/", "single"), "7");
  refused(ExitCode::input, path, [&] { reader.attribute("/", "pair"); });
}

TEST(Hdf5Reader, ReadsCompressedAndForeignNumbers) {
  const SharedFolder folder{Communicator()};
  const std::string path = folder / "a.h5";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t shape[2] = {1000, 1000};
  hid_t space = H5Screate_simple(2, shape, nullptr);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(creation, 2, shape);
  H5Pset_deflate(creation, 9);
  // A mask of ones takes a thousandth of its size: larger than the file, and whole.
  hid_t dataset = H5Dcreate2(file, "/mask", H5T_NATIVE_UINT8, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  const std::vector<std::uint8_t> ones(1000000, 1);
  H5Dwrite(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, ones.data());
  H5Dclose(dataset);
  H5Pclose(creation);
  H5Sclose(space);
  const hsize_t three = 3;
  space = H5Screate_simple(1, &three, nullptr);
  dataset = H5Dcreate2(file, "/big_endian", H5T_IEEE_F64BE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const double values[3] = {1.5, -2.5, 3.5};
  H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
  H5Dclose(dataset);
  H5Sclose(space);
  H5Fclose(file);
  const Hdf5Reader reader(path);
  EXPECT_TRUE(reader.read<std::uint8_t>("/mask") == ones);
  EXPECT_EQ(reader.read<double>("/big_endian"), (std::vector<double>{1.5, -2.5, 3.5}));
  EXPECT_EQ(reader.type("/big_endian"), "float64");
}

TEST(Hdf5Reader, RefusesTextWhereNumbersAreAskedForAndPassesByLinks) {
  const SharedFolder folder{Communicator()};
  const std::string path = folder / "a.h5";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  H5Tset_size(type, H5T_VARIABLE);
  const hid_t dataset = H5Dcreate2(file, "/text", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const char* text = "words";
  H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &text);
  H5Dclose(dataset);
  H5Sclose(space);
  H5Tclose(type);
  H5Lcreate_soft("/nowhere", file, "/dangling", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external("/no/such/file.h5", "/data", file, "/outside", H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(file);
  const Hdf5Reader reader(path);
  EXPECT_EQ(reader.datasets(), std::vector<std::string>{"/text"});
  refused(ExitCode::input, path, [&] { reader.type("/text"); });
  refused(ExitCode::input, path, [&] { reader.read<float>("/text"); });
  refused(ExitCode::input, path, [&] { reader.data_digest(); });
}

// A header may claim any size: nothing must be allocated on its word.
TEST(Hdf5Reader, RefusesADatasetLargerThanItsFile) {
  const SharedFolder folder{Communicator()};
  const std::string path = folder / "a.h5";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t shape[2] = {1 << 20, 1 << 20};
  const hid_t space = H5Screate_simple(2, shape, nullptr);
  H5Dclose(H5Dcreate2(file, "/huge", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Sclose(space);
  H5Fclose(file);
  const Hdf5Reader reader(path);
  const std::string text = refused(ExitCode::input, path, [&] { reader.read<float>("/huge"); });
  EXPECT_NE(text.find("larger than the file"), std::string::npos) << text;
  refused(ExitCode::input, path, [&] { reader.read<float>("/huge", 0, 1 << 19); });
  refused(ExitCode::input, path, [&] { reader.data_digest(); });
}

/// A file with one dataset that `fill` may write to.
std::string foreign_file(
    const std::string& path, hid_t type, const std::vector<hsize_t>& shape, const std::function<void(hid_t)>& settings,
    const std::function<void(hid_t)>& fill = [](hid_t) {}) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  settings(creation);
  const hid_t dataset = H5Dcreate2(file, "/data", type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  EXPECT_GE(dataset, 0);
  fill(dataset);
  H5Dclose(dataset);
  H5Pclose(creation);
  H5Sclose(space);
  H5Fclose(file);
  return path;
}

// Chunks that were never written take no room in the file, and a chunk may be larger than its dataset.
TEST(Hdf5Reader, RefusesWhatTheFileDoesNotHoldOfADataset) {
  const SharedFolder folder{Communicator()};
  const std::string path = folder / "a.h5";
  const auto chunks = [](std::vector<hsize_t> extent, bool packed) {
    return [extent, packed](hid_t creation) {
      H5Pset_chunk(creation, static_cast<int>(extent.size()), extent.data());
      if (packed) H5Pset_deflate(creation, 6);
    };
  };
  foreign_file(path, H5T_IEEE_F32LE, {hsize_t{1} << 50, 64}, chunks({1, 64}, true));
  const auto all = [&] { Hdf5Reader(path).read<float>("/data"); };
  const auto first = [&] { Hdf5Reader(path).read<float>("/data", 0, 1); };
  refused(ExitCode::input, path, all);
  refused(ExitCode::input, path, first);
  // As large as the rest of the file could make good, which is something else.
  const std::string other(std::size_t{8} << 20, 'x');
  foreign_file(path, H5T_IEEE_F32LE, {1 << 10, 1 << 10}, chunks({1, 1 << 10}, false), [&](hid_t dataset) {
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), file = H5Iget_file_id(dataset);
    H5Tset_size(type, other.size());
    const hid_t text = H5Dcreate2(file, "/other", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(text, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, other.data());
    H5Dclose(text);
    H5Fclose(file);
    H5Sclose(space);
    H5Tclose(type);
  });
  EXPECT_NE(refused(ExitCode::input, path, all).find("what the file holds of it"), std::string::npos);
  // A chunk of two gigabytes, for four numbers.
  const auto unlimited = [&](hid_t) {};
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t four = 4, any = H5S_UNLIMITED;
  const hid_t space = H5Screate_simple(1, &four, &any), creation = H5Pcreate(H5P_DATASET_CREATE);
  chunks({hsize_t{1} << 29}, true)(creation);
  H5Dclose(H5Dcreate2(file, "/data", H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
  H5Pclose(creation);
  H5Sclose(space);
  H5Fclose(file);
  EXPECT_NE(refused(ExitCode::input, path, all).find("a chunk"), std::string::npos);
  // Beside an extent of zero the others have no product.
  foreign_file(path, H5T_IEEE_F32LE, std::vector<hsize_t>(32, hsize_t{1} << 62), unlimited);
  refused(ExitCode::input, path, all);
  std::vector<hsize_t> shape(32, hsize_t{1} << 62);
  shape[31] = 0;
  foreign_file(path, H5T_IEEE_F32LE, shape, unlimited);
  EXPECT_TRUE(Hdf5Reader(path).read<float>("/data").empty());
}

TEST(Hdf5Reader, RefusesDataInOtherFilesFiltersAndTypesThatTheLibraryDoesNotMaster) {
  const SharedFolder folder{Communicator()};
  const std::string path = folder / "a.h5";
  const auto why = [&] { return refused(ExitCode::input, path, [&] { Hdf5Reader(path).read<double>("/data"); }); };
  foreign_file(path, H5T_IEEE_F32LE, {4},
               [](hid_t creation) { H5Pset_external(creation, "/etc/passwd", 0, H5F_UNLIMITED); });
  EXPECT_NE(why().find("other files"), std::string::npos);
  foreign_file(path, H5T_IEEE_F32LE, {4}, [](hid_t creation) {
    const hsize_t four = 4;
    const hid_t space = H5Screate_simple(1, &four, nullptr);
    H5Pset_virtual(creation, space, "b.h5", "/data", space);
    H5Sclose(space);
  });
  EXPECT_NE(why().find("other files"), std::string::npos);
  foreign_file(path, H5T_STD_I32LE, {4}, [](hid_t creation) {
    const hsize_t four = 4;
    H5Pset_chunk(creation, 1, &four);
    H5Pset_nbit(creation);
  });
  EXPECT_NE(why().find("filter"), std::string::npos);
  const hid_t wide = H5Tcopy(H5T_STD_U32LE);
  H5Tset_size(wide, 36);
  foreign_file(path, wide, {4}, [](hid_t) {});
  H5Tclose(wide);
  EXPECT_NE(why().find("numbers"), std::string::npos);
}

TEST(Hdf5Reader, AnEmptyDataspaceHoldsNothing) {
  const SharedFolder folder{Communicator()};
  const std::string path = folder / "a.h5";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate(H5S_NULL);
  H5Dclose(H5Dcreate2(file, "/data", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Sclose(space);
  H5Fclose(file);
  const Hdf5Reader reader(path);
  EXPECT_EQ(reader.shape("/data"), std::vector<std::uint64_t>{0});
  EXPECT_TRUE(reader.read<float>("/data").empty());
}

TEST(Hdf5Reader, RefusesEndlessGroups) {
  const SharedFolder folder{Communicator()};
  const std::string path = folder / "a.h5";
  for (const bool itself : {false, true}) {
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t group = H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (itself) H5Lcreate_hard(file, "/group", group, "itself", H5P_DEFAULT, H5P_DEFAULT);
    for (int depth = 0; !itself && depth < 2000; ++depth) {
      const hid_t inner = H5Gcreate2(group, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      H5Gclose(group);
      group = inner;
    }
    H5Gclose(group);
    H5Fclose(file);
    const Hdf5Reader reader(path);
    EXPECT_NE(refused(ExitCode::input, path, [&] { reader.datasets(); }).find("too deeply"), std::string::npos);
  }
}

}  // namespace
}  // namespace umbriel
