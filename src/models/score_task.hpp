/// Training of a score model: what a step takes from the configuration, and which examples it sees.
///
///   data.*                    the maps: see training_maps.hpp. For simulated maps data.sides = [64, 128] (square maps)
///                             and data.pixel_arcmin = [0.29, 0.4] may be lists: steps take the combinations in turn
///   prior.*                   power spectrum of the Gaussian part: see power_spectrum_from
///   train.batch = 16          examples of the (first) size in a step, on all ranks together; other sizes get as many
///                             pixels
///   train.micro_batch         examples of the (first) size that go through the network at once: a step is the sum of
///                             such parts, the same parts on any number of ranks. Networks with batch norm take a
///                             rank's whole share at once
///   train.sigma               "log-uniform" between score.sigma_min and score.sigma_max, evenly over a batch (default
///                             for whitened models), or "normal": |N(0, train.sigma_std^2)| (0.2), as published
///   data.validation_maps      held-out maps, denoised at five noise levels
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "umbriel/data/power_spectrum.hpp"
#include "umbriel/models/score_model.hpp"
#include "umbriel/nn/gradient_sum.hpp"
#include "umbriel/nn/trainer.hpp"
#include "umbriel/simulation/training_maps.hpp"

namespace umbriel {

class ScoreTask final : public nn::TrainingTask {
 public:
  /// Collective. @param seed  of examples and noise
  /// @throws Error(usage) also if a batch cannot be shared evenly by the ranks
  ScoreTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options);

  ScoreModel& model() { return *model_; }
  const nn::ParameterSet& parameters() const override { return model_->network().parameters(); }
  std::vector<double> gradients(const Space& space, std::int64_t step,
                                const std::function<void(std::int64_t)>& ready) override;
  std::vector<std::pair<std::string, double>> validate(const Space& space, const View1<float>& values) override;

  /// Of one step on this rank, the largest of the sizes.
  double flops() const;
  double bytes() const;
  /// Lines about the data, for logs, dry runs and the training record.
  std::string describe() const;
  std::vector<InputFile> inputs() const;
  /// Prior spectrum as lines "multipole C_l", and pixel sizes in arcminutes: what a survey's prior should agree with.
  std::string spectrum_text() const;
  std::string pixels_text() const;

 private:
  /// One size of map.
  struct Size {
    std::unique_ptr<TrainingMaps> maps;
    HostView2<float> host_power;
    View2<float> power;
    int batch;  // on all ranks
    int parts;  // in which this rank's share goes through the network
    std::unique_ptr<ScoreTraining> training;
    MapBatch examples, noise;
    View1<float> sigma;
    View1<double> losses;
    View1<DrawKey> keys;
  };
  int micro_batch(const Config& config, int batch) const;
  void make_buffers(Size& size);
  void draw_noise(const Space& space, Size& size, std::uint32_t stream, std::int64_t first, int n);

  Communicator comm_;
  std::uint64_t seed_;
  nn::Options options_;
  std::optional<PowerSpectrum> spectrum_;
  std::vector<InputFile> prior_inputs_;
  bool log_uniform_ = true;
  double sigma_std_ = 0.2;
  std::unique_ptr<ScoreModel> model_;
  std::unique_ptr<nn::GradientSum> sum_;
  std::vector<Size> sizes_;
};

}  // namespace umbriel
