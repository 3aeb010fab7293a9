// SPDX-License-Identifier: Apache-2.0
#include "sharding/tensor_collectives.h"

#include "sharding/mpi_collectives.h"
#include "system/error.h"
#ifdef AMALGAM_CUDA
#include "sharding/nccl_collectives.h"
#endif

namespace amalgam {

std::unique_ptr<TensorCollectives> make_tensor_collectives(const Communicator& group, at::Device device) {
    if (device.is_cpu()) return make_mpi_collectives(group);
#ifdef AMALGAM_CUDA
    return make_nccl_collectives(group, device);
#else
    throw Error("this build has no CUDA (device tensors need NCCL); configure with -DAMALGAM_CUDA=ON",
                ExitCode::bad_input);
#endif
}

}  // namespace amalgam
