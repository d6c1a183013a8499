// Gradients summed while a backward pass runs: bits of the rank-order sum, whatever the buckets and the announcements.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#include "umbriel/mpi/collectives.hpp"
#include "umbriel/mpi/gradient_reducer.hpp"

namespace umbriel {
namespace {

/// A value whose float32 sum over ranks depends on the order.
[[gnu::noinline]] float term(int rank, int pass, std::int64_t i) {
  const double x = static_cast<double>(i) + 17.3 * pass;
  return static_cast<float>(std::sin(1.0 + 3.7 * rank + x) * std::pow(10.0, static_cast<double>((rank * 7 + i) % 9)));
}

void fill(const View1<float>& gradients, int rank, int pass, std::int64_t first, std::int64_t end) {
  const HostView1<float> host("host", static_cast<std::size_t>(end - first));
  for (std::int64_t i = first; i < end; ++i) host(static_cast<std::size_t>(i - first)) = term(rank, pass, i);
  Kokkos::deep_copy(Space(), Kokkos::subview(gradients, std::make_pair(first, end)), host);
}

/// ((0 + 1) + (2 + 3)) + ...: the left half is the largest power of two below the number of ranks.
float sum_in_pairs(int first, int end, int pass, std::int64_t i) {
  if (end - first == 1) return term(first, pass, i);
  int half = 1;
  while (2 * half < end - first) half *= 2;
  return sum_in_pairs(first, first + half, pass, i) + sum_in_pairs(first + half, end, pass, i);
}

void expect_sum_in_pairs(const View1<float>& gradients, int ranks, int pass) {
  Space().fence();
  const auto sums = on_host(gradients);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(sums.size()); ++i) {
    ASSERT_EQ(sums(static_cast<std::size_t>(i)), sum_in_pairs(0, ranks, pass, i))
        << "element " << i << " of pass " << pass;
  }
}

TEST(GradientReducer, SumsInPairsOfRanksWhateverTheBuckets) {
  const Communicator comm = Communicator::world();
  const Space space;
  for (const std::int64_t n : {0, 1, 3, 1000, 4099}) {
    for (const std::size_t bucket_bytes : {std::size_t{0}, std::size_t{4}, std::size_t{403}, std::size_t{1} << 20}) {
      if (n > 1000 && bucket_bytes < 400) continue;  // thousands of messages prove no more than a thousand
      const View1<float> gradients("gradients", static_cast<std::size_t>(n));
      GradientReducer reducer(comm, gradients, 0, bucket_bytes);
      for (int pass = 0; pass < 3; ++pass) {
        // Layers of different lengths, written just before they are announced; the last one is left to `finish`.
        std::int64_t done = n;
        for (std::int64_t layer = 1; done > n / 10; layer = 3 * layer + pass) {
          const std::int64_t first = std::max<std::int64_t>(0, done - layer);
          fill(gradients, comm.rank(), pass, first, done);
          reducer.ready(space, first);
          reducer.ready(space, first);  // only lets transfers progress
          done = first;
        }
        fill(gradients, comm.rank(), pass, 0, done);
        reducer.finish(space);
        expect_sum_in_pairs(gradients, comm.size(), pass);
      }
    }
  }
}

// Each rank its own rows: every element is one rank's, whose sum is the one that all would get, and values made of sums
// come to all.
TEST(GradientReducer, LeavesEachRankTheSumsOfItsOwnRows) {
  const Communicator comm = Communicator::world();
  const Space space;
  const std::int64_t row = 10;
  for (const std::int64_t n : {0, 7, 10, 1000, 2017}) {
    for (const std::size_t bucket_bytes : {std::size_t{4}, std::size_t{1000}, std::size_t{1} << 20}) {
      const auto size = static_cast<std::size_t>(n);
      const View1<float> gradients("gradients", size), values("values", size);
      GradientReducer reducer(comm, gradients, row, bucket_bytes);
      for (int pass = 0; pass < 2; ++pass) {
        fill(gradients, comm.rank(), pass, 0, n);
        reducer.ready(space, n / 3);
        reducer.finish(space);
        space.fence();
        const auto sums = on_host(gradients);
        const View1<double> owners("owners", size);
        std::vector<std::int64_t> owned(size, 0);
        int wrong = 0;
        Kokkos::deep_copy(values, std::nanf(""));
        for (const auto& [begin, end] : reducer.mine()) {
          EXPECT_EQ(begin % row, 0);
          EXPECT_TRUE(end % row == 0 || end == n) << end;
          const auto range = std::make_pair(begin, end);
          Kokkos::deep_copy(Kokkos::subview(values, range), Kokkos::subview(gradients, range));
          Kokkos::deep_copy(Kokkos::subview(owners, range), -1.0 - comm.rank());
          for (std::int64_t i = begin; i < end; ++i) {
            ++owned[static_cast<std::size_t>(i)];
            if (sums(static_cast<std::size_t>(i)) != sum_in_pairs(0, comm.size(), pass, i)) ++wrong;
          }
        }
        EXPECT_EQ(wrong, 0) << "of " << n << " elements in buckets of " << bucket_bytes << " bytes";
        reducer.gather(space, values);
        expect_sum_in_pairs(values, comm.size(), pass);
        if (!runs_on_host) continue;
        comm.sum(owned.data(), size);
        EXPECT_EQ(std::count(owned.begin(), owned.end(), 1), n) << "each element is one rank's";
        reducer.put_together(space, owners);
        const auto all = on_host(owners);
        for (std::size_t i = 0; i < size; ++i) EXPECT_TRUE(all(i) < 0 && all(i) >= -comm.size()) << i;
      }
    }
  }
  const View1<float> gradients("gradients", 2000), longer("longer", 2001);
  GradientReducer reducer(comm, gradients, row);
  reducer.finish(space);
  if (runs_on_host && comm.size() > 1) {
    EXPECT_THROW(reducer.gather(space, longer), Error);
  }
}

TEST(GradientReducer, HasTheBitsOfAllReduceSum) {
  const Communicator comm = Communicator::world();
  const Space space;
  const std::int64_t n = 2003;
  const View1<float> gradients("gradients", n), whole("whole", n);
  fill(gradients, comm.rank(), 0, 0, n);
  fill(whole, comm.rank(), 0, 0, n);
  GradientReducer reducer(comm, gradients, 0, 1000);
  reducer.finish(space);
  all_reduce_sum(comm, space, whole);
  space.fence();
  const auto a = on_host(gradients), b = on_host(whole);
  for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(a(i), b(i));
}

// Ranks that announce at different times and in different steps, with other collectives in between.
TEST(GradientReducer, RanksNeedNotKeepStep) {
  const Communicator comm = Communicator::world();
  const Space space;
  const std::int64_t n = 1201;
  const View1<float> gradients("gradients", n), other("other", 5);
  GradientReducer reducer(comm, gradients, 0, 64);
  for (int pass = 0; pass < 2; ++pass) {
    fill(gradients, comm.rank(), pass, 0, n);
    std::this_thread::sleep_for(std::chrono::milliseconds((comm.rank() + pass) % 3 * 10));
    const std::int64_t step = comm.rank() % 2 == 0 ? 7 : 400;
    for (std::int64_t first = n; first > n / 2; first -= step) reducer.ready(space, first);
    Kokkos::deep_copy(other, 1.0f);
    all_reduce_sum(comm, space, other);
    if (comm.rank() != 1) reducer.ready(space, 0);
    reducer.finish(space);
    expect_sum_in_pairs(gradients, comm.size(), pass);
    EXPECT_EQ(on_host(other)(4), static_cast<float>(comm.size()));
  }
}

TEST(GradientReducer, RefusesGradientsOutOfOrder) {
  const Communicator comm = Communicator::world();
  const Space space;
  const View1<float> gradients("gradients", 10);
  GradientReducer reducer(comm, gradients, 0, 8);
  EXPECT_THROW(reducer.ready(space, 11), Error);
  EXPECT_THROW(reducer.ready(space, -1), Error);
  reducer.ready(space, 6);
  EXPECT_THROW(reducer.ready(space, 7), Error);
  reducer.ready(space, 6);
  reducer.finish(space);
  reducer.ready(space, 9);  // a new pass
  reducer.finish(space);
}

TEST(GradientReducer, RefusesDifferentGradients) {
  const Communicator comm = Communicator::world();
  if (comm.size() == 1) GTEST_SKIP() << "needs two ranks";
  const std::size_t odd = comm.rank() == 1 ? 1 : 0;
  const std::int64_t row = comm.rank() == 1 ? 2 : 4;
  const View1<float> longer("gradients", 10 + odd), same("gradients", 10);
  EXPECT_THROW(GradientReducer(comm, longer, 0, 8), Error);
  EXPECT_THROW(GradientReducer(comm, same, 0, 8 + 4 * odd), Error);
  EXPECT_THROW(GradientReducer(comm, same, row, 16), Error);
}

// An exception in the middle of a pass: the memory outlives the reducer, and the next reducer meets no old message.
TEST(GradientReducer, MayBeAbandoned) {
  const Communicator comm = Communicator::world();
  const Space space;
  const std::int64_t n = 3000;
  {
    const View1<float> gradients("abandoned", n);
    GradientReducer reducer(comm, gradients, 0, 400);
    reducer.ready(space, 1500);
  }
  const View1<float> gradients("gradients", n);
  GradientReducer reducer(comm, gradients, 0, 400);
  fill(gradients, comm.rank(), 0, 0, n);
  reducer.finish(space);
  expect_sum_in_pairs(gradients, comm.size(), 0);
}

TEST(GradientReducer, WorksForAProcessAlone) {
  const Space space;
  const View1<float> gradients("gradients", 7);
  Kokkos::deep_copy(gradients, 3.0f);
  GradientReducer reducer(Communicator(), gradients, 0, 8);
  reducer.ready(space, 4);
  reducer.finish(space);
  EXPECT_EQ(on_host(gradients)(6), 3.0f);
}

}  // namespace
}  // namespace umbriel
