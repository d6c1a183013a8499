// umbriel covariance: mean, covariance and correlation of vectors of statistics, with their errors, in one result file.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "umbriel/app/job.hpp"
#include "umbriel/app/problem.hpp"
#include "umbriel/base/files.hpp"
#include "umbriel/base/log.hpp"
#include "umbriel/data/npy.hpp"
#include "umbriel/mpi/sha256.hpp"
#include "umbriel/statistics/covariance.hpp"

namespace umbriel {
namespace {

/// This rank's share of the vectors of all files, one after the other.
struct Vectors {
  std::int64_t n = 0;  // of all ranks
  std::size_t p = 0;
  std::vector<double> local;
};

/// The rows of files [vector, number] (.npy, or a dataset of an HDF5 file), those of one file after those of the one
/// before. @throws Error(input) for an array of another rank, or files of different widths
Vectors read_vectors(const Communicator& comm, const std::vector<std::string>& paths, const std::string& dataset) {
  struct File {
    std::string path;
    bool hdf5 = false;
    std::uint64_t first = 0, rows = 0;
  };
  Vectors out;
  std::vector<File> files;
  for (const std::string& path : paths) {
    File file{path, path.ends_with(".h5") || path.ends_with(".hdf5"), static_cast<std::uint64_t>(out.n), 0};
    const std::vector<std::uint64_t> shape = file.hdf5 ? Hdf5Reader(path).shape(dataset) : read_npy(path).shape;
    require(shape.size() == 2 && shape[1] > 0, ExitCode::input, "the file does not hold vectors",
            file.hdf5 ? path + ", " + dataset : path, "give an array of two axes, [vector, number]");
    require(out.p == 0 || out.p == shape[1], ExitCode::input,
            "the vectors have " + std::to_string(shape[1]) + " numbers, and those of " + paths[0] + " have " +
                std::to_string(out.p),
            path, "give vectors of the same statistics");
    out.p = shape[1];
    file.rows = shape[0];
    out.n += static_cast<std::int64_t>(shape[0]);
    files.push_back(file);
  }
  const ShardRange shard = shard_range(out.n, comm.rank(), comm.size());
  const auto begin = static_cast<std::uint64_t>(shard.first), end = begin + static_cast<std::uint64_t>(shard.count);
  for (const File& file : files) {
    const std::uint64_t first = std::max(begin, file.first), last = std::min(end, file.first + file.rows);
    if (first >= last) continue;
    std::vector<double> rows;
    if (file.hdf5) {
      rows = Hdf5Reader(file.path).read<double>(dataset, first - file.first, last - first);
    } else {
      const std::vector<double> all = read_npy(file.path).values;
      rows.assign(all.begin() + static_cast<std::ptrdiff_t>((first - file.first) * out.p),
                  all.begin() + static_cast<std::ptrdiff_t>((last - file.first) * out.p));
    }
    out.local.insert(out.local.end(), rows.begin(), rows.end());
  }
  return out;
}

/// Paths of a key that holds one or several.
std::vector<std::string> paths_of(const Config& config, const std::string& key) {
  return config.is_text(key) ? std::vector<std::string>{config.text(key)} : config.texts(key);
}

void write_comparison(ResultFile& result, const EnsembleComparison& c) {
  Hdf5Writer& hdf5 = result.hdf5();
  const std::size_t p = c.mean_ratio.size();
  const auto vector = [&](const std::string& name, const std::string& words, const std::vector<double>& values) {
    hdf5.write<double>({"/comparison/" + name, {"number"}, "1", words}, {p}, values.data());
  };
  const auto matrix = [&](const std::string& name, const std::string& words, const std::vector<double>& values) {
    hdf5.write<double>({"/comparison/" + name, {"number", "other"}, "1", words}, {p, p}, values.data());
  };
  vector("mean_ratio", "mean over that of the other ensemble", c.mean_ratio);
  vector("mean_ratio_error", "standard error of mean_ratio", c.mean_ratio_error);
  matrix("covariance_ratio", "covariance over that of the other ensemble", c.covariance_ratio);
  matrix("covariance_ratio_error", "standard error of covariance_ratio", c.covariance_ratio_error);
  matrix("correlation_difference", "correlation less that of the other ensemble", c.correlation_difference);
  matrix("correlation_difference_error", "standard error of correlation_difference", c.correlation_difference_error);
  if (c.eigenvalue_ratios.empty()) return;
  vector("eigenvalue_ratios", "eigenvalues of the covariance where the other ensemble's is the unit matrix",
         c.eigenvalue_ratios);
  hdf5.attribute("/comparison", "divergence", c.divergence);
  hdf5.attribute("/comparison", "divergence_expected", c.divergence_expected);
}

/// What a reader wants to know first: how far off the diagonal, and off it.
void say_comparison(const EnsembleComparison& c) {
  const std::size_t p = c.mean_ratio.size();
  double mean = 0, variance = 0, correlation = 0, error = 0;
  for (std::size_t i = 0; i < p; ++i) {
    mean = std::max(mean, std::fabs(c.mean_ratio[i] - 1));
    variance = std::max(variance, std::fabs(c.covariance_ratio[i * p + i] - 1));
    for (std::size_t j = 0; j < i; ++j) {
      correlation = std::max(correlation, std::fabs(c.correlation_difference[i * p + j]));
      error = std::max(error, c.correlation_difference_error[i * p + j]);
    }
  }
  char text[240];
  std::snprintf(text, sizeof text,
                "against the other ensemble: means within %.2f %%, variances within %.1f %%, correlations within %.3f "
                "(standard errors up to %.3f)",
                100 * mean, 100 * variance, correlation, error);
  log::info(text);
  if (c.eigenvalue_ratios.empty()) return;
  std::snprintf(text, sizeof text,
                "eigenvalue ratios %.3f to %.3f; divergence %.4f nats, %.4f from the numbers of vectors alone",
                c.eigenvalue_ratios.front(), c.eigenvalue_ratios.back(), c.divergence, c.divergence_expected);
  log::info(text);
}

}  // namespace

ExitCode run_covariance(const CommandLine& line) {
  const Stopwatch watch;
  const Communicator& comm = line.comm;
  const Config& config = line.config;
  std::string output;
  RunLimits limits;
  int resamples = 0;
  Vectors vectors, others;
  std::vector<InputRecord> inputs;
  comm.together([&] {
    output = read_output(config);
    limits = read_run_limits(config);
    const std::string dataset = config.text("covariance.dataset", "/statistics/power_spectrum");
    resamples = static_cast<int>(config.integer("covariance.bootstrap", 0, 0, 1000000));
    require(resamples != 1, ExitCode::usage, "one resample has no scatter", config.where("covariance.bootstrap"),
            "ask for a hundred or more, or for none");
    read_seed(config);
    std::vector<std::string> paths = paths_of(config, "covariance.vectors"), against;
    if (config.has("covariance.against")) against = paths_of(config, "covariance.against");
    config.reject_unknown_keys();
    require(!paths.empty(), ExitCode::usage, "there is no file", config.where("covariance.vectors"), "name files");
    for (std::vector<std::string>* list : {&paths, &against}) {
      for (std::string& path : *list) {
        path = config.resolve_path(path);
        readable_size(path);
        inputs.push_back({path, sha256_of_file(path)});
      }
    }
    vectors = read_vectors(comm, paths, dataset);
    if (against.empty()) return;
    others = read_vectors(comm, against, dataset);
    require(others.p == vectors.p, ExitCode::input,
            "the vectors have " + std::to_string(vectors.p) + " numbers, and those to compare with have " +
                std::to_string(others.p),
            against[0], "compare the same statistics");
  });
  const std::size_t p = vectors.p;
  const double bytes = 6.0 * static_cast<double>(p * p) * sizeof(double);
  if (line.dry_run) {
    char text[96];
    std::snprintf(text, sizeof text, "%lld vectors of %zu numbers", static_cast<long long>(vectors.n), p);
    print_dry_run(line,
                  {text, "memory a rank: " + human_bytes(50 * bytes + static_cast<double>(vectors.local.size()) * 8),
                   "disk: " + human_bytes(bytes)});
    return ExitCode::done;
  }
  const Job job(comm, output, limits, bytes, false);
  comm.together([&] { log::start(comm.rank(), output + ".log.jsonl"); });

  const Covariance sample = covariance_of(comm, vectors.local, p);
  const Shrunk shrunk = ledoit_wolf(comm, vectors.local, sample);
  const std::vector<double> jackknife = jackknife_errors(comm, vectors.local, sample);
  std::vector<double> bootstrap;
  if (resamples > 0) bootstrap = bootstrap_errors(comm, vectors.local, sample, resamples, read_seed(config));
  std::optional<EnsembleComparison> comparison;
  if (others.n > 0) {
    const Covariance other = covariance_of(comm, others.local, p);
    comparison = compare(sample, jackknife, other, jackknife_errors(comm, others.local, other));
  }
  const bool invertible = static_cast<double>(sample.n) > static_cast<double>(p) + 2;

  ResultFile result(output, comm, "covariance");
  Hdf5Writer& hdf5 = result.hdf5();
  result.write_index_axis("number", p, "index of the statistic");
  result.write_index_axis("other", p, "index of the other statistic");
  hdf5.write<double>({"/covariance/mean", {"number"}, "1", "mean of the vectors"}, {p}, sample.mean.data());
  const auto matrix = [&](const std::string& name, const std::string& words, const std::vector<double>& values) {
    hdf5.write<double>({"/covariance/" + name, {"number", "other"}, "1", words}, {p, p}, values.data());
  };
  matrix("covariance", "covariance, with 1 / (n - 1)", sample.covariance);
  matrix("correlation", "correlation", correlation_of(sample.covariance));
  matrix("error_gaussian", "standard error of the covariance if the vectors are Gaussian", gaussian_errors(sample));
  matrix("error_jackknife", "standard error of the covariance, delete-one jackknife", jackknife);
  if (resamples > 0) matrix("error_bootstrap", "standard error of the covariance, bootstrap", bootstrap);
  matrix("shrunk", "covariance shrunk as Ledoit & Wolf have it", shrunk.covariance);
  hdf5.attribute("/covariance", "vectors", sample.n);
  hdf5.attribute("/covariance", "shrinkage", shrunk.amount);
  if (comparison) write_comparison(result, *comparison);
  if (invertible) hdf5.attribute("/covariance", "hartlap_factor", hartlap_factor(sample.n, p));
  result.write_provenance(config, static_cast<std::int64_t>(read_seed(config)), inputs, watch.seconds());
  result.commit();

  char text[200];
  if (invertible) {
    std::snprintf(text, sizeof text, "%lld vectors of %zu numbers; Hartlap factor of the inverse %.5f; shrinkage %.4f",
                  static_cast<long long>(sample.n), p, hartlap_factor(sample.n, p), shrunk.amount);
  } else {
    std::snprintf(text, sizeof text,
                  "%lld vectors of %zu numbers: too few to invert the covariance; the shrunk one (%.4f) can be",
                  static_cast<long long>(sample.n), p, shrunk.amount);
  }
  log::info(text);
  if (comparison) say_comparison(*comparison);
  log::info("wrote " + output);
  return ExitCode::done;
}

}  // namespace umbriel
