// umbriel train flow, train diffusion and generate as a user runs them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

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
      EXPECT_EQ(outcome.output.find("highest of the training maps"), std::string::npos) << outcome.output;
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
    // Maps that reach far beyond those of training are counted: these, once the training is said to have ended at less.
    EXPECT_TRUE(Hdf5Reader(folder / "more.h5").has_attribute("/generated/kappa", "maps_beyond_training"));
    std::ostringstream bytes;
    bytes << std::ifstream(folder / (kind + ".safetensors"), std::ios::binary).rdbuf();
    std::string model = bytes.str();
    const std::string entry = "\"umbriel.field.highest\":\"0.";
    const std::size_t digits = model.find(entry) + entry.size();
    ASSERT_LT(digits, model.size());
    model.replace(digits, 2, "00");
    std::ofstream(folder / (kind + ".safetensors"), std::ios::binary) << model;
    const Outcome beyond = folder.umbriel(command + "21", 2);
    EXPECT_EQ(beyond.code, 0) << beyond.output;
    EXPECT_NE(beyond.output.find("of 21 maps have a pixel above"), std::string::npos) << beyond.output;
  }
}

TEST(Generate, StoppedBySignalGoesOnToTheSameMaps) {
  const Folder folder;
  write_training(folder);
  ASSERT_EQ(folder.umbriel("train diffusion diffusion.toml").code, 0);
  const std::string command = "generate kappa --set generate.model=diffusion.safetensors --set generate.samples=1200 ";
  const std::string run = Folder::program(command + "--set run.output=x.h5", 2);
  const Outcome stopped = folder.disturbed(run, "x.h5", "x.h5.lock", 0.5, "pkill -USR1 -P $pid");
  ASSERT_EQ(stopped.code, 75) << stopped.output;
  EXPECT_NE(stopped.output.find("umbriel generate kappa"), std::string::npos) << stopped.output;
  const Outcome resumed = folder.umbriel(command + "--set run.output=x.h5", 3);
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("resuming"), std::string::npos) << resumed.output;
  ASSERT_EQ(folder.umbriel(command + "--set run.output=whole.h5", 2).code, 0);
  const std::string whole = Hdf5Reader(folder / "whole.h5").data_digest();
  EXPECT_EQ(Hdf5Reader(folder / "x.h5").data_digest(), whole);
  // The second rank is held up from when the first has drawn some maps until that one is through with its share of 600
  // and sleeps until it is given half of what the second still has.
  const std::string slow = Folder::program(command + "--set run.output=slow.h5", 2);
  const Outcome helped = folder.shell(
      slow +
      " & pid=$!; while kill -0 $pid && ! test -s slow.h5.log.jsonl; do sleep 0.01; done; set -- $(pgrep -P $pid); "
      "kill -STOP $2; "
      "asleep=0; for i in $(seq 1000); do sleep 0.05; case $(cut -d\" \" -f3 /proc/$1/stat) in "
      "S) asleep=$((asleep + 1));; *) asleep=0;; esac; test $asleep -lt 10 || break; done; kill -CONT $2; wait $pid; "
      "exit $?");
  ASSERT_EQ(helped.code, 0) << helped.output;
  EXPECT_EQ(Hdf5Reader(folder / "slow.h5").data_digest(), whole);
  std::ostringstream log;
  log << std::ifstream(folder / "slow.h5.log.jsonl").rdbuf();
  const std::string event = "\"maps drawn for other ranks\":";
  ASSERT_NE(log.str().find(event), std::string::npos) << log.str();
  EXPECT_GT(std::stoi(log.str().substr(log.str().find(event) + event.size())), 200) << log.str();
}

/// Standard deviation of maps [first, first + n).
double deviation(const std::string& path, std::uint64_t first, std::uint64_t n) {
  const std::vector<float> maps = Hdf5Reader(path).read<float>("/generated/kappa", first, n);
  double squares = 0;
  for (const float kappa : maps) squares += static_cast<double>(kappa) * static_cast<double>(kappa);
  return std::sqrt(squares / static_cast<double>(maps.size()));
}

TEST(Generate, ConditionalFlowMakesMapsOfTheVarianceThatBelongsToTheirParameters) {
  const Folder folder;
  // White Gaussian maps of two deviations, 0.01 and 0.02, in two files, and which is which in a table.
  folder.write("low.txt", "1 3.385e-11\n100000 3.385e-11\n");  // C_l = (0.01 x 2 arcmin)^2
  folder.write("high.txt", "1 1.354e-10\n100000 1.354e-10\n");
  for (const std::string name : {"low", "high"}) {
    ASSERT_EQ(folder
                  .umbriel("simulate kappa --set simulate.kind=gaussian --set simulate.size=[16,16] --set "
                           "simulate.pixel_arcmin=2 --set simulate.samples=60 --set simulate.power_spectrum=" +
                           name + ".txt --set run.output=" + name + ".h5")
                  .code,
              0);
  }
  std::string table = "amplitude\n";
  for (int map = 0; map < 120; ++map) table += map < 60 ? "1\n" : "2\n";
  folder.write("table.csv", table);
  folder.write("flow.toml",
               "[run]\noutput = \"flow.safetensors\"\n[data]\nmaps = [\"low.h5\", \"high.h5\"]\n"
               "parameters = \"table.csv\"\npixel_arcmin = 2\n[field]\ntransform = \"linear\"\n"
               "[network]\nlevels = 1\nsteps = 4\nwidth = 16\n"
               "[train]\nsteps = 300\nbatch = 8\nwarm_up = 20\nlearning_rate = 5e-3\naverage_decay = 0.95\n");
  const Outcome trained = folder.umbriel("train flow flow.toml", 2);
  ASSERT_EQ(trained.code, 0) << trained.output;
  EXPECT_NE(trained.output.find("given amplitude"), std::string::npos) << trained.output;
  const std::string command = "generate kappa --set generate.model=flow.safetensors ";
  for (const int amplitude : {1, 2}) {
    const Outcome made = folder.umbriel(command + "--set run.output=x.h5 --set generate.samples=64 --set " +
                                        "generate.parameters.amplitude=" + std::to_string(amplitude));
    ASSERT_EQ(made.code, 0) << made.output;
    EXPECT_NEAR(deviation(folder / "x.h5", 0, 64), 0.01 * amplitude, 0.0006 * amplitude);
    EXPECT_EQ(Hdf5Reader(folder / "x.h5").read<double>("/generated/parameters/amplitude"),
              std::vector<double>(64, amplitude));
  }
  // A row a map, and a draw for each map, on any number of ranks.
  folder.write("rows.csv", "other amplitude\n7 1\n7 2\n7 1\n7 2\n7 2\n");
  for (const std::string given : {"generate.parameters=rows.csv", "generate.parameters.amplitude=[1,2]"}) {
    std::string expected;
    for (const int ranks : {1, 2, 3}) {
      const Outcome made =
          folder.umbriel(command + "--set run.output=y.h5 --set generate.samples=5 --set " + given, ranks);
      ASSERT_EQ(made.code, 0) << made.output;
      const std::string digest = Hdf5Reader(folder / "y.h5").data_digest();
      if (expected.empty()) expected = digest;
      EXPECT_EQ(digest, expected) << given << ", " << ranks << " ranks";
    }
  }
  const std::vector<double> drawn = Hdf5Reader(folder / "y.h5").read<double>("/generated/parameters/amplitude");
  EXPECT_LT(*std::min_element(drawn.begin(), drawn.end()), *std::max_element(drawn.begin(), drawn.end()));
  for (const double amplitude : drawn) {
    EXPECT_GE(amplitude, 1);
    EXPECT_LE(amplitude, 2);
  }
  ASSERT_EQ(folder.umbriel(command + "--set run.output=y.h5 --set generate.parameters=rows.csv").code, 0);
  for (const int map : {0, 1, 2, 3, 4})
    EXPECT_NEAR(deviation(folder / "y.h5", static_cast<std::uint64_t>(map), 1), map % 2 == 0 && map < 4 ? 0.01 : 0.02,
                0.004);

  struct Bad {
    const char* arguments;
    int code;
    const char* word;
  };
  folder.write("nan.csv", "amplitude\n1\nnan\n");
  folder.write("beyond.csv", "amplitude\n1\n2.5\n");
  folder.write(
      "same.csv", "amplitude" + [] {
        std::string rows = "\n";
        for (int map = 0; map < 120; ++map) rows += "1\n";
        return rows;
      }());
  const auto files = folder.files();
  const std::string generate = command + "--set run.output=z.h5 --set ";
  const std::string train = "train flow flow.toml --set run.output=z.safetensors --set ";
  const Bad cases[] = {
      {"generate.samples=3", 2, "the maps have no amplitude"},
      {"generate.parameters.amplitud=1", 2, "the maps have no amplitude"},
      {"generate.parameters.amplitude=nan", 2, "generate.parameters.amplitude"},
      {"generate.parameters.amplitude=[1,2,2]", 2, "neither a number nor a range"},
      {"generate.parameters.amplitude=3", 2, "beyond the training maps"},
      {"generate.parameters=beyond.csv", 2, "beyond the training maps"},
      {"generate.parameters=nan.csv", 3, "line 3"},
      {"generate.parameters=none.csv", 5, "none.csv"},
      {"generate.parameters=same.csv --set generate.samples=121", 2, "120 rows"},
      {"data.parameters=rows.csv", 3, "5 rows"},
      {"data.parameters=same.csv", 3, "the same for all"},
      {"data.parameters=nan.csv", 3, "line 3"},
      {"data.parameters=low.h5", 3, "no parameters"},
  };
  for (const Bad& bad : cases) {
    SCOPED_TRACE(bad.arguments);
    const bool of_training = std::string(bad.arguments).rfind("data.", 0) == 0;
    const Outcome outcome = folder.umbriel((of_training ? train : generate) + bad.arguments);
    EXPECT_EQ(outcome.code, bad.code) << outcome.output;
    EXPECT_NE(outcome.output.find(bad.word), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("\u2014"), std::string::npos) << "a remedy in " << outcome.output;
    EXPECT_EQ(folder.files(), files) << "nothing is left behind";
  }
  const Outcome beyond = folder.umbriel(generate + "generate.parameters.amplitude=3 --set generate.extrapolate=true");
  EXPECT_EQ(beyond.code, 0) << beyond.output;
  EXPECT_NE(beyond.output.find("beyond the training maps"), std::string::npos) << beyond.output;
}

TEST(Generate, SimulationsOfManyCosmologiesTellAModelTheirParameters) {
  const Folder folder;
  const std::string simulate =
      "simulate kappa --set simulate.samples=16 --set simulate.size=[16,16] --set simulate.pixel_arcmin=2 --set "
      "simulate.parameters.sigma_8=[0.6,1.0] --set simulate.parameters.source_redshift=0.8 --set run.output=";
  std::string expected;
  for (const int ranks : {1, 3}) {
    const Outcome outcome = folder.umbriel(simulate + "maps.h5", ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const std::string digest = Hdf5Reader(folder / "maps.h5").data_digest();
    if (expected.empty()) expected = digest;
    EXPECT_EQ(digest, expected);
  }
  const Hdf5Reader maps(folder / "maps.h5");
  const std::vector<double> sigma_8 = maps.read<double>("/simulation/parameters/sigma_8");
  ASSERT_EQ(sigma_8.size(), 16U);
  EXPECT_EQ(maps.read<double>("/simulation/parameters/source_redshift"), std::vector<double>(16, 0.8));
  // Map number 3 is the third of a run with its sigma_8 alone.
  char text[64];
  std::snprintf(text, sizeof text, "%.17g", sigma_8[3]);
  ASSERT_EQ(
      folder
          .umbriel(std::string("simulate kappa --set simulate.samples=4 --set simulate.size=[16,16] --set "
                               "simulate.pixel_arcmin=2 --set simulate.source_redshift=0.8 --set run.output=one.h5 "
                               "--set simulate.cosmology.sigma_8=") +
                   text)
          .code,
      0);
  EXPECT_EQ(Hdf5Reader(folder / "one.h5").read<float>("/simulation/kappa", 3, 1),
            maps.read<float>("/simulation/kappa", 3, 1));
  folder.write("table.csv", "sigma_8\n0.7\n0.9\n");
  ASSERT_EQ(folder
                .umbriel("simulate kappa --set simulate.samples=2 --set simulate.size=[16,16] --set "
                         "simulate.parameters=table.csv --set run.output=two.h5")
                .code,
            0);
  EXPECT_EQ(Hdf5Reader(folder / "two.h5").read<double>("/simulation/parameters/sigma_8"),
            (std::vector<double>{0.7, 0.9}));

  // A diffusion model told of what varies; a parameter that does not is refused.
  folder.write(
      "table.txt", "# sigma_8\n" + [&] {
        std::string rows;
        for (const double value : sigma_8) rows += std::to_string(value) + "\n";
        return rows;
      }());
  folder.write("diffusion.toml",
               "[run]\noutput = \"d.safetensors\"\n[data]\nmaps = \"maps.h5\"\nparameters = \"table.txt\"\n"
               "pixel_arcmin = 2\n[network]\nwidths = [8, 8]\nblocks = [1, 1]\nembedding = 8\n"
               "[diffusion]\ntimes = 20\n[train]\nsteps = 5\nbatch = 4\nwarm_up = 2\nkeep = \"last\"\n");
  const Outcome constant = folder.umbriel("train diffusion diffusion.toml --set data.parameters=maps.h5");
  EXPECT_EQ(constant.code, 3) << constant.output;
  EXPECT_NE(constant.output.find("source_redshift is the same"), std::string::npos) << constant.output;
  ASSERT_EQ(folder.umbriel("train diffusion diffusion.toml").code, 0);
  std::vector<std::vector<float>> made;
  for (const std::string value : {"0.7", "0.9"}) {
    const Outcome outcome = folder.umbriel(
        "generate kappa --set generate.model=d.safetensors --set run.output=n.h5 "
        "--set generate.parameters.sigma_8=" +
        value);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    made.push_back(Hdf5Reader(folder / "n.h5").read<float>("/generated/kappa"));
  }
  EXPECT_NE(made[0], made[1]) << "the parameter decides";

  struct Bad {
    const char* arguments;
    int code;
    const char* word;
  };
  folder.write("cl.txt", "1 1e-9\n10000 1e-11\n");
  folder.write("other.csv", "w\n-1\n");
  for (const Bad& bad :
       {Bad{"simulate.parameters.sigma_8=[1,0.5]", 2, "neither a number nor a range"},
        Bad{"simulate.parameters.sigma8=0.8", 2, "no parameters"},
        Bad{"simulate.parameters.omega_m=[0.3,7]", 2, "omega_m"},
        Bad{"simulate.parameters.sigma_8=[0.6,1] --set simulate.power_spectrum=cl.txt", 2,
            "does not depend on sigma_8"},
        Bad{"simulate.parameters.source_redshift=1 --set simulate.source_redshift=1", 2, "given twice"},
        Bad{"simulate.parameters=other.csv", 2, "no parameters"},
        Bad{"simulate.parameters=table.csv --set simulate.samples=3", 2, "2 rows"}}) {
    SCOPED_TRACE(bad.arguments);
    const auto before = folder.files();
    const Outcome outcome = folder.umbriel(std::string("simulate kappa --set run.output=b.h5 --set ") + bad.arguments);
    EXPECT_EQ(outcome.code, bad.code) << outcome.output;
    EXPECT_NE(outcome.output.find(bad.word), std::string::npos) << outcome.output;
    EXPECT_EQ(folder.files(), before) << "nothing is left behind";
  }
}

TEST(Generate, MapsInStepsComeInSteps) {
  const Folder folder;
  write_training(folder);
  for (const std::string kind : {"uniform", "variational"}) {
    const Outcome trained = folder.umbriel(
        "train flow flow.toml --set flow.quantisation_step=0.004 --set "
        "flow.dequantisation=" +
        kind);
    ASSERT_EQ(trained.code, 0) << trained.output;
    const Outcome made = folder.umbriel("generate kappa --set generate.model=flow.safetensors --set run.output=x.h5");
    ASSERT_EQ(made.code, 0) << made.output;
    for (const float kappa : Hdf5Reader(folder / "x.h5").read<float>("/generated/kappa")) {
      const double steps = static_cast<double>(kappa) / 0.004;
      EXPECT_NEAR(steps, std::round(steps), 1e-4);
    }
  }
}

TEST(Generate, RefusesBadInput) {
  const Folder folder;
  write_training(folder);
  ASSERT_EQ(folder.umbriel("train flow flow.toml").code, 0);
  folder.write("bad.safetensors", "not a model");
  const Refusal cases[] = {
      {"generate kappa --set run.output=x.h5", 2, 1, "generate.model"},
      {"generate kappa --set run.output=x.h5 --set generate.model=bad.safetensors", 3, 2, "bad.safetensors"},
      {"generate kappa --set run.output=x.h5 --set generate.model=none.safetensors", 5, 2, "none.safetensors"},
      {"generate kappa --set run.output=x.h5 --set generate.model=flow.safetensors --set generate.steps=3", 2, 1,
       "generate.steps"},
      {"generate stars --set run.output=x.h5", 2, 1, "kappa, dust"},
      {"train flow flow.toml --set network.levels=5", 2, 2, "multiples of 32"},
      {"train flow flow.toml --set field.kappa0=1e-9", 3, 2, "field.kappa0"},
      {"train flow flow.toml --set train.batch=3", 2, 2, "train.batch"},
      {"train flow flow.toml --set flow.dequantisation=uniform", 2, 2, "flow.quantisation_step"},
      {"train flow flow.toml --set flow.quantisation_step=0.01", 2, 1, "flow.quantisation_step"},
      {"train flow flow.toml --set flow.dequantisation=variational --set flow.quantisation_step=9", 2, 2,
       "within one step"},
      {"generate kappa --set run.output=x.h5 --set generate.model=flow.safetensors --set "
       "generate.parameters.sigma_8=0.8",
       2, 1, "knows no parameters"},
      {"train diffusion diffusion.toml --set diffusion.prediction=noise --set diffusion.zero_terminal=true", 2, 1,
       "diffusion.zero_terminal"},
      {"train diffusion diffusion.toml --set network.kind=uresnet18", 2, 1, "network.kind"},
  };
  expect_refusals(folder, cases);
}

}  // namespace
}  // namespace umbriel
