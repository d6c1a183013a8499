/// Checks MPI calls: a failure names the call, the source line and MPI's own text.
#pragma once

// OpenMPI's and MPICH's retired C++ bindings would come with mpi.h and want libraries of their own.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <string>

#include "umbriel/core/check.hpp"
#include "umbriel/mpi/watchdog.hpp"

namespace umbriel::detail {

/// Runs a call that may wait for other ranks; the watchdog is to know.
template <class Call>
int wait_for(const Call& call) {
  const Waiting waiting;
  return call();
}

inline void check_mpi(int status, const char* call, const char* file, int line) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw Error(ExitCode::communication, std::string(call) + " failed: " + std::string(text, length),
              std::string(file) + ":" + std::to_string(line),
              "see the first failed rank's log; the job must be restarted");
}

}  // namespace umbriel::detail

#define UMBRIEL_CHECK_MPI(call) \
  ::umbriel::detail::check_mpi(::umbriel::detail::wait_for([&] { return call; }), #call, __FILE__, __LINE__)
