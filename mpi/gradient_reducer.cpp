#include "umbriel/mpi/gradient_reducer.hpp"

#include <algorithm>
#include <climits>
#include <utility>
#include <vector>

#include "umbriel/mpi/collectives_nccl.hpp"
#include "umbriel/mpi/mpi_check.hpp"
#include "umbriel/mpi/rank_order_sum.hpp"

namespace umbriel {
namespace {

/// A communicator with the ranks of another, for messages that meet nobody else's.
class OwnComm {
 public:
  explicit OwnComm(const Communicator& comm) {
    UMBRIEL_CHECK_MPI(MPI_Comm_dup(*static_cast<MPI_Comm*>(comm.native()), &comm_));
    UMBRIEL_CHECK_MPI(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
  }
  ~OwnComm() {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized == 0) MPI_Comm_free(&comm_);
  }
  OwnComm(const OwnComm&) = delete;
  OwnComm& operator=(const OwnComm&) = delete;

  operator MPI_Comm() const { return comm_; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

/// A part of the gradients and its way through MPI.
struct Bucket {
  std::int64_t begin = 0, end = 0;
  detail::RankOrderPieces pieces;
  std::vector<float> received;
};

}  // namespace

/// The two halves of a bucket's sum, exchange and gather, have communicators of their own: on each, every rank issues
/// the calls in the order of the buckets, as MPI demands, however early or late an exchange is seen to be complete.
struct GradientReducer::State {
  Communicator comm;
  View1<float> gradients;
  std::unique_ptr<detail::NcclSideStream> nccl;
  HostView1<float> host;        ///< the gradients themselves, or a copy of device memory
  std::vector<Bucket> buckets;  ///< from the end of the array to the beginning
  std::vector<Elements> mine;
  bool shared = false;          ///< `mine` is not everything
  std::int64_t final_from = 0;  ///< the last `first` of this pass
  std::size_t started = 0, added = 0;
  std::vector<MPI_Request> exchanges, gathers;  ///< one a bucket
  std::unique_ptr<OwnComm> exchange_comm, gather_comm;

  bool under_way() const { return nccl == nullptr && comm.size() > 1 && started > 0; }

  void start(const Space& space, std::int64_t first) {
    const std::size_t before = started;
    while (started < buckets.size() && buckets[started].begin >= first) ++started;
    if (started == before) return;
    if (nccl != nullptr) {
      for (std::size_t b = before; b < started; ++b) {
        const auto range = std::make_pair(buckets[b].begin, buckets[b].end);
        nccl->all_reduce_sum(space, span_of(Kokkos::subview(gradients, range)));
      }
      return;
    }
    if constexpr (!runs_on_host) {
      const auto range = std::make_pair(buckets[started - 1].begin, buckets[before].end);
      Kokkos::deep_copy(space, Kokkos::subview(host, range), Kokkos::subview(gradients, range));
    }
    space.fence();
    for (std::size_t b = before; b < started; ++b) {
      Bucket& bucket = buckets[b];
      const detail::RankOrderPieces& pieces = bucket.pieces;
      UMBRIEL_CHECK_MPI(MPI_Ialltoallv(host.data() + bucket.begin, pieces.out_counts.data(), pieces.offsets.data(),
                                       MPI_FLOAT, bucket.received.data(), pieces.in_counts.data(),
                                       pieces.in_offsets.data(), MPI_FLOAT, *exchange_comm, &exchanges[b]));
    }
  }

  void add_and_gather(std::size_t b) {
    detail::add_in_pairs(buckets[b].pieces, host.data() + buckets[b].begin, buckets[b].received.data());
    if (!shared) gather(b, host.data());
    added = b + 1;
  }

  /// Starts to give this rank's piece of a bucket to all.
  void gather(std::size_t b, float* array) {
    const detail::RankOrderPieces& pieces = buckets[b].pieces;
    UMBRIEL_CHECK_MPI(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, array + buckets[b].begin, pieces.counts.data(),
                                      pieces.offsets.data(), MPI_FLOAT, *gather_comm, &gathers[b]));
  }
  void finish_gathers() {
    UMBRIEL_CHECK_MPI(MPI_Waitall(static_cast<int>(gathers.size()), gathers.data(), MPI_STATUSES_IGNORE));
  }

  /// Lets MPI work, and takes buckets whose exchange is complete to the next half.
  void progress() {
    for (int complete = 1; complete != 0 && added < started;) {
      UMBRIEL_CHECK_MPI(MPI_Test(&exchanges[added], &complete, MPI_STATUS_IGNORE));
      if (complete != 0) add_and_gather(added);
    }
    int all = 0;
    UMBRIEL_CHECK_MPI(MPI_Testall(static_cast<int>(gathers.size()), gathers.data(), &all, MPI_STATUSES_IGNORE));
  }
};

GradientReducer::GradientReducer(const Communicator& comm, const View1<float>& gradients, std::int64_t row,
                                 std::size_t bucket_bytes)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.comm = comm;
  s.gradients = gradients;
  s.shared = runs_on_host && row > 0 && comm.size() > 1;
  const auto size = static_cast<std::int64_t>(gradients.size()), unit = std::max<std::int64_t>(1, row);
  s.final_from = size;
  std::int64_t length =
      std::min(static_cast<std::int64_t>(bucket_bytes / sizeof(float)), std::int64_t{INT_MAX} - comm.size());
  length = std::max(unit, length / unit * unit);
  for (const std::int64_t same : {size, row, length}) {
    require(comm.min(same) == comm.max(same), ExitCode::usage, "the ranks have different gradients, rows or buckets",
            "GradientReducer");
  }
  for (std::int64_t end = size; end > 0; end = s.buckets.back().begin) {
    Bucket bucket;
    bucket.end = end;
    bucket.begin = (end - 1) / length * length;
    s.buckets.push_back(std::move(bucket));
  }
  if (!s.shared) s.mine = {{0, size}};
  if (comm.size() == 1) return;
  if constexpr (!runs_on_host) s.nccl = detail::NcclSideStream::make(comm);
  if (s.nccl != nullptr) return;
  s.host = Kokkos::create_mirror_view(HostMemory{}, gradients);
  for (Bucket& bucket : s.buckets) {
    bucket.pieces = detail::RankOrderPieces(comm, static_cast<std::size_t>(bucket.end - bucket.begin), unit);
    bucket.received.resize(bucket.pieces.received());
    if (!s.shared || bucket.pieces.mine() == 0) continue;
    const std::int64_t begin = bucket.begin + bucket.pieces.offsets[comm.rank()];
    s.mine.push_back({begin, begin + bucket.pieces.mine()});
  }
  s.exchanges.assign(s.buckets.size(), MPI_REQUEST_NULL);
  s.gathers.assign(s.buckets.size(), MPI_REQUEST_NULL);
  s.exchange_comm = std::make_unique<OwnComm>(comm);
  s.gather_comm = std::make_unique<OwnComm>(comm);
}

GradientReducer::~GradientReducer() {
  if (state_->under_way()) static_cast<void>(state_.release());
}

void GradientReducer::ready(const Space& space, std::int64_t first) {
  State& s = *state_;
  require(first >= 0 && first <= s.final_from, ExitCode::usage,
          "gradients are announced out of order: element " + std::to_string(first) + " after " +
              std::to_string(s.final_from),
          "GradientReducer::ready", "announce them from the end of the array to its beginning");
  s.final_from = first;
  if (s.comm.size() == 1) return;
  s.start(space, first);
  if (s.nccl == nullptr) s.progress();
}

void GradientReducer::finish(const Space& space) {
  State& s = *state_;
  ready(space, 0);
  if (s.nccl != nullptr) {
    s.nccl->join(space);
  } else if (s.comm.size() > 1) {
    while (s.added < s.buckets.size()) {
      UMBRIEL_CHECK_MPI(MPI_Wait(&s.exchanges[s.added], MPI_STATUS_IGNORE));
      s.add_and_gather(s.added);
    }
    s.finish_gathers();
    if constexpr (!runs_on_host) Kokkos::deep_copy(space, s.gradients, s.host);
  }
  s.final_from = static_cast<std::int64_t>(s.gradients.size());
  s.started = s.added = 0;
}

const std::vector<Elements>& GradientReducer::mine() const { return state_->mine; }

void GradientReducer::gather(const Space& space, const View1<float>& array) {
  State& s = *state_;
  if (!s.shared) return;
  require(array.size() == s.gradients.size(), ExitCode::usage, "an array is not as long as the gradients",
          "GradientReducer::gather");
  space.fence();
  for (std::size_t b = 0; b < s.buckets.size(); ++b) s.gather(b, array.data());
  s.finish_gathers();
}

void GradientReducer::put_together(const Space& space, const View1<double>& values) {
  if (!state_->shared) return;
  space.fence();
  static_assert(sizeof(double) == sizeof(std::int64_t));
  state_->comm.sum(reinterpret_cast<std::int64_t*>(values.data()), values.size());  // bits, and zeros
}

}  // namespace umbriel
