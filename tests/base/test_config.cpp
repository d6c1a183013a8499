// Configuration: types, ranges, overrides, and errors that say where and what to do.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "umbriel/base/config.hpp"
#include "umbriel/core/check.hpp"

namespace umbriel {
namespace {

using Texts = std::vector<std::string>;
using Numbers = std::vector<double>;

/// Runs `action`, which must throw Error(usage); returns its text.
std::string refused(const std::function<void()>& action, ExitCode code = ExitCode::usage) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

constexpr const char* sample = R"(
title = "cosmos"
[run]
seed = 7
tolerance = 1.5e-3
keep_samples = true
output = "out/result.h5"
[survey]
shear = ["e1.fits", "e2.fits"]
noise = 0.3
levels = [1, 2.5, 4]
[survey.catalogue]
ra = "RA"
)";

TEST(Config, ReadsEveryType) {
  const Config config = Config::parse(sample);
  EXPECT_EQ(config.text("title"), "cosmos");
  EXPECT_EQ(config.integer("run.seed"), 7);
  EXPECT_EQ(config.number("run.tolerance"), 1.5e-3);
  EXPECT_EQ(config.number("run.seed"), 7);  // a whole number is a number
  EXPECT_TRUE(config.flag("run.keep_samples", false));
  EXPECT_EQ(config.texts("survey.shear"), (Texts{"e1.fits", "e2.fits"}));
  EXPECT_EQ(config.numbers("survey.levels"), (Numbers{1, 2.5, 4}));
  EXPECT_EQ(config.numbers("survey.noise"), Numbers{0.3});  // one item needs no brackets
  EXPECT_EQ(config.texts("title"), Texts{"cosmos"});
  EXPECT_EQ(config.text("survey.catalogue.ra"), "RA");
  EXPECT_EQ(Config::parse("big = 9007199254740993").integer("big"), 9007199254740993);
}

TEST(Config, FallsBackOnDefaults) {
  const Config config = Config::parse("");
  EXPECT_EQ(config.text("a", "x"), "x");
  EXPECT_EQ(config.number("b", 0.5), 0.5);
  EXPECT_EQ(config.integer("c", 3), 3);
  EXPECT_TRUE(config.flag("d", true));
  EXPECT_EQ(config.texts("e", Texts{}), Texts{});
  EXPECT_EQ(config.numbers("f", Numbers{1}), Numbers{1});
  EXPECT_EQ(config.choice("g", "one", {"one", "two"}), "one");
}

TEST(Config, NamesAKeyThatIsMissing) {
  const Config config = Config::parse(sample, "cosmos.toml");
  const std::string text = refused([&] { config.integer("sampler.chains"); });
  EXPECT_CONTAINS(text, "the key sampler.chains is missing");
  EXPECT_CONTAINS(text, "cosmos.toml: sampler.chains");
  EXPECT_CONTAINS(text, "set it to a whole number");
  EXPECT_CONTAINS(refused([&] { config.text("run.title"); }), "a string in quotes");
  EXPECT_CONTAINS(refused([&] { config.number("run.rate"); }), "set it to a number");
  EXPECT_CONTAINS(refused([&] { config.texts("survey.files"); }), "set it to a list");
  EXPECT_CONTAINS(refused([&] { config.numbers("survey.bins"); }), "set it to a list");
}

TEST(Config, RefusesWrongTypesByName) {
  const Config config = Config::parse(sample, "cosmos.toml");
  EXPECT_CONTAINS(refused([&] { config.text("run.seed"); }), "run.seed must be a string in quotes, not integer");
  EXPECT_CONTAINS(refused([&] { config.integer("run.tolerance"); }), "must be a whole number, not floating-point");
  EXPECT_CONTAINS(refused([&] { config.integer("title"); }), "must be a whole number, not string");
  EXPECT_CONTAINS(refused([&] { config.number("run.keep_samples"); }), "must be a number, not boolean");
  EXPECT_CONTAINS(refused([&] { config.flag("run.seed", true); }), "must be true or false, not integer");
  EXPECT_CONTAINS(refused([&] { config.text("survey"); }), "must be a string in quotes, not table");
  EXPECT_CONTAINS(refused([&] { config.texts("survey.levels"); }), "must be a list, each item a string in quotes");
  EXPECT_CONTAINS(refused([&] { config.numbers("survey.shear"); }), "must be a list, each item a number");
  EXPECT_CONTAINS(refused([&] { config.numbers("title"); }), "not string");
  EXPECT_CONTAINS(refused([&] { config.text("run.seed"); }), "cosmos.toml: run.seed");
}

TEST(Config, ChecksRanges) {
  const Config config = Config::parse("n = 5\nx = 0.5\nbad = nan\nfar = inf");
  EXPECT_EQ(config.integer("n", 1, 5, 5), 5);
  EXPECT_CONTAINS(refused([&] { config.integer("n", 1, 6, 9); }), "n = 5 is outside [6, 9]");
  EXPECT_CONTAINS(refused([&] { config.integer("n", 1, 0, 4); }), "n = 5 is outside [0, 4]");
  EXPECT_EQ(config.number("x", 1.0, 0.5, 0.5), 0.5);
  EXPECT_CONTAINS(refused([&] { config.number("x", 1.0, 0.6, 1); }), "x = 0.5 is outside [0.6, 1.0]");
  EXPECT_CONTAINS(refused([&] { config.number("bad"); }), "outside");
  EXPECT_CONTAINS(refused([&] { config.number("far"); }), "outside");
  EXPECT_CONTAINS(refused([&] { config.integer("missing", 0, 1, 2); }), "outside [1, 2]");  // a default counts too
}

TEST(Config, OffersTheChoices) {
  const Config config = Config::parse("mode = \"papr\"", "c.toml");
  const std::string text = refused([&] { config.choice("mode", "paper", {"preconditioned", "paper"}); });
  EXPECT_CONTAINS(text, "mode = \"papr\" is not a choice");
  EXPECT_CONTAINS(text, "choose one of \"preconditioned\", \"paper\"");
}

TEST(Config, KnowsWhatIsThereAndOfWhatKind) {
  const Config config = Config::parse(sample);
  EXPECT_TRUE(config.has("survey.catalogue"));
  EXPECT_TRUE(config.has("survey.catalogue.ra"));
  EXPECT_FALSE(config.has("survey.simulate"));
  EXPECT_TRUE(config.is_table("survey.catalogue"));
  EXPECT_TRUE(config.is_array("survey.shear"));
  EXPECT_TRUE(config.is_text("title"));
  EXPECT_FALSE(config.is_text("run.seed"));
  EXPECT_FALSE(config.is_array("nothing") || config.is_table("nothing") || config.is_text("nothing"));
}

// --- Syntax ---------------------------------------------------------------------------------------------------------

TEST(Config, SaysWhereASyntaxErrorIs) {
  const std::string text = refused([] { Config::parse("[run]\nseed = 1\noutput = cosmos.h5\n", "cosmos.toml"); });
  EXPECT_CONTAINS(text, "cosmos.toml, line 3, column ");
  EXPECT_CONTAINS(text, "not valid TOML");
  EXPECT_CONTAINS(refused([] { Config::parse("a = 1\na = 2\n"); }), "line 2");
  EXPECT_CONTAINS(refused([] { Config::parse("a = [1, 2\n\n"); }), "not valid TOML");
  EXPECT_CONTAINS(refused([] { Config::parse("a = \"\xff\xfe\""); }), "not valid TOML");
}

// toml++ must not see these: its test for white space is undefined for them.
TEST(Config, RefusesLettersBeyondAsciiOutsideQuotes) {
  EXPECT_CONTAINS(refused([] { Config::parse("a = 1\n  \u03ba = 2\n", "c.toml"); }), "c.toml, line 2, column 3");
  EXPECT_CONTAINS(refused([] { Config::parse("a = \u03ba"); }), "outside quotes");
  EXPECT_CONTAINS(refused([] { Config::parse("a = \"x\" \u00e9"); }), "line 1, column 9");
  EXPECT_CONTAINS(refused([] { Config::parse("a = \"open\n\u00e9 = 1"); }), "not valid TOML");
}

TEST(Config, TakesAnyLettersInsideQuotesAndComments) {
  const Config config = Config::parse(
      "\xef\xbb\xbf# \u03ba \"\n"
      "a = \"\u03ba\" # it's \u03b3\n"
      "b = '\\'\n"
      "c = \"\"\"\u03ba \"\n\\\" \u03b3\"\"\"\n"
      "d = '''\u03ba'\n''' # \u03ba\n"
      "e = \"\\\"\u03ba\"\n"
      "f = ''\n"
      "g = \"\"\n"
      "\"\u03b3\" = \"x\"\n");
  EXPECT_EQ(config.text("a"), "\u03ba");
  EXPECT_EQ(config.text("b"), "\\");
  EXPECT_EQ(config.text("c"), "\u03ba \"\n\" \u03b3");
  EXPECT_EQ(config.text("d"), "\u03ba'\n");
  EXPECT_EQ(config.text("e"), "\"\u03ba");
  EXPECT_EQ(config.text("f"), "");
  EXPECT_EQ(config.text("g"), "");
}

// --- Unknown keys ---------------------------------------------------------------------------------------------------

TEST(RejectUnknownKeys, AcceptsAFileWhoseKeysWereAllAskedFor) {
  const Config config = Config::parse("[sampler]\nchains = 4\n[run]\n");
  config.integer("sampler.chains");
  config.integer("sampler.steps", 10);  // known, not given
  config.text("run.output", "x");
  EXPECT_NO_THROW(config.reject_unknown_keys());  // [run] is empty, and has a known key
}

TEST(RejectUnknownKeys, SuggestsTheNearestKey) {
  const Config config = Config::parse("[sampler]\nchain = 4\n", "c.toml");
  config.integer("sampler.chains", 1);
  config.text("sampler.method", "x");
  const std::string text = refused([&] { config.reject_unknown_keys(); });
  EXPECT_CONTAINS(text, "unknown key sampler.chain (c.toml: sampler.chain)");
  EXPECT_CONTAINS(text, "did you mean sampler.chains?");
}

TEST(RejectUnknownKeys, SuggestsNothingFarOff) {
  const Config config = Config::parse("[other]\nthing = 4\n");
  config.integer("sampler.chains", 1);
  const std::string text = refused([&] { config.reject_unknown_keys(); });
  EXPECT_CONTAINS(text, "unknown key other.thing");
  EXPECT_EQ(text.find("did you mean"), std::string::npos) << text;
}

TEST(RejectUnknownKeys, LooksIntoEveryTable) {
  const auto unknown = [](const std::string& toml) {
    const Config config = Config::parse(toml);
    config.integer("a.b", 1);
    config.integer("a.inner.c", 1);
    config.has("a.table");
    return refused([&] { config.reject_unknown_keys(); });
  };
  EXPECT_CONTAINS(unknown("[a.inner]\nd = 1"), "unknown key a.inner.d");
  EXPECT_CONTAINS(unknown("a = {inner = {c = 1, e = 2}}"), "unknown key a.inner.e");
  EXPECT_CONTAINS(unknown("[empty]"), "unknown key empty");
  EXPECT_CONTAINS(unknown("[[rows]]\nx = 1"), "unknown key rows");
  EXPECT_CONTAINS(unknown("[a.table]\nx = 1"), "unknown key a.table.x");
  EXPECT_CONTAINS(unknown("\"a.b\" = 1"), "unknown key \"a.b\"");  // a key in quotes is not the key b of table a
}

TEST(Config, ListsTheKeysOfATable) {
  const Config config = Config::parse(
      "[search]\nplain.key = {min = 1, max = 2}\n\"quoted.key\" = {min = 3}\nempty = {}\n[other]\nx = 1\n");
  EXPECT_EQ(config.keys_below("search"),
            (Texts{"search.empty.", "search.plain.key.max", "search.plain.key.min", "search.\"quoted.key\".min"}));
  EXPECT_EQ(config.integer("search.plain.key.max"), 2);
  EXPECT_EQ(config.integer("search.\"quoted.key\".min"), 3);
  EXPECT_FALSE(config.has("search.\"quoted.key\".max"));
  EXPECT_FALSE(config.has("search.\"other.key\".min"));
  EXPECT_FALSE(config.has("nothing.\"quoted.key\".min"));
  EXPECT_TRUE(config.has("search.\"quoted.key\""));
  EXPECT_TRUE(config.keys_below("nothing").empty());
  EXPECT_TRUE(config.keys_below("other.x").empty());
  // What a resolved configuration says is the same configuration.
  EXPECT_EQ(Config::parse(config.resolved()).integer("search.\"quoted.key\".min"), 3);
}

TEST(Config, GivesItemsOfAListAsTheyStand) {
  const Config config = Config::parse("a = [\"relu\", 1, 2.5, true, [16, 32]]\nb = 3\nc = []");
  const Texts items = config.items("a");
  ASSERT_EQ(items.size(), 5U);
  for (std::size_t i = 0; i < 3; ++i) {
    const Config again = Config::parse("", "c", {"value=" + items[i]});
    if (i == 0) {
      EXPECT_EQ(again.text("value"), "relu");
    } else {
      EXPECT_EQ(again.number("value"), i == 1 ? 1 : 2.5);
    }
  }
  EXPECT_EQ(Config::parse("", "c", {"value=" + items[4]}).numbers("value"), (Numbers{16, 32}));
  EXPECT_EQ(Config::parse(config.resolved()).items("a"), items);
  EXPECT_TRUE(config.items("c").empty());
  EXPECT_CONTAINS(refused([&] { config.items("b"); }), "b is not a list");
  EXPECT_CONTAINS(refused([&] { config.items("d"); }), "d is not a list");
}

TEST(Config, TakesMoreOnTopWithoutChangingItself) {
  const Config config = Config::parse(sample, "c.toml", {"run.seed=8"});
  const Config more = config.with({"run.seed=9", "new.key=1"});
  EXPECT_EQ(more.integer("run.seed"), 9);
  EXPECT_EQ(more.integer("new.key"), 1);
  EXPECT_EQ(more.text("title"), "cosmos");
  EXPECT_EQ(config.integer("run.seed"), 8);
  EXPECT_FALSE(config.has("new.key"));
  EXPECT_EQ(config.with({}).resolved(), "") << "what was asked of one is not known to the other";
  EXPECT_EQ(more.where("run.seed"), "c.toml: run.seed");
}

// --- Overrides ------------------------------------------------------------------------------------------------------

TEST(Overrides, ReplaceAddAndNest) {
  const Config config =
      Config::parse(sample, "c.toml",
                    {"run.seed=9", "run.keep_samples=false", "survey.noise=[0.1, 0.2]", "new.deep.key=1",
                     "survey.catalogue.dec=\"DEC\"", "top=2.5", "run.seed=10", " run.rate = 3 "});
  EXPECT_EQ(config.integer("run.seed"), 10);  // the last one counts
  EXPECT_FALSE(config.flag("run.keep_samples", true));
  EXPECT_EQ(config.numbers("survey.noise"), (Numbers{0.1, 0.2}));
  EXPECT_EQ(config.integer("new.deep.key"), 1);
  EXPECT_EQ(config.text("survey.catalogue.ra"), "RA");
  EXPECT_EQ(config.text("survey.catalogue.dec"), "DEC");
  EXPECT_EQ(config.number("top"), 2.5);
  EXPECT_EQ(config.integer("run.rate"), 3);
}

TEST(Overrides, TakeBareWordsAsText) {
  const Config config = Config::parse("", "c",
                                      {"a=gaussian", "b=/data/x.h5", "c=", "d=two words", "e=a=b", "f=1.5.fits",
                                       "g=\u03ba", "h=\"7\"", "i='x'", "j={k = 1}"});
  EXPECT_EQ(config.text("a"), "gaussian");
  EXPECT_EQ(config.text("b"), "/data/x.h5");
  EXPECT_EQ(config.text("c"), "");
  EXPECT_EQ(config.text("d"), "two words");
  EXPECT_EQ(config.text("e"), "a=b");
  EXPECT_EQ(config.text("f"), "1.5.fits");
  EXPECT_EQ(config.text("g"), "\u03ba");
  EXPECT_EQ(config.text("h"), "7");
  EXPECT_EQ(config.text("i"), "x");
  EXPECT_EQ(config.integer("j.k"), 1);
}

TEST(Overrides, AreRefusedWithTheirWords) {
  const auto refusal = [](const std::string& assignment) {
    return refused([&] { Config::parse(sample, "c.toml", {assignment}); });
  };
  EXPECT_CONTAINS(refusal("run.seed"), "--set needs key.path=value (--set run.seed)");
  EXPECT_CONTAINS(refusal("=3"), "--set needs key.path=value");
  EXPECT_CONTAINS(refusal("run.seed.deep=3"), "seed holds a value, not keys");
  EXPECT_CONTAINS(refusal("survey.shear=[a.fits, b.fits]"), "not valid TOML");  // a list's items need quotes
  EXPECT_CONTAINS(refusal("survey.shear=[1, 2"), "--set survey.shear=[1, 2");
  EXPECT_CONTAINS(refusal("title=\"half"), "close brackets and quotes");
}

TEST(Overrides, AreCheckedLikeTheFile) {
  const Config wrong = Config::parse(sample, "c.toml", {"run.seed=many"});
  EXPECT_CONTAINS(refused([&] { wrong.integer("run.seed"); }), "must be a whole number, not string");
  const Config unknown = Config::parse("", "c.toml", {"sampler.chain=4"});
  unknown.integer("sampler.chains", 1);
  EXPECT_CONTAINS(refused([&] { unknown.reject_unknown_keys(); }), "did you mean sampler.chains?");
  const Config dots = Config::parse("", "c.toml", {"sampler..chains=4"});
  dots.integer("sampler.chains", 1);
  EXPECT_CONTAINS(refused([&] { dots.reject_unknown_keys(); }), "unknown key");
}

// --- Resolved -------------------------------------------------------------------------------------------------------

TEST(Resolved, ParsesBackToTheSameValues) {
  const Texts texts = {"",      "two words", "quote \" and \\ slash", "tab\t and\nnewline", "\u03ba", "'single'",
                       "a # b", "{}"};
  const Numbers numbers = {0.1, 1e300, -1e-300, 5e-324, 3, -0.0, 1.0 / 3, 123456789.123456789, 1e21, 100000};
  const auto ask = [&](const Config& config) {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(config.text(std::string("texts.t").append(std::to_string(i)), texts[i]), texts[i]);
    }
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      EXPECT_EQ(config.number(std::string("numbers.n").append(std::to_string(i)), numbers[i]), numbers[i]);
    }
    EXPECT_EQ(config.integer("run.seed", INT64_MAX), INT64_MAX);
    EXPECT_EQ(config.integer("run.low", INT64_MIN), INT64_MIN);
    EXPECT_FALSE(config.flag("run.flag", false));
    EXPECT_EQ(config.texts("lists.texts", texts), texts);
    EXPECT_EQ(config.numbers("lists.numbers", numbers), numbers);
    EXPECT_EQ(config.texts("lists.none", Texts{}), Texts{});
    EXPECT_EQ(config.choice("run.mode", "paper", {"paper", "other"}), "paper");
    config.has("run.perhaps");
  };
  const Config first = Config::parse("");
  ask(first);
  const std::string resolved = first.resolved();
  EXPECT_CONTAINS(resolved, "run.seed = 9223372036854775807\n");
  EXPECT_EQ(resolved.find("perhaps"), std::string::npos);
  const Config second = Config::parse(resolved, "resolved");
  ask(second);
  // All of it was in the text, none from the defaults; and it is resolved to the same text again.
  EXPECT_NO_THROW(second.reject_unknown_keys());
  EXPECT_EQ(second.texts("lists.texts"), texts);
  EXPECT_EQ(second.numbers("lists.numbers"), numbers);
  EXPECT_EQ(second.number("numbers.n0"), 0.1);
  EXPECT_EQ(second.resolved(), resolved);
}

TEST(Resolved, HoldsTheValuesInForce) {
  const Config config = Config::parse("[run]\nseed = 1\n", "c", {"run.seed=5"});
  config.integer("run.seed");
  config.number("run.rate", 2.0);
  EXPECT_EQ(config.resolved(), "run.rate = 2.0\nrun.seed = 5\n");
}

// --- Files ----------------------------------------------------------------------------------------------------------

class ConfigFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "umbriel-config-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    std::ofstream(folder_ / "c.toml") << "[run]\noutput = \"out/x.h5\"\nfile = \"/data/y.h5\"\nempty = \"\"\n";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(ConfigFiles, PathsAreRelativeToTheFileThatNamesThem) {
  const Config config = Config::load((folder_ / "c.toml").string());
  EXPECT_EQ(config.path("run.output"), (folder_ / "out/x.h5").string());
  EXPECT_EQ(config.path("run.file"), "/data/y.h5");
  EXPECT_EQ(config.path("run.empty"), "");
  EXPECT_EQ(config.path("run.other", "z.h5"), (folder_ / "z.h5").string());
  EXPECT_EQ(config.resolve_path("a/b"), (folder_ / "a/b").string());
  EXPECT_EQ(config.text("run.output"), "out/x.h5");
  EXPECT_EQ(Config::parse("output = \"x.h5\"").path("output"), "x.h5");
  EXPECT_EQ(config.where("run.output"), (folder_ / "c.toml").string() + ": run.output");
}

TEST_F(ConfigFiles, LoadWithoutAFileTakesOverridesAlone) {
  EXPECT_EQ(Config::load("", {"run.seed=4"}).integer("run.seed"), 4);
}

TEST_F(ConfigFiles, AFileThatCannotBeReadIsNamed) {
  for (const std::filesystem::path& path : {folder_ / "none.toml", folder_}) {
    const std::string text = refused([&] { Config::load(path.string()); }, ExitCode::file_system);
    EXPECT_CONTAINS(text, path.string());
  }
}

TEST_F(ConfigFiles, ASyntaxErrorNamesTheFile) {
  std::ofstream(folder_ / "bad.toml") << "[run\n";
  EXPECT_CONTAINS(refused([&] { Config::load((folder_ / "bad.toml").string()); }), "bad.toml, line 1, column ");
}

TEST(Config, CopiesShareWhatWasAskedFor) {
  const Config config = Config::parse("a = 1");
  const Config copy = config;
  copy.integer("a");
  EXPECT_NO_THROW(config.reject_unknown_keys());
}

// Inputs on which toml++ 3.3 runs into undefined behaviour by itself.
TEST(Config, TextsThatItsParserDoesNotExpectAreErrorsToo) {
  for (const std::string text : {"[.a]", "[.fits\", b = [1, 2]", "[a]\n.b = 1", "a = x.\"\"\"y\u0124\"", "a = 6\u0124"})
    EXPECT_CONTAINS(refused([&] { Config::parse(text); }), "not valid TOML");
  // A letter behind white space that a backslash joins to the line before.
  EXPECT_EQ(Config::parse("a = \"\"\"one \\\n  \u0124two\"\"\"").text("a"), "one \u0124two");
}

}  // namespace
}  // namespace umbriel
