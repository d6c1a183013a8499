#include "umbriel/mpi/communicator.hpp"

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "umbriel/mpi/hdf5_file.hpp"
#include "umbriel/mpi/mpi_check.hpp"

namespace umbriel {
namespace {

MPI_Comm mpi(const Communicator& comm) { return *static_cast<MPI_Comm*>(comm.native()); }

template <class T>
void reduce(const Communicator& comm, T* values, std::size_t n, MPI_Datatype type, MPI_Op op) {
  if (comm.size() == 1) return;
  require(n <= INT_MAX, ExitCode::communication, "a reduction of more than 2^31 values");
  UMBRIEL_CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, values, static_cast<int>(n), type, op, mpi(comm)));
}

}  // namespace

Communicator Communicator::world() {
  // A communicator of our own: no message of ours can meet a library's.
  auto* handle = new MPI_Comm(MPI_COMM_NULL);
  UMBRIEL_CHECK_MPI(MPI_Comm_dup(MPI_COMM_WORLD, handle));
  return own(handle);
}

Communicator Communicator::split(int colour) const {
  if (comm_ == nullptr) return {};
  auto* handle = new MPI_Comm(MPI_COMM_NULL);
  UMBRIEL_CHECK_MPI(MPI_Comm_split(mpi(*this), colour, rank_, handle));
  return own(handle);
}

Communicator Communicator::own(void* handle) {
  const MPI_Comm native = *static_cast<MPI_Comm*>(handle);
  MPI_Comm_set_errhandler(native, MPI_ERRORS_RETURN);
  Communicator comm;
  comm.comm_ = std::shared_ptr<void>(handle, [](void* pointer) {
    auto* owned = static_cast<MPI_Comm*>(pointer);
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized == 0) MPI_Comm_free(owned);
    delete owned;
  });
  UMBRIEL_CHECK_MPI(MPI_Comm_rank(native, &comm.rank_));
  UMBRIEL_CHECK_MPI(MPI_Comm_size(native, &comm.size_));
  return comm;
}

void Communicator::barrier() const {
  if (size_ > 1) UMBRIEL_CHECK_MPI(MPI_Barrier(mpi(*this)));
}

void Communicator::sum(std::int64_t* values, std::size_t n) const { reduce(*this, values, n, MPI_INT64_T, MPI_SUM); }
void Communicator::max(std::int64_t* values, std::size_t n) const { reduce(*this, values, n, MPI_INT64_T, MPI_MAX); }
void Communicator::min(std::int64_t* values, std::size_t n) const { reduce(*this, values, n, MPI_INT64_T, MPI_MIN); }
void Communicator::max(double* values, std::size_t n) const { reduce(*this, values, n, MPI_DOUBLE, MPI_MAX); }
void Communicator::min(double* values, std::size_t n) const { reduce(*this, values, n, MPI_DOUBLE, MPI_MIN); }

void Communicator::broadcast(void* bytes, std::size_t n, int root) const {
  if (size_ == 1) return;
  auto* first = static_cast<char*>(bytes);
  constexpr std::size_t piece = std::size_t{1} << 30;  // MPI counts are 32-bit
  for (std::size_t done = 0; done < n; done += piece) {
    const int count = static_cast<int>(std::min(piece, n - done));
    UMBRIEL_CHECK_MPI(MPI_Bcast(first + done, count, MPI_BYTE, root, mpi(*this)));
  }
}

std::string Communicator::broadcast(std::string text, int root) const {
  std::int64_t length = static_cast<std::int64_t>(text.size());
  broadcast(&length, sizeof length, root);
  text.resize(static_cast<std::size_t>(length));
  broadcast(text.data(), text.size(), root);
  return text;
}

std::vector<std::byte> Communicator::gather(const std::vector<std::byte>& block, int root) const {
  require(root >= 0 && root < size_, ExitCode::communication, "gather to a rank that does not exist");
  if (size_ == 1) return block;
  const std::int64_t mine = static_cast<std::int64_t>(block.size());
  std::vector<std::int64_t> sizes(size_);
  UMBRIEL_CHECK_MPI(MPI_Gather(&mine, 1, MPI_INT64_T, sizes.data(), 1, MPI_INT64_T, root, mpi(*this)));
  constexpr std::int64_t piece = std::int64_t{1} << 30;
  constexpr int tag = 1;
  if (rank_ != root) {
    for (std::int64_t done = 0; done < mine; done += piece) {
      const int count = static_cast<int>(std::min(piece, mine - done));
      UMBRIEL_CHECK_MPI(MPI_Send(block.data() + done, count, MPI_BYTE, root, tag, mpi(*this)));
    }
    return {};
  }
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) total += size;
  std::vector<std::byte> all(static_cast<std::size_t>(total));
  std::int64_t offset = 0;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == root) {
      std::copy(block.begin(), block.end(), all.begin() + offset);
    } else {
      for (std::int64_t done = 0; done < sizes[rank]; done += piece) {
        const int count = static_cast<int>(std::min(piece, sizes[rank] - done));
        UMBRIEL_CHECK_MPI(
            MPI_Recv(all.data() + offset + done, count, MPI_BYTE, rank, tag, mpi(*this), MPI_STATUS_IGNORE));
      }
    }
    offset += sizes[rank];
  }
  return all;
}

template <class T>
std::vector<std::vector<T>> Communicator::exchange(const std::vector<std::vector<T>>& send) const {
  require(static_cast<int>(send.size()) == size_, ExitCode::communication, "exchange needs one block a rank");
  if (size_ == 1) return send;
  std::vector<std::int64_t> out(size_), in(size_);
  for (int r = 0; r < size_; ++r) out[r] = static_cast<std::int64_t>(send[r].size());
  UMBRIEL_CHECK_MPI(MPI_Alltoall(out.data(), 1, MPI_INT64_T, in.data(), 1, MPI_INT64_T, mpi(*this)));
  const MPI_Datatype type = std::is_same_v<T, float> ? MPI_FLOAT : MPI_INT64_T;
  std::vector<std::vector<T>> received(size_);
  std::vector<MPI_Request> requests;
  constexpr std::int64_t piece = std::int64_t{1} << 28;
  constexpr int tag = 2;
  for (int r = 0; r < size_; ++r) {
    received[r].resize(static_cast<std::size_t>(in[r]));
    for (std::int64_t done = 0; done < in[r]; done += piece) {
      const int count = static_cast<int>(std::min(piece, in[r] - done));
      UMBRIEL_CHECK_MPI(
          MPI_Irecv(received[r].data() + done, count, type, r, tag, mpi(*this), &requests.emplace_back()));
    }
  }
  for (int r = 0; r < size_; ++r) {
    for (std::int64_t done = 0; done < out[r]; done += piece) {
      const int count = static_cast<int>(std::min(piece, out[r] - done));
      UMBRIEL_CHECK_MPI(MPI_Isend(send[r].data() + done, count, type, r, tag, mpi(*this), &requests.emplace_back()));
    }
  }
  UMBRIEL_CHECK_MPI(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE));
  return received;
}
template std::vector<std::vector<float>> Communicator::exchange(const std::vector<std::vector<float>>&) const;
template std::vector<std::vector<std::int64_t>> Communicator::exchange(
    const std::vector<std::vector<std::int64_t>>&) const;

void Communicator::together(const std::function<void()>& action) const {
  std::string message;
  bool ok = false;
  int code = static_cast<int>(ExitCode::numerical);
  try {
    action();
    ok = true;
  } catch (const Error& error) {
    message = error.what();
    code = static_cast<int>(error.code());
  } catch (const std::exception& error) {
    message = error.what();
  } catch (...) {
    message = "unknown error";
  }
  const std::int64_t failed = min(ok ? size_ : rank_);
  if (failed == size_) return;
  message = broadcast(message, static_cast<int>(failed));
  broadcast(&code, sizeof code, static_cast<int>(failed));
  if (size_ > 1) message = "rank " + std::to_string(failed) + ": " + message;
  throw Error(static_cast<ExitCode>(code), message, "", "").mark_agreed();
}

MpiSession::MpiSession(int& argc, char**& argv) {
  detail::prepare_hdf5_before_mpi();
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);  // a thread beside is the watchdog's
}

MpiSession::~MpiSession() { MPI_Finalize(); }

void abort_job(int exit_code) {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

ShardRange shard_range(std::int64_t total, int rank, int size) {
  const std::int64_t base = total / size;
  const std::int64_t longer = total % size;
  return {rank * base + std::min<std::int64_t>(rank, longer), base + (rank < longer ? 1 : 0)};
}

int rank_of_item(std::int64_t item, std::int64_t total, int size) {
  const std::int64_t base = total / size, longer = total % size;
  const std::int64_t of_longer = longer * (base + 1);  // items
  return static_cast<int>(item < of_longer ? item / (base + 1) : longer + (item - of_longer) / base);
}

}  // namespace umbriel
