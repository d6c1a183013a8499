// umbriel inpaint as a user runs it.
#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <numbers>
#include <sstream>

#include "program.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/nn/safetensors.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

using namespace testing;

constexpr int patches = 40, side = 16, pixels = side * side;
constexpr double pixel_arcmin = 2;

/// Patches of white noise smoothed a little, so that a decoder of few latent variables leaves most of it out.
void write_patches(const std::string& path) {
  std::vector<float> maps;
  std::vector<std::int32_t> split;
  for (std::uint32_t patch = 0; patch < patches; ++patch) {
    split.push_back(patch < 16 ? 0 : patch < 36 ? 1 : 2);
    const auto noise = [&](int y, int x) {
      return static_cast<double>(normal({5, Purpose::test, patch, 0}, static_cast<std::uint64_t>(20 * y + x)));
    };
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x)
        maps.push_back(static_cast<float>(7 + noise(y, x) + noise(y + 1, x) + noise(y, x + 1) + noise(y + 1, x + 1)));
  }
  Hdf5Writer file(path, Communicator());
  file.write<float>({"/patches/map", {}, "MJy/sr", "patch"}, {patches, side, side}, maps.data());
  file.write<std::int32_t>({"/patches/split", {}, "1", "part"}, {patches}, split.data());
  file.commit();
}

void write_mask(const std::string& path) {
  std::vector<float> mask(pixels, 1);
  for (int y = 6; y < 11; ++y)
    for (int x = 4; x < 9; ++x) mask[static_cast<std::size_t>(y * side + x)] = 0;
  write_fits_map(path, mask.data(), {side, side}, "", "mask");
}

/// A folder with patches, a mask and an autoencoder of them, dust.safetensors.
struct Trained : Folder {
  Trained() {
    write_patches(*this / "patches.h5");
    write_mask(*this / "mask.fits");
    write("dust.toml",
          "[run]\noutput = \"dust.safetensors\"\n[data]\nmaps = \"patches.h5\"\npixel_arcmin = 2\n[network]\n"
          "latent = 4\nencoder = [8]\ndecoder = [4]\nbase = 4\ndense = 8\nnorm = \"group\"\n[latent]\nlayers = 2\n"
          "width = 8\n[train]\nsteps = 30\nbatch = 4\nwarm_up = 2\nvalidate_every = 0\n");
    const Outcome outcome = umbriel("train vae dust.toml");
    EXPECT_EQ(outcome.code, 0) << outcome.output;
  }
};

const std::string start =
    "inpaint --set inpaint.model=dust.safetensors --set inpaint.maps=patches.h5 --set inpaint.map=37 "
    "--set inpaint.mask=mask.fits --set run.output=out.h5 ";

std::vector<std::pair<double, double>> table(const nn::Metadata& metadata, const std::string& key) {
  std::istringstream lines(metadata.at(key));
  std::vector<std::pair<double, double>> rows;
  for (double a = 0, b = 0; lines >> a >> b;) rows.emplace_back(a, b);
  return rows;
}

TEST(Inpaint, ModelsSayWhatTheirDecodersLeaveOut) {
  const Trained folder;
  const nn::Metadata metadata = nn::SafetensorsFile(folder / "dust.safetensors").metadata();
  const auto deviation = table(metadata, "umbriel.residual.deviation"),
             power = table(metadata, "umbriel.residual.power");
  EXPECT_GT(deviation.size(), 3U);
  ASSERT_EQ(power.size(), 8U) << "multipole 0, and rings up to Nyquist's";
  // Over its deviation, a residual has unit variance.
  const double lowest = multipole({side, side}, pixel_arcmin, 0, 1);
  double variance = 0;
  for (int ky = 0; ky < side; ++ky) {
    for (int kx = 0; kx < side; ++kx) {
      const double l = multipole({side, side}, pixel_arcmin, ky, std::min(kx, side - kx));
      variance += power[std::min<std::size_t>(7, static_cast<std::size_t>(std::lround(l / lowest)))].second / pixels;
    }
  }
  EXPECT_NEAR(variance, 1, 0.1);
  ASSERT_EQ(folder.umbriel("train vae dust.toml --set run.output=two.safetensors", 2).code, 0);
  EXPECT_EQ(table(nn::SafetensorsFile(folder / "two.safetensors").metadata(), "umbriel.residual.power"), power);
}

/// Makes a model one without a decoder, whose last layer is zero: there is only what it leaves out, with a deviation of
/// 0.8 and an amplitude of 1.
void remove_decoder(const std::string& path) {
  const nn::SafetensorsFile trained(path);
  std::vector<nn::NamedTensor> tensors;
  for (const auto& entry : trained.entries()) {
    tensors.push_back({entry.name, entry.shape, trained.read(entry)});
    if (entry.name.rfind("decoder.last", 0) == 0)
      std::fill(tensors.back().values.begin(), tensors.back().values.end(), 0.0f);
  }
  nn::Metadata metadata = trained.metadata();
  metadata["umbriel.residual.deviation"] = "-1 0.5\n1 1.1\n";  // 0.8 at 0
  metadata["umbriel.residual.power"] = "0 4\n1000 3\n4000 0.5\n8000 0.1\n";
  metadata.erase("umbriel.residual.amplitude");  // that of all patches
  write_safetensors(path, tensors, metadata);
}

/// Covariance of the pixels of what that model leaves out, by a sum over the waves of the wide grid.
Eigen::MatrixXd covariance_left_out() {
  const Grid wide{24, 24};
  const auto power = [](double l) {
    const std::vector<double> at = {0, 1000, 4000, 8000}, value = {4, 3, 0.5, 0.1};
    for (std::size_t i = 1; i < 4; ++i) {
      const double t = (l - at[i - 1]) / (at[i] - at[i - 1]);
      if (t <= 1) return std::exp((1 - t) * std::log(value[i - 1]) + t * std::log(value[i]));
    }
    return value[3];
  };
  std::vector<double> correlation(24 * 24, 0);  // of pixels (dy, dx) apart
  for (int dy = 0; dy < 24; ++dy)
    for (int dx = 0; dx < 24; ++dx)
      for (int ky = 0; ky < 24; ++ky)
        for (int kx = 0; kx < 24; ++kx)
          correlation[static_cast<std::size_t>(dy * 24 + dx)] +=
              0.64 / 576 * power(multipole(wide, pixel_arcmin, ky, std::min(kx, 24 - kx))) *
              std::cos(2 * std::numbers::pi * (ky * dy + kx * dx) / 24);
  Eigen::MatrixXd c(pixels, pixels);
  for (int i = 0; i < pixels; ++i)
    for (int j = 0; j < pixels; ++j)
      c(i, j) =
          correlation[static_cast<std::size_t>(std::abs(i / side - j / side) * 24 + std::abs(i % side - j % side))];
  return c;
}

// The posterior is a Gaussian field's.
TEST(Inpaint, WithoutADecoderItIsTheGaussianPosterior) {
  const Trained folder;
  remove_decoder(folder / "dust.safetensors");
  const Outcome outcome = folder.umbriel(start +
                                             "--set inpaint.noise=0.4 --set inpaint.chains=40 --set inpaint.draws=25 "
                                             "--set inpaint.warm_up=1 --set inpaint.trajectories=1",
                                         2);
  ASSERT_EQ(outcome.code, 0) << outcome.output;

  const Hdf5Reader file(folder / "out.h5");
  const auto mask = file.read<float>("/data/mask"), data = file.read<float>("/data/map");
  const Eigen::MatrixXd c = covariance_left_out();
  std::vector<int> seen;
  for (int i = 0; i < pixels; ++i)
    if (mask[static_cast<std::size_t>(i)] != 0) seen.push_back(i);
  Eigen::VectorXd d(seen.size());
  for (std::size_t i = 0; i < seen.size(); ++i)
    d(static_cast<Eigen::Index>(i)) = static_cast<double>(data[static_cast<std::size_t>(seen[i])]);
  const Eigen::MatrixXd to_seen = c(Eigen::all, seen);
  const Eigen::LDLT<Eigen::MatrixXd> s(
      Eigen::MatrixXd(c(seen, seen)) +
      0.16 * Eigen::MatrixXd::Identity(static_cast<Eigen::Index>(seen.size()), static_cast<Eigen::Index>(seen.size())));
  const Eigen::VectorXd expected = to_seen * s.solve(d);
  const Eigen::MatrixXd covariance = c - to_seen * s.solve(to_seen.transpose());
  const auto mean = file.read<float>("/summary/mean"), deviation = file.read<float>("/summary/std"),
             maximum = file.read<float>("/reference/maximum");
  for (int i = 0; i < pixels; ++i) {
    const auto p = static_cast<std::size_t>(i);
    const double spread = std::sqrt(covariance(i, i));
    EXPECT_NEAR(maximum[p], expected(i), 2e-3) << i;
    EXPECT_NEAR(mean[p], expected(i), 5 * spread / std::sqrt(1000.0)) << i;
    EXPECT_NEAR(deviation[p], spread, 0.12 * spread) << i;
  }

  // Measured on patches, what is left out is the whole patch, of unit deviation, whatever the model's file says.
  const std::string measured =
      start +
      "--set inpaint.residual_maps=patches.h5 --set inpaint.chains=1 --set inpaint.draws=1 --set run.output=m.h5";
  ASSERT_EQ(folder.umbriel(measured, 2).code, 0);
  const Hdf5Reader other(folder / "m.h5");  // with an amplitude of its own
  const double amplitude = std::stod(other.attribute("/sample_stats", "residual_amplitude"));
  EXPECT_NE(amplitude, 1);
  for (const float h : other.read<float>("/reference/residual_deviation")) EXPECT_NEAR(h, amplitude, 1e-5);
  EXPECT_EQ(std::stod(file.attribute("/sample_stats", "residual_amplitude")), 1) << "of a model without amplitudes";
  for (const float h : file.read<float>("/reference/residual_deviation")) EXPECT_NEAR(h, 0.8, 1e-5);
}

// Of a model of logarithms, x = m(v) for a Gaussian field v with the covariance C: where -2 ln p(v | d) is least,
// v = C m'(v) (d - m(v)) / sigma^2, with what was not observed left out.
TEST(Inpaint, OfLogarithmsTheMostProbableMapIsThatOfALognormalField) {
  const Trained folder;
  ASSERT_EQ(folder.umbriel("train vae dust.toml --set field.transform=standardised-lognormal --set field.kappa0=4").code, 0);
  remove_decoder(folder / "dust.safetensors");
  ASSERT_EQ(
      folder
          .umbriel(start +
                   "--set inpaint.noise=0.3 --set inpaint.chains=8 --set inpaint.draws=40 --set inpaint.warm_up=1 "
                   "--set inpaint.trajectories=1")
          .code,
      0);
  const nn::Metadata metadata = nn::SafetensorsFile(folder / "dust.safetensors").metadata();
  EXPECT_EQ(metadata.at("umbriel.field"), "standardised-lognormal");
  const double kappa0 = std::stod(metadata.at("umbriel.field.kappa0")),
               offset = std::stod(metadata.at("umbriel.field.mean"));
  double multipole = 0, variance = 0;
  std::istringstream(metadata.at("umbriel.field.power")) >> multipole >> variance;
  const Hdf5Reader file(folder / "out.h5");
  const auto mask = file.read<float>("/data/mask"), data = file.read<float>("/data/map"),
             maximum = file.read<float>("/reference/maximum"), draws = file.read<float>("/posterior/map");
  Eigen::VectorXd v(pixels), pull(pixels);
  for (int i = 0; i < pixels; ++i) {
    const auto p = static_cast<std::size_t>(i);
    const double shifted = static_cast<double>(maximum[p]) + kappa0;
    ASSERT_GT(shifted, 0);
    v(i) = (std::log(shifted) - offset) / std::sqrt(variance);
    pull(i) =
        static_cast<double>(mask[p]) * std::sqrt(variance) * shifted * static_cast<double>(data[p] - maximum[p]) / 0.09;
  }
  EXPECT_GT(v.norm(), 5);
  EXPECT_LT((v - covariance_left_out() * pull).norm(), 0.005 * v.norm());
  for (const float x : draws) EXPECT_GE(static_cast<double>(x), -kappa0);
}

TEST(Inpaint, AStoppedRunGoesOnWithTheSameBitsOnAnyNumberOfRanks) {
  const Trained folder;
  const std::string command = start + "--set inpaint.chains=5 --set inpaint.draws=40 --set inpaint.warm_up=60 ";
  ASSERT_EQ(folder.umbriel(command + "--set run.output=whole.h5").code, 0);
  const std::string expected = Hdf5Reader(folder / "whole.h5").data_digest();
  // Stopped by a signal while chains are under way, on three ranks, and gone on with on two.
  const Outcome stopped = folder.disturbed(Folder::program(command + "--set run.checkpoint_minutes=0.005", 3), "out.h5",
                                           "out.h5.checkpoint", 0, "pkill -USR1 -P $pid");
  ASSERT_EQ(stopped.code, 75) << stopped.output;
  const Hdf5Reader checkpoint(folder / "out.h5.checkpoint");
  const std::vector<double> numbers = checkpoint.read<double>("/numbers");
  ASSERT_EQ(numbers.size(), 5U * 7U);
  const Refusal other[] = {{"--set inpaint.noise=0.3", 2, 2, "inpaint.noise"}};
  const std::vector<std::string> before = folder.files();
  for (const Refusal& refusal : other) {
    const Outcome refused = folder.umbriel(command + refusal.arguments, refusal.ranks);
    EXPECT_EQ(refused.code, refusal.code) << refused.output;
    EXPECT_NE(refused.output.find(refusal.word), std::string::npos) << refused.output;
  }
  const Outcome resumed = folder.umbriel(command, 2);
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("resuming"), std::string::npos) << resumed.output;
  EXPECT_EQ(Hdf5Reader(folder / "out.h5").data_digest(), expected);
  for (const std::string& name : folder.files()) EXPECT_EQ(name.find("checkpoint"), std::string::npos) << name;
}

TEST(Inpaint, RefusesBadInput) {
  const Trained folder;
  {  // as an older version wrote it
    const nn::SafetensorsFile trained(folder / "dust.safetensors");
    std::vector<nn::NamedTensor> tensors;
    for (const auto& entry : trained.entries()) tensors.push_back({entry.name, entry.shape, trained.read(entry)});
    nn::Metadata metadata = trained.metadata();
    metadata["umbriel.residual.power"] = "0 1\n10 -1\n";
    write_safetensors(folder / "damaged.safetensors", tensors, metadata);
    metadata.erase("umbriel.residual.power");
    metadata.erase("umbriel.residual.deviation");
    write_safetensors(folder / "older.safetensors", tensors, metadata);
    const std::vector<float> maps(2 * pixels, 1.0F);
    Hdf5Writer file(folder / "unsplit.h5", Communicator());
    file.write<float>({"/patches/map", {}, "1", "patch"}, {2, side, side}, maps.data());
    file.commit();
  }
  const Refusal cases[] = {
      {"--set inpaint.model=older.safetensors", 3, 2, "inpaint.residual_maps"},
      {"--set inpaint.model=damaged.safetensors", 3, 2, "umbriel.residual.power"},
      {"--set inpaint.residual_maps=unsplit.h5", 3, 2, "/patches/split"},
      {"--set inpaint.residual_maps=patches.h5 --set inpaint.residual_part=tests", 2, 1, "inpaint.residual_part"}};
  expect_refusals(folder, cases, start);
}

}  // namespace
}  // namespace umbriel
