#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "decode.hpp"
#include "umbriel/core/check.hpp"
#include "umbriel/report/report.hpp"

using namespace umbriel;

namespace {

constexpr std::uint64_t rows = 20, columns = 24, chains = 5, steps = 30, bands = 8;

class ReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("umbriel_report_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// Writes a result file with `fill` and returns its path.
  std::string write(const std::string& name, const std::function<void(Hdf5Writer&)>& fill) {
    const std::string path = (folder_ / name).string();
    Hdf5Writer writer(path, Communicator());
    fill(writer);
    writer.commit();
    return path;
  }
  /// Its report.
  std::string report_of(const std::function<void(Hdf5Writer&)>& fill) {
    return report_html(Hdf5Reader(write("result.h5", fill)));
  }

  std::filesystem::path folder_;
};

/// Smooth numbers of any size, different for each `phase`.
std::vector<float> numbers(std::uint64_t n, double phase, double scale = 0.05) {
  std::vector<float> out;
  for (std::uint64_t i = 0; i < n; ++i) out.push_back(float(scale * std::sin(0.37 * double(i) + phase)));
  return out;
}

void write_axes(Hdf5Writer& w) {
  std::vector<double> x, y;
  for (std::uint64_t i = 0; i < columns; ++i) x.push_back(0.5 * (double(i) - 0.5 * double(columns - 1)));
  for (std::uint64_t i = 0; i < rows; ++i) y.push_back(0.5 * (double(i) - 0.5 * double(rows - 1)));
  w.write_axis("x", x, "arcmin", "offset");
  w.write_axis("y", y, "arcmin", "offset");
}

void write_map(Hdf5Writer& w, const std::string& path, const std::vector<float>& map) {
  w.write<float>({path, {}, "1", "a map"}, {rows, columns}, map.data());
}

void write_list(Hdf5Writer& w, const std::string& path, const std::vector<double>& values) {
  w.write<double>({path, {}, "1", "a list"}, {values.size()}, values.data());
}

void write_full_result(Hdf5Writer& w) {
  write_axes(w);
  std::vector<double> centres;
  for (std::uint64_t b = 0; b < bands; ++b) centres.push_back(200 * std::pow(1.8, double(b)));
  w.write_axis("band", centres, "1", "multipole");
  const auto field = rows * columns;
  w.write<float>({"/posterior/kappa", {}, "1", "samples"}, {chains, rows, columns}, numbers(chains * field, 0).data());
  std::vector<float> spread(field, 0.02f), mask(field, 0);
  for (std::uint64_t i = 0; i < field / 2; ++i) mask[i] = 1;
  write_map(w, "/summary/mean", numbers(field, 1));
  write_map(w, "/summary/std", spread);
  write_map(w, "/summary/peak_probability", std::vector<float>(field, 0.2f));
  write_map(w, "/reference/kaiser_squires", numbers(field, 2));
  write_map(w, "/reference/wiener_mean", numbers(field, 3));
  write_map(w, "/reference/map", numbers(field, 4));
  write_map(w, "/survey/mask", mask);
  write_map(w, "/survey/truth", numbers(field, 5));
  w.write<float>({"/survey/shear", {}, "1", "shear"}, {2, rows, columns}, numbers(2 * field, 6).data());
  w.write<float>({"/survey/noise", {}, "1", "noise"}, {2, rows, columns}, std::vector<float>(2 * field, 0.12f).data());
  for (const char* name :
       {"posterior_mean", "posterior_05", "posterior_95", "wiener_mean", "kaiser_squires", "truth", "prior"}) {
    std::vector<double> spectrum;
    for (std::uint64_t b = 0; b < bands; ++b) spectrum.push_back(1e-9 / double(b + 1));
    write_list(w, std::string("/spectra/") + name, spectrum);
  }
  write_list(w, "/sample_stats/accept_rate", {0.9, 0.91, 0.92, 0.4, 0.95});
  write_list(w, "/sample_stats/score_evaluations", {300, 301, 302, 303, 304});
  write_list(w, "/sample_stats/diverged", {0, 0, 0, 1, 0});
  write_list(w, "/sample_stats/energy_error", {0.1, 0.2, 0.3, 900, 0.2});
  std::vector<double> sigma, density;
  for (std::uint64_t i = 0; i < chains * steps; ++i) {
    sigma.push_back(0.3 * std::pow(0.9, double(i % steps)));
    density.push_back(-1e5 - double(i));
  }
  w.write<double>({"/sample_stats/sigma", {}, "1", "temperature"}, {chains, steps}, sigma.data());
  w.write<double>({"/sample_stats/log_density", {}, "1", "log density"}, {chains, steps}, density.data());
  w.write<float>({"/sample_stats/tail", {}, "1", "tail"}, {chains, steps, 2}, numbers(chains * steps * 2, 7).data());
  write_list(w, "/diagnostics/nested_rhat", {1.004, 1.21});
  write_list(w, "/diagnostics/effective_sample_size", {150, 90});
  w.attribute("/diagnostics", "names", "log_density,peak_height");
  write_list(w, "/metrics/rmse", {0.0216, 0.1424});
  write_list(w, "/metrics/pearson", {0.68, 0.19});
  w.attribute("/metrics", "methods", "posterior_mean,kaiser_squires");
  w.attribute("/", "command", "sample");
  w.attribute("/", "umbriel_version", "0.1.0");
  w.attribute("/", "git_revision", "abc123");
  w.attribute("/", "seed", std::int64_t(17));
  w.attribute("/", "wall_seconds", 7500.0);
  w.attribute("/", "config", "[run]\noutput = \"<script>alert(1)</script>\"\n");
  w.attribute("/", "inputs", R"([{"path": "a<b>.fits", "sha256": "0123abcd"}])");
  w.attribute("/", "libraries", R"({"hdf5": "1.10.8"})");
  w.attribute("/", "chains_set_aside", "chain 3: <i>energy</i>");
}

bool contains(const std::string& text, const std::string& piece) { return text.find(piece) != std::string::npos; }

std::size_t count(const std::string& text, const std::string& piece) {
  std::size_t n = 0;
  for (auto at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++n;
  return n;
}

/// The picture of the figure with this title.
Picture picture_of(const std::string& page, const std::string& title) {
  const auto figure = page.rfind("<figure>", page.find("<b>" + title + "</b>"));
  const std::string start = "data:image/png;base64,";
  const auto first = page.find(start, figure) + start.size();
  return decode_png(decode_base64(std::string_view(page).substr(first, page.find('"', first) - first)));
}

ExitCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  return ExitCode::done;
}

}  // namespace

TEST_F(ReportTest, HoldsEveryPanel) {
  const std::string page = report_of(write_full_result);
  for (const char* title : {"Posterior mean",
                            "Posterior standard deviation",
                            "Sample of chain 0",
                            "Sample of chain 1",
                            "Sample of chain 2",
                            "Truth",
                            "Wiener mean",
                            "Kaiser\u2013Squires, smoothed",
                            "Most probable map",
                            "Signal to noise",
                            "Peak probability",
                            "Truth against posterior",
                            "Power on each angular scale",
                            "Relative to the truth",
                            "Observed shear \u03b3\u2081",
                            "Observed shear \u03b3\u2082",
                            "Noise and mask",
                            "Kaiser\u2013Squires, as it comes",
                            "Annealing",
                            "Log density along the way",
                            "Acceptance",
                            "Energy error",
                            "log density",
                            "peak height"}) {
    EXPECT_TRUE(contains(page, std::string("<b>") + title + "</b>")) << title;
  }
  for (const char* text : {"12\u2032\u2009\u00d7\u200910\u2032", "50\u2009%", "chains, 1 diverged", "2 h 5 min",
                           "abc123", "17", "0123abcd", "hdf5 1.10.8", "<td class=\"best\">0.0216</td>",
                           "<td class=\"best\">0.680</td>", "<td class=\"warn-text\">1.210</td>"}) {
    EXPECT_TRUE(contains(page, text)) << text;
  }
  EXPECT_FALSE(contains(page, "Sample of chain 3")) << "a diverged chain is shown as a sample";
  EXPECT_EQ(count(page, "<figure>"), count(page, "</figure>"));
  EXPECT_EQ(count(page, "<svg"), count(page, "</svg>"));
  for (const char* piece : {"\"nan", "\"-nan", " nan", " -nan", "inf\"", ">nan"})
    EXPECT_FALSE(contains(page, piece)) << piece;
}

void write_search(Hdf5Writer& w) {
  const double failed = std::numeric_limits<double>::quiet_NaN();
  write_list(w, "/tune/loss", {-2.5, failed, -2.625, 1e9, -2.55});
  // A choice, none of which the configuration was; a learning rate.
  const std::vector<double> points = {-1, 1e-3, 0, 1e-1, 1, 2e-3, 1, 5e-2, 0, 1e-4};
  w.write<double>({"/tune/parameters", {}, "1", "values"}, {5, 2}, points.data());
  w.attribute("/tune", "names", "network.<b>,train.learning_rate");
  w.attribute("/tune", "scales", "choice,log");
  w.attribute("/tune", "choices_0", "\"relu\"\n[8, 16]");
  w.attribute("/tune", "measure", "nats");
  w.attribute("/tune", "train", "flow");
  w.attribute("/tune", "seconds", "1,2,3.5");
}

TEST_F(ReportTest, ShowsASearch) {
  const std::string page = report_of(write_search);
  for (const char* text :
       {"The best is trial 2.", "train flow", "<b>The search</b>", "<b>loss against train.learning_rate</b>",
        "least so far", "<td class=\"warn-text\">failed</td>", "<td class=\"best\">\u22122.625</td>", "<td>relu</td>",
        "[8, 16]", "<td>another</td>", "0, as it was", "<td>3.5</td>", "network.&lt;b&gt;", "failed, or far above"})
    EXPECT_TRUE(contains(page, text)) << text;
  EXPECT_EQ(count(page, "<svg"), count(page, "</svg>"));
  for (const char* piece : {"\"nan", " nan", " -nan", "inf\"", ">nan", "network.<b>"})
    EXPECT_FALSE(contains(page, piece)) << piece;
  const std::string nothing_better = report_of([](Hdf5Writer& w) {
    write_list(w, "/tune/loss", {1, 2});
    const double points[] = {1, 2};
    w.write<double>({"/tune/parameters", {}, "1", "values"}, {2, 1}, points);
  });
  EXPECT_TRUE(contains(nothing_better, "None is better")) << "names, scales and the rest may be missing";
  // All failed, or shapes that do not go together.
  EXPECT_TRUE(
      contains(report_of([](Hdf5Writer& w) {
                 write_list(w, "/tune/loss", {std::numeric_limits<double>::quiet_NaN()});
                 w.write<double>({"/tune/parameters", {}, "1", "values"}, {1, 1}, std::vector<double>(1, 0.5).data());
               }),
               "of 1 trials failed"));
  EXPECT_EQ(code_of([&] {
              report_of([](Hdf5Writer& w) {
                write_list(w, "/tune/loss", {1, 2, 3});
                w.write<double>({"/tune/parameters", {}, "1", "values"}, {1, 1}, std::vector<double>(1, 0.5).data());
              });
            }),
            ExitCode::input);
}

TEST_F(ReportTest, LoadsNothingFromElsewhere) {
  const std::string page = report_of(write_full_result);
  for (const char* piece : {"http:", "https:", "url(", "@import", "<script", "<link", "<iframe", "src="}) {
    EXPECT_FALSE(contains(page, piece)) << piece;
  }
  // Every reference stays inside the page.
  for (auto at = page.find("href=\""); at != std::string::npos; at = page.find("href=\"", at + 1)) {
    const std::string target = page.substr(at + 6, 11);
    EXPECT_TRUE(target[0] == '#' || target == "data:image/") << target;
  }
}

TEST_F(ReportTest, EscapesTextFromTheFile) {
  const std::string page = report_of(write_full_result);
  EXPECT_TRUE(contains(page, "&lt;script&gt;alert(1)&lt;/script&gt;"));
  EXPECT_TRUE(contains(page, "a&lt;b&gt;.fits"));
  EXPECT_TRUE(contains(page, "chain 3: &lt;i&gt;energy&lt;/i&gt;"));
  EXPECT_FALSE(contains(page, "<i>energy"));
}

TEST_F(ReportTest, SkipsWhatIsMissing) {
  const std::string page = report_of([](Hdf5Writer& w) { write_map(w, "/summary/mean", numbers(rows * columns, 1)); });
  EXPECT_TRUE(contains(page, "<b>Posterior mean</b>"));
  EXPECT_EQ(count(page, "<figure>"), 1u);
  for (const char* section :
       {"id=\"samples\"", "id=\"spectra\"", "id=\"chains\"", "id=\"metrics\"", "id=\"data\"", "mask-edge"}) {
    EXPECT_FALSE(contains(page, section)) << section;
  }
}

TEST_F(ReportTest, ComputesMeanAndSpreadWhereTheFileHasNoSummary) {
  const std::string page = report_of([](Hdf5Writer& w) {
    std::vector<float> samples(2 * rows * columns, 0.25f);  // two chains, 0.25 and 0.75: mean 0.5, deviation 0.354
    std::fill(samples.begin() + rows * columns, samples.end(), 0.75f);
    w.write<float>({"/posterior/kappa", {}, "1", "samples"}, {2, rows, columns}, samples.data());
    std::vector<float> mask(rows * columns, 1);
    std::fill_n(mask.begin(), columns, 0.0f);
    write_map(w, "/survey/mask", mask);
  });
  EXPECT_TRUE(contains(page, "<b>Posterior standard deviation</b>"));
  EXPECT_TRUE(contains(page, "computed from its 2 samples"));
  EXPECT_TRUE(contains(page, "On average 0.354 inside the observed region and 0.354 outside"));
}

TEST_F(ReportTest, ShowsTheLastRowOfAMapOnTop) {
  std::vector<float> map(rows * columns, 0);
  map[(rows - 1) * columns + 3] = 1;  // last row, column 3
  map[0] = std::numeric_limits<float>::quiet_NaN();
  const Picture picture =
      picture_of(report_of([&](Hdf5Writer& w) { write_map(w, "/summary/mean", map); }), "Posterior mean");
  ASSERT_EQ(picture.width, int(columns));
  ASSERT_EQ(picture.height, int(rows));
  const auto brightness = [&](int row, int column) {
    const std::uint8_t* p = picture.pixel(row, column);
    return p[0] + p[1] + p[2];
  };
  EXPECT_GT(brightness(0, 3), brightness(0, 4));
  EXPECT_GT(brightness(0, 3), brightness(int(rows) - 1, 3));
  EXPECT_EQ(picture.pixel(int(rows) - 1, 0)[3], 0) << "a missing value is not transparent";
  EXPECT_EQ(picture.pixel(0, 0)[3], 255);
}

TEST_F(ReportTest, DrawsTheEdgeOfTheMask) {
  const auto page_with = [&](const std::vector<float>& mask) {
    return report_of([&](Hdf5Writer& w) {
      write_map(w, "/summary/mean", numbers(rows * columns, 1));
      write_map(w, "/survey/mask", mask);
    });
  };
  std::vector<float> mask(rows * columns, 0);
  for (std::uint64_t i = 0; i < 5 * columns; ++i) mask[i] = 1;  // the five lowest rows
  mask[2 * columns + 7] = 0;                                    // too small a hole to outline
  EXPECT_TRUE(contains(page_with(mask), "<path id=\"mask-edge\" d=\"M0 15h24\"/>"));
  EXPECT_FALSE(contains(page_with(std::vector<float>(rows * columns, 1)), "mask-edge")) << "all observed: no edge";
}

TEST_F(ReportTest, AveragesLargeMapsDown) {
  const std::uint64_t side = 1601;
  const std::string page = report_of([&](Hdf5Writer& w) {
    w.write<float>({"/summary/mean", {}, "1", "mean"}, {side, side}, numbers(side * side, 1).data());
  });
  EXPECT_TRUE(contains(page, "mean of 3 \u00d7 3 pixels"));
  EXPECT_EQ(picture_of(page, "Posterior mean").width, 534);
}

TEST_F(ReportTest, ShowsAValidation) {
  const std::uint64_t mocks = 200, draws = 99;
  const std::string page = report_of([&](Hdf5Writer& w) {
    std::vector<std::int32_t> ranks;
    for (std::uint64_t i = 0; i < mocks; ++i) ranks.push_back(std::int32_t(i * (draws + 1) / mocks));  // flat
    for (std::uint64_t i = 0; i < mocks; ++i) ranks.push_back(50);                                     // far too narrow
    w.write<std::int32_t>({"/validate/sbc_ranks", {}, "1", "ranks"}, {2, mocks}, ranks.data());
    w.attribute("/validate", "names", "low_l_power,<peak>");
    w.attribute("/validate", "draws", std::int64_t(draws));
    w.attribute("/validate", "std_ratio_inside", 0.9971);
    write_list(w, "/validate/p_value", {0.42, 1e-30});
    write_list(w, "/validate/coverage_nominal", {0.5, 0.68, 0.9});
    write_list(w, "/validate/coverage_inside", {0.51, 0.68, 0.9});
    write_list(w, "/validate/coverage_outside", {0.5, 0.64, 0.9});
    write_list(w, "/validate/band_variance_ratio", {1.02, 0.97, 1.0});
  });
  for (const char* title : {"low l power", "&lt;peak&gt;", "Coverage", "Variance on each scale"}) {
    EXPECT_TRUE(contains(page, std::string("<b>") + title + "</b>")) << title;
  }
  EXPECT_EQ(count(page, "Every bar is inside the band"), 1u);
  EXPECT_TRUE(contains(page, "20 of 20 bars are outside the band"));
  EXPECT_TRUE(contains(page, "<span class=\"warn-text\">p\u00a0=\u00a010\u207b\u00b3\u2070</span>"));
  EXPECT_TRUE(contains(page, "Largest distance <span class=\"warn-text\">4\u00a0points</span>"));
  EXPECT_TRUE(contains(page, "0.997"));
  EXPECT_FALSE(contains(page, "id=\"gain\"")) << "a section about what the file does not hold";
}

TEST_F(ReportTest, ShowsTarpAndTheGainOverWiener) {
  const std::uint64_t mocks = 4;
  const std::string page = report_of([&](Hdf5Writer& w) {
    w.write_axis("credibility", {0, 0.5, 1}, "1", "credibility");
    const std::vector<double> curves = {0, 0.52, 1, 0, 0.9, 1};
    w.write<double>({"/validate/tarp_coverage", {}, "1", "coverage"}, {2, 3}, curves.data());
    write_list(w, "/validate/tarp_largest", {0.02, 0.4});
    write_list(w, "/validate/tarp_p_value", {0.9, 1e-6});
    w.attribute("/validate", "references", "random_point,wiener_mean");
    w.attribute("/validate", "tarp_band", 0.1);
    w.attribute("/validate", "mocks_kind", "lognormal");
    w.attribute("/validate", "mocks_set_aside", "mock <7>");
    write_list(w, "/validate/coverage_nominal", {0.5, 0.9});
    write_list(w, "/validate/coverage_inside", {0.51, 0.9});
    write_list(w, "/validate/coverage_inside_error", {0.01, 0.005});
    write_list(w, "/validate/coverage_outside", {std::nan(""), std::nan("")});
    write_list(w, "/validate/rmse_posterior_mean", {0.019, 0.018, 0.0204, 0.019});
    write_list(w, "/validate/rmse_posterior_mean_limit", {0.0188, 0.0178, 0.0202, 0.019});
    write_list(w, "/validate/rmse_wiener_mean", std::vector<double>(mocks, 0.02));
    write_list(w, "/validate/pearson_posterior_mean", {0.68, 0.7, 0.66, 0.64});
    write_list(w, "/validate/pearson_wiener_mean", {0.62, 0.66, 0.66, 0.62});
    write_list(w, "/validate/score_evaluations", {104, 106, 104, 102});
    write_list(w, "/validate/pixel_ranks_inside", {10, 12, 8, 10});
  });
  for (const char* title :
       {"Balls about reference points", "Coverage", "Gain over Wiener", "Correlation with the truth", "Cost"})
    EXPECT_TRUE(contains(page, std::string("<b>") + title + "</b>")) << title;
  for (const char* text :
       {"<span>0.020 of 0.100</span>", "<span class=\"warn-text\">0.400 of 0.100</span>", "lognormal skies",
        "mock &lt;7&gt;", "<span>1\u00a0points</span>", "Mean 0.955, worst 1.020", "On average 0.670, Wiener 0.640",
        "on average 104", "<dd>0.955</dd>", "<td>0.9550</td><td>0.9475</td>", "<td>1.0200</td><td>1.0100</td>"})
    EXPECT_TRUE(contains(page, text)) << text;
  EXPECT_FALSE(contains(page, ">unobserved<")) << "a series without a finite value";
  for (const char* piece : {"\"nan", "\"-nan", " nan", " -nan", "inf\"", ">nan"})
    EXPECT_FALSE(contains(page, piece)) << piece;
}

TEST_F(ReportTest, ShowsACovarianceAndAComparison) {
  const std::vector<double> mean = {1, 2, 3}, matrix = {4, 1, 0, 1, 9, 2, 0, 2, 16};
  const auto fill = [&](Hdf5Writer& w, bool compared) {
    const auto vector = [&](const std::string& name) { w.write<double>({name, {}, "1", "vector"}, {3}, mean.data()); };
    const auto square = [&](const std::string& name) {
      w.write<double>({name, {}, "1", "matrix"}, {3, 3}, matrix.data());
    };
    vector("/covariance/mean"), square("/covariance/covariance"), square("/covariance/correlation");
    w.attribute("/covariance", "vectors", std::int64_t{500});
    w.attribute("/covariance", "hartlap_factor", 0.9876);
    w.attribute("/covariance", "shrinkage", 0.0123);
    if (!compared) return;
    for (const char* name : {"mean_ratio", "mean_ratio_error", "eigenvalue_ratios"})
      vector(std::string("/comparison/") + name);
    for (const char* name : {"covariance_ratio", "covariance_ratio_error", "correlation_difference"})
      square(std::string("/comparison/") + name);
    w.attribute("/comparison", "divergence", 0.5);
    w.attribute("/comparison", "divergence_expected", 0.1);
  };
  const std::string alone = report_of([&](Hdf5Writer& w) { fill(w, false); });
  for (const char* text : {"<h1>Covariance", "500", "0.9876", "0.0123", ">Correlation", ">Mean"})
    EXPECT_TRUE(contains(alone, text)) << text;
  EXPECT_FALSE(contains(alone, "Against the other ensemble"));
  const std::string both = report_of([&](Hdf5Writer& w) { fill(w, true); });
  for (const char* text :
       {"Against the other ensemble", ">Variances", ">Eigenvalues", "nats between", "class=\"warning\""})
    EXPECT_TRUE(contains(both, text)) << text;
  EXPECT_FALSE(contains(alone, ">10\u207b\u00b2</text>"));
  const std::string wide = report_of([&](Hdf5Writer& w) {
    fill(w, false);
    const std::vector<double> decades = {1e-4, 1e-2, 1};
    w.write<double>({"/comparison/mean_ratio", {}, "1", "vector"}, {3}, decades.data());
  });
  EXPECT_TRUE(contains(wide, ">10\u207b\u00b3</text>") && contains(wide, ">10\u207b\u2074</text>"))
      << "a logarithmic axis";
  // A matrix of another shape is left out.
  const std::string odd = report_of([&](Hdf5Writer& w) {
    w.write<double>({"/covariance/mean", {}, "1", "vector"}, {2}, mean.data());
    w.write<double>({"/covariance/covariance", {}, "1", "matrix"}, {3, 3}, matrix.data());
  });
  EXPECT_FALSE(contains(odd, ">Correlation"));
}

void write_maps(Hdf5Writer& w, const std::string& path, std::uint64_t n, const std::vector<float>& maps) {
  w.write<float>({path, {}, "1", "maps"}, {n, rows, columns}, maps.data());
}

void expect_sound(const std::string& page) {
  EXPECT_EQ(count(page, "<figure>"), count(page, "</figure>"));
  EXPECT_EQ(count(page, "<svg"), count(page, "</svg>"));
  for (const char* piece : {"\"nan", "\"-nan", " nan", " -nan", "inf\"", ">nan"})
    EXPECT_FALSE(contains(page, piece)) << piece;
}

TEST_F(ReportTest, ShowsReconstructionsFromTheBestToTheWorst) {
  const std::uint64_t n = 11, field = rows * columns;
  const std::vector<double> rmse = {0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.6, 0.4, 0.8, std::nan(""), 0.55};
  const std::string page = report_of([&](Hdf5Writer& w) {
    write_axes(w);
    write_maps(w, "/reconstruction/mean", n, numbers(n * field, 0));
    write_maps(w, "/reconstruction/input", n, numbers(n * field, 0, -2));  // -40 times the reconstruction
    write_maps(w, "/reconstruction/residual", n, numbers(n * field, 1));
    write_list(w, "/reconstruction/rmse", rmse);
    write_list(w, "/reconstruction/map", {100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110});
    write_maps(w, "/reconstruction/latent_mean", 1, numbers(field, 1));  // of another shape: left out
  });
  // Six of eleven: every second one of the order.
  std::size_t at = 0;
  for (const char* title : {"patch 101", "patch 103", "patch 100", "patch 106", "patch 108", "patch 109"}) {
    const auto found = page.find("<b>" + std::string(title) + "</b>");
    EXPECT_NE(found, std::string::npos) << title;
    EXPECT_GT(found, at) << title;
    at = found;
  }
  EXPECT_EQ(count(page, "<b>patch "), 6u);
  EXPECT_EQ(count(page, ">reconstruction</text>"), 6u);
  EXPECT_EQ(count(page, "orrelation \u22121.000"), 6u);
  EXPECT_TRUE(contains(page, "Residual 0.300, correlation"));
  EXPECT_TRUE(contains(page, "<dd>0.500</dd>")) << "the median of the ten that are numbers, rounded down";
  EXPECT_TRUE(contains(page, "12\u00b0") || contains(page, "24\u2009\u00d7\u200920 pixels"));
  EXPECT_FALSE(contains(page, "latent variables"));
  EXPECT_EQ(picture_of(page, "patch 101").width, int(columns));
  expect_sound(page);
  // With a single patch, and without all that may be missing.
  const std::string small =
      report_of([&](Hdf5Writer& w) { write_maps(w, "/reconstruction/mean", 1, numbers(field, 0)); });
  EXPECT_TRUE(contains(small, "<b>patch 0</b>"));
  expect_sound(small);
}

TEST_F(ReportTest, ShowsWaysAndNewPatches) {
  const std::uint64_t n = 15, field = rows * columns;
  const auto fill = [&](Hdf5Writer& w, bool named) {
    write_maps(w, "/interpolation/map", n, numbers(n * field, 0));
    std::vector<double> fraction, from, to, angle;
    for (std::uint64_t i = 0; i < n; ++i) {
      fraction.push_back(i < 12 ? double(i) / 11 : double(i - 12) / 2);
      from.push_back(i < 12 ? 3 : 5), to.push_back(i < 12 ? 9 : 8), angle.push_back(i < 12 ? 81.25 : 60);
    }
    write_list(w, "/interpolation/fraction", fraction);
    if (!named) return;
    write_list(w, "/interpolation/from", from), write_list(w, "/interpolation/to", to);
    write_list(w, "/interpolation/angle", angle);
  };
  const std::string page = report_of([&](Hdf5Writer& w) { fill(w, true); });
  for (const char* text : {"<b>from patch 3 to patch 9</b>", "<b>from patch 5 to patch 8</b>", "81.2\u00b0 apart",
                           ">0.00</text>", ">1.00</text>", ">0.50</text>"})
    EXPECT_TRUE(contains(page, text)) << text;
  EXPECT_EQ(count(page, ">1.00</text>"), 2u) << "the end of either way is shown";
  EXPECT_EQ(count(page, "class=\"pixels\""), 10u + 3u) << "ten of the twelve points of the first way";
  expect_sound(page);
  const std::string bare = report_of([&](Hdf5Writer& w) { fill(w, false); });
  EXPECT_TRUE(contains(bare, "<b>way 2</b>"));

  const std::string fresh =
      report_of([&](Hdf5Writer& w) { write_maps(w, "/generated/dust", 30, numbers(30 * field, 0)); });
  EXPECT_TRUE(contains(fresh, "<h1>New patches</h1>"));
  EXPECT_EQ(count(fresh, "class=\"pixels\""), 24u);
  expect_sound(fresh);
}

TEST_F(ReportTest, ShowsAFilledPatch) {
  const std::uint64_t field = rows * columns;
  std::vector<float> given = numbers(field, 0), mask(field, 1), mean = given, low = given, high = given,
                     laplace = given;
  for (std::uint64_t i = 0; i < field; ++i) {
    const std::uint64_t row = i / columns, column = i % columns;
    if (row < 4 || row >= 8 || column < 6 || column >= 11) continue;
    mask[i] = 0, mean[i] += 0.25f, laplace[i] -= 0.75f;
    low[i] -= row == 4 ? -0.01f : 0.01f, high[i] += 0.5f;  // the truth is below the quantiles in one row of four
  }
  const auto fill = [&](Hdf5Writer& w, bool all) {
    write_map(w, "/data/map", given), write_map(w, "/data/mask", mask), write_map(w, "/summary/mean", mean);
    if (!all) return;
    write_map(w, "/summary/std", std::vector<float>(field, 0.1f));
    write_map(w, "/summary/quantile_05", low), write_map(w, "/summary/quantile_95", high);
    write_map(w, "/reference/maximum", mean), write_map(w, "/reference/diffusive", laplace);
    w.write<float>({"/posterior/map", {}, "1", "draws"}, {8, 2, rows, columns}, numbers(16 * field, 2).data());
    write_list(w, "/sample_stats/accept_rate", std::vector<double>(8, 0.875));
    w.attribute("/sample_stats", "nested_r_hat", 1.19);
  };
  const std::string page = report_of([&](Hdf5Writer& w) { fill(w, true); });
  for (const char* text :
       {"<h1>A filled patch</h1>", "<dd>0.250</dd>", "<dd>0.750</dd>", "<dd>0.100</dd>", "<dd>75\u2009%</dd>",
        "<dd>1.190</dd>", "<dd>4.17\u2009%</dd>", ">most probable</text>", ">Laplace</text>", ">given map</text>",
        ">draw 6</text>", "<b>across the hole</b>", "Row 6 of the patch", "<b>Acceptance</b>", "d=\"M6 16h5"})
    EXPECT_TRUE(contains(page, text)) << text;
  EXPECT_FALSE(contains(page, ">draw 7<"));
  EXPECT_FALSE(contains(page, "Weak lensing")) << "it is no page of `sample`";
  const Picture data = picture_of(page, "maps");
  EXPECT_EQ(data.pixel(int(rows) - 1 - 5, 8)[3], 0) << "what is hidden is not shown as data";
  EXPECT_EQ(data.pixel(int(rows) - 1 - 5, 12)[3], 255);
  expect_sound(page);
  const std::string bare = report_of([&](Hdf5Writer& w) { fill(w, false); });
  EXPECT_TRUE(contains(bare, "<b>across the hole</b>"));
  EXPECT_FALSE(contains(bare, "Laplace</text>"));
  expect_sound(bare);
  std::fill(mask.begin(), mask.end(), 1);
  expect_sound(report_of([&](Hdf5Writer& w) { fill(w, true); }));
}

/// Statistics of five maps whose medians are `scale` times (1, 2, 4) and whose quartiles are half and twice that.
void write_statistics(Hdf5Writer& w, double scale, bool with_pdf, double first_bin = 100) {
  const std::vector<double> factors = {2, 0.5, 1, 8, 0.1}, middle = {1, 2, 4};
  std::vector<double> values;
  for (const double factor : factors) {
    for (const double m : middle) values.push_back(factor * scale * m);
  }
  w.write_axis("map", {0, 1, 2, 3, 4}, "1", "index");
  w.write_axis("band", {first_bin, 200, 300}, "1", "multipole");
  w.write<double>({"/statistics/power_spectrum", {}, "sr", "C_l"}, {5, 3}, values.data());
  if (!with_pdf) return;
  w.write_axis("pdf_bin", {-1, 0, 1}, "1", "value");
  w.write<double>({"/statistics/pdf", {}, "1", "density"}, {5, 3}, values.data());
}

TEST_F(ReportTest, ComparesStatisticsOfSeveralFiles) {
  const std::string test = write("test.stats.h5", [](Hdf5Writer& w) { write_statistics(w, 1, true); });
  const std::string fresh = write("new_stats.h5", [](Hdf5Writer& w) { write_statistics(w, 1.25, true); });
  const std::string bare = write("bare.h5", [](Hdf5Writer& w) { write_statistics(w, 1, false); });
  const std::string other = write("other.h5", [](Hdf5Writer& w) { write_statistics(w, 1, false, 110); });
  const std::string maps =
      write("maps.h5", [](Hdf5Writer& w) { write_map(w, "/summary/mean", numbers(rows * columns, 1)); });
  const auto page_of = [](const std::vector<std::string>& paths) {
    std::vector<Hdf5Reader> files(paths.begin(), paths.end());
    std::vector<const Hdf5Reader*> pointers;
    for (const Hdf5Reader& file : files) pointers.push_back(&file);
    return report_html(pointers);
  };
  const std::string page = page_of({test, fresh});
  for (const char* text : {"<b>Power spectrum</b>", "<b>Power spectrum, compared</b>", "<b>One-point density</b>",
                           "maps of test", "maps of new", "test.stats.h5, new_stats.h5", "id=\"pdf\""})
    EXPECT_TRUE(contains(page, text)) << text;
  // Quartiles of the density at the last bin: 2, 4 and 8 against 2.5, 5 and 10.
  EXPECT_TRUE(contains(page,
                       "Largest differences of new from test: 0.5, 1 and 2 (quartiles, in order). The median of test "
                       "is at most 4 in size."));
  EXPECT_EQ(count(page, "<h3>test.stats.h5</h3>"), 1u) << "provenance of each";
  EXPECT_EQ(count(page, "<h3>new_stats.h5</h3>"), 1u);
  expect_sound(page);
  EXPECT_EQ(count(page_of({test}), "<figure>"), 2u);
  EXPECT_TRUE(contains(page_of({test, bare}), "left out: One-point density"));
  for (const std::vector<std::string>& paths :
       std::vector<std::vector<std::string>>{{test, other}, {test, maps}, {maps, maps}}) {
    EXPECT_EQ(code_of([&] { page_of(paths); }), ExitCode::input) << paths[1];
  }
  EXPECT_EQ(code_of([&] { page_of(std::vector<std::string>(7, test)); }), ExitCode::usage);
}

TEST_F(ReportTest, RefusesWhatIsNoResult) {
  EXPECT_EQ(code_of([&] { report_of([](Hdf5Writer& w) {
                            write_list(w, "/catalogue/ra", {1, 2, 3});
                          }); }),
            ExitCode::input);
  EXPECT_EQ(code_of([&] {
              report_of([](Hdf5Writer& w) {
                write_map(w, "/summary/mean", numbers(rows * columns, 1));
                w.write<float>({"/summary/std", {}, "1", "std"}, {columns, rows}, numbers(rows * columns, 1).data());
              });
            }),
            ExitCode::input)
      << "maps of different shapes";
}

TEST_F(ReportTest, WritesTheFileWhole) {
  const std::string page = report_of(write_full_result);
  const Hdf5Reader result((folder_ / "result.h5").string());
  const auto target = folder_ / "report.html";
  write_report(result, target.string());
  std::ifstream stream(target, std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  EXPECT_TRUE(text.str() == page);
  EXPECT_FALSE(std::filesystem::exists(target.string() + ".tmp"));
  EXPECT_EQ(code_of([&] { write_report(result, (folder_ / "missing" / "report.html").string()); }),
            ExitCode::file_system);
}

// Values and shapes that only a damaged result has.
TEST_F(ReportTest, StandsWildValuesAndShapes) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const std::string page = report_of([&](Hdf5Writer& w) {
    write_full_result(w);
    w.write<double>({"/validate/sbc_ranks", {}, "1", "ranks"}, {1, 4}, std::vector<double>{nan, inf, -1, 1e300}.data());
    w.attribute("/validate", "draws", 1e300);
    w.write<double>({"/validate/tarp_coverage", {}, "1", "coverage"}, {5, 0}, nullptr);
    const std::vector<double> wild = {nan,   0,   inf, 1e-310, nan, 1, -inf, nan, 2,
                                      1e308, nan, 3,   nan,    nan, 4, nan,  5,   nan};
    for (const char* name : {"rmse_posterior_mean", "rmse_posterior_mean_limit", "rmse_wiener_mean"})
      write_list(w, std::string("/validate/") + name, wild);
  });
  EXPECT_NE(page.find("</html>"), std::string::npos);
  const std::string empty_tail = report_of([](Hdf5Writer& w) {
    write_map(w, "/summary/mean", numbers(rows * columns, 1));
    w.attribute("/", "wall_seconds", 1e300);
    w.write<double>({"/sample_stats/sigma", {}, "1", "sigma"}, {chains, steps, 0}, nullptr);
    w.write<double>({"/sample_stats/tail", {}, "1", "tail"}, {chains, steps, 0}, nullptr);
  });
  EXPECT_NE(empty_tail.find("</html>"), std::string::npos);
}

TEST_F(ReportTest, SmoothsMapsOfPixelsWithoutSize) {
  const std::string page = report_of([](Hdf5Writer& w) {
    std::vector<double> x(columns), y(rows);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 1e-300 * double(i);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = 1e-300 * double(i);
    w.write_axis("x", x, "arcmin", "offset");
    w.write_axis("y", y, "arcmin", "offset");
    write_map(w, "/summary/mean", numbers(rows * columns, 1));
    write_map(w, "/reference/kaiser_squires", numbers(rows * columns, 2));
  });
  EXPECT_NE(page.find("</html>"), std::string::npos);
}
