// SPDX-License-Identifier: Apache-2.0
// MPI_Init_thread to MPI_Finalize as one object in main(). Aborts the job if it is left by an exception on one rank.
#pragma once

#include "comm/communicator.h"

namespace amalgam {

class MpiSession {
  public:
    /// Asks for MPI_THREAD_MULTIPLE: transfers of weights in the background and the watchdog talk MPI from threads of
    /// their own, each on its own duplicate of a communicator.
    MpiSession(int* argc, char*** argv);
    ~MpiSession();
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;

    const Communicator& world() const { return world_; }

    /// Ends all ranks of the job with `exit_code`. For failures that other ranks do not know of.
    [[noreturn]] void abort(int exit_code) const;

  private:
    Communicator world_;
};

}  // namespace amalgam
