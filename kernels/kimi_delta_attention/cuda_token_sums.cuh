// SPDX-License-Identifier: Apache-2.0
// Pieces of results, and sums over the tokens of a warp (cuda_decays.cuh says how a piece lies).
#pragma once

#include "kernels/cuda/hopper.cuh"

namespace amalgam::kernels::kimi_delta {

/// Piece p of the two of a 64 x 32 result. The loops over pieces stay loops: unrolled, their code is larger than the
/// instruction cache.
__device__ inline void get_piece(float (&x)[8], const float (&d)[16], int p) {
#pragma unroll
    for (int e = 0; e < 8; ++e) x[e] = p == 0 ? d[e] : d[8 + e];
}
__device__ inline void set_piece(float (&d)[16], const float (&x)[8], int p) {
#pragma unroll
    for (int e = 0; e < 8; ++e) d[e] = p == 0 ? x[e] : d[e], d[8 + e] = p == 0 ? d[8 + e] : x[e];
}

/// Of x, sums over the warp's tokens from each one on. The sum of all is that of lanes 0 .. 3 in elements of the first
/// row.
__device__ inline void sum_from_token(float (&x)[8], int lane) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float other = __shfl_down_sync(~0U, x[e], step);
            if (lane + step < 32) x[e] += other;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int c = 0; c < 2; ++c) x[4 * h + c] += __shfl_sync(~0U, x[4 * h + 2 + c], lane % 4);
    }
}
/// Of x, sums over the warp's tokens before each one; `all` is the sum of all of a channel.
__device__ inline void sum_before_token(float (&x)[8], float (&all)[4], int lane) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float other = __shfl_up_sync(~0U, x[e], step);
            if (lane >= step) x[e] += other;
        }
    }
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
