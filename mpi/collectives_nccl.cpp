#include "umbriel/mpi/collectives_nccl.hpp"

#include <nccl.h>

#include <map>
#include <memory>
#include <utility>

namespace umbriel {
namespace {

void check(ncclResult_t status, const char* call) {
  if (status == ncclSuccess) return;
  throw Error(ExitCode::communication, std::string(call) + " failed: " + ncclGetErrorString(status), "NCCL",
              "set NCCL_DEBUG=WARN for more");
}

/// One NCCL communicator for each of ours; null where NCCL cannot serve the ranks (two ranks on one device).
ncclComm_t nccl(const Communicator& comm) {
  // Kept with our communicator, so that its address cannot come to mean another one.
  static std::map<void*, std::pair<Communicator, ncclComm_t>> made;
  const auto found = made.find(comm.native());
  if (found != made.end()) return found->second.second;
  ncclUniqueId id{};
  if (comm.is_root()) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  comm.broadcast(&id, sizeof id);
  ncclComm_t handle = nullptr;
  const bool ready = ncclCommInitRank(&handle, comm.size(), id, comm.rank()) == ncclSuccess;
  if (comm.min(ready ? 1 : 0) == 0) {
    if (ready) ncclCommAbort(handle);
    handle = nullptr;
  }
  made.emplace(comm.native(), std::pair(comm, handle));
  return handle;
}

ncclDataType_t type_of(const Span& span) { return span.is_double ? ncclDouble : ncclFloat; }

}  // namespace

namespace detail {

bool nccl_all_reduce_sum(const Communicator& comm, const Space& space, const Span& values) {
  const ncclComm_t handle = nccl(comm);
  if (handle == nullptr) return false;
  check(ncclAllReduce(values.data, values.data, values.size, type_of(values), ncclSum, handle, space.cuda_stream()),
        "ncclAllReduce");
  return true;
}

bool nccl_broadcast(const Communicator& comm, const Space& space, const Span& values, int root) {
  const ncclComm_t handle = nccl(comm);
  if (handle == nullptr) return false;
  check(ncclBroadcast(values.data, values.data, values.size, type_of(values), root, handle, space.cuda_stream()),
        "ncclBroadcast");
  return true;
}

bool nccl_all_gather(const Communicator& comm, const Space& space, const Span& mine, const Span& all) {
  const ncclComm_t handle = comm.size() == 1 ? nullptr : nccl(comm);
  if (handle == nullptr) return false;
  check(ncclAllGather(mine.data, all.data, mine.size, type_of(mine), handle, space.cuda_stream()), "ncclAllGather");
  return true;
}

}  // namespace detail

const char* device_transport() { return "nccl"; }

}  // namespace umbriel
