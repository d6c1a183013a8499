/// What training tasks of generative models of maps share: the maps, their transform to near white noise, and the parts
/// in which a step goes through a network.
///
///   data.*                    the maps: see training_maps.hpp
///   field.*                   see field_transform.hpp
///   data.parameters           what a map was made with, for models that learn p(map | parameters): see
///                             map_conditions.hpp
///   field.fit_maps = 2048     training maps, at most, that the transform is fitted to
///   train.batch = 16          examples in a step, on all ranks together
///   train.micro_batch         examples that go through the network at once: a step is the sum of such parts, the same
///                             parts on any number of ranks
#pragma once

#include <bit>
#include <memory>
#include <string>
#include <vector>

#include "umbriel/models/field_transform.hpp"
#include "umbriel/models/map_conditions.hpp"
#include "umbriel/nn/gradient_sum.hpp"
#include "umbriel/nn/trainer.hpp"
#include "umbriel/simulation/training_maps.hpp"

namespace umbriel {

/// What a model has in place of the defaults above.
struct MapTaskDefaults {
  FieldTransformDefaults field;
  int batch = 16;
  bool whole = false;  ///< a rank's examples always go through together, as batch norms want: no micro-batches
  bool conditional = false;      ///< parameters of maps are taken
  double quantisation_step = 0;  ///< maps are rounded to multiples of it; 0: not
};

class MapTask : public nn::TrainingTask {
 public:
  /// Collective. @param seed  of examples and noise
  /// @throws Error(usage) also if a batch cannot be shared evenly by the ranks
  MapTask(const Communicator& comm, const Config& config, std::uint64_t seed, MapTaskDefaults defaults = {});

  std::vector<double> gradients(const Space& space, std::int64_t step,
                                const std::function<void(std::int64_t)>& ready) override;

  const FieldTransformSettings& field() const { return field_; }
  Grid grid() const { return maps_.grid(); }
  double pixel_arcmin() const { return maps_.pixel_arcmin(); }
  const MapConditions& conditions() const { return conditions_; }
  const std::vector<InputFile>& inputs() const { return inputs_; }
  /// Lines about the data, for logs, dry runs and the training record.
  std::string describe() const;
  virtual double flops() const = 0;  ///< of one step on this rank
  virtual double bytes() const = 0;  ///< of memory that a step takes on this rank
  /// Of memory on this rank before the first step, while the model is fitted to maps.
  virtual double bytes_to_begin() const { return 3 * bytes_of_fitted(); }

 protected:
  /// Gradients of the sum of the losses of `part` examples over `total`, which the array of gradients then holds.
  /// @param fields        [part, H, W]
  /// @param log_jacobian  [part] of the transform that made them
  /// @param first         index of the first example
  /// @param losses        [part], overwritten
  virtual void step_of_part(const Space& space, const MapBatch& fields, const View1<double>& log_jacobian,
                            std::int64_t first, int total, const View1<double>& losses,
                            const std::function<void(std::int64_t)>& ready) = 0;

  /// False: `fields` of the above, and of validation, are maps as they are, for the task to transform by itself.
  virtual bool takes_fields() const { return true; }
  FieldTransform& transform() { return *transform_; }
  /// Training maps, field.fit_maps at most, transformed: [map, H, W]. The same on all ranks.
  MapBatch fields_to_fit(const Space& space);
  /// Of memory in which gradients of parts are summed.
  double bytes_of_sums() const {
    return sizeof(float) * static_cast<double>(parameters().values().size()) * std::bit_width(unsigned(parts() - 1));
  }
  double bytes_of_fitted() const { return 4.0 * fit_maps_ * static_cast<double>(grid().pixels()); }

  int part() const { return part_; }
  int parts() const { return batch_ / comm_.size() / part_; }
  std::uint64_t seed() const { return seed_; }
  const Communicator& comm() const { return comm_; }
  /// Calls f(field [1, H, W], log_jacobian [1], index) for this rank's share of the validation maps.
  void for_each_validation_map(const Space& space,
                               const std::function<void(const MapBatch&, const View1<double>&, std::int64_t)>& f);
  std::int64_t validation_size() const { return maps_.validation_size(); }
  /// @{ Parameters of an example, as networks see them. @param out  [conditions().size()]
  void conditions_of_training(std::int64_t index, float* out) { write_conditions(maps_.map_of_training(index), out); }
  void conditions_of_validation(std::int64_t index, float* out) {
    write_conditions(maps_.map_of_validation(index), out);
  }
  /// @}

 private:
  void write_conditions(std::int64_t map, float* out) const;

  Communicator comm_;
  std::uint64_t seed_;
  TrainingMaps maps_;
  std::vector<InputFile> inputs_;
  ParametersOfMaps parameters_;
  MapConditions conditions_;
  double quantisation_step_;
  FieldTransformSettings field_;
  std::unique_ptr<FieldTransform> transform_;
  int batch_ = 0, part_ = 0, fit_maps_ = 0;
  std::unique_ptr<nn::GradientSum> sum_;
  MapBatch examples_;
  View1<double> jacobians_, losses_;
};

}  // namespace umbriel
