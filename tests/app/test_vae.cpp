// umbriel train vae, generate dust, reconstruct and interpolate as a user runs them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "program.hpp"
#include "umbriel/models/residual_model.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/nn/safetensors.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

using namespace testing;

constexpr int patches = 30, side = 16;

/// Patches as `umbriel cutouts` writes them: a few waves each, with a mean and a deviation of their own.
void write_patches(const std::string& path, bool constant = false) {
  std::vector<float> maps;
  std::vector<std::int32_t> split;
  for (std::uint32_t patch = 0; patch < patches; ++patch) {
    split.push_back(patch < 20 ? 0 : patch < 25 ? 1 : patch < 29 ? 2 : -1);
    for (int y = 0; y < side; ++y) {
      for (int x = 0; x < side; ++x) {
        double value = 0;
        for (int wave = 1; wave <= 3; ++wave) {
          const auto draw = [&](std::uint64_t i) {
            return static_cast<double>(normal({5, Purpose::test, patch, static_cast<std::uint32_t>(wave)}, i));
          };
          value += draw(0) * std::sin(0.3 * wave * x + draw(1)) + draw(2) * std::cos(0.3 * wave * y + draw(3));
        }
        maps.push_back(constant && patch == 26 ? 3.0F
                                               : 10.0F + static_cast<float>(patch) + 2 * static_cast<float>(value));
      }
    }
  }
  Hdf5Writer file(path, Communicator());
  file.write<float>({"/patches/map", {}, "MJy/sr", "patch"}, {patches, side, side}, maps.data());
  file.write<std::int32_t>({"/patches/split", {}, "1", "part"}, {patches}, split.data());
  file.commit();
}

void write_training(const Folder& folder) {
  write_patches(folder / "patches.h5");
  folder.write("dust.toml",
               "[run]\noutput = \"dust.safetensors\"\nseed = 3\n[data]\nmaps = \"patches.h5\"\npixel_arcmin = 1.9\n"
               "[network]\nlatent = 6\nencoder = [8, 8]\ndecoder = [8, 4]\nbase = 8\ndense = 16\n[latent]\nlayers = 2\n"
               "width = 8\n[train]\nsteps = 40\nbatch = 4\nwarm_up = 2\nlearning_rate = 3e-3\nvalidate_every = 20\n");
}

std::vector<std::pair<std::string, std::vector<float>>> tensors(const std::string& path) {
  const nn::SafetensorsFile file(path);
  std::vector<std::pair<std::string, std::vector<float>>> all;
  for (const auto& entry : file.entries()) all.emplace_back(entry.name, file.read(entry));
  return all;
}

TEST(Autoencoder, IsTrainedOnPatchesAndUsedOnAnyNumberOfRanks) {
  const Folder folder;
  write_training(folder);
  const Outcome trained = folder.umbriel("train vae dust.toml", 2);
  ASSERT_EQ(trained.code, 0) << trained.output;
  EXPECT_NE(trained.output.find("20"), std::string::npos) << "as many patches are for training: " << trained.output;
  const nn::Metadata metadata = nn::SafetensorsFile(folder / "dust.safetensors").metadata();
  EXPECT_EQ(metadata.at("umbriel.kind"), "vae");
  EXPECT_EQ(metadata.at("umbriel.field"), "standardised");
  for (const char* key : {"nats", "rmse", "kl", "sigma", "latent"})
    EXPECT_TRUE(metadata.count(std::string("umbriel.validation.") + key)) << key;
  const Outcome inspected = folder.umbriel("inspect dust.safetensors");
  EXPECT_EQ(inspected.code, 0) << inspected.output;

  const std::pair<const char*, const char*> commands[] = {
      {"generate dust --set generate.model=dust.safetensors --set generate.samples=21", "/generated/dust"},
      {"reconstruct --set reconstruct.model=dust.safetensors --set reconstruct.maps=patches.h5 "
       "--set reconstruct.draws=20 --set reconstruct.part=test",
       "/reconstruction/mean"},
      {"interpolate --set interpolate.model=dust.safetensors --set interpolate.maps=patches.h5 "
       "--set interpolate.from=[0,3] --set interpolate.to=[7,3] --set interpolate.points=5",
       "/interpolation/map"}};
  for (const auto& [command, dataset] : commands) {
    SCOPED_TRACE(command);
    std::string expected;
    for (const int ranks : {1, 2, 3}) {
      const Outcome outcome = folder.umbriel(command + std::string(" --set run.output=out.h5"), ranks);
      ASSERT_EQ(outcome.code, 0) << outcome.output;
      const Hdf5Reader file(folder / "out.h5");
      if (expected.empty()) expected = file.data_digest();
      EXPECT_EQ(file.data_digest(), expected) << ranks;
      for (const float value : file.read<float>(dataset)) ASSERT_TRUE(std::isfinite(value));
    }
    EXPECT_EQ(folder.umbriel("inspect out.h5").code, 0);
    if (std::string(dataset) == "/generated/dust") {
      const std::vector<float> some = Hdf5Reader(folder / "out.h5").read<float>(dataset, 0, 5);
      ASSERT_EQ(
          folder.umbriel(std::string(commands[0].first) + " --set run.output=p.h5 --set generate.prior=normal").code,
          0);
      EXPECT_NE(Hdf5Reader(folder / "p.h5").read<float>(dataset, 0, 5), some) << "without the flow";

      // What the decoder leaves out adds its variance, of which the file tells.
      ASSERT_EQ(
          folder.umbriel(std::string(commands[0].first) + " --set run.output=q.h5 --set generate.residual=false").code,
          0);
      ASSERT_EQ(
          folder.umbriel(std::string(commands[0].first) + " --set run.output=u.h5 --set generate.filter=false").code,
          0);
      EXPECT_NE(Hdf5Reader(folder / "u.h5").read<float>(dataset, 0, 5), some) << "not filtered";
      const std::vector<float> all = Hdf5Reader(folder / "u.h5").read<float>(dataset),
                               decoded = Hdf5Reader(folder / "q.h5").read<float>(dataset);
      const auto residual = ResidualModel::from(metadata, "dust.safetensors");
      ASSERT_TRUE(residual.has_value());
      double squares = 0, expected_squares = 0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        squares += std::pow(static_cast<double>(all[i]) - static_cast<double>(decoded[i]), 2);
        expected_squares += std::pow(residual->deviation_at(static_cast<double>(decoded[i])), 2);
      }
      EXPECT_NEAR(squares / expected_squares, 1, 0.35) << "of 21 patches of 16 x 16";
    }
  }

  // What the files say.
  ASSERT_EQ(folder.umbriel(std::string(commands[1].first) + " --set run.output=r.h5").code, 0);
  const Hdf5Reader r(folder / "r.h5");
  EXPECT_EQ(r.read<std::int64_t>("/reconstruction/map"), (std::vector<std::int64_t>{25, 26, 27, 28}));
  EXPECT_EQ(r.shape("/reconstruction/latent_mean"), (std::vector<std::uint64_t>{4, 6}));
  const auto input = r.read<float>("/reconstruction/input"), mean = r.read<float>("/reconstruction/mean"),
             residual = r.read<float>("/reconstruction/residual");
  const auto rmse = r.read<double>("/reconstruction/rmse"), input_mean = r.read<double>("/reconstruction/input_mean"),
             deviation = r.read<double>("/reconstruction/input_deviation");
  const std::vector<float> maps = Hdf5Reader(folder / "patches.h5").read<float>("/patches/map");
  for (std::size_t i = 0; i < 4; ++i) {
    double squares = 0, sum = 0, variance = 0;
    for (std::size_t p = i * 256; p < (i + 1) * 256; ++p) {
      EXPECT_EQ(residual[p], input[p] - mean[p]);
      squares += std::pow(static_cast<double>(residual[p]), 2);
      sum += static_cast<double>(input[p]);
      variance += std::pow(static_cast<double>(input[p]), 2);
      EXPECT_NEAR(input_mean[i] + deviation[i] * static_cast<double>(input[p]), static_cast<double>(maps[25 * 256 + p]),
                  1e-4);
    }
    EXPECT_NEAR(sum / 256, 0, 1e-5);
    EXPECT_NEAR(variance / 256, 1, 1e-5);
    EXPECT_NEAR(std::sqrt(squares / 256), rmse[i], 1e-6);
  }

  ASSERT_EQ(folder.umbriel(std::string(commands[2].first) + " --set run.output=i.h5").code, 0);
  const Hdf5Reader way(folder / "i.h5");
  EXPECT_EQ(way.shape("/interpolation/map"), (std::vector<std::uint64_t>{10, side, side}));
  EXPECT_EQ(way.read<std::int64_t>("/interpolation/to"), (std::vector<std::int64_t>{7, 7, 7, 7, 7, 3, 3, 3, 3, 3}));
  EXPECT_EQ(way.read<double>("/interpolation/fraction")[1], 0.25);
  const std::vector<double> angle = way.read<double>("/interpolation/angle");
  EXPECT_GT(angle[0], 1);
  EXPECT_NEAR(angle[9], 0, 1e-3);
  // From a map to itself nothing changes; the ends of a way are what ways from there begin with.
  const std::vector<float> same = way.read<float>("/interpolation/map", 5, 5);
  for (std::size_t p = 0; p < 256; ++p) EXPECT_NEAR(same[p], same[4 * 256 + p], 1e-5);
  ASSERT_EQ(folder
                .umbriel("interpolate --set interpolate.model=dust.safetensors --set interpolate.maps=patches.h5 "
                         "--set interpolate.from=[7] --set interpolate.to=[0] --set interpolate.points=2 "
                         "--set run.output=back.h5")
                .code,
            0);
  const std::vector<float> back = Hdf5Reader(folder / "back.h5").read<float>("/interpolation/map");
  const std::vector<float> there = way.read<float>("/interpolation/map", 0, 5);
  for (std::size_t p = 0; p < 256; ++p) {
    EXPECT_NEAR(back[p], there[4 * 256 + p], 1e-4);
    EXPECT_NEAR(back[256 + p], there[p], 1e-4);
  }
}

void write_mask(const std::string& path, int lowest, float inside = 0) {
  std::vector<float> mask(side * side, 1);
  for (int y = lowest; y < 12; ++y)
    for (int x = 4; x < 12; ++x) mask[static_cast<std::size_t>(y * side + x)] = inside;
  write_fits_map(path, mask.data(), {side, side}, "", "mask");
}

TEST(Autoencoder, InpaintsTheSameOnAnyNumberOfRanks) {
  const Folder folder;
  write_training(folder);
  ASSERT_EQ(folder.umbriel("train vae dust.toml --set train.steps=400", 2).code, 0);
  write_mask(folder / "mask.fits", 4);
  const std::string command =
      "inpaint --set inpaint.model=dust.safetensors --set inpaint.maps=patches.h5 --set inpaint.map=27 "
      "--set inpaint.mask=mask.fits --set inpaint.chains=6 --set inpaint.warm_up=40 --set inpaint.draws=5 "
      "--set inpaint.noise=0.3 --set inpaint.beam_arcmin=4 --set run.output=out.h5";
  std::string expected;
  for (const int ranks : {1, 2, 3}) {
    const Outcome outcome = folder.umbriel(command, ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const Hdf5Reader file(folder / "out.h5");
    if (expected.empty()) expected = file.data_digest();
    EXPECT_EQ(file.data_digest(), expected) << ranks;
  }
  EXPECT_EQ(folder.umbriel("inspect out.h5").code, 0);
  const Hdf5Reader file(folder / "out.h5");
  EXPECT_EQ(file.shape("/posterior/map"), (std::vector<std::uint64_t>{6, 5, side, side}));
  const auto read = [&](const char* name) { return file.read<float>(name); };
  const std::vector<float> data = read("/data/map"), mask = read("/data/mask"), mean = read("/summary/mean"),
                           low = read("/summary/quantile_05"), high = read("/summary/quantile_95"),
                           samples = read("/posterior/map"), filled = read("/reference/diffusive");
  double sum = 0, squares = 0, observed = 0;
  for (std::size_t i = 0; i < data.size(); ++i) {
    sum += static_cast<double>(mask[i] * data[i]);
    squares += static_cast<double>(mask[i] * data[i] * data[i]);
    observed += static_cast<double>(mask[i]);
    double of_samples = 0;
    for (std::size_t n = 0; n < 30; ++n) of_samples += static_cast<double>(samples[n * 256 + i]) / 30;
    EXPECT_NEAR(mean[i], of_samples, 1e-5);
    EXPECT_LT(low[i], high[i]);
    if (mask[i] != 0) {
      EXPECT_EQ(filled[i], data[i]);
    } else {
      EXPECT_NEAR(filled[i], 0.25F * (filled[i - 1] + filled[i + 1] + filled[i - side] + filled[i + side]), 1e-4);
    }
  }
  EXPECT_NEAR(sum / observed, 0, 1e-5) << "standardised by what is observed";
  EXPECT_NEAR(squares / observed, 1, 1e-5);
  for (const double rate : file.read<double>("/sample_stats/accept_rate")) EXPECT_GT(rate, 0.3);
  // The maximum is at least as probable as any draw.
  const double best = std::stod(file.attribute("/sample_stats", "maximum_log_density"));
  for (const double value : file.read<double>("/sample_stats/log_density")) EXPECT_LE(value, best + 1e-3);

  write_mask(folder / "half.fits", 4, 0.5F);
  std::vector<float> none(side * side, 0);
  write_fits_map(folder / "empty.fits", none.data(), {side, side}, "", "mask");
  write_fits_map(folder / "small.fits", none.data(), {8, 8}, "", "mask");
  const Refusal cases[] = {{" --set inpaint.mask=empty.fits", 3, 2, "empty.fits"},
                           {" --set inpaint.mask=half.fits", 3, 1, "0.5"},
                           {" --set inpaint.mask=small.fits", 3, 2, "16 x 16"},
                           {" --set inpaint.noise=0", 2, 1, "inpaint.noise"},
                           {" --set inpaint.map=30", 2, 1, "inpaint.map"}};
  expect_refusals(folder, cases, command);
}

TEST(Autoencoder, TakesTilesOfLargerMaps) {
  const Folder folder;
  write_training(folder);
  ASSERT_EQ(folder.umbriel("train vae dust.toml --set train.steps=20").code, 0);
  // Two maps of 2 x 2 tiles with a border left over, and the same tiles by themselves.
  const int height = 2 * side + 3, width = 2 * side + 5;
  std::vector<float> maps, tiles;
  for (int map = 0; map < 2; ++map) {
    const auto value = [&](int y, int x) {
      return static_cast<float>(std::sin(0.4 * x + map) + std::cos(0.3 * y * x));
    };
    for (int i = 0; i < height * width; ++i) maps.push_back(value(i / width, i % width));
    for (int tile = 0; tile < 4; ++tile) {
      for (int i = 0; i < side * side; ++i)
        tiles.push_back(value(tile / 2 * side + i / side, tile % 2 * side + i % side));
    }
  }
  for (const auto& [name, n, shape, values] :
       {std::tuple{"large.h5", 2U, std::pair{height, width}, &maps}, {"tiles.h5", 8U, {side, side}, &tiles}}) {
    Hdf5Writer file(folder / name, Communicator());
    file.write<float>({"/patches/map", {}, "1", "maps"},
                      {n, static_cast<std::uint64_t>(shape.first), static_cast<std::uint64_t>(shape.second)},
                      values->data());
    file.commit();
  }
  const std::string command = "reconstruct --set reconstruct.model=dust.safetensors --set reconstruct.draws=4 ";
  const std::string cut = "--set reconstruct.maps=large.h5 --set reconstruct.tiles=true ";
  ASSERT_EQ(folder.umbriel(command + "--set reconstruct.maps=tiles.h5 --set run.output=a.h5").code, 0);
  const Outcome outcome = folder.umbriel(command + cut + "--set run.output=b.h5", 2);
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  for (const char* name : {"/reconstruction/input", "/reconstruction/mean"})
    EXPECT_EQ(Hdf5Reader(folder / "a.h5").read<float>(name), Hdf5Reader(folder / "b.h5").read<float>(name)) << name;
  write_mask(folder / "mask.fits", 4);
  const std::string fill =
      "inpaint --set inpaint.model=dust.safetensors --set inpaint.map=5 --set inpaint.mask=mask.fits "
      "--set inpaint.residual_maps=patches.h5 --set inpaint.chains=2 --set inpaint.warm_up=5 --set inpaint.draws=2 ";
  ASSERT_EQ(folder.umbriel(fill + "--set inpaint.maps=tiles.h5 --set run.output=c.h5").code, 0);
  const Outcome filled =
      folder.umbriel(fill + "--set inpaint.maps=large.h5 --set inpaint.tiles=true --set run.output=d.h5");
  ASSERT_EQ(filled.code, 0) << filled.output;
  EXPECT_EQ(Hdf5Reader(folder / "c.h5").data_digest(), Hdf5Reader(folder / "d.h5").data_digest());
  for (const auto& [file, title] :
       {std::pair{"b", "<h1>Reconstructed patches</h1>"}, {"d", "<h1>A filled patch</h1>"}}) {
    ASSERT_EQ(folder.umbriel("report " + std::string(file) + ".h5").code, 0);
    std::string page;
    std::getline(std::ifstream(folder / (std::string(file) + ".html")), page, '\0');
    EXPECT_NE(page.find(title), std::string::npos);
  }
  const Refusal cases[] = {
      {"--set reconstruct.maps=large.h5", 3, 2, "reconstruct.tiles = true"},
      {"--set reconstruct.maps=large.h5 --set reconstruct.tiles=true --set reconstruct.part=test", 2, 1, "take all"}};
  expect_refusals(folder, cases, command + "--set run.output=x.h5 ");
}

TEST(Autoencoder, TrainingStoppedBySignalGoesOnToTheSameWeights) {
  const Folder folder;
  write_training(folder);
  const std::string command = "train vae dust.toml --set train.steps=1500 ";
  ASSERT_EQ(folder.umbriel(command + "--set run.output=whole.safetensors", 2).code, 0);
  const Outcome stopped =
      folder.disturbed(Folder::program(command, 2), "dust.safetensors", "dust.metrics.csv", 0, "pkill -USR1 -P $pid");
  ASSERT_EQ(stopped.code, 75) << stopped.output;
  const Outcome resumed = folder.umbriel(command, 2);
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("going on after step"), std::string::npos) << resumed.output;
  EXPECT_EQ(tensors(folder / "dust.safetensors"), tensors(folder / "whole.safetensors"));
}

TEST(Autoencoder, BeginsAtTheSameComponentsOnAnyNumberOfRanks) {
  const Folder folder;
  write_training(folder);
  const std::string command =
      "train vae dust.toml --set train.steps=4 --set network.components=true --set network.norm=group ";
  ASSERT_EQ(folder.umbriel(command).code, 0);
  const auto trained = tensors(folder / "dust.safetensors");
  const auto vectors = std::find_if(trained.begin(), trained.end(),
                                    [](const auto& tensor) { return tensor.first == "components.vectors"; });
  ASSERT_NE(vectors, trained.end());
  ASSERT_EQ(vectors->second.size(), std::size_t{6 * side * side / 4});
  EXPECT_NE(*std::max_element(vectors->second.begin(), vectors->second.end()), 0.0F);
  for (const int ranks : {2, 4}) {
    ASSERT_EQ(folder.umbriel(command + "--set run.output=again.safetensors", ranks).code, 0);
    EXPECT_EQ(tensors(folder / "again.safetensors"), trained) << ranks;
  }
}

TEST(Autoencoder, RefusesBadInput) {
  const Folder folder;
  write_training(folder);
  ASSERT_EQ(folder.umbriel("train vae dust.toml --set train.steps=2").code, 0);
  folder.write(
      "flow.toml",
      "[run]\noutput = \"flow.safetensors\"\n[data]\nmaps = \"patches.h5\"\npixel_arcmin = 1.9\n[field]\n"
      "transform = \"standardised\"\n[network]\nlevels = 1\nsteps = 1\nwidth = 4\n[train]\nsteps = 1\nbatch = 4\n");
  ASSERT_EQ(folder.umbriel("train flow flow.toml").code, 0) << "of standardised maps, too";
  ASSERT_EQ(folder
                .umbriel("train vae dust.toml --set data.split=map --set data.validation_fraction=0 --set "
                         "train.steps=1 --set run.output=bare.safetensors")
                .code,
            0)
      << "nothing to validate on";
  ASSERT_EQ(folder.umbriel("generate dust --set run.output=b.h5 --set generate.model=bare.safetensors").code, 0);
  write_patches(folder / "constant.h5", true);
  {
    const std::vector<float> maps(2 * 64, 1.0F);
    Hdf5Writer file(folder / "small.h5", Communicator());
    file.write<float>({"/patches/map", {}, "1", "patch"}, {2, 8, 8}, maps.data());
    file.commit();
  }
  const Refusal cases[] = {
      {"train vae dust.toml --set network.encoder=[8,8,8,8,8]", 2, 2, "multiples of 32"},
      {"train vae dust.toml --set network.latent=1", 2, 1, "network.latent"},
      {"train vae dust.toml --set network.components=true --set network.latent=256", 2, 2, "as pixels"},
      {"train vae dust.toml --set data.validation_fraction=0.2", 2, 1, "data.validation_fraction"},
      {"train vae dust.toml --set data.maps=small.h5 --set data.split=given", 3, 2, "/patches/split"},
      {"train vae dust.toml --set vae.betas=2", 2, 1, "did you mean vae.beta"},
      {"generate kappa --set run.output=x.h5 --set generate.model=dust.safetensors", 2, 1, "generate dust"},
      {"generate dust --set run.output=x.h5 --set generate.model=bare.safetensors --set generate.residual=true", 2, 1,
       "generate.residual"},
      {"generate dust --set run.output=x.h5 --set generate.model=dust.safetensors --set generate.prior=normal --set "
       "generate.filter=true",
       2, 1, "generate.filter"},
      {"generate stars --set run.output=x.h5 --set generate.model=dust.safetensors", 2, 1, "kappa, dust"},
      {"reconstruct --set run.output=x.h5 --set reconstruct.model=dust.safetensors", 2, 1, "reconstruct.maps"},
      {"reconstruct --set run.output=x.h5 --set reconstruct.model=flow.safetensors --set reconstruct.maps=patches.h5",
       3, 2, "train vae"},
      {"reconstruct --set run.output=x.h5 --set reconstruct.model=dust.safetensors --set reconstruct.maps=small.h5", 3,
       2, "8 x 8"},
      {"reconstruct --set run.output=x.h5 --set reconstruct.model=dust.safetensors --set reconstruct.maps=constant.h5",
       3, 2, "constant.h5, map 26"},
      {"interpolate --set run.output=x.h5 --set interpolate.model=dust.safetensors --set interpolate.maps=patches.h5 "
       "--set interpolate.from=[0,1] --set interpolate.to=[2]",
       2, 1, "interpolate.to"},
      {"interpolate --set run.output=x.h5 --set interpolate.model=dust.safetensors --set interpolate.maps=patches.h5 "
       "--set interpolate.from=[0] --set interpolate.to=[30]",
       2, 2, "0 to 29"},
  };
  expect_refusals(folder, cases);
}

}  // namespace
}  // namespace umbriel
