// SPDX-License-Identifier: Apache-2.0
#define AMALGAM_ISA isa_avx512_bf16
#include "kernels/gated_delta_rule/chunk_variant.h"

namespace amalgam::kernels {
const ChunkKernels avx512_bf16_chunk_kernels = AMALGAM_ISA::chunk_kernels;
}  // namespace amalgam::kernels
