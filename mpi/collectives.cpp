#include "umbriel/mpi/collectives.hpp"

#include <cstring>
#include <vector>

#include "umbriel/mpi/collectives_nccl.hpp"
#include "umbriel/mpi/mpi_check.hpp"
#include "umbriel/mpi/rank_order_sum.hpp"

namespace umbriel {
namespace {

MPI_Comm mpi(const Communicator& comm) { return *static_cast<MPI_Comm*>(comm.native()); }

std::size_t bytes_of(const Span& span) { return span.size * (span.is_double ? sizeof(double) : sizeof(float)); }

/// values <- sum over ranks (see rank_order_sum.hpp).
template <class T>
void sum_over_ranks(const Communicator& comm, T* values, std::size_t n, MPI_Datatype type) {
  const detail::RankOrderPieces pieces(comm, n);
  std::vector<T> received(pieces.received());
  UMBRIEL_CHECK_MPI(MPI_Alltoallv(values, pieces.out_counts.data(), pieces.offsets.data(), type, received.data(),
                                  pieces.in_counts.data(), pieces.in_offsets.data(), type, mpi(comm)));
  detail::add_in_pairs(pieces, values, received.data());
  UMBRIEL_CHECK_MPI(
      MPI_Allgatherv(MPI_IN_PLACE, 0, type, values, pieces.counts.data(), pieces.offsets.data(), type, mpi(comm)));
}

/// Runs `action` on host memory: on the View itself, or on a copy that is taken and brought back.
template <class Action>
void through_host(const Space& space, const Span& span, const Action& action) {
  space.fence();
  if (!span.on_device) {
    action(span);
    return;
  }
  HostView1<char> buffer("umbriel::collective_staging", bytes_of(span));
  const Kokkos::View<char*, Memory, Kokkos::MemoryUnmanaged> device(static_cast<char*>(span.data), bytes_of(span));
  Kokkos::deep_copy(buffer, device);
  action(Span{buffer.data(), span.size, span.is_double, false});
  Kokkos::deep_copy(device, buffer);
}

}  // namespace

namespace detail {

void all_reduce_sum(const Communicator& comm, const Space& space, const Span& values) {
  if (comm.size() == 1) return;
  // See RankOrderPieces.
  require(values.size <= (std::size_t{1} << 31) - 1 - static_cast<std::size_t>(comm.size()), ExitCode::communication,
          "a sum over ranks of more than 2^31 values");
  if (values.on_device && nccl_all_reduce_sum(comm, space, values)) return;
  through_host(space, values, [&](const Span& host) {
    if (host.is_double) {
      sum_over_ranks(comm, static_cast<double*>(host.data), host.size, MPI_DOUBLE);
    } else {
      sum_over_ranks(comm, static_cast<float*>(host.data), host.size, MPI_FLOAT);
    }
  });
}

void broadcast(const Communicator& comm, const Space& space, const Span& values, int root) {
  if (comm.size() == 1) return;
  if (values.on_device && nccl_broadcast(comm, space, values, root)) return;
  through_host(space, values, [&](const Span& host) { comm.broadcast(host.data, bytes_of(host), root); });
}

void all_gather(const Communicator& comm, const Space& space, const Span& mine, const Span& all) {
  require(all.size == mine.size * comm.size() && all.is_double == mine.is_double, ExitCode::communication,
          "all_gather needs room for every rank's block");
  require(mine.size < (std::size_t{1} << 31), ExitCode::communication, "a gather of more than 2^31 values a rank");
  if (mine.on_device && all.on_device && nccl_all_gather(comm, space, mine, all)) return;
  through_host(space, mine, [&](const Span& from) {
    through_host(space, all, [&](const Span& to) {
      if (comm.size() == 1) {
        std::memcpy(to.data, from.data, bytes_of(from));
        return;
      }
      const MPI_Datatype type = from.is_double ? MPI_DOUBLE : MPI_FLOAT;
      const int n = static_cast<int>(from.size);
      UMBRIEL_CHECK_MPI(MPI_Allgather(from.data, n, type, to.data, n, type, mpi(comm)));
    });
  });
}

}  // namespace detail

#ifndef UMBRIEL_WITH_NCCL
const char* device_transport() { return "mpi"; }
#endif

}  // namespace umbriel
