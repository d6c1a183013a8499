#include "umbriel/models/principal_components.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>

#include "umbriel/fft/real_fft64.hpp"
#include "umbriel/mpi/watchdog.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel {
namespace {

using Eigen::Index, Eigen::MatrixXd;

/// Vectors that a Krylov space grows by at once: it finds components of the same power up to that many times.
constexpr Index block_width = 16;

/// A component has settled when M v differs from power * v by this share of the largest power.
constexpr double tolerance = 1e-6;

constexpr std::size_t even = 0;

/// Vectors that a parity's space has when it is looked at first: two and a half times as many as it has components.
Index first_aim(Index quarter, int n) { return std::min<Index>(quarter, 5 * n / 8 + 32); }
/// Vectors that there is to be room for: products of the last ones come on top.
Index room_for(Index quarter, Index aim) { return std::min(quarter, aim + 2 * block_width); }

/// One matrix for each parity, whose columns are quarters.
using Quarters = std::array<MatrixXd, 4>;

/// M, of products with maps.
class SecondMoment {
 public:
  explicit SecondMoment(const HostMaps& maps)
      : height_(static_cast<Index>(maps.extent(1))),
        width_(static_cast<Index>(maps.extent(2))),
        fft_({static_cast<int>(2 * height_), static_cast<int>(2 * width_)}) {
    // Padded with zeros to twice their size, maps do not meet themselves around the edges.
    const auto pixels = static_cast<double>(height_ * width_), count = static_cast<double>(maps.extent(0));
    std::vector<double> power(fft_.modes().size(), 0);
    for (std::size_t i = 0; i < maps.extent(0); ++i) {
      report_alive();
      double mean = 0;
      for (Index y = 0; y < height_; ++y)
        for (Index x = 0; x < width_; ++x) mean += static_cast<double>(maps(i, y, x)) / pixels;
      power_of_mean_ += pixels * mean * mean / count;
      pad([&](Index y, Index x) { return static_cast<double>(maps(i, y, x)) - mean; });
      const auto& modes = fft_.forward();
      for (std::size_t k = 0; k < power.size(); ++k) power[k] += std::norm(modes[k]);
    }
    // Sums over pairs at each distance, then their means, up and down alike.
    std::copy(power.begin(), power.end(), fft_.modes().begin());
    fft_.inverse();
    MatrixXd means(height_, width_);
    for (Index y = 0; y < height_; ++y) {
      for (Index x = 0; x < width_; ++x) {
        const double sum = at(y, x) + at((2 * height_ - y) % (2 * height_), x);
        means(y, x) = sum / (2 * 4 * pixels * count * static_cast<double>((height_ - y) * (width_ - x)));
      }
    }
    if (height_ == width_) means = (0.5 * (means + means.transpose())).eval();
    trace_ = pixels * means(0, 0) + power_of_mean_;
    // Those of a map that is periodic over twice its size; no two pixels of a map are half of that apart.
    for (Index y = 0; y < 2 * height_; ++y) {
      for (Index x = 0; x < 2 * width_; ++x) {
        const Index dy = std::min(y, 2 * height_ - y), dx = std::min(x, 2 * width_ - x);
        at(y, x) = dy < height_ && dx < width_ ? means(dy, dx) / (4 * pixels) : 0;
      }
    }
    for (const auto& mode : fft_.forward()) spectrum_.push_back(mode.real());
  }

  /// The sum of all powers: that of the maps.
  double trace() const { return trace_; }

  /// M q, column by column: one of each parity goes through a transform together.
  Quarters operator*(const Quarters& q) {
    const Index quarter = q[0].rows(), half = width_ / 2;
    Quarters products;
    for (MatrixXd& product : products) product.resize(quarter, q[0].cols());
    const auto place = [&](Index y, Index x) {
      return std::min(y, height_ - 1 - y) * half + std::min(x, width_ - 1 - x);
    };
    for (Index column = 0; column < q[0].cols(); ++column) {
      const double mean = q[even].col(column).mean();
      pad([&](Index y, Index x) {
        double sum = -mean;
        for (std::size_t p = 0; p < 4; ++p) {
          const int parity = static_cast<int>(p);
          const int sign = (y < height_ / 2 ? 1 : sign_in_y(parity)) * (x < half ? 1 : sign_in_x(parity));
          sum += sign * q[p](place(y, x), column);
        }
        return 0.5 * sum;
      });
      fft_.forward();
      for (std::size_t k = 0; k < spectrum_.size(); ++k) fft_.modes()[k] *= spectrum_[k];
      fft_.inverse();
      for (std::size_t p = 0; p < 4; ++p) {
        const int in_y = sign_in_y(static_cast<int>(p)), in_x = sign_in_x(static_cast<int>(p));
        for (Index y = 0; y < height_ / 2; ++y)
          for (Index x = 0; x < half; ++x)
            products[p](y * half + x, column) =
                0.5 * (at(y, x) + in_x * at(y, width_ - 1 - x) +
                       in_y * (at(height_ - 1 - y, x) + in_x * at(height_ - 1 - y, width_ - 1 - x)));
      }
      auto product = products[even].col(column).array();
      product += power_of_mean_ * mean - product.mean();
    }
    return products;
  }

 private:
  double& at(Index y, Index x) { return fft_.map()[y * 2 * width_ + x]; }
  /// The transform's map <- f(y, x), and zeros beyond H and W.
  template <class F>
  void pad(const F& f) {
    std::fill_n(fft_.map(), 4 * height_ * width_, 0.0);
    for (Index y = 0; y < height_; ++y)
      for (Index x = 0; x < width_; ++x) at(y, x) = f(y, x);
  }

  Index height_, width_;
  RealFft64 fft_;
  std::vector<double> spectrum_;
  double power_of_mean_ = 0, trace_ = 0;
};

/// The Krylov space of one parity, and M in it.
struct KrylovSpace {
  MatrixXd basis;      ///< [pixel of a quarter, vector], orthonormal; the first `size` columns count
  MatrixXd projected;  ///< [vector, vector] q_i . M q_j, of the first `done` j
  Index size = 0, done = 0;
  Eigen::SelfAdjointEigenSolver<MatrixXd> solver;  ///< of the first done x done

  /// Takes in vectors, as many as there is room for, less what the space has of them.
  void append(MatrixXd vectors) {
    const Index more = std::min(vectors.cols(), basis.rows() - size);
    if (more == 0) return;
    vectors.conservativeResize(Eigen::NoChange, more);
    const auto old = basis.leftCols(size);
    // Again where there was much to take off: what is left of vectors that were in the space is rounding, and gives
    // way to others by chance.
    for (double overlap = 1; overlap > 1e-10;) {
      vectors = Eigen::HouseholderQR<MatrixXd>(vectors).householderQ() * MatrixXd::Identity(basis.rows(), more);
      const MatrixXd had = old.transpose() * vectors;
      vectors -= old * had;
      overlap = had.norm();
    }
    basis.middleCols(size, more) = vectors;
    size += more;
  }

  /// Takes in M q of its next vectors, which have no part in any q_i but the last ones, as M q_i is in the space.
  void grow(const MatrixXd& products) {
    const Index from = std::max<Index>(0, done - block_width), end = size;
    const auto last = basis.middleCols(from, end - from);
    const MatrixXd had = last.transpose() * products;
    projected.block(from, done, end - from, products.cols()) = had;
    append(products - last * had);
    projected.block(end, done, size - end, products.cols()) = basis.middleCols(end, size - end).transpose() * products;
    done += products.cols();
  }

  void reserve(Index vectors) {
    basis.conservativeResize(Eigen::NoChange, vectors);
    projected.conservativeResizeLike(MatrixXd::Zero(vectors, vectors));
  }
};

}  // namespace

double principal_components_bytes(Grid grid, int n) {
  const Index quarter = grid.pixels() / 4;
  const auto vectors = static_cast<double>(room_for(quarter, first_aim(quarter, n)));
  const auto pixels = static_cast<double>(quarter);
  // Bases, projected matrices and their eigenvectors; the components, and those of one parity before they are rounded.
  return sizeof(double) * 4 * (pixels * vectors + 2 * vectors * vectors) +
         (sizeof(float) + sizeof(double) / 4.0) * pixels * n;
}

PrincipalComponents principal_components(const HostMaps& maps, int n) {
  const auto height = static_cast<Index>(maps.extent(1)), width = static_cast<Index>(maps.extent(2));
  const Index pixels = height * width, quarter = pixels / 4;
  const std::string size = std::to_string(width) + " x " + std::to_string(height);
  require(height % 2 == 0 && width % 2 == 0, ExitCode::usage, "principal components of maps of " + size + " pixels",
          "principal_components", "take maps of even sides");
  require(n >= 1 && n < pixels, ExitCode::usage, std::to_string(n) + " components of maps of " + size + " pixels",
          "principal_components", "ask for fewer than there are pixels");
  require(maps.extent(0) > 0, ExitCode::usage, "principal components of no map", "principal_components");

  SecondMoment moment(maps);
  std::array<KrylovSpace, 4> spaces;
  for (std::size_t p = 0; p < 4; ++p) {
    MatrixXd start(quarter, std::min(block_width, quarter));
    const DrawKey key{0, Purpose::power_iteration, static_cast<std::uint32_t>(p), 0};
    for (Index i = 0; i < start.size(); ++i)
      start.data()[i] = static_cast<double>(normal(key, static_cast<std::uint64_t>(i)));
    spaces[p].basis.resize(quarter, start.cols());
    spaces[p].append(start);
  }

  struct Component {
    double power, error;
    std::size_t parity;
    Index column;
  };
  std::vector<Component> found;  // of all spaces, the most powerful first
  for (bool settled = false; !settled;) {
    // A quarter more vectors each time.
    const Index done = spaces[0].done, aim = std::min(quarter, std::max(first_aim(quarter, n), done + done / 4));
    for (KrylovSpace& space : spaces) space.reserve(room_for(quarter, aim));
    while (spaces[0].done < aim) {
      report_alive();
      Quarters next;
      for (std::size_t p = 0; p < 4; ++p)
        next[p] = spaces[p].basis.middleCols(spaces[p].done, std::min(block_width, spaces[p].size - spaces[p].done));
      const Quarters products = moment * next;
      for (std::size_t p = 0; p < 4; ++p) spaces[p].grow(products[p]);
    }
    found.clear();
    for (std::size_t p = 0; p < 4; ++p) {
      report_alive();
      KrylovSpace& s = spaces[p];
      s.solver.compute(s.projected.topLeftCorner(s.done, s.done));
      const MatrixXd outside = s.projected.block(s.done, 0, s.size - s.done, s.done) * s.solver.eigenvectors();
      for (Index c = 0; c < s.done; ++c) found.push_back({s.solver.eigenvalues()(c), outside.col(c).norm(), p, c});
    }
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.power > b.power; });
    settled = spaces[0].done == quarter || std::all_of(found.begin(), found.begin() + n, [&](const auto& c) {
                return c.error <= tolerance * found[0].power;
              });
  }
  found.resize(static_cast<std::size_t>(n));

  PrincipalComponents result;
  result.vectors.resize(static_cast<std::size_t>(quarter * n));
  double sum = 0;
  for (std::size_t p = 0; p < 4; ++p) {
    std::vector<Index> columns;
    for (const Component& c : found)
      if (c.parity == p) columns.push_back(c.column);
    const KrylovSpace& s = spaces[p];
    const MatrixXd vectors = s.basis.leftCols(s.done) * s.solver.eigenvectors()(Eigen::all, columns);
    Index next = 0;
    for (Index k = 0; k < n; ++k) {
      if (found[static_cast<std::size_t>(k)].parity != p) continue;
      for (Index i = 0; i < quarter; ++i)
        result.vectors[static_cast<std::size_t>(i * n + k)] = static_cast<float>(vectors(i, next));
      ++next;
    }
  }
  for (const Component& c : found) {
    result.parity.push_back(static_cast<int>(c.parity));
    result.power.push_back(std::max(0.0, c.power));
    sum += result.power.back();
  }
  result.rest = std::max(0.0, moment.trace() - sum) / static_cast<double>(pixels - n);
  return result;
}

}  // namespace umbriel
