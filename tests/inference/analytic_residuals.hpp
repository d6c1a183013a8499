// Residual scores known in closed form, in place of a network: each turns a Gaussian prior into another prior.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "umbriel/inference/score_residual.hpp"
#include "umbriel/inference/spectra.hpp"

namespace umbriel::testing {

/// r = a/(P1 + sigma^2) - a/(P2 + sigma^2): from a Gaussian prior of power P1 to one of power P2.
class OtherPower final : public ScoreResidual {
 public:
  OtherPower(const HostView2<float>& from, const HostView2<float>& to) : from_(from), to_(to) {}
  float sigma_min() const override { return 1e-3f; }
  void evaluate(const Space&, int n, const SpectrumBatch& state, const View1<float>& sigma,
                const SpectrumBatch& residual) const override {
    const auto x = on_host(state), r = on_host(residual);
    const std::vector<float> temperature = download(sigma, static_cast<std::size_t>(n));
    for (const float t : temperature) EXPECT_GT(t, 0);
    for (int i = 0; i < n; ++i) {
      const double t =
          static_cast<double>(temperature[static_cast<std::size_t>(i)]) * temperature[static_cast<std::size_t>(i)];
      for (std::size_t ky = 0; ky < x.extent(1); ++ky) {
        for (std::size_t kx = 0; kx < x.extent(2); ++kx) {
          const double p = from_(ky, kx);
          const auto factor = static_cast<float>(p > 0 ? 1 / (p + t) - 1 / (static_cast<double>(to_(ky, kx)) + t) : 0);
          r(i, ky, kx) = Complex(factor * x(i, ky, kx).real(), factor * x(i, ky, kx).imag());
        }
      }
    }
    Kokkos::deep_copy(residual, r);
  }

 private:
  HostView2<float> from_, to_;
};

/// Independent pixels, each from 0.8 N(-0.05, 0.06^2) + 0.2 N(0.2, 0.15^2): skewed, of mean 0. The Gaussian prior that
/// it corrects is white, of the same variance.
struct Mixture {
  static constexpr double weight[2] = {0.8, 0.2}, mean[2] = {-0.05, 0.2}, spread[2] = {0.06, 0.15};
  static constexpr double variance = 0.8 * (0.05 * 0.05 + 0.06 * 0.06) + 0.2 * (0.2 * 0.2 + 0.15 * 0.15);

  /// Score of a pixel smoothed by white noise of variance t.
  static double score(double x, double t) {
    double log_term[2], slope[2];
    for (int j = 0; j < 2; ++j) {
      const double v = spread[j] * spread[j] + t;
      log_term[j] = std::log(weight[j]) - 0.5 * std::log(v) - 0.5 * (x - mean[j]) * (x - mean[j]) / v;
      slope[j] = (mean[j] - x) / v;
    }
    const double second = 1 / (1 + std::exp(log_term[0] - log_term[1]));
    return (1 - second) * slope[0] + second * slope[1];
  }

  /// Mean, variance and third central moment of a pixel given a measurement of it with noise variance n.
  struct Moments {
    double mean, variance, third;
  };
  static Moments posterior(double data, double n) {
    double w[2], m[2], v[2];
    for (int j = 0; j < 2; ++j) {
      const double s2 = spread[j] * spread[j];
      w[j] = weight[j] / std::sqrt(s2 + n) * std::exp(-0.5 * (data - mean[j]) * (data - mean[j]) / (s2 + n));
      v[j] = s2 * n / (s2 + n);
      m[j] = (mean[j] * n + data * s2) / (s2 + n);
    }
    Moments result{(w[0] * m[0] + w[1] * m[1]) / (w[0] + w[1]), 0, 0};
    for (int j = 0; j < 2; ++j) {
      const double d = m[j] - result.mean, share = w[j] / (w[0] + w[1]);
      result.variance += share * (v[j] + d * d);
      result.third += share * (d * d * d + 3 * d * v[j]);
    }
    return result;
  }
};

/// Moments of every pixel given noisy measurements of the pixels and that they add up to zero: the constraint tilts
/// each pixel's density by exp(lambda x), as a measurement off by lambda n would.
inline std::vector<Mixture::Moments> mixture_posterior(const std::vector<double>& data, double noise_variance) {
  const auto moments = [&](double lambda) {
    std::vector<Mixture::Moments> all;
    for (const double d : data) all.push_back(Mixture::posterior(d + lambda * noise_variance, noise_variance));
    return all;
  };
  double low = -50, high = 50;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    double sum = 0;
    for (const Mixture::Moments& m : moments(middle)) sum += m.mean;
    (sum > 0 ? high : low) = middle;
  }
  return moments(low);
}

class MixturePixels final : public ScoreResidual {
 public:
  explicit MixturePixels(const RealFft& fft, int max_batch)
      : fft_(fft),
        maps_("maps", max_batch, fft.grid().height, fft.grid().width),
        scratch_("scratch", max_batch, fft.grid().height, fft.grid().half_width()) {}
  float sigma_min() const override { return 1e-3f; }
  void evaluate(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                const SpectrumBatch& residual) const override {
    const Grid grid = fft_.grid();
    to_maps(space, fft_, n, state, scratch_, maps_);
    const auto host = on_host(maps_);
    const std::vector<float> temperature = download(sigma, static_cast<std::size_t>(n));
    for (const float t : temperature) EXPECT_GT(t, 0);
    for (int i = 0; i < n; ++i) {
      const double s = temperature[static_cast<std::size_t>(i)], t = s * s;
      for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; ++x) {
          const double value = host(i, y, x);
          host(i, y, x) = static_cast<float>(Mixture::score(value, t) + value / (Mixture::variance + t));
        }
      }
    }
    Kokkos::deep_copy(maps_, host);
    to_spectra(space, fft_, n, maps_, scratch_);
    const auto spectra = on_host(scratch_), out = on_host(residual);
    for (int i = 0; i < n; ++i) {
      for (int ky = 0; ky < grid.height; ++ky) {
        for (int kx = 0; kx < grid.half_width(); ++kx)
          out(i, ky, kx) = ky == 0 && kx == 0 ? Complex(0, 0) : spectra(i, ky, kx);
      }
    }
    Kokkos::deep_copy(residual, out);
  }

 private:
  const RealFft& fft_;
  MapBatch maps_;
  SpectrumBatch scratch_;
};

/// Zero, and keeps what it was asked: the temperature and mean |a|^2 / (P + sigma^2), one for draws of the prior.
class Listener final : public ScoreResidual {
 public:
  struct Question {
    float sigma;
    double spread;
  };
  explicit Listener(const HostView2<float>& power) : power_(power) {}
  float sigma_min() const override { return 1e-3f; }
  void evaluate(const Space& space, int n, const SpectrumBatch& state, const View1<float>& sigma,
                const SpectrumBatch& residual) const override {
    const auto x = on_host(state);
    const std::vector<float> temperature = download(sigma, static_cast<std::size_t>(n));
    const Grid grid{static_cast<int>(x.extent(1)), static_cast<int>(2 * (x.extent(2) - 1))};
    for (int i = 0; i < n; ++i) {
      const double t =
          static_cast<double>(temperature[static_cast<std::size_t>(i)]) * temperature[static_cast<std::size_t>(i)];
      double sum = 0, modes = 0;
      for (int ky = 0; ky < grid.height; ++ky) {
        for (int kx = 0; kx < grid.half_width(); ++kx) {
          if (!(power_(ky, kx) > 0)) continue;
          const double re = x(i, ky, kx).real(), im = x(i, ky, kx).imag(), weight = mode_weight(grid, kx);
          sum += weight * (re * re + im * im) / (static_cast<double>(power_(ky, kx)) + t);
          modes += weight;
        }
      }
      questions.push_back({temperature[static_cast<std::size_t>(i)], sum / modes});
    }
    Kokkos::deep_copy(space, residual, Complex(0, 0));
  }

  mutable std::vector<Question> questions;

 private:
  HostView2<float> power_;
};

/// Zero, but for one call in ten (never the first), which says that a wave is pushed hard: trajectories that meet it
/// seem to gain or lose much energy.
class Liar final : public ScoreResidual {
 public:
  Liar(std::uint32_t stream, float push) : stream_(stream), push_(push) {}
  float sigma_min() const override { return 1e-3f; }
  void evaluate(const Space& space, int n, const SpectrumBatch&, const View1<float>&,
                const SpectrumBatch& residual) const override {
    const auto r = on_host(residual);
    Kokkos::deep_copy(r, Complex(0, 0));
    const bool lies = calls_ > 0 && uniform({3, Purpose::test, stream_, 0}, calls_) < 0.1;
    for (int i = 0; lies && i < n; ++i) r(i, 0, 3) = Complex(push_, 0);
    Kokkos::deep_copy(space, residual, r);
    ++calls_;
  }

 private:
  std::uint32_t stream_;
  float push_;
  mutable std::uint64_t calls_ = 0;
};

}  // namespace umbriel::testing
