#include "umbriel/models/score_unet.hpp"

#include <algorithm>
#include <cmath>

namespace umbriel {
namespace {

const NetworkRegistration registration("unet", [](const Config& config, int input_channels) {
  return std::make_unique<ScoreUNet>(config, input_channels);
});

std::vector<int> whole_numbers(const Config& config, const std::string& key, const std::vector<double>& fallback,
                               int high) {
  std::vector<int> numbers;
  for (const double value : config.numbers(key, fallback)) {
    require(value == std::floor(value) && value >= 1 && value <= high, ExitCode::usage,
            "a value is not a whole number from 1 to " + std::to_string(high), config.where(key));
    numbers.push_back(static_cast<int>(value));
  }
  return numbers;
}

struct NoiseOfUNet {
  View1<float> sigma, a, b, c, d;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t i) const {
    const float t = math::log(sigma(i) / 0.03f);
    a(i) = 0.4f * t;
    b(i) = math::sin(t);
    c(i) = math::cos(t);
    d(i) = 0.16f * t * t - 0.5f;
  }
};

}  // namespace

ScoreUNet::ScoreUNet(const Config& config, int input_channels, int conditions) : input_channels_(input_channels) {
  widths_ = whole_numbers(config, "network.widths", std::vector<double>{16, 32, 64, 64}, 4096);
  std::vector<double> standard(widths_.size(), 1);
  if (!standard.empty()) standard.back() = 2;
  blocks_ = whole_numbers(config, "network.blocks", standard, 64);
  require(!widths_.empty() && widths_.size() <= 10 && widths_.size() == blocks_.size(), ExitCode::usage,
          "network.widths and network.blocks differ in length, or are empty", config.where("network.blocks"),
          "give one number a scale in each");
  const auto embedding = static_cast<int>(config.integer("network.embedding", 32, 1, 4096));
  activation_ = activation_named(config.choice("network.activation", "silu", {"silu", "relu", "elu", "softplus", "tanh"}));
  group_norm_ = config.choice("network.norm", "none", {"none", "group"}) == "group";
  const int groups = group_norm_ ? static_cast<int>(config.integer("network.groups", 8, 1, 4096)) : 1;
  const bool periodic = config.choice("network.padding", "periodic", {"periodic", "zeros"}) == "periodic";

  nn::Convolution::Settings settings;
  settings.padding = periodic ? Padding::periodic : Padding::zeros;
  nn::Convolution::Settings zero = settings, point = settings;
  zero.starts_at_zero = true;
  point.kernel = 1;
  point.padding = Padding::zeros;

  embed_first_ = nn::Dense(parameters_, "embed.0", noise_features() + conditions, embedding);
  embed_second_ = nn::Dense(parameters_, "embed.1", embedding, embedding);
  head_ = nn::Convolution(parameters_, "head", input_channels, widths_[0], settings);
  const auto declare = [&](const std::string& way, std::size_t scale) {
    std::vector<Block> blocks;
    const int width = widths_[scale];
    for (int i = 0; i < blocks_[scale]; ++i) {
      std::string name = way;
      name.append(".").append(std::to_string(scale)).append(".").append(std::to_string(i));
      Block block;
      block.first = nn::Convolution(parameters_, name + ".conv1", width, width, settings);
      if (group_norm_) {
        require(width % groups == 0, ExitCode::usage, "a width is not a multiple of network.groups",
                config.where("network.groups"));
        block.norm = nn::GroupNorm(parameters_, name + ".norm", width, groups);
      }
      block.modulation = nn::Dense(parameters_, name + ".modulation", embedding, 2 * width, true);
      block.second = nn::Convolution(parameters_, name + ".conv2", width, width, zero);
      blocks.push_back(block);
    }
    return blocks;
  };
  const std::size_t scales = widths_.size();
  for (std::size_t s = 0; s < scales; ++s) {
    down_.push_back(declare("down", s));
    if (s + 1 == scales) break;
    narrow_.emplace_back(parameters_, std::string("narrow.").append(std::to_string(s)), widths_[s], widths_[s + 1], point);
  }
  up_.resize(scales);
  widen_.resize(scales);
  for (std::size_t s = scales - 1; s-- > 0;) {
    widen_[s] = nn::Convolution(parameters_, std::string("widen.").append(std::to_string(s)), widths_[s + 1], widths_[s], point);
    up_[s] = declare("up", s);
  }
  tail_ = nn::Convolution(parameters_, "tail", widths_[0], 1, zero);
}

nn::Value ScoreUNet::build_block(nn::Tape& tape, const Block& block, nn::Value x, nn::Value embedding) const {
  nn::Value h = block.first(tape, nn::activation(tape, x, activation_));
  if (group_norm_) h = block.norm(tape, h);
  h = nn::modulate(tape, h, block.modulation(tape, embedding));
  return nn::sum(tape, block.second(tape, nn::activation(tape, h, activation_)), x);
}

nn::Value ScoreUNet::build(nn::Tape& tape, nn::Value x, const std::vector<nn::Scalars>& noise) const {
  const Extents one{tape.extents(x).n, 1, 1, 1};
  std::vector<nn::Value> features;
  for (const nn::Scalars feature : noise) features.push_back(nn::plane(tape, one, feature));
  const auto dense = [&](const nn::Dense& layer, nn::Value in) {
    return nn::activation(tape, layer(tape, in), activation_);
  };
  const nn::Value embedding = dense(embed_second_, dense(embed_first_, tape.concatenate(features)));

  nn::Value out = head_(tape, x);
  std::vector<nn::Value> levels;
  const std::size_t scales = widths_.size();
  for (std::size_t s = 0; s < scales; ++s) {
    for (const Block& block : down_[s]) out = build_block(tape, block, out, embedding);
    if (s + 1 == scales) break;
    levels.push_back(out);
    out = narrow_[s](tape, nn::average_pool(tape, out, 2));
  }
  for (std::size_t s = scales - 1; s-- > 0;) {
    out = nn::sum(tape, levels[s], nn::upsample(tape, widen_[s](tape, out), 2));
    for (const Block& block : up_[s]) out = build_block(tape, block, out, embedding);
  }
  return tail_(tape, out);
}

void ScoreUNet::set_noise(const Space& space, int n, const View1<float>& sigma,
                          const std::vector<View1<float>>& features) const {
  Kokkos::parallel_for("umbriel::noise_of_unet", Range(space, 0, n),
                       NoiseOfUNet{sigma, features[0], features[1], features[2], features[3]});
}

}  // namespace umbriel
