// Tables of the parameters of maps.
#include "umbriel/data/parameter_table.hpp"

#include "support.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

namespace umbriel {
namespace {

using test::expect_error;
using ParameterTableTest = test::Folder;

TEST_F(ParameterTableTest, ReadsText) {
  for (const char* text :
       {"sigma_8 omega_m\n0.8 0.3\n0.7 0.25\n", "# sigma_8 omega_m\n# a remark\n0.8 0.3\n0.7,0.25 # last",
        "\n  sigma_8,omega_m\r\n8e-1, 3e-1\r\n\r\n0.7,\t.25\r\n"}) {
    write("p.csv", text);
    const ParameterTable table = read_parameter_table(path("p.csv"));
    EXPECT_EQ(table.names, (std::vector<std::string>{"sigma_8", "omega_m"})) << text;
    EXPECT_EQ(table.values, (std::vector<double>{0.8, 0.3, 0.7, 0.25})) << text;
    EXPECT_EQ(table.rows(), 2);
    EXPECT_TRUE(table.files.empty());
  }
  write("p.csv", "file, sigma_8\nb.fits, 0.8\na.fits, 0.7\n");
  const ParameterTable table = read_parameter_table(path("p.csv"));
  EXPECT_EQ(table.names, (std::vector<std::string>{"sigma_8"}));
  EXPECT_EQ(table.files, (std::vector<std::string>{"b.fits", "a.fits"}));
  EXPECT_EQ(table.values, (std::vector<double>{0.8, 0.7}));
}

TEST_F(ParameterTableTest, ReadsResults) {
  const Communicator comm;
  const std::vector<double> first = {0.8, 0.7, 0.9}, second = {1, 2, 3};
  Hdf5Writer file(path("maps.h5"), comm);
  file.write<double>({"/simulation/parameters/sigma_8", {}, "1", "sigma_8"}, {3}, first.data());
  file.write<double>({"/simulation/parameters/omega_m", {}, "1", "omega_m"}, {3}, second.data());
  file.commit();
  const ParameterTable table = read_parameter_table(path("maps.h5"));
  EXPECT_EQ(table.names, (std::vector<std::string>{"omega_m", "sigma_8"}));
  EXPECT_EQ(table.values, (std::vector<double>{1, 0.8, 2, 0.7, 3, 0.9}));
  Hdf5Writer other(path("other.h5"), comm);
  other.write<double>({"/simulation/kappa", {}, "1", "kappa"}, {3}, first.data());
  other.commit();
  expect_error(ExitCode::input, {"no parameters", "other.h5"}, [&] { read_parameter_table(path("other.h5")); });
}

TEST_F(ParameterTableTest, Refusals) {
  const auto refused = [&](const char* text, const std::vector<std::string>& parts) {
    write("p.csv", text);
    std::vector<std::string> all = parts;
    all.emplace_back("p.csv");
    expect_error(ExitCode::input, all, [&] { read_parameter_table(path("p.csv")); });
  };
  refused("", {"no rows"});
  refused("sigma_8\n", {"no rows"});
  refused("0.8 0.3\n0.7 0.2\n", {"does not name the columns", "0.8", "line 1"});
  refused("a b a\n1 2 3\n", {"two columns are called a"});
  refused("a b\n1 2\n1\n", {"1 entries", "2 columns", "line 3"});
  refused("a b\n1 2\n1 nan\n", {"b is \"nan\"", "line 3"});
  refused("a b\n1 2x\n", {"b is \"2x\"", "line 2"});
  refused("file\nx.fits\n", {"no parameters"});
  expect_error(ExitCode::file_system, {"none.csv"}, [&] { read_parameter_table(path("none.csv")); });
}

}  // namespace
}  // namespace umbriel
