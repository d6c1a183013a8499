/// A cuDNN handle that works on Kokkos' stream.
///
/// Since Kokkos 4 its CUDA stream does not order against the default stream: a library that is not told Kokkos' stream
/// races with the kernels around it.
#pragma once

#include <cudnn.h>

#include "umbriel/core/check.hpp"
#include "umbriel/core/kokkos.hpp"

namespace umbriel {

/// Throws Error(numerical) with call, code, meaning and place unless the call succeeded.
void check_cudnn(cudnnStatus_t status, const char* call, const char* file, int line);

#define UMBRIEL_CHECK_CUDNN(call) ::umbriel::check_cudnn((call), #call, __FILE__, __LINE__)

class DnnHandle {
 public:
  /// Creates a handle on the current device; costs about a hundred milliseconds and some device memory, so keep it.
  /// @throws Error(numerical), also where the cuDNN that is loaded is older than the one compiled against
  DnnHandle();
  ~DnnHandle();
  DnnHandle(const DnnHandle&) = delete;
  DnnHandle& operator=(const DnnHandle&) = delete;

  /// The handle, bound to the stream of `space`: calls made with it run in the order of kernels given to `space`.
  cudnnHandle_t on(const Space& space) const;

 private:
  cudnnHandle_t handle_ = nullptr;
};

}  // namespace umbriel
