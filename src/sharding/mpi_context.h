// SPDX-License-Identifier: Apache-2.0
// ContextGroup over MPI, for host tensors. Messages are sent by a thread of their own, so that the sender computes on;
// that takes MPI_THREAD_MULTIPLE. Where MPI offers less, send() returns once the message is on its way.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "mixers/context_group.h"

namespace amalgam {

std::unique_ptr<ContextGroup> make_mpi_context(const Communicator& group);

}  // namespace amalgam
