// SPDX-License-Identifier: Apache-2.0
// The ContextGroup of a group of ranks: MPI for host tensors, NCCL for device tensors.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "mixers/context_group.h"

namespace amalgam {

/// The ranks of `group` share each sequence, in their order, and compute on `device`. Collective over `group`.
std::unique_ptr<ContextGroup> make_context_group(const Communicator& group, at::Device device);

}  // namespace amalgam
