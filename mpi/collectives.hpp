/// Collectives on Views, over MPI for host memory and NCCL for device memory, behind the same calls.
///
/// Sums of floating-point Views run in pairs of ranks on the values as they are: for one number of ranks they are
/// reproducible, across numbers of ranks they are not (see exact_sum.hpp for scalars that must be).
#pragma once

#include "umbriel/core/views.hpp"
#include "umbriel/mpi/communicator.hpp"

namespace umbriel {

/// Contiguous float32 or float64 memory of a View; where it lies decides the transport.
struct Span {
  void* data = nullptr;
  std::size_t size = 0;
  bool is_double = false;
  bool on_device = false;
};

template <class ViewType>
Span span_of(const ViewType& view) {
  using T = typename ViewType::non_const_value_type;
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, Complex>);
  require(view.span_is_contiguous(), ExitCode::usage, "a collective needs a contiguous View", view.label());
  const std::size_t factor = std::is_same_v<T, Complex> ? 2 : 1;
  return {const_cast<void*>(static_cast<const void*>(view.data())), view.size() * factor, std::is_same_v<T, double>,
          !Kokkos::SpaceAccessibility<HostMemory, typename ViewType::memory_space>::accessible};
}

namespace detail {
void all_reduce_sum(const Communicator& comm, const Space& space, const Span& values);
void broadcast(const Communicator& comm, const Space& space, const Span& values, int root);
void all_gather(const Communicator& comm, const Space& space, const Span& mine, const Span& all);
}  // namespace detail

/// values <- sum over ranks of values.
template <class ViewType>
void all_reduce_sum(const Communicator& comm, const Space& space, const ViewType& values) {
  detail::all_reduce_sum(comm, space, span_of(values));
}

/// values <- values of rank `root`.
template <class ViewType>
void broadcast(const Communicator& comm, const Space& space, const ViewType& values, int root = 0) {
  detail::broadcast(comm, space, span_of(values), root);
}

/// all <- blocks of all ranks in rank order; every block has the size of `mine`.
template <class ViewType, class AllView>
void all_gather(const Communicator& comm, const Space& space, const ViewType& mine, const AllView& all) {
  detail::all_gather(comm, space, span_of(mine), span_of(all));
}

/// "nccl" or "mpi": what carries device Views in this build.
const char* device_transport();

}  // namespace umbriel
