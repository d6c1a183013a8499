#include "umbriel/models/dequantiser.hpp"

#include <cmath>

namespace umbriel {
namespace {

/// Stream under Purpose::training_noise of the noise that a transform is fitted with; those of training are FlowTask's.
constexpr std::uint32_t noise_of_fit = 5;

struct Round {
  MapBatch maps;
  double step;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const double steps = static_cast<double>(maps(n, y, x)) / step;
    maps(n, y, x) = static_cast<float>(step * static_cast<double>(static_cast<std::int64_t>(steps + (steps < 0 ? -0.5 : 0.5))));
  }
};

struct AddUniform {
  MapBatch maps, out;
  View1<DrawKey> keys;
  float step;
  int width;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const double u = umbriel::uniform(keys(n), static_cast<std::uint64_t>(y) * width + x);
    out(n, y, x) = math::fma(step, static_cast<float>(u - 0.5), maps(n, y, x));
  }
};

/// v = logit(u0); the term is ln |dv / du0|.
struct Logit {
  View1<DrawKey> keys;
  MapBatch v;
  int width;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const {
    const double u = umbriel::uniform(keys(n), static_cast<std::uint64_t>(y) * width + x);
    const double below = math::log(u), above = math::log(1 - u);
    v(n, y, x) = static_cast<float>(below - above);
    return -below - above;
  }
};

KOKKOS_INLINE_FUNCTION double sigmoid(float v) { return 1 / (1 + math::exp(-static_cast<double>(v))); }

/// out = map + step (sigmoid(v) - 1/2); the term is ln |du / dv|.
struct IntoCells {
  MapBatch maps, v, out;
  float step;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const {
    const float at = v(n, y, x);
    out(n, y, x) = math::fma(step, static_cast<float>(sigmoid(at) - 0.5), maps(n, y, x));
    // u (1 - u) = e^-|v| / (1 + e^-|v|)^2, whatever the sign
    const double size = static_cast<double>(at < 0 ? -at : at);
    return -size - 2 * math::log(1 + math::exp(-size));
  }
};

struct IntoCellsBackward {
  MapBatch v, dout, dv;
  float step, dlog;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const auto u = static_cast<float>(sigmoid(v(n, y, x)));
    dv(n, y, x) = math::fma(dout(n, y, x) * step * u, 1 - u, dlog * (1 - 2 * u));
  }
};

struct LogDensity {
  View1<double> terms, log_determinants, out;
  double constant;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    out(n) += terms(n) + log_determinants(n) + constant;
  }
};

MapBatch as_maps(const Tensor& t) { return MapBatch(t.data(), t.extent(0), t.extent(1), t.extent(2)); }

}  // namespace

DequantisationSettings dequantisation_settings(const Config& config) {
  using Kind = DequantisationSettings::Kind;
  DequantisationSettings s;
  const std::string kind = config.choice("flow.dequantisation", "none", {"none", "uniform", "variational"});
  s.kind = kind == "none" ? Kind::none : kind == "uniform" ? Kind::uniform : Kind::variational;
  if (s.kind != Kind::none) {
    s.step = config.number("flow.quantisation_step", std::nullopt, 1e-12, 1e12);
  } else {
    require(!config.has("flow.quantisation_step"), ExitCode::usage, "there is a step, and maps are taken as continuous",
            config.where("flow.quantisation_step"), "remove it, or set flow.dequantisation = \"variational\"");
  }
  return s;
}

FlowSettings dequantising_flow(Padding padding) {
  FlowSettings s;
  s.glow = false;
  s.levels = 0;
  s.steps = 0;
  s.checkerboard = 2;
  s.conditioner.gated = true;
  s.conditioner.width = 16;
  s.conditioner.layers = 3;
  s.conditioner.padding = padding;
  s.conditioner.context = 1;
  return s;
}

void round_to_step(const Space& space, int n, double step, const MapBatch& maps) {
  for_each_element("umbriel::round_to_step", space, n, static_cast<int>(maps.extent(1)),
                   static_cast<int>(maps.extent(2)), Round{maps, step});
}

void dequantise_to_fit(const Space& space, std::uint64_t seed, int n, double step, const MapBatch& maps) {
  const View1<DrawKey> keys("umbriel::noise_keys", static_cast<std::size_t>(n));
  const auto host = Kokkos::create_mirror_view(HostMemory{}, keys);
  for (int i = 0; i < n; ++i)
    host(static_cast<std::size_t>(i)) = {seed, Purpose::training_noise, static_cast<std::uint32_t>(i), noise_of_fit};
  Kokkos::deep_copy(keys, host);
  round_to_step(space, n, step, maps);
  const int height = static_cast<int>(maps.extent(1)), width = static_cast<int>(maps.extent(2));
  for_each_element("umbriel::dequantise", space, n, height, width,
                   AddUniform{maps, maps, keys, static_cast<float>(step), width});
  space.fence();
}

Dequantiser::Dequantiser(double step, const Flow* flow, const FieldTransform& transform, Grid grid, int batch,
                         FlowRunner::Memory memory, const nn::Options& options)
    : step_(static_cast<float>(step)), transform_(transform), grid_(grid), batch_(batch), sums_(batch, grid.height) {
  if (flow == nullptr) return;
  runner_ = std::make_unique<FlowRunner>(*flow, grid, batch, memory, options);
  log_determinants_ = View1<double>("umbriel::log_determinants", static_cast<std::size_t>(batch));
  terms_ = View1<double>("umbriel::sigmoid_terms", static_cast<std::size_t>(batch));
}

void Dequantiser::use(const Space& space, const View1<float>& values) {
  if (runner_) runner_->use(space, values);
}

void Dequantiser::uniform(const Space& space, const MapBatch& maps, const View1<DrawKey>& keys,
                          const MapBatch& out) const {
  for_each_element("umbriel::dequantise", space, batch_, grid_.height, grid_.width,
                   AddUniform{maps, out, keys, step_, grid_.width});
}

void Dequantiser::forward(const Space& space, const MapBatch& maps, const View1<DrawKey>& keys, const MapBatch& out,
                          const View1<double>& log_density) {
  const double constant = static_cast<double>(grid_.pixels()) * std::log(static_cast<double>(step_));
  if (!runner_) {
    uniform(space, maps, keys, out);
    Kokkos::deep_copy(space, log_density, constant);
    return;
  }
  const MapBatch v = as_maps(runner_->maps());
  transform_.logarithm(space, maps, batch_, as_maps(runner_->context()));
  sum_each_map("umbriel::dequantise_logit", space, batch_, grid_.height, grid_.width, sums_, log_density,
               Logit{keys, v, grid_.width});
  runner_->forward(space, log_determinants_);
  sum_each_map("umbriel::dequantise", space, batch_, grid_.height, grid_.width, sums_, terms_,
               IntoCells{maps, v, out, step_});
  Kokkos::parallel_for("umbriel::dequantise_density", Range(space, 0, batch_),
                       LogDensity{terms_, log_determinants_, log_density, constant});
}

void Dequantiser::backward(const Space& space, const MapBatch& dout, float dlog_density,
                           const std::function<void(std::int64_t)>& ready) {
  if (!runner_) return;
  for_each_element(
      "umbriel::dequantise_backward", space, batch_, grid_.height, grid_.width,
      IntoCellsBackward{as_maps(runner_->maps()), dout, as_maps(runner_->gradients()), step_, dlog_density});
  runner_->backward(space, dlog_density, ready);
}

}  // namespace umbriel
