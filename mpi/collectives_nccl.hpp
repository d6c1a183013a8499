/// NCCL transport for device Views. Without NCCL each call returns false and the caller goes through the host.
#pragma once

#include <memory>
#include <string>

#include "umbriel/mpi/collectives.hpp"

namespace umbriel::detail {

#ifdef UMBRIEL_WITH_NCCL
/// What has gone wrong on the device after a call returned, a lost peer for instance, whose collective never ends;
/// empty if nothing has. From any thread.
std::string nccl_failure();

/// @{ True when done; on Kokkos' stream, so that kernels before and after on the same stream are ordered.
bool nccl_all_reduce_sum(const Communicator& comm, const Space& space, const Span& values);
bool nccl_broadcast(const Communicator& comm, const Space& space, const Span& values, int root);
bool nccl_all_gather(const Communicator& comm, const Space& space, const Span& mine, const Span& all);
/// @}

/// Sums on a stream beside Kokkos', so that kernels run on while they do.
class NcclSideStream {
 public:
  /// Null where NCCL cannot serve the ranks. Collective.
  static std::unique_ptr<NcclSideStream> make(const Communicator& comm);
  ~NcclSideStream();
  NcclSideStream(const NcclSideStream&) = delete;
  NcclSideStream& operator=(const NcclSideStream&) = delete;

  /// values <- sum over ranks, after all that `space` has been given so far.
  void all_reduce_sum(const Space& space, const Span& values);
  /// What `space` is given from now on comes after all sums; the host does not wait.
  void join(const Space& space);

 private:
  struct Handles;
  explicit NcclSideStream(std::unique_ptr<Handles> handles);
  std::unique_ptr<Handles> handles_;
};
#else
inline std::string nccl_failure() { return ""; }

inline bool nccl_all_reduce_sum(const Communicator&, const Space&, const Span&) { return false; }
inline bool nccl_broadcast(const Communicator&, const Space&, const Span&, int) { return false; }
inline bool nccl_all_gather(const Communicator&, const Space&, const Span&, const Span&) { return false; }

struct NcclSideStream {
  static std::unique_ptr<NcclSideStream> make(const Communicator&) { return nullptr; }
  void all_reduce_sum(const Space&, const Span&) {}
  void join(const Space&) {}
};
#endif

}  // namespace umbriel::detail
