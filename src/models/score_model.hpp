/// The score of a smoothed convergence field: a network and how the field goes into it and comes out.
///
/// A field kappa smoothed by white noise of standard deviation sigma has the score
///   grad log p_sigma = - kappa / (P + sigma^2) + r           (a mode each; P the prior power; Remy et al. 2022, section 3)
/// of which a Gaussian field has the first term alone, and the residual r is learned. With a the orthonormal half
/// spectrum of kappa, v = P + sigma^2 and N the network:
///
///   whitened  u1 = F^-1[a / sqrt(v)], u2 = F^-1[a P / v] / field_std (the Wiener-filtered map);
///             r = F[N(u1, u2; sigma)] / sqrt(v): an error of one in the output is one unit of the prior's score at every
///             multipole, which is what sampling needs
///   paper     u1 = kappa, u2 = sigma^2 times the Gaussian score; r = F[N(u1, u2; sigma)]
///
/// Without the Gaussian score (score.gaussian = false) there is no u2, and N gives the whole score; r is what it differs
/// by from the Gaussian one. Modes with P = 0 (k = 0 among them) have no residual.
///
/// Training (denoising score matching, Vincent 2011, with signal x, white noise n, y = x + sigma n):
///   loss = sum_k (v / sigma^2)^weight |n + sigma (score of y)|^2 / G, where G is the pixels ("plain"), or the same sum
///   expected from the Gaussian score where it is optimal, sum_k (v / sigma^2)^weight P / v ("relative": a Gaussian field
///   has loss 1 at every sigma).
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "umbriel/core/loops.hpp"
#include "umbriel/fft/real_fft.hpp"
#include "umbriel/models/network.hpp"
#include "umbriel/nn/frozen.hpp"
#include "umbriel/nn/weights.hpp"

namespace umbriel {

struct ScoreSettings {
  bool whitened = true;
  bool gaussian = true;
  bool relative_loss = true;
  double loss_weight = 0.5;
  double field_std = 0.02;                     ///< unit of the Wiener-filtered map
  double sigma_min = 0.0025, sigma_max = 0.6;  ///< what it is trained for

  int input_channels() const { return gaussian ? 2 : 1; }
};

class ScoreModel {
 public:
  /// As a configuration asks for it, with initial weights unset.
  ///   score.parametrisation = "whitened" or "paper"; score.gaussian = true; score.loss = "relative" or "plain";
  ///   score.loss_weight = 0.5 (paper: 0); score.sigma_min, score.sigma_max; network.* (see network.hpp)
  /// @param field_std  standard deviation of the fields to be learned
  ScoreModel(const Config& config, double field_std);

  /// A trained one. @throws Error(input) for a file that is not one, Error(file_system)
  static ScoreModel load(const std::string& path);
  /// Weights `values` with the settings and `more` as metadata. For one rank.
  void save(const std::string& path, const View1<float>& values, nn::Metadata more) const;

  const ScoreSettings& settings() const { return settings_; }
  const Network& network() const { return *network_; }
  Network& network() { return *network_; }
  /// Of a file that was loaded: its training record.
  const nn::Metadata& metadata() const { return metadata_; }

 private:
  ScoreSettings settings_;
  std::string config_;  // TOML, what make_network needs
  nn::Metadata metadata_;
  std::unique_ptr<Network> network_;
};

/// Filters of a parametrisation, one mode at a time.
struct ScoreFilters {
  View2<float> power;  ///< [ky, kx], 0 pins a mode
  bool whitened, gaussian;
  float unit;  ///< 1 / stretch; whitened: 1 / (field_std stretch), of the Wiener-filtered map

  /// What a mode is multiplied by for the two inputs and for the output, and by how much its Gaussian score is -a.
  struct Factors {
    float first, second, output, gaussian;
  };
  KOKKOS_INLINE_FUNCTION Factors operator()(int ky, int kx, float sigma) const {
    const float p = power(ky, kx);
    if (!(p > 0)) return {0, 0, 0, 0};
    const float s2 = sigma * sigma;
    const float inverse = 1.0f / (p + s2);
    const float root = math::sqrt(inverse);
    if (whitened) return {root, p * inverse * unit, root, inverse};
    return {unit, -s2 * inverse * unit, unit, inverse};
  }
};

/// Evaluates the residual on maps of one grid with the frozen network. Above sigma_max, where the noise hides all but
/// the field's variance, it is zero: the prior is Gaussian there. Not safe to use from two threads at a time.
///
/// Fields may be `stretch` times those that the network has learned, x = stretch x': their score is that of x' at
/// sigma / stretch, divided by stretch. With `power` that of x the filters do most of it; what is left is the unit of
/// the Wiener-filtered map and the network's noise level ("paper": that of every input and of the output).
class ScoreEvaluator {
 public:
  /// @param values   weights, flat as the network's parameters
  /// @param power    [H, W/2+1] prior power a mode of the orthonormal transform
  /// @param stretch  of these fields, against those of training
  /// @throws Error(usage) if the network cannot take maps of this size
  ScoreEvaluator(const ScoreModel& model, const View1<float>& values, Grid grid, const View2<float>& power,
                 nn::Options options = {}, double stretch = 1);

  /// @param state     [>= n, H, W/2+1] orthonormal half spectra, kept
  /// @param sigma     [>= n]
  /// @param residual  [>= n, H, W/2+1], overwritten
  void residual(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                const SpectrumBatch& residual) const;

  const nn::FrozenNetwork& network() const { return network_; }
  /// Of memory.
  double bytes() const;

 private:
  Grid grid_;
  RealFft fft_;
  const Network& model_;
  ScoreFilters filters_;
  float sigma_max_, inverse_stretch_;
  nn::FrozenNetwork network_;
  SpectrumBatch spectra_;  // [2 tile, H, W/2+1]
  MapBatch maps_;          // [2 tile, H, W]
  Tensor input_, output_;  // [tile, H, W, channels]
  View1<float> sigma_, level_;  // [tile] of the fields, and as the network has learned them
  std::vector<View1<float>> features_;
};

/// Loss and gradients of batches of one shape. Takes its memory with the first step.
class ScoreTraining {
 public:
  /// Keeps a reference to the model. @param batch  maps on this rank
  ScoreTraining(const ScoreModel& model, Grid grid, const View2<float>& power, int batch, nn::Options options = {});

  /// Losses of the examples; the gradients of (their sum) / total are left in the parameter set.
  /// @param maps    [batch, H, W]
  /// @param noise   [batch, H, W] standard normals
  /// @param sigma   [batch]
  /// @param total   examples of the whole batch, on all ranks
  /// @param losses  [batch] float64, overwritten
  /// @param ready   as Tape::backward
  void step(const Space& space, const MapBatch& maps, const MapBatch& noise, const View1<float>& sigma, int total,
            const View1<double>& losses, const std::function<void(std::int64_t)>& ready);

  double flops() const { return 3 * tape_.flops(); }
  double bytes() const { return tape_.bytes(output_); }
  int batch() const { return batch_; }

 private:
  void plan();

  const ScoreModel& model_;
  Grid grid_;
  int batch_;
  ScoreFilters filters_;
  nn::Tape tape_;
  nn::Value input_, output_;
  std::vector<nn::Scalars> scalars_;
  bool planned_ = false;
  std::unique_ptr<RealFft> fft_;
  SpectrumBatch state_, noise_, spectra_;
  MapBatch maps_;
  SumWorkspace sums_;
  View1<double> norms_;
};

/// Mean over n samples and pixels of |x - D(y)|^2 for the Gaussian denoiser and for the hybrid one, D(y) = y + sigma^2
/// score: [0] Gaussian, [1] hybrid; each sample's own, so that ranks can share the work.
/// @param maps, noise  [>= n, H, W]
std::vector<std::array<double, 2>> denoising_errors(const Space& space, const ScoreEvaluator& evaluator, Grid grid,
                                                    const View2<float>& power, int n, const MapBatch& maps,
                                                    const MapBatch& noise, float sigma);

}  // namespace umbriel
