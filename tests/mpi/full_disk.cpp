// Writes a file whose last rank runs into a limit that the writer was not told of.
#include <sys/resource.h>
#include <sys/types.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <vector>

#include "umbriel/core/check.hpp"
#include "umbriel/mpi/communicator.hpp"
#include "umbriel/mpi/hdf5_file.hpp"

// These stand before the C library's: the limit is hidden, and space cannot be reserved. Sanitizers call them before
// they are ready themselves.
extern "C" [[gnu::no_sanitize("address", "undefined")]] int getrlimit(__rlimit_resource_t,
                                                                      struct rlimit* limit) noexcept {
  limit->rlim_cur = limit->rlim_max = RLIM_INFINITY;
  return 0;
}
extern "C" int fallocate(int, int, off_t, off_t) {
  errno = EOPNOTSUPP;
  return -1;
}

int main(int argc, char** argv) {
  umbriel::MpiSession mpi(argc, argv);
  const umbriel::Communicator world = umbriel::Communicator::world();
  try {
    umbriel::Hdf5Writer file(argv[1], world);
    if (world.rank() == world.size() - 1) {
      const struct rlimit limit = {100000, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    const umbriel::ShardRange shard = umbriel::shard_range(20, world.rank(), world.size());
    const std::vector<float> data(static_cast<std::size_t>(shard.count) * 100000, 1.5f);
    file.write_sharded<float>({"/data", {}, "1", "data"}, {20, 100000}, static_cast<std::uint64_t>(shard.first),
                              static_cast<std::uint64_t>(shard.count), data.data());
    file.commit();
  } catch (const umbriel::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
