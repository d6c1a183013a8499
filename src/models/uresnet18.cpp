#include "umbriel/models/uresnet18.hpp"

namespace umbriel {
namespace {

constexpr int channels_of_group[] = {32, 64, 128, 128};
constexpr bool group_halves[] = {true, true, true, false};
constexpr int groups = 4;

const NetworkRegistration registration("uresnet18", [](const Config& config, int input_channels) {
  return std::make_unique<UResNet18>(input_channels, config.flag("network.spectral_norm", true));
});

struct NoiseOfUResNet {
  View1<float> sigma, plane, factor;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    plane(i) = sigma(i);
    factor(i) = 1.0f / ((sigma(i) < 0 ? -sigma(i) : sigma(i)) + 1e-3f);
  }
};

}  // namespace

UResNet18::UResNet18(int input_channels, bool spectral_norm) : input_channels_(input_channels) {
  nn::Convolution::Settings settings;
  settings.kernel = 7;
  settings.bias = false;
  settings.spectral = spectral_norm;
  first_ = nn::Convolution(parameters_, "first", input_channels + 1, 32, settings);
  std::vector<int> skips;
  int c = 32;
  const auto group = [&](const std::string& name, int width) {
    std::vector<Block> blocks;
    blocks.push_back(declare_block(name + ".0", c, width, true, spectral_norm));
    blocks.push_back(declare_block(name + ".1", width, width, false, spectral_norm));
    return blocks;
  };
  for (int g = 0; g < groups; ++g) {
    skips.push_back(c);
    down_.push_back(group(std::string("down.").append(std::to_string(g)), channels_of_group[g]));
    c = channels_of_group[g];
  }
  ++c;  // the noise level
  for (int g = groups - 1; g >= 0; --g) {
    up_.push_back(group(std::string("up.").append(std::to_string(groups - 1 - g)), channels_of_group[g]));
    c = channels_of_group[g] + skips[static_cast<std::size_t>(g)];
  }
  settings.kernel = 5;
  settings.bias = true;
  last_ = nn::Convolution(parameters_, "last", c, 1, settings);
}

UResNet18::Block UResNet18::declare_block(const std::string& name, int c_in, int c_out, bool project,
                                          bool spectral_norm) {
  nn::Convolution::Settings settings;
  settings.bias = false;
  settings.spectral = spectral_norm;
  Block block;
  block.project = project;
  if (project) {
    settings.kernel = 1;
    block.shortcut = nn::Convolution(parameters_, name + ".proj.0", c_in, c_out, settings);
    block.shortcut_norm = nn::BatchNorm(parameters_, name + ".proj.1", c_out);
    settings.kernel = 3;
  }
  block.first = nn::Convolution(parameters_, name + ".body.0", c_in, c_out, settings);
  block.first_norm = nn::BatchNorm(parameters_, name + ".body.1", c_out);
  block.second = nn::Convolution(parameters_, name + ".body.3", c_out, c_out, settings);
  block.second_norm = nn::BatchNorm(parameters_, name + ".body.4", c_out);
  return block;
}

nn::Value UResNet18::build_block(nn::Tape& tape, const Block& block, nn::Value x) {
  const nn::Value shortcut = block.project ? block.shortcut_norm(tape, block.shortcut(tape, x)) : x;
  const nn::Value inner = block.first_norm(tape, block.first(tape, x), Activation::relu);
  return block.second_norm(tape, block.second(tape, inner), Activation::relu, shortcut);
}

nn::Value UResNet18::build(nn::Tape& tape, nn::Value x, const std::vector<nn::Scalars>& noise) const {
  const auto beside = [&](nn::Value a, nn::Value b) { return tape.concatenate({a, b}); };
  const auto noise_plane = [&](nn::Value like) { return nn::plane(tape, tape.extents(like), noise[0]); };
  nn::Value out = first_(tape, beside(x, noise_plane(x)));
  std::vector<nn::Value> levels;
  for (int g = 0; g < groups; ++g) {
    levels.push_back(out);
    if (group_halves[g]) out = nn::average_pool(tape, out, 2);
    for (const Block& block : down_[static_cast<std::size_t>(g)]) out = build_block(tape, block, out);
  }
  out = beside(out, noise_plane(out));
  for (int g = groups - 1; g >= 0; --g) {
    if (group_halves[g]) out = nn::upsample(tape, out, 2);
    for (const Block& block : up_[static_cast<std::size_t>(groups - 1 - g)]) out = build_block(tape, block, out);
    out = beside(out, levels[static_cast<std::size_t>(g)]);
  }
  return nn::scale_samples(tape, last_(tape, out), noise[1]);
}

void UResNet18::set_noise(const Space& space, int n, const View1<float>& sigma,
                          const std::vector<View1<float>>& features) const {
  Kokkos::parallel_for("umbriel::noise_of_uresnet18", Range(space, 0, n), NoiseOfUResNet{sigma, features[0], features[1]});
}

}  // namespace umbriel
