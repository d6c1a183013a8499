/// Requests to stop from outside: Slurm's --signal=USR1, SIGTERM, Ctrl-C. Handlers only set a flag.
#pragma once

namespace umbriel {

/// Installs handlers for SIGUSR1, SIGTERM and SIGINT.
void watch_stop_signals();
/// True once one of them came to this process; ranks must agree before they act on it.
bool stop_signal_received();

}  // namespace umbriel
