// SPDX-License-Identifier: Apache-2.0
// TensorCollectives over NCCL: one communicator per group and device, its id spread by MPI.
#pragma once

#include "sharding/tensor_collectives.h"

namespace amalgam {

std::unique_ptr<TensorCollectives> make_nccl_collectives(const Communicator& group, at::Device device);

}  // namespace amalgam
