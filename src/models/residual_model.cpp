#include "umbriel/models/residual_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numbers>
#include <sstream>

#include "umbriel/base/linear_table.hpp"
#include "umbriel/maps/radial_bins.hpp"
#include "umbriel/models/latent_flow.hpp"
#include "umbriel/models/metadata_table.hpp"
#include "umbriel/models/vae.hpp"
#include "umbriel/mpi/exact_sum.hpp"
#include "umbriel/ops/elementwise.hpp"
#include "umbriel/rng/normal.hpp"

namespace umbriel {
namespace {

constexpr const char* deviation_key = "umbriel.residual.deviation";
constexpr const char* power_key = "umbriel.residual.power";
constexpr const char* amplitude_key = "umbriel.residual.amplitude";

/// The stream of normals for the encoder, under Purpose::training_noise; vae.cpp has 0 and 1.
constexpr std::uint32_t draw_of_residual = 2;

std::vector<double> values_of(const MapBatch& map) {
  const auto host = on_host(map);
  return {host.data(), host.data() + host.size()};
}

ExactSum number_of(std::size_t n) {
  ExactSum sum;
  sum.add(static_cast<double>(n));
  return sum;
}

/// Bins of decoded values, in units of a map's deviation, for a first look; those with few pixels are joined.
constexpr double lowest_value = -6, bin_width = 0.25;
constexpr std::size_t value_bins = 72;
constexpr double least_share = 0.005;

/// h from sums over the pixels of each bin: their number, decoded values and squared residuals.
void join_bins(const std::vector<double>& sums, ResidualModel& model) {
  double pixels = 0;
  for (std::size_t b = 0; b < value_bins; ++b) pixels += sums[b];
  std::vector<std::array<double, 3>> joined = {{}};
  for (std::size_t b = 0; b < value_bins; ++b) {
    if (joined.back()[0] >= least_share * pixels) joined.push_back({});
    for (std::size_t k = 0; k < 3; ++k) joined.back()[k] += sums[k * value_bins + b];
  }
  if (joined.size() > 1 && joined.back()[0] < least_share * pixels) {
    for (std::size_t k = 0; k < 3; ++k) joined[joined.size() - 2][k] += joined.back()[k];
    joined.pop_back();
  }
  for (const auto& [count, value, square] : joined) {
    model.value.push_back(value / count);
    model.deviation.push_back(std::max(1e-6, std::sqrt(square / count)));
  }
}

/// The last octave of latent variables, [first, second).
std::pair<int, int> last_octave(int latent) {
  const std::vector<int> octaves = latent_octaves(latent);
  return {octaves[octaves.size() - 2], octaves.back()};
}

/// q: ln rms of latent variables [begin, end) of map n.
template <class Maps>
KOKKOS_INLINE_FUNCTION double log_rms(const Maps& latent, std::int64_t n, int begin, int end) {
  double sum = 0;
  for (int c = begin; c < end; ++c) sum += static_cast<double>(latent(n, 0, c)) * static_cast<double>(latent(n, 0, c));
  return 0.5 * math::log(sum / (end - begin) + 1e-12);
}

/// c
struct Amplitude {
  MapBatch latent;
  View1<DrawKey> keys;
  double offset, slope, spread;
  int begin, end;
  View1<float> out;
  KOKKOS_INLINE_FUNCTION void operator()(const std::int64_t n) const {
    DrawKey key = keys(n);
    ++key.step;
    out(n) = static_cast<float>(
        math::exp(offset + slope * log_rms(latent, n, begin, end) + spread * static_cast<double>(normal(key, 0))));
  }
};

/// maps += amplitude h(maps) rho, with h linear between the values of a table.
struct AddResidual {
  MapBatch rho, maps;
  View1<float> value, deviation, amplitude;
  KOKKOS_INLINE_FUNCTION void operator()(int n, int y, int x) const {
    const float decoded = maps(n, y, x);
    const auto count = static_cast<int>(value.size());
    int above = 0;
    while (above < count && value(above) <= decoded) ++above;
    float h = deviation(above == 0 ? 0 : count - 1);
    if (above > 0 && above < count) {
      const float t = (decoded - value(above - 1)) / (value(above) - value(above - 1));
      h = (1 - t) * deviation(above - 1) + t * deviation(above);
    }
    maps(n, y, x) = decoded + amplitude(n) * h * rho(n, y, x);
  }
};

View1<float> table(const std::vector<double>& values) {
  const View1<float> out("umbriel::residual_table", values.size());
  const auto host = Kokkos::create_mirror_view(HostMemory{}, out);
  for (std::size_t i = 0; i < values.size(); ++i) host(i) = static_cast<float>(values[i]);
  Kokkos::deep_copy(out, host);
  return out;
}

}  // namespace

ResidualDraws::ResidualDraws(const ResidualModel& model, Grid grid, double pixel_arcmin, int batch)
    : grid_(grid),
      rho_(grid, pixel_arcmin, model.multipole, model.power, batch),
      offset_(model.offset),
      slope_(model.slope),
      spread_(model.spread),
      value_(table(model.value)),
      deviation_(table(model.deviation)),
      amplitude_("umbriel::residual_amplitude", static_cast<std::size_t>(batch)),
      draws_("umbriel::residual_draws", batch, grid.height, grid.width) {}

void ResidualDraws::add(const Space& space, const View1<DrawKey>& keys, int n, const MapBatch& latent,
                        const MapBatch& maps) {
  const auto [begin, end] = last_octave(static_cast<int>(latent.extent(2)));
  Kokkos::parallel_for("umbriel::residual_amplitudes", Range(space, 0, n),
                       Amplitude{latent, keys, offset_, slope_, spread_, begin, end, amplitude_});
  rho_.draw(space, keys, n, draws_);
  for_each_element("umbriel::add_residual", space, n, grid_.height, grid_.width,
                   AddResidual{draws_, maps, value_, deviation_, amplitude_});
}

double ResidualModel::deviation_at(double decoded) const { return interpolated(value, deviation, decoded); }

double ResidualModel::log_amplitude(const std::vector<float>& latent) const {
  const auto [begin, end] = last_octave(static_cast<int>(latent.size()));
  double sum = 0;
  for (int c = begin; c < end; ++c) sum += std::pow(static_cast<double>(latent[static_cast<std::size_t>(c)]), 2);
  return offset + slope * 0.5 * std::log(sum / (end - begin) + 1e-12);
}

void ResidualModel::record(nn::Metadata& metadata) const {
  char text[96];
  std::snprintf(text, sizeof text, "%.9g %.9g %.9g", offset, slope, spread);
  metadata[amplitude_key] = text;
  metadata[deviation_key] = table_text(value, deviation);
  metadata[power_key] = table_text(multipole, power);
}

std::optional<ResidualModel> ResidualModel::from(const nn::Metadata& metadata, const std::string& path) {
  if (metadata.count(deviation_key) == 0 && metadata.count(power_key) == 0) return {};
  const std::string remedy = "train the model again, or give inpaint.residual_maps";
  ResidualModel model;
  read_table(metadata, deviation_key, path, remedy, model.value, model.deviation);
  read_table(metadata, power_key, path, remedy, model.multipole, model.power);
  if (const auto found = metadata.find(amplitude_key); found != metadata.end()) {
    std::istringstream numbers(found->second);
    numbers >> model.offset >> model.slope >> model.spread;
    require(!numbers.fail() && std::fabs(model.offset) < 100 && std::fabs(model.slope) < 100 && model.spread >= 0 &&
                model.spread < 100,
            ExitCode::input, std::string(amplitude_key) + " in the metadata is not three numbers", path, remedy);
  }
  return model;
}

ResidualModel measure_residual(const Communicator& comm, const Space& space, const Vae& vae, VaeRunner& runner,
                               double pixel_arcmin, std::uint64_t seed, const EachMap& each_map) {
  const Grid grid = runner.grid();
  const auto height = static_cast<std::size_t>(grid.height), width = static_cast<std::size_t>(grid.width);
  const MapBatch normals("umbriel::residual_normals", 1, 1, static_cast<std::size_t>(vae.latent()));
  const View1<DrawKey> keys("umbriel::residual_keys", 1);
  const MapBatch latent("umbriel::residual_latent", 1, 1, static_cast<std::size_t>(vae.latent()));
  const auto [octave, end] = last_octave(vae.latent());
  /// f(map, decoded map, q)
  const auto each_pair = [&, octave = octave, end = end](const auto& f) {
    each_map([&](const MapBatch& map, std::int64_t number) {
      Kokkos::deep_copy(keys,
                        DrawKey{seed, Purpose::training_noise, static_cast<std::uint32_t>(number), draw_of_residual});
      fill_normals(space, normals, keys, 1);
      draw_latent(space, runner.encode(space, map, 1), normals, runner.latent());
      const Activations z = runner.latent();
      copy_channels(space, z, Activations(latent.data(), z.extents));
      space.fence();
      const double q = log_rms(on_host(latent), 0, octave, end);
      const MapBatch decoded = runner.decode(space);
      space.fence();
      f(values_of(map), values_of(decoded), q);
    });
  };

  ResidualModel model;
  std::vector<ExactSum> sums(3 * value_bins);
  each_pair([&](const std::vector<double>& map, const std::vector<double>& decoded, double) {
    std::vector<double> of_map(3 * value_bins, 0);
    for (std::size_t i = 0; i < map.size(); ++i) {
      const double place = std::floor((decoded[i] - lowest_value) / bin_width);
      const auto b = static_cast<std::size_t>(std::clamp(place, 0.0, static_cast<double>(value_bins - 1)));
      of_map[b] += 1;
      of_map[value_bins + b] += decoded[i];
      of_map[2 * value_bins + b] += (map[i] - decoded[i]) * (map[i] - decoded[i]);
    }
    for (std::size_t b = 0; b < of_map.size(); ++b) sums[b].add(of_map[b]);
  });
  const std::vector<double> totals = exact_sum_over_ranks(comm, sums);
  double pixels = 0;
  for (std::size_t b = 0; b < value_bins; ++b) pixels += totals[b];
  require(pixels > 0, ExitCode::input, "there is no map to measure what the decoder leaves out on", "",
          "give maps that it was not trained on");
  join_bins(totals, model);

  // Rings of the width of the lowest multipole; the last has all that is beyond the shorter side's Nyquist multipole.
  const double lowest = std::min(multipole(grid, pixel_arcmin, 0, 1), multipole(grid, pixel_arcmin, 1, 0));
  const double nyquist =
      std::min(multipole(grid, pixel_arcmin, 0, grid.width / 2), multipole(grid, pixel_arcmin, grid.height / 2, 0));
  std::vector<double> edges;
  for (double edge = 0.5; edge * lowest < nyquist - 0.5 * lowest; ++edge) edges.push_back(edge * lowest);
  edges.push_back(std::numeric_limits<double>::max());
  const RadialBins rings = radial_bins(grid, pixel_arcmin, edges);
  const auto bands = static_cast<std::size_t>(rings.bands());
  std::vector<double> window(height * width);
  double weight = 0;  // sum of its squares
  for (std::size_t i = 0; i < window.size(); ++i) {
    const auto faded = [](std::size_t at, std::size_t side) {
      return std::pow(std::sin(std::numbers::pi * (static_cast<double>(at) + 0.5) / static_cast<double>(side)), 2);
    };
    window[i] = faded(i / width, height) * faded(i % width, width);
    weight += window[i] * window[i];
  }
  const RealFft fft(grid);
  const HostMaps host("umbriel::residual", 1, height, width);
  const SpectrumBatch spectrum("umbriel::residual_spectrum", 1, height, static_cast<std::size_t>(grid.half_width()));
  const View2<double> power("umbriel::residual_power", 1, bands);
  std::vector<ExactSum> powers(bands + 1);
  std::vector<std::pair<double, std::vector<double>>> of_maps;  // q and rings of each map of this rank
  each_pair([&](const std::vector<double>& map, const std::vector<double>& decoded, double q) {
    for (std::size_t i = 0; i < map.size(); ++i)
      host.data()[i] = static_cast<float>(window[i] * (map[i] - decoded[i]) / model.deviation_at(decoded[i]));
    fft.forward(space, on_device(host), spectrum, 1);
    band_power(space, rings, spectrum, 1, power);
    space.fence();
    const auto rings_of_map = on_host(power);
    const Complex mean = on_host(spectrum)(0, 0, 0);
    powers[0].add(std::pow(static_cast<double>(mean.real()), 2));
    for (std::size_t b = 0; b < bands; ++b) powers[b + 1].add(rings_of_map(0, b));
    of_maps.push_back({q, {rings_of_map.data(), rings_of_map.data() + bands}});
  });
  const double count = exact_sum_over_ranks(comm, {number_of(of_maps.size())})[0];
  model.power = exact_sum_over_ranks(comm, powers);
  for (double& p : model.power) p /= weight * count;
  const double least = 1e-12 * *std::max_element(model.power.begin(), model.power.end());
  for (double& p : model.power) p = std::max({p, least, 1e-30});
  model.multipole = rings.centres;
  model.multipole.insert(model.multipole.begin(), 0.0);

  // Amplitudes c of maps: c^2 is the mean over modes of a map's power over that of all, and ln c a line in q.
  std::vector<ExactSum> moments(5);  // q, ln c, q^2, q ln c, (ln c)^2
  double modes = 0;
  for (const double in_ring : rings.modes) modes += in_ring;
  for (const auto& [q, of_map] : of_maps) {
    double square = 0;
    for (std::size_t b = 0; b < bands; ++b)
      square += rings.modes[b] / modes * of_map[b] / (weight * model.power[b + 1]);
    const double log_c = 0.5 * std::log(std::max(square, 1e-12));
    const double terms[] = {q, log_c, q * q, q * log_c, log_c * log_c};
    for (std::size_t k = 0; k < moments.size(); ++k) moments[k].add(terms[k]);
  }
  std::vector<double> mean = exact_sum_over_ranks(comm, moments);
  for (double& m : mean) m /= count;
  const double of_q = mean[2] - mean[0] * mean[0], of_c = mean[4] - mean[1] * mean[1];
  const double both = mean[3] - mean[0] * mean[1];
  // Of a single octave, which holds the largest scales alone, nothing follows.
  if (octave > 0 && of_q > 1e-12) model.slope = both / of_q;
  model.offset = mean[1] - model.slope * mean[0];
  model.spread = std::sqrt(std::max(0.0, of_c - model.slope * both));
  return model;
}

}  // namespace umbriel
