// SHA-256 against the answers of FIPS 180-2.
#include <gtest/gtest.h>

#include <string>

#include "support.hpp"
#include "umbriel/mpi/sha256.hpp"

namespace umbriel {
namespace {

std::string sha256(const std::string& text) {
  Sha256 sum;
  sum.update(text.data(), text.size());
  return sum.finish();
}

TEST(Sha256, GivesThePublishedAnswers) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnThePieces) {
  Sha256 sum;
  for (const char letter : std::string("abc")) {
    sum.update(&letter, 1);
    sum.update(nullptr, 0);
  }
  EXPECT_EQ(sum.finish(), sha256("abc"));
}

TEST(Sha256OfFile, ReadsTheWholeFile) {
  const testing::SharedFolder folder{Communicator()};
  testing::write_bytes(folder / "a", std::string(3000001, 'x'));
  EXPECT_EQ(sha256_of_file(folder / "a"), sha256(std::string(3000001, 'x')));
  testing::write_bytes(folder / "empty", "");
  EXPECT_EQ(sha256_of_file(folder / "empty"), sha256(""));
}

TEST(Sha256OfFile, NamesAFileThatCannotBeRead) {
  const testing::SharedFolder folder{Communicator()};
  for (const std::string& path : {folder / "missing", folder / "."}) {
    try {
      sha256_of_file(path);
      FAIL() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::file_system);
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace umbriel
