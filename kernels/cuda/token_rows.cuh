// SPDX-License-Identifier: Apache-2.0
// Rows of tokens in device memory, and their way into tiles.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/hopper.cuh"
#include "kernels/rows.h"

namespace amalgam::kernels {

/// Rows of bf16 as in ConstRows; 16-byte aligned rows unless said otherwise.
struct DeviceRows {
    const __nv_bfloat16* data;
    int64_t stride;
};
struct MutableDeviceRows {
    __nv_bfloat16* data;
    int64_t stride;
};

inline DeviceRows device_rows(const ConstRows& view) {
    return {static_cast<const __nv_bfloat16*>(view.data), view.stride};
}
inline MutableDeviceRows device_rows(const Rows& view) {
    return {static_cast<__nv_bfloat16*>(view.data), view.stride};
}

/// Copies 64 rows of `dim` columns, starting at `first` and valid below `time`, into tiles, by `threads` threads.
template <int dim, int threads>
__device__ inline void load_tiles(uint32_t tiles, DeviceRows rows, int64_t sequence_start, int column, int first,
                                  int time, int thread) {
    constexpr int pieces = dim / 8, rows_at_once = threads / pieces;
    static_assert(threads % pieces == 0 && rows_at_once % 8 == 0);  // the swizzle is the same for all rows of a thread
    const int row = thread / pieces, piece = thread % pieces;
    const __nv_bfloat16* source = rows.data + (sequence_start + first + row) * rows.stride + column + piece * 8;
    const int64_t step = rows_at_once * rows.stride;
    const uint32_t target = tiles + piece / 8 * hopper::tile_bytes + hopper::tile_offset(row, piece % 8);
    // Of an absent row nothing is read, so its address may be any: a choice of another one costs more than the copy.
#pragma unroll
    for (int i = 0; i < 64 / rows_at_once; ++i) {
        hopper::copy_async(target + i * rows_at_once * 128, source, first + row + i * rows_at_once < time);
        source += step;
    }
}

}  // namespace amalgam::kernels
