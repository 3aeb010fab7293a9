// SPDX-License-Identifier: Apache-2.0
// Pieces of results, and sums over the tokens of a warp (cuda_decays.cuh says how a piece lies).
#pragma once

#include "kernels/cuda/hopper.cuh"

namespace amalgam::kernels::kimi_delta {

/// Goes on to the other of the two pieces of a 64 x 32 result, of which elements 0 .. 7 are at hand. The loops over
/// pieces stay loops: unrolled, their code is larger than the instruction cache.
__device__ inline void next_piece(float (&d)[16]) {
#pragma unroll
    for (int e = 0; e < 8; ++e) d[e] = d[8 + e];
}
/// The same, with `x` for the piece that is left: after both, d is that of the two x.
__device__ inline void next_piece(float (&d)[16], const float (&x)[8]) {
    next_piece(d);
#pragma unroll
    for (int e = 0; e < 8; ++e) d[8 + e] = x[e];
}

/// x += that of the lane `step` above (below), where there is one.
template <int step>
__device__ inline void add_from_above(float& x) {
    asm volatile("{\n.reg .pred p;\n.reg .f32 y;\nshfl.sync.down.b32 y|p, %0, %1, 31, -1;\n@p add.f32 %0, %0, y;\n}\n"
                 : "+f"(x)
                 : "n"(step));
}
template <int step>
__device__ inline void add_from_below(float& x) {
    asm volatile("{\n.reg .pred p;\n.reg .f32 y;\nshfl.sync.up.b32 y|p, %0, %1, 0, -1;\n@p add.f32 %0, %0, y;\n}\n"
                 : "+f"(x)
                 : "n"(step));
}

/// Of x, sums over the warp's tokens from each one on. The sum of all is that of lanes 0 .. 3 in elements of the first
/// row.
__device__ inline void sum_from_token(float (&x)[8], int lane) {
#pragma unroll
    for (int e = 0; e < 8; ++e) add_from_above<4>(x[e]);
#pragma unroll
    for (int e = 0; e < 8; ++e) add_from_above<8>(x[e]);
#pragma unroll
    for (int e = 0; e < 8; ++e) add_from_above<16>(x[e]);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int c = 0; c < 2; ++c) x[4 * h + c] += __shfl_sync(~0U, x[4 * h + 2 + c], lane % 4);
    }
}
/// Of x, sums over the warp's tokens before each one; `all` is the sum of all of a channel.
__device__ inline void sum_before_token(float (&x)[8], float (&all)[4], int lane) {
#pragma unroll
    for (int e = 0; e < 8; ++e) add_from_below<4>(x[e]);
#pragma unroll
    for (int e = 0; e < 8; ++e) add_from_below<8>(x[e]);
#pragma unroll
    for (int e = 0; e < 8; ++e) add_from_below<16>(x[e]);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            float &first = x[4 * h + c], &second = x[4 * h + 2 + c];
            const float first_sum = __shfl_sync(~0U, first, 28 + lane % 4),
                        second_sum = __shfl_sync(~0U, second, 28 + lane % 4);
            const float a = __shfl_up_sync(~0U, first, 4), b = __shfl_up_sync(~0U, second, 4);
            first = lane < 4 ? 0.0F : a;
            second = first_sum + (lane < 4 ? 0.0F : b);
            all[2 * h + c] = first_sum + second_sum;
        }
    }
}

}  // namespace amalgam::kernels::kimi_delta
