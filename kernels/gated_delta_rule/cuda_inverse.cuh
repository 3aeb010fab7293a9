// SPDX-License-Identifier: Apache-2.0
// The inverse of a 64 x 64 unit lower triangular matrix by one warpgroup: blocks of 16 by substitution in fp32, then
// doubling with fp16 tensor-core products.
#pragma once

#include "kernels/cuda/hopper.cuh"

namespace amalgam::kernels {

using namespace hopper;

constexpr int row_halves = 72;  ///< of 64 x 64 matrices in fp16: rows 16-byte aligned, no bank conflicts
constexpr int product_halves = 40;

struct InverseShared {
    alignas(16) float diagonal[4][16][16];  ///< the 16 x 16 blocks of A on the diagonal
    alignas(16) __half A[64][row_halves];   ///< A below them
    alignas(16) __half R[64][row_halves];
    alignas(16) __half product[32][product_halves];
};

/// The inverse of block `warp` of I + A on the diagonal: lane l < 16 finds column l by forward substitution.
__device__ inline void invert_diagonal(const float (&A)[16][16], __half (&R)[64][row_halves], int warp, int lane) {
    if (lane >= 16) {  // zeros to the right of the block, two columns a lane
        for (int column = 16 * (warp + 1) + 2 * (lane - 16); column < 64; column += 32)
            for (int row = 16 * warp; row < 16 * warp + 16; ++row) *reinterpret_cast<uint32_t*>(&R[row][column]) = 0;
        return;
    }
    float x[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        float sum[2] = {i == lane ? 1.0F : 0.0F, 0.0F};
#pragma unroll
        for (int k = 0; k < i; ++k) sum[k % 2] -= A[i][k] * x[k];
        x[i] = sum[0] + sum[1];
        R[16 * warp + i][16 * warp + lane] = __float2half_rn(x[i]);
    }
}

/// d += X Y for 16 x 16 blocks in fp16; X and Y row-major, d as the two 8-column halves of a 16 x 16 fragment.
__device__ inline void multiply_blocks(float (&d)[8], const __half* X, int X_row, const __half* Y, int Y_row,
                                       int lane) {
    uint32_t a[4], b[4];
    load_matrices(a, shared_address(X + lane % 16 * X_row + lane / 16 * 8));
    load_matrices_transposed(b, shared_address(Y + lane % 16 * Y_row + lane / 16 * 8));
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float* e = &d[4 * h];
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(e[0]), "+f"(e[1]), "+f"(e[2]), "+f"(e[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[2 * h]), "r"(b[2 * h + 1]));
    }
}

__device__ inline void store_block(__half* out, int row, const float (&d)[8], float sign, int lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int h = i / 2, r = i % 2;
        *reinterpret_cast<__half2*>(out + (lane / 4 + 8 * r) * row + 8 * h + lane % 4 * 2) =
            __floats2half2_rn(sign * d[4 * h + 2 * r], sign * d[4 * h + 2 * r + 1]);
    }
}

/// R = (I + A)^-1, from the inverses on its diagonal by doubling: the block below two inverses X1, X2 is -X2 A21 X1.
/// For four warps, which `synchronize` waits for; on entry each has written its block of `diagonal`, on return R wants
/// one more wait.
template <class Synchronize>
__device__ inline void invert(InverseShared& shared, int warp, int lane, Synchronize synchronize) {
    auto& [diagonal, A, R, product] = shared;
    invert_diagonal(diagonal[warp], R, warp, lane);
    synchronize();
    if (warp % 2 == 1) {
        const int top = 16 * warp, left = 16 * (warp - 1);
        __half* scratch = &product[left / 2][0];
        float d[8] = {};
        multiply_blocks(d, &A[top][left], row_halves, &R[left][left], row_halves, lane);
        store_block(scratch, product_halves, d, 1.0F, lane);
        __syncwarp();
        float x[8] = {};
        multiply_blocks(x, &R[top][top], row_halves, scratch, product_halves, lane);
        store_block(&R[top][left], row_halves, x, -1.0F, lane);
    }
    synchronize();
    const int top = 16 * (warp / 2), left = 16 * (warp % 2);
    float d[8] = {};
    for (int i = 0; i < 32; i += 16) multiply_blocks(d, &A[32 + top][i], row_halves, &R[i][left], row_halves, lane);
    store_block(&product[top][left], product_halves, d, 1.0F, lane);
    synchronize();
    float x[8] = {};
    for (int i = 0; i < 32; i += 16)
        multiply_blocks(x, &R[32 + top][32 + i], row_halves, &product[i][left], product_halves, lane);
    store_block(&R[32 + top][left], row_halves, x, -1.0F, lane);
}

}  // namespace amalgam::kernels
