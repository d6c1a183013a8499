#include "umbriel/models/map_task.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "umbriel/models/dequantiser.hpp"

namespace umbriel {

MapTask::MapTask(const Communicator& comm, const Config& config, std::uint64_t seed, MapTaskDefaults defaults)
    : comm_(comm),
      seed_(seed),
      maps_(comm, config, seed),
      inputs_(maps_.inputs()),
      quantisation_step_(defaults.quantisation_step) {
  comm.together([&] {
    const Grid grid = maps_.grid();
    if (defaults.conditional && config.has("data.parameters")) {
      parameters_ = ParametersOfMaps(config, maps_.files());
      conditions_ = parameters_.conditions({maps_.training_maps().begin(), maps_.training_maps().end()});
      inputs_.insert(inputs_.end(), parameters_.inputs().begin(), parameters_.inputs().end());
    }
    // All ranks fit to the same maps.
    const std::int64_t most = config.integer("field.fit_maps", 2048, 1, 1 << 20);
    const auto n = static_cast<int>(maps_.training_size() > 0 ? std::min(most, maps_.training_size()) : most);
    fit_maps_ = n;
    const MapBatch fitted("umbriel::fitted_maps", n, grid.height, grid.width);
    maps_.draw(0, n, fitted);
    if (quantisation_step_ > 0) {
      const auto values = on_host(fitted);
      const auto [low, high] = std::minmax_element(values.data(), values.data() + values.size());
      require(static_cast<double>(*high - *low) > quantisation_step_, ExitCode::usage,
              "all training maps lie within one step", config.where("flow.quantisation_step"),
              "give the step between the values that maps can have");
      dequantise_to_fit(Space(), seed, n, quantisation_step_, fitted);
    }
    field_ = fit_field_transform(config, on_host(fitted), maps_.pixel_arcmin(), defaults.field);
    transform_ = std::make_unique<FieldTransform>(field_, grid, maps_.pixel_arcmin());

    batch_ = static_cast<int>(config.integer("train.batch", defaults.batch, 1, 1 << 20));
    require(batch_ % comm.size() == 0, ExitCode::usage,
            "a batch of " + std::to_string(batch_) + " maps cannot be shared evenly by " + std::to_string(comm.size()) +
                " ranks",
            config.where("train.batch"), "choose a multiple of the number of ranks");
    if (defaults.whole) {
      part_ = batch_ / comm.size();
      return;
    }
    // Enough pixels to keep a core busy, and parts for eight ranks if there are that many examples.
    int usual = batch_;
    if (runs_on_host) {
      constexpr std::int64_t pixels = 128 * 128;
      usual = 1;
      while (2 * usual * grid.pixels() <= pixels && 16 * usual <= batch_) usual *= 2;
    }
    const auto micro = static_cast<int>(config.integer("train.micro_batch", usual, 1, 1 << 20));
    require(batch_ % micro == 0, ExitCode::usage, "it does not divide the batch of " + std::to_string(batch_),
            config.where("train.micro_batch"), "choose a divisor of train.batch");
    part_ = std::gcd(micro, batch_ / comm.size());
  });
}

MapBatch MapTask::fields_to_fit(const Space& space) {
  const Grid grid = maps_.grid();
  const MapBatch fields("umbriel::fields_to_fit", fit_maps_, grid.height, grid.width);
  const View1<double> jacobians("umbriel::jacobians", static_cast<std::size_t>(fit_maps_));
  maps_.draw(0, fit_maps_, fields, space);
  transform_->forward(space, fields, fit_maps_, fields, jacobians);
  space.fence();
  return fields;
}

std::vector<double> MapTask::gradients(const Space& space, std::int64_t step,
                                       const std::function<void(std::int64_t)>& ready) {
  const int mine = batch_ / comm_.size();
  const Grid grid = maps_.grid();
  if (examples_.extent(0) == 0) {
    sum_ = std::make_unique<nn::GradientSum>(parameters().gradients());
    examples_ = MapBatch("umbriel::examples", mine, grid.height, grid.width);
    jacobians_ = View1<double>("umbriel::example_jacobians", mine);
    losses_ = View1<double>("umbriel::losses", mine);
  }
  const std::int64_t first = step * batch_ + shard_range(batch_, comm_.rank(), comm_.size()).first;
  maps_.draw(first, mine, examples_, space);
  if (quantisation_step_ > 0) round_to_step(space, mine, quantisation_step_, examples_);
  if (takes_fields()) transform_->forward(space, examples_, mine, examples_, jacobians_);
  for (int part = 0; part < parts(); ++part) {
    const auto maps = std::make_pair(part * part_, (part + 1) * part_);
    const auto run = [&](const std::function<void(std::int64_t)>& final_from) {
      step_of_part(space, Kokkos::subview(examples_, maps, Kokkos::ALL, Kokkos::ALL), Kokkos::subview(jacobians_, maps),
                   first + part * part_, batch_, Kokkos::subview(losses_, maps), final_from);
    };
    if (part + 1 < parts()) {
      run([](std::int64_t) {});
      sum_->keep(space, part);
      continue;
    }
    auto end = static_cast<std::int64_t>(parameters().gradients().size());
    const auto complete_from = [&](std::int64_t from) {
      sum_->complete(space, part, from, end);
      end = from;
      ready(from);
    };
    run(complete_from);
    complete_from(0);
  }
  space.fence();
  const auto host = on_host(losses_);
  return {host.data(), host.data() + mine};
}

void MapTask::for_each_validation_map(
    const Space& space, const std::function<void(const MapBatch&, const View1<double>&, std::int64_t)>& f) {
  const MapBatch field("umbriel::validation_map", 1, maps_.grid().height, maps_.grid().width);
  const View1<double> jacobian("umbriel::validation_jacobian", 1);
  const ShardRange share = shard_range(maps_.validation_size(), comm_.rank(), comm_.size());
  for (std::int64_t i = share.first; i < share.first + share.count; ++i) {
    maps_.draw_validation(i, 1, field, space);
    if (quantisation_step_ > 0) round_to_step(space, 1, quantisation_step_, field);
    if (takes_fields()) transform_->forward(space, field, 1, field, jacobian);
    f(field, jacobian, i);
  }
}

void MapTask::write_conditions(std::int64_t map, float* out) const {
  for (std::size_t i = 0; i < conditions_.parameters.size(); ++i)
    out[i] = conditions_.parameters[i].standardised(parameters_.value(map, i));
}

std::string MapTask::describe() const {
  char text[160];
  if (field_.lognormal) {
    std::snprintf(text, sizeof text, "; %slearned as ln(map + %.4g)", field_.standardised ? "each standardised, " : "",
                  field_.kappa0);
  } else {
    std::snprintf(text, sizeof text, field_.standardised ? "; each standardised" : "; learned as it is");
  }
  std::string given;
  if (quantisation_step_ > 0) {
    char step[40];
    std::snprintf(step, sizeof step, "; in steps of %.6g", quantisation_step_);
    given = step;
  }
  for (const MapConditions::Parameter& p : conditions_.parameters)
    given += (&p == conditions_.parameters.data() ? "; given " : ", ") + p.name;
  return std::to_string(batch_) + " a step of " + maps_.describe() + text +
         (field_.power.size() > 1 ? ", whitened" : "") + given;
}

}  // namespace umbriel
