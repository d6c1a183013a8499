// A program that hangs in the way it is told, for watchdog.cmake: the watchdog is to end it.
//   watchdog_scenario SCENARIO DEADLINE
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "umbriel/mpi/watchdog.hpp"

int main(int argc, char** argv) {
  umbriel::MpiSession mpi(argc, argv);
  const umbriel::Communicator comm = umbriel::Communicator::world();
  if (argc != 3) return 2;
  const std::string scenario = argv[1];
  const double deadline = std::atof(argv[2]);
  const bool last = comm.rank() == comm.size() - 1;
  const auto work = [](double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); };
  {
    const umbriel::Watchdog watchdog(comm, deadline);
    if (scenario == "stopped") {  // a process that is stopped; the others wait for it
      if (last) std::raise(SIGSTOP);
      comm.barrier();
    } else if (scenario == "stuck") {  // one that neither gets on nor waits
      if (last) work(100 * deadline);
      comm.barrier();
    } else if (scenario == "slow") {  // one that takes long, and says so: no reason to end it
      for (int i = 0; last && i < 30; ++i) {
        umbriel::report_alive();
        work(deadline / 10);
      }
      comm.barrier();
    }
  }
  comm.barrier();
  if (comm.is_root()) std::printf("came to the end\n");
  return 0;
}
