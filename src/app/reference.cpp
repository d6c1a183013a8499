#include "umbriel/app/reference.hpp"

#include <algorithm>

#include "umbriel/inference/spectra.hpp"

namespace umbriel {

std::vector<HostMap> maps_of(const Space& space, const RealFft& fft, const SpectrumBatch& state, int n) {
  const Grid grid = fft.grid();
  const SpectrumBatch scratch("umbriel::maps_scratch", n, grid.height, grid.half_width());
  const MapBatch maps("umbriel::maps", n, grid.height, grid.width);
  to_maps(space, fft, n, state, scratch, maps);
  space.fence();
  const auto host = on_host(maps);
  std::vector<HostMap> out;
  for (int i = 0; i < n; ++i) out.emplace_back(host.data() + i * grid.pixels(), host.data() + (i + 1) * grid.pixels());
  return out;
}

std::vector<HostMap> kaiser_squires_maps(const Space& space, const Problem& problem, const RealFft& fft) {
  const auto maps = on_host(kaiser_squires(space, problem.survey, fft, 0));
  const long pixels = fft.grid().pixels();
  return {HostMap(maps.data(), maps.data() + pixels), HostMap(maps.data() + pixels, maps.data() + 2 * pixels)};
}

std::vector<float> exact_draws(const Communicator& comm, const Space& space, const ConvergencePosterior& posterior,
                               std::uint64_t seed, std::int64_t n, int batch) {
  const Grid grid = posterior.grid();
  const int fields = posterior.fields();
  const ShardRange shard = shard_range(n, comm.rank(), comm.size());
  GaussianPosterior exact(posterior, batch);
  const MapBatch maps("umbriel::exact_draws", batch * fields, grid.height, grid.width);
  std::vector<float> local;
  local.reserve(static_cast<std::size_t>(shard.count * fields * grid.pixels()));
  for (std::int64_t done = 0; done < shard.count; done += batch) {
    const int count = static_cast<int>(std::min<std::int64_t>(batch, shard.count - done));
    exact.draw(space, seed, static_cast<std::uint32_t>(shard.first + done), count, maps);
    space.fence();
    const auto host = on_host(maps);
    local.insert(local.end(), host.data(), host.data() + static_cast<long>(count) * fields * grid.pixels());
  }
  return local;
}

ConvergencePosterior linear_posterior(const Problem& problem, int max_chains) {
  ForwardModel model = problem.model;
  model.reduced_shear = false;
  return {problem.survey, problem.power, model, max_chains};
}

}  // namespace umbriel
