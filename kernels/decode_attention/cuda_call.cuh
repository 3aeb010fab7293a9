// SPDX-License-Identifier: Apache-2.0
// What the kernels of decode_attention on GPUs pass to each other, and how they divide the work. A block takes one key
// head of one row, or a stretch of its keys where there are too few rows to fill the GPU; each of its warps takes tiles
// of keys by itself. The warps of a block are put together in shared memory, the blocks of a head by the last of them
// to finish, in a fixed order (cuda_merge.cuh). More than eight query heads of one key head are several blocks.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/elements.cuh"
#include "kernels/decode_attention/decode_attention.h"

namespace amalgam::kernels::cuda::decode {

constexpr const char* operation = "decode_attention on CUDA";
constexpr const char* no_kernel =
    "this shape has no kernel (widths 32, 64, 96 and 128 have); ask decode_attention_supports first";
constexpr int warps = 4, threads = 32 * warps;
constexpr int heads = 8;  // query heads of a block
constexpr int most_splits = 64;

__device__ __forceinline__ std::int64_t in_cache(const CacheShape& s, int slot, int head, int position) {
    return ((std::int64_t(slot) * s.key_value_heads + head) * s.capacity + position) * s.width;
}

template <int width>
struct Tiles {
    static constexpr int keys = width <= 64 ? 32 : 16;    // of a tile
    static constexpr int stages = 3;                      // tiles under way, of a warp: two blocks fit
    static constexpr int stride = 2 * width + 16;         // bytes of a row: an odd number of pieces, no bank conflicts
    static constexpr int tile = keys * stride;            // bytes
    static constexpr int warp_bytes = stages * 2 * tile;  // keys and values
    static constexpr int bytes = warps * warp_bytes;
};

template <class Body>
auto with_width(std::int64_t width, Body&& body) {
    if (width == 32) return body(std::integral_constant<int, 32>{});
    if (width == 64) return body(std::integral_constant<int, 64>{});
    if (width == 96) return body(std::integral_constant<int, 96>{});
    return body(std::integral_constant<int, 128>{});
}

/// How the blocks of a call share the keys: a row is cut into stretches of as many keys, the last of them has what is
/// left. It depends on the shape and on the row's own length.
struct Sharing {
    int splits;       // stretches of a row, at most
    int turn;         // keys that the warps of a block take at a time
    int least_share;  // keys of a stretch: a multiple of `turn`
    int head_blocks;  // of query heads, of one key head

    /// Keys of a stretch, of a row that sees so many.
    __device__ int share(int keys) const {
        return max(least_share, (keys + splits * turn - 1) / (splits * turn) * turn);
    }
};

struct Call {
    DecodeAttention a;
    CacheAppend append;  // where the new tokens are appended in the same kernel
    Sharing sharing;
    float scale;        // times log2 e
    unsigned* arrived;  // [batch, key heads, head blocks], zero before and after a call
    float* mixed;       // [batch, query heads, splits, width]
    float2* weights;    // [batch, query heads, splits]: the largest logit (log2), the sum of weights relative to it
};

/// The keys of one block.
struct Stretch {
    int row, split, key_head, first_head, heads_here;
    int slot, begin, end;  // positions
    int newest;            // position of the row's new token
    int splits;            // stretches of this row
    bool skipped;

    __device__ explicit Stretch(const Call& c) {
        const CacheShape& s = c.a.shape;
        const int head_blocks = c.sharing.head_blocks;
        const int group = int(s.query_heads / s.key_value_heads), of_group = int(blockIdx.x) % head_blocks * heads;
        row = int(blockIdx.z);
        split = int(blockIdx.y);
        key_head = int(blockIdx.x) / head_blocks;
        first_head = key_head * group + of_group;
        heads_here = min(heads, group - of_group);
        slot = c.a.slot[row];
        const int length = newest = c.a.length[row];
        const int all_end = length + 1, all_begin = c.a.window > 0 ? max(0, all_end - int(c.a.window)) : 0;
        const int share = c.sharing.share(all_end - all_begin);
        splits = (all_end - all_begin + share - 1) / share;
        skipped = slot < 0 || length < 0 || length >= s.capacity || split >= splits;
        begin = all_begin + split * share;
        end = min(begin + share, all_end);
    }
};

/// Queues the attention of float32, by a kernel of its own.
void attend_float32(const Call& call, dim3 grid, cudaStream_t stream);
/// Of bfloat16; `appends`: call.append in the same kernel.
void attend_bfloat16(const Call& call, bool appends, dim3 grid, cudaStream_t stream);

}  // namespace amalgam::kernels::cuda::decode
