#include "umbriel/models/latent_flow.hpp"

#include <algorithm>
#include <numeric>

#include "umbriel/ops/coupling.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

struct Gather {
  ConstActivations x;
  View1<int> order;
  Activations y;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    for (int c = 0; c < y.extents.c; ++c) y.pixel(n)[c] = x.pixel(n)[order(c)];
  }
};

struct Scatter {
  ConstActivations dy;
  View1<int> order;
  Activations dx;
  bool accumulate;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    if (!accumulate) {
      for (int c = 0; c < dx.extents.c; ++c) dx.pixel(n)[c] = 0;
    }
    for (int c = 0; c < dy.extents.c; ++c) dx.pixel(n)[order(c)] += dy.pixel(n)[c];
  }
};

/// Numbers of channels, for kernels.
View1<int> channels_on_device(const std::vector<int>& channels) {
  const View1<int> device("umbriel::latent_channels", channels.size());
  const auto host = Kokkos::create_mirror_view(HostMemory{}, device);
  std::copy(channels.begin(), channels.end(), host.data());
  Kokkos::deep_copy(device, host);
  return device;
}

/// y[c] = x[order[c]], of some or all channels.
class GatherOperation final : public nn::Operation {
 public:
  GatherOperation(nn::Value x, const std::vector<int>& order) : order_(channels_on_device(order)) { inputs = {x}; }
  std::string_view name() const override { return "choice of channels"; }
  void forward(const Space& space, const nn::Tape& tape) override {
    const Activations x = tape.value(inputs[0]);
    Kokkos::parallel_for("umbriel::gather_channels", Range(space, 0, x.extents.pixels()),
                         Gather{x, order_, tape.value(output)});
  }
  void backward(const Space& space, const nn::Tape& tape) override {
    const Activations dx = tape.gradient(inputs[0]);
    Kokkos::parallel_for("umbriel::scatter_channels", Range(space, 0, dx.extents.pixels()),
                         Scatter{tape.gradient(output), order_, dx, tape.accumulates(*this, 0)});
  }

 private:
  View1<int> order_;
};

/// y = x e^s + t with (raw s, t) side by side in `pair`, or the inverse.
class CouplingOperation final : public nn::Operation {
 public:
  /// @param log_determinant  null: the inverse
  CouplingOperation(nn::Value x, nn::Value pair, float limit,
                    std::shared_ptr<LatentFlow::LogDeterminant> log_determinant)
      : limit_(limit), log_determinant_(std::move(log_determinant)) {
    inputs = {x, pair};
  }
  std::string_view name() const override { return "affine coupling"; }
  void forward(const Space& space, const nn::Tape& tape) override {
    const Activations y = tape.value(output), pair = tape.value(inputs[1]);
    const int c = y.extents.c;
    copy_channels(space, tape.value(inputs[0]), y);
    if (log_determinant_) {
      couple(space, limit_, pair.channels(0, c), pair.channels(c, c), y, log_determinant_->sum);
    } else {
      uncouple(space, limit_, pair.channels(0, c), pair.channels(c, c), y);
    }
  }
  /// Nobody reads the output any more, nor its gradient: they are taken back to the input's in place.
  void backward(const Space& space, const nn::Tape& tape) override {
    const Activations y = tape.value(output), dy = tape.gradient(output), pair = tape.value(inputs[1]);
    const Activations dpair = tape.gradient(inputs[1]);
    const int c = y.extents.c;
    if (log_determinant_) {
      couple_backward(space, limit_, pair.channels(0, c), pair.channels(c, c), log_determinant_->gradient, y, dy,
                      dpair.channels(0, c), dpair.channels(c, c));
    } else {
      uncouple_backward(space, limit_, pair.channels(0, c), y, dy, dpair.channels(0, c), dpair.channels(c, c));
    }
    if (tape.wants_gradient(inputs[0])) {
      copy_channels(space, dy, tape.gradient(inputs[0]), tape.accumulates(*this, 0));
    }
  }

 private:
  float limit_;
  std::shared_ptr<LatentFlow::LogDeterminant> log_determinant_;
};

constexpr float least_square = 1e-6f;  // of octaves, whose logarithm is taken

/// Mean square of channels [begin, end) of sample n.
KOKKOS_INLINE_FUNCTION float mean_square(const ConstActivations& x, std::int64_t n, int begin, int end) {
  float sum = 0;
  for (int c = begin; c < end; ++c) sum += x.pixel(n)[c] * x.pixel(n)[c];
  return sum / static_cast<float>(end - begin) + least_square;
}

struct OctaveLogarithms {
  ConstActivations x;
  View1<int> octaves;
  Activations y;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    for (int k = 0; k < y.extents.c; ++k)
      y.pixel(n)[k] = 0.5f * math::log(mean_square(x, n, octaves(k), octaves(k + 1)));
  }
};

struct OctaveLogarithmsBackward {
  ConstActivations x, dy;
  View1<int> octaves;
  Activations dx;
  bool accumulate;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    for (int k = 0; k < dy.extents.c; ++k) {
      const int begin = octaves(k), end = octaves(k + 1);
      const float factor = dy.pixel(n)[k] / (mean_square(x, n, begin, end) * static_cast<float>(end - begin));
      for (int c = begin; c < end; ++c) dx.pixel(n)[c] = factor * x.pixel(n)[c] + (accumulate ? dx.pixel(n)[c] : 0.0f);
    }
  }
};

/// y[k] = ln rms of octave k of x.
class OctaveOperation final : public nn::Operation {
 public:
  OctaveOperation(nn::Value x, const std::vector<int>& octaves) : octaves_(channels_on_device(octaves)) {
    inputs = {x};
  }
  std::string_view name() const override { return "octaves"; }
  void forward(const Space& space, const nn::Tape& tape) override {
    const Activations x = tape.value(inputs[0]);
    Kokkos::parallel_for("umbriel::octave_logarithms", Range(space, 0, x.extents.pixels()),
                         OctaveLogarithms{x, octaves_, tape.value(output)});
  }
  void backward(const Space& space, const nn::Tape& tape) override {
    const Activations x = tape.value(inputs[0]);
    Kokkos::parallel_for("umbriel::octave_logarithms_backward", Range(space, 0, x.extents.pixels()),
                         OctaveLogarithmsBackward{x, tape.gradient(output), octaves_, tape.gradient(inputs[0]),
                                                  tape.accumulates(*this, 0)});
  }

 private:
  View1<int> octaves_;
};

constexpr float pace = 8;  // of the parameters of s

struct Broadcast {
  ConstActivations x;
  Activations y;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    for (int c = 0; c < y.extents.c; ++c) y.pixel(n)[c] = 2 * c < y.extents.c ? pace * x.pixel(n)[0] : 0.0f;
  }
};

struct BroadcastBackward {
  ConstActivations dy;
  Activations dx;
  bool accumulate;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    float sum = 0;
    for (int c = 0; 2 * c < dy.extents.c; ++c) sum += dy.pixel(n)[c];
    dx.pixel(n)[0] = pace * sum + (accumulate ? dx.pixel(n)[0] : 0.0f);
  }
};

/// One s, times `pace`, for all channels of a coupling, and no shift.
class BroadcastOperation final : public nn::Operation {
 public:
  explicit BroadcastOperation(nn::Value x) { inputs = {x}; }
  std::string_view name() const override { return "one scale for all"; }
  void forward(const Space& space, const nn::Tape& tape) override {
    const Activations x = tape.value(inputs[0]);
    Kokkos::parallel_for("umbriel::broadcast_scale", Range(space, 0, x.extents.pixels()),
                         Broadcast{x, tape.value(output)});
  }
  void backward(const Space& space, const nn::Tape& tape) override {
    const Activations dx = tape.gradient(inputs[0]);
    Kokkos::parallel_for("umbriel::broadcast_scale_backward", Range(space, 0, dx.extents.pixels()),
                         BroadcastBackward{tape.gradient(output), dx, tape.accumulates(*this, 0)});
  }
};

std::vector<int> places(int begin, int end) {
  std::vector<int> out(static_cast<std::size_t>(end - begin));
  std::iota(out.begin(), out.end(), begin);
  return out;
}

nn::Value gather(nn::Tape& tape, nn::Value x, const std::vector<int>& order) {
  return tape.record(std::make_unique<GatherOperation>(x, order),
                     {tape.extents(x).n, 1, 1, static_cast<int>(order.size())});
}

/// Places 0 ... size - 1 in an order that belongs to a step: part of what the model is, not of a run.
std::vector<int> order_of(int size, std::uint32_t step) {
  std::vector<int> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> keys(order.size());
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = uniform({0, Purpose::weights, step, 0}, i);
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    return std::pair(keys[static_cast<std::size_t>(a)], a) < std::pair(keys[static_cast<std::size_t>(b)], b);
  });
  return order;
}

}  // namespace

std::vector<int> latent_octaves(int size) {
  std::vector<int> octaves = {0};
  for (int begin = 4; begin < size; begin *= 2) octaves.push_back(begin);
  octaves.push_back(size);
  return octaves;
}

LatentFlow::LatentFlow(nn::ParameterSet& set, const std::string& name, int size, const Config& config)
    : size_(size), stays_(size / 2), octaves_(latent_octaves(size)) {
  const int layers = static_cast<int>(config.integer("latent.layers", 8, 0, 256));
  const int width = static_cast<int>(config.integer("latent.width", 256, 1, 1 << 16));
  limit_ = static_cast<float>(config.number("latent.limit", 2, 0.01, 20));
  require(size >= 2, ExitCode::usage, "a flow needs two latent variables or more", config.where("network.latent"),
          "raise it, or set latent.flow = false");
  for (int i = 0; i < layers; ++i) {
    const std::string step = name + ".steps." + std::to_string(i);
    steps_.push_back({order_of(size, static_cast<std::uint32_t>(i)), nn::Dense(set, step + ".first", stays_, width),
                      nn::Dense(set, step + ".second", width, width),
                      nn::Dense(set, step + ".last", width, 2 * (size - stays_), true)});
  }
  for (std::size_t k = 1; k + 1 < octaves_.size(); ++k)
    spreads_.emplace_back(set, name + ".octaves." + std::to_string(k), static_cast<int>(k), 1, true);
}

nn::Value LatentFlow::network(nn::Tape& tape, const Step& step, nn::Value stays) const {
  const nn::Value hidden = step.first(tape, stays, Activation::silu);
  return step.last(tape, step.second(tape, hidden, Activation::silu));
}

LatentFlow::Split LatentFlow::split(std::size_t k) const {
  return {places(0, octaves_[k]), places(octaves_[k], octaves_[k + 1]), places(octaves_[k + 1], size_)};
}

nn::Value LatentFlow::spread(nn::Tape& tape, nn::Value before, std::size_t k) const {
  const int n = tape.extents(before).n;
  const std::vector<int> edges(octaves_.begin(), octaves_.begin() + static_cast<long>(k) + 1);
  const nn::Value logarithms =
      tape.record(std::make_unique<OctaveOperation>(before, edges), {n, 1, 1, static_cast<int>(k)});
  return tape.record(std::make_unique<BroadcastOperation>(spreads_[k - 1](tape, logarithms)),
                     {n, 1, 1, 2 * (octaves_[k + 1] - octaves_[k])});
}

nn::Value LatentFlow::to_base(nn::Tape& tape, nn::Value z,
                              const std::shared_ptr<LogDeterminant>& log_determinant) const {
  const int n = tape.extents(z).n;
  log_determinant->sum = View1<double>("umbriel::latent_log_determinant", static_cast<std::size_t>(n));
  const auto couple = [&](nn::Value x, nn::Value pair) {
    return tape.record(std::make_unique<CouplingOperation>(x, pair, limit_, log_determinant), tape.extents(x));
  };
  for (std::size_t k = spreads_.size(); k > 0; --k) {  // backwards: those before it are still as they were
    const Split at = split(k);
    const nn::Value before = gather(tape, z, at.before), here = gather(tape, z, at.here);
    std::vector<nn::Value> parts = {before, couple(here, spread(tape, before, k))};
    if (!at.after.empty()) parts.push_back(gather(tape, z, at.after));
    z = tape.concatenate(parts);
  }
  for (const Step& step : steps_) {
    const auto middle = step.order.begin() + stays_;
    const nn::Value stays = gather(tape, z, {step.order.begin(), middle});
    const nn::Value changes = gather(tape, z, {middle, step.order.end()});
    const nn::Value pair = network(tape, step, stays);
    z = tape.concatenate({stays, couple(changes, pair)});
  }
  return z;
}

nn::Value LatentFlow::from_base(nn::Tape& tape, nn::Value u) const {
  const auto uncouple = [&](nn::Value x, nn::Value pair) {
    return tape.record(std::make_unique<CouplingOperation>(x, pair, limit_, nullptr), tape.extents(x));
  };
  std::vector<int> at(static_cast<std::size_t>(size_));
  for (std::size_t i = steps_.size(); i-- > 0;) {
    const Step& step = steps_[i];
    std::iota(at.begin(), at.end(), 0);
    const nn::Value stays = gather(tape, u, {at.begin(), at.begin() + stays_});
    const nn::Value changed = gather(tape, u, {at.begin() + stays_, at.end()});
    const nn::Value changes = uncouple(changed, network(tape, step, stays));
    for (int c = 0; c < size_; ++c) at[static_cast<std::size_t>(step.order[static_cast<std::size_t>(c)])] = c;
    u = gather(tape, tape.concatenate({stays, changes}), at);
  }
  for (std::size_t k = 1; k <= spreads_.size(); ++k) {
    const Split parts_of = split(k);
    const nn::Value before = gather(tape, u, parts_of.before), here = gather(tape, u, parts_of.here);
    std::vector<nn::Value> parts = {before, uncouple(here, spread(tape, before, k))};
    if (!parts_of.after.empty()) parts.push_back(gather(tape, u, parts_of.after));
    u = tape.concatenate(parts);
  }
  return u;
}

}  // namespace umbriel
