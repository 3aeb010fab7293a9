// SPDX-License-Identifier: Apache-2.0
#include "sharding/context_ranks.h"

#include "sharding/mpi_context.h"
#include "system/error.h"
#ifdef AMALGAM_CUDA
#include "sharding/nccl_context.h"
#endif

namespace amalgam {

std::unique_ptr<ContextGroup> make_context_group(const Communicator& group, at::Device device) {
    if (device.is_cpu()) return make_mpi_context(group);
#ifdef AMALGAM_CUDA
    return make_nccl_context(group, device);
#else
    throw Error("this build has no CUDA (device tensors need NCCL); configure with -DAMALGAM_CUDA=ON",
                ExitCode::bad_input);
#endif
}

}  // namespace amalgam
