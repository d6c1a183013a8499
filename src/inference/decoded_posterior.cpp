#include "umbriel/inference/decoded_posterior.hpp"

#include <algorithm>

#include "umbriel/inference/spectra.hpp"

namespace umbriel {
namespace {

/// to <- data - to
struct Subtract {
  MapBatch data, to;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const { to(n, y, x) = data(0, y, x) - to(n, y, x); }
};

struct Product {
  MapBatch a, b;
  KOKKOS_INLINE_FUNCTION double operator()(int n, int y, int x) const {
    return static_cast<double>(a(n, y, x)) * static_cast<double>(b(n, y, x));
  }
};

std::vector<float> first_maps(const MapBatch& maps, int n) {
  const auto host = on_host(maps);
  return {host.data(), host.data() + static_cast<std::size_t>(n) * maps.extent(1) * maps.extent(2)};
}

}  // namespace

DecodedPosterior::DecodedPosterior(MapDecoder& decoder, const LinearOperator& instrument, ResidualField& field,
                                   const std::vector<float>& data)
    : decoder_(decoder),
      instrument_(instrument),
      field_(field),
      data_("umbriel::posterior_data", 1, decoder.grid().height, decoder.grid().width),
      sums_(decoder.batch(), decoder.grid().height) {
  const Grid grid = decoder.grid();
  for (MapBatch* const buffer : {&left_, &solution_, &pulled_})
    *buffer = MapBatch("umbriel::posterior_maps", decoder.batch(), grid.height, grid.width);
  const auto host = Kokkos::create_mirror_view(HostMemory{}, data_);
  std::copy(data.begin(), data.end(), host.data());
  Kokkos::deep_copy(data_, host);
}

MapBatch DecodedPosterior::left_of_data(const Space& space, const std::vector<float>& points) {
  const Grid grid = decoder_.grid();
  instrument_.apply(space, decoder_.decode(space, points), count(points), left_);
  for_each_element("umbriel::left_of_data", space, count(points), grid.height, grid.width, Subtract{data_, left_});
  return left_;
}

std::vector<double> DecodedPosterior::evaluate(const Space& space, const std::vector<float>& points,
                                               std::vector<float>& gradient) {
  const Grid grid = decoder_.grid();
  const int n = count(points);
  const MapBatch left = left_of_data(space, points);
  field_.solve(space, n, left, solution_);
  const View1<double> forms("umbriel::quadratic_forms", static_cast<std::size_t>(n));
  sum_each_map("umbriel::quadratic_form", space, n, grid.height, grid.width, sums_, forms, Product{left, solution_});
  instrument_.transpose(space, solution_, n, pulled_);
  gradient = decoder_.pull_back(space, pulled_, n);
  space.fence();
  std::vector<double> log_density = download(forms, static_cast<std::size_t>(n));
  for (double& value : log_density) value *= -0.5;
  const auto size = static_cast<std::size_t>(decoder_.size());
  for (std::size_t i = 0; i < points.size(); ++i) {
    log_density[i / size] -= 0.5 * static_cast<double>(points[i]) * static_cast<double>(points[i]);
    gradient[i] -= points[i];
  }
  return log_density;
}

std::vector<float> DecodedPosterior::with_decoded(const Space& space, const std::vector<float>& points,
                                                  const MapBatch& r) {
  std::vector<float> maps = first_maps(r, count(points));
  const std::vector<float> g = decoded(space, points);
  for (std::size_t i = 0; i < maps.size(); ++i) maps[i] += g[i];
  return maps;
}

std::vector<float> DecodedPosterior::decoded(const Space& space, const std::vector<float>& points) {
  const MapBatch maps = decoder_.decode(space, points);
  space.fence();
  return first_maps(maps, count(points));
}

std::vector<float> DecodedPosterior::mean(const Space& space, const std::vector<float>& points) {
  const int n = count(points);
  field_.solve(space, n, left_of_data(space, points), solution_);
  field_.mean(space, n, solution_, pulled_);
  space.fence();
  return with_decoded(space, points, pulled_);
}

std::vector<float> DecodedPosterior::draw(const Space& space, const std::vector<float>& points,
                                          const std::vector<DrawKey>& keys) {
  field_.draw(space, keys, left_of_data(space, points), pulled_);
  return with_decoded(space, points, pulled_);
}

}  // namespace umbriel
