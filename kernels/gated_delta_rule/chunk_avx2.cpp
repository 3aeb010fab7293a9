// SPDX-License-Identifier: Apache-2.0
#define AMALGAM_ISA isa_avx2
#include "kernels/gated_delta_rule/chunk_variant.h"

namespace amalgam::kernels {
const ChunkKernels avx2_chunk_kernels = AMALGAM_ISA::chunk_kernels;
}  // namespace amalgam::kernels
