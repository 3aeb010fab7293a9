// SPDX-License-Identifier: Apache-2.0
// Sums over, places in, and copies of the 64 x 64 fragments of hopper.cuh.
#pragma once

#include "kernels/cuda/hopper.cuh"

namespace amalgam::kernels {

using namespace hopper;

/// Sum over the four lanes that share a row.
__device__ inline float sum_columns(float x) {
    x += __shfl_xor_sync(~0U, x, 1);
    return x + __shfl_xor_sync(~0U, x, 2);
}
/// Sum over the eight lanes that share a column.
__device__ inline float sum_rows(float x) {
    x += __shfl_xor_sync(~0U, x, 4);
    x += __shfl_xor_sync(~0U, x, 8);
    return x + __shfl_xor_sync(~0U, x, 16);
}

/// Place of a thread in a 64 x 64 result.
struct Place {
    int top, lane;
    __device__ int row(int r) const { return top + 8 * r; }
    __device__ int column(int i) const { return 8 * i + lane % 4 * 2; }
};

/// Adds the values of lane ^ bit: of the 2 `half` values a thread keeps the lower or the upper half, by its own bit.
template <int half, int size>
__device__ inline void halve(float (&x)[size], int lane, int bit) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
        const float given = upper ? x[i] : x[i + half], kept = upper ? x[i + half] : x[i];
        x[i] = kept + __shfl_xor_sync(~0U, given, bit);
    }
}

/// x[2 i + c] is a thread's part of column 8 i + 2 (lane % 4) + c; the eight lanes of a column add theirs up.
__device__ inline void write_column_sums(float (&columns)[4][64], float (&x)[16], const Place& at, int warp) {
    halve<8>(x, at.lane, 16);
    halve<4>(x, at.lane, 8);
    halve<2>(x, at.lane, 4);
    *reinterpret_cast<float2*>(&columns[warp][at.column(at.lane / 4)]) = make_float2(x[0], x[1]);
}

/// The same for 32 columns, x[2 i + c] of column 8 i + 2 (lane % 4) + c.
__device__ inline void write_column_sums(float* columns, float (&x)[8], int lane) {
    halve<4>(x, lane, 16);
    halve<2>(x, lane, 8);
    halve<1>(x, lane, 4);
    columns[lane / 8 * 8 + lane % 4 * 2 + lane / 4 % 2] = x[0];
}

/// Writes this warp's 16 rows of the state's tiles, [tile][row][64], to device memory at `target`, by way of `staged`.
/// Only this warp touches these rows, so no other has to wait.
template <int tiles>
__device__ inline void save_state_rows(const Left (&state)[4 * tiles], char (&staged)[tiles][tile_bytes], char* target,
                                       int thread) {
    constexpr int bytes = 16 * 128;
    const int warp = thread / 32;
    if (thread % 32 == 0) bulk_stores_read();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4 * tiles; ++i) store_rows(shared_address(staged[i / 4]), i % 4, state[i]);
    publish_shared();
    __syncwarp();
    if (thread % 32 == 0) {
#pragma unroll
        for (int t = 0; t < tiles; ++t)
            bulk_store(target + t * tile_bytes + warp * bytes, shared_address(staged[t]) + warp * bytes, bytes);
    }
}

}  // namespace amalgam::kernels
