// Collectives on Views.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "umbriel/mpi/collectives.hpp"

namespace umbriel {
namespace {

/// A value whose sum over ranks depends on the order.
[[gnu::noinline]] double term(int rank, std::size_t i) {  // inlined, its product would melt into the sum
  return std::sin(1.0 + 3.7 * rank + static_cast<double>(i)) * std::pow(10.0, (rank * 7 + static_cast<int>(i)) % 9);
}

/// ((0 + 1) + (2 + 3)) + ...: the left half is the largest power of two below the number of ranks.
template <class T>
T sum_in_pairs(int first, int end, std::size_t i) {
  if (end - first == 1) return static_cast<T>(term(first, i));
  int half = 1;
  while (2 * half < end - first) half *= 2;
  return sum_in_pairs<T>(first, first + half, i) + sum_in_pairs<T>(first + half, end, i);
}

template <class T>
void expect_sum_in_pairs() {
  const Communicator comm = Communicator::world();
  for (const std::size_t n : {0, 1, 2, 5, 1000}) {
    HostView1<T> values("values", n);
    for (std::size_t i = 0; i < n; ++i) values(i) = static_cast<T>(term(comm.rank(), i));
    const auto device = on_device(values);
    all_reduce_sum(comm, Space(), device);
    const auto sums = on_host(device);
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_EQ(sums(i), sum_in_pairs<T>(0, comm.size(), i)) << "element " << i << " of " << n;
    }
  }
}

TEST(AllReduceSum, AddsInPairsOfRanks) {
  expect_sum_in_pairs<float>();
  expect_sum_in_pairs<double>();
}

TEST(AllReduceSum, TakesComplexAndManyDimensions) {
  const Communicator comm = Communicator::world();
  const HostView3<Complex> values("values", 2, 3, 5);
  for (std::size_t i = 0; i < 30; ++i)
    values.data()[i] = Complex(static_cast<float>(i), static_cast<float>(comm.rank()));
  all_reduce_sum(comm, Space(), values);
  for (std::size_t i = 0; i < 30; ++i) {
    EXPECT_EQ(values.data()[i].real(), static_cast<float>(comm.size() * static_cast<int>(i)));
    EXPECT_EQ(values.data()[i].imag(), static_cast<float>(comm.size() * (comm.size() - 1) / 2));
  }
}

TEST(Broadcast, TakesEveryRoot) {
  const Communicator comm = Communicator::world();
  for (int root = 0; root < comm.size(); ++root) {
    const View2<float> values("values", 3, 7);
    Kokkos::deep_copy(values, static_cast<float>(comm.rank() + 1));
    broadcast(comm, Space(), values, root);
    const auto host = on_host(values);
    for (std::size_t i = 0; i < host.size(); ++i) EXPECT_EQ(host.data()[i], static_cast<float>(root + 1));
  }
}

TEST(AllGather, PutsBlocksInRankOrder) {
  const Communicator comm = Communicator::world();
  for (const std::size_t n : {0, 1, 6}) {
    const HostView1<double> mine("mine", n);
    for (std::size_t i = 0; i < n; ++i) mine(i) = 100.0 * comm.rank() + static_cast<double>(i);
    const HostView1<double> all("all", n * static_cast<std::size_t>(comm.size()));
    all_gather(comm, Space(), mine, all);
    for (std::size_t i = 0; i < all.size(); ++i)
      EXPECT_EQ(all(i), 100.0 * static_cast<double>(i / n) + static_cast<double>(i % n));
  }
}

TEST(AllGather, RefusesTheWrongRoomOrType) {
  const Communicator comm = Communicator::world();
  const HostView1<double> mine("mine", 4);
  const HostView1<double> small("small", 4 * static_cast<std::size_t>(comm.size()) - 1);
  const HostView1<float> other("other", 4 * static_cast<std::size_t>(comm.size()));
  EXPECT_THROW(all_gather(comm, Space(), mine, small), Error);
  EXPECT_THROW(all_gather(comm, Space(), mine, other), Error);
}

TEST(Collectives, WorkForAProcessAlone) {
  const Communicator alone;
  const HostView1<float> values("values", 3), all("all", 3);
  values(1) = 5;
  all_reduce_sum(alone, Space(), values);
  broadcast(alone, Space(), values);
  all_gather(alone, Space(), values, all);
  EXPECT_EQ(values(1), 5);
  EXPECT_EQ(all(1), 5);
}

TEST(Collectives, RefuseViewsWithGaps) {
  const HostView2<float> values("values", 4, 5);
  const auto column = Kokkos::subview(values, Kokkos::ALL, 1);
  EXPECT_THROW(all_reduce_sum(Communicator(), Space(), column), Error);
}

TEST(Collectives, NameTheirTransport) {
  const std::string transport = device_transport();
  EXPECT_TRUE(transport == "mpi" || transport == "nccl") << transport;
}

}  // namespace
}  // namespace umbriel
