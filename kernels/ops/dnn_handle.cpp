#include "umbriel/ops/dnn_handle.hpp"

#include <string>

namespace umbriel {

void check_cudnn(cudnnStatus_t status, const char* call, const char* file, int line) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Error(ExitCode::numerical,
              std::string(call) + " failed with code " + std::to_string(status) + ", " + cudnnGetErrorString(status),
              std::string(file) + ":" + std::to_string(line),
              "set CUDNN_LOGERR_DBG=1 CUDNN_LOGDEST_DBG=stderr for more");
}

DnnHandle::DnnHandle() {
  require(cudnnGetVersion() >= CUDNN_VERSION, ExitCode::numerical,
          "the cuDNN loaded, " + std::to_string(cudnnGetVersion()) +
              ", is older than the one umbriel was built with, " + std::to_string(CUDNN_VERSION),
          "", "load the module used for the build");
  UMBRIEL_CHECK_CUDNN(cudnnCreate(&handle_));
}

DnnHandle::~DnnHandle() { cudnnDestroy(handle_); }

cudnnHandle_t DnnHandle::on(const Space& space) const {
  UMBRIEL_CHECK_CUDNN(cudnnSetStream(handle_, space.cuda_stream()));
  return handle_;
}

}  // namespace umbriel
