// Every test program: MPI, Kokkos, GoogleTest; rank 0 speaks, and any rank's failure is the job's.
#include <gtest/gtest.h>

#include <cstdio>

#include "umbriel/core/device_layout.hpp"
#include "umbriel/core/kokkos.hpp"
#include "umbriel/mpi/communicator.hpp"

int main(int argc, char** argv) {
  umbriel::MpiSession mpi(argc, argv);
  Kokkos::ScopeGuard kokkos(argc, argv);
  umbriel::require_device_layout();
  ::testing::InitGoogleTest(&argc, argv);
  const umbriel::Communicator world = umbriel::Communicator::world();
  if (!world.is_root()) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    if (world.size() > 1) std::printf("rank %d reports failures only\n", world.rank());
    delete listeners.Release(listeners.default_result_printer());
    struct FailuresOnly : ::testing::EmptyTestEventListener {
      void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (result.failed()) std::printf("%s:%d: %s\n", result.file_name(), result.line_number(), result.message());
      }
    };
    listeners.Append(new FailuresOnly);
  }
  const int status = RUN_ALL_TESTS();
  const auto* test = ::testing::UnitTest::GetInstance();
  if (world.is_root() && test->test_to_run_count() > 0 && test->skipped_test_count() == test->test_to_run_count())
    std::printf("ALL TESTS SKIPPED\n");
  return static_cast<int>(world.max(status));
}
