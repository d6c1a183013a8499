/// What the tests of ops share: float64 arrays for references, activations in a wider array, comparisons, gradients by
/// finite differences.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "umbriel/ops/activations.hpp"
#include "umbriel/rng/philox.hpp"

namespace umbriel::testing {

/// Float64 array [n, y, x, c] on the host.
struct Reference {
  Extents extents;
  std::vector<double> values;

  explicit Reference(Extents e) : extents(e), values(static_cast<std::size_t>(e.elements())) {}
  double& operator()(int n, int y, int x, int c) { return values[index(n, y, x, c)]; }
  double operator()(int n, int y, int x, int c) const { return values[index(n, y, x, c)]; }
  /// f(n, y, x, c) for every element.
  template <class F>
  void for_each(const F& f) const {
    for (int n = 0; n < extents.n; ++n) {
      for (int y = 0; y < extents.h; ++y) {
        for (int x = 0; x < extents.w; ++x) {
          for (int c = 0; c < extents.c; ++c) f(n, y, x, c);
        }
      }
    }
  }
  Reference samples(int first, int count) const {
    Reference part({count, extents.h, extents.w, extents.c});
    part.for_each([&](int n, int y, int x, int c) { part(n, y, x, c) = (*this)(first + n, y, x, c); });
    return part;
  }

 private:
  std::size_t index(int n, int y, int x, int c) const {
    return static_cast<std::size_t>(((static_cast<std::int64_t>(n) * extents.h + y) * extents.w + x) * extents.c + c);
  }
};

/// Normals, as float32 holds them, from a stream of their own.
inline Reference random(Extents e, std::uint32_t stream, double mean = 0) {
  Reference result(e);
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    const float value = normal({7, Purpose::test, stream, 0}, i) + static_cast<float>(mean);
    result.values[i] = static_cast<double>(value);
  }
  return result;
}

/// Activations in the kernels' memory, as channels of an array that is `wider` channels wider; the others hold a mark
/// that nobody may change.
class Field {
 public:
  explicit Field(Extents e, int wider = 0)
      : first_(wider / 2),
        memory_("field", static_cast<std::size_t>(e.pixels()) * static_cast<std::size_t>(e.c + wider)) {
    Kokkos::deep_copy(memory_, mark);
    slice = Activations(memory_.data() + first_, e, e.c + wider);
  }
  explicit Field(const Reference& reference, int wider = 0) : Field(reference.extents, wider) {
    const auto host = Kokkos::create_mirror_view(memory_);
    Kokkos::deep_copy(host, memory_);
    for (std::size_t i = 0; i < reference.values.size(); ++i) host(place(i)) = static_cast<float>(reference.values[i]);
    Kokkos::deep_copy(memory_, host);
  }

  Reference read() const {
    Reference result(slice.extents);
    const auto host = on_host(memory_);
    for (std::size_t i = 0; i < result.values.size(); ++i) result.values[i] = static_cast<double>(host(place(i)));
    return result;
  }
  bool neighbours_untouched() const {
    const auto host = on_host(memory_);
    const std::size_t pitch = static_cast<std::size_t>(slice.pitch), c = static_cast<std::size_t>(slice.extents.c);
    for (std::size_t i = 0; i < host.extent(0); ++i) {
      const std::size_t channel = i % pitch;
      const bool ours = channel >= static_cast<std::size_t>(first_) && channel < static_cast<std::size_t>(first_) + c;
      if (!ours && host(i) != mark) return false;
    }
    return true;
  }

  Activations slice;

 private:
  static constexpr float mark = -77.25f;
  std::size_t place(std::size_t i) const {
    const std::size_t c = static_cast<std::size_t>(slice.extents.c);
    return i / c * static_cast<std::size_t>(slice.pitch) + i % c + static_cast<std::size_t>(first_);
  }
  int first_;
  View1<float> memory_;
};

/// A vector in the kernels' memory.
template <class T>
View1<T> upload(const std::vector<double>& values) {
  const View1<T> view("vector", values.size());
  const auto host = Kokkos::create_mirror_view(view);
  for (std::size_t i = 0; i < values.size(); ++i) host(i) = static_cast<T>(values[i]);
  Kokkos::deep_copy(view, host);
  return view;
}
template <class T>
std::vector<double> download(const View1<T>& view) {
  const auto host = on_host(view);
  std::vector<double> values(host.extent(0));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(host(i));
  return values;
}

/// Each element within tolerance * (1 + |expected|).
inline void expect_near(const std::vector<double>& actual, const std::vector<double>& expected, double tolerance,
                        const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * (1 + std::fabs(expected[i]))) << what << ", element " << i;
  }
}
inline void expect_near(const Field& actual, const Reference& expected, double tolerance, const std::string& what) {
  expect_near(actual.read().values, expected.values, tolerance, what);
  EXPECT_TRUE(actual.neighbours_untouched()) << what;
}
inline void expect_same_bits(const std::vector<double>& actual, const std::vector<double>& expected,
                             const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_EQ(actual[i], expected[i]) << what << ", element " << i;
}

/// d loss / d values by central differences.
inline std::vector<double> finite_differences(std::vector<double>& values, const std::function<double()>& loss) {
  constexpr double step = 1e-5;
  std::vector<double> gradient;
  for (double& value : values) {
    const double middle = value;
    value = middle + step;
    const double above = loss();
    value = middle - step;
    const double below = loss();
    value = middle;
    gradient.push_back((above - below) / (2 * step));
  }
  return gradient;
}
inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Channels from one to more than any tile; sizes that divide nothing; dense and in a wider array.
struct Shape {
  Extents extents;
  int wider;
};
inline std::string describe(const Shape& s) {
  const Extents& e = s.extents;
  return std::string("[")
      .append(std::to_string(e.n))
      .append(", ")
      .append(std::to_string(e.h))
      .append(", ")
      .append(std::to_string(e.w))
      .append(", ")
      .append(std::to_string(e.c))
      .append("], wider by ")
      .append(std::to_string(s.wider));
}
inline std::vector<Shape> shapes() {
  std::vector<Shape> result;
  for (const Extents& e : {Extents{2, 7, 9, 1},
                           {3, 5, 11, 3},
                           {4, 231, 229, 1},
                           {2, 37, 41, 16},
                           {1, 9, 13, 33},
                           {3, 6, 5, 64},
                           {2, 3, 4, 257},
                           {1, 2, 3, 1030},
                           {4, 1, 1, 5}}) {
    for (const int wider : {0, 5}) result.push_back({e, wider});
  }
  return result;
}

}  // namespace umbriel::testing
