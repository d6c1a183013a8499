#include "umbriel/ops/conv2d.hpp"

#include <array>
#include <utility>

#include "umbriel/core/check.hpp"
#include "umbriel/ops/conv2d_implementation.hpp"

namespace umbriel {
namespace {

constexpr std::array<std::pair<Backend, const char*>, 4> backend_names = {{{Backend::automatic, "automatic"},
                                                                           {Backend::kokkos, "kokkos"},
                                                                           {Backend::onednn, "onednn"},
                                                                           {Backend::cudnn, "cudnn"}}};

enum class Pass { forward, data, weights };

/// The fastest backend that this build has for a pass.
///
/// On processors, from benchmarks/micro/convolution.cpp on one core with AVX-512 and a peak of 250 GFLOP/s; GFLOP/s of
/// our kernels and of oneDNN 2.6, with "in" and "out" as the pass reads and writes them:
///
///   out of 1 to 3, forward or data      5x5 64 to 1: 74, 14; 7x7 32 to 3: 103, 40              ours
///   in of 1 to 3                        7x7 3 to 32: 193, 216; 5x5 1 to 64: 78, 180            oneDNN
///   1x1                                 64 to 128: 208, 227; 128 to 64: 152, 214               oneDNN
///   out of at most 16                   3x3 16 to 16: 167, 209                                 oneDNN
///   else                                3x3 32, 64, 128: 208 to 236, 219 to 248 forward,       ours
///                                       206 to 235, 177 to 234 data
///   gradient of the weights             3x3 32, 64, 128: 199 to 224, 129 to 218                ours
///
///   inference, 3x3 and 2x2 of 16 or     3x3 32 at 360 x 360: 204, 113; 64 at 180 x 180: 275, 124; 128 at 90 x 90: 260,
///   more channels (Winograd)            125; 2x2 96 to 128 at 180 x 180: 166, 119 (busy core)   ours
///
/// Where they are equal ours is taken, for it reads slices and residuals and pads periodic maps without copies, and the
/// weights' gradient does not depend on the number of threads. 3x3 depthwise of 64
/// channels: 22, 98: oneDNN. Only oneDNN multiplies in bfloat16.
Backend preferred(Pass pass, const Conv2dGeometry& g, [[maybe_unused]] Extents output, [[maybe_unused]] bool training,
                  Precision precision) {
  if (has_backend(Backend::cudnn)) {
    const bool thin = g.groups == 1 && g.stride == 1 && g.c_out <= 3 && g.c_in >= 16 && g.kernel_y * g.kernel_x > 1;
    return pass == Pass::forward && thin ? Backend::kokkos : Backend::cudnn;
  }
  if (!has_backend(Backend::onednn)) return Backend::kokkos;
  if (precision == Precision::bfloat16) return Backend::onednn;
#ifdef UMBRIEL_CONVOLVE_ON_HOST
  if (!training && suits_winograd(g, output)) return Backend::kokkos;
  // A dense layer: ours goes through the weights once for twelve samples, oneDNN once for each.
  if (g.kernel_y == 1 && g.kernel_x == 1 && g.groups == 1 && output.h == 1 && output.w == 1) return Backend::kokkos;
#endif
  const bool depthwise = g.groups > 1 && g.groups == g.c_in && g.groups == g.c_out;
  if (depthwise) return Backend::onednn;
  if (g.groups > 1 || pass == Pass::weights) return Backend::kokkos;
  const int in = pass == Pass::forward ? g.c_in : g.c_out, out = pass == Pass::forward ? g.c_out : g.c_in;
  if (out <= 3) return Backend::kokkos;
  if (in <= 3 || out <= 16 || (g.kernel_y == 1 && g.kernel_x == 1)) return Backend::onednn;
  return Backend::kokkos;
}

std::unique_ptr<Conv2d::Implementation> make(Backend backend, const Conv2dGeometry& geometry, Extents input,
                                             const Passes& passes, [[maybe_unused]] Precision precision) {
  switch (backend) {
#ifdef UMBRIEL_WITH_ONEDNN
    case Backend::onednn:
      return make_onednn_conv2d(geometry, input, passes, precision);
#endif
#ifdef UMBRIEL_WITH_CUDNN
    case Backend::cudnn:
      return make_cudnn_conv2d(geometry, input, passes, precision);
#endif
    default:
#ifdef UMBRIEL_CONVOLVE_ON_HOST
      return make_host_conv2d(geometry, input, passes);
#else
      return make_portable_conv2d(geometry, input, passes);
#endif
  }
}

std::string described(const Conv2dGeometry& g) {
  return std::string("convolution ") + std::to_string(g.kernel_y) + "x" + std::to_string(g.kernel_x) + ", " +
         std::to_string(g.c_in) + " to " + std::to_string(g.c_out) + " channels";
}

// Messages are made only where something is wrong: calls allocate nothing.
void check_extents(Extents given, Extents planned, int samples, const char* name, const Conv2dGeometry& geometry) {
  if (given.n == samples && given.h == planned.h && given.w == planned.w && given.c == planned.c) return;
  const auto text = [](Extents e) {
    return std::string("[") + std::to_string(e.n) + ", " + std::to_string(e.h) + ", " + std::to_string(e.w) + ", " +
           std::to_string(e.c) + "]";
  };
  planned.n = samples;
  throw Error(ExitCode::usage, std::string(name) + " has extents " + text(given) + ", not " + text(planned),
              described(geometry), "plan the layer for the extents it is given");
}

}  // namespace

Backend backend_named(const std::string& name) {
  for (const auto& [backend, text] : backend_names) {
    if (name == text) return backend;
  }
  throw Error(ExitCode::usage, std::string("unknown backend \"").append(name).append("\""), "",
              "choose automatic, kokkos, onednn or cudnn");
}

const char* name_of(Backend backend) {
  for (const auto& [named, text] : backend_names) {
    if (named == backend) return text;
  }
  return "";
}

Precision precision_named(const std::string& name) {
  if (name == "float32") return Precision::float32;
  if (name == "tf32") return Precision::tf32;
  if (name == "bfloat16") return Precision::bfloat16;
  throw Error(ExitCode::usage, std::string("unknown precision \"").append(name).append("\""), "",
              "choose float32, tf32 or bfloat16");
}

bool has_backend(Backend backend) {
  switch (backend) {
    case Backend::onednn:
#ifdef UMBRIEL_WITH_ONEDNN
      return true;
#else
      return false;
#endif
    case Backend::cudnn:
#ifdef UMBRIEL_WITH_CUDNN
      return true;
#else
      return false;
#endif
    default:
      return true;
  }
}

struct Conv2d::Plan {
  Conv2dGeometry geometry;
  Extents input, output;
  bool training = false;
  std::array<Backend, 3> chosen{};  ///< by Pass
  /// By backend; null where no pass uses it.
  std::array<std::unique_ptr<Implementation>, backend_names.size()> implementations;

  Implementation& of(Pass pass) const { return *implementations[index(chosen[index(pass)])]; }

  template <class Enumeration>
  static std::size_t index(Enumeration value) {
    return static_cast<std::size_t>(value);
  }
};

Conv2d::Conv2d(const Conv2dGeometry& geometry, Extents input, bool training, Backend backend, Precision precision)
    : plan_(std::make_unique<Plan>()) {
  const auto need = [&](bool condition, const std::string& what, const std::string& remedy) {
    require(condition, ExitCode::usage, what, described(geometry), remedy);
  };
  need(geometry.c_in > 0 && geometry.c_out > 0 && geometry.kernel_y > 0 && geometry.kernel_x > 0 &&
           geometry.stride > 0 && geometry.pad_y >= 0 && geometry.pad_x >= 0 && geometry.groups > 0,
       "channels, kernel, stride and groups must be positive and the padding not negative", "correct the layer");
  need(geometry.c_in % geometry.groups == 0 && geometry.c_out % geometry.groups == 0,
       std::to_string(geometry.groups) + " groups do not divide the channels", "choose a divisor of both");
  need(input.c == geometry.c_in, "the input has " + std::to_string(input.c) + " channels",
       "plan it for an input of the layer's channels");
  need(input.n > 0 && input.h > 0 && input.w > 0 && input.h + 2 * geometry.pad_y >= geometry.kernel_y &&
           input.w + 2 * geometry.pad_x >= geometry.kernel_x,
       "the kernel is larger than the padded map", "give larger maps or more padding");
  need(geometry.padding == Padding::zeros || (geometry.pad_y <= input.h && geometry.pad_x <= input.w),
       "periodic padding is wider than the map", "pad by no more than one period");
  need(has_backend(backend), std::string("this build has no ") + name_of(backend), "choose automatic or kokkos");

  plan_->geometry = geometry;
  plan_->input = input;
  plan_->output = {input.n, geometry.output_height(input.h), geometry.output_width(input.w), geometry.c_out};
  plan_->training = training;
  std::array<Passes, backend_names.size()> passes;
  for (const Pass pass : {Pass::forward, Pass::data, Pass::weights}) {
    const Backend chosen =
        backend == Backend::automatic ? preferred(pass, geometry, plan_->output, training, precision) : backend;
    plan_->chosen[Plan::index(pass)] = chosen;
    Passes& of_backend = passes[Plan::index(chosen)];
    if (pass == Pass::forward) of_backend.forward = true;
    if (pass == Pass::data) of_backend.data = training;
    if (pass == Pass::weights) of_backend.weights = training;
  }
  for (std::size_t i = 0; i < passes.size(); ++i) {
    if (!passes[i].any()) continue;
    plan_->implementations[i] = make(static_cast<Backend>(i), geometry, input, passes[i], precision);
  }
}

Conv2d::~Conv2d() = default;
Conv2d::Conv2d(Conv2d&&) noexcept = default;
Conv2d& Conv2d::operator=(Conv2d&&) noexcept = default;

const Conv2dGeometry& Conv2d::geometry() const { return plan_->geometry; }
Extents Conv2d::input() const { return plan_->input; }
Extents Conv2d::output() const { return plan_->output; }
Backend Conv2d::forward_backend() const { return plan_->chosen[Plan::index(Pass::forward)]; }
Backend Conv2d::data_backend() const { return plan_->chosen[Plan::index(Pass::data)]; }
Backend Conv2d::weights_backend() const { return plan_->chosen[Plan::index(Pass::weights)]; }

double Conv2d::flops() const {
  return 2.0 * static_cast<double>(plan_->output.pixels()) * static_cast<double>(plan_->geometry.weights());
}

void Conv2d::set_weights(const Space& space, const float* weights) {
  for (const auto& implementation : plan_->implementations) {
    if (implementation) implementation->set_weights(space, weights);
  }
}

void Conv2d::forward(const Space& space, ConstActivations x, const float* bias, ConstActivations residual,
                     Activation activation, Activations y) const {
  check_extents(x.extents, plan_->input, x.extents.n, "the input", plan_->geometry);
  check_extents(y.extents, plan_->output, x.extents.n, "the output", plan_->geometry);
  if (residual) check_extents(residual.extents, plan_->output, x.extents.n, "the residual", plan_->geometry);
  if (x.extents.n > 0) plan_->of(Pass::forward).forward(space, x, bias, residual, activation, y);
}

void Conv2d::backward_data(const Space& space, ConstActivations dy, Activations dx, bool accumulate) const {
  if (!plan_->training) throw Error(ExitCode::usage, "gradients were not planned", described(plan_->geometry), "");
  check_extents(dy.extents, plan_->output, dy.extents.n, "the output's gradient", plan_->geometry);
  check_extents(dx.extents, plan_->input, dy.extents.n, "the input's gradient", plan_->geometry);
  if (dy.extents.n > 0) plan_->of(Pass::data).backward_data(space, dy, dx, accumulate);
}

void Conv2d::backward_weights(const Space& space, ConstActivations x, ConstActivations dy, float* dweights,
                              float* dbias, bool accumulate) const {
  if (!plan_->training) throw Error(ExitCode::usage, "gradients were not planned", described(plan_->geometry), "");
  check_extents(x.extents, plan_->input, x.extents.n, "the input", plan_->geometry);
  check_extents(dy.extents, plan_->output, x.extents.n, "the output's gradient", plan_->geometry);
  plan_->of(Pass::weights).backward_weights(space, x, dy, dweights, dbias, accumulate);
}

}  // namespace umbriel
