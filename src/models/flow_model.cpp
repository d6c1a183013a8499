#include "umbriel/models/flow_model.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

/// Steps of the streams under Purpose::training_noise; dequantiser.cpp has another.
enum NoiseStream : std::uint32_t { noise_of_example = 3, noise_of_validation = 4 };

/// -ln p a pixel of the transformed field.
struct NegativeLogLikelihood {
  View1<double> squares, log_determinants, losses;
  double pixels;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    constexpr double log_two_pi = 1.8378770664093454836;
    losses(n) = 0.5 * log_two_pi + (0.5 * squares(n) - log_determinants(n)) / pixels;
  }
};

/// And of the maps that it was made from.
struct SubtractLogDensities {
  View1<double> jacobians, log_densities, losses;
  double pixels;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    losses(n) -= (jacobians(n) + log_densities(n)) / pixels;
  }
};

/// Sets the conditions of a runner's maps, write(i, out) giving those of map i.
template <class Write>
void upload_conditions(const Tensor& conditions, const Write& write) {
  if (conditions.size() == 0) return;
  const auto host = Kokkos::create_mirror_view(HostMemory{}, conditions);
  for (std::size_t i = 0; i < host.extent(0); ++i) write(static_cast<int>(i), host.data() + i * host.extent(3));
  Kokkos::deep_copy(conditions, host);
}

void copy_maps(const Space& space, const MapBatch& from, const Tensor& to, int n) {
  const Extents e{n, static_cast<int>(to.extent(1)), static_cast<int>(to.extent(2)), 1};
  copy_channels(space, ConstActivations(from.data(), e), Activations(to.data(), e));
}

class FlowGenerator final : public MapGenerator {
 public:
  FlowGenerator(const std::string& path, const GenerativeModelRecord& record, const nn::Options& options)
      : networks_(Config::parse(record.config, path), record.conditions.size()),
        step_(record.quantisation_step),
        transform_(record.field, record.grid, record.pixel_arcmin),
        runner_(*networks_.flow, record.grid, maps_at_once(record.grid, 128 * 128), FlowRunner::Memory::inference,
                options),
        noise_("umbriel::latent_maps", batch(), record.grid.height, record.grid.width),
        keys_("umbriel::latent_keys", static_cast<std::size_t>(batch())) {
    nn::load_weights(path, networks_.parameters, networks_.parameters.values());
    runner_.use(Space(), networks_.parameters.values());
  }

  int batch() const override { return runner_.batch(); }

  void draw(const Space& space, std::uint64_t seed, std::int64_t first, int n, const MapBatch& out) override {
    const auto keys = Kokkos::create_mirror_view(HostMemory{}, keys_);
    for (int i = 0; i < batch(); ++i)
      keys(static_cast<std::size_t>(i)) = {seed, Purpose::latent, static_cast<std::uint32_t>(first + i), 0};
    Kokkos::deep_copy(keys_, keys);
    fill_normals(space, noise_, keys_, batch());
    copy_maps(space, noise_, runner_.maps(), batch());
    upload_conditions(runner_.conditions(), [&](int i, float* to) { conditions_of_(first + std::min(i, n - 1), to); });
    runner_.inverse(space);
    const MapBatch maps(runner_.maps().data(), runner_.maps().extent(0), runner_.maps().extent(1),
                        runner_.maps().extent(2));
    transform_.inverse(space, maps, n, out);
    if (step_ > 0) round_to_step(space, n, step_, out);
  }

 private:
  FlowNetworks networks_;
  double step_;
  FieldTransform transform_;
  FlowRunner runner_;
  MapBatch noise_;
  View1<DrawKey> keys_;
};

}  // namespace

FlowNetworks::FlowNetworks(const Config& config, int conditions) : dequantisation(dequantisation_settings(config)) {
  FlowSettings settings = flow_settings(config);
  settings.conditioner.conditions = conditions;
  // Declared first, for its gradients come last.
  if (dequantisation.kind == DequantisationSettings::Kind::variational) {
    couplings_in_cells =
        std::make_unique<Flow>(dequantising_flow(settings.conditioner.padding), parameters, "dequantisation");
  }
  flow = std::make_unique<Flow>(settings, parameters, "");
  parameters.allocate();
}

namespace {

MapTaskDefaults defaults_of(const Communicator& comm, const Config& config) {
  MapTaskDefaults defaults;
  defaults.conditional = true;
  comm.together([&] { defaults.quantisation_step = dequantisation_settings(config).step; });
  return defaults;
}

}  // namespace

FlowTask::FlowTask(const Communicator& comm, const Config& config, std::uint64_t seed, nn::Options options)
    : MapTask(comm, config, seed, defaults_of(comm, config)), options_(std::move(options)) {
  const auto n = static_cast<std::size_t>(part());
  comm.together([&] {
    networks_ = std::make_unique<FlowNetworks>(config, conditions().size());
    const auto memory =
        config.flag("train.constant_memory", false) ? FlowRunner::Memory::constant : FlowRunner::Memory::stored;
    runner_ = std::make_unique<FlowRunner>(flow(), grid(), part(), memory, options_);
    if (!takes_fields()) {
      require(!field().standardised, ExitCode::usage, "standardised maps have no steps",
              config.where("field.transform"), "choose another transform, or flow.dequantisation = \"none\"");
      dequantiser_ = std::make_unique<Dequantiser>(networks_->dequantisation.step, networks_->couplings_in_cells.get(),
                                                   transform(), grid(), part(), memory, options_);
      in_cells_ = MapBatch("umbriel::dequantised_maps", n, grid().height, grid().width);
      fields_ = MapBatch("umbriel::dequantised_fields", n, grid().height, grid().width);
      keys_ = View1<DrawKey>("umbriel::dequantisation_keys", n);
      jacobians_ = View1<double>("umbriel::dequantised_jacobians", n);
      log_densities_ = View1<double>("umbriel::log_densities", n);
    }
    config_ = config.resolved();
  });
  squares_ = View1<double>("umbriel::latent_squares", n);
  log_determinants_ = View1<double>("umbriel::log_determinants", n);
}

void FlowTask::set_noise_keys(std::uint32_t stream, std::int64_t first, int n) {
  const auto keys = Kokkos::create_mirror_view(HostMemory{}, keys_);
  for (int i = 0; i < n; ++i)
    keys(static_cast<std::size_t>(i)) = {seed(), Purpose::training_noise, static_cast<std::uint32_t>(first + i),
                                         stream};
  Kokkos::deep_copy(keys_, keys);
}

void FlowTask::step_of_part(const Space& space, const MapBatch& given, const View1<double>&, std::int64_t first,
                            int total, const View1<double>& losses, const std::function<void(std::int64_t)>& ready) {
  const auto pixels = static_cast<double>(grid().pixels());
  runner_->use(space, parameters().values());
  upload_conditions(runner_->conditions(), [&](int i, float* to) { conditions_of_training(first + i, to); });
  MapBatch fields = given;
  if (dequantiser_) {
    set_noise_keys(noise_of_example, first, part());
    dequantiser_->use(space, parameters().values());
    dequantiser_->forward(space, given, keys_, in_cells_, log_densities_);
    transform().forward(space, in_cells_, part(), fields_, jacobians_);
    fields = fields_;
  }
  copy_maps(space, fields, runner_->maps(), part());
  runner_->forward(space, log_determinants_);
  square_samples(space, runner_->maps(), squares_);
  Kokkos::parallel_for("umbriel::flow_loss", Range(space, 0, part()),
                       NegativeLogLikelihood{squares_, log_determinants_, losses, pixels});
  if (dequantiser_)
    Kokkos::parallel_for("umbriel::flow_bound", Range(space, 0, part()),
                         SubtractLogDensities{jacobians_, log_densities_, losses, pixels});
  const auto share = static_cast<float>(1 / (pixels * total));
  linear_combination(space, share, runner_->maps(), 0, runner_->maps(), runner_->gradients());
  runner_->backward(space, -share, ready);
  if (dequantiser_ && dequantiser_->variational()) {
    const Tensor& g = runner_->gradients();
    transform().backward(space, in_cells_, part(), MapBatch(g.data(), g.extent(0), g.extent(1), g.extent(2)), -share,
                         fields_);
    dequantiser_->backward(space, fields_, -share, ready);
  }
}

std::vector<std::pair<std::string, double>> FlowTask::validate(const Space& space, const View1<float>& values) {
  FlowRunner runner(flow(), grid(), 1, FlowRunner::Memory::inference, options_);
  runner.use(space, values);
  const auto number = [](const std::string& label) { return View1<double>(label, 1); };
  const View1<double> log_determinant = number("umbriel::log_determinant"), square = number("umbriel::latent_square");
  const View1<double> loss = number("umbriel::loss"), log_density = number("umbriel::log_density");
  const View1<double> jacobian = number("umbriel::dequantised_jacobian");
  std::unique_ptr<Dequantiser> dequantiser;
  const MapBatch in_cells("umbriel::dequantised_map", 1, grid().height, grid().width);
  const MapBatch field("umbriel::dequantised_field", 1, grid().height, grid().width);
  if (dequantiser_) {
    dequantiser = std::make_unique<Dequantiser>(networks_->dequantisation.step, networks_->couplings_in_cells.get(),
                                                transform(), grid(), 1, FlowRunner::Memory::inference, options_);
    dequantiser->use(space, values);
  }
  const auto pixels = static_cast<double>(grid().pixels());
  std::vector<ExactSum> sums(2);
  for_each_validation_map(space, [&](const MapBatch& given, const View1<double>& of_given, std::int64_t index) {
    upload_conditions(runner.conditions(), [&](int, float* to) { conditions_of_validation(index, to); });
    // -ln p a pixel of what the runner's maps are or, with the flow, become.
    const auto nats = [&](bool with_flow, double jacobian_and_noise) {
      if (with_flow) {
        runner.forward(space, log_determinant);
      } else {
        Kokkos::deep_copy(space, log_determinant, 0.0);
      }
      square_samples(space, runner.maps(), square);
      Kokkos::parallel_for("umbriel::flow_loss", Range(space, 0, 1),
                           NegativeLogLikelihood{square, log_determinant, loss, pixels});
      space.fence();
      return on_host(loss)(0) - jacobian_and_noise / pixels;
    };
    double alone = 0, whole = 0;
    if (!dequantiser) {
      space.fence();
      const double of_transform = on_host(of_given)(0);
      copy_maps(space, given, runner.maps(), 1);
      alone = nats(false, of_transform);
      whole = nats(true, of_transform);
    } else {
      set_noise_keys(noise_of_validation, index, 1);
      const auto load = [&] {
        transform().forward(space, in_cells, 1, field, jacobian);
        copy_maps(space, field, runner.maps(), 1);
        space.fence();
        return on_host(jacobian)(0);
      };
      dequantiser->uniform(space, given, keys_, in_cells);
      double of_transform = load();
      alone = nats(false, of_transform + pixels * std::log(networks_->dequantisation.step));
      dequantiser->forward(space, given, keys_, in_cells, log_density);
      of_transform = load();
      whole = nats(true, of_transform + on_host(log_density)(0));
    }
    sums[0].add(whole);
    sums[1].add(alone - whole);
  });
  std::vector<double> totals = exact_sum_over_ranks(comm(), sums);
  if (validation_size() == 0) return {};
  for (double& total : totals) total /= static_cast<double>(validation_size());
  return {{"nats", totals[0]}, {"bits", totals[0] / std::numbers::ln2}, {"gain", totals[1]}};
}

double FlowTask::flops() const { return parts() * (runner_->flops() + (dequantiser_ ? dequantiser_->flops() : 0)); }

double FlowTask::bytes() const {
  return parameters().bytes() + bytes_of_sums() + runner_->bytes() + (dequantiser_ ? dequantiser_->bytes() : 0);
}

GenerativeModelRecord FlowTask::record() const {
  return {"flow", config_, grid(), pixel_arcmin(), field(), conditions(), networks_->dequantisation.step};
}

std::unique_ptr<MapGenerator> make_flow_generator(const std::string& path, const GenerativeModelRecord& record,
                                                  const nn::Options& options) {
  return std::make_unique<FlowGenerator>(path, record, options);
}

}  // namespace umbriel
