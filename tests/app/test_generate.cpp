// umbriel train flow, train diffusion and generate as a user runs them.
#include <gtest/gtest.h>

#include "program.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using namespace testing;

void write_training(const Folder& folder) {
  folder.write("cl.txt", "1 1e-9\n100 5e-10\n1000 1e-10\n10000 1e-11\n");
  folder.write(
      "simulations.toml",
      "[run]\noutput = \"maps.h5\"\n[simulate]\nsamples = 24\nsize = [16, 16]\npixel_arcmin = 2\nkappa0 = 0.03\n"
      "power_spectrum = \"cl.txt\"\n");
  ASSERT_EQ(folder.umbriel("simulate kappa simulations.toml").code, 0);
  const std::string data = "[data]\nmaps = \"maps.h5\"\npixel_arcmin = 2\n[train]\nsteps = 5\nbatch = 4\nwarm_up = 2\n";
  folder.write("flow.toml",
               "[run]\noutput = \"flow.safetensors\"\n" + data + "[network]\nlevels = 2\nsteps = 2\nwidth = 8\n");
  folder.write("diffusion.toml",
               "[run]\noutput = \"diffusion.safetensors\"\n" + data +
                   "[network]\nwidths = [8, 8]\nblocks = [1, 1]\nembedding = 8\n[diffusion]\ntimes = 20\n");
}

TEST(Generate, MakesTheSameMapsOnAnyNumberOfRanks) {
  const Folder folder;
  write_training(folder);
  for (const std::string kind : {"flow", "diffusion"}) {
    const Outcome trained = folder.umbriel("train " + kind + " " + kind + ".toml", 2);
    ASSERT_EQ(trained.code, 0) << trained.output;
    const Outcome inspected = folder.umbriel("inspect " + kind + ".safetensors");
    EXPECT_EQ(inspected.code, 0) << inspected.output;
    EXPECT_NE(inspected.output.find("umbriel.field.kappa0"), std::string::npos) << inspected.output;
    std::string expected;
    const std::string command =
        "generate kappa --set generate.model=" + kind + ".safetensors --set run.output=new.h5 --set generate.samples=";
    for (const int ranks : {1, 2, 3}) {
      const Outcome outcome = folder.umbriel(command + "21", ranks);
      ASSERT_EQ(outcome.code, 0) << outcome.output;
      const Hdf5Reader file(folder / "new.h5");
      if (expected.empty()) expected = file.data_digest();
      EXPECT_EQ(file.data_digest(), expected) << ranks;
      EXPECT_EQ(file.shape("/generated/kappa"), (std::vector<std::uint64_t>{21, 16, 16}));
    }
    const std::vector<float> some = Hdf5Reader(folder / "new.h5").read<float>("/generated/kappa", 0, 5);
    for (const float kappa : some) {  // no lower than a lognormal field of this kappa0 can be, to what was fitted
      EXPECT_GT(kappa, -0.06F);
      EXPECT_LT(kappa, 1.0F);
    }
    // A longer series begins with the same maps, and statistics find them.
    ASSERT_EQ(folder.umbriel(command + "30 --set run.output=more.h5").code, 0);
    EXPECT_EQ(Hdf5Reader(folder / "more.h5").read<float>("/generated/kappa", 0, 5), some);
    const Outcome stats =
        folder.umbriel("stats --set stats.maps=more.h5 --set stats.pixel_arcmin=2 --set run.output=stats.h5");
    EXPECT_EQ(stats.code, 0) << stats.output;
  }
}

TEST(Generate, StoppedBySignalGoesOnToTheSameMaps) {
  const Folder folder;
  write_training(folder);
  ASSERT_EQ(folder.umbriel("train diffusion diffusion.toml").code, 0);
  const std::string command = "generate kappa --set generate.model=diffusion.safetensors --set generate.samples=1200 ";
  const std::string run = Folder::program(command + "--set run.output=x.h5", 2);
  const Outcome stopped = folder.shell(run +
                                       " & pid=$!; while ! test -e x.h5.log.jsonl; do sleep 0.01; done; sleep 0.5; "
                                       "pkill -USR1 -P $pid; wait $pid; exit $?");
  if (stopped.code == 0) GTEST_SKIP() << "the maps were made before the signal came";
  ASSERT_EQ(stopped.code, 75) << stopped.output;
  EXPECT_NE(stopped.output.find("umbriel generate kappa"), std::string::npos) << stopped.output;
  const Outcome resumed = folder.umbriel(command + "--set run.output=x.h5", 3);
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("resuming"), std::string::npos) << resumed.output;
  ASSERT_EQ(folder.umbriel(command + "--set run.output=whole.h5", 2).code, 0);
  EXPECT_EQ(Hdf5Reader(folder / "x.h5").data_digest(), Hdf5Reader(folder / "whole.h5").data_digest());
}

TEST(Generate, RefusesBadInput) {
  const Folder folder;
  write_training(folder);
  ASSERT_EQ(folder.umbriel("train flow flow.toml").code, 0);
  folder.write("bad.safetensors", "not a model");
  const auto before = folder.files();
  struct Bad {
    const char* arguments;
    int code, ranks;
    const char* word;
  };
  const Bad cases[] = {
      {"generate kappa --set run.output=x.h5", 2, 1, "generate.model"},
      {"generate kappa --set run.output=x.h5 --set generate.model=bad.safetensors", 3, 2, "bad.safetensors"},
      {"generate kappa --set run.output=x.h5 --set generate.model=none.safetensors", 5, 2, "none.safetensors"},
      {"generate kappa --set run.output=x.h5 --set generate.model=flow.safetensors --set generate.steps=3", 2, 1,
       "generate.steps"},
      {"generate stars --set run.output=x.h5", 2, 1, "kappa, dust"},
      {"train flow flow.toml --set network.levels=5", 2, 2, "multiples of 32"},
      {"train flow flow.toml --set field.kappa0=1e-9", 3, 2, "field.kappa0"},
      {"train flow flow.toml --set train.batch=3", 2, 2, "train.batch"},
      {"train diffusion diffusion.toml --set diffusion.prediction=noise --set diffusion.zero_terminal=true", 2, 1,
       "diffusion.zero_terminal"},
      {"train diffusion diffusion.toml --set network.kind=uresnet18", 2, 1, "network.kind"},
  };
  for (const Bad& bad : cases) {
    SCOPED_TRACE(bad.arguments);
    const Outcome outcome = folder.umbriel(bad.arguments, bad.ranks);
    EXPECT_EQ(outcome.code, bad.code) << outcome.output;
    EXPECT_NE(outcome.output.find(bad.word), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("\u2014"), std::string::npos) << "a remedy in " << outcome.output;
    EXPECT_EQ(folder.files(), before) << "nothing is left behind";
  }
}

}  // namespace
}  // namespace umbriel
