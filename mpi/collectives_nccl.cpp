#include "umbriel/mpi/collectives_nccl.hpp"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <map>
#include <memory>
#include <mutex>
#include <utility>

namespace umbriel {
namespace {

void check(ncclResult_t status, const char* call) {
  if (status == ncclSuccess) return;
  throw Error(ExitCode::communication, std::string(call) + " failed: " + ncclGetErrorString(status), "NCCL",
              "set NCCL_DEBUG=WARN for more");
}

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw Error(ExitCode::communication, std::string(call) + " failed: " + cudaGetErrorString(status), "CUDA",
              "see the first failed rank's log; the job must be restarted");
}

/// The NCCL communicators made so far. Each is kept with ours, whose address so cannot come to mean another one.
/// nccl_failure looks at them from the watchdog's thread.
struct Made {
  std::mutex mutex;
  std::map<void*, std::pair<Communicator, ncclComm_t>> comms;
};
Made& made() {
  static Made instance;
  return instance;
}

/// One NCCL communicator for each of ours; null where NCCL cannot serve the ranks (two ranks on one device).
ncclComm_t nccl(const Communicator& comm) {
  {
    const std::lock_guard lock(made().mutex);
    const auto found = made().comms.find(comm.native());
    if (found != made().comms.end()) return found->second.second;
  }
  ncclUniqueId id{};
  if (comm.is_root()) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  comm.broadcast(&id, sizeof id);
  ncclComm_t handle = nullptr;
  const bool ready = ncclCommInitRank(&handle, comm.size(), id, comm.rank()) == ncclSuccess;
  if (comm.min(ready ? 1 : 0) == 0) {
    if (ready) ncclCommAbort(handle);
    handle = nullptr;
  }
  const std::lock_guard lock(made().mutex);
  made().comms.emplace(comm.native(), std::pair(comm, handle));
  return handle;
}

ncclDataType_t type_of(const Span& span) { return span.is_double ? ncclDouble : ncclFloat; }

}  // namespace

namespace detail {

std::string nccl_failure() {
  const std::lock_guard lock(made().mutex);
  for (const auto& [address, entry] : made().comms) {
    ncclResult_t state = ncclSuccess;
    if (entry.second == nullptr || ncclCommGetAsyncError(entry.second, &state) != ncclSuccess) continue;
    if (state != ncclSuccess && state != ncclInProgress) return ncclGetErrorString(state);
  }
  return "";
}

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

struct NcclSideStream::Handles {
  Communicator comm;  ///< keeps `nccl` alive
  ncclComm_t nccl = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;  ///< orders one stream after the other; may be recorded again once it is waited for

  ~Handles() {
    if (stream != nullptr) cudaStreamSynchronize(stream);
    if (event != nullptr) cudaEventDestroy(event);
    if (stream != nullptr) cudaStreamDestroy(stream);
  }

  void order(cudaStream_t before, cudaStream_t after) const {
    check(cudaEventRecord(event, before), "cudaEventRecord");
    check(cudaStreamWaitEvent(after, event, 0), "cudaStreamWaitEvent");
  }
};

NcclSideStream::NcclSideStream(std::unique_ptr<Handles> handles) : handles_(std::move(handles)) {}
NcclSideStream::~NcclSideStream() = default;

std::unique_ptr<NcclSideStream> NcclSideStream::make(const Communicator& comm) {
  const ncclComm_t handle = comm.size() == 1 ? nullptr : nccl(comm);
  if (handle == nullptr) return nullptr;
  auto handles = std::make_unique<Handles>();
  handles->comm = comm;
  handles->nccl = handle;
  check(cudaStreamCreateWithFlags(&handles->stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  check(cudaEventCreateWithFlags(&handles->event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  return std::unique_ptr<NcclSideStream>(new NcclSideStream(std::move(handles)));
}

void NcclSideStream::all_reduce_sum(const Space& space, const Span& values) {
  handles_->order(space.cuda_stream(), handles_->stream);
  check(
      ncclAllReduce(values.data, values.data, values.size, type_of(values), ncclSum, handles_->nccl, handles_->stream),
      "ncclAllReduce");
}

void NcclSideStream::join(const Space& space) { handles_->order(handles_->stream, space.cuda_stream()); }

}  // namespace detail

const char* device_transport() { return "nccl"; }

}  // namespace umbriel
