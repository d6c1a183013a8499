// The score model against its equations in float64 with naive transforms: residual, loss and its gradient, denoising.
#include "umbriel/models/score_model.hpp"

#include <unistd.h>

#include <complex>
#include <filesystem>
#include <fstream>
#include <numbers>

#include "../nn/double_interpreter.hpp"

namespace umbriel {
namespace {

using namespace nn::testing;

using Modes = std::vector<std::complex<double>>;  // full spectrum [ky, kx]

/// Orthonormal transform, sign -1, and its inverse, sign +1.
Modes transform(const Modes& in, Grid grid, int sign) {
  Modes out(in.size(), 0.0);
  const double scale = 1 / std::sqrt(static_cast<double>(grid.pixels()));
  for (int ky = 0; ky < grid.height; ++ky) {
    for (int kx = 0; kx < grid.width; ++kx) {
      std::complex<double> sum = 0;
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) {
          const double turns = static_cast<double>(ky * y) / grid.height + static_cast<double>(kx * x) / grid.width;
          sum +=
              in[static_cast<std::size_t>(y * grid.width + x)] * std::polar(1.0, sign * 2 * std::numbers::pi * turns);
        }
      }
      out[static_cast<std::size_t>(ky * grid.width + kx)] = scale * sum;
    }
  }
  return out;
}

struct Case {
  const char* name;
  const char* keys;
  Grid grid;
};

const Case cases[] = {
    {"Whitened", "parametrisation = \"whitened\"\n", {6, 8}},
    {"WhitenedPlain", "parametrisation = \"whitened\"\nloss = \"plain\"\nloss_weight = 1.0\n", {5, 7}},
    {"WhitenedWithoutGaussian", "parametrisation = \"whitened\"\ngaussian = false\n", {8, 4}},
    {"Paper", "parametrisation = \"paper\"\n", {6, 6}},
    {"PaperRelativeWithoutGaussian", "parametrisation = \"paper\"\ngaussian = false\nloss = \"relative\"\n", {4, 6}},
};

/// A model of a tiny network and the same in float64.
struct Problem {
  Grid grid;
  std::unique_ptr<ScoreModel> model;
  std::vector<double> power;  // full, 0 at k = 0 and in one more mode
  View2<float> half_power;

  explicit Problem(const Case& c) : grid(c.grid) {
    const Config config = Config::parse(std::string("[score]\nsigma_min = 0.01\nsigma_max = 0.5\n") + c.keys +
                                        "[network]\nwidths = [3]\nblocks = [1]\nembedding = 4\nnorm = \"group\"\n"
                                        "groups = 1\n");
    model = std::make_unique<ScoreModel>(config, 0.07);
    set_parameters(model->network().parameters());
    HostView2<float> host("power", static_cast<std::size_t>(grid.height), static_cast<std::size_t>(grid.half_width()));
    for (int ky = 0; ky < grid.height; ++ky) {
      for (int kx = 0; kx < grid.width; ++kx) {
        const int y = std::min(ky, grid.height - ky), x = std::min(kx, grid.width - kx);
        const float p = y * y + x * x == 0 || (y == 1 && x == 1) ? 0.0f : 0.02f / static_cast<float>(y * y + x * x);
        power.push_back(static_cast<double>(p));
        if (kx < grid.half_width()) host(ky, kx) = p;
      }
    }
    half_power = on_device(host);
  }

  std::size_t pixels() const { return static_cast<std::size_t>(grid.pixels()); }

  /// Network for n samples, to be evaluated in float64.
  struct Reference {
    nn::Tape tape;
    nn::Value output;
    std::unique_ptr<DoubleInterpreter> network;

    Reference(const Problem& p, const Doubles& sigma) : tape(p.model->network().parameters(), true) {
      const Network& net = p.model->network();
      const int n = static_cast<int>(sigma.size());
      const nn::Value x = tape.input({n, p.grid.height, p.grid.width, net.input_channels()});
      std::vector<nn::Scalars> noise;
      const View1<float> view("sigma", sigma.size());
      set_floats(view.data(), sigma);
      std::vector<View1<float>> features;
      for (int i = 0; i < net.noise_features(); ++i) {
        noise.push_back(tape.scalars(n));
        features.emplace_back("feature", sigma.size());
      }
      output = net.build(tape, x, noise);
      net.set_noise(Space(), n, view, features);
      Space().fence();
      network = std::make_unique<DoubleInterpreter>(tape);
      for (std::size_t i = 0; i < features.size(); ++i) network->scalars[i] = to_doubles(features[i]);
    }
  };

  /// Learned part r of the score of orthonormal spectra `a`; the whole of it is g + r with the Gaussian g = -a / v.
  std::vector<Modes> residual(Reference& reference, const std::vector<Modes>& a, const Doubles& sigma) const {
    const ScoreSettings& s = model->settings();
    const auto channels = static_cast<std::size_t>(s.input_channels());
    Doubles input(a.size() * pixels() * channels);
    for (std::size_t n = 0; n < a.size(); ++n) {
      Modes first(pixels()), second(pixels());
      for (std::size_t k = 0; k < pixels(); ++k) {
        const double v = power[k] + sigma[n] * sigma[n];
        if (power[k] == 0) continue;
        first[k] = s.whitened ? a[n][k] / std::sqrt(v) : a[n][k];
        second[k] = s.whitened ? a[n][k] * power[k] / v / s.field_std : -sigma[n] * sigma[n] * a[n][k] / v;
      }
      first = transform(first, grid, 1);
      second = transform(second, grid, 1);
      for (std::size_t i = 0; i < pixels(); ++i) {
        input[(n * pixels() + i) * channels] = first[i].real();
        if (channels == 2) input[(n * pixels() + i) * channels + 1] = second[i].real();
      }
    }
    reference.network->inputs[0] = input;
    const Doubles output = reference.network->evaluate(reference.output);
    std::vector<Modes> r;
    for (std::size_t n = 0; n < a.size(); ++n) {
      Modes modes(output.begin() + static_cast<std::ptrdiff_t>(n * pixels()),
                  output.begin() + static_cast<std::ptrdiff_t>((n + 1) * pixels()));
      modes = transform(modes, grid, -1);
      for (std::size_t k = 0; k < pixels(); ++k) {
        const double v = power[k] + sigma[n] * sigma[n];
        modes[k] = power[k] == 0 ? 0.0 : s.whitened ? modes[k] / std::sqrt(v) : modes[k];
        // Without a Gaussian part the network gives the whole score.
        if (!s.gaussian && power[k] > 0) modes[k] += a[n][k] / v;
      }
      r.push_back(modes);
    }
    return r;
  }
};

Modes complex_of(const Doubles& map) { return {map.begin(), map.end()}; }

class ScoreModelOf : public ::testing::TestWithParam<Case> {};

TEST_P(ScoreModelOf, TrainsOnTheLossOfItsEquations) {
  const Problem p(GetParam());
  const ScoreSettings& s = p.model->settings();
  const Doubles sigma = {0.25, 0.03125, 0.125};
  const int n = 3, total = 7;  // this rank's share of seven
  const auto pixels = static_cast<std::int64_t>(p.pixels());
  Doubles maps = draw_normals(60, n * pixels, 0.1), noise = draw_normals(61, n * pixels);
  Problem::Reference reference(p, sigma);
  std::vector<Modes> a, u;
  for (int i = 0; i < n; ++i) {
    const auto part = [&](const Doubles& all) {
      return transform(complex_of({all.begin() + i * pixels, all.begin() + (i + 1) * pixels}), p.grid, -1);
    };
    a.push_back(part(maps));
    u.push_back(part(noise));
    for (std::size_t k = 0; k < p.pixels(); ++k) a.back()[k] += sigma[static_cast<std::size_t>(i)] * u.back()[k];
  }
  const auto losses = [&] {
    const auto r = p.residual(reference, a, sigma);
    Doubles loss(n, 0.0);
    for (std::size_t i = 0; i < loss.size(); ++i) {
      double norm = 0;
      for (std::size_t k = 0; k < p.pixels(); ++k) {
        if (p.power[k] == 0) continue;
        const double v = p.power[k] + sigma[i] * sigma[i], w = std::pow(v / (sigma[i] * sigma[i]), s.loss_weight);
        loss[i] += w * std::norm(u[i][k] + sigma[i] * (r[i][k] - a[i][k] / v));
        norm += w * p.power[k] / v;
      }
      loss[i] /= s.relative_loss ? norm : static_cast<double>(pixels);
    }
    return loss;
  };

  ScoreTraining training(*p.model, p.grid, p.half_power, n);
  const MapBatch device_maps("maps", n, p.grid.height, p.grid.width),
      device_noise("noise", n, p.grid.height, p.grid.width);
  const View1<float> device_sigma("sigma", n);
  set_floats(device_maps.data(), maps);
  set_floats(device_noise.data(), noise);
  set_floats(device_sigma.data(), sigma);
  const View1<double> device_losses("losses", n);
  training.step(Space(), device_maps, device_noise, device_sigma, total, device_losses, {});
  Space().fence();
  const auto host = on_host(device_losses);
  const Doubles expected = losses();
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(host(i), expected[i], 1e-5 * expected[i]) << i;

  const nn::ParameterSet& set = p.model->network().parameters();
  const Doubles gradient = to_doubles(set.gradients());
  std::uint32_t stream = 62;
  for (const nn::Parameter& q : set.parameters()) {
    const Doubles direction = draw_normals(++stream, q.size, 1 / std::sqrt(static_cast<double>(q.size)));
    const Doubles kept = reference.network->parameters;
    double along = 0, square = 0, ends[2];
    constexpr double h = 1e-5;
    for (std::size_t i = 0; i < direction.size(); ++i) {
      const double g = gradient[static_cast<std::size_t>(q.offset) + i];
      along += direction[i] * g;
      square += g * g / static_cast<double>(q.size);
    }
    for (const int side : {0, 1}) {
      for (std::size_t i = 0; i < direction.size(); ++i)
        reference.network->parameters[static_cast<std::size_t>(q.offset) + i] =
            kept[static_cast<std::size_t>(q.offset) + i] + (side == 0 ? -h : h) * direction[i];
      ends[side] = 0;
      for (const double loss : losses()) ends[side] += loss / total;
    }
    reference.network->parameters = kept;
    EXPECT_NEAR(along, (ends[1] - ends[0]) / (2 * h), 1e-4 * std::max(std::sqrt(square), 1e-3)) << q.name;
  }
}

TEST_P(ScoreModelOf, EvaluatesTheResidualOfItsEquations) {
  const Problem p(GetParam());
  constexpr int n = 3;
  const Doubles sigma = {0.25, 0.5, 0.0625};
  const int half = p.grid.half_width();
  std::vector<Modes> a;
  std::vector<float> halves;
  for (std::uint32_t i = 0; i < n; ++i) {
    a.push_back(transform(complex_of(draw_normals(50 + i, p.grid.pixels(), 0.3)), p.grid, -1));
    for (int ky = 0; ky < p.grid.height; ++ky) {
      for (int kx = 0; kx < half; ++kx) {
        const auto mode = a.back()[static_cast<std::size_t>(ky * p.grid.width + kx)];
        halves.push_back(static_cast<float>(mode.real()));
        halves.push_back(static_cast<float>(mode.imag()));
      }
    }
  }
  Problem::Reference reference(p, sigma);
  const auto expected = p.residual(reference, a, sigma);

  const ScoreEvaluator evaluator(*p.model, p.model->network().parameters().values(), p.grid, p.half_power);
  const SpectrumBatch state("state", n, p.grid.height, half), residual("residual", n, p.grid.height, half);
  const View1<float> levels("sigma", n);
  set_floats(reinterpret_cast<float*>(state.data()), {halves.begin(), halves.end()});
  set_floats(levels.data(), sigma);
  evaluator.residual(Space(), n, state, levels, residual);
  Space().fence();
  const auto count = static_cast<std::int64_t>(halves.size());
  const Doubles all = to_doubles(reinterpret_cast<const float*>(residual.data()), count);
  EXPECT_EQ(to_doubles(reinterpret_cast<const float*>(state.data()), count), Doubles(halves.begin(), halves.end()));
  Doubles wanted;
  for (std::size_t i = 0; i < n; ++i) {
    for (int ky = 0; ky < p.grid.height; ++ky) {
      for (int kx = 0; kx < half; ++kx) {
        const auto mode = expected[i][static_cast<std::size_t>(ky * p.grid.width + kx)];
        wanted.push_back(mode.real());
        wanted.push_back(mode.imag());
      }
    }
  }
  EXPECT_LT(distance(all, wanted), 2e-5);

  // One at a time: the same bits. Far above what was learned: nothing.
  Kokkos::deep_copy(residual, Complex(NAN, NAN));
  for (int i = 0; i < n; ++i) {
    const auto one = std::make_pair(i, i + 1);
    evaluator.residual(Space(), 1, SpectrumBatch(Kokkos::subview(state, one, Kokkos::ALL, Kokkos::ALL)),
                       View1<float>(Kokkos::subview(levels, one)),
                       SpectrumBatch(Kokkos::subview(residual, one, Kokkos::ALL, Kokkos::ALL)));
  }
  Space().fence();
  EXPECT_EQ(to_doubles(reinterpret_cast<const float*>(residual.data()), count), all);
  Kokkos::deep_copy(levels, 0.51f);
  evaluator.residual(Space(), n, state, levels, residual);
  Space().fence();
  for (const double r : to_doubles(reinterpret_cast<const float*>(residual.data()), count)) EXPECT_EQ(r, 0);
}

// Everything doubled is exact in binary, so the score must be half of what it was, bit by bit.
TEST_P(ScoreModelOf, StretchesWhatItLearned) {
  const Problem p(GetParam());
  const int half = p.grid.half_width();
  const auto residual = [&](float stretch, float unit) {
    const View2<float> power("power", p.half_power.extent(0), p.half_power.extent(1));
    const auto host = on_host(p.half_power);
    for (std::size_t k = 0; k < host.size(); ++k) host.data()[k] *= unit * unit;
    Kokkos::deep_copy(power, host);
    const ScoreEvaluator evaluator(*p.model, p.model->network().parameters().values(), p.grid, power, {},
                                   static_cast<double>(stretch));
    const SpectrumBatch state("state", 3, p.grid.height, half), out("residual", 3, p.grid.height, half);
    const View1<float> levels("sigma", 3);
    const auto count = static_cast<std::int64_t>(2 * state.size());
    Doubles values = draw_normals(50, count, 0.3);
    for (double& value : values) value *= static_cast<double>(unit);
    set_floats(reinterpret_cast<float*>(state.data()), values);
    // The last one is hotter than what was learned: there the prior is Gaussian.
    set_floats(levels.data(), {0.25 * static_cast<double>(unit), 0.0625 * static_cast<double>(unit),
                               0.75 * static_cast<double>(unit)});
    evaluator.residual(Space(), 3, state, levels, out);
    Space().fence();
    return to_doubles(reinterpret_cast<const float*>(out.data()), count);
  };
  const Doubles learned = residual(1, 1);
  Doubles doubled = residual(2, 2);
  for (double& value : doubled) value *= 2;
  EXPECT_EQ(doubled, learned);
  EXPECT_NE(learned, Doubles(learned.size(), 0));
  const auto last = learned.end() - static_cast<std::ptrdiff_t>(learned.size() / 3);
  EXPECT_TRUE(std::all_of(last, learned.end(), [](double value) { return value == 0; }));
}

TEST_P(ScoreModelOf, DenoisesByItsEquations) {
  const Problem p(GetParam());
  const Doubles sigma = {0.25, 0.25};
  const auto pixels = static_cast<std::int64_t>(p.pixels());
  const Doubles maps = draw_normals(40, 2 * pixels, 0.1), noise = draw_normals(41, 2 * pixels);
  std::vector<Modes> x, y, u;
  for (int i = 0; i < 2; ++i) {
    x.push_back(transform(complex_of({maps.begin() + i * pixels, maps.begin() + (i + 1) * pixels}), p.grid, -1));
    u.push_back(transform(complex_of({noise.begin() + i * pixels, noise.begin() + (i + 1) * pixels}), p.grid, -1));
    y.push_back(x.back());
    for (std::size_t k = 0; k < p.pixels(); ++k) y.back()[k] += 0.25 * u.back()[k];
  }
  Problem::Reference reference(p, sigma);
  const auto r = p.residual(reference, y, sigma);
  const ScoreEvaluator evaluator(*p.model, p.model->network().parameters().values(), p.grid, p.half_power);
  const MapBatch device_maps("maps", 2, p.grid.height, p.grid.width),
      device_noise("noise", 2, p.grid.height, p.grid.width);
  set_floats(device_maps.data(), maps);
  set_floats(device_noise.data(), noise);
  const auto errors = denoising_errors(Space(), evaluator, p.grid, p.half_power, 2, device_maps, device_noise, 0.25f);
  for (std::size_t i = 0; i < 2; ++i) {
    double gaussian = 0, hybrid = 0;
    for (std::size_t k = 0; k < p.pixels(); ++k) {
      if (p.power[k] == 0) continue;  // known without noise
      const double s2 = 0.0625;
      const auto score = -y[i][k] / (p.power[k] + s2);
      gaussian += std::norm(x[i][k] - (y[i][k] + s2 * score)) / static_cast<double>(pixels);
      hybrid += std::norm(x[i][k] - (y[i][k] + s2 * (score + r[i][k]))) / static_cast<double>(pixels);
    }
    EXPECT_NEAR(errors[i][0], gaussian, 1e-5 * gaussian);
    EXPECT_NEAR(errors[i][1], hybrid, 2e-5 * hybrid);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ScoreModelOf, ::testing::ValuesIn(cases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ScoreModel, IsLoadedAsItWasSaved) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("umbriel-score-" + std::to_string(::getpid()) + ".safetensors"))
          .string();
  for (const Case& c : cases) {
    const Problem p(c);
    p.model->save(path, p.model->network().parameters().values(), {{"umbriel.more", "kept"}});
    const ScoreModel again = ScoreModel::load(path);
    const ScoreSettings &a = p.model->settings(), &b = again.settings();
    EXPECT_EQ(a.whitened, b.whitened);
    EXPECT_EQ(a.gaussian, b.gaussian);
    EXPECT_EQ(a.relative_loss, b.relative_loss);
    EXPECT_EQ(a.loss_weight, b.loss_weight);
    EXPECT_EQ(a.field_std, b.field_std);
    EXPECT_EQ(a.sigma_min, b.sigma_min);
    EXPECT_EQ(a.sigma_max, b.sigma_max);
    EXPECT_EQ(again.metadata().at("umbriel.more"), "kept");
    EXPECT_EQ(to_doubles(again.network().parameters().values()), to_doubles(p.model->network().parameters().values()));
  }
  const auto refused = [&](ExitCode code) {
    try {
      ScoreModel::load(path);
      ADD_FAILURE() << "loaded";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    }
  };
  const Problem p(cases[0]);
  nn::save_weights(path, p.model->network().parameters(), p.model->network().parameters().values(), {{"a", "b"}});
  refused(ExitCode::input);
  p.model->save(path, p.model->network().parameters().values(), {});
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 8);
  refused(ExitCode::input);
  std::ofstream(path) << "not weights";
  refused(ExitCode::input);
  std::filesystem::remove(path);
  refused(ExitCode::file_system);
}

TEST(ScoreModel, RefusesMapsThatItsNetworkCannotHalve) {
  const ScoreModel model(Config::parse("[network]\nwidths = [2, 2, 2]\nblocks = [1, 1, 1]\n"), 0.1);
  const View2<float> power("power", 6, 5);
  EXPECT_THROW(ScoreTraining(model, {6, 8}, power, 1), Error);
  EXPECT_THROW(ScoreEvaluator(model, model.network().parameters().values(), {6, 8}, power), Error);
}

}  // namespace
}  // namespace umbriel
