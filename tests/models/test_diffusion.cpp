#include "umbriel/models/diffusion.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "umbriel/data/npy.hpp"
#include "umbriel/nn/initialise.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

DiffusionSettings settings(const std::string& text) {
  return diffusion_settings(Config::parse("[diffusion]\n" + text, "test"));
}

TEST(Diffusion, SchedulesFallFromTheMapToNoise) {
  for (const char* text : {"", "schedule = 'linear'\n", "zero_terminal = false\n", "times = 17\n"}) {
    const std::vector<double> cosines = settings(text).cosines;
    for (std::size_t i = 1; i < cosines.size(); ++i) EXPECT_LT(cosines[i], cosines[i - 1]) << text;
    EXPECT_GT(cosines.front(), 0.98) << text;
  }
  // As published: 0.22 of the map is left in the end.
  EXPECT_NEAR(settings("schedule = 'linear'\nzero_terminal = false\n").cosines.back(), 0.22, 0.005);
  const std::vector<double> published = settings("schedule = 'linear'\nzero_terminal = false\n").cosines;
  const std::vector<double> moved = settings("schedule = 'linear'\n").cosines;
  EXPECT_EQ(moved.back(), 0);
  EXPECT_DOUBLE_EQ(moved.front(), published.front());
  EXPECT_EQ(moved.size(), 300U);
  // The cosine schedule without its end: cos^2 as in Nichol & Dhariwal's equation 17.
  const std::vector<double> cosine = settings("zero_terminal = false\n").cosines;
  const auto f = [](double u) { return std::cos((u + 0.008) / 1.008 * std::acos(0.0)); };
  EXPECT_NEAR(cosine[149], f(0.5) / f(0), 1e-9);
}

TEST(Diffusion, RefusesToPredictNoiseWhereNothingElseIsLeft) {
  EXPECT_THROW(settings("prediction = 'noise'\nzero_terminal = true\n"), Error);
  EXPECT_GT(settings("prediction = 'noise'\n").cosines.back(), 0);
  EXPECT_THROW(settings("prediction = 'score'\n"), Error);
}

std::string configuration(const std::string& more) {
  return "[data]\nsimulate = {kind = 'lognormal', kappa0 = 0.03, power_spectrum = '" +
         (std::filesystem::temp_directory_path() / ("umbriel-diffusion-" + std::to_string(::getpid()) + ".txt"))
             .string() +
         "'}\nsize = [16, 16]\npixel_arcmin = 2\nvalidation_maps = 32\n[field]\nfit_maps = 256\n"
         "[network]\nwidths = [8, 8]\nblocks = [1, 1]\nembedding = 8\n[train]\nbatch = 8\n" +
         more;
}

class DiffusionModel : public ::testing::Test {
 protected:
  static constexpr const char* conditional = "conditional";

  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("umbriel-diffusion-" + std::to_string(::getpid()))).string();
    FILE* const file = std::fopen((path_ + ".txt").c_str(), "w");
    std::fputs("1 1e-9\n100 5e-10\n1000 1e-10\n10000 1e-11\n", file);
    std::fclose(file);
    std::vector<double> maps;
    for (std::size_t i = 0; i < 12 * 256; ++i)
      maps.push_back(0.02 * static_cast<double>(normal({3, Purpose::test, 0, 0}, i)));
    write_npy(path_ + ".npy", {12, 16, 16}, maps.data());
    FILE* const table = std::fopen((path_ + ".csv").c_str(), "w");
    std::fputs("a b\n", table);
    for (int map = 0; map < 12; ++map) std::fprintf(table, "%d %d\n", map, (5 * map) % 7);
    std::fclose(table);
  }
  void TearDown() override {
    for (const char* ending : {".txt", ".npy", ".csv", ".safetensors"}) std::filesystem::remove(path_ + ending);
  }

  std::unique_ptr<DiffusionTask> task(const std::string& more) {
    const std::string text =
        more == conditional ? "[data]\nmaps = '" + path_ + ".npy'\nparameters = '" + path_ +
                                  ".csv'\npixel_arcmin = 2\n[field]\ntransform = 'linear'\n[network]\nwidths = [8, 8]\n"
                                  "blocks = [1, 1]\nembedding = 8\n[train]\nbatch = 8\n"
                            : configuration(more);
    auto made = std::make_unique<DiffusionTask>(Communicator(), Config::parse(text, "test"), 5, nn::Options{});
    nn::initialise(made->parameters(), 5, nn::Initialisation::he_normal);
    return made;
  }

  std::string path_;
};

double loss(DiffusionTask& task) { return task.validate(Space(), task.parameters().values())[0].second; }

TEST_F(DiffusionModel, KnowsWhiteFieldsUntrained) {
  // E |v|^2 = cos^2 + sin^2 = 1.
  EXPECT_NEAR(loss(*task("")), 1, 0.02);
}

TEST_F(DiffusionModel, GradientIsThatOfTheLoss) {
  for (const char* more : {"", "[diffusion]\nprediction = 'noise'\n", "[diffusion]\nprediction = 'map'\n",
                           "[diffusion]\nloss = 'l1'\n", conditional}) {
    const auto made = task(more);
    const Space space;
    const View1<float>& values = made->parameters().values();
    const auto host = on_host(values);
    for (const nn::Parameter& p : made->parameters().parameters()) {  // nothing is zero
      for (std::int64_t i = p.offset; i < p.offset + p.size; ++i)
        host(static_cast<std::size_t>(i)) += 0.05F * normal({9, Purpose::test, 0, 0}, static_cast<std::uint64_t>(i));
    }
    Kokkos::deep_copy(values, host);
    const auto mean_loss = [&] {
      double sum = 0;
      for (const double l : made->gradients(space, 0, [](std::int64_t) {})) sum += l / 8;
      return sum;
    };
    mean_loss();
    if (more == conditional) {  // both parameters reach the embedding
      const nn::Parameter& p = made->parameters().parameters()[0];
      ASSERT_EQ(p.name, "embed.0.weight");
      ASSERT_EQ(p.shape, (std::vector<int>{6, 8}));
      const auto of_embedding = on_host(made->parameters().gradients());
      for (const std::size_t row : {4U, 5U})
        EXPECT_NE(of_embedding(static_cast<std::size_t>(p.offset) + 8 * row), 0.0F);
    }
    const auto gradient = on_host(made->parameters().gradients());
    std::vector<float> kept(gradient.data(), gradient.data() + gradient.size());
    std::vector<float> start(host.data(), host.data() + host.size());
    double expected = 0, size = 0;
    std::vector<float> along(start.size(), 0);
    for (const nn::Parameter& p : made->parameters().parameters()) {
      for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        along[at] = normal({2, Purpose::test, 7, 0}, at);
        expected += static_cast<double>(along[at]) * static_cast<double>(kept[at]);
        size += static_cast<double>(kept[at]) * static_cast<double>(kept[at]);
      }
    }
    double moved[2];
    constexpr double step = 3e-4;
    for (const int side : {0, 1}) {
      for (std::size_t i = 0; i < start.size(); ++i)
        host(i) = start[i] + static_cast<float>((side == 0 ? step : -step) * static_cast<double>(along[i]));
      Kokkos::deep_copy(values, host);
      moved[side] = mean_loss();
    }
    EXPECT_NEAR((moved[0] - moved[1]) / (2 * step), expected, 0.01 * std::sqrt(size) + 2e-3) << more;
  }
}

TEST_F(DiffusionModel, UntrainedItGeneratesLognormalFields) {
  const auto made = task("");
  const GenerativeModelRecord record = made->record();
  record.save(path_ + ".safetensors", made->parameters(), made->parameters().values(), {});
  const GenerativeModelRecord read = GenerativeModelRecord::load(path_ + ".safetensors");
  EXPECT_EQ(read.kind, "diffusion");
  EXPECT_EQ(read.grid, record.grid);
  EXPECT_EQ(read.pixel_arcmin, record.pixel_arcmin);
  EXPECT_EQ(read.field.kappa0, record.field.kappa0);
  const Space space;
  const MapBatch out("out", 4, 16, 16), noise("noise", 4, 16, 16), expected("expected", 4, 16, 16);
  const View1<DrawKey> keys("keys", 4);
  const auto host = Kokkos::create_mirror_view(HostMemory{}, keys);
  for (std::size_t i = 0; i < 4; ++i) host(i) = {77, Purpose::latent, static_cast<std::uint32_t>(10 + i), 0};
  Kokkos::deep_copy(keys, host);
  fill_normals(space, noise, keys, 4);
  FieldTransform(read.field, read.grid, read.pixel_arcmin).inverse(space, noise, 4, expected);
  // The probability flow leaves white noise as it is.
  const auto flow = make_generator(path_ + ".safetensors", read, Config::parse("", "test"), {});
  flow->draw(space, 77, 10, 4, out);
  space.fence();
  const auto a = on_host(out), b = on_host(expected);
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a.data()[i], b.data()[i], 1e-6);
  // The others keep its deviation, but for what their steps lose.
  for (const auto& [sampler, lost] : {std::pair{"ddim", 0.025}, {"ancestral", 0.01}}) {
    const Config config = Config::parse(std::string("[generate]\nsampler = '") + sampler + "'\n", "test");
    const auto generator = make_generator(path_ + ".safetensors", read, config, {});
    FieldTransform transform(read.field, read.grid, read.pixel_arcmin);
    const View1<double> jacobian("jacobian", 4), sum("sum", 1);
    double squares = 0;
    for (int first = 0; first < 64; first += 4) {
      generator->draw(space, 77, first, 4, out);
      transform.forward(space, out, 4, noise, jacobian);
      space.fence();
      const auto field = on_host(noise);
      for (std::size_t i = 0; i < field.size(); ++i)
        squares += static_cast<double>(field.data()[i]) * static_cast<double>(field.data()[i]);
    }
    EXPECT_NEAR(std::sqrt(squares / (64 * 256)), 1 - lost, 0.015) << sampler;
  }
  // A clamp that nothing reaches changes nothing.
  const auto clamped = make_generator(path_ + ".safetensors", read,
                                      Config::parse("[generate]\nsampler = 'ddim'\nclamp = 50\n", "test"), {});
  const auto open =
      make_generator(path_ + ".safetensors", read, Config::parse("[generate]\nsampler = 'ddim'\n", "test"), {});
  clamped->draw(space, 77, 10, 4, out);
  open->draw(space, 77, 10, 4, expected);
  space.fence();
  const auto c = on_host(out), d = on_host(expected);
  for (std::size_t i = 0; i < c.size(); ++i) ASSERT_EQ(c.data()[i], d.data()[i]);
  EXPECT_THROW(make_generator(path_ + ".safetensors", read, Config::parse("[generate]\nclamp = 1\n", "test"), {}),
               Error);
}

}  // namespace
}  // namespace umbriel
