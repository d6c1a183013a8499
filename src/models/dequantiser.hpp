/// Flows of maps whose values are multiples of a step, as those kept in 8 bits: the density of a continuous model has
/// no bound there, and what has to be learned is the probability P of a map k of whole numbers. With noise u in (0, 1)
/// of density q(u | k), and kappa = step (k + u - 1/2) in the cell of k,
///
///   ln P(k) >= E_q[ln p(kappa) + pixels ln(step) - ln q(u | k)]
///
/// where equality holds if q is the model's own density within the cell.
///
///   uniform       q = 1 (Theis, van den Oord & Bethge 2016, arXiv 1511.01844)
///   variational   u = sigmoid(v), v = couplings of logit(u0) that see the map, u0 uniform (Ho et al. 2019, arXiv
///                 1902.00275): two on a checkerboard, gated convolutions of width 16, as published. Untrained they are
///                 the identity, and so q = 1
#pragma once

#include <memory>

#include "umbriel/models/field_transform.hpp"
#include "umbriel/models/flow.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {

struct DequantisationSettings {
  enum class Kind { none, uniform, variational } kind = Kind::none;
  double step = 0;
};

/// Keys:
///   flow.dequantisation = "none"    or "uniform", "variational"
///   flow.quantisation_step          of the maps' values; maps that are no multiples of it are rounded
/// @throws Error(usage)
DequantisationSettings dequantisation_settings(const Config& config);

/// The couplings of variational dequantisation. @param padding  of their convolutions
FlowSettings dequantising_flow(Padding padding);

/// maps[i] <- the nearest multiples of `step`, i < n.
void round_to_step(const Space& space, int n, double step, const MapBatch& maps);
/// The same and uniform noise, for what is to be fitted to continuous maps.
void dequantise_to_fit(const Space& space, std::uint64_t seed, int n, double step, const MapBatch& maps);

/// Runs dequantisation on batches of one size.
class Dequantiser {
 public:
  /// @param flow       made of dequantising_flow; null: uniform
  /// @param transform  of the maps, whose logarithm the couplings see; kept by reference
  Dequantiser(double step, const Flow* flow, const FieldTransform& transform, Grid grid, int batch,
              FlowRunner::Memory memory, const nn::Options& options);

  /// As FlowRunner's.
  void use(const Space& space, const View1<float>& values);

  /// out <- maps in their cells, with noise of the streams `keys`.
  /// @param maps         [batch, H, W], multiples of the step
  /// @param keys         [>= batch]
  /// @param log_density  [>= batch] float64, overwritten: pixels ln(step) - ln q, to be added to ln p(out)
  void forward(const Space& space, const MapBatch& maps, const View1<DrawKey>& keys, const MapBatch& out,
               const View1<double>& log_density);
  /// The same with uniform noise.
  void uniform(const Space& space, const MapBatch& maps, const View1<DrawKey>& keys, const MapBatch& out) const;

  /// After `forward`: gradients of the couplings' parameters of a loss, given that of `out` and, the same for all maps,
  /// of log_density. @param ready  as FlowRunner's
  void backward(const Space& space, const MapBatch& dout, float dlog_density,
                const std::function<void(std::int64_t)>& ready);

  bool variational() const { return runner_ != nullptr; }
  double flops() const { return runner_ ? runner_->flops() : 0; }
  double bytes() const { return runner_ ? runner_->bytes() : 0; }

 private:
  float step_;
  const FieldTransform& transform_;
  Grid grid_;
  int batch_;
  std::unique_ptr<FlowRunner> runner_;
  View1<double> log_determinants_, terms_;
  SumWorkspace sums_;
};

}  // namespace umbriel
