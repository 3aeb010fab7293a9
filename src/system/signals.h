// SPDX-License-Identifier: Apache-2.0
// Requests that reach a running job from outside. Handlers only set flags; whether the job acts is decided by all ranks
// together (training/stop_request.h). USR1: save and stop. USR2: save and go on. TERM: like USR1, best effort.
#pragma once

namespace amalgam {

struct SignalFlags {
    bool save_and_stop = false;
    bool save = false;
};

/// Installs the handlers. Call before MPI_Init: mpirun forwards USR1 and USR2, and a process without handler dies of
/// them.
void install_signal_handlers();

/// What has arrived since the last call; clears the `save` flag (a stop request stays).
SignalFlags take_signals();

}  // namespace amalgam
