/// NCCL transport for device Views. Without NCCL each call returns false and the caller goes through the host.
#pragma once

#include "umbriel/mpi/collectives.hpp"

namespace umbriel::detail {

#ifdef UMBRIEL_WITH_NCCL
/// @{ True when done; on Kokkos' stream, so that kernels before and after on the same stream are ordered.
bool nccl_all_reduce_sum(const Communicator& comm, const Space& space, const Span& values);
bool nccl_broadcast(const Communicator& comm, const Space& space, const Span& values, int root);
bool nccl_all_gather(const Communicator& comm, const Space& space, const Span& mine, const Span& all);
/// @}
#else
inline bool nccl_all_reduce_sum(const Communicator&, const Space&, const Span&) { return false; }
inline bool nccl_broadcast(const Communicator&, const Space&, const Span&, int) { return false; }
inline bool nccl_all_gather(const Communicator&, const Space&, const Span&, const Span&) { return false; }
#endif

}  // namespace umbriel::detail
