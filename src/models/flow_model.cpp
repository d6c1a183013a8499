#include "umbriel/models/flow_model.hpp"

#include <cmath>
#include <numbers>

#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

/// -ln p a pixel of the transformed field.
struct NegativeLogLikelihood {
  View1<double> squares, log_determinants, losses;
  double pixels;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    constexpr double log_two_pi = 1.8378770664093454836;
    losses(n) = 0.5 * log_two_pi + (0.5 * squares(n) - log_determinants(n)) / pixels;
  }
};

void copy_maps(const Space& space, const MapBatch& from, const Tensor& to, int n) {
  const Extents e{n, static_cast<int>(to.extent(1)), static_cast<int>(to.extent(2)), 1};
  copy_channels(space, ConstActivations(from.data(), e), Activations(to.data(), e));
}

class FlowGenerator final : public MapGenerator {
 public:
  FlowGenerator(const std::string& path, const GenerativeModelRecord& record, const nn::Options& options)
      : flow_(Config::parse(record.config, path)),
        transform_(record.field, record.grid, record.pixel_arcmin),
        runner_(flow_, record.grid, batch_of(record.grid), FlowRunner::Memory::inference, options),
        noise_("umbriel::latent_maps", batch(), record.grid.height, record.grid.width),
        keys_("umbriel::latent_keys", static_cast<std::size_t>(batch())) {
    nn::load_weights(path, flow_.parameters(), flow_.parameters().values());
    runner_.use(Space(), flow_.parameters().values());
  }

  int batch() const override { return runner_.batch(); }

  void draw(const Space& space, std::uint64_t seed, std::int64_t first, int n, const MapBatch& out) override {
    const auto keys = Kokkos::create_mirror_view(HostMemory{}, keys_);
    for (int i = 0; i < batch(); ++i)
      keys(static_cast<std::size_t>(i)) = {seed, Purpose::latent, static_cast<std::uint32_t>(first + i), 0};
    Kokkos::deep_copy(keys_, keys);
    fill_normals(space, noise_, keys_, batch());
    copy_maps(space, noise_, runner_.maps(), batch());
    runner_.inverse(space);
    const MapBatch maps(runner_.maps().data(), runner_.maps().extent(0), runner_.maps().extent(1),
                        runner_.maps().extent(2));
    transform_.inverse(space, maps, n, out);
  }

 private:
  static int batch_of(Grid grid) {
    int n = 1;
    while (n < 16 && 2 * n * grid.pixels() <= (runs_on_host ? 128 * 128 : 4096 * 4096)) n *= 2;
    return n;
  }

  Flow flow_;
  FieldTransform transform_;
  FlowRunner runner_;
  MapBatch noise_;
  View1<DrawKey> keys_;
};

}  // namespace

FlowTask::FlowTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options)
    : MapTask(comm, config, seed), options_(std::move(options)) {
  comm.together([&] {
    flow_ = std::make_unique<Flow>(config);
    const bool constant = config.flag("train.constant_memory", false);
    runner_ = std::make_unique<FlowRunner>(
        *flow_, grid(), part(), constant ? FlowRunner::Memory::constant : FlowRunner::Memory::stored, options_);
    config_ = config.resolved();
  });
  squares_ = View1<double>("umbriel::latent_squares", static_cast<std::size_t>(part()));
  log_determinants_ = View1<double>("umbriel::log_determinants", static_cast<std::size_t>(part()));
}

void FlowTask::step_of_part(const Space& space, const MapBatch& fields, const View1<double>&, std::int64_t, int total,
                            const View1<double>& losses, const std::function<void(std::int64_t)>& ready) {
  const auto pixels = static_cast<double>(grid().pixels());
  runner_->use(space, parameters().values());
  copy_maps(space, fields, runner_->maps(), part());
  runner_->forward(space, log_determinants_);
  square_samples(space, runner_->maps(), squares_);
  Kokkos::parallel_for("umbriel::flow_loss", Range(space, 0, part()),
                       NegativeLogLikelihood{squares_, log_determinants_, losses, pixels});
  const auto share = static_cast<float>(1 / (pixels * total));
  linear_combination(space, share, runner_->maps(), 0, runner_->maps(), runner_->gradients());
  runner_->backward(space, -share, ready);
}

std::vector<std::pair<std::string, double>> FlowTask::validate(const Space& space, const View1<float>& values) {
  FlowRunner runner(*flow_, grid(), 1, FlowRunner::Memory::inference, options_);
  runner.use(space, values);
  const View1<double> log_determinant("umbriel::log_determinant", 1), square("umbriel::latent_square", 1);
  const View1<double> before("umbriel::field_square", 1), loss("umbriel::loss", 1);
  const auto pixels = static_cast<double>(grid().pixels());
  std::vector<ExactSum> sums(2);
  for_each_validation_map(space, [&](const MapBatch& field, const View1<double>& log_jacobian, std::int64_t) {
    copy_maps(space, field, runner.maps(), 1);
    square_samples(space, runner.maps(), before);
    runner.forward(space, log_determinant);
    square_samples(space, runner.maps(), square);
    Kokkos::parallel_for("umbriel::flow_loss", Range(space, 0, 1),
                         NegativeLogLikelihood{square, log_determinant, loss, pixels});
    space.fence();
    const double nats = on_host(loss)(0) - on_host(log_jacobian)(0) / pixels;
    sums[0].add(nats);
    sums[1].add((0.5 * (on_host(before)(0) - on_host(square)(0)) + on_host(log_determinant)(0)) / pixels);
  });
  std::vector<double> totals = exact_sum_over_ranks(comm(), sums);
  if (validation_size() == 0) return {};
  for (double& total : totals) total /= static_cast<double>(validation_size());
  return {{"nats", totals[0]}, {"bits", totals[0] / std::numbers::ln2}, {"gain", totals[1]}};
}

double FlowTask::bytes() const {
  return 4.0 * static_cast<double>(parameters().values().size()) * sizeof(float) + runner_->bytes();
}

GenerativeModelRecord FlowTask::record() const { return {"flow", config_, grid(), pixel_arcmin(), field()}; }

std::unique_ptr<MapGenerator> make_flow_generator(const std::string& path, const GenerativeModelRecord& record,
                                                  const nn::Options& options) {
  return std::make_unique<FlowGenerator>(path, record, options);
}

}  // namespace umbriel
