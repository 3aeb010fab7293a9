// SPDX-License-Identifier: Apache-2.0
// Rows as callers give them, of any alignment and before SiLU -> rows as the kernels read them.
#pragma once

#include "kernels/gated_delta_rule/cuda_chunks.cuh"

namespace amalgam::kernels {

template <int views>
struct RowsToCopy {
    DeviceRows rows[views];
};

/// Each view becomes contiguous, one behind the other; the first three, q, k and v, through SiLU if asked. A thread
/// takes eight elements of each.
template <int alignment, int views>
__global__ void copy_rows_kernel(RowsToCopy<views> in, uint4* out, int64_t tokens, int pieces, bool silu) {
    const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= tokens * pieces) return;
    const int64_t token = at / pieces, column = at % pieces * 8;
    uint4 x[views];
#pragma unroll
    for (int i = 0; i < views; ++i) x[i] = load_piece<alignment>(in.rows[i].data + token * in.rows[i].stride + column);
#pragma unroll
    for (int i = 0; i < views; ++i) {
        if (silu && i < 3) {
            for (uint32_t* pair : {&x[i].x, &x[i].y, &x[i].z, &x[i].w}) {
                const float low = hopper::low_half(*pair), high = hopper::high_half(*pair);
                *pair = hopper::pack(low / (1.0F + __expf(-low)), high / (1.0F + __expf(-high)));
            }
        }
        out[i * tokens * pieces + at] = x[i];
    }
}

template <int views>
void copy_rows(const RowsToCopy<views>& in, const __nv_bfloat16* out, int64_t tokens, int64_t width, int alignment,
               bool silu, cudaStream_t stream) {
    const int pieces = static_cast<int>(width / 8);
    const auto blocks = static_cast<unsigned>((tokens * pieces + 255) / 256);
    uint4* target = reinterpret_cast<uint4*>(const_cast<__nv_bfloat16*>(out));
    const auto kernel = alignment == 16  ? copy_rows_kernel<16, views>
                        : alignment == 4 ? copy_rows_kernel<4, views>
                                         : copy_rows_kernel<2, views>;
    kernel<<<blocks, 256, 0, stream>>>(in, target, tokens, pieces, silu);
}

}  // namespace amalgam::kernels
