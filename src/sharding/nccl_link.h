// SPDX-License-Identifier: Apache-2.0
// An NCCL communicator, which the watchdog looks after as long as it lives.
#pragma once

#include <ATen/core/Tensor.h>
#include <nccl.h>

#include "comm/watchdog.h"

namespace amalgam {

/// Throws Error(communication) with NCCL's text and the call unless result is ncclSuccess.
void check_nccl(ncclResult_t result, const char* call);

/// Calls block until their work is queued (NCCL's non-blocking mode starts a thread for each, 0.3 ms on the H200
/// machine of analysis/results/two-gpus). A rank that is missing may leave this one inside NCCL; the watchdog, a thread
/// of its own, still says so and aborts the communicator before the process ends. It looks for asynchronous errors,
/// too.
class NcclLink : private WatchedLink {
  public:
    /// Collective over the `ranks` that `id` was given to. `most_blocks`: that a kernel may occupy, each of them most
    /// of a multiprocessor; 0: as NCCL chooses.
    NcclLink(const ncclUniqueId& id, int ranks, int rank, at::Device device, int most_blocks = 0);
    ~NcclLink() override;

    ncclComm_t get() const { return comm_; }

  private:
    std::string problem() override;
    void abort() override;

    ncclComm_t comm_ = nullptr;
};

/// A new id.
ncclUniqueId make_nccl_id();

}  // namespace amalgam
