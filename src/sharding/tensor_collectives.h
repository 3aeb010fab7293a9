// SPDX-License-Identifier: Apache-2.0
// Collectives on tensors over a group of ranks: MPI for host tensors, NCCL for device tensors, never both on one
// memory.
#pragma once

#include <ATen/core/Tensor.h>

#include "comm/communicator.h"

namespace amalgam {

class TensorCollectives {
  public:
    virtual ~TensorCollectives() = default;
    /// Sum over the ranks, in place. fp32 or int64, contiguous.
    virtual void all_reduce(at::Tensor& t) = 0;
};

/// The implementation for tensors of `device`. Collective over `group`.
std::unique_ptr<TensorCollectives> make_tensor_collectives(const Communicator& group, at::Device device);

}  // namespace amalgam
